"""Things and creatures: the house, the cat, the fox, boats, balloons and birds."""

import math
from collections.abc import Iterator
from functools import partial

from engines.painter.canvas import Canvas, Stroke
from engines.painter.colours import Colour, mix, rgb
from engines.painter.curves import height_at, rolling, smooth
from engines.painter.words import SUBJECTS, motifs_in

# In hundredths: a blob is rounded off, a sharp keeps its corners.
SHAPES = {
    "cat": (
        "blob 37,36 63,36 70,62 74,90 66,100 34,100 26,90 30,62",
        "blob 50,13 62,16 66,27 60,38 40,38 34,27 38,16",
        "sharp 34,26 36,3 48,15",
        "sharp 66,26 64,3 52,15",
        "blob 62,95 80,99 95,90 98,72 93,60 90,63 92,74 88,85 78,91 66,87",
    ),
    "fox": (
        "blob 36,38 52,36 62,50 74,70 76,94 66,100 42,100 38,80 33,55",
        "sharp 37,60 47,60 47,100 36,100",
        "sharp 14,36 28,25 33,20 52,22 56,36 48,46 36,44",
        "sharp 31,24 35,2 45,20",
        "sharp 42,22 50,3 54,27",
        "blob 66,97 70,82 86,72 100,56 106,74 100,93 84,101",
    ),
    "house": ("sharp 14,52 86,52 86,100 14,100", "sharp 4,56 26,20 74,20 96,56", "sharp 66,8 76,8 76,30 66,30"),
}


def _shape(canvas: Canvas, name: str, box: tuple[float, float, float], colour: Colour) -> None:
    left, top, size = box
    for kind, *points in map(str.split, SHAPES[name]):
        places = [map(int, point.split(",")) for point in points]
        outline = [(left + x * size / 100, top + y * size / 100) for x, y in places]
        canvas.draw.polygon(smooth(outline) if kind == "blob" else outline, fill=colour)


def paint_subjects(canvas: Canvas) -> Iterator[Stroke]:
    """Put the creatures and the house on a dark mound at the front."""
    rng = canvas.random("subjects")
    names = sorted(canvas.motifs & SUBJECTS)
    line = rolling(rng, canvas.width, canvas.height * 0.9, canvas.unit * 0.025, 0.7)
    dark = mix(canvas.near, (8, 8, 14), 0.35)
    yield partial(canvas.veil, canvas.height * 0.6, canvas.height * 1.05, canvas.mist, 0.45)
    yield partial(canvas.ground, line, dark, mix(dark, (0, 0, 0), 0.3), canvas.unit * 0.12)

    def stand(name: str, share: float) -> None:
        x = canvas.width * share
        size = canvas.unit * (0.3 if name != "house" else 0.24)
        top = height_at(line, x) - size * 0.97
        if name == "house":
            canvas.glow(x - size * 0.1, top + size * 0.75, size * 1.1, canvas.accents[0], 0.4)
        _shape(canvas, name, (x - size / 2, top, size), mix(dark, (0, 0, 0), 0.25))
        for shift in (-0.24, 0.06) if name == "house" else ():
            box = (x + shift * size, top + size * 0.64, x + (shift + 0.16) * size, top + size * 0.82)
            canvas.draw.rectangle(box, fill=mix(rgb("ffd27a"), canvas.light, 0.3))

    away = 0.7 if canvas.light_x < canvas.width / 2 else 0.3
    for index, name in enumerate(names):
        yield partial(stand, name, away if index == 0 else (1 - away) + 0.2 * (index - 1))


def paint_boats(canvas: Canvas) -> Iterator[Stroke]:
    """Set sailing boats on the water, each over its own faint reflection."""
    rng = canvas.random("boats")
    cloth, jib = (mix(canvas.light, canvas.accents[1], share) for share in (0.2, 0.6))

    def sail(share: float, near: float) -> None:
        size = canvas.unit * (0.07 + 0.2 * near)
        x, foot = canvas.width * share, canvas.horizon + (canvas.height - canvas.horizon) * near + size * 0.1
        rig(x, foot, size, -0.75, 70)
        rig(x, foot, size, 1, 255)
        canvas.draw.line(
            (x, foot - size * 0.9, x, foot - size * 0.12), fill=canvas.near, width=max(1, round(size * 0.02))
        )

    def rig(x: float, foot: float, size: float, upright: float, opacity: int) -> None:
        for colour, outline in (
            (cloth, ((0.02, 0.88), (0.36, 0.22), (0.02, 0.19))),
            (jib, ((-0.02, 0.8), (-0.32, 0.22), (-0.02, 0.19))),
            (canvas.near, ((-0.4, 0.14), (0.42, 0.16), (0.3, -0.01), (-0.28, -0.01))),
        ):
            points = [(x + px * size, foot - py * size * upright) for px, py in outline]
            canvas.draw.polygon(points, fill=(*colour, opacity))

    for near in (0.06, 0.14, 0.42):
        yield partial(sail, rng.uniform(0.12, 0.88), near)


def paint_balloons(canvas: Canvas) -> Iterator[Stroke]:
    """Float striped hot-air balloons."""
    rng = canvas.random("balloons")

    def float_up(x: float, y: float, radius: float) -> None:
        colours = rng.sample(canvas.accents, 2)
        body = [(math.cos(a), math.sin(a)) for a in (math.pi * t / 20 for t in range(-20, 21))]
        for stripe in range(5):
            wide = 1 - stripe * 0.23
            outline = [(x + c * radius * wide, y + s * radius * (1.15 if s > 0 else 1)) for c, s in body]
            canvas.draw.polygon(outline, fill=mix(colours[stripe % 2], canvas.near, 0.1 if stripe % 2 else 0.2))
        foot = y + radius * 1.75
        for side in (-1, 1):
            canvas.draw.line(
                (x + side * radius * 0.45, y + radius * 1.02, x + side * radius * 0.14, foot),
                fill=canvas.near,
                width=max(1, round(radius * 0.03)),
            )
        canvas.draw.rectangle(
            (x - radius * 0.15, foot - radius * 0.05, x + radius * 0.15, foot + radius * 0.2), fill=canvas.near
        )

    for size in (0.028, 0.04, 0.05, 0.085):
        yield partial(
            float_up, canvas.width * rng.uniform(0.1, 0.9), canvas.horizon * rng.uniform(0.15, 0.65), canvas.unit * size
        )


def paint_birds(canvas: Canvas) -> Iterator[Stroke]:
    """Send a small flock across the sky."""
    rng = canvas.random("birds")
    x, y = canvas.width * rng.uniform(0.25, 0.75), canvas.horizon * rng.uniform(0.25, 0.5)
    large = 1.9 if "bird" in motifs_in(canvas.job.prompt) else 1

    def bird() -> None:
        px, py = x + rng.gauss(0, canvas.unit * 0.1), y + rng.gauss(0, canvas.unit * 0.05)
        span, lift = canvas.unit * rng.uniform(0.009, 0.018) * large, rng.uniform(0.35, 0.8)
        wing = [
            (-1, -lift),
            (-0.55, -lift * 0.95),
            (0, 0),
            (0.55, -lift * 0.95),
            (1, -lift),
            (0.5, -lift * 0.65),
            (0, 0.22),
            (-0.5, -lift * 0.65),
        ]
        canvas.draw.polygon(
            [(px + a * span, py + b * span) for a, b in wing], fill=mix(canvas.near, canvas.sky[0], 0.2)
        )

    yield from [bird] * rng.randint(5, 9)
