"""./start.sh as its user meets it: from any folder, a path with spaces, a taken port, a signal."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import requests

from tests.conftest import form
from tests.pictures import picture
from tests.servers import ROOT, clean_environment, free_port, wait_until


@pytest.fixture
def copy(tmp_path):
    """A copy of the program in a path with a space, with the environment already installed."""
    folder = tmp_path / "a folder"
    shutil.copytree(
        ROOT,
        folder,
        ignore=shutil.ignore_patterns(
            ".git", ".venv", "instance", "uploads", ".env", "__pycache__", "tests"
        ),
    )
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    version = subprocess.run(["python3", "-V"], capture_output=True, text=True).stdout
    (folder / ".venv" / "requirements.stamp").write_text(
        version + (ROOT / "requirements.lock").read_text()
    )
    # A virtual environment is recognised by this file beside its bin/.
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder / ".venv" / "pyvenv.cfg")
    (folder / ".venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    return folder


def start(folder: Path, **settings: str) -> subprocess.Popen:
    environment = clean_environment(**settings)
    return subprocess.Popen(
        [folder / "start.sh"],
        cwd="/",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/api/health", timeout=2).ok
    except requests.RequestException:
        return False


def test_start_serves_from_any_folder_and_ends_on_sigterm(copy):
    port = free_port()
    process = start(copy, PORT=str(port))
    wait_until(lambda: answers(port))

    avatar = {"avatar": ("a.png", picture(), "image/png")}
    requests.post(f"http://127.0.0.1:{port}/api/auth/register", data=form("alice"), files=avatar)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=40)

    written = [copy / "instance" / "app.db", *(copy / "uploads").rglob("*")]
    assert len(written) >= 3
    for path in written:  # for the user and its group, not for others
        assert path.stat().st_mode & 0o047 == 0o040, path
    assert process.returncode == 0
    assert f"Ready: http://localhost:{port}" in output
    assert (copy / "instance" / "app.db").exists()
    assert not answers(port)


def test_settings_are_read_from_the_env_file(copy):
    port = free_port()
    (copy / ".env").write_text(f"PORT={port}\n")
    environment = {
        name: text for name, text in os.environ.items() if name not in ("PORT", "DATA_DIR")
    }
    process = subprocess.Popen(
        [copy / "start.sh"], env=environment, stdout=subprocess.PIPE, text=True
    )

    wait_until(lambda: answers(port))

    process.terminate()
    process.communicate(timeout=40)


def test_nothing_outside_the_folder_is_run(copy, tmp_path):
    port = free_port()
    evil = f"open({str(tmp_path / 'ran')!r}, 'w')"
    (tmp_path / ".flaskenv").write_text("FLASK_APP=../evil.py\n")
    (tmp_path / ".env").write_text("FLASK_APP=../evil.py\nWEB_THREADS=wrong\n")
    for path in ("evil.py", "lib/flask.py", "lib/sitecustomize.py", "cd/a folder/app.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(evil)
    around = {"PYTHONPATH": str(tmp_path / "lib"), "CDPATH": str(tmp_path / "cd")}
    names = ("DATA_DIR", "WEB_THREADS")
    environment = {name: text for name, text in os.environ.items() if name not in names}
    process = subprocess.Popen(
        ["sh", "a folder/start.sh"],
        cwd=tmp_path,
        env={**environment, **around, "FLASK_APP": "../evil.py", "PORT": str(port)},
    )

    wait_until(lambda: answers(port))

    process.terminate()
    process.wait(40)
    assert not (tmp_path / "ran").exists()
    assert (copy / "instance" / "app.db").exists()


def test_a_taken_port_is_said_plainly(copy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(copy, PORT=str(taken.getsockname()[1]))
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Address already in use" in output and "Choose another PORT" in output
    assert "Traceback" not in output


def test_a_wrong_setting_stops_the_start_with_one_line(copy):
    process = start(copy, FLASK_ENV="production")
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert output.startswith("MYSQL_HOST: ") and output.count("\n") == 1


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_an_env_file_in_another_encoding_stops_the_start_with_one_line(copy, encoding):
    (copy / ".env").write_bytes("# 端口\nPORT=1900\n".encode(encoding))

    process = start(copy)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert output == ".env: is not UTF-8; save it again in that encoding\n"


def test_too_old_a_python_is_said_plainly(copy, tmp_path):
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.1" && exit 0\nexit 1\n')
    fake.chmod(0o755)

    ended = subprocess.run(
        [copy / "start.sh"],
        env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1
    assert "Python 3.11 or newer is needed" in ended.stderr and "3.8.1" in ended.stderr


def test_a_missing_venv_module_is_said_plainly(copy, tmp_path):
    (copy / ".venv" / "requirements.stamp").unlink()
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\n[ "$1" = -m ] && exit 1\nexit 0\n')
    fake.chmod(0o755)

    ended = subprocess.run(
        [copy / "start.sh"],
        env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 1 and "apt install python3-venv" in ended.stderr


def test_a_package_that_is_not_the_locked_one_stops_the_start(copy, tmp_path):
    (copy / ".venv" / "requirements.stamp").unlink()
    (copy / "requirements.lock").write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\n")
    mirror = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}

    output, _ = start(copy, **mirror).communicate(timeout=60)

    assert "A mirror must have the same files as PyPI." in output
    assert not (copy / ".venv" / "requirements.stamp").exists()
