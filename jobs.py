"""The life of a generation, no HTTP. Its row is the truth: pending -> processing -> completed | failed | canceled.

submit() inserts it; take() gives it to one worker under a claim and a lease; run() makes the picture while the
worker renews the lease; finish() stores the files and then the result, in one guarded UPDATE. Whoever lost the
claim changes nothing. sweep() repairs what processes that died left behind.

What somebody may have to pay for is never repeated on a guess: the row says `is_sent` before such a request goes
out, and only an answer takes that back. A row that says so when its worker is gone fails as `outcome_unknown`.
"""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from traceback import format_tb
from typing import Any

import blocklist
import checks
import cpu
import db
import engines
import media
import messages
import metrics
import models
import recipe
import results
import storage
from checks import GenerateInput, GenerateTestInput, TestParams
from messages import Refusal

LEASE_SECONDS = 30
MAX_ATTEMPTS = 3
BACK_OFF_SECONDS = (5, 30)
# How long a finished image waits for a database that is away, rather than be made again.
PATIENCE_SECONDS = 20
# Long enough for storing two files and one UPDATE, short enough that an orphan is gone within a minute.
DOOM_SECONDS = LEASE_SECONDS

log = logging.getLogger("jobs")


class Stopped(Exception):
    """The generation is no longer ours to make: canceled, deleted, or given to another worker."""


# -- Submit -------------------------------------------------------------------------------------


def submit(
    user: db.Row, wanted: GenerateInput, key: str | None = None, extra: dict | None = None, hold_seconds: int = 0
) -> list[db.Row]:
    """Queue `wanted.n` generations, with seeds one after the other, and return their records.

    The same key and request again return the first answer's records. `extra` are params to keep in the record
    beside ours; workers leave the rows alone for `hold_seconds`. Raises InvalidInput, PromptBlocked, and the
    Refusals of db.submit_generations().
    """
    blocklist.check(wanted.prompt)
    key_hash, body_hash = (digest(key), digest(wanted.model_dump_json())) if key else (None, "")
    rows = recipe.rows(models.fill(wanted), extra or {})
    return db.submit_generations(user, rows, key_hash, body_hash, hold_seconds)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def retry(user: db.Row, generation: db.Row, new_seed: bool) -> list[db.Row]:
    """Queue a new generation with the parameters of an old one. Raises as submit() does."""
    return submit(user, checks.parse(GenerateInput, recipe.again(generation, new_seed)))


# -- Take ---------------------------------------------------------------------------------------


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
    metrics.note_wait(job["model"], job["now"] - checks.seconds_of(job["created_at"]))
    deadline = models.offered()[job["model"]].deadline_seconds
    taken = db.claim_generation(job, token, LEASE_SECONDS, deadline, time.time())
    return {**job, "claim": token, "attempt": job["attempt"] + 1} if taken else None


# -- Run and finish -----------------------------------------------------------------------------


def run(job: db.Row, on_progress: Callable[[int, int], None] = engines.no_progress) -> str:
    """Make the picture of a claimed job and record it, or why there is none; return "completed", "failed" or "put off".

    Raises Stopped if on_progress does or if the claim was lost, and Unavailable if the database is away at the
    end: the lease then runs out and the job is made again.
    """
    started, outcome = time.monotonic(), "unrecorded"
    try:
        outcome = make_and_record(job, on_progress)
        return outcome
    except Stopped:
        outcome = "stopped"
        raise
    finally:
        metrics.note_job(job["model"], outcome, time.monotonic() - started)


def make_and_record(job: db.Row, on_progress: Callable[[int, int], None]) -> str:
    try:
        wanted = recipe.engine_job(job, before_send=partial(mark_sent, job))
        drawing = engines.load(models.offered()[job["model"]].engine).make(wanted, on_progress)
        return finish(job, results.intake(job, recipe.params_of(job), drawing))
    except (Stopped, db.Unavailable):
        raise
    except engines.Transient as error:
        return try_later(job, error)
    except engines.EngineError as error:
        return fail(job, error.code, error, error.shown)
    except media.BadPicture as error:
        return fail(job, "bad_picture", error)
    except Exception as error:
        return fail(job, "engine_error", error)


def mark_sent(job: db.Row) -> None:
    """Note that a request somebody may pay for is about to go out. Raises Stopped if the claim was lost."""
    if not db.mark_sent(job["id"], job["claim"]):
        raise Stopped
    job["is_sent"] = 1


def finish(job: db.Row, made: results.Result) -> str:
    """Store the files, then the result. Until the result stands, the files are doomed: no crash leaves orphans."""
    name = f"{job['claim']}.{made.extension}"
    folder = f"generated_images/{job['user_id']}"
    keys = [f"{folder}/{name}", f"{folder}/{job['claim']}_thumbnail.webp"]
    patiently(db.doom_files, keys, DOOM_SECONDS)
    try:
        urls = storage.put(keys[0], made.image), storage.put(keys[1], made.thumbnail)
    except OSError as error:  # a full disk, say: the next attempt may find room, unless somebody pays for it
        kind = engines.Final if job["is_sent"] else engines.Transient
        raise kind("storage_unavailable", str(error)) from error
    result = {"image_filename": name, "image_url": urls[0], "thumbnail_url": urls[1], "progress": 100, **made.columns}
    if not patiently(db.complete_generation, job["id"], job["claim"], result, keys):
        remove_files(keys)
        raise Stopped
    return "completed"


def patiently(change: Callable[..., Any], *values: Any) -> Any:
    """Make a change that may be repeated, waiting a while for a database that is away."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return change(*values)
        except db.Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(1)


def try_later(job: db.Row, error: engines.Transient) -> str:
    if job["attempt"] >= MAX_ATTEMPTS:
        return fail(job, error.code, error)
    delay = min(error.retry_after or BACK_OFF_SECONDS[job["attempt"] - 1], 3600)
    log.warning("try later", extra={"details": {"generation": job["id"], "cause": str(error), "seconds": delay}})
    db.release_generation(job["id"], job["claim"], delay_seconds=delay)
    return "put off"


def fail(job: db.Row, code: str, error: Exception | None = None, shown: str = "") -> str:
    """Record a failure: its code, a sentence for the owner and what the engine says of it."""
    details = {"generation": job["id"], "code": code}
    if isinstance(error, engines.EngineError):
        details["cause"] = str(error)
    elif error:  # a surprise, whose text may hold the prompt; where it came from is enough to find it
        details |= {"cause": type(error).__name__, "traceback": "".join(format_tb(error.__traceback__))}
    log.error("failed", extra={"details": details})
    db.fail_generation(job, code, messages.JOB_ERRORS[code][0], shown)
    return "failed"


def give_back(job: db.Row) -> None:
    """Return a claimed job to the queue as if it had not been taken, because this process must end."""
    if job["is_sent"]:
        fail(job, "outcome_unknown")
    else:
        db.release_generation(job["id"], job["claim"], attempts_back=1)


def generate_test(user: db.Row, wanted: GenerateTestInput) -> db.Row:
    """Submit a generation and make it at once, in this process; return its record.

    Raises cpu.Busy before anything is written, and as submit() does. Should this process be killed meanwhile,
    a worker makes the image a little later.
    """
    params = wanted.params or TestParams()
    body = {"prompt": wanted.prompt, **params.model_dump(include=set(TestParams.model_fields))}
    return cpu.run(make_now, user, GenerateInput(**body), params.model_extra or {})


def make_now(user: db.Row, wanted: GenerateInput, extra: dict) -> db.Row:
    record = submit(user, wanted, extra=extra, hold_seconds=LEASE_SECONDS)[0]
    if job := claim(record["id"]):
        with suppress(Stopped):  # canceled or deleted meanwhile: the record tells
            run(job)
    return reread(user, record)


# -- Cancel and delete ----------------------------------------------------------------------------


def cancel(user: db.Row, generation: db.Row) -> db.Row:
    """Cancel an unfinished generation and return what it is then. Raises Refusal if it is finished."""
    if not db.cancel_generation(generation["id"], user["id"]):
        raise Refusal("already_finished")
    return reread(user, generation)


def set_favorite(user: db.Row, generation: db.Row, favorite: bool) -> db.Row:
    db.set_favorite(user["id"], generation["id"], favorite)
    return reread(user, generation)


def reread(user: db.Row, generation: db.Row) -> db.Row:
    found = db.list_owned(user["id"], [generation["id"]])
    if not found:
        raise Refusal("image_deleted")
    return found[0]


def delete(user: db.Row, ids: list[int]) -> list[int]:
    """Delete generations of the user with their files, and return the ids of those there were."""
    deleted = db.delete_generations(user["id"], ids)
    for row in deleted:
        remove_files(db.file_keys(row))
    return [row["id"] for row in deleted]


def remove_files(keys: list[str]) -> None:
    for key in keys:
        storage.delete(storage.URL_PREFIX + key)
        db.forget_file(key)


# -- Sweep --------------------------------------------------------------------------------------


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
    remove_files(db.list_due_files())
    db.delete_old_keys()
    db.delete_old_workers()
    db.delete_old_attempts()
