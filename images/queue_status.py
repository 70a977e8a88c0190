"""How things stand: who waits, how fast the queue moves, which models can be made, whether the service is ready."""

import json
import time
from functools import lru_cache

import db
from engines import catalog
from files import storage

# A worker not heard of for this long is none.
CREW_SECONDS = 30


class Queue:
    """The queue and its workers at one moment."""

    def __init__(self):
        self.pending = db.count_pending_by_user()
        crew = db.list_crew(CREW_SECONDS)
        self.workers = len(crew)
        self.run_seconds = sum(row["run_seconds"] for row in crew) / max(1, len(crew))
        self.problems = problems(crew)
        self.positions: dict[int, int] = {}  # by how many waiting generations a user has

    def place(self, user_id: int, model: str) -> tuple[int, int | None]:
        """Estimate the place of the user's last generation, and the seconds until it is done.

        Users take turns, so of each no more come before it than the user has. The time is None while no worker
        can make the model's images.
        """
        own = self.pending.get(user_id, 1)
        if own not in self.positions:
            self.positions[own] = sum(min(number, own) for number in self.pending.values()) or 1
        position = self.positions[own]
        if self.problems.get(model, "no_worker"):
            return position, None
        return position, max(1, round(position * self.run_seconds / self.workers))


def problems(crew: list[db.Row]) -> dict[str, str]:
    """Return for each model on offer why it cannot be made just now: "no_worker", what the workers found when
    they last asked its engine (a key of messages.JOB_ERRORS), or "" if one of them can make it."""
    reports = [report(row["models"]) for row in crew]
    found = {}
    for name in catalog.offered():
        heard = [problems[name] for problems in reports if name in problems]
        found[name] = min(heard, default="no_worker")
    return found


def report(text: str) -> dict[str, str]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):  # of a worker of an older release, during an upgrade
        return {}


@lru_cache(maxsize=2)
def _queue(second: int) -> Queue:
    return Queue()


def queue() -> Queue:
    """Return the queue as it was at most a second ago, however many clients ask."""
    return _queue(int(time.monotonic()))


def readiness() -> tuple[dict[str, str], dict[str, str]]:
    """Return what an image needs, each with what is wrong with it: a key of messages.FIELDS, or ""; and the
    problems() of the models."""
    state, found = {"database": "", "storage": "", "queue": "", "models": ""}, {}
    try:
        found = problems(db.list_crew(CREW_SECONDS))
        if all(problem == "no_worker" for problem in found.values()):
            state["queue"] = "no_worker"
        elif all(found.values()):
            state["models"] = "no_model"
    except Exception:  # away, or a database without our tables
        state |= {"database": "away", "queue": "away"}
    try:
        storage.check()
    except OSError:
        state["storage"] = "away"
    return state, found
