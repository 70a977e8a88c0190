"""Abstract pictures, for prompts without a known word."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFilter

from engines.painter.canvas import Canvas, Stroke
from engines.painter.colours import gradient, mix
from engines.painter.curves import Point, rolling


def paint_backdrop(canvas: Canvas) -> Iterator[Stroke]:
    """Paint the ground of an abstract."""
    yield lambda: canvas.image.paste(gradient(canvas.image.size, canvas.sky))
    yield partial(
        canvas.glow, canvas.light_x, canvas.light_y, canvas.unit * 0.8, mix(canvas.sky[-1], canvas.light, 0.4), 0.3
    )


def paint_ribbons(canvas: Canvas) -> Iterator[Stroke]:
    """Let bands of blended colour drift across, all bent by the same slow waves."""
    rng = canvas.random("ribbons")
    waves = [(rng.uniform(1, 6), rng.uniform(0.6, 4), rng.uniform(0, 7)) for _ in range(3)]
    tilt = rng.uniform(-0.5, 0.5)

    def edge(start: float) -> list[Point]:
        line = []
        for share in (part / 60 for part in range(-1, 62)):
            bend = sum(math.sin(a * share + b * start + c) for a, b, c in waves)
            line.append((share * canvas.width, (start + tilt * (share - 0.5) + 0.1 * bend) * canvas.height))
        return line

    def drift(start: float) -> None:
        colour, other = rng.sample(canvas.accents, 2)
        threads = canvas.count(8)
        edges = [edge(start + 0.07 * thread / threads) for thread in range(threads + 1)]
        for thread, (upper, lower) in enumerate(pairwise(edges)):
            # Filled bands, not thick lines: Pillow rounds the width of each piece of a line, which shows.
            if rng.random() < 0.75:
                canvas.draw.polygon(upper + lower[::-1], fill=mix(colour, other, thread / threads))

    starts = [-0.35 + index * 0.065 + rng.uniform(-0.03, 0.03) for index in range(26)]
    for start in rng.sample(starts, 22):
        yield partial(drift, start)


def paint_discs(canvas: Canvas) -> Iterator[Stroke]:
    """Overlap large translucent discs along a spiral, with thin rings around some."""
    rng = canvas.random("discs")
    turn = rng.uniform(0, math.tau)

    def disc(index: int) -> None:
        away, angle = 0.09 * math.sqrt(index) * rng.uniform(0.8, 1.2), turn + index * 2.39996
        x = canvas.width * 0.5 + away * math.cos(angle) * (canvas.width + canvas.unit) * 0.62
        y = canvas.height * 0.5 + away * math.sin(angle) * (canvas.height + canvas.unit) * 0.62
        radius = canvas.unit * rng.uniform(0.05, 0.26) * (1 - index / 60)
        canvas.disc(x, y, radius, (*rng.choice(canvas.accents), rng.randint(120, 215)))
        for ring in range(rng.choice((0, 0, 1, 4))):
            wide = radius * (1.12 + 0.12 * ring)
            pen = (*rng.choice(canvas.accents), 220)
            box = (x - wide, y - wide, x + wide, y + wide)
            canvas.draw.ellipse(box, outline=pen, width=max(1, round(canvas.unit * 0.003)))

    for index in range(canvas.count(24), 0, -1):
        yield partial(disc, index)


def paint_waves(canvas: Canvas) -> Iterator[Stroke]:
    """Stack sheets of cut paper with soft shadows, under a sun."""
    rng = canvas.random("waves")
    colours = [canvas.accents[0], *canvas.accents[1:4], canvas.near]

    def sheet(share: float) -> None:
        line = rolling(
            rng, canvas.width, canvas.height * (0.3 + 0.66 * share), canvas.unit * 0.09, rng.uniform(0.6, 1.5)
        )
        stop = min(int(share * 4), 3)
        colour = mix(colours[stop], colours[stop + 1], share * 4 - stop)
        shadow = Image.new("L", (canvas.width // 8, canvas.height // 8))
        ImageDraw.Draw(shadow).polygon(
            [*((x / 8, y / 8) for x, y in line), (shadow.width, shadow.height), (0, shadow.height)], fill=110
        )
        shadow = shadow.filter(ImageFilter.GaussianBlur(canvas.unit * 0.0018)).resize(
            canvas.image.size, Image.Resampling.BICUBIC
        )
        canvas.image.paste(mix(canvas.near, (0, 0, 0), 0.5), (0, -round(canvas.unit * 0.012)), shadow)
        canvas.ground(line, mix(colour, canvas.light, 0.12), colour, canvas.unit * 0.3)

    yield partial(canvas.disc, canvas.light_x, canvas.height * 0.24, canvas.unit * 0.13, canvas.accents[3])
    for index in range(7):
        yield partial(sheet, index / 6)


def paint_arcs(canvas: Canvas) -> Iterator[Stroke]:
    """Tile the picture with quarter circles, half circles and petals."""
    rng = canvas.random("arcs")
    across = rng.choice((4, 5, 6))
    side = math.ceil(min(canvas.width, canvas.height) / across / 2) * 2
    colours = [*canvas.accents, canvas.sky[0], canvas.near]

    def tile(x: float, y: float) -> None:
        back, front, dot = rng.sample(colours, 3)
        canvas.draw.rectangle((x, y, x + side, y + side), fill=back)
        turn, kind = rng.randrange(4), rng.randrange(4)
        cx, cy = x + side * (turn in (1, 2)), y + side * (turn in (2, 3))
        for share, colour in ((1, front), (0.62, dot), (0.3, back))[: 1 + kind]:
            radius = side * share
            canvas.draw.pieslice(
                (cx - radius, cy - radius, cx + radius, cy + radius), turn * 90, turn * 90 + 90, fill=colour
            )

    for row in range(math.ceil(canvas.height / side)):
        for column in range(math.ceil(canvas.width / side)):
            yield partial(tile, column * side, row * side)


ABSTRACTS = (paint_ribbons, paint_discs, paint_waves, paint_arcs)
