"""The mask of a client, converted for each engine; looked at pixel by pixel."""

import io

import pytest
from PIL import Image, ImageChops

from engines import InputImage, masks
from tests.inputs import encoded, hole, noise


def test_what_is_clear_shall_change():
    grey = masks.change(hole(), (96, 96))

    assert (grey.mode, grey.size) == ("L", (96, 96))
    assert [grey.getpixel(at) for at in ((24, 24), (71, 71), (23, 24), (72, 71))] == [
        255,
        255,
        0,
        0,
    ]


def test_half_clear_changes_half():
    grey = masks.change(hole(alpha=127), (96, 96))

    assert grey.getpixel((48, 48)) == 128


def test_a_mask_without_alpha_changes_nothing():
    grey = masks.change(encoded(Image.new("RGB", (8, 8))), (8, 8))

    assert grey.getextrema() == (0, 0)


def test_a_mask_of_palette_colours_is_read():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.putpixel((0, 0), 0)
    image.info["transparency"] = 0

    grey = masks.change(encoded(image), (8, 8))

    assert (grey.getpixel((0, 0)), grey.getpixel((1, 1))) == (255, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_of_the_size_asked_for_is_not_touched(mode):
    image = noise(mode=mode)

    same = masks.fitted(masks.opened(encoded(image)), (96, 96))

    assert same.mode == mode and not ImageChops.difference(same, image).getbbox(alpha_only=False)


def test_another_shape_is_filled_from_the_middle():
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))

    fitted = masks.fitted(image, (50, 50))

    assert fitted.size == (50, 50) and fitted.getpixel((25, 25)) == (0, 0, 255)
    assert fitted.getpixel((3, 25)) == (0, 0, 255)


def test_sixteen_bits_are_scaled():
    image = Image.new("I;16", (4, 4), 32768)

    assert masks.opened(encoded(image)).getpixel((0, 0)) == (128, 128, 128)


def test_a_mask_in_both_ways_reads_the_same():
    both = masks.in_both_ways(hole(alpha=100))

    read_again = masks.change(InputImage(both, "png", 96, 96), (96, 96))
    grey = Image.open(io.BytesIO(both)).convert("RGB").convert("L")
    wanted = masks.change(hole(alpha=100), (96, 96))
    assert not ImageChops.difference(read_again, wanted).getbbox()
    assert not ImageChops.difference(grey, wanted).getbbox()


@pytest.mark.parametrize(
    ("extension", "formats", "becomes"),
    [
        ("webp", ["png", "jpg"], "PNG"),
        ("webp", ["jpg"], "JPEG"),
        ("jpg", ["webp"], "WEBP"),
        ("jpg", ["jpg", "png"], "JPEG"),
    ],
)
def test_a_picture_becomes_one_of_the_formats_taken(extension, formats, becomes):
    picture = encoded(noise(), extension)

    taken = masks.taken(picture, formats)

    image = Image.open(io.BytesIO(taken.data))
    assert image.format == becomes and masks.FORMATS[taken.extension] == becomes
    assert (taken is picture) == (extension in formats)


def test_what_is_clear_is_white_in_a_format_without_alpha():
    picture = encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))

    taken = masks.taken(picture, ["jpg"])

    assert masks.opened(taken).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("size", "multiple", "snapped"),
    [((100, 100), 8, (96, 96)), ((101, 70), 8, (104, 72)), ((3, 512), 16, (16, 512))],
)
def test_sizes_are_snapped_to_the_nearest(size, multiple, snapped):
    assert masks.snapped(size, multiple) == snapped
