"""The metadata of PNG, JPEG and WebP files: texts, credentials, the label of AI-generated content.

parse() takes a file apart into chunks, once. The PictureFile that it returns can be asked and
changed, and is put together again by to_bytes(). Pixels are neither decoded nor encoded. Files
should have been decoded before; one with an invalid structure raises ValueError.
"""

from files.metadata import jpeg, png, webp
from files.metadata.chunks import PictureFile

__all__ = ["PictureFile", "kind_of", "parse", "strip"]

FILES = {"PNG": png.PngFile, "JPEG": jpeg.JpegFile, "WEBP": webp.WebpFile}


def kind_of(data: bytes) -> str:
    """Return the format of a file by its first bytes; "" for any other."""
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if data.startswith(jpeg.SIGNATURE):
        return "JPEG"
    is_webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    return "WEBP" if is_webp else ""


def parse(data: bytes) -> PictureFile:
    """Take a picture file apart. Raises ValueError if it is not a valid PNG, JPEG or WebP file."""
    kind = kind_of(data)
    if not kind:
        raise ValueError("Not a PNG, JPEG or WebP file")
    return FILES[kind](data)


def strip(data: bytes) -> bytes:
    """Return a picture that says nothing of how it was made, but for its AI label.

    Raises ValueError as parse() does.
    """
    picture = parse(data)
    picture.strip()
    return picture.to_bytes()
