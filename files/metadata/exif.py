"""The user comment of EXIF data, in which JPEG and WebP files say how they were made."""

import struct
import warnings

EXIF_IFD = 0x8769
USER_COMMENT = 0x9286
UNICODE = b"UNICODE\0"
ASCII = b"ASCII\0\0\0"
# A JPEG has no room for more.
MAX_BYTES = 0xFFFF
UNDEFINED = 7
LONG = 4
# The header of TIFF in big-endian order, with the offset of the first directory.
TIFF = b"MM\0*\0\0\0\x08"
DIRECTORY = struct.Struct(">HHHLLL")  # of one entry, and no next directory


def read_comment(data: bytes) -> str:
    """Return the user comment of EXIF data without header; "" if there is none, or it is odd."""
    try:
        comment = load(data).get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
    except Exception:  # decoders raise whatever they like for hostile bytes
        return ""
    if not isinstance(comment, bytes):
        return str(comment)
    if comment.startswith(UNICODE):
        order = "utf-16-le" if data.startswith(b"II") else "utf-16-be"
        return comment[len(UNICODE) :].decode(order, "replace").rstrip("\0 ")
    return comment.removeprefix(ASCII).decode("utf-8", "replace").strip("\0 ")


def put_comment(data: bytes, text: str) -> bytes:
    """Return EXIF data without header that has this user comment beside all it had.

    It is written as AUTOMATIC1111's WebUI does, which others read. Raises ValueError if what is
    there cannot be read.
    """
    if not data:
        return new_data(UNICODE + text.encode("utf-16-be", "replace"))
    order = "utf-16-le" if data.startswith(b"II") else "utf-16-be"
    try:
        exif = load(data)
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = UNICODE + text.encode(order, "replace")
        return exif.tobytes().removeprefix(b"Exif\0\0")
    except Exception:
        raise ValueError("The EXIF data cannot be read") from None


def load(data: bytes):  # an Image.Exif of Pillow, which is imported by the first picture
    from PIL import Image

    if len(data) > MAX_BYTES:
        raise ValueError("The EXIF data is too long")
    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exif.load(data)
        exif.get_ifd(EXIF_IFD)
    return exif


def new_data(comment: bytes) -> bytes:
    inner = len(TIFF) + DIRECTORY.size
    outer = DIRECTORY.pack(1, EXIF_IFD, LONG, 1, inner, 0)
    entry = DIRECTORY.pack(1, USER_COMMENT, UNDEFINED, len(comment), inner + DIRECTORY.size, 0)
    return TIFF + outer + entry + comment
