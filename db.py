"""Runs SQL: one statement, or several as one change. Which SQL, the topic files of the wings say.

SQL is written for MySQL; `pool.as_sqlite()` puts it in SQLite's words. Values are parameters,
always: in the order of `%s`, or by name for `%(name)s`. A single statement commits itself;
statements that belong together share `with transaction()`, in a function that is `@retried`. Every
function raises Unavailable when the database cannot answer. What it may have done is not repeated.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import pool as pools
from config import settings
from pool import Connection, Duplicate, Result, TooSlow, Unavailable, Values, pool

__all__ = ["Duplicate", "Result", "TooSlow", "Unavailable"]

Row = dict[str, Any]

RETRY_SECONDS = 20
RETRY_INTERVAL_SECONDS = 1
# A wait for a lock, which ends after pool.LOCK_SECONDS, is repeated once; a deadlock many times.
CONFLICT_SECONDS = 6

_thread = threading.local()


def retried(change: Callable[..., Any]) -> Callable[..., Any]:
    """Repeat a function whenever the database took its transaction back, because of another one.

    It is one transaction, and changes nothing but the database. Within one of a caller it is not
    repeated: that one was taken back, too.
    """

    @wraps(change)
    def call(*values: Any, **named: Any) -> Any:
        again = partial(change, *values, **named)
        if _is_in_transaction():
            return again()
        return pools.repeat(again, pools.Conflict, CONFLICT_SECONDS, random.uniform(0, 0.02))

    return call


def retry_while_unavailable(change: Callable[..., Any], *values: Any) -> Any:
    """Make a change that may be repeated; wait up to RETRY_SECONDS for the database to return."""
    again = partial(change, *values)
    return pools.repeat(again, Unavailable, RETRY_SECONDS, RETRY_INTERVAL_SECONDS)


@contextmanager
def transaction() -> Iterator[None]:
    """Make the statements inside one change: all of them or, if anything is raised, none.

    Keep slow work (disk, network, drawing) outside: on SQLite nobody else writes meanwhile.
    """
    _refuse_nesting()
    connection = pool.take(transactional=True)
    _thread.connection = connection
    try:
        connection.begin()
        yield
        connection.run("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise
    else:
        pool.give_back(connection)
    finally:
        _thread.connection = None


def _is_in_transaction() -> bool:
    return getattr(_thread, "connection", None) is not None


def _refuse_nesting() -> None:
    if _is_in_transaction():
        raise RuntimeError("A transaction cannot be opened inside another one")


def _roll_back(connection: Connection) -> None:
    try:
        connection.run("ROLLBACK")
    except Exception:  # whatever is wrong with it, closing it rolls back too
        pool.discard(connection)
    else:
        pool.give_back(connection)


@retried
def run_transaction(*statements: tuple[str, Values]) -> list[Result]:
    """Run statements as one transaction, on MySQL in one round trip; return the result of each.

    Statements may ask ROW_COUNT() how many rows the one before matched, and LAST_INSERT_ID().
    Raises Duplicate and Unavailable; nothing is changed then.
    """
    _refuse_nesting()
    connection = pool.take(transactional=True)
    try:
        connection.begin()
        results = connection.run_all([*statements, ("COMMIT", ())])
    except BaseException:
        pool.discard(connection)  # which rolls back
        raise
    pool.give_back(connection)
    return results[:-1]


def execute(sql: str, *values: Any, **named: Any) -> Result:
    """Run one statement, in the open transaction if there is one. Raises Duplicate, Unavailable."""
    return _run(sql, named or values)


@retried
def _run(sql: str, values: Values, seconds: int = 0) -> Result:
    if _is_in_transaction():
        return _thread.connection.run(sql, values, seconds)
    connection = pool.take()
    try:
        result = connection.run(sql, values, seconds)
    except (Duplicate, TooSlow):
        pool.give_back(connection)
        raise
    except BaseException:
        pool.discard(connection)
        raise
    pool.give_back(connection)
    return result


def all(sql: str, *values: Any, **named: Any) -> list[Row]:
    return execute(sql, *values, **named).rows


def all_within(seconds: int, sql: str, **named: Any) -> list[Row]:
    """Return the rows of a SELECT that may take only so many seconds. Raises TooSlow."""
    return _run(sql, named, seconds).rows


def one(sql: str, *values: Any, **named: Any) -> Row | None:
    rows = execute(sql, *values, **named).rows
    return rows[0] if rows else None


def value(sql: str, *values: Any, **named: Any) -> Any:
    """Return the first column of the first row. There must be a row, as with COUNT(*)."""
    row = execute(sql, *values, **named).rows[0]
    return next(iter(row.values()))


def insert(table: str, **columns: Any) -> int:
    """Add a row and return its id. Raises Duplicate. The names are ours, never a client's."""
    names = ", ".join(columns)
    sql = f"INSERT INTO {table} ({names}) VALUES ({placeholders(columns)})"
    return execute(sql, *columns.values()).new_id


def delete_some(table: str, user_id: int, most: int) -> int:
    """Delete up to so many of a user's rows, and return how many. The name is ours."""
    sql = f"DELETE FROM {table} WHERE user_id = %s LIMIT %s"
    if not settings.uses_mysql:  # SQLite has no LIMIT there
        some = f"SELECT rowid FROM {table} WHERE user_id = %s LIMIT %s"
        sql = f"DELETE FROM {table} WHERE rowid IN ({some})"
    return execute(sql, user_id, most).count


def erase_deleted() -> None:
    """Leave nothing that was deleted readable in SQLite's files; a server sees to its own."""
    if not settings.uses_mysql:
        execute("PRAGMA wal_checkpoint(TRUNCATE)")


def placeholders(values: Any) -> str:
    """Return as many %s as there are values, for `IN (…)` and `VALUES (…)`."""
    return ", ".join(["%s"] * len(values))
