"""Stored files as answers."""

import hashlib
import io
import re
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Response, g, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_date, parse_range_header

from config import settings
from errors import ApiError
from files import metadata, storage
from images.results import PARAMETERS
from validation import InvalidInput

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
UNCACHED = "no-store"
PRIVATE = "private, max-age={seconds}, immutable"
YEAR_SECONDS = 31536000
# Characters of a prompt in the name of a download, and of what tells two downloads apart.
MAX_NAME = 40
MAX_MARK = 8


def private() -> str:
    """Return how long a private file may be cached: no longer than the link to it is good."""
    expires = g.get("link_expires")
    seconds = YEAR_SECONDS if expires is None else max(0, expires - int(time.time()))
    return PRIVATE.format(seconds=seconds)


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


def stripped_file(key: str, cache_control: str, is_download: bool = False) -> Response:
    """Answer with a stored picture that says nothing of how it was made, but for its AI label."""
    path = find(key)
    try:
        picture = metadata.parse(path.read_bytes())
        picture.strip()
    except ValueError:  # a file of another program's time
        raise InvalidInput(fields={"metadata": ("not_strippable", {})}) from None
    data = picture.to_bytes()
    etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    response = send(data, path.name, etag=etag)
    if is_download:
        offer(response, path)
    response.headers["Cache-Control"] = cache_control
    return response


def offer(response: Response, path: Path, prompt: str = "") -> None:
    """Offer an answer as a download, with a name that people can read and every system takes."""
    spaced = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in prompt[:MAX_NAME])
    words = "-".join(spaced.split()) or "image"
    end = f"-{path.stem[:MAX_MARK]}{path.suffix}"
    plain = words if words.isascii() else "image"
    response.headers["Content-Disposition"] = (
        f"attachment; filename=\"{plain}{end}\"; filename*=UTF-8''{quote(words + end)}"
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
