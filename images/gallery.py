"""What an owner does with single generations, beside submitting them."""

from contextlib import suppress

import heavy
import validation
from accounts.tokens import Session
from errors import ApiError
from files import cleanup, storage
from images import PENDING, history, jobs, parameters, queue
from images.history import Generation
from images.schemas import GenerateInput, GenerateTestInput, TestParams
from images.submit import submit


def generate_test(session: Session, wanted: GenerateTestInput) -> Generation:
    """Submit a generation and make it at once, in this process; return its record.

    Should this process be killed meanwhile, a worker makes the image a little later. Raises
    heavy.Busy and storage.Unavailable before anything is written, and as submit() does.
    """
    storage.check()
    params = wanted.params or TestParams()
    values = params.model_dump(include=set(TestParams.model_fields))
    body = GenerateInput(prompt=wanted.prompt, **values)
    return heavy.run(_make_now, session, body, params.model_extra or {})


def _make_now(session: Session, wanted: GenerateInput, extra: dict) -> Generation:
    [record] = submit(session, wanted, extra=extra, hold_seconds=jobs.LEASE_SECONDS)
    if job := jobs.claim(record["id"]):
        with suppress(jobs.ClaimLost):  # canceled or deleted meanwhile: the record tells
            jobs.run(job)
    generation = _read_again(session.user_id, record)
    if generation["status"] == PENDING:  # its files could not be written after all
        delete(session.user_id, [generation["id"]])
        raise storage.Unavailable
    return generation


def retry(session: Session, generation: Generation, new_seed: bool) -> list[Generation]:
    """Queue a new generation with the parameters of an old one. Raises as submit() does."""
    body = parameters.retry_body(generation, new_seed)
    return submit(session, validation.parse(GenerateInput, body))


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
    found = history.list_owned(user_id, [generation["id"]])
    if not found:
        raise ApiError("image_deleted")
    return found[0]


def delete(user_id: int, ids: list[int]) -> list[int]:
    """Delete generations of the user with their files; return the ids of those there were."""
    deleted = history.delete_generations(user_id, ids)
    for generation in deleted:
        cleanup.delete_files(history.file_keys(generation))
    return [generation["id"] for generation in deleted]
