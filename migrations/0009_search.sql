-- The prompt as searches compare it; NULL in rows that the release before writes, until the next start.
ALTER TABLE image_generations ADD COLUMN search_text MEDIUMBLOB;
-- By status and model first: what older programs left waiting, without a model, costs the queue nothing.
CREATE INDEX generations_waiting ON image_generations (status, model, user_id, not_before, id);
