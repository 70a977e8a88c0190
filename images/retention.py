"""What goes by itself: images older than IMAGE_DAYS, and what was in the trash for TRASH_DAYS."""

import random
import time

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
    return max(created, generation["kept_since"]) + settings.IMAGE_DAYS * DAY_SECONDS


def purges_at(trashed_at: int) -> int:
    return trashed_at + settings.TRASH_DAYS * DAY_SECONDS


def sweep() -> None:
    """Delete what is due; any number of workers may do so at the same time."""
    # Of two clocks the one behind: one that is ahead by years would delete everything.
    now = min(int(queue.database_time()), int(time.time()))
    if settings.IMAGE_DAYS:
        _delete_expired(now - settings.IMAGE_DAYS * DAY_SECONDS)
    ids_of = {}
    for row in trash.list_due(now - settings.TRASH_DAYS * DAY_SECONDS, MAX_PURGED):
        ids_of.setdefault(row["user_id"], []).append(row["id"])
    for user_id, ids in ids_of.items():
        if not trash.delete_files(trash.purge(user_id, ids)):
            return  # a store that is away would keep the heartbeats waiting, too


def _delete_expired(before: int) -> None:
    before_time = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(before))
    values = {"before": before, "before_time": before_time}
    # Of many users, others each time.
    parts = trash.last_user() // MAX_LOOKED_AT + 1
    first = random.randrange(parts) * MAX_LOOKED_AT
    looked_at = range(first, first + MAX_LOOKED_AT)
    into_trash = settings.TRASH_DAYS > 0
    users = trash.list_users_with_old(values, looked_at)
    random.shuffle(users)  # what is old of some was restored lately, or is unfinished
    for user_id in users[:MAX_USERS]:
        ids = trash.list_expired_of(user_id, values, MAX_IMAGES)
        deleted = trash.take_out(user_id, ids, into_trash, trash.EXPIRED, **values) if ids else []
        if not into_trash and not trash.delete_files(deleted):
            return
