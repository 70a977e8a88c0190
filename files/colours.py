"""Colours: what a profile, or a PNG's numbers in its place, make of them is turned into sRGB.

A profile that cannot be used never costs the picture: its numbers are then taken for sRGB.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

GREY = ("L", "LA")
# What a transform gives for each mode that it takes.
SRGB_MODES = {"L": "RGB", "LA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB", "LAB": "RGB"}
SRGB_GAMMA = 1 / 2.2
# Beyond these it is a mistake.
MIN_GAMMA = 0.1
MAX_GAMMA = 10
SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# As the standard H.273 numbers them: sRGB, BT.2020, DCI-P3 and Display P3; curves like sRGB's, and
# gammas. Its curves for high dynamic range have no counterpart in sRGB.
CODED_PRIMARIES = {
    1: SRGB_PRIMARIES,
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
SRGB_CURVES = (1, 6, 13, 14, 15)
CODED_GAMMAS = {**dict.fromkeys(SRGB_CURVES, SRGB_GAMMA), 4: 1 / 2.2, 5: 1 / 2.8, 8: 1.0}
# Files round the numbers, and a difference below this cannot be seen.
TOLERANCE = 0.01
# The white of profiles, and Bradford's matrix, by which other whites are adapted to it.
D50 = (0.9642, 1.0, 0.8249)
BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))

Matrix = tuple[tuple[float, ...], ...]


class Colours:
    """The colours of one picture: to_srgb() converts it, or pieces of it."""

    def __init__(self, profile: bytes):
        self.profile = profile
        # By mode. None: the profile does not fit.
        self._transforms: dict[str, Any] = {}

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """Return an image of 8 bits a channel as RGB, or as RGBA if anything in it is clear."""
        if image.mode in GREY and not self._transform(image.mode):
            image = image.convert(SRGB_MODES[image.mode])  # profiles of colours fit greys as well
        transform = self._transform(image.mode)
        if transform:
            return transform.apply(image)
        return image.convert(SRGB_MODES[image.mode])

    def _transform(self, mode: str) -> Any:
        if mode not in self._transforms:
            self._transforms[mode] = build_transform(self.profile, mode)
        return self._transforms[mode]


def build_transform(profile: bytes, mode: str) -> Any:
    from PIL import ImageCms

    if mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif profile:
        source = io.BytesIO(profile)
    else:
        return None
    try:
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, srgb, mode, SRGB_MODES[mode])
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


# -- Numbers as a profile -----------------------------------------------------------------------


def profile_of_codes(primaries: int, curve: int) -> bytes | None:
    """Return a profile for a PNG's cICP; b"" if it is sRGB, None if it has no counterpart."""
    if primaries not in CODED_PRIMARIES or curve not in CODED_GAMMAS:
        return None
    return profile_of(CODED_GAMMAS[curve], CODED_PRIMARIES[primaries])


def profile_of(gamma: float | None, primaries: tuple[float, ...] | None) -> bytes:
    """Return a profile for a PNG's gAMA and cHRM; b"" if they are those of sRGB, or no colours.

    `primaries` are x and y of white, red, green and blue.
    """
    if not gamma or not MIN_GAMMA <= gamma <= MAX_GAMMA:
        gamma = SRGB_GAMMA
    primaries = primaries or SRGB_PRIMARIES
    differences = [abs(x - y) for x, y in zip(primaries, SRGB_PRIMARIES, strict=True)]
    if max(differences) < TOLERANCE and abs(gamma - SRGB_GAMMA) < TOLERANCE:
        return b""
    try:
        return matrix_profile(gamma, primaries)
    except (ZeroDivisionError, OverflowError, struct.error):
        return b""


def matrix_profile(gamma: float, primaries: tuple[float, ...]) -> bytes:
    white, *colorants = [xyz(*primaries[at : at + 2]) for at in (0, 2, 4, 6)]
    columns = transposed(colorants)
    brightness = times(inverse(columns), white)
    # From the white of the picture to that of profiles.
    ratios = [to / of for to, of in zip(times(BRADFORD, D50), times(BRADFORD, white), strict=True)]
    to_d50 = inverse(BRADFORD)
    tags = {b"wtpt": xyz_tag(D50)}
    for name, colorant, level in zip((b"r", b"g", b"b"), colorants, brightness, strict=True):
        cone = times(BRADFORD, [level * value for value in colorant])
        adapted = times(to_d50, [ratio * value for ratio, value in zip(ratios, cone, strict=True)])
        tags[name + b"XYZ"] = xyz_tag(adapted)
        tags[name + b"TRC"] = curve_tag(gamma)
    return icc_file(tags)


def curve_tag(gamma: float) -> bytes:
    if abs(gamma - SRGB_GAMMA) > TOLERANCE:
        return b"curv" + struct.pack(">IIHH", 0, 1, round(256 / gamma), 0)
    levels = [round(65535 * linear(level / 255)) for level in range(256)]
    return b"curv" + struct.pack(">II256H", 0, 256, *levels)


def linear(level: float) -> float:
    """Return the light of a level of sRGB, both from 0 to 1."""
    return level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4


def icc_file(tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of a display, version 2, with these tags."""
    table = struct.pack(">I", len(tags))
    position = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", position, len(data))
        position += len(data)
    white = xyz_tag(D50)[8:]
    header = struct.pack(">I4xI", position, 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    header = header.ljust(68, b"\0") + white
    return header.ljust(128, b"\0") + table + b"".join(tags.values())


def xyz_tag(values: list[float] | tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *[round(value * 65536) for value in values])


def xyz(x: float, y: float) -> tuple[float, ...]:
    return x / y, 1.0, (1 - x - y) / y


def times(matrix: Matrix, vector: list[float] | tuple[float, ...]) -> list[float]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def transposed(matrix: Any) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def inverse(matrix: Matrix) -> Matrix:
    """Return the inverse of a matrix of three by three, by Cramer's rule."""
    a, b, c = transposed(matrix)
    rows = (cross(b, c), cross(c, a), cross(a, b))
    determinant = sum(x * y for x, y in zip(a, rows[0], strict=True))
    return tuple(tuple(value / determinant for value in row) for row in rows)


def cross(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
