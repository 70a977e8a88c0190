-- The row of a generation is the job: who works on it, until when, and how far it is.
-- Rows older than this have no model, and so are never taken, swept or counted as waiting.
ALTER TABLE image_generations ADD COLUMN model VARCHAR(64);
ALTER TABLE image_generations ADD COLUMN width INT;
ALTER TABLE image_generations ADD COLUMN height INT;
ALTER TABLE image_generations ADD COLUMN progress SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE image_generations ADD COLUMN favorite SMALLINT NOT NULL DEFAULT 0;
ALTER TABLE image_generations ADD COLUMN error_code VARCHAR(64);
ALTER TABLE image_generations ADD COLUMN attempt INT NOT NULL DEFAULT 0;
ALTER TABLE image_generations ADD COLUMN claim VARCHAR(32);
ALTER TABLE image_generations ADD COLUMN not_before BIGINT NOT NULL DEFAULT 0;
ALTER TABLE image_generations ADD COLUMN lease_until BIGINT;
ALTER TABLE image_generations ADD COLUMN deadline_at BIGINT;
ALTER TABLE image_generations ADD COLUMN quota_day INT;
ALTER TABLE image_generations ADD COLUMN started_at DATETIME;
ALTER TABLE image_generations ADD COLUMN finished_at DATETIME;
CREATE INDEX generations_queue ON image_generations (status, user_id, model, not_before, id);
CREATE INDEX generations_status ON image_generations (user_id, status, created_at, id);
CREATE INDEX generations_model ON image_generations (user_id, model, created_at, id);
CREATE INDEX generations_favorite ON image_generations (user_id, favorite, created_at, id);

ALTER TABLE users ADD COLUMN served_at DOUBLE NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN quota_day INT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN quota_used INT NOT NULL DEFAULT 0;

-- The same key and body again gives the same generations.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    user_id INT NOT NULL,
    idempotency_key VARCHAR(100) NOT NULL,
    body_hash VARCHAR(64) NOT NULL,
    generation_ids VARCHAR(200) NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, idempotency_key)
) {TABLE};
CREATE INDEX idempotency_expiry ON idempotency_keys (expires_at);

-- What is left of a deleted generation: that it was there, and whose it was.
CREATE TABLE IF NOT EXISTS deleted_generations (
    id INT NOT NULL PRIMARY KEY,
    user_id INT NOT NULL
) {TABLE};

-- Files no row owns: entered before a file is written, and when its row goes; due ones are removed.
CREATE TABLE IF NOT EXISTS doomed_files (
    file_key VARCHAR(190) NOT NULL PRIMARY KEY,
    due_at BIGINT NOT NULL
) {TABLE};
CREATE INDEX doomed_files_due ON doomed_files (due_at);

-- The worker processes that were alive lately.
CREATE TABLE IF NOT EXISTS workers (
    name VARCHAR(100) NOT NULL PRIMARY KEY,
    models TEXT NOT NULL,
    run_seconds DOUBLE NOT NULL,
    seen_at BIGINT NOT NULL
) {TABLE};
CREATE INDEX workers_seen ON workers (seen_at);

-- One row, locked by whoever takes one of the last places of the queue.
CREATE TABLE IF NOT EXISTS queue_gate (id INT NOT NULL PRIMARY KEY) {TABLE};
INSERT INTO queue_gate (id) VALUES (1);
