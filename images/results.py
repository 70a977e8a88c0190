"""From what an engine gave to what is kept: checked, described in its metadata, stored.

The picture is decoded once, for the check and the thumbnail, and its file parsed once, for the
prompt and the label.
"""

import time
from typing import Any, NamedTuple

import db
from config import settings
from engines import GeneratedImage, PermanentError, TransientError, catalog, sizes
from files import cleanup, metadata, pictures, storage
from images import parameters
from images.queue import Job

# The keyword of the text in a PNG. ComfyUI's own, `prompt` and `workflow`, are left to it, so that
# a picture can be dropped back on it.
PARAMETERS = "parameters"
# What it says of the params, beside prompt, model and size.
SHOWN = {
    "steps": "Steps",
    "sampler": "Sampler",
    "guidance": "CFG scale",
    "seed": "Seed",
    "quality": "Quality",
    "style": "Style",
}
GENERATOR = "image-generator-backend"
# Between two tries to store a result.
RETRY_SECONDS = 1


class Result(NamedTuple):
    """An image and its thumbnail as they are stored, and columns that say what it really is."""

    image: bytes
    extension: str
    thumbnail: bytes
    columns: db.Row


def process(job: Job, params: dict[str, Any], generated: GeneratedImage) -> Result:
    """Make the result of a job with these params from what its engine gave.

    PNG, JPEG and WebP keep their bytes, and so what a provider says in them; all else becomes PNG.
    Raises PermanentError if it is no picture.
    """
    try:
        picture = pictures.check_generated(generated.data)
    except pictures.BadPicture as error:
        raise PermanentError("bad_picture", error.kind) from None
    size = {"width": picture.width, "height": picture.height}
    if params.get("aspect_ratio") == sizes.AUTO:  # what was recorded was only a guess
        params = {**params, **size}
    facts = {**generated.params, **size}
    seed = facts.get("seed")
    if seed is not None and seed > catalog.find_model(job["model"]).max_seed:
        facts["seed"] = None  # a request for it would be refused
    params = with_facts(params, facts)
    try:
        image = with_metadata(job, params, picture.data)
    except ValueError:  # decoders forgive more than metadata does; written anew, the file is sound
        picture = pictures.as_png(picture.data)
        image = with_metadata(job, params, picture.data)
    thumbnail = metadata.parse(picture.thumbnail)
    add_ai_label(job, thumbnail)
    columns = {"generation_params_json": encode_params(params), **size}
    return Result(image, picture.extension, thumbnail.to_bytes(), columns)


def with_facts(params: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the params with what an image was really made with.

    What was asked for instead stays as `requested`. A fact that is None was not used, or nobody
    knows: then the record does not say that it was.
    """
    requested = dict(params["requested"]) if isinstance(params.get("requested"), dict) else {}
    for name, fact in facts.items():
        if name in params and params[name] != fact:
            requested[name] = params[name]
    merged = {**params, **facts}
    for name, fact in facts.items():
        if fact is None and name != "seed":  # which every record has
            del merged[name]
    if requested:
        merged["requested"] = requested
    return merged


def encode_params(params: dict[str, Any]) -> str:
    # What a server says may hold half a character, which no database takes.
    return parameters.to_json(params).encode(errors="replace").decode()


def with_metadata(job: Job, params: dict[str, Any], data: bytes) -> bytes:
    """Return the file with what it shall say about itself. Raises ValueError if it is not sound."""
    picture = metadata.parse(data)
    if not picture.has_credentials:  # signed by its provider: a change would break the seal
        picture.drop_unreadable()
    embed_prompt(job, params, picture)
    add_ai_label(job, picture)
    return picture.to_bytes()


def embed_prompt(job: Job, params: dict[str, Any], picture: metadata.PictureFile) -> None:
    """Write prompt, model and seed into the picture, or remove them, as request or setting says."""
    wanted = params.get("embed_metadata")
    if not isinstance(wanted, bool):
        wanted = settings.EMBED_METADATA
    if not wanted:
        picture.strip()
        return
    # What the engine says about its picture is more than what is known here.
    if picture.has_credentials or picture.text(PARAMETERS):
        return
    picture.put_texts({PARAMETERS: format_parameters(job, params)})


def format_parameters(job: Job, params: dict[str, Any]) -> str:
    """Return prompt and parameters as AUTOMATIC1111's WebUI writes them, which others read."""
    lines = [job["prompt_text"]]
    if params.get("negative_prompt"):
        lines.append(f"Negative prompt: {params['negative_prompt']}")
    facts = {shown: params.get(name) for name, shown in SHOWN.items()}
    facts["Size"] = f"{params['width']}x{params['height']}"
    facts["Model"] = params.get("model_used") or job["model"]
    # Readers take a line of less than three facts for a part of the prompt.
    facts["Version"] = GENERATOR
    lines.append(
        ", ".join(f"{name}: {quoted(fact)}" for name, fact in facts.items() if fact is not None)
    )
    return "\n".join(lines)


def quoted(fact: Any) -> str:
    text = str(fact)
    return parameters.to_json(text) if any(mark in text for mark in ',:\n"') else text


def add_ai_label(job: Job, picture: metadata.PictureFile) -> None:
    """Label a picture as made by AI (GB 45438-2025, annex E), if the operator is bound to."""
    if not settings.AIGC_LABEL:
        return
    picture.add_label(
        {
            "Label": "1",
            "ContentProducer": settings.AIGC_PRODUCER,
            "ProduceID": str(job["id"]),
            "ReservedCode1": "",
            "ContentPropagator": "",
            "PropagateID": "",
            "ReservedCode2": "",
        }
    )


def store(
    job: Job, result: Result, keep_seconds: float, patience_seconds: float = 0
) -> tuple[db.Row, list[str]]:
    """Store the files of a result; return the columns of the completed row, and the files' keys.

    They are deleted again unless queue.complete() keeps them within these seconds. Raises
    EngineError if the files cannot be written, after some patience.
    """
    folder = f"generated_images/{job['user_id']}"
    name = f"{job['claim']}.{result.extension}"
    image_key = f"{folder}/{name}"
    thumbnail_key = f"{folder}/{job['claim']}_thumbnail.webp"
    keys = [image_key, thumbnail_key]
    db.retry_while_unavailable(cleanup.schedule_deletion, keys, int(keep_seconds))
    try:
        put({image_key: result.image, thumbnail_key: result.thumbnail}, patience_seconds)
    except (OSError, storage.Unavailable) as error:
        for key in keys:
            cleanup.delete_unkept(key)
        # The next attempt may find room, but what may be charged is never repeated on a guess.
        kind = PermanentError if job["may_be_charged"] else TransientError
        raise kind("storage_unavailable", str(error.__cause__ or error)) from error
    columns = {
        "image_filename": name,
        "image_url": storage.url(image_key),
        "thumbnail_url": storage.url(thumbnail_key),
        "progress": 100,
        "file_bytes": len(result.image) + len(result.thumbnail),
        **result.columns,
    }
    return columns, keys


def put(files: dict[str, bytes], patience_seconds: float) -> None:
    """Store files; try again as long as the patience lasts. Raises OSError, storage.Unavailable."""
    give_up_at = time.monotonic() + patience_seconds
    while True:
        try:
            for key, data in files.items():
                storage.put(key, data)
            return
        except storage.Unavailable:
            if time.monotonic() >= give_up_at:
                raise
        time.sleep(RETRY_SECONDS)
