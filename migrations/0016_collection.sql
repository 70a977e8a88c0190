-- The tags of a generation as its record shows them, JSON; the bytes of its files, NULL until they are known; and, in
-- seconds since 1970, when it came back from the trash: IMAGE_DAYS count from then.
ALTER TABLE image_generations ADD COLUMN tags TEXT;
ALTER TABLE image_generations ADD COLUMN file_bytes BIGINT;
ALTER TABLE image_generations ADD COLUMN kept_since BIGINT NOT NULL DEFAULT 0;
-- The sum of file_bytes of the account, the trash included.
ALTER TABLE users ADD COLUMN storage_bytes BIGINT NOT NULL DEFAULT 0;

-- The same tags for lists and filters: tag_key is the tag as it is compared, created_at that of the generation.
CREATE TABLE IF NOT EXISTS image_tags (
    id {ID},
    user_id INT NOT NULL,
    generation_id INT NOT NULL,
    tag_key {KEY},
    tag VARCHAR(40) NOT NULL,
    created_at DATETIME(6)
) {TABLE};
CREATE UNIQUE INDEX image_tags_of_image ON image_tags (generation_id, tag_key);
CREATE INDEX image_tags_newest ON image_tags (user_id, tag_key, created_at, generation_id);

-- The trash: rows of image_generations as they were, so that every column it gets must be added here, too.
{MYSQL} CREATE TABLE IF NOT EXISTS trashed_generations LIKE image_generations;
{SQLITE} CREATE TABLE IF NOT EXISTS trashed_generations AS SELECT * FROM image_generations WHERE 0;
ALTER TABLE trashed_generations ADD COLUMN trashed_at BIGINT NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX trashed_ids ON trashed_generations (id);
CREATE INDEX trashed_newest ON trashed_generations (user_id, trashed_at, id);
CREATE INDEX trashed_oldest ON trashed_generations (trashed_at);

-- Their files, which nobody gets meanwhile.
CREATE TABLE IF NOT EXISTS trashed_files (
    file_key {KEY},
    generation_id INT NOT NULL,
    user_id INT NOT NULL
) {TABLE};
CREATE UNIQUE INDEX trashed_files_key ON trashed_files (file_key);
CREATE INDEX trashed_files_of_image ON trashed_files (generation_id);
CREATE INDEX trashed_files_of_user ON trashed_files (user_id);
