-- Keys make names and emails unique without regard to case or Unicode form; old rows get theirs after this file.
ALTER TABLE users ADD COLUMN username_key {KEY};
ALTER TABLE users ADD COLUMN email_key {KEY};
CREATE UNIQUE INDEX users_username_key ON users (username_key);
CREATE UNIQUE INDEX users_email_key ON users (email_key);
ALTER TABLE users ADD COLUMN role VARCHAR(20) NOT NULL DEFAULT 'user';
ALTER TABLE users ADD COLUMN is_disabled SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN token_version INT NOT NULL DEFAULT 0;

CREATE TABLE IF NOT EXISTS attempts (
    name VARCHAR(100) NOT NULL PRIMARY KEY,
    hits INT NOT NULL,
    expires_at BIGINT NOT NULL
) {TABLE};
