"""When a waiting generation will be made: its position, and the seconds until it is done.

The order is that in which workers take generations, `waiting.next_ids()`: of the user with the
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


class Waiting:
    """What waits of one user: how many of each model, between the first and the last id."""

    def __init__(self, rows: list[db.Row]):
        self.numbers = {row["model"]: row["number"] for row in rows}
        self.total = sum(self.numbers.values())
        self.served_at = rows[0]["served_at"]
        self.first_id = min(row["first_id"] for row in rows)
        self.last_id = max(row["last_id"] for row in rows)

    def index(self, generation_id: int) -> int:
        """Estimate how many come before one, as if the ids were evenly spread."""
        part = (generation_id - self.first_id) / max(1, self.last_id - self.first_id)
        return round(part * (self.total - 1))


class LongLine:
    """The same as a Line of many, known by their numbers alone: rows of `waiting.list_users()`.

    In round n come those whose user has n in processing or taken before.
    """

    def __init__(self, rows: list[db.Row], working: Counter, seconds: dict[str, float]):
        self._working = working
        self._seconds = seconds
        of_user: dict[int, list[db.Row]] = defaultdict(list)
        for row in rows:
            of_user[row["user_id"]].append(row)
        self._users = {user_id: Waiting(rows) for user_id, rows in of_user.items()}
        self._before = {model: self._sums(model) for model in seconds}
        self._rounds: dict[int, list[Turn]] = {}

    def _sums(self, model: str) -> list[float]:
        """Return how many of the model come before each round; users mix their models evenly."""
        changes: dict[int, float] = defaultdict(float)
        for user_id, user in self._users.items():
            share = user.numbers.get(model, 0) / user.total
            changes[self._working[user_id]] += share
            changes[self._working[user_id] + user.total] -= share
        of_round = accumulate(changes[number] for number in range(max(changes, default=0)))
        return list(accumulate(of_round, initial=0.0))

    def has(self, user_id: int, generation_id: int) -> bool:
        user = self._users.get(user_id)
        return user is not None and user.first_id <= generation_id <= user.last_id

    def turn(self, user_id: int, generation_id: int, new_ids: list[int] | None = None) -> Turn:
        """Return the turn of a user's generation; it may be among new ids, unknown to the line."""
        user = self._users.get(user_id)
        if self.has(user_id, generation_id):
            index = user.index(generation_id)
        else:
            earlier = sum(new_id < generation_id for new_id in new_ids or [])
            index = earlier + (user.total if user else 0)
        return Turn(
            working=self._working[user_id] + index,
            index=index,
            served_at=user.served_at if user else math.inf,
            first_id=user.first_id if user else generation_id,
        )

    def position(self, turn: Turn, model: str) -> int:
        """Return the position among what waits for this model."""
        return round(self._number_before(turn, model)) + 1

    def seconds_before(self, turn: Turn) -> float:
        """Return how long all that comes before this turn takes one worker."""
        numbers = {model: self._number_before(turn, model) for model in self._seconds}
        return sum(number * self._seconds[model] for model, number in numbers.items())

    def _number_before(self, turn: Turn, model: str) -> float:
        sums = self._before[model]
        number = min(turn.working, len(sums) - 1)
        in_round = sums[min(number + 1, len(sums) - 1)] - sums[number]
        turns = self._turns(number)
        return sums[number] + in_round * bisect_left(turns, turn) / max(1, len(turns))

    def _turns(self, number: int) -> list[Turn]:
        if number not in self._rounds:
            turns = []
            for user_id, user in self._users.items():
                index = number - self._working[user_id]
                if 0 <= index < user.total:
                    turns.append(Turn(number, index, user.served_at, user.first_id))
            self._rounds[number] = sorted(turns)
        return self._rounds[number]


def seconds_left(usual_seconds: float, progress: int, elapsed_seconds: float) -> float:
    """Return how long a generation in processing takes yet; some engines report no progress."""
    if progress:
        return usual_seconds * (100 - progress) / 100
    return max(0.0, usual_seconds - elapsed_seconds)
