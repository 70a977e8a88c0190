"""What a measurement runs against: a private MariaDB and gunicorns on free ports of 127.0.0.1.

Each is a `with` block that ends its own process by its pid; all they write lies in the folder
they are given. A `tree` is a checkout of the service, by default the one this file is in.
"""

import getpass
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pymysql

ROOT = Path(__file__).resolve().parent.parent
SECRET_KEY = "7f1c09e2b85d4a36c0e9f47a1d2b6835"


class Server(NamedTuple):
    """A running gunicorn: its master's pid, its port, and how long its first answer took."""

    pid: int
    port: int
    start_seconds: float

    def pids(self) -> list[int]:
        """List the master and its workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def pss_mib(self) -> float:
        """Return the memory of the whole tree, each page shared by n processes counted as 1/n."""
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids())
        return sum(int(text.split("\nPss:")[1].split()[0]) for text in rollups) / 1024

    def cpu_seconds(self) -> float:
        stats = (Path(f"/proc/{pid}/stat").read_text() for pid in self.pids())
        fields = (text.rpartition(")")[2].split() for text in stats)
        ticks = sum(int(user) + int(system) for user, system in (each[11:13] for each in fields))
        return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command: list, log: Path, **options) -> Iterator[subprocess.Popen]:
    """Run a program, its output in a file; at the end ask it to stop, and after 30 s insist."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# -- The database -------------------------------------------------------------------------------


@contextmanager
def mariadb(folder: Path) -> Iterator[dict[str, str]]:
    """Run a private MariaDB and yield the environment that leads the service to it."""
    program = program_path("mariadbd", "mariadb-server")
    port, path, log = free_port(), folder / "mariadb.sock", folder / "mariadb.log"
    # A tmpdir of its own, because a mariadbd that starts empties it of everyone's temporary tables.
    scratch = folder / "scratch"
    scratch.mkdir()
    common = ["--no-defaults", f"--user={getpass.getuser()}"]
    common += [f"--datadir={folder / 'mariadb'}", f"--tmpdir={scratch}"]
    install = [program_path("mariadb-install-db", "mariadb-server"), *common]
    install += ["--skip-test-db", "--auth-root-authentication-method=normal"]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    options = [f"--socket={path}", f"--port={port}", "--bind-address=127.0.0.1"]
    options += ["--max-connections=400", "--innodb-buffer-pool-size=512M"]
    options.append("--innodb-flush-log-at-trx-commit=0")
    with running([program, *common, *options], log) as process:
        connection = first_connection(process, path, log)
        with connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE bench CHARACTER SET utf8mb4")
            cursor.execute("CREATE USER bench@'%' IDENTIFIED BY 'bench'")
            cursor.execute("GRANT ALL ON *.* TO bench@'%'")
        connection.close()
        yield environment(
            folder,
            MYSQL_HOST="127.0.0.1",
            MYSQL_PORT=str(port),
            MYSQL_USER="bench",
            MYSQL_PASSWORD="bench",
            MYSQL_DB="bench",
        )


def program_path(name: str, package: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return found or sys.exit(f"{name} was not found. On Debian or Ubuntu: apt install {package}")


def first_connection(process: subprocess.Popen, path: Path, log: Path) -> pymysql.Connection:
    options = {"user": "root", "autocommit": True, "ssl_disabled": True}
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            return pymysql.connect(unix_socket=str(path), **options)
        except pymysql.OperationalError:
            time.sleep(0.1)
    sys.exit(f"MariaDB did not start:\n{log.read_text(errors='replace')[-2000:]}")


def environment(folder: Path, **database: str) -> dict[str, str]:
    """Return the settings of a server with that database, two workers and files in the folder."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("MYSQL_")}
    return {
        **inherited,
        "FLASK_ENV": "production",
        "SECRET_KEY": SECRET_KEY,
        "CORS_ORIGINS": "https://app.test",
        "HOST": "127.0.0.1",
        "WEB_WORKERS": "2",
        "DATA_DIR": str(folder),
        "LOG_LEVEL": "info",
        # Compiled into a place of its own, whatever is set and whatever was compiled before.
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "PYTHONDONTWRITEBYTECODE": "",
        **database,
    }


def upgrade(environ: dict[str, str], tree: Path = ROOT) -> None:
    """Make the tables, with the tree's own migrations."""
    command = [sys.executable, "-m", "flask", "db", "upgrade"]
    done = subprocess.run(command, env=environ, cwd=tree, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"The tables of {tree} could not be made:\n{done.stderr[-2000:]}")


# -- The web servers ----------------------------------------------------------------------------


@contextmanager
def gunicorn(environ: dict[str, str], *application: str, tree: Path = ROOT) -> Iterator[Server]:
    """Serve the tree, or another application in its place, by the tree's gunicorn.conf.py.

    Yields once it has answered.
    """
    port = free_port()
    log = Path(environ["DATA_DIR"]) / f"gunicorn-{port}.log"
    command = [sys.executable, "-m", "gunicorn", *application]
    started = time.perf_counter()
    with running(command, log, env={**environ, "PORT": str(port)}, cwd=tree) as process:
        while not answers(port):
            if process.poll() is not None or time.perf_counter() - started > 60:
                sys.exit(f"gunicorn did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.002)
        yield Server(process.pid, port, time.perf_counter() - started)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def call(
    port: int, method: str, path: str, token: str = "", body: dict | None = None
) -> tuple[int, dict]:
    """Make one request on its own connection and return (status, JSON)."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
