-- The limits of an account; NULL is as the settings say. All of them end at limits_until, if that is there.
ALTER TABLE users ADD COLUMN limit_daily_images INT;
ALTER TABLE users ADD COLUMN limit_active_jobs INT;
-- Names of models between commas, with one at each end.
ALTER TABLE users ADD COLUMN limit_models VARCHAR(2000) {BYTES};
ALTER TABLE users ADD COLUMN limits_until BIGINT;
ALTER TABLE users ADD COLUMN limits_source VARCHAR(20);

-- What opens an account, or is entered later: how often, until when, and the limits that an account gets for so many
-- days. The code itself is not kept.
CREATE TABLE IF NOT EXISTS invites (
    id {ID},
    code_hash VARCHAR(64) NOT NULL,
    note VARCHAR(200) NOT NULL,
    uses INT NOT NULL DEFAULT 0,
    max_uses INT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    daily_images INT,
    active_jobs INT,
    models VARCHAR(2000) {BYTES},
    limit_days INT
) {TABLE};
CREATE UNIQUE INDEX invites_code ON invites (code_hash);

-- Each account uses an invite once.
CREATE TABLE IF NOT EXISTS invite_uses (
    invite_id INT NOT NULL,
    user_id INT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (invite_id, user_id)
) {TABLE};
CREATE INDEX invite_uses_user ON invite_uses (user_id);
