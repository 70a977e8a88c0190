-- Codes that were mailed or given to the owner of an account, as hashes: the last one of each purpose. Each is good as
-- long as the account has this token_version, so it ends with the account's sessions.
CREATE TABLE IF NOT EXISTS codes (
    user_id INT NOT NULL,
    purpose VARCHAR(10) NOT NULL,
    code_hash CHAR(64) NOT NULL,
    email VARCHAR(120) NOT NULL,
    token_version INT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, purpose)
) {TABLE};
CREATE INDEX codes_code_hash ON codes (code_hash);

-- Mail to be sent. A row without user_id is for the account that has this email, if there is one.
CREATE TABLE IF NOT EXISTS mails (
    id {ID},
    kind VARCHAR(10) NOT NULL,
    user_id INT NULL,
    token_version INT NULL,
    email VARCHAR(255) NOT NULL,
    language VARCHAR(2) NOT NULL,
    tries INT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL
) {TABLE};
CREATE INDEX mails_due_at ON mails (due_at);
CREATE INDEX mails_user_id ON mails (user_id);

-- Accounts from before there were confirmations count as confirmed, and so do those that another release opens.
ALTER TABLE users ADD COLUMN email_confirmed SMALLINT NOT NULL DEFAULT 1;
