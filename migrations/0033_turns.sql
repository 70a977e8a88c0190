-- What only one worker of all does at a time, and when that was last begun, in seconds since 1970.
CREATE TABLE IF NOT EXISTS turns (
    name VARCHAR(20) NOT NULL PRIMARY KEY,
    taken_at BIGINT NOT NULL DEFAULT 0
) {TABLE};

INSERT INTO turns (name)
SELECT 'sweep' FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM turns WHERE name = 'sweep');
