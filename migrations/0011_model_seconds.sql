-- How long an image of each model usually takes, so that the time left can be told for each model by itself.
CREATE TABLE IF NOT EXISTS model_seconds (
    model VARCHAR(64) NOT NULL PRIMARY KEY,
    seconds DOUBLE NOT NULL
) {TABLE};
