"""From what an engine gave to what is kept: the picture verified, told what it is, made small, and stored."""

from typing import NamedTuple

import db
from config import settings
from engines import GeneratedImage, PermanentError, TransientError
from files import metadata, pictures, storage
from images import parameters

# What of the params an image says, beside its prompt and model.
TEXTS = ("seed", "width", "height", *parameters.KEPT)


class Result(NamedTuple):
    """An image and its thumbnail as they are stored, and the columns that say what the image really is."""

    image: bytes
    extension: str
    thumbnail: bytes
    columns: db.Row


def intake(job: db.Row, params: dict, drawing: GeneratedImage) -> Result:
    """Make the result of a job with these params from an engine's drawing. Raises PermanentError if it is no picture.

    PNG, JPEG and WebP keep their bytes, and so what a provider says in them; all else becomes PNG.
    """
    try:
        picture = pictures.generated(drawing.data)
    except pictures.BadPicture as error:
        raise PermanentError("bad_picture", error.kind) from None
    params = with_facts(
        params, {**drawing.params, "width": picture.width, "height": picture.height}
    )
    columns = {
        "generation_params_json": encoded(params),
        "width": picture.width,
        "height": picture.height,
    }
    try:
        image = labelled(job, told(job, params, picture.data))
    except ValueError:  # decoders forgive more than metadata does; written anew, the file is sound
        picture = pictures.as_png(picture.data)
        image = labelled(job, told(job, params, picture.data))
    return Result(image, picture.extension, labelled(job, picture.thumbnail), columns)


def with_facts(params: dict, facts: dict) -> dict:
    """Return the params with what an image was really made with; what was asked for instead stays as `requested`."""
    requested = {
        name: params[name] for name, fact in facts.items() if params.get(name, fact) != fact
    }
    return {**params, **facts, **({"requested": requested} if requested else {})}


def encoded(params: dict) -> str:
    # What a server says may hold half a character, which no database takes.
    return parameters.to_json(params).encode(errors="replace").decode()


def told(job: db.Row, params: dict, data: bytes) -> bytes:
    """Write prompt, model and seed into the picture, or see to it that nobody has, as settings and request say."""
    wanted = params.get("embed_metadata")
    if not (wanted if isinstance(wanted, bool) else settings.EMBED_METADATA):
        return metadata.stripped(data)
    if metadata.has_credentials(data):  # signed by its provider: a change would break the seal
        return data
    texts = {"prompt": job["prompt_text"], "model": params.get("model_used") or job["model"]}
    texts |= {name: str(params[name]) for name in TEXTS if params.get(name) is not None}
    return metadata.with_text(data, texts)


def labelled(job: db.Row, data: bytes) -> bytes:
    """Label a picture as made by AI (GB 45438-2025, annex E), if the operator is bound to."""
    if not settings.AIGC_LABEL:
        return data
    label = {
        "Label": "1",
        "ContentProducer": settings.AIGC_PRODUCER,
        "ProduceID": str(job["id"]),
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    return metadata.with_label(data, label)


# -- Files --------------------------------------------------------------------------------------


def store(job: db.Row, made: Result, seconds: int) -> tuple[db.Row, list[str]]:
    """Store the files of a result; return the columns of the finished generation, and the keys of the files.

    They are doomed: unless db.complete_generation() takes them over within these seconds, a sweep removes them.
    Raises EngineError if the disk is full.
    """
    name, folder = f"{job['claim']}.{made.extension}", f"generated_images/{job['user_id']}"
    keys = [f"{folder}/{name}", f"{folder}/{job['claim']}_thumbnail.webp"]
    db.patiently(db.doom_files, keys, seconds)
    try:
        urls = storage.put(keys[0], made.image), storage.put(keys[1], made.thumbnail)
    except OSError as error:  # the next attempt may find room, unless somebody pays for it
        kind = PermanentError if job["is_sent"] else TransientError
        raise kind("storage_unavailable", str(error)) from error
    columns = {
        "image_filename": name,
        "image_url": urls[0],
        "thumbnail_url": urls[1],
        "progress": 100,
    }
    return {**columns, **made.columns}, keys


def remove(keys: list[str]) -> None:
    """Remove files and folders, and strike them off the doomed ones."""
    for key in keys:
        if key.endswith("/"):
            storage.delete_folder(key)
        else:
            storage.delete(storage.URL_PREFIX + key)
        db.forget_file(key)
