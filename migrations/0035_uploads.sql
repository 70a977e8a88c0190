-- Pictures that an account sent, to make images from. The name of their files is the id. When no record uses one any
-- more, it goes a day after the last request for it: due_at is when a sweep looks. What is left of a deleted one answers 410.
CREATE TABLE IF NOT EXISTS uploads (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    user_id INT NOT NULL,
    sha256 VARCHAR(64),
    extension VARCHAR(8) NOT NULL,
    width INT NOT NULL,
    height INT NOT NULL,
    clear_pixels INT NOT NULL,
    picture_bytes INT NOT NULL,
    file_bytes INT NOT NULL,
    created_at BIGINT NOT NULL,
    wanted_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    deleted_at BIGINT NOT NULL DEFAULT 0
) {TABLE};
CREATE UNIQUE INDEX uploads_same ON uploads (user_id, sha256);
CREATE INDEX uploads_due ON uploads (due_at);

-- Which generations, in the history or in the trash, were made from which of them.
CREATE TABLE IF NOT EXISTS upload_uses (
    id {ID},
    user_id INT NOT NULL,
    upload_id VARCHAR(32) NOT NULL,
    generation_id INT NOT NULL
) {TABLE};
CREATE UNIQUE INDEX upload_uses_once ON upload_uses (upload_id, generation_id);
CREATE INDEX upload_uses_of_image ON upload_uses (generation_id);
CREATE INDEX upload_uses_of_user ON upload_uses (user_id);

-- What a generation was made from, JSON; NULL if from words alone.
ALTER TABLE image_generations ADD COLUMN inputs_json TEXT;
ALTER TABLE trashed_generations ADD COLUMN inputs_json TEXT;
