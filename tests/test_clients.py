"""What people call the API with: a client made from its document, and the page that shows it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import requests

from tests.servers import ROOT, find_program, wait_until

NODE = ROOT / "tests" / "node"
TOOLS = NODE / "node_modules" / ".bin"


def leave_out(reason: str) -> None:
    """Skip the test; in CI, which must not leave it out, let it fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"{reason}: the tests of clients are left out")


def need(*names: str) -> str:
    """Return the path of a program that has one of these names."""
    paths = [path for path in map(find_program, names) if path]
    if not paths:
        leave_out(f"{names[0]} is not installed")
    return paths[0]


def run(*command: str) -> str:
    """Run a program in tests/node and return what it printed."""
    result = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def install(folder: Path) -> None:
    """Put the packages of a package-lock.json in place."""
    npm = need("npm")
    lock = (folder / "package-lock.json").read_bytes()
    stamp = folder / "node_modules" / "stamp"
    if not stamp.exists() or stamp.read_bytes() != lock:
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if result.returncode:
            leave_out(f"npm ci failed ({result.stderr.strip()})")
        stamp.write_bytes(lock)


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node, with the packages of tests/node/package-lock.json in place."""
    path = need("node")
    install(NODE)
    return path


def test_lock_file_names_no_host():
    assert "://" not in (NODE / "package-lock.json").read_text()


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_typescript_client_made_from_the_document_works(live, node):
    url = live().url
    run(f"{TOOLS}/openapi-typescript", f"{url}/api/openapi.json", "--output", "build/api.d.ts")
    run(f"{TOOLS}/tsc")

    result = json.loads(run(node, "build/client.js", url))

    fox, hen, refusal = result["submitted"]
    assert result["refusal"] == "wrong"
    assert (fox[0]["prompt"], hen[0]["status"], refusal) == ("a fox", "pending", "invalid_input")
    assert result["history"] == ["a hen", "a fox"]
    assert requests.get(url + result["avatar"]).headers["Content-Type"] == "image/png"


UNSERVED = """
[unserved]
label = "A model without a worker, so that its images wait"
engine = "painter"
width = { min = 64, max = 1024, default = 64 }
height = { min = 64, max = 1024, default = 64 }
"""


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_every_call_of_the_docs_page_works_at_the_first_click(
    live, start_worker, settings, node, tmp_path
):
    chromium = need("chromium", "chromium-browser", "google-chrome")
    settings.MODELS_FILE = tmp_path / "models.toml"
    settings.MODELS_FILE.write_text((ROOT / "models.toml").read_text() + UNSERVED)
    url = live(METRICS="on", MODELS_FILE=str(settings.MODELS_FILE)).url
    start_worker("worker.py", WORKER_MODELS="test_model")
    wait_until(lambda: requests.get(f"{url}/api/health/ready").ok, what="a worker")

    printed = run(node, "docs_page.mjs", chromium, url, str(tmp_path / "docs.png"))

    said = json.loads(printed)
    assert said["results"] == said["expected"]
    assert (said["complaints"], said["strangers"]) == ([], [])
