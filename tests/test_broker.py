"""Tickets on a real RabbitMQ, and Redis: lost, doubled, late; a broker or worker that dies."""

import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import db
import worker as program
from files import cleanup
from images import broker, jobs, queue, tickets
from tests.conftest import MEMORY
from tests.servers import ROOT, RabbitMQ, Redis, clean_environment, free_port, wait_until
from tests.test_queue import submit_one
from tests.test_worker import files, hold, models_file, row, wait_for  # noqa: F401

# A worker that is held up as that of tests/test_worker.py, and that sweeps as seldom as we say.
WORKER = """
import pathlib, sys, time
import worker
from engines import painter

held, draw = pathlib.Path(sys.argv[1]), painter.make
worker.SWEEP_SECONDS = worker.IDLE_SWEEP_SECONDS = float(sys.argv[2])
worker.TICKET_SECONDS = float(sys.argv[3])

def make(request, on_progress):
    while held.exists() and request.prompt == "slow":
        time.sleep(0.02)
        on_progress(request.steps // 2, request.steps)
    return draw(request, on_progress)

painter.make = make
worker.main()
"""
NEVER = 10_000
BROKERS = {"rabbitmq": RabbitMQ, "redis": Redis}


@pytest.fixture(scope="session")
def brokers():
    """Start brokers when they are asked for, in memory, where a disk makes them slow."""
    started = {}
    folder = Path(tempfile.mkdtemp(prefix="image-generator-tests-", dir=in_memory()))

    def get(name: str):
        if name not in started:
            if not BROKERS[name].is_installed():
                if os.environ.get("CI"):
                    pytest.fail(f"{name} is not installed, and CI must not skip its tests")
                pytest.skip(f"{name}-server is not installed: its tests are left out")
            started[name] = BROKERS[name](folder / name)
        return started[name]

    yield get
    for server in started.values():
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def in_memory() -> Path | None:
    return MEMORY if MEMORY.is_dir() else None


@pytest.fixture(params=BROKERS)
def server(request, brokers):
    """A running broker: each test that asks for it runs once on each."""
    return brokers(request.param)


@pytest.fixture
def rabbitmq(brokers):
    return brokers("rabbitmq")


@pytest.fixture
def use(settings):
    """Let this process send its tickets to a broker: `use(server.url)`; "" sends none."""

    def choose(url: str) -> None:
        settings.BROKER_URL = url
        broker.make_app.cache_clear()
        broker.sender.cache_clear()

    yield choose
    choose("")


@pytest.fixture
def start(start_worker, hold):  # noqa: F811
    """Start a worker that a broker wakes: `start(server.url, sweeps=0.5)`."""

    def started(url: str, sweeps: float = NEVER, ticket: float = 300, **changes: str):
        arguments = (str(hold), str(sweeps), str(ticket))
        return start_worker("-c", WORKER, *arguments, BROKER_URL=url, **changes)

    return started


def child_of(worker) -> int:
    """Return the process id of the child that makes the images."""
    pid = worker.process.pid
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def count(name: str) -> int:
    """Count the tickets that wait in a queue of the broker."""
    app = broker.make_app()
    with app.connection_for_write() as connection:
        return broker.queue_of(name)(connection.default_channel).queue_declare().message_count


def purge(*names: str) -> None:
    with broker.make_app().connection_for_write() as connection:
        for name in names:
            target = broker.queue_of(name)(connection.default_channel)
            target.queue_declare()
            target.purge()


def models_of_workers() -> list[str]:
    return [each["models"] for each in queue.list_live_workers(30)]


# -- The good case ------------------------------------------------------------------------------


def test_a_ticket_wakes_a_worker(alice, server, use, start):
    use(server.url)
    start(server.url)

    first = submit_one(alice)
    wait_for(alice, first, "completed")
    second = submit_one(alice)

    assert wait_for(alice, second, "completed")["imageUrl"]


def test_tickets_go_over_tls_with_a_certificate_that_the_system_trusts(
    alice, server, use, start, monkeypatch
):
    trusted = str(server.folder / "cert.pem")
    monkeypatch.setenv("SSL_CERT_FILE", trusted)
    use(server.tls_url)
    purge("model.test_model")
    start(server.tls_url, SSL_CERT_FILE=trusted)

    number = submit_one(alice)

    wait_for(alice, number, "completed")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_no_ticket_goes_to_a_broker_whose_certificate_is_wrong(
    alice, server, use, monkeypatch, host
):
    """That of 127.0.0.1 was signed by nobody; for 127.0.0.2, one was taken from another host."""
    port = urlsplit(server.tls_url).port
    assert ssl.get_server_certificate((host, port)) == (server.folder / "cert.pem").read_text()
    if host == "127.0.0.2":
        monkeypatch.setenv("SSL_CERT_FILE", str(server.folder / "cert.pem"))
    use(server.url)
    purge("model.test_model")

    use(server.tls_url.replace("127.0.0.1", host))
    number = submit_one(alice)
    wait_until(lambda: broker.sender(os.getpid()).is_away, what="the broker to count as away")

    use(server.url)
    assert count("model.test_model") == 0 and row(number)["status"] == "pending"


def test_one_ticket_is_sent_for_each_row(alice, server, use):
    use(server.url)
    purge("model.test_model")

    submit_one(alice, n=3)

    wait_until(lambda: count("model.test_model") == 3, what="three tickets")


def test_a_worker_takes_all_it_can_make_for_one_ticket(alice, server, use, start):
    numbers = [submit_one(alice) for _ in range(3)]
    use(server.url)
    purge("model.test_model")
    start(server.url)

    broker.wake("test_model")

    for number in numbers:
        wait_for(alice, number, "completed")


def test_a_long_line_goes_on_by_another_ticket(alice, server, use, start):
    numbers = [submit_one(alice) for _ in range(3)]
    use(server.url)
    purge("model.test_model")
    start(server.url, ticket=0)

    broker.wake("test_model")

    for number in numbers:
        wait_for(alice, number, "completed")


def test_a_released_job_wakes_another_worker(alice, rabbitmq, use, start, hold):  # noqa: F811
    use(rabbitmq.url)
    first = start(rabbitmq.url, WORKER_GRACE_SECONDS="0")
    number = submit_one(alice, prompt="slow")
    wait_for(alice, number, "processing")
    assert first.end(signal.SIGTERM) == 0
    hold.unlink()
    purge("model.test_model")
    job = jobs.acquire(["test_model"])
    start(rabbitmq.url)

    jobs.release(job)

    wait_for(alice, number, "completed")


def test_a_job_that_an_operator_requeues_has_a_ticket(alice, bob, rabbitmq, use, start):
    number = submit_one(alice)
    job = jobs.acquire(["test_model"])
    jobs.fail(job, "engine_error")
    db.execute("UPDATE users SET role = 'admin' WHERE id = %s", bob.id)
    use(rabbitmq.url)
    purge("model.test_model")
    start(rabbitmq.url)

    assert bob.post(f"/api/v1/admin/jobs/{number}/requeue").status_code == 200

    wait_for(alice, number, "completed")


# -- Lost, doubled and late tickets -------------------------------------------------------------


def test_what_has_no_ticket_gets_one_by_the_sweep(alice, server, use, start):
    number = submit_one(alice)
    use(server.url)
    purge("model.test_model")

    start(server.url, sweeps=0.1)

    wait_for(alice, number, "completed")


def test_doubled_and_late_tickets_do_no_harm(alice, server, use, start, settings):
    use(server.url)
    number = submit_one(alice)
    broker.wake("test_model", 5)
    start(server.url)
    wait_for(alice, number, "completed")

    broker.wake("test_model", 5)
    wait_for(alice, submit_one(alice), "completed")

    assert row(number)["attempt"] == 1
    assert len(files(settings)) == 4


def test_only_missing_tickets_are_added(database, server, use):
    use(server.url)
    purge("model.one", "model.two")

    for _ in range(2):
        broker.wake_missing("one", 3)
    broker.wake("two")

    wait_until(lambda: count("model.two") == 1, what="the ticket behind them")
    assert count("model.one") == 3


def test_what_is_deferred_or_paused_needs_no_ticket_now(alice, bob):
    for person, name in ((alice, "first"), (bob, "second")):
        submit_one(person, prompt=name)
    assert tickets.list_waiting() == [{"model": "test_model", "number": 2}]

    db.execute(
        "UPDATE image_generations SET not_before = UNIX_TIMESTAMP() + 60 WHERE user_id = %s",
        alice.id,
    )
    assert tickets.list_waiting() == [{"model": "test_model", "number": 1}]

    queue.pause("test_model")
    assert tickets.list_waiting() == []


def test_a_ticket_of_a_paused_model_is_sent_again_at_the_end_of_the_pause(
    alice, bob, rabbitmq, use, start
):
    db.execute("UPDATE users SET role = 'admin' WHERE id = %s", bob.id)
    bob.post("/api/v1/admin/queue/pause", json={})
    use(rabbitmq.url)
    start(rabbitmq.url)
    number = submit_one(alice)
    wait_until(lambda: count("model.test_model") == 0, what="the end of the ticket")

    bob.post("/api/v1/admin/queue/resume", json={})

    wait_for(alice, number, "completed")


def test_a_busy_worker_leaves_its_other_tickets_to_others(
    alice,
    rabbitmq,
    use,
    start,
    models_file,  # noqa: F811
):
    models_file(one=600, two=600)
    use(rabbitmq.url)
    purge("model.one", "model.two")
    start(rabbitmq.url)
    slow = submit_one(alice, prompt="slow", model="one")
    wait_for(alice, slow, "processing")
    # It comes to the busy worker, as there is no other yet.
    number = submit_one(alice, model="two")
    start(rabbitmq.url)

    wait_for(alice, number, "completed")

    assert row(slow)["status"] == "processing"


# -- A worker that ends -------------------------------------------------------------------------


def test_an_idle_worker_ends_at_once_and_is_forgotten(database, server, start):
    started = start(server.url)
    wait_until(lambda: models_of_workers() == ['{"test_model": ""}'], what="the worker's name")

    assert started.end(signal.SIGTERM) == 0
    assert queue.list_live_workers(30) == []


def test_with_grace_the_image_is_finished_and_no_other_is_taken(
    alice,
    rabbitmq,
    use,
    start,
    hold,  # noqa: F811
):
    use(rabbitmq.url)
    started = start(rabbitmq.url, WORKER_GRACE_SECONDS="60")
    running = submit_one(alice, prompt="slow")
    wait_for(alice, running, "processing")
    waiting = submit_one(alice)

    started.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in started.said(), what="the signal")
    hold.unlink()

    assert started.process.wait(30) == 0
    assert (row(running)["status"], row(waiting)["status"]) == ("completed", "pending")


def test_without_grace_it_is_released_as_if_not_acquired(alice, rabbitmq, use, start):
    use(rabbitmq.url)
    started = start(rabbitmq.url, WORKER_GRACE_SECONDS="0")
    number = submit_one(alice, prompt="slow")
    wait_for(alice, number, "processing")

    assert started.end(signal.SIGTERM) == 0
    assert row(number) == {"status": "pending", "attempt": 0, "claim": None}


def test_a_child_that_is_killed_is_replaced_and_its_job_made_again(
    alice,
    rabbitmq,
    use,
    start,
    hold,  # noqa: F811
    settings,
):
    use(rabbitmq.url)
    started = start(rabbitmq.url, sweeps=0.1)
    number = submit_one(alice, prompt="slow")
    wait_for(alice, number, "processing")

    killed = child_of(started)
    os.kill(killed, signal.SIGKILL)
    hold.unlink()
    wait_until(lambda: started.said().count('"ready"') == 2, what="another child")
    db.execute("UPDATE image_generations SET lease_until = 1")

    wait_for(alice, number, "completed")
    assert row(number)["attempt"] == 2
    assert len(files(settings)) == 2


def test_a_model_that_cannot_be_loaded_ends_it_with_one_line(start_worker, rabbitmq, tmp_path):
    (tmp_path / "models.toml").write_text(
        """
        [local]
        label = "Local"
        engine = "diffusers"
        sizes = ["64x64"]
        options = { folder = "nowhere" }
        """
    )
    environment = clean_environment(
        DATA_DIR=str(tmp_path),
        MODELS_FILE=str(tmp_path / "models.toml"),
        BROKER_URL=rabbitmq.url,
    )

    ended = subprocess.run(
        [sys.executable, "worker.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == os.EX_CONFIG
    assert len([line for line in ended.stderr.splitlines() if "diffusers: " in line]) == 1


# -- A broker that is away ----------------------------------------------------------------------


def test_a_submit_goes_on_without_the_broker_and_its_job_is_made(alice, client, use, start):
    url = f"amqp://guest:s3cret@127.0.0.1:{free_port()}//"
    use(url)

    number = submit_one(alice)
    started = start(url, sweeps=0.1)

    wait_for(alice, number, "completed")
    assert "s3cret" not in started.said()


def test_readiness_says_that_the_broker_is_away_and_stays_ready(client, use, settings):
    queue.note_worker("w", '{"test_model": ""}', 1.0)
    use(f"amqp://guest:guest@127.0.0.1:{free_port()}//")

    wait_until(
        lambda: client.get("/api/health/ready").json["data"]["broker"] == "unavailable",
        what="the news",
    )

    assert client.get("/api/health/ready").status_code == 200
    settings.METRICS = True
    assert b"broker_up 0.0" in client.get("/metrics").data


def test_readiness_says_nothing_of_a_broker_that_is_not_used(client):
    queue.note_worker("w", '{"test_model": ""}', 1.0)

    assert "broker" not in client.get("/api/health/ready").json["data"]


def test_after_a_restart_of_the_broker_tickets_come_again(alice, brokers, use, start):
    server = brokers("rabbitmq")
    use(server.url)
    start(server.url)
    wait_for(alice, submit_one(alice), "completed")

    server.kill()
    server.start()
    use(server.url)

    wait_for(alice, submit_one(alice), "completed")


def test_more_than_can_be_noted_is_dropped_and_nobody_waits(monkeypatch):
    monkeypatch.setattr(broker.threading.Thread, "start", lambda self: None)
    sender = broker.Sender()

    for _ in range(broker.MAX_NOTED + 5):
        sender.note(broker.Tickets("model.one"))

    assert sender.noted.qsize() == broker.MAX_NOTED


# -- One sweeps for all, and mail ---------------------------------------------------------------


def test_of_all_workers_one_has_the_turn_to_sweep(database):
    turns = [tickets.note_worker(name, "{}", 1.0, 10) for name in ("a", "b", "c")]

    assert turns == [True, False, False]
    assert len(queue.list_live_workers(30)) == 3


@pytest.mark.parametrize("taken_at", ["UNIX_TIMESTAMP() - 10", "UNIX_TIMESTAMP() + 1000"])
def test_a_turn_comes_again_whatever_the_clock_was(database, taken_at):
    tickets.note_worker("a", "{}", 1.0, 10)
    db.execute(f"UPDATE turns SET taken_at = {taken_at}")

    assert tickets.note_worker("b", "{}", 1.0, 10)


def test_a_worker_is_idle_a_minute_after_its_last_ticket(settings):
    worker = program.Worker(["test_model"])
    assert worker.sweep_seconds() == program.SWEEP_SECONDS
    worker.awake_at -= program.IDLE_AFTER_SECONDS
    assert worker.is_awake()

    settings.BROKER_URL = "amqp://localhost"

    assert not worker.is_awake()
    assert worker.sweep_seconds() == program.IDLE_SWEEP_SECONDS


def test_a_quiet_worker_asks_in_one_statement_whether_a_sweep_has_anything_to_do(alice):
    assert not tickets.is_anything_due()

    number = submit_one(alice)
    assert tickets.is_anything_due()

    queue.cancel(number, alice.id)
    assert not tickets.is_anything_due()

    cleanup.schedule_deletion(["generated_images/1/x.png"], 0)
    assert tickets.is_anything_due()


def test_a_ticket_that_this_worker_can_do_nothing_for_is_passed_on(monkeypatch):
    sent = []
    monkeypatch.setattr(broker, "wake", lambda model, passes: sent.append((model, passes)))
    monkeypatch.setattr(program, "PASS_ON_SECONDS", 0)
    worker = program.Worker(["test_model"])

    worker.answer("model.test_model", 2)
    worker.answer("model.test_model", 0)

    assert sent == [("test_model", 1)]


def test_mail_has_tickets_where_mail_is_sent(alice, rabbitmq, use, settings):
    use(rabbitmq.url)
    purge("mail")
    settings.SMTP_URL = ("smtp", "127.0.0.1", 1, "", "")

    alice.post("/api/auth/reset/request", json={"email": "alice@example.com"})

    wait_until(lambda: count("mail") == 1, what="the ticket")


def test_a_ticket_wakes_whoever_sends_mail():
    worker = program.Worker(["test_model"])

    worker.answer("mail", 0)

    assert worker.mail_wanted.is_set()


# -- Celery's own tools, and those who do not use it --------------------------------------------


def test_celery_lists_the_workers_and_what_they_do(alice, rabbitmq, use, start, tmp_path):
    use(rabbitmq.url)
    start(rabbitmq.url)
    wait_for(alice, submit_one(alice, prompt="slow"), "processing")

    listed = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "images.broker", "inspect", "active"],
        cwd=ROOT,
        env=clean_environment(DATA_DIR=str(tmp_path), BROKER_URL=rabbitmq.url),
        capture_output=True,
        text=True,
    )

    assert listed.returncode == 0, listed.stderr
    assert "'name': 'wake'" in listed.stdout and "model.test_model" in listed.stdout


def test_nobody_who_has_no_broker_imports_celery(tmp_path):
    script = """
import sys, app, worker
from images import broker
broker.wake("test_model")
print([name for name in ("celery", "kombu", "redis", "amqp") if name in sys.modules])
"""
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=clean_environment(DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
    )

    assert shown.stdout == "[]\n", shown.stderr


def test_an_image_of_a_disabled_account_needs_no_ticket_for_ever(alice):
    number = submit_one(alice)
    db.execute("UPDATE users SET is_disabled = 1 WHERE id = %s", alice.id)

    jobs.sweep()

    assert row(number)["status"] == "canceled"
    assert tickets.list_waiting() == []
