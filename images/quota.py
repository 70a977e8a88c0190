"""SQL of the quota: how many images a user may ask for in a day, in a minute, at a time, and keep.

The columns `quota_day`, `quota_used`, `submit_minute`, `submitted_in_minute`, `active_at_most` and
`image_count` of `users` are changed here alone, in transactions that lock the user's row first: no
deadlocks, and requests at the same moment cannot share a last place. A day is that of
QUOTA_TIMEZONE, a number that counts up; the database's clock says which it is.
"""

from datetime import date, datetime, timedelta

import db
from accounts import api_keys, limits, rate_limits, sessions
from accounts.tokens import Session
from config import settings
from errors import ApiError

FIRST_DAY = date(1970, 1, 1)
MINUTE_SECONDS = 60
NO_LIMIT = 2**62
# Counted from 1970.
THIS_MINUTE = f"UNIX_TIMESTAMP() DIV {MINUTE_SECONDS}"


class TooManyActive(ApiError):
    code = "too_many_active_jobs"


class StorageFull(ApiError):
    code = "storage_full"


class QuotaSpent(ApiError):
    code = "quota_spent"


class KeyQuotaSpent(ApiError):
    """The API key's own images of the day are used up, though the account has some left."""

    code = "key_quota_spent"


class TooManySubmits(ApiError):
    code = "too_many_submits"


class ModelNotAllowed(ApiError):
    """The account is limited to other models."""

    code = "model_not_allowed"

    def __init__(self, allowed: list[str]):
        super().__init__(fields={"model": ("literal_error", {"expected": ", ".join(allowed)})})


# -- Days ---------------------------------------------------------------------------------------


def day_of(seconds: float) -> int:
    """Return the day of a moment in seconds since 1970."""
    today = datetime.fromtimestamp(seconds, settings.QUOTA_TIMEZONE).date()
    return (today - FIRST_DAY).days


def end_of(day: int) -> int:
    """Return when a day is over: the next midnight there, in seconds since 1970."""
    tomorrow = FIRST_DAY + timedelta(days=day + 1)
    midnight = datetime(*tomorrow.timetuple()[:3], tzinfo=settings.QUOTA_TIMEZONE)
    return int(midnight.timestamp())


def current_day(user: db.Row) -> int:
    """Return the day that the user's quota is of: today, or tomorrow if that has begun for it.

    A day further ahead was noted while the database's clock was wrong.
    """
    today = day_of(user["now"])
    return user["quota_day"] if user["quota_day"] == today + 1 else today


# -- The quota ----------------------------------------------------------------------------------

# Counts images into the user's day and minute and among the unfinished; matches nothing if there
# is no room, if the model is not allowed, if the day is over, or if the session has ended. Limits
# of the account's own come before the settings. Its `new_id` is the number of images in this
# minute, which costs no statement. What is canceled goes on counting in its minute: submits that
# are canceled at once must end, too. A submit raises `active_at_most`, but nothing that ends lowers
# it: only when it says that there may be too many are the unfinished counted, by make_room(),
# because a count at each submit costs as much as its INSERT.
RESERVE = f"""
    UPDATE users
       SET quota_used = quota_used + %(number)s,
           submitted_in_minute = LAST_INSERT_ID(%(number)s + CASE submit_minute
               WHEN {THIS_MINUTE} THEN submitted_in_minute
               ELSE 0
           END),
           submit_minute = {THIS_MINUTE},
           active_at_most = active_at_most + %(number)s,
           image_count = image_count + %(number)s,
           has_new = 1
     WHERE {{session}}
       AND quota_day IN (%(today)s, %(today)s + 1)
       AND storage_bytes < %(storage_limit)s
       AND (submitted_in_minute <= %(minute_room)s OR submit_minute <> {THIS_MINUTE})
       AND {{limits}}
"""
BY_SETTINGS = """
    limits_source IS NULL
    AND quota_used + %(number)s <= %(daily_images)s
    AND active_at_most + %(number)s <= %(active_jobs)s
"""
BY_OWN_LIMITS = f"""
    quota_used + %(number)s <= COALESCE({limits.DAILY_IMAGES}, %(daily_images)s)
    AND active_at_most + %(number)s <= COALESCE({limits.ACTIVE_JOBS}, %(active_jobs)s)
    AND INSTR(COALESCE({limits.MODELS}, %(model)s), %(model)s) > 0
"""


def reserve(
    session: Session, model: str, number: int, today: int, has_limits: bool
) -> list[tuple[str, db.Row]]:
    """Return the statements that reserve so many images of this day.

    The last of them matches a row if there was room; note_submitted() reads their results. Without
    `has_limits` it matches only accounts that have none of their own, which is 60 us faster.
    """
    values = {
        **session._asdict(),
        "number": number,
        "model": f",{model},",
        "today": today,
        "daily_images": settings.DAILY_IMAGES,
        "active_jobs": settings.MAX_ACTIVE_JOBS,
        "minute_room": minute_room(number),
        "storage_limit": storage_limit() or NO_LIMIT,
    }
    condition = sessions.condition(session, "users")
    room = BY_OWN_LIMITS if has_limits else BY_SETTINGS
    if not session.key_hash:
        return [(RESERVE.format(session=condition, limits=room), values)]
    condition += f" AND {api_keys.HAS_ROOM}"
    reserve_both = RESERVE.format(session=condition, limits=room)
    # Locked by a statement of its own, which makes the next one see the key's latest count.
    return [(LOCK, values), (reserve_both, values), (api_keys.COUNT, values)]


LOCK = "SELECT id FROM users WHERE id = %(user_id)s FOR UPDATE"


def storage_limit() -> int | None:
    """Return how many bytes an account's images may take before it can submit no more.

    What is submitted is made and kept, so that they may take more in the end.
    """
    return settings.MAX_STORAGE_MB * 1024 * 1024 or None


def refuse_full(user_id: int) -> None:
    """Raise StorageFull if the account may store no more."""
    row = db.one("SELECT storage_bytes FROM users WHERE id = %s", user_id)
    if row:
        refuse_too_much(row, 1)


def refuse_too_much(user: db.Row, file_bytes: int) -> None:
    """Raise StorageFull if so many bytes more are too much for the account."""
    if user["storage_bytes"] + file_bytes > (storage_limit() or NO_LIMIT):
        raise StorageFull


def minute_room(number: int) -> int:
    """Return how many images may have been submitted in this minute before so many more.

    The first submit of a minute always has room.
    """
    return max(0, settings.SUBMITS_PER_MINUTE - number)


def note_submitted(reserved: list[db.Result], now: float) -> None:
    """Note for the answer how many images are left in this minute."""
    # With an API key, RESERVE stands between two others.
    submitted = reserved[len(reserved) // 2].new_id
    left = settings.SUBMITS_PER_MINUTE - submitted
    seconds_left = MINUTE_SECONDS - int(now) % MINUTE_SECONDS
    rate_limits.note("submit", settings.SUBMITS_PER_MINUTE, MINUTE_SECONDS, left, seconds_left)


@db.retried
def make_room(session: Session, model: str, number: int) -> int:
    """Say why RESERVE matched nothing, or begin the user's day and count the unfinished anew.

    Returns the day. Raises BadToken, ModelNotAllowed, StorageFull, QuotaSpent, KeyQuotaSpent,
    TooManySubmits and TooManyActive.
    """
    with db.transaction():
        user = lock_user(session.user_id)
        sessions.check(session)
        check_model(model, user)
        if user["storage_bytes"] >= (storage_limit() or NO_LIMIT):
            raise StorageFull
        day = current_day(user)
        used = user["quota_used"] if user["quota_day"] == day else 0
        if used + number > daily_images(user):
            raise QuotaSpent(retry_after=end_of(day) - user["now"])
        if session.key_hash and not api_keys.has_room(session, number, day):
            raise KeyQuotaSpent(retry_after=end_of(day) - user["now"])
        if user["submitted"] > minute_room(number):
            seconds = MINUTE_SECONDS - user["now"] % MINUTE_SECONDS
            most = settings.SUBMITS_PER_MINUTE
            rate_limits.note_refusal("submit", most, MINUTE_SECONDS, seconds)
            raise TooManySubmits(retry_after=seconds)
        active = count_active(session.user_id)
        if active + number > active_jobs(user):
            raise TooManyActive(retry_after=5)
        db.execute(
            "UPDATE users SET quota_day = %s, quota_used = %s, active_at_most = %s WHERE id = %s",
            day,
            used,
            active,
            session.user_id,
        )
    return day


def check_model(model: str, user: db.Row) -> None:
    """Raise ModelNotAllowed if the account is limited to other models."""
    allowed = limits.split_models(user["limit_models"])
    if allowed and model not in allowed:
        raise ModelNotAllowed(allowed)


def daily_images(user: db.Row) -> int:
    """Return how many images a day has for the account."""
    own = user["limit_daily_images"]
    return settings.DAILY_IMAGES if own is None else own


def active_jobs(user: db.Row) -> int:
    """Return how many images of the account may be unfinished at a time."""
    own = user["limit_active_jobs"]
    return settings.MAX_ACTIVE_JOBS if own is None else own


def lock_user(user_id: int) -> db.Row | None:
    """Lock the user's row until the end of the transaction; always before any other row."""
    return db.one(
        f"""
        SELECT id, token_version, is_disabled, storage_bytes, quota_day, quota_used,
               UNIX_TIMESTAMP() AS now,
               CASE submit_minute WHEN {THIS_MINUTE} THEN submitted_in_minute
                                  ELSE 0 END AS submitted,
               {limits.COLUMNS}
          FROM users
         WHERE id = %s
           FOR UPDATE
        """,
        user_id,
    )


def count_active(user_id: int) -> int:
    return db.value(
        """
        SELECT COUNT(*)
          FROM image_generations
         WHERE user_id = %s AND status IN ('pending', 'processing') AND model IS NOT NULL
        """,
        user_id,
    )


def refund(user_id: int, generation_id: int) -> None:
    """Give one image back to the quota of the day it was submitted; a later day has its own."""
    db.execute(
        """
        UPDATE users
           SET quota_used = quota_used - 1
         WHERE id = %s AND quota_used > 0
           AND quota_day = (SELECT quota_day FROM image_generations WHERE id = %s)
        """,
        user_id,
        generation_id,
    )
    api_keys.change_count(generation_id, by=-1)


def reserve_again(user_id: int, generation_id: int) -> None:
    """Take the refund of a generation back, because it returns to the queue."""
    db.execute(
        """
        UPDATE users
           SET active_at_most = active_at_most + 1,
               quota_used = quota_used + CASE quota_day
                   WHEN (SELECT quota_day FROM image_generations WHERE id = %s) THEN 1
                   ELSE 0
               END
         WHERE id = %s
        """,
        generation_id,
        user_id,
    )
    api_keys.change_count(generation_id, by=1)


def forget_images(user_id: int, number: int, file_bytes: int = 0) -> None:
    """Lower the number of images the user has, and of their bytes, because they were deleted."""
    db.execute(
        """
        UPDATE users
           SET image_count = image_count - %s, storage_bytes = storage_bytes - %s
         WHERE id = %s
        """,
        number,
        file_bytes,
        user_id,
    )


def add_bytes(user_id: int, file_bytes: int) -> None:
    """Raise or lower the bytes that the user's images take."""
    sql = "UPDATE users SET storage_bytes = storage_bytes + %s WHERE id = %s"
    db.execute(sql, file_bytes, user_id)


def add_bytes_of(generation_id: int, file_bytes: int) -> None:
    """Do the same for the user of a generation."""
    db.execute(
        """
        UPDATE users
           SET storage_bytes = storage_bytes + %s
         WHERE id = (SELECT user_id FROM image_generations WHERE id = %s)
        """,
        file_bytes,
        generation_id,
    )


def get_quota(user_id: int) -> db.Row:
    """Return the user's limits, today's images, unfinished ones, and when the day ends."""
    user = db.one(
        f"""
        SELECT quota_day, quota_used, UNIX_TIMESTAMP() AS now, {limits.COLUMNS}
          FROM users
         WHERE id = %s
        """,
        user_id,
    )
    day = current_day(user)
    return {
        **user,
        "daily_images": daily_images(user),
        "active_jobs": active_jobs(user),
        "used": user["quota_used"] if user["quota_day"] == day else 0,
        "active": count_active(user_id),
        "resets_at": end_of(day),
    }


# What the rows say: of the history, of the trash, and of uploads.
BYTES = "COALESCE(kept.bytes, 0) + COALESCE(trashed.bytes, 0) + COALESCE(sent.bytes, 0)"


def list_wrong_counters() -> list[db.Row]:
    """List the accounts whose counters are wrong, with them and what is right in one statement.

    Those that are being deleted lose their rows without them.
    Rows of {id, image_count, storage_bytes, images, bytes}.
    """
    return db.all(
        f"""
           SELECT u.id, u.image_count, u.storage_bytes, COALESCE(kept.number, 0) AS images,
                  {BYTES} AS bytes
             FROM users AS u
        LEFT JOIN (SELECT user_id, COUNT(*) AS number, SUM(file_bytes) AS bytes
                     FROM image_generations
                 GROUP BY user_id) AS kept ON kept.user_id = u.id
        LEFT JOIN (SELECT user_id, SUM(file_bytes) AS bytes
                     FROM trashed_generations
                 GROUP BY user_id) AS trashed ON trashed.user_id = u.id
        LEFT JOIN (SELECT user_id, SUM(file_bytes) AS bytes
                     FROM uploads
                 GROUP BY user_id) AS sent ON sent.user_id = u.id
            WHERE u.deleted_at = 0
              AND (u.image_count <> COALESCE(kept.number, 0)
                   OR u.storage_bytes <> {BYTES})
        """
    )


@db.retried
def recount(user_id: int) -> None:
    """Set `image_count` and `storage_bytes` to what the user's rows say."""
    with db.transaction():
        lock_user(user_id)
        db.execute(
            """
            UPDATE users
               SET image_count = (SELECT COUNT(*)
                                    FROM image_generations
                                   WHERE user_id = users.id),
                   storage_bytes = (SELECT COALESCE(SUM(file_bytes), 0)
                                      FROM image_generations
                                     WHERE user_id = users.id)
                                 + (SELECT COALESCE(SUM(file_bytes), 0)
                                      FROM trashed_generations
                                     WHERE user_id = users.id)
                                 + (SELECT COALESCE(SUM(file_bytes), 0)
                                      FROM uploads
                                     WHERE user_id = users.id)
             WHERE id = %s
            """,
            user_id,
        )


def recount_images() -> None:
    """Set the counters right where they are wrong."""
    for row in list_wrong_counters():
        recount(row["id"])
