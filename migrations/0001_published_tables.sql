-- The two tables of the published contract. A database made by hand from it has them already.
CREATE TABLE IF NOT EXISTS users (
    id {ID},
    username VARCHAR(64) UNIQUE NOT NULL,
    email VARCHAR(120) UNIQUE NOT NULL,
    password_hash VARCHAR(256) NOT NULL,
    avatar_url VARCHAR(256),
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
) {TABLE};

CREATE TABLE IF NOT EXISTS image_generations (
    id {ID},
    user_id INT NOT NULL,
    prompt_text TEXT NOT NULL,
    image_filename VARCHAR(256),
    image_url VARCHAR(256),
    thumbnail_url VARCHAR(256),
    status VARCHAR(20) NOT NULL DEFAULT 'pending',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP {ON_UPDATE_NOW},
    generation_params_json TEXT,
    error_message TEXT,
    FOREIGN KEY (user_id) REFERENCES users (id)
) {TABLE};
