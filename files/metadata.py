"""The metadata of PNG, JPEG and WebP files: texts, credentials, the label of AI-generated content.

parse() takes a file apart into chunks, once. The PictureFile that it returns can be asked and
changed, and is put together again by to_bytes(). Pixels are neither decoded nor encoded. Files
should have been decoded before; one with an invalid structure raises ValueError.
"""

from __future__ import annotations

import html
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple
from xml.parsers import expat

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
PNG_READ_CHUNKS = (*PNG_TEXT_CHUNKS, b"iCCP")
PNG_CHUNK_START = struct.Struct(">I4s")
PNG_PIXEL_CHUNKS = (b"IDAT", b"fdAT")
# Readers fail on shorter ones.
PNG_MIN_BYTES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}
PNG_XMP_KEYWORD = b"XML:com.adobe.xmp"
MAX_KEYWORD_BYTES = 80
JPEG_SIGNATURE = b"\xff\xd8\xff"
JPEG_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_EOI = b"\xd9"
JPEG_SOS = b"\xda"
# The start of a segment. Not escaped FF bytes, restart markers and fill bytes.
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
MAX_JPEG_SEGMENT_BYTES = 0xFFFF - 2
MAX_HEADER_BYTES = 40
WEBP_PICTURE_CHUNKS = (b"VP8X", b"VP8 ", b"VP8L")
WEBP_ALPHA = 0x10
WEBP_EXIF = 0x08
WEBP_XMP = 0x04
WEBP_OTHER_FLAGS = 0xFF - WEBP_EXIF - WEBP_XMP
# Texts by keyword, and the fields of a label by name.
Texts = Mapping[str, str]
# Compressed texts, and XMP, are not read any further.
MAX_TEXT_BYTES = 1024 * 1024
# Of all texts together. Some readers refuse a file with more than 64 MB.
MAX_TEXTS_BYTES = 32 * 1024 * 1024
# Far more than encoders write; a file of small chunks takes a microsecond and more for each.
MAX_CHUNKS = 120_000

# The role of each kind of chunk:
#   picture, pixels: needed to decode the picture and to show the right colours
#   credentials: C2PA Content Credentials
#   exif, xmp: metadata in these formats
#   label: a label of AI-generated content outside of exif and xmp
#   text, other: everything else
PNG_ROLES = {
    b"IHDR": "picture",
    b"PLTE": "picture",
    b"IDAT": "pixels",
    b"IEND": "picture",
    b"tRNS": "picture",
    b"cHRM": "picture",
    b"gAMA": "picture",
    b"iCCP": "picture",
    b"sBIT": "picture",
    b"sRGB": "picture",
    b"cICP": "picture",
    b"mDCV": "picture",
    b"cLLI": "picture",
    b"bKGD": "picture",
    b"hIST": "picture",
    b"pHYs": "picture",
    b"acTL": "picture",
    b"fcTL": "picture",
    b"fdAT": "picture",
    b"caBX": "credentials",
    b"eXIf": "exif",
}
PNG_TEXT_ROLES = {
    PNG_XMP_KEYWORD: "xmp",
    b"AIGC": "label",
}
# By the marker of a segment and the first bytes in it.
JPEG_ROLES = {
    b"\xe0JFIF\0": "picture",
    b"\xe1Exif\0": "exif",
    b"\xe1" + JPEG_XMP_HEADER: "xmp",
    b"\xe2ICC_PROFILE\0": "picture",
    b"\xebJP": "credentials",
    b"\xeeAdobe": "picture",
}
# Decoders fail on shorter ones. With the byte of the marker.
MIN_JPEG_BYTES = {
    b"\xe0JFIF\0": 15,
    b"\xeeAdobe": 13,
}
WEBP_ROLES = {
    b"VP8X": "picture",
    b"VP8 ": "picture",
    b"VP8L": "picture",
    b"ICCP": "picture",
    b"ANIM": "picture",
    b"ANMF": "picture",
    b"ALPH": "picture",
    b"C2PA": "credentials",
    b"EXIF": "exif",
    b"XMP ": "xmp",
}
# An allow-list, because an unknown chunk may hold a prompt too.
ROLES_KEPT_BY_STRIP = (
    "picture",
    "pixels",
    "credentials",
)

# It declares its namespaces itself, so that it can be inserted into any packet.
XMP_DESCRIPTION = (
    '<rdf:Description rdf:about="" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    ' xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"><TC260:AIGC>{}</TC260:AIGC>'
    "</rdf:Description>"
)
XMP_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{}</rdf:RDF>'
    '</x:xmpmeta><?xpacket end="w"?>'
)
# Some generators write the label into the user comment of the EXIF data.
EXIF_LABEL = re.compile(rb'\{\s*"AIGC"\s*:')


def parse(data: bytes) -> PictureFile:
    """Take a picture file apart. Raises ValueError if it is not a valid PNG, JPEG or WebP file."""
    if data.startswith(PNG_SIGNATURE):
        return PngFile(data)
    if data.startswith(JPEG_SIGNATURE):
        return JpegFile(data)
    is_riff = data.startswith(b"RIFF")
    if is_riff and data[8:12] == b"WEBP":
        return WebpFile(data)
    raise ValueError("Not a PNG, JPEG or WebP file")


# -- Picture files ------------------------------------------------------------------------------


class Chunk(NamedTuple):
    """A chunk of a PNG or WebP file, or a segment of a JPEG file.

    `body` is its content, `raw` all its bytes in the file.
    """

    role: str
    body: memoryview
    raw: memoryview | bytes


NO_BODY = memoryview(b"")


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

    def has_text(self, keyword: str) -> bool:
        return False

    def text(self, keyword: str) -> str:
        """Return the text of that keyword in a PNG file; "" if there is none."""
        return ""

    def put_texts(self, values: Texts) -> None:
        """Write texts into a PNG file, and replace those with the same keywords.

        Other formats have no such texts and are left as they are.
        """

    def drop_unreadable(self) -> None:
        """Leave out what some readers refuse a whole PNG file for, such as a text of many MB."""

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
        self.chunks = [chunk for chunk in self.chunks if chunk.role in ROLES_KEPT_BY_STRIP]
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
        exif = self.find_text("exif")
        match = EXIF_LABEL.search(exif)
        if match:
            start = match.start()
            text = exif[start:]
            yield text.decode("utf-8", "replace")


# -- PNG ----------------------------------------------------------------------------------------


class PngFile(PictureFile):
    """A signature, and chunks up to IEND."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.xmp_index()  # raises ValueError if it has no pixels

    @classmethod
    def split(cls, view: memoryview) -> Iterator[Chunk]:
        position = len(PNG_SIGNATURE)
        yield Chunk("picture", NO_BODY, view[:position])
        kind = b""
        while kind != b"IEND":
            # A chunk consists of length, kind, body and checksum.
            if position + 12 > len(view):
                yield from cls.end_of_cut(view, position)
                return
            length, kind = PNG_CHUNK_START.unpack_from(view, position)
            body_start = position + 8
            body_end = body_start + length
            end = body_end + 4
            if end > len(view):
                yield from cls.end_of_cut(view, position)
                return
            body = view[body_start:body_end]
            role = cls.role_of(kind, body)
            yield Chunk(role, body, view[position:end])
            position = end
        yield Chunk("tail", NO_BODY, view[position:])

    @staticmethod
    def end_of_cut(view: memoryview, position: int) -> Iterator[Chunk]:
        """Yield what is there of a chunk of pixels that is cut short, and an end.

        Whether lines are missing is for the decoder to say.
        """
        kind = read_kind(view, position + 4, 4)
        if kind in PNG_PIXEL_CHUNKS:
            start = position + 8
            end = start + read_int(view, position, 4)
            body = bytes(view[start:end])
            yield png_chunk(kind, body)
        yield png_chunk(b"IEND", b"")

    @staticmethod
    def role_of(kind: bytes, body: memoryview) -> str:
        if kind in PNG_TEXT_CHUNKS:
            keyword = png_keyword(body)
            return PNG_TEXT_ROLES.get(keyword, "text")
        return PNG_ROLES.get(kind, "other")

    def has_text(self, keyword: str) -> bool:
        return any(png_text_keyword(chunk) == keyword.encode() for chunk in self.chunks)

    def text(self, keyword: str) -> str:
        for chunk in self.chunks:
            if png_text_keyword(chunk) == keyword.encode():
                is_latin = read_kind(chunk.raw, 4, 4) != b"iTXt"
                return self.text_of(chunk).decode("latin-1" if is_latin else "utf-8", "replace")
        return ""

    def drop_unreadable(self) -> None:
        kept = []
        text_bytes = 0
        for chunk in self.chunks:
            # Once there were too many, further ones are not even looked at.
            kind = read_kind(chunk.raw, 4, 4)
            if text_bytes > MAX_TEXTS_BYTES and kind in PNG_READ_CHUNKS:
                continue
            size = png_text_size(chunk)
            text_bytes += MAX_TEXT_BYTES if size is None else size
            if size is not None and size <= MAX_TEXTS_BYTES:
                kept.append(chunk)
        if len(kept) < len(self.chunks):
            self.chunks = kept
            self.mark_changed()

    def put_texts(self, values: Texts) -> None:
        texts = []
        keywords = set()
        for keyword, value in values.items():
            chunk = png_text_chunk(keyword.encode(), value)
            texts.append(chunk)
            keywords.add(png_text_keyword(chunk))
        kept = []
        for chunk in self.chunks:
            keyword = png_text_keyword(chunk)
            if keyword not in keywords:
                kept.append(chunk)
        self.chunks = kept
        index = self.xmp_index()
        self.chunks[index:index] = texts
        self.mark_changed()

    def text_of(self, chunk: Chunk) -> bytes:
        kind = read_kind(chunk.raw, 4, 4)
        body = bytes(chunk.body)
        return read_png_text(kind, body)

    def xmp_index(self) -> int:
        index = self.find("pixels")
        if index is None:
            raise ValueError("The PNG file has no pixels")
        return index

    def xmp_chunk(self, packet: bytes) -> Chunk:
        return png_international_text(PNG_XMP_KEYWORD, packet)


def png_chunk(kind: bytes, body: bytes) -> Chunk:
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
    return Chunk(role, view, raw)


def png_text_chunk(keyword: bytes, value: str) -> Chunk:
    """Return a text chunk of the simplest kind that can hold the value.

    Some readers only know tEXt, which is limited to Latin-1 without control characters.
    """
    if all(is_plain(character) for character in value):
        text = value.encode("latin-1")
        body = keyword + b"\0" + text
        return png_chunk(b"tEXt", body)
    # A text must not contain NUL or a part of a surrogate pair; "?" is written instead.
    value = value.replace("\0", "?")
    text = value.encode("utf-8", "replace")
    return png_international_text(keyword, text)


def is_plain(character: str) -> bool:
    if character == "\n":
        return True
    return character.isprintable() and character <= "\xff"


def png_international_text(keyword: bytes, text: bytes) -> Chunk:
    """Return an iTXt chunk: not compressed, without language and translated keyword."""
    body = keyword + b"\0\0\0\0\0" + text
    return png_chunk(b"iTXt", body)


def png_keyword(body: memoryview) -> bytes:
    start = bytes(body[:MAX_KEYWORD_BYTES])
    keyword, _, _ = start.partition(b"\0")
    return keyword


def png_text_keyword(chunk: Chunk) -> bytes | None:
    """Return the keyword of a text chunk; None for any other chunk."""
    kind = read_kind(chunk.raw, 4, 4)
    if kind not in PNG_TEXT_CHUNKS:
        return None
    return png_keyword(chunk.body)


def read_png_text(kind: bytes, body: bytes) -> bytes:
    """Return the text in a chunk, after its keyword; b"" if it cannot be decompressed."""
    if kind not in PNG_TEXT_CHUNKS:
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


def png_text_size(chunk: Chunk) -> int | None:
    """Return the size of a text or profile, 0 for other chunks; None if readers stumble over it."""
    kind = read_kind(chunk.raw, 4, 4)
    is_optional = chunk.role != "tail" and kind[:1].islower()
    if not is_optional:
        return 0
    checksum = zlib.crc32(chunk.raw[4:-4])
    if checksum != int.from_bytes(chunk.raw[-4:]):
        return None
    if kind not in PNG_READ_CHUNKS:
        is_whole = len(chunk.body) >= PNG_MIN_BYTES.get(kind, 0)
        return 0 if is_whole else None
    body = bytes(chunk.body)
    _, _, rest = body.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and not rest.startswith(b"\1")):
        return len(body)
    method = rest[1:2] if kind == b"iTXt" else rest[:1]
    text = decompress(rest[1:]) if kind == b"iCCP" else read_png_text(kind, body)
    is_readable = method == b"\0" and 0 < len(text) < MAX_TEXT_BYTES
    return len(text) if is_readable else None


def decompress(data: bytes, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        return decompressor.decompress(data, max_bytes)
    except zlib.error:
        return b""


# -- JPEG ---------------------------------------------------------------------------------------


class JpegFile(PictureFile):
    """Segments from SOI to EOI.

    The data of a scan is part of its SOS segment. Bytes between segments are left out.
    """

    max_xmp_bytes = MAX_JPEG_SEGMENT_BYTES - len(JPEG_XMP_HEADER)

    @classmethod
    def split(cls, view: memoryview) -> Iterator[Chunk]:
        position = 2
        yield Chunk("picture", NO_BODY, view[:position])
        kind = b""
        while kind != JPEG_EOI:
            if kind == JPEG_SOS and position == len(view):
                # Some writers leave out the end. Whether lines are missing is for the decoder.
                yield JPEG_END
                return
            # A segment consists of marker, kind, length and body.
            start = find_marker(view, position)
            end = segment_end(view, start)
            kind = read_kind(view, start + 1, 1)
            body_start = start + 4
            body = view[body_start:end]
            role = cls.role_of(kind, body)
            yield Chunk(role, body, view[start:end])
            position = end
        yield Chunk("tail", NO_BODY, view[position:])

    @staticmethod
    def role_of(kind: bytes, body: memoryview) -> str:
        if b"\xc0" <= kind <= b"\xdf":
            return "picture"
        beginning = kind + bytes(body[:MAX_HEADER_BYTES])
        for start, role in JPEG_ROLES.items():
            if beginning.startswith(start):
                is_whole = len(beginning) >= MIN_JPEG_BYTES.get(start, 0)
                return role if is_whole else "other"
        return "other"

    def text_of(self, chunk: Chunk) -> bytes:
        text = bytes(chunk.body)
        return text.removeprefix(JPEG_XMP_HEADER)

    def xmp_index(self) -> int:
        """Return the index after JFIF and EXIF, which some readers expect at the start."""
        index = 1
        while is_jfif_or_exif(self.chunks[index]):
            index += 1
        return index

    def xmp_chunk(self, packet: bytes) -> Chunk:
        body = JPEG_XMP_HEADER + packet
        length = len(body) + 2
        parts = (
            b"\xff\xe1",
            length.to_bytes(2),
            body,
        )
        raw = b"".join(parts)
        return Chunk("xmp", memoryview(body), raw)


# The data of a scan may stop within the marker of the end.
JPEG_END = Chunk("picture", NO_BODY, b"\xff" + JPEG_EOI)


def is_jfif_or_exif(chunk: Chunk) -> bool:
    if chunk.role == "exif":
        return True
    return chunk.raw[:2] == b"\xff\xe0"


def find_marker(view: memoryview, start: int) -> int:
    """Return the position of the next segment. Raises ValueError if there is none."""
    found = JPEG_MARKER.search(view, start)
    if found is None:
        raise ValueError("The JPEG file ends early")
    return found.start()


def segment_end(view: memoryview, start: int) -> int:
    """Return the end of the segment that starts at this position."""
    kind = read_kind(view, start + 1, 1)
    length_start = start + 2
    if kind == JPEG_EOI:
        return length_start
    length = read_int(view, length_start, 2)
    end = length_start + length
    if length < 2 or end > len(view):
        raise ValueError("The JPEG file has a segment of impossible length")
    if kind == JPEG_SOS:
        return scan_end(view, end)
    return end


def scan_end(view: memoryview, start: int) -> int:
    """Return the end of the data of a scan: the next segment, or the end of the file."""
    found = JPEG_MARKER.search(view, start)
    return found.start() if found else len(view)


# -- WebP ---------------------------------------------------------------------------------------


class WebpFile(PictureFile):
    """A RIFF file of chunks. The first may be VP8X, with flags for the kinds of other chunks."""

    def __init__(self, data: bytes):
        super().__init__(data)
        first = self.chunks[0]
        kind = first.raw[:4]
        if kind not in WEBP_PICTURE_CHUNKS:
            raise ValueError("The WebP file does not begin with a picture")

    @classmethod
    def split(cls, view: memoryview) -> Iterator[Chunk]:
        riff_end = 8 + read_int(view, 4, 4, "little")
        max_end = min(riff_end, len(view))
        position = 12
        while position < riff_end:
            # A chunk consists of kind, length and body.
            kind = read_kind(view, position, 4)
            length = read_int(view, position + 4, 4, "little")
            body_start = position + 8
            end = body_start + length
            if end > max_end:
                raise ValueError("The WebP file ends early")
            body = view[body_start:end]
            yield webp_chunk(kind, body)
            # A body of odd length is followed by a padding byte.
            padding = end % 2
            position = end + padding
        yield Chunk("tail", NO_BODY, view[riff_end:])

    def join(self) -> bytes:
        content = [b"WEBP"]
        tail = []
        for chunk in self.chunks_with_header():
            parts = tail if chunk.role == "tail" else content
            parts.append(chunk.raw)
        size = sum(map(len, content))
        parts = (
            b"RIFF",
            size.to_bytes(4, "little"),
            *content,
            *tail,
        )
        return b"".join(parts)

    def chunks_with_header(self) -> list[Chunk]:
        """Return the chunks with a VP8X header whose flags match them, if they need one."""
        flags = 0
        if self.find("exif") is not None:
            flags |= WEBP_EXIF
        if self.find("xmp") is not None:
            flags |= WEBP_XMP
        first, *others = self.chunks
        if first.raw[:4] == b"VP8X":
            old_flags = read_int(first.body, 0, 1)
            flags |= old_flags & WEBP_OTHER_FLAGS
            rest = first.body[1:]
            body = bytes([flags]) + rest
            return [webp_chunk(b"VP8X", body), *others]
        if not flags:
            return self.chunks
        body = vp8x_body(first, flags)
        return [webp_chunk(b"VP8X", body), *self.chunks]

    def xmp_index(self) -> int:
        """Return the index after the picture and the EXIF data."""
        last = 0
        for index, chunk in enumerate(self.chunks):
            if chunk.role in ("picture", "exif"):
                last = index
        return last + 1

    def xmp_chunk(self, packet: bytes) -> Chunk:
        return webp_chunk(b"XMP ", packet)


def webp_chunk(kind: bytes, body: bytes | memoryview) -> Chunk:
    length = len(body)
    is_odd = length % 2
    padding = b"\0" * is_odd
    parts = (
        kind,
        length.to_bytes(4, "little"),
        body,
        padding,
    )
    role = WEBP_ROLES.get(kind, "other")
    raw = b"".join(parts)
    return Chunk(role, memoryview(body), raw)


def vp8x_body(picture: Chunk, flags: int) -> bytes:
    """Return the VP8X header of a file that has none, by the header of its lossy or lossless data.

    Raises ValueError if that has no size.
    """
    if picture.raw[:4] == b"VP8L":
        has_alpha = read_int(picture.body, 4, 1) >> 4 & 1
        if has_alpha:
            flags |= WEBP_ALPHA
    width, height = webp_size(picture)
    parts = (
        flags.to_bytes(4, "little"),
        (width - 1).to_bytes(3, "little"),
        (height - 1).to_bytes(3, "little"),
    )
    return b"".join(parts)


def webp_size(first: Chunk) -> tuple[int, int]:
    """Return width and height by the first chunk. Raises ValueError if it does not say them."""
    body = first.body
    kind = first.raw[:4]
    if kind == b"VP8X":
        return read_int(body, 4, 3, "little") + 1, read_int(body, 7, 3, "little") + 1
    if kind == b"VP8L":
        bits = read_int(body, 1, 4, "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width = read_int(body, 6, 2, "little") & 0x3FFF
    height = read_int(body, 8, 2, "little") & 0x3FFF
    if not width or not height:
        raise ValueError("The WebP file has no size")
    return width, height


# -- XMP and the label --------------------------------------------------------------------------


class XmpPacket:
    """An XMP packet: the texts in it that may be a label, and where a description can be added.

    The namespace prefixes are not resolved: some writers do not declare those that they use.
    """

    def __init__(self, data: bytes):
        self.data = data.rstrip(b"\0")
        self.labels: list[str] = []
        # The position before the end tag of rdf:RDF; None if there is none or the XML is invalid.
        self.insert_at: int | None = None
        self._texts: list[str] = []
        parser = expat.ParserCreate("UTF-8")
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start_element
        parser.CharacterDataHandler = self._texts.append
        parser.EndElementHandler = self._end_element
        self._parser = parser
        try:
            parser.Parse(self.data, True)
        except (expat.ExpatError, ValueError):
            self.insert_at = None

    def with_description(self, description: str) -> bytes | None:
        """Return the packet with one more description; None if it is invalid or has a label."""
        if self.insert_at is None or self.labels:
            return None
        position = self.insert_at
        parts = (
            self.data[:position],
            description.encode(),
            self.data[position:],
        )
        return b"".join(parts)

    def _refuse_doctype(self, *_) -> None:
        # Nested entities could expand to any size ("billion laughs").
        raise ValueError("XMP has no document type")

    def _start_element(self, name: str, attributes: dict) -> None:
        self._texts.clear()
        for key, value in attributes.items():
            if key.endswith(":AIGC"):
                self.labels.append(value)

    def _end_element(self, name: str) -> None:
        if name.endswith(":AIGC"):
            text = "".join(self._texts)
            self.labels.append(text)
        position = self._parser.CurrentByteIndex
        # Not for an empty element, which has no end tag: <rdf:RDF/>
        is_end_tag = self.data.startswith(b"</", position)
        if is_end_tag and name.endswith(":RDF"):
            self.insert_at = position


def format_description(label: Texts) -> str:
    """Return the XMP description for a label."""
    separators = (",", ":")
    text = json.dumps(dict(label), separators=separators)
    # In the content of an element quotes need not be escaped, and some readers search the file
    # for plain JSON.
    text = html.escape(text, quote=False)
    return XMP_DESCRIPTION.format(text)


def format_packet(description: str) -> bytes:
    """Return an XMP packet with this description only."""
    packet = XMP_PACKET.format(description)
    return packet.encode()


def parse_label(text: str) -> dict | None:
    """Return the label in a JSON text, which may be {"AIGC": label}; None if it is not valid."""
    decoder = json.JSONDecoder()
    text = text.strip()
    try:
        label, _ = decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(label, dict):
        return None
    inner = label.get("AIGC")
    if isinstance(inner, dict):
        label = inner
    for value in label.values():
        is_nested = isinstance(value, (dict, list))
        if is_nested:
            return None
    return label or None
