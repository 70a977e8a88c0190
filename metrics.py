"""Numbers for Prometheus, kept only if METRICS is on: the requests and the jobs of this machine.

Web and worker processes each write files in instance/metrics; whoever is asked adds all of them up.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from config import settings
from errors import ApiError

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PATCH", "DELETE")
KEEP_FILES_SECONDS = 7 * 86400
KEEP_FILES = 200
# More than the numbers of one process take.
FILE_BYTES = 1024 * 1024
JOB_BUCKETS_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800)

lock = threading.Lock()


def meters() -> SimpleNamespace | None:
    """Return the meters, or None if METRICS is off or the disk has no room for them."""
    if not settings.METRICS:
        return None
    with suppress(OSError), lock:
        return make_meters()
    return None


@lru_cache
def make_meters() -> SimpleNamespace:
    """Make the meters of this process. Raises OSError where the disk is full."""
    folder = metrics_dir()
    for kind in ("counter", "histogram"):
        allocate(folder / f"{kind}_{os.getpid()}.db")
    # prometheus_client takes the folder from the environment alone.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    # A library that is imported only where METRICS is on.
    from prometheus_client import Counter, Histogram

    return SimpleNamespace(
        requests=Histogram(
            "http_request_seconds", "Requests by route.", ["method", "route", "status"]
        ),
        jobs=Counter("jobs", "Generations by how they ended.", ["model", "outcome"]),
        tickets=Counter("tickets", "Tickets for the broker by what became of them.", ["outcome"]),
        waited=Histogram(
            "job_wait_seconds",
            "From submit to the first take.",
            ["model"],
            buckets=JOB_BUCKETS_SECONDS,
        ),
        ran=Histogram(
            "job_run_seconds",
            "Making and storing one image.",
            ["model"],
            buckets=JOB_BUCKETS_SECONDS,
        ),
    )


def metrics_dir() -> Path:
    """Return the folder of the files, without those of processes that ended long ago."""
    folder = settings.instance_dir / "metrics"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    oldest = time.time() - KEEP_FILES_SECONDS
    newest_first = sorted(folder.iterdir(), key=os.path.getmtime, reverse=True)
    for number, file in enumerate(newest_first):
        if number >= KEEP_FILES or file.stat().st_mtime < oldest:
            file.unlink(missing_ok=True)
    return folder


def allocate(file: Path) -> None:
    """Take the room of a file before prometheus_client maps it into memory.

    A write to a mapped page that the disk has no room for would end the process.
    """
    try:
        file.write_bytes(bytes(FILE_BYTES))
    except OSError:
        file.unlink(missing_ok=True)
        raise


def note_request(method: str, route: Any, status: int, seconds: float) -> None:
    """Count a request by the pattern of its route, never by its path: there is no end of those."""
    if found := meters():
        method = method if method in METHODS else "other"
        found.requests.labels(method, str(route or "none"), status).observe(seconds)


def note_wait(model: str, seconds: float) -> None:
    if found := meters():
        found.waited.labels(model).observe(max(0, seconds))


def note_tickets(outcome: str, number: int) -> None:
    if found := meters():
        found.tickets.labels(outcome).inc(number)


@contextmanager
def job_timer(model: str) -> Iterator[SimpleNamespace]:
    """Count the run of a job, and its seconds, under the `outcome` that the block sets."""
    started = time.monotonic()
    timer = SimpleNamespace(outcome="unrecorded")
    try:
        yield timer
    finally:
        if found := meters():
            found.jobs.labels(model, timer.outcome).inc()
            found.ran.labels(model).observe(time.monotonic() - started)


class QueueCollector:
    """The length of the queue, counted at the moment of the scrape, and whether there is a broker.

    It is None where none is used.
    """

    def __init__(self, count_unfinished: Callable[[], list[dict]], broker_is_up: bool | None):
        self.count_unfinished = count_unfinished
        self.broker_is_up = broker_is_up

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        gauge = GaugeMetricFamily(
            "queue_length", "Unfinished generations.", labels=["model", "status"]
        )
        for row in self.count_unfinished():
            gauge.add_metric([row["model"], row["status"]], row["number"])
        yield gauge
        if self.broker_is_up is not None:
            yield GaugeMetricFamily(
                "broker_up", "Whether tickets reach the broker.", value=self.broker_is_up
            )


def page(
    count_unfinished: Callable[[], list[dict]], broker_is_up: bool | None = None
) -> tuple[bytes, str]:
    """Return the metrics of all processes in Prometheus' text format, and its content type.

    `count_unfinished` returns rows of {model, status, number}.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    if not meters():
        raise ApiError("storage_unavailable", retry_after=30)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    registry.register(QueueCollector(count_unfinished, broker_is_up))
    return generate_latest(registry), CONTENT_TYPE_LATEST
