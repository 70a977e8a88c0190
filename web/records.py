"""What answers show of accounts, generations and models; URLs are signed here."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from flask import Response, g, request

import db
import messages
from accounts import limits, tokens
from accounts.users import Account
from config import settings
from engines.catalog import CHOICES, RANGES, SHAPES, Model
from engines.sizes import read_size
from files import storage
from images import (
    COMPLETED,
    FAILED,
    UNFINISHED,
    inputs,
    parameters,
    queue_status,
    quota,
    retention,
    tags,
    uploads,
)
from images.history import Generation, Page
from images.inputs import Input
from images.schemas import HistoryQuery, TrashQuery, make_cursor
from images.uploads import Upload
from web.inputs import service_path
from web.responses import language, success, with_etag

# A link that shows a picture without its prompt and parameters.
STRIPPED = "?metadata=strip"
# How often a client may look again while something is unfinished.
POLL_SECONDS = "2"
MAX_LINK = 3000


# -- Accounts -----------------------------------------------------------------------------------


def public_user(account: Account | db.Row) -> dict[str, Any]:
    return {
        "username": shown_text(account["username"]),
        "email": shown_text(account["email"]),
        "avatarUrl": located(shown_text(account["avatar_url"])),
    }


def public_profile(profile: db.Row) -> dict[str, Any]:
    return {
        **public_user(profile),
        "created_at": iso_time(profile["created_at"]),
        "role": profile["role"],
        "imageCount": profile["image_count"],
        "storageBytes": profile["storage_bytes"],
        "storageLimitBytes": quota.storage_limit(),
        "retentionDays": settings.IMAGE_DAYS or None,
        "trashDays": settings.TRASH_DAYS,
        "limits": public_limits(profile),
    }


def public_limits(user: db.Row) -> dict[str, Any]:
    """Return what counts for an account now; of limits of its own, also until when."""
    source = user["limits_source"]
    return {
        "dailyImages": quota.daily_images(user),
        "activeJobs": quota.active_jobs(user),
        "models": limits.split_models(user["limit_models"]),
        "expiresAt": iso_seconds(user["limits_until"]) if source else None,
        "source": source or limits.SETTING,
    }


def public_quota(state: db.Row) -> dict[str, Any]:
    return {
        "limit": state["daily_images"],
        "used": state["used"],
        "remaining": max(0, state["daily_images"] - state["used"]),
        "resetsAt": iso_seconds(state["resets_at"]),
        "timezone": str(settings.QUOTA_TIMEZONE),
        "active": state["active"],
        "activeLimit": state["active_jobs"],
        "limits": public_limits(state),
    }


def public_session(row: db.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "current": row["id"] == g.session.session_id,
        "createdAt": iso_seconds(row["created_at"]),
        "lastSeenAt": iso_seconds(row["seen_at"]),
        "address": row["address"],
        "client": row["client"],
    }


def public_key(row: db.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "prefix": row["prefix"],
        "scopes": row["scopes"].split(","),
        "createdAt": iso_seconds(row["created_at"]),
        "lastUsedAt": iso_seconds(row["last_used_at"]),
        "expiresAt": iso_seconds(row["expires_at"]),
        "dailyImages": row["daily_images"],
    }


def iso_seconds(seconds: int | None) -> str | None:
    """Return seconds since 1970 as ISO 8601."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat() + "Z"


def public_second_factor(state: db.Row) -> dict[str, Any]:
    return {
        "enabled": bool(state["has_second_factor"]),
        "recoveryCodesLeft": state["codes_left"],
    }


def public_identities(rows: list[db.Row]) -> dict[str, Any]:
    identities = []
    for row in rows:
        shown = {"issuer": row["issuer"], "subject": row["subject"]}
        identities.append({**shown, "createdAt": iso_time(row["created_at"])})
    return {"identities": identities}


@lru_cache(maxsize=4096)
def iso_time(value: Any) -> str | None:
    """Return the database's UTC time as ISO 8601; MySQL's zero date is no time.

    Clients look at the same rows again and again, and a page has forty times.
    """
    try:
        moment = datetime.fromisoformat(shown_text(value) or "")
        if moment.tzinfo:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):  # the latter near the years 1 and 9999
        return None
    return moment.isoformat() + "Z"


# -- Rows of older programs may hold anything, which SQLite takes in any column -------------------


def shown_text(value: Any) -> str | None:
    """Return a value of a column of text as JSON can hold it."""
    if value is None or (type(value) is str and value.isascii()):  # a page has a hundred of them
        return value
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    # A lone surrogate, half a character, becomes a question mark.
    return str(value).encode(errors="replace").decode()


def shown_number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def shown_status(generation: Generation) -> str:
    guess = COMPLETED if generation["image_url"] else FAILED
    return shown_text(generation["status"]) or guess


def located(url: str | None) -> str | None:
    """Return an address of the service as clients find it; that of another program stays."""
    is_ours = url and url.startswith("/")
    return settings.URL_PREFIX + url if is_ours else url


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
    status = shown_status(generation)
    image_url = shown_text(generation["image_url"])
    thumbnail_url = shown_text(generation["thumbnail_url"])
    made_from = inputs.inputs_of(generation)
    return {
        "id": generation["id"],
        "prompt": shown_text(generation["prompt_text"]) or "",
        "imageUrl": located(image_url),
        "thumbnailUrl": located(thumbnail_url),
        "status": status,
        "createdAt": iso_time(generation["created_at"]),
        "updatedAt": iso_time(generation["updated_at"]),
        "params": {"model_used": None, "seed": None, **parameters.params_of(generation)},
        "errorMessage": error_message(generation),
        "errorCode": shown_text(generation["error_code"]),
        "progress": 100 if status == COMPLETED else shown_number(generation["progress"]) or 0,
        "queuePosition": position,
        "etaSeconds": eta_seconds,
        "model": shown_text(generation["model"]),
        "width": shown_number(generation["width"]),
        "height": shown_number(generation["height"]),
        "favorite": bool(generation["favorite"]),
        "tags": tags.read(generation["tags"]),
        "inputs": [public_input(one, sign) for one in made_from],
        "parentId": inputs.parent_of(made_from),
        "startedAt": iso_time(generation["started_at"]),
        "finishedAt": iso_time(generation["finished_at"]),
        "expiresAt": iso_seconds(retention.expires_at(generation)),
        "purgesAt": None,
        "signedImageUrl": sign(image_url),
        "signedThumbnailUrl": sign(thumbnail_url),
        "signedStrippedUrl": sign(image_url and image_url + STRIPPED),
    }


def public_input(one: Input, sign: Callable[[str | None], str | None]) -> dict[str, Any]:
    url = storage.url(one["thumbnail"]) if one["thumbnail"] else None
    return {"kind": one["kind"], "id": one["id"], "signedThumbnailUrl": sign(url)}


def public_upload(upload: Upload) -> dict[str, Any]:
    sign = tokens.link_signer(g.session)
    expires_at = None if upload["is_used"] else upload["wanted_at"] + uploads.KEEP_SECONDS
    return {
        "id": upload["id"],
        "signedUrl": sign(storage.url(uploads.key_of(upload))),
        "signedThumbnailUrl": sign(storage.url(uploads.thumbnail_key_of(upload))),
        "width": upload["width"],
        "height": upload["height"],
        "bytes": upload["picture_bytes"],
        "expiresAt": iso_seconds(expires_at),
    }


def error_message(generation: Generation) -> str | None:
    code = generation["error_code"]
    if not code:
        return shown_text(generation["error_message"])
    message = messages.job_text(code, language())
    detail = generation["error_detail"]
    return f"{message} ({detail})" if detail else message


def one_record(generation: Generation, message: str | None = None) -> tuple[dict, int]:
    [record] = public_records([generation])
    return success(record, message)


def manifest_entry(generation: Generation, is_stripped: bool) -> dict[str, Any]:
    """Return what the manifest of an archive says of an image: no prompt if the image has none."""
    entry = {
        "id": generation["id"],
        "createdAt": iso_time(generation["created_at"]),
        "width": shown_number(generation["width"]),
        "height": shown_number(generation["height"]),
    }
    if is_stripped:
        return entry
    params = parameters.params_of(generation)
    return {
        **entry,
        "prompt": shown_text(generation["prompt_text"]) or "",
        "model": shown_text(params.get("model_used") or generation["model"]),
        "seed": shown_number(params.get("seed")),
    }


def archive_link(token: str, expires_at: int, count: int) -> dict[str, Any]:
    return {
        "url": located(f"/api/v1/images/archive?ticket={token}"),
        "expiresAt": iso_seconds(expires_at),
        "images": count,
    }


def public_share(share: db.Row, token: str = "") -> dict[str, Any]:
    """Return a share; its address only when it is new, since the token is stored nowhere."""
    shown = {
        "id": share["id"],
        "imageId": share["generation_id"],
        "createdAt": iso_seconds(share["created_at"]),
        "expiresAt": iso_seconds(share["expires_at"]),
    }
    return {**shown, "url": located(f"/api/s/{token}")} if token else shown


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


def history_page(page: Page, query: HistoryQuery) -> dict[str, Any]:
    pagination = {
        "total": page.total,
        "page": query.page,
        "perPage": query.per_page,
        "totalPages": -(-page.total // query.per_page),
        "nextCursor": make_cursor(*page.end) if page.end else None,
    }
    return {"records": public_records(page.generations), "pagination": pagination}


def trash_page(rows: list[db.Row], total: int, query: TrashQuery) -> dict[str, Any]:
    is_full = len(rows) == query.per_page
    last = rows[-1] if is_full else None
    pagination = {
        "total": total,
        "perPage": query.per_page,
        "nextCursor": make_cursor(last["trashed_at"], last["id"]) if last else None,
    }
    return {"records": [trashed_record(row) for row in rows], "pagination": pagination}


def trashed_record(row: db.Row) -> dict[str, Any]:
    """Return a record of the trash, whose files nobody gets, so that it leads to none."""
    hidden = {**row, "image_url": None, "thumbnail_url": None}
    record = public_record(hidden, None, None, sign=lambda url: None)
    purges_at = retention.purges_at(row["trashed_at"])
    return {**record, "expiresAt": None, "purgesAt": iso_seconds(purges_at)}


def next_link(page: dict[str, Any]) -> dict[str, str]:
    """Return the header of RFC 8288 that leads to the next page, if there may be one.

    Only one link, and none that is long: a proxy holds 4 KB of headers, `q` can have 1800 bytes in
    it, and each tag 360.
    """
    cursor = page["pagination"]["nextCursor"]
    if not cursor:
        return {}
    asked = {name: request.args.getlist(name) for name in HistoryQuery.model_fields}
    kept = {name: values[:1] for name, values in asked.items() if name not in ("page", "tag")}
    query = urlencode({**kept, "tag": asked["tag"], "cursor": [cursor]}, doseq=True)
    if len(query) > MAX_LINK:
        return {}
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
            "seedMax": model.max_seed if model.takes_seed else None,
            "n": model.n_max,
            "promptMax": model.prompt_max,
            "pixels": model.pixels.model_dump() if model.pixels else None,
            "ratioMax": model.ratio_max,
            "images": public_inputs(model),
        },
        "parameters": public_parameters(model),
        "sizes": [public_size(size) for size in model.sizes],
    }


def public_parameters(model: Model) -> dict[str, Any]:
    shown = {}
    for name in RANGES:
        if limits := getattr(model, name):
            shown[name] = limits.to_json(name)
    for name in (*CHOICES, *SHAPES):
        if choices := getattr(model, name):
            shown[name] = {"choices": choices, "default": choices[0]}
    return shown


def public_inputs(model: Model) -> dict[str, Any] | None:
    """Return which pictures a model takes; None if it takes none."""
    inputs = model.images
    if not inputs:
        return None
    return {
        "min": inputs.min,
        "max": inputs.max,
        "mask": inputs.mask,
        "strength": inputs.strength.to_json("strength") if inputs.strength else None,
        "formats": inputs.formats,
        "maxBytes": inputs.max_bytes,
    }


def public_size(size: str) -> dict[str, int]:
    width, height = read_size(size)
    return {"width": width, "height": height}
