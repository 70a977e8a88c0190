"""The pictures of a request as each engine wants them: decoded, fitted, and the mask converted.

Clients have one rule: what is transparent in the mask shall change. Of the engines some want the
same, and others a grey picture in which white shall change.
"""

import io

from PIL import Image

from engines import InputImage
from files.pictures import eight_bits

WHITE = (255, 255, 255)


def opened(picture: InputImage) -> Image.Image:
    """Return a picture as RGBA if anything in it may be clear, else as RGB."""
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    image = eight_bits(image)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def flat(image: Image.Image) -> Image.Image:
    """Return the image as RGB, on white where it is clear."""
    if image.mode == "RGB":
        return image
    ground = Image.new("RGB", image.size, WHITE)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image filling this size, its middle if the shape is another one."""
    if image.size == size:
        return image
    scale = max(size[0] / image.width, size[1] / image.height)
    width, height = size[0] / scale, size[1] / scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    return image.resize(size, Image.Resampling.LANCZOS, box)


def change(mask: InputImage, size: tuple[int, int]) -> Image.Image:
    """Return the mask as a grey image of this size: 255 where all changes, 0 where nothing does."""
    alpha = opened(mask).convert("RGBA").getchannel("A")
    return fitted(alpha.point(lambda level: 255 - level), size)
