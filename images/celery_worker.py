"""With BROKER_URL, the process of worker.py: Celery's worker, whose one child makes the images."""

import os
import secrets
import signal
import socket
import sys
import threading
from typing import Any

import config
from images import broker


class CeleryWorker:
    """Celery's worker, in this process; the `worker`, a worker.Worker, is in its child.

    For a GPU that a process uses is of no use to its children.
    """

    def __init__(self, worker: Any):
        from multiprocessing.sharedctypes import RawValue  # which only a broker needs

        self.worker = worker
        # Celery's process gets the signal, and this one has to know.
        worker.stopping_since = RawValue("d", worker.stopping_since.value)
        self.starting: threading.Thread | None = None
        self.failed = RawValue("i", 0)  # the exit status of a child that cannot start

    def run(self) -> int:
        """Run until told to stop, and return the exit status."""
        from celery import signals

        app = broker.make_app()
        app.task(name=broker.TASK)(self.answer)
        signals.setup_logging.connect(lambda **_: None, weak=False)  # ours is set up
        signals.worker_process_init.connect(self.start_child)
        signals.worker_process_shutdown.connect(lambda **_: self.worker.finish(), weak=False)
        signals.worker_shutting_down.connect(lambda **_: self.worker.on_signal(), weak=False)
        signals.task_received.connect(self.pass_on)
        celery = app.Worker(
            # Containers may have the same process ids, and the same host name.
            hostname=f"worker-{os.getpid()}-{secrets.token_hex(3)}@{socket.gethostname()}",
            pool="prefork",
            concurrency=1,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
        )
        celery.start()
        return self.failed.value or celery.exitcode or 0

    def start_child(self, **_: object) -> None:
        # Celery waits four seconds for a child to start, and a model may take longer to load.
        self.starting = threading.Thread(target=self.start_worker, daemon=True)
        self.starting.start()

    def start_worker(self) -> None:
        try:
            self.worker.start()
        except config.SettingError as error:
            print(error, file=sys.stderr)
            self.failed.value = config.WRONG_SETTING_STATUS
            os.kill(os.getppid(), signal.SIGTERM)

    def answer(self, ticket: str, passes: int = 0) -> None:
        self.starting.join()
        self.worker.answer(ticket, passes)

    def pass_on(self, request: Any, **_: object) -> None:
        """Send another ticket for one that comes while the child is busy.

        RabbitMQ gives a worker one ticket of each of its queues, though it can answer only one.
        """
        from celery.worker import state

        if state.reserved_requests:
            broker.send(*request.args)
