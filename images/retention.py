"""SQL of what goes by itself: what is older than IMAGE_DAYS, or for TRASH_DAYS in the trash."""

import random
import time

import db
from config import settings
from images import UNFINISHED, queue, trash
from images.history import Generation
from pool import unix_timestamp

DAY_SECONDS = 86400
# What one sweep does, beside the heartbeats: users looked at, users and images of each that are
# deleted, and images purged.
MAX_LOOKED_AT = 1000
MAX_USERS = 20
MAX_IMAGES = 50
MAX_PURGED = 200

# What expires_at() says of one. An unfinished one is not old; a time that is none does not pass.
EXPIRED = """
    favorite = 0 AND status NOT IN ('pending', 'processing')
    AND created_at > '1970-01-02' AND created_at < %(before_time)s
    AND UNIX_TIMESTAMP(created_at) BETWEEN 1 AND %(before)s AND kept_since < %(before)s
"""


def expires_at(generation: Generation) -> int | None:
    """Return when a generation goes by itself, in seconds since 1970; None for never."""
    if not settings.IMAGE_DAYS:
        return None
    if generation["favorite"] or generation["status"] in UNFINISHED:
        return None
    if not generation["created_at"]:
        return None
    created = unix_timestamp(generation["created_at"])
    if created is None:  # an old row may have anything for a time
        return None
    return max(created, generation["kept_since"] or 0) + settings.IMAGE_DAYS * DAY_SECONDS


def purges_at(trashed_at: int) -> int:
    return trashed_at + settings.TRASH_DAYS * DAY_SECONDS


def sweep() -> None:
    """Delete what is due; any number of workers may do so at the same time."""
    # Of two clocks the one behind: one that is ahead by years would delete everything.
    now = min(int(queue.database_time()), int(time.time()))
    if settings.IMAGE_DAYS:
        _delete_expired(now - settings.IMAGE_DAYS * DAY_SECONDS)
    ids_of = {}
    for row in list_due(now - settings.TRASH_DAYS * DAY_SECONDS, MAX_PURGED):
        ids_of.setdefault(row["user_id"], []).append(row["id"])
    for user_id, ids in ids_of.items():
        if not trash.delete_files(trash.purge(user_id, ids)):
            return  # a store that is away would keep the heartbeats waiting, too


def _delete_expired(before: int) -> None:
    before_time = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(before))
    values = {"before": before, "before_time": before_time}
    # Of many users, others each time.
    parts = last_user() // MAX_LOOKED_AT + 1
    first = random.randrange(parts) * MAX_LOOKED_AT
    looked_at = range(first, first + MAX_LOOKED_AT)
    into_trash = settings.TRASH_DAYS > 0
    users = list_users_with_old(values, looked_at)
    random.shuffle(users)  # what is old of some was restored lately, or is unfinished
    for user_id in users[:MAX_USERS]:
        ids = list_expired_of(user_id, values, MAX_IMAGES)
        deleted = trash.take_out(user_id, ids, into_trash, EXPIRED, **values) if ids else []
        if not into_trash and not trash.delete_files(deleted):
            return


def list_due(before: int, limit: int) -> list[db.Row]:
    """List what came into the trash before a time: rows of {id, user_id}."""
    return db.all(
        """
          SELECT id, user_id
            FROM trashed_generations
           WHERE trashed_at <= %s
        ORDER BY trashed_at
           LIMIT %s
        """,
        before,
        limit,
    )


def list_users_with_old(before: db.Row, ids: range) -> list[int]:
    """Return those of the users whose oldest generation that is no favorite is so old.

    An index leads to that one alone. To look for one that is EXPIRED, too, MariaDB would read all
    of each user who has none.
    """
    rows = db.all(
        """
        SELECT id
          FROM users
         WHERE id >= %(first)s AND id < %(end)s
           AND (SELECT g.created_at
                  FROM image_generations AS g
                 WHERE g.user_id = users.id AND g.favorite = 0 AND g.created_at > '1970-01-02'
              ORDER BY g.created_at
                 LIMIT 1) < %(before_time)s
        """,
        before_time=before["before_time"],
        first=ids.start,
        end=ids.stop,
    )
    return [row["id"] for row in rows]


def list_expired_of(user_id: int, before: db.Row, limit: int) -> list[int]:
    rows = db.all(
        f"""
          SELECT id
            FROM image_generations
           WHERE user_id = %(user_id)s AND {EXPIRED}
        ORDER BY created_at
           LIMIT %(limit)s
        """,
        **before,
        user_id=user_id,
        limit=limit,
    )
    return [row["id"] for row in rows]


def last_user() -> int:
    return db.value("SELECT COALESCE(MAX(id), 0) FROM users")
