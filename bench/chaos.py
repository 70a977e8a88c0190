"""Kill everything at random while many users work, then check that nothing was lost, doubled or left behind.

    .venv/bin/python bench/chaos.py --seconds 120 --engine mariadb --users 10 --workers 2 --seed 1

Runs serve.py on a private database in a temporary folder, which is kept if an invariant fails. Linux only.
"""

import argparse
import contextlib
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

import requests
from PIL import Image

from accounts import users

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config
import db
import migrations
from tests.servers import ROOT, MariaDB, clean_environment, free_port

FREEZE_SECONDS = 45  # longer than a lease and a sweep
STUCK_SECONDS = 60
QUIET_SECONDS = 240
# After the supervisor was killed, the old gunicorn may hold the port until its last request is done.
PORT_SECONDS = 40
SIZES = [(64, 2), (64, 2), (512, 20), (1024, 150)]
# Weight, program and signal of what may happen.
TROUBLES = [
    (6, "worker", SIGKILL), (2, "worker", SIGTERM), (2, "worker", SIGSTOP), (4, "web worker", SIGKILL),
    (2, "web", SIGKILL), (1, "serve", SIGKILL), (1, "serve", SIGTERM), (2, "database", SIGKILL),
]  # fmt: skip
# What a generation was when it was deleted: our own record, kept by the database itself.
GONE = "CREATE TABLE chaos_gone (id INT NOT NULL, user_id INT NOT NULL, status VARCHAR(20) NOT NULL, quota_day INT)"
TRIGGER = (
    "CREATE TRIGGER chaos_delete AFTER DELETE ON image_generations FOR EACH ROW {} INSERT INTO chaos_gone"
    " (id, user_id, status, quota_day) VALUES (OLD.id, OLD.user_id, OLD.status, OLD.quota_day){}"
)

calm = threading.Event()  # set: nothing new is submitted or killed
over = threading.Event()  # set: every thread ends


def say(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


# -- The service, and what is killed of it --------------------------------------------------------


class Service(threading.Thread):
    """serve.py as systemd would run it, started again whenever it ends; and who makes trouble for it."""

    def __init__(self, folder: Path, environ: dict[str, str], database: MariaDB | None):
        super().__init__()
        self.environ, self.database, self.log = (
            environ,
            database,
            (folder / "service.log").open("ab"),
        )
        self.frozen, self.killed_at, self.ended = {}, 0.0, []
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
                say("serve.py ended with", self.process.returncode)
                if time.monotonic() - self.killed_at > PORT_SECONDS:
                    self.ended.append(
                        f"status {self.process.returncode} at {time.strftime('%H:%M:%S')}"
                    )
                over.wait(1)
                self.process = self.start_process()
            for pid in [pid for pid, until in self.frozen.items() if time.monotonic() > until]:
                del self.frozen[pid]
                if "worker.py" in command_line(pid):
                    os.kill(pid, SIGCONT)
        self.process.terminate()
        self.process.wait(60)

    def make_trouble(self) -> None:
        """Draw one trouble after the other until it is calm."""
        while not calm.wait(random.uniform(0.5, 5)):
            _, program, number = random.choices(TROUBLES, [weight for weight, *_ in TROUBLES])[0]
            pids = self.pids(program)
            if not pids or (number == SIGSTOP and self.frozen):
                continue
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


UNKEYED = "a drawing"


class User(threading.Thread):
    """Submits, cancels, deletes and looks; repeats each call until it has an answer, whatever happens meanwhile."""

    def __init__(self, number: int, url: str, seed: int):
        super().__init__()
        self.name, self.url, self.random, self.http = (
            f"user{number}",
            url,
            random.Random(f"{seed}-{number}"),
            None,
        )
        self.promised: dict[int, str] = {}  # id: key
        self.canceled, self.deleted, self.doubled, self.answers = set(), set(), [], Counter()

    def run(self) -> None:
        self.http = requests.Session()
        form = {"username": self.name, "email": f"{self.name}@example.com", "password": "secret1"}
        self.call("/api/auth/register", form)
        _, body = self.call("/api/auth/login", form)
        self.http.headers["Authorization"] = f"Bearer {body['data']['token']}"
        while not calm.wait(self.random.expovariate(2)):
            actions = [self.submit, self.submit_without_key, self.draw, self.cancel, self.delete]
            self.random.choices(actions, [5, 4, 2, 4, 3])[0]()

    def call(self, path: str, body: dict | None = None, **headers: str) -> tuple[int, dict]:
        while not over.is_set():
            try:
                response = self.http.post(self.url + path, json=body, headers=headers, timeout=30)
                self.answers[response.status_code] += 1
                if response.status_code < 500:
                    return response.status_code, response.json()
            except (requests.RequestException, ValueError) as error:
                self.answers[type(error).__name__] += 1
            time.sleep(self.random.uniform(0.1, 1))
        raise SystemExit

    def submit(self) -> None:
        key = f"{self.random.getrandbits(64):x}"
        body, number = self.body(f"a galaxy over a city {key}")
        for _ in range(self.random.choice([1, 1, 2])):
            status, answer = self.call("/api/v1/images/generate", body, **{"Idempotency-Key": key})
            if status == 202:
                self.note(key, number, {row["id"] for row in answer["data"]["records"]})

    def submit_without_key(self) -> None:
        """Submit what a lost answer leaves as images nobody was promised."""
        body, number = self.body(UNKEYED)
        status, answer = self.call("/api/v1/images/generate", body)
        if status == 202:
            ids = {row["id"] for row in answer["data"]["records"]}
            self.note(f"unkeyed {min(ids)}", number, ids)

    def body(self, prompt: str) -> tuple[dict, int]:
        number, (side, steps) = self.random.choice([1, 1, 3]), self.size()
        return {
            "prompt": prompt,
            "width": side,
            "height": side,
            "steps": steps,
            "n": number,
        }, number

    def note(self, key: str, number: int, ids: set[int]) -> None:
        earlier = {one for one, its_key in self.promised.items() if its_key == key}
        if len(ids) != number or earlier not in (set(), ids):
            self.doubled.append(f"{key}: {earlier}, then {ids}")
        self.promised |= dict.fromkeys(ids, key)

    def draw(self) -> None:
        """Have one drawn at once. There is no key, so a lost answer leaves an image nobody was promised."""
        side, steps = self.size()
        params = {"width": side, "height": side, "steps": steps}
        status, answer = self.call(
            "/api/v1/images/generate-test", {"prompt": UNKEYED, "params": params}
        )
        if status == 200:
            self.promised[answer["data"]["id"]] = UNKEYED

    def size(self) -> tuple[int, int]:
        return self.random.choice(SIZES)

    def some(self) -> list[int]:
        recent = [number for number in list(self.promised)[-8:] if number not in self.deleted]
        return self.random.sample(recent, min(len(recent), self.random.choice([1, 1, 3])))

    def cancel(self) -> None:
        for number in self.some():
            self.canceled.add(number)
            self.call(f"/api/v1/images/{number}/cancel")

    def delete(self) -> None:
        if numbers := self.some():
            self.deleted.update(numbers)
            self.call("/api/v1/images/delete", {"ids": numbers})


# -- What must be true --------------------------------------------------------------------------


class Watch(threading.Thread):
    """Samples how long a generation stays in processing under one claim, and settles counts now and then."""

    seen: dict[tuple, float] = {}
    longest = (0.0, 0)

    def run(self) -> None:
        while not over.wait(1):
            try:
                found = db.all(
                    "SELECT id, claim FROM image_generations WHERE status = 'processing'"
                )
                users = users.list_users()
                if users and random.random() < 0.3:
                    db.settle_generations(random.choice(users)["id"])
            except db.Unavailable:
                continue
            now = time.monotonic()
            self.seen = {
                key: self.seen.get(key, now) for key in ((row["id"], row["claim"]) for row in found)
            }
            self.longest = max(
                [self.longest, *((now - since, key[0]) for key, since in self.seen.items())]
            )


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


def findings(users: list[User], rows: list[dict], gone: list[dict]) -> Iterator[tuple[str, list]]:
    """Yield each invariant of the queue with what breaks it."""
    promised, canceled, deleted = (
        {number for user in users for number in getattr(user, name)}
        for name in ("promised", "canceled", "deleted")
    )
    lost = promised - {row["id"] for row in rows} - deleted
    ended = [row for row in rows if row["status"] in ("completed", "failed", "canceled")]
    failed = [row for row in rows if row["status"] == "failed"]
    unknown = [row for row in rows if row["id"] not in promised and row["prompt_text"] != UNKEYED]
    yield "what was promised exists, or was deleted by us", list(lost)
    yield "every generation has ended", [row for row in rows if row not in ended]
    yield (
        "a failed one says why",
        [row for row in failed if not row["error_code"] or not row["error_message"]],
    )
    yield (
        "only our cancels cancel",
        [r for r in rows if r["status"] == "canceled" and r["id"] not in canceled],
    )
    yield "only our deletes delete", [row for row in gone if row["id"] not in deleted]
    yield "one key made one set", [text for user in users for text in user.doubled]
    yield "nothing was made that nobody was promised", unknown
    yield "no request met a bug (500)", [user.name for user in users if user.answers[500]]


def file_findings(rows: list[dict], uploads: Path) -> Iterator[tuple[str, list]]:
    owned = {key: row for row in rows for key in db.file_keys(row)}
    there = {str(path.relative_to(uploads)) for path in uploads.rglob("*") if path.is_file()}
    wrong = [
        row for row in rows if len(db.file_keys(row)) != (2 if row["status"] == "completed" else 0)
    ]
    yield "a completed one has two files, others none", wrong
    yield "no file is missing", sorted(owned.keys() - there)
    yield "no file is without its row", sorted(there - owned.keys())
    yield (
        "every file is whole",
        [key for key in owned.keys() & there if not is_whole(uploads / key, owned[key])],
    )
    yield "no file is doomed", db.all("SELECT * FROM pending_deletions")


def is_whole(path: Path, row: dict) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return path.suffix == ".webp" or image.size == (row["width"], row["height"])


def account_findings(rows: list[dict], gone: list[dict]) -> Iterator[tuple[str, list]]:
    for user in db.all("SELECT id, quota_day, quota_used, settled_id, settled_count FROM users"):
        own = [row for row in rows if row["user_id"] == user["id"]]
        both = own + [row for row in gone if row["user_id"] == user["id"]]
        used = sum(
            row["status"] == "completed" and row["quota_day"] == user["quota_day"] for row in both
        )
        real = (used, sum(row["id"] <= user["settled_id"] for row in own), len(own))
        kept = (
            user["quota_used"],
            user["settled_count"],
            db.list_generations(users.get_user(user["id"]), 1)[1],
        )
        yield (
            f"quota, settled count and total of user {user['id']}",
            [(kept, real)] if kept != real else [],
        )


# -- The run ------------------------------------------------------------------------------------


def run(options: argparse.Namespace, folder: Path, database: MariaDB | None) -> bool:
    environ = clean_environment(
        DATA_DIR=str(folder), PORT=str(free_port()), WEB_WORKERS="2", JOB_WORKERS=str(options.workers),
        DAILY_IMAGES="1000000", PASSWORD_HASH="pbkdf2:sha256:1000", WORKER_GRACE_SECONDS="3",
        **(database.settings("chaos") if database else {}),
    )  # fmt: skip
    config.load(environ)
    migrations.upgrade()
    db.execute(GONE)
    db.execute(TRIGGER.format("", "") if database else TRIGGER.format("BEGIN", "; END"))

    random.seed(options.seed)
    service, watch = Service(folder, environ, database), Watch()
    users = [
        User(number, f"http://127.0.0.1:{environ['PORT']}", options.seed)
        for number in range(options.users)
    ]
    for thread in (service, watch, *users, threading.Timer(options.seconds, calm.set)):
        thread.start()
    service.make_trouble()
    wait_for(
        lambda: not service.frozen and not any(user.is_alive() for user in users), QUIET_SECONDS
    )
    say(
        "quiet",
        wait_for(is_quiet, QUIET_SECONDS),
        "s later; answers",
        sum((u.answers for u in users), Counter()),
    )
    rows, gone = db.all("SELECT * FROM image_generations"), db.all("SELECT * FROM chaos_gone")
    say("now", Counter((row["status"], row["error_code"]) for row in rows))
    say("when deleted", Counter(row["status"] for row in gone))
    found = [
        *findings(users, rows, gone),
        *file_findings(rows, folder / "uploads"),
        *account_findings(rows, gone),
    ]
    over.set()
    stuck = [watch.longest] if watch.longest[0] > STUCK_SECONDS else []
    found.append(
        (
            f"nothing stays in processing for {STUCK_SECONDS} s (longest: {watch.longest[0]:.0f})",
            stuck,
        )
    )
    found.append(("serve.py ended only when it was told to", service.ended))
    service.join()
    for name, broken in found:
        print(
            f"{'FAIL' if broken else 'PASS'}  {name}",
            *(f"\n      {str(one)[:600]}" for one in broken[:4]),
        )
    return not any(broken for _, broken in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--engine", choices=["mariadb", "sqlite"], default="sqlite")
    for name, default in (("users", 10), ("workers", 2), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    folder, database = Path(tempfile.mkdtemp(prefix="chaos-")), None
    say(options, folder)
    try:
        if options.engine == "mariadb":
            # What was committed must survive the death of the server, as with its own defaults.
            database = MariaDB(
                folder / "mariadb", "--innodb-flush-log-at-trx-commit=1", f"--tmpdir={folder}"
            )
            database.run("CREATE DATABASE chaos CHARACTER SET utf8mb4")
        is_good = run(options, folder, database)
    finally:
        over.set()
        if database:
            database.kill()
    if not is_good:
        sys.exit(f"Log, files and database are kept in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
