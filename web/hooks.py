"""Before and after each request: its id, its log line, the headers that every answer has."""

import logging
import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, g, request
from flask_cors import cross_origin
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

import logs
import metrics
from accounts import rate_limits, sessions
from accounts.tokens import Session
from config import settings
from engines import catalog
from engines.catalog import USUAL_PROMPT
from web import responses
from web.inputs import Request, UnambiguousJSON, client_address
from web.page import PageName

# Room for two prompts of 2000 characters, each written as two \\uXXXX.
MAX_BODY_BYTES = 64 * 1024
MAX_FORM_PARTS = 100
FORM = "multipart/form-data"
# Room for a 5 MB avatar, or for a picture of 20 MB, and the other fields of a form.
MAX_UPLOAD_BYTES = 8 * 1024 * 1024
MAX_INPUT_BYTES = 21 * 1024 * 1024
# The routes that take forms with a file.
FORM_LIMITS = {
    "register": MAX_UPLOAD_BYTES,
    "account.change_profile": MAX_UPLOAD_BYTES,
    "uploads.add_upload": MAX_INPUT_BYTES,
}
# Room for 10,000 ids of ten digits, of the routes that take so many.
MAX_IDS_BYTES = 128 * 1024
LONG_LISTS = {"archive_images"}
# The routes that take a prompt as long as a model allows, each character written as two \\uXXXX.
PROMPTS = {"generate"}
CHARACTER_BYTES = 12

# Every answer has these, unless it says otherwise.
DEFAULT_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    ("Cache-Control", "no-store"),
    # Without an Origin too, or a cache gives a page an answer without CORS headers.
    ("Vary", "Origin"),
]

# What a page of another origin may read besides what every page may.
EXPOSED_HEADERS = [
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-Id",
]

# An address that is a secret is not logged.
SHARE = re.compile(r"(/api/s/).+")

log = logging.getLogger("api")


class WholeNumber(BaseConverter):
    """A number in an address, in ASCII digits; one beyond any column is taken as the largest."""

    regex = "[0-9]+"

    def to_python(self, value: str) -> int:
        return int(value[-19:]) if len(value.lstrip("0")) < 19 else 10**18


def init_app(app: Flask) -> None:
    app.url_map.converters["int"] = WholeNumber
    app.url_map.converters["page"] = PageName
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["MAX_FORM_PARTS"] = MAX_FORM_PARTS
    app.request_class = Request
    app.url_map.merge_slashes = False  # "//" is an unknown address, not a redirect
    # No view or hook is a coroutine: to look at each of five would take 10 us a request.
    app.ensure_sync = lambda function: function
    app.json = UnambiguousJSON(app)
    app.json.ensure_ascii = False
    app.json.sort_keys = False
    app.json.compact = True
    app.register_error_handler(Exception, responses.error_response)
    app.before_request(begin)
    app.before_request(answer_preflight)
    app.after_request(cors_hook())
    app.after_request(finish)
    app.wsgi_app = with_headers(below_prefix(app.wsgi_app))


def cors_hook() -> Callable[[Response], Response]:
    """Return a hook that adds the CORS headers to an answer for another origin.

    `CORS(app)` would do the same, but spends 16 us on each answer, also where there is no Origin.
    """
    is_for_any = "*" in settings.CORS_ORIGINS
    patterns = [origin_pattern(origin) for origin in settings.CORS_ORIGINS]
    add_cors_headers = cross_origin(
        origins="*" if is_for_any else patterns,
        methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers="*",  # libraries add headers of their own, for tracing and caches
        expose_headers=EXPOSED_HEADERS,
        supports_credentials=not is_for_any,
        max_age=600,
        always_send=False,
        automatic_options=False,  # Flask itself answers OPTIONS
        vary_header=False,  # it is one of DEFAULT_HEADERS
    )(lambda response: response)

    def hook(response: Response) -> Response:
        if "HTTP_ORIGIN" in request.environ:
            return add_cors_headers(response)
        return response

    return hook


def origin_pattern(origin: str) -> re.Pattern:
    """Return what matches this origin alone, or each of its sub-domains.

    As plain text, Flask-CORS would guess which are regular expressions.
    """
    pattern = re.escape(origin).replace(r"://\*\.", r"://([\w-]+\.)+")
    return re.compile(pattern + r"\Z", re.ASCII | re.IGNORECASE)


def answer_preflight() -> Response | None:
    """Let a page send its request to a wrong address, too: only then can it read the answer."""
    is_preflight = request.method == "OPTIONS" and "Origin" in request.headers
    return Response() if is_preflight and request.routing_exception else None


def begin() -> None:
    g.started = time.perf_counter()
    wanted = request.environ.get("HTTP_X_REQUEST_ID", "")
    if not wanted or not re.fullmatch(r"[\w.-]{1,64}", wanted, re.ASCII):
        wanted = f"{random.getrandbits(64):016x}"
    logs.request_id.set(wanted)
    rate_limits.noted.set({})
    # A longer body is refused when somebody wants to read it, by its Content-Length if it has one.
    endpoint = request.endpoint
    if endpoint in FORM_LIMITS and request.mimetype == FORM:
        request.max_content_length = FORM_LIMITS[endpoint]
    elif endpoint in LONG_LISTS or endpoint in PROMPTS:
        request.max_content_length = json_bytes(endpoint)


def json_bytes(endpoint: str) -> int:
    """Return how large a body of JSON may be."""
    if endpoint in LONG_LISTS:
        return MAX_IDS_BYTES
    if endpoint in PROMPTS:
        longer = max(model.prompt_max for model in catalog.models().values()) - USUAL_PROMPT
        return MAX_BODY_BYTES + CHARACTER_BYTES * max(0, longer)
    return MAX_BODY_BYTES


def max_body_bytes(app: Flask, head: str, length: int | None) -> int:
    """Return the same limit by the head of a request, before its body is received.

    Of a body that is known to be short, it is the lowest: to find the right one takes 60 us.
    """
    if length is not None and length <= MAX_BODY_BYTES:
        return MAX_BODY_BYTES
    method, path, *_ = [*re.split("[ ?]", head, maxsplit=2), ""]
    try:
        endpoint, _ = app.url_map.bind("").match(without_prefix(path), method)
    except HTTPException:
        return MAX_BODY_BYTES
    is_form = endpoint in FORM_LIMITS and FORM in head.lower()
    return FORM_LIMITS[endpoint] if is_form else json_bytes(endpoint)


def finish(response: Response) -> Response:
    """Write the request's one log line, note which session is in use, and show the limits."""
    address = client_address()
    session = g.get("session")
    log_request(session, address, response.status_code)
    if session and response.status_code < 500 and response.status_code != 401:
        sessions.note_seen(session, address)
    if limits := rate_limits.noted.get():
        response.headers.extend(responses.rate_limit_headers(limits))
    return response


def with_headers(wsgi_app: Callable) -> Callable:
    """Return the WSGI application with DEFAULT_HEADERS and the request's id in every answer.

    As WSGI middleware this takes 3 us, and in an after_request hook 20 us.
    """

    def wrapped(environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        def start(status: str, headers: list, exc_info: Any = None) -> Callable:
            present = {name for name, _ in headers}
            added = [header for header in DEFAULT_HEADERS if header[0] not in present]
            added.append(("X-Request-Id", logs.request_id.get()))
            return start_response(status, headers + added, exc_info)

        return wsgi_app(environ, start)

    return wrapped


def below_prefix(wsgi_app: Callable) -> Callable:
    """Return the WSGI application as it lies below URL_PREFIX.

    It answers without that path, too: some proxies leave it out, and checks ask the port itself.
    """

    def wrapped(environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        if settings.URL_PREFIX:
            environ["PATH_INFO"] = without_prefix(environ["PATH_INFO"])
            environ["SCRIPT_NAME"] = settings.URL_PREFIX
        return wsgi_app(environ, start_response)

    return wrapped


def without_prefix(path: str) -> str:
    rest = path.removeprefix(settings.URL_PREFIX) or "/"
    return rest if rest.startswith("/") else path


def masked(path: str) -> str:
    """Return a path without the token of a share, which alone opens it."""
    return SHARE.sub(r"\1-", path) if "/s/" in path else path


def log_request(session: Session | None, address: str, status: int) -> None:
    method = request.environ["REQUEST_METHOD"]
    seconds = time.perf_counter() - g.started
    metrics.note_request(method, request.url_rule, status, seconds)
    details = {
        "method": method,
        "path": masked(request.path),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "address": address,
    }
    if code := g.get("error_code"):
        details["code"] = code
    user_id = session.user_id if session else g.get("user_id")  # the latter after a log-in
    if user_id:
        details["user_id"] = user_id
    log.info("request", extra={"details": details})
