"""Readiness, metrics, and the operator's `flask jobs`."""

import errno
import re

import pytest
import requests

import app as service
import db
import metrics
from commands import jobs as jobs_commands
from files import disk
from images import jobs, queue
from tests.conftest import form
from tests.test_queue import record, submit, submit_one, work


@pytest.fixture
def flask(database):
    runner = service.app.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


# -- Readiness ----------------------------------------------------------------------------------


def test_ready_when_database_storage_and_a_worker_are_there(client):
    queue.note_worker("w1", '{"test_model": ""}', 1.0)

    response = client.get("/api/health/ready")

    parts = {"database": "ok", "storage": "ok", "queue": "ok", "models": {"test_model": "ok"}}
    assert response.json == {"status": "success", "data": parts}


def test_no_model_that_can_be_made_is_not_ready(client):
    queue.note_worker("w1", '{"test_model": "engine_unavailable"}', 1.0)

    response = client.get("/api/health/ready")

    assert (response.status_code, list(response.json["fields"])) == (503, ["models"])


def test_no_worker_seen_lately_is_not_ready(client):
    queue.note_worker("w1", '{"test_model": ""}', 1.0)
    db.execute("UPDATE workers SET seen_at = seen_at - 60")

    response = client.get("/api/health/ready")

    assert (response.status_code, response.json["code"]) == (503, "not_ready")
    assert list(response.json["fields"]) == ["queue"]


def test_everything_that_is_unavailable_is_named(client, monkeypatch):
    def unavailable(*arguments):
        raise db.Unavailable

    monkeypatch.setattr(queue, "list_live_workers", unavailable)
    monkeypatch.setattr(
        disk.tempfile,
        "TemporaryFile",
        lambda dir: disk.Path("/no/such/folder/file").open("wb"),
    )

    assert set(client.get("/api/health/ready").json["fields"]) == {"database", "storage", "queue"}


def test_a_check_of_the_storage_leaves_nothing(client, settings):
    client.get("/api/health/ready")

    assert not [path for path in settings.uploads_dir.rglob("*") if path.is_file()]


# -- Metrics ------------------------------------------------------------------------------------


def test_metrics_are_off_unless_enabled(client):
    assert client.get("/metrics").status_code == 404


def test_metrics_count_the_requests_of_all_processes(live):
    server = live(METRICS="on", WEB_WORKERS="3")
    for _ in range(30):
        requests.get(f"{server.url}/api/v1/models")

    page = requests.get(f"{server.url}/metrics").text

    line = re.search(r'http_request_seconds_count{.*route="/api/v1/models".*} (\S+)', page)
    assert float(line.group(1)) == 30


def test_metrics_take_their_room_on_the_disk_before_they_are_mapped(live, settings):
    server = live(METRICS="on")
    requests.get(f"{server.url}/metrics")

    files = [path.stat() for path in (settings.instance_dir / "metrics").iterdir()]

    assert len(files) == 2
    assert all(file.st_blocks * 512 >= file.st_size > 0 for file in files)


def test_a_disk_without_room_for_metrics_stops_nothing(client, settings, monkeypatch):
    def refuse(file):
        raise OSError(errno.ENOSPC, "full")

    settings.METRICS = True
    monkeypatch.setattr(metrics, "allocate", refuse)
    # Not those of a test before.
    monkeypatch.setattr(metrics, "make_meters", metrics.make_meters.__wrapped__)

    assert client.get("/api/health").status_code == 200
    response = client.get("/metrics")
    assert (response.status_code, response.json["code"]) == (503, "storage_unavailable")


def test_metrics_show_the_queue_and_the_jobs(live):
    server = live(METRICS="on")
    requests.post(f"{server.url}/api/auth/register", data=form("alice"))
    body = {"username": "alice", "password": "secret1"}
    token = requests.post(f"{server.url}/api/auth/login", json=body).json()["data"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    requests.post(
        f"{server.url}/api/v1/images/generate", json={"prompt": "x", "n": 2}, headers=headers
    )
    requests.post(
        f"{server.url}/api/v1/images/generate-test", json={"prompt": "x"}, headers=headers
    )

    page = requests.get(f"{server.url}/metrics").text

    assert 'queue_length{model="test_model",status="pending"} 2.0' in page
    assert re.search(r'jobs_total{.*outcome="completed".*} 1.0', page)
    assert "job_run_seconds_bucket" in page and "job_wait_seconds_bucket" in page


# -- flask jobs ---------------------------------------------------------------------------------


def test_stats_count_by_status(flask, alice):
    submit(alice, n=2)
    queue.note_worker("w1", '{"test_model": ""}', 1.0)

    output = flask("jobs", "stats").output

    assert re.search(r"pending +2", output) and re.search(r"workers +1", output)


def test_stats_count_no_further_than_their_bound(flask, alice, monkeypatch):
    monkeypatch.setattr(jobs_commands, "MAX_COUNT", 1)
    submit(alice, n=2)

    output = flask("jobs", "stats").output

    assert re.search(r"pending +>1 +oldest \d{4}-", output) and re.search(r"failed +0\n", output)


def test_list_shows_the_newest_first(flask, alice):
    numbers = [submit_one(alice) for _ in range(3)]

    lines = flask("jobs", "list", "--limit", "2").output.splitlines()

    assert [int(line.split()[0]) for line in lines] == numbers[:0:-1]


def test_list_shows_one_status(flask, alice):
    number = submit_one(alice)

    assert str(number) in flask("jobs", "list").output
    assert flask("jobs", "list", "--status", "failed").output == ""


def test_cancel_ends_a_waiting_job_once(flask, alice):
    number = submit_one(alice)

    first, second = flask("jobs", "cancel", str(number)), flask("jobs", "cancel", str(number))

    assert (first.exit_code, second.exit_code) == (0, 1)
    assert record(alice, number)["status"] == "canceled"


def test_requeue_gives_a_failed_job_all_its_attempts_again(flask, alice):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])
    jobs.fail(job, "engine_error")

    result = flask("jobs", "requeue", str(number))
    work()

    assert result.exit_code == 0
    assert (record(alice, number)["status"], record(alice, number)["errorCode"]) == (
        "completed",
        None,
    )
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 1


def test_a_requeued_job_counts_as_unfinished(flask, alice, settings):
    settings.MAX_ACTIVE_JOBS = 2
    number = submit_one(alice)
    jobs.fail(jobs.acquire(["test_model"]), "engine_error")
    submit_one(alice), submit_one(alice)
    flask("jobs", "requeue", str(number))

    settings.MAX_ACTIVE_JOBS = 3

    assert submit(alice).json["code"] == "too_many_active_jobs"


def test_requeue_refuses_what_is_finished(flask, alice):
    number = submit_one(alice)
    work()

    assert flask("jobs", "requeue", str(number)).exit_code == 1


@pytest.mark.parametrize("command", ["cancel", "requeue"])
def test_a_job_that_is_not_there_is_said_plainly(flask, command):
    result = flask("jobs", command, "999999")

    assert result.exit_code == 1 and "there is no job 999999" in result.output


def test_sweep_can_be_run_by_hand(flask, alice):
    number = submit_one(alice)
    jobs.acquire(["test_model"])
    db.execute("UPDATE image_generations SET lease_until = 1")

    flask("jobs", "sweep")

    assert record(alice, number)["status"] == "pending"
