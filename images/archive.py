"""Images taken out as one ZIP file, which is made while it is sent: nothing of it is kept.

Whether the caller may have an image is checked when its turn comes. What is gone by then is left
out, and the file says so at its end. If the session ends, or the database or the storage stay
away, the file breaks off: without its end no program opens it.
"""

import io
import json
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import db
import heavy
from accounts import sessions
from accounts.tokens import Session
from config import settings
from errors import ApiError
from files import metadata, storage
from images import history
from images.history import Generation
from images.schemas import MAX_ARCHIVE, ArchiveInput

# At the same time: of one account in one process, and the share of its threads for all accounts.
PER_ACCOUNT = 2
SHARE_OF_THREADS = 1 / 8
# So much is read and sent at once.
READ_BYTES = 256 * 1024
# Rows of the manifest that are read at once.
MANIFEST_ROWS = 100
MAX_NAME = 40  # characters of a prompt in the name of a file
# What a ZIP file can say.
FIRST_YEAR, LAST_YEAR = 1980, 2107
INCOMPLETE = """\
这些编号的图像未包含在内，原因见 manifest.json。
The images with these ids are not in this archive; manifest.json says why.

"""


def file_name(prompt: str, number: int | str, suffix: str, is_first: bool = False) -> str:
    """Return a name that people can read and every system takes: the words of a prompt, a number.

    It is unique if the number is.
    """
    spaced = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in prompt[:MAX_NAME])
    words = "-".join(spaced.split()) or "image"
    parts = (str(number), words) if is_first else (words, str(number))
    return "-".join(parts) + suffix


# -- Which images -------------------------------------------------------------------------------


def select(user_id: int, wanted: ArchiveInput) -> dict[str, Any]:
    """Return the ids of the images that were asked for, and of those that are not there.

    Raises ApiError if there are none or too many, and as a search of the history does.
    """
    if wanted.ids:
        asked = list(dict.fromkeys(wanted.ids))
        known = history.list_with_image(user_id, asked)
        ids = [each for each in asked if each in known]
        missing = [each for each in asked if each not in known]
    else:
        ids, missing = history.find_with_image(user_id, wanted.filters, MAX_ARCHIVE + 1), []
    if not ids:
        raise ApiError("no_image")
    if len(ids) > MAX_ARCHIVE:
        raise ApiError("archive_too_large")
    return {"ids": ids, "missing": missing, "metadata": wanted.metadata}


# -- How many at a time -------------------------------------------------------------------------

_running: Counter[int] = Counter()
_lock = threading.Lock()


@contextmanager
def _slot(user_id: int) -> Iterator[None]:
    """Hold one of the places, since each archive takes a thread as long as it is sent."""
    with _lock:
        if _running[user_id] >= PER_ACCOUNT:
            raise ApiError("too_many_archives", retry_after=30)
        if _running.total() >= max(1, int(settings.WEB_THREADS * SHARE_OF_THREADS)):
            raise heavy.Busy
        _running[user_id] += 1
    try:
        yield
    finally:
        with _lock:
            _running[user_id] -= 1
            if not _running[user_id]:
                del _running[user_id]


# -- The file -----------------------------------------------------------------------------------


class Missing(Exception):
    """An image is not there (any more), or cannot be had without its metadata."""


class Sink:
    """What zipfile writes to: it holds what was not sent yet."""

    def __init__(self):
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data


def stream(
    session: Session, selection: dict[str, Any], describe: Callable[[Generation], dict[str, Any]]
) -> Iterator[bytes]:
    """Yield the ZIP file with the selected images, and a manifest made of what `describe` returns.

    The first piece is empty: with it the archive has its place, or is refused. Raises ApiError
    then, and later if the rest cannot be sent.
    """
    with _slot(session.user_id):
        yield b""
        sink = Sink()
        with ZipFile(sink, "w") as file:
            archive = Archive(session, selection, file, sink)
            for generation_id in selection["ids"]:
                yield from archive.add_image(generation_id)
            yield from archive.add_manifest(describe)
            archive.add_warning()
        yield sink.take()


class Archive:
    """A ZIP file that is being written, and what came of the images so far."""

    def __init__(self, session: Session, selection: dict[str, Any], file: ZipFile, sink: Sink):
        self.session, self.file, self.sink = session, file, sink
        self.is_stripped = selection["metadata"] == "strip"
        self.names: dict[int, str] = {}
        self.missing = dict.fromkeys(selection["missing"], "not_found")

    def add_image(self, generation_id: int) -> Iterator[bytes]:
        try:
            generation = self.find(generation_id)
            content, piece = self.open(str(generation["image_url"]))
        except Missing as reason:
            self.missing[generation_id] = str(reason)
            return
        prompt = "" if self.is_stripped else str(generation["prompt_text"] or "")
        suffix = Path(str(generation["image_url"])).suffix.lower()
        if not re.fullmatch(r"\.[a-z0-9]{1,5}", suffix):
            suffix = ""
        name = file_name(prompt, generation_id, suffix, is_first=True)
        self.names[generation_id] = name
        with content, self.file.open(_info(name, generation["created_at"]), "w") as entry:
            while piece:
                entry.write(piece)
                yield self.sink.take()
                piece = content.read(READ_BYTES)

    def find(self, generation_id: int) -> Generation:
        """Return a generation if the session still stands and it is still the caller's."""
        found = db.retry_while_unavailable(history.get_owned, self.session, generation_id)
        if not found:
            raise Missing("not_found")
        return found

    def open(self, url: str) -> tuple[BinaryIO, bytes]:
        """Open the file of an image, and read its first piece. Raises Missing."""
        key = history.image_key(self.session.user_id, url) or ""
        content = None
        try:
            if not self.is_stripped:
                stored = storage.find(key)
                content = stored.open() if stored else None
            elif whole := storage.read(key):
                content = io.BytesIO(metadata.strip(whole))
            if content:
                return content, content.read(READ_BYTES)
        except FileNotFoundError:  # deleted since
            pass
        except ValueError:
            raise Missing("not_strippable") from None
        raise Missing("no_file")

    def add_manifest(self, describe: Callable[[Generation], dict[str, Any]]) -> Iterator[bytes]:
        """Write what is known of the images, read again, as all prompts take too much memory."""
        ids = list(self.names)
        info = _info("manifest.json", None)
        info.compress_type = ZIP_DEFLATED
        with self.file.open(info, "w") as entry:
            complete = json.dumps(not self.missing)
            entry.write(f'{{"complete": {complete}, "images": ['.encode())
            for first in range(0, len(ids), MANIFEST_ROWS):
                lines = self.lines_of(ids[first : first + MANIFEST_ROWS], describe)
                entry.write((",\n" if first else "\n").encode() + ",\n".join(lines).encode())
                yield self.sink.take()
            missing = [{"id": each, "reason": reason} for each, reason in self.missing.items()]
            entry.write(f'\n], "missing": {json.dumps(missing)}}}\n'.encode())

    def lines_of(
        self, ids: list[int], describe: Callable[[Generation], dict[str, Any]]
    ) -> list[str]:
        db.retry_while_unavailable(sessions.check, self.session)
        user_id = self.session.user_id
        rows = db.retry_while_unavailable(history.list_owned, user_id, ids)
        known = {row["id"]: describe(row) for row in rows}
        return [
            json.dumps(
                {"file": self.names[each], **known.get(each, {"id": each})}, ensure_ascii=False
            )
            for each in ids
        ]

    def add_warning(self) -> None:
        """Let an archive that lacks something not look like a complete one."""
        if self.missing:
            text = INCOMPLETE + "".join(f"{each}\n" for each in self.missing)
            self.file.writestr(_info("INCOMPLETE.txt", None), text.encode())


def _info(name: str, created_at: Any) -> ZipInfo:
    """Return the head of a file in the archive: its name and, in UTC, its time."""
    try:
        moment = datetime.fromisoformat(str(created_at))
    except ValueError:
        moment = datetime.now(UTC)
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        moment = moment.replace(year=FIRST_YEAR)
    info = ZipInfo(name, moment.timetuple()[:6])
    info.external_attr = 0o644 << 16
    return info
