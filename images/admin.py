"""SQL of `image_generations` as operators see it: jobs without prompts; and images, if they may.

What changes something, or shows what is private, leaves an entry in the audit log.
"""

from collections.abc import Callable

import db
from accounts import admin, audit
from accounts.audit import Actor, Target
from accounts.pages import Page, page_of
from config import settings
from errors import ApiError
from files import withheld
from images import UNFINISHED, broker, history, parameters, queue, quota, tickets
from images.queue import Job

# Nothing that tells what somebody wants to see, as prompt, params and words of the engine do.
COLUMNS = """
    g.id, g.user_id, u.username, g.model, g.status, g.attempt, g.progress, g.error_code,
    g.created_at, g.started_at, g.finished_at
"""
FILTERS = {
    "cursor": "g.id < %(cursor)s",
    "status": "g.status = %(status)s",
    "user": "g.user_id = %(user)s",
    "model": "g.model = %(model)s",
    "error": "g.error_code = %(error)s",
    "since": "g.created_at >= %(since)s",
}
# No index serves these filters: a page looks through this many jobs, which takes about 0.1 s.
MAX_LOOKED_THROUGH = 20_000
MAX_SECONDS = 5


# -- Jobs ---------------------------------------------------------------------------------------


def list_jobs(filters: db.Row, limit: int) -> Page:
    """List jobs that match the filters of FILTERS, the newest first.

    A page may end early: after MAX_LOOKED_THROUGH jobs.
    """
    conditions = [FILTERS[name] for name in filters]
    values = {**filters, "limit": limit}
    first = None
    if filters.get("status") not in UNFINISHED:
        first = _first_looked_at(filters)
        if first:
            conditions.append("g.id >= %(first_id)s")
            values["first_id"] = first["id"]
    # What is unfinished is little, and its index passes over what older programs left.
    order = "g.id" if filters.get("status") not in UNFINISHED else "g.id + 0"
    rows = db.all_within(
        MAX_SECONDS,
        f"""
           SELECT {COLUMNS}
             FROM image_generations AS g
        LEFT JOIN users AS u ON u.id = g.user_id
            WHERE {" AND ".join([*conditions, "g.model IS NOT NULL"])}
         ORDER BY {order} DESC
            LIMIT %(limit)s
        """,
        **values,
    )
    is_last = len(rows) < limit
    if is_last and first and first["created_at"] >= filters.get("since", ""):
        return rows, first["id"]
    return page_of(rows, limit)


def _first_looked_at(filters: db.Row) -> db.Row | None:
    """Return where a page ends at the latest; None if fewer jobs are left."""
    names = [name for name in ("cursor", "user") if name in filters]
    return db.one(
        f"""
          SELECT id, created_at
            FROM image_generations AS g
           WHERE {" AND ".join([FILTERS[name] for name in names] or ["1 = 1"])}
        ORDER BY id DESC
           LIMIT 1 OFFSET {MAX_LOOKED_THROUGH - 1}
        """,
        **{name: filters[name] for name in names},
    )


def find_job(job_id: int) -> Job:
    """Return a job. Raises ApiError if there is none."""
    job = queue.get_job(job_id)
    if not job or not job["model"]:
        raise ApiError("not_found")
    return job


@db.retried
def cancel_job(actor: Actor, job_id: int) -> None:
    """Cancel an unfinished job. Raises ApiError if it is finished or not there."""
    job = find_job(job_id)
    with db.transaction():
        job = lock_job(job)
        if not queue.cancel_within(job["id"], job["user_id"]):
            raise ApiError("already_finished")
        note_job(actor, "job.cancel", job, "canceled")


@db.retried
def requeue_job(actor: Actor, job_id: int) -> None:
    """Put a failed or stuck job back into the queue. Raises ApiError for any other."""
    job = find_job(job_id)
    with db.transaction():
        job = lock_job(job)
        if not queue.requeue_within(job):
            raise ApiError("not_requeueable")
        note_job(actor, "job.requeue", job, "pending")
    broker.wake(job["model"])


def lock_job(job: Job) -> Job:
    """Lock a job until the end of the transaction, and return it as it is now."""
    quota.lock_user(job["user_id"])
    sql = "SELECT id, status FROM image_generations WHERE id = %s FOR UPDATE"
    now = db.one(sql, job["id"])
    if not now:
        raise ApiError("not_found")
    return {**job, **now}


def note_job(actor: Actor, action: str, job: Job, status: str) -> None:
    before = {"status": job["status"], "userId": job["user_id"]}
    after = {"status": status, "userId": job["user_id"]}
    audit.record(actor, action, Target("job", job["id"], job["model"]), before, after)


# -- Pausing ------------------------------------------------------------------------------------


def pause(actor: Actor, model: str | None) -> None:
    """Let workers take no job of the model, or none at all. Raises InvalidInput for no model."""
    if model:
        parameters.choose_model(model)
    switch(actor, "queue.pause", queue.pause, model)


def resume(actor: Actor, model: str | None) -> bool:
    """Undo a pause; that of a model and that of the whole queue are two. Tells if there was one."""
    was_paused = switch(actor, "queue.resume", queue.resume, model)
    tickets.send_missing()
    return was_paused


@db.retried
def switch(actor: Actor, action: str, change: Callable[[str], bool], model: str | None) -> bool:
    is_paused = action == "queue.pause"
    target = Target("model", None, model) if model else Target("queue")
    with db.transaction():
        is_new = change(model or "")
        if is_new:
            audit.record(actor, action, target, {"paused": not is_paused}, {"paused": is_paused})
    return is_new


# -- Images -------------------------------------------------------------------------------------


def check_may_look() -> None:
    if not settings.ADMIN_SEES_IMAGES:
        raise ApiError("forbidden")


def look_at_images(actor: Actor, user_id: int, cursor: int | None, limit: int) -> Page:
    """Return generations of an account, the newest first, and note who has seen which.

    Raises ApiError unless ADMIN_SEES_IMAGES is on.
    """
    check_may_look()
    user = admin.get_user(user_id)
    before = "AND g.id < %(cursor)s" if cursor else ""
    generations = db.all(
        f"""
          SELECT {history.COLUMNS}
            FROM image_generations AS g
           WHERE g.user_id = %(user_id)s {before}
        ORDER BY g.id DESC
           LIMIT %(limit)s
        """,
        user_id=user_id,
        cursor=cursor,
        limit=limit,
    )
    seen = {"ids": [generation["id"] for generation in generations]}
    audit.record(actor, "image.list", admin.target(user), None, seen)
    return page_of(generations, limit)


def look_at_file(actor: Actor, user_id: int, filename: str) -> None:
    """Note that a file of an account is about to be seen. Raises ApiError as above."""
    check_may_look()
    user = admin.get_user(user_id)
    if withheld.is_withheld(f"generated_images/{user_id}/{filename}"):
        raise ApiError("image_deleted")
    audit.record(actor, "image.file", admin.target(user), None, {"file": filename})
