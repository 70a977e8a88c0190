"""Where bytes live: files under uploads/. A key is the path below it, a URL is /api/uploads/<key>."""

import os
import secrets
import shutil
from pathlib import Path

from werkzeug.security import safe_join

from config import settings

URL_PREFIX = "/api/uploads/"


def new_key(folder: str, extension: str) -> str:
    return f"{folder}/{secrets.token_hex(16)}.{extension}"


def put(key: str, data: bytes) -> str:
    """Store bytes under a key and return their URL. Never leaves a half-written file under that name."""
    path = settings.uploads_dir / key
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return URL_PREFIX + key


def draft_of(path: Path) -> Path:
    """Return where a file is written before it gets its name; known, so that what a crash leaves can be deleted."""
    return path.with_name(f".{path.name}.draft")


def find(key: str) -> Path | None:
    """Return the path of a stored file, or None: also for a key that leads out of uploads/."""
    found = safe_join(str(settings.uploads_dir), key)
    return (
        Path(found)
        if found and not Path(key).name.startswith(".") and os.path.isfile(found)
        else None
    )


def delete(url: str | None) -> None:
    """Delete the file behind a URL, and what a crash while writing it left; nothing happens if there is none."""
    if not url or not url.startswith(URL_PREFIX):
        return
    found = safe_join(str(settings.uploads_dir), url.removeprefix(URL_PREFIX))
    for path in (Path(found), draft_of(Path(found))) if found else ():
        if path.is_file():
            path.unlink(missing_ok=True)


def delete_folder(key: str) -> None:
    """Delete a folder with all that is in it; nothing happens if there is none, or if it is uploads/ or above."""
    found = safe_join(str(settings.uploads_dir), key)
    if found and os.path.normpath(found) != os.path.normpath(settings.uploads_dir):
        shutil.rmtree(found, ignore_errors=True)


def check() -> None:
    """Write and delete a file. Raises OSError if that fails."""
    delete(put(f"check-{secrets.token_hex(8)}", b""))
