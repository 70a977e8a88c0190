"""SQL of the limits that an account may have of its own, in columns of `users`.

A limit that is NULL is as the setting says. All of them end at `limits_until`, if that is there, by
the database's clock: whoever reads a limit reads it `in_force()`. `images/quota.py` enforces them.
"""

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


def in_force(column: str) -> str:
    """Return the SQL of one of the columns: NULL once the limits have ended."""
    have_not_ended = "limits_until IS NULL OR limits_until > UNIX_TIMESTAMP()"
    return f"CASE WHEN {have_not_ended} THEN {column} END"


DAILY_IMAGES = in_force("limit_daily_images")
ACTIVE_JOBS = in_force("limit_active_jobs")
MODELS = in_force("limit_models")
SOURCE = in_force("limits_source")
# What `web/records.py` shows.
COLUMNS = f"""
    {DAILY_IMAGES} AS limit_daily_images, {ACTIVE_JOBS} AS limit_active_jobs,
    {MODELS} AS limit_models, {SOURCE} AS limits_source, limits_until
"""


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


def join_models(names: list[str] | None) -> str | None:
    """Return names as a column keeps them: in SQL, INSTR() finds one between its commas."""
    return f",{','.join(names)}," if names else None


def split_models(text: str | None) -> list[str] | None:
    return text.strip(",").split(",") if text else None
