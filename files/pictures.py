"""Pictures: judged by decoding them, made small, freed of metadata.

Pillow is imported by the first picture: web processes that only list and watch do without its
9 MB.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from config import settings
from errors import ApiError
from files import decodable
from files.colours import SRGB_MODES, Colours
from files.decodable import Decodable

if TYPE_CHECKING:
    from PIL import Image

AVATAR_BYTES = 5 * 1024 * 1024
AVATAR_SIDE = 512
STORED_AVATAR_BYTES = 1_000_000
THUMBNAIL_SIDE = 320
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "WEBP": "webp"}
# A JPEG is decoded at a fraction of its size. The others take 4 bytes a pixel, WebP up to 20.
MAX_PIXELS = {"JPEG": 100_000_000, "PNG": 25_000_000, "GIF": 25_000_000, "WEBP": 12_500_000}
# A JPEG of several scans is kept whole until the last, with 2 bytes a sample.
MAX_SCANNED_SAMPLES = 75_000_000
MAX_SCANNED_PIXELS = 1_000_000_000
# An animation stays one if all its frames together have no more than these.
MAX_ANIMATION_FRAMES = 100
MAX_ANIMATION_PIXELS = 5_000_000

ENCODER_OPTIONS = {
    "JPEG": {"quality": 88},
    "WEBP": {"quality": 85},
    "PNG": {"optimize": True},
    "GIF": {"disposal": 2},
}
# Orientations of EXIF data, and the transposition of Pillow that turns each upright.
ORIENTATION = 0x0112
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
STRIP_STEPS = 64
JPEG_END = b"\xff\xd9"
# Bytes that a JPEG decoder takes for data of lines, and their complements.
LINES = bytes(167 * number % 251 + 2 for number in range(1, 1000))
INVERTED_LINES = bytes(255 - number for number in LINES)
RESTART_MARKERS = [bytes([0xFF, number]) for number in range(0xD0, 0xD8)]
# Above this the colours of a GIF are chosen by a method that is worse, and thirty times as fast.
SLOW_GIF_PIXELS = 500_000
FAST_OCTREE = 2

# What engines give that is kept as it is, and what else can be turned into a PNG.
KEPT = ("PNG", "JPEG", "WEBP")
TAKEN = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MOVING = ("GIF", "AVIF")
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


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
    if len(data) > AVATAR_BYTES:
        raise BadPicture("avatar_too_large")
    kind = decodable.kind_of(data)
    if not kind:
        raise BadPicture("picture_format")
    with decoding():
        check_pixels(decodable.read_size(data), MAX_PIXELS[kind])


def make_avatar(data: bytes) -> Picture:
    """Re-encode an upload as an avatar: upright, at most 512 x 512 pixels, nothing but the picture.

    Takes PNG, JPEG, GIF and WebP whatever their file name; small animations keep moving. Raises
    BadPicture.
    """
    check_avatar(data)
    with decoding():
        file = decodable.prepare(data)
        check_pixels(file.size, MAX_PIXELS[file.kind])
        picture = Opened(file, (file.kind,))
        check_scans(picture)
        if is_small_animation(file):
            animation = picture.animation(AVATAR_SIDE)
        else:
            animation = Animation([picture.first(AVATAR_SIDE)])
        return Picture(small_enough(animation, file.kind), EXTENSIONS[file.kind])


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


def check_pixels(size: tuple[int, int], most: int) -> None:
    if size[0] * size[1] > most:
        raise BadPicture("picture_pixels")


def check_scans(picture: Opened, max_samples: int = MAX_SCANNED_SAMPLES) -> None:
    """Refuse a JPEG whose scans take too long, or too much memory: all are kept until the last."""
    pixels = picture.file.size[0] * picture.file.size[1]
    if picture.file.scans > 1:
        blocks = [(across, down) for _, across, down, _ in picture.image.layer]
        most = max(across for across, _ in blocks) * max(down for _, down in blocks)
        samples = pixels * sum(across * down for across, down in blocks) / most
        if samples > max_samples or pixels * picture.file.scans > MAX_SCANNED_PIXELS:
            raise BadPicture("picture_pixels")


def is_small_animation(file: Decodable) -> bool:
    pixels = file.frames * file.size[0] * file.size[1]
    return 1 < file.frames <= MAX_ANIMATION_FRAMES and pixels <= MAX_ANIMATION_PIXELS


def small_enough(animation: Animation, kind: str) -> bytes:
    """Encode an avatar, smaller until it may be stored, at last as a still picture."""
    for candidate in (animation, Animation(animation.images[:1])):
        side = max(candidate.images[0].size)
        for _ in range(2):
            data = encoded(candidate.fitted(side), kind, ENCODER_OPTIONS[kind])
            if len(data) <= STORED_AVATAR_BYTES:
                return data
            side = int(side * 0.9 * (STORED_AVATAR_BYTES / len(data)) ** 0.5)
    return data


# -- Decoding -----------------------------------------------------------------------------------


class Animation(NamedTuple):
    """Images of one size. One alone is a still picture. `loop` is as the file format has it."""

    images: list[Image.Image]
    durations: Sequence[float] = ()
    loop: int | None = None

    def fitted(self, side: int) -> Animation:
        images = [image.copy() for image in self.images]
        for image in images:
            image.thumbnail((side, side))
        return self._replace(images=images)


class Opened:
    """A file of which only the header is read, with its metadata that concern the pixels."""

    def __init__(self, file: Decodable, formats: tuple[str, ...]):
        from PIL import Image

        self.file = file
        self.image = Image.open(io.BytesIO(file.data), formats=formats)
        self.colours = Colours(file.profile or self.image.info.get("icc_profile") or b"")
        # Of an animated PNG, the picture for those who cannot show the animation.
        self.start = int(getattr(self.image, "default_image", False))

    @property
    def turn(self) -> int | None:
        """How Pillow is to turn the picture upright."""
        from PIL import Image

        exif = Image.Exif()
        try:
            if self.file.exif:
                exif.load(self.file.exif)
            elif not self.file.kind:
                exif = self.image.getexif()
            return TURNS.get(exif.get(ORIENTATION))
        except Exception:
            return None

    def seek_start(self) -> None:
        if not self.file.is_ended:
            check_last_lines(self.file.data)
        self.image.seek(self.start)

    def first(self, side: int) -> Image.Image:
        """Decode the first frame, upright, at most this wide and high, in sRGB."""
        self.seek_start()
        width, height = self.image.size
        longest = max(width, height)
        # A JPEG is then decoded at a fraction of its size.
        self.image.draft(None, (width * side // longest or 1, height * side // longest or 1))
        return turned(shrunk(self.image, side, self.colours), self.turn)

    def animation(self, side: int) -> Animation:
        images = []
        durations = []
        for index in range(self.start, self.image.n_frames):
            self.image.seek(index)
            images.append(shrunk(self.image, side, self.colours))
            # WebP knows it only once the frame is decoded.
            durations.append(self.image.info.get("duration", 0))
        return Animation(images, durations, self.image.info.get("loop"))

    def as_shown(self) -> Animation:
        """Decode the picture at its full size, upright, in sRGB; small animations keep moving."""
        if self.image.format in MOVING:
            with suppress(Exception):  # of a broken animation the first frame is left
                width, height = self.image.size
                if 1 < self.image.n_frames <= MAX_PIXELS["PNG"] // (width * height):
                    animation = self.animation(max(width, height))
                    # A GIF that does not say how often is shown once.
                    return animation._replace(loop=1 if animation.loop is None else animation.loop)
        return Animation([self.whole()])

    def whole(self) -> Image.Image:
        self.seek_start()
        self.image.load()
        image = self.image
        is_plain = image.mode in PNG_MODES and "transparency" not in image.info
        if self.colours.profile or not is_plain:
            image = self.colours.to_srgb(eight_bits(image))
        return turned(image, self.turn)


def check_last_lines(data: bytes) -> None:
    """Refuse a JPEG that ends before its last line.

    Decoders make up what is missing. Other bytes at the end then change the picture.
    """
    from PIL import Image

    data = data.removesuffix(JPEG_END).rstrip(b"\xff")
    seen = set()
    for more in (b"", LINES, INVERTED_LINES):
        # A decoder that waits for a marker passes over all else.
        lines = more + b"".join(marker + more for marker in RESTART_MARKERS) if more else b""
        image = Image.open(io.BytesIO(data + lines + JPEG_END), formats=("JPEG",))
        image.draft(None, (1024, 1024))
        seen.add(sha256(image.tobytes()).digest())
    if len(seen) > 1:
        raise BadPicture("picture_broken")


def turned(image: Image.Image, turn: int | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def shrunk(image: Image.Image, side: int, colours: Colours) -> Image.Image:
    """Return a copy of at most side x side pixels in sRGB; RGBA if anything may be clear.

    A large picture is first made small strip by strip, so that it is in memory only once.
    """
    from PIL import Image

    image.load()
    factor = max(image.size) // (2 * side) or 1
    rows = factor * STRIP_STEPS
    small = None
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = eight_bits(image.crop(box)).reduce(factor)
        if small is None:
            size = (strip.width, -(-image.height // factor))
            small = Image.new(strip.mode, size)
        small.paste(strip, (0, top // factor))
    small = colours.to_srgb(small)
    small.thumbnail((side, side))
    return small


def eight_bits(image: Image.Image) -> Image.Image:
    """Return the image in a mode that Colours takes."""
    if image.mode.startswith(("I", "F")):  # convert() would cut 16 bits off instead of scale them
        return image.convert("I").point(lambda level: level / 256).convert("L")
    if image.mode in SRGB_MODES and "transparency" not in image.info:
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


# -- Encoding -----------------------------------------------------------------------------------


def encoded(animation: Animation, kind: str, options: dict[str, Any]) -> bytes:
    options = dict(options)
    images = animation.images
    if kind == "GIF" and sum(image.width * image.height for image in images) > SLOW_GIF_PIXELS:
        images = [image.quantize(method=FAST_OCTREE) for image in images]
    if kind == "JPEG":
        images = [image.convert("RGB") for image in images]
    for image in images:
        image.info.clear()  # what is left of EXIF, colour profiles and comments
    first, *others = images
    if others:
        durations = list(animation.durations)
        options |= {"save_all": True, "append_images": others, "duration": durations}
        if animation.loop is not None:
            options["loop"] = animation.loop
    output = io.BytesIO()
    first.save(output, format=kind, **options)
    return output.getvalue()


# -- Pictures from engines ----------------------------------------------------------------------


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
        picture = open_generated(data)
        kind = picture.image.format
        if kind not in KEPT or picture.turn is not None:
            return new_png(picture)
        width, height = picture.image.size
        thumbnail = thumbnail_of(picture.first(THUMBNAIL_SIDE))
        return Generated(data, EXTENSIONS[kind], width, height, thumbnail)


def as_png(data: bytes) -> Generated:
    """Write a picture that was verified anew, upright and as a PNG."""
    return new_png(open_generated(data))


def open_generated(data: bytes) -> Opened:
    from PIL import UnidentifiedImageError

    file = Decodable("", (0, 0), data)
    if decodable.kind_of(data):
        with suppress(ValueError):  # decoders forgive more
            file = decodable.prepare(data)
    check_pixels(file.size, settings.MAX_RESULT_PIXELS)
    try:
        picture = Opened(file, TAKEN)
    except UnidentifiedImageError:
        raise BadPicture("picture_format") from None
    check_pixels(picture.image.size, settings.MAX_RESULT_PIXELS)
    return picture


def new_png(picture: Opened) -> Generated:
    animation = picture.as_shown()
    image = animation.images[0]
    thumbnail = thumbnail_of(shrunk(image, THUMBNAIL_SIDE, Colours(b"")))
    return Generated(encoded(animation, "PNG", {}), "png", *image.size, thumbnail)


def thumbnail_of(image: Image.Image) -> bytes:
    return encoded(Animation([image]), "WEBP", ENCODER_OPTIONS["WEBP"])
