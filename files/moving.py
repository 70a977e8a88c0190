"""Files copied from one store to the other while the service runs, and then deleted in the first.

A deletion that comes at the same time is seen: storage.delete() goes to the first store and then to
the second, and whoever copies looks afterwards if the first still has the file.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from files import storage
from files.stored import Store

# At the same time; each has one file in memory.
THREADS = 8
BATCH = 200
# So long a store that is away is waited for.
PATIENCE_SECONDS = 300
RETRY_SECONDS = 2

COPIED, PRESENT, DELETED, GONE = "copied", "present", "deleted", "gone"
DIFFERENT, MISSING, FAILED = "different", "missing", "failed"
# What somebody must look at; MISSING is what came to the old store after all was copied.
PROBLEMS = (DIFFERENT, MISSING, FAILED)

Outcomes = Iterator[tuple[str, str]]


def copy_all(source: Store, target: Store) -> Outcomes:
    """Copy each file that the target lacks; yield its key and what came of it."""
    yield from _each(source, partial(_copy, source, target))


def delete_copied(source: Store, target: Store) -> Outcomes:
    """Delete each file of the source that the target has; yield its key and what came of it."""
    yield from _each(source, partial(_delete_copied, source, target))


def _copy(source: Store, target: Store, key: str) -> str:
    data = source.read(key)
    if data is None:  # deleted meanwhile
        return GONE
    state = _compare(target, key, data)
    if state != MISSING:
        return state
    target.put(key, data)
    if not source.find(key):
        target.delete(key)
        return GONE
    if _compare(target, key, data) == PRESENT:
        return COPIED
    return FAILED if source.find(key) else GONE


def _delete_copied(source: Store, target: Store, key: str) -> str:
    data = source.read(key)
    if data is None:
        return GONE
    state = _compare(target, key, data)
    if state != PRESENT:
        return state
    source.delete(key)
    return DELETED


def _compare(store: Store, key: str, data: bytes) -> str:
    """Tell if a store has exactly these bytes; where its ETag is their hash, without reading."""
    found = store.find(key)
    if not found:
        return MISSING
    if found.size != len(data):
        return DIFFERENT
    is_hash = found.etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
    return PRESENT if is_hash or store.read(key) == data else DIFFERENT


def _each(source: Store, handle: Callable[[str], str]) -> Outcomes:
    with ThreadPoolExecutor(THREADS) as pool:
        for keys in _batches(_keys(source, "")):
            yield from zip(keys, pool.map(partial(_patiently, handle), keys), strict=True)


def _batches(keys: Iterator[str]) -> Iterator[list[str]]:
    while some := list(islice(keys, BATCH)):
        yield some


def _keys(store: Store, folder: str) -> Iterator[str]:
    yield from store.list_files(folder, math.inf)
    for name in sorted(store.list_folders(folder)):
        yield from _keys(store, f"{folder}{name}/")


def _patiently(handle: Callable[[str], str], key: str) -> str:
    """Handle a file; wait for a store that is away, and begin again."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return handle(key)
        except storage.Unavailable:
            if time.monotonic() > give_up_at:
                raise
        except (OSError, ValueError):  # a file that cannot be deleted, or whose name no store takes
            return FAILED
        time.sleep(RETRY_SECONDS)
