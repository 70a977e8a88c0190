"""Numbers for Prometheus, kept only if METRICS is on: what the requests and the jobs of this machine were like.

Web and worker processes each write files in instance/metrics; whoever is asked adds all of them up.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import db
from config import settings

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PATCH", "DELETE")
KEEP_FILES_SECONDS = 7 * 86400


@lru_cache
def meters() -> SimpleNamespace | None:
    """Return the meters, or None if METRICS is off. The library is imported only when it is on."""
    if not settings.METRICS:
        return None
    folder = settings.instance_dir / "metrics"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in folder.iterdir():  # those of processes that ended long ago
        if time.time() - file.stat().st_mtime > KEEP_FILES_SECONDS:
            file.unlink(missing_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    from prometheus_client import Counter, Histogram

    seconds = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800)
    return SimpleNamespace(
        requests=Histogram(
            "http_request_seconds", "Requests by route.", ["method", "route", "status"]
        ),
        jobs=Counter("jobs", "Generations by how they ended.", ["model", "outcome"]),
        waited=Histogram(
            "job_wait_seconds", "From submit to the first take.", ["model"], buckets=seconds
        ),
        ran=Histogram(
            "job_run_seconds", "Making and storing one image.", ["model"], buckets=seconds
        ),
    )


def note_request(method: str, route: Any, status: int, seconds: float) -> None:
    """Count a request by the pattern of its route, never by its path: those are without number."""
    if found := meters():
        method = method if method in METHODS else "other"
        found.requests.labels(method, str(route or "none"), status).observe(seconds)


def note_wait(model: str, seconds: float) -> None:
    if found := meters():
        found.waited.labels(model).observe(max(0, seconds))


@contextmanager
def job_timer(model: str) -> Iterator[SimpleNamespace]:
    """Count the run of a job, and its seconds, under the `outcome` that the block gives what it gets here."""
    started, timer = time.monotonic(), SimpleNamespace(outcome="unrecorded")
    try:
        yield timer
    finally:
        if found := meters():
            found.jobs.labels(model, timer.outcome).inc()
            found.ran.labels(model).observe(time.monotonic() - started)


class QueueCollector:
    """The length of the queue, asked of the database at the moment of the scrape."""

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        gauge = GaugeMetricFamily(
            "queue_length", "Unfinished generations.", labels=["model", "status"]
        )
        for row in db.count_unfinished():
            gauge.add_metric([row["model"], row["status"]], row["number"])
        yield gauge


def page() -> tuple[bytes, str]:
    """Return the metrics of all processes in Prometheus' text format, and its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    meters()  # names the folder, should this be the first request of its process
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    registry.register(QueueCollector())
    return generate_latest(registry), CONTENT_TYPE_LATEST
