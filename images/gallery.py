"""What an owner does with single generations, beside submitting them."""

import time
from contextlib import suppress

import db
import heavy
import validation
from accounts.tokens import Session
from config import settings
from engines import catalog
from errors import ApiError
from files import storage
from images import (
    FAILED,
    PENDING,
    UNFINISHED,
    blocklist,
    history,
    inputs,
    jobs,
    parameters,
    queue,
    queue_status,
    trash,
)
from images.history import Generation
from images.schemas import MAX_ID, GenerateInput, GenerateTestInput, TestParams
from images.submit import UsedKey, submit, submit_rows

# How long a repeated request for a test image waits for the one that draws it.
WAIT_SECONDS = 30
LOOK_SECONDS = 0.1


def generate_test(
    session: Session, wanted: GenerateTestInput, key: str | None = None
) -> Generation:
    """Submit a generation and make it at once, in this process; return its record.

    Should this process be killed meanwhile, a worker makes the image a little later. The same key
    and request again return the first record, as soon as it is finished. Raises heavy.Busy and
    storage.Unavailable before anything is written, and as submit() does.
    """
    blocklist.check(wanted.prompt)
    rows = _test_rows(wanted)
    queue_status.refuse_paused(rows[0]["model"])
    used_key = UsedKey(key, f"generate-test {wanted.model_dump_json()}") if key else None
    owner = str(session.user_id)
    record = heavy.pictures.run(_make_now, session, rows, used_key, owner=owner)
    return _wait_until_finished(session.user_id, record)


def _test_rows(wanted: GenerateTestInput) -> list[db.Row]:
    """Return the row of a test image: the built-in engine draws it, whatever model was asked."""
    model = catalog.built_in_model()
    params = wanted.params or TestParams()
    values = params.model_dump(include=set(TestParams.model_fields) - {"model"})
    body = GenerateInput(prompt=wanted.prompt, **values)
    extra = params.model_extra or {}
    if params.model not in (None, model.name):
        extra = {**extra, "requested": {"model": params.model}}
    return parameters.new_rows(parameters.fill(body, model), extra)


def _make_now(session: Session, rows: list[db.Row], used_key: UsedKey | None) -> Generation:
    storage.check()
    submitted = submit_rows(session, rows, used_key, hold_seconds=jobs.LEASE_SECONDS)
    if not submitted:  # deleted since the first request with this key
        raise ApiError("image_deleted")
    [record] = submitted
    job = None
    try:
        job = jobs.claim(record["id"])
        if job:
            with suppress(jobs.ClaimLost):  # canceled or deleted meanwhile: the record tells
                jobs.run({**job, "is_awaited": True})
        generation = _read_again(session.user_id, record)
        if _is_without_files(generation, job):
            raise storage.Unavailable
    except (db.Unavailable, storage.Unavailable):
        with suppress(db.Unavailable):
            _take_back(session.user_id, record, job, used_key)
        raise
    return generation


def _is_without_files(generation: Generation, job: queue.Job | None) -> bool:
    """Tell if the files could not be written, now or when a worker tried for the last time."""
    is_deferred = job is not None and generation["status"] == PENDING
    return is_deferred or generation["error_code"] == storage.Unavailable.code


def _take_back(
    user_id: int, record: Generation, job: queue.Job | None, used_key: UsedKey | None
) -> None:
    """Leave nothing of a test image that is answered with 503; a worker draws it if this fails."""
    is_shared = used_key and not job
    if is_shared and _read_again(user_id, record)["status"] not in (PENDING, FAILED):
        return  # another request with the key draws it, or has drawn it
    delete(user_id, [record["id"]], purge=True)
    if used_key:
        used_key.forget(user_id)


def _wait_until_finished(user_id: int, record: Generation) -> Generation:
    """Wait until an image is made by another: an earlier request with its key, or a worker."""
    give_up_at = time.monotonic() + WAIT_SECONDS
    while record["status"] in UNFINISHED:
        if time.monotonic() > give_up_at:
            raise heavy.Busy
        time.sleep(LOOK_SECONDS)
        record = _read_again(user_id, record)
    return record


def retry(
    session: Session, generation: Generation, new_seed: bool, key: str | None = None
) -> list[Generation]:
    """Queue a new generation with the parameters of an old one. Raises as submit() does."""
    made_from = inputs.as_requested(inputs.inputs_of(generation))
    body = parameters.retry_body(generation, new_seed, made_from)
    request = f"retry {generation['id']} {new_seed}"
    try:
        return submit(session, validation.parse(GenerateInput, body), key, request)
    except inputs.Missing as error:
        raise ApiError("input_gone", fields=error.fields) from None


def cancel(user_id: int, generation: Generation) -> Generation:
    """Cancel an unfinished generation and return it. Raises ApiError if it is finished.

    Its worker notices at the next heartbeat.
    """
    if not queue.cancel(generation["id"], user_id):
        raise ApiError("already_finished")
    return _read_again(user_id, generation)


def set_favorite(user_id: int, generation: Generation, favorite: bool) -> Generation:
    history.set_favorite(user_id, generation["id"], favorite)
    return _read_again(user_id, generation)


def _read_again(user_id: int, generation: Generation) -> Generation:
    # What was changed before is not to be answered with 503.
    found = db.retry_while_unavailable(history.list_owned, user_id, [generation["id"]])
    if not found:
        raise ApiError("image_deleted")
    return found[0]


def delete(user_id: int, ids: list[int], purge: bool = False) -> list[int]:
    """Delete generations of the user, and return the ids of those there were.

    They go into the trash if there is one. To purge is to delete for good, with the files, also
    what is in the trash already.
    """
    into_trash = settings.TRASH_DAYS > 0 and not purge
    deleted = trash.take_out(user_id, ids, into_trash)
    if purge:
        deleted += trash.purge(user_id, ids)
    if not into_trash:
        trash.delete_files(deleted)
    return sorted(generation["id"] for generation in deleted)


def delete_one(user_id: int, generation_id: int, purge: bool) -> list[int]:
    """Do the same with one. Raises ApiError if it was deleted before, or never there."""
    known_id = min(generation_id, MAX_ID)
    deleted = delete(user_id, [known_id], purge) if generation_id == known_id else []
    if not deleted:
        was_deleted = trash.was_deleted(user_id, known_id)
        raise ApiError("image_deleted" if was_deleted else "not_found")
    return deleted
