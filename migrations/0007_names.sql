-- Standard names, and a counter of images. Processes of the release before this one may go on while machines
-- are upgraded one by one. What they need stays until a later release drops it: the tables attempts,
-- doomed_files and queue_gate, and the columns is_sent, settled_count and settled_id.

-- Counters with an end: how often something was tried.
CREATE TABLE IF NOT EXISTS rate_limits (
    name VARCHAR(100) NOT NULL PRIMARY KEY,
    hits INT NOT NULL,
    expires_at BIGINT NOT NULL
) {TABLE};

-- Files to be deleted at a time, unless a row keeps them: entered before a file is written, and when its row goes.
CREATE TABLE IF NOT EXISTS pending_deletions (
    file_key VARCHAR(190) NOT NULL PRIMARY KEY,
    due_at BIGINT NOT NULL
) {TABLE};
CREATE INDEX pending_deletions_due ON pending_deletions (due_at);

-- Whether a request that may be charged has been sent for a generation: then it is not repeated by itself.
ALTER TABLE image_generations ADD COLUMN may_be_charged SMALLINT NOT NULL DEFAULT 0;

-- How many generations a user has.
ALTER TABLE users ADD COLUMN image_count INT NOT NULL DEFAULT 0;
UPDATE users SET image_count = (SELECT COUNT(*) FROM image_generations WHERE user_id = users.id);
