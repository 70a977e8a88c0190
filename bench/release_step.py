"""Whether machines of an older release and of this one serve together, as in an upgrade: README.md.

    .venv/bin/python bench/release_step.py OLD_COMMIT [--seconds 20] [--users 8]

On one MariaDB: the old release alone; its database brought up to date while it serves; both
releases, whose machines take turns in answering one and the same user; this release alone. The
exit status is 1 if an image is lost or made twice, or a request fails.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import requests
from compare import checkout, git
from servers import ROOT, gunicorn, mariadb, running, upgrade

SMALL = {"width": 64, "height": 64, "steps": 1}
# So long after the last image was made, no more are expected.
STUCK_SECONDS = 90
# What a client may have to repeat while a table is changed.
PASSING = (429, 503)


# Users wait for workers, not for limits.
SETTINGS = {
    "SUBMITS_PER_MINUTE": "1000000",
    "DAILY_IMAGES": "1000000",
    "MAX_ACTIVE_JOBS": "1000",
    "MAX_QUEUE": "100000",
}


class Failed(Exception):
    """A request was answered with an error that no user caused."""


class Fleet:
    """The web servers that users may ask now, and what came of their requests."""

    def __init__(self):
        self.ports: list[int] = []
        self.lock = threading.Lock()
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self.slowest = 0.0
        self.is_over = threading.Event()

    def note(self, response: requests.Response) -> None:
        with self.lock:
            self.statuses[response.status_code] += 1
            self.slowest = max(self.slowest, response.elapsed.total_seconds())
            if response.status_code >= 400 and response.status_code not in PASSING:
                self.failures.append(f"{response.request.path_url}: {response.text[:200]}")


class User(threading.Thread):
    """Submits, looks, fetches and deletes, at any of the servers; `wanted` are the images."""

    def __init__(self, fleet: Fleet, name: str):
        super().__init__(daemon=True)
        self.fleet, self.name = fleet, name
        self.headers: dict[str, str] = {}
        self.wanted: set[int] = set()
        self.deleted: set[int] = set()

    def call(self, method: str, path: str, **options) -> requests.Response:
        """Ask a server, and as long as it says so, ask again. Raises Failed."""
        while True:
            url = f"http://127.0.0.1:{random.choice(self.fleet.ports)}{path}"
            response = requests.request(method, url, headers=self.headers, timeout=60, **options)
            self.fleet.note(response)
            if response.status_code < 400:
                return response
            if response.status_code not in PASSING:
                raise Failed
            time.sleep(0.5)

    def run(self) -> None:
        account = {"username": self.name, "password": "secret1"}
        email = f"{self.name}@example.com"
        self.call("POST", "/api/auth/register", data={**account, "email": email})
        while not self.fleet.is_over.is_set():
            answer = self.call("POST", "/api/auth/login", json=account)
            self.headers = {"Authorization": f"Bearer {answer.json()['data']['token']}"}
            with suppress(Failed):
                for _ in range(5):
                    self.use()

    def use(self) -> None:
        body = {"prompt": "a fox", "n": 2, **SMALL}
        submitted = self.call("POST", "/api/v1/images/generate", json=body)
        self.wanted |= {record["id"] for record in submitted.json()["data"]["records"]}
        self.call("GET", "/api/auth/profile")
        page = self.call("GET", "/api/v1/images/history?per_page=50").json()["data"]["records"]
        made = [record for record in page if record["imageUrl"]]
        if made:
            record = random.choice(made)
            self.call("GET", record["imageUrl"])
            if random.random() < 0.3:
                self.call("DELETE", f"/api/v1/images/{record['id']}")
                self.deleted.add(record["id"])
        time.sleep(0.2)

    def left(self) -> list[int]:
        """Return the images that are neither made nor deleted."""
        unfinished = []
        wanted = sorted(self.wanted - self.deleted)
        for start in range(0, len(wanted), 50):
            ids = ",".join(map(str, wanted[start : start + 50]))
            records = self.call("GET", f"/api/v1/images?ids={ids}").json()["data"]["records"]
            made = {record["id"] for record in records if record["status"] == "completed"}
            unfinished += [each for each in wanted[start : start + 50] if each not in made]
        return unfinished

    def surplus(self) -> int:
        """Return how many images there are that nobody asked for."""
        page = self.call("GET", "/api/v1/images/history").json()["data"]["pagination"]
        return page["total"] - len(self.wanted - self.deleted)


@contextmanager
def machine(tree: Path, environ: dict[str, str], fleet: Fleet) -> Iterator[None]:
    """Run web server and worker of a tree; users ask it until the end."""
    log = Path(environ["DATA_DIR"]) / f"worker-{tree.name}.log"
    worker = [sys.executable, "worker.py"]
    with gunicorn(environ, tree=tree) as server, running(worker, log, env=environ, cwd=tree):
        fleet.ports.append(server.port)
        try:
            yield
        finally:
            fleet.ports.remove(server.port)
            time.sleep(2)  # what was asked before is answered


def main() -> None:
    options = arguments()
    fleet = Fleet()
    users = [User(fleet, f"user{number}") for number in range(options.users)]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with checkout(options.commit, folder / "old") as old, mariadb(folder) as environ:
            environ = {**environ, **SETTINGS}
            upgrade(environ, old)
            with ExitStack() as of_old:
                of_old.enter_context(machine(old, environ, fleet))
                step(fleet, users, "the old release alone", options.seconds)
                started = time.monotonic()
                upgrade(environ)
                print(f"its database upgraded in {time.monotonic() - started:.1f} s", flush=True)
                step(fleet, users, "the old release on the new tables", options.seconds)
                with machine(ROOT, environ, fleet):
                    step(fleet, users, "both", options.seconds)
                    of_old.close()
                    step(fleet, users, "this release alone", options.seconds)
                    is_good = end(fleet, users)
    sys.exit(0 if is_good else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("commit", metavar="OLD_COMMIT")
    parser.add_argument("--seconds", type=int, default=20, help="of each step")
    parser.add_argument("--users", type=int, default=8)
    options = parser.parse_args()
    if git("rev-parse", "--verify", "--quiet", f"{options.commit}^{{commit}}"):
        sys.exit(f"There is no commit {options.commit}.")
    return options


def step(fleet: Fleet, users: list[User], name: str, seconds: int) -> None:
    """Let users work for some seconds, and say what came of it."""
    fleet.statuses, fleet.slowest = Counter(), 0.0
    for user in users:
        if not user.ident:
            user.start()
    time.sleep(seconds)
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(fleet.statuses.items()))
    print(f"{name}: {counts}; the slowest took {fleet.slowest:.1f} s", flush=True)


def end(fleet: Fleet, users: list[User]) -> bool:
    """Wait for what was submitted, and tell if all of it is there, once."""
    fleet.is_over.set()
    for user in users:
        user.join()
    least, deadline = 10**9, 0.0
    while left := sum(len(user.left()) for user in users):
        if left < least:
            least, deadline = left, time.monotonic() + STUCK_SECONDS
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    surplus = sum(user.surplus() for user in users)
    wanted = sum(len(user.wanted) for user in users)
    print(f"{wanted} images: {left} not made, {surplus} too many")
    print(f"{len(fleet.failures)} requests failed", *fleet.failures[:10], sep="\n")
    return not left and not surplus and not fleet.failures


if __name__ == "__main__":
    main()
