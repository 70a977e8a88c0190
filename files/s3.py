"""A store of files: a bucket of an S3-compatible object store, where keys begin with a prefix.

An object is written whole or not at all, so nothing half-written is ever left.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import S3Store

from config import Location
from files.stored import DOWNLOAD_TYPE, Stored, Unavailable, type_of

CONNECT_SECONDS = 2
# For one request; files are read by pieces, but written at once.
SECONDS = 10
PUT_SECONDS = 30
# What cannot be had is asked for again so often, if that does not take longer than this.
RETRIES = 2
RETRY_SECONDS = 5
BACKOFF = {
    "init_backoff": timedelta(milliseconds=100),
    "max_backoff": timedelta(seconds=1),
    "base": 2,
}
# A store that let somebody wait for so long in vain is left alone for a while, and then asked by
# one at a time until it answers: else all threads of this process might wait for it.
SLOW_SECONDS = 3
AWAY_SECONDS = 2
# An answer that was lost is asked for by writing again.
PUT_TRIES = 2
# So much of a file is in memory at once.
BUFFER_BYTES = 1024 * 1024
LISTED = 1000
# Names of files never change their content.
CACHE_CONTROL = "private, max-age=31536000, immutable"
# Characters of an error's first line that are logged.
MAX_CAUSE = 300


class S3:
    """One bucket, or the part of it under a prefix."""

    def __init__(self, location: Location, key_id: str = "", secret: str = ""):
        options = dict(location.options)
        if key_id:
            options |= {"access_key_id": key_id, "secret_access_key": secret}
        make = partial(
            S3Store,
            location.bucket,
            prefix=location.prefix or None,
            config=options,
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": timedelta(seconds=RETRY_SECONDS),
                "backoff": BACKOFF,
            },
        )
        is_plain = options.get("endpoint", "").startswith("http://")
        self._store = make(client_options=_client_options(SECONDS, is_plain))
        self._writer = make(client_options=_client_options(PUT_SECONDS, is_plain))
        self._mode = "create"
        self._asked = Asked()

    def put(self, key: str, data: bytes) -> None:
        for left in reversed(range(PUT_TRIES)):
            try:
                return self._put(key, data)
            except Unavailable:
                if not left:
                    raise

    def _put(self, key: str, data: bytes) -> None:
        """Write an object that is not there yet, as far as the store can check that."""
        attributes = {
            "Content-Type": type_of(key) or DOWNLOAD_TYPE,
            "Cache-Control": CACHE_CONTROL,
        }
        put = partial(obstore.put, self._writer, key, data, attributes=attributes)
        with self._asked.once():
            try:
                put(mode=self._mode, use_multipart=False)
            except AlreadyExistsError:
                if self._get(key) != data:  # else the answer to the first try was lost
                    raise
            except BaseError as error:
                if self._mode == "overwrite" or not _is_unknown(error):
                    raise
                self._mode = "overwrite"
                put(mode=self._mode, use_multipart=False)

    def find(self, key: str) -> Stored | None:
        if not _is_name(key):
            return None
        with self._asked.once():
            try:
                found = obstore.head(self._store, key)
            except (FileNotFoundError, ValueError):
                return None
        return Stored(
            key.rpartition("/")[2],
            found["size"],
            partial(self._open, key, found["size"]),
            modified=found["last_modified"],
            etag=(found["e_tag"] or "").strip('"'),
            link=partial(self._link, key),
        )

    def _open(self, key: str, size: int) -> "Reader":
        reader = obstore.open_reader(self._store, key, buffer_size=BUFFER_BYTES, size=size)
        return Reader(reader, self._asked)

    def _link(self, key: str, method: str, seconds: int) -> str:
        """Return a link by which anybody may send this one request for some seconds."""
        with _errors():  # nobody is asked
            return obstore.sign(self._store, method, key, timedelta(seconds=seconds))

    def read(self, key: str) -> bytes | None:
        if not _is_name(key):
            return None
        with self._asked.once():
            return self._get(key)

    def _get(self, key: str) -> bytes | None:
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except (FileNotFoundError, ValueError):
            return None

    def list_folders(self, folder: str) -> list[str]:
        with self._asked.once():
            found = obstore.list_with_delimiter(self._store, folder)
        return [path.rpartition("/")[2] for path in found["common_prefixes"]]

    def list_files(self, folder: str, before: float) -> list[str]:
        with self._asked.once():
            found = obstore.list_with_delimiter(self._store, folder)["objects"]
        # No file is empty; some stores show folders so.
        files = [each for each in found if each["size"]]
        return sorted(each["path"] for each in files if each["last_modified"].timestamp() < before)

    def delete(self, key: str) -> None:
        if not _is_name(key):
            return
        started = time.monotonic()
        with self._asked.once():
            self._delete(key)
        if time.monotonic() - started > SLOW_SECONDS:
            # It hung, and may write only now what it was sent before.
            raise Unavailable from OSError("a deletion was answered late")

    def _delete(self, keys: str | list[str]) -> None:
        with suppress(FileNotFoundError, ValueError):
            obstore.delete(self._store, keys)

    def delete_folder(self, key: str, seconds: float = math.inf) -> bool:
        folder = key.strip("/")
        if not _is_name(folder):
            return True
        give_up_at = time.monotonic() + seconds
        with self._asked.once():
            for some in obstore.list(self._store, folder, chunk_size=LISTED):
                if time.monotonic() > give_up_at:
                    return False
                self._delete([each["path"] for each in some])
        return True

    def check(self) -> None:
        """Ask for what is not there: keys and bucket are then right. Raises Unavailable."""
        with self._asked.once():
            obstore.list_with_delimiter(self._store, ".check")


class Asked:
    """Lets few wait for a store that does not answer; to the others it is away at once."""

    def __init__(self):
        self._away_until = 0.0

    @contextmanager
    def once(self) -> Iterator[None]:
        """Ask the store for something. Raises Unavailable."""
        started = time.monotonic()
        if self._away_until:
            if started < self._away_until:
                raise Unavailable from OSError("the store did not answer lately")
            self._away_until = started + SECONDS
        is_slow = False
        try:
            with _errors():
                yield
        except Unavailable:
            is_slow = time.monotonic() - started > SLOW_SECONDS
            raise
        finally:
            self._away_until = time.monotonic() + AWAY_SECONDS if is_slow else 0.0


class Reader:
    """An object as a file, of which a piece at a time is asked for."""

    def __init__(self, file: Any, asked: Asked):
        self._file = file
        self._asked = asked

    def read(self, size: int = -1) -> bytes:
        with self._asked.once():
            return bytes(self._file.read(None if size < 0 else size))

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _client_options(seconds: int, is_plain: bool) -> dict[str, Any]:
    return {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "allow_http": is_plain,
    }


def _is_name(key: str) -> bool:
    """Tell if a key may name an object: as on a disk, no part of it is hidden, empty or `..`."""
    return bool(key) and all(part and not part.startswith(".") for part in key.split("/"))


def _is_unknown(error: BaseError) -> bool:
    """Tell if a store says that it does not know how to write only what is not there yet."""
    return isinstance(error, NotSupportedError) or "NotImplemented" in str(error)


@contextmanager
def _errors() -> Iterator[None]:
    """Raise Unavailable for what a store or the network says, whose first line is enough to log."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        cause = str(error).partition("\n")[0][:MAX_CAUSE]
        raise Unavailable from OSError(cause)
