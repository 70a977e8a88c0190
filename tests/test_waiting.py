"""The table `waiting`: it chooses as a look at all jobs would, and follows what changes them."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import db
from accounts import registration, users
from images import jobs, positions, queue, queue_status, trash, waiting
from tests.conftest import Person
from tests.test_effort import add_generations
from tests.test_queue import next_generation, submit, submit_one

MODELS = ["one", "two", "three"]
# The choice as it was made before there was the table.
BY_ALL_JOBS = """
       SELECT MIN(g.id) AS id
         FROM image_generations AS g
         JOIN users AS u ON u.id = g.user_id AND u.is_disabled = 0
    LEFT JOIN (SELECT user_id, COUNT(*) AS number
                 FROM image_generations
                WHERE status = 'processing' AND model IS NOT NULL
             GROUP BY user_id) AS working ON working.user_id = g.user_id
        WHERE g.status = 'pending' AND g.not_before <= UNIX_TIMESTAMP()
          AND g.model IN ({models})
     GROUP BY g.user_id, u.served_at, working.number
     ORDER BY COALESCE(working.number, 0),
              CASE WHEN u.served_at > UNIX_TIMESTAMP() + 60 THEN 0 ELSE u.served_at END, id
        LIMIT 1
"""


def by_all_jobs(models: list[str]) -> int | None:
    sql = BY_ALL_JOBS.format(models=db.placeholders(models))
    row = db.one(sql, *models)
    return row["id"] if row else None


def add_users(number: int, chance: random.Random) -> list[int]:
    ids = []
    for _ in range(number):
        name = f"user{chance.random()}"
        user_id = users.create_user(name, name, name, name, "x")
        served_at = chance.choice([0, 0, 5, 7, chance.random() * 1000, 2**40])
        disabled = int(chance.random() < 0.1)
        sql = "UPDATE users SET served_at = %s, is_disabled = %s WHERE id = %s"
        db.execute(sql, served_at, disabled, user_id)
        ids.append(user_id)
    return ids


def add_jobs(ids: list[int], number: int, busy: float, chance: random.Random) -> None:
    for _ in range(number):
        db.insert(
            "image_generations",
            user_id=chance.choice(ids),
            prompt_text="a fox",
            status="processing" if chance.random() < busy else "pending",
            model=chance.choice(MODELS),
            not_before=chance.choice([0, 0, 0, 2**40]),
        )


def wrong() -> list[db.Row]:
    """Return what is wrong after submits are counted, as they are before the table is read."""
    waiting.count_new()
    return waiting.list_wrong()


def take(generation_id: int, served_at: float) -> None:
    job = queue.get_job(generation_id)
    assert queue.claim_job(job, "c" * 32, 30, 60, now=served_at)


@pytest.mark.parametrize("busy", [0, 0.1, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_the_turn_is_that_of_a_look_at_all_jobs(database, monkeypatch, seed, busy):
    monkeypatch.setattr(waiting, "CANDIDATES", 2)
    chance = random.Random(seed)
    ids = add_users(12, chance)
    add_jobs(ids, 60, busy, chance)
    for user_id in ids:
        waiting.recount(user_id)

    served_at, number = 2000, 0
    while number < 40:
        models = chance.sample(MODELS, chance.randint(1, 3))
        chosen = next_generation(models)
        assert chosen == by_all_jobs(models)
        if chosen is None:
            break
        served_at, number = served_at + 1, number + 1
        take(chosen, served_at)

    assert wrong() == []


def change(person, chance: random.Random) -> None:
    """Do one of the things that change what waits, or try to."""
    ids = [row["id"] for row in person.history()["records"]] or [submit_one(person)]
    job = jobs.acquire(["test_model"])
    one = chance.choice(ids)
    changes = [
        lambda: submit(person, n=chance.randint(1, 4)),
        lambda: submit(person, n=2, key=str(one)),
        lambda: person.post(f"/api/v1/images/{one}/cancel"),
        lambda: person.open("DELETE", f"/api/v1/images/{one}"),
        lambda: trash.take_out(person.id, ids[:3], into_trash=False),
        lambda: trash.restore(person.id, list(range(100))),
        lambda: job and jobs.release(job),
        lambda: job and jobs.fail(job, "engine_error"),
        person.generate,
    ]
    chance.choice(changes)()


def test_whatever_changes_jobs_keeps_it_right(alice, bob, settings):
    settings.MAX_ACTIVE_JOBS, settings.TRASH_DAYS = 50, 7
    chance = random.Random(1)
    for _ in range(40):
        change(chance.choice([alice, bob]), chance)
        assert wrong() == []

    number = db.value("SELECT COUNT(*) FROM image_generations WHERE status = 'pending'")
    assert waiting.count() == number


def test_a_failed_job_that_is_put_back_waits_again(alice):
    number = submit_one(alice)
    jobs.fail(jobs.acquire(["test_model"]), "engine_error")
    assert waiting.count() == 0

    with db.transaction():
        queue.requeue_within(queue.get_job(number))

    assert (waiting.count(), wrong()) == (1, [])


def test_nothing_waits_of_an_account_that_ended(alice):
    submit(alice, n=3)

    registration.delete_account(users.get_user(alice.id))

    assert db.all("SELECT user_id FROM waiting") == []


def test_many_at_once_keep_it_right(alice, bob, settings):
    settings.MAX_ACTIVE_JOBS = 1000
    over = threading.Event()

    def ask(person) -> None:
        for turn in range(8):
            ids = [row["id"] for row in submit(person, n=1 + turn % 3).json["data"]["records"]]
            if turn % 2:
                person.post(f"/api/v1/images/{ids[0]}/cancel")

    def take_some() -> int:
        taken = 0
        while not over.is_set():
            job = jobs.acquire(["test_model"])
            if job and job["id"] % 3:
                jobs.fail(job, "engine_error")
                taken += 1
            elif job:
                jobs.release(job)
        return taken

    with ThreadPoolExecutor(8) as threads:
        workers = [threads.submit(take_some) for _ in range(4)]
        for asked in [threads.submit(ask, person) for person in (alice, bob, alice, bob)]:
            asked.result()
        over.set()

    assert wrong() == [] and all(one.result() is not None for one in workers)


@pytest.mark.parametrize("empty_database", ["mariadb"], indirect=True)
def test_what_is_new_is_counted_of_all_but_those_who_are_locked(alice, bob):
    submit(alice, n=2)
    submit(bob, n=3)
    is_locked, may_end = threading.Event(), threading.Event()

    def lock() -> None:
        with db.transaction():
            db.one("SELECT id FROM users WHERE id = %s FOR UPDATE", alice.id)
            is_locked.set()
            may_end.wait(30)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(lock)
        is_locked.wait(30)
        before = waiting.count()
        may_end.set()
        holding.result()

    assert (before, waiting.count(), wrong()) == (3, 5, [])


# -- Processes of the release before -------------------------------------------------------------


def test_what_nobody_counted_is_taken_as_soon_as_there_is_nothing_else(alice):
    add_generations(alice, 3, status="pending", model="test_model")

    taken = [jobs.acquire(["test_model"]) for _ in range(4)]

    assert [bool(job) for job in taken] == [True, True, True, False]
    assert wrong() == []


def test_a_sweep_sets_it_right_again(alice, bob):
    submit(alice, n=3)
    db.execute("DELETE FROM waiting")
    add_generations(bob, 2, status="pending", model="test_model")
    db.execute("UPDATE users SET served_at = 9 WHERE id = %s", bob.id)

    jobs.sweep()

    assert (waiting.count(), wrong()) == (5, [])


def test_of_many_workers_one_compares_it_with_the_jobs(alice, monkeypatch):
    calls = []
    monkeypatch.setattr(waiting, "list_wrong", lambda: calls.append(1) or [])

    for _ in range(5):
        jobs.sweep()

    assert len(calls) == 1


def test_a_number_too_many_takes_nothing_that_is_not_there(alice, bob):
    submit(alice, n=2)
    db.execute("UPDATE image_generations SET status = 'canceled'")
    other = submit_one(bob)

    assert jobs.acquire(["test_model"])["id"] == other
    assert jobs.acquire(["test_model"]) is None


# -- A long queue --------------------------------------------------------------------------------


@pytest.fixture
def long_queue(monkeypatch):
    monkeypatch.setattr(queue_status, "MAX_ORDERED", 0)
    fresh = queue_status.cached(seconds=0)(queue_status.QueueStatus)
    monkeypatch.setattr(queue_status, "current", fresh)


def test_positions_in_a_long_queue_are_the_order_of_the_workers(database, long_queue, settings):
    settings.MAX_ACTIVE_JOBS = 50
    people = [Person(name) for name in ("anna", "bert", "carl")]
    for person, n in zip(people, (4, 1, 3)):
        submit(person, n=n)
    jobs.acquire(["test_model"])

    shown = {}
    for person in people:
        for row in person.history("?status=pending")["records"]:
            shown[row["id"]] = row["queuePosition"]
    taken = [jobs.acquire(["test_model"])["id"] for _ in shown]

    assert sorted(shown, key=shown.get) == taken
    assert sorted(shown.values()) == list(range(1, len(taken) + 1))


def test_in_a_long_queue_a_new_record_comes_behind(alice, bob, long_queue):
    submit(alice, n=2)
    queue.note_worker("w", '{"test_model": ""}', 6.0)

    records = submit(bob, n=2).json["data"]["records"]

    assert [row["queuePosition"] for row in records] == [2, 4]
    assert [row["etaSeconds"] for row in records] == [12, 24]


def test_a_long_line_of_two_models_mixes_them_evenly():
    rows = [
        {"user_id": 1, "model": "a", "number": 2, "first_id": 1, "last_id": 3, "served_at": 0.0},
        {"user_id": 1, "model": "b", "number": 2, "first_id": 2, "last_id": 4, "served_at": 0.0},
        {"user_id": 2, "model": "a", "number": 9, "first_id": 5, "last_id": 13, "served_at": 1.0},
    ]
    line = positions.LongLine(rows, positions.Counter(), {"a": 10.0, "b": 2.0})

    last = line.turn(1, 4)

    assert (last.index, line.position(last, "b"), line.position(last, "a")) == (3, 3, 5)
    assert line.seconds_before(last) == pytest.approx(10 * 4.5 + 2 * 1.5)
