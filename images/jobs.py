"""The life of a generation, no HTTP. Its row is the truth: pending -> processing -> completed | failed | canceled.

submit() inserts it; take() gives it to one worker under a claim and a lease; run() makes the picture while the
worker renews the lease, stores the files and then the result, in one guarded UPDATE. Whoever lost the claim
changes nothing. sweep() repairs what processes that died left behind.

What somebody may have to pay for is never repeated on a guess: the row says `is_sent` before such a request goes
out, and only an answer takes that back. A row that says so when its worker is gone fails as `outcome_unknown`.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial

import db
import engines
import logs
import messages
import metrics
import validation
from engines import catalog
from errors import ApiError
from images import blocklist, parameters, results
from validation import GenerateInput

LEASE_SECONDS = 30
MAX_ATTEMPTS = 3
BACK_OFF_SECONDS = (5, 30)

log = logging.getLogger("jobs")


class Stopped(Exception):
    """The generation is no longer ours to make: canceled, deleted, or given to another worker."""


def submit(
    user: db.Row,
    wanted: GenerateInput,
    key: str | None = None,
    extra: dict | None = None,
    hold_seconds: int = 0,
) -> list[db.Row]:
    """Queue `wanted.n` generations, with seeds one after the other, and return their records.

    The same key and request again return the first answer's records. `extra` are params to keep in the record
    beside ours; workers leave the rows alone for `hold_seconds`. Raises InvalidInput, PromptBlocked, and the
    Refusals of db.submit_generations().
    """
    blocklist.check(wanted.prompt)
    key_hash, body_hash = (digest(key), digest(wanted.model_dump_json())) if key else (None, "")
    rows = parameters.rows(catalog.fill(wanted), extra or {})
    return db.submit_generations(user, rows, key_hash, body_hash, hold_seconds)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def cancel(user: db.Row, generation: db.Row) -> None:
    """Cancel an unfinished generation; its worker hears of it at the next heartbeat. Raises ApiError if finished."""
    if not db.cancel_generation(generation["id"], user["id"]):
        raise ApiError("already_finished")


# -- In a worker --------------------------------------------------------------------------------


def take(served: list[str]) -> db.Row | None:
    """Claim the generation whose turn it is among these models; None if there is none."""
    while served and (turn := db.next_generation(served)):
        if job := claim(turn["id"]):
            return job
        # Another worker was faster; look whose turn it is now.
    return None


def claim(generation_id: int) -> db.Row | None:
    """Claim one pending generation; the row returned carries the claim."""
    job = db.get_job(generation_id)
    if not job or job["status"] != "pending":
        return None
    token = secrets.token_hex(16)
    metrics.note_wait(job["model"], job["now"] - validation.seconds_of(job["created_at"]))
    deadline = catalog.offered()[job["model"]].deadline_seconds
    taken = db.claim_generation(job, token, LEASE_SECONDS, deadline, time.time())
    return {**job, "claim": token, "attempt": job["attempt"] + 1} if taken else None


def run(job: db.Row, on_progress: Callable[[int, int], None] = engines.no_progress) -> str:
    """Make the picture of a claimed job and record it, or why there is none; return "completed", "failed" or "put off".

    Raises Stopped if on_progress does or if the claim was lost, and Unavailable if the database is away at the
    end: the lease then runs out and the job is made again.
    """
    with metrics.job_timer(job["model"]) as timer:
        try:
            wanted = parameters.engine_job(job, before_send=partial(mark_sent, job))
            drawing = engines.load(catalog.offered()[job["model"]].engine).make(wanted, on_progress)
            timer.outcome = finish(job, results.intake(job, parameters.params_of(job), drawing))
        except Stopped:
            timer.outcome = "stopped"
            raise
        except db.Unavailable:
            raise
        except engines.TransientError as error:
            timer.outcome = try_later(job, error)
        except engines.EngineError as error:
            timer.outcome = fail(job, error.code, error.shown, cause=str(error))
        except Exception as error:
            timer.outcome = fail(job, "engine_error", **logs.surprise(error))
        return timer.outcome


def mark_sent(job: db.Row) -> None:
    """Note that a request somebody may pay for is about to go out. Raises Stopped if the claim was lost."""
    if not db.mark_sent(job["id"], job["claim"]):
        raise Stopped
    job["is_sent"] = 1


def finish(job: db.Row, made: results.Result) -> str:
    """Store the files, then the result. Until the result stands, the files are doomed: no crash leaves orphans."""
    columns, keys = results.store(job, made, LEASE_SECONDS)
    if not db.patiently(db.complete_generation, job["id"], job["claim"], columns, keys):
        results.remove(keys)
        raise Stopped
    return "completed"


def try_later(job: db.Row, error: engines.TransientError) -> str:
    if job["attempt"] >= MAX_ATTEMPTS:
        return fail(job, error.code, error.shown, cause=str(error))
    delay = min(error.retry_after or BACK_OFF_SECONDS[job["attempt"] - 1], 3600)
    log.warning(
        "try later",
        extra={"details": {"generation": job["id"], "cause": str(error), "seconds": delay}},
    )
    db.release_generation(job["id"], job["claim"], delay_seconds=delay)
    return "put off"


def fail(job: db.Row, code: str, shown: str = "", **details: str) -> str:
    """Record a failure: its code, a sentence for the owner and what the engine says of it; the details are logged."""
    log.error("failed", extra={"details": {"generation": job["id"], "code": code, **details}})
    db.fail_generation(job, code, messages.JOB_ERRORS[code][0], shown)
    return "failed"


def give_back(job: db.Row) -> None:
    """Return a claimed job to the queue as if it had not been taken, because this process must end."""
    if job["is_sent"]:
        fail(job, "outcome_unknown")
    else:
        db.release_generation(job["id"], job["claim"], attempts_back=1)


def sweep() -> None:
    """Repair what processes that died left behind; any number of workers may do so at the same time."""
    for job in db.list_abandoned():
        if job["is_late"]:
            fail(job, "timeout")
        elif job["is_sent"]:
            fail(job, "outcome_unknown")
        elif job["attempt"] >= MAX_ATTEMPTS:
            fail(job, "worker_lost")
        else:
            db.release_generation(job["id"], job["claim"])
    results.remove(db.list_due_files())
    db.delete_old_keys()
    db.delete_old_workers()
    db.delete_old_attempts()
