-- The second factor: its secret is encrypted, and no time step counts twice. Recovery codes are kept as SHA-256.
ALTER TABLE users ADD COLUMN totp_secret VARCHAR(255) NULL;
ALTER TABLE users ADD COLUMN totp_step BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN has_second_factor SMALLINT NOT NULL DEFAULT 0;

CREATE TABLE IF NOT EXISTS recovery_codes (
    user_id INT NOT NULL,
    code_hash CHAR(64) NOT NULL,
    PRIMARY KEY (user_id, code_hash)
) {TABLE};

-- Who somebody is at an OpenID provider; the hash is of issuer and subject, which are unique only together.
CREATE TABLE IF NOT EXISTS identities (
    identity_hash CHAR(64) NOT NULL PRIMARY KEY,
    user_id INT NOT NULL,
    issuer VARCHAR(255) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
) {TABLE};
CREATE INDEX identities_user ON identities (user_id);

-- Log-ins from there that the front end has not fetched yet.
CREATE TABLE IF NOT EXISTS login_codes (
    code_hash CHAR(64) NOT NULL PRIMARY KEY,
    challenge CHAR(43) NOT NULL,
    claims TEXT NOT NULL,
    expires_at BIGINT NOT NULL
) {TABLE};
