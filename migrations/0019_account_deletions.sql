-- When an account was deleted; 0 if it was not. Its row stays until all its others are gone, which may take minutes.
ALTER TABLE users ADD COLUMN deleted_at BIGINT NOT NULL DEFAULT 0;
CREATE INDEX users_deleted ON users (deleted_at);
-- The tombstones of an account are deleted with it.
CREATE INDEX deleted_generations_user ON deleted_generations (user_id);
