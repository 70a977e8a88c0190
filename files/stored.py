"""What the stores of files share: `disk` and `s3` have the same functions, and these words."""

from collections.abc import Callable
from datetime import datetime
from os.path import splitext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from errors import ApiError

# The only types served for display; whatever else is stored is offered as a download.
IMAGE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
DOWNLOAD_TYPE = "application/octet-stream"


class Unavailable(ApiError):
    """Files cannot be had now: the disk is full, read-only, away, or the store does not answer."""

    code = "storage_unavailable"

    def __init__(self):
        super().__init__(retry_after=30)


class Stored(NamedTuple):
    """A stored file. `path` is None where it is not on this machine; then the store says the rest.

    `open` raises FileNotFoundError if it was deleted since, and Unavailable; so does reading.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]
    path: Path | None = None
    modified: datetime | None = None
    etag: str = ""
    link: Callable[[str, int], str] | None = None


class Store(Protocol):
    """What a store can do; `disk` says what each function does."""

    put: Callable[[str, bytes], None]
    find: Callable[[str], Stored | None]
    read: Callable[[str], bytes | None]
    list_folders: Callable[[str], list[str]]
    list_files: Callable[[str, float], list[str]]
    delete: Callable[[str], None]
    delete_folder: Callable[..., bool]
    check: Callable[[], Any]


def suffix(name: str) -> str:
    return splitext(name)[1]


def type_of(name: str) -> str | None:
    """Return the type of an image by its name; None for what is no image."""
    return IMAGE_TYPES.get(suffix(name).lower())
