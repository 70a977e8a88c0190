"""What statements cost the database: as much with many rows as with few, whatever their plan."""

import pytest

import db
from images import admin, jobs, queue, quota, waiting
from pool import pool
from tests.test_queue import next_generation, submit

MODELS = ["test_model", "other"]


@pytest.fixture
def effort(database):
    """Return a function that calls another one, and tells how much the database did for it."""
    return {"mariadb": rows_read, "sqlite": steps}[database]


def rows_read(call) -> int:
    db.execute("FLUSH STATUS")
    call()
    return sum(int(row["Value"]) for row in session_status("Handler_read%"))


def session_status(pattern: str) -> list[db.Row]:
    return db.all("SHOW SESSION STATUS LIKE %s", pattern)


def steps(call) -> int:
    """Count the steps of SQLite's machine in tens."""
    counted = []
    connection = pool.take()
    connection.driver.set_progress_handler(lambda: counted.append(1), 10)
    pool.give_back(connection)  # it is lent next
    call()
    connection.driver.set_progress_handler(None, 0)
    return len(counted)


def add_generations(person, number: int, **columns) -> None:
    """Insert many alike at once."""
    row = {"user_id": person.id, "prompt_text": "old", "status": "completed", **columns}
    places = ", ".join([f"({db.placeholders(row)})"] * number)
    values = list(row.values()) * number
    db.execute(f"INSERT INTO image_generations ({', '.join(row)}) VALUES {places}", *values)


def analyze(database: str) -> None:
    """Bring the statistics of MariaDB up to date, which it does by itself, but later."""
    if database == "mariadb":
        db.all("ANALYZE TABLE image_generations")


@pytest.mark.parametrize("status", ["pending", "processing"])
@pytest.mark.parametrize(
    "look",
    [
        lambda: next_generation(MODELS),
        waiting.count,
        lambda: queue.list_waiting(1000),
        queue.list_running,
        queue.count_unfinished,
        queue.list_abandoned,
        lambda: admin.list_jobs({"status": "pending"}, 20),
        lambda: admin.list_jobs({"status": "processing"}, 20),
        lambda: quota.get_quota(1),
        jobs.sweep,
    ],
)
def test_what_older_programs_left_unfinished_costs_the_queue_nothing(
    database, effort, alice, status, look
):
    submit(alice, n=2)
    analyze(database)
    few = effort(look)
    add_generations(alice, 400, status=status)
    analyze(database)

    assert effort(look) <= few + 10
