"""Print what it costs to take a job, and to tell how long the queue is, while many jobs wait: JSON.

    bench/scale.py USERS JOBS WORKERS

Run by run.py, in the environment of its database. The workers are threads of four processes that
take jobs all the time, each one after two seconds, as if each image took that long.
"""

import json
import multiprocessing
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from statistics import median, quantiles

import config
import db
from images import jobs, queue_status, waiting

PROCESSES = 4
SECONDS = 15
IMAGE_SECONDS = 2
ROWS = 1000
MODEL = "test_model"
ADD_USER = """
    INSERT INTO users (username, username_key, email, email_key, password_hash)
    VALUES {values}
"""
ADD_JOB = """
    INSERT INTO image_generations
           (user_id, prompt_text, generation_params_json, status, model, width, height)
    VALUES {values}
"""
FINISH = "UPDATE image_generations SET status = 'completed' WHERE id = %s"


def insert(sql: str, rows: list[tuple]) -> None:
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        places = ", ".join([f"({db.placeholders(some[0])})"] * len(some))
        db.execute(sql.format(values=places), *[value for row in some for value in row])


def fill(users: int, number: int) -> None:
    names = [f"scale{user}" for user in range(users)]
    insert(ADD_USER, [(name, name, name, name, "x") for name in names])
    ids = [row["id"] for row in db.all("SELECT id FROM users WHERE username LIKE 'scale%%'")]
    random.shuffle(ids)
    owners = [ids[job % users] for job in range(number)]
    insert(ADD_JOB, [(owner, "a fox", "{}", "pending", MODEL, 64, 64) for owner in owners])
    db.execute(
        """
        INSERT INTO waiting (user_id, model, number, first_id, last_id, served_at)
        SELECT user_id, model, COUNT(*), MIN(id), MAX(id), 0
          FROM image_generations
         WHERE status = 'pending' AND model = %s
      GROUP BY user_id, model
        """,
        MODEL,
    )


def work(until: float) -> list[float]:
    """Take jobs and end them; return how many milliseconds each take lasted."""
    spent = []
    time.sleep(random.uniform(0, IMAGE_SECONDS))
    while time.time() < until:
        started = time.perf_counter()
        job = jobs.acquire([MODEL])
        spent.append((time.perf_counter() - started) * 1000)
        time.sleep(random.uniform(0, 2 * IMAGE_SECONDS))
        db.execute(FINISH, job["id"])
    return spent[2:]  # the first ones open connections


def prepare(all_ready: Barrier) -> None:
    global ready
    ready = all_ready
    config.load()


def work_in_threads(threads: int) -> list[float]:
    config.settings.DB_POOL_SIZE = 2 * threads
    ready.wait()
    until = time.time() + SECONDS
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(work, until) for _ in range(threads)]
    return [ms for future in futures for ms in future.result()]


def status_ms() -> float:
    times = []
    for _ in range(10):
        started = time.perf_counter()
        queue_status.QueueStatus()
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


def main() -> None:
    users, number, workers = map(int, sys.argv[1:])
    config.load()
    fill(users, number)
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(PROCESSES, prepare, [processes.Barrier(PROCESSES)]) as pool:
        found = pool.map(work_in_threads, [workers // PROCESSES] * PROCESSES, chunksize=1)
    spent = [ms for part in found for ms in part]
    print(
        json.dumps(
            {
                "median": median(spent),
                "p95": quantiles(spent, n=20)[-1],
                "takes": len(spent),
                "wrong": len(waiting.list_wrong()),
                "status": status_ms(),
            }
        )
    )
    db.execute("DELETE FROM image_generations WHERE model = %s", MODEL)
    db.execute("DELETE FROM waiting")
    db.execute("DELETE FROM users WHERE username LIKE 'scale%%'")


if __name__ == "__main__":
    main()
