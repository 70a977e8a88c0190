"""The two shapes of an answer, success and error, each made here alone; and its language."""

import errno
import hashlib
import logging
from functools import lru_cache
from typing import Any

from flask import Response, current_app, g, request
from werkzeug.datastructures import LanguageAccept
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_accept_header

import errors
import messages
from accounts.rate_limits import Available
from errors import ApiError
from files import storage

# What Flask and Werkzeug refuse by themselves.
HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    416: "range_not_satisfiable",
}
# What the system says when a disk or its table of files is full, read-only or away.
PASSING = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
}
KEPT_HEADERS = ("Allow", "Content-Range", "Retry-After")

log = logging.getLogger("api")


# -- Success ------------------------------------------------------------------------------------


def success(data: Any = None, message: str | None = None, status: int = 200) -> tuple[dict, int]:
    body = {"status": "success"}
    if message:
        body["message"] = messages.success_text(message, language())
    if data is not None:
        body["data"] = data
    return body, status


def with_etag(data: Any) -> Response:
    """Return a success with an ETag; 304 if the client has it already."""
    body, _ = success(data)
    response = current_app.json.response(body)
    digest = hashlib.sha1(response.data, usedforsecurity=False).hexdigest()
    response.headers["ETag"] = f'"{digest}"'
    response.headers["Cache-Control"] = "private, no-cache"
    if request.if_none_match.contains_weak(digest):
        response.status_code = 304
    return response


def rate_limit_headers(limits: dict[str, Available]) -> dict[str, str]:
    """Return the limits as draft-ietf-httpapi-ratelimit-headers has them, by name."""
    policies = [f'"{name}";q={one.most};w={one.window_seconds}' for name, one in limits.items()]
    left = [f'"{name}";r={one.left};t={one.seconds_left}' for name, one in limits.items()]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


# -- Errors -------------------------------------------------------------------------------------


def error_response(error: Exception) -> tuple[dict, int, dict]:
    """Answer any exception in the one shape: our errors, Flask's, and unexpected ones."""
    headers = {}
    if isinstance(error, HTTPException):
        for name, value in error.get_headers():
            if name in KEPT_HEADERS:
                headers[name] = value
        error = api_error(error)
    elif isinstance(error, OSError) and error.errno in PASSING:
        passing = storage.Unavailable()
        passing.__cause__ = error
        error = passing
    elif not isinstance(error, ApiError):
        if propagates():
            raise error
        log.error("unexpected error", exc_info=error)
        error = ApiError("internal_error")
    elif error.code == "token_invalid" and is_api_key():
        error = ApiError("key_invalid")
    g.error_code = error.code
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    status, *_ = errors.ERRORS[error.code]
    if status == 401:
        is_bad_token = error.code in ("token_invalid", "token_expired", "key_invalid")
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if is_bad_token else "Bearer"
    if status == 503:
        cause = str(error.__cause__ or "")
        log.warning(error.code, extra={"details": {"cause": cause}})
    return error_body(error, language()), status, headers


def is_api_key() -> bool:
    session = g.get("session")
    return bool(session and session.key_hash)


def propagates() -> bool:
    """Tell, as Flask does, if an unexpected error goes on to its debugger or to a test."""
    wanted = current_app.config["PROPAGATE_EXCEPTIONS"]
    return current_app.debug or current_app.testing if wanted is None else wanted


def api_error(error: HTTPException) -> ApiError:
    if error.code in HTTP_CODES:
        return ApiError(HTTP_CODES[error.code])
    return ApiError("bad_request" if error.code < 500 else "internal_error")


def error_body(error: ApiError, language: str) -> dict[str, Any]:
    fields = {}
    for name, (kind, values) in error.fields.items():
        fields[name] = messages.field_text(name, kind, values, language)
    message = errors.error_text(error.code, language)
    # The sentences about the fields are more use to a reader than that there are some.
    if fields and error.code in ("invalid_input", "prompt_blocked"):
        separator = "；" if language == "zh" else "; "
        message = separator.join(fields.values())
    body = {"status": "error", "message": message, "code": error.code}
    if fields:
        body["fields"] = fields
    return body


# -- Language -----------------------------------------------------------------------------------


def language() -> str:
    """Return "zh" or "en", as the request prefers."""
    return best_language(request.headers.get("Accept-Language", ""))


@lru_cache(maxsize=256)
def best_language(accepted: str) -> str:
    return parse_accept_header(accepted, LanguageAccept).best_match(("zh", "en"), "zh")
