"""Every route of the service; the only module that speaks HTTP.

Reads top to bottom: setup, before and after each request, errors, who is asking, then the routes in groups.
"""

import ipaddress
import json
import logging
import logging.config
import re
import secrets
import time
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask_swagger_ui
import yaml
from flask import Flask, Response, g, redirect, request, send_file, send_from_directory
from flask_cors import CORS
from werkzeug.exceptions import HTTPException

import accounts
import checks
import commands
import config
import cpu
import db
import jobs
import logs
import media
import messages
import storage
import tokens
from config import settings
from messages import Refusal

VERSION = "1.0.0"
HERE = Path(__file__).parent
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"

config.load()
logging.config.dictConfig(logs.dict_config())
log = logging.getLogger("api")

app = Flask(__name__, static_folder=None)
app.url_map.merge_slashes = False  # "//" is an unknown address, not a redirect
app.json.ensure_ascii = False
app.json.sort_keys = False
# Room for a 5 MB avatar and the other fields of a form.
app.config["MAX_CONTENT_LENGTH"] = 8 * 1024 * 1024
commands.register(app)
CORS(
    app,
    origins=settings.CORS_ORIGINS,
    methods=["GET", "POST", "PATCH", "DELETE"],
    allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"],
    expose_headers=["ETag", "Retry-After", "X-Request-Id"],
    max_age=600,
    always_send=False,
    vary_header=False,
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
    logs.request_id.set(wanted if re.fullmatch(r"[\w.-]{1,64}", wanted, re.ASCII) else secrets.token_hex(8))


@app.after_request
def finish(response: Response) -> Response:
    """Add the headers every answer has, and write the request's one log line."""
    drain_body()
    response.headers.add("Vary", "Origin")  # without Origin too, or a cache gives a page an answer without CORS
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["X-Request-Id"] = logs.request_id.get()
    details = {
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "ms": round((time.perf_counter() - g.started) * 1000, 1),
        "address": client_address(),
    }
    if "user" in g:
        details["user_id"] = g.user["id"]
    log.info("request", extra={"details": details})
    return response


def drain_body() -> None:
    """Read what a refusal left unread of the body: gunicorn resets a connection with more than 64 KB of it,
    and the client, or nginx, then never sees the answer."""
    if not request.environ.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" not in request.environ:
        return
    left = app.config["MAX_CONTENT_LENGTH"]
    while left > 0 and (data := request.environ["wsgi.input"].read(65536)):
        left -= len(data)


def client_address() -> str:
    """Return the address of the client; X-Forwarded-For counts only as far as TRUSTED_PROXIES wrote it."""
    address = request.remote_addr or ""
    if not settings.TRUSTED_PROXIES:
        return address
    hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",") if hop.strip()]
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
    return request.accept_languages.best_match(("zh", "en"), "zh")


@app.errorhandler(Exception)
def refuse(error: Exception) -> Response | tuple[dict, int, dict]:
    """Answer any exception in the one shape: our refusals, Flask's own, and surprises, which are logged."""
    headers = {}
    if isinstance(error, HTTPException):
        headers = {name: value for name, value in error.get_headers() if name in KEPT_HEADERS}
        error = Refusal(HTTP_CODES.get(error.code, "bad_request" if error.code < 500 else "internal_error"))
    if not isinstance(error, Refusal):
        log.error("unexpected error", exc_info=error)
        error = Refusal("internal_error")
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    status, *_ = messages.ERRORS[error.code]
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        log.warning(error.code, extra={"details": {"cause": str(error.__cause__ or "")}})
    return error_body(error), status, headers


def error_body(error: Refusal) -> dict:
    fields = {
        name: messages.field_text(name, kind, values, language()) for name, (kind, values) in error.fields.items()
    }
    # The sentences about the fields are more use to a reader than that there are some.
    separator = "；" if language() == "zh" else "; "
    details = separator.join(fields.values()) if error.code == "invalid_input" else ""
    message = details or messages.error_text(error.code, language())
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


def current_user() -> db.Row:
    """Return the account of the bearer token. Raises tokens.BadToken."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise tokens.BadToken("token_missing")
    user_id, version = tokens.read(token.strip())
    user = db.get_user(user_id)
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
    wanted, avatar = checks.together(
        lambda: checks.parse(checks.RegisterInput, form_or_json()),
        uploaded_avatar,
    )
    user = accounts.register(wanted, avatar, client_address())
    return success({"avatarUrl": user["avatar_url"]}, "registered")


def form_or_json() -> dict:
    return json_body() if request.is_json else request.form.to_dict()


def uploaded_avatar() -> media.Picture | None:
    """Return the avatar in the request, re-encoded, or None. Raises media.BadPicture."""
    upload = request.files.get("avatar")
    if upload and upload.filename:
        return cpu.run(media.avatar, upload.read())
    # A script that appends "no file" to a form sends it as one of these words.
    if form_or_json().get("avatar") not in (None, "", "null", "undefined"):
        raise media.BadPicture("avatar_not_a_file")
    return None


def json_body() -> dict:
    """Return the JSON object in the body. Raises Refusal for anything else."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # thousands of nested brackets
        body = None
    if not isinstance(body, dict):
        raise Refusal("invalid_json")
    return body


@app.post("/api/auth/login")
def login():
    """Exchange name and password for a token.

    401 for a wrong name or password alike, 429 after too many failures.
    """
    wanted = checks.parse(checks.LoginInput, json_body())
    user = accounts.log_in(wanted, client_address())
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


@app.post("/api/v1/images/generate-test")
@login_required
def generate_test():
    """Draw an image with the built-in engine while the caller waits."""
    wanted = checks.parse(checks.GenerateTestInput, json_body())
    generation = jobs.draw_now(g.user, wanted)
    shown = {"id": generation["id"], "imageUrl": generation["image_url"], "status": generation["status"]}
    return success(shown, "generated")


@app.get("/api/v1/images/history")
@login_required
def history():
    """Show one page of the caller's generations, newest first."""
    query = checks.parse(checks.HistoryQuery, request.args.to_dict())
    generations, total = db.list_generations(g.user, query.per_page, query.offset)
    pagination = {
        "total": total,
        "page": query.page,
        "perPage": query.per_page,
        "totalPages": -(-total // query.per_page),
    }
    return success({"records": [public_record(row) for row in generations], "pagination": pagination})


def public_record(generation: db.Row) -> dict:
    """Return a generation as every answer shows it."""
    return {
        "id": generation["id"],
        "prompt": generation["prompt_text"],
        "imageUrl": generation["image_url"],
        "thumbnailUrl": generation["thumbnail_url"],
        "status": generation["status"],
        "createdAt": iso_time(generation["created_at"]),
        "updatedAt": iso_time(generation["updated_at"]),
        "params": public_params(generation["generation_params_json"]),
        "errorMessage": generation["error_message"],
    }


def public_params(text: str | None) -> dict:
    """Return recorded params; rows older than this service may hold none, or something else."""
    try:
        params = json.loads(text or "{}", parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        params = {}
    return {"model_used": None, "seed": None, **(params if isinstance(params, dict) else {})}


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


@app.get("/api/uploads/avatars/<filename>")
def avatar_file(filename: str):
    """Serve an avatar to anyone."""
    return stored_file(f"avatars/{filename}", "public, max-age=31536000, immutable")


@app.get("/api/uploads/generated_images/<user_id>/<filename>")
@login_required
def generated_file(user_id: str, filename: str):
    """Serve an image or thumbnail to its owner; 403 for anyone else, whether it exists or not."""
    if user_id != str(g.user["id"]):
        raise Refusal("forbidden")
    return stored_file(f"generated_images/{user_id}/{filename}", "private, max-age=31536000, immutable")


def stored_file(key: str, cache_control: str) -> Response:
    """Answer with a stored file, its bytes sent by nginx if X_ACCEL_PREFIX says so. Raises Refusal."""
    path = storage.find(key)
    if not path:
        raise Refusal("not_found")
    mimetype = IMAGE_TYPES.get(path.suffix.lower())
    if settings.X_ACCEL_PREFIX:
        response = Response(mimetype=mimetype or "application/octet-stream")
        response.headers["X-Accel-Redirect"] = settings.X_ACCEL_PREFIX + quote(key)
    else:
        response = send_file(path, mimetype=mimetype, as_attachment=not mimetype)
    response.headers["Cache-Control"] = cache_control
    return response
