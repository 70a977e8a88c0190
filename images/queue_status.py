"""How things stand: who waits, how fast the queue moves, which models are available, readiness."""

import json
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import db
from config import settings
from engines import catalog
from files import storage
from images import queue

# A worker not heard of for this long is not alive.
LIVE_SECONDS = 30
# A queue limit below this is checked against a fresh count; above, one of the last second will do
# until half of the limit is reached.
SMALL_QUEUE = 1000


def cached(seconds: float) -> Callable:
    """Remember what a function without arguments returned, for so many seconds.

    Then one thread calls the function again; meanwhile the others get what it returned before.
    """

    def decorate(function: Callable[[], Any]) -> Callable[[], Any]:
        lock = threading.Lock()
        remembered: dict[str, Any] = {"until": 0.0}

        def is_old() -> bool:
            return time.monotonic() >= remembered["until"]

        @wraps(function)
        def call() -> Any:
            must_wait = "value" not in remembered
            if is_old() and lock.acquire(blocking=must_wait):
                try:
                    if is_old():
                        remembered["value"] = function()
                        remembered["until"] = time.monotonic() + seconds
                finally:
                    lock.release()
            return remembered["value"]

        call.forget = lambda: remembered.update(until=0.0)
        return call

    return decorate


class QueueStatus:
    """The queue and its workers at one moment."""

    def __init__(self):
        self._clock_ahead = queue.database_time() - time.monotonic()
        self.pending = queue.count_pending_by_user()
        self.waiting = sum(self.pending.values())
        live_workers = queue.list_live_workers(LIVE_SECONDS)
        self.workers = len(live_workers)
        self.problems = problems(live_workers)
        run_seconds = [row["run_seconds"] for row in live_workers]
        self.run_seconds = sum(run_seconds) / max(1, self.workers)
        self._positions: dict[int, int] = {}  # by how many waiting generations a user has

    def now(self) -> int:
        """Return the database's time in seconds since 1970, without asking it again."""
        return int(time.monotonic() + self._clock_ahead)

    def position(self, user_id: int, model: str) -> tuple[int, int | None]:
        """Estimate the position of the user's last generation, and the seconds until it is done.

        Users take turns, so of each no more come before it than the user has. The time is None
        while no worker can make the model's images.
        """
        own = self.pending.get(user_id, 1)
        if own not in self._positions:
            before = sum(min(number, own) for number in self.pending.values())
            self._positions[own] = before or 1
        position = self._positions[own]
        if self.problems.get(model, "no_worker"):
            return position, None
        eta_seconds = round(position * self.run_seconds / self.workers)
        return position, max(1, eta_seconds)


@cached(seconds=1)
def current() -> QueueStatus:
    """Return the queue as it was at most a second ago, however many clients ask."""
    return QueueStatus()


def is_full(number: int) -> bool:
    """Tell if so many more would be too many for MAX_QUEUE; a few at the same moment may pass."""
    limit = settings.MAX_QUEUE
    waiting = current().waiting
    if limit < SMALL_QUEUE or waiting > limit // 2:
        waiting = queue.count_waiting(limit)
    return waiting + number > limit


def problems(live_workers: list[db.Row]) -> dict[str, str]:
    """Return for each model on offer why it is not available, "" if a worker can make its images.

    That is "no_worker", or what the workers found when they last asked its engine, a key of
    messages.JOB_ERRORS.
    """
    reports = [_read_report(row["models"]) for row in live_workers]
    found = {}
    for name in catalog.models():
        reported = [report[name] for report in reports if name in report]
        found[name] = min(reported, default="no_worker")
    return found


def _read_report(text: str) -> dict[str, str]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):  # of a worker of an older release, during an upgrade
        return {}


def readiness() -> tuple[dict[str, str], dict[str, str]]:
    """Return what an image needs, each with its problem, and the problems() of the models.

    A problem is a key of messages.FIELDS, or "".
    """
    state = {"database": "", "storage": "", "queue": "", "models": ""}
    found = {}
    try:
        found = problems(queue.list_live_workers(LIVE_SECONDS))
    except Exception:  # unavailable, or a database without our tables
        state["database"] = "unavailable"
        state["queue"] = "unavailable"
    if found and all(problem == "no_worker" for problem in found.values()):
        state["queue"] = "no_worker"
    elif found and all(found.values()):
        state["models"] = "no_model"
    try:
        storage.check()
    except storage.Unavailable:
        state["storage"] = "unavailable"
    return state, found
