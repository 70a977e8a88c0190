"""How an image is to be made, as its row keeps it: written from a request, read for an engine or a retry."""

import json
import secrets
from collections.abc import Callable
from typing import Any

import db
import engines
from engines import catalog
from validation import MAX_SEED, GenerateInput

# What of a request is kept in the record's params if it was said.
KEPT = ("steps", "guidance", "negative_prompt", *catalog.CHOSEN)
to_json = json.JSONEncoder(ensure_ascii=False).encode
# What old rows hold as NaN or Infinity is nothing: JSON has no word for it.
from_json = json.JSONDecoder(parse_constant=lambda name: None).decode


def rows(wanted: GenerateInput, extra: dict) -> list[db.Row]:
    """Return the columns of each image of a request that catalog.fill() has filled; `extra` are more params."""
    return [row(wanted, seed, extra) for seed in seeds(wanted)]


def seeds(wanted: GenerateInput) -> list[int | None]:
    """Return the seed of each image, one after the other; none for a model that takes none."""
    if not catalog.offered()[wanted.model].takes_seed:
        return [None] * wanted.n
    first = (
        wanted.seed if wanted.seed not in (None, -1) else secrets.randbelow(MAX_SEED + 2 - wanted.n)
    )
    return [(first + index) % (MAX_SEED + 1) for index in range(wanted.n)]


def row(wanted: GenerateInput, seed: int | None, extra: dict) -> db.Row:
    model = catalog.offered()[wanted.model]
    params = {
        **extra,
        "model_used": model.model_used or model.name,
        "seed": seed,
        "width": wanted.width,
        "height": wanted.height,
    }
    params |= {
        name: getattr(wanted, name) for name in KEPT if getattr(wanted, name) not in (None, "")
    }
    if wanted.embed_metadata is not None:
        params["embed_metadata"] = wanted.embed_metadata
    return {
        "prompt_text": wanted.prompt,
        "status": "pending",
        "model": wanted.model,
        "width": wanted.width,
        "height": wanted.height,
        "generation_params_json": to_json(params),
    }


def params_of(generation: db.Row) -> dict[str, Any]:
    """Return recorded params; a row older than this service may hold none, or something else."""
    try:
        params = from_json(generation["generation_params_json"] or "{}")
    except (ValueError, RecursionError):
        params = {}
    return params if isinstance(params, dict) else {}


def again(generation: db.Row, new_seed: bool) -> dict[str, Any]:
    """Return the body of a request for the same image, as far as its model still takes what it was made with."""
    params = params_of(generation)
    # What the engine made of the request is in the record; asked for again is what was asked for.
    if isinstance(params.get("requested"), dict):
        params |= params["requested"]
    body = {"prompt": generation["prompt_text"], "model": generation["model"]}
    model = catalog.offered().get(generation["model"] or "")
    names = [
        name
        for name in ("negative_prompt", *catalog.RANGED, *catalog.CHOSEN)
        if model and getattr(model, name)
    ]
    # Rows of older programs, and params of generate-test, may hold anything under these names.
    body |= {
        name: params[name] for name in names if isinstance(params.get(name), int | float | str)
    }
    if not new_seed and model and model.takes_seed and isinstance(params.get("seed"), int):
        body["seed"] = params["seed"]
    if isinstance(params.get("embed_metadata"), bool):
        body["embed_metadata"] = params["embed_metadata"]
    return body


def engine_job(
    generation: db.Row, before_send: Callable[[], None] = engines.nothing
) -> engines.ImageRequest:
    """Return what an engine is to make of a generation."""
    params = params_of(generation)
    return engines.ImageRequest(
        prompt=generation["prompt_text"],
        negative_prompt=params.get("negative_prompt", ""),
        width=generation["width"],
        height=generation["height"],
        steps=params.get("steps"),
        seed=params["seed"],
        guidance=params.get("guidance"),
        **{name: params.get(name, "") for name in catalog.CHOSEN},
        options=catalog.offered()[generation["model"]].options,
        before_send=before_send,
    )
