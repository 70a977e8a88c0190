"""Pictures: judged by decoding them, made small, freed of metadata. Knows nothing of HTTP or files.

Pillow is imported by the first picture: web processes that only list and watch do without its memory.
"""

from __future__ import annotations

import io
import warnings
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


def avatar(data: bytes) -> Picture:
    """Re-encode an upload as an avatar: upright, at most 512 x 512 pixels, nothing but the picture.

    Takes PNG, JPEG, GIF and WebP whatever their file name; small animations keep moving. Raises BadPicture.
    """
    if len(data) > AVATAR_BYTES:
        raise BadPicture("avatar_too_large")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _avatar(data)
    except BadPicture:
        raise
    except Exception:  # decoders fail on hostile bytes in a dozen ways, all of them meaning this
        raise BadPicture("picture_broken") from None


def _avatar(data: bytes) -> Picture:
    from PIL import ImageOps

    image = _open(data)
    # A phone's JPEG with a second picture inside (MPO) is still a photograph, not an animation.
    kind = "JPEG" if image.format == "MPO" else image.format
    frames = 1 if kind == "JPEG" else getattr(image, "n_frames", 1)
    if 1 < frames <= MAX_ANIMATION_FRAMES and frames * image.width * image.height <= MAX_PIXELS:
        return Picture(_animation(image, kind), EXTENSIONS[kind])
    image.draft(
        "RGB", (AVATAR_SIDE, AVATAR_SIDE)
    )  # a JPEG is then decoded at a fraction of its size
    still = _fitted(ImageOps.exif_transpose(image), AVATAR_SIDE)
    return Picture(_encoded([still], kind), EXTENSIONS[kind])


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

    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        frames.append(_fitted(frame, AVATAR_SIDE))
        durations.append(
            frame.info.get("duration", 100)
        )  # WebP knows it only once the frame is decoded
    return _encoded(frames, kind, durations, image.info.get("loop", 0))


def _encoded(
    frames: list[Image.Image], kind: str, durations: list | None = None, loop: int = 0
) -> bytes:
    options: dict = {
        "JPEG": {"quality": 88},
        "WEBP": {"quality": 85},
        "PNG": {"optimize": True},
    }.get(kind, {})
    if len(frames) > 1:
        options |= {
            "save_all": True,
            "append_images": frames[1:],
            "duration": durations,
            "loop": loop,
        }
    if kind == "GIF":
        options["disposal"] = 2
    if kind == "JPEG":
        frames = [frames[0].convert("RGB")]
    for frame in frames:
        frame.info.clear()  # what is left of EXIF, colour profiles and comments
    output = io.BytesIO()
    frames[0].save(output, format=kind, **options)
    return output.getvalue()


# What engines give that is kept as it is, and what else can be turned into a PNG.
KEPT = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}
TAKEN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
ORIENTATION = 0x0112  # in EXIF


class Generated(NamedTuple):
    """A verified picture; its thumbnail is a WebP of at most 320 x 320 pixels."""

    data: bytes
    extension: str
    width: int
    height: int
    thumbnail: bytes


def generated(data: bytes) -> Generated:
    """Verify an engine's picture by decoding it whole; a format that browsers may not show becomes PNG.

    Raises BadPicture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open(data, TAKEN)
            image.load()
            if image.format in KEPT and image.getexif().get(ORIENTATION, 1) == 1:
                return Generated(data, KEPT[image.format], *image.size, _thumbnail(image))
            return as_png(data)
    except BadPicture:
        raise
    except Exception:  # as for avatars: decoders fail in a dozen ways
        raise BadPicture("picture_broken") from None


def as_png(data: bytes) -> Generated:
    """Write a picture that was verified anew, upright and as a PNG."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(_open(data, TAKEN))
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    output = io.BytesIO()
    image.save(output, format="PNG")
    return Generated(output.getvalue(), "png", *image.size, _thumbnail(image))


def _thumbnail(image: Image.Image) -> bytes:
    return _encoded([_fitted(image, THUMBNAIL_SIDE)], "WEBP")
