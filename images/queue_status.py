"""How things stand: who waits, how fast the queue moves, which models are available, readiness."""

import calendar
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

import db
from config import settings
from engines import catalog
from errors import ApiError
from files import storage
from images import PENDING, PROCESSING, broker, positions, queue, waiting
from images.history import Generation

# A worker not heard of for this long is not alive.
LIVE_SECONDS = 30
# A queue limit below this is checked against a fresh count; above, one of the last second will do
# until half of the limit is reached.
SMALL_QUEUE = 1000
# Of more than this that wait, positions are estimated from the numbers of so many users at most.
MAX_ORDERED = 1000
MAX_USERS = 5000
# What stands for a problem of the queue that an operator wants.
PAUSED = "paused"


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
        self.waiting = waiting.count()
        self._is_long = self.waiting > MAX_ORDERED
        if self._is_long:
            self._waiting = waiting.list_users(MAX_USERS)
        else:
            self._waiting = queue.list_waiting(MAX_ORDERED)
        self._running = queue.list_running()
        live_workers = queue.list_live_workers(LIVE_SECONDS)
        paused = pauses(queue.list_paused())
        self.problems = {**problems(live_workers), **paused}
        self._workers = [_available(row["models"]).difference(paused) for row in live_workers]
        self._lines: dict[
            frozenset[str], positions.Line | positions.LongLine
        ] = {}  # by the models that wait in it
        # Of a model that has made no image yet, what its workers need for any.
        run_seconds = [row["run_seconds"] for row in live_workers]
        self._any_seconds = sum(run_seconds) / max(1, len(live_workers))
        self._model_seconds = queue.list_model_seconds()

    def now(self) -> int:
        """Return the database's time in seconds since 1970, without asking it again."""
        return int(time.monotonic() + self._clock_ahead)

    def estimates(
        self, user_id: int, generations: list[Generation]
    ) -> dict[int, tuple[int | None, int | None]]:
        """Return the position and the seconds left of those of a user's that are unfinished, by id.

        What is in processing has no position; what no worker can make has no time.
        """
        found = {}
        own = [row for row in generations if row["status"] == PENDING and row["model"]]
        for row in own:
            found[row["id"]] = self._of_waiting(user_id, row, own)
        for row in generations:
            if row["status"] == PROCESSING and row["model"]:
                found[row["id"]] = None, self._rest_of(row)
        return found

    def _of_waiting(
        self, user_id: int, generation: Generation, own: list[Generation]
    ) -> tuple[int, int | None]:
        model = generation["model"]
        workers = [models for models in self._workers if model in models]
        # What each of its workers makes too is made by turns with it, and holds it up.
        models = frozenset.intersection(*workers) if workers else frozenset([model])
        line = self._line(models)
        # Those that were submitted less than a second ago are not in the line yet.
        new = [row for row in own if row["model"] in models and not line.has(user_id, row["id"])]
        new_ids = [row["id"] for row in new]
        earlier = [row["model"] for row in new if row["id"] < generation["id"]]
        turn = line.turn(user_id, generation["id"], new_ids)
        position = line.position(turn, model) + earlier.count(model)
        if not workers:
            return position, None
        before = line.seconds_before(turn) + self._seconds_running(models)
        before += sum(self._seconds(name) for name in earlier)
        return position, _whole(self._seconds(model) + before / len(workers))

    def _line(self, models: frozenset[str]) -> positions.Line | positions.LongLine:
        if models not in self._lines:
            rows = [row for row in self._waiting if row["model"] in models]
            working = Counter(row["user_id"] for row in self._running)
            seconds = {model: self._seconds(model) for model in models}
            line = positions.LongLine if self._is_long else positions.Line
            self._lines[models] = line(rows, working, seconds)
        return self._lines[models]

    def _seconds(self, model: str) -> float:
        return self._model_seconds.get(model, self._any_seconds)

    def _seconds_running(self, models: frozenset[str]) -> float:
        left = 0.0
        for row in self._running:
            if row["model"] in models:
                usual = self._seconds(row["model"])
                left += positions.seconds_left(usual, row["progress"], row["seconds"] or 0)
        return left

    def _rest_of(self, generation: Generation) -> int:
        elapsed = 0
        if generation["started_at"]:
            started = time.strptime(generation["started_at"], "%Y-%m-%d %H:%M:%S")
            elapsed = self.now() - calendar.timegm(started)
        usual = self._seconds(generation["model"])
        return _whole(positions.seconds_left(usual, generation["progress"], elapsed))


def _whole(seconds: float) -> int:
    return max(1, round(seconds))


@cached(seconds=1)
def current() -> QueueStatus:
    """Return the queue as it was at most a second ago, however many clients ask."""
    return QueueStatus()


def is_full(number: int) -> bool:
    """Tell if so many more would be too many for MAX_QUEUE; a few at the same moment may pass."""
    limit = settings.MAX_QUEUE
    number_waiting = current().waiting
    if limit < SMALL_QUEUE or number_waiting > limit // 2:
        number_waiting = waiting.count()
    return number_waiting + number > limit


def problems(live_workers: list[db.Row]) -> dict[str, str]:
    """Return for each model on offer why it is not available, "" if a worker can make its images.

    That is "no_worker", or what the workers found when they last asked its engine, a key of
    messages.JOB_ERRORS.
    """
    reports = [read_report(row["models"]) for row in live_workers]
    found = {}
    for name in catalog.models():
        reported = [report[name] for report in reports if name in report]
        found[name] = min(reported, default="no_worker")
    return found


def pauses(paused: dict[str, int]) -> dict[str, str]:
    """Return for each model on offer of which no job is taken what is paused: it, or the queue."""
    if "" in paused:
        return dict.fromkeys(catalog.models(), PAUSED)
    return {name: "model_paused" for name in catalog.models() if name in paused}


def refuse_paused(model: str) -> None:
    """Raise ApiError if no image of the model is to be made just now."""
    paused = queue.list_paused()
    if "" in paused or model in paused:
        raise ApiError("queue_paused", retry_after=30)


def read_report(text: str) -> dict[str, str]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):  # of a worker of an older release, during an upgrade
        return {}


def _available(text: str) -> frozenset[str]:
    """Return the models that a worker reports no problem with."""
    report = read_report(text)
    return frozenset(name for name, problem in report.items() if not problem)


def readiness() -> tuple[dict[str, str], dict[str, str]]:
    """Return what an image needs, each with its problem, and the problems() of the models.

    A problem is a key of messages.FIELDS, or "". A pause is one, but one that is wanted: submits
    go on, so nobody is to be sent elsewhere. Without the broker they go on as well.
    """
    state = {"database": "", "storage": "", "queue": "", "models": ""}
    found = {}
    paused = {}
    try:
        found = problems(queue.list_live_workers(LIVE_SECONDS))
        paused = queue.list_paused()
        queue.check_writable()
    except Exception:  # unavailable, read-only, or a database without our tables
        state["database"] = "unavailable"
        state["queue"] = "unavailable"
    if found and all(problem == "no_worker" for problem in found.values()):
        state["queue"] = "no_worker"
    elif found and all(found.values()):
        state["models"] = "no_model"
    elif "" in paused:
        state["queue"] = PAUSED
    try:
        storage.check()
    except storage.Unavailable:
        state["storage"] = "unavailable"
    if settings.BROKER_URL:
        state["broker"] = broker.problem()
    return state, {**found, **pauses(paused)}
