"""The life of a generation, no HTTP. Its row is the truth: pending -> processing -> completed | failed | canceled.

submit() inserts it; take() gives it to one worker under a claim and a lease; run() makes the picture while the
worker renews the lease; finish() stores the files and then the result, in one guarded UPDATE. Whoever lost the
claim changes nothing. sweep() repairs what processes that died left behind.
"""

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import checks
import cpu
import db
import engines
import media
import messages
import metrics
import models
import storage
from checks import MAX_SEED, GenerateInput, GenerateTestInput, TestParams
from messages import Refusal

LEASE_SECONDS = 30
MAX_ATTEMPTS = 3
BACK_OFF_SECONDS = (5, 30)
# Long enough for storing two files and one UPDATE, short enough that an orphan is gone within a minute.
DOOM_SECONDS = LEASE_SECONDS

log = logging.getLogger("jobs")


to_json = json.JSONEncoder(ensure_ascii=False).encode
# What old rows hold as NaN or Infinity is nothing: JSON has no word for it.
from_json = json.JSONDecoder(parse_constant=lambda name: None).decode


class Stopped(Exception):
    """The generation is no longer ours to make: canceled, deleted, or given to another worker."""


# -- Submit -------------------------------------------------------------------------------------


def submit(
    user: db.Row, wanted: GenerateInput, key: str | None = None, extra: dict | None = None, hold_seconds: int = 0
) -> list[db.Row]:
    """Queue `wanted.n` generations, with seeds one after the other, and return their records.

    The same key and request again return the first answer's records. `extra` are params to keep in the record
    beside ours; workers leave the rows alone for `hold_seconds`. Raises InvalidInput, and the Refusals of
    db.submit_generations().
    """
    filled = models.fill(wanted)
    first = wanted.seed if wanted.seed not in (None, -1) else secrets.randbelow(MAX_SEED + 2 - wanted.n)
    rows = [columns(filled, (first + index) % (MAX_SEED + 1), extra or {}) for index in range(wanted.n)]
    key_hash, body_hash = (digest(key), digest(wanted.model_dump_json())) if key else (None, "")
    return db.submit_generations(user, rows, key_hash, body_hash, hold_seconds)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def columns(wanted: GenerateInput, seed: int, extra: dict) -> db.Row:
    model = models.offered()[wanted.model]
    params = {
        **extra,
        "model_used": model.model_used or model.name,
        "seed": seed,
        "width": wanted.width,
        "height": wanted.height,
    }
    for name in ("steps", "guidance", "negative_prompt"):
        if getattr(wanted, name):
            params[name] = getattr(wanted, name)
    return {
        "prompt_text": wanted.prompt,
        "status": "pending",
        "model": wanted.model,
        "width": wanted.width,
        "height": wanted.height,
        "generation_params_json": to_json(params),
    }


def retry(user: db.Row, generation: db.Row, new_seed: bool) -> list[db.Row]:
    """Queue a new generation with the parameters of an old one. Raises as submit() does."""
    params = stored_params(generation)
    model = models.offered().get(generation["model"] or "")
    names = [name for name in ("negative_prompt", *models.RANGED) if model and getattr(model, name)]
    # Rows of older programs, and params of generate-test, may hold anything under these names.
    again = {name: params[name] for name in names if isinstance(params.get(name), int | float | str)}
    if not new_seed and isinstance(params.get("seed"), int):
        again["seed"] = params["seed"]
    body = {"prompt": generation["prompt_text"], "model": generation["model"], **again}
    return submit(user, checks.parse(GenerateInput, body))


def stored_params(generation: db.Row) -> dict[str, Any]:
    """Return recorded params; a row older than this service may hold none, or something else."""
    try:
        params = from_json(generation["generation_params_json"] or "{}")
    except (ValueError, RecursionError):
        params = {}
    return params if isinstance(params, dict) else {}


# -- Take ---------------------------------------------------------------------------------------


def take(served: list[str]) -> db.Row | None:
    """Claim the generation whose turn it is among these models; None if there is none."""
    while turn := db.next_generation(served):
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


def run(job: db.Row, on_progress: Callable[[int, int], None] = engines.no_progress) -> None:
    """Make the picture of a claimed job and record it, or why there is none.

    Raises Stopped if on_progress does or if the claim was lost, and Unavailable if the database is away at the
    end: the lease then runs out and the job is made again.
    """
    started, outcome = time.monotonic(), "unrecorded"
    try:
        outcome = make_and_record(job, on_progress)
    except Stopped:
        outcome = "stopped"
        raise
    finally:
        metrics.note_job(job["model"], outcome, time.monotonic() - started)


def make_and_record(job: db.Row, on_progress: Callable[[int, int], None]) -> str:
    try:
        data = engines.load(models.offered()[job["model"]].engine).make(engine_job(job), on_progress)
        return finish(job, data, media.thumbnail(data))
    except (Stopped, db.Unavailable):
        raise
    except engines.Transient as error:
        return try_later(job, error.code, error)
    except Exception as error:
        code = error.code if isinstance(error, engines.EngineError) else "engine_error"
        return fail(job, code, error)


def engine_job(job: db.Row) -> engines.Job:
    params = stored_params(job)
    return engines.Job(
        prompt=job["prompt_text"],
        negative_prompt=params.get("negative_prompt", ""),
        width=job["width"],
        height=job["height"],
        steps=params.get("steps") or 1,
        seed=params["seed"],
        guidance=params.get("guidance"),
        options=models.offered()[job["model"]].options,
    )


def finish(job: db.Row, image: bytes, thumbnail: bytes) -> str:
    """Store the files, then the result. Until the result stands, the files are doomed: no crash leaves orphans."""
    folder = f"generated_images/{job['user_id']}"
    keys = [f"{folder}/{job['claim']}.png", f"{folder}/{job['claim']}_thumbnail.webp"]
    db.doom_files(keys, DOOM_SECONDS)
    try:
        image_url, thumbnail_url = storage.put(keys[0], image), storage.put(keys[1], thumbnail)
    except OSError as error:  # a full disk, say: the next attempt may find room
        raise engines.Transient("storage_unavailable", str(error)) from error
    result = {
        "image_filename": f"{job['claim']}.png",
        "image_url": image_url,
        "thumbnail_url": thumbnail_url,
        "progress": 100,
    }
    if not db.complete_generation(job["id"], job["claim"], result, keys):
        remove_files(keys)
        raise Stopped
    return "completed"


def try_later(job: db.Row, code: str, error: engines.Transient) -> str:
    if job["attempt"] >= MAX_ATTEMPTS:
        return fail(job, code, error)
    delay = min(error.retry_after or BACK_OFF_SECONDS[job["attempt"] - 1], 3600)
    log.warning("try later", extra={"details": {"generation": job["id"], "cause": str(error), "seconds": delay}})
    db.release_generation(job["id"], job["claim"], delay_seconds=delay)
    return "put off"


def fail(job: db.Row, code: str, error: Exception | None = None) -> str:
    """Record a failure: its code and a sentence for the owner; what happened exactly is for the log alone."""
    log.error("failed", extra={"details": {"generation": job["id"], "code": code}}, exc_info=error)
    db.fail_generation(job["id"], job["user_id"], job["claim"], code, messages.JOB_ERRORS[code][0])
    return "failed"


def give_back(job: db.Row) -> None:
    """Return a claimed job to the queue as if it had not been taken, because this process must end."""
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
        elif job["attempt"] >= MAX_ATTEMPTS:
            fail(job, "worker_lost")
        else:
            db.release_generation(job["id"], job["claim"])
    remove_files(db.list_due_files())
    db.delete_old_keys()
    db.delete_old_workers()
    db.delete_old_attempts()


# -- The view from outside ----------------------------------------------------------------------------

CREW_SECONDS = 30


class Queue:
    """Who waits, and how fast the queue moves; looked up once a second at most, however many clients ask."""

    def __init__(self):
        self.pending = db.count_pending_by_user()
        self.crew = db.get_crew(CREW_SECONDS)
        self.positions: dict[int, int] = {}  # by how many waiting generations a user has

    def place(self, user_id: int) -> tuple[int, int | None]:
        """Estimate the place of the user's last generation, and the seconds until it is done.

        Users take turns, so of each no more come before it than the user has. The time is None while no
        worker is alive.
        """
        own = self.pending.get(user_id, 1)
        if own not in self.positions:
            self.positions[own] = sum(min(number, own) for number in self.pending.values()) or 1
        position = self.positions[own]
        if not self.crew["workers"]:
            return position, None
        return position, max(1, round(position * float(self.crew["run_seconds"]) / self.crew["workers"]))


def readiness() -> dict[str, str]:
    """Return what an image needs, each with what is wrong with it: a key of messages.FIELDS, or nothing."""
    state = {"database": "", "storage": "", "queue": ""}
    try:
        state["queue"] = "" if db.get_crew(CREW_SECONDS)["workers"] else "no_worker"
    except Exception:  # away, or a database without our tables
        state |= {"database": "away", "queue": "away"}
    try:
        storage.check()
    except OSError:
        state["storage"] = "away"
    return state


@lru_cache(maxsize=2)
def _queue(second: int) -> Queue:
    return Queue()


def queue() -> Queue:
    return _queue(int(time.monotonic()))
