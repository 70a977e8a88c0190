-- Whether a request that somebody may pay for has been sent for a generation: then nobody repeats it by itself.
ALTER TABLE image_generations ADD COLUMN is_sent SMALLINT NOT NULL DEFAULT 0;
-- What the engine itself says of a failure, shown behind the sentence of the error code.
ALTER TABLE image_generations ADD COLUMN error_detail VARCHAR(300);
