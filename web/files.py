"""Stored files as answers, and archives of them."""

import errno
import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Response, g, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_date, parse_range_header
from werkzeug.wsgi import wrap_file

from accounts.tokens import Session
from config import settings
from errors import ApiError
from files import metadata, storage
from files.stored import DOWNLOAD_TYPE, Stored, suffix, type_of
from images import archive, history, shares
from images.archive import file_name
from images.results import PARAMETERS
from validation import InvalidInput
from web import records

PUBLIC = "public, max-age=31536000, immutable"
# Asked for again each time, or it would be shown for a while after its end.
SHARED = "private, no-cache"
UNCACHED = "no-store"
PRIVATE = "private, max-age={seconds}, immutable"
YEAR_SECONDS = 31536000
# So long before a link to a bucket ends, a browser asks for a new one.
MARGIN_SECONDS = 60
# Read from the store and sent at once.
PIECE_BYTES = 256 * 1024
# Characters of what tells two downloads apart.
MAX_MARK = 8

log = logging.getLogger("api")


def private() -> str:
    """Return how long a private file may be cached: no longer than the link to it is good."""
    expires = g.get("link_expires")
    seconds = YEAR_SECONDS if expires is None else max(0, expires - int(time.time()))
    return PRIVATE.format(seconds=seconds)


def gone_is_not_found(answer: Callable[..., Response]) -> Callable[..., Response]:
    """Let a function say so of a file that is deleted while it answers."""

    @wraps(answer)
    def guarded(*args: Any, **options: Any) -> Response:
        try:
            return answer(*args, **options)
        except FileNotFoundError:
            raise ApiError("not_found") from None

    return guarded


@gone_is_not_found
def stored_file(key: str, cache_control: str, is_download: bool = False) -> Response:
    """Answer with a stored file, or with where it is.

    nginx sends its bytes if X_ACCEL_PREFIX says so, and a store elsewhere does it, by a link; a
    download has a name that no link can give it.
    """
    stored = find(key)
    is_linked = stored.link and settings.SERVE_FROM == "store" and type_of(key)
    if is_linked and not is_download:
        return linked(stored)
    if stored.path and settings.X_ACCEL_PREFIX:
        refuse_wrong_range(stored.size)
        response = Response(mimetype=type_of(key) or DOWNLOAD_TYPE)
        response.headers["X-Accel-Redirect"] = settings.X_ACCEL_PREFIX + quote(key)
    elif stored.path:
        response = send(stored.path, stored.name)
    else:
        response = conditional(partial(send_stored, stored))
    if is_download:
        offer(response, stored.name, prompt_in(stored))
    response.headers["Cache-Control"] = cache_control
    return response


def linked(stored: Stored) -> Response:
    """Send the client to the store, by a link that is good no longer than the one it came with."""
    expires = g.get("link_expires")
    seconds = storage.LINK_SECONDS
    if expires is not None:
        seconds = max(1, min(seconds, expires - int(time.time())))
    response = Response(status=302)
    response.headers["Location"] = stored.link(request.method, seconds)
    response.headers["Cache-Control"] = f"private, max-age={max(0, seconds - MARGIN_SECONDS)}"
    return response


def send_stored(stored: Stored) -> Response:
    """Answer with a file of a store elsewhere, as send_file() does with one that is here."""
    body = wrap_file(request.environ, stored.open(), PIECE_BYTES)
    mimetype = type_of(stored.name)
    response = Response(body, mimetype=mimetype or DOWNLOAD_TYPE, direct_passthrough=True)
    if not mimetype:
        response.headers.set("Content-Disposition", "attachment", filename=stored.name)
    response.content_length = stored.size
    response.last_modified = stored.modified
    response.set_etag(stored.etag)
    return response.make_conditional(
        request.environ, accept_ranges=True, complete_length=stored.size
    )


def refuse_wrong_range(size: int) -> None:
    """Raise for a range that nginx would refuse: it keeps the file's type and time in caches."""
    text = request.headers.get("Range", "")
    if not text.lower().startswith("bytes=") or "If-Range" in request.headers:
        return
    wanted = parse_range_header(text)
    if not wanted or (len(wanted.ranges) == 1 and wanted.ranges[0][0] >= size):
        raise RequestedRangeNotSatisfiable(size)


def stripped_file(key: str, cache_control: str, is_download: bool = False) -> Response:
    """Answer with a stored picture that says nothing of how it was made, but for its AI label."""
    whole = storage.read(key)
    if whole is None:
        raise ApiError("not_found")
    try:
        data = metadata.strip(whole)
    except ValueError:  # a file of another program's time
        raise InvalidInput(fields={"metadata": ("not_strippable", {})}) from None
    etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    name = key.rpartition("/")[2]
    response = send(data, name, etag=etag)
    if is_download:
        offer(response, name)
    response.headers["Cache-Control"] = cache_control
    return response


def shared_file(token: str, is_download: bool) -> Response:
    """Answer anybody who has a share's token with the picture, and nothing about its owner.

    Raises ApiError: 404 whatever is wrong.
    """
    shared = shares.get_shared(token)
    key = history.image_key(shared["user_id"], shared["image_url"]) if shared else None
    whole = storage.read(key) if key else None
    if whole is None:
        raise ApiError("not_found")
    try:
        data = metadata.strip(whole)
    except ValueError:
        raise ApiError("not_found") from None
    # The names of stored files are random and are never used again; only their hash is told.
    mark = hashlib.sha256(key.rpartition("/")[2].encode()).hexdigest()
    name = mark[:MAX_MARK] + suffix(key)
    response = send(data, f"image-{name}", etag=mark)
    if is_download:
        offer(response, name)
    response.headers["Cache-Control"] = SHARED
    response.headers["X-Robots-Tag"] = "noindex"
    return response


def archive_file(session: Session, selection: dict[str, Any]) -> Response:
    """Answer with a ZIP file that is made while it is sent. Raises ApiError before that."""
    is_stripped = selection["metadata"] == "strip"
    describe = partial(records.manifest_entry, is_stripped=is_stripped)
    pieces = archive.stream(session, selection, describe)
    next(pieces)
    if request.method == "HEAD":
        pieces.close()
    response = Response(break_off(pieces), mimetype="application/zip")
    name = time.strftime("images-%Y%m%d-%H%M%S.zip", time.gmtime())
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    # Or nginx would write up to 1 GB of it to its disk for a client that is slower than we are.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def break_off(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces of an answer; if one cannot be had, end the connection, so that it shows."""
    try:
        yield from pieces
    except (ApiError, OSError) as error:
        log.warning("an archive broke off", extra={"details": {"cause": str(error)}})
        raise ConnectionResetError(errno.ECONNRESET, "broken off") from error


def offer(response: Response, name: str, prompt: str = "") -> None:
    """Offer an answer as a download, with a name that people can read and every system takes."""
    ending = suffix(name)
    mark = name.removesuffix(ending)[:MAX_MARK]
    name = file_name(prompt, mark, ending)
    plain = name if name.isascii() else file_name("", mark, ending)
    response.headers["Content-Disposition"] = (
        f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
    )


def prompt_in(stored: Stored) -> str:
    """Return the prompt that a picture itself says it was made of, if it does."""
    if suffix(stored.name) != ".png":
        return ""
    try:
        with stored.open() as file:
            return metadata.parse(file.read()).text(PARAMETERS).partition("\n")[0]
    except ValueError:
        return ""


def find(key: str) -> Stored:
    stored = storage.find(key)
    if not stored:
        raise ApiError("not_found")
    return stored


def send(file: Path | bytes, name: str, **options: Any) -> Response:
    """Answer with the bytes of a file, as a download unless it is an image."""
    mimetype = type_of(name)

    def answer() -> Response:
        return send_file(
            io.BytesIO(file) if isinstance(file, bytes) else file,
            mimetype=mimetype or DOWNLOAD_TYPE,
            as_attachment=not mimetype,
            download_name=name,
            **options,
        )

    return conditional(answer)


def conditional(answer: Callable[[], Response]) -> Response:
    """Answer by a function of Flask's, with conditions and ranges as RFC 9110 has them.

    Raises ApiError if the file is not the one that `If-Match` names.
    """
    environ = request.environ
    forget_odd_conditions(environ)
    try:
        response = answer()
    except RequestedRangeNotSatisfiable:
        if not re.match(r"bytes\s*=\s*-", environ["HTTP_RANGE"], re.IGNORECASE):
            raise
        # More bytes from the end than the file has are all of it.
        del environ["HTTP_RANGE"]
        response = answer()
    if response.status_code == 412:
        raise ApiError("precondition_failed")
    return response


def forget_odd_conditions(environ: dict[str, Any]) -> None:
    """Remove what is to be ignored, and Werkzeug refuses or fails at."""
    if not is_date_readable(environ.get("HTTP_IF_MODIFIED_SINCE")):
        del environ["HTTP_IF_MODIFIED_SINCE"]
    wanted = parse_range_header(environ.get("HTTP_RANGE"))
    is_one = wanted and wanted.units == "bytes" and len(wanted.ranges) == 1
    if not is_one or not is_date_readable(environ.get("HTTP_IF_RANGE")):
        environ.pop("HTTP_RANGE", None)
    if environ.get("HTTP_IF_MATCH", "").strip() == "*":
        del environ["HTTP_IF_MATCH"]


def is_date_readable(text: str | None) -> bool:
    """Tell if Werkzeug can parse a text, be it a date or not."""
    try:
        parse_date(text)
    except OverflowError:
        return False
    return True
