"""Pictures that people send to have others made from them: upright, in sRGB, 8 bits, no metadata.

A file that is so already, but for its metadata, keeps its pixels bit by bit. Any other is written
anew in its own format, a JPEG as finely as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from errors import ApiError
from files import decodable, metadata, pictures
from files.colours import Colours
from files.decodable import Decodable
from files.pictures import Animation, BadPicture, Opened
from validation import InvalidInput

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 50_000_000
# Of a JPEG of several scans 2 bytes of each sample are kept until the last: 300 MB.
MAX_SCANNED_SAMPLES = 3 * MAX_PIXELS
# What is written anew may be larger, but not by far: a few bytes can unpack to 200 MB of noise.
MAX_WRITTEN_BYTES = 2 * MAX_BYTES
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
STORED_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
# Where an IHDR, always the first chunk of a PNG, says how many bits each sample has.
PNG_DEPTH_AT = 24
CLEAR_BELOW = 128
STRIP_ROWS = 256


class Uploaded(NamedTuple):
    """A verified picture. `clear_pixels` are those more transparent than not."""

    data: bytes
    extension: str
    width: int
    height: int
    clear_pixels: int
    thumbnail: bytes


def check(data: bytes) -> None:
    """Refuse what cannot be taken by its size and header, without decoding it. Raises ApiError."""
    if len(data) > MAX_BYTES:
        raise ApiError("payload_too_large")
    with refusing():
        kind = decodable.kind_of(data)
        if kind not in EXTENSIONS:
            raise BadPicture("upload_format")
        pictures.check_pixels(decodable.read_size(data), MAX_PIXELS)


def make(data: bytes) -> Uploaded:
    """Verify a picture by decoding it whole. Raises ApiError as check(), and InvalidInput."""
    check(data)
    with refusing():
        file = decodable.prepare(data)
        pictures.check_pixels(file.size, MAX_PIXELS)
        picture = Opened(file, (file.kind,))
        if max(file.frames, getattr(picture.image, "n_frames", 1)) > 1:
            raise BadPicture("picture_animated")
        pictures.check_scans(picture, MAX_SCANNED_SAMPLES)
        return kept(picture) if is_ready(picture) else written(picture)


def give_back_memory() -> None:
    """Let the system have what a large picture took; the C library would keep 200 MB and more."""
    import ctypes  # which few processes need

    with suppress(OSError, AttributeError):  # a system without this function
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def refusing() -> Iterator[None]:
    """Name the field of the upload in what decoders and checks refuse."""
    try:
        with pictures.decoding():
            yield
    except BadPicture as error:
        raise InvalidInput(fields={"file": (error.kind, {})}) from None


def is_ready(picture: Opened) -> bool:
    """Tell if the pixels may stay as they are."""
    file, mode = picture.file, picture.image.mode
    is_deep = file.kind == "PNG" and file.data[PNG_DEPTH_AT] > 8
    is_plain = mode in STORED_MODES and not is_deep
    return is_plain and not picture.colours.profile and picture.turn is None


def kept(picture: Opened) -> Uploaded:
    file = picture.file
    # A JPEG is decoded at a fraction of its size, but for that whole.
    thumbnail = pictures.thumbnail_of(picture.first(pictures.THUMBNAIL_SIDE))
    clear_pixels = 0 if file.kind == "JPEG" else count_clear(picture.image)
    return Uploaded(file.data, EXTENSIONS[file.kind], *file.size, clear_pixels, thumbnail)


def written(picture: Opened) -> Uploaded:
    file, options = picture.file, encoder_options(picture)
    image = decoded(picture)
    clear_pixels = count_clear(image)
    thumbnail = pictures.thumbnail_of(pictures.shrunk(image, pictures.THUMBNAIL_SIDE, Colours(b"")))
    data = pictures.encoded(Animation([image]), file.kind, options)
    if len(data) > MAX_WRITTEN_BYTES:
        raise BadPicture("picture_pixels")
    return Uploaded(data, EXTENSIONS[file.kind], *image.size, clear_pixels, thumbnail)


def decoded(picture: Opened) -> Image.Image:
    """Return the whole picture as it is to be stored; `picture` is then used up."""
    colours, turn = picture.colours, picture.turn
    picture.seek_start()
    image, picture.image = picture.image, None  # or 200 MB of a large one would stay twice
    image.load()
    if colours.profile or image.mode not in STORED_MODES or "transparency" in image.info:
        image = colours.to_srgb(pictures.eight_bits(image))
    return pictures.turned(image, turn)


def encoder_options(picture: Opened) -> dict[str, Any]:
    file, image = picture.file, picture.image
    if file.kind == "PNG":
        return {"compress_level": 3}
    if file.kind == "WEBP":
        return webp_options(file)
    if image.mode not in ("L", "RGB"):
        return {"quality": 92}
    from PIL import JpegImagePlugin

    return {"qtables": image.quantization, "subsampling": JpegImagePlugin.get_sampling(image)}


def webp_options(file: Decodable) -> dict[str, Any]:
    """Return how a WebP is written as it was: without loss, or in a third of the usual time."""
    is_lossless = any(chunk.kind == b"VP8L" for chunk in metadata.parse(file.data).chunks)
    return {"lossless": True, "quality": 20, "method": 0} if is_lossless else {"quality": 90}


def count_clear(image: Image.Image) -> int:
    """Count the pixels that are more transparent than not, strip by strip."""
    if not image.has_transparency_data:
        return 0
    clear = 0
    for top in range(0, image.height, STRIP_ROWS):
        box = (0, top, image.width, min(top + STRIP_ROWS, image.height))
        alpha = image.crop(box).convert("RGBA").getchannel("A")
        clear += sum(alpha.histogram()[:CLEAR_BELOW])
    return clear
