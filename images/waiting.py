"""SQL of `waiting`: how much of each user and model waits, and since when its user was not served.

It says whose turn it is without a look at all that waits. Who changes what waits locks the user's
row first, and calls recount_within() last; but a submit only notes `has_new` in the user's row, and
whoever reads the table counts that first. Processes of the release before do neither, and so it is
only an index: each id is looked up in `image_generations`, and repair() sets right what differs.
"""

import math
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

import db
from images import quota, turns

# How many are looked up at first: of workers that ask at the same moment each takes another one.
CANDIDATES = 16
# So many users are counted at once; if more have submitted meanwhile, others count them, or later.
MOST_NEW = 100
# What the release before changes waits for so long at most, if there is other work meanwhile.
REPAIR_SECONDS = 30
# A time further ahead was noted while a clock was wrong.
AHEAD_SECONDS = 60

SERVED_AT = f"""
    CASE WHEN u.served_at > UNIX_TIMESTAMP() + {AHEAD_SECONDS} THEN 0 ELSE u.served_at END
"""


# -- Keeping it ---------------------------------------------------------------------------------

COUNT = f"""
    INSERT INTO waiting (user_id, model, number, first_id, last_id, served_at)
    SELECT g.user_id, g.model, COUNT(*), MIN(g.id), MAX(g.id), MAX({SERVED_AT})
      FROM image_generations AS g
      JOIN users AS u ON u.id = g.user_id
     WHERE g.user_id IN ({{users}}) AND g.status = 'pending' AND g.model IS NOT NULL {{after}}
  GROUP BY g.user_id, g.model
        ON DUPLICATE KEY UPDATE
           number = VALUES(number), first_id = VALUES(first_id), last_id = VALUES(last_id),
           served_at = VALUES(served_at)
"""
FORGET = """
    DELETE FROM waiting
     WHERE user_id IN ({users})
       AND (SELECT COUNT(*)
              FROM image_generations AS g
             WHERE g.user_id = waiting.user_id AND g.status = 'pending'
               AND g.model = waiting.model) = 0
"""
NOTE_COUNTED = "UPDATE users SET has_new = 0 WHERE id IN ({users}) AND has_new = 1"
LOCK = "SELECT id FROM users WHERE id IN ({users}) FOR UPDATE SKIP LOCKED"


def _statements(users: str) -> list[str]:
    return [part.format(users=users, after="") for part in (COUNT, FORGET, NOTE_COUNTED)]


# Of one user, who is locked.
RECOUNT = _statements("%(user_id)s")
# Of the user of a job that was just claimed: if the statement before it changed a row.
RECOUNT_CLAIMED = (
    COUNT.format(users="%(user_id)s", after="AND ROW_COUNT() = 1"),
    f"""
    {FORGET.format(users="%(user_id)s")} AND EXISTS (SELECT 1
                                                       FROM image_generations
                                                      WHERE id = %(id)s AND claim = %(claim)s)
    """,
)


def recount_within(user_id: int) -> None:
    """Count what waits of a user. Within the caller's transaction, which has locked the user."""
    for statement in RECOUNT:
        db.execute(statement, user_id=user_id)


@db.retried
def recount(user_id: int) -> None:
    """Do the same in a transaction."""
    with db.transaction():
        if db.one(quota.LOCK, user_id=user_id):
            recount_within(user_id)


def count_new() -> None:
    """Count what was submitted since this was done last, by whichever process."""
    if rows := db.all("SELECT id FROM users WHERE has_new = 1 LIMIT %s", MOST_NEW):
        recount_unlocked([row["id"] for row in rows])


@db.retried
def recount_unlocked(users: list[int]) -> None:
    """Count what waits of those whom nobody else has locked, so that nobody waits for anybody."""
    with db.transaction():
        rows = db.all(LOCK.format(users=db.placeholders(users)), *users)
        if locked := [row["id"] for row in rows]:
            for statement in _statements(db.placeholders(locked)):
                db.execute(statement, *locked)


def repair() -> None:
    """Count anew where the numbers are wrong, unless another worker did so lately."""
    if turns.take("recount", REPAIR_SECONDS):
        for row in list_wrong():
            recount(row["user_id"])


def list_wrong() -> list[db.Row]:
    """List the users of whom `waiting` says something else than their jobs do."""
    return db.all(
        f"""
           SELECT jobs.user_id
             FROM (SELECT user_id, model, COUNT(*) AS number, MIN(id) AS first_id
                     FROM image_generations
                    WHERE status = 'pending' AND model IS NOT NULL
                 GROUP BY user_id + 0, model) AS jobs
             JOIN users AS u ON u.id = jobs.user_id
        LEFT JOIN waiting AS w ON w.user_id = jobs.user_id AND w.model = jobs.model
            WHERE w.number IS NULL OR w.number <> jobs.number OR w.first_id <> jobs.first_id
               OR w.served_at <> {SERVED_AT}
            UNION
           SELECT user_id
             FROM waiting AS w
            WHERE (SELECT COUNT(*)
                     FROM image_generations AS g
                    WHERE g.user_id = w.user_id AND g.status = 'pending'
                      AND g.model = w.model) = 0
            LIMIT 1000
        """
    )


# -- Whose turn it is ---------------------------------------------------------------------------

# The subqueries are such that no database makes a join of them, which would begin with the jobs.
IS_ENABLED = "(SELECT is_disabled FROM users AS u WHERE u.id = w.user_id) = 0"
# Of a model of which no job is taken, '' for any. It is looked up once.
IS_OPEN = """
    (SELECT COUNT(*) FROM paused_models AS p WHERE p.model IN ('', %(model_{number})s)) = 0
"""
# The oldest that may be taken; NULL if none may.
READY = """
    (SELECT MIN(g.id)
       FROM image_generations AS g
      WHERE g.user_id = w.user_id AND g.status = 'pending' AND g.model = %(model_{number})s
        AND g.not_before <= UNIX_TIMESTAMP())
"""
OF_IDLE_USERS = f"""
    SELECT *
      FROM (SELECT w.user_id, w.model, 0 AS working, w.served_at, w.first_id, {READY} AS id
              FROM waiting AS w
             WHERE w.model = %(model_{{number}})s AND {IS_OPEN} AND {IS_ENABLED}
               AND (SELECT COUNT(*)
                      FROM image_generations AS g
                     WHERE g.user_id = w.user_id AND g.status = 'processing'
                       AND g.model IS NOT NULL) = 0
               AND {READY} IS NOT NULL
          ORDER BY w.served_at, w.first_id
             LIMIT %(most)s) AS of_model_{{number}}
"""
OF_BUSY_USERS = f"""
    SELECT w.user_id, w.model, busy.working, w.served_at, w.first_id, {READY} AS id
      FROM (SELECT user_id, COUNT(*) AS working
              FROM image_generations
             WHERE status = 'processing' AND model IS NOT NULL
          GROUP BY user_id + 0) AS busy
      JOIN waiting AS w ON w.user_id = busy.user_id AND w.model = %(model_{{number}})s
     WHERE {IS_OPEN} AND {IS_ENABLED} AND {READY} IS NOT NULL
"""
OF_ANY_USER = f"""
    SELECT *
      FROM (SELECT w.user_id
              FROM image_generations AS w
             WHERE w.status = 'pending' AND w.model = %(model_{{number}})s
               AND w.not_before <= UNIX_TIMESTAMP() AND {IS_OPEN} AND {IS_ENABLED}
             LIMIT 1) AS of_model_{{number}}
"""


def next_ids(models: list[str]) -> list[int]:
    """Return the pending generations whose turn it is, one of each user, the first one first.

    It is of the user with the fewest in processing, then of the one served longest ago, then the
    oldest.
    """
    most = CANDIDATES
    while True:
        found = _candidates(OF_IDLE_USERS, models, most)
        if not found or found[0].turn <= _seen_until(found, most):
            break
        most *= CANDIDATES
    found = found or _candidates(OF_BUSY_USERS, models, most)
    first_of_user: dict[int, int] = {}
    for candidate in found:
        first_of_user.setdefault(candidate.user_id, candidate.id)
    return list(first_of_user.values())[:CANDIDATES]


class Candidate(NamedTuple):
    user_id: int
    model: str
    working: int  # how many of the user's are in processing
    served_at: float
    first_id: int  # the oldest, which may be put off
    id: int

    @property
    def turn(self) -> tuple[int, float, int]:
        return self.working, self.served_at, self.id


def _candidates(select: str, models: list[str], most: int) -> list[Candidate]:
    rows = _of_each(select, models, most=most)
    return sorted((Candidate(**row) for row in rows), key=lambda one: one.turn)


def _of_each(select: str, models: list[str], **values: int) -> list[db.Row]:
    names = {f"model_{number}": model for number, model in enumerate(models)}
    parts = [select.format(number=number) for number in range(len(models))]
    return db.all(" UNION ALL ".join(parts), **names, **values) if models else []


def _seen_until(found: list[Candidate], most: int) -> tuple[int, float, float]:
    """Return the turn up to which nothing is missing: of a model with more, only that is known."""
    last: dict[str, tuple[int, float, float]] = {}
    numbers = Counter(one.model for one in found)
    for one in found:
        if numbers[one.model] == most:
            bound = (one.working, one.served_at, one.first_id)
            last[one.model] = max(bound, last.get(one.model, bound))
    return min(last.values(), default=(0, math.inf, math.inf))


def count_missed(models: list[str]) -> bool:
    """Count what waits of some users, if anything may be taken that next_ids() does not know of.

    Tells if there was any. It came from a process of the release before.
    """
    users = [row["user_id"] for row in _of_each(OF_ANY_USER, models)]
    for user_id in users:
        recount(user_id)
    return bool(users)


# -- How long the queue is ----------------------------------------------------------------------


def count() -> int:
    with suppress(db.Unavailable):  # those are missing then
        count_new()
    return int(db.value("SELECT COALESCE(SUM(number), 0) FROM waiting"))


def list_users(limit: int) -> list[db.Row]:
    """List what waits of each user and model, the users served longest ago first."""
    return db.all(
        """
          SELECT user_id, model, number, first_id, last_id, served_at
            FROM waiting
        ORDER BY served_at, first_id
           LIMIT %s
        """,
        limit,
    )
