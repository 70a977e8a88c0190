"""The positions and times left that waiting and running generations tell."""

import random
import time

import pytest

import db
from images import jobs, queue, queue_status
from tests.conftest import Person
from tests.servers import wait_until
from tests.test_models import declare
from tests.test_queue import record, submit

__all__ = ["declare"]  # a fixture
MODEL = """
[{name}]
label = "{name}"
engine = "painter"
deadline_seconds = 60
width = {{ min = 64, max = 64, default = 64 }}
height = {{ min = 64, max = 64, default = 64 }}
"""
MODELS = MODEL.format(name="fast") + MODEL.format(name="slow")


@pytest.fixture(autouse=True)
def fresh(monkeypatch, database):
    """Look at the queue anew for each answer."""
    fresh = queue_status.cached(seconds=0)(queue_status.QueueStatus)
    monkeypatch.setattr(queue_status, "current", fresh)


@pytest.fixture
def two_models(declare):
    declare(MODELS)
    queue.note_seconds("fast", 2)
    queue.note_seconds("slow", 60)


def ask(person, model: str, n: int = 1) -> list[int]:
    body = {"prompt": "a fox", "model": model, "n": n}
    response = person.post("/api/v1/images/generate", json=body)
    return [row["id"] for row in response.json["data"]["records"]]


def told(person, number: int) -> tuple[int | None, int | None]:
    shown = record(person, number)
    return shown["queuePosition"], shown["etaSeconds"]


def waiting_of(people) -> dict[int, int]:
    """Return the position of everything that waits, by id."""
    found = {}
    for person in people:
        for row in person.history("?status=pending&per_page=50")["records"]:
            found[row["id"]] = row["queuePosition"]
    return found


def end(job) -> None:
    db.execute("UPDATE image_generations SET status = 'failed' WHERE id = %s", job["id"])


# -- The order ----------------------------------------------------------------------------------


def test_each_of_several_has_a_position_of_its_own(alice):
    records = submit(alice, n=4).json["data"]["records"]

    assert [row["queuePosition"] for row in records] == [1, 2, 3, 4]
    assert waiting_of([alice]) == {row["id"]: row["queuePosition"] for row in records}


def test_what_was_submitted_within_the_last_second_comes_behind(alice, bob, monkeypatch):
    submit(alice, n=2)
    snapshot = queue_status.QueueStatus()
    monkeypatch.setattr(queue_status, "current", lambda: snapshot)

    more = submit(alice, n=2).json["data"]["records"]
    other = submit(bob, n=2).json["data"]["records"]

    assert [row["queuePosition"] for row in more] == [3, 4]
    assert [row["queuePosition"] for row in other] == [2, 4]


@pytest.mark.parametrize("running", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_positions_are_the_order_in_which_workers_take(database, settings, seed, running):
    chance = random.Random(seed)
    settings.MAX_ACTIVE_JOBS = 50
    people = [Person(name) for name in ("anna", "bert", "carl")]
    for _ in range(8):
        submit(chance.choice(people), n=chance.randint(1, 2))
    for _ in range(running):
        jobs.acquire(["test_model"])

    positions = waiting_of(people)
    taken = [jobs.acquire(["test_model"])["id"] for _ in positions]

    assert sorted(positions, key=positions.get) == taken
    assert sorted(positions.values()) == list(range(1, len(taken) + 1))


def test_positions_are_the_order_of_one_worker_too(database, settings):
    settings.MAX_ACTIVE_JOBS = 50
    people = [Person(name) for name in ("anna", "bert", "carl")]
    for person, n in zip(people, (4, 1, 3)):
        submit(person, n=n)
    running = jobs.acquire(["test_model"])
    submit(people[1], n=2)

    positions = waiting_of(people)
    taken = []
    for _ in positions:
        end(running)
        running = jobs.acquire(["test_model"])
        taken.append(running["id"])

    assert sorted(positions, key=positions.get) == taken


# -- Models -------------------------------------------------------------------------------------


def test_models_with_workers_of_their_own_wait_by_themselves(alice, two_models):
    queue.note_worker("gpu", '{"slow": ""}', 60.0)
    queue.note_worker("hosted", '{"fast": ""}', 2.0)
    slow = ask(alice, "slow", n=3)
    fast = ask(alice, "fast", n=2)

    assert [told(alice, number) for number in slow] == [(1, 60), (2, 120), (3, 180)]
    assert [told(alice, number) for number in fast] == [(1, 2), (2, 4)]


def test_a_worker_of_both_makes_one_after_the_other(alice, two_models):
    queue.note_worker("both", '{"slow": "", "fast": ""}', 30.0)
    slow = ask(alice, "slow", n=2)
    [fast] = ask(alice, "fast")

    assert [told(alice, number) for number in (*slow, fast)] == [(1, 60), (2, 120), (1, 122)]


def test_a_second_worker_of_one_model_alone_does_not_wait_for_the_other(alice, two_models):
    queue.note_worker("both", '{"slow": "", "fast": ""}', 30.0)
    queue.note_worker("hosted", '{"fast": ""}', 2.0)
    ask(alice, "slow", n=2)
    [fast] = ask(alice, "fast")

    assert told(alice, fast) == (1, 2)


def test_a_model_that_no_worker_can_make_has_a_position_but_no_time(alice, two_models):
    queue.note_worker("gpu", '{"slow": "engine_unavailable", "fast": ""}', 60.0)
    ask(alice, "fast")
    [slow] = ask(alice, "slow")

    assert told(alice, slow) == (1, None)


def test_a_model_without_an_image_yet_takes_what_its_workers_take(alice, declare):
    declare(MODELS)
    queue.note_worker("both", '{"slow": "", "fast": ""}', 30.0)

    assert told(alice, ask(alice, "slow")[0]) == (1, 30)


# -- While it is made ---------------------------------------------------------------------------


@pytest.mark.parametrize(("progress", "left"), [(10, 54), (50, 30), (99, 1)])
def test_the_time_left_follows_the_progress(alice, two_models, progress, left):
    [number] = ask(alice, "slow")
    jobs.acquire(["slow"])
    db.execute("UPDATE image_generations SET progress = %s", progress)

    assert told(alice, number) == (None, left)


@pytest.mark.parametrize(("started", "left"), [(20, 40), (59, 1), (600, 1)])
def test_without_progress_it_follows_the_clock(alice, two_models, started, left):
    [number] = ask(alice, "slow")
    jobs.acquire(["slow"])
    then = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(queue.database_time() - started))
    db.execute("UPDATE image_generations SET started_at = %s", then)

    position, seconds = told(alice, number)

    assert position is None and left - 2 <= seconds <= left + 1


def test_a_start_that_nobody_noted_is_now(alice, two_models):
    [number] = ask(alice, "slow")
    jobs.acquire(["slow"])
    db.execute("UPDATE image_generations SET started_at = NULL")

    assert told(alice, number) == (None, 60)


def test_what_waits_counts_the_rest_of_what_is_made(alice, two_models):
    queue.note_worker("gpu", '{"slow": ""}', 60.0)
    _, second = ask(alice, "slow", n=2)
    jobs.acquire(["slow"])
    db.execute("UPDATE image_generations SET progress = 50 WHERE status = 'processing'")

    assert told(alice, second) == (1, 90)


def test_what_is_finished_or_older_than_the_queue_tells_neither(alice):
    columns = {"user_id": alice.id, "prompt_text": "old"}
    for status in ("pending", "processing", "completed", "rendering"):
        db.insert("image_generations", status=status, **columns)

    shown = {(row["queuePosition"], row["etaSeconds"]) for row in alice.history()["records"]}

    assert shown == {(None, None)}


# -- How long a model takes ---------------------------------------------------------------------


def test_a_worker_notes_how_long_each_model_takes(alice, declare, start_worker):
    declare(MODELS)
    start_worker("worker.py")
    [number] = ask(alice, "fast")

    wait_until(lambda: record(alice, number)["status"] == "completed", what="the image")
    wait_until(lambda: queue.list_model_seconds(), what="the note")

    assert list(queue.list_model_seconds()) == ["fast"]


def test_the_usual_seconds_follow_the_last_few():
    for seconds in (10, 20):
        queue.note_seconds("x", seconds)

    assert queue.list_model_seconds() == {"x": 12}
