-- A link to one image that its owner shared: whoever has its token sees the picture, until it ends.
CREATE TABLE IF NOT EXISTS shares (
    id {ID},
    user_id INT NOT NULL,
    generation_id INT NOT NULL,
    token_hash VARCHAR(64) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
) {TABLE};
CREATE UNIQUE INDEX shares_token ON shares (token_hash);
CREATE INDEX shares_owner ON shares (user_id, id);
CREATE INDEX shares_generation ON shares (generation_id);
CREATE INDEX shares_expiry ON shares (expires_at);

-- A link by which a browser fetches an archive: whose session made it, and which images it shall have.
CREATE TABLE IF NOT EXISTS archive_links (
    id {ID},
    user_id INT NOT NULL,
    token_hash VARCHAR(64) NOT NULL,
    selection MEDIUMTEXT NOT NULL,
    expires_at BIGINT NOT NULL
) {TABLE};
CREATE UNIQUE INDEX archive_links_token ON archive_links (token_hash);
CREATE INDEX archive_links_owner ON archive_links (user_id, id);
CREATE INDEX archive_links_expiry ON archive_links (expires_at);
