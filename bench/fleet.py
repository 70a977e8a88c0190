"""Many machines on one: a chaos test of a fleet, how it scales, and what its broker costs.

    .venv/bin/python bench/fleet.py chaos --seconds 180 --users 10 --seed 1
    .venv/bin/python bench/fleet.py outages --database galera
    .venv/bin/python bench/fleet.py scale
    .venv/bin/python bench/fleet.py submit
    .venv/bin/python bench/fleet.py idle

A machine is a serve.py with a DATA_DIR of its own. All share a private MariaDB, or two nodes of
it (`--database galera`), a RabbitMQ, and for files an S3 store if there is one (`--store s3`),
else one folder (`--store folder`). In the chaos test each of them and each process is killed,
frozen and started again at random; in `outages`, one server after the other is away for a minute.
Nothing may be lost, doubled or left, as in bench/chaos.py. Linux only.
"""

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, signal

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config
import db
import migrations
from bench import chaos
from bench.chaos import calm, over, say
from images import storage_check
from tests import servers
from tests.servers import (
    ROOT,
    GaleraNode,
    MariaDB,
    RabbitMQ,
    Service,
    Worker,
    clean_environment,
    free_port,
)

SECRET_KEY = "7f1c09e2b85d4a36c0e9f47a1d2b6835"
WEB_MACHINES = 2
WORKER_MACHINES = 4
# How long a server is away at most, and a process frozen: longer than a lease and a sweep.
OUTAGE_SECONDS = 60
FREEZE_SECONDS = 45
# An upload that a store did not answer to is deleted five minutes later.
QUIET_SECONDS = 420
# Weight of what may happen, and the method of Fleet that does it, with its arguments.
TROUBLES = [
    (6, "send", "worker", SIGKILL),
    (2, "send", "worker", SIGTERM),
    (2, "freeze", "worker"),
    (4, "send", "web", SIGKILL),
    (1, "send", "serve", SIGKILL),
    (1, "send", "serve", SIGTERM),
    (2, "restart", "broker"),
    (1, "suspend", "broker"),
    (1, "suspend", "database"),
    (1, "restart", "database"),
    (1, "suspend", "store"),
    (1, "restart", "store"),
]
# Between two outages: how long everything is there.
PAUSE_SECONDS = 20
# A worker whose images take a second of no work at all.
SLEEPER = """
import time
import worker
from engines import painter

draw, made = painter.make, []

def make(request, on_progress):
    time.sleep(1)
    made[:] = made or [draw(request, on_progress)]
    return made[0]

painter.make = make
worker.main()
"""
JOBS_PER_WORKER = 15
SUBMIT_AT_ONCE = 3
SUBMITS = 300
# Settings that each web server has of its own.
OWN = ("DATA_DIR", "PORT")
IDLE_WORKERS = 4
IDLE_SECONDS = 120


# -- Machines and servers ------------------------------------------------------------------------


class Machine:
    """A serve.py with a folder of its own, as systemd would keep it running."""

    def __init__(self, name: str, kind: str, folder: Path, environ: dict[str, str]):
        self.name = name
        self.kind = kind
        self.port = free_port()
        self.environ = {**environ, "DATA_DIR": str(folder / name), "PORT": str(self.port)}
        (folder / name).mkdir()
        if shared := environ.get("SHARED_UPLOADS"):
            (folder / name / "uploads").symlink_to(shared)
        self.log = (folder / f"{name}.log").open("ab")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "serve.py", self.kind],
            cwd=ROOT,
            env=self.environ,
            stdout=self.log,
            stderr=self.log,
        )

    def look_after(self) -> None:
        if self.process.poll() is not None:
            say(self.name, "ended with", self.process.returncode)
            self.start()

    def pids(self) -> list[int]:
        """List the processes under serve.py: gunicorns, or Celery's and their children."""
        found = chaos.children(self.process.pid, "")
        return found + [pid for child in found for pid in chaos.children(child, "")]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(90)
        self.log.close()


class AnyOf:
    """Stands for the address of the service, behind a proxy that knows of no outages."""

    def __init__(self, urls: list[str]):
        self.urls = urls

    def __add__(self, path: str) -> str:
        return random.choice(self.urls) + path


class Cluster:
    """Two nodes, both written to; the second one comes and goes, as the first goes on alone."""

    def __init__(self, folder: Path):
        self.first = GaleraNode(folder / "1")
        self.second = GaleraNode(folder / "2", first=self.first)
        self.run = self.first.run
        self.kill, self.send = self.second.kill, self.second.send

    def settings(self, name: str) -> dict[str, str]:
        hosts = [f"127.0.0.1:{node.port}" for node in (self.first, self.second)]
        return {**self.first.settings(name), "MYSQL_HOST": ",".join(hosts)}

    def start(self) -> None:
        self.second.start(first=self.first)


def start_database(kind: str, folder: Path, stack: ExitStack) -> MariaDB | Cluster:
    if kind == "mariadb":
        database = MariaDB(folder / "mariadb", "--innodb-flush-log-at-trx-commit=1")
    else:
        folder.chmod(0o755)  # its nodes run as the user mysql
        database = Cluster(folder)
        stack.callback(database.first.kill)
    stack.callback(database.kill)
    return database


@contextmanager
def shared_servers(folder: Path, store: str, kind: str = "mariadb") -> Iterator[dict]:
    """Start what all machines share; yields the servers, and `environ` that leads to them."""
    with ExitStack() as stack:
        database = start_database(kind, folder, stack)
        database.run("CREATE DATABASE fleet CHARACTER SET utf8mb4")
        broker = RabbitMQ(folder / "rabbitmq")
        stack.callback(broker.stop)
        environ = {**database.settings("fleet"), "BROKER_URL": broker.url}
        found = {"database": database, "broker": broker}
        if store == "s3":
            found["store"] = servers.ObjectStore(folder / "store")
            stack.callback(found["store"].kill)
            environ |= found["store"].settings("fleet")
        else:
            (folder / "uploads").mkdir()
            environ["SHARED_UPLOADS"] = str(folder / "uploads")
        found["environ"] = clean_environment(
            SECRET_KEY=SECRET_KEY,
            DATA_DIR=str(folder),
            DAILY_IMAGES="1000000",
            SUBMITS_PER_MINUTE="1000000",
            MAX_ACTIVE_JOBS="1000000",
            MAX_QUEUE="1000000",
            PASSWORD_HASH="pbkdf2:sha256:1000",
            WORKER_GRACE_SECONDS="3",
            **environ,
        )
        config.load(found["environ"])
        migrations.upgrade()
        yield found


# -- Chaos ---------------------------------------------------------------------------------------


class Fleet(threading.Thread):
    """The machines and what they share, kept running; and the trouble made for them."""

    def __init__(self, folder: Path, shared: dict):
        super().__init__()
        self.shared = shared
        self.machines = []
        for kind, number in (("web", WEB_MACHINES), ("worker", WORKER_MACHINES)):
            for count in range(1, number + 1):
                # Of the nodes of a cluster half of the machines prefer one, half the other.
                hosts = shared["environ"]["MYSQL_HOST"].split(",")
                hosts = ",".join(reversed(hosts) if count % 2 else hosts)
                environ = {**shared["environ"], "MYSQL_HOST": hosts}
                self.machines.append(Machine(f"{kind}{count}", kind, folder, environ))
        self.frozen: dict[int, float] = {}  # process id: when it is to be thawed

    def url(self) -> AnyOf:
        webs = [machine for machine in self.machines if machine.kind == "web"]
        return AnyOf([f"http://127.0.0.1:{machine.port}" for machine in webs])

    def run(self) -> None:
        """Keep the machines running, and thaw in time what was frozen."""
        while not over.wait(0.5):
            for machine in self.machines:
                machine.look_after()
            self.thaw()
        for machine in self.machines:
            machine.stop()

    def thaw(self) -> None:
        for pid in [pid for pid, until in self.frozen.items() if time.monotonic() > until]:
            del self.frozen[pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGCONT)

    def make_trouble(self) -> None:
        weights = [weight for weight, *_ in TROUBLES]
        while not calm.wait(random.uniform(0.5, 5)):
            [(_, method, *arguments)] = random.choices(TROUBLES, weights)
            getattr(self, method)(*arguments)

    def victims(self, program: str) -> list[int]:
        if program == "serve":
            return [machine.process.pid for machine in self.machines]
        machines = [machine for machine in self.machines if machine.kind == program]
        return [pid for machine in machines for pid in machine.pids()]

    def send(self, program: str, number: int) -> None:
        """Send a signal to one process of the program on any machine."""
        if pids := self.victims(program):
            pid = random.choice(pids)
            say(program, pid, number.name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self, program: str) -> None:
        pids = self.victims(program)
        if pids and not self.frozen:
            pid = random.choice(pids)
            say(program, pid, "is frozen")
            self.frozen[pid] = time.monotonic() + FREEZE_SECONDS
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGSTOP)

    def restart(self, name: str, seconds: float | None = None) -> None:
        """Kill a server, and start it again after a while; other trouble waits meanwhile."""
        if server := self.shared.get(name):
            seconds = seconds or random.uniform(0, OUTAGE_SECONDS)
            say(name, f"is away for {seconds:.0f} s")
            server.kill()
            calm.wait(seconds)
            server.start()

    def suspend(self, name: str, seconds: float | None = None) -> None:
        """Let a server accept connections and answer nothing."""
        if server := self.shared.get(name):
            seconds = seconds or random.uniform(0, OUTAGE_SECONDS)
            say(name, f"is frozen for {seconds:.0f} s")
            server.send(SIGSTOP)
            calm.wait(seconds)
            server.send(SIGCONT)

    def make_outages(self, users: list[chaos.User]) -> None:
        """Let one server after the other be away and frozen, and say what users noticed."""
        calm.wait(PAUSE_SECONDS)
        for name in ("broker", "store", "database"):
            for method in (self.restart, self.suspend):
                before = answers(users)
                method(name, OUTAGE_SECONDS)
                say("answers", dict(answers(users) - before))
                calm.wait(PAUSE_SECONDS)
        calm.set()


def answers(users: list[chaos.User]) -> Counter:
    return sum((Counter(user.answers) for user in users), Counter())


def run_chaos(options: argparse.Namespace, folder: Path) -> bool:
    """Let users work and things break; return whether every invariant holds afterwards."""
    random.seed(options.seed)
    chaos.STUCK_SECONDS += OUTAGE_SECONDS  # nobody can end it while the database is away
    with shared_servers(folder, options.store, options.database) as shared:
        db.execute(chaos.DELETED_TABLE)
        db.execute(f"{chaos.TRIGGER} {chaos.RECORD_DELETED}")
        fleet = Fleet(folder, shared)
        watch = chaos.Watch()
        users = [chaos.User(number, fleet.url(), options.seed) for number in range(options.users)]
        for thread in (fleet, watch, *users):
            thread.start()
        try:
            if options.part == "outages":
                fleet.make_outages(users)
            else:
                threading.Timer(options.seconds, calm.set).start()
                fleet.make_trouble()
            found = check(fleet, watch, users, folder)
        finally:
            calm.set()
            over.set()
            fleet.join()
    for name, broken in found:
        examples = [f"\n      {str(example)[:600]}" for example in broken[:4]]
        print("FAIL" if broken else "PASS", f" {name}", *examples)
    return not any(broken for _, broken in found)


def check(fleet: Fleet, watch: chaos.Watch, users: list, folder: Path) -> list[chaos.Finding]:
    """Wait until all is done, and return the invariants with what breaks them."""
    chaos.wait_for(
        lambda: not fleet.frozen and not any(map(chaos.User.is_alive, users)), QUIET_SECONDS
    )
    seconds = chaos.wait_for(chaos.is_quiet, QUIET_SECONDS)
    say("quiet", seconds, "s later; answers", answers(users))
    rows = db.all("SELECT * FROM image_generations")
    say("now", Counter((row["status"], row["error_code"]) for row in rows))
    found = [
        *chaos.findings(users, rows),
        *chaos.account_findings(rows, db.all("SELECT * FROM chaos_deleted")),
        watch.finding(),
    ]
    found.append(("files and rows agree", storage_findings()))
    if "store" not in fleet.shared:
        found += chaos.file_findings(rows, folder / "uploads")
    return found


def storage_findings() -> list[str]:
    """Return what `flask storage check` would find wrong, however fresh the files are."""
    storage_check.FRESH_SECONDS = 0
    return [f"{found.kind}: {found.where}" for found in storage_check.findings()]


# -- How it scales -------------------------------------------------------------------------------


def log_in(url: str, name: str) -> requests.Session:
    form = {"username": name, "email": f"{name}@example.com", "password": "secret1"}
    requests.post(f"{url}/api/auth/register", data=form, timeout=30)
    answer = requests.post(f"{url}/api/auth/login", json=form, timeout=30).json()
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {answer['data']['token']}"
    return session


def submit(session: requests.Session, url: str, number: int = 1) -> float:
    """Submit, and return how many seconds the answer took."""
    body = {"prompt": "a fox", "n": number, "width": 64, "height": 64, "steps": 1}
    started = time.perf_counter()
    response = session.post(f"{url}/api/v1/images/generate", json=body, timeout=60)
    seconds = time.perf_counter() - started
    response.raise_for_status()
    return seconds


def run_scale(options: argparse.Namespace, folder: Path) -> bool:
    """Print images a second of more and more workers, and submits a second of one and two webs."""
    with shared_servers(folder, options.store) as shared:
        environ = shared["environ"]
        with services(shared, folder, [{}]) as [url]:
            session = log_in(url, "scale")
            first = 0.0
            for number in (1, 2, 4, 8):
                rate = images_a_second(number, session, url, folder, environ)
                first = first or rate
                share = rate / first / number
                print(f"{number} workers: {rate:5.2f} images a second, {share:.2f} linear")
        for number in (1, 2):
            changes = [{"WEB_WORKERS": str(number)}]
            with services(shared, folder, changes) as [url]:
                print(f"{number} web processes: {submits_a_second(url):.0f} submits a second")
    return True


def images_a_second(
    number: int, session: requests.Session, url: str, folder: Path, environ: dict[str, str]
) -> float:
    with sleepers(number, folder, environ):
        wanted = number * JOBS_PER_WORKER
        before = done()
        started = time.perf_counter()
        for _ in range(wanted // SUBMIT_AT_ONCE):
            submit(session, url, SUBMIT_AT_ONCE)
        servers.wait_until(lambda: done() - before >= wanted, wanted * 3, "the images")
        return wanted / (time.perf_counter() - started)


@contextmanager
def sleepers(number: int, folder: Path, environ: dict[str, str]) -> Iterator[None]:
    workers = []
    try:
        for count in range(number):
            own = folder / f"sleeper-{number}-{count}"
            own.mkdir()
            if shared := environ.get("SHARED_UPLOADS"):
                (own / "uploads").symlink_to(shared)
            settings = {**environ, "DATA_DIR": str(own)}
            workers.append(Worker(folder / f"{own.name}.log", settings, "-c", SLEEPER))
        for one in workers:
            servers.wait_until(one.is_ready, 60, "a worker")
        time.sleep(5)  # until they have told the broker
        yield
    finally:
        for one in workers:
            one.end(SIGTERM)


def done() -> int:
    return db.value("SELECT COUNT(*) FROM image_generations WHERE status = 'completed'")


@contextmanager
def services(shared: dict, folder: Path, changes: list[dict[str, str]]) -> Iterator[list[str]]:
    """Run a web server for each set of settings, and yield their addresses."""
    started = []
    fields = [name for name in config.Settings.__dataclass_fields__ if name not in OWN]
    given = {name: shared["environ"][name] for name in fields}
    try:
        for each in changes:
            own = tempfile.mkdtemp(dir=folder)
            started.append(Service(Path(own), **{**given, **each}).start())
        yield [service.url for service in started]
    finally:
        for service in started:
            service.stop()


def submits_a_second(url: str) -> float:
    """Let eight users submit as fast as they can."""
    sessions = [log_in(url, f"web{number}") for number in range(8)]

    def work(session: requests.Session) -> None:
        for _ in range(SUBMITS // 4):
            submit(session, url)

    threads = [threading.Thread(target=work, args=[session]) for session in sessions]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(sessions) * (SUBMITS // 4) / (time.perf_counter() - started)


# -- What the broker costs -----------------------------------------------------------------------


def run_submit(options: argparse.Namespace, folder: Path) -> bool:
    """Print how long a submit takes without a broker, and with one that is up, away or frozen."""
    with shared_servers(folder, "folder") as shared, ExitStack() as stack:
        half_dead = RabbitMQ(folder / "half-dead")
        stack.callback(half_dead.stop)
        brokers = {
            "no broker": "",
            "broker up": shared["broker"].url,
            "broker away": f"amqp://guest:guest@127.0.0.1:{free_port()}//",
            "broker frozen": half_dead.url,
        }
        changes = [{"BROKER_URL": url, "WEB_WORKERS": "1"} for url in brokers.values()]
        urls = stack.enter_context(services(shared, folder, changes))
        sessions = [log_in(url, f"user{number}") for number, url in enumerate(urls)]
        for session, url in zip(sessions, urls, strict=True):
            submit(session, url)  # which imports Celery
        time.sleep(5)
        half_dead.send(SIGSTOP)
        taken: list[list[float]] = [[] for _ in urls]
        for _ in range(SUBMITS):
            for session, url, seconds in zip(sessions, urls, taken, strict=True):
                seconds.append(submit(session, url))
        half_dead.send(SIGCONT)
        for name, seconds in zip(brokers, taken, strict=True):
            cuts = [1000 * cut for cut in statistics.quantiles(seconds, n=100)]
            print(f"{name:15} p50 {cuts[49]:6.2f}  p90 {cuts[89]:6.2f}  p99 {cuts[98]:6.2f} ms")
    return True


def run_idle(options: argparse.Namespace, folder: Path) -> bool:
    """Print how many statements idle workers send, with the broker and without."""
    with shared_servers(folder, "folder") as shared:
        for name, url in (("broker", shared["broker"].url), ("no broker", "")):
            workers = []
            for count in range(IDLE_WORKERS):
                own = folder / f"idle-{name}-{count}"
                own.mkdir()
                environ = {**shared["environ"], "BROKER_URL": url, "DATA_DIR": str(own)}
                workers.append(Worker(folder / f"{own.name}.log", environ, "worker.py"))
            time.sleep(75)  # until they are idle
            before, started = questions(shared["database"]), time.perf_counter()
            time.sleep(IDLE_SECONDS)
            number = questions(shared["database"]) - before
            rate = number / (time.perf_counter() - started)
            print(f"{IDLE_WORKERS} idle workers, {name}: {rate:.2f} statements a second")
            for one in workers:
                one.end(SIGTERM)
    return True


def questions(database: MariaDB) -> int:
    [(_, number)] = database.run("SHOW GLOBAL STATUS LIKE 'Questions'")
    return int(number)


PARTS: dict[str, Callable[[argparse.Namespace, Path], bool]] = {
    "chaos": run_chaos,
    "outages": run_chaos,
    "scale": run_scale,
    "submit": run_submit,
    "idle": run_idle,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    store = "s3" if hasattr(servers, "ObjectStore") else "folder"
    parser.add_argument("--store", choices=["s3", "folder"], default=store)
    parser.add_argument("--database", choices=["mariadb", "galera"], default="mariadb")
    options = parser.parse_args()
    signal(SIGTERM, lambda *_: sys.exit(1))  # by which all that was started is ended
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fleet-", dir=memory if memory.is_dir() else None))
    say(options, folder)
    is_good = PARTS[options.part](options, folder)
    if is_good:
        shutil.rmtree(folder)
    else:
        print(f"Logs, files and database are kept in {folder}")
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
