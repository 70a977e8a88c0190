"""What answers show of accounts, generations and models; URLs are signed here."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from flask import Response, g, request

import db
import messages
from accounts import tokens
from accounts.users import Account
from engines.catalog import CHOICES, RANGES, Model, read_size
from images import COMPLETED, UNFINISHED, parameters, queue_status
from images.history import Generation
from images.schemas import MAX_IMAGES, HistoryQuery, make_cursor
from web.inputs import service_path
from web.responses import language, success, with_etag

# How often a client may look again while something is unfinished.
POLL_SECONDS = "2"


# -- Accounts -----------------------------------------------------------------------------------


def public_user(account: Account | db.Row) -> dict[str, Any]:
    return {
        "username": account["username"],
        "email": account["email"],
        "avatarUrl": account["avatar_url"],
    }


def public_profile(profile: db.Row) -> dict[str, Any]:
    return {**public_user(profile), "created_at": iso_time(profile["created_at"])}


def iso_time(text: str | None) -> str | None:
    """Return the database's UTC time as ISO 8601; MySQL's zero date is no time."""
    if not text or text.startswith("0000"):
        return None
    return text.replace(" ", "T") + "Z"


# -- Generations --------------------------------------------------------------------------------


def public_records(generations: list[Generation]) -> list[dict[str, Any]]:
    """Return generations of the caller as every answer shows them."""
    session = g.session
    sign = tokens.link_signer(session)
    estimates = {}
    if any(generation["status"] in UNFINISHED for generation in generations):
        estimates = queue_status.current().estimates(session.user_id, generations)
    records = []
    for generation in generations:
        position, eta_seconds = estimates.get(generation["id"], (None, None))
        record = public_record(generation, position, eta_seconds, sign)
        records.append(record)
    return records


def public_record(
    generation: Generation,
    position: int | None,
    eta_seconds: int | None,
    sign: Callable[[str | None], str | None],
) -> dict[str, Any]:
    is_completed = generation["status"] == COMPLETED
    return {
        "id": generation["id"],
        "prompt": generation["prompt_text"],
        "imageUrl": generation["image_url"],
        "thumbnailUrl": generation["thumbnail_url"],
        "status": generation["status"],
        "createdAt": iso_time(generation["created_at"]),
        "updatedAt": iso_time(generation["updated_at"]),
        "params": {"model_used": None, "seed": None, **parameters.params_of(generation)},
        "errorMessage": error_message(generation),
        "errorCode": generation["error_code"],
        "progress": 100 if is_completed else generation["progress"],
        "queuePosition": position,
        "etaSeconds": eta_seconds,
        "model": generation["model"],
        "width": generation["width"],
        "height": generation["height"],
        "favorite": bool(generation["favorite"]),
        "startedAt": iso_time(generation["started_at"]),
        "finishedAt": iso_time(generation["finished_at"]),
        "signedImageUrl": sign(generation["image_url"]),
        "signedThumbnailUrl": sign(generation["thumbnail_url"]),
    }


def error_message(generation: Generation) -> str | None:
    code = generation["error_code"]
    if not code:
        return generation["error_message"]
    message = messages.job_text(code, language())
    detail = generation["error_detail"]
    return f"{message} ({detail})" if detail else message


def one_record(generation: Generation, message: str | None = None) -> tuple[dict, int]:
    [record] = public_records([generation])
    return success(record, message)


def submitted(generations: list[Generation]) -> tuple[dict, int, dict]:
    records = public_records(generations)
    location = f"{service_path()}/api/v1/images/"
    location += str(records[0]["id"]) if records else "history"
    body, status = success({"records": records}, "submitted", status=202)
    return body, status, {"Location": location, "Retry-After": POLL_SECONDS}


def watched(generations: list[Generation], data: Any) -> Response:
    """Answer a client that polls, and say when it may look again if something is unfinished."""
    response = with_etag(data)
    if any(generation["status"] in UNFINISHED for generation in generations):
        response.headers["Retry-After"] = POLL_SECONDS
    return response


def history_page(generations: list[Generation], total: int, query: HistoryQuery) -> dict[str, Any]:
    next_cursor = None
    if len(generations) == query.per_page:  # a page that is not full is the last
        last = generations[-1]
        next_cursor = make_cursor(last["created_at"], last["id"])
    pagination = {
        "total": total,
        "page": query.page,
        "perPage": query.per_page,
        "totalPages": -(-total // query.per_page),
        "nextCursor": next_cursor,
    }
    return {"records": public_records(generations), "pagination": pagination}


def next_link(page: dict[str, Any]) -> dict[str, str]:
    """Return the header of RFC 8288 that leads to the next page, if there may be one.

    Only one link: a proxy holds 4 KB of headers, and `q` can have 1800 bytes in it.
    """
    cursor = page["pagination"]["nextCursor"]
    if not cursor:
        return {}
    asked = request.args.to_dict()
    kept = {name: asked[name] for name in HistoryQuery.model_fields if name in asked}
    kept.pop("page", None)
    query = urlencode({**kept, "cursor": cursor})
    return {"Link": f'<{service_path()}{request.path}?{query}>; rel="next"'}


# -- Models -------------------------------------------------------------------------------------


def public_model(model: Model) -> dict[str, Any]:
    problem = queue_status.current().problems.get(model.name, "no_worker")
    is_chinese = language() == "zh"
    return {
        "name": model.name,
        "label": model.label_zh if is_chinese and model.label_zh else model.label,
        "engine": model.engine,
        "available": not problem,
        "reason": messages.problem_text(problem, language()) if problem else None,
        "capabilities": {
            "negativePrompt": model.negative_prompt,
            "seed": model.takes_seed,
            "n": MAX_IMAGES,
        },
        "parameters": public_parameters(model),
        "sizes": [public_size(size) for size in model.sizes],
    }


def public_parameters(model: Model) -> dict[str, Any]:
    shown = {}
    for name in RANGES:
        if limits := getattr(model, name):
            shown[name] = limits.to_json(name)
    for name in CHOICES:
        if choices := getattr(model, name):
            shown[name] = {"choices": choices, "default": choices[0]}
    return shown


def public_size(size: str) -> dict[str, int]:
    width, height = read_size(size)
    return {"width": width, "height": height}
