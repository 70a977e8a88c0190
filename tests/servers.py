"""Real servers for the tests: a private MariaDB, and the service itself.

They listen on free ports of 127.0.0.1 and keep their files in temporary folders.
"""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

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


class Program:
    """A server of our own, which can be killed and started again; it writes a log."""

    process: subprocess.Popen
    log: IO

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()
        self.log.close()


class Database:
    """A server that speaks the protocol of MySQL, such as TEST_MYSQL names: the tests own it."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 3306
        self.user, self.password = unquote(parts.username or "root"), unquote(parts.password or "")

    def connect(self, database: str | None = None) -> pymysql.Connection:
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
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

    def settings(self, database: str) -> dict[str, str]:
        return {
            "MYSQL_HOST": self.host,
            "MYSQL_PORT": str(self.port),
            "MYSQL_USER": self.user,
            "MYSQL_PASSWORD": self.password,
            "MYSQL_DB": database,
        }


class MariaDB(Program, Database):
    """A MariaDB of our own."""

    def __init__(self, folder: Path, *options: str):
        super().__init__(f"mysql://root@127.0.0.1:{free_port()}")
        self.folder = folder
        self.options = options
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


GALERA = "/usr/lib/galera/libgalera_smm.so"


class GaleraNode(Program, Database):
    """A node of a cluster of MariaDB servers, each of which takes writes; the first one begins it.

    Started as root it becomes the user mysql: the rsync that copies the data refuses root.
    """

    def __init__(self, folder: Path, first: "GaleraNode | None" = None):
        super().__init__(f"mysql://root@127.0.0.1:{free_port()}")
        self.folder = folder
        self.group_port = free_port()
        (folder / "tmp").mkdir(parents=True)
        environment = {**os.environ, "HOME": str(folder), "TMPDIR": f"{folder}/tmp"}
        self.options = {"env": environment, "cwd": folder}
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", "mysql:", folder], check=True)
            self.options |= {"user": "mysql", "group": "mysql", "extra_groups": []}
        self.common = ["--no-defaults", f"--datadir={folder}/data"]
        install = [find_program("mariadb-install-db"), *self.common, "--skip-test-db"]
        install.append("--auth-root-authentication-method=normal")
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, **self.options)
        self.start(first)

    def start(self, first: "GaleraNode | None") -> None:
        address = f"127.0.0.1:{self.group_port}"
        # The first one has two votes, so that it goes on alone.
        provider = [f"gmcast.listen_addr=tcp://{address}", f"pc.weight={1 if first else 2}"]
        provider += [f"ist.recv_addr=127.0.0.1:{free_port()}", "gcache.size=16M"]
        command = [
            find_program("mariadbd"),
            *self.common,
            f"--tmpdir={self.folder}/tmp",
            f"--socket={self.folder}/s",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--wsrep-on=ON",
            f"--wsrep-provider={GALERA}",
            f"--wsrep-cluster-address=gcomm://{f'127.0.0.1:{first.group_port}' if first else ''}",
            f"--wsrep-node-name=node{self.port}",
            f"--wsrep-node-address={address}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{free_port()}",
            f"--wsrep-provider-options={';'.join(provider)}",
        ]
        self.log = open(self.folder / "log", "ab")  # noqa: SIM115
        output = {"stdout": self.log, "stderr": self.log}
        self.process = subprocess.Popen(command, **output, **self.options)
        wait_until(self.is_ready, 120, "a node of the cluster")

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-3000:])
        try:
            [[_, ready]] = self.run("SHOW STATUS LIKE 'wsrep_ready'")
        except pymysql.MySQLError:
            return False
        return ready == "ON"


class ObjectStore(Program):
    """An S3-compatible store of our own (SeaweedFS)."""

    KEYS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret"}
    PORTS = ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc"]
    PORTS += ["volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        keys = {"accessKey": "testkey", "secretKey": "testsecret"}
        person = {"name": "service", "credentials": [keys], "actions": actions}
        (folder / "s3.json").write_text(json.dumps({"identities": [person]}))
        self.ports = {name: free_port() for name in self.PORTS}
        self.endpoint = f"http://127.0.0.1:{self.ports['s3.port']}"
        self.start()

    def start(self) -> None:
        command = [find_weed(), "server", f"-dir={self.folder}", "-filer", "-s3"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self.folder}/s3.json"]
        command += [f"-{name}={port}" for name, port in self.ports.items()]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=8"]
        command += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
        self.log = open(self.folder / "log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=self.folder)
        wait_until(self.answers, 90, "SeaweedFS")

    def answers(self) -> bool:
        """Tell if an object can be written and read, which may be later than the port is open."""
        from config import location
        from files.s3 import S3
        from files.stored import Unavailable

        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-3000:])
        try:
            store = S3(location(self.url("probe")), *self.KEYS.values())
            store.delete("a/a")
            store.put("a/a", b"x")
            return store.read("a/a") == b"x"
        except Unavailable:
            return False

    def url(self, prefix: str) -> str:
        return f"s3://images/{prefix}?endpoint={self.endpoint}&region=us-east-1"

    def settings(self, prefix: str) -> dict[str, str]:
        return {"STORAGE_URL": self.url(prefix), **self.KEYS}


def new_certificate(folder: Path) -> Path:
    """Return a file with a key, and a certificate for this host that signs itself: `cert.pem`."""
    both, signed = folder / "both.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(both), "-out", str(signed)],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(both.read_text() + signed.read_text())
    return both


class RabbitMQ(Program):
    """A RabbitMQ of our own, with a port mapper of its own; `tls_url` asks for TLS.

    That listens on 127.0.0.2 too, for which its certificate is not.
    """

    PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        (folder / "home").mkdir(parents=True)
        (folder / "plugins").write_text("[].")
        tls_port = free_port()
        self.tls_url = f"amqps://guest:guest@127.0.0.1:{tls_port}//"
        lines = [
            "disk_free_limit.absolute = 10MB",
            "vm_memory_high_watermark.absolute = 400MB",
            f"listeners.ssl.1 = 127.0.0.1:{tls_port}",
            f"listeners.ssl.2 = 127.0.0.2:{tls_port}",
            f"ssl_options.certfile = {new_certificate(folder)}",
            f"ssl_options.keyfile = {folder}/both.pem",
        ]
        (folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        mapper = str(free_port())
        self.mapper = subprocess.Popen(["epmd", "-address", "127.0.0.1", "-port", mapper])
        self.environment = {
            **os.environ,
            "HOME": f"{folder}/home",  # of its cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": mapper,
            "RABBITMQ_NODENAME": f"node{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        }
        self.start()

    @classmethod
    def is_installed(cls) -> bool:
        return Path(cls.PROGRAM).exists()

    def start(self) -> None:
        self.log = open(self.folder / "output", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [self.PROGRAM],
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        wait_until(self.answers, 60, "RabbitMQ")

    def answers(self) -> bool:
        import amqp

        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "output").read_text()[-3000:])
        try:
            with amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=2):
                return True
        except OSError:
            return False

    def send(self, number: int) -> None:
        """Send a signal to the server and all that it started."""
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        self.kill()
        self.mapper.kill()
        self.mapper.wait()


class Redis:
    """A Redis of our own, which keeps nothing on a disk; `tls_url` asks for TLS.

    It listens on 127.0.0.2 too, for which its certificate is not.
    """

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        port, tls_port = free_port(), free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self.tls_url = f"rediss://127.0.0.1:{tls_port}/0"
        both = str(new_certificate(folder))
        options = ["--bind", "127.0.0.1", "127.0.0.2", "--port", str(port)]
        options += ["--save", "", "--dir", str(folder)]
        options += ["--tls-port", str(tls_port), "--tls-cert-file", both, "--tls-key-file", both]
        options += ["--tls-auth-clients", "no"]
        self.log = open(folder / "log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [find_program("redis-server"), *options], stdout=self.log, stderr=self.log
        )
        wait_until(lambda: "Ready to accept" in (folder / "log").read_text(), what="Redis")

    @classmethod
    def is_installed(cls) -> bool:
        return find_program("redis-server") is not None

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


def find_weed() -> str | None:
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")


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
