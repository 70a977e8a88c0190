"""When a waiting generation will be made: its position, and the seconds until it is done.

The order is that in which workers take generations, `queue.next_generation()`: of the user with the
fewest in processing, then of the one served longest ago, then the oldest.
"""

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import accumulate
from typing import NamedTuple

import db


class Turn(NamedTuple):
    """Where a generation stands in the order of the queue; a smaller turn comes first."""

    working: int  # how many of the user's are in processing when it is taken, if none ends
    index: int  # how many of the user's are taken before it, so that they were served lately
    served_at: float
    first_id: int  # the user's oldest


class Line:
    """What waits for the same workers, of one or more models, in the order of the queue."""

    def __init__(self, waiting: list[db.Row], working: Counter, seconds: dict[str, float]):
        self._working = working
        self._served_at = {row["user_id"]: row["served_at"] for row in waiting}
        self._ids: dict[int, list[int]] = defaultdict(list)
        for row in waiting:
            self._ids[row["user_id"]].append(row["id"])
        in_order = sorted((self.turn(row["user_id"], row["id"]), row["model"]) for row in waiting)
        self._turns = [turn for turn, _ in in_order]
        # The seconds of all that comes before each turn.
        self._work = list(accumulate((seconds[model] for _, model in in_order), initial=0.0))
        self._turns_of: dict[str, list[Turn]] = defaultdict(list)
        for turn, model in in_order:
            self._turns_of[model].append(turn)

    def has(self, user_id: int, generation_id: int) -> bool:
        return generation_id in self._ids.get(user_id, [])

    def turn(self, user_id: int, generation_id: int, new_ids: list[int] | None = None) -> Turn:
        """Return the turn of a user's generation; it may be among new ids, unknown to the line."""
        ids = self._ids.get(user_id, [])
        if new_ids:
            ids = sorted([*ids, *new_ids])
        index = bisect_left(ids, generation_id)
        return Turn(
            working=self._working[user_id] + index,
            index=index,
            served_at=self._served_at.get(user_id, math.inf),
            first_id=ids[0],
        )

    def position(self, turn: Turn, model: str) -> int:
        """Return the position among what waits for this model."""
        turns = self._turns_of.get(model, [])
        return bisect_left(turns, turn) + 1

    def seconds_before(self, turn: Turn) -> float:
        """Return how long all that comes before this turn takes one worker."""
        number = bisect_left(self._turns, turn)
        return self._work[number]


def seconds_left(usual_seconds: float, progress: int, elapsed_seconds: float) -> float:
    """Return how long a generation in processing takes yet; some engines report no progress."""
    if progress:
        return usual_seconds * (100 - progress) / 100
    return max(0.0, usual_seconds - elapsed_seconds)
