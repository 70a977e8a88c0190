"""Pictures for the tests, made on the spot."""

import io
import struct
import zlib

from PIL import Image

from files import metadata


def picture(
    kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB", **options
) -> bytes:
    image = Image.new(mode, size, "red" if mode in ("RGB", "RGBA", "P") else 1)
    output = io.BytesIO()
    image.save(output, format=kind, **options)
    return output.getvalue()


def animation(kind: str = "GIF", frames: int = 3, size: tuple[int, int] = (40, 30)) -> bytes:
    images = [Image.new("RGB", size, (index * 20 % 256, 90, 200)) for index in range(frames)]
    output = io.BytesIO()
    images[0].save(
        output, format=kind, save_all=True, append_images=images[1:], duration=80, loop=0
    )
    return output.getvalue()


def photo_with_gps() -> bytes:
    """Return a JPEG, 40 wide and 20 high, whose EXIF data name a quarter turn and a place."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    return picture("JPEG", (40, 20), exif=exif)


def png_bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """Return a small file that says it holds an enormous picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * 100, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# -- One change of a file's metadata ------------------------------------------------------------


def with_text(data: bytes, values: dict[str, str]) -> bytes:
    if not data.startswith(b"\x89PNG"):
        return data
    parsed = metadata.parse(data)
    parsed.put_texts(values)
    return parsed.to_bytes()


def with_label(data: bytes, label: dict[str, str]) -> bytes:
    parsed = metadata.parse(data)
    parsed.add_label(label)
    return parsed.to_bytes()


def stripped(data: bytes) -> bytes:
    parsed = metadata.parse(data)
    parsed.strip()
    return parsed.to_bytes()


def label_of(data: bytes) -> dict | None:
    return metadata.parse(data).label


def has_credentials(data: bytes) -> bool:
    return metadata.parse(data).has_credentials


# -- Chunks of a file ---------------------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png_with(data: bytes, chunks: dict[bytes, bytes]) -> bytes:
    """Put chunks behind a PNG's header."""
    added = b"".join(png_chunk(kind, body) for kind, body in chunks.items())
    return data[:33] + added + data[33:]


def jpeg_with(data: bytes, marker: int, body: bytes) -> bytes:
    """Put a segment behind a JPEG's start."""
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    return data[:2] + segment + data[2:]
