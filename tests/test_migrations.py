"""Databases old and new are brought to today's schema, whatever happens on the way."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pymysql
import pytest
from werkzeug.security import generate_password_hash

import db
import migrations
import pool
from accounts import users
from config import settings as config
from images import jobs, tags, trash
from tests.conftest import Person, form
from tests.servers import ROOT, clean_environment

# What people made by hand from the published description, on MySQL.
PUBLISHED = (
    """
    CREATE TABLE users (
        id INT AUTO_INCREMENT PRIMARY KEY, username VARCHAR(64) UNIQUE NOT NULL,
        email VARCHAR(120) UNIQUE NOT NULL, password_hash VARCHAR(256) NOT NULL,
        avatar_url VARCHAR(256), created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
    """,
    """
    CREATE TABLE image_generations (
        id INT AUTO_INCREMENT PRIMARY KEY, user_id INT NOT NULL, prompt_text TEXT NOT NULL,
        image_filename VARCHAR(256), image_url VARCHAR(256), thumbnail_url VARCHAR(256),
        status VARCHAR(20) NOT NULL DEFAULT 'pending',
        created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
        updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        generation_params_json TEXT, error_message TEXT, FOREIGN KEY (user_id) REFERENCES users (id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
    """,
)


@pytest.fixture
def published(mariadb, request, settings):
    """A database made by hand, with two accounts and a history, from another time zone."""
    mariadb.run(
        "DROP DATABASE IF EXISTS published", "CREATE DATABASE published CHARACTER SET utf8mb4"
    )
    mariadb.run(*PUBLISHED, database="published")
    for name, text in mariadb.settings("published").items():
        setattr(settings, name, int(text) if name == "MYSQL_PORT" else text)
    pool.pool.close()
    alice, bob = (
        generate_password_hash(word, method="pbkdf2:sha256:1000")
        for word in ("secret1", "a much longer one than 20")
    )
    mariadb.run(
        "SET time_zone = '+08:00'",
        f"""
        INSERT INTO users VALUES
            (1, 'Alice', 'Alice@example.com', '{alice}', '/api/uploads/avatars/a.jpg',
             '2023-05-30 20:34:56'),
            (7, '测试用户', 'bob@example.com', '{bob}', NULL, '2023-06-01 00:00:00')
        """,
        """
        INSERT INTO image_generations VALUES
            (3, 1, 'A beautiful sunset', 'x.png', '/api/uploads/generated_images/1/x.png',
             '/api/uploads/generated_images/1/x.png', 'completed', '2023-10-28 20:00:00',
             '2023-10-28 20:00:05', '{"model_used":"test_model_v1","seed":12345,"steps":50}', NULL),
            (9, 1, '日落', NULL, NULL, NULL, 'failed', '2023-10-29 00:00:00',
             '2023-10-29 00:00:00', NULL, 'out of memory')
        """,
        database="published",
    )
    yield mariadb
    pool.pool.close()


def test_an_empty_database_gets_every_migration_once(empty_database):
    first, second = migrations.upgrade(), migrations.upgrade()

    assert first == [path.stem for path in migrations.files()] and second == []
    assert all(applied_at for _, applied_at in migrations.status())


def test_old_accounts_still_log_in_by_name_in_any_case(published):
    migrations.upgrade()

    alice, bob = Person(), Person()
    answers = [
        alice.post("/api/auth/login", json={"username": "alice", "password": "secret1"}),
        bob.post(
            "/api/auth/login",
            json={"username": "测试用户", "password": "a much longer one than 20"},
        ),
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json["data"]["user"] == {
        "username": "Alice",
        "email": "Alice@example.com",
        "avatarUrl": "/api/uploads/avatars/a.jpg",
    }


def test_old_rows_are_shown_as_they_were_and_their_times_in_utc(published):
    migrations.upgrade()
    alice = Person()
    alice.name = "Alice"
    alice.log_in()

    page = alice.history()

    assert page["pagination"]["total"] == 2
    assert page["records"][0]["errorMessage"] == "out of memory"
    expected = {
        "id": 3,
        "prompt": "A beautiful sunset",
        "status": "completed",
        "imageUrl": "/api/uploads/generated_images/1/x.png",
        "thumbnailUrl": "/api/uploads/generated_images/1/x.png",
        "createdAt": "2023-10-28T12:00:00Z",
        "updatedAt": "2023-10-28T12:00:05Z",
        "params": {"model_used": "test_model_v1", "seed": 12345, "steps": 50},
        "errorMessage": None,
    }
    assert {name: page["records"][1][name] for name in expected} == expected
    assert alice.get("/api/auth/profile").json["data"]["created_at"] == "2023-05-30T12:34:56Z"


def test_old_names_are_taken(published):
    migrations.upgrade()

    response = Person().post("/api/auth/register", data=form("alice", email="new@example.com"))

    assert response.json["code"] == "username_taken"


def test_an_upgrade_killed_at_any_statement_is_resumed(published):
    every = [statement for path in migrations.files() for statement in migrations.statements(path)]
    connection = pool.connect()
    for path in migrations.files():
        # As if killed after the first statement of each file, and the lock left behind.
        with suppress(pymysql.ProgrammingError):  # its table is made by a second one
            connection.run(migrations.statements(path)[0])
    migrations.create_own_tables(connection)
    connection.run("INSERT INTO schema_lock VALUES (1, 'killed', UNIX_TIMESTAMP() - 3600)")
    connection.close()

    applied = migrations.upgrade()

    assert applied == [path.stem for path in migrations.files()] and len(every) > len(applied)
    assert db.one("SELECT username_key FROM users WHERE id = 1")["username_key"] == "alice"


def test_many_upgrades_at_once_apply_each_file_once(published):
    environment = clean_environment(**published.settings("published"))
    command = [sys.executable, "-m", "flask", "db", "upgrade"]

    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    assert sorted("".join(outputs).split()) == sorted(
        word for path in migrations.files() for word in ("Applied", path.stem)
    )


def test_many_upgrades_of_a_new_sqlite_file_at_once_succeed(tmp_path):
    environment = clean_environment(DATA_DIR=str(tmp_path))
    command = [sys.executable, "-m", "flask", "db", "upgrade"]

    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    assert "".join(outputs).count("Applied") == len(migrations.files())


def test_accounts_that_differ_only_in_unicode_form_both_keep_working(published):
    bob = generate_password_hash("secret2", method="pbkdf2:sha256:1000")
    # utf8mb4_general_ci of the hand-made table tells these from 'Alice'; our key does not.
    published.run(
        f"INSERT INTO users VALUES (8, 'Ａlice', 'Ａlice@example.com', '{bob}', NULL, NOW())",
        database="published",
    )

    migrations.upgrade()

    logins = [("Alice", "secret1"), ("Ａlice", "secret2")]
    bodies = [{"username": name, "password": password} for name, password in logins]
    answers = [Person().post("/api/auth/login", json=body) for body in bodies]
    assert [answer.json["data"]["user"]["username"] for answer in answers] == ["Alice", "Ａlice"]


def test_rows_without_times_get_some(published):
    published.run(
        """
        ALTER TABLE image_generations
             MODIFY created_at TIMESTAMP NULL,
             MODIFY updated_at TIMESTAMP NULL
        """,
        "UPDATE image_generations SET created_at = NULL WHERE id = 9",
        database="published",
    )

    migrations.upgrade()

    rows = db.all("SELECT id, created_at FROM image_generations ORDER BY id")
    assert rows[0]["created_at"] == "2023-10-28 12:00:00" and rows[1]["created_at"]


def test_accounts_added_by_an_older_version_get_their_keys_at_the_next_start(published):
    migrations.upgrade()
    published.run(
        "INSERT INTO users (username, email, password_hash) VALUES ('Old', 'o@x.de', 'x')",
        database="published",
    )

    users.fill_keys()

    assert db.one("SELECT username_key FROM users WHERE username = 'Old'")["username_key"] == "old"


# -- From the release before the standard names ---------------------------------------------------


@pytest.fixture
def before_names(empty_database, monkeypatch):
    """A database in use by the release before: a queue with all kinds of jobs, and files."""
    older = [path for path in migrations.files() if path.stem < "0007"]
    monkeypatch.setattr(migrations, "files", lambda: older)
    monkeypatch.setattr(migrations, "days_since", lambda connection, version: 8)
    migrations.upgrade()
    password_hash = generate_password_hash("secret1", method="pbkdf2:sha256:1000")
    db.insert(
        "users",
        username="alice",
        username_key="alice",
        email="a@x.de",
        email_key="a@x.de",
        password_hash=password_hash,
        settled_count=1,
        settled_id=1,
        active_at_most=3,
    )
    add_old("completed", image_url="/api/uploads/generated_images/1/a.png")
    add_old("pending")
    add_old("processing", claim="dead", lease_until=1, deadline_at=2**40, attempt=1)
    add_old("processing", claim="paid", lease_until=1, deadline_at=2**40, attempt=1, is_sent=1)
    doom("generated_images/1/orphan.png")
    monkeypatch.undo()
    return empty_database


def add_old(status: str, **columns) -> int:
    """Insert a generation as the release before did."""
    params = '{"model_used": "test_model_v1", "seed": 1, "width": 64, "height": 64}'
    row = {"model": "test_model", "width": 64, "height": 64, "generation_params_json": params}
    row |= {"user_id": 1, "prompt_text": status, "status": status, **columns}
    return db.insert("image_generations", **row)


def doom(key: str) -> None:
    """Enter a file to be deleted as the release before did, and write it."""
    db.execute("INSERT INTO doomed_files (file_key, due_at) VALUES (%s, 1)", key)
    file = config.uploads_dir / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"orphan")


def alice() -> Person:
    person = Person()
    person.name = "alice"
    person.log_in()
    return person


def work() -> None:
    jobs.sweep()
    while job := jobs.acquire(["test_model"]):
        jobs.run(job)


def statuses(person: Person) -> list[tuple[str, str, str | None]]:
    records = reversed(person.history()["records"])
    return [(one["prompt"], one["status"], one["errorCode"]) for one in records]


def test_a_queue_of_the_release_before_is_worked_on(before_names):
    newer = [path.stem for path in migrations.files() if path.stem >= "0007"]
    assert migrations.upgrade() == newer

    work()

    person = alice()
    assert statuses(person) == [
        ("completed", "completed", None),
        ("pending", "completed", None),
        ("processing", "completed", None),
        ("processing", "failed", "outcome_unknown"),
    ]
    assert person.history()["pagination"]["total"] == 4
    assert not (config.uploads_dir / "generated_images/1/orphan.png").exists()


def test_processes_of_the_release_before_may_go_on_while_machines_are_upgraded(before_names):
    migrations.upgrade()
    doom("generated_images/1/late.png")
    add_old("pending")
    number = add_old("processing", claim="x", lease_until=1, deadline_at=2**40, attempt=1)
    db.execute("UPDATE image_generations SET is_sent = 1 WHERE id = %s", number)

    assert migrations.upgrade() == []  # of the last machine
    work()

    person = alice()
    assert person.history()["pagination"]["total"] == 6
    assert statuses(person)[4:] == [
        ("pending", "completed", None),
        ("processing", "failed", "outcome_unknown"),
    ]
    assert not (config.uploads_dir / "generated_images/1/late.png").exists()


def test_a_charge_noted_by_this_release_is_seen_by_the_one_before(before_names):
    migrations.upgrade()
    job = jobs.acquire(["test_model"])

    jobs.mark_may_be_charged(job)

    assert db.value("SELECT is_sent FROM image_generations WHERE id = %s", job["id"]) == 1


def test_a_counter_is_not_counted_anew_long_after_the_upgrade(before_names):
    migrations.upgrade()
    week_ago = "2020-01-01 00:00:00"
    db.execute("UPDATE schema_migrations SET applied_at = %s", week_ago)
    db.execute("UPDATE users SET image_count = 77")

    migrations.upgrade()

    assert db.value("SELECT image_count FROM users") == 77


# -- From the release before sessions, tags, trash and keys ----------------------------------------


@pytest.fixture
def used(alice):
    """An account with something in each of the new tables."""
    first, second = (alice.generate().json["data"]["id"] for _ in range(2))
    alice.post("/api/v1/images/tags", json={"ids": [first, second], "add": ["sea"]})
    for table in users.NEW_TABLES:
        copy_user_id(table, alice.id)
    return alice


def copy_user_id(table: str, user_id: int) -> None:
    """Insert a row of a user, with a value in each column that must have one."""
    connection = pool.connect()
    if config.uses_mysql:
        sql = f"SHOW COLUMNS FROM {table}"
        columns = {
            row["Field"]: row["Type"]
            for row in connection.run(sql).rows
            if row["Null"] == "NO" and row["Default"] is None and not row["Extra"]
        }
    else:
        columns = {
            row["name"]: row["type"]
            for row in connection.run(f"PRAGMA table_info({table})").rows
            if (row["notnull"] and row["dflt_value"] is None) or row["name"] == "user_id"
        }
    connection.close()
    row = {name: 9999 if "int" in kind.lower() else "x" for name, kind in columns.items()}
    db.insert(table, **{**row, "user_id": user_id})


def test_what_the_release_before_leaves_of_a_deleted_account_goes_at_the_next_start(used, bob):
    for table in ("image_generations", "idempotency_keys", "deleted_generations"):
        db.execute(f"DELETE FROM {table} WHERE user_id = %s", used.id)
    db.execute("DELETE FROM users WHERE id = %s", used.id)

    migrations.upgrade()

    left = [table for table in users.NEW_TABLES if db.all(f"SELECT user_id FROM {table}")]
    assert left == ["sessions"] and bob.get("/api/auth/profile").status_code == 200


def test_tags_and_shares_of_images_that_the_release_before_deleted_go_at_the_next_start(
    alice, settings
):
    settings.TRASH_DAYS = 7
    gone, kept, trashed = (alice.generate().json["data"]["id"] for _ in range(3))
    alice.post("/api/v1/images/tags", json={"ids": [gone, kept, trashed], "add": ["sea"]})
    for number in (gone, kept, trashed):
        alice.post(f"/api/v1/images/{number}/share", json={})
    alice.open("DELETE", f"/api/v1/images/{trashed}")
    db.execute("DELETE FROM image_generations WHERE id = %s", gone)

    migrations.upgrade()

    found = [
        [row["generation_id"] for row in db.all(f"SELECT generation_id FROM {table} ORDER BY id")]
        for table in ("image_tags", "shares")
    ]
    assert found == [[kept], [kept, trashed]]


def test_tags_of_an_image_that_is_being_restored_stay(alice):
    with ThreadPoolExecutor(1) as thread, db.transaction():
        image = {"user_id": alice.id, "created_at": "2026-01-01 00:00:00"}
        number = db.insert("image_generations", prompt_text="a fox", status="completed", **image)
        tags.enter({**image, "id": number}, {"sea": "sea"})

        # It does not wait for that transaction: of what it saw then, it would have seen one half.
        thread.submit(trash.delete_orphans).result()

    assert alice.history("?tag=sea")["pagination"]["total"] == 1


# -- Names and text ------------------------------------------------------------------------------


@pytest.fixture
def before_text(empty_database, monkeypatch):
    """A database of the release before names were compared by their bytes."""
    older = [path for path in migrations.files() if path.stem < "0008"]
    monkeypatch.setattr(migrations, "files", lambda: older)
    migrations.upgrade()
    monkeypatch.undo()
    return empty_database


def add_account(name: str, email: str, password: str) -> None:
    """Add an account as people did by hand, without keys."""
    password_hash = generate_password_hash(password, method="pbkdf2:sha256:1000")
    db.insert("users", username=name, email=email, password_hash=password_hash)


def can_log_in(name: str, password: str) -> bool:
    body = {"username": name, "password": password}
    answer = Person().post("/api/auth/login", json=body)
    return answer.status_code == 200 and answer.json["data"]["user"]["username"] == name


SAME_BUT_FOR_BLANKS = ["bob", "bob ", "bob  ", "bob   ", "bob\t", " bob"]


def use_names_without_padding(database: str) -> None:
    """Compare published names as MySQL 8 does by default: blanks at their end count."""
    if database == "mariadb":
        name = "VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_nopad_ci NOT NULL"
        db.execute(f"ALTER TABLE users MODIFY username {name}, MODIFY email {name}")


def test_names_that_differ_by_blanks_alone_get_keys_and_log_in(before_text):
    use_names_without_padding(before_text)
    for number, name in enumerate(SAME_BUT_FOR_BLANKS):
        add_account(name, f"bob@x.de{' ' * number}", f"secret{number}")

    migrations.upgrade()

    assert db.all("SELECT id FROM users WHERE username_key IS NULL OR email_key IS NULL") == []
    assert [
        name
        for number, name in enumerate(SAME_BUT_FOR_BLANKS)
        if not can_log_in(name, f"secret{number}")
    ] == []


def test_accounts_whose_keys_all_are_taken_do_not_stop_an_upgrade(database):
    long = "x" * 250
    for number in range(5):
        add_account(f"{number}", f"{number}@x.de", "secret1")
    # What only SQLite has room for in these columns.
    rows = [{"id": number, "username": long, "email": long} for number in range(1, 6)]

    for row in rows:
        users._fill_keys_of(row)

    keys = db.all("SELECT username_key, email_key FROM users ORDER BY id")
    assert [key["username_key"] for key in keys[3:]] == ["LEGACY 4", "LEGACY 5"]
    assert all(key["email_key"] for key in keys)


def test_published_columns_of_names_are_compared_by_their_bytes(published):
    migrations.upgrade()

    columns = db.all(
        """
        SELECT COLUMN_NAME AS name, COLUMN_TYPE AS type, COLLATION_NAME AS collation
          FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'users'
           AND COLUMN_NAME IN ('username', 'email')
        """
    )
    found = {column["name"]: (column["type"], column["collation"]) for column in columns}
    assert found == {
        "username": ("varchar(64)", "utf8mb4_bin"),
        "email": ("varchar(120)", "utf8mb4_bin"),
    }
    with pytest.raises(db.Duplicate):
        add_account("Alice", "new@example.com", "secret1")


# Tables as an older MySQL made them by default, or as its administrator did.
OLD_TABLES = [
    "DEFAULT CHARSET=utf8mb3",
    "DEFAULT CHARSET=utf8mb3 ROW_FORMAT=COMPACT",
    "DEFAULT CHARSET=latin1 ROW_FORMAT=REDUNDANT",
    "DEFAULT CHARSET=utf8mb4 ROW_FORMAT=COMPACT",
    "ENGINE=MyISAM DEFAULT CHARSET=utf8mb3",
]


@pytest.mark.parametrize("kind", OLD_TABLES)
def test_tables_of_an_old_mysql_take_an_emoji_after_the_upgrade(published, kind):
    published.run("DROP TABLE image_generations, users", database="published")
    tables = [table.partition(") ENGINE=")[0] + f") {kind}" for table in PUBLISHED]
    published.run(*tables, database="published")
    add_account("renée", "r@x.de", "secret1")
    db.insert("image_generations", user_id=1, prompt_text="a café", status="completed")

    migrations.upgrade()

    person = Person()
    person.name = "renée"
    person.log_in()
    assert [record["prompt"] for record in person.history()["records"]] == ["a café"]
    assert person.generate("a 🦊").status_code == 200
    assert Person().post("/api/auth/register", data=form("🐱🐱🐱")).status_code == 200


def test_a_database_that_an_older_release_had_upgraded_is_converted_too(before_text):
    if before_text == "sqlite":
        pytest.skip("SQLite has one kind of text")
    db.execute("SET foreign_key_checks = 0")
    db.execute("ALTER TABLE users CONVERT TO CHARACTER SET utf8mb3")
    db.execute("ALTER TABLE image_generations MODIFY prompt_text TEXT CHARACTER SET utf8mb3")

    migrations.upgrade()

    assert Person("😀😀😀").generate("a 🦊").status_code == 200
