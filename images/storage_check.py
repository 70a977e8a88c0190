"""What `flask storage check` finds, and repairs: rows without files, files without rows, and
numbers that are wrong. Safe while the service runs: what changes meanwhile is no finding.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import db
import messages
from accounts import users
from files import cleanup, metadata, pictures, storage
from images import quota, results, trash, usage

IMAGES = "generated_images/"
AVATARS = "avatars/"
# A file that is younger may still be on its way to its row.
FRESH_SECONDS = 3600
# Long enough for storing a thumbnail and noting that it is kept.
THUMBNAIL_SECONDS = 60
LOST = "image_lost"


class Finding(NamedTuple):
    """Something wrong: its kind, where, and a function that repairs it and says if it could."""

    kind: str
    where: str
    repair: Callable[[], bool]


class NothingThere(Exception):
    """There are images in the database, and no file of any of them."""


def check_folder() -> None:
    """Raise NothingThere if uploads/ is not what the rows speak of, but an empty folder."""
    if usage.has_images() and not storage.list_folders(IMAGES):
        raise NothingThere


def findings() -> Iterator[Finding]:
    elsewhere: set[str] = set()
    for table in usage.TABLES:
        for rows in usage.list_rows(table):
            for row in rows:
                elsewhere |= _files_elsewhere(row)
                yield from _wrong_row(table, row)
    for row in quota.list_wrong_counters():
        yield Finding("wrong counter", f"user {row['id']}", partial(_recount, row["id"]))
    yield from _files_without_rows(elsewhere)


# -- Rows ---------------------------------------------------------------------------------------


def _files_elsewhere(row: db.Row) -> set[str]:
    """Return the files that a row of an old program has in another folder than its user's."""
    folder = f"{IMAGES}{row['user_id']}/"
    return {key for key in trash.file_keys(row) if not key.startswith(folder)}


def _wrong_row(table: str, row: db.Row) -> Iterator[Finding]:
    image, *thumbnail = _keys(row)
    if not image:  # a URL of an old program that leads elsewhere
        return
    sizes = [storage.size(key) for key in (image, *thumbnail)]
    is_whole = None not in sizes
    if is_whole and sum(sizes) == row["file_bytes"]:
        return
    if not usage.get_row(table, row):  # deleted, restored or purged meanwhile
        return
    where = f"image {row['id']} of user {row['user_id']}"
    if sizes[0] is None:
        yield Finding("image file missing", where, partial(_mark_lost, table, row))
    elif not is_whole:
        yield Finding("thumbnail missing", where, partial(_make_thumbnail, table, row))
    else:
        yield Finding("wrong size", where, partial(_measure, table, row))


def _keys(row: db.Row) -> list[str]:
    """Return the key of the image, and that of its thumbnail if it has one of its own."""
    urls = dict.fromkeys([row["image_url"], row["thumbnail_url"] or row["image_url"]])
    return [storage.key_of(str(url)) for url in urls]


def _mark_lost(table: str, row: db.Row) -> bool:
    sentence, _ = messages.JOB_ERRORS[LOST]
    if storage.size(_keys(row)[0]) is not None:
        return True
    return usage.mark_lost(table, row, LOST, sentence)


def _make_thumbnail(table: str, row: db.Row) -> bool:
    image_key, thumbnail_key = _keys(row)
    path = storage.find(image_key)
    try:
        thumbnail = metadata.parse(pictures.check_generated(path.read_bytes()).thumbnail)
    except (pictures.BadPicture, OSError, AttributeError):
        return False
    results.add_ai_label(row, thumbnail)
    # As every file: entered for deletion until its row is seen to be there still.
    cleanup.schedule_deletion([thumbnail_key], THUMBNAIL_SECONDS)
    storage.put(thumbnail_key, thumbnail.to_bytes())
    if not usage.keep(table, row, thumbnail_key):
        return False
    return _measure(table, row)


def _measure(table: str, row: db.Row) -> bool:
    size = usage.size_of(row)
    if size is not None:
        usage.set_size(table, row, size)
    return True


def _recount(user_id: int) -> bool:
    quota.recount(user_id)
    return True


# -- Files --------------------------------------------------------------------------------------


def _files_without_rows(elsewhere: set[str]) -> Iterator[Finding]:
    before = time.time() - FRESH_SECONDS
    for name in ["", *storage.list_folders(IMAGES)]:
        folder = f"{IMAGES}{name}/" if name else IMAGES
        is_user = name.isascii() and name.isdigit() and len(name) < 10
        owned = partial(_keys_of, int(name)) if is_user else set
        list_files = partial(storage.list_files, folder, before)
        yield from _orphans(list_files, owned, elsewhere)
    yield from _orphans(partial(storage.list_files, AVATARS, before), _avatars, elsewhere)


def _orphans(
    list_files: Callable[[], list[str]], owned: Callable[[], set[str]], elsewhere: set[str]
) -> Iterator[Finding]:
    files = list_files()
    # In this order: a file leaves the list of what is to be deleted when its row has it.
    pending = cleanup.list_pending(files)
    suspected = set(files) - pending
    if suspected:
        suspected -= owned() | elsewhere
    if suspected:  # of those, some may have been deleted, with their row, only now
        suspected &= set(list_files())
        suspected -= cleanup.list_pending(sorted(suspected))
    for key in sorted(suspected):
        yield Finding("file without a row", key, partial(_delete, key))


def _keys_of(user_id: int) -> set[str]:
    return {key for row in usage.list_files_of(user_id) for key in trash.file_keys(row)}


def _avatars() -> set[str]:
    return {storage.key_of(url) for url in users.list_avatars()}


def _delete(key: str) -> bool:
    cleanup.schedule_deletion([key], after_seconds=0)
    cleanup.delete_files([key])
    return True
