"""Calls during which one statement fails, whichever: they succeed, or answer 503 and leave nothing.

Before a statement is run, the database refuses it; after it, the answer is lost.
"""

import io

import pytest

import db
import pool as pools
from files import storage
from images import gallery
from tests.conftest import form
from tests.pictures import picture
from tests.test_queue import submit_one, work

IMAGES = "/api/v1/images"


class Outage:
    """Lets the statement of a number fail, once."""

    def __init__(self, monkeypatch):
        self.number, self.seen, self.is_lost = -1, 0, False
        monkeypatch.setattr(db, "RETRY_INTERVAL_SECONDS", 0)
        for engine in (pools.MySQL, pools.SQLite):
            monkeypatch.setattr(engine, "run", self.breaking(engine.run))
        monkeypatch.setattr(pools.MySQL, "run_all", self.breaking(pools.MySQL.run_all))

    def breaking(self, run):
        def run_or_fail(connection, *arguments):
            number, self.seen = self.seen, self.seen + 1
            result = None
            if number != self.number or self.is_lost:
                result = run(connection, *arguments)
            if number == self.number:
                raise pools.Unavailable
            return result

        return run_or_fail

    def during(self, number: int, call):
        """Return the answer of a call during which this statement fails; None if it has less."""
        self.number, self.seen = number, 0
        response = call(number)
        self.number = -1
        return response if self.seen > number else None


@pytest.fixture
def outage(monkeypatch, settings):
    settings.REGISTRATIONS_PER_ADDRESS = settings.MAX_ACTIVE_JOBS = 10**6
    return Outage(monkeypatch)


def draw(alice, number: int):
    return alice.generate(seed=number)


def draw_with_key(alice, number: int):
    body = {"prompt": "a fox", "params": {"width": 64, "height": 64, "steps": 1}}
    return alice.post(f"{IMAGES}/generate-test", json=body, headers=key(number))


def submit(alice, number: int):
    return alice.post(f"{IMAGES}/generate", json={"prompt": "a fox", "n": 3})


def submit_with_key(alice, number: int):
    body = {"prompt": "a fox", "n": 3}
    return alice.post(f"{IMAGES}/generate", json=body, headers=key(number))


def key(number: int) -> dict[str, str]:
    return {"Idempotency-Key": f"k{number}"}


def retry(alice, number: int):
    return alice.post(f"{IMAGES}/{number + 1}/retry")


def register(alice, number: int):
    avatar = (io.BytesIO(picture("PNG")), "a.png")
    return alice.post("/api/auth/register", data=form(f"bob{number}", avatar=avatar))


def log_in(alice, number: int):
    return alice.post("/api/auth/login", json={"username": "alice", "password": "secret1"})


def cancel(alice, number: int):
    return alice.post(f"{IMAGES}/{number + 1}/cancel")


def delete(alice, number: int):
    return alice.open("DELETE", f"{IMAGES}/{number + 1}")


def left(settings) -> tuple:
    """Return what a call may change: rows, files, and what is counted."""
    return (
        db.all("SELECT id, status FROM image_generations ORDER BY id"),
        db.all("SELECT id, quota_used, image_count FROM users ORDER BY id"),
        db.all("SELECT name, hits FROM rate_limits WHERE hits > 0 AND name LIKE 'register%%'"),
        sorted(path for path in settings.uploads_dir.rglob("*") if path.is_file()),
    )


@pytest.mark.parametrize(
    "call",
    [draw, draw_with_key, submit, submit_with_key, retry, register, log_in, cancel, delete],
)
def test_a_call_whose_statement_is_refused_leaves_nothing(alice, settings, outage, call):
    for _ in range(20 if call in (cancel, delete, retry) else 0):
        submit_one(alice)
    if call in (delete, retry):
        work()
    number, refused = 0, 0
    while True:
        before = left(settings)
        response = outage.during(number, lambda number: call(alice, number))
        if response is None:
            break
        if response.status_code == 503:
            assert (int(response.headers["Retry-After"]) > 0, left(settings)) == (True, before)
            response = call(alice, number)
            refused += 1
        assert response.status_code in (200, 202)
        number += 1

    assert refused > 0


@pytest.mark.parametrize("call", [draw_with_key, submit_with_key])
def test_a_call_whose_answer_was_lost_may_be_repeated_with_its_key(
    alice, outage, monkeypatch, call
):
    monkeypatch.setattr(gallery, "WAIT_SECONDS", 0)
    outage.is_lost = True
    number = 0
    while response := outage.during(number, lambda number: call(alice, number)):
        again = call(alice, number)
        assert {response.status_code, again.status_code} <= {200, 202, 503}
        number += 1

    total = alice.history()["pagination"]["total"]
    assert total == (number + 1) * (1 if call is draw_with_key else 3)


def refuse(*arguments):
    raise storage.Unavailable


def test_a_key_may_be_sent_again_after_the_storage_was_full(alice, monkeypatch):
    monkeypatch.setattr(storage, "put", refuse)
    first = draw_with_key(alice, 1)
    monkeypatch.undo()

    assert first.json["code"] == "storage_unavailable"
    assert draw_with_key(alice, 1).status_code == 200
    assert alice.get(f"{IMAGES}/quota").json["data"]["used"] == 1


def test_a_key_may_be_sent_again_after_a_worker_found_the_storage_full(alice):
    draw_with_key(alice, 1)
    db.execute("UPDATE image_generations SET status = 'failed', error_code = 'storage_unavailable'")

    answers = [draw_with_key(alice, 1) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [503, 200]
    assert alice.history()["pagination"]["total"] == 1
