"""SQL of `daily_jobs`: how many jobs ended on each day, how they ended, and how long they took.

A job is counted in the transaction that ends it, once for each time that it ends, and stays
counted when its image is deleted. A day is one of QUOTA_TIMEZONE. To add up millions of rows at
each look would take seconds.
"""

import time
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any, NamedTuple

import db
from images import CANCELED, COMPLETED, FAILED, quota

OUTCOMES = (COMPLETED, FAILED, CANCELED)
# Every offset of a time zone of today is a multiple of it.
QUARTER_SECONDS = 900


class Measured(NamedTuple):
    """What is known of a completed job: the size of its files, and whole seconds."""

    size: int = 0
    waiting: int = 0
    running: int = 0


NOTHING = Measured()


def count(generation_id: int, outcome: str, measured: Measured = NOTHING) -> None:
    """Count a job that has just ended so, in the caller's transaction.

    The row of the day is locked last, so that nobody waits for anything else while it is.
    """
    db.execute(
        """
        INSERT INTO daily_jobs
               (day, model, outcome, jobs, bytes, waiting_seconds, waiting_most,
                running_seconds, running_most)
        SELECT %(day)s, g.model, %(outcome)s, 1, %(size)s, %(waiting)s, %(waiting)s,
               %(running)s, %(running)s
          FROM image_generations AS g
         WHERE g.id = %(id)s AND g.model IS NOT NULL
            ON DUPLICATE KEY UPDATE
               jobs = daily_jobs.jobs + 1,
               bytes = daily_jobs.bytes + %(size)s,
               waiting_seconds = daily_jobs.waiting_seconds + %(waiting)s,
               waiting_most = CASE WHEN daily_jobs.waiting_most < %(waiting)s THEN %(waiting)s
                                   ELSE daily_jobs.waiting_most END,
               running_seconds = daily_jobs.running_seconds + %(running)s,
               running_most = CASE WHEN daily_jobs.running_most < %(running)s THEN %(running)s
                                   ELSE daily_jobs.running_most END
        """,
        id=generation_id,
        day=quota.day_of(time.time()),
        outcome=outcome,
        **measured._asdict(),
    )


# -- Series, one value a day --------------------------------------------------------------------


def series(number: int) -> dict[str, Any]:
    """Return what happened on each of the last days, today last, as lists to plot."""
    today = quota.day_of(time.time())
    days = range(today - number + 1, today + 1)
    of_model = defaultdict(list)
    for row in _rows_since(days[0]):
        of_model[row["model"]].append(row)
    completed = [row for rows in of_model.values() for row in rows if row["outcome"] == COMPLETED]
    return {
        "days": [(quota.FIRST_DAY + timedelta(days=day)).isoformat() for day in days],
        "users": _registered(days),
        "images": _sums(days, completed, "jobs"),
        "bytes": _sums(days, completed, "bytes"),
        "models": {model: _of_model(days, rows) for model, rows in sorted(of_model.items())},
    }


def _rows_since(day: int) -> list[db.Row]:
    return db.all(
        """
        SELECT day, model, outcome, jobs, bytes, waiting_seconds, waiting_most, running_seconds,
               running_most
          FROM daily_jobs
         WHERE day >= %s
        """,
        day,
    )


def _registered(days: range) -> list[int]:
    """Count the accounts of today by the day when they were opened."""
    first = time.gmtime(quota.end_of(days[0] - 1))
    rows = db.all(
        f"""
          SELECT UNIX_TIMESTAMP(created_at) DIV {QUARTER_SECONDS} AS quarter, COUNT(*) AS number
            FROM users
           WHERE created_at >= %s AND deleted_at = 0
        GROUP BY quarter
        """,
        time.strftime("%Y-%m-%d %H:%M:%S", first),
    )
    found = Counter()
    for row in rows:
        found[quota.day_of((row["quarter"] or 0) * QUARTER_SECONDS)] += row["number"]
    return [found[day] for day in days]


def _sums(days: range, rows: list[db.Row], column: str) -> list[int]:
    found = Counter()
    for row in rows:
        found[row["day"]] += row[column]
    return [found[day] for day in days]


def _of_model(days: range, rows: list[db.Row]) -> dict[str, Any]:
    shown = {}
    for outcome in OUTCOMES:
        shown[outcome] = _sums(days, [row for row in rows if row["outcome"] == outcome], "jobs")
    completed = {row["day"]: row for row in rows if row["outcome"] == COMPLETED}
    shown["waitingSeconds"] = _seconds(days, completed, "waiting")
    shown["runningSeconds"] = _seconds(days, completed, "running")
    return shown


def _seconds(days: range, completed: dict[int, db.Row], what: str) -> dict[str, list]:
    """Return average and maximum over the images of each day; None where there was none."""
    average = []
    most = []
    for day in days:
        row = completed.get(day)
        average.append(round(row[f"{what}_seconds"] / row["jobs"], 1) if row else None)
        most.append(row[f"{what}_most"] if row else None)
    return {"average": average, "max": most}


def totals() -> dict[str, int]:
    """Count accounts and their images, as they are now."""
    found = db.one(
        """
        SELECT COUNT(*) AS users,
               COALESCE(SUM(CASE WHEN is_disabled = 0 THEN 0 ELSE 1 END), 0) AS disabled,
               COALESCE(SUM(CASE role WHEN 'admin' THEN 1 ELSE 0 END), 0) AS admins,
               COALESCE(SUM(image_count), 0) AS images,
               COALESCE(SUM(storage_bytes), 0) AS bytes
          FROM users
         WHERE deleted_at = 0
        """
    )
    return {name: int(number) for name, number in found.items()}
