"""SQL of the bytes that images take: `file_bytes` of generations in the history and in the trash.

`storage_bytes` of a user is their sum; each change of the one changes the other in the same
transaction. Image and thumbnail count, an avatar does not. A row of an older program has NULL, as
nothing, until fill_sizes() has looked at its files.
"""

from collections.abc import Iterator
from typing import Any

import db
from files import cleanup, storage
from images import quota, trash

TABLES = (trash.HISTORY, trash.TRASH)
# So many rows are looked through at once.
LOOK_ROWS = 1000
# How the URL of each image that this program stored begins; the id of its user follows.
FOLDER = storage.url("generated_images/")


def size_of(row: db.Row) -> int | None:
    """Return the bytes of an image and its thumbnail; None if neither is there."""
    sizes = [storage.size(key) for key in trash.file_keys(row)]
    found = [size for size in sizes if size is not None]
    return sum(found) if found else None


def list_rows(table: str, condition: str = "image_url IS NOT NULL") -> Iterator[list[db.Row]]:
    """List the rows of one of TABLES that have files, some at a time."""
    done = 0
    while last := db.retry_while_unavailable(_last_of_next, table, done):
        yield db.retry_while_unavailable(_list_between, table, condition, done, last)
        done = last


def _last_of_next(table: str, after_id: int) -> int | None:
    return db.value(
        f"""
        SELECT MAX(id)
          FROM (SELECT id FROM {table} WHERE id > %s ORDER BY id LIMIT %s) AS next
        """,
        after_id,
        LOOK_ROWS,
    )


def _list_between(table: str, condition: str, after_id: int, last_id: int) -> list[db.Row]:
    return db.all(
        f"""
          SELECT id, user_id, image_url, thumbnail_url, file_bytes
            FROM {table}
           WHERE id > %s AND id <= %s AND {condition}
        ORDER BY id
        """,
        after_id,
        last_id,
    )


def get_row(table: str, row: db.Row) -> db.Row | None:
    """Return a row of list_rows() as it is now, if it still has these files."""
    return db.one(
        f"""
        SELECT id, user_id, image_url, thumbnail_url, file_bytes
          FROM {table}
         WHERE id = %(id)s AND user_id = %(user_id)s AND image_url = %(image_url)s
        """,
        id=row["id"],
        user_id=row["user_id"],
        image_url=row["image_url"],
    )


# -- Sizes of rows that have none ---------------------------------------------------------------


def fill_sizes() -> None:
    """Give rows of older programs their bytes; may be stopped and go on, and run many at once."""
    for table in TABLES:
        for rows in list_rows(table, "image_url IS NOT NULL AND file_bytes IS NULL"):
            sizes_of_users = {}
            for row in rows:
                size = size_of(row)
                if size is not None:
                    sizes_of_users.setdefault(row["user_id"], {})[row["id"]] = size
            for user_id, sizes in sizes_of_users.items():
                db.retry_while_unavailable(_fill, table, user_id, sizes)


@db.retried
def _fill(table: str, user_id: int, sizes: dict[int, int]) -> None:
    sql = f"""
        UPDATE {table}
           SET file_bytes = %s, updated_at = updated_at
         WHERE id = %s AND file_bytes IS NULL
    """
    with db.transaction():
        quota.lock_user(user_id)
        filled = [size for row_id, size in sizes.items() if db.execute(sql, size, row_id).count]
        quota.add_bytes(user_id, sum(filled))


# -- What `flask storage check` asks and repairs ------------------------------------------------


@db.retried
def set_size(table: str, row: db.Row, size: int) -> None:
    """Correct the bytes of a row, and with it those of its user."""
    with db.transaction():
        quota.lock_user(row["user_id"])
        before = get_row(table, row)
        if before:
            sql = f"UPDATE {table} SET file_bytes = %s, updated_at = updated_at WHERE id = %s"
            db.execute(sql, size, row["id"])
            quota.add_bytes(row["user_id"], size - (before["file_bytes"] or 0))


@db.retried
def mark_lost(table: str, row: db.Row, code: str, message: str) -> bool:
    """Note that the image of a row is not there any more; False if the row has changed."""
    with db.transaction():
        quota.lock_user(row["user_id"])
        before = get_row(table, row)
        if before:
            db.execute(
                f"""
                UPDATE {table}
                   SET status = 'failed', error_code = %s, error_message = %s,
                       image_url = NULL, thumbnail_url = NULL, image_filename = NULL,
                       file_bytes = NULL, updated_at = CURRENT_TIMESTAMP
                 WHERE id = %s
                """,
                code,
                message,
                row["id"],
            )
            quota.add_bytes(row["user_id"], -(before["file_bytes"] or 0))
    return before is not None


def list_files_of(user_id: int) -> list[db.Row]:
    """List what the user's rows name, in one statement: none is missed that moves meanwhile."""
    return _list_from_both("user_id = %(user_id)s", user_id=user_id)


def list_odd_rows() -> list[db.Row]:
    """List likewise what rows of old programs name elsewhere than in their user's folder."""
    return _list_from_both(f"{_is_odd('image_url')} OR {_is_odd('thumbnail_url')}", folder=FOLDER)


def _list_from_both(condition: str, **values: Any) -> list[db.Row]:
    parts = [
        f"""
        SELECT image_url, thumbnail_url
          FROM {table}
         WHERE (image_url IS NOT NULL OR thumbnail_url IS NOT NULL) AND ({condition})
        """
        for table in TABLES
    ]
    return db.all(" UNION ALL ".join(parts), **values)


def _is_odd(column: str) -> str:
    rest = f"SUBSTR({column}, {len(FOLDER) + 1})"
    return f"""
        (SUBSTR({column}, 1, {len(FOLDER)}) <> %(folder)s
         OR SUBSTR({rest}, 1, LENGTH(user_id)) <> user_id
         OR SUBSTR({rest}, LENGTH(user_id) + 1, 1) <> '/')
    """


def has_images() -> bool:
    return (
        db.one("SELECT id FROM image_generations WHERE image_url IS NOT NULL LIMIT 1") is not None
    )


@db.retried
def keep(table: str, row: db.Row, key: str) -> bool:
    """Keep a file for a row; False if that has changed, or if it is too late."""
    with db.transaction():
        quota.lock_user(row["user_id"])
        return get_row(table, row) is not None and cleanup.keep(key)
