"""SQL of the limits that an account may have of its own, in columns of `users`.

A limit that is NULL is as the setting says. All of them end at `limits_until`, if that is there, by
the database's clock: whoever reads a limit reads it `in_force()`. `images/quota.py` enforces them.
"""

import time
from typing import NamedTuple

import db

# Who set the limits of an account.
SETTING, INVITE, ADMIN = "setting", "invite", "admin"


class Limits(NamedTuple):
    """Limits of one account; None is as the setting says."""

    daily_images: int | None = None
    active_jobs: int | None = None
    models: list[str] | None = None


NO_LIMITS = Limits()


def in_force(sql: str) -> str:
    """Return the SQL of something about limits: NULL if there are none, or if they have ended."""
    have_not_ended = "limits_until IS NULL OR limits_until > UNIX_TIMESTAMP()"
    return f"CASE WHEN limits_source IS NOT NULL AND ({have_not_ended}) THEN {sql} END"


DAILY_IMAGES = in_force("limit_daily_images")
ACTIVE_JOBS = in_force("limit_active_jobs")
MODELS = in_force("limit_models")
SOURCE = in_force("limits_source")
# What `web/records.py` shows.
COLUMNS = f"""
    {DAILY_IMAGES} AS limit_daily_images, {ACTIVE_JOBS} AS limit_active_jobs,
    {MODELS} AS limit_models, {SOURCE} AS limits_source, limits_until
"""


NAMES = [
    "limit_daily_images",
    "limit_active_jobs",
    "limit_models",
    "limits_source",
    "limits_until",
]


def without_ended(row: db.Row) -> db.Row:
    """Return a row that has NAMES as they are stored, without limits that have ended."""
    until = row["limits_until"]
    has_ended = until is not None and until <= time.time()
    return {**row, **dict.fromkeys(NAMES)} if has_ended else row


def set_limits(user_id: int, limits: Limits, until: int | None, source: str) -> bool:
    """Replace the limits of an account, from now until a time in seconds since 1970 or for good.

    Says whether there is such an account. Without any limit, the settings alone count again.
    """
    changed = db.execute(
        """
        UPDATE users
           SET limit_daily_images = %s, limit_active_jobs = %s, limit_models = %s,
               limits_until = %s, limits_source = %s
         WHERE id = %s
        """,
        limits.daily_images,
        limits.active_jobs,
        join_models(limits.models),
        until if limits != NO_LIMITS else None,
        source if limits != NO_LIMITS else None,
        user_id,
    )
    return changed.count > 0


def get(user_id: int) -> db.Row | None:
    return db.one(f"SELECT {COLUMNS} FROM users WHERE id = %s", user_id)


def lock(user_id: int) -> db.Row | None:
    """Do the same, and lock the account's row until the end of the transaction."""
    return db.one(f"SELECT {COLUMNS} FROM users WHERE id = %s FOR UPDATE", user_id)


def of_row(row: db.Row) -> Limits:
    """Return the limits that a row has under the names of COLUMNS."""
    models = split_models(row["limit_models"])
    return Limits(row["limit_daily_images"], row["limit_active_jobs"], models)


def days_from_now(days: int | None) -> int | None:
    """Return the database's time in so many days; None stays None."""
    return db.value("SELECT UNIX_TIMESTAMP()") + days * 86400 if days else None


def join_models(names: list[str] | None) -> str | None:
    """Return names as a column keeps them: in SQL, INSTR() finds one between its commas."""
    return f",{','.join(names)}," if names else None


def split_models(text: str | None) -> list[str] | None:
    return text.strip(",").split(",") if text else None
