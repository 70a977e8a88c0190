"""JPEG files: segments, and the data of their scans."""

from __future__ import annotations

import re
from collections.abc import Iterator

from files.metadata.chunks import Chunk, PictureFile, read_int, read_kind, without_body

SIGNATURE = b"\xff\xd8\xff"
EXIF_HEADER = b"Exif\0\0"
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
EOI = b"\xd9"
SOS = b"\xda"
# The start of a segment. Not escaped FF bytes, restart markers and fill bytes.
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
MAX_SEGMENT_BYTES = 0xFFFF - 2
MAX_HEADER_BYTES = 40
# By the marker of a segment and the first bytes in it.
ROLES = {
    b"\xe0JFIF\0": "picture",
    b"\xe1Exif\0": "exif",
    b"\xe1" + XMP_HEADER: "xmp",
    b"\xe2ICC_PROFILE\0": "picture",
    b"\xebJP": "credentials",
    b"\xeeAdobe": "picture",
}
# Decoders fail on shorter ones. With the byte of the marker.
MIN_BYTES = {
    b"\xe0JFIF\0": 15,
    b"\xeeAdobe": 13,
}


class JpegFile(PictureFile):
    """Segments from SOI to EOI.

    The data of a scan is part of its SOS segment. Bytes between segments are left out.
    """

    max_xmp_bytes = MAX_SEGMENT_BYTES - len(XMP_HEADER)
    max_exif_bytes = MAX_SEGMENT_BYTES - len(EXIF_HEADER)

    @classmethod
    def split(cls, view: memoryview) -> Iterator[Chunk]:
        position = 2
        yield without_body("picture", view[:position])
        kind = b""
        while kind != EOI:
            if kind == SOS and position == len(view):
                # Some writers leave out the end. Whether lines are missing is for the decoder.
                yield END
                return
            # A segment consists of marker, kind, length and body.
            start = find_marker(view, position)
            end = segment_end(view, start)
            kind = read_kind(view, start + 1, 1)
            body_start = start + 4
            body = view[body_start:end]
            role = cls.role_of(kind, body)
            yield Chunk(role, kind, body, view[start:end])
            position = end
        yield without_body("tail", view[position:])

    @staticmethod
    def role_of(kind: bytes, body: memoryview) -> str:
        if b"\xc0" <= kind <= b"\xdf":
            return "picture"
        beginning = kind + bytes(body[:MAX_HEADER_BYTES])
        for start, role in ROLES.items():
            if beginning.startswith(start):
                is_whole = len(beginning) >= MIN_BYTES.get(start, 0)
                return role if is_whole else "broken"
        return "other"

    def drop_unreadable(self) -> None:
        self.keep(chunk for chunk in self.chunks if chunk.role != "broken")

    def text_of(self, chunk: Chunk) -> bytes:
        text = bytes(chunk.body)
        return text.removeprefix(XMP_HEADER).removeprefix(EXIF_HEADER)

    def exif_index(self) -> int:
        """Return the index after JFIF, which stands first."""
        return 2 if self.chunks[1].kind == b"\xe0" else 1

    def exif_chunk(self, data: bytes) -> Chunk:
        return application_segment("exif", EXIF_HEADER + data)

    def xmp_index(self) -> int:
        """Return the index after JFIF and EXIF, which some readers expect at the start."""
        index = 1
        while is_jfif_or_exif(self.chunks[index]):
            index += 1
        return index

    def xmp_chunk(self, packet: bytes) -> Chunk:
        return application_segment("xmp", XMP_HEADER + packet)


def application_segment(role: str, body: bytes) -> Chunk:
    length = len(body) + 2
    raw = b"".join((b"\xff\xe1", length.to_bytes(2), body))
    return Chunk(role, b"\xe1", memoryview(body), raw)


# The data of a scan may stop within the marker of the end.
END = without_body("picture", b"\xff" + EOI)


def is_jfif_or_exif(chunk: Chunk) -> bool:
    return chunk.role == "exif" or chunk.kind == b"\xe0"


def find_marker(view: memoryview, start: int) -> int:
    """Return the position of the next segment. Raises ValueError if there is none."""
    found = MARKER.search(view, start)
    if found is None:
        raise ValueError("The JPEG file ends early")
    return found.start()


def segment_end(view: memoryview, start: int) -> int:
    """Return the end of the segment that starts at this position."""
    kind = read_kind(view, start + 1, 1)
    length_start = start + 2
    if kind == EOI:
        return length_start
    length = read_int(view, length_start, 2)
    end = length_start + length
    if length < 2 or end > len(view):
        raise ValueError("The JPEG file has a segment of impossible length")
    if kind == SOS:
        return scan_end(view, end)
    return end


def scan_end(view: memoryview, start: int) -> int:
    """Return the end of the data of a scan: the next segment, or the end of the file."""
    found = MARKER.search(view, start)
    return found.start() if found else len(view)
