from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

import db
import pool as pools
from accounts import passwords, rate_limits, users
from tests.conftest import Person, form


def log_in(client, username="alice", password="secret1", **options):
    return client.post(
        "/api/auth/login", json={"username": username, "password": password}, **options
    )


def test_login_answers_as_published(alice):
    response = log_in(alice)

    assert response.status_code == 200
    assert response.json["message"] == "登录成功"
    assert set(response.json["data"]) == {"token", "user"}
    assert response.json["data"]["user"] == {
        "username": "alice",
        "email": "alice@example.com",
        "avatarUrl": None,
    }


@pytest.mark.parametrize("name", ["ALICE", " alice", "ａlice"])
def test_a_name_logs_in_in_any_form(alice, name):
    assert log_in(alice, name).status_code == 200


def test_an_unknown_name_and_a_wrong_password_get_one_answer(alice):
    unknown, wrong = log_in(alice, "nobody"), log_in(alice, password="secret2")

    assert (unknown.status_code, unknown.json) == (wrong.status_code, wrong.json)
    assert (wrong.status_code, wrong.json["message"]) == (401, "用户名或密码错误")


def test_an_unknown_name_costs_a_hash_of_todays_parameters(client, monkeypatch):
    compared = []
    monkeypatch.setattr(
        passwords, "check_password_hash", lambda stored, password: compared.append(stored)
    )

    log_in(client, "nobody")

    assert [stored.split("$")[0] for stored in compared] == ["pbkdf2:sha256:1000"]


@pytest.mark.parametrize(
    "body",
    [{}, {"username": "alice"}, {"username": 1, "password": []}, {"username": "", "password": ""}],
)
def test_missing_or_mistyped_fields_are_named(client, body):
    response = client.post("/api/auth/login", json=body)

    assert response.status_code == 400
    assert "password" in response.json["fields"]


def test_sql_in_a_name_is_only_a_name(alice):
    response = log_in(alice, "alice' OR '1'='1", "x' OR '1'='1")

    assert response.status_code == 401


def test_too_many_failures_on_one_account_are_refused(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 3
    for _ in range(3):
        assert log_in(alice, password="wrong").status_code == 401

    response = log_in(alice, "ALICE")

    assert (response.status_code, response.json["code"]) == (429, "too_many_attempts")
    assert 0 < int(response.headers["Retry-After"]) <= settings.LOGIN_WINDOW_SECONDS


def fail_from(client, address: str, username="alice", times=3) -> list[int]:
    """Return the statuses of log-ins with a wrong password from an address."""
    answers = [
        log_in(client, username, "wrong1", environ_base={"REMOTE_ADDR": address})
        for _ in range(times)
    ]
    return [answer.status_code for answer in answers]


@pytest.mark.parametrize("attacker", ["10.0.0.7", "2001:db8:9::1"])
def test_failures_from_another_network_lock_nobody_out(alice, settings, attacker):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 2

    assert fail_from(alice, attacker) == [401, 401, 429]
    assert log_in(alice, environ_base={"REMOTE_ADDR": "10.0.0.8"}).status_code == 200


def test_guesses_from_many_networks_end_too(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 1

    statuses = [fail_from(alice, f"10.0.0.{number}", times=1) for number in range(12)]

    assert statuses == [[401]] * 10 + [[429]] * 2
    assert fail_from(alice, "10.0.1.1", "nobody", times=1) == [401]


def test_an_attack_from_many_networks_spares_where_the_account_logged_in_from(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 1
    for number in range(12):
        fail_from(alice, f"10.0.0.{number}", times=1)
    db.execute("UPDATE rate_limits SET expires_at = 1 WHERE hits = 0")
    rate_limits.delete_expired()

    assert log_in(alice, environ_base={"REMOTE_ADDR": "10.0.1.1"}).status_code == 429
    assert log_in(alice).status_code == 200
    # There, too, guesses are counted.
    assert fail_from(alice, "127.0.0.1", times=2) == [401, 429]


def test_an_attack_from_many_networks_stops_nobody_who_is_logged_in(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 1
    for number in range(12):
        fail_from(alice, f"10.0.0.{number}", times=1)

    def change(old: str, address: str) -> int:
        body = {"oldPassword": old, "newPassword": "secret2"}
        environ = {"REMOTE_ADDR": address}
        return alice.post("/api/auth/password", json=body, environ_base=environ).status_code

    # Whoever stole a session guesses no further than at log-in.
    stolen = [change("wrong1", f"10.0.2.{number}") for number in range(12)]

    assert stolen == [403] * 10 + [429] * 2
    rate_limits.clear_named("login:")
    for number in range(12):
        fail_from(alice, f"10.0.3.{number}", times=1)
    assert change("secret1", "10.0.1.1") == 200


def test_an_end_from_a_clock_that_was_wrong_by_a_year_is_none(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 2
    fail_from(alice, "127.0.0.1")
    db.execute("UPDATE rate_limits SET expires_at = expires_at + 31536000")

    assert log_in(alice).status_code == 200
    assert fail_from(alice, "127.0.0.1") == [401, 401, 429]
    response = log_in(alice)
    assert 0 < int(response.headers["Retry-After"]) <= settings.LOGIN_WINDOW_SECONDS


def test_too_many_failures_from_one_address_are_refused(alice, settings):
    settings.LOGIN_FAILURES_PER_ADDRESS = 3
    for name in ("ann", "ben", "cleo"):
        log_in(alice, name)

    assert log_in(alice).status_code == 429
    assert log_in(alice, environ_base={"REMOTE_ADDR": "10.9.9.9"}).status_code == 200


def test_an_unknown_name_is_limited_like_a_known_one(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 2
    log_in(alice, "nobody")
    log_in(alice, "nobody")

    assert log_in(alice, "nobody").status_code == 429


def test_good_log_ins_are_not_counted(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = settings.LOGIN_FAILURES_PER_ADDRESS = 2

    statuses = [log_in(alice).status_code for _ in range(5)]

    assert statuses == [200] * 5


def test_attempts_begin_anew_after_the_window(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 1
    log_in(alice, password="wrong")
    db.execute("UPDATE rate_limits SET expires_at = 1")

    assert log_in(alice).status_code == 200


def test_failures_sent_at_once_to_several_processes_are_counted_right(live):
    service = live(WEB_WORKERS="3", LOGIN_FAILURES_PER_ACCOUNT="5")
    requests.post(f"{service.url}/api/auth/register", data=form("alice"))

    with ThreadPoolExecutor(24) as threads:
        body = {"username": "alice", "password": "wrong1"}
        calls = [
            threads.submit(requests.post, f"{service.url}/api/auth/login", json=body)
            for _ in range(24)
        ]

    assert sorted(call.result().status_code for call in calls) == [401] * 5 + [429] * 19


def test_what_was_typed_as_a_name_is_not_stored(client):
    log_in(client, "my-secret-password")

    assert "my-secret-password" not in str(db.all("SELECT name FROM rate_limits"))


def test_ipv6_addresses_of_one_customer_count_as_one():
    assert rate_limits.network("2001:db8:1:2::1") == rate_limits.network("2001:db8:1:2:ffff::9")
    assert rate_limits.network("2001:db8:1:2::1") != rate_limits.network("2001:db8:1:3::1")
    assert rate_limits.network("::ffff:1.2.3.4") == rate_limits.network("1.2.3.4:56") == "1.2.3.4"
    assert rate_limits.network("::ffff:1.2.3.4") != rate_limits.network("::ffff:1.2.3.5")


def test_a_hash_of_older_parameters_is_renewed_at_log_in(alice, settings):
    settings.PASSWORD_HASH = "pbkdf2:sha256:1001"

    log_in(alice)

    stored = db.one("SELECT password_hash FROM users")["password_hash"]
    assert stored.startswith("pbkdf2:sha256:1001$")
    assert log_in(alice).status_code == 200


def test_a_hash_in_an_unknown_form_matches_nothing(alice):
    db.execute("UPDATE users SET password_hash = 'md5$nonsense$00'")

    assert log_in(alice).status_code == 401


def test_a_disabled_account_hears_so_only_with_its_password(alice):
    users.set_disabled(alice.id, is_disabled=True)

    assert log_in(alice).json["code"] == "account_disabled"
    assert log_in(alice, password="wrong1").json["code"] == "wrong_credentials"


def test_only_a_fixed_number_of_hashes_run_at_once(database, monkeypatch):
    import threading
    import time

    running, most = [], []

    def slow_check(stored, password):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return False

    monkeypatch.setattr(passwords, "check_password_hash", slow_check)
    threads = [threading.Thread(target=log_in, args=(Person(), f"user{i}")) for i in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    assert len(most) == 12 and max(most) <= __import__("os").cpu_count()


def test_a_good_login_takes_seven_statements(alice, database, monkeypatch):
    sent = []
    for engine in (pools.MySQL, pools.SQLite):
        monkeypatch.setattr(engine, "run", noting(sent, engine.run))
    monkeypatch.setattr(pools.MySQL, "run_all", noting_all(sent, pools.MySQL.run_all))

    alice.post("/api/auth/login", json={"username": "alice", "password": "secret1"})

    # The counters and the account are read, the hit is counted and read in a transaction, and
    # refunded; the session is added. SQLite also begins the transaction.
    assert len(sent) == {"mariadb": 7, "sqlite": 8}[database]


def noting(sent: list, run):
    def run_and_note(self, sql, *values):
        sent.append(sql)
        return run(self, sql, *values)

    return run_and_note


def noting_all(sent: list, run_all):
    def run_and_note(self, statements):
        sent.extend(statements)
        return run_all(self, statements)

    return run_and_note


# -- Passwords in several Unicode forms ---------------------------------------------------------

TYPED = "cafe\u0301 passe\u0301"  # on a keyboard that composes letters of two characters
SPELLINGS = [TYPED, "caf\u00e9 pass\u00e9", "ｃafé passé"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_password_matches_in_any_unicode_form(client, spelling):
    client.post("/api/auth/register", data=form("alice", password=TYPED))

    assert log_in(client, password=spelling).status_code == 200
    assert log_in(client, password="cafe passe").status_code == 401


def test_an_old_hash_of_what_was_typed_matches_and_is_renewed(alice, settings):
    old_hash = passwords.generate_password_hash(TYPED, method=settings.PASSWORD_HASH)
    db.execute("UPDATE users SET password_hash = %s", old_hash)

    before = log_in(alice, password=SPELLINGS[1]).status_code
    answers = [log_in(alice, password=spelling).status_code for spelling in SPELLINGS]

    assert before == 401  # nobody can know yet
    assert answers == [200, 200, 200]


def test_an_unknown_name_costs_what_a_known_one_does(alice, monkeypatch):
    compared = []
    monkeypatch.setattr(
        passwords, "check_password_hash", lambda stored, password: compared.append(password)
    )

    log_in(alice, "nobody", TYPED)
    log_in(alice, "alice", TYPED)

    assert len(compared) == 4 and compared[:2] == compared[2:]


def test_a_renewed_hash_is_not_renewed_again(alice, monkeypatch):
    alice.post("/api/auth/register", data=form("bob", password=TYPED))
    made = []
    monkeypatch.setattr(passwords, "hash_password", lambda password: made.append(password))

    log_in(alice, "bob", TYPED)

    assert made == []
