"""The pictures of a request as each engine wants them: decoded, fitted, and the mask converted.

Clients have one rule: what is transparent in the mask shall change. Of the engines some want the
same, and others a grey picture in which white shall change.
"""

import io
from base64 import b64encode
from dataclasses import replace

from PIL import Image

from engines import InputImage
from files.pictures import eight_bits

WHITE = (255, 255, 255)
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
MEDIA_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
# What is lost here is lost in the result.
ENCODER_OPTIONS = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "quality": 50},
}


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


def snapped(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the size nearest to this one whose sides are multiples of a number."""
    width, height = (max(1, round(side / multiple)) * multiple for side in size)
    return width, height


def change(mask: InputImage, size: tuple[int, int]) -> Image.Image:
    """Return the mask as a grey image of this size: 255 where all changes, 0 where nothing does."""
    alpha = opened(mask).convert("RGBA").getchannel("A")
    return fitted(alpha.point(lambda level: 255 - level), size)


def in_both_ways(mask: InputImage) -> bytes:
    """Return the mask as a PNG that says it twice: what shall change is clear, and white.

    Servers with OpenAI's Images API go by the one or by the other, and so do nodes of ComfyUI.
    """
    grey = change(mask, (mask.width, mask.height))
    image = Image.merge("RGBA", (grey, grey, grey, grey.point(lambda level: 255 - level)))
    return png(image)


def png(image: Image.Image) -> bytes:
    output = io.BytesIO()
    image.save(output, "PNG", compress_level=4)
    return output.getvalue()


def taken(picture: InputImage, formats: list[str]) -> InputImage:
    """Return the picture in one of these formats, as PNG if they have it."""
    if picture.extension in formats:
        return picture
    extension = formats[0] if "png" not in formats else "png"
    image = opened(picture)
    if extension == "jpg":
        image = flat(image)
    output = io.BytesIO()
    image.save(output, FORMATS[extension], **ENCODER_OPTIONS[FORMATS[extension]])
    return replace(picture, data=output.getvalue(), extension=extension)


def data_url(data: bytes, extension: str) -> str:
    return f"data:{MEDIA_TYPES[extension]};base64,{b64encode(data).decode()}"
