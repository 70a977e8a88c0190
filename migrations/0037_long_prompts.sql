-- Room for prompts of 32,000 characters of any script. MySQL and MariaDB write the tables anew.
{MYSQL} ALTER TABLE image_generations MODIFY COLUMN prompt_text MEDIUMTEXT NOT NULL;
{MYSQL} ALTER TABLE trashed_generations MODIFY COLUMN prompt_text MEDIUMTEXT NOT NULL;
