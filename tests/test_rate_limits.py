"""What answers say of the limits that they counted against."""

import re

import pytest

import db
import pool as pools
from tests.conftest import form

PROMPT = {"prompt": "a fox"}


def log_in(client, password="secret1", address="127.0.0.1", username="alice"):
    body = {"username": username, "password": password}
    return client.post("/api/auth/login", json=body, environ_base={"REMOTE_ADDR": address})


def submit(client, **body):
    return client.post("/api/v1/images/generate", json={**PROMPT, **body})


def limits(answer) -> list[tuple[str, int]]:
    """Return the name of each limit in an answer, and how often the call is still good."""
    windows = re.findall(r'"(\w+)";q=\d+;w=(\d+)', answer.headers.get("RateLimit-Policy", ""))
    found = re.findall(r'"(\w+)";r=(\d+);t=(\d+)', answer.headers.get("RateLimit", ""))
    assert [name for name, _ in windows] == [name for name, *_ in found]
    for (_, window), (_, _, seconds) in zip(windows, found):
        assert 0 < int(seconds) <= int(window)
    return [(name, int(left)) for name, left, _ in found]


def effective_window(answer) -> str:
    return answer.headers["RateLimit"].rpartition("t=")[2]


def test_a_failed_log_in_says_how_many_are_left(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 3

    answers = [log_in(alice, "wrong1", "10.0.0.7") for _ in range(4)]

    assert [limits(answer)[0][1] for answer in answers] == [2, 1, 0, 0]
    assert answers[0].headers["RateLimit-Policy"] == '"login";q=3;w=600'
    assert effective_window(answers[3]) == answers[3].headers["Retry-After"]


def test_a_good_log_in_costs_nothing(alice):
    answer = log_in(alice)

    assert limits(answer) == [("login", 10)]


def test_a_name_without_an_account_shows_what_one_with_an_account_does(alice):
    known, unknown = log_in(alice, "wrong1"), log_in(alice, "wrong1", username="nobody")

    assert limits(known) == limits(unknown) == [("login", 9)]


def test_nobody_sees_what_others_do(alice):
    log_in(alice, "wrong1", "10.0.0.7")

    assert limits(log_in(alice, "wrong1", "10.0.0.8")) == [("login", 9)]


def test_what_is_left_begins_anew_after_the_window(alice):
    log_in(alice, "wrong1")
    db.execute("UPDATE rate_limits SET expires_at = 1")

    assert limits(log_in(alice, "wrong1")) == [("login", 9)]


def test_registration_shows_its_limits(client):
    answer = client.post("/api/auth/register", data=form("ann"))
    taken = client.post("/api/auth/register", data=form("ann"))

    assert limits(answer) == [("register", 999), ("taken", 100)]
    assert limits(taken)[1] == ("taken", 99)
    assert answer.headers["RateLimit-Policy"] == '"register";q=1000;w=3600, "taken";q=100;w=3600'


def test_a_submit_shows_what_is_left_of_the_minute(alice, settings):
    settings.SUBMITS_PER_MINUTE = 7

    first, second = submit(alice, n=4), submit(alice)

    assert first.headers["RateLimit-Policy"] == '"submit";q=7;w=60'
    assert limits(first) == [("submit", 3)]
    assert limits(second)[0][1] in (2, 6)  # in the next minute


def test_what_is_left_of_the_minute_costs_no_statement(alice, monkeypatch):
    submit(alice)
    sent = []
    for engine in (pools.MySQL, pools.SQLite):
        run_all = engine.run_all
        monkeypatch.setattr(
            engine,
            "run_all",
            lambda self, all, run_all=run_all: sent.extend(all) or run_all(self, all),
        )

    answer = submit(alice)

    assert limits(answer)[0][0] == "submit"
    assert [sql.split()[0] for sql, _ in sent] == ["UPDATE", "INSERT", "COMMIT"]


def test_a_spent_minute_shows_nothing_left_until_its_end(alice, settings):
    settings.SUBMITS_PER_MINUTE = 1
    answers = [submit(alice) for _ in range(3)]  # one minute may end in between

    refused = next(answer for answer in answers if answer.status_code == 429)

    assert limits(refused) == [("submit", 0)]
    assert effective_window(refused) == refused.headers["Retry-After"]


@pytest.mark.parametrize("call", ["generate-test", "retry"])
def test_other_submits_show_it_too(alice, call):
    generation = submit(alice).json["data"]["records"][0]["id"]
    url = "generate-test" if call == "generate-test" else f"{generation}/retry"

    answer = alice.post(f"/api/v1/images/{url}", json=PROMPT if call == "generate-test" else {})

    assert [name for name, _ in limits(answer)] == ["submit"]


def test_an_api_key_sees_the_minute_of_its_account(alice, client):
    submit(alice, n=2)
    made = alice.post("/api/v1/keys", json={"name": "program", "scopes": ["generate"]})
    key = {"Authorization": f"Bearer {made.json['data']['key']}"}

    answer = client.post("/api/v1/images/generate", json=PROMPT, headers=key)

    assert (answer.status_code, limits(answer)[0][1] in (117, 119)) == (202, True)


def test_what_counts_against_nothing_shows_nothing(alice):
    submit(alice)

    for url in ("/api/auth/profile", "/api/v1/images/history", "/api/health", "/nowhere"):
        assert "RateLimit" not in alice.get(url).headers


def test_a_repeated_submit_counts_against_nothing(alice):
    key = {"Idempotency-Key": "one"}
    alice.post("/api/v1/images/generate", json=PROMPT, headers=key)

    again = alice.post("/api/v1/images/generate", json=PROMPT, headers=key)

    assert (again.status_code, "RateLimit" in again.headers) == (202, False)


def test_a_page_of_another_origin_may_read_them(alice):
    answer = alice.get("/api/health", headers={"Origin": "http://localhost:5173"})

    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"RateLimit", "RateLimit-Policy"} <= set(exposed)
