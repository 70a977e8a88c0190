"""SQL of `pending_deletions`: files to be deleted at a time, unless a row keeps them.

A file is entered before it is written, and kept in the transaction that records it in a row; when
the row goes, it is entered again. So whatever process is killed, no file is left that nobody has.
"""

import logging
from contextlib import suppress

import db
from files import storage

# After this, a file that could not be deleted is tried again.
RETRY_SECONDS = 3600
# Nothing is entered for later than this; if it seems so, the database's clock was wrong.
MAX_SECONDS = 86400
# So many are looked up by one statement.
LOOKED_UP = 500

# So long a sweep is at one folder, because the heartbeats of a worker wait for it.
FOLDER_SECONDS = 1

log = logging.getLogger("cleanup")

TABLE = "pending_deletions"
# While machines are upgraded one by one, those of the release before enter files here.
TABLE_BEFORE = "doomed_files"


def schedule_deletion(keys: list[str], after_seconds: int) -> None:
    """Enter files to be deleted after a time. The key of a folder ends with a slash."""
    for key in keys:
        db.execute(
            """
            INSERT INTO pending_deletions (file_key, due_at)
            VALUES (%(key)s, UNIX_TIMESTAMP() + %(seconds)s)
                ON DUPLICATE KEY UPDATE due_at = due_at
            """,
            key=key,
            seconds=after_seconds,
        )


def keep(key: str) -> bool:
    """Take a file off the list because some row now has it; False if it is too late for that."""
    sql = "DELETE FROM pending_deletions WHERE file_key = %s AND due_at > UNIX_TIMESTAMP()"
    return db.execute(sql, key).count > 0


def list_pending(keys: list[str]) -> set[str]:
    """Return those of the files that are on the list."""
    found = set()
    for first in range(0, len(keys), LOOKED_UP):
        some = keys[first : first + LOOKED_UP]
        for table in (TABLE, TABLE_BEFORE):
            sql = f"SELECT file_key FROM {table} WHERE file_key IN ({db.placeholders(some)})"
            found |= {row["file_key"] for row in db.all(sql, *some)}
    return found


def delete_expired() -> bool:
    """Delete the files whose time has come; any number of workers may do so at the same time.

    Tells if there was time for all of them.
    """
    all_done = True
    for table in (TABLE, TABLE_BEFORE):
        rows = db.all(
            f"""
              SELECT file_key
                FROM {table}
               WHERE due_at <= UNIX_TIMESTAMP() OR due_at > UNIX_TIMESTAMP() + %s
            ORDER BY due_at
               LIMIT 200
            """,
            MAX_SECONDS,
        )
        try:
            for row in rows:
                all_done &= _delete(row["file_key"], table)
        except storage.Unavailable as error:
            log.warning("the storage is away", extra={"details": {"cause": str(error.__cause__)}})
            return True
    return all_done


def delete_files(keys: list[str]) -> bool:
    """Delete files and folders on the list at once; a sweep does what cannot be done now.

    False means that there is no use in more of it for now.
    """
    with suppress(db.Unavailable, storage.Unavailable):
        for key in keys:
            _delete(key, TABLE)
        return True
    return False


def delete_folder(key: str, seconds: float) -> bool:
    """Delete a folder on the list at once, as far as the time allows; sweeps go on with it.

    Tells if it is gone.
    """
    with suppress(storage.Unavailable):
        _delete(key, TABLE, seconds)
    return db.one(f"SELECT file_key FROM {TABLE} WHERE file_key = %s", key) is None


def delete_unkept(key: str) -> None:
    """Delete a file at once, unless a row has it after all: the answer to keep() may be lost.

    A store elsewhere may be about to write what it did not answer to; there it is done by a sweep,
    at the time that the file was entered for.
    """
    if storage.is_remote():
        return
    sql = f"UPDATE {TABLE} SET due_at = UNIX_TIMESTAMP() WHERE file_key = %s"
    with suppress(db.Unavailable):
        if db.execute(sql, key).count:
            delete_files([key])


def _delete(key: str, table: str, seconds: float = FOLDER_SECONDS) -> bool:
    """Delete a file or folder; one that cannot be is tried again later, and stops nothing else.

    False means that there was no time for all that is in the folder. Raises storage.Unavailable,
    and leaves it on the list.
    """
    try:
        if key.endswith("/"):
            if not storage.delete_folder(key, seconds):
                return False
        else:
            storage.delete(key)
    except OSError as error:
        details = {"key": key, "cause": str(error)}
        log.warning("a file cannot be deleted", extra={"details": details})
        sql = f"UPDATE {table} SET due_at = UNIX_TIMESTAMP() + %s WHERE file_key = %s"
        db.execute(sql, RETRY_SECONDS, key)
    else:
        db.execute(f"DELETE FROM {table} WHERE file_key = %s", key)
    return True
