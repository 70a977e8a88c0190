"""SQL of what has left the history: `deleted_generations`, the tombstones, and the trash, which is
`trashed_generations`.

A generation in the trash is a row of `image_generations` moved elsewhere, so that no other query
has to leave it out. It has a tombstone as well: its id answers as that of a deleted one. The user's
row is locked first, so of a delete, a restore and a purge at the same moment each finds the row or
not.
"""

from contextlib import suppress
from typing import Any

import db
from files import cleanup, storage, withheld
from images import (
    CANCELED,
    UNFINISHED,
    history,
    quota,
    shares,
    stats,
    tags,
    uploads,
    waiting,
)

HISTORY, TRASH = "image_generations", "trashed_generations"
# Every column of image_generations, which come back with a restored one.
ROW = """
    id, user_id, prompt_text, image_filename, image_url, thumbnail_url, status, created_at,
    updated_at, generation_params_json, error_message, model, width, height, progress, favorite,
    error_code, attempt, claim, not_before, lease_until, deadline_at, quota_day, started_at,
    finished_at, is_sent, error_detail, may_be_charged, search_text, tags, file_bytes, kept_since,
    api_key_id, inputs_json
"""


def was_deleted(user_id: int, generation_id: int) -> bool:
    sql = "SELECT id FROM deleted_generations WHERE id = %s AND user_id = %s"
    return db.one(sql, generation_id, user_id) is not None


def file_keys(generation: db.Row) -> list[str]:
    """Return the keys of the image and its thumbnail, which an old row may have as one file."""
    urls = {generation["image_url"], generation["thumbnail_url"]}
    return sorted(storage.key_of(str(url)) for url in urls if url)


def delete_files(generations: list[db.Row]) -> bool:
    """Delete at once those files of what was deleted for good whose deletion is scheduled.

    False means that there is no use in more of it for now.
    """
    keys = [key for generation in generations for key in file_keys(generation)]
    with suppress(db.Unavailable):  # a sweep does it
        return cleanup.delete_files(sorted(cleanup.list_pending(keys)))
    return False


def _free_keys(user_id: int, row: db.Row, *tables: str) -> list[str]:
    """Return those keys of a row that has left the tables that none of their rows names.

    Programs without a queue, and so without a model, may have given two rows one file, or a row
    that of another account.
    """
    keys = {key for key in file_keys(row) if history.is_of_user(user_id, key)}
    if row["model"] is None and keys:
        urls = [row["image_url"], row["thumbnail_url"]]
        for table in tables:
            sql = f"""
                SELECT image_url, thumbnail_url
                  FROM {table}
                 WHERE user_id = %s AND model IS NULL
                   AND (image_url IN (%s, %s) OR thumbnail_url IN (%s, %s))
            """
            for other in db.all(sql, user_id, *urls, *urls):
                keys -= set(file_keys(other))
    return sorted(keys)


# -- Out of the history -------------------------------------------------------------------------


@db.retried
def take_out(
    user_id: int, ids: list[int], into_trash: bool, condition: str = "1 = 1", **values: Any
) -> list[db.Row]:
    """Take generations of the user out of the history, and return what they were.

    They go into the trash, or for good: then the deletion of their files is scheduled for now, and
    the caller may delete them at once. What is unfinished is canceled. Only what the condition is
    true of is taken: its owner may have marked an expired one as a favorite meanwhile.
    """
    with db.transaction():
        quota.lock_user(user_id)
        # Their rows too, or a worker could complete one, and keep its files, while we delete it.
        rows = _lock_rows(HISTORY, user_id, ids, condition, **values)
        if rows:
            _cancel_unfinished(user_id, rows)
            _leave_history(user_id, rows, into_trash)
            if into_trash:
                for row in rows:
                    withheld.withhold(user_id, row["id"], _free_keys(user_id, row, HISTORY))
            else:
                _delete_for_good(user_id, rows)
    return rows


def _lock_rows(
    table: str, user_id: int, ids: list[int], condition: str = "1 = 1", **values: Any
) -> list[db.Row]:
    """Return those of the user's generations that are there, with what a delete needs of them."""
    numbered = {f"id_{number}": generation_id for number, generation_id in enumerate(ids)}
    return db.all(
        f"""
          SELECT id, user_id, status, model, created_at, image_url, thumbnail_url, file_bytes, tags
            FROM {table}
           WHERE user_id = %(user_id)s AND id IN ({", ".join(f"%({name})s" for name in numbered)})
             AND {condition}
        ORDER BY id
             FOR UPDATE
        """,
        user_id=user_id,
        **numbered,
        **values,
    )


def _cancel_unfinished(user_id: int, rows: list[db.Row]) -> None:
    """Refund what is unfinished, and count it as canceled; it is about to leave the history."""
    unfinished = [row for row in rows if row["status"] in UNFINISHED]
    # In one order, as others count for the same models at the same moment.
    for row in sorted(unfinished, key=lambda row: row["model"] or ""):
        quota.refund(user_id, row["id"])
        stats.count(row["id"], CANCELED)


def _leave_history(user_id: int, rows: list[db.Row], into_trash: bool) -> None:
    """Move rows into the trash, or delete them; either way, a tombstone stays."""
    ids = _ids(rows)
    if into_trash:
        _copy_to_trash(ids)
    tags.remove_all(ids)
    _delete_rows(HISTORY, ids)
    for generation_id in ids:
        db.insert("deleted_generations", id=generation_id, user_id=user_id)
    quota.forget_images(user_id, len(ids))
    if any(row["status"] in UNFINISHED for row in rows):
        waiting.recount_within(user_id)


def _copy_to_trash(ids: list[int]) -> None:
    db.execute(
        f"""
        UPDATE image_generations
           SET status = 'canceled', finished_at = CURRENT_TIMESTAMP,
               updated_at = CURRENT_TIMESTAMP
         WHERE id IN ({db.placeholders(ids)}) AND status IN ('pending', 'processing')
        """,
        *ids,
    )
    db.execute(
        f"""
        INSERT INTO trashed_generations ({ROW}, trashed_at)
        SELECT {ROW}, UNIX_TIMESTAMP()
          FROM image_generations
         WHERE id IN ({db.placeholders(ids)})
        """,
        *ids,
    )


def _delete_for_good(user_id: int, rows: list[db.Row]) -> None:
    """Delete what hangs on rows that have left both tables; their files are deleted next."""
    for row in rows:
        cleanup.schedule_deletion(_free_keys(user_id, row, HISTORY, TRASH), after_seconds=0)
    ids = _ids(rows)
    shares.delete_shares_of(ids)
    uploads.forget_uses(ids)
    quota.forget_images(user_id, 0, sum(row["file_bytes"] or 0 for row in rows))


def _ids(rows: list[db.Row]) -> list[int]:
    return [row["id"] for row in rows]


def _delete_rows(table: str, ids: list[int]) -> None:
    db.execute(f"DELETE FROM {table} WHERE id IN ({db.placeholders(ids)})", *ids)


def delete_orphans() -> None:
    """Delete what is left of generations that a process of the release before deleted.

    It is found by a statement of its own, which sees a generation that is being restored together
    with its tags, or neither.
    """
    for table in ("image_tags", "shares", "upload_uses"):
        sql = f"""
               SELECT t.id
                 FROM {table} AS t
            LEFT JOIN image_generations AS g ON g.id = t.generation_id
            LEFT JOIN trashed_generations AS d ON d.id = t.generation_id
                WHERE g.id IS NULL AND d.id IS NULL
                LIMIT 1000
        """
        while ids := [row["id"] for row in db.all(sql)]:
            db.execute(f"DELETE FROM {table} WHERE id IN ({db.placeholders(ids)})", *ids)


# -- In the trash -------------------------------------------------------------------------------


def list_trash(user_id: int, limit: int, after: tuple[int, int] | None = None) -> list[db.Row]:
    """List what is in the user's trash, from what came last, or after a (trashed_at, id).

    Each row is a Generation with its `trashed_at`, in seconds since 1970.
    """
    after_time, after_id = after or (2**62, 0)
    return db.all(
        f"""
          SELECT {history.COLUMNS}, g.trashed_at
            FROM trashed_generations AS g
           WHERE g.user_id = %(user_id)s AND g.trashed_at <= %(after_time)s
             AND (g.trashed_at < %(after_time)s OR g.id < %(after_id)s)
        ORDER BY g.trashed_at DESC, g.id DESC
           LIMIT %(limit)s
        """,
        user_id=user_id,
        after_time=after_time,
        after_id=after_id,
        limit=limit,
    )


def count_trash(user_id: int) -> int:
    return db.value("SELECT COUNT(*) FROM trashed_generations WHERE user_id = %s", user_id)


@db.retried
def restore(user_id: int, ids: list[int]) -> list[int]:
    """Put what is in the user's trash back into the history; return the ids of those there were."""
    with db.transaction():
        quota.lock_user(user_id)
        rows = _lock_rows(TRASH, user_id, ids)
        found = _ids(rows)
        if found:
            _copy_to_history(found)
            tags.enter_again(user_id, rows)
            _leave_trash(found)
            # Another generation in the trash may have the same files.
            withheld.forget_keys([key for row in rows for key in file_keys(row)])
            _delete_rows("deleted_generations", found)
            quota.forget_images(user_id, -len(found))
    return found


def _copy_to_history(ids: list[int]) -> None:
    db.execute(
        f"""
        INSERT INTO image_generations ({ROW})
        SELECT {ROW}
          FROM trashed_generations
         WHERE id IN ({db.placeholders(ids)})
        """,
        *ids,
    )
    db.execute(
        f"""
        UPDATE image_generations
           SET kept_since = UNIX_TIMESTAMP(), updated_at = CURRENT_TIMESTAMP
         WHERE id IN ({db.placeholders(ids)})
        """,
        *ids,
    )


@db.retried
def purge(user_id: int, ids: list[int]) -> list[db.Row]:
    """Delete what is in the user's trash for good, and return what it was.

    The deletion of the files is scheduled for now; the caller may delete them at once.
    """
    with db.transaction():
        quota.lock_user(user_id)
        rows = _lock_rows(TRASH, user_id, ids)
        if rows:
            _leave_trash(_ids(rows))
            _delete_for_good(user_id, rows)
    return rows


def _leave_trash(ids: list[int]) -> None:
    _delete_rows(TRASH, ids)
    withheld.forget(ids)
