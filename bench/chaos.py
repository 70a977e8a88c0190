"""Break things at random while users work, then check that nothing was lost, doubled or left.

    .venv/bin/python bench/chaos.py --seconds 120 --engine mariadb --users 10 --workers 2 --seed 1

Runs serve.py on a private database in a temporary folder, which is kept if an invariant fails.
Processes and statements are killed, rows locked, writes refused, and disks filled: small ones in
memory, in a mount namespace of our own. Linux only.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import pymysql
import requests
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config
import db
import migrations
from accounts.tokens import Session
from images import history, trash, uploads
from pool import connect
from tests.servers import ROOT, MariaDB, clean_environment, free_port

FREEZE_SECONDS = 45  # longer than a lease and a sweep
STUCK_SECONDS = 60
QUIET_SECONDS = 240
# After the supervisor was killed, the old gunicorn may hold the port until its last request ends.
PORT_SECONDS = 40
SIZES = [(64, 2), (64, 2), (512, 20), (1024, 150)]
# Megabytes of the disks of the service and of MariaDB, of which they need about half.
DISK_MEGABYTES = {"service": 200, "mariadb": 300}
# Longer than a statement waits for a lock.
LOCK_SECONDS = 8
# Weight of what may happen, the method of Service that does it, and its arguments.
TROUBLES = [
    (6, "send", "worker", SIGKILL),
    (2, "send", "worker", SIGTERM),
    (2, "send", "worker", SIGSTOP),
    (4, "send", "web worker", SIGKILL),
    (2, "send", "web", SIGKILL),
    (1, "send", "serve", SIGKILL),
    (1, "send", "serve", SIGTERM),
    (3, "fill", "service"),
    (3, "lock"),
]
MARIADB_TROUBLES = [
    (2, "send", "database", SIGKILL),
    (6, "kill", "QUERY"),
    (4, "kill", "CONNECTION"),
    (3, "fill", "mariadb"),
    (2, "refuse_writes"),
]
# What a generation was when it was deleted: our own record, kept by the database itself.
DELETED_TABLE = """
    CREATE TABLE chaos_deleted (
        id INT NOT NULL,
        user_id INT NOT NULL,
        status VARCHAR(20) NOT NULL,
        quota_day INT
    )
"""
RECORD_DELETED = """
    INSERT INTO chaos_deleted (id, user_id, status, quota_day)
    VALUES (OLD.id, OLD.user_id, OLD.status, OLD.quota_day)
"""
# A user whom a read-only server refuses: root may always write.
PLAIN = (
    "CREATE USER plain@'127.0.0.1'",
    "GRANT ALL ON chaos.* TO plain@'127.0.0.1'",
)
TRIGGER = "CREATE TRIGGER chaos_delete AFTER DELETE ON image_generations FOR EACH ROW"

calm = threading.Event()  # set: nothing new is submitted or killed
over = threading.Event()  # set: every thread ends


def say(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


# -- The service, and what is killed of it --------------------------------------------------------


class Service(threading.Thread):
    """serve.py as systemd would run it, restarted whenever it ends; and the trouble made for it."""

    def __init__(self, folder: Path, environ: dict[str, str], database: MariaDB | None):
        super().__init__()
        self.folder = folder
        self.environ = environ
        self.url = f"http://127.0.0.1:{environ['PORT']}"
        self.database = database
        self.log = (folder / "service" / "service.log").open("ab")
        self.wrongly_ready: list[str] = []
        self.frozen: dict[int, float] = {}  # process id: when it is to be thawed
        self.killed_at = 0.0
        self.ended: list[str] = []
        self.process = self.start_process()

    def start_process(self) -> subprocess.Popen:
        command = [sys.executable, "serve.py"]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environ, stdout=self.log, stderr=self.log
        )

    def run(self) -> None:
        """Keep it running, and thaw in time what was frozen."""
        while not over.wait(0.2):
            if self.process.poll() is not None:
                self.restart()
            self.thaw()
        self.process.terminate()
        self.process.wait(60)

    def restart(self) -> None:
        status = self.process.returncode
        say("serve.py ended with", status)
        if time.monotonic() - self.killed_at > PORT_SECONDS:
            self.ended.append(f"status {status} at {time.strftime('%H:%M:%S')}")
        over.wait(1)
        self.process = self.start_process()

    def thaw(self) -> None:
        now = time.monotonic()
        for pid in [pid for pid, until in self.frozen.items() if now > until]:
            del self.frozen[pid]
            if "worker.py" in command_line(pid):
                os.kill(pid, SIGCONT)

    def make_trouble(self) -> None:
        """Make one trouble after the other until it is calm."""
        troubles = TROUBLES + (MARIADB_TROUBLES if self.database else [])
        weights = [weight for weight, *_ in troubles]
        while not calm.wait(random.uniform(0.5, 5)):
            [(_, method, *arguments)] = random.choices(troubles, weights)
            getattr(self, method)(*arguments)

    def send(self, program: str, number: int) -> None:
        """Send a signal to one process of the program."""
        pids = self.pids(program)
        if not pids or (number == SIGSTOP and self.frozen):
            return
        pid = random.choice(pids)
        say(program, pid, number.name)
        if program == "serve":
            self.killed_at = time.monotonic()
        if number == SIGSTOP:
            self.frozen[pid] = time.monotonic() + FREEZE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if program == "database":
            self.database.process.wait()
            calm.wait(random.uniform(0, 8))
            self.database.start()

    def fill(self, name: str) -> None:
        """Leave nothing of a disk for some seconds; a database that dies of it is started again."""
        say("the disk of", name, "is full")
        filler = self.folder / name / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        calm.wait(random.uniform(2, 12))
        if name == "service":
            self.expect_not_ready("storage")
        filler.unlink()
        if self.database and self.database.process.poll() is not None:
            say("MariaDB has ended")
            self.database.start()

    def kill(self, what: str) -> None:
        """Kill statements or connections as they come, for a second."""
        say("kill", what)
        until = time.monotonic() + 1
        sql = "SELECT id FROM information_schema.processlist WHERE user = 'plain'"
        while time.monotonic() < until:
            for (number,) in self.database.run(sql):
                if random.random() < 0.5:
                    with contextlib.suppress(pymysql.OperationalError):  # it has just ended
                        self.database.run(f"KILL {what} {number}")

    def refuse_writes(self) -> None:
        """Take no writes for a while, as a server does during a failover."""
        say("the database is read-only")
        self.database.run("SET GLOBAL read_only = 1")
        calm.wait(random.uniform(1, 10))
        self.expect_not_ready("database")
        self.database.run("SET GLOBAL read_only = 0")

    def lock(self) -> None:
        """Keep everyone from changing an account, or on SQLite anything, for a while."""
        say("rows are locked")
        with contextlib.suppress(db.Unavailable):
            connection = connect(transactional=True)
            connection.begin()
            connection.run("SELECT id FROM users FOR UPDATE")
            calm.wait(LOCK_SECONDS)
            connection.close()

    def expect_not_ready(self, name: str) -> None:
        with contextlib.suppress(requests.RequestException):
            response = requests.get(f"{self.url}/api/health/ready", timeout=10)
            if name not in response.json().get("fields", {}):
                self.wrongly_ready.append(f"{name}: {response.text}")

    def pids(self, program: str) -> list[int]:
        masters = children(self.process.pid, "gunicorn")
        return {
            "serve": [self.process.pid] if self.process.poll() is None else [],
            "worker": children(self.process.pid, "worker.py"),
            "web": masters,
            "web worker": [pid for master in masters for pid in children(master, "gunicorn")],
            "database": [self.database.process.pid] if self.database else [],
        }[program]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def children(pid: int, program: str) -> list[int]:
    try:
        found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [child for child in found if program in command_line(child)]


# -- The users ----------------------------------------------------------------------------------

# The prompt of what is submitted without a key: a lost answer leaves an image nobody was promised.
UNKEYED = "a drawing"
# Rows as long as they may be fill the free pages of a database.
LONG = " and a star" * 170


def drawn(colour: int) -> bytes:
    """Return a small picture."""
    file = io.BytesIO()
    Image.new("RGB", (96, 96), colour).save(file, "png")
    return file.getvalue()


def is_wrong(response: requests.Response) -> bool:
    """Tell if it is an error of ours that does not say when to try again."""
    is_passing = response.status_code == 503 and "Retry-After" in response.headers
    return response.status_code >= 500 and not is_passing


def outcome(response: requests.Response) -> int | str:
    """Return what is counted of an answer: its status, and of a refusal its code."""
    if response.status_code < 500:
        return response.status_code
    return f"{response.status_code} {response.json().get('code')}"


class User(threading.Thread):
    """Submits, cancels and deletes; repeats each call until it is answered."""

    def __init__(self, number: int, url: str, seed: int):
        super().__init__()
        self.name = f"user{number}"
        self.url = url
        self.random = random.Random(f"{seed}-{number}")
        self.promised: dict[int, str] = {}  # id: key
        self.canceled: set[int] = set()
        self.deleted: set[int] = set()
        self.doubled: list[str] = []
        self.wrong: list[str] = []
        self.answers = Counter()

    def run(self) -> None:
        self.http = requests.Session()
        form = {"username": self.name, "email": f"{self.name}@example.com", "password": "secret1"}
        self.call("/api/auth/register", form)
        _, body = self.call("/api/auth/login", form)
        self.http.headers["Authorization"] = f"Bearer {body['data']['token']}"
        actions = [self.submit, self.submit_without_key, self.draw, self.change]
        actions += [self.cancel, self.delete]
        while not calm.wait(self.random.expovariate(2)):
            [action] = self.random.choices(actions, [5, 4, 2, 2, 4, 3])
            action()

    def call(self, path: str, body: dict | None = None, **headers: str) -> tuple[int, dict]:
        return self.send(path, json=body, headers=headers)

    def send(self, path: str, method: str = "POST", **options: Any) -> tuple[int, dict]:
        """Send a request until it is answered, and not with an error of the service."""
        while not over.is_set():
            try:
                response = self.http.request(method, self.url + path, timeout=30, **options)
                if is_wrong(response):
                    self.wrong.append(f"{response.status_code} to {path}: {response.text}")
                self.answers[outcome(response)] += 1
                if response.status_code < 500:
                    return response.status_code, response.json()
            except (requests.RequestException, ValueError) as error:
                self.answers[type(error).__name__] += 1
            time.sleep(self.random.uniform(0.1, 1))
        raise SystemExit

    def submit(self) -> None:
        key = f"{self.random.getrandbits(64):x}"
        body, number = self.body(f"a galaxy over a city {key}{LONG}")
        for _ in range(self.random.choice([1, 1, 2])):
            status, answer = self.call("/api/v1/images/generate", body, **{"Idempotency-Key": key})
            if status == 202:
                self.note(key, number, {row["id"] for row in answer["data"]["records"]})

    def change(self) -> None:
        """Upload one of a few pictures and have it changed; perhaps, delete the upload at once."""
        files = {"file": drawn(self.random.randrange(4))}
        status, answer = self.send("/api/v1/uploads", files=files)
        if status != 201:
            self.wrong.append(f"{status} to an upload: {answer}")
            return
        key = f"{self.random.getrandbits(64):x}"
        body, number = self.body(f"a fox {key}")
        upload_id = answer["data"]["id"]
        body["images"] = [{"upload": upload_id}]
        status, answer = self.call("/api/v1/images/generate", body, **{"Idempotency-Key": key})
        if status == 202:
            self.note(key, number, {row["id"] for row in answer["data"]["records"]})
        else:
            self.wrong.append(f"{status} to a picture that was just uploaded: {answer}")
        if self.random.random() < 0.3:
            self.send(f"/api/v1/uploads/{upload_id}", method="DELETE")

    def submit_without_key(self) -> None:
        """Submit what may be made twice, or without our knowing, if an answer is lost."""
        body, number = self.body(UNKEYED)
        status, answer = self.call("/api/v1/images/generate", body)
        if status == 202:
            ids = {row["id"] for row in answer["data"]["records"]}
            self.note(f"unkeyed {min(ids)}", number, ids)

    def body(self, prompt: str) -> tuple[dict, int]:
        number = self.random.choice([1, 1, 3])
        return {"prompt": prompt, "n": number, **self.size()}, number

    def note(self, key: str, expected: int, ids: set[int]) -> None:
        earlier = {number for number, its_key in self.promised.items() if its_key == key}
        if len(ids) != expected or earlier not in (set(), ids):
            self.doubled.append(f"{key}: {earlier}, then {ids}")
        self.promised |= dict.fromkeys(ids, key)

    def draw(self) -> None:
        """Have one drawn at once, with a key or as in submit_without_key()."""
        key = f"{self.random.getrandbits(64):x}"
        prompt, headers = self.random.choice(
            [(UNKEYED, {}), (f"a fox in a wood {key}{LONG}", {"Idempotency-Key": key})]
        )
        body = {"prompt": prompt, "params": self.size()}
        status, answer = self.call("/api/v1/images/generate-test", body, **headers)
        if status == 200:
            self.note(f"drawn {key}", 1, {answer["data"]["id"]})

    def size(self) -> dict[str, int]:
        side, steps = self.random.choice(SIZES)
        return {"width": side, "height": side, "steps": steps}

    def some(self) -> list[int]:
        """Choose up to three of the user's latest generations."""
        recent = [number for number in list(self.promised)[-8:] if number not in self.deleted]
        size = self.random.choice([1, 1, 3])
        return self.random.sample(recent, min(len(recent), size))

    def cancel(self) -> None:
        for number in self.some():
            self.canceled.add(number)
            self.call(f"/api/v1/images/{number}/cancel")

    def delete(self) -> None:
        if numbers := self.some():
            self.deleted.update(numbers)
            self.call("/api/v1/images/delete", {"ids": numbers})


# -- What must be true --------------------------------------------------------------------------

# An invariant, and what breaks it.
Finding = tuple[str, list]


class Watch(threading.Thread):
    """Samples how long a generation stays in processing under one claim."""

    def __init__(self):
        super().__init__()
        self.seen: dict[tuple[int, str], float] = {}  # (id, claim): since when
        self.longest = (0.0, 0)  # seconds, id

    def run(self) -> None:
        while not over.wait(1):
            with contextlib.suppress(db.Unavailable):
                self.look()

    def look(self) -> None:
        rows = db.all("SELECT id, claim FROM image_generations WHERE status = 'processing'")
        now = time.monotonic()
        keys = [(row["id"], row["claim"]) for row in rows]
        self.seen = {key: self.seen.get(key, now) for key in keys}
        for (number, _), since in self.seen.items():
            self.longest = max(self.longest, (now - since, number))

    def finding(self) -> Finding:
        seconds, _ = self.longest
        name = f"nothing stays in processing for {STUCK_SECONDS} s (longest: {seconds:.0f})"
        return name, [self.longest] if seconds > STUCK_SECONDS else []


def is_quiet() -> bool:
    try:
        unfinished = db.value(
            "SELECT COUNT(*) FROM image_generations WHERE status IN ('pending', 'processing')"
        )
        return not unfinished and not db.value("SELECT COUNT(*) FROM pending_deletions")
    except db.Unavailable:
        return False


def wait_for(is_true, seconds: float) -> float:
    """Wait until it is true, or long enough; return how long it took."""
    started = time.monotonic()
    while time.monotonic() - started < seconds and not is_true():
        time.sleep(0.5)
    return round(time.monotonic() - started, 1)


def findings(users: list[User], rows: list[dict]) -> Iterator[Finding]:
    """Yield each invariant of the queue with what breaks it."""
    promised, canceled, deleted = set(), set(), set()
    for user in users:
        promised |= user.promised.keys()
        canceled |= user.canceled
        deleted |= user.deleted
    lost = promised - {row["id"] for row in rows} - deleted
    yield "what was promised exists, or was deleted by us", list(lost)
    ended = ("completed", "failed", "canceled")
    yield "every generation has ended", [row for row in rows if row["status"] not in ended]
    failed = [row for row in rows if row["status"] == "failed"]
    silent = [row for row in failed if not row["error_code"] or not row["error_message"]]
    yield "a failed one says why", silent
    canceled_rows = [row for row in rows if row["status"] == "canceled"]
    yield "only our cancels cancel", [row for row in canceled_rows if row["id"] not in canceled]
    yield "one key made one set", [text for user in users for text in user.doubled]
    keyed = [row for row in rows if row["prompt_text"] != UNKEYED]
    unknown = [row for row in keyed if row["id"] not in promised]
    yield "nothing was made that nobody was promised", unknown
    yield "no wrong answer", [text for user in users for text in user.wrong]


def file_findings(rows: list[dict], folder: Path) -> Iterator[Finding]:
    """Yield each invariant of the stored files with what breaks it."""
    owned = {}
    wrong = []
    for row in rows:
        keys = trash.file_keys(row)
        owned |= dict.fromkeys(keys, row)
        if len(keys) != (2 if row["status"] == "completed" else 0):
            wrong.append(row)
    for upload in uploads.list_present():
        owned |= dict.fromkeys(uploads.keys_of(upload), upload)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    broken = [key for key in owned.keys() & there if not is_whole(folder / key, owned[key])]
    yield "a completed one has two files, others none", wrong
    yield "no file is missing", sorted(owned.keys() - there)
    yield "no file is without its row", sorted(there - owned.keys())
    yield "every file is whole", broken
    yield "no deletion is pending", db.all("SELECT file_key, due_at FROM pending_deletions")


def is_whole(path: Path, row: dict) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return path.suffix == ".webp" or image.size == (row["width"], row["height"])


def account_findings(rows: list[dict], deleted_rows: list[dict]) -> Iterator[Finding]:
    """Yield for each user whether the counters say what the rows say."""
    for user in db.all("SELECT id, token_version, quota_day, quota_used, image_count FROM users"):
        user_id, day = user["id"], user["quota_day"]
        own = [row for row in rows if row["user_id"] == user_id]
        ever = own + [row for row in deleted_rows if row["user_id"] == user_id]
        used = [row for row in ever if row["status"] == "completed" and row["quota_day"] == day]
        total = history.list_generations(Session(user_id, user["token_version"]), limit=1).total
        kept = {"used": user["quota_used"], "images": user["image_count"], "total": total}
        real = {"used": len(used), "images": len(own), "total": len(own)}
        broken = [f"kept {kept}, real {real}"] if kept != real else []
        yield f"quota, image count and total of user {user_id}", broken


# -- The run ------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace, folder: Path, database: MariaDB | None) -> dict[str, str]:
    """Make the tables, and return the environment of the service."""
    environ = clean_environment(
        DATA_DIR=str(folder / "service"),
        PORT=str(free_port()),
        WEB_WORKERS="2",
        JOB_WORKERS=str(options.workers),
        DAILY_IMAGES="1000000",
        SUBMITS_PER_MINUTE="1000000",
        METRICS="on",
        PASSWORD_HASH="pbkdf2:sha256:1000",
        WORKER_GRACE_SECONDS="3",
        **(database.settings("chaos") if database else {}),
    )
    config.load(environ)
    migrations.upgrade()
    if database:
        database.run(*PLAIN)
        environ["MYSQL_USER"] = "plain"
    db.execute(DELETED_TABLE)
    action = RECORD_DELETED if database else f"BEGIN {RECORD_DELETED}; END"
    db.execute(f"{TRIGGER} {action}")
    return environ


def run(options: argparse.Namespace, folder: Path, database: MariaDB | None) -> bool:
    """Let users work and things break; return whether every invariant holds afterwards."""
    environ = prepare(options, folder, database)
    random.seed(options.seed)
    service = Service(folder, environ, database)
    watch = Watch()
    users = [User(number, service.url, options.seed) for number in range(options.users)]
    for thread in (service, watch, *users, threading.Timer(options.seconds, calm.set)):
        thread.start()
    service.make_trouble()
    wait_for(lambda: not service.frozen and not any(map(User.is_alive, users)), QUIET_SECONDS)
    seconds = wait_for(is_quiet, QUIET_SECONDS)
    answers = sum((user.answers for user in users), Counter())
    say("quiet", seconds, "s later; answers", answers)
    rows = db.all("SELECT * FROM image_generations")
    deleted_rows = db.all("SELECT * FROM chaos_deleted")
    say("now", Counter((row["status"], row["error_code"]) for row in rows))
    say("when deleted", Counter(row["status"] for row in deleted_rows))
    found = [
        *findings(users, rows),
        *file_findings(rows, folder / "service" / "uploads"),
        *account_findings(rows, deleted_rows),
    ]
    over.set()
    found.append(watch.finding())
    found.append(("serve.py ended only when it was told to", service.ended))
    found.append(("ready tells the truth", service.wrongly_ready))
    service.join()
    for name, broken in found:
        examples = [f"\n      {str(example)[:600]}" for example in broken[:4]]
        print("FAIL" if broken else "PASS", f" {name}", *examples)
    return not any(broken for _, broken in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--engine", choices=["mariadb", "sqlite"], default="sqlite")
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    database = None
    say(options, folder)
    mount_disks(folder)
    try:
        if options.engine == "mariadb":
            database = start_mariadb(folder / "mariadb")
        is_good = run(options, folder, database)
    finally:
        over.set()
        if database:
            database.kill()
    if not is_good:
        subprocess.run(["cp", "-r", folder, f"{folder}-kept"])  # the disks end with this process
        print(f"Log, files and database are kept in {folder}-kept")
    for name in DISK_MEGABYTES:
        subprocess.run(["umount", "--lazy", folder / name], check=True)
    shutil.rmtree(folder)
    sys.exit(not is_good)


def mount_disks(folder: Path) -> None:
    for name, megabytes in DISK_MEGABYTES.items():
        disk = folder / name
        disk.mkdir()
        options = f"size={megabytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "chaos", disk], check=True)


def start_mariadb(folder: Path) -> MariaDB:
    server = MariaDB(
        folder / "server",
        # What was committed must survive the death of the server, as with its own defaults.
        "--innodb-flush-log-at-trx-commit=1",
        "--innodb-log-file-size=16M",
        f"--tmpdir={folder}",
    )
    server.run("CREATE DATABASE chaos CHARACTER SET utf8mb4")
    return server


if __name__ == "__main__":
    if os.environ.get("CHAOS_NAMESPACE"):
        main()
    else:  # again, in a namespace where it may mount disks that nobody else sees
        os.environ["CHAOS_NAMESPACE"] = "own"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
