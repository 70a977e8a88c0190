-- What waits of each user and model: how many, the first and the last id, and when the user was served, so that neither
-- whose turn it is nor how long the queue is has to be found out from all the jobs. Processes of the release before do
-- not keep it; workers set it right.
CREATE TABLE IF NOT EXISTS waiting (
    user_id INT NOT NULL,
    model VARCHAR(64) {BYTES} NOT NULL,
    number INT NOT NULL,
    first_id INT NOT NULL,
    last_id INT NOT NULL,
    served_at DOUBLE NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, model)
) {TABLE};
CREATE INDEX waiting_turn ON waiting (model, served_at, first_id);
-- Whether the user has submitted something that is not in there yet: to say so costs a submit next to nothing.
ALTER TABLE users ADD COLUMN has_new SMALLINT NOT NULL DEFAULT 0;
CREATE INDEX users_has_new ON users (has_new);
INSERT INTO waiting (user_id, model, number, first_id, last_id, served_at)
SELECT g.user_id, g.model, COUNT(*), MIN(g.id), MAX(g.id), MAX(u.served_at)
  FROM image_generations AS g
  JOIN users AS u ON u.id = g.user_id
 WHERE g.status = 'pending' AND g.model IS NOT NULL
 GROUP BY g.user_id, g.model;

-- The turn of comparing that with the jobs.
INSERT INTO turns (name)
SELECT 'recount' FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM turns WHERE name = 'recount');

-- A cluster wants a primary key in each table.
{MYSQL} ALTER TABLE paused_models ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY;
{MYSQL} ALTER TABLE trashed_files ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY;
