"""worker.py as real processes: killed, told to end or to stop a job, stuck, without a database."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import db
import worker as program
from images import jobs, queue
from tests.conftest import Person
from tests.servers import ROOT, clean_environment, wait_until
from tests.test_queue import record, submit_one

# A worker whose engine, while a file exists, reports progress without end for the prompt "slow",
# and hangs without reporting any for the prompt "stuck".
WORKER = """
import pathlib, sys, time
import worker
from engines import painter

held, draw = pathlib.Path(sys.argv[1]), painter.make

def make(request, on_progress):
    while held.exists() and request.prompt in ("slow", "stuck"):
        time.sleep(0.02)
        if request.prompt == "slow":
            on_progress(request.steps // 2, request.steps)
    return draw(request, on_progress)

painter.make = make
worker.KILL_AFTER_SECONDS = 1
worker.main()
"""

MODEL = """
[{name}]
label = "A painter"
engine = "painter"
deadline_seconds = {deadline_seconds}
width = {{ min = 64, max = 512, default = 64 }}
height = {{ min = 64, max = 512, default = 64 }}
steps = {{ min = 1, max = 50, default = 2 }}
"""


@pytest.fixture
def hold(tmp_path):
    """The file that holds up slow and stuck jobs; remove it to let them end."""
    path = tmp_path / "hold"
    path.touch()
    return path


@pytest.fixture
def worker(start_worker, hold):
    """Start a worker whose engine can be held: `worker(WORKER_GRACE_SECONDS="0")`."""
    return lambda **changes: start_worker("-c", WORKER, str(hold), **changes)


@pytest.fixture
def models_file(settings, tmp_path):
    """Declare models in place of the usual one, by their deadline: `models_file(one=600)`."""

    def write(**deadlines: int) -> None:
        settings.MODELS_FILE = tmp_path / f"models-{len(list(tmp_path.iterdir()))}.toml"
        tables = [
            MODEL.format(name=name, deadline_seconds=seconds) for name, seconds in deadlines.items()
        ]
        settings.MODELS_FILE.write_text("".join(tables))

    return write


def row(number: int) -> dict:
    return db.one("SELECT status, attempt, claim FROM image_generations WHERE id = %s", number)


def wait_for(person, number: int, status: str) -> dict:
    wait_until(lambda: row(number)["status"] == status, what=f"status {status} of {number}")
    return record(person, number)


def wait_for_progress(person, number: int) -> None:
    wait_until(lambda: record(person, number)["progress"] > 0, what="progress")


def files(settings) -> list[Path]:
    return [path for path in settings.uploads_dir.rglob("*") if path.is_file()]


# -- The good case, and a worker that dies ------------------------------------------------------


def test_a_worker_makes_what_waits_and_what_comes(alice, worker):
    first = submit_one(alice)
    worker()
    wait_for(alice, first, "completed")

    second = submit_one(alice)

    assert wait_for(alice, second, "completed")["imageUrl"]


def test_progress_of_a_running_job_is_shown(alice, worker):
    number = submit_one(alice, prompt="slow", steps=4)
    worker()

    wait_for_progress(alice, number)

    assert (record(alice, number)["progress"], record(alice, number)["status"]) == (
        50,
        "processing",
    )


def test_the_job_of_a_killed_worker_is_made_by_another(alice, worker, hold, settings):
    number = submit_one(alice, prompt="slow")
    first = worker()
    wait_for(alice, number, "processing")
    first.end(signal.SIGKILL)
    hold.unlink()
    db.execute("UPDATE image_generations SET lease_until = 1")

    worker()
    wait_for(alice, number, "completed")

    assert row(number)["attempt"] == 2
    assert len(files(settings)) == 2


def test_a_worker_that_was_frozen_past_its_lease_leaves_the_result_of_another_alone(
    alice, worker, hold, settings
):
    number = submit_one(alice, prompt="slow")
    frozen = worker()
    wait_for(alice, number, "processing")
    frozen.process.send_signal(signal.SIGSTOP)
    hold.unlink()
    db.execute("UPDATE image_generations SET lease_until = 1")
    worker()
    done = wait_for(alice, number, "completed")

    frozen.process.send_signal(signal.SIGCONT)
    wait_until(lambda: '"stopped"' in frozen.said(), what="the end of the lost job")

    assert record(alice, number) == done
    assert len(files(settings)) == 2


# -- A worker that is told to end ---------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends_at_once(database, worker, number):
    started = worker()
    wait_until(lambda: len(queue.list_live_workers(30)) == 1, what="the worker's name")

    assert started.end(number) == 0
    assert len(queue.list_live_workers(30)) == 0


def test_without_grace_a_running_job_is_released_as_if_not_acquired(alice, worker):
    number = submit_one(alice, prompt="slow")
    started = worker(WORKER_GRACE_SECONDS="0")
    wait_for(alice, number, "processing")

    assert started.end(signal.SIGTERM) == 0
    assert row(number) == {"status": "pending", "attempt": 0, "claim": None}


def test_with_grace_it_is_finished_and_no_other_is_acquired(alice, worker, hold):
    running, waiting = submit_one(alice, prompt="slow"), submit_one(alice)
    started = worker(WORKER_GRACE_SECONDS="60")
    wait_for(alice, running, "processing")
    started.process.send_signal(signal.SIGTERM)
    hold.unlink()

    assert started.process.wait(30) == 0
    assert (row(running)["status"], row(waiting)["status"]) == ("completed", "pending")


def test_a_job_whose_engine_is_stuck_is_released_too(alice, worker):
    number = submit_one(alice, prompt="stuck")
    started = worker(WORKER_GRACE_SECONDS="0")
    wait_for(alice, number, "processing")

    started.end(signal.SIGTERM)

    assert row(number) == {"status": "pending", "attempt": 0, "claim": None}


# -- A job that must stop -----------------------------------------------------------------------


def test_a_canceled_job_makes_room_for_the_next(alice, worker, settings):
    number = submit_one(alice, prompt="slow")
    worker()
    wait_for(alice, number, "processing")

    canceled = alice.post(f"/api/v1/images/{number}/cancel")
    assert canceled.status_code == 200
    wait_for(alice, submit_one(alice), "completed")

    assert row(number)["status"] == "canceled"
    assert len(files(settings)) == 2


def test_so_does_a_deleted_one(alice, worker, settings):
    number = submit_one(alice, prompt="slow")
    worker()
    wait_for(alice, number, "processing")

    deleted = alice.open("DELETE", f"/api/v1/images/{number}")
    assert deleted.status_code == 200
    wait_for(alice, submit_one(alice), "completed")

    assert len(files(settings)) == 2


def test_a_job_past_its_deadline_fails_and_its_worker_serves_on(alice, worker, models_file):
    models_file(short=1, long=600)
    started = worker()
    number = submit_one(alice, prompt="slow", model="short")

    assert wait_for(alice, number, "failed")["errorCode"] == "timeout"
    wait_for(alice, submit_one(alice, model="long"), "completed")
    assert started.process.poll() is None


def test_a_worker_whose_engine_is_stuck_past_the_deadline_ends_itself(alice, worker, models_file):
    models_file(short=1)
    started = worker()
    number = submit_one(alice, prompt="stuck", model="short")

    assert started.process.wait(30) == 70
    assert record(alice, number)["errorCode"] == "timeout"


# -- Models -------------------------------------------------------------------------------------


def test_a_worker_acquires_only_jobs_of_its_models(alice, worker, models_file):
    models_file(one=600, two=600)
    other, own = submit_one(alice, model="one"), submit_one(alice, model="two")

    worker(WORKER_MODELS="two")
    wait_for(alice, own, "completed")

    assert row(other)["status"] == "pending"


def start_with_mistake(**changes: str) -> subprocess.CompletedProcess:
    environment = clean_environment(**changes)
    return subprocess.run(
        [sys.executable, "worker.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_model_that_is_not_there_stops_the_start_with_one_line(tmp_path):
    ended = start_with_mistake(DATA_DIR=str(tmp_path), WORKER_MODELS="test_model,dall-e")

    assert (ended.returncode, ended.stderr) == (
        os.EX_CONFIG,
        "WORKER_MODELS: dall-e is not in models.toml\n",
    )


def test_workers_of_one_process_id_on_one_host_have_names_of_their_own():
    assert program.new_name() != program.new_name()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[one]\nlabel = 'One'\nengine = \n", "line 3"),
        (MODEL.format(name="one", deadline_seconds=0), "[one] deadline_seconds"),
    ],
)
def test_a_wrong_models_file_stops_the_start_and_names_the_place(tmp_path, text, where):
    (tmp_path / "wrong.toml").write_text(text)

    ended = start_with_mistake(DATA_DIR=str(tmp_path), MODELS_FILE=str(tmp_path / "wrong.toml"))

    assert ended.returncode == os.EX_CONFIG
    assert ended.stderr.startswith("MODELS_FILE: wrong.toml: ") and ended.stderr.count("\n") == 1
    assert where in ended.stderr


# -- An unavailable database ---------------------------------------------------------------------


def test_an_idle_worker_waits_for_its_database_to_come_back(killable, worker):
    started = worker()
    killable.kill()
    wait_until(lambda: "the database is away" in started.said(), what="the worker's complaint")

    killable.start()
    alice = Person("alice")
    wait_for(alice, submit_one(alice), "completed")

    assert started.process.poll() is None


def test_a_job_goes_on_while_the_database_is_unavailable(killable, worker, hold):
    started, alice = worker(), Person("alice")
    number = submit_one(alice, prompt="slow")
    wait_for(alice, number, "processing")
    killable.kill()
    wait_until(lambda: "the database is away" in started.said(), what="the worker's complaint")

    killable.start()
    hold.unlink()
    wait_for(alice, number, "completed")

    assert row(number)["attempt"] == 1


def test_the_heartbeat_of_an_ended_run_does_not_stop_the_next(alice):
    first, second = (jobs.acquire(["test_model"]) for _ in (submit_one(alice), submit_one(alice)))
    worker = program.Worker(["test_model"])
    ended = program.Run(first)
    queue.cancel(first["id"], alice.id)
    worker.running = program.Run(second)

    worker.heartbeat(ended)

    assert (ended.stop_reason, worker.running.stop_reason) == ("lost", "")
