"""Kill everything at random while many users work, then prove that nothing was lost, doubled or left behind.

    .venv/bin/python bench/chaos.py --seconds 120 --engine mariadb --users 10 --workers 2 --seed 1

Runs serve.py on a private database and in a temporary folder, which is kept if an invariant fails. Linux only.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import config
import db
import migrations
from tests.servers import MariaDB, clean_environment, free_port

STUCK_SECONDS = 60
FREEZE_SECONDS = 42  # longer than a lease and a sweep
QUIET_SECONDS = 240
SIZES = [(64, 2), (64, 2), (512, 20), (1024, 150)]
PATIENCE_SECONDS = 40

# What a deleted generation was when it went: our own record, kept by the database itself.
GONE = """
    CREATE TABLE chaos_gone (id INT NOT NULL, user_id INT NOT NULL, status VARCHAR(20) NOT NULL, quota_day INT)
"""
TRIGGER = """
    CREATE TRIGGER chaos_delete AFTER DELETE ON image_generations FOR EACH ROW {begin}
    INSERT INTO chaos_gone (id, user_id, status, quota_day) VALUES (OLD.id, OLD.user_id, OLD.status, OLD.quota_day){end}
"""

calm = threading.Event()  # no more new work, no more kills
over = threading.Event()


def say(*words: Any) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


# -- The service, and what is killed of it --------------------------------------------------------


class Service:
    """serve.py as systemd would run it: started again whenever it ends."""

    def __init__(self, folder: Path, environ: dict[str, str], database: MariaDB | None):
        self.environ, self.database = environ, database
        self.log = (folder / "service.log").open("ab")
        self.exits: Counter = Counter()
        self.frozen: dict[int, float] = {}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "serve.py"], cwd=ROOT, env=self.environ, stdout=self.log, stderr=self.log
        )

    def look_after(self) -> None:
        if self.process.poll() is not None:
            self.exits[self.process.returncode] += 1
            say("serve.py ended with", self.process.returncode)
            time.sleep(1)
            self.start()
        for pid, until in list(self.frozen.items()):
            if time.monotonic() > until:
                self.thaw(pid)

    def children(self, program: str) -> list[int]:
        return [pid for pid in children(self.process.pid) if program in command_line(pid)]

    def thaw(self, pid: int) -> None:
        del self.frozen[pid]
        if "worker.py" in command_line(pid):
            os.kill(pid, signal.SIGCONT)

    # Each returns what it has hit.

    def kill_worker(self) -> Any:
        return hit(self.children("worker.py"), signal.SIGKILL)

    def end_worker(self) -> Any:
        return hit(self.children("worker.py"), signal.SIGTERM)

    def freeze_worker(self) -> Any:
        if not self.frozen and (pid := hit(self.children("worker.py"), signal.SIGSTOP)):
            self.frozen[pid] = time.monotonic() + FREEZE_SECONDS
            return pid

    def kill_web_worker(self) -> Any:
        return hit([pid for master in self.children("gunicorn") for pid in children(master)], signal.SIGKILL)

    def kill_web(self) -> Any:
        return hit(self.children("gunicorn"), signal.SIGKILL)

    def kill_all(self) -> Any:
        self.process.kill()
        return self.process.pid

    def end_all(self) -> Any:
        self.process.terminate()
        return self.process.pid

    def kill_database(self) -> Any:
        if self.database:
            self.database.kill()
            time.sleep(random.uniform(0, 8))
            self.database.start()
            return self.database.process.pid

    def troubles(self) -> Iterator:
        """Draw troubles for ever, the smaller ones more often."""
        kinds = {
            self.kill_worker: 6, self.end_worker: 2, self.freeze_worker: 2, self.kill_web_worker: 4, self.kill_web: 3,
            self.kill_all: 1, self.end_all: 1, self.kill_database: 2,
        }  # fmt: skip
        while True:
            yield random.choices(list(kinds), list(kinds.values()))[0]


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


def hit(pids: list[int], number: int) -> int | None:
    if pids:
        pid = random.choice(pids)
        os.kill(pid, number)
        return pid


def trouble(service: Service, counts: Counter) -> None:
    for strike in service.troubles():
        if calm.wait(random.uniform(0.5, 5)):
            return
        name = strike.__name__
        try:
            if pid := strike():
                counts[name] += 1
                say(name, pid)
        except ProcessLookupError:
            pass


# -- The users ----------------------------------------------------------------------------------


class User(threading.Thread):
    """Submits, cancels, deletes and looks; repeats a call until it has an answer, whatever happens meanwhile."""

    def __init__(self, number: int, url: str, seed: int):
        super().__init__(daemon=True)
        self.random, self.url, self.name = random.Random(f"{seed}-{number}"), url, f"user{number}"
        self.http, self.headers = requests.Session(), {}
        self.promised: dict[int, str] = {}  # id -> key
        self.canceled: set[int] = set()
        self.deleted: set[int] = set()
        self.statuses: Counter = Counter()
        self.doubled: list[str] = []

    def call(self, method: str, path: str, **options) -> tuple[int, dict]:
        while not over.is_set():
            try:
                response = self.http.request(method, self.url + path, timeout=PATIENCE_SECONDS, **options)
                self.statuses[response.status_code] += 1
                if response.status_code < 500:
                    return response.status_code, response.json()
                if response.status_code == 500:
                    say("500", method, path, response.text.strip())
            except (requests.RequestException, ValueError) as error:
                self.statuses[type(error).__name__] += 1
            time.sleep(self.random.uniform(0.1, 1))
        raise SystemExit

    def run(self) -> None:
        form = {"username": self.name, "email": f"{self.name}@example.com", "password": "secret1"}
        self.call("POST", "/api/auth/register", json=form)
        _, body = self.call("POST", "/api/auth/login", json=form)
        self.http.headers["Authorization"] = f"Bearer {body['data']['token']}"
        self.id = self.call("GET", "/api/auth/profile")[1]["data"]["id"]
        while not calm.is_set():
            actions = [self.submit, self.cancel, self.delete, self.test, self.look]
            self.random.choices(actions, [8, 3, 3, 2, 3])[0]()
            calm.wait(self.random.expovariate(2))

    def body(self, prompt: str) -> dict:
        side, steps = self.random.choice(SIZES)
        return {"prompt": f"a galaxy over a city, {prompt}", "width": side, "height": side, "steps": steps}

    def submit(self) -> None:
        key = f"{self.name}-{self.random.getrandbits(48):x}"
        body = {**self.body(key), "n": self.random.choice([1, 1, 1, 3])}
        for _ in range(self.random.choice([1, 1, 2])):
            status, answer = self.call("POST", "/api/v1/images/generate", json=body, headers={"Idempotency-Key": key})
            if status != 202:
                continue
            ids = {row["id"] for row in answer["data"]["records"]}
            earlier = {number for number, one in self.promised.items() if one == key}
            if len(ids) != body["n"] or earlier not in (set(), ids):
                self.doubled.append(f"{key}: {earlier} then {ids}")
            self.promised |= dict.fromkeys(ids, key)

    def test(self) -> None:
        """Draw at once; there is no key, so a lost answer leaves an image nobody was promised."""
        body = self.body("test")
        params = {name: body[name] for name in ("width", "height", "steps")}
        status, answer = self.call("POST", "/api/v1/images/generate-test", json={**body, "params": params})
        if status == 200:
            self.promised[answer["data"]["id"]] = "test"

    def some(self) -> list[int]:
        recent = [number for number in list(self.promised)[-8:] if number not in self.deleted]
        return self.random.sample(recent, min(len(recent), self.random.choice([1, 1, 3])))

    def cancel(self) -> None:
        for number in self.some():
            self.canceled.add(number)
            self.call("POST", f"/api/v1/images/{number}/cancel")

    def delete(self) -> None:
        if numbers := self.some():
            self.deleted.update(numbers)
            self.call("POST", "/api/v1/images/delete", json={"ids": numbers})

    def look(self) -> None:
        self.call("GET", "/api/v1/images/history")


# -- What must be true --------------------------------------------------------------------------


class Watch(threading.Thread):
    """Samples how long a generation stays in processing under one claim, and settles counts now and then."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen: dict[tuple, float] = {}
        self.longest = (0.0, None)

    def run(self) -> None:
        while not over.wait(1):
            try:
                found = db.rows("SELECT id, claim FROM image_generations WHERE status = 'processing'")
                if random.random() < 0.1:
                    db.settle_generations(random.choice(db.list_users())["id"])
            except (db.Unavailable, IndexError):
                continue
            now = time.monotonic()
            self.seen = {(row["id"], row["claim"]): self.seen.get((row["id"], row["claim"]), now) for row in found}
            for key, since in self.seen.items():
                self.longest = max(self.longest, (now - since, key[0]))


def wait_for_quiet() -> float:
    started = time.monotonic()
    while time.monotonic() - started < QUIET_SECONDS:
        time.sleep(1)
        try:
            busy = db.value("SELECT COUNT(*) FROM image_generations WHERE status IN ('pending', 'processing')")
            if not busy and not db.value("SELECT COUNT(*) FROM doomed_files"):
                break
        except db.Unavailable:
            pass
    return time.monotonic() - started


def findings(users: list[User], watch: Watch, uploads: Path) -> Iterator[tuple[str, list]]:
    """Yield each invariant with what breaks it."""
    rows = {row["id"]: row for row in db.rows("SELECT * FROM image_generations")}
    gone = {row["id"]: row for row in db.rows("SELECT * FROM chaos_gone")}
    promised = {number: user for user in users for number in user.promised}
    canceled = {number for user in users for number in user.canceled}
    deleted = {number for user in users for number in user.deleted}
    completed = [row for row in rows.values() if row["status"] == "completed"]
    say("rows:", dict(Counter(f"{row['status']} {row['error_code'] or ''}".strip() for row in rows.values())),
        "gone:", dict(Counter(row["status"] for row in gone.values())),
        "attempts:", dict(Counter(row["attempt"] for row in completed)))  # fmt: skip

    yield "every promised job exists, or we deleted it", [n for n in promised if n not in rows and n not in deleted]
    ended = ("completed", "failed", "canceled")
    yield "every job has ended", [row for row in rows.values() if row["status"] not in ended]
    wrong = [
        row for row in rows.values() if row["status"] == "failed" and not (row["error_code"] and row["error_message"])
    ]
    yield "a failed one says why", wrong
    yield (
        "only what we canceled is canceled",
        [n for n, row in rows.items() if row["status"] == "canceled" and n not in canceled],
    )
    yield "only what we deleted is gone", [number for number in gone if number not in deleted]
    yield "one key made one set", [text for user in users for text in user.doubled]
    nobodys = [
        row for n, row in {**gone, **rows}.items() if n not in promised and "test" not in row.get("prompt_text", "")
    ]
    yield "nothing was made that nobody was promised", nobodys
    yield (
        f"nothing stays in processing for {STUCK_SECONDS} s",
        [watch.longest] if watch.longest[0] > STUCK_SECONDS else [],
    )

    owned = {key: row for row in completed for key in db.file_keys(row)}
    there = {str(path.relative_to(uploads)) for path in uploads.rglob("*") if path.is_file()}
    yield "a completed one has two files", [row for row in completed if len(db.file_keys(row)) != 2]
    yield "no file is missing", sorted(set(owned) - there)
    yield "no file is without its row", sorted(there - set(owned))
    yield (
        "every file is a whole picture",
        [key for key in set(owned) & there if not is_whole(uploads / key, owned[key])],
    )
    yield "no file is doomed", db.rows("SELECT * FROM doomed_files")
    yield from account_findings(list(rows.values()), list(gone.values()))


def account_findings(rows: list[dict], gone: list[dict]) -> Iterator[tuple[str, list]]:
    quotas, counts, totals = [], [], []
    for user in db.rows("SELECT id, quota_day, quota_used, settled_id, settled_count FROM users"):
        own = [row for row in rows if row["user_id"] == user["id"]]
        lost = [row for row in gone if row["user_id"] == user["id"]]
        used = sum(row["status"] == "completed" and row["quota_day"] == user["quota_day"] for row in own + lost)
        settled = sum(row["id"] <= user["settled_id"] for row in own)
        _, total = db.list_generations(db.get_user(user["id"]), 1)
        quotas += [(user["id"], user["quota_used"], used)] * (user["quota_used"] != used)
        counts += [(user["id"], user["settled_count"], settled)] * (user["settled_count"] != settled)
        totals += [(user["id"], total, len(own))] * (total != len(own))
    yield "the quota is what was completed", quotas
    yield "the settled count is the real one", counts
    yield "the history's total is the real one", totals


def is_whole(path: Path, row: dict) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return path.suffix == ".webp" or image.size == (row["width"], row["height"])


# -- The run ------------------------------------------------------------------------------------


def run(options: argparse.Namespace, folder: Path, database: MariaDB | None) -> bool:
    mysql = {}
    if database:
        database.run("CREATE DATABASE chaos CHARACTER SET utf8mb4")
        mysql = database.settings("chaos")
    environ = clean_environment(
        DATA_DIR=str(folder), PORT=str(free_port()), WEB_WORKERS="2", JOB_WORKERS=str(options.workers),
        DAILY_IMAGES="1000000", PASSWORD_HASH="pbkdf2:sha256:1000", WORKER_GRACE_SECONDS="3", **mysql,
    )  # fmt: skip
    config.load(environ)
    migrations.upgrade()
    db.execute(GONE)
    db.execute(TRIGGER.format(begin="", end="") if database else TRIGGER.format(begin="BEGIN", end="; END"))

    random.seed(options.seed)
    service, watch, counts = Service(folder, environ, database), Watch(), Counter()
    users = [User(number, f"http://127.0.0.1:{environ['PORT']}", options.seed) for number in range(options.users)]
    killer = threading.Thread(target=trouble, args=(service, counts), daemon=True)
    for thread in (watch, *users):
        thread.start()
    time.sleep(3)
    killer.start()
    look_after_until(service, time.monotonic() + options.seconds, lambda: False)
    calm.set()
    say("calm", dict(counts), "exits of serve.py:", dict(service.exits))
    look_after_until(service, time.monotonic() + QUIET_SECONDS, lambda: not any(user.is_alive() for user in users))
    look_after_until(service, time.monotonic() + FREEZE_SECONDS, lambda: not service.frozen)
    say(f"quiet after {wait_for_quiet():.0f} s; the longest in processing: {watch.longest}")
    say("answers:", dict(sum((user.statuses for user in users), Counter())))
    over.set()
    ok = report(findings(users, watch, folder / "uploads"))
    service.process.terminate()
    service.process.wait(60)
    return ok


def look_after_until(service: Service, end: float, is_enough) -> None:
    while time.monotonic() < end and not is_enough():
        service.look_after()
        time.sleep(0.2)


def report(found: Iterator[tuple[str, list]]) -> bool:
    ok = True
    for name, broken in found:
        print(f"{'FAIL' if broken else 'PASS'}  {name}", *(f"\n      {str(one)[:700]}" for one in broken[:5]))
        ok = ok and not broken
    return ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--engine", choices=["mariadb", "sqlite"], default="sqlite")
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    # What was committed must survive the death of the server, as it does with its own default.
    durable = ("--innodb-flush-log-at-trx-commit=1", f"--tmpdir={folder}")
    database = MariaDB(folder / "mariadb", *durable) if options.engine == "mariadb" else None
    print(json.dumps({**vars(options), "folder": str(folder)}))
    try:
        ok = run(options, folder, database)
    finally:
        if database:
            database.kill()
    sys.exit(0 if ok else f"The folder with log and database is kept: {folder}")


if __name__ == "__main__":
    main()
