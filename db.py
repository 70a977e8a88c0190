"""All SQL of the service: one function per question or change, the same statements on MySQL and SQLite.

A single statement commits itself; statements that belong together share `with transaction()`.
Every function raises Unavailable when the database cannot answer, and none sends a statement twice.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pool import Duplicate, Result, Unavailable, pool

__all__ = ["Duplicate", "Unavailable"]  # what callers catch

Row = dict[str, Any]

_thread = threading.local()

# -- Running statements -------------------------------------------------------------------------


@contextmanager
def transaction() -> Iterator[None]:
    """Make the statements inside one change: all of them or, if anything is raised, none.

    Keep slow work (disk, network, drawing) outside: on SQLite nobody else writes meanwhile.
    """
    connection = pool.take()
    _thread.connection = connection
    try:
        connection.run(connection.BEGIN)
        yield
        connection.run("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise
    else:
        pool.give_back(connection)
    finally:
        _thread.connection = None


def _roll_back(connection: Any) -> None:
    try:
        connection.run("ROLLBACK")
    except Exception:  # whatever is wrong with it, closing it rolls back too
        pool.discard(connection)
    else:
        pool.give_back(connection)


def execute(sql: str, *values: Any) -> Result:
    """Run one statement, inside the open transaction if there is one. Raises Duplicate, Unavailable."""
    connection = getattr(_thread, "connection", None)
    if connection:
        return connection.run(sql, values)
    connection = pool.take()
    try:
        result = connection.run(sql, values)
    except Duplicate:
        pool.give_back(connection)
        raise
    except BaseException:
        pool.discard(connection)
        raise
    pool.give_back(connection)
    return result


def rows(sql: str, *values: Any) -> list[Row]:
    return execute(sql, *values).rows


def one(sql: str, *values: Any) -> Row | None:
    found = execute(sql, *values).rows
    return found[0] if found else None


def value(sql: str, *values: Any) -> Any:
    """Return the first column of the first row. There must be a row, as with COUNT(*)."""
    return next(iter(execute(sql, *values).rows[0].values()))


# -- Users --------------------------------------------------------------------------------------


def create_user(username: str, username_key: str, email: str, email_key: str, password_hash: str,
                avatar_url: str | None = None) -> int:  # fmt: skip
    """Add an account and return its id. Raises Duplicate if the name or the email is taken."""
    return execute(
        """
        INSERT INTO users (username, username_key, email, email_key, password_hash, avatar_url)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        username, username_key, email, email_key, password_hash, avatar_url,
    ).new_id  # fmt: skip


def get_user(user_id: int) -> Row | None:
    return one(
        """
        SELECT id, username, email, avatar_url, created_at, role, is_disabled, token_version,
               settled_count, settled_id
          FROM users
         WHERE id = %s
        """,
        user_id,
    )


def get_user_for_login(username_key: str, legacy_key: str) -> Row | None:
    """Return the account of that name, with its password hash.

    A legacy key belongs to an old account whose name differs from another's by no more than case
    or Unicode form; its owner is found by the exact name.
    """
    return one(
        """
          SELECT id, username, email, avatar_url, password_hash, is_disabled, token_version
            FROM users
           WHERE username_key IN (%s, %s)
        ORDER BY CASE username_key WHEN %s THEN 0 ELSE 1 END
           LIMIT 1
        """,
        username_key, legacy_key, legacy_key,
    )  # fmt: skip


def list_taken(username_key: str, email_key: str) -> list[Row]:
    """List the keys of the accounts that hold this name or this email."""
    return rows(
        "SELECT username_key, email_key FROM users WHERE username_key = %s OR email_key = %s",
        username_key, email_key,
    )  # fmt: skip


def list_users() -> list[Row]:
    return rows("SELECT id, username, email, role, is_disabled, created_at FROM users ORDER BY id")


def set_password_hash(user_id: int, password_hash: str, old_hash: str) -> bool:
    """Replace the hash unless another request has replaced it meanwhile; sessions go on."""
    return bool(
        execute(
            "UPDATE users SET password_hash = %s WHERE id = %s AND password_hash = %s",
            password_hash, user_id, old_hash,
        ).count
    )  # fmt: skip


def change_password(user_id: int, password_hash: str) -> bool:
    """Set a new password and end every session of the account."""
    return bool(
        execute(
            "UPDATE users SET password_hash = %s, token_version = token_version + 1 WHERE id = %s",
            password_hash, user_id,
        ).count
    )  # fmt: skip


def set_disabled(user_id: int, is_disabled: bool) -> bool:
    """Close or reopen an account; either way its sessions end."""
    return bool(
        execute(
            "UPDATE users SET is_disabled = %s, token_version = token_version + 1 WHERE id = %s",
            int(is_disabled), user_id,
        ).count
    )  # fmt: skip


def delete_user(user_id: int) -> bool:
    """Delete the account with its whole history. The caller removes the files."""
    with transaction():
        one("SELECT id FROM users WHERE id = %s FOR UPDATE", user_id)
        execute("DELETE FROM image_generations WHERE user_id = %s", user_id)
        return bool(execute("DELETE FROM users WHERE id = %s", user_id).count)


def list_users_without_keys(limit: int) -> list[Row]:
    return rows("SELECT id, username, email FROM users WHERE username_key IS NULL ORDER BY id LIMIT %s", limit)


def set_user_keys(user_id: int, username_key: str, email_key: str) -> None:
    """Give an old account its keys. Raises Duplicate if another account has one of them."""
    execute(
        "UPDATE users SET username_key = %s, email_key = %s WHERE id = %s AND username_key IS NULL",
        username_key, email_key, user_id,
    )  # fmt: skip


# -- Attempts: counters with an end, shared by all processes and machines -------------------------


def count_attempt(name: str, window_seconds: int) -> tuple[int, int]:
    """Add one to a counter and return (hits, seconds until it starts anew)."""
    counted = _count(name, window_seconds)
    if not counted:
        # On its own, outside the transaction: after an UPDATE that found no row, MySQL holds a lock
        # on the gap, and two requests that both insert into it would deadlock.
        with suppress(Duplicate):
            execute("INSERT INTO attempts (name, hits, expires_at) VALUES (%s, 0, 0)", name)
        counted = _count(name, window_seconds)
    return counted["hits"], counted["seconds_left"]


def _count(name: str, window_seconds: int) -> Row | None:
    with transaction():
        execute(
            """
            UPDATE attempts
               SET hits = CASE WHEN expires_at > UNIX_TIMESTAMP() THEN hits + 1 ELSE 1 END,
                   expires_at = CASE WHEN expires_at > UNIX_TIMESTAMP() THEN expires_at
                                     ELSE UNIX_TIMESTAMP() + %s END
             WHERE name = %s
            """,
            window_seconds, name,
        )  # fmt: skip
        return get_attempts(name)


def get_attempts(name: str) -> Row | None:
    """Return {hits, seconds_left} of a counter, or None if it is not running."""
    return one(
        """
        SELECT hits, expires_at - UNIX_TIMESTAMP() AS seconds_left
          FROM attempts
         WHERE name = %s AND expires_at > UNIX_TIMESTAMP()
        """,
        name,
    )


def forgive_attempt(name: str) -> None:
    """Take back one hit, after an attempt that turned out to be a good one."""
    execute("UPDATE attempts SET hits = hits - 1 WHERE name = %s AND hits > 0", name)


def delete_old_attempts() -> int:
    """Delete the counters that have run out; a new attempt starts from nothing either way."""
    return execute("DELETE FROM attempts WHERE expires_at < UNIX_TIMESTAMP()").count


# -- Generations --------------------------------------------------------------------------------

# A history can hold millions of rows, and counting them takes a database 100 ms and more. So a user's
# row keeps `settled_count`, the number of generations up to `settled_id`; only newer ones are counted.
SETTLE_AFTER = 200


def create_generation(user_id: int, **columns: Any) -> int:
    """Add a generation and return its id."""
    names = ", ".join(["user_id", *columns])
    places = ", ".join(["%s"] * (len(columns) + 1))
    with transaction():
        # Every insert takes its user's row first. While settle_generations() holds it, no row of
        # this user can be on its way with a lower id than the ones already seen.
        one("SELECT id FROM users WHERE id = %s FOR UPDATE", user_id)
        sql = "INSERT INTO image_generations (" + names + ") VALUES (" + places + ")"  # noqa: S608 our names
        return execute(sql, user_id, *columns.values()).new_id


def list_generations(user: Row, limit: int, offset: int) -> tuple[list[Row], int]:
    """Return one page of the user's generations, newest first, and how many there are in all."""
    page = rows(
        """
          SELECT g.id, g.prompt_text, g.image_url, g.thumbnail_url, g.status, g.created_at, g.updated_at,
                 g.generation_params_json, g.error_message,
                 (SELECT COUNT(*) FROM image_generations WHERE user_id = %s AND id > %s) AS unsettled
            FROM (SELECT id
                    FROM image_generations
                   WHERE user_id = %s
                ORDER BY created_at DESC, id DESC
                   LIMIT %s OFFSET %s) AS page
            JOIN image_generations AS g ON g.id = page.id
        ORDER BY g.created_at DESC, g.id DESC
        """,
        user["id"], user["settled_id"], user["id"], limit, offset,
    )  # fmt: skip
    unsettled = page[0]["unsettled"] if page else count_unsettled(user)
    if unsettled > SETTLE_AFTER:
        settle_generations(user["id"])
    return page, user["settled_count"] + unsettled


def count_unsettled(user: Row) -> int:
    return value(
        "SELECT COUNT(*) FROM image_generations WHERE user_id = %s AND id > %s",
        user["id"],
        user["settled_id"],
    )


def settle_generations(user_id: int) -> None:
    """Count the user's newer generations once and for all into the user's row."""
    with transaction():
        user = one("SELECT id, settled_id FROM users WHERE id = %s FOR UPDATE", user_id)
        newer = one(
            "SELECT COUNT(*) AS number, MAX(id) AS last_id FROM image_generations WHERE user_id = %s AND id > %s",
            user_id, user["settled_id"],
        )  # fmt: skip
        if newer["number"]:
            execute(
                "UPDATE users SET settled_count = settled_count + %s, settled_id = %s WHERE id = %s",
                newer["number"], newer["last_id"], user_id,
            )  # fmt: skip


def list_filenames(user_id: int) -> list[str]:
    """List the image files of a user's generations, thumbnails not included."""
    return [
        row["image_filename"]
        for row in rows(
            "SELECT image_filename FROM image_generations WHERE user_id = %s AND image_filename IS NOT NULL",
            user_id,
        )
    ]
