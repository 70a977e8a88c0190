"""Renew the pictures of the page that the READMEs show: `.venv/bin/python -m tests.screenshots`."""

import json
import tempfile
from pathlib import Path

import requests
from PIL import Image

from tests.browser import command, run
from tests.servers import ROOT, Service, Worker, clean_environment, wait_until

NAMES = ("create", "gallery", "phone")
MOST_BYTES = 60_000
WIDTH = 1280
# Square, wide and tall, as people mix them.
PICTURES = [
    ("red desert dunes under a full moon", 768, 512, 3),
    ("a city at night, reflected in the river", 768, 512, 5),
    ("a flower meadow in spring", 512, 512, 8),
    ("misty forest, morning sun", 512, 768, 2),
    ("a village under the milky way", 512, 512, 6),
    ("winter lake, pine trees, snow", 768, 512, 11),
    ("a sailing boat at sunset, calm sea", 768, 512, 12),
    ("cherry trees by the lake, spring", 512, 768, 4),
    ("rolling hills, thunderstorm", 768, 512, 7),
    ("aurora over snowy mountains, pine forest, lake", 768, 512, 4),
]


def draw(url: str) -> str:
    """Open an account with pictures, and return its token."""
    account = {"username": "alice", "email": "alice@example.com", "password": "secret1"}
    requests.post(f"{url}/api/auth/register", data=account).raise_for_status()
    token = requests.post(f"{url}/api/auth/login", json=account).json()["data"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    for prompt, width, height, seed in PICTURES:
        body = {"prompt": prompt, "width": width, "height": height, "seed": seed}
        requests.post(
            f"{url}/api/v1/images/generate", json=body, headers=headers
        ).raise_for_status()
    history = {"url": f"{url}/api/v1/images/history?status=completed", "headers": headers}
    wait_until(
        lambda: requests.get(**history).json()["data"]["pagination"]["total"] == len(PICTURES),
        120,
        "all pictures",
    )
    return token


def save(source: Path, target: Path) -> None:
    """Make the screenshot as good as its size allows."""
    with Image.open(source) as picture:
        picture.thumbnail((WIDTH, WIDTH))
        for quality in range(90, 20, -5):
            picture.convert("RGB").save(target, "WEBP", quality=quality, method=6)
            if target.stat().st_size <= MOST_BYTES:
                return
    raise ValueError(f"{target.name} is too large")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = Service(folder / "data").start()
        environment = clean_environment(DATA_DIR=str(folder / "data"))
        worker = Worker(folder / "worker.log", environment, "worker.py")
        try:
            token = draw(service.url)
            said = json.loads(run(*command("screenshots.mjs", service.url, folder, token)))
            assert said["seen"].get("end") == "reached", said
        finally:
            worker.stop()
            service.stop()
        for one in NAMES:
            save(folder / f"{one}.png", ROOT / "docs" / f"page-{one}.webp")


if __name__ == "__main__":
    main()
