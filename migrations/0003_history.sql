-- A history page costs the same at any length: one index serves its order, the other the count of new rows.
UPDATE image_generations
   SET created_at = COALESCE(updated_at, CURRENT_TIMESTAMP), updated_at = COALESCE(updated_at, CURRENT_TIMESTAMP)
 WHERE created_at IS NULL;
CREATE INDEX generations_newest ON image_generations (user_id, created_at, id);
CREATE INDEX generations_count ON image_generations (user_id, id);
ALTER TABLE users ADD COLUMN settled_count INT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN settled_id INT NOT NULL DEFAULT 0;
