"""Pictures that an image is made from, and masks, as tests need them."""

import io

from PIL import Image

from engines import InputImage

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


def encoded(image: Image.Image, extension: str = "png") -> InputImage:
    output = io.BytesIO()
    image.save(output, FORMATS[extension], lossless=True)
    return InputImage(output.getvalue(), extension, *image.size)


def plain(colour, size=(96, 96), extension="png") -> InputImage:
    return encoded(Image.new("RGB", size, colour), extension)


def halves(left, right, size=(96, 96)) -> InputImage:
    image = Image.new("RGB", size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return encoded(image)


def noise(size=(96, 96), mode="RGB") -> Image.Image:
    """Return a picture of which no two pixels need be alike, the same each time."""
    length = size[0] * size[1] * len(mode)
    levels = bytes((number * number * 7 + number * 31) % 251 for number in range(length))
    return Image.frombytes(mode, size, levels)


def hole(size=(96, 96), box=(24, 24, 72, 72), alpha=0) -> InputImage:
    """Return a mask that is clear in a box: there the picture shall change."""
    image = Image.new("RGBA", size, (0, 0, 0, 255))
    image.paste((0, 0, 0, alpha), box)
    return encoded(image)
