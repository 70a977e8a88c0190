"""A submit is all or nothing, whatever happens to the statements that are sent at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pymysql
import pytest

import db
import migrations
import pool as pools
from images import queue_status, quota
from images.submit import digest
from pool import pool
from tests.conftest import Person
from tests.servers import MariaDB, wait_until
from tests.test_queue import submit

# The third of four rows cannot be inserted.
FAIL_THIRD = {
    "sqlite": """
        CREATE TRIGGER third BEFORE INSERT ON image_generations
          WHEN NEW.generation_params_json LIKE '%"seed": 12,%'
         BEGIN SELECT RAISE(ABORT, 'no third row'); END
    """,
    "mariadb": """
        CREATE TRIGGER third BEFORE INSERT ON image_generations FOR EACH ROW
            IF NEW.generation_params_json LIKE '%"seed": 12,%' THEN
                SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no third row';
            END IF
    """,
}


def counts(person) -> tuple[int, int, int]:
    """Return how many rows the user has, and what is counted of them as used and as theirs."""
    rows = db.value("SELECT COUNT(*) FROM image_generations WHERE user_id = %s", person.id)
    user = db.one("SELECT quota_used, image_count FROM users WHERE id = %s", person.id)
    return rows, user["quota_used"], user["image_count"]


@pytest.mark.parametrize("key", [None, "k"])
def test_a_row_that_fails_leaves_nothing_of_the_others(alice, database, key):
    submit(alice)
    db.execute(FAIL_THIRD[database])

    response = submit(alice, key=key, n=4, seed=10)

    assert response.status_code == 500
    assert counts(alice) == (1, 1, 1)
    assert db.all("SELECT * FROM idempotency_keys") == []


def test_a_submit_after_a_failed_one_with_the_same_key_succeeds(alice, database):
    db.execute(FAIL_THIRD[database])
    submit(alice, key="k", n=4, seed=10)
    db.execute("DROP TRIGGER third")

    response = submit(alice, key="k", n=4, seed=10)

    assert response.status_code == 202
    assert counts(alice) == (4, 4, 4)


def test_a_submit_is_one_transaction_of_a_few_statements(alice, monkeypatch):
    seen = []
    run_transaction = db.run_transaction

    def watch(*statements):
        seen.append(len(statements))
        return run_transaction(*statements)

    submit(alice)
    monkeypatch.setattr(db, "run_transaction", watch)
    submit(alice, n=2)

    assert seen == [3]  # reserve, and two rows


def test_records_of_a_submit_are_what_the_database_has(alice):
    records = submit(alice, n=3).json["data"]["records"]

    ids = ",".join(str(record["id"]) for record in records)
    assert alice.get(f"/api/v1/images?ids={ids}").json["data"]["records"] == records


def test_the_first_submit_of_a_day_starts_its_quota_anew(alice):
    submit(alice, n=3)
    db.execute("UPDATE users SET quota_day = quota_day - 1, quota_used = 500")

    assert submit(alice).status_code == 202
    assert db.value("SELECT quota_used FROM users") == 1


def test_a_clock_that_is_a_day_ahead_does_not_stop_a_submit(alice, monkeypatch):
    ahead = queue_status.current().now() + 86400
    monkeypatch.setattr(queue_status.QueueStatus, "now", lambda self: ahead)

    assert submit(alice).status_code == 202


def test_an_image_count_that_is_wrong_is_put_right(alice):
    submit(alice, n=3)
    db.execute("UPDATE users SET image_count = 9")

    quota.recount_images()

    assert alice.history()["pagination"]["total"] == 3


def test_only_transactions_take_several_statements_in_one_query(mariadb, alice, database):
    if database != "mariadb":
        pytest.skip("SQLite takes one statement at a time")
    name = "UPDATE users SET role = 'admin'; UPDATE users SET role = 'user'"

    with pytest.raises(Exception, match="You have an error in your SQL syntax"):
        db.execute(name)

    assert db.value("SELECT role FROM users") == "user"


def test_the_pool_opens_no_more_connections_than_it_may(alice, settings):
    settings.DB_POOL_SIZE = 2
    pool.close()

    for _ in range(3):
        submit(alice)
        alice.history()
        with db.transaction():
            db.value("SELECT COUNT(*) FROM users")

    assert pool.number_open <= 2
    assert sum(map(len, pool.idle.values())) == pool.number_open


# -- A database that says no half-way --------------------------------------------------------------

# Long enough for a few rows to need room of their own.
LONG = {"prompt": "fox " * 499, "n": 4}


def assert_nothing_is_left(person, response, key: str, before: tuple[int, int, int]) -> None:
    """A submit that the database refused has changed nothing, and says when to try again."""
    assert (response.status_code, response.json["code"]) == (503, "database_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    pool.close()
    assert counts(person) == before
    assert db.all("SELECT * FROM idempotency_keys WHERE idempotency_key = %s", digest(key)) == []


def submit_until_refused(person) -> tuple[int, object]:
    """Submit four at a time; return the number of the submit that was refused, and its answer."""
    for number in range(200):
        response = submit(person, key=f"k{number}", **LONG)
        if response.status_code != 202:
            return number, response
    raise AssertionError("the disk is not full yet")


def check_full_disk(person, make_room) -> None:
    number, response = submit_until_refused(person)
    key = f"k{number}"

    assert_nothing_is_left(person, response, key, (4 * number,) * 3)
    make_room()
    assert submit(person, key=key, **LONG).status_code == 202
    assert counts(person) == (4 * number + 4,) * 3


@pytest.fixture
def roomy(settings):
    """Settings under which only the disk ends a run of submits."""
    settings.MAX_ACTIVE_JOBS = settings.SUBMITS_PER_MINUTE = settings.DAILY_IMAGES = 10**6
    settings.MAX_QUEUE = 10**6


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_a_full_disk_of_sqlite_leaves_nothing_of_a_submit(alice, roomy, monkeypatch):
    pages = db.value("PRAGMA page_count") + 10
    connect = pools.SQLite.__init__

    def connect_to_small_disk(self, *arguments):
        connect(self, *arguments)
        self.driver.execute(f"PRAGMA max_page_count = {pages}")

    def make_room():
        monkeypatch.undo()
        pool.close()

    pool.close()
    monkeypatch.setattr(pools.SQLite, "__init__", connect_to_small_disk)
    check_full_disk(alice, make_room)


SMALL = [
    "--innodb-file-per-table=0",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-data-file-path",
]


@pytest.fixture(scope="module")
def small_server(tmp_path_factory, mariadb):
    """A MariaDB with a data file that cannot grow for long."""
    server = MariaDB(tmp_path_factory.mktemp("small"), *SMALL, "ibdata1:12M:autoextend:max:32M")
    yield server
    server.kill()


@pytest.fixture
def small_disk(small_server, settings):
    for name, text in small_server.settings("service").items():
        setattr(settings, name, int(text) if name == "MYSQL_PORT" else text)
    small_server.run("CREATE DATABASE service CHARACTER SET utf8mb4")
    pool.close()
    queue_status.current.forget()
    migrations.upgrade()
    yield small_server
    pool.close()


def fill(server) -> None:
    """Use up what is left of the data file, at the end by rows that fit into a page.

    To roll back a larger one on a full disk can need room, without which MariaDB ends itself.
    """
    server.run("CREATE TABLE filler (text LONGTEXT)", database="service")
    server.run(*["INSERT INTO filler VALUES (REPEAT('x', 400000))"] * 30, database="service")
    for size in (7000, 500):
        with suppress(pymysql.OperationalError):
            while True:
                insert = f"INSERT INTO filler VALUES (REPEAT('x', {size}))"
                server.run(insert, database="service")


def test_a_full_disk_of_mariadb_leaves_nothing_of_a_submit(small_disk, roomy):
    alice = Person("alice")
    fill(small_disk)

    def make_room():
        small_disk.kill()
        small_disk.options = (*SMALL, "ibdata1:12M:autoextend")
        small_disk.start()

    check_full_disk(alice, make_room)


@pytest.mark.parametrize("empty_database", ["mariadb"], indirect=True)
def test_a_statement_killed_in_the_middle_leaves_nothing_of_a_submit(alice, mariadb):
    db.execute(
        """
        CREATE TRIGGER third BEFORE INSERT ON image_generations FOR EACH ROW
            IF NEW.generation_params_json LIKE '%"seed": 12,%' THEN DO SLEEP(60); END IF
        """
    )

    def kill():
        sleeping = "SELECT id FROM information_schema.processlist WHERE state = 'User sleep'"
        [(number,)] = wait_until(lambda: mariadb.run(sleeping), what="the third row")
        mariadb.run(f"KILL QUERY {number}")

    with ThreadPoolExecutor() as threads:
        killed = threads.submit(kill)
        response = submit(alice, key="k", n=4, seed=10)
        killed.result()

    assert_nothing_is_left(alice, response, "k", (0, 0, 0))
    db.execute("DROP TRIGGER third")
    assert submit(alice, key="k", n=4, seed=10).status_code == 202
    assert counts(alice) == (4, 4, 4)


@pytest.mark.parametrize("empty_database", ["mariadb"], indirect=True)
def test_a_lock_that_is_not_had_in_time_leaves_nothing_of_a_submit(alice, bob, mariadb):
    db.execute(
        f"""
        CREATE TRIGGER third BEFORE INSERT ON image_generations FOR EACH ROW
            IF NEW.generation_params_json LIKE '%"seed": 12,%' THEN
                UPDATE users SET role = 'x' WHERE id = {bob.id};
            END IF
        """
    )
    pool.close()
    mariadb.run("SET GLOBAL innodb_lock_wait_timeout = 1")
    try:
        with db.transaction():
            quota.lock_user(bob.id)
            with ThreadPoolExecutor() as threads:
                response = threads.submit(submit, alice, key="k", n=4, seed=10).result()
    finally:
        mariadb.run("SET GLOBAL innodb_lock_wait_timeout = DEFAULT")

    assert_nothing_is_left(alice, response, "k", (0, 0, 0))
    assert submit(alice, key="k", n=4, seed=10).status_code == 202


# -- The cached status ----------------------------------------------------------------------------


def test_one_thread_calls_a_cached_function_and_the_others_get_the_value_before():
    values = iter(range(10))
    begun, go_on = threading.Event(), threading.Event()
    go_on.set()

    @queue_status.cached(seconds=60)
    def slow() -> int:
        begun.set()
        go_on.wait(10)
        return next(values)

    first = slow()
    slow.forget()
    begun.clear()
    go_on.clear()
    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait(10)
    meanwhile = slow()
    go_on.set()
    thread.join()

    assert (first, meanwhile, slow()) == (0, 0, 1)


def test_a_cached_function_that_fails_is_called_again():
    answers = [1 / 2]

    @queue_status.cached(seconds=60)
    def shaky() -> float:
        return answers.pop()

    assert shaky() == 0.5
    shaky.forget()
    with pytest.raises(IndexError):
        shaky()
    answers.append(0.7)
    assert shaky() == 0.7
