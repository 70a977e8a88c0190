-- A session is good as long as its row is there. Tokens of the release before name none, and stay good by token_version.
CREATE TABLE IF NOT EXISTS sessions (
    id VARCHAR(16) NOT NULL PRIMARY KEY,
    user_id INT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address VARCHAR(64) NOT NULL,
    client VARCHAR(40) NOT NULL
) {TABLE};
CREATE INDEX sessions_user ON sessions (user_id, seen_at);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Keys for programs; of the key itself only the SHA-256 is kept, with which the id begins.
CREATE TABLE IF NOT EXISTS api_keys (
    id VARCHAR(16) NOT NULL PRIMARY KEY,
    user_id INT NOT NULL,
    key_hash VARCHAR(64) NOT NULL,
    prefix VARCHAR(24) NOT NULL,
    name VARCHAR(64) NOT NULL,
    scopes VARCHAR(40) NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    expires_at BIGINT,
    daily_images INT,
    quota_day INT NOT NULL DEFAULT 0,
    quota_used INT NOT NULL DEFAULT 0
) {TABLE};
CREATE INDEX api_keys_user ON api_keys (user_id);

-- The key by which a generation was asked for.
ALTER TABLE image_generations ADD COLUMN api_key_id VARCHAR(16);
