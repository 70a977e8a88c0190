"""What ./start.sh runs: the web server and the workers, each started again when it dies, ended together.

`serve.py web` and `serve.py worker` run one kind alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

import config

try:
    import ctypes
except (
    ImportError,
    MemoryError,
):  # a hardened systemd unit may forbid it, and ends what is left itself
    ctypes = None

COMMANDS = {"web": ["-m", "gunicorn"], "worker": ["worker.py"]}
RESTART_SECONDS = 1
# A process that fails sooner than this after its first start has never worked: that ends it all.
FAILED_START_SECONDS = 3
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to end this child if its parent is killed, so that nothing is left running; elsewhere do nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process that is kept running."""

    def __init__(self, kind: str):
        self.kind = kind
        self.has_worked = False
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.started = time.monotonic()
        self.starts += 1
        # A session of its own: Ctrl-C reaches this process alone, which then tells the others.
        self.process = subprocess.Popen(
            [sys.executable, *COMMANDS[self.kind]],
            preexec_fn=die_with_parent,
            start_new_session=True,
        )

    def look_after(self) -> None:
        status = self.process.poll()
        if status is None:
            self.has_worked = (
                self.has_worked or time.monotonic() - self.started > FAILED_START_SECONDS
            )
            return
        # A worker may load a model for a minute before it finds what is wrong with it, and then says EX_CONFIG.
        if (status == 1 and not self.has_worked) or (status == os.EX_CONFIG and self.starts == 1):
            raise SystemExit(1)  # it has said what is wrong, and that would be wrong again
        print(
            f"{self.kind} process {self.process.pid} ended with {status}; starting another",
            file=sys.stderr,
        )
        # What a killed gunicorn leaves behind would go on to hold the port.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        time.sleep(RESTART_SECONDS)
        self.start()


def main() -> None:
    settings = config.load()
    kinds = {"web": ["web"], "worker": ["worker"] * settings.JOB_WORKERS}
    wanted = sys.argv[1:] or ["web", "worker"]
    if set(wanted) - set(kinds):
        raise SystemExit(
            f"There is no {' '.join(wanted)} to start; say web, worker, or nothing for both."
        )
    children = []
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        children += [Child(kind) for name in wanted for kind in kinds[name]]
        while True:
            for child in children:
                child.look_after()
            time.sleep(0.2)
    finally:
        # gunicorn gives its requests 30 seconds, a worker its image WORKER_GRACE_SECONDS.
        stop(children, 10 + max(30, settings.WORKER_GRACE_SECONDS))


def end(number: int, frame: object) -> None:
    raise SystemExit(0)


def stop(children: list[Child], seconds: float) -> None:
    """Ask all to finish what they are at, and end what has not after some seconds; a second signal changes nothing."""
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
