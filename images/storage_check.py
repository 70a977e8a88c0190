"""What `flask storage check` finds, and repairs: rows without files, files without rows, and
numbers that are wrong. Safe while the service runs: what changes meanwhile is no finding.
"""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote

import db
import messages
from accounts import users
from files import cleanup, metadata, pictures, storage
from images import history, quota, results, uploads, usage

IMAGES = "generated_images/"
AVATARS = "avatars/"
INPUTS = "inputs/"
# A file that is younger may still be on its way to its row.
FRESH_SECONDS = 3600
# Long enough for storing a thumbnail and noting that it is kept.
THUMBNAIL_SECONDS = 60
LOST = "image_lost"
# Files that are asked for at a time.
THREADS = 16
# A folder of an account is named after its id.
USER_FOLDER = re.compile("-?[0-9]{1,18}")


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
    for table in usage.TABLES:
        for rows in usage.list_rows(table):
            sizes = _sizes(rows)
            for row in rows:
                yield from _wrong_row(table, row, sizes)
    for upload in uploads.list_present():
        if uploads.is_lost(upload):
            where = f"upload {upload['id']} of user {upload['user_id']}"
            yield Finding("upload file missing", where, partial(uploads.delete_lost, upload))
    for row in quota.list_wrong_counters():
        yield Finding("wrong counter", f"user {row['id']}", partial(_recount, row["id"]))
    yield from _files_without_rows()


# -- Rows ---------------------------------------------------------------------------------------


def _sizes(rows: list[db.Row]) -> dict[str, int | None]:
    """Ask for the sizes of all files of some rows: many at a time, as a bucket may be far away."""
    keys = [key for row in rows if _is_plain(row["image_url"]) for key in _keys(row)]
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(keys, pool.map(storage.size, keys), strict=True))


def _wrong_row(table: str, row: db.Row, known: dict[str, int | None]) -> Iterator[Finding]:
    if not _is_plain(row["image_url"]):
        return
    sizes = [known[key] for key in _keys(row)]
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


def _is_plain(url: str | None) -> bool:
    """Tell if a URL names a file here; those of old programs may lead elsewhere, or be encoded."""
    key = storage.key_of(str(url or ""))
    return 0 < len(key) < storage.MAX_KEY_LENGTH and not re.search("[%?#]", key)


def _keys(row: db.Row) -> list[str]:
    """Return the key of the image, and that of its thumbnail if it has one of its own."""
    urls = dict.fromkeys([row["image_url"], row["thumbnail_url"]])
    return [storage.key_of(str(url)) for url in urls if _is_plain(url)]


def _mark_lost(table: str, row: db.Row) -> bool:
    sentence, _ = messages.JOB_ERRORS[LOST]
    if storage.size(_keys(row)[0]) is not None:
        return True
    return usage.mark_lost(table, row, LOST, sentence)


def _make_thumbnail(table: str, row: db.Row) -> bool:
    image_key, thumbnail_key = _keys(row)
    if not history.image_key(row["user_id"], str(row["thumbnail_url"])):
        return False  # not in the user's folder
    image = storage.read(image_key)
    try:
        thumbnail = metadata.parse(pictures.check_generated(image or b"").thumbnail)
    except (pictures.BadPicture, OSError):
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


def _files_without_rows() -> Iterator[Finding]:
    before = time.time() - FRESH_SECONDS
    odd_names = {name for row in usage.list_odd_rows() for name in _names(row)}
    for name in ["", *storage.list_folders(IMAGES)]:
        folder = f"{IMAGES}{name}/" if name else IMAGES
        user_id = int(name) if USER_FOLDER.fullmatch(name) else None
        owned = partial(_keys_of, user_id, folder) if user_id is not None else set
        for key in _orphans(partial(storage.list_files, folder, before), owned):
            if key.rpartition("/")[2] not in odd_names and not _is_leaving(folder, user_id):
                yield Finding("file without a row", key, partial(_delete, key))
    for name in storage.list_folders(INPUTS):
        folder = f"{INPUTS}{name}/"
        user_id = int(name) if USER_FOLDER.fullmatch(name) else None
        owned = partial(uploads.list_keys_of, user_id) if user_id is not None else set
        for key in _orphans(partial(storage.list_files, folder, before), owned):
            if not _is_leaving(folder, user_id):
                yield Finding("file without a row", key, partial(_delete, key))
    for key in _orphans(partial(storage.list_files, AVATARS, before), _avatars):
        yield Finding("file without a row", key, partial(_delete, key))


def _names(row: db.Row) -> Iterator[str]:
    """Yield the names that the files of a row may have, however an old program wrote its URLs."""
    for url in filter(None, (row["image_url"], row["thumbnail_url"])):
        name = str(url).rpartition("/")[2]
        yield name
        yield unquote(re.split("[?#]", name)[0])


def _is_leaving(folder: str, user_id: int | None) -> bool:
    """Tell if all of the folder is to be deleted, because its account was."""
    return (user_id is not None and users.is_deleted(user_id)) or bool(
        cleanup.list_pending([folder])
    )


def _orphans(list_files: Callable[[], list[str]], owned: Callable[[], set[str]]) -> list[str]:
    files = list_files()
    # In this order: a file leaves the list of what is to be deleted when its row has it.
    pending = cleanup.list_pending(files)
    suspected = set(files) - pending
    if suspected:
        suspected -= owned()
    if suspected:  # of those, some may have been deleted, with their row, only now
        # In this order: a file is gone when it leaves the list.
        suspected -= cleanup.list_pending(sorted(suspected))
        suspected &= set(list_files())
    return sorted(suspected)


def _keys_of(user_id: int, folder: str) -> set[str]:
    return {folder + name for row in usage.list_files_of(user_id) for name in _names(row)}


def _avatars() -> set[str]:
    return {storage.key_of(url) for url in users.list_avatars()}


def _delete(key: str) -> bool:
    if len(key) > storage.MAX_KEY_LENGTH:  # of no program of ours
        return False
    cleanup.schedule_deletion([key], after_seconds=0)
    cleanup.delete_files([key])
    return True
