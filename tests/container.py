"""Use a built image as people do: `python -m tests.container ROOT IMAGE.json FOLDER`.

By namespaces alone it runs as by `docker run --read-only --tmpfs /tmp --volume FOLDER/data:/data`:
as process 1, and as the image's user. tests/container.sh builds the image and calls this.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from tests.servers import free_port, wait_until
from tests.test_readme import blocks, check_answers

# Arguments: root folder, folder of data, user, then what `env` takes.
RUN = """
root=$0 data=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$data" "$root/data"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
shift
set -- env --ignore-environment --chdir=/app "$@"
exec chroot --userspec="$user" --groups="${user#*:}" "$root" "$@"
"""
LEFT_OUT = [".git", ".env", "tests", "docs", "instance", "uploads"]
TOOLS = ["cc", "gcc", "make", "pip", "pip3", "curl"]
# The whole suite of tests may keep the machine busy.
START_SECONDS = 120
# Of compose.yaml.
GRACE_SECONDS = 50


class Container:
    """The image's root file system with one process in it, and all that this starts."""

    def __init__(self, root: Path, config: dict[str, Any], data: Path, port: int):
        self.root, self.config, self.data = root, config, data
        self.user = config["User"]
        # The usual hashes would take too long on a busy machine.
        self.environment = [*config["Env"], f"PORT={port}", "PASSWORD_HASH=pbkdf2:sha256:1000"]
        self.url = f"http://127.0.0.1:{port}"
        self.log = data.with_name("container.log")

    def start(self, *words: str) -> None:
        inside = [*self.environment, *self.config["Entrypoint"], *words]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command = [*namespaces, "sh", "-euc", RUN, self.root, self.data, self.user, *inside]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.is_healthy, START_SECONDS, "the container")

    def first_process(self) -> int:
        """Return the id, on this machine, of what is process 1 in the container."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def execute(self, *command: str, **options: Any) -> subprocess.CompletedProcess:
        """Run a command in the running container, as `docker exec` does."""
        user_id, group_id = self.user.split(":")
        enter = ["nsenter", f"--target={self.first_process()}", "--mount", "--pid", "--root"]
        enter += [f"--setuid={user_id}", f"--setgid={group_id}"]
        within = ["env", "--ignore-environment", "--chdir=/app", *self.environment]
        return subprocess.run(
            [*enter, *within, *command], capture_output=True, text=True, timeout=60, **options
        )

    def is_healthy(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"the container ended:\n{self.log.read_text()}")
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        try:
            return self.execute(*command).returncode == 0
        except (IndexError, FileNotFoundError):  # it is not there yet
            return False

    def stop(self) -> None:
        """Stop it as `docker stop` does."""
        started = time.monotonic()
        os.kill(self.first_process(), signal.Signals[self.config["StopSignal"]])
        status = self.process.wait(GRACE_SECONDS)
        print(f"stopped in {time.monotonic() - started:.1f} s")
        assert status == 0, self.log.read_text()


def check_image(root: Path, config: dict[str, Any]) -> None:
    """Check what is in the image: the program, which nobody but root changes, and no tools."""
    assert config["User"] == "10001:10001" and list(config["Volumes"]) == ["/data"]
    for name in LEFT_OUT:
        assert not (root / "app" / name).exists(), f"{name} is in the image"
    for folder in ("app/.venv/bin", "usr/local/bin", "usr/bin"):
        for name in TOOLS:
            assert not (root / folder / name).exists(), f"{folder}/{name} is in the image"
    for path in (root / "app").rglob("*"):
        found = path.lstat()
        assert found.st_uid == 0, path
        assert path.is_symlink() or not found.st_mode & 0o022, path


def check_first_start(container: Container, folder: Path) -> str:
    """Run the walk of the README against the web server alone, and return a token."""
    container.start("web")
    log = container.log.read_text()
    assert f"Ready: http://localhost:{container.url.rpartition(':')[2]}/" in log, log
    denied = container.execute("sh", "-c", "touch /app/x; touch /etc/x; id -u")
    assert denied.stderr.count("Read-only") == 2 and denied.stdout.startswith("10001\n")
    check_answers(blocks("README.md")[0], container, folder, dict(os.environ))
    create = ("flask", "user", "create", "operator", "operator@example.com")
    made = container.execute(*create, input="secret1\n" * 2)
    assert made.returncode == 0, made.stdout + made.stderr
    return log_in(container.url, "operator")


def log_in(url: str, name: str) -> str:
    body = {"username": name, "password": "secret1"}
    answer = requests.post(f"{url}/api/auth/login", json=body, timeout=30)
    return answer.json()["data"]["token"]


def check_second_start(container: Container, token: str) -> None:
    """Start all of it on the same data: who was logged in still is, and what waited is made."""
    container.start()
    headers = {"Authorization": f"Bearer {token}"}
    profile = requests.get(f"{container.url}/api/auth/profile", headers=headers, timeout=30)
    assert profile.json()["data"]["username"] == "operator"
    headers = {"Authorization": f"Bearer {log_in(container.url, 'alice')}"}

    def is_made() -> bool:
        answer = requests.get(f"{container.url}/api/v1/images/2", headers=headers, timeout=30)
        return answer.json()["data"]["status"] == "completed"

    wait_until(is_made, 60, "the image that waited")


def main() -> None:
    root, image, folder = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    config = json.loads(image.read_text())["Docker"]["config"]
    check_image(root, config)
    data = folder / "data"
    data.mkdir(mode=0o750)
    os.chown(data, *map(int, config["User"].split(":")))
    container = Container(root, config, data, free_port())
    try:
        token = check_first_start(container, folder)
        container.stop()
        check_second_start(container, token)
        container.stop()
    finally:
        container.process.kill()
    kept = {path.relative_to(data).as_posix() for path in data.rglob("*")}
    assert {"instance/app.db", "instance/secret_key", "uploads/generated_images"} <= kept, kept


if __name__ == "__main__":
    main()
