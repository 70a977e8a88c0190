"""Sizes in pixels, and how else they may be said: by an aspect ratio, and by a resolution."""

import math
from typing import Any

RESOLUTIONS = {"1K": 1024, "2K": 2048, "4K": 4096}
AUTO = "auto"  # as an aspect ratio: what suits the prompt or the first picture
# The sides of a size that is calculated are multiples of this, as most models want them.
STEP = 16
# How far the ratio of a size may be from one that it stands for: 1344 x 768 is called 16:9.
TOLERANCE = 0.05

Size = tuple[int, int]


def read_size(text: str) -> Size:
    width, _, height = text.partition("x")
    return int(width), int(height)


def read_ratio(text: str) -> float:
    width, _, height = text.partition(":")
    return int(width) / int(height)


def default_size(model: Any) -> Size:
    if model.sizes:
        return read_size(model.sizes[0])
    return int(model.width.default), int(model.height.default)


def shaped(model: Any, aspect_ratio: str, resolution: str) -> Size:
    """Return the size that a model makes of a ratio and a resolution; "" is its default."""
    usual = default_size(model)
    if not resolution and aspect_ratio == AUTO:
        return usual
    ratio = usual[0] / usual[1]
    if aspect_ratio not in ("", AUTO):
        ratio = read_ratio(aspect_ratio)
    side = RESOLUTIONS[resolution] if resolution else math.sqrt(usual[0] * usual[1])
    return of_ratio(model, ratio, side)


def like(model: Any, picture: Any, size: Size) -> Size:
    """Return the size of a model that is most like a picture, about as large as another size."""
    ratio = picture.width / picture.height
    if model.ratio_max:
        ratio = min(max(ratio, 1 / model.ratio_max), model.ratio_max)
    width, height = of_ratio(model, ratio, math.sqrt(size[0] * size[1]))
    if model.breaks_pixels(width, height) and not model.sizes:  # too thin, its length is limited
        if width < height:
            width = at_least(model.width, model.pixels.min / height)
        else:
            height = at_least(model.height, model.pixels.min / width)
    if model.breaks_pixels(width, height) or model.breaks_ratio(width, height):
        return size
    return width, height


def of_ratio(model: Any, ratio: float, side: float) -> Size:
    """Return the size of a model nearest to a ratio, with about as many pixels as a square."""
    if model.sizes:
        listed = [read_size(size) for size in model.sizes]
        return min(listed, key=lambda size: (round(off(size, ratio), 2), abs_area(size, side)))
    width, height = side * math.sqrt(ratio), side / math.sqrt(ratio)
    limits = [model.width.max / width, model.height.max / height]
    if model.pixels:
        limits.append(math.sqrt(model.pixels.max / (width * height)))
    shrink = min(1, *limits)
    sides = (model.width, width * shrink), (model.height, height * shrink)
    new_width, new_height = (rounded(limit, length) for limit, length in sides)
    if model.breaks_ratio(new_width, new_height):  # by what was rounded off
        if new_width > new_height:
            return rounded(model.width, new_height * model.ratio_max), new_height
        return new_width, rounded(model.height, new_width * model.ratio_max)
    return new_width, new_height


def rounded(limits: Any, length: float) -> int:
    """Return a length as a multiple that a range takes, not larger unless it must be."""
    step = limits.step if limits.step > 1 else STEP
    least = math.ceil(limits.min / step) * step
    most = max(math.floor(limits.max / step) * step, least)
    return int(min(max(math.floor(length / step + 0.01) * step, least), most))


def at_least(limits: Any, length: float) -> int:
    """Return a length as a multiple that a range takes, not smaller unless it must be."""
    step = limits.step if limits.step > 1 else STEP
    return rounded(limits, math.ceil(length / step) * step)


def off(size: Size, ratio: float) -> float:
    return abs(math.log(size[0] / size[1] / ratio))


def abs_area(size: Size, side: float) -> float:
    return abs(math.log(size[0] * size[1] / side**2))


def derived(aspect_ratios: list[str], resolutions: list[str]) -> list[str]:
    """Return the sizes of a model that names ratios alone, the default first."""
    found = []
    for resolution in resolutions:
        for ratio in aspect_ratios:
            value = 1 if ratio == AUTO else read_ratio(ratio)
            side = RESOLUTIONS[resolution]
            width, height = side * math.sqrt(value), side / math.sqrt(value)
            found.append(f"{round(width / STEP) * STEP}x{round(height / STEP) * STEP}")
    return list(dict.fromkeys(found))


def shape_of(model: Any, size: Size) -> tuple[str, str]:
    """Return the ratio and the resolution that stand for a size; "" for what the model has not."""
    for resolution in model.resolution or [""]:
        for ratio in model.aspect_ratio or [""]:
            if ratio != AUTO and shaped(model, ratio, resolution) == size:
                return ratio, resolution
    return "", ""
