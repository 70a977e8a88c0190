"""WebP files: chunks of a RIFF file, with a header that says which there are."""

from __future__ import annotations

from collections.abc import Iterator

from files.metadata.chunks import Chunk, PictureFile, read_int, read_kind, without_body

PICTURE_CHUNKS = (b"VP8X", b"VP8 ", b"VP8L")
ALPHA_FLAG = 0x10
EXIF_FLAG = 0x08
XMP_FLAG = 0x04
OTHER_FLAGS = 0xFF - EXIF_FLAG - XMP_FLAG
ROLES = {
    **dict.fromkeys((*PICTURE_CHUNKS, b"ICCP", b"ANIM", b"ANMF", b"ALPH"), "picture"),
    b"C2PA": "credentials",
    b"EXIF": "exif",
    b"XMP ": "xmp",
}


class WebpFile(PictureFile):
    """A RIFF file of chunks. The first may be VP8X, with flags for the kinds of other chunks."""

    def __init__(self, data: bytes):
        super().__init__(data)
        if self.chunks[0].kind not in PICTURE_CHUNKS:
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
            yield new_chunk(kind, body)
            # A body of odd length is followed by a padding byte.
            padding = end % 2
            position = end + padding
        yield without_body("tail", view[riff_end:])

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
            flags |= EXIF_FLAG
        if self.find("xmp") is not None:
            flags |= XMP_FLAG
        first, *others = self.chunks
        if first.kind == b"VP8X":
            old_flags = read_int(first.body, 0, 1)
            flags |= old_flags & OTHER_FLAGS
            rest = first.body[1:]
            body = bytes([flags]) + rest
            return [new_chunk(b"VP8X", body), *others]
        if not flags:
            return self.chunks
        body = vp8x_body(first, flags)
        return [new_chunk(b"VP8X", body), *self.chunks]

    def text_of(self, chunk: Chunk) -> bytes:
        # Some writers have the header of a JPEG file there.
        return bytes(chunk.body).removeprefix(b"Exif\0\0")

    def exif_index(self) -> int:
        """Return the index after the picture."""
        return 1 + max(n for n, chunk in enumerate(self.chunks) if chunk.role == "picture")

    def exif_chunk(self, data: bytes) -> Chunk:
        return new_chunk(b"EXIF", data)

    def xmp_index(self) -> int:
        """Return the index after the picture and the EXIF data."""
        last = 0
        for index, chunk in enumerate(self.chunks):
            if chunk.role in ("picture", "exif"):
                last = index
        return last + 1

    def xmp_chunk(self, packet: bytes) -> Chunk:
        return new_chunk(b"XMP ", packet)


def new_chunk(kind: bytes, body: bytes | memoryview) -> Chunk:
    length = len(body)
    is_odd = length % 2
    padding = b"\0" * is_odd
    parts = (
        kind,
        length.to_bytes(4, "little"),
        body,
        padding,
    )
    role = ROLES.get(kind, "other")
    raw = b"".join(parts)
    return Chunk(role, kind, memoryview(body), raw)


def vp8x_body(picture: Chunk, flags: int) -> bytes:
    """Return the VP8X header of a file that has none, by the header of its lossy or lossless data.

    Raises ValueError if that has no size.
    """
    if picture.kind == b"VP8L":
        has_alpha = read_int(picture.body, 4, 1) >> 4 & 1
        if has_alpha:
            flags |= ALPHA_FLAG
    width, height = size_of(picture)
    parts = (
        flags.to_bytes(4, "little"),
        (width - 1).to_bytes(3, "little"),
        (height - 1).to_bytes(3, "little"),
    )
    return b"".join(parts)


def size_of(first: Chunk) -> tuple[int, int]:
    """Return width and height by the first chunk. Raises ValueError if it does not say them."""
    body = first.body
    if first.kind == b"VP8X":
        return read_int(body, 4, 3, "little") + 1, read_int(body, 7, 3, "little") + 1
    if first.kind == b"VP8L":
        bits = read_int(body, 1, 4, "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width = read_int(body, 6, 2, "little") & 0x3FFF
    height = read_int(body, 8, 2, "little") & 0x3FFF
    if not width or not height:
        raise ValueError("The WebP file has no size")
    return width, height
