"""SQL of what waits without a ticket in `image_generations`.

Only with BROKER_URL: workers then ask the database seldom, and one of them repairs for all.
"""

import db
from config import settings
from images import broker, queue, turns

# Noted as seen so far ahead, a worker that is noted each half a minute stays a live one.
SEEN_AHEAD_SECONDS = 25


def note_worker(name: str, models_json: str, run_seconds: float, seconds: int) -> bool:
    """Say that a worker is alive, and tell if it is to sweep: nobody has for so many seconds.

    One trip to the database, which is all that an idle worker asks of it.
    """
    values = {"name": name, "models": models_json, "run_seconds": run_seconds}
    noting = (queue.NOTE_WORKER, {**values, "ahead": SEEN_AHEAD_SECONDS})
    _, taken = db.run_transaction(noting, (turns.TAKE, {"turn": "sweep", "seconds": seconds}))
    return taken.count > 0


def is_anything_due() -> bool:
    """Tell if a sweep has anything to do that cannot wait for minutes."""
    return bool(
        db.value(
            """
            SELECT EXISTS (SELECT 1 FROM image_generations
                            WHERE status IN ('pending', 'processing') AND model IS NOT NULL)
                OR EXISTS (SELECT 1 FROM pending_deletions WHERE due_at <= UNIX_TIMESTAMP())
                OR EXISTS (SELECT 1 FROM users WHERE deleted_at > 0)
            """
        )
    )


def list_waiting() -> list[db.Row]:
    """Count what a worker may take just now: rows of {model, number}."""
    return db.all(
        """
          SELECT g.model, COUNT(*) AS number
            FROM image_generations AS g
           WHERE g.status = 'pending' AND g.not_before <= UNIX_TIMESTAMP() AND g.model IS NOT NULL
             AND NOT EXISTS (SELECT 1 FROM paused_models AS p WHERE p.model IN ('', g.model))
        GROUP BY g.model
        """
    )


def send_missing() -> bool:
    """Send what tickets are missing. Tells if something waits and the broker is away."""
    if not settings.BROKER_URL:
        return False
    waiting = list_waiting()
    for row in waiting:
        broker.wake_missing(row["model"], row["number"])
    return bool(waiting and broker.problem())
