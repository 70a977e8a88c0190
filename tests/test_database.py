"""Connections and transactions: one behaviour on both engines, whatever happens to the server."""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

import pymysql
import pytest

import config
import db
import pool as pools
from accounts import rate_limits, users
from accounts.rate_limits import RateLimit
from pool import pool
from tests.conftest import Person, usernames
from tests.servers import free_port, wait_until


def add_user(name: str = "ann") -> int:
    return users.create_user(name, name, f"{name}@x.de", f"{name}@x.de", "hash")


def test_a_transaction_is_all_or_nothing(database):
    with pytest.raises(ZeroDivisionError), db.transaction():
        add_user("ann")
        raise ZeroDivisionError

    with db.transaction():
        add_user("ben")

    assert usernames() == ["ben"]


def test_a_second_row_of_the_same_name_is_a_duplicate(database):
    add_user("ann")

    with pytest.raises(db.Duplicate) as refused:
        add_user("ann")

    assert refused.value.key.split(".")[-1].split("_")[0] in ("username", "email")


def test_an_update_counts_the_rows_it_matched(database):
    user_id = add_user("ann")

    counts = [
        db.execute("UPDATE users SET role = 'user' WHERE id = %s", user_id).count for _ in range(2)
    ]

    assert counts == [1, 1]


def test_a_failed_transaction_returns_its_connection_to_the_pool(database, settings):
    settings.DB_POOL_SIZE = 1
    pool.close()

    for _ in range(3):
        with pytest.raises(ZeroDivisionError), db.transaction():
            raise ZeroDivisionError

    assert usernames() == []


def test_a_statement_after_a_transaction_on_its_connection_stands(database, settings):
    settings.DB_POOL_SIZE = 1
    pool.close()

    with db.transaction():
        add_user("ann")
    add_user("ben")
    pool.close()

    assert usernames() == ["ann", "ben"]


def test_a_transaction_after_a_statement_on_its_connection_is_one(database, settings):
    settings.DB_POOL_SIZE = 1
    pool.close()
    add_user("ann")

    with pytest.raises(ZeroDivisionError), db.transaction():
        add_user("ben")
        raise ZeroDivisionError

    assert usernames() == ["ann"]


RENAME = "UPDATE users SET username = %s WHERE username = %s"
RENAME_TOO = RENAME + " AND ROW_COUNT() = 1"


def test_statements_sent_at_once_are_one_transaction(database):
    add_user("ann"), add_user("ben")

    results = db.run_transaction((RENAME, ("amy", "ann")), (RENAME_TOO, ("bob", "ben")))

    assert [result.count for result in results] == [1, 1]
    assert usernames() == ["amy", "bob"]


def test_a_statement_sent_at_once_knows_that_the_one_before_matched_nothing(database):
    add_user("ann"), add_user("ben")

    results = db.run_transaction(
        (RENAME, ("x", "nobody")), (RENAME_TOO, ("amy", "ann")), (RENAME_TOO, ("bob", "ben"))
    )

    assert [result.count for result in results] == [0, 0, 0]
    assert usernames() == ["ann", "ben"]


def test_a_statement_sent_at_once_knows_that_the_one_before_failed(database):
    add_user("ann"), add_user("ben")

    with pytest.raises(db.Duplicate):
        db.run_transaction((RENAME, ("ben", "ann")), (RENAME_TOO, ("bob", "ben")))

    add_user("cid")
    assert usernames() == ["ann", "ben", "cid"]


def test_an_id_made_by_a_statement_sent_at_once_is_known(database):
    add_user("ann")
    columns = "username, email, password_hash"

    _, added = db.run_transaction(
        (RENAME, ("amy", "ann")),
        (
            f"INSERT INTO users ({columns}) VALUES (%s, %s, %s)",
            ("ben", "b@x.de", "x"),
        ),
    )

    assert users.get_user(added.new_id)["username"] == "ben"


def test_a_mistake_in_a_statement_is_not_hidden_as_an_outage(database):
    with pytest.raises(Exception) as raised:
        db.execute("SELECT nothing FROM nowhere")

    assert not isinstance(raised.value, db.Unavailable)


def test_an_exhausted_pool_is_an_outage_that_passes(database, settings):
    settings.DB_POOL_SIZE, settings.DB_POOL_WAIT_SECONDS = 1, 0.05
    pool.close()
    held = pool.take()

    with pytest.raises(db.Unavailable):
        usernames()
    pool.give_back(held)

    assert usernames() == []


def test_threads_share_a_small_pool(database, settings):
    settings.DB_POOL_SIZE = 2
    pool.close()

    threads = [threading.Thread(target=add_user, args=(f"user{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(usernames()) == 12 and sum(map(len, pool.idle.values())) <= 2


def limit(name: str) -> RateLimit:
    return RateLimit({name: 100}, window_seconds=60, code="too_many_attempts")


def test_a_rate_limit_hit_by_many_threads_loses_no_hit(database):
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(limit("x").hit()["x"])) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(seen) == list(range(1, 17))


def test_counters_hit_and_refunded_by_many_threads_never_deadlock(database):
    failures = []

    def hit_and_refund(account: str) -> None:
        limit = RateLimit({f"login:{account}": 100, "login:127.0.0.1": 1000}, 60, "x")
        for _ in range(20):
            try:
                limit.hit()
                limit.refund()
            except db.Unavailable as error:
                failures.append(repr(error.__cause__))

    # One name sorts before the address, and one after it.
    threads = [threading.Thread(target=hit_and_refund, args=("0z"[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert db.value("SELECT SUM(hits) FROM rate_limits") == 0


def test_counters_that_have_expired_are_deleted(database):
    limit("old").hit()
    db.execute("UPDATE rate_limits SET expires_at = 1")
    limit("new").hit()

    assert rate_limits.delete_expired() == 1
    assert db.all("SELECT name, hits FROM rate_limits") == [{"name": "new", "hits": 1}]


def test_a_connection_the_server_closed_is_replaced_before_use(killable):
    pool.close()
    add_user("ann")
    identifiers = killable.run("SELECT id FROM information_schema.processlist WHERE db = 'service'")

    killable.run(*(f"KILL {row[0]}" for row in identifiers))
    gone = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'service'"
    wait_until(lambda: killable.run(gone)[0][0] == 0, what="the end of the connections")

    assert usernames() == ["ann"]


def test_an_unavailable_server_is_503_and_its_return_is_noticed_at_once(killable):
    alice = Person("alice")
    killable.kill()

    unavailable = alice.get("/api/auth/profile")
    killable.start()
    back = alice.get("/api/auth/profile")

    assert (unavailable.status_code, unavailable.json["code"]) == (503, "database_unavailable")
    assert int(unavailable.headers["Retry-After"]) > 0
    assert back.status_code == 200


def test_a_restart_between_two_requests_is_not_noticed(killable):
    alice = Person("alice")
    killable.kill()
    killable.start()

    assert alice.get("/api/auth/profile").status_code == 200


def test_a_statement_whose_answer_was_lost_is_not_sent_again(killable, monkeypatch):
    sent = []
    real_run = pools.MySQL.run

    def run_and_lose_the_answer(self, sql, *rest):
        real_run(self, sql, *rest)
        if sql.lstrip().startswith("INSERT INTO users"):
            sent.append(sql)
            raise pools.Unavailable

    monkeypatch.setattr(pools.MySQL, "run", run_and_lose_the_answer)
    with pytest.raises(db.Unavailable):
        add_user("ann")
    monkeypatch.undo()

    assert len(sent) == 1 and usernames() == ["ann"]


@pytest.mark.parametrize("zone", ["+08:00", "-11:00"])
def test_times_are_utc_whatever_the_servers_zone(killable, zone):
    killable.run(f"SET GLOBAL time_zone = '{zone}'")
    pool.close()

    user_id = add_user("ann")

    skew = "SELECT ABS(TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP())) FROM users WHERE id = %s"
    assert db.value(skew, user_id) < 5


def test_a_lenient_server_is_made_strict(killable):
    killable.run("SET GLOBAL sql_mode = ''")
    pool.close()

    with pytest.raises(Exception, match="too long"):
        add_user("x" * 65)


def test_counters_that_a_sweep_deletes_meanwhile_are_counted_anew(database):
    failures = []

    def hit() -> None:
        for _ in range(30):
            try:
                RateLimit({"login:a": 1000, "login:b": 1000}, 60, "x").hit()
            except Exception as error:
                failures.append(repr(error))

    def sweep() -> None:
        for _ in range(30):
            try:
                db.execute("UPDATE rate_limits SET expires_at = 1")
                rate_limits.delete_expired()
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=target) for target in (hit, hit, hit, sweep, sweep)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


# -- What a database says for a while -------------------------------------------------------------

PASSING = [
    3, 20, 23, 1021, 1026, 1028, 1030, 1034, 1036, 1037, 1040, 1041, 1047, 1053, 1114, 1135, 1152,
    1158, 1159, 1160, 1161, 1180, 1184, 1203, 1205, 1206, 1213, 1223, 1226, 1290, 1296, 1297, 1317,
    1412, 1637, 1689, 1792, 1836, 1874, 1878, 1927, 1969, 2006, 2013, 3024, 3032, 3100, 3101, 3168,
    3169, 4031,
]  # fmt: skip


def receive_error(number: int) -> None:
    """Raise what the service makes of an error that the server sends."""
    packet = b"\xff" + number.to_bytes(2, "little") + b"#HY000it says so"
    try:
        pymysql.err.raise_mysql_exception(packet)
    except pymysql.MySQLError as error:
        pools.raise_ours(error)


@pytest.mark.parametrize("number", PASSING)
def test_what_mysql_says_for_a_while_is_unavailable(number):
    with pytest.raises(pools.Unavailable):
        receive_error(number)


def test_what_the_driver_says_of_a_broken_connection_is_unavailable():
    with pytest.raises(pools.Unavailable):
        pools.raise_ours(pymysql.InternalError("Packet sequence number wrong - got 3 expected 1"))


@pytest.mark.parametrize("number", [1054, 1064, 1146, 1264, 1406, 3140, 3819, 3988, 4025, 4078])
def test_what_mysql_says_of_a_bug_goes_up(number):
    with pytest.raises(pymysql.MySQLError):
        receive_error(number)


@pytest.mark.parametrize("empty_database", ["mariadb"], indirect=True)
def test_a_read_only_server_is_unavailable(alice, mariadb):
    mariadb.run(
        "CREATE USER IF NOT EXISTS plain@'127.0.0.1'", "GRANT ALL ON service.* TO plain@'127.0.0.1'"
    )
    config.settings.MYSQL_USER = "plain"
    pool.close()
    mariadb.run("SET GLOBAL read_only = 1")
    try:
        response = alice.generate()
        ready = alice.get("/api/health/ready")
    finally:
        mariadb.run("SET GLOBAL read_only = 0")

    assert (response.status_code, response.json["code"]) == (503, "database_unavailable")
    assert "database" in ready.json["fields"]


def test_a_row_that_stays_locked_is_not_waited_for_long(alice, monkeypatch):
    monkeypatch.setattr(pools, "LOCK_SECONDS", 1)
    monkeypatch.setattr(pools, "SHORT_WAITS", ", innodb_lock_wait_timeout = 1")
    pool.close()
    with db.transaction():
        db.execute("UPDATE users SET served_at = 1")
        with ThreadPoolExecutor() as threads:
            body = {"prompt": "a fox"}
            waiting = threads.submit(alice.post, "/api/v1/images/generate", json=body)
            response = waiting.result(20)

    assert (response.status_code, response.json["code"]) == (503, "database_unavailable")
    assert alice.history()["pagination"]["total"] == 0


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pragma", ["query_only = ON", "max_page_count = 1"])
def test_a_sqlite_that_cannot_write_is_unavailable(alice, monkeypatch, pragma):
    connect = pools.SQLite.__init__

    def connect_to_refusing(self, *arguments):
        connect(self, *arguments)
        self.driver.execute(f"PRAGMA {pragma}")

    monkeypatch.setattr(pools.SQLite, "__init__", connect_to_refusing)
    pool.close()

    with pytest.raises(db.Unavailable):
        while True:  # until the file is full
            db.insert(
                "workers", name=secrets.token_hex(8), models="x" * 9000, run_seconds=1, seen_at=1
            )


# -- Conflicts and clusters -----------------------------------------------------------------------


@pytest.mark.parametrize("empty_database", ["mariadb"], indirect=True)
def test_of_two_that_wait_for_each_other_both_succeed(alice, bob):
    both_locked_one = threading.Barrier(2)
    tries = []

    @db.retried
    def change(first: int, second: int) -> None:
        with db.transaction():
            tries.append(first)
            db.execute("UPDATE users SET served_at = served_at + 1 WHERE id = %s", first)
            if len(tries) <= 2:
                both_locked_one.wait(10)
            db.execute("UPDATE users SET served_at = served_at + 1 WHERE id = %s", second)

    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(change, *ids) for ids in ((alice.id, bob.id), (bob.id, alice.id))]
        for one in done:
            one.result()

    assert len(tries) == 3
    assert [row["served_at"] for row in db.all("SELECT served_at FROM users")] == [2, 2]


def test_what_was_taken_back_inside_a_transaction_is_repeated_as_a_whole(database, monkeypatch):
    run = pools.SQLite.run if database == "sqlite" else pools.MySQL.run
    engine = pools.SQLite if database == "sqlite" else pools.MySQL
    seen = []

    def conflict_once(connection, sql, *arguments):
        if "workers" in sql:
            seen.append(sql)
            if len(seen) == 2:
                raise pools.Conflict
        return run(connection, sql, *arguments)

    monkeypatch.setattr(engine, "run", conflict_once)

    @db.retried
    def add() -> None:
        with db.transaction():
            for name in ("a", "b"):
                db.insert("workers", name=name, models="{}", run_seconds=1, seen_at=1)

    add()

    assert len(seen) == 4 and db.value("SELECT COUNT(*) FROM workers") == 2


def test_what_may_have_been_done_is_not_repeated(database, monkeypatch):
    seen = []

    def lose(connection, sql, *arguments):
        seen.append(sql)
        raise pools.Unavailable

    for engine in (pools.SQLite, pools.MySQL):
        monkeypatch.setattr(engine, "run", lose)
    pool.close()
    monkeypatch.setattr(pools, "READ_COMMITTED", "SELECT 1")

    with pytest.raises(db.Unavailable):
        db.execute("DELETE FROM workers")

    assert len(seen) == 1


@pytest.mark.parametrize("empty_database", ["mariadb"], indirect=True)
def test_the_next_host_is_taken_if_one_is_away(alice, settings):
    port = settings.MYSQL_PORT
    settings.MYSQL_HOST = f"127.0.0.1:{free_port()},127.0.0.1:{port}"
    settings.MYSQL_PORT = 1
    pool.close()

    assert alice.get("/api/auth/profile").status_code == 200
    assert pools.MySQL.preferred == ("127.0.0.1", port)
