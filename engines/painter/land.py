"""Land and water: mountains, hills, a city, the sea, a desert."""

import math
import random
from collections.abc import Iterator
from functools import partial
from itertools import pairwise, takewhile

from PIL import Image

from engines.painter.canvas import Canvas, Stroke
from engines.painter.colours import Colour, gradient, mix
from engines.painter.curves import Point, rolling, rugged


def paint_mountains(canvas: Canvas) -> Iterator[Stroke]:
    """Raise ranges one before the other, each paler at its foot, with a shaded side and perhaps snow."""
    rng = canvas.random("mountains")

    def mountain_range(nearness: float) -> None:
        foot = canvas.horizon + canvas.unit * (0.02 + 0.05 * nearness) * ("sea" not in canvas.motifs)
        tall = canvas.unit * (0.34 - 0.14 * nearness) * rng.uniform(0.85, 1.15)
        step = canvas.unit * (0.3 - 0.08 * nearness)
        controls, x, high = [], -step * rng.random() - step, True
        while x < canvas.width + step * 2:
            controls.append((x, foot - tall * (rng.uniform(0.58, 1) if high else rng.uniform(0.1, 0.3))))
            x, high = x + step * rng.uniform(0.35, 0.75), not high
        pieces = [rugged(rng, list(pair), 0.2, 5) for pair in pairwise(controls)]
        line = [point for piece in pieces for point in piece]
        colour = canvas.land(nearness * 0.75)
        canvas.ground(line, colour, mix(colour, canvas.mist, 0.75), tall)
        for left, right in pairwise(pieces):
            _facet(canvas, rng, left, right, (colour, foot, tall, nearness))

    for nearness in (0, 0.4, 0.8):
        yield partial(mountain_range, nearness)
        middle = canvas.horizon + canvas.unit * 0.04 * nearness
        yield partial(canvas.veil, middle - canvas.unit * 0.12, middle + canvas.unit * 0.12, canvas.mist, 0.5)


def _facet(canvas: Canvas, rng: random.Random, left: list, right: list, shape: tuple) -> None:
    """Shade the side of one peak away from the light, and put snow on a high one."""
    colour, foot, tall, nearness = shape
    peak = left[-1]
    if peak[1] > left[0][1]:
        return
    dark = right if canvas.light_x < canvas.width / 2 else left[::-1]
    low = (peak[0] + (dark[-1][0] - peak[0]) * 0.1, min(foot, dark[-1][1] + tall * 0.1))
    seam = [_along(peak, low, part / 7, rng.uniform(-0.03, 0.03) * tall * (part > 0)) for part in range(8)]
    foot_colour = mix(colour, canvas.mist, 0.75)
    ends = [mix(colour, foot_colour, max(0, 1 - (foot - y) / tall)) for y in (peak[1], low[1])]
    canvas.fill([*dark, *seam[::-1]], mix(ends[0], canvas.near, 0.3), ends[1])
    snow_line = foot - tall * 0.62
    if peak[1] > snow_line - tall * 0.05:
        return
    above = [list(takewhile(lambda point: point[1] < snow_line, side)) for side in (left[::-1], right)]
    cap = above[0][::-1] + above[1]
    teeth = [(x, y + (snow_line - y) * rng.uniform(0.35, 0.95)) for x, y in cap[::-2]]
    white = mix(canvas.light, canvas.mist, 0.3 + 0.4 * (1 - nearness))
    canvas.draw.polygon(cap + teeth, fill=(*white, 190))


def _along(start: Point, end: Point, share: float, aside: float) -> Point:
    return start[0] + (end[0] - start[0]) * share + aside, start[1] + (end[1] - start[1]) * share


def paint_hills(canvas: Canvas) -> Iterator[Stroke]:
    """Roll soft hills towards us."""
    rng = canvas.random("hills")

    def hill(nearness: float) -> None:
        level = canvas.horizon + (canvas.height - canvas.horizon) * (nearness * 0.8 - 0.1)
        line = rolling(rng, canvas.width, level, canvas.unit * (0.06 - 0.02 * nearness), rng.uniform(0.5, 1.3))
        colour = canvas.land(0.15 + nearness * 0.8)
        canvas.ground(line, colour, mix(colour, canvas.mist, 0.42 * (1 - nearness)), canvas.unit * 0.24)

    for nearness in (0, 0.2, 0.45, 0.72, 1):
        yield partial(hill, nearness)


def paint_city(canvas: Canvas) -> Iterator[Stroke]:
    """Build rows of towers, the near ones with lit windows."""
    rng = canvas.random("city")
    base = canvas.horizon + canvas.unit * 0.01 if "sea" in canvas.motifs else canvas.height

    def row(nearness: float) -> None:
        x = -canvas.unit * 0.05
        bottom = (
            base if "sea" in canvas.motifs else canvas.horizon + (canvas.height - canvas.horizon) * (0.3 + nearness)
        )
        while x < canvas.width:
            wide = canvas.unit * rng.uniform(0.05, 0.1) * (0.7 + 0.5 * nearness)
            centre = 1 - abs((x + wide / 2) / canvas.width - 0.5)
            top = canvas.horizon - canvas.unit * (
                0.34 * centre * rng.uniform(0.3, 1.1) - 0.2 * nearness * (base == canvas.height)
            )
            _tower(canvas, rng, (x, top, wide, bottom), nearness)
            x += wide * rng.uniform(0.85, 1.12)

    for nearness in (0, 0.35, 0.7, 1):
        yield partial(row, nearness)
        glow = mix(canvas.mist, canvas.accents[0], 0.3)
        yield partial(canvas.veil, canvas.horizon - canvas.unit * 0.2, base + canvas.unit * 0.1, glow, 0.22)


def _tower(canvas: Canvas, rng: random.Random, box: tuple[float, ...], nearness: float) -> None:
    x, top, wide, bottom = box
    colour = mix(
        mix(canvas.land(0.1 + 0.9 * nearness), canvas.mist, 0.3 * (1 - nearness)), canvas.far, rng.uniform(0, 0.3)
    )
    style = rng.randrange(5)
    if style == 0:
        canvas.draw.line(
            (x + wide / 2, top - wide * 0.9, x + wide / 2, top), fill=colour, width=max(1, round(wide / 18))
        )
    if style in (0, 1):
        canvas.draw.rectangle((x + wide * 0.2, top - wide * 0.25, x + wide * 0.8, top), fill=colour)
    if style == 2:
        canvas.draw.polygon([(x, top), (x + wide, top - wide * 0.5), (x + wide, top)], fill=colour)
    canvas.fill(
        [(x, top), (x + wide, top), (x + wide, bottom), (x, bottom)],
        colour,
        mix(colour, canvas.mist, 0.25),
        canvas.unit * 0.7,
    )
    cell = canvas.unit * (0.009 + 0.006 * nearness)
    columns = int(wide / cell) - 1
    lit = 0.36 if canvas.mood in ("night", "sunset", "rain") else 0.18
    for row in range(int((min(bottom, canvas.height) - top) / cell / 1.25)):
        for column in range(columns):
            if rng.random() > lit:
                continue
            wx, wy = (x + (wide - columns * cell) / 2 + column * cell + cell * 0.2, top + (row + 0.6) * cell * 1.25)
            window = mix(rng.choice(canvas.accents[:2]), canvas.light, rng.random())
            canvas.draw.rectangle(
                (wx, wy, wx + cell * 0.5, wy + cell * 0.62), fill=(*window, round(60 + 170 * nearness))
            )


def paint_sea(canvas: Canvas) -> Iterator[Stroke]:
    """Mirror what stands above the horizon in rippling water, with a path of light under the sun or moon."""
    rng = canvas.random("sea")
    top, deep = round(canvas.horizon), canvas.height - round(canvas.horizon)
    foam = mix(canvas.mist, canvas.light, 0.5)

    def dash(x: float, near: float, colour: Colour, strength: float) -> None:
        y = top + near * deep
        wide = canvas.unit * (0.006 + 0.05 * near) * rng.uniform(0.4, 1.3)
        tall = max(0.7, canvas.unit * (0.0008 + 0.0026 * near))
        paint = (*colour, round(strength * rng.uniform(0.4, 1)))
        canvas.draw.ellipse((x - wide, y - tall, x + wide, y + tall), fill=paint)

    def waves() -> None:
        for _ in range(canvas.count(70)):
            dash(rng.uniform(0, canvas.width), rng.random() ** 1.3, foam, 60)

    def glitter() -> None:
        for _ in range(canvas.count(130)):
            near = rng.random() ** 1.6
            dash(rng.gauss(canvas.light_x, canvas.light_radius * (0.5 + 1.1 * near)), near, canvas.light, 190)

    yield partial(_mirror, canvas, rng, top, deep)
    yield from [waves] * 3
    if canvas.motifs & {"sun", "moon"}:
        yield from [glitter] * 2


def _mirror(canvas: Canvas, rng: random.Random, top: int, deep: int) -> None:
    seen = canvas.image.crop((0, max(0, top - round(deep * 1.3)), canvas.width, top))
    water = seen.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((canvas.width, deep))
    depths = [canvas.mist, *(mix(canvas.sky[0], canvas.near, share) for share in (0.3, 0.7))]
    water = Image.blend(water, gradient(water.size, depths), 0.42)
    canvas.image.paste(water, (0, top))
    y = 0
    while y < deep:
        tall = max(1, round(canvas.unit * (0.002 + 0.006 * y / deep)))
        shift = canvas.unit * (0.002 + 0.014 * y / deep) * math.sin(y * 31.7 / tall) * rng.uniform(0.3, 1)
        canvas.image.paste(water.crop((0, y, canvas.width, y + tall)), (round(shift), top + y))
        y += tall


def paint_desert(canvas: Canvas) -> Iterator[Stroke]:
    """Heap dunes, each with a lit and a shaded side parted by a winding crest."""
    rng = canvas.random("desert")
    side = -1 if canvas.light_x < canvas.width / 2 else 1

    def dune(nearness: float) -> None:
        base = canvas.horizon + (canvas.height - canvas.horizon) * (nearness * 1.0)
        wide, tall = canvas.width * rng.uniform(0.5, 0.8), canvas.unit * (0.07 + 0.2 * nearness)
        peak = (canvas.width * rng.uniform(0.1, 0.9), base - tall)
        slope = [(t / 24, (1 - math.cos(math.pi * t / 24)) / 2) for t in range(25)]
        rise = [(peak[0] - wide * (1 - t), base - tall * s**1.5) for t, s in slope]
        drop = [(peak[0] + wide * 0.8 * t, base - tall * (1 - s) ** 1.2) for t, s in slope]
        lit = mix(canvas.land(0.1 + 0.5 * nearness), canvas.light, 0.25)
        shade = mix(canvas.land(0.35 + 0.65 * nearness), canvas.sky[0], 0.12)
        canvas.ground(
            [(-canvas.width, base + tall * 0.6), *rise, *drop, (canvas.width * 2, base + tall * 0.6)],
            lit,
            mix(lit, canvas.land(0.6), 0.6),
            tall * 2,
        )
        dark = drop if side < 0 else rise[::-1]
        sway = wide * 0.18 * side
        foot = (peak[0] - sway * 0.6, base + tall * 0.9)
        crest = [
            (peak[0] + (foot[0] - peak[0]) * t + sway * math.sin(t * math.tau) * 0.5, peak[1] + (foot[1] - peak[1]) * s)
            for t, s in slope
        ]
        canvas.fill([*dark, *crest[::-1]], shade, mix(shade, lit, 0.85), tall * 1.9)

    for nearness in (0, 0.15, 0.3, 0.5, 0.75, 1):
        yield partial(dune, nearness)
