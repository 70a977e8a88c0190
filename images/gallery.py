"""What an owner does with single generations, beside submitting them; no HTTP."""

from contextlib import suppress

import db
import heavy
import validation
from errors import ApiError
from images import jobs, parameters, results
from validation import GenerateInput, GenerateTestInput, TestParams


def generate_test(user: db.Row, wanted: GenerateTestInput) -> db.Row:
    """Submit a generation and make it at once, in this process; return its record.

    Raises heavy.Busy before anything is written, and as jobs.submit() does. Should this process be killed meanwhile,
    a worker makes the image a little later.
    """
    params = wanted.params or TestParams()
    body = {"prompt": wanted.prompt, **params.model_dump(include=set(TestParams.model_fields))}
    return heavy.run(make_now, user, GenerateInput(**body), params.model_extra or {})


def make_now(user: db.Row, wanted: GenerateInput, extra: dict) -> db.Row:
    record = jobs.submit(user, wanted, extra=extra, hold_seconds=jobs.LEASE_SECONDS)[0]
    if job := jobs.claim(record["id"]):
        with suppress(jobs.Stopped):  # canceled or deleted meanwhile: the record tells
            jobs.run(job)
    return reread(user, record)


def retry(user: db.Row, generation: db.Row, new_seed: bool) -> list[db.Row]:
    """Queue a new generation with the parameters of an old one. Raises as jobs.submit() does."""
    return jobs.submit(
        user, validation.parse(GenerateInput, parameters.again(generation, new_seed))
    )


def cancel(user: db.Row, generation: db.Row) -> db.Row:
    """Cancel an unfinished generation and return what it is then. Raises ApiError if it is finished."""
    jobs.cancel(user, generation)
    return reread(user, generation)


def set_favorite(user: db.Row, generation: db.Row, favorite: bool) -> db.Row:
    db.set_favorite(user["id"], generation["id"], favorite)
    return reread(user, generation)


def reread(user: db.Row, generation: db.Row) -> db.Row:
    found = db.list_owned(user["id"], [generation["id"]])
    if not found:
        raise ApiError("image_deleted")
    return found[0]


def delete(user: db.Row, ids: list[int]) -> list[int]:
    """Delete generations of the user with their files, and return the ids of those there were."""
    deleted = db.delete_generations(user["id"], ids)
    for row in deleted:
        results.remove(db.file_keys(row))
    return [row["id"] for row in deleted]
