"""Colours of other profiles become sRGB, and no profile costs the picture."""

import io
import struct

import pytest
from PIL import Image

from files import colours, pictures
from tests.pictures import opened, png_with

P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
DISPLAY_P3 = colours.matrix_profile(1 / 2.2, P3)
IN_P3 = (224, 150, 123)
IN_SRGB = (237, 147, 118)


def saved(kind: str, colour=IN_P3, mode: str = "RGB", size=(64, 64), **options) -> bytes:
    output = io.BytesIO()
    Image.new(mode, size, colour).save(output, format=kind, **options)
    return output.getvalue()


def is_close(pixel: tuple, expected: tuple, by: int = 5) -> bool:
    return all(abs(one - other) <= by for one, other in zip(pixel, expected, strict=True))


def shown(data: bytes, size=(5, 5)) -> tuple:
    image = opened(data)
    assert "icc_profile" not in image.info
    return image.convert("RGB").getpixel(size)


def of_kind(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """Return a profile for another colour space than RGB."""
    profile = colours.icc_file({b"wtpt": colours.xyz_tag(colours.D50), **tags})
    return profile[:12] + b"prtr" + space + pcs + profile[24:]


def linear_grey() -> bytes:
    return of_kind(b"GRAY", {b"kTRC": b"curv" + bytes(8)})


def inks() -> bytes:
    """Return a profile of inks that are all grey: only black and cyan darken the paper."""
    table = bytearray()
    for inks in range(16):
        cyan, black = inks >> 3, inks & 1
        table += bytes([0 if black else 60 if cyan else 255, 128, 128])
    identity = bytes(range(256))
    body = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    body += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    return of_kind(b"CMYK", {b"A2B0": body + identity * 4 + table + identity * 3}, b"Lab ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_avatars_and_thumbnails_are_in_srgb(kind):
    data = saved(kind, icc_profile=DISPLAY_P3)

    generated = pictures.check_generated(data)

    assert is_close(shown(pictures.make_avatar(data).data), IN_SRGB)
    assert is_close(shown(generated.thumbnail), IN_SRGB)
    assert opened(generated.data).info["icc_profile"] == DISPLAY_P3  # its bytes are kept


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_and_moving_pictures_are_converted_too(kind):
    clear = saved(kind, (*IN_P3, 128), "RGBA", icc_profile=DISPLAY_P3)
    others = [Image.new("RGB", (64, 64), (0, 0, shade)) for shade in (1, 99)]
    moving = saved(kind, icc_profile=DISPLAY_P3, save_all=True, append_images=others)

    assert opened(pictures.make_avatar(clear).data).getpixel((5, 5))[3] == 128
    assert is_close(shown(pictures.make_avatar(clear).data), IN_SRGB)
    assert is_close(shown(pictures.make_avatar(moving).data), IN_SRGB)


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_what_becomes_png_becomes_srgb(kind):
    options = {"quality": 100} if kind == "AVIF" else {}

    generated = pictures.check_generated(saved(kind, icc_profile=DISPLAY_P3, **options))

    assert is_close(shown(generated.data), IN_SRGB)
    assert is_close(shown(generated.thumbnail), IN_SRGB)


def test_a_large_picture_is_converted():
    data = saved("PNG", size=(3000, 1300), icc_profile=DISPLAY_P3)

    assert is_close(shown(pictures.make_avatar(data).data), IN_SRGB)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_with_a_grey_profile(mode):
    grey = (55, 200) if mode == "LA" else 55

    avatar = pictures.make_avatar(saved("PNG", grey, mode, icc_profile=linear_grey()))

    assert is_close(shown(avatar.data), (128, 128, 128))


def test_inks_with_a_profile_and_without():
    cyan = (255, 0, 0, 0)

    profiled = pictures.make_avatar(saved("JPEG", cyan, "CMYK", icc_profile=inks()))
    plain = pictures.make_avatar(saved("JPEG", cyan, "CMYK"))

    assert is_close(shown(profiled.data), (57, 57, 57), by=9)
    assert is_close(shown(plain.data), (0, 255, 255))


def test_lab_becomes_srgb():
    generated = pictures.check_generated(saved("TIFF", (136, 208, 195), "LAB"))

    assert is_close(shown(generated.data), (254, 0, 0), by=12)


def test_sixteen_bits_with_a_profile():
    data = saved("PNG", 55 * 257, "I;16", icc_profile=linear_grey())

    assert is_close(shown(pictures.make_avatar(data).data), (128, 128, 128))


@pytest.mark.parametrize(
    "profile",
    [b"", b"no profile", DISPLAY_P3[:200], DISPLAY_P3[:-9], bytes(5000), linear_grey(), inks()],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_profile_that_cannot_be_used_costs_nothing(kind, profile):
    data = saved(kind, icc_profile=profile)

    assert is_close(shown(pictures.make_avatar(data).data), IN_P3)
    assert pictures.check_generated(data).data == data


def test_a_profile_of_colours_fits_a_grey_picture():
    data = saved("JPEG", 99, "L", icc_profile=DISPLAY_P3)

    assert is_close(shown(pictures.make_avatar(data).data), (99, 99, 99))


# -- PNG without a profile ----------------------------------------------------------------------


def numbers(*values: float) -> bytes:
    return struct.pack(f">{len(values)}I", *[round(value * 100_000) for value in values])


def test_primaries_and_gamma_of_a_png_count():
    data = png_with(saved("PNG"), {b"gAMA": numbers(1 / 2.2), b"cHRM": numbers(*P3)})

    assert is_close(shown(pictures.make_avatar(data).data), IN_SRGB)


def test_gamma_alone_counts():
    data = png_with(saved("PNG", (55, 55, 55)), {b"gAMA": numbers(1)})

    assert is_close(shown(pictures.make_avatar(data).data), (128, 128, 128))


def test_dark_colours_keep_their_brightness():
    data = png_with(saved("PNG", (12, 12, 12)), {b"cHRM": numbers(*P3)})

    assert is_close(shown(pictures.make_avatar(data).data), (12, 12, 12), by=1)


@pytest.mark.parametrize(
    ("codes", "colour", "expected"),
    [
        (b"\x0c\x0d\0\1", IN_P3, IN_SRGB),
        (b"\x09\x0d\0\1", (200, 150, 100), (227, 142, 90)),
        (b"\x01\x08\0\1", (55, 55, 55), (128, 128, 128)),
        (b"\x01\x0d\0\1", IN_P3, IN_P3),
        (b"\x0c\x10\0\1", IN_P3, IN_P3),
        (b"\x0c", IN_P3, IN_P3),
    ],
)
def test_coded_colours_of_a_png_count(codes, colour, expected):
    data = png_with(saved("PNG", colour), {b"cICP": codes})

    assert is_close(shown(pictures.make_avatar(data).data), expected)


@pytest.mark.parametrize(
    "chunks",
    [
        {b"gAMA": numbers(0.45455)},
        {b"cICP": b"\x01\x0d\0\1", b"cHRM": numbers(*P3)},
        {b"sRGB": b"\0", b"gAMA": numbers(1), b"cHRM": numbers(*P3)},
        {b"gAMA": numbers(0)},
        {b"gAMA": numbers(0.00001)},
        {b"gAMA": numbers(40_000)},
        {b"gAMA": b"\1"},
        {b"cHRM": bytes(32)},
        {b"cHRM": b"\xff" * 32},
        {b"cHRM": numbers(*[0.3] * 8)},
        {b"cHRM": b"short"},
        {b"iCCP": b"broken"},
    ],
)
def test_numbers_of_srgb_and_numbers_of_no_sense_change_nothing(chunks):
    data = png_with(saved("PNG"), chunks)

    assert is_close(shown(pictures.make_avatar(data).data), IN_P3)
