"""SQL of `uploads`, the pictures that an account sent to make others from, and of `upload_uses`:
which generations were made from which.

The user's row is locked before any other, so of a submit, a delete and a sweep at the same moment
each finds the upload or not.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from typing import TypedDict

import db
import heavy
from accounts import rate_limits, sessions
from accounts.tokens import Session
from errors import ApiError
from files import cleanup, storage, uploaded
from images import quota

# How long one is kept that no record uses, after the last request for it.
KEEP_SECONDS = 86400
# One that is used is looked at again after this.
LOOK_AGAIN_SECONDS = 86400
# How long a deleted one answers 410.
TOMBSTONE_SECONDS = 30 * 86400
# Long enough for storing the files and noting that they are kept.
STORE_SECONDS = 300
# What one sweep does, beside the heartbeats.
MAX_SWEPT = 100
# So many rows are looked through at once.
LOOK_ROWS = 1000
ID = re.compile("[0-9a-f]{32}")


class Upload(TypedDict):
    """A row as get() selects it. `file_bytes` counts its thumbnail as well."""

    id: str
    user_id: int
    extension: str
    width: int
    height: int
    clear_pixels: int
    picture_bytes: int
    file_bytes: int
    wanted_at: int
    deleted_at: int
    is_used: int


COLUMNS = """
    u.id, u.user_id, u.extension, u.width, u.height, u.clear_pixels, u.picture_bytes, u.file_bytes,
    u.wanted_at, u.deleted_at,
    EXISTS (SELECT 1 FROM upload_uses AS x WHERE x.upload_id = u.id) AS is_used
"""


def key_of(upload: Upload) -> str:
    return f"inputs/{upload['user_id']}/{upload['id']}.{upload['extension']}"


def thumbnail_key_of(upload: Upload) -> str:
    return f"inputs/{upload['user_id']}/{upload['id']}_thumbnail.webp"


def keys_of(upload: Upload) -> list[str]:
    return [key_of(upload), thumbnail_key_of(upload)]


# -- One upload ---------------------------------------------------------------------------------


def get(user_id: int, upload_id: str) -> Upload | None:
    """Return an upload of the user, also one that is deleted."""
    if not ID.fullmatch(upload_id):
        return None
    sql = f"SELECT {COLUMNS} FROM uploads AS u WHERE u.id = %s AND u.user_id = %s"
    return db.one(sql, upload_id, user_id)


def find(user_id: int, upload_id: str) -> Upload:
    """Return an upload of the user. Raises ApiError: 410 for a deleted one, 404 for no such."""
    upload = get(user_id, upload_id)
    if not upload:
        raise ApiError("not_found")
    if upload["deleted_at"]:
        raise ApiError("upload_deleted")
    return upload


def add(session: Session, data: bytes) -> Upload:
    """Store a picture and return the upload; the same bytes again are the same one.

    What is cheap to refuse comes first. Raises ApiError: InvalidInput for what is no picture,
    StorageFull, too many uploads, Busy.
    """
    uploaded.check(data)
    sha256 = hashlib.sha256(data).hexdigest()
    if same := _want_same(session.user_id, sha256):
        return same
    quota.refuse_full(session.user_id)
    rate_limits.uploads_of(session.user_id).hit()
    try:
        picture = heavy.uploads.run(uploaded.make, data, owner=str(session.user_id))
    finally:
        uploaded.give_back_memory()
    return _store(session, sha256, picture)


def _want_same(user_id: int, sha256: str) -> Upload | None:
    """Return the upload of the same bytes, which is kept as long as a new one would be."""
    wanted = db.execute(
        """
        UPDATE uploads
           SET wanted_at = UNIX_TIMESTAMP(), due_at = UNIX_TIMESTAMP() + %s
         WHERE user_id = %s AND sha256 = %s
        """,
        KEEP_SECONDS,
        user_id,
        sha256,
    )
    if not wanted.count:
        return None
    sql = f"SELECT {COLUMNS} FROM uploads AS u WHERE u.user_id = %s AND u.sha256 = %s"
    return db.one(sql, user_id, sha256)


def _store(session: Session, sha256: str, picture: uploaded.Uploaded) -> Upload:
    """Store the files, then record them. Raises BadToken, StorageFull and Unavailable."""
    row = {
        "id": secrets.token_hex(16),
        "user_id": session.user_id,
        "extension": picture.extension,
        "width": picture.width,
        "height": picture.height,
        "clear_pixels": picture.clear_pixels,
        "picture_bytes": len(picture.data),
        "file_bytes": len(picture.data) + len(picture.thumbnail),
    }
    keys = keys_of(row)
    cleanup.schedule_deletion(keys, STORE_SECONDS)
    try:
        storage.put(keys[0], picture.data)
        storage.put(keys[1], picture.thumbnail)
        _record(session, {**row, "sha256": sha256}, keys)
    except db.Duplicate:  # the same bytes came at the same moment
        _delete_unkept(keys)
        same = _want_same(session.user_id, sha256)
        if not same:  # and were deleted at once
            raise db.Unavailable from None
        return same
    except ApiError:
        _delete_unkept(keys)
        raise
    return find(session.user_id, row["id"])


def _delete_unkept(keys: list[str]) -> None:
    for key in keys:
        cleanup.delete_unkept(key)


@db.retried
def _record(session: Session, row: db.Row, keys: list[str]) -> None:
    with db.transaction():
        user = quota.lock_user(session.user_id)
        sessions.check(session)
        quota.refuse_too_much(user, row["file_bytes"])
        db.execute(
            """
            INSERT INTO uploads
                   (id, user_id, sha256, extension, width, height, clear_pixels, picture_bytes,
                    file_bytes, created_at, wanted_at, due_at)
            VALUES (%(id)s, %(user_id)s, %(sha256)s, %(extension)s, %(width)s, %(height)s,
                    %(clear_pixels)s, %(picture_bytes)s, %(file_bytes)s, UNIX_TIMESTAMP(),
                    UNIX_TIMESTAMP(), UNIX_TIMESTAMP() + %(seconds)s)
            """,
            seconds=KEEP_SECONDS,
            **row,
        )
        quota.add_bytes(session.user_id, row["file_bytes"])
        for key in keys:
            if not cleanup.keep(key):
                raise db.Unavailable  # this process slept so long that the file was deleted


def delete(user_id: int, upload_id: str) -> None:
    """Delete an upload of the user; what was made from it stays. Raises ApiError as find()."""
    upload = find(user_id, upload_id)
    if not _delete(upload):
        raise ApiError("upload_deleted")
    cleanup.delete_files(keys_of(upload))


# Nothing is kept for longer than this; if it seems so, the database's clock was wrong.
DUE = f"(due_at <= UNIX_TIMESTAMP() OR due_at > UNIX_TIMESTAMP() + {TOMBSTONE_SECONDS})"
UNUSED = "NOT EXISTS (SELECT 1 FROM upload_uses AS x WHERE x.upload_id = uploads.id)"


@db.retried
def _delete(upload: Upload, condition: str = "1 = 1") -> bool:
    """Delete an upload that the condition is still true of; False if there is none any more.

    The deletion of its files is scheduled for now; the caller may delete them at once.
    """
    with db.transaction():
        quota.lock_user(upload["user_id"])
        deleted = db.execute(
            f"""
            UPDATE uploads
               SET deleted_at = UNIX_TIMESTAMP(), due_at = UNIX_TIMESTAMP() + %s, sha256 = NULL,
                   file_bytes = 0
             WHERE id = %s AND deleted_at = 0 AND {condition}
            """,
            TOMBSTONE_SECONDS,
            upload["id"],
        )
        if not deleted.count:
            return False
        db.execute("DELETE FROM upload_uses WHERE upload_id = %s", upload["id"])
        quota.add_bytes(upload["user_id"], -upload["file_bytes"])
        cleanup.schedule_deletion(keys_of(upload), after_seconds=0)
    return True


# -- What uses them -----------------------------------------------------------------------------


def note_uses(user_id: int, upload_ids: set[str], generation_ids: list[int]) -> None:
    """Note that generations are made from uploads, within the transaction that inserts them."""
    if not generation_ids:
        return
    for upload_id in sorted(upload_ids):
        db.execute(
            """
            UPDATE uploads
               SET wanted_at = UNIX_TIMESTAMP(), due_at = UNIX_TIMESTAMP() + %s
             WHERE id = %s
            """,
            LOOK_AGAIN_SECONDS,
            upload_id,
        )
        for generation_id in generation_ids:
            db.insert(
                "upload_uses", user_id=user_id, upload_id=upload_id, generation_id=generation_id
            )


def forget_uses(generation_ids: list[int]) -> None:
    """Forget what generations were made from, within the transaction that deletes them for good."""
    some = db.placeholders(generation_ids)
    rows = db.all(
        f"SELECT DISTINCT upload_id FROM upload_uses WHERE generation_id IN ({some})",
        *generation_ids,
    )
    if not rows:
        return
    db.execute(f"DELETE FROM upload_uses WHERE generation_id IN ({some})", *generation_ids)
    ids = sorted(row["upload_id"] for row in rows)
    db.execute(
        f"""
        UPDATE uploads
           SET due_at = wanted_at + %s
         WHERE deleted_at = 0 AND id IN ({db.placeholders(ids)})
        """,
        KEEP_SECONDS,
        *ids,
    )


def sweep() -> None:
    """Delete what no record uses any more; any number of workers may do so at the same time.

    The files are left to the sweep of files, which knows when to give up: a store that is away
    would keep each of them waiting, and the heartbeats with them.
    """
    due = f"""
          SELECT {COLUMNS}
            FROM uploads AS u
           WHERE {DUE}
        ORDER BY u.due_at
           LIMIT {MAX_SWEPT}
    """
    for upload in db.all(due):
        if upload["deleted_at"]:
            db.execute("DELETE FROM uploads WHERE id = %s AND deleted_at > 0", upload["id"])
        elif upload["is_used"]:
            sql = "UPDATE uploads SET due_at = UNIX_TIMESTAMP() + %s WHERE id = %s"
            db.execute(sql, LOOK_AGAIN_SECONDS, upload["id"])
        else:
            _delete(upload, f"{DUE} AND {UNUSED}")


# -- What `flask storage check` asks and repairs ------------------------------------------------


def list_present() -> Iterator[Upload]:
    """List all uploads that are not deleted."""
    last = ""
    while rows := db.retry_while_unavailable(_list_after, last):
        yield from rows
        last = rows[-1]["id"]


def _list_after(last: str) -> list[Upload]:
    return db.all(
        f"""
          SELECT {COLUMNS}
            FROM uploads AS u
           WHERE u.id > %s AND u.deleted_at = 0
        ORDER BY u.id
           LIMIT {LOOK_ROWS}
        """,
        last,
    )


def is_lost(upload: Upload) -> bool:
    """Tell if a file of an upload is missing that was not deleted meanwhile."""
    if all(storage.size(key) is not None for key in keys_of(upload)):
        return False
    now = get(upload["user_id"], upload["id"])
    return bool(now and not now["deleted_at"])


def delete_lost(upload: Upload) -> bool:
    return not is_lost(upload) or _delete(upload)


def list_keys_of(user_id: int) -> set[str]:
    """Return the keys of all files that uploads of the user have."""
    sql = f"SELECT {COLUMNS} FROM uploads AS u WHERE u.user_id = %s AND u.deleted_at = 0"
    return {key for upload in db.all(sql, user_id) for key in keys_of(upload)}
