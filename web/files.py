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

from accounts.tokens import Session
from config import settings
from errors import ApiError
from files import metadata, storage
from images import archive, history, shares
from images.archive import file_name
from images.results import PARAMETERS
from validation import InvalidInput
from web import records

# The only types served for display; whatever else lies in uploads/ is offered as a download.
IMAGE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
DOWNLOAD_TYPE = "application/octet-stream"
PUBLIC = "public, max-age=31536000, immutable"
# Asked for again each time, or it would be shown for a while after its end.
SHARED = "private, no-cache"
UNCACHED = "no-store"
PRIVATE = "private, max-age={seconds}, immutable"
YEAR_SECONDS = 31536000
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
    """Answer with a stored file, whose bytes nginx sends if X_ACCEL_PREFIX says so."""
    path = find(key)
    if settings.X_ACCEL_PREFIX:
        refuse_wrong_range(path.stat().st_size)
        mimetype = IMAGE_TYPES.get(path.suffix.lower(), DOWNLOAD_TYPE)
        response = Response(mimetype=mimetype)
        response.headers["X-Accel-Redirect"] = settings.X_ACCEL_PREFIX + quote(key)
    else:
        response = send(path, path.name)
    if is_download:
        offer(response, path, prompt_in(path))
    response.headers["Cache-Control"] = cache_control
    return response


def refuse_wrong_range(size: int) -> None:
    """Raise for a range that nginx would refuse: it keeps the file's type and time in caches."""
    text = request.headers.get("Range", "")
    if not text.lower().startswith("bytes=") or "If-Range" in request.headers:
        return
    wanted = parse_range_header(text)
    if not wanted or (len(wanted.ranges) == 1 and wanted.ranges[0][0] >= size):
        raise RequestedRangeNotSatisfiable(size)


@gone_is_not_found
def stripped_file(key: str, cache_control: str, is_download: bool = False) -> Response:
    """Answer with a stored picture that says nothing of how it was made, but for its AI label."""
    path = find(key)
    try:
        data = metadata.strip(path.read_bytes())
    except ValueError:  # a file of another program's time
        raise InvalidInput(fields={"metadata": ("not_strippable", {})}) from None
    etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    response = send(data, path.name, etag=etag)
    if is_download:
        offer(response, path)
    response.headers["Cache-Control"] = cache_control
    return response


def shared_file(token: str, is_download: bool) -> Response:
    """Answer anybody who has a share's token with the picture, and nothing about its owner.

    Raises ApiError: 404 whatever is wrong.
    """
    shared = shares.get_shared(token)
    key = history.image_key(shared["user_id"], shared["image_url"]) if shared else None
    path = storage.find(key) if key else None
    if not path:
        raise ApiError("not_found")
    try:
        data = metadata.strip(path.read_bytes())
    except (ValueError, FileNotFoundError):
        raise ApiError("not_found") from None
    # The names of stored files are random and are never used again; only their hash is told.
    mark = hashlib.sha256(path.name.encode()).hexdigest()
    name = Path(f"{mark[:MAX_MARK]}{path.suffix}")
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


def offer(response: Response, path: Path, prompt: str = "") -> None:
    """Offer an answer as a download, with a name that people can read and every system takes."""
    mark = path.stem[:MAX_MARK]
    name = file_name(prompt, mark, path.suffix)
    plain = name if name.isascii() else file_name("", mark, path.suffix)
    response.headers["Content-Disposition"] = (
        f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
    )


def prompt_in(path: Path) -> str:
    """Return the prompt that a picture itself says it was made of, if it does."""
    if path.suffix != ".png":
        return ""
    try:
        return metadata.parse(path.read_bytes()).text(PARAMETERS).partition("\n")[0]
    except ValueError:
        return ""


def find(key: str) -> Path:
    path = storage.find(key)
    if not path:
        raise ApiError("not_found")
    return path


def send(file: Path | bytes, name: str, **options: Any) -> Response:
    """Answer with the bytes of a file, as a download unless it is an image."""
    mimetype = IMAGE_TYPES.get(Path(name).suffix.lower())

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
