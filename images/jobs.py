"""What a worker does with a job: acquire it, run it, and record what came of it.

What may be charged is never repeated on a guess: the row says `may_be_charged` before such a
request goes out, and only an answer takes that back. A row that says so when its worker is gone
fails with `outcome_unknown`.
"""

import logging
import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from itertools import count

import db
import engines
import logs
import messages
import metrics
from accounts import codes, identities, mails, rate_limits, registration, sessions
from engines import catalog
from files import cleanup, storage
from images import (
    COMPLETED,
    FAILED,
    PENDING,
    archive_links,
    broker,
    inputs,
    parameters,
    queue,
    results,
    retention,
    shares,
    stats,
    submit,
    uploads,
    waiting,
)
from images.queue import Job

LEASE_SECONDS = 30
MAX_ATTEMPTS = 3
BACKOFF_SECONDS = (5, 30)
# Of many workers that ask at the same moment, so often each looks for a job that no other one is
# about to claim, and at so many beside the one whose turn it is.
TRIES = 5
OTHERS = 3
MAX_BACKOFF_SECONDS = queue.MAX_WAIT_SECONDS
# While a store elsewhere is away: so long a worker keeps a result that it can make again, and a job
# then waits. One that may be charged is kept until so long before its deadline.
STORE_PATIENCE_SECONDS = 20
STORE_BACKOFF_SECONDS = 10
DEADLINE_MARGIN_SECONDS = 10
# What two files take at most, with all tries.
STORE_SECONDS = 120

log = logging.getLogger("jobs")


class ClaimLost(Exception):
    """The job is no longer ours: it was canceled, deleted, or given to another worker."""


def acquire(models: list[str]) -> Job | None:
    """Claim the job whose turn it is among these models; None if there is none."""
    is_counted = False
    waiting.count_new()
    for tries in count():
        ids = waiting.next_ids(models)
        # Other workers may be faster; then look anew whose turn it is.
        if job := _claim_one_of(ids, may_wait=tries >= TRIES):
            return job
        if not ids:
            if is_counted or not waiting.count_missed(models):
                return None
            is_counted = True


def _claim_one_of(ids: list[int], may_wait: bool) -> Job | None:
    """Claim the first one, or any other that nobody else is about to claim."""
    others = ids[1:]
    random.shuffle(others)
    for generation_id in ids[:1] + others[:OTHERS]:
        if job := claim(generation_id, may_wait):
            return job
    return None


def claim(generation_id: int, may_wait: bool = True) -> Job | None:
    """Claim one pending generation; None if it is not pending any more, or as claim_job() says."""
    job = queue.get_job(generation_id)
    if not job or job["status"] != PENDING:
        return None
    token = secrets.token_hex(16)
    deadline_seconds = catalog.find_model(job["model"]).deadline_seconds
    seconds = LEASE_SECONDS, deadline_seconds
    if not queue.claim_job(job, token, *seconds, now=time.time(), may_wait=may_wait):
        return None
    metrics.note_wait(job["model"], job["waited_seconds"])
    taken = {"claim": token, "attempt": job["attempt"] + 1, "taken_at": time.monotonic()}
    return {**job, **taken}


def run(job: Job, on_progress: Callable[[int, int], None] = engines.no_progress) -> str:
    """Make the picture of an acquired job and record it, or why there is none.

    Returns "completed", "failed" or "deferred". Raises ClaimLost if on_progress does or if the
    claim was lost, and Unavailable if the database is away at the end: the lease then runs out,
    and the job is made again.
    """
    with metrics.job_timer(job["model"]) as timer:
        try:
            timer.outcome = make(job, on_progress)
        except ClaimLost:
            timer.outcome = "stopped"
            raise
        except db.Unavailable:
            raise
        except engines.TransientError as error:
            timer.outcome = defer(job, error)
        except engines.EngineError as error:
            timer.outcome = fail(job, error.code, error.shown, cause=str(error))
        except Exception as error:
            timer.outcome = fail(job, "engine_error", **logs.describe(error))
        return timer.outcome


def make(job: Job, on_progress: Callable[[int, int], None]) -> str:
    refuse_without_store()
    params = parameters.params_of(job)
    before_send = partial(mark_may_be_charged, job)
    request = parameters.image_request(job, params, *inputs.load(job), before_send)
    engine = engines.load(catalog.find_model(job["model"]).engine)
    generated = engine.make(request, on_progress)
    return complete(job, results.process(job, params, generated))


def mark_may_be_charged(job: Job) -> None:
    """Note that a request that may be charged is about to go out. Raises ClaimLost."""
    if not queue.mark_may_be_charged(job["id"], job["claim"]):
        raise ClaimLost
    job["may_be_charged"] = 1


def refuse_without_store() -> None:
    """Raise TransientError if a store elsewhere is away: then nothing is drawn, or paid for."""
    try:
        if storage.is_remote():
            storage.check()
    except storage.Unavailable as error:
        raise engines.TransientError(error.code, str(error.__cause__)) from error


def complete(job: Job, result: results.Result) -> str:
    """Store the files, then record the result. Raises ClaimLost."""
    patience, keep_seconds = 0.0, float(LEASE_SECONDS)
    if storage.is_remote():
        patience = patience_with_store(job)
        keep_seconds = patience + STORE_SECONDS
    columns, keys = results.store(job, result, keep_seconds, patience)
    recorded = (job["id"], job["claim"], columns, keys, measure(job, result))
    if not db.retry_while_unavailable(queue.complete, *recorded):
        cleanup.delete_files(keys)
        raise ClaimLost
    return COMPLETED


def patience_with_store(job: Job) -> float:
    """Return how long a worker may try to store a result; nobody waits for it but its owner."""
    if job.get("is_awaited"):
        return 0
    if not job["may_be_charged"]:
        return STORE_PATIENCE_SECONDS
    deadline_seconds = catalog.find_model(job["model"]).deadline_seconds
    running = time.monotonic() - job["taken_at"]
    return max(0, deadline_seconds - DEADLINE_MARGIN_SECONDS - running)


def measure(job: Job, result: results.Result) -> stats.Measured:
    size = len(result.image) + len(result.thumbnail)
    running = round(time.monotonic() - job["taken_at"])
    return stats.Measured(size, max(0, job["waited_seconds"]), running)


def defer(job: Job, error: engines.TransientError) -> str:
    """Return a job to the queue, to be retried after a backoff; fail it after its last attempt.

    What waits for a store elsewhere has made no attempt: it waits as long as that is away.
    """
    is_store_away = error.code == storage.Unavailable.code and storage.is_remote()
    if is_store_away:
        backoff = STORE_BACKOFF_SECONDS
    elif job["attempt"] >= MAX_ATTEMPTS:
        return fail(job, error.code, error.shown, cause=str(error))
    else:
        backoff = error.retry_after or BACKOFF_SECONDS[job["attempt"] - 1]
    seconds = min(backoff, MAX_BACKOFF_SECONDS)
    details = {"generation": job["id"], "cause": str(error), "seconds": seconds}
    log.warning("try later", extra={"details": details})
    queue.release(job, delay_seconds=seconds, refund=int(is_store_away))
    return "deferred"


def fail(job: Job, code: str, shown: str = "", **details: str) -> str:
    """Record a failure: its code, a sentence for the owner, and what the engine says of it.

    The details are logged.
    """
    log.error("failed", extra={"details": {"generation": job["id"], "code": code, **details}})
    sentence, _ = messages.JOB_ERRORS[code]
    queue.fail(job, code, sentence, shown)
    return FAILED


def release(job: Job) -> None:
    """Return a job to the queue as if it had not been acquired, because this process must end."""
    if job["may_be_charged"]:
        fail(job, "outcome_unknown")
    else:
        queue.release(job, refund=1)
        broker.wake(job["model"])


def sweep() -> bool:
    """Repair what processes that died left; any number of workers may do so at the same time.

    Tells if there was time for all of it.
    """
    queue.forget_wrong_clock()
    queue.cancel_of_disabled()
    waiting.repair()
    for job in queue.list_abandoned():
        if job["is_late"]:
            fail(job, "timeout")
        elif job["may_be_charged"]:
            fail(job, "outcome_unknown")
        elif job["attempt"] >= MAX_ATTEMPTS:
            fail(job, "worker_lost")
        else:
            queue.release(job)
    all_done = registration.finish_deletions()
    uploads.sweep()
    all_done &= cleanup.delete_expired()
    submit.delete_expired_keys()
    queue.delete_old_workers()
    rate_limits.delete_expired()
    sessions.delete_expired()
    shares.delete_expired()
    archive_links.delete_expired()
    retention.sweep()
    identities.delete_expired()
    codes.delete_expired()
    mails.delete_expired()
    return all_done
