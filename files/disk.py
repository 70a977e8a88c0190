"""A store of files: the folder uploads/, where the key of a file is its path."""

import errno
import math
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from werkzeug.security import safe_join

from config import settings
from files.stored import Stored, Unavailable

# As much as the files of a picture usually take.
CHECK_BYTES = 1024 * 1024
# Others would have to delete its folder between two steps so many times.
CREATE_TRIES = 5

# What stat() and unlink() say where there is no such file.
NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def put(key: str, data: bytes) -> None:
    """Store bytes under a key. Never leaves a half-written file under that name.

    Raises Unavailable.
    """
    path = settings.uploads_dir / key
    draft = _draft_of(path)
    try:
        with _create(draft) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise Unavailable from error
        raise


def _create(path: Path) -> BinaryIO:
    """Open a new file, in a folder that delete() may take away when it is empty."""
    for _ in range(CREATE_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return open(path, "wb")
    return open(path, "wb")


def _draft_of(path: Path) -> Path:
    """Return where a file is written before it gets its name.

    It follows from the name, so that what a crash leaves there can be deleted.
    """
    return path.with_name(f".{path.name}.draft")


def _path_of(key: str) -> Path | None:
    """Return the path of a key; None for one that leads out of uploads/."""
    path = safe_join(str(settings.uploads_dir), key)
    return Path(path) if path else None


def find(key: str) -> Stored | None:
    """Return what is known of a stored file, or None if there is none. Raises Unavailable."""
    path = _path_of(key)
    if not path or path.name.startswith("."):
        return None
    try:
        found = os.stat(path)
    except ValueError:  # a NUL in the name, of which there is no file
        return None
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise Unavailable from error
    if not stat.S_ISREG(found.st_mode):
        return None
    return Stored(path.name, found.st_size, partial(open, path, "rb"), path)


def read(key: str) -> bytes | None:
    """Return the bytes of a stored file, or None if there is none. Raises Unavailable."""
    found = find(key)
    try:
        return found.path.read_bytes() if found else None
    except FileNotFoundError:  # deleted just now
        return None
    except OSError as error:
        raise Unavailable from error


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders in one, whose key ends with a slash. Raises Unavailable."""
    return [entry.name for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]


def list_files(folder: str, before: float) -> list[str]:
    """Return the keys of the files in a folder that were written before a time.

    What a crash while writing left of a file is under its key. A name that is not UTF-8 is none of
    ours. Raises Unavailable.
    """
    keys = set()
    for entry in _entries(folder):
        draft = re.fullmatch(r"\.(.+)\.draft", entry.name)
        name = draft[1] if draft else entry.name
        is_text = not re.search(r"[\udc80-\udcff]", name)
        if is_text and not name.startswith(".") and _is_older(entry, before):
            keys.add(folder + name)
    return sorted(keys)


def _entries(folder: str) -> list[os.DirEntry]:
    path = settings.uploads_dir / folder
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        if error.errno in NOT_THERE:
            return []
        raise Unavailable from error


def _is_older(entry: os.DirEntry, before: float) -> bool:
    try:
        is_file = entry.is_file(follow_symlinks=False)
        return is_file and entry.stat(follow_symlinks=False).st_mtime < before
    except FileNotFoundError:  # deleted just now
        return False


def delete(key: str) -> None:
    """Delete a file, and what a crash while writing it left; nothing happens if there is none.

    The folder of a user goes with its last file, as a worker may write one after the account is
    gone. Raises OSError.
    """
    path = _path_of(key)
    if not path:
        return
    for file in (path, _draft_of(path)):
        try:
            file.unlink()
        except ValueError:  # a NUL in the name, of which there is no file
            pass
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
    if path.parent.parent.parent == settings.uploads_dir:
        with suppress(OSError):
            path.parent.rmdir()


def delete_folder(key: str, seconds: float = math.inf) -> bool:
    """Delete a folder with all that is in it, but never uploads/ itself or anything above it.

    False if there was no time for all; what can be deleted is. Raises OSError if something is left.
    """
    path = _path_of(key)
    if not path or os.path.normpath(path) == os.path.normpath(settings.uploads_dir):
        return True
    give_up_at = time.monotonic() + seconds
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        for entry in entries:
            if time.monotonic() > give_up_at:
                return False
            _delete_entry(entry)
    # Whatever is in it now was written meanwhile, or cannot be deleted.
    shutil.rmtree(path, ignore_errors=True)
    if os.path.isdir(path):
        raise OSError(f"{key} is not empty")
    return True


def _delete_entry(entry: os.DirEntry) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(entry)


def check() -> None:
    """Write to a file without a name, which no kill can leave behind. Raises Unavailable."""
    try:
        settings.uploads_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.uploads_dir) as file:
            file.write(bytes(CHECK_BYTES))
            file.flush()
    except OSError as error:
        raise Unavailable from error
