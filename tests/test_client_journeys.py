"""Journeys in the reference client: by keys alone, through failures, in a large collection."""

import io
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import requests
from PIL import Image

import db
from files import storage
from tests.browser import NODE, check, command, run, use
from tests.conftest import Person
from tests.servers import ROOT

PICTURES = 3000
# Without a graphics card, Chromium 156 sometimes draws nothing any more, whatever the page.
TRIES = 5
SHAPES = [(64, 64), (96, 64), (64, 96), (80, 64)]


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_everything_is_done_by_keys_alone(live, start_worker, tmp_path):
    url = live().url
    start_worker("worker.py")

    seen = use("keyboard_page.mjs", url, tmp_path, "laptop", "en")

    assert seen == {
        "skips": True,
        "n": "2",
        "held": True,
        "givenBack": True,
        "saved": "png",
        "second": True,
        "field": "password",
        "end": "reached",
    }


# -- Failures -------------------------------------------------------------------------------------


def kill(service) -> None:
    """End the service and its processes at once, as a lost machine does."""
    parent = service.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    service.process.wait()
    service.log.close()


def converse(arguments: list[str], deeds: dict) -> dict:
    """Run a script that says which deed it wants, and return what it saw."""
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=NODE, **pipe) as process:
        for line in process.stdout:
            if line.startswith("{"):
                return json.loads(line)
            deeds[line.strip()]()
            process.stdin.write("done\n")
            process.stdin.flush()
    raise AssertionError("the script ended early")


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_nothing_is_lost_when_the_service_is_killed(live, start_worker, tmp_path):
    service = live()
    deeds = {
        "kill the service": lambda: kill(service),
        "start the service": service.start,
        "start a worker": lambda: start_worker("worker.py"),
    }

    arguments = command("failures_page.mjs", service.url, tmp_path, "laptop", "en")
    said = converse(arguments, deeds)

    assert check(said, tmp_path) == {
        "prompt": "a hen",
        "pictures": 2,
        "slow": True,
        "end": "reached",
    }


# -- A large collection ---------------------------------------------------------------------------


def thumbnail(shape: tuple[int, int], number: int) -> bytes:
    picture = Image.new("RGB", shape, ((number * 37) % 256, (number * 91) % 256, 140))
    data = io.BytesIO()
    picture.save(data, "WEBP")
    return data.getvalue()


def fill_collection(owner: Person) -> None:
    """Let somebody have made thousands of pictures, of many colours and shapes."""
    urls = []
    for number in range(40):
        key = storage.new_key(f"generated_images/{owner.id}", "webp")
        storage.put(key, thumbnail(SHAPES[number % len(SHAPES)], number))
        urls.append(storage.url(key))
    with db.transaction():
        for number in range(PICTURES):
            width, height = SHAPES[number % len(SHAPES)]
            url = urls[number % len(urls)]
            db.execute(
                """
                INSERT INTO image_generations
                       (user_id, prompt_text, status, image_url, thumbnail_url, width, height)
                VALUES (%s, %s, 'completed', %s, %s, %s, %s)
                """,
                owner.id,
                f"picture {number}",
                url,
                url,
                width * 8,
                height * 8,
            )


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("size", ["laptop", "wide"])
def test_thousands_of_pictures_scroll_smoothly(database, live, tmp_path, size):
    owner = Person("wanda")
    fill_collection(owner)

    url = live().url
    account = {"username": "wanda", "password": "secret1"}
    token = requests.post(f"{url}/api/auth/login", json=account).json()["data"]["token"]

    for _ in range(TRIES):
        said = json.loads(run(*command("many_page.mjs", url, tmp_path, size, "en", token)))
        if "no frame" not in said["seen"].get("error", ""):
            break

    seen = check(said, tmp_path)
    # `longest` is the time without a frame; it depends on the machine, these do not.
    assert seen["pictures"] == PICTURES, seen
    assert seen["shift"] == 0, str(seen)
    assert seen["tiles"] < 400, seen
    assert seen.get("moved", 0) <= 5, seen


# -- The documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_screenshots_of_the_readme_are_small(name):
    shown = re.findall(r"docs/page-\w+\.webp", (ROOT / name).read_text())

    assert len(shown) == 3
    for one in shown:
        assert (ROOT / one).stat().st_size <= 60_000


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["frontend.md", "frontend.zh-CN.md"])
def test_the_examples_for_front_ends_work(live, start_worker, tmp_path, name):
    url = live().url
    start_worker("worker.py")
    document = ROOT / "docs" / name

    seen = use("examples_page.mjs", url, tmp_path, document)

    assert seen == {
        "progress": 1,
        "made": ["completed", "completed"],
        "picture": True,
        "email": "alice@example.com",
        "code": "wrong_credentials",
        "ended": "token_missing",
        "login": 1,
        "waited": [503, 200],
        "end": "reached",
    }
