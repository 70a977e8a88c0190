"""What a picture file says about itself: texts, the AI-content label China asks for, credentials. Never its pixels.

Pure functions on the bytes of PNG, JPEG and WebP files, which are taken apart and put together again, not encoded
anew. They expect files that a decoder took; one whose structure makes no sense raises ValueError.
"""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from xml.parsers import expat

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
PNG_XMP = b"XML:com.adobe.xmp"
JPEG_START = b"\xff\xd8\xff"
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# Escaped FF bytes, restarts and fill bytes start no segment.
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
MAX_TEXT_BYTES = 1024 * 1024

# What stripping leaves is listed, not what it takes: a chunk nobody has heard of may hold a prompt too.
KEPT = frozenset(("picture", "pixels", "credentials"))
PNG_ROLES = {
    **dict.fromkeys(
        b"IHDR PLTE IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD hIST pHYs".split(),
        "picture",
    ),
    **dict.fromkeys(b"acTL fcTL fdAT".split(), "picture"),
    **{b"IDAT": "pixels", b"caBX": "credentials", b"eXIf": "exif"},
}
PNG_TEXT_ROLES = {PNG_XMP: "xmp", b"AIGC": "label"}
JPEG_ROLES = (
    (b"\xe0JFIF\0", "picture"),
    (b"\xe1Exif\0", "exif"),
    (b"\xe1" + JPEG_XMP, "xmp"),
    (b"\xe2ICC_PROFILE\0", "picture"),
    (b"\xebJP", "credentials"),
    (b"\xeeAdobe", "picture"),
)
WEBP_ROLES = {
    **dict.fromkeys((b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L"), "picture"),
    **{b"C2PA": "credentials", b"EXIF": "exif", b"XMP ": "xmp"},
}
WEBP_EXIF, WEBP_XMP, WEBP_ALPHA = 0x08, 0x04, 0x10

# Each brings its own namespaces, so that it fits into any packet.
DESCRIPTION = (
    '<rdf:Description rdf:about="" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    ' xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"><TC260:AIGC>{}</TC260:AIGC></rdf:Description>'
)
PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
# Some generators write the label into EXIF's user comment, with its name around it.
EXIF_LABEL = re.compile(rb'\{\s*"AIGC"\s*:')


def with_text(data: bytes, values: Mapping[str, str]) -> bytes:
    """Write texts into a PNG, in place of those with the same keywords; return other formats as they are."""
    if not data.startswith(PNG_START):
        return data
    picture = _Png(data)
    picture.put_texts(values)
    return bytes(picture)


def with_label(data: bytes, label: Mapping[str, str]) -> bytes:
    """Write the AI-content label of GB 45438-2025 into the picture's XMP; return a labelled picture as it is."""
    picture = _opened(data)
    if picture.label() is not None:
        return data
    description = _description(label)
    packet = picture.xmp().merged(description)
    # What cannot be added to gives way, as does what leaves no room: the law wants a label that can be read.
    if packet is None or len(packet) > picture.max_xmp_bytes:
        packet = PACKET.format(description).encode()
    picture.put_xmp(packet)
    return bytes(picture)


def label_of(data: bytes) -> dict | None:
    """Return the AI-content label, whoever wrote it; None if there is none that can be read."""
    return _opened(data).label()


def stripped(data: bytes) -> bytes:
    """Remove all that may hold a prompt or say who, where and when; keep colours, credentials and the label."""
    picture = _opened(data)
    label = picture.label()
    picture.pieces = [piece for piece in picture.pieces if piece.role in KEPT]
    if label is not None:
        picture.put_xmp(PACKET.format(_description(label)).encode())
    return bytes(picture)


def has_credentials(data: bytes) -> bool:
    """Tell whether the file carries C2PA credentials; whether they hold is not looked at."""
    return _opened(data).first("credentials") is not None


def _opened(data: bytes) -> _File:
    if data.startswith(PNG_START):
        return _Png(data)
    if data.startswith(JPEG_START):
        return _Jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _Webp(data)
    raise ValueError("Not a PNG, JPEG or WebP file")


# ---------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------
class Piece(NamedTuple):
    """A chunk or segment: its role for us, what it holds, and all its bytes as they stand in the file."""

    role: str
    body: memoryview
    raw: memoryview | bytes


class _File:
    """A picture file as its pieces in order.

    What follows the end of the picture is a last piece, "tail": often the second picture of a phone's JPEG, and so
    left alone; only stripping takes it, which cannot know what it tells.
    """

    max_xmp_bytes = 2**31 - 1

    def __init__(self, data: bytes):
        self.pieces = list(self.parsed(memoryview(data)))

    def __bytes__(self) -> bytes:
        return b"".join(piece.raw for piece in self.pieces)

    def first(self, role: str) -> int | None:
        """Return the index of the first piece of that role."""
        return next((index for index, piece in enumerate(self.pieces) if piece.role == role), None)

    def text(self, role: str) -> bytes:
        """Return what the first piece of that role says, b"" without one."""
        index = self.first(role)
        return b"" if index is None else self.text_in(self.pieces[index])

    def text_in(self, piece: Piece) -> bytes:
        return bytes(piece.body)

    def xmp(self) -> _Packet:
        return _Packet(self.text("xmp"))

    def label(self) -> dict | None:
        """Return the first label that can be read, from the XMP or the places some writers use instead."""
        exif = self.text("exif")
        found = EXIF_LABEL.search(exif)
        elsewhere = [self.text("label"), exif[found.start() :] if found else b""]
        texts = [*self.xmp().labels, *(text.decode("utf-8", "replace") for text in elsewhere)]
        return next((label for label in map(_label, texts) if label is not None), None)

    def put_xmp(self, packet: bytes) -> None:
        """Write the packet in place of the first one; a proper file has no other."""
        if len(packet) > self.max_xmp_bytes:
            raise ValueError("The label is too long for this kind of file")
        old = self.first("xmp")
        if old is not None:
            del self.pieces[old]
        self.pieces.insert(self.xmp_index(), self.xmp_piece(packet))


class _Png(_File):
    """A signature, then chunks to IEND."""

    @classmethod
    def parsed(cls, view: memoryview) -> Iterator[Piece]:
        yield Piece("picture", view[:0], view[:8])
        start, kind = 8, b""
        while kind != b"IEND":
            end = start + 12 + int.from_bytes(view[start : start + 4])
            if end > len(view):
                raise ValueError("The PNG file ends early")
            kind, body = bytes(view[start + 4 : start + 8]), view[start + 8 : end - 4]
            yield Piece(cls.role(kind, body), body, view[start:end])
            start = end
        yield Piece("tail", view[:0], view[start:])

    @staticmethod
    def role(kind: bytes, body: memoryview) -> str:
        if kind in PNG_TEXTS:
            return PNG_TEXT_ROLES.get(_keyword(body), "text")
        return PNG_ROLES.get(kind, "other")

    @classmethod
    def chunk(cls, kind: bytes, *parts: bytes) -> Piece:
        body = b"".join(parts)
        raw = b"".join(
            (len(body).to_bytes(4), kind, body, zlib.crc32(body, zlib.crc32(kind)).to_bytes(4))
        )
        return Piece(cls.role(kind, memoryview(body)), memoryview(body), raw)

    def text_in(self, piece: Piece) -> bytes:
        return _png_text(bytes(piece.raw[4:8]), bytes(piece.body))

    def put_texts(self, values: Mapping[str, str]) -> None:
        chunks = [self.text_chunk(keyword.encode(), value) for keyword, value in values.items()]
        keywords = {_keyword(chunk.body) for chunk in chunks}
        self.pieces = [
            p
            for p in self.pieces
            if p.raw[4:8] not in PNG_TEXTS or _keyword(p.body) not in keywords
        ]
        index = self.xmp_index()
        self.pieces[index:index] = chunks

    def text_chunk(self, keyword: bytes, value: str) -> Piece:
        """Make the plainest chunk that holds the value: some readers know tEXt only."""
        if all(
            character == "\n" or (character.isprintable() and character <= "\xff")
            for character in value
        ):
            return self.chunk(b"tEXt", keyword, b"\0", value.encode("latin-1"))
        # PNG takes neither NUL nor half a surrogate pair; a mark in their place is better than no picture.
        return self.chunk(
            b"iTXt", keyword, b"\0\0\0\0\0", value.replace("\0", "?").encode("utf-8", "replace")
        )

    def xmp_index(self) -> int:
        index = self.first("pixels")
        if index is None:
            raise ValueError("The PNG file has no pixels")
        return index

    def xmp_piece(self, packet: bytes) -> Piece:
        return self.chunk(b"iTXt", PNG_XMP, b"\0\0\0\0\0", packet)


class _Jpeg(_File):
    """Segments from SOI to EOI; the data of a scan belongs to its SOS, bytes between segments to nothing."""

    max_xmp_bytes = 0xFFFF - 2 - len(JPEG_XMP)

    @classmethod
    def parsed(cls, view: memoryview) -> Iterator[Piece]:
        yield Piece("picture", view[:0], view[:2])
        start, kind = 2, b""
        while kind != b"\xd9":
            marker = _next_marker(view, start)
            end = _segment_end(view, marker)
            kind, body = bytes(view[marker + 1 : marker + 2]), view[marker + 4 : end]
            yield Piece(cls.role(kind, body), body, view[marker:end])
            start = end
        yield Piece("tail", view[:0], view[start:])

    @staticmethod
    def role(kind: bytes, body: memoryview) -> str:
        if b"\xc0" <= kind <= b"\xdf":
            return "picture"
        beginning = kind + bytes(body[:40])
        return next((role for start, role in JPEG_ROLES if beginning.startswith(start)), "other")

    def text_in(self, piece: Piece) -> bytes:
        return bytes(piece.body).removeprefix(JPEG_XMP)

    def xmp_index(self) -> int:
        """Return the place behind the JFIF and EXIF segments, which readers want in front."""
        index = 1
        while self.pieces[index].role == "exif" or self.pieces[index].raw[:2] == b"\xff\xe0":
            index += 1
        return index

    def xmp_piece(self, packet: bytes) -> Piece:
        body = JPEG_XMP + packet
        return Piece("xmp", memoryview(body), b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body)


class _Webp(_File):
    """Chunks in a RIFF; one in front, VP8X, says which others there are."""

    def __init__(self, data: bytes):
        super().__init__(data)
        if self.pieces[0].raw[:4] not in (b"VP8X", b"VP8 ", b"VP8L"):
            raise ValueError("The WebP file does not begin with a picture")

    @classmethod
    def parsed(cls, view: memoryview) -> Iterator[Piece]:
        start, riff_end = 12, 8 + int.from_bytes(view[4:8], "little")
        while start < riff_end:
            end = start + 8 + int.from_bytes(view[start + 4 : start + 8], "little")
            if end > min(riff_end, len(view)):
                raise ValueError("The WebP file ends early")
            yield cls.chunk(bytes(view[start : start + 4]), view[start + 8 : end])
            start = end + end % 2
        yield Piece("tail", view[:0], view[riff_end:])

    @staticmethod
    def chunk(kind: bytes, body: bytes | memoryview) -> Piece:
        raw = b"".join((kind, len(body).to_bytes(4, "little"), body, b"\0" * (len(body) % 2)))
        return Piece(WEBP_ROLES.get(kind, "other"), memoryview(body), raw)

    def __bytes__(self) -> bytes:
        chunks = [piece.raw for piece in self.under_header() if piece.role != "tail"]
        tail = [piece.raw for piece in self.pieces if piece.role == "tail"]
        size = 4 + sum(map(len, chunks))
        return b"".join((b"RIFF", size.to_bytes(4, "little"), b"WEBP", *chunks, *tail))

    def under_header(self) -> list[Piece]:
        """Return the pieces with a VP8X that is right about EXIF and XMP; without either, none is added."""
        head, *rest = self.pieces
        flags = 0 if self.first("exif") is None else WEBP_EXIF
        flags |= 0 if self.first("xmp") is None else WEBP_XMP
        if head.raw[:4] == b"VP8X":
            flags |= int.from_bytes(head.body[:1]) & ~(WEBP_EXIF | WEBP_XMP)
            return [self.chunk(b"VP8X", bytes([flags]) + head.body[1:]), *rest]
        return [self.chunk(b"VP8X", _vp8x(head, flags)), *self.pieces] if flags else self.pieces

    def xmp_index(self) -> int:
        return 1 + max(
            index for index, piece in enumerate(self.pieces) if piece.role in ("picture", "exif")
        )

    def xmp_piece(self, packet: bytes) -> Piece:
        return self.chunk(b"XMP ", packet)


def _keyword(body: memoryview) -> bytes:
    return bytes(body[:80]).partition(b"\0")[0]


def _png_text(kind: bytes, body: bytes) -> bytes:
    """Return what a chunk says past its keyword, inflated; b"" if that cannot be."""
    if kind not in PNG_TEXTS:
        return body
    rest = body.partition(b"\0")[2]
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:])
    text = rest[2:].split(b"\0", 2)[-1]
    return _inflated(text) if rest[:1] == b"\1" else text


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _next_marker(view: memoryview, start: int) -> int:
    found = JPEG_MARKER.search(view, start)
    if found is None:
        raise ValueError("The JPEG file ends early")
    return found.start()


def _segment_end(view: memoryview, marker: int) -> int:
    if view[marker + 1] == 0xD9:
        return marker + 2
    length = int.from_bytes(view[marker + 2 : marker + 4])
    end = marker + 2 + length
    if length < 2 or end > len(view):
        raise ValueError("The JPEG file has a segment of impossible length")
    return _next_marker(view, end) if view[marker + 1] == 0xDA else end


def _vp8x(picture: Piece, flags: int) -> bytes:
    """Make the header for a file that was a bare lossy or lossless picture, whose own header has its size."""
    body = picture.body
    if picture.raw[:4] == b"VP8 ":
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        flags |= WEBP_ALPHA if bits >> 28 & 1 else 0
    if not width or not height:
        raise ValueError("The WebP file has no size")
    return (
        bytes((flags, 0, 0, 0))
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )


# ---------------------------------------------------------------------------
# The label
# ---------------------------------------------------------------------------
class _Packet:
    """An XMP packet, read once: the labels in it, and where one more description fits, if it is sound XML."""

    def __init__(self, data: bytes):
        self.data = data.rstrip(b"\0")
        self.labels: list[str] = []
        self.end: int | None = None
        self._text: list[str] = []
        # Prefixes are taken as written: not every writer declares the one it uses.
        self._parser = expat.ParserCreate("UTF-8")
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.CharacterDataHandler = self._text.append
        self._parser.EndElementHandler = self._finish
        try:
            self._parser.Parse(self.data, True)
        except (expat.ExpatError, ValueError):
            self.end = None

    def merged(self, description: str) -> bytes | None:
        """Return the packet with one more description; None if it is broken, or has a label already."""
        if self.end is None or self.labels:
            return None
        return b"".join((self.data[: self.end], description.encode(), self.data[self.end :]))

    def _refuse(self, *_) -> None:
        raise ValueError("XMP has no document type; entities could grow without end")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._text.clear()
        self.labels += [value for key, value in attributes.items() if key.endswith(":AIGC")]

    def _finish(self, name: str) -> None:
        if name.endswith(":AIGC"):
            self.labels.append("".join(self._text))
        at = self._parser.CurrentByteIndex
        if name.endswith(":RDF") and self.data[at : at + 2] == b"</":
            self.end = at


def _description(label: Mapping[str, str]) -> str:
    # Quotes stay quotes, which the content of an element may have: some readers look for plain JSON in the bytes.
    return DESCRIPTION.format(
        html.escape(json.dumps(dict(label), separators=(",", ":")), quote=False)
    )


def _label(text: str) -> dict | None:
    """Return the label the JSON object stands for, with or without its name around it."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text.strip())
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and isinstance(value.get("AIGC"), dict):
        value = value["AIGC"]
    if not isinstance(value, dict) or any(
        isinstance(part, (dict, list)) for part in value.values()
    ):
        return None
    return value or None


# -- the object, until the module is rewritten --
PictureFile = _File
parse = _opened
_File.has_credentials = property(lambda self: self.first("credentials") is not None)


def _strip(self):
    label = self.label()
    self.pieces = [piece for piece in self.pieces if piece.role in KEPT]
    if label is not None:
        self.put_xmp(PACKET.format(_description(label)).encode())


def _add_label(self, label):
    if self.label() is None:
        description = _description(label)
        packet = self.xmp().merged(description)
        if packet is None or len(packet) > self.max_xmp_bytes:
            packet = PACKET.format(description).encode()
        self.put_xmp(packet)


_File.strip = _strip
_File.add_label = _add_label
_File.put_texts = lambda self, values: None
