"""PNG files: chunks, among them texts by keyword."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from files.metadata.chunks import (
    MAX_TEXT_BYTES,
    Chunk,
    PictureFile,
    read_int,
    read_kind,
    without_body,
)
from files.metadata.label import Texts

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
READ_CHUNKS = (*TEXT_CHUNKS, b"iCCP")
CHUNK_START = struct.Struct(">I4s")
PIXEL_CHUNKS = (b"IDAT", b"fdAT")
# Readers fail on shorter ones.
MIN_BYTES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"acTL": 8, b"fcTL": 26}
XMP_KEYWORD = b"XML:com.adobe.xmp"
MAX_KEYWORD_BYTES = 80
# Of all texts together. Some readers refuse a file with more than 64 MB.
MAX_TEXTS_BYTES = 32 * 1024 * 1024
PICTURE_CHUNKS = (
    b"IHDR PLTE IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD hIST pHYs acTL fcTL fdAT"
).split()
ROLES = {
    **dict.fromkeys(PICTURE_CHUNKS, "picture"),
    b"IDAT": "pixels",
    b"caBX": "credentials",
    b"eXIf": "exif",
}
TEXT_ROLES = {
    XMP_KEYWORD: "xmp",
    b"AIGC": "label",
}


class PngFile(PictureFile):
    """A signature, and chunks up to IEND."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.xmp_index()  # raises ValueError if it has no pixels

    @classmethod
    def split(cls, view: memoryview) -> Iterator[Chunk]:
        position = len(SIGNATURE)
        yield without_body("picture", view[:position])
        kind = b""
        while kind != b"IEND":
            # A chunk consists of length, kind, body and checksum.
            if position + 12 > len(view):
                yield from cls.end_of_cut(view, position)
                return
            length, kind = CHUNK_START.unpack_from(view, position)
            body_start = position + 8
            body_end = body_start + length
            end = body_end + 4
            if end > len(view):
                yield from cls.end_of_cut(view, position)
                return
            body = view[body_start:body_end]
            role = cls.role_of(kind, body)
            yield Chunk(role, kind, body, view[position:end])
            position = end
        yield without_body("tail", view[position:])

    @staticmethod
    def end_of_cut(view: memoryview, position: int) -> Iterator[Chunk]:
        """Yield what is there of a chunk of pixels that is cut short, and an end.

        Whether lines are missing is for the decoder to say.
        """
        kind = read_kind(view, position + 4, 4)
        if kind in PIXEL_CHUNKS:
            start = position + 8
            end = start + read_int(view, position, 4)
            body = bytes(view[start:end])
            yield new_chunk(kind, body)
        yield new_chunk(b"IEND", b"")

    @staticmethod
    def role_of(kind: bytes, body: memoryview) -> str:
        if kind in TEXT_CHUNKS:
            keyword = keyword_of(body)
            return TEXT_ROLES.get(keyword, "text")
        return ROLES.get(kind, "other")

    def text(self, keyword: str) -> str:
        for chunk in self.chunks:
            if text_keyword(chunk) == keyword.encode():
                is_latin = chunk.kind != b"iTXt"
                return self.text_of(chunk).decode("latin-1" if is_latin else "utf-8", "replace")
        return ""

    def drop_unreadable(self) -> None:
        kept = []
        text_bytes = 0
        for chunk in self.chunks:
            # Once there were too many, further ones are not even looked at.
            if text_bytes > MAX_TEXTS_BYTES and chunk.kind in READ_CHUNKS:
                continue
            size = text_size(chunk)
            text_bytes += MAX_TEXT_BYTES if size is None else size
            if size is not None and size <= MAX_TEXTS_BYTES:
                kept.append(chunk)
        self.keep(kept)

    def put_texts(self, values: Texts) -> None:
        texts = []
        keywords = set()
        for keyword, value in values.items():
            chunk = text_chunk(keyword.encode(), value)
            texts.append(chunk)
            keywords.add(text_keyword(chunk))
        kept = []
        for chunk in self.chunks:
            keyword = text_keyword(chunk)
            if keyword not in keywords:
                kept.append(chunk)
        self.chunks = kept
        index = self.xmp_index()
        self.chunks[index:index] = texts
        self.mark_changed()

    def text_of(self, chunk: Chunk) -> bytes:
        return read_text(chunk.kind, bytes(chunk.body))

    def xmp_index(self) -> int:
        index = self.find("pixels")
        if index is None:
            raise ValueError("The PNG file has no pixels")
        return index

    def xmp_chunk(self, packet: bytes) -> Chunk:
        return international_text(XMP_KEYWORD, packet)


def new_chunk(kind: bytes, body: bytes) -> Chunk:
    checksum = zlib.crc32(kind + body)
    parts = (
        len(body).to_bytes(4),
        kind,
        body,
        checksum.to_bytes(4),
    )
    view = memoryview(body)
    role = PngFile.role_of(kind, view)
    raw = b"".join(parts)
    return Chunk(role, kind, view, raw)


def text_chunk(keyword: bytes, value: str) -> Chunk:
    """Return a text chunk of the simplest kind that can hold the value.

    Some readers only know tEXt, which is limited to Latin-1 without control characters.
    """
    if all(is_plain(character) for character in value):
        text = value.encode("latin-1")
        body = keyword + b"\0" + text
        return new_chunk(b"tEXt", body)
    # A text must not contain NUL or a part of a surrogate pair; "?" is written instead.
    value = value.replace("\0", "?")
    text = value.encode("utf-8", "replace")
    return international_text(keyword, text)


def is_plain(character: str) -> bool:
    if character == "\n":
        return True
    return character.isprintable() and character <= "\xff"


def international_text(keyword: bytes, text: bytes) -> Chunk:
    """Return an iTXt chunk: not compressed, without language and translated keyword."""
    body = keyword + b"\0\0\0\0\0" + text
    return new_chunk(b"iTXt", body)


def keyword_of(body: memoryview) -> bytes:
    start = bytes(body[:MAX_KEYWORD_BYTES])
    keyword, _, _ = start.partition(b"\0")
    return keyword


def text_keyword(chunk: Chunk) -> bytes | None:
    """Return the keyword of a text chunk; None for any other chunk."""
    return keyword_of(chunk.body) if chunk.kind in TEXT_CHUNKS else None


def read_text(kind: bytes, body: bytes) -> bytes:
    """Return the text in a chunk, after its keyword; b"" if it cannot be decompressed."""
    if kind not in TEXT_CHUNKS:
        return body
    _, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return decompress(rest[1:])
    is_compressed = rest.startswith(b"\1")
    # Two bytes about the compression are followed by language, translated keyword and text.
    fields = rest[2:].split(b"\0", 2)
    text = fields[-1]
    if is_compressed:
        return decompress(text)
    return text


def text_size(chunk: Chunk) -> int | None:
    """Return the size of a text or profile, 0 for other chunks; None if readers stumble over it."""
    kind = chunk.kind
    is_optional = chunk.role != "tail" and kind[:1].islower()
    if not is_optional:
        return 0
    checksum = zlib.crc32(chunk.raw[4:-4])
    if checksum != int.from_bytes(chunk.raw[-4:]):
        return None
    if kind not in READ_CHUNKS:
        is_whole = len(chunk.body) >= MIN_BYTES.get(kind, 0)
        return 0 if is_whole else None
    body = bytes(chunk.body)
    _, _, rest = body.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and not rest.startswith(b"\1")):
        return len(body)
    method = rest[1:2] if kind == b"iTXt" else rest[:1]
    text = decompress(rest[1:]) if kind == b"iCCP" else read_text(kind, body)
    is_readable = method == b"\0" and 0 < len(text) < MAX_TEXT_BYTES
    return len(text) if is_readable else None


def decompress(data: bytes, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        return decompressor.decompress(data, max_bytes)
    except zlib.error:
        return b""
