"""serve.py, what ./start.sh runs: web server and workers restarted, and ended together."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

import serve as program
from images import queue
from tests.servers import ROOT, clean_environment, free_port, wait_until
from tests.test_queue import record, submit_one

pytestmark = [
    pytest.mark.skipif(
        not Path("/proc/self/task").exists(), reason="children are looked up in /proc"
    ),
    pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True),
]


class Supervisor:
    """A running serve.py and everything it started."""

    def __init__(self, log: Path, *kinds: str, **settings: str):
        self.port = int(settings["PORT"])
        self.path, self.log = log, log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "serve.py", *kinds],
            cwd=ROOT,
            env=clean_environment(**settings),
            stdout=self.log,
            stderr=self.log,
        )

    def answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/api/health", timeout=2).ok
        except requests.RequestException:
            return False

    def pids(self, program: str) -> list[int]:
        """List the direct children that run this program: "gunicorn" or "worker.py"."""
        return [pid for pid in children(self.process.pid) if program in command_line(pid)]

    def family(self) -> list[int]:
        """List the supervisor, its children and theirs."""
        own = children(self.process.pid)
        return [self.process.pid, *own, *(pid for child in own for pid in children(child))]

    def said(self) -> str:
        return self.path.read_text()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def are_gone(pids: list[int]) -> bool:
    # A process that has ended but was not waited for has no command line any more.
    return not any(command_line(pid) for pid in pids)


@pytest.fixture
def serve(database, tmp_path):
    """Start serve.py on the test's database: `serve("web", WEB_WORKERS="2")`."""
    started = []

    def start(*kinds: str, log: str = "", **changes: str) -> Supervisor:
        settings = {"DATA_DIR": str(tmp_path), "PORT": str(free_port()), **changes}
        path = Path(log or tmp_path / f"serve-{len(started)}.log")
        started.append(Supervisor(path, *kinds, **settings))
        return started[-1]

    yield start
    for one in started:
        pids = one.family()
        one.process.terminate()
        one.process.wait(60)
        one.log.close()
        for pid in pids:
            if (
                "serve.py" in command_line(pid)
                or "gunicorn" in command_line(pid)
                or "worker.py" in command_line(pid)
            ):
                os.kill(pid, signal.SIGKILL)


def started_both(serve, **changes: str) -> Supervisor:
    both = serve(**changes)
    wait_until(
        lambda: both.answers() and both.said().count('"ready"') == len(both.pids("worker.py")) > 0
    )
    return both


# -- Both together ------------------------------------------------------------------------------


def test_web_and_workers_run_together(alice, serve):
    both = started_both(serve, JOB_WORKERS="2")
    number = submit_one(alice)

    wait_until(lambda: record(alice, number)["status"] == "completed", what="the image")

    assert (len(both.pids("gunicorn")), len(both.pids("worker.py"))) == (1, 2)


def test_a_killed_worker_is_back_within_seconds(alice, serve):
    both = started_both(serve)
    killed = both.pids("worker.py")

    os.kill(killed[0], signal.SIGKILL)
    wait_until(lambda: set(both.pids("worker.py")) - set(killed), 5, "another worker")

    number = submit_one(alice)
    wait_until(lambda: record(alice, number)["status"] == "completed", what="the image")


def test_a_killed_web_server_is_back_within_seconds(serve):
    both = started_both(serve)
    killed = both.pids("gunicorn")

    os.kill(killed[0], signal.SIGKILL)
    wait_until(lambda: set(both.pids("gunicorn")) - set(killed), 5, "another web server")

    wait_until(both.answers)
    assert both.process.poll() is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="stands for a log on a full disk")
def test_all_goes_on_though_nothing_can_be_logged(serve):
    both = serve(log="/dev/full")
    wait_until(both.answers)
    killed = both.pids("gunicorn") + both.pids("worker.py")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    wait_until(lambda: set(both.pids("worker.py")) - set(killed), what="another worker")
    wait_until(lambda: both.answers() and set(both.pids("gunicorn")) - set(killed))


def test_even_if_its_orphans_are_still_answering(serve):
    both = started_both(serve)
    killed = both.pids("gunicorn")
    with requests.Session() as browser, socket.create_connection(("127.0.0.1", both.port)) as slow:
        browser.get(f"http://127.0.0.1:{both.port}/api/health")
        slow.sendall(b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{")
        os.kill(killed[0], signal.SIGKILL)
        wait_until(lambda: set(both.pids("gunicorn")) - set(killed), 10, "another web server")

        wait_until(both.answers)

    assert both.process.poll() is None


# -- The end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it(serve, number):
    both = started_both(serve, JOB_WORKERS="2")
    family = both.family()

    both.process.send_signal(number)

    assert both.process.wait(40) == 0
    assert len(family) == 5 and are_gone(family)


def test_the_end_waits_for_the_image_being_made(alice, serve):
    both = started_both(serve)
    number = submit_one(alice, prompt="a galaxy over a city", width=1024, height=1024, steps=150)
    wait_until(lambda: record(alice, number)["status"] != "pending", what="the worker")

    both.process.terminate()
    both.process.wait(60)

    assert record(alice, number)["status"] == "completed"


def test_a_killed_supervisor_leaves_nothing_running(serve):
    both = started_both(serve, JOB_WORKERS="2")
    family = both.family()

    both.process.kill()
    both.process.wait()

    wait_until(lambda: are_gone(family), 40, "the end of the orphans")


def test_a_killed_supervisor_can_be_started_again_at_once(serve):
    first = started_both(serve)
    slow = socket.create_connection(("127.0.0.1", first.port))
    slow.sendall(b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{")
    first.process.kill()
    first.process.wait()

    second = serve(PORT=str(first.port))

    wait_until(lambda: second.pids("gunicorn") and second.answers() and "Ready" in second.said())
    assert second.process.poll() is None
    slow.close()


# -- One kind alone -----------------------------------------------------------------------------


def test_the_web_server_runs_alone(serve):
    web = serve("web")

    wait_until(web.answers)

    assert (len(web.pids("gunicorn")), web.pids("worker.py")) == (1, [])


def test_the_workers_run_alone(serve):
    workers = serve("worker", JOB_WORKERS="2")

    wait_until(lambda: len(queue.list_live_workers(30)) == 2, what="two workers")

    assert (workers.pids("gunicorn"), len(workers.pids("worker.py"))) == ([], 2)


# -- A start that cannot succeed ----------------------------------------------------------------


def plain_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("{")]


def test_a_port_in_use_ends_it_all_with_one_line(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        both = serve(PORT=str(taken.getsockname()[1]))
        family = wait_until(lambda: children(both.process.pid))

        assert both.process.wait(40) == 1

    lines = plain_lines(both.said())
    assert len(lines) == 1 and "Choose another PORT" in lines[0]
    assert are_gone(family)


@pytest.mark.parametrize("kinds", [[], ["worker"]])
def test_a_wrong_model_name_ends_it_all_with_one_line(serve, kinds):
    both = serve(*kinds, WORKER_MODELS="dall-e")

    assert both.process.wait(40) == 1
    assert plain_lines(both.said())[-1:] == ["WORKER_MODELS: dall-e is not in models.toml"]


def test_an_unknown_kind_is_said_plainly(serve):
    wrong = serve("workers")

    assert wrong.process.wait(40) != 0
    assert len(plain_lines(wrong.said())) == 1


def test_a_worker_that_finds_its_model_broken_after_a_while_ends_it_all(
    empty_database, monkeypatch
):
    monkeypatch.setitem(program.COMMANDS, "worker", ["-c", f"raise SystemExit({os.EX_CONFIG})"])
    child = program.Child("worker")
    child.process.wait()
    child.has_worked = True

    with pytest.raises(SystemExit) as ended:
        child.look_after()

    assert ended.value.code == 1


def test_a_worker_whose_model_breaks_later_is_restarted(empty_database, monkeypatch):
    monkeypatch.setattr(program, "RESTART_SECONDS", 0)
    monkeypatch.setitem(program.COMMANDS, "worker", ["-c", f"raise SystemExit({os.EX_CONFIG})"])
    child = program.Child("worker")
    first, child.starts = child.process, 2
    first.wait()
    child.has_worked = True

    child.look_after()

    assert child.process is not first
    child.process.wait()


def test_a_missing_diffusers_folder_stops_the_start_with_one_line(serve, tmp_path):
    (tmp_path / "models.toml").write_text(
        """
        [local]
        label = "Local"
        engine = "diffusers"
        sizes = ["64x64"]
        options = { folder = "nowhere" }
        """
    )

    both = serve(MODELS_FILE=str(tmp_path / "models.toml"))

    assert both.process.wait(60) == 1
    assert [line for line in plain_lines(both.said()) if line.startswith("diffusers: ")]
