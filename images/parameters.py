"""How an image is to be made: from a request to its row, and from the row to an engine.

What a model allows and its defaults stand in `engines/catalog.py`; here a request is held to that.
"""

import itertools
import json
import math
import secrets
import unicodedata
from collections.abc import Callable
from typing import Any

import db
import engines
from engines import catalog, sizes
from engines.catalog import CHOICES, RANGES, SHAPES, Model, Range
from images import blocklist, search
from images.history import Generation
from images.queue import Job
from images.schemas import GenerateInput, depth
from validation import InvalidInput

# What of a request is kept in the record's params if it was said.
KEPT = ("steps", "guidance", "negative_prompt", "output_compression", *CHOICES, *SHAPES)
# A key of messages.FIELDS, and the values in that sentence.
Problem = tuple[str, dict[str, Any]]
NOT_OFFERED: Problem = ("not_offered", {})
RANDOM_SEED = (None, -1)
MAX_DRAWN_SEED = 2**31 - 1
# Of a marker, as it is shown.
MAX_MARKER_LENGTH = 40
# Of combining marks in a row, as Unicode has it for texts that are safe in a stream.
MAX_MARKS = 30

to_json = json.JSONEncoder(ensure_ascii=False).encode


def finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


# NaN and Infinity, which JSON has no word for, become null.
from_json = json.JSONDecoder(parse_constant=lambda name: None, parse_float=finite).decode
# More levels of objects and arrays than this are not shown: they could not be written again.
MAX_DEPTH = 100


# -- From a request to rows ---------------------------------------------------------------------


def choose_model(name: str | None) -> Model:
    """Return the model on offer with this name, the first without one. Raises InvalidInput."""
    models = catalog.models()
    model = models.get(name or next(iter(models)))
    if not model:
        expected = ", ".join(models)
        raise InvalidInput(fields={"model": ("literal_error", {"expected": expected})})
    return model


def fill(wanted: GenerateInput, model: Model | None = None) -> GenerateInput:
    """Return the request with the defaults of its model, or of this one, for what it leaves out.

    Raises InvalidInput naming every field that the model does not take, or not at that value.
    """
    model = model or choose_model(wanted.model)
    values = {"model": model.name, **size_values(wanted, model)}
    for name in (*RANGES, *CHOICES):
        if getattr(wanted, name) is None and name not in values:
            values[name] = default_of(name, getattr(model, name))
    filled = wanted.model_copy(update=values)
    wrong = wrong_fields(filled, model)
    if wrong:
        raise InvalidInput(fields=wrong)
    return filled


def size_values(wanted: GenerateInput, model: Model) -> dict[str, int | str | None]:
    """Return the size of a request said in both ways. Raises InvalidInput."""
    said = {name: getattr(wanted, name) for name in SHAPES if getattr(wanted, name) is not None}
    wrong = {name: problem_with(getattr(model, name), value) for name, value in said.items()}
    in_pixels = wanted.width is not None or wanted.height is not None
    if in_pixels and said:
        wrong = dict.fromkeys(said, ("size_twice", {}))
    if wrong := {name: problem for name, problem in wrong.items() if problem}:
        raise InvalidInput(fields=wrong)
    if not model.aspect_ratio and not model.resolution:
        return {}
    if in_pixels:
        usual = sizes.default_size(model)
        size = (wanted.width or usual[0], wanted.height or usual[1])
        ratio, resolution = sizes.shape_of(model, size)
        return {"aspect_ratio": ratio or None, "resolution": resolution or None}
    shape = {name: said.get(name) or default_of(name, getattr(model, name)) for name in SHAPES}
    width, height = sizes.shaped(model, *(value or "" for value in shape.values()))
    return {"width": width, "height": height, **shape}


def wrong_fields(filled: GenerateInput, model: Model) -> dict[str, Problem]:
    """Return what is wrong with each field of a request, by the model it is for."""
    found = {}
    for name in (*RANGES, *CHOICES):
        value = getattr(filled, name)
        if value is not None:
            found[name] = problem_with(getattr(model, name), value)
    found["prompt"] = problem_with_length(filled.prompt, model)
    for name in ("prompt", "negative_prompt"):
        if found.get(name):  # it may be long, and searching it takes its time
            continue
        if marker := find_marker(getattr(filled, name), model):
            found[name] = ("marker", {"marker": marker})
    if filled.negative_prompt and not model.negative_prompt:
        found["negative_prompt"] = NOT_OFFERED
    if filled.n > model.n_max:
        found["n"] = ("less_than_equal", {"le": model.n_max})
    found["seed"] = problem_with_seed(filled.seed, model)
    found |= problems_with_inputs(filled, model)
    if not filled.prompt and not (model.images and model.images.min):
        found["prompt"] = ("missing", {})
    wrong = {name: problem for name, problem in found.items() if problem}
    size = f"{filled.width}x{filled.height}"
    if model.sizes and not wrong and size not in model.sizes:
        wrong["width"] = ("size_not_offered", {"sizes": ", ".join(model.sizes)})
    return wrong or problem_with_shape(filled, model)


def problem_with_shape(filled: GenerateInput, model: Model) -> dict[str, Problem]:
    """Return what is wrong with width and height together."""
    if model.breaks_pixels(filled.width, filled.height):
        return {"width": ("pixels", {"low": model.pixels.min, "high": model.pixels.max})}
    if model.breaks_ratio(filled.width, filled.height):
        return {"width": ("ratio", {"most": model.ratio_max})}
    return {}


def is_too_long(wanted: GenerateInput) -> bool:
    """Tell whether fill() will refuse the prompt of a request for its length, or its model."""
    models = catalog.models()
    model = models.get(wanted.model or next(iter(models)))
    if not model:
        return len(wanted.prompt) > catalog.USUAL_PROMPT
    return problem_with_length(wanted.prompt, model) is not None


def problem_with_length(prompt: str, model: Model) -> Problem | None:
    if len(prompt) > model.prompt_max:
        return ("string_too_long", {"max_length": model.prompt_max})
    # To bring a row of marks into order takes the square of its length: seconds of a long prompt.
    if len(prompt) > catalog.USUAL_PROMPT and longest_marks(prompt) > MAX_MARKS:
        return ("too_many_marks", {"most": MAX_MARKS})
    return None


def longest_marks(text: str) -> int:
    """Return how many combining marks follow each other at most."""
    rows = itertools.groupby(map(unicodedata.combining, text), bool)
    return max((len(list(row)) for is_mark, row in rows if is_mark), default=0)


def problems_with_inputs(filled: GenerateInput, model: Model) -> dict[str, Problem | None]:
    """Return what is wrong with the pictures of a request, as far as it can be said unseen."""
    offer = model.images
    if not offer:
        names = ("images", "mask", "strength")
        given = [name for name in names if getattr(filled, name) not in (None, [])]
        return dict.fromkeys(given, NOT_OFFERED)
    found = {}
    count = len(filled.images)
    if count > offer.max:
        found["images"] = ("too_many_images", {"most": offer.max})
    if count < offer.min:
        found["images"] = ("too_short", {"min_length": offer.min})
    if filled.mask:
        found["mask"] = None if offer.mask else NOT_OFFERED
        if offer.mask and not count:
            found["mask"] = ("mask_without_image", {})
    if filled.strength is not None:
        found["strength"] = problem_with(offer.strength, filled.strength)
        if offer.strength and not count:
            found["strength"] = ("strength_without_image", {})
    return found


def problem_with_seed(seed: int | None, model: Model) -> Problem | None:
    if seed in RANDOM_SEED:
        return None
    if not model.takes_seed:
        return NOT_OFFERED
    return ("less_than_equal", {"le": model.max_seed}) if seed > model.max_seed else None


def find_marker(prompt: str, model: Model) -> str:
    """Return what the prompt contains that the model's engine would obey; "" if nothing."""
    for pattern in model.options.refused_markers:
        # Some engines normalize prompts themselves.
        for text in (prompt, blocklist.normalize(prompt)):
            if found := pattern.search(text):
                return found.group()[:MAX_MARKER_LENGTH]
    return ""


def default_of(name: str, offer: Range | list[str] | None) -> float | int | str | None:
    if isinstance(offer, Range):
        return catalog.as_number(name, offer.default)
    return offer[0] if offer else None


def problem_with(offer: Range | list[str] | None, value: float | str) -> Problem | None:
    """Return what is wrong with a value; None if nothing is."""
    if not offer:
        return NOT_OFFERED
    if isinstance(offer, list):
        return None if value in offer else ("literal_error", {"expected": ", ".join(offer)})
    if not offer.min <= value <= offer.max:
        return "out_of_range", {"low": offer.min, "high": offer.max}
    if offer.step > 1 and value % offer.step:
        return "not_multiple", {"step": offer.step}
    return None


def new_rows(wanted: GenerateInput, extra: dict[str, Any]) -> list[db.Row]:
    """Return the columns of each image of a request that fill() has filled.

    `extra` are more params for the record.
    """
    model = catalog.find_model(wanted.model)
    search_text = search.fold(wanted.prompt)
    rows = []
    for seed in seeds(wanted, model):
        row = {
            "prompt_text": wanted.prompt,
            "search_text": search_text,
            "model": wanted.model,
            "width": wanted.width,
            "height": wanted.height,
            "generation_params_json": to_json({**extra, **new_params(wanted, model, seed)}),
        }
        rows.append(row)
    return rows


def seeds(wanted: GenerateInput, model: Model) -> list[int | None]:
    """Return the seed of each image, one after the other; None for a model that takes none."""
    if not model.takes_seed:
        return [None] * wanted.n
    first = wanted.seed
    if first in RANDOM_SEED:
        # Small enough for every engine, whatever integers it calculates with.
        highest = min(MAX_DRAWN_SEED, model.max_seed)
        first = secrets.randbelow(max(1, highest + 2 - wanted.n))
    return [(first + index) % (model.max_seed + 1) for index in range(wanted.n)]


def new_params(wanted: GenerateInput, model: Model, seed: int | None) -> dict[str, Any]:
    params = {
        "model_used": model.model_used or model.name,
        "seed": seed,
        "width": wanted.width,
        "height": wanted.height,
    }
    for name in KEPT:
        value = getattr(wanted, name)
        if value not in (None, ""):
            params[name] = value
    if wanted.images and model.images.strength:
        chosen = wanted.strength
        params["strength"] = model.images.strength.default if chosen is None else chosen
    if wanted.embed_metadata is not None:
        params["embed_metadata"] = wanted.embed_metadata
    return params


# -- From a row ---------------------------------------------------------------------------------


def params_of(generation: Generation | Job) -> dict[str, Any]:
    """Return recorded params; a row of an older program may hold none, or something else."""
    text = generation["generation_params_json"]
    if not text:
        return {}
    try:
        params = from_json(text)
        if "\\u" in text:  # it may stand for half a character, which no answer takes
            params = from_json(to_json(params).encode(errors="replace").decode())
        is_deep = text.count("[") + text.count("{") > MAX_DEPTH and depth(params) > MAX_DEPTH
    except (ValueError, TypeError, RecursionError):
        return {}
    return params if isinstance(params, dict) and not is_deep else {}


def image_request(
    row: Generation | Job | db.Row,
    params: dict[str, Any],
    images: tuple[engines.InputImage, ...] = (),
    mask: engines.InputImage | None = None,
    before_send: Callable[[], None] = engines.nothing,
) -> engines.ImageRequest:
    """Return what an engine is to make of a row with these params, and of these pictures."""
    choices = {name: params.get(name, "") for name in (*CHOICES, *SHAPES)}
    model = catalog.find_model(row["model"])
    width, height = row["width"], row["height"]
    if images and params.get("aspect_ratio") == sizes.AUTO:
        width, height = sizes.like(model, images[0], (width, height))
    return engines.ImageRequest(
        prompt=row["prompt_text"],
        negative_prompt=params.get("negative_prompt", ""),
        width=width,
        height=height,
        steps=params.get("steps"),
        seed=params["seed"],
        guidance=params.get("guidance"),
        output_compression=params.get("output_compression"),
        images=as_taken(images, model),
        mask=mask,
        strength=params.get("strength") if images else None,
        options=model.options,
        before_send=before_send,
        **choices,
    )


def as_taken(
    images: tuple[engines.InputImage, ...], model: Model
) -> tuple[engines.InputImage, ...]:
    """Return pictures in formats that the model takes."""
    formats = model.images.formats if model.images else catalog.INPUT_FORMATS
    if all(image.extension in formats for image in images):
        return images
    from engines import masks  # with Pillow, which web processes that only list do without

    return tuple(masks.taken(image, formats) for image in images)


def retry_body(generation: Generation, new_seed: bool, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request for the same image, as far as its model still takes it.

    Of the same pictures, whether it takes them or not: without them it were another image.
    """
    body = {"model": generation["model"], **inputs}
    if generation["prompt_text"]:
        body["prompt"] = generation["prompt_text"]
    params = params_of(generation)
    # The record has what the engine made of the request; the same is asked for again.
    if isinstance(params.get("requested"), dict):
        params |= params["requested"]
    if isinstance(params.get("embed_metadata"), bool):
        body["embed_metadata"] = params["embed_metadata"]
    model = catalog.models().get(generation["model"] or "")
    if not model:
        return body
    names = ("negative_prompt", *RANGES, *CHOICES, *SHAPES)
    if any(getattr(model, name) and params.get(name) for name in SHAPES):
        names = [name for name in names if name not in ("width", "height")]
    for name in names:
        value = params.get(name)
        # Rows of older programs, and params of generate-test, may hold anything under these names.
        if getattr(model, name) and isinstance(value, int | float | str):
            body[name] = value
    if inputs and isinstance(params.get("strength"), int | float):
        body["strength"] = params["strength"]
    seed = params.get("seed")
    # Older programs recorded seeds that no request may have.
    if model.takes_seed and not new_seed and type(seed) is int and 0 <= seed <= model.max_seed:
        body["seed"] = seed
    return body
