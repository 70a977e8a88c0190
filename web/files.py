"""Stored files as answers."""

import hashlib
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Response, send_file

from config import settings
from errors import ApiError
from files import metadata, storage
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
PRIVATE = "private, max-age=31536000, immutable"


def stored_file(key: str, cache_control: str) -> Response:
    """Answer with a stored file, whose bytes nginx sends if X_ACCEL_PREFIX says so."""
    path = find(key)
    if settings.X_ACCEL_PREFIX:
        mimetype = IMAGE_TYPES.get(path.suffix.lower(), DOWNLOAD_TYPE)
        response = Response(mimetype=mimetype)
        response.headers["X-Accel-Redirect"] = settings.X_ACCEL_PREFIX + quote(key)
    else:
        response = send(path, path.name)
    response.headers["Cache-Control"] = cache_control
    return response


def stripped_file(key: str, cache_control: str) -> Response:
    """Answer with a stored picture that says nothing of how it was made, but for its AI label."""
    path = find(key)
    try:
        picture = metadata.parse(path.read_bytes())
        picture.strip()
    except ValueError:  # a file of another program's time
        raise InvalidInput(fields={"metadata": ("not_strippable", {})}) from None
    data = picture.to_bytes()
    etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    response = send(io.BytesIO(data), path.name, etag=etag)
    response.headers["Cache-Control"] = cache_control
    return response


def find(key: str) -> Path:
    path = storage.find(key)
    if not path:
        raise ApiError("not_found")
    return path


def send(file: Path | io.BytesIO, name: str, **options: Any) -> Response:
    """Answer with the bytes of a file, as a download unless it is an image."""
    mimetype = IMAGE_TYPES.get(Path(name).suffix.lower())
    return send_file(
        file,
        mimetype=mimetype or DOWNLOAD_TYPE,
        as_attachment=not mimetype,
        download_name=name,
        **options,
    )
