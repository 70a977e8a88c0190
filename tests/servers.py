"""Real servers for the tests: a private MariaDB, and the service itself.

They listen on free ports of 127.0.0.1 and keep their files in temporary folders.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pymysql
import requests

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(is_true, seconds: float = 30, what: str = "the server"):
    deadline = time.monotonic() + seconds
    while not (result := is_true()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come up in {seconds} s")
        time.sleep(0.05)
    return result


def find_program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class MariaDB:
    """A MariaDB of our own that can be killed and started again."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        self.options = options
        self.port = free_port()
        # A tmpdir of its own: a mariadbd that starts empties it of everyone's temporary tables.
        (folder / "tmp").mkdir(parents=True)
        self.common = [
            "--no-defaults",
            f"--datadir={folder}/data",
            f"--user={getpass.getuser()}",
        ]
        install = [
            find_program("mariadb-install-db"),
            *self.common,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(install, check=True, **quiet)
        self.start()

    def start(self) -> None:
        command = [
            find_program("mariadbd"),
            *self.common,
            f"--tmpdir={self.folder}/tmp",
            f"--socket={self.folder}/s",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            *self.options,
        ]
        self.log = open(self.folder / "log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_until(self.answers, what="MariaDB")

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-3000:])
        try:
            self.connect().close()
        except pymysql.OperationalError:
            return False
        return True

    def connect(self, database: str | None = None) -> pymysql.Connection:
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database=database,
            charset="utf8mb4",
            autocommit=True,
            ssl_disabled=True,
        )

    def run(self, *statements: str, database: str | None = None) -> list[tuple]:
        """Run statements as root and return the rows of the last one."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def settings(self, database: str) -> dict[str, str]:
        return {
            "MYSQL_HOST": "127.0.0.1",
            "MYSQL_PORT": str(self.port),
            "MYSQL_USER": "root",
            "MYSQL_DB": database,
        }


class Service:
    """The service as ./start.sh runs it: migrated, then under gunicorn, with the given settings."""

    def __init__(self, data_dir: Path, **settings: str):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = clean_environment(
            DATA_DIR=str(data_dir), PORT=str(self.port), **settings
        )
        self.log_path = data_dir / f"service-{self.port}.log"
        data_dir.mkdir(parents=True, exist_ok=True)

    def start(self) -> "Service":
        subprocess.run(
            [sys.executable, "-m", "flask", "db", "upgrade"],
            cwd=ROOT,
            env=self.environment,
            check=True,
            capture_output=True,
        )
        self.log = open(self.log_path, "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"],
            cwd=ROOT,
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
        )
        wait_until(self.answers, what="the service")
        return self

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(self.log_path.read_text()[-3000:])
        try:
            return requests.get(f"{self.url}/api/health", timeout=2).ok
        except requests.RequestException:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(40)
        self.log.close()


class Worker:
    """One worker process, and what it has said. `program` are the arguments for python."""

    def __init__(self, log: Path, environment: dict[str, str], *program: str):
        self.path = log
        self.log = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, *program], cwd=ROOT, env=environment, stdout=self.log, stderr=self.log
        )

    def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def said(self) -> str:
        return self.path.read_text()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        return '"ready"' in self.said()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


class Provider(Worker):
    """An OpenID provider that leads back to these addresses; see `oidc_provider.py`."""

    def __init__(self, folder: Path, callbacks: str):
        folder.mkdir(exist_ok=True)
        port = free_port()
        program = ("-m", "tests.oidc_provider", str(port), str(folder), callbacks)
        super().__init__(folder / "log", clean_environment(), *program)
        self.url = f"http://127.0.0.1:{port}"
        wait_until(self.answers, 120, "the provider")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            found = requests.get(f"{self.url}/o/.well-known/openid-configuration", timeout=5)
        except requests.RequestException:
            return False
        return found.ok


def clean_environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings and no others, whatever .env says."""
    import dataclasses

    import config

    blank = {item.name: "" for item in dataclasses.fields(config.Settings)}
    return {**os.environ, **blank, **settings}
