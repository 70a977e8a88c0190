"""Where bytes live: each file under a key, in the store that STORAGE_URL names.

Keys are what the service passes around. A URL is made from one where an answer or a row is made.
While files move from one store to another, STORAGE_OTHER names the second: what the first does not
have is read there, and what is deleted is deleted in both.
"""

import math
import secrets
import time
from functools import cache

from config import Location, settings
from files import disk
from files.stored import Store, Stored, Unavailable

__all__ = ["Unavailable"]

URL_PREFIX = "/api/uploads/"
MAX_KEY_LENGTH = 190  # what the column of cleanup.py holds
# How long a link to a bucket is good: a picture that is deleted or in the trash may be seen so long
# by whoever asked for it just before.
LINK_SECONDS = 300


def url(key: str) -> str:
    return URL_PREFIX + key


def key_of(url: str) -> str:
    """Return the key in a URL, also one of an older program; it never is that of a folder."""
    _, _, key = url.partition("/uploads/")
    return key[:MAX_KEY_LENGTH].rstrip("/")


def new_key(folder: str, extension: str) -> str:
    return f"{folder}/{secrets.token_hex(16)}.{extension}"


# -- Which store --------------------------------------------------------------------------------


def store_at(location: Location) -> Store:
    if not location.bucket:
        return disk
    return _s3(location, settings.AWS_ACCESS_KEY_ID, settings.AWS_SECRET_ACCESS_KEY)


@cache
def _s3(location: Location, key_id: str, secret: str) -> Store:
    # Imported late, as not everybody has one; and made on first use in each process, because its
    # library hangs in a process that was forked after that.
    from files.s3 import S3

    return S3(location, key_id, secret)


def stores() -> list[Store]:
    """Return the store that is written to and, while files move, the other one."""
    if settings.STORAGE_OTHER is None:
        return [store_at(settings.STORAGE_URL)]
    return [store_at(settings.STORAGE_URL), store_at(settings.STORAGE_OTHER)]


def in_turn() -> list[Store]:
    """Return the stores in the order in which a file is looked for, and deleted.

    Of two, the first comes again, as the file may have moved there meanwhile.
    """
    first, *others = stores()
    return [first, *others, first] if others else [first]


def is_remote() -> bool:
    """Tell if new files go over the network, to a store that may be away for a while."""
    return bool(settings.STORAGE_URL.bucket)


# -- Files; disk.py says what each function does ------------------------------------------------


def put(key: str, data: bytes) -> None:
    stores()[0].put(key, data)


def find(key: str) -> Stored | None:
    for store in in_turn():
        if found := store.find(key):
            return found
    return None


def read(key: str) -> bytes | None:
    for store in in_turn():
        data = store.read(key)
        if data is not None:
            return data
    return None


def size(key: str) -> int | None:
    """Return how many bytes a stored file has, or None if there is none. Raises Unavailable."""
    found = find(key)
    return found.size if found else None


def list_folders(folder: str) -> list[str]:
    return sorted({name for store in stores() for name in store.list_folders(folder)})


def list_files(folder: str, before: float) -> list[str]:
    return sorted({key for store in stores() for key in store.list_files(folder, before)})


def delete(key: str) -> None:
    for store in in_turn():
        store.delete(key)


def delete_folder(key: str, seconds: float = math.inf) -> bool:
    give_up_at = time.monotonic() + seconds
    left = [store.delete_folder(key, give_up_at - time.monotonic()) for store in in_turn()]
    return all(left)


def check() -> None:
    for store in stores():
        store.check()
