"""Before and after each request: its id, its log line, the headers that every answer has."""

import logging
import random
import re
import time

from flask import Flask, Response, g, request
from flask_cors import CORS

import logs
import metrics
from config import settings
from web import responses
from web.inputs import client_address

# Room for a 5 MB avatar and the other fields of a form.
MAX_BODY_BYTES = 8 * 1024 * 1024
READ_BYTES = 64 * 1024

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

log = logging.getLogger("api")


def init_app(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # "//" is an unknown address, not a redirect
    app.json.ensure_ascii = False
    app.json.sort_keys = False
    app.json.compact = True
    app.register_error_handler(Exception, responses.error_response)
    app.before_request(begin)
    # The last to be registered is the first to run.
    app.after_request(finish)
    CORS(
        app,
        origins=settings.CORS_ORIGINS,
        methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"],
        expose_headers=["ETag", "Retry-After", "X-Request-Id"],
        max_age=600,
        always_send=False,
        vary_header=False,  # finish() adds it to every answer
    )


def begin() -> None:
    g.started = time.perf_counter()
    wanted = request.headers.get("X-Request-Id", "")
    if not wanted or not re.fullmatch(r"[\w.-]{1,64}", wanted, re.ASCII):
        wanted = f"{random.getrandbits(64):016x}"
    logs.request_id.set(wanted)


def finish(response: Response) -> Response:
    """Add the headers that every answer has, and write the request's one log line."""
    drain_body()
    present = set(response.headers.keys())
    for name, value in SECURITY_HEADERS.items():
        if name not in present:
            response.headers.add(name, value)
    # Without an Origin too, or a cache gives a page an answer without CORS headers.
    response.headers.add("Vary", "Origin")
    response.headers.add("X-Request-Id", logs.request_id.get())
    log_request(response.status_code)
    return response


def drain_body() -> None:
    """Read what an error left unread of the body.

    gunicorn resets a connection with more than 64 KB of it, and the client, or nginx, then never
    sees the answer.
    """
    environ = request.environ
    if not environ.get("CONTENT_LENGTH") and "HTTP_TRANSFER_ENCODING" not in environ:
        return
    left = MAX_BODY_BYTES
    while left > 0 and (data := environ["wsgi.input"].read(READ_BYTES)):
        left -= len(data)


def log_request(status: int) -> None:
    seconds = time.perf_counter() - g.started
    metrics.note_request(request.method, request.url_rule, status, seconds)
    details = {
        "method": request.method,
        "path": request.path,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "address": client_address(),
    }
    if "session" in g:
        details["user_id"] = g.session.user_id
    log.info("request", extra={"details": details})
