-- Until when the network of a counter is known, because the account logged in from it.
ALTER TABLE rate_limits ADD COLUMN known_until BIGINT NOT NULL DEFAULT 0;

-- How many images the account has submitted in a minute, which is counted from 1970.
ALTER TABLE users ADD COLUMN submit_minute INT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN submitted_in_minute INT NOT NULL DEFAULT 0;
