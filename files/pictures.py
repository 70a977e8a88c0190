"""Pictures: judged by decoding them, made small, freed of metadata.

Pillow is imported by the first picture: web processes that only list and watch do without its
9 MB.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from errors import ApiError

if TYPE_CHECKING:
    from PIL import Image

AVATAR_BYTES = 5 * 1024 * 1024
AVATAR_SIDE = 512
THUMBNAIL_SIDE = 320
MAX_PIXELS = 25_000_000
# An animation stays one if all its frames together are no more work than one large still picture.
MAX_ANIMATION_FRAMES = 100
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "WEBP": "webp"}


class Picture(NamedTuple):
    data: bytes
    extension: str


class BadPicture(ApiError):
    """An upload that is no picture we take; `kind` is a key of messages.FIELDS."""

    code = "invalid_input"

    def __init__(self, kind: str):
        self.kind = kind
        super().__init__(fields={"avatar": (kind, {})})


# -- Avatars ------------------------------------------------------------------------------------


def check_avatar(data: bytes) -> None:
    """Refuse what is no avatar by its size and header, without decoding it. Raises BadPicture."""
    with decoding():
        _open_avatar(data)


def make_avatar(data: bytes) -> Picture:
    """Re-encode an upload as an avatar: upright, at most 512 x 512 pixels, nothing but the picture.

    Takes PNG, JPEG, GIF and WebP whatever their file name; small animations keep moving. Raises
    BadPicture.
    """
    with decoding():
        image = _open_avatar(data)
        # A phone's JPEG with a second picture inside (MPO) is still a photograph, not an animation.
        kind = "JPEG" if image.format == "MPO" else image.format
        encode = _animation if _is_small_animation(image, kind) else _still
        return Picture(encode(image, kind), EXTENSIONS[kind])


def _open_avatar(data: bytes) -> Image.Image:
    if len(data) > AVATAR_BYTES:
        raise BadPicture("avatar_too_large")
    return _open(data)


@contextmanager
def decoding() -> Iterator[None]:
    """Turn what decoders raise for hostile bytes, in a dozen ways, into BadPicture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadPicture:
        raise
    except Exception:
        raise BadPicture("picture_broken") from None


def _is_small_animation(image: Image.Image, kind: str) -> bool:
    frames = 1 if kind == "JPEG" else getattr(image, "n_frames", 1)
    pixels = frames * image.width * image.height
    return 1 < frames <= MAX_ANIMATION_FRAMES and pixels <= MAX_PIXELS


def _still(image: Image.Image, kind: str) -> bytes:
    from PIL import ImageOps

    # A JPEG is then decoded at a fraction of its size.
    image.draft("RGB", (AVATAR_SIDE, AVATAR_SIDE))
    upright = ImageOps.exif_transpose(image)
    return _encoded([_fitted(upright, AVATAR_SIDE)], kind)


def _open(data: bytes, formats: tuple[str, ...] = tuple(EXTENSIONS)) -> Image.Image:
    """Read the header only, and refuse what should not be decoded."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except Image.UnidentifiedImageError:
        raise BadPicture("picture_format") from None
    except Image.DecompressionBombError:
        raise BadPicture("picture_pixels") from None
    if image.width * image.height > MAX_PIXELS:
        raise BadPicture("picture_pixels")
    return image


def _fitted(image: Image.Image, side: int) -> Image.Image:
    if image.mode.startswith(
        ("I", "F")
    ):  # 16 bits a channel, which convert() would cut off instead of scale
        image = image.convert("I").point(lambda level: level / 256).convert("L")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((side, side))
    return image


def _animation(image: Image.Image, kind: str) -> bytes:
    from PIL import ImageSequence

    frames = []
    durations = []
    for frame in ImageSequence.Iterator(image):
        frames.append(_fitted(frame, AVATAR_SIDE))
        # WebP knows it only once the frame is decoded.
        durations.append(frame.info.get("duration", 100))
    return _encoded(frames, kind, durations, image.info.get("loop", 0))


ENCODER_OPTIONS = {
    "JPEG": {"quality": 88},
    "WEBP": {"quality": 85},
    "PNG": {"optimize": True},
    "GIF": {"disposal": 2},
}


def _encoded(
    frames: list[Image.Image], kind: str, durations: list[int] | None = None, loop: int = 0
) -> bytes:
    options = dict(ENCODER_OPTIONS[kind])
    if len(frames) > 1:
        options["save_all"] = True
        options["append_images"] = frames[1:]
        options["duration"] = durations
        options["loop"] = loop
    if kind == "JPEG":
        frames = [frames[0].convert("RGB")]
    for frame in frames:
        frame.info.clear()  # what is left of EXIF, colour profiles and comments
    output = io.BytesIO()
    frames[0].save(output, format=kind, **options)
    return output.getvalue()


# -- Pictures from engines ----------------------------------------------------------------------

# What engines give that is kept as it is, and what else can be turned into a PNG.
KEPT = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}
TAKEN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
ORIENTATION = 0x0112  # in EXIF
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


class Generated(NamedTuple):
    """A verified picture; its thumbnail is a WebP of at most 320 x 320 pixels."""

    data: bytes
    extension: str
    width: int
    height: int
    thumbnail: bytes


def check_generated(data: bytes) -> Generated:
    """Verify an engine's picture by decoding it whole, and make its thumbnail.

    A format that browsers may not show becomes PNG. Raises BadPicture.
    """
    with decoding():
        image = _open(data, TAKEN)
        image.load()
        is_upright = image.getexif().get(ORIENTATION, 1) == 1
        if image.format in KEPT and is_upright:
            extension = KEPT[image.format]
            return Generated(data, extension, image.width, image.height, _thumbnail(image))
        return _as_png(image)


def as_png(data: bytes) -> Generated:
    """Write a picture that was verified anew, upright and as a PNG."""
    return _as_png(_open(data, TAKEN))


def _as_png(image: Image.Image) -> Generated:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode not in PNG_MODES:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    output = io.BytesIO()
    image.save(output, format="PNG")
    return Generated(output.getvalue(), "png", image.width, image.height, _thumbnail(image))


def _thumbnail(image: Image.Image) -> bytes:
    return _encoded([_fitted(image, THUMBNAIL_SIDE)], "WEBP")
