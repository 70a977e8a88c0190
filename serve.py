"""What ./start.sh runs: the supervisor of the web server and the workers.

It restarts each process that dies, and stops them all together. `serve.py web` and
`serve.py worker` run one kind alone.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import config

try:
    import ctypes
except (ImportError, MemoryError):
    # A hardened systemd unit may forbid it. systemd itself then ends what is left.
    ctypes = None

COMMANDS = {
    "web": ["-m", "gunicorn"],
    "worker": ["worker.py"],
}
POLL_SECONDS = 0.2
RESTART_SECONDS = 1
# A process that fails within this time after its first start has never worked: all is stopped.
FAILED_START_SECONDS = 3
# gunicorn gives its requests this long when it is stopped (graceful_timeout).
WEB_GRACE_SECONDS = 30
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to end this child if its parent is killed; does nothing on other systems."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One supervised process."""

    def __init__(self, kind: str):
        self.kind = kind
        self.has_worked = False
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.started = time.monotonic()
        self.starts += 1
        # In a session of its own it gets no Ctrl-C: only the supervisor does, and stops the others.
        self.process = subprocess.Popen(
            [sys.executable, *COMMANDS[self.kind]],
            preexec_fn=die_with_parent,
            start_new_session=True,
        )

    def look_after(self) -> None:
        """Restart the process if it has ended. Raises SystemExit if a restart would not help."""
        status = self.process.poll()
        if status is None:
            if time.monotonic() - self.started > FAILED_START_SECONDS:
                self.has_worked = True
            return
        if self.is_hopeless(status):
            raise SystemExit(1)  # it has said itself what is wrong
        message = f"{self.kind} process {self.process.pid} ended with {status}; starting another"
        with suppress(OSError):  # a full disk
            print(message, file=sys.stderr)
        # What a killed gunicorn leaves behind would keep the port.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        time.sleep(RESTART_SECONDS)
        self.start()

    def is_hopeless(self, status: int) -> bool:
        # A worker may load a model for a minute before it finds a mistake in the configuration.
        if status == config.WRONG_SETTING_STATUS and self.starts == 1:
            return True
        return status == 1 and not self.has_worked


def main() -> None:
    settings = config.load()
    kinds = sys.argv[1:] or list(COMMANDS)
    if not set(kinds) <= set(COMMANDS):
        names = " ".join(kinds)
        raise SystemExit(f"There is no {names} to start; say web, worker, or nothing for both.")
    numbers = {
        "web": 1,
        "worker": settings.JOB_WORKERS,
    }
    grace_seconds = max(WEB_GRACE_SECONDS, settings.WORKER_GRACE_SECONDS)
    children = []
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        for kind in kinds:
            for _ in range(numbers[kind]):
                children.append(Child(kind))
        while True:
            for child in children:
                child.look_after()
            time.sleep(POLL_SECONDS)
    finally:
        stop(children, 10 + grace_seconds)


def on_signal(number: int, frame: object) -> None:
    raise SystemExit(0)


def stop(children: list[Child], seconds: float) -> None:
    """Ask all processes to end, and kill those that have not after some seconds.

    Further signals change nothing.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for child in children:
        child.process.terminate()
    deadline = time.monotonic() + seconds
    for child in children:
        try:
            child.process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()


if __name__ == "__main__":
    main()
