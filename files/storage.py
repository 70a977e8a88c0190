"""Where bytes live: files under uploads/, each under a key, which is its path there.

Keys are what the service passes around. A URL is made from one where an answer or a row is made.
"""

import os
import secrets
import shutil
from pathlib import Path

from werkzeug.security import safe_join

from config import settings

URL_PREFIX = "/api/uploads/"
MAX_KEY_LENGTH = 190  # what the column of cleanup.py holds


def url(key: str) -> str:
    return URL_PREFIX + key


def key_of(url: str) -> str:
    """Return the key in a URL, also one of an older program; it never is that of a folder."""
    _, _, key = url.partition("/uploads/")
    return key[:MAX_KEY_LENGTH].rstrip("/")


def new_key(folder: str, extension: str) -> str:
    return f"{folder}/{secrets.token_hex(16)}.{extension}"


def put(key: str, data: bytes) -> None:
    """Store bytes under a key. Never leaves a half-written file under that name. Raises OSError."""
    path = settings.uploads_dir / key
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _draft_of(path: Path) -> Path:
    """Return where a file is written before it gets its name.

    It follows from the name, so that what a crash leaves there can be deleted.
    """
    return path.with_name(f".{path.name}.draft")


def _path_of(key: str) -> Path | None:
    """Return the path of a key; None for one that leads out of uploads/."""
    path = safe_join(str(settings.uploads_dir), key)
    return Path(path) if path else None


def find(key: str) -> Path | None:
    """Return the path of a stored file, or None if there is none."""
    path = _path_of(key)
    if not path or path.name.startswith("."):
        return None
    return path if os.path.isfile(path) else None  # unlike is_file(), it takes a NUL for "no"


def delete(key: str) -> None:
    """Delete a file, and what a crash while writing it left; nothing happens if there is none."""
    path = _path_of(key)
    if not path:
        return
    for file in (path, _draft_of(path)):
        if os.path.isfile(file):
            file.unlink(missing_ok=True)


def delete_folder(key: str) -> None:
    """Delete a folder with all that is in it, but never uploads/ itself or anything above it."""
    path = _path_of(key)
    if path and os.path.normpath(path) != os.path.normpath(settings.uploads_dir):
        shutil.rmtree(path, ignore_errors=True)


def check() -> None:
    """Write and delete a file. Raises OSError if that fails."""
    key = f"check-{secrets.token_hex(8)}"
    put(key, b"")
    delete(key)
