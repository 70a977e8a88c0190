"""Pictures that images are made from: an account's uploads and its own images.

They are found when a request is submitted; the row of a generation says where their files are, and
a worker reads them when it is at work.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

from accounts import sessions
from accounts.tokens import Session
from engines import InputImage, PermanentError, TransientError
from engines.catalog import Images, find_model
from errors import ApiError
from files import storage
from images import COMPLETED, history, parameters, trash, uploads
from images.queue import Job
from images.schemas import GenerateInput
from validation import InvalidInput

UPLOAD, IMAGE, MASK = "upload", "image", "mask"
MASK_FORMAT = "png"
# The codes of what cannot be used, and what is said of the field.
PROBLEMS = {
    "not_found": "input_unknown",
    "upload_deleted": "input_deleted",
    "image_deleted": "input_deleted",
    "no_image": "input_unfinished",
}


class Source(NamedTuple):
    """What a request names as an input, and in which of its fields."""

    field: str
    kind: str
    id: str | int


class Input(TypedDict):
    """An input as the row of a generation names it; that of a mask is an upload's."""

    kind: str
    id: str | int
    key: str
    thumbnail: str
    width: int
    height: int


class Files(NamedTuple):
    """The bytes of the inputs of a generation, as engines take them."""

    images: tuple[InputImage, ...] = ()
    mask: InputImage | None = None


class Missing(ApiError):
    """An input is not there, or no more, or has no picture yet."""


# -- From a request -----------------------------------------------------------------------------


def sources_of(wanted: GenerateInput) -> list[Source]:
    """Return what the request wants images made from, the mask last."""
    found = []
    for number, one in enumerate(wanted.images):
        field = f"images.{number}"
        kind, number_or_id = (UPLOAD, one.upload) if one.upload else (IMAGE, one.image)
        found.append(Source(field, kind, number_or_id))
    if wanted.mask:
        found.append(Source(MASK, MASK, wanted.mask.upload))
    return found


def upload_ids(sources: Sequence[Source]) -> set[str]:
    return {source.id for source in sources if source.kind != IMAGE}


def find(session: Session, sources: Sequence[Source], model: str) -> list[Input]:
    """Return the inputs. Raises BadToken, Missing, and InvalidInput if one cannot be used."""
    sessions.check(session)
    offer = find_model(model).images
    found = [_look_up(session.user_id, source) for source in sources]
    for source, one in zip(sources, found, strict=True):
        _check_file(session.user_id, source, one, offer)
    if found and found[-1]["kind"] == MASK:
        _check_mask(session.user_id, found[-1], found[0])
    return found


def check_there(session: Session, sources: Sequence[Source]) -> None:
    """Raise Missing if one was deleted; within the transaction that has locked the user's row."""
    sessions.check(session)
    for source in sources:
        _look_up(session.user_id, source)


def _look_up(user_id: int, source: Source) -> Input:
    try:
        look_up = _own_image if source.kind == IMAGE else _upload
        return {"kind": source.kind, "id": source.id, **look_up(user_id, source.id)}
    except ApiError as error:
        if error.code not in PROBLEMS:
            raise
        fields = {source.field: (PROBLEMS[error.code], {})}
        raise Missing(error.code, fields=fields) from None


def _upload(user_id: int, upload_id: str) -> dict[str, Any]:
    upload = uploads.find(user_id, upload_id)
    return {
        "key": uploads.key_of(upload),
        "thumbnail": uploads.thumbnail_key_of(upload),
        "width": upload["width"],
        "height": upload["height"],
    }


def _own_image(user_id: int, generation_id: int) -> dict[str, Any]:
    found = history.list_owned(user_id, [generation_id])
    if not found:
        was_deleted = trash.was_deleted(user_id, generation_id)
        raise ApiError("image_deleted" if was_deleted else "not_found")
    [generation] = found
    key = history.image_key(user_id, str(generation["image_url"] or ""))
    if generation["status"] != COMPLETED or not key:
        raise ApiError("no_image")
    return {
        "key": key,
        "thumbnail": storage.key_of(str(generation["thumbnail_url"] or "")),
        "width": generation["width"],
        "height": generation["height"],
    }


def _check_file(user_id: int, source: Source, one: Input, offer: Images) -> None:
    """Raise InvalidInput for what the model does not take. Raises Missing for a file that is lost.

    Outside of a transaction: the file may be far away.
    """
    field = source.field
    formats = [MASK_FORMAT] if one["kind"] == MASK else offer.formats
    if _extension(one) not in formats:
        raise InvalidInput(fields={field: ("input_format", {"formats": ", ".join(formats)})})
    size = storage.size(one["key"])
    if size is None:
        _look_up(user_id, source)  # which tells if it was deleted just now
        raise Missing("not_found", fields={field: ("input_unknown", {})})
    if size > offer.max_bytes:
        raise InvalidInput(fields={field: ("input_bytes", {"most": offer.max_bytes})})


def _check_mask(user_id: int, mask: Input, first: Input) -> None:
    if (mask["width"], mask["height"]) != (first["width"], first["height"]):
        size = {"width": first["width"], "height": first["height"]}
        raise InvalidInput(fields={MASK: ("mask_size", size)})
    upload = uploads.get(user_id, mask["id"])
    if upload and not upload["clear_pixels"]:
        raise InvalidInput(fields={MASK: ("mask_empty", {})})


def _extension(one: Input) -> str:
    return one["key"].rpartition(".")[2]


# -- From a row ---------------------------------------------------------------------------------


def inputs_of(row: history.Generation | Job) -> list[Input]:
    """Return what an image was made from; none if another program wrote something else there."""
    text = row["inputs_json"]
    if not text:
        return []
    try:
        found = parameters.from_json(text)
    except (ValueError, TypeError, RecursionError):
        return []
    return found if isinstance(found, list) and all(map(is_input, found)) else []


def is_input(one: Any) -> bool:
    return isinstance(one, dict) and one.keys() >= Input.__annotations__.keys()


def parent_of(found: list[Input]) -> int | None:
    """Return the first of the account's own images among the inputs."""
    return next((one["id"] for one in found if one["kind"] == IMAGE), None)


def as_requested(found: list[Input]) -> dict[str, Any]:
    """Return the fields of a request for the same inputs."""
    images = [{one["kind"]: one["id"]} for one in found if one["kind"] != MASK]
    mask = next(({UPLOAD: one["id"]} for one in found if one["kind"] == MASK), None)
    return {name: value for name, value in (("images", images), ("mask", mask)) if value}


def load(job: Job) -> Files:
    """Read the files of a job's inputs. Raises EngineError if one cannot be had."""
    images, masks = [], []
    for one in inputs_of(job):
        picture = InputImage(_read(one["key"]), _extension(one), one["width"], one["height"])
        (masks if one["kind"] == MASK else images).append(picture)
    return Files(tuple(images), masks[0] if masks else None)


def _read(key: str) -> bytes:
    try:
        data = storage.read(key)
    except storage.Unavailable as error:
        raise TransientError("storage_unavailable", str(error.__cause__ or error)) from error
    if data is None:
        raise PermanentError("input_gone", key)
    return data
