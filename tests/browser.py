"""What runs the scripts of tests/node, most of which use the pages in a real browser."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.servers import ROOT, find_program

NODE = ROOT / "tests" / "node"


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


def run(*command: str) -> str:
    """Run a program in tests/node and return what it printed."""
    result = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def command(script: str, *arguments: str | Path) -> list[str]:
    """Return what runs a script that opens Chromium, with all that it needs in place."""
    install(NODE)
    chromium = need("chromium", "chromium-browser", "google-chrome")
    return [need("node"), script, chromium, *map(str, arguments)]


def use(script: str, url: str, folder: Path, *arguments: str | Path) -> dict:
    """Let a script use the page at a URL, take screenshots, and say what it saw."""
    return check(json.loads(run(*command(script, url, folder, *arguments))), folder)


def check(said: dict, folder: Path) -> dict:
    """Return what a script saw, if it came to its end and nothing else was wrong."""
    where = f"screenshots in {folder}"
    assert "error" not in said["seen"], f"{where}: {said['seen']['error']}"
    assert (said["faults"], said["complaints"], said["strangers"]) == ([], [], []), where
    return said["seen"]
