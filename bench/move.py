"""Move images from the disk into a bucket and back while users look, draw and delete: README.md.

    .venv/bin/python bench/move.py [--images 10000] [--users 3]

On SQLite, two web servers with one DATA_DIR, and an S3 store. Between the steps of
docs/storage.md each server is started anew with the next settings, one after the other. The exit
status is 1 if an image cannot be seen, is another one, or is left without its row.
"""

import argparse
import hashlib
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import requests

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config
import db
import migrations
from images import storage_check
from tests.servers import ROOT, ObjectStore, Service, clean_environment

IMAGE_BYTES, THUMBNAIL_BYTES = 20_000, 4_000
PNG = b"\x89PNG\r\n\x1a\n"
# The command, whose wait for those who have a link to a bucket is shortened: ours follow at once.
MOVE = """
import sys
from commands import storage
storage.BUCKET_GRACE_SECONDS = 15
from flask.cli import main
sys.argv = ["flask", "storage", "move", "--to", sys.argv[1]]
main()
"""
SERVERS = 2


class Image(NamedTuple):
    url: str
    sha256: str


class Site:
    """The web servers of one machine, and what their users saw."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: str):
        self.folder, self.stack = folder, stack
        self.settings = settings
        self.servers: list[Service] = []
        self.token = ""
        self.images: dict[int, Image] = {}
        self.deleted: set[int] = set()
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        self.is_over = threading.Event()
        self.lock = threading.Lock()

    def start(self) -> None:
        server = Service(self.folder, **self.settings).start()
        self.stack.callback(server.stop)
        self.servers.append(server)

    def set(self, **settings: str) -> None:
        """Start each server anew with other settings, one after the other."""
        self.settings |= settings
        for _ in range(SERVERS):
            old = self.servers.pop(0)
            time.sleep(1)  # what it was asked before is answered
            old.stop()
            self.start()

    def ask(self, method: str, path: str, **options) -> requests.Response:
        """Ask a server; its link to a bucket is followed."""
        url = random.choice(self.servers).url + path
        headers = {"Authorization": f"Bearer {self.token}"}
        response = requests.request(method, url, headers=headers, timeout=60, **options)
        with self.lock:
            self.seen[f"{method} {response.status_code}"] += 1
            self.slowest = max(self.slowest, response.elapsed.total_seconds())
        return response

    def log_in(self) -> int:
        form = {"username": "mover", "email": "mover@example.com", "password": "secret1"}
        self.ask("POST", "/api/auth/register", data=form)
        answer = self.ask("POST", "/api/auth/login", json=form).json()
        self.token = answer["data"]["token"]
        return db.value("SELECT id FROM users WHERE username = 'mover'")

    def fill(self, user_id: int, images: int) -> None:
        folder = f"generated_images/{user_id}"
        (self.folder / "uploads" / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(images):
            name = secrets.token_hex(16)
            keys = [f"{folder}/{name}.png", f"{folder}/{name}_thumbnail.webp"]
            image, thumbnail = (
                PNG + secrets.token_bytes(n) for n in (IMAGE_BYTES, THUMBNAIL_BYTES)
            )
            for key, data in zip(keys, (image, thumbnail), strict=True):
                (self.folder / "uploads" / key).write_bytes(data)
            url, thumbnail_url = (f"/api/uploads/{key}" for key in keys)
            number = db.insert(
                "image_generations",
                user_id=user_id,
                prompt_text="a fox",
                generation_params_json="{}",
                status="completed",
                model="test_model",
                image_filename=f"{name}.png",
                image_url=url,
                thumbnail_url=thumbnail_url,
                file_bytes=len(image) + len(thumbnail),
            )
            self.images[number] = Image(url, hashlib.sha256(image).hexdigest())
        db.execute("UPDATE users SET image_count = %s", images)

    # -- Users ------------------------------------------------------------------------------------

    def use(self) -> None:
        while not self.is_over.wait(0.05):
            action = random.choices([self.look, self.draw, self.delete], [95, 2, 3])[0]
            try:
                action()
            except requests.RequestException as error:
                self.wrong.append(f"{type(error).__name__}: {error}")

    def pick(self) -> int:
        with self.lock:
            return random.choice(list(self.images.keys() - self.deleted))

    def look(self) -> None:
        number = self.pick()
        response = self.ask("GET", self.images[number].url)
        is_right = hashlib.sha256(response.content).hexdigest() == self.images[number].sha256
        if not is_right and number not in self.deleted:
            self.wrong.append(f"image {number}: {response.status_code} {response.text[:200]}")

    def draw(self) -> None:
        body = {"prompt": "a fox", "params": {"width": 64, "height": 64, "steps": 1}}
        answer = self.ask("POST", "/api/v1/images/generate-test", json=body).json()
        number, url = answer["data"]["id"], answer["data"]["imageUrl"]
        image = self.ask("GET", url)
        with self.lock:
            self.images[number] = Image(url, hashlib.sha256(image.content).hexdigest())
        if not image.ok:
            self.wrong.append(f"new image {number}: {image.text[:200]}")

    def delete(self) -> None:
        number = self.pick()
        self.deleted.add(number)
        self.ask("DELETE", f"/api/v1/images/{number}")


def move(site: Site, target: str) -> None:
    started = time.monotonic()
    environ = clean_environment(DATA_DIR=str(site.folder), **site.settings)
    command = [sys.executable, "-c", MOVE, target]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    *_, counts, last = [line for line in done.stdout.splitlines() if line] or ["", ""]
    print(f"{time.monotonic() - started:5.0f} s: {counts}. {last}{done.stderr[-2000:]}", flush=True)
    print(f"        users: {dict(site.seen)}, the slowest {site.slowest:.2f} s", flush=True)
    site.seen, site.slowest = Counter(), 0.0
    if done.returncode:
        site.wrong.append(f"status {done.returncode}: {done.stdout[-1000:]}")


def run(options: argparse.Namespace, folder: Path, stack: ExitStack) -> list[str]:
    store = ObjectStore(folder / "store")
    stack.callback(store.kill)
    bucket = store.url("moved")
    limits = {"DAILY_IMAGES": "1000000", "SUBMITS_PER_MINUTE": "1000000", "TRASH_DAYS": "0"}
    site = Site(folder / "site", stack, STORAGE_OTHER=bucket, **store.KEYS, **limits)
    (folder / "site").mkdir()
    config.load(clean_environment(DATA_DIR=str(site.folder), **site.settings))
    migrations.upgrade()
    for _ in range(SERVERS):
        site.start()
    site.fill(site.log_in(), options.images)
    users = [threading.Thread(target=site.use) for _ in range(options.users)]
    try:
        for user in users:
            user.start()
        for there, back in ((bucket, "disk"), ("disk", bucket)):
            move(site, there)
            site.set(STORAGE_URL=there, STORAGE_OTHER=back)
            move(site, there)
    finally:
        site.is_over.set()
        for user in users:
            user.join()
    return site.wrong + left_over(site)


def left_over(site: Site) -> list[str]:
    """Return what is wrong with files and rows in the end, and what the bucket still has."""
    config.load(clean_environment(DATA_DIR=str(site.folder), **site.settings))
    storage_check.FRESH_SECONDS = 0
    wrong = [f"{found.kind}: {found.where}" for found in storage_check.findings()]
    rows = db.value("SELECT COUNT(*) FROM image_generations WHERE status = 'completed'")
    kept = len(site.images.keys() - site.deleted)
    if rows != kept:
        wrong.append(f"{kept} images should be there, and {rows} are")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=3)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="move-", dir=memory if memory.is_dir() else None))
    with ExitStack() as stack:
        wrong = run(options, folder, stack)
    print(f"{len(wrong)} things are wrong", *wrong[:10], sep="\n")
    if not wrong:
        shutil.rmtree(folder)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
