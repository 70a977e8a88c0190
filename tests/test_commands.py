import subprocess
import sys

import pytest

import app as service
import db
from files import cleanup, storage
from images import jobs, queue
from tests.conftest import Person, usernames
from tests.servers import ROOT, clean_environment
from tests.test_queue import submit
from tests.test_second_factor import Phone


@pytest.fixture
def flask(database):
    """Run `flask …` and return its result."""
    runner = service.app.test_cli_runner()
    return lambda *words, **options: runner.invoke(args=words, **options)


def test_db_status_names_each_migration_and_when_it_was_applied(flask):
    lines = flask("db", "status").output.splitlines()

    assert [line.split()[0] for line in lines][:2] == ["0001_published_tables", "0002_accounts"]
    assert "pending" not in "".join(lines)


def test_db_upgrade_of_a_current_database_says_nothing(flask):
    result = flask("db", "upgrade")

    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("words", [("list",), ("disable", "ann"), ("delete", "ann", "--yes")])
def test_a_database_that_is_away_is_said_in_one_line(flask, monkeypatch, words):
    def refuse(**options):
        raise db.Unavailable

    monkeypatch.setattr(db.pool, "take", refuse)
    result = flask("user", *words)

    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "the database is away" in result.output


def test_user_create_makes_an_account_that_can_log_in(flask):
    result = flask("user", "create", "carol", "carol@example.com", input="secret1\nsecret1\n")

    assert result.exit_code == 0
    Person("carol")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["al", "al@example.com"], "User name must have at least 3 characters"),
        (["alice", "nonsense"], "Email is not an email address"),
    ],
)
def test_user_create_says_what_is_wrong(flask, arguments, complaint):
    result = flask("user", "create", *arguments, "--password", "secret1")

    assert result.exit_code == 1 and complaint in result.output


def test_user_create_refuses_a_taken_name(flask, alice):
    result = flask("user", "create", "ALICE", "new@example.com", "--password", "secret1")

    assert result.exit_code == 1 and "is taken" in result.output


def test_user_reset_2fa_lets_somebody_in_without_a_code(flask, alice):
    Phone(alice).confirm()

    results = [flask("user", "reset-2fa", "alice") for _ in range(2)]

    assert [result.exit_code for result in results] == [0, 1]
    alice.log_in()


def test_user_renew_secrets_says_how_many(flask, alice):
    Phone(alice).confirm()

    assert flask("user", "renew-secrets").output.startswith("Sealed 1 ")


def test_user_list_shows_everyone_but_no_hash(flask, alice, bob):
    output = flask("user", "list").output

    assert "alice@example.com" in output and "bob" in output and "pbkdf2" not in output


def test_user_set_password_ends_the_sessions(flask, alice):
    flask("user", "set-password", "Alice", "--password", "secret2")

    assert alice.get("/api/auth/profile").status_code == 401
    alice.log_in("secret2")
    assert alice.get("/api/auth/profile").status_code == 200


def test_user_disable_and_undo(flask, alice):
    flask("user", "disable", "alice")
    refused = alice.post("/api/auth/login", json={"username": "alice", "password": "secret1"})
    flask("user", "disable", "alice", "--undo")

    alice.log_in()
    assert refused.json["code"] == "account_disabled"


def test_user_disable_cancels_and_refunds_what_is_unfinished(flask, alice, bob):
    for person in (alice, alice, bob):
        submit(person)
    running = jobs.acquire(["test_model"])

    flask("user", "disable", "alice")

    rows = db.all("SELECT user_id, status FROM image_generations ORDER BY id")
    assert [row["status"] for row in rows if row["user_id"] == alice.id] == ["canceled"] * 2
    assert [row["status"] for row in rows if row["user_id"] == bob.id] == ["pending"]
    assert not queue.renew_lease(running["id"], running["claim"], 30, progress=1)
    assert db.value("SELECT quota_used FROM users WHERE id = %s", alice.id) == 0


def test_user_delete_leaves_nothing_behind(flask, alice, bob, settings):
    alice.generate()
    bob.generate()
    storage.put(f"generated_images/{alice.id}/stray.png", b"x")

    result = flask("user", "delete", "alice", "--yes")

    assert result.exit_code == 0
    assert [path.name for path in (settings.uploads_dir / "generated_images").iterdir()] == [
        str(bob.id)
    ]
    assert usernames() == ["bob"]
    assert len(bob.history()["records"]) == 1


def test_user_delete_leaves_no_row_in_any_table(flask, alice):
    submit(alice, key="k")
    number = alice.generate().json["data"]["id"]
    alice.open("DELETE", f"/api/v1/images/{number}")
    alice.post("/api/auth/login", json={"username": "alice", "password": "wrong1"})

    flask("user", "delete", "alice", "--yes")

    tables = ("users", "image_generations", "idempotency_keys", "deleted_generations")
    assert [db.value(f"SELECT COUNT(*) FROM {table}") for table in tables] == [0] * 4
    names = [row["name"] for row in db.all("SELECT name FROM rate_limits")]
    assert sorted(names) == ["login:127.0.0.1", "register:127.0.0.1"]


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_user_delete_leaves_nothing_readable_in_the_files_of_sqlite(flask, alice, settings):
    submit(alice, "a very private prompt")
    files = [settings.instance_dir / name for name in ("app.db", "app.db-wal")]
    assert any(b"very private" in file.read_bytes() for file in files)

    flask("user", "delete", "alice", "--yes")

    for file in files:
        data = file.read_bytes()
        assert b"very private" not in data and b"alice@example.com" not in data


def test_files_of_a_user_delete_that_was_killed_half_way_are_deleted(
    flask, alice, bob, settings, monkeypatch
):
    alice.generate()
    bob.generate()
    monkeypatch.setattr(cleanup, "delete_files", lambda keys: None)
    flask("user", "delete", "alice", "--yes")
    monkeypatch.undo()

    jobs.sweep()

    assert [path.name for path in (settings.uploads_dir / "generated_images").iterdir()] == [
        str(bob.id)
    ]


def test_user_delete_asks_first(flask, alice):
    result = flask("user", "delete", "alice", input="n\n")

    assert result.exit_code == 1
    assert alice.get("/api/auth/profile").status_code == 200


def test_a_name_nobody_has_is_said_plainly(flask):
    result = flask("user", "disable", "nobody")

    assert result.exit_code == 1 and "there is no account named nobody" in result.output


NOT_UNICODE = "\udcff"


@pytest.mark.parametrize(
    "words",
    [
        ("user", "disable", NOT_UNICODE),
        ("user", "list", "--q", NOT_UNICODE),
        ("jobs", "list", "--model", NOT_UNICODE),
        ("jobs", "list", "--error", NOT_UNICODE),
        ("queue", "pause", NOT_UNICODE),
        ("queue", "resume", NOT_UNICODE),
        ("queue", "pause", ""),
        ("queue", "resume", ""),
        ("queue", "resume", "nothing"),
        ("audit", "list", "--actor", NOT_UNICODE),
        ("invite", "create", "--note", NOT_UNICODE),
    ],
)
def test_wrong_words_are_said_in_one_line(flask, words):
    result = flask(*words)

    assert (result.exit_code, result.output.count("\n")) == (1, 1), result.exception
    assert queue.list_paused() == {}


@pytest.mark.parametrize("group", ["jobs", "invite"])
def test_a_list_has_a_length(flask, group):
    result = flask(group, "list", "--limit", "-1")

    assert result.exit_code == 2 and "not in the range" in result.output


def test_a_missing_grant_is_one_line(mariadb, settings):
    mariadb.run(
        "CREATE DATABASE IF NOT EXISTS bare",
        "CREATE USER IF NOT EXISTS poor@'127.0.0.1'",
        "GRANT SELECT ON bare.* TO poor@'127.0.0.1'",
    )
    environment = clean_environment(**{**mariadb.settings("bare"), "MYSQL_USER": "poor"})

    ended = subprocess.run(
        [sys.executable, "-m", "flask", "db", "upgrade"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert (
        "the database refuses: CREATE command denied" in ended.stderr
        and "Traceback" not in ended.stderr
    )
