"""All SQL of the service: one function per question or change, the same statements on MySQL and SQLite.

A single statement commits itself; statements that belong together share `with transaction()`.
Every function raises Unavailable when the database cannot answer, and none sends a statement twice.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from config import settings
from errors import ApiError
from pool import Duplicate, Result, Unavailable, pool

__all__ = ["Duplicate", "Unavailable"]  # what callers catch

Row = dict[str, Any]


class Revoked(ApiError):
    """The account is gone or closed, or its sessions were ended since the token was made."""

    code = "token_invalid"


# How long a finished image waits for a database that is away, rather than be made again.
PATIENCE_SECONDS = 20

_thread = threading.local()

# -- Running statements -------------------------------------------------------------------------


@contextmanager
def transaction() -> Iterator[None]:
    """Make the statements inside one change: all of them or, if anything is raised, none.

    Keep slow work (disk, network, drawing) outside: on SQLite nobody else writes meanwhile.
    """
    connection = pool.take(autocommit=False)
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


def insert(table: str, **columns: Any) -> int:
    """Add a row and return its id. Raises Duplicate. The names are ours, never a client's."""
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    return execute(
        "INSERT INTO " + table + " (" + names + ") VALUES (" + places + ")", *columns.values()
    ).new_id


def transact(*statements: tuple[str, tuple]) -> list[Result]:
    """Run statements as one transaction, if possible in one trip to the database. Raises Duplicate, Unavailable.

    Each may ask, by ROW_COUNT(), how many rows the one before matched.
    """
    if not (settings.uses_mysql and settings.MYSQL_PIPELINING):
        with transaction():
            return [execute(sql, *values) for sql, values in statements]
    connection = pool.take(autocommit=False)
    try:
        results = connection.transact(statements)
    except BaseException:
        pool.discard(connection)  # which rolls back
        raise
    pool.give_back(connection)
    return results


def patiently(change: Callable[..., Any], *values: Any) -> Any:
    """Make a change that may be repeated, waiting up to PATIENCE_SECONDS for a database that is away."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return change(*values)
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(1)


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
        SELECT id, username, email, avatar_url, created_at, is_disabled, token_version
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


def delete_user(user_id: int, file_keys: list[str]) -> bool:
    """Delete the account with its whole history. These files are doomed with it; the caller removes them."""
    with transaction():
        one("SELECT id FROM users WHERE id = %s FOR UPDATE", user_id)
        execute("DELETE FROM image_generations WHERE user_id = %s", user_id)
        doom_files(file_keys, 0)
        return bool(execute("DELETE FROM users WHERE id = %s", user_id).count)


def list_users_without_keys(limit: int) -> list[Row]:
    return rows(
        "SELECT id, username, email FROM users WHERE username_key IS NULL ORDER BY id LIMIT %s",
        limit,
    )


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


RECORD = """
       g.id, g.prompt_text, g.image_url, g.thumbnail_url, g.status, g.created_at,
       g.updated_at, g.generation_params_json, g.error_message, g.error_code, g.error_detail, g.model,
       g.width, g.height, g.progress, g.favorite, g.started_at, g.finished_at
"""

# The record of a generation just submitted, less what the submit says.
NEW_RECORD = dict.fromkeys(
    (
        "image_url",
        "thumbnail_url",
        "error_message",
        "error_code",
        "error_detail",
        "started_at",
        "finished_at",
    )
) | {"progress": 0, "favorite": 0}

HISTORY_FILTERS = {
    "status": "status = %s",
    "favorite": "favorite = %s",
    "model": "model = %s",
    "since": "created_at >= %s",
    "until": "created_at <= %s",
    "q": "prompt_text LIKE %s ESCAPE '!'",
}
# A filtered history is counted up to here; beyond, a client learns only that there are more.
COUNT_AT_MOST = 1000


def list_generations(user: Row, limit: int, offset: int = 0, after: tuple[str, int] | None = None,
                     filters: Row | None = None) -> tuple[list[Row], int]:  # fmt: skip
    """Return one page of the user's generations, newest first, and how many there are on all pages.

    The page begins at the offset, or after a (created_at, id). With filters the count ends at COUNT_AT_MOST.
    The statement also makes the check that every request makes, whether the account still stands: raises Revoked.
    """
    where, values = _history_where(user["id"], filters or {})
    total_sql, total_values = _total_sql(where, values) if filters else (SETTLED_TOTAL, [])
    if after:
        where += " AND created_at <= %s AND (created_at < %s OR id < %s)"
        values = [*values, after[0], after[0], after[1]]
    # The inner query reads an index alone, so that a deep page costs little; to order by its columns, not by
    # those of the rows, spares MySQL a temporary table on disk for their texts.
    found = rows(
        "SELECT u.settled_count, u.total, " + RECORD + ""
        "  FROM (SELECT settled_count, " + total_sql + " AS total FROM users"
        "         WHERE id = %s AND token_version = %s AND is_disabled = 0) AS u"
        "  LEFT JOIN (SELECT id, created_at FROM image_generations WHERE " + where + ""
        "              ORDER BY created_at DESC, id DESC LIMIT %s OFFSET %s) AS page ON 1 = 1"
        "  LEFT JOIN image_generations AS g ON g.id = page.id"
        " ORDER BY page.created_at DESC, page.id DESC",
        *total_values, user["id"], user["token_version"], *values, limit, offset,
    )  # fmt: skip
    if not found:
        raise Revoked
    total = found[0]["total"]
    if not filters and total - found[0]["settled_count"] > SETTLE_AFTER:
        settle_generations(user["id"])
    return [row for row in found if row["id"]], total


SETTLED_TOTAL = "settled_count + (SELECT COUNT(*) FROM image_generations WHERE user_id = users.id AND id > users.settled_id)"


def _history_where(user_id: int, filters: Row) -> tuple[str, list[Any]]:
    """Return our own clauses for the filters a client picked, and their values."""
    values = dict(filters)
    if "q" in values:
        text = values["q"].replace("!", "!!").replace("%", "!%").replace("_", "!_")
        values["q"] = "%" + text + "%"
    clauses = ["user_id = %s", *(HISTORY_FILTERS[name] for name in values)]
    return " AND ".join(clauses), [user_id, *values.values()]


def _total_sql(where: str, values: list[Any]) -> tuple[str, list[Any]]:
    few = "SELECT 1 AS found FROM image_generations WHERE " + where + " LIMIT %s"
    return "(SELECT COUNT(*) FROM (" + few + ") AS few)", [*values, COUNT_AT_MOST]


def list_owned(user_id: int, ids: list[int]) -> list[Row]:
    """Return those of the generations that are the user's."""
    places = ", ".join(["%s"] * len(ids))
    return rows(
        "SELECT " + RECORD + " FROM image_generations AS g WHERE g.user_id = %s AND g.id IN (" + places + ")"
        " ORDER BY g.id",
        user_id, *ids,
    )  # fmt: skip


def get_user_and_generation(user_id: int, generation_id: int) -> tuple[Row | None, Row | None]:
    """Return the account, as far as a check of its token needs it, and its generation, each if it is there.

    In one statement, because a page that waits for an image asks for them again and again.
    """
    row = one(
        "SELECT u.id AS caller_id, u.is_disabled, u.token_version, " + RECORD + " FROM users AS u"
        " LEFT JOIN image_generations AS g ON g.id = %s AND g.user_id = u.id WHERE u.id = %s",
        generation_id, user_id,
    )  # fmt: skip
    if not row:
        return None, None
    user = {
        "id": row["caller_id"],
        "is_disabled": row["is_disabled"],
        "token_version": row["token_version"],
    }
    return user, row if row["id"] else None


def was_deleted(user_id: int, generation_id: int) -> bool:
    return bool(
        one(
            "SELECT id FROM deleted_generations WHERE id = %s AND user_id = %s",
            generation_id,
            user_id,
        )
    )


def set_favorite(user_id: int, generation_id: int, favorite: bool) -> bool:
    return bool(
        execute(
            "UPDATE image_generations SET favorite = %s, updated_at = CURRENT_TIMESTAMP WHERE id = %s AND user_id = %s",
            int(favorite), generation_id, user_id,
        ).count
    )  # fmt: skip


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


def delete_generations(user_id: int, ids: list[int]) -> list[Row]:
    """Delete those of the generations that are the user's, and return what they were.

    Their files are doomed with them; the caller removes them at once, and a sweep makes up for a crash.
    """
    with transaction():
        user = _lock_user(user_id)
        # Their rows too, or a worker could complete one, and take its files over, while we delete it.
        places = ", ".join(["%s"] * len(ids))
        rows(
            "SELECT id FROM image_generations WHERE user_id = %s AND id IN (" + places + ") ORDER BY id FOR UPDATE",
            user_id, *ids,
        )  # fmt: skip
        found = list_owned(user_id, ids)
        for row in found:
            if row["status"] in UNFINISHED:
                _refund(row["id"], user_id)
            execute("DELETE FROM image_generations WHERE id = %s", row["id"])
            execute(
                "INSERT INTO deleted_generations (id, user_id) VALUES (%s, %s)", row["id"], user_id
            )
            doom_files(file_keys(row), 0)
        settled = sum(row["id"] <= user["settled_id"] for row in found)
        execute(
            "UPDATE users SET settled_count = settled_count - %s WHERE id = %s", settled, user_id
        )
    return found


def file_keys(generation: Row) -> list[str]:
    """Return the storage keys of an image and its thumbnail, which an old row may have as one file."""
    urls = {generation["image_url"], generation["thumbnail_url"]} - {None, ""}
    return sorted(file_key(url) for url in urls)


def file_key(url: str) -> str:
    """Return the storage key behind a URL; it never is that of a folder."""
    return url.partition("/uploads/")[2][:190].rstrip("/")


# -- The queue: pending rows of image_generations -------------------------------------------------

UNFINISHED = ("pending", "processing")
KEY_SECONDS = 7 * 86400


class TooManyActive(ApiError):
    code = "too_many_active_jobs"


class QuotaSpent(ApiError):
    code = "quota_spent"


class QueueFull(ApiError):
    code = "queue_full"


class KeyReused(ApiError):
    code = "key_reused"


def _lock_user(user_id: int) -> Row:
    """Lock the user's row until the end of the transaction. It is always locked first: no deadlocks."""
    return one(
        """
        SELECT id, settled_id, token_version, is_disabled, quota_day, quota_used
          FROM users
         WHERE id = %s
           FOR UPDATE
        """,
        user_id,
    )


def submit_generations(user: Row, generations: list[Row], key: str | None, body_hash: str,
                       hold_seconds: int = 0) -> list[Row]:  # fmt: skip
    """Queue generations, all or none, and return their records; for a key used before, those it made.

    Raises Revoked, KeyReused, TooManyActive, QuotaSpent, QueueFull, all decided while the user's row is locked,
    so that requests at the same moment cannot share a last place.
    """
    user_id, number, now = user["id"], len(generations), clock()
    today = now // 86400
    new = [_new_generation(user_id, columns, now, hold_seconds) for columns in generations]
    is_queue_long = _is_queue_long()
    if not key and not is_queue_long and (ids := _submit_at_once(user, new, today)):
        return [_record(row, number) for row, number in zip(new, ids, strict=True)]
    with transaction():
        refusal = _take_places(user, number, today)
        if key and (earlier := _earlier(user_id, key, body_hash)):
            _give_places_back(user_id, 0 if refusal else number)
            return list_owned(user_id, earlier)
        if refusal:
            raise refusal
        if is_queue_long:
            _check_queue(number)
        records = [_record(row, insert("image_generations", **row)) for row in new]
        if key:
            ids = ",".join(str(record["id"]) for record in records)
            execute(
                "INSERT INTO idempotency_keys (user_id, idempotency_key, body_hash, generation_ids, expires_at)"
                " VALUES (%s, %s, %s, %s, %s)",
                user_id, key, body_hash, ids, now + KEY_SECONDS,
            )  # fmt: skip
    return records


def _new_generation(user_id: int, columns: Row, now: int, hold_seconds: int) -> Row:
    created_at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now))
    not_before = now + hold_seconds if hold_seconds else 0
    hidden = {"user_id": user_id, "not_before": not_before, "quota_day": now // 86400}
    return {**columns, "created_at": created_at, "updated_at": created_at, **hidden}


def _record(new: Row, generation_id: int) -> Row:
    """Return what list_owned() would of a generation just added."""
    return {**NEW_RECORD, **new, "id": generation_id}


def _submit_at_once(user: Row, new: list[Row], today: int) -> list[int]:
    """Count and insert generations in one trip, and return their ids; if that takes a closer look, do nothing.

    Statements sent one by one would keep the user's row locked for three trips.
    """
    names, places = ", ".join(new[0]), ", ".join(["%s"] * len(new[0]))
    insert_next = (
        "INSERT INTO image_generations ("
        + names
        + ") SELECT "
        + places
        + " FROM DUAL WHERE ROW_COUNT() = 1"
    )
    taken, *added = transact(
        (TAKE_PLACES, _places(user, len(new), today)),
        *((insert_next, tuple(row.values())) for row in new),
    )
    return [result.new_id for result in added] if taken.count else []


def clock() -> int:
    """Return the database's clock in seconds, by our own monotonic one and their difference of this minute."""
    return int(time.monotonic() + _clock_difference(int(time.monotonic() / 60)))


@lru_cache(maxsize=1)
def _clock_difference(minute: int) -> float:
    return float(value("SELECT UNIX_TIMESTAMP(NOW(6))")) - time.monotonic()


def _take_places(user: Row, number: int, today: int) -> ApiError | None:
    """Count images into the user's day and among the unfinished, which also locks the user's row.

    Returns why there is no room for them. Raises Revoked if the account has not the token_version of the session,
    or is closed: for a submit, this is the check that every request makes, without a statement of its own.
    """
    taken = execute(TAKE_PLACES, *_places(user, number, today)).count
    return None if taken else _take_last_places(user, number, today)


# A submit raises `active_at_most`, but nothing that ends lowers it: only when it says that there may be too many
# are the unfinished counted, because a count for each submit costs as much as its INSERT.
TAKE_PLACES = """
    UPDATE users
       SET quota_used = quota_used + %s, active_at_most = active_at_most + %s
     WHERE id = %s AND token_version = %s AND is_disabled = 0
       AND quota_day = %s AND quota_used <= %s AND active_at_most <= %s
"""


def _places(user: Row, number: int, today: int) -> tuple[int, ...]:
    room = settings.DAILY_IMAGES - number, settings.MAX_ACTIVE_JOBS - number
    return number, number, user["id"], user["token_version"], today, *room


def _take_last_places(user: Row, number: int, today: int) -> ApiError | None:
    """Do the same when it is the user's first submit of the day, or there may be no room."""
    stands = _lock_user(user["id"])
    if not stands or stands["is_disabled"] or stands["token_version"] != user["token_version"]:
        raise Revoked
    day = max(today, stands["quota_day"])
    used = stands["quota_used"] if stands["quota_day"] == day else 0
    if used + number > settings.DAILY_IMAGES:
        return QuotaSpent(retry_after=(day + 1) * 86400 - clock())
    active = _count_active(user["id"])
    if active + number > settings.MAX_ACTIVE_JOBS:
        return TooManyActive(retry_after=5)
    execute(
        "UPDATE users SET quota_day = %s, quota_used = %s, active_at_most = %s WHERE id = %s",
        day, used + number, active + number, user["id"],
    )  # fmt: skip
    return None


def _give_places_back(user_id: int, number: int) -> None:
    execute(
        "UPDATE users SET quota_used = quota_used - %s, active_at_most = active_at_most - %s WHERE id = %s",
        number, number, user_id,
    )  # fmt: skip


def _count_active(user_id: int) -> int:
    return value(
        """
        SELECT COUNT(*)
          FROM image_generations
         WHERE user_id = %s AND status IN ('pending', 'processing') AND model IS NOT NULL
        """,
        user_id,
    )


def _earlier(user_id: int, key: str, body_hash: str) -> list[int]:
    used = one(
        "SELECT body_hash, generation_ids FROM idempotency_keys WHERE user_id = %s AND idempotency_key = %s",
        user_id, key,
    )  # fmt: skip
    if used and used["body_hash"] != body_hash:
        raise KeyReused
    return [int(number) for number in used["generation_ids"].split(",")] if used else []


# Below half of a queue of this length or more, a count up to a second old is good enough.
LONG_QUEUE = 1000


def _is_queue_long() -> bool:
    return (
        settings.MAX_QUEUE < LONG_QUEUE
        or _waiting_lately(int(time.monotonic())) > settings.MAX_QUEUE // 2
    )


def _check_queue(wanted: int) -> None:
    """Refuse if the whole queue has too much waiting. Its last places are given out one by one, to all users."""
    one("SELECT id FROM queue_gate WHERE id = 1 FOR UPDATE")
    if _count_waiting() + wanted > settings.MAX_QUEUE:
        raise QueueFull(retry_after=30)


@lru_cache(maxsize=1)
def _waiting_lately(second: int) -> int:
    return _count_waiting()


def _count_waiting() -> int:
    """Count the waiting generations of all users, no further than to where they are too many."""
    return value(
        """
        SELECT COUNT(*)
          FROM (SELECT 1 AS found
                  FROM image_generations
                 WHERE status = 'pending' AND model IS NOT NULL
                 LIMIT %s) AS waiting
        """,
        settings.MAX_QUEUE,
    )


def get_quota(user_id: int) -> Row:
    """Return {used, active, now}: today's images, unfinished generations, the database's clock in seconds."""
    user = one(
        """
        SELECT quota_day, quota_used, UNIX_TIMESTAMP() AS now,
               (SELECT COUNT(*)
                  FROM image_generations
                 WHERE user_id = %s AND status IN ('pending', 'processing') AND model IS NOT NULL) AS active
          FROM users
         WHERE id = %s
        """,
        user_id, user_id,
    )  # fmt: skip
    used = user["quota_used"] if user["quota_day"] == user["now"] // 86400 else 0
    return {"used": used, "active": user["active"], "now": user["now"]}


def next_generation(models: list[str]) -> Row | None:
    """Return the pending generation whose turn it is.

    It is of the user with the fewest in work, then of the one served longest ago, then the oldest.
    """
    places = ", ".join(["%s"] * len(models))
    return one(
        """
           SELECT MIN(g.id) AS id, g.user_id
             FROM image_generations AS g
             JOIN users AS u ON u.id = g.user_id
        LEFT JOIN (SELECT user_id, COUNT(*) AS number
                     FROM image_generations
                    WHERE status = 'processing' AND model IS NOT NULL
                 GROUP BY user_id) AS working ON working.user_id = g.user_id
            WHERE g.status = 'pending' AND g.not_before <= UNIX_TIMESTAMP() AND g.model IN (""" + places + """)
         GROUP BY g.user_id, u.served_at, working.number
         ORDER BY COALESCE(working.number, 0), u.served_at, id
            LIMIT 1
        """,
        *models,
    )  # fmt: skip


def get_job(generation_id: int) -> Row | None:
    """Return what a worker needs to know of a generation."""
    return one(
        """
        SELECT id, user_id, prompt_text, generation_params_json, model, width, height, status, attempt, is_sent,
               created_at, UNIX_TIMESTAMP() AS now
          FROM image_generations
         WHERE id = %s
        """,
        generation_id,
    )


def claim_generation(
    job: Row, claim: str, lease_seconds: int, deadline_seconds: int, served_at: float
) -> bool:
    """Take a pending generation for this claim, unless somebody else just did."""
    taken = execute(
        """
        UPDATE image_generations
           SET status = 'processing', claim = %s, attempt = attempt + 1, progress = 0,
               lease_until = UNIX_TIMESTAMP() + %s, deadline_at = UNIX_TIMESTAMP() + %s,
               started_at = CURRENT_TIMESTAMP, updated_at = CURRENT_TIMESTAMP
         WHERE id = %s AND status = 'pending'
        """,
        claim, lease_seconds, deadline_seconds, job["id"],
    ).count  # fmt: skip
    if taken:
        execute("UPDATE users SET served_at = %s WHERE id = %s", served_at, job["user_id"])
    return bool(taken)


# Every write of a worker holds only while the generation is in processing under the worker's claim;
# False means that it was canceled, deleted or given to another worker, and that nothing was written.


def renew_lease(generation_id: int, claim: str, lease_seconds: int, progress: int) -> bool:
    """Heartbeat, progress and the question whether to go on, in one statement."""
    return bool(
        execute(
            """
            UPDATE image_generations
               SET updated_at = CASE WHEN progress = %s THEN updated_at ELSE CURRENT_TIMESTAMP END,
                   progress = %s, lease_until = UNIX_TIMESTAMP() + %s
             WHERE id = %s AND claim = %s AND status = 'processing'
            """,
            progress, progress, lease_seconds, generation_id, claim,
        ).count
    )  # fmt: skip


def mark_sent(generation_id: int, claim: str) -> bool:
    """Note that a request somebody may pay for is about to be sent for this generation."""
    return bool(
        execute(
            "UPDATE image_generations SET is_sent = 1 WHERE id = %s AND claim = %s AND status = 'processing'",
            generation_id, claim,
        ).count
    )  # fmt: skip


class NotOurs(Exception):
    """The generation was taken from this claim in the middle of a transaction, which is undone."""


def complete_generation(generation_id: int, claim: str, result: Row, file_keys: list[str]) -> bool:
    """Record the result and take its files over from the doomed ones. May be repeated after a lost answer."""
    try:
        with transaction():
            if not _end(generation_id, claim, "completed", result):
                return _is_completed(generation_id, claim)
            for key in file_keys:
                if not forget_file(key):
                    raise NotOurs  # we slept so long that a sweep has removed the files
        return True
    except NotOurs:
        return False


def _end(generation_id: int, claim: str, status: str, columns: Row) -> bool:
    places = "".join(", " + name + " = %s" for name in columns)
    return bool(
        execute(
            "UPDATE image_generations SET status = %s, finished_at = CURRENT_TIMESTAMP,"
            " updated_at = CURRENT_TIMESTAMP" + places + " WHERE id = %s AND claim = %s AND status = 'processing'",
            status, *columns.values(), generation_id, claim,
        ).count
    )  # fmt: skip


def _is_completed(generation_id: int, claim: str) -> bool:
    sql = "SELECT id FROM image_generations WHERE id = %s AND claim = %s AND status = 'completed'"
    return bool(one(sql, generation_id, claim))


def fail_generation(job: Row, code: str, message: str, detail: str = "") -> bool:
    """Record why there is no image, and give its place in the quota back."""
    with transaction():
        _lock_user(job["user_id"])
        reason = {
            "error_code": code,
            "error_message": message,
            "error_detail": detail[:300] or None,
        }
        failed = _end(job["id"], job["claim"], "failed", reason)
        if failed:
            _refund(job["id"], job["user_id"])
    return failed


def release_generation(
    generation_id: int, claim: str, delay_seconds: int = 0, attempts_back: int = 0
) -> bool:
    """Put a generation back into the queue, to be taken after the delay; whatever was sent for it costs nothing."""
    return bool(
        execute(
            """
            UPDATE image_generations
               SET status = 'pending', claim = NULL, lease_until = NULL, deadline_at = NULL, progress = 0,
                   is_sent = 0, attempt = attempt - %s, not_before = UNIX_TIMESTAMP() + %s,
                   updated_at = CURRENT_TIMESTAMP
             WHERE id = %s AND claim = %s AND status = 'processing'
            """,
            attempts_back, delay_seconds, generation_id, claim,
        ).count
    )  # fmt: skip


def cancel_generation(generation_id: int, user_id: int) -> bool:
    """Cancel a generation that is not finished; its worker notices at the next heartbeat."""
    with transaction():
        _lock_user(user_id)
        canceled = execute(
            """
            UPDATE image_generations
               SET status = 'canceled', finished_at = CURRENT_TIMESTAMP, updated_at = CURRENT_TIMESTAMP
             WHERE id = %s AND user_id = %s AND status IN ('pending', 'processing')
            """,
            generation_id, user_id,
        ).count  # fmt: skip
        if canceled:
            _refund(generation_id, user_id)
    return bool(canceled)


def _refund(generation_id: int, user_id: int) -> None:
    """Give one image back to the quota of the day it was submitted; a later day has its own."""
    execute(
        """
        UPDATE users
           SET quota_used = quota_used - 1
         WHERE id = %s AND quota_used > 0
           AND quota_day = (SELECT quota_day FROM image_generations WHERE id = %s)
        """,
        user_id, generation_id,
    )  # fmt: skip


# -- Sweeping: what processes that died left behind ------------------------------------------------


def list_abandoned() -> list[Row]:
    """List the generations whose worker let the lease or the model's deadline pass."""
    return rows(
        """
        SELECT id, user_id, claim, attempt, is_sent,
               CASE WHEN deadline_at <= UNIX_TIMESTAMP() THEN 1 ELSE 0 END AS is_late
          FROM image_generations
         WHERE status = 'processing' AND model IS NOT NULL
           AND (lease_until < UNIX_TIMESTAMP() OR deadline_at <= UNIX_TIMESTAMP())
         LIMIT 100
        """
    )


def doom_files(file_keys: list[str], seconds: int) -> None:
    """Enter files to be removed after a time, unless a row takes them over before. A folder's key ends with a slash."""
    for key in file_keys:
        with suppress(Duplicate):
            execute(
                "INSERT INTO doomed_files (file_key, due_at) VALUES (%s, UNIX_TIMESTAMP() + %s)",
                key,
                seconds,
            )


def list_due_files() -> list[str]:
    found = rows("SELECT file_key FROM doomed_files WHERE due_at <= UNIX_TIMESTAMP() LIMIT 200")
    return [row["file_key"] for row in found]


def forget_file(file_key: str) -> bool:
    """Strike a file off the doomed ones, because it is gone or some row now has it."""
    return bool(execute("DELETE FROM doomed_files WHERE file_key = %s", file_key).count)


def delete_old_keys() -> int:
    return execute("DELETE FROM idempotency_keys WHERE expires_at < UNIX_TIMESTAMP()").count


def note_worker(name: str, models_json: str, run_seconds: float) -> None:
    """Say that a worker is alive, how its models do, and how long its last images took it on average."""
    sql = "UPDATE workers SET seen_at = UNIX_TIMESTAMP(), models = %s, run_seconds = %s WHERE name = %s"
    if not execute(sql, models_json, run_seconds, name).count:
        with suppress(Duplicate):
            execute(
                "INSERT INTO workers (name, models, run_seconds, seen_at) VALUES (%s, %s, %s, UNIX_TIMESTAMP())",
                name, models_json, run_seconds,
            )  # fmt: skip


def forget_worker(name: str) -> None:
    execute("DELETE FROM workers WHERE name = %s", name)


def delete_old_workers() -> int:
    return execute("DELETE FROM workers WHERE seen_at < UNIX_TIMESTAMP() - 3600").count


def list_crew(seconds: int) -> list[Row]:
    """List the workers seen in the last seconds: {models, run_seconds}, as note_worker() was told."""
    return rows(
        "SELECT models, run_seconds FROM workers WHERE seen_at > UNIX_TIMESTAMP() - %s", seconds
    )


def count_unfinished() -> list[Row]:
    """Count what waits and what is being made: rows of {model, status, number}."""
    return rows(
        "SELECT model, status, COUNT(*) AS number FROM image_generations"
        " WHERE status IN ('pending', 'processing') AND model IS NOT NULL GROUP BY model, status"
    )


def count_pending_by_user() -> dict[int, int]:
    found = rows(
        "SELECT user_id, COUNT(*) AS number FROM image_generations"
        " WHERE status = 'pending' AND model IS NOT NULL GROUP BY user_id"
    )
    return {row["user_id"]: row["number"] for row in found}


# -- For the operator -----------------------------------------------------------------------------


def count_by_status() -> list[Row]:
    return rows(
        "SELECT status, COUNT(*) AS number, MIN(created_at) AS oldest FROM image_generations"
        " WHERE model IS NOT NULL GROUP BY status ORDER BY status"
    )


def list_jobs(status: str, limit: int) -> list[Row]:
    return rows(
        """
          SELECT id, user_id, model, status, attempt, progress, created_at, started_at, error_code
            FROM image_generations
           WHERE status = %s AND model IS NOT NULL
        ORDER BY id DESC
           LIMIT %s
        """,
        status, limit,
    )  # fmt: skip


def requeue_generation(job: Row) -> bool:
    """Put a failed or stuck generation back into the queue, with all its attempts and its place in the quota."""
    with transaction():
        _lock_user(job["user_id"])
        requeued = execute(
            """
            UPDATE image_generations
               SET status = 'pending', claim = NULL, lease_until = NULL, deadline_at = NULL, progress = 0, attempt = 0,
                   is_sent = 0, not_before = 0, error_code = NULL, error_message = NULL, error_detail = NULL,
                   updated_at = CURRENT_TIMESTAMP
             WHERE id = %s AND status = %s AND status IN ('failed', 'processing') AND model IS NOT NULL
            """,
            job["id"], job["status"],
        ).count  # fmt: skip
        if requeued and job["status"] == "failed":
            execute(
                """
                UPDATE users
                   SET active_at_most = active_at_most + 1,
                       quota_used = quota_used + CASE quota_day WHEN (SELECT quota_day FROM image_generations
                                                                       WHERE id = %s) THEN 1 ELSE 0 END
                 WHERE id = %s
                """,
                job["id"], job["user_id"],
            )  # fmt: skip
    return bool(requeued)
