"""A picture file as a list of chunks, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from files.metadata import exif
from files.metadata.label import Texts, XmpPacket, format_description, format_packet, parse_label

# Compressed texts, and XMP, are not read any further.
MAX_TEXT_BYTES = 1024 * 1024
# Far more than encoders write; a file of small chunks takes a microsecond and more for each.
MAX_CHUNKS = 120_000
# For what else EXIF data may hold, in characters of two bytes.
EXIF_ROOM = 500
# Some generators write the label into the user comment of the EXIF data.
EXIF_LABEL = re.compile(rb'\{\s*"AIGC"\s*:')
# An allow-list, because an unknown chunk may hold a prompt too.
ROLES_KEPT_BY_STRIP = (
    "picture",
    "pixels",
    "credentials",
)


class Chunk(NamedTuple):
    """A chunk of a PNG or WebP file, or a segment of a JPEG file.

    `kind` is its name or its marker, `body` its content, `raw` all its bytes. The role is one of

    - picture, pixels: needed to decode the picture and to show the right colours
    - credentials: C2PA Content Credentials
    - exif, xmp: metadata in these formats
    - label: a label of AI-generated content outside of exif and xmp
    - text, other: everything else
    - broken: of no use, and readers fail at it
    - tail: what follows the end of the picture
    """

    role: str
    kind: bytes
    body: memoryview
    raw: memoryview | bytes


def without_body(role: str, raw: memoryview | bytes) -> Chunk:
    """Return the signature, the end or the tail of a file as a chunk."""
    return Chunk(role, b"", memoryview(b""), raw)


def read_int(
    view: memoryview,
    position: int,
    size: int,
    byteorder: str = "big",
) -> int:
    end = position + size
    data = view[position:end]
    return int.from_bytes(data, byteorder)


def read_kind(view: memoryview, position: int, size: int) -> bytes:
    end = position + size
    return bytes(view[position:end])


class PictureFile:
    """A picture file as a list of chunks. Each subclass knows one file format.

    Bytes after the end of the picture are a last chunk with the role "tail". Phones append a
    second picture there. Only strip() removes it, because its content is unknown.
    """

    max_xmp_bytes = 2**31 - 1
    max_exif_bytes = 2**31 - 1

    def __init__(self, data: bytes):
        self.original = data
        view = memoryview(data)
        self.chunks = list(islice(self.split(view), MAX_CHUNKS + 1))
        if len(self.chunks) > MAX_CHUNKS:
            raise ValueError("The file has too many chunks")
        # Without a tail, the end of the picture was missing and was added.
        self.is_changed = self.chunks[-1].role != "tail"
        self._xmp: XmpPacket | None = None

    @property
    def has_credentials(self) -> bool:
        """Whether the file has C2PA Content Credentials. Their signature is not verified."""
        return self.find("credentials") is not None

    @property
    def label(self) -> dict | None:
        """The label of AI-generated content, whoever wrote it; None if there is no valid one."""
        for text in self.label_texts():
            label = parse_label(text)
            if label is not None:
                return label
        return None

    def text(self, keyword: str) -> str:
        """Return the text of that keyword in a PNG file, or the one of others; "" for none."""
        return exif.read_comment(self.find_text("exif"))

    def put_texts(self, values: Texts) -> None:
        """Write texts into a PNG file, and replace those with the same keywords.

        Other formats have one text without a keyword, a comment in their EXIF data. They are left
        as they are if what is there cannot be read.
        """
        [text] = values.values()
        with suppress(ValueError):
            self.put_exif(exif.put_comment(self.find_text("exif"), self.shortened(text)))

    def shortened(self, text: str) -> str:
        """Return the text as long as the format allows; its last line stays."""
        most = self.max_exif_bytes // 2 - EXIF_ROOM
        if len(text.encode("utf-16-be", "replace")) // 2 <= most:
            return text
        head, _, last = text.rpartition("\n")
        room = most - len(last.encode("utf-16-be", "replace")) // 2
        kept = head.encode("utf-16-be", "replace")[: 2 * max(0, room)]
        # Of a character that takes two units, one alone is left out.
        return f"{kept.decode('utf-16-be', 'ignore')}\n{last}"

    def put_exif(self, data: bytes) -> None:
        """Insert EXIF data in place of the first ones. Raises ValueError if they are too long."""
        if len(data) > self.max_exif_bytes:
            raise ValueError("The EXIF data is too long for this kind of file")
        old = self.find("exif")
        index = self.exif_index() if old is None else old
        self.chunks[index : index + (old is not None)] = [self.exif_chunk(data)]
        self.mark_changed()

    def drop_unreadable(self) -> None:
        """Leave out what some readers refuse a whole file for, such as a text of many MB."""

    def add_label(self, label: Texts) -> None:
        """Write the label of GB 45438-2025 into the XMP data, unless the file has a label.

        Raises ValueError if the label is too long for the file format.
        """
        if self.label is not None:
            return
        description = format_description(label)
        packet = self.xmp.with_description(description)
        # An XMP packet that is invalid, or would get too long, is replaced: the law requires a
        # label that can be read.
        is_usable = packet is not None and len(packet) <= self.max_xmp_bytes
        if not is_usable:
            packet = format_packet(description)
        self.put_xmp(packet)

    def strip(self) -> None:
        """Remove everything that may hold a prompt, or who made the picture, where and when.

        Colours, credentials and the label of AI-generated content are kept.
        """
        label = self.label
        self.keep(chunk for chunk in self.chunks if chunk.role in ROLES_KEPT_BY_STRIP)
        # Bytes between the chunks are left out too.
        self.mark_changed()
        if label is not None:
            description = format_description(label)
            packet = format_packet(description)
            self.put_xmp(packet)

    def to_bytes(self) -> bytes:
        """Return the file; the same bytes as were parsed if nothing was changed."""
        if not self.is_changed:
            return self.original
        return self.join()

    # -- What the subclasses define -----------------------------------------------------------

    @classmethod
    def split(cls, view: memoryview) -> Iterator[Chunk]:
        """Yield the chunks of a file. Raises ValueError."""
        raise NotImplementedError

    def join(self) -> bytes:
        return b"".join(chunk.raw for chunk in self.chunks)

    def text_of(self, chunk: Chunk) -> bytes:
        """Return the text in a chunk, without keyword or header."""
        return bytes(chunk.body)

    def exif_index(self) -> int:
        """Return the index at which a chunk with EXIF data is to be inserted."""
        raise NotImplementedError

    def exif_chunk(self, data: bytes) -> Chunk:
        raise NotImplementedError

    def xmp_index(self) -> int:
        """Return the index at which a chunk with XMP is to be inserted."""
        raise NotImplementedError

    def xmp_chunk(self, packet: bytes) -> Chunk:
        raise NotImplementedError

    # -- Chunks -------------------------------------------------------------------------------

    def find(self, role: str) -> int | None:
        """Return the index of the first chunk with this role."""
        for index, chunk in enumerate(self.chunks):
            if chunk.role == role:
                return index
        return None

    def find_text(self, role: str) -> bytes:
        """Return the text of the first chunk with this role; b"" if there is none."""
        index = self.find(role)
        if index is None:
            return b""
        return self.text_of(self.chunks[index])

    def keep(self, chunks: Iterable[Chunk]) -> None:
        """Leave out all chunks but these."""
        kept = list(chunks)
        if len(kept) < len(self.chunks):
            self.chunks = kept
            self.mark_changed()

    def mark_changed(self) -> None:
        self.is_changed = True
        self._xmp = None

    @property
    def xmp(self) -> XmpPacket:
        """The XMP packet; parsed when it is used for the first time."""
        if self._xmp is None:
            data = self.find_text("xmp")
            self._xmp = XmpPacket(data[:MAX_TEXT_BYTES])
        return self._xmp

    def put_xmp(self, packet: bytes) -> None:
        """Insert an XMP packet in place of the first one; a valid file has no other."""
        if len(packet) > self.max_xmp_bytes:
            raise ValueError("The label is too long for this kind of file")
        old = self.find("xmp")
        if old is not None:
            del self.chunks[old]
        index = self.xmp_index()
        chunk = self.xmp_chunk(packet)
        self.chunks.insert(index, chunk)
        self.mark_changed()

    def label_texts(self) -> Iterator[str]:
        """Yield the texts that may be a label: in the XMP data, or where some writers put it."""
        yield from self.xmp.labels
        text = self.find_text("label")
        yield text.decode("utf-8", "replace")
        data = self.find_text("exif")
        match = EXIF_LABEL.search(data)
        if match:
            start = match.start()
            text = data[start:]
            yield text.decode("utf-8", "replace")
