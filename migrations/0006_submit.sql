-- No more of a user's generations than this are unfinished. It starts with so many that the first submit counts them.
ALTER TABLE users ADD COLUMN active_at_most INT NOT NULL DEFAULT 1000000;
