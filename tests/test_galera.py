"""Two nodes of a Galera cluster, both written to: conflicts, reads, the death of one under load."""

import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
import requests

import db
import pool as pools
from images import waiting
from pool import pool
from tests.conftest import MEMORY, form, need
from tests.servers import (
    GALERA,
    ROOT,
    GaleraNode,
    Service,
    Worker,
    clean_environment,
    wait_until,
)

SMALL = {"prompt": "a fox", "width": 64, "height": 64, "steps": 1}


@pytest.fixture(scope="module")
def nodes():
    """Two nodes, of which the second one may be killed."""
    need("mariadbd", "mariadb-server")
    need(GALERA, "galera-4")
    need("rsync", "rsync")
    # The user mysql may not look into the folders of pytest.
    folder = Path(tempfile.mkdtemp(prefix="image-generator-galera-", dir=_room()))
    folder.chmod(0o755)
    started = []
    try:
        started.append(GaleraNode(folder / "1"))
        started.append(GaleraNode(folder / "2", first=started[0]))
        yield started
    finally:
        for node in started:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _room() -> Path | None:
    return MEMORY if MEMORY.is_dir() else None


def hosts(*nodes: GaleraNode) -> dict[str, str]:
    """Return the settings that lead to these nodes, in this order."""
    names = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return {**nodes[0].settings("service"), "MYSQL_HOST": names, "MYSQL_PORT": "3306"}


@pytest.fixture
def cluster(nodes, settings):
    """The nodes, with a database of today's tables; this process speaks to the first one."""
    if nodes[1].process.poll() is not None:
        nodes[1].start(first=nodes[0])
    nodes[0].run("DROP DATABASE IF EXISTS service", "CREATE DATABASE service CHARACTER SET utf8mb4")
    for name, text in hosts(*nodes).items():
        setattr(settings, name, int(text) if name == "MYSQL_PORT" else text)
    pool.close()
    pools.MySQL.preferred = None
    run_at(nodes, "import migrations; migrations.upgrade()")
    yield nodes
    pool.close()


def run_at(nodes, program: str) -> str:
    """Run a program in a process of its own, which speaks to the first of these nodes."""
    command = [sys.executable, "-c", f"import config; config.load()\n{program}"]
    environment = clean_environment(**hosts(*nodes))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


COUNT_UP = """
import db

@db.retried
def count_up():
    with db.transaction():
        row = db.one("SELECT run_seconds FROM workers WHERE name = 'both' FOR UPDATE")
        db.execute("UPDATE workers SET run_seconds = %s", row["run_seconds"] + 1)
        db.execute("UPDATE workers SET seen_at = seen_at + 1")

for _ in range(100):
    count_up()
    db.execute("UPDATE workers SET seen_at = seen_at + 1")
"""


def test_what_loses_against_the_other_node_is_repeated(cluster):
    db.insert("workers", name="both", models="{}", run_seconds=0, seen_at=0)

    with ThreadPoolExecutor() as threads:
        sides = [threads.submit(run_at, side, COUNT_UP) for side in (cluster, cluster[::-1])]
        for side in sides:
            side.result()

    row = db.one("SELECT run_seconds, seen_at FROM workers WHERE name = 'both'")
    assert row == {"run_seconds": 200, "seen_at": 400}


def test_what_was_written_on_one_node_is_read_on_the_other(cluster, settings):
    first = pools.MySQL()
    settings.MYSQL_HOST = hosts(*cluster[::-1])["MYSQL_HOST"]
    pools.MySQL.preferred = None
    second = pools.MySQL()
    seen = []

    for number in range(200):
        first.run(f"INSERT INTO rate_limits (name, hits, expires_at) VALUES ('n{number}', 1, 1)")
        seen += second.run(f"SELECT name FROM rate_limits WHERE name = 'n{number}'").rows

    assert pools.MySQL.preferred == ("127.0.0.1", cluster[1].port)
    assert len(seen) == 200


class Client:
    """One who submits, again and again with the same key until the answer is known."""

    def __init__(self, services: list[Service], name: str):
        self.services = services
        self.turn = 0
        self.name = name
        self.headers = {}
        self.accepted: list[int] = []
        self.statuses: set[int] = set()

    def post(self, path: str, **options) -> requests.Response:
        while True:
            self.turn += 1
            service = self.services[self.turn % len(self.services)]
            response = requests.post(f"{service.url}{path}", timeout=60, **options)
            self.statuses.add(response.status_code)
            if response.status_code != 503:
                return response

    def log_in(self) -> None:
        self.post("/api/auth/register", data=form(self.name))
        answer = self.post("/api/auth/login", json={"username": self.name, "password": "secret1"})
        self.headers = {"Authorization": f"Bearer {answer.json()['data']['token']}"}

    def submit(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            headers = {**self.headers, "Idempotency-Key": f"{self.name}-{len(self.accepted)}"}
            answer = self.post("/api/v1/images/generate", json=SMALL, headers=headers)
            assert answer.status_code == 202, answer.text
            self.accepted.append(answer.json()["data"]["records"][0]["id"])


@pytest.fixture
def fleet(cluster, settings, tmp_path):
    """Two web processes and two workers, one of each at each node."""
    limits = dict.fromkeys(("MAX_ACTIVE_JOBS", "DAILY_IMAGES", "SUBMITS_PER_MINUTE"), "100000")
    common = {**limits, "MAX_QUEUE": "100000", "PASSWORD_HASH": settings.PASSWORD_HASH}
    services, workers = [], []
    try:
        for side in (cluster, cluster[::-1]):
            changes = {**hosts(*side), **common, "SECRET_KEY": settings.SECRET_KEY}
            services.append(Service(tmp_path, WEB_WORKERS="1", **changes).start())
            environment = clean_environment(DATA_DIR=str(tmp_path), **changes)
            log = tmp_path / f"worker-{len(workers)}.log"
            workers.append(Worker(log, environment, "worker.py"))
        yield services
    finally:
        for process in services + workers:
            process.stop()


def unfinished() -> int:
    sql = "SELECT COUNT(*) FROM image_generations WHERE status IN ('pending', 'processing')"
    return db.value(sql)


def test_a_node_that_dies_under_load_costs_no_accepted_job(cluster, fleet):
    clients = [Client(fleet, name) for name in ("anna", "bert", "carl", "dora")]
    for client in clients:
        client.log_in()
    is_over = threading.Event()

    def accepted() -> int:
        return sum(len(client.accepted) for client in clients)

    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(client.submit, is_over) for client in clients]
        try:
            wait_until(lambda: accepted() >= 20, 120, "the first jobs")
            cluster[1].process.kill()
            before = accepted()
            wait_until(lambda: accepted() >= before + 40, 120, "jobs after the death of a node")
        finally:
            is_over.set()
        for load in loads:
            load.result()
    wait_until(lambda: not unfinished(), 300, "all images")

    rows = db.all("SELECT id, status FROM image_generations")
    assert {row["status"] for row in rows} == {"completed"}
    assert sorted(row["id"] for row in rows) == sorted(chain(*[one.accepted for one in clients]))
    assert set.union(*(client.statuses for client in clients)) <= {200, 201, 202, 503}
    waiting.count_new()
    assert waiting.list_wrong() == []
