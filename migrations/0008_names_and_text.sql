-- Which names and emails are the same, the keys alone decide, alike on every database: MySQL's usual collations would
-- refuse josé where there is jose. SQLite compares bytes anyway. FORCE keeps the order of the indexes, by which a
-- duplicate is named.
{MYSQL} ALTER TABLE users
{MYSQL}     MODIFY username VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
{MYSQL}     MODIFY email VARCHAR(120) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
{MYSQL}     FORCE;
