"""What a decoder is given of a file: nothing but pixels.

Texts, EXIF data, XMP and profiles are left out, so that none that cannot be read costs the picture.
Size and frames are counted before anything is decoded. All of it raises ValueError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from files import colours, metadata
from files.metadata import jpeg, png, webp
from files.metadata.chunks import MAX_CHUNKS, Chunk

Size = tuple[int, int]

PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND")
JPEG_SIZES = {bytes([0xC0 + kind]) for kind in range(16) if kind not in (4, 8, 12)}
JPEG_APP2 = b"\xe2"
JPEG_PROFILE = b"ICC_PROFILE\0"
MAX_PROFILE_BYTES = 4 * 1024 * 1024
# A header of more than these is refused; there may be more between the pixels.
MAX_HEADER_CHUNKS = 5000

GIF_SIGNATURES = (b"GIF87a", b"GIF89a")
GIF_IMAGE = 0x2C
GIF_EXTENSION = 0x21
GIF_END = 0x3B
# With the length that they must have.
GIF_CONTROLS = (b"\xf9\x04", b"\xff\x0bNETSCAPE2.0")


class Decodable(NamedTuple):
    """A file for a decoder, and what was in it beside the pixels.

    `scans` is how often a decoder goes over the pixels. `is_ended` is False if the end is missing.
    """

    kind: str
    size: Size
    data: bytes
    frames: int = 1
    scans: int = 1
    is_ended: bool = True
    profile: bytes = b""
    exif: bytes = b""


def kind_of(data: bytes) -> str:
    """Return the format of a file by its first bytes; "" for one that nobody may upload."""
    if data.startswith(GIF_SIGNATURES):
        return "GIF"
    return metadata.kind_of(data)


def read_size(data: bytes) -> Size:
    """Return what the header says, at no cost."""
    kind = kind_of(data)
    if kind == "GIF":
        return struct.unpack_from("<HH", data.ljust(10, b"\0"), 6)
    chunks = islice(metadata.FILES[kind].split(memoryview(data)), MAX_HEADER_CHUNKS)
    return size_in(kind, chunks)


def size_in(kind: str, chunks: Iterator[Chunk] | list[Chunk]) -> Size:
    for chunk in chunks:
        if chunk.kind == b"IHDR":
            return struct.unpack(">II", chunk.body[:8].tobytes().ljust(8, b"\0"))
        if kind == "JPEG" and chunk.kind in JPEG_SIZES:
            height, width = struct.unpack(">HH", chunk.body[1:5].tobytes().ljust(4, b"\0"))
            return width, height
        if kind == "WEBP":
            return webp.size_of(chunk)
    raise ValueError("The file has no size")


def prepare(data: bytes) -> Decodable:
    kind = kind_of(data)
    if kind == "GIF":
        return prepare_gif(data)
    file = metadata.parse(data)
    return {"PNG": prepare_png, "JPEG": prepare_jpeg, "WEBP": prepare_webp}[kind](file)


# -- PNG, JPEG, WebP ----------------------------------------------------------------------------


def prepare_png(file: png.PngFile) -> Decodable:
    signature, *others = file.chunks
    others = [chunk for chunk in others if len(chunk.body) >= png.MIN_BYTES.get(chunk.kind, 0)]
    first = {chunk.kind: chunk.body for chunk in reversed(others)}
    frames = sum(chunk.kind == b"fcTL" for chunk in others)
    file.chunks = [signature, *[chunk for chunk in others if chunk.kind in PNG_CHUNKS]]
    return Decodable(
        "PNG",
        size_in("PNG", file.chunks),
        file.join(),
        frames=frames or 1,
        profile=png_profile(first),
        exif=bytes(first.get(b"eXIf", b"")),
    )


def png_profile(bodies: dict[bytes, memoryview]) -> bytes:
    """Return the profile of a PNG, made of its numbers if it has no other."""
    codes = bytes(bodies.get(b"cICP", b""))
    if len(codes) == 4:
        profile = colours.profile_of_codes(*codes[:2])
        if profile is not None:
            return profile
    if b"iCCP" in bodies:
        _, _, packed = bytes(bodies[b"iCCP"]).partition(b"\0")
        profile = png.decompress(packed[1:], MAX_PROFILE_BYTES)
        if profile:
            return profile
    if b"sRGB" in bodies:
        return b""
    gamma = fixed_points(bodies.get(b"gAMA"), 1)
    primaries = fixed_points(bodies.get(b"cHRM"), 8)
    return colours.profile_of(gamma[0] if gamma else None, primaries)


def fixed_points(body: memoryview | None, count: int) -> tuple[float, ...] | None:
    if body is None or len(body) != 4 * count:
        return None
    return tuple(value / 100_000 for value in struct.unpack(f">{count}I", body))


def prepare_jpeg(file: jpeg.JpegFile) -> Decodable:
    size = size_in("JPEG", file.chunks)
    parts = [bytes(chunk.body) for chunk in file.chunks if chunk.kind == JPEG_APP2]
    # Profile parts are numbered by the byte after the header.
    parts = sorted(part[len(JPEG_PROFILE) :] for part in parts if part.startswith(JPEG_PROFILE))
    exif = file.find_text("exif")
    is_ended = file.chunks[-1].role == "tail"
    file.chunks = [
        chunk for chunk in file.chunks if chunk.role == "picture" and chunk.kind != JPEG_APP2
    ]
    scans = sum(chunk.kind == jpeg.SOS for chunk in file.chunks)
    profile = b"".join(part[2:] for part in parts)
    return Decodable(
        "JPEG", size, file.join(), scans=scans, is_ended=is_ended, profile=profile, exif=exif
    )


def prepare_webp(file: webp.WebpFile) -> Decodable:
    exif = file.find_text("exif")
    profiles = [bytes(chunk.body) for chunk in file.chunks if chunk.kind == b"ICCP"]
    frames = sum(chunk.kind == b"ANMF" for chunk in file.chunks)
    size = size_in("WEBP", file.chunks)
    file.chunks = [chunk for chunk in file.chunks if chunk.role == "picture"]
    return Decodable(
        "WEBP",
        size,
        file.join(),
        frames=frames or 1,
        profile=profiles[0] if profiles else b"",
        exif=exif,
    )


# -- GIF ----------------------------------------------------------------------------------------


def prepare_gif(data: bytes) -> Decodable:
    """Leave out comments and data of applications.

    The picture is as large as its frames reach, whatever the header says.
    """
    width, height = read_size(data)
    kept = [data[: 13 + palette_bytes(data, 10)]]
    frames = 0
    for start, end in gif_blocks(data, len(kept[0])):
        if data[start] == GIF_IMAGE:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, start + 1)
            width, height = max(width, left + frame_width), max(height, top + frame_height)
            frames += 1
        if data[start] == GIF_IMAGE or is_gif_control(data, start):
            kept.append(data[start:end])
    if not frames:
        raise ValueError("The GIF file has no picture")
    return Decodable("GIF", (width, height), b"".join([*kept, b";"]), frames=frames)


def gif_blocks(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each picture and extension; bytes between them are passed over."""
    for _ in range(MAX_CHUNKS):
        if position >= len(data) or data[position] == GIF_END:
            return
        start = position
        position = end_of_gif_block(data, start)
        if data[start] in (GIF_IMAGE, GIF_EXTENSION):
            yield start, position
    raise ValueError("The file is of too many blocks")


def end_of_gif_block(data: bytes, start: int) -> int:
    kind = data[start]
    if kind == GIF_IMAGE:
        # Behind its header stand its palette and a byte about the compression.
        return end_of_gif_data(data, start + 10 + palette_bytes(data, start + 9) + 1)
    if kind == GIF_EXTENSION:
        return end_of_gif_data(data, start + 2)
    return start + 1


def palette_bytes(data: bytes, position: int) -> int:
    flags = data[position] if position < len(data) else 0
    return 6 << (flags & 7) if flags & 0x80 else 0


def end_of_gif_data(data: bytes, position: int) -> int:
    """Return the end of pieces that begin with their length; the last has none."""
    try:
        while length := data[position]:
            position += length + 1
    except IndexError:
        raise ValueError("The GIF file ends early") from None
    return position + 1


def is_gif_control(data: bytes, start: int) -> bool:
    """Tell if an extension says how long a frame is shown, or how often all are."""
    return data.startswith(GIF_CONTROLS, start + 1)
