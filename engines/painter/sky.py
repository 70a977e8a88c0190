"""Skies, what is seen in them, and the weather. Each motif is a generator of strokes, in painting order."""

import math
import random
from collections.abc import Iterator
from functools import partial

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from engines.painter.canvas import Canvas, Stroke
from engines.painter.colours import Colour, gradient, mix, rgb
from engines.painter.curves import rolling
from engines.painter.words import GROUND, SPACE, motifs_in


def paint_sky(canvas: Canvas) -> Iterator[Stroke]:
    """Paint the sky, brighter around the sun or moon."""
    tall = canvas.height if SPACE & canvas.motifs and not GROUND & canvas.motifs else round(canvas.horizon * 1.05)

    def backdrop() -> None:
        canvas.image.paste(canvas.mist, (0, 0, canvas.width, canvas.height))
        canvas.image.paste(gradient((canvas.width, tall), canvas.sky), (0, 0))

    yield backdrop
    if canvas.motifs & {"sun", "moon"}:
        warm = mix(canvas.light, canvas.sky[-1], 0.5)
        strength = 0.75 if "sun" in canvas.motifs else 0.4
        yield partial(canvas.glow, canvas.light_x, canvas.light_y, canvas.unit * 0.62, warm, strength)


def paint_galaxy(canvas: Canvas) -> Iterator[Stroke]:
    """Paint a slanted band of coloured gas."""
    rng = canvas.random("galaxy")
    slant, middle = rng.uniform(-0.5, 0.5), rng.uniform(0.3, 0.5)
    clouds = rng.sample(canvas.accents, 3)

    def wisp(colour: Colour, strength: float, wide: float) -> None:
        for _ in range(18):
            x = rng.uniform(-0.1, 1.1)
            y = middle + slant * (x - 0.5) + rng.gauss(0, wide)
            canvas.glow(x * canvas.width, y * canvas.height, canvas.unit * rng.uniform(0.1, 0.3), colour, strength)

    for colour, strength, wide in zip([*clouds, canvas.light], (0.16, 0.14, 0.14, 0.1), (0.12, 0.09, 0.07, 0.03)):
        yield partial(wisp, colour, strength, wide)


def paint_stars(canvas: Canvas) -> Iterator[Stroke]:
    """Scatter stars, the large ones with a halo."""
    rng = canvas.random("stars")
    deep = canvas.height if SPACE & canvas.motifs else canvas.horizon

    def batch() -> None:
        for _ in range(canvas.count(70)):
            x, y = rng.uniform(0, canvas.width), deep * rng.random() ** 1.3
            size = canvas.unit * 0.0007 * (1 + 2.4 * rng.random() ** 5)
            colour = mix(canvas.light, rng.choice(canvas.accents), rng.uniform(0, 0.5))
            canvas.disc(x, y, max(0.8, size), (*colour, round(rng.uniform(90, 255) * (1 - 0.75 * y / deep))))
        canvas.glow(x, y, canvas.unit * 0.025, canvas.light, 0.55)
        canvas.disc(x, y, canvas.unit * 0.0028, canvas.light)

    yield from [batch] * 6


def paint_aurora(canvas: Canvas) -> Iterator[Stroke]:
    """Hang curtains of light along waving lines, out of narrow upright strips."""
    rng = canvas.random("aurora")
    size = (canvas.width // 2, round(canvas.horizon) // 2)
    wide = size[0] // 160 + 2
    ramp = Image.linear_gradient("L").point([round((level / 255) ** 2 * 255) for level in range(256)])

    def curtain(low: Colour, high: Colour, level: float) -> None:
        line = rolling(rng, size[0], size[1] * level, canvas.unit * 0.035, rng.uniform(0.7, 1.3))
        mask = Image.new("L", size)
        pace, phase = rng.uniform(0.15, 0.3), rng.uniform(0, 7)
        for index, (x, y) in enumerate(line):
            ray = (0.35 + 0.65 * abs(math.sin(index * pace + phase))) * rng.uniform(0.75, 1)
            strip = ramp.resize((wide, round(canvas.unit * (0.08 + 0.14 * ray))))
            mask.paste(strip.point([round(value * ray) for value in range(256)]), (round(x), round(y) - strip.height))
            foot = strip.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((wide, strip.height // 6 + 1))
            mask.paste(foot.point([round(value * ray) for value in range(256)]), (round(x), round(y)))
        mask = mask.filter(ImageFilter.BoxBlur(canvas.unit / 400)).resize(
            (size[0] * 2, size[1] * 2), Image.Resampling.BICUBIC
        )
        reach = round(size[1] * 2 * level)
        paint = Image.new("RGB", mask.size, low)
        paint.paste(gradient((mask.width, reach), [high, high, low]))
        canvas.image.paste(paint, (0, 0), mask)

    for level in (0.5, 0.66, 0.84):
        low = rng.choice((rgb("5cf2b0"), rgb("57e0c8"), rgb("8bf28a")))
        yield partial(curtain, low, rng.choice((rgb("8a6cf0"), rgb("3f8fe0"), rgb("c06cd8"))), level)


def paint_light(canvas: Canvas) -> Iterator[Stroke]:
    """Paint the sun, or the moon with its shadows."""
    x, y, radius = canvas.light_x, canvas.light_y, canvas.light_radius
    rng = canvas.random("light")
    yield partial(canvas.glow, x, y, radius * 3, canvas.light, 0.6)
    yield partial(canvas.disc, x, y, radius, canvas.light)
    if "moon" in canvas.motifs:
        for _ in range(7):
            angle, away = rng.uniform(0, math.tau), radius * rng.uniform(0.1, 0.6)
            size = radius * rng.uniform(0.08, 0.26)
            shade = (*mix(canvas.light, canvas.sky[-1], 0.6), 70)
            yield partial(canvas.disc, x + away * math.cos(angle), y + away * math.sin(angle), size, shade)


def paint_planet(canvas: Canvas) -> Iterator[Stroke]:
    """Paint a banded planet, lit from one side, with a ring."""
    rng = canvas.random("planet")
    radius = canvas.unit * rng.uniform(0.14, 0.19)
    x, y = canvas.width * rng.uniform(0.42, 0.58), canvas.height * rng.uniform(0.36, 0.48)
    base, other = rng.sample(canvas.accents, 2)

    def ring(start: int) -> None:
        layer = Image.new("L", (round(radius * 5),) * 2)
        pen, middle = ImageDraw.Draw(layer), radius * 2.5
        for share, strength in ((2.1, 120), (1.95, 190), (1.62, 90)):
            wide, tall = radius * share, radius * share * 0.24
            box = (middle - wide, middle - tall, middle + wide, middle + tall)
            pen.arc(box, start, start + 180, fill=strength, width=round(radius * 0.09))
        layer = layer.rotate(16, Image.Resampling.BICUBIC)
        canvas.image.paste(mix(other, canvas.light, 0.5), (round(x - middle), round(y - middle)), layer)

    bands = [mix(base, rng.choice(canvas.accents), rng.uniform(0, 0.45)) for _ in range(11)]
    yield partial(canvas.glow, x, y, radius * 2.1, base, 0.35)
    yield partial(ring, 180)
    yield partial(_ball, canvas, (x, y, radius), bands)
    yield partial(ring, 0)


def _ball(canvas: Canvas, place: tuple[float, float, float], bands: list[Colour]) -> None:
    x, y, radius = place
    side = max(2, round(radius * 2))
    paint = gradient((side, side), bands).rotate(16, Image.Resampling.BICUBIC, fillcolor=bands[0])
    # Shadow grows with the distance from a point on the lit upper left.
    distance = Image.radial_gradient("L").resize((side * 2, side * 2))
    near = round(side * 0.83)
    shade = distance.crop((near, near, near + side, near + side)).point(
        [min(235, level * 3 // 2) for level in range(256)]
    )
    paint.paste(mix(canvas.sky[0], (0, 0, 0), 0.4), (0, 0), shade)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
    canvas.image.paste(paint, (round(x - radius), round(y - radius)), mask)


def paint_clouds(canvas: Canvas) -> Iterator[Stroke]:
    """Drift clouds: soft heaps by day, long thin bars in low light, a dark ceiling in the rain."""
    rng = canvas.random("clouds")
    rainy = "rain" in canvas.motifs
    flat = 0.16 if canvas.low_light else 0.42
    for _ in range(14 if rainy else 9 if "cloud" in motifs_in(canvas.job.prompt) else 5):
        height = rng.uniform(0, 0.45) if rainy else rng.uniform(0.1, 0.9)
        size = canvas.unit * (0.2 - 0.13 * height) * rng.uniform(0.7, 1.4) * (1.7 if canvas.low_light else 1)
        place = (canvas.width * rng.uniform(-0.05, 1.05), canvas.horizon * height, size, flat)
        around = canvas.sky[int(height * len(canvas.sky))]
        colour = canvas.sky[0] if rainy else canvas.accents[1] if canvas.low_light else canvas.light
        yield partial(_cloud, canvas, rng, place, mix(around, colour, 0.5 if rainy or canvas.low_light else 0.8))


def _cloud(canvas: Canvas, rng: random.Random, place: tuple[float, float, float, float], colour: Colour) -> None:
    x, y, reach, flat = place
    box = (max(8, round(reach * 2.4)), max(8, round(reach * 2.4 * flat)))
    mask = Image.new("L", box)
    pen = ImageDraw.Draw(mask)
    for _ in range(16):
        away = rng.uniform(-0.82, 0.82)
        tall = box[1] * (0.16 + 0.42 * (1 - abs(away)) * rng.uniform(0.5, 1))
        wide, middle = tall * (0.34 / flat), box[0] / 2 + away * reach
        pen.ellipse((middle - wide, box[1] * 0.82 - tall, middle + wide, box[1] * 0.82 + tall * 0.35), fill=255)
    fade = gradient(box, [(235,) * 3, (200,) * 3, (0,) * 3]).convert("L")
    mask = ImageChops.multiply(mask.filter(ImageFilter.BoxBlur(canvas.unit / 500)), fade)
    canvas.image.paste(colour, (round(x - box[0] / 2), round(y - box[1] / 2)), mask)


def paint_rainbow(canvas: Canvas) -> Iterator[Stroke]:
    """Span seven translucent bows over the horizon."""
    middle, wide = canvas.width * 0.5, canvas.unit * 0.014
    for index, code in enumerate(("ff5e5b", "ff9f45", "ffe066", "7ddf80", "56c5f0", "5b7fe8", "a56be0")):
        radius = min(canvas.width * 0.46, canvas.horizon * 0.9) - index * wide
        box = (middle - radius, canvas.horizon - radius, middle + radius, canvas.horizon + radius)
        yield partial(canvas.draw.arc, box, 180, 360, fill=(*rgb(code), 110), width=round(wide) + 1)


def paint_fireworks(canvas: Canvas) -> Iterator[Stroke]:
    """Let rockets burst over the horizon."""
    rng = canvas.random("fireworks")

    def burst(x: float, y: float, radius: float, colour: Colour) -> None:
        canvas.glow(x, y, radius * 1.2, colour, 0.35)
        for _ in range(canvas.count(46)):
            angle, reach = rng.uniform(0, math.tau), radius * rng.uniform(0.45, 1)
            trail = [
                (x + reach * t * math.cos(angle), y + reach * (t * math.sin(angle) + 0.22 * t * t))
                for t in (0.25, 0.5, 0.75, 1)
            ]
            canvas.draw.line(trail, fill=(*colour, 150), width=max(1, round(canvas.unit / 420)), joint="curve")
            canvas.disc(*trail[-1], canvas.unit * 0.003, mix(colour, (255, 255, 255), 0.6))

    for _ in range(6):
        x, y = canvas.width * rng.uniform(0.1, 0.9), canvas.horizon * rng.uniform(0.12, 0.6)
        yield partial(burst, x, y, canvas.unit * rng.uniform(0.09, 0.2), rng.choice(canvas.accents))


def paint_fog(canvas: Canvas) -> Iterator[Stroke]:
    """Draw banks of mist across the middle."""
    rng = canvas.random("fog")
    for _ in range(4):
        middle = canvas.horizon + canvas.unit * rng.uniform(-0.15, 0.2)
        yield partial(canvas.veil, middle - canvas.unit * 0.14, middle + canvas.unit * 0.14, canvas.mist, 0.5)


def paint_rain(canvas: Canvas) -> Iterator[Stroke]:
    """Streak the picture with slanting rain."""
    rng = canvas.random("rain")

    def shower() -> None:
        for _ in range(canvas.count(90)):
            x, y, near = (rng.uniform(-0.1, 1) * canvas.width, rng.uniform(-0.1, 1) * canvas.height, rng.random())
            tall = canvas.unit * (0.02 + 0.05 * near)
            width = max(1, round(canvas.unit * (0.0008 + 0.001 * near)))
            canvas.draw.line(
                (x, y, x + tall * 0.22, y + tall), fill=(*canvas.light, round(30 + 60 * near)), width=width
            )

    yield from [shower] * 4


def paint_snowfall(canvas: Canvas) -> Iterator[Stroke]:
    """Let snow fall, a few flakes near and out of focus."""
    rng = canvas.random("snowfall")

    def flurry() -> None:
        for _ in range(canvas.count(70)):
            x, y, near = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height), rng.random() ** 3
            canvas.disc(x, y, canvas.unit * (0.0012 + 0.005 * near), (255, 255, 255, round(200 - 90 * near)))

    yield from [flurry] * 4
