"""What grows on the land: forests and flower meadows."""

import math
import random
from collections.abc import Iterator
from functools import partial

from engines.painter.canvas import Canvas, Stroke
from engines.painter.colours import Colour, mix, rgb
from engines.painter.curves import height_at, rolling, smooth


def paint_forest(canvas: Canvas) -> Iterator[Stroke]:
    """Plant rows of trees, the far ones small and pale in the mist."""
    rng = canvas.random("forest")
    start = 0.75 if canvas.motifs & {"sea", "flower", "city", "desert"} else 0
    leafy = "autumn" in canvas.motifs or (canvas.mood == "spring" and "snow" not in canvas.motifs)

    def row(nearness: float) -> None:
        level = canvas.horizon + (canvas.height - canvas.horizon) * (0.06 + 0.84 * nearness**1.3)
        line = rolling(rng, canvas.width, level, canvas.unit * 0.045, rng.uniform(0.6, 1.4))
        colour = canvas.land(0.2 + 0.8 * nearness)
        bark = mix(canvas.far, canvas.near, 0.35 + 0.65 * nearness)
        size = canvas.unit * (0.09 + 0.2 * nearness)
        for _ in range(canvas.count(canvas.width / size * 3.2)):
            x = rng.uniform(-0.02, 1.02) * canvas.width
            if start and abs(x / canvas.width - 0.5) < 0.3 * rng.random() + 0.12:
                continue
            foot = height_at(line, x) + size * 0.06
            tree = _leafy_tree if leafy else _pine
            tree(canvas, rng, (x, foot, size * rng.uniform(0.45, 1.1)), mix(bark, canvas.far, rng.uniform(0, 0.2)))
        canvas.ground(line, colour, mix(colour, canvas.mist, 0.55 * (1 - nearness)), size * 1.2)

    for nearness in (0, 0.25, 0.5, 0.75, 1):
        if nearness >= start:
            yield partial(row, nearness)
            middle = canvas.horizon + (canvas.height - canvas.horizon) * nearness
            yield partial(
                canvas.veil, middle - canvas.unit * 0.1, middle + canvas.unit * 0.16, canvas.mist, 0.34 * (1 - nearness)
            )


def _pine(canvas: Canvas, rng: random.Random, place: tuple[float, float, float], colour: Colour) -> None:
    x, foot, tall = place
    tiers, wide = 7, tall * rng.uniform(0.17, 0.23)
    left, right = [(x, foot - tall)], []
    for tier in range(1, tiers + 1):
        y, reach = foot - tall * (1 - tier / tiers * 0.93), wide * (tier / tiers) ** 0.85
        left += [(x - reach * rng.uniform(0.8, 1.15), y), (x - reach * 0.5, y - tall * 0.025)]
        right += [(x + reach * rng.uniform(0.8, 1.15), y), (x + reach * 0.5, y - tall * 0.025)]
    trunk = [(x + tall * 0.015, foot), (x - tall * 0.015, foot)]
    canvas.draw.polygon([*left, trunk[1], trunk[0], *right[::-1]], fill=colour)
    if "snow" in canvas.motifs:
        cap = [(x + (px - x) * 0.8, py - tall * 0.02) for px, py in left[:7]]
        canvas.draw.polygon([*cap, (x, left[6][1] - tall * 0.1)], fill=(*mix(canvas.mist, (255, 255, 255), 0.6), 150))


def _leafy_tree(canvas: Canvas, rng: random.Random, place: tuple[float, float, float], colour: Colour) -> None:
    x, foot, tall = place
    canvas.draw.line(
        (x, foot, x, foot - tall * 0.6), fill=mix(colour, (20, 12, 10), 0.4), width=max(1, round(tall * 0.035))
    )
    leaves = mix(
        rng.choice(canvas.accents) if "autumn" in canvas.motifs else canvas.land(0.6), colour, rng.uniform(0.15, 0.5)
    )
    for light in (0, 0, 0, 0.12, 0.12, 0.2):
        px, py = (
            x + rng.gauss(0, tall * 0.1) - light * tall * 0.2,
            foot - tall * (0.64 + light * 0.4) + rng.gauss(0, tall * 0.08),
        )
        canvas.disc(px, py, tall * rng.uniform(0.13, 0.22) * (1 - light), mix(leaves, canvas.light, light))


def paint_flowers(canvas: Canvas) -> Iterator[Stroke]:
    """Grow a meadow: grass and flowers, larger towards us."""
    rng = canvas.random("flowers")
    top = canvas.horizon + (canvas.height - canvas.horizon) * 0.3
    line = rolling(rng, canvas.width, top, canvas.unit * 0.03, 0.8)
    turf = canvas.land(0.75)

    def row(nearness: float) -> None:
        level = top + (canvas.height * 1.04 - top) * nearness
        size = canvas.unit * (0.015 + 0.13 * nearness**1.4)
        for _ in range(canvas.count(min(260, canvas.width / size * 5))):
            _blade(
                canvas,
                rng,
                (rng.uniform(0, canvas.width), level + rng.uniform(-0.6, 0.6) * size, size),
                mix(turf, canvas.near, rng.uniform(0, 0.9)),
            )
        for _ in range(canvas.count(min(90, canvas.width / size * 0.8))):
            _flower(
                canvas,
                rng,
                (rng.uniform(0, canvas.width), level + rng.uniform(-0.6, 0.6) * size, size * rng.uniform(0.8, 1.35)),
            )

    yield partial(canvas.ground, line, mix(turf, canvas.mist, 0.45), canvas.near, canvas.unit * 0.4)
    for nearness in (0.02, 0.07, 0.14, 0.22, 0.32, 0.44, 0.58, 0.75, 0.95):
        yield partial(row, nearness)


def _blade(canvas: Canvas, rng: random.Random, place: tuple[float, float, float], colour: Colour) -> None:
    x, foot, size = place
    lean, tall, wide = rng.gauss(0, size * 0.3), size * rng.uniform(0.6, 1.2), max(0.8, size * 0.035)
    bend = (x + lean * 0.3, foot - tall * 0.55)
    canvas.draw.polygon(
        [
            (x - wide, foot),
            (bend[0] - wide * 0.7, bend[1]),
            (x + lean, foot - tall),
            (bend[0] + wide * 0.7, bend[1]),
            (x + wide, foot),
        ],
        fill=colour,
    )


def _flower(canvas: Canvas, rng: random.Random, place: tuple[float, float, float]) -> None:
    x, foot, size = place
    colour = mix(rng.choice(canvas.accents), canvas.light, rng.uniform(0, 0.2))
    head, radius = (x + rng.gauss(0, size * 0.15), foot - size), size * rng.uniform(0.2, 0.27)
    canvas.draw.line(
        [(x, foot), ((x + head[0]) / 2, foot - size * 0.6), head],
        fill=mix(canvas.near, canvas.land(0.6), 0.4),
        width=max(1, round(size * 0.03)),
    )
    if radius < canvas.unit * 0.006:
        canvas.disc(*head, radius, colour)
        return
    petals, turn, tilt = rng.choice((5, 6, 8, 10)), rng.uniform(0, 7), rng.uniform(0.55, 0.95)
    for petal in range(petals):
        angle = turn + petal * math.tau / petals
        wide = math.pi / petals * 1.05
        rim = [(0, 0.12), (angle - wide, 0.7), (angle - wide * 0.5, 1), (angle + wide * 0.5, 1), (angle + wide, 0.7)]
        outline = [(head[0] + radius * r * math.cos(a), head[1] + radius * r * math.sin(a) * tilt) for a, r in rim]
        canvas.draw.polygon(smooth(outline, 4), fill=mix(colour, canvas.near if petal % 2 else canvas.light, 0.12))
    canvas.disc(*head, radius * 0.3, mix(rgb("f2b632"), canvas.near, 0.12))
