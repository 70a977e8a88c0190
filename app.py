"""Every route of the service; the only module that speaks HTTP.

Reads top to bottom: setup, before and after each request, errors, who is asking, then the routes in groups.
"""

import hashlib
import io
import ipaddress
import json
import logging
import logging.config
import random
import re
import time
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask_swagger_ui
import yaml
from flask import Flask, Response, g, redirect, request, send_file, send_from_directory
from flask.json.provider import DefaultJSONProvider
from flask_cors.core import get_cors_options, set_cors_headers
from werkzeug.datastructures import Headers, LanguageAccept
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_accept_header

import commands
import config
import db
import errors
import heavy
import logs
import messages
import metrics
import validation
from accounts import registration, tokens
from config import settings
from engines import catalog
from errors import ApiError
from files import metadata, pictures, storage
from images import blocklist, gallery, jobs, parameters, queue_status

VERSION = "1.0.0"
HERE = Path(__file__).parent
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"

config.load()
logging.config.dictConfig(logs.dict_config())
log = logging.getLogger("api")


class Answer(Response):
    """As Flask's own, but the headers of a plain answer go out as they are: Flask copies them to mend some."""

    def get_wsgi_headers(self, environ: dict) -> Headers:
        is_plain = self.status_code in (200, 202) and isinstance(self.response, list)
        return self.headers if is_plain else super().get_wsgi_headers(environ)


class Json(DefaultJSONProvider):
    """As Flask's own, but it makes its encoder once."""

    encode = staticmethod(
        json.JSONEncoder(
            ensure_ascii=False, separators=(",", ":"), default=DefaultJSONProvider.default
        ).encode
    )

    def dumps(self, value: Any, **_: Any) -> str:
        return self.encode(value)


app = Flask(__name__, static_folder=None)
app.url_map.merge_slashes = False  # "//" is an unknown address, not a redirect
app.response_class = Answer
app.json = Json(app)
# Room for a 5 MB avatar and the other fields of a form.
app.config["MAX_CONTENT_LENGTH"] = 8 * 1024 * 1024
catalog.offered()  # a wrong models file stops the start
blocklist.words()
commands.register(app)
# Not by CORS(app), which looks for what to do at every answer, and most requests come without an Origin.
CORS_OPTIONS = get_cors_options(
    app,
    {
        "origins": settings.CORS_ORIGINS,
        "methods": ["GET", "POST", "PATCH", "DELETE"],
        "allow_headers": ["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"],
        "expose_headers": ["ETag", "Retry-After", "X-Request-Id"],
        "max_age": 600,
        "always_send": False,
        "vary_header": False,
    },
)

# -----------------------------------------------------------------------------------------------
# Before and after each request
# -----------------------------------------------------------------------------------------------

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@app.before_request
def begin() -> None:
    g.started = time.perf_counter()
    wanted = request.headers.get("X-Request-Id", "")
    is_fit = wanted and re.fullmatch(r"[\w.-]{1,64}", wanted, re.ASCII)
    logs.request_id.set(wanted if is_fit else f"{random.getrandbits(64):016x}")


@app.after_request
def finish(response: Response) -> Response:
    """Add the headers every answer has, and write the request's one log line."""
    environ, headers = request.environ, response.headers
    drain_body(environ)
    present = set(headers.keys())
    for name, value in SECURITY_HEADERS.items():
        if name not in present:
            headers.add(name, value)
    if "HTTP_ORIGIN" in environ:
        set_cors_headers(response, CORS_OPTIONS)
    headers.add(
        "Vary", "Origin"
    )  # without Origin too, or a cache gives a page an answer without CORS
    headers.add("X-Request-Id", logs.request_id.get())
    note_request(environ["REQUEST_METHOD"], response.status_code)
    return response


def note_request(method: str, status: int) -> None:
    seconds = time.perf_counter() - g.started
    metrics.note_request(method, request.url_rule, status, seconds)
    details = {
        "method": method,
        "path": request.path,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "address": client_address(),
    }
    if "user" in g:
        details["user_id"] = g.user["id"]
    log.info("request", extra={"details": details})


def drain_body(environ: dict) -> None:
    """Read what a refusal left unread of the body: gunicorn resets a connection with more than 64 KB of it,
    and the client, or nginx, then never sees the answer."""
    if not environ.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" not in environ:
        return
    left = app.config["MAX_CONTENT_LENGTH"]
    while left > 0 and (data := environ["wsgi.input"].read(65536)):
        left -= len(data)


def client_address() -> str:
    """Return the address of the client; X-Forwarded-For counts only as far as TRUSTED_PROXIES wrote it."""
    address = request.remote_addr or ""
    if not settings.TRUSTED_PROXIES:
        return address
    hops = [
        hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",") if hop.strip()
    ]
    while hops and is_trusted_proxy(address):
        address = hops.pop()
    return address


def is_trusted_proxy(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in settings.TRUSTED_PROXIES)


# -----------------------------------------------------------------------------------------------
# Answers and errors: one shape, made here
# -----------------------------------------------------------------------------------------------

HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    416: "range_not_satisfiable",
}
KEPT_HEADERS = ("Allow", "Content-Range", "Retry-After")


def success(data: Any = None, message: str | None = None, status: int = 200) -> tuple[dict, int]:
    body = {"status": "success"}
    if message:
        body["message"] = messages.success_text(message, language())
    if data is not None:
        body["data"] = data
    return body, status


def language() -> str:
    return best_language(request.headers.get("Accept-Language", ""))


@lru_cache(maxsize=256)
def best_language(accepted: str) -> str:
    return parse_accept_header(accepted, LanguageAccept).best_match(("zh", "en"), "zh")


@app.errorhandler(Exception)
def refuse(error: Exception) -> Response | tuple[dict, int, dict]:
    """Answer any exception in the one shape: our refusals, Flask's own, and surprises, which are logged."""
    headers = {}
    if isinstance(error, HTTPException):
        headers = {name: value for name, value in error.get_headers() if name in KEPT_HEADERS}
        error = ApiError(
            HTTP_CODES.get(error.code, "bad_request" if error.code < 500 else "internal_error")
        )
    if not isinstance(error, ApiError):
        log.error("unexpected error", exc_info=error)
        error = ApiError("internal_error")
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    status, *_ = errors.ERRORS[error.code]
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        log.warning(error.code, extra={"details": {"cause": str(error.__cause__ or "")}})
    return error_body(error), status, headers


def error_body(error: ApiError) -> dict:
    fields = {
        name: messages.field_text(name, kind, values, language())
        for name, (kind, values) in error.fields.items()
    }
    # The sentences about the fields are more use to a reader than that there are some.
    separator = "；" if language() == "zh" else "; "
    details = (
        separator.join(fields.values()) if error.code in ("invalid_input", "prompt_blocked") else ""
    )
    message = details or errors.error_text(error.code, language())
    body = {"status": "error", "message": message, "code": error.code}
    return {**body, "fields": fields} if fields else body


# -----------------------------------------------------------------------------------------------
# Who is asking
# -----------------------------------------------------------------------------------------------


def login_required(view: Callable) -> Callable:
    """Let only a logged-in caller through, as `g.user`."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        g.user = current_user()
        return view(*args, **kwargs)

    return guarded


def token_required(view: Callable) -> Callable:
    """Let a caller with a good token through; what the view calls must check that the account still stands."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        user_id, version = claims()
        g.user = {"id": user_id, "token_version": version}
        return view(*args, **kwargs)

    return guarded


def owner_required(view: Callable) -> Callable:
    """Let only the owner of the generation in the address through; the view gets the generation.

    Raises ApiError: 410 for a deleted one, 404 for one that never was or is another's.
    """

    @wraps(view)
    def guarded(generation_id: int) -> Any:
        user_id, version = claims()
        known = min(generation_id, validation.MAX_ID)
        user, generation = db.get_user_and_generation(user_id, known)
        g.user = confirmed(user, version)
        if not generation or generation_id != known:
            raise ApiError("image_deleted" if db.was_deleted(user_id, known) else "not_found")
        return view(generation)

    return guarded


def current_user() -> db.Row:
    """Return the account of the bearer token. Raises tokens.BadToken."""
    user_id, version = claims()
    return confirmed(db.get_user(user_id), version)


def claims() -> tuple[int, int]:
    """Return (user id, token version) of the bearer token. Raises tokens.BadToken."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise tokens.BadToken("token_missing")
    return tokens.read(token.strip())


def confirmed(user: db.Row | None, version: int) -> db.Row:
    """Return the account if it still is what the token says. Raises tokens.BadToken."""
    if not user or user["is_disabled"] or user["token_version"] != version:
        raise tokens.BadToken
    return user


# -----------------------------------------------------------------------------------------------
# Health and documentation
# -----------------------------------------------------------------------------------------------


@app.get("/api/health")
def health():
    """Say that the process answers; touches nothing, so it holds while the database is away."""
    return {"message": "API服务运行正常", "status": "success", "version": VERSION}


@app.get("/api/health/ready")
def ready():
    """Say whether images can be made: database, storage and a worker; 503 names what is away."""
    state, problems = queue_status.readiness()
    away = {name: (problem, {}) for name, problem in state.items() if problem}
    if away:
        raise ApiError("not_ready", fields=away, retry_after=10)
    return success(
        {
            **dict.fromkeys(state, "ok"),
            "models": {name: problems[name] or "ok" for name in problems},
        }
    )


@app.get("/metrics")
def prometheus():
    """Show the numbers for Prometheus; 404 unless METRICS is on."""
    if not settings.METRICS:
        raise ApiError("not_found")
    text, content_type = metrics.page()
    return Response(text, content_type=content_type)


@app.get("/")
def home():
    """Lead a browser to the documentation."""
    return redirect("/api/docs")


@app.get("/api/openapi.json")
def openapi():
    """Serve openapi.yaml as JSON."""
    return openapi_document()


@lru_cache
def openapi_document() -> dict:
    return yaml.safe_load((HERE / "openapi.yaml").read_text(encoding="utf-8"))


DOCS_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


@app.get("/api/docs")
def docs():
    """Show openapi.yaml in Swagger UI, from files on this machine alone."""
    response = send_from_directory(HERE / "static", "docs.html")
    response.headers["Content-Security-Policy"] = DOCS_POLICY
    return response


@app.get("/api/docs/<filename>")
def docs_asset(filename: str):
    """Serve a file of the documentation page: our two lines of script, or Swagger UI's own."""
    folder = HERE / "static" if filename == "docs.js" else SWAGGER_UI
    return send_from_directory(folder, filename, max_age=3600)


# -----------------------------------------------------------------------------------------------
# Accounts
# -----------------------------------------------------------------------------------------------


@app.post("/api/auth/register")
def register():
    """Open an account, with an avatar if one is sent.

    400 names each wrong field, 409 a name or email that is taken.
    """
    wanted, avatar = validation.together(
        lambda: validation.parse(validation.RegisterInput, form_or_json()),
        uploaded_avatar,
    )
    user = registration.register(wanted, avatar, client_address())
    return success({"avatarUrl": user["avatar_url"]}, "registered")


def form_or_json() -> dict:
    return json_body() if request.is_json else request.form.to_dict()


def uploaded_avatar() -> pictures.Picture | None:
    """Return the avatar in the request, re-encoded, or None. Raises pictures.BadPicture."""
    upload = request.files.get("avatar")
    if upload and upload.filename:
        return heavy.run(pictures.avatar, upload.read())
    # A script that appends "no file" to a form sends it as one of these words.
    if form_or_json().get("avatar") not in (None, "", "null", "undefined"):
        raise pictures.BadPicture("avatar_not_a_file")
    return None


def json_body() -> dict:
    """Return the JSON object in the body. Raises ApiError for anything else."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # thousands of nested brackets
        body = None
    if not isinstance(body, dict):
        raise ApiError("invalid_json")
    return body


@app.post("/api/auth/login")
def login():
    """Exchange name and password for a token.

    401 for a wrong name or password alike, 429 after too many failures.
    """
    wanted = validation.parse(validation.LoginInput, json_body())
    user = registration.log_in(wanted, client_address())
    shown = {"username": user["username"], "email": user["email"], "avatarUrl": user["avatar_url"]}
    return success({"token": tokens.make(user), "user": shown}, "logged_in")


@app.get("/api/auth/profile")
@login_required
def profile():
    """Show the caller's own account."""
    user = g.user
    return success(
        {
            "id": user["id"],
            "username": user["username"],
            "email": user["email"],
            "avatarUrl": user["avatar_url"],
            "created_at": iso_time(user["created_at"]),
        }
    )


# -----------------------------------------------------------------------------------------------
# Images
# -----------------------------------------------------------------------------------------------


@app.get("/api/v1/models")
def list_models():
    """List the models on offer: whether they can be made just now, and the limits and defaults of their parameters."""
    return success({"models": [public_model(model) for model in catalog.offered().values()]})


def public_model(model: catalog.Model) -> dict:
    problem = queue_status.queue().problems.get(model.name, "no_worker")
    ranges = {name: getattr(model, name) for name in catalog.RANGED}
    choices = {name: getattr(model, name) for name in catalog.CHOSEN}
    return {
        "name": model.name,
        "label": model.label_zh or model.label if language() == "zh" else model.label,
        "engine": model.engine,
        "available": not problem,
        "reason": messages.problem_text(problem, language()) if problem else None,
        "capabilities": {"negativePrompt": model.negative_prompt, "seed": model.takes_seed, "n": 4},
        "parameters": {
            **{name: limits.shown(name) for name, limits in ranges.items() if limits},
            **{
                name: {"choices": offer, "default": offer[0]}
                for name, offer in choices.items()
                if offer
            },
        },
        "sizes": [
            dict(zip(("width", "height"), model.size_of(text), strict=True)) for text in model.sizes
        ],
    }


@app.post("/api/v1/images/generate-test")
@login_required
def generate_test():
    """Draw an image with the built-in engine while the caller waits."""
    wanted = validation.parse(validation.GenerateTestInput, json_body())
    record = gallery.generate_test(g.user, wanted)
    if record["status"] != "completed":
        raise ApiError("generation_failed")
    return success(
        {"id": record["id"], "imageUrl": record["image_url"], "status": "completed"}, "generated"
    )


@app.post("/api/v1/images/generate")
@token_required
def generate():
    """Queue generations for the caller; workers make them later.

    400 names each wrong field, 409 a key used for another request, 429 too many unfinished ones or a spent
    quota, 503 a full queue.
    """
    wanted = validation.parse(validation.GenerateInput, json_body())
    records = jobs.submit(g.user, wanted, idempotency_key())
    return submitted(records)


def idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,100}", key):
        raise validation.InvalidInput(fields={"Idempotency-Key": ("idempotency_key", {})})
    return key


def submitted(records: list[db.Row]) -> tuple[dict, int, dict]:
    body, status = success({"records": public_records(records)}, "submitted", status=202)
    location = f"/api/v1/images/{records[0]['id']}" if records else "/api/v1/images/history"
    return body, status, {"Location": location, "Retry-After": POLL_SECONDS}


@app.get("/api/v1/images/<int:generation_id>")
@owner_required
def image(generation: db.Row):
    """Show one generation."""
    return watched([generation], lambda records: records[0])


@app.get("/api/v1/images")
@login_required
def images():
    """Show up to 50 generations at once, for a page that watches several; ids of others are left out."""
    query = validation.parse(validation.IdsQuery, request.args.to_dict())
    return watched(db.list_owned(g.user["id"], query.ids), lambda records: {"records": records})


# How often a client may look again while something is unfinished.
POLL_SECONDS = "2"


def watched(generations: list[db.Row], shape: Callable[[list[dict]], Any]) -> Response:
    """Answer with generations and an ETag; 304 if the client has them already."""
    response = app.json.response(success(shape(public_records(generations)))[0])
    response.headers["ETag"] = f'"{hashlib.sha1(response.data, usedforsecurity=False).hexdigest()}"'
    response.headers["Cache-Control"] = "private, no-cache"
    if any(row["status"] in db.UNFINISHED for row in generations):
        response.headers["Retry-After"] = POLL_SECONDS
    if "If-None-Match" in request.headers:
        response.make_conditional(request)
    return response


@app.post("/api/v1/images/<int:generation_id>/cancel")
@owner_required
def cancel(generation: db.Row):
    """Cancel a generation that is not finished; 409 if it is."""
    return success(public_records([gallery.cancel(g.user, generation)])[0], "canceled")


@app.post("/api/v1/images/<int:generation_id>/retry")
@owner_required
def retry(generation: db.Row):
    """Queue a new generation with the same parameters, and a new seed if asked for; refuses as generate does."""
    wanted = validation.parse(validation.RetryInput, json_body() if request.get_data() else {})
    return submitted(gallery.retry(g.user, generation, wanted.seed == "new"))


@app.patch("/api/v1/images/<int:generation_id>")
@owner_required
def change_image(generation: db.Row):
    """Mark a generation as a favorite, or no longer."""
    wanted = validation.parse(validation.FavoriteInput, json_body())
    return success(public_records([gallery.set_favorite(g.user, generation, wanted.favorite)])[0])


@app.delete("/api/v1/images/<int:generation_id>")
@owner_required
def delete_image(generation: db.Row):
    """Delete a generation with its image and thumbnail."""
    return success({"deleted": gallery.delete(g.user, [generation["id"]])}, "deleted")


@app.post("/api/v1/images/delete")
@login_required
def delete_images():
    """Delete up to 100 generations; says which there were."""
    wanted = validation.parse(validation.DeleteInput, json_body())
    return success({"deleted": gallery.delete(g.user, wanted.ids)}, "deleted")


@app.get("/api/v1/images/quota")
@login_required
def quota():
    """Show what is left of today's images, and of the places for unfinished ones."""
    state = db.get_quota(g.user["id"])
    midnight = (state["now"] // 86400 + 1) * 86400
    return success(
        {
            "limit": settings.DAILY_IMAGES,
            "used": state["used"],
            "remaining": max(0, settings.DAILY_IMAGES - state["used"]),
            "resetsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(midnight)),
            "active": state["active"],
            "activeLimit": settings.MAX_ACTIVE_JOBS,
        }
    )


@app.get("/api/v1/images/history")
@token_required
def history():
    """Show one page of the caller's generations, newest first, filtered if asked for."""
    query = validation.parse(validation.HistoryQuery, request.args.to_dict())
    generations, total = db.list_generations(
        g.user, query.per_page, query.offset, query.cursor, query.filters
    )
    pagination = {
        "total": total,
        "page": query.page,
        "perPage": query.per_page,
        "totalPages": -(-total // query.per_page),
        "nextCursor": next_cursor(generations, query.per_page),
    }
    return success({"records": public_records(generations), "pagination": pagination})


def next_cursor(generations: list[db.Row], per_page: int) -> str | None:
    """Return the cursor of the page after this one; a page that is not full is the last."""
    if len(generations) < per_page:
        return None
    return validation.make_cursor(generations[-1]["created_at"], generations[-1]["id"])


def public_records(generations: list[db.Row]) -> list[dict]:
    """Return generations of the caller as every answer shows them."""
    sign = tokens.link_signer(g.user["token_version"])
    return [public_record(row, sign, place_of(row)) for row in generations]


def place_of(generation: db.Row) -> tuple[int | None, int | None]:
    if generation["status"] != "pending":
        return None, None
    return queue_status.queue().place(g.user["id"], generation["model"])


def public_record(generation: db.Row, sign: Callable, place: tuple[int | None, int | None]) -> dict:
    position, eta_seconds = place
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
        "progress": 100 if generation["status"] == "completed" else generation["progress"],
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


def error_message(generation: db.Row) -> str | None:
    code, detail = generation["error_code"], generation["error_detail"]
    if not code:
        return generation["error_message"]
    return messages.job_text(code, language()) + (f" ({detail})" if detail else "")


def iso_time(text: str | None) -> str | None:
    """Return the database's UTC time as ISO 8601; MySQL's zero date is no time."""
    return text.replace(" ", "T") + "Z" if text and not text.startswith("0000") else None


# -----------------------------------------------------------------------------------------------
# Files
# -----------------------------------------------------------------------------------------------

# The only types served for display; whatever else lies in uploads/ is offered as a download.
IMAGE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
DOWNLOAD_TYPE = "application/octet-stream"


@app.get("/api/uploads/avatars/<filename>")
def avatar_file(filename: str):
    """Serve an avatar to anyone."""
    return stored_file(f"avatars/{filename}", "public, max-age=31536000, immutable")


@app.get("/api/uploads/generated_images/<user_id>/<filename>")
def generated_file(user_id: str, filename: str):
    """Serve an image or thumbnail to its owner, or to whoever has a signed link of theirs.

    `?metadata=strip` leaves out prompt and parameters. 401 without either, 403 for anyone else's, whether it
    exists or not.
    """
    if "sig" in request.args:
        g.user = link_owner(user_id)
    else:
        g.user = current_user()
    if user_id != str(g.user["id"]):
        raise ApiError("forbidden")
    query = validation.parse(validation.FileQuery, request.args.to_dict())
    key, cache_control = (
        f"generated_images/{user_id}/{filename}",
        "private, max-age=31536000, immutable",
    )
    return (
        stripped_file(key, cache_control)
        if query.metadata == "strip"
        else stored_file(key, cache_control)
    )


def link_owner(user_id: str) -> db.Row:
    """Return the account that signed the link of this request. Raises ApiError."""
    owner = db.get_user(int(user_id)) if re.fullmatch(r"[0-9]{1,9}", user_id) else None
    expires, signature = request.args.get("expires", ""), request.args["sig"]
    if not owner or not tokens.link_is_good(
        request.path, expires, signature, owner["token_version"]
    ):
        raise ApiError("link_invalid")
    return owner


def stored_file(key: str, cache_control: str) -> Response:
    """Answer with a stored file, its bytes sent by nginx if X_ACCEL_PREFIX says so. Raises ApiError."""
    path = storage.find(key)
    if not path:
        raise ApiError("not_found")
    if settings.X_ACCEL_PREFIX:
        response = Response(mimetype=IMAGE_TYPES.get(path.suffix.lower(), DOWNLOAD_TYPE))
        response.headers["X-Accel-Redirect"] = settings.X_ACCEL_PREFIX + quote(key)
    else:
        response = sent(path, path.name)
    response.headers["Cache-Control"] = cache_control
    return response


def stripped_file(key: str, cache_control: str) -> Response:
    """Answer with a stored picture that says nothing of how it was made; a label of AI-made content stays."""
    path = storage.find(key)
    if not path:
        raise ApiError("not_found")
    try:
        data = metadata.stripped(path.read_bytes())
    except ValueError:  # a file of another program's time
        raise validation.InvalidInput(fields={"metadata": ("not_strippable", {})}) from None
    response = sent(
        io.BytesIO(data), path.name, etag=hashlib.sha1(data, usedforsecurity=False).hexdigest()
    )
    response.headers["Cache-Control"] = cache_control
    return response


def sent(file: Path | io.BytesIO, name: str, **options: Any) -> Response:
    """Answer with the bytes of a file, as a download unless it is an image."""
    mimetype = IMAGE_TYPES.get(Path(name).suffix.lower())
    options |= {
        "mimetype": mimetype or DOWNLOAD_TYPE,
        "as_attachment": not mimetype,
        "download_name": name,
    }
    return send_file(file, **options)
