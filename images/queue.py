"""SQL of the queue: the rows of `image_generations` that wait or are being made, `workers`,
`paused_models` and `model_seconds`.

Every write of a worker holds only while the row is `processing` under the worker's claim. False
then means that it was canceled, deleted or given to another worker, and that nothing was written.
"""

from typing import TypedDict

import db
from files import cleanup
from images import CANCELED, COMPLETED, FAILED, STATUSES, UNFINISHED, quota, stats, waiting


class Job(TypedDict):
    """What a worker needs to know of a generation; acquired, it has `claim` and `taken_at` too."""

    id: int
    user_id: int
    prompt_text: str
    generation_params_json: str
    inputs_json: str | None
    model: str
    width: int
    height: int
    status: str
    attempt: int
    may_be_charged: int
    waited_seconds: int


# While machines are upgraded one by one, workers of the release before write and read the column
# `is_sent` for this: both are written, and either counts.
MAY_BE_CHARGED = "CASE WHEN is_sent = 1 THEN 1 ELSE may_be_charged END AS may_be_charged"

# Nothing is put off further than this, and no lease is longer; if it seems so, the database's clock
# was wrong.
MAX_WAIT_SECONDS = 3600

# What is being made for an account that is disabled meanwhile stops at the next heartbeat.
OF_ENABLED_USER = """
    EXISTS (SELECT 1 FROM users AS u WHERE u.id = user_id AND u.is_disabled = 0)
"""

# A model of which no job is taken, '' for any.
NOT_PAUSED = """
    NOT EXISTS (SELECT 1 FROM paused_models WHERE paused_models.model IN ('', %(model)s))
"""

# Rows of programs older than the queue have no model, may be thousands, and may wait for ever. The
# index generations_waiting passes them over. That a statement groups by `user_id + 0` or sorts by
# `id + 0` keeps the database from reading in the order of another index or of the table.

# A row that goes back into the queue.
WAITING_AGAIN = """
    status = 'pending', claim = NULL, lease_until = NULL, deadline_at = NULL, progress = 0,
    may_be_charged = 0, is_sent = 0, updated_at = CURRENT_TIMESTAMP
"""


# -- Taking jobs --------------------------------------------------------------------------------


def get_job(generation_id: int) -> Job | None:
    return db.one(
        f"""
        SELECT id, user_id, prompt_text, generation_params_json, inputs_json, model, width, height,
               status, attempt, {MAY_BE_CHARGED},
               UNIX_TIMESTAMP() - UNIX_TIMESTAMP(created_at) AS waited_seconds
          FROM image_generations
         WHERE id = %s
        """,
        generation_id,
    )


def claim_job(
    job: Job,
    claim: str,
    lease_seconds: int,
    deadline_seconds: int,
    now: float,
    may_wait: bool = True,
) -> bool:
    """Take a pending generation for this claim.

    Not if another worker just did, or if its model is paused; nor, unless it may wait, if something
    else of the user is being changed at the moment.
    """
    values = {
        "claim": claim,
        "lease_seconds": lease_seconds,
        "deadline_seconds": deadline_seconds,
        "id": job["id"],
        "user_id": job["user_id"],
        "model": job["model"],
        "now": now,
    }
    lock = quota.LOCK if may_wait else f"{quota.LOCK} SKIP LOCKED"
    results = db.run_transaction(*[(statement, values) for statement in (lock, *CLAIM)])
    return results[1].count > 0


# After the user's row is locked, or not; each works only if the one before it did.
CLAIM = (
    f"""
    UPDATE image_generations
       SET status = 'processing', claim = %(claim)s, attempt = attempt + 1, progress = 0,
           lease_until = UNIX_TIMESTAMP() + %(lease_seconds)s,
           deadline_at = UNIX_TIMESTAMP() + %(deadline_seconds)s,
           started_at = CURRENT_TIMESTAMP, updated_at = CURRENT_TIMESTAMP
     WHERE id = %(id)s AND status = 'pending' AND FOUND_ROWS() = 1
       AND {OF_ENABLED_USER} AND {NOT_PAUSED}
    """,
    "UPDATE users SET served_at = %(now)s WHERE id = %(user_id)s AND ROW_COUNT() = 1",
    *waiting.RECOUNT_CLAIMED,
)


# -- Under a claim ------------------------------------------------------------------------------


def renew_lease(generation_id: int, claim: str, lease_seconds: int, progress: int) -> bool:
    """Heartbeat, progress and the question whether to go on, in one statement."""
    renewed = db.execute(
        f"""
        UPDATE image_generations
           SET updated_at = CASE progress WHEN %(progress)s THEN updated_at
                                          ELSE CURRENT_TIMESTAMP END,
               progress = %(progress)s,
               lease_until = UNIX_TIMESTAMP() + %(lease_seconds)s
         WHERE id = %(id)s AND claim = %(claim)s AND status = 'processing' AND {OF_ENABLED_USER}
        """,
        progress=progress,
        lease_seconds=lease_seconds,
        id=generation_id,
        claim=claim,
    )
    return renewed.count > 0


def mark_may_be_charged(generation_id: int, claim: str) -> bool:
    """Note that a request that may be charged is about to be sent for this generation."""
    marked = db.execute(
        f"""
        UPDATE image_generations
           SET may_be_charged = 1, is_sent = 1
         WHERE id = %s AND claim = %s AND status = 'processing' AND {OF_ENABLED_USER}
        """,
        generation_id,
        claim,
    )
    return marked.count > 0


class FilesGone(Exception):
    """The files were deleted before the result was recorded, because it came too late."""


class NotUnderClaim(Exception):
    """The job was canceled, deleted or given to another worker; or it is completed already."""


@db.retried
def complete(
    generation_id: int,
    claim: str,
    result: db.Row,
    file_keys: list[str],
    measured: stats.Measured = stats.NOTHING,
) -> bool:
    """Record the result and keep its files. May be repeated after a lost answer."""
    try:
        with db.transaction():
            quota.add_bytes_of(generation_id, result.get("file_bytes", 0))
            if not _end(generation_id, claim, COMPLETED, result):
                raise NotUnderClaim
            for key in file_keys:
                if not cleanup.keep(key):
                    raise FilesGone
            stats.count(generation_id, COMPLETED, measured)
        return True
    except NotUnderClaim:
        return _is_completed(generation_id, claim)
    except FilesGone:
        return False


def _end(generation_id: int, claim: str, status: str, columns: db.Row) -> bool:
    assignments = "".join(f", {name} = %({name})s" for name in columns)
    ended = db.execute(
        f"""
        UPDATE image_generations
           SET status = %(status)s, finished_at = CURRENT_TIMESTAMP,
               updated_at = CURRENT_TIMESTAMP {assignments}
         WHERE id = %(id)s AND claim = %(claim)s AND status = 'processing'
        """,
        status=status,
        id=generation_id,
        claim=claim,
        **columns,
    )
    return ended.count > 0


def _is_completed(generation_id: int, claim: str) -> bool:
    sql = """
        SELECT id
          FROM image_generations
         WHERE id = %s AND claim = %s AND status = 'completed'
    """
    return db.one(sql, generation_id, claim) is not None


@db.retried
def fail(job: Job, code: str, message: str, detail: str = "") -> bool:
    """Record why there is no image, and refund the user's quota."""
    reason = {
        "error_code": code,
        "error_message": message,
        "error_detail": detail[:300] or None,
    }
    with db.transaction():
        quota.lock_user(job["user_id"])
        failed = _end(job["id"], job["claim"], FAILED, reason)
        if failed:
            quota.refund(job["user_id"], job["id"])
            stats.count(job["id"], FAILED)
    return failed


def release(job: Job, delay_seconds: int = 0, refund: int = 0) -> bool:
    """Return a job to the queue, to be taken after the delay; refund so many of its attempts."""
    values = {
        "refund": refund,
        "delay_seconds": delay_seconds,
        "id": job["id"],
        "user_id": job["user_id"],
        "claim": job["claim"],
    }
    results = db.run_transaction(*[(statement, values) for statement in RELEASE])
    return results[1].count > 0


RELEASE = (
    quota.LOCK,
    f"""
    UPDATE image_generations
       SET attempt = attempt - %(refund)s,
           not_before = UNIX_TIMESTAMP() + %(delay_seconds)s, {WAITING_AGAIN}
     WHERE id = %(id)s AND claim = %(claim)s AND status = 'processing'
    """,
    *waiting.RECOUNT,
)


def list_abandoned() -> list[db.Row]:
    """List the jobs whose worker let the lease or the model's deadline pass."""
    return db.all(
        f"""
        SELECT id, user_id, claim, attempt, {MAY_BE_CHARGED},
               CASE WHEN deadline_at <= UNIX_TIMESTAMP() THEN 1 ELSE 0 END AS is_late
          FROM image_generations
         WHERE status = 'processing' AND model IS NOT NULL
           AND (lease_until < UNIX_TIMESTAMP() OR deadline_at <= UNIX_TIMESTAMP())
         LIMIT 100
        """
    )


def forget_wrong_clock() -> None:
    """Bring times back that were written while the database's clock was wrong by hours or years.

    What is being made goes on: its next heartbeat renews the lease.
    """
    db.execute(
        """
        UPDATE image_generations
           SET lease_until = UNIX_TIMESTAMP() + %(seconds)s,
               deadline_at = UNIX_TIMESTAMP() + %(seconds)s
         WHERE status = 'processing' AND model IS NOT NULL
           AND lease_until > UNIX_TIMESTAMP() + %(seconds)s
        """,
        seconds=MAX_WAIT_SECONDS,
    )
    db.execute(
        """
        UPDATE image_generations
           SET not_before = 0
         WHERE status = 'pending' AND model IS NOT NULL
           AND not_before > UNIX_TIMESTAMP() + %s
        """,
        MAX_WAIT_SECONDS,
    )


# -- For owners and operators -------------------------------------------------------------------


@db.retried
def cancel(generation_id: int, user_id: int) -> bool:
    """Cancel a generation that is not finished; its worker notices at the next heartbeat."""
    with db.transaction():
        return cancel_within(generation_id, user_id)


def cancel_within(generation_id: int, user_id: int) -> bool:
    """Do the same within the caller's transaction."""
    quota.lock_user(user_id)
    canceled = db.execute(
        """
        UPDATE image_generations
           SET status = 'canceled', finished_at = CURRENT_TIMESTAMP,
               updated_at = CURRENT_TIMESTAMP
         WHERE id = %s AND user_id = %s AND status IN ('pending', 'processing')
        """,
        generation_id,
        user_id,
    ).count
    if canceled:
        quota.refund(user_id, generation_id)
        stats.count(generation_id, CANCELED)
        waiting.recount_within(user_id)
    return canceled > 0


def cancel_of_disabled() -> None:
    """Cancel what is unfinished of disabled accounts, and refund it."""
    sql = """
        SELECT g.id, g.user_id
          FROM image_generations AS g
          JOIN users AS u ON u.id = g.user_id AND u.is_disabled <> 0
         WHERE g.status IN ('pending', 'processing') AND g.model IS NOT NULL
         LIMIT 1000
    """
    for row in db.all(sql):
        cancel(row["id"], row["user_id"])


def requeue_within(job: Job) -> bool:
    """Put a failed or stuck generation back into the queue, with all its attempts.

    Within the caller's transaction.
    """
    quota.lock_user(job["user_id"])
    requeued = db.execute(
        f"""
        UPDATE image_generations
           SET attempt = 0, not_before = 0, error_code = NULL, error_message = NULL,
               error_detail = NULL, {WAITING_AGAIN}
         WHERE id = %s AND status = %s AND status IN ('failed', 'processing')
           AND model IS NOT NULL
        """,
        job["id"],
        job["status"],
    ).count
    if requeued and job["status"] == FAILED:
        quota.reserve_again(job["user_id"], job["id"])
    waiting.recount_within(job["user_id"])
    return requeued > 0


# -- Pausing ------------------------------------------------------------------------------------


def pause(model: str) -> bool:
    """Let no job of a model be taken, or of any if it is ''. Tells if that is new."""
    try:
        db.execute(
            "INSERT INTO paused_models (model, paused_at) VALUES (%s, UNIX_TIMESTAMP())", model
        )
    except db.Duplicate:
        return False
    return True


def resume(model: str) -> bool:
    return db.execute("DELETE FROM paused_models WHERE model = %s", model).count > 0


def list_paused() -> dict[str, int]:
    """Return which models are paused, '' for all, and since when in seconds since 1970."""
    rows = db.all("SELECT model, paused_at FROM paused_models ORDER BY model")
    return {row["model"]: row["paused_at"] for row in rows}


# -- Counts and the clock ----------------------------------------------------------------------


def database_time() -> float:
    """Return the database's time in seconds since 1970."""
    return float(db.value("SELECT UNIX_TIMESTAMP(NOW(6))"))


def list_waiting(limit: int) -> list[db.Row]:
    """List the oldest that wait: rows of {id, user_id, model, served_at}, the oldest first."""
    return db.all(
        """
          SELECT g.id, g.user_id, g.model, u.served_at
            FROM image_generations AS g
            JOIN users AS u ON u.id = g.user_id
           WHERE g.status = 'pending' AND g.model IS NOT NULL
        ORDER BY g.id + 0
           LIMIT %s
        """,
        limit,
    )


def list_running() -> list[db.Row]:
    """List what is being made: rows of {user_id, model, progress, seconds}."""
    return db.all(
        """
        SELECT user_id, model, progress,
               UNIX_TIMESTAMP() - UNIX_TIMESTAMP(started_at) AS seconds
          FROM image_generations
         WHERE status = 'processing' AND model IS NOT NULL
        """
    )


def count_unfinished() -> list[db.Row]:
    """Count what waits and what is being made: rows of {model, status, number}."""
    waiting.count_new()
    return db.all(
        """
          SELECT model, 'pending' AS status, CAST(SUM(number) AS SIGNED) AS number
            FROM waiting
        GROUP BY model
           UNION ALL
          SELECT model, 'processing' AS status, COUNT(*) AS number
            FROM image_generations
           WHERE status = 'processing' AND model IS NOT NULL
        GROUP BY model
        """
    )


def count_by_status(limit: int) -> list[db.Row]:
    """Count the jobs of each status, up to a limit: rows of {status, number, oldest}.

    `oldest` is the time of the first unfinished one.
    """
    rows = []
    for status in STATUSES:
        oldest = "MIN(created_at)" if status in UNFINISHED else "NULL"
        columns = "created_at" if status in UNFINISHED else "1"
        row = db.one(
            f"""
            SELECT %s AS status, COUNT(*) AS number, {oldest} AS oldest
              FROM (SELECT {columns}
                      FROM image_generations
                     WHERE status = %s AND model IS NOT NULL
                     LIMIT %s) AS some
            """,
            status,
            status,
            limit,
        )
        rows.append(row)
    return rows


# -- Workers ------------------------------------------------------------------------------------


NOTE_WORKER = """
    INSERT INTO workers (name, models, run_seconds, seen_at)
    VALUES (%(name)s, %(models)s, %(run_seconds)s, UNIX_TIMESTAMP() + %(ahead)s)
        ON DUPLICATE KEY UPDATE
           models = %(models)s, run_seconds = %(run_seconds)s,
           seen_at = UNIX_TIMESTAMP() + %(ahead)s
"""


def note_worker(name: str, models_json: str, run_seconds: float) -> None:
    """Say that a worker is alive, what its models' problems are, and its average time a job."""
    db.execute(NOTE_WORKER, name=name, models=models_json, run_seconds=run_seconds, ahead=0)


def check_writable() -> None:
    """Write what is there already. Raises Unavailable if the database takes no writes."""
    db.execute("UPDATE workers SET seen_at = seen_at")


def forget_worker(name: str) -> None:
    db.execute("DELETE FROM workers WHERE name = %s", name)


def delete_old_workers() -> int:
    sql = """
        DELETE FROM workers
         WHERE seen_at < UNIX_TIMESTAMP() - 3600 OR seen_at > UNIX_TIMESTAMP() + 3600
    """
    return db.execute(sql).count


def list_live_workers(seen_seconds: int) -> list[db.Row]:
    """List the workers seen in the last seconds, as note_worker() wrote."""
    return db.all(
        """
        SELECT name, models, run_seconds, seen_at
          FROM workers
         WHERE seen_at > UNIX_TIMESTAMP() - %(seconds)s
           AND seen_at <= UNIX_TIMESTAMP() + %(seconds)s
        """,
        seconds=seen_seconds,
    )


# -- How long images take -----------------------------------------------------------------------


def note_seconds(model: str, seconds: float) -> None:
    """Count how long an image took into the moving average of its model, over about five."""
    db.execute(
        """
        INSERT INTO model_seconds (model, seconds)
        VALUES (%(model)s, %(seconds)s)
            ON DUPLICATE KEY UPDATE
               seconds = seconds + (%(seconds)s - seconds) / 5
        """,
        model=model,
        seconds=seconds,
    )


def list_model_seconds() -> dict[str, float]:
    rows = db.all("SELECT model, seconds FROM model_seconds")
    return {row["model"]: row["seconds"] for row in rows}
