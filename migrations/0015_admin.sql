-- What operators have changed, and whose images they have looked at. Ids and names stay as they were.
CREATE TABLE IF NOT EXISTS audit_log (
    id {ID},
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    actor_id INT,
    actor_name VARCHAR(64) NOT NULL,
    address VARCHAR(64) NOT NULL,
    action VARCHAR(40) NOT NULL,
    target_kind VARCHAR(20) NOT NULL,
    target_id INT,
    target_name VARCHAR(100) NOT NULL,
    before_json TEXT,
    after_json TEXT
) {TABLE};
CREATE INDEX audit_time ON audit_log (created_at);
CREATE INDEX audit_actor ON audit_log (actor_id, id);
CREATE INDEX audit_actor_name ON audit_log (actor_name, id);
CREATE INDEX audit_action ON audit_log (action, id);
CREATE INDEX users_role ON users (role, is_disabled);
CREATE INDEX users_created ON users (created_at);

-- Models of which no job is taken; '' stands for the whole queue.
CREATE TABLE IF NOT EXISTS paused_models (
    model {KEY},
    paused_at BIGINT NOT NULL
) {TABLE};
CREATE UNIQUE INDEX paused_models_model ON paused_models (model);

-- How many jobs of a model ended so on a day of the quota, and how long they took in all and at most.
CREATE TABLE IF NOT EXISTS daily_jobs (
    day INT NOT NULL,
    model VARCHAR(64) NOT NULL,
    outcome VARCHAR(20) NOT NULL,
    jobs INT NOT NULL,
    bytes BIGINT NOT NULL,
    waiting_seconds BIGINT NOT NULL,
    waiting_most INT NOT NULL,
    running_seconds BIGINT NOT NULL,
    running_most INT NOT NULL,
    PRIMARY KEY (day, model, outcome)
) {TABLE};
