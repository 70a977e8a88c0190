"""The service as a Flask developer runs it: `flask run`, a test of their own, another system."""

import json
import subprocess
import sys

import pytest
import requests

import app as service
from accounts import users
from tests.servers import ROOT, clean_environment, free_port, wait_until

# Removes what Python lacks on Windows, before the service is imported. Modules of Python itself
# that would have been made without it there come first.
WINDOWS = """
import os, select, signal, socket, subprocess, sys, tempfile, threading, time
import concurrent.futures, logging.config, multiprocessing, random, selectors, uuid

missing = {
    os: "fork register_at_fork EX_CONFIG EX_OK getuid geteuid getgid getegid setpriority"
        " getpriority nice killpg getpgid setsid sched_getaffinity statvfs fchmod fchown chown"
        " getloadavg sysconf uname WNOHANG O_DIRECTORY O_CLOEXEC O_NONBLOCK O_NOFOLLOW pread"
        " sendfile mkfifo posix_fadvise pipe2 memfd_create",
    select: "poll epoll",
    selectors: "PollSelector EpollSelector",
    signal: "SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGALRM SIGCHLD SIGPIPE SIGQUIT alarm setitimer"
            " pthread_sigmask sigwait",
    socket: "AF_UNIX SO_REUSEPORT MSG_DONTWAIT TCP_KEEPIDLE",
    time: "tzset pthread_getcpuclockid",
}
for module, names in missing.items():
    for name in names.split():
        vars(module).pop(name, None)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
"""
ACCOUNT = {"username": "alice", "email": "alice@example.com", "password": "secret1"}
CALLS = f"""
import app, serve, worker
import migrations

migrations.upgrade()
client = app.app.test_client()
client.post("/api/auth/register", data={ACCOUNT})
token = client.post("/api/auth/login", json={ACCOUNT}).json["data"]["token"]
answer = client.post(
    "/api/v1/images/generate-test",
    json={{"prompt": "a fox", "params": {{"width": 64, "height": 64}}}},
    headers={{"Authorization": "Bearer " + token}},
)
assert answer.status_code == 200, answer.text
"""


def run(code: str, folder: object) -> None:
    """Run code in a process of its own, whose data is in this folder."""
    environment = clean_environment(DATA_DIR=str(folder), PASSWORD_HASH="pbkdf2:sha256:1000")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", ["app", "worker", "serve", "commands"])
def test_import_needs_nothing_that_windows_lacks(tmp_path, program):
    run(f"{WINDOWS}\nimport {program}", tmp_path)


def test_requests_need_nothing_that_windows_lacks(tmp_path):
    run(WINDOWS + CALLS, tmp_path)


def test_connection_to_mysql_needs_nothing_that_windows_lacks(mariadb, tmp_path):
    mariadb.run("DROP DATABASE IF EXISTS windows", "CREATE DATABASE windows CHARACTER SET utf8mb4")

    run(f"{WINDOWS}\nos.environ.update({mariadb.settings('windows')})\n{CALLS}", tmp_path)


@pytest.fixture
def flask_run(tmp_path):
    """Start `flask run` with more arguments; returns its address and what it has said so far."""
    started = []

    def start(*arguments: str):
        port, log = free_port(), tmp_path / "flask.log"
        environment = {**clean_environment(DATA_DIR=str(tmp_path)), "FORCE_COLOR": "1"}
        command = [sys.executable, "-m", "flask", "run", "--port", str(port), *arguments]
        with log.open("wb") as file:
            started.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
            )
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: f"Running on {url}" in log.read_text(), what="flask run")
        return url, log.read_text

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def test_flask_run_says_how_to_migrate(flask_run):
    url, said = flask_run()

    response = requests.post(f"{url}/api/auth/register", data=ACCOUNT, timeout=10)

    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "Run: flask db upgrade" in said()


def test_flask_run_writes_json_without_colours(flask_run):
    url, said = flask_run()

    requests.get(f"{url}/api/none", timeout=10)

    lines = [json.loads(line) for line in said().splitlines() if line.startswith("{")]
    assert {line["logger"] for line in lines} == {"api", "werkzeug"}
    assert "\x1b" not in said() and not any("\x1b" in line["message"] for line in lines)


def test_flask_run_shows_exceptions_while_it_debugs(flask_run):
    url, said = flask_run("--debug", "--no-reload")

    response = requests.post(f"{url}/api/auth/register", data=ACCOUNT, timeout=10)

    assert response.headers["Content-Type"].startswith("text/html")
    assert "no such table" in response.text
    # It is written after the answer.
    wait_until(lambda: "Traceback (most recent call last)" in said(), what="the traceback")


@pytest.mark.parametrize(
    ("config", "goes_up"),
    [
        ({}, False),
        ({"TESTING": True}, True),
        ({"DEBUG": True}, True),
        ({"PROPAGATE_EXCEPTIONS": True}, True),
        ({"TESTING": True, "PROPAGATE_EXCEPTIONS": False}, False),
    ],
)
def test_exception_goes_up_where_flask_lets_it(client, monkeypatch, config, goes_up):
    monkeypatch.setattr(users, "get_user_for_login", lambda name: 1 / 0)
    for name, value in config.items():
        monkeypatch.setitem(service.app.config, name, value)
    log_in = {"username": "alice", "password": "secret1"}

    try:
        status = client.post("/api/auth/login", json=log_in).status_code
    except ZeroDivisionError:
        status = None

    assert status == (None if goes_up else 500)


@pytest.mark.parametrize("config", ["TESTING", "DEBUG"])
def test_refusals_stay_answers_in_tests(client, monkeypatch, config):
    monkeypatch.setitem(service.app.config, config, True)
    calls = [("GET", "/api/none"), ("GET", "/api/auth/profile"), ("PUT", "/api/health")]

    answers = [client.open(*call) for call in calls]

    assert [answer.status_code for answer in answers] == [404, 401, 405]


def test_a_column_that_is_missing_is_said_with_the_advice(client, caplog):
    from db import execute

    execute("ALTER TABLE users RENAME COLUMN token_version TO another")

    response = client.post("/api/auth/login", json={"username": "alice", "password": "secret1"})

    assert response.status_code == 500
    assert "Run: flask db upgrade" in caplog.text
