"""Abstract pictures, for prompts without a known word.

Every paint_ function yields its strokes in painting order.
"""

import math
from functools import partial
from itertools import pairwise
from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFilter

from engines.painter.canvas import Canvas, Strokes
from engines.painter.colours import BLACK, Colour, gradient, mix
from engines.painter.curves import Point, hill_line


def paint_backdrop(canvas: Canvas) -> Strokes:
    """Paint what lies behind an abstract."""
    yield partial(_paint_gradient, canvas)
    yield partial(
        canvas.glow,
        canvas.light_x,
        canvas.light_y,
        radius=canvas.unit * 0.8,
        colour=mix(canvas.mist, canvas.light, 0.4),
        strength=0.3,
    )


def _paint_gradient(canvas: Canvas) -> None:
    backdrop = gradient(canvas.size, canvas.sky)
    canvas.image.paste(backdrop)


# -- Ribbons ----------------------------------------------------------------------------------

RIBBONS = 22
RIBBON_PLACES = 26


class Wave(NamedTuple):
    """How the edges of ribbons bend: along their length, and from ribbon to ribbon."""

    along: float
    across: float
    phase: float


class Flow(NamedTuple):
    """What all ribbons of a picture share."""

    waves: list[Wave]
    tilt: float


def paint_ribbons(canvas: Canvas) -> Strokes:
    """Let bands of blended colour drift across, all bent by the same slow waves."""
    rng = canvas.random("ribbons")
    flow = Flow(
        waves=[_choose_wave(rng) for _ in range(3)],
        tilt=rng.uniform(-0.5, 0.5),
    )
    levels = []
    for place in range(RIBBON_PLACES):
        jitter = rng.uniform(-0.03, 0.03)
        levels.append(-0.35 + place * 0.065 + jitter)
    for level in rng.sample(levels, RIBBONS):
        yield partial(
            _paint_ribbon,
            canvas,
            rng,
            flow,
            level,
        )


def _choose_wave(rng: Random) -> Wave:
    return Wave(
        along=rng.uniform(1, 6),
        across=rng.uniform(0.6, 4),
        phase=rng.uniform(0, 7),
    )


def _paint_ribbon(
    canvas: Canvas,
    rng: Random,
    flow: Flow,
    level: float,
) -> None:
    """Paint a ribbon out of threads that blend one colour into another, some left out."""
    colour, other = rng.sample(canvas.accents, 2)
    threads = canvas.count(8)
    edges = []
    for thread in range(threads + 1):
        edge_level = level + 0.07 * thread / threads
        edges.append(_ribbon_edge(canvas, flow, edge_level))
    for thread, (upper, lower) in enumerate(pairwise(edges)):
        # Filled bands, not thick lines: Pillow rounds the width of each piece, which shows.
        if rng.random() < 0.75:
            canvas.polygon(
                upper + lower[::-1],
                colour=mix(colour, other, thread / threads),
            )


def _ribbon_edge(
    canvas: Canvas,
    flow: Flow,
    level: float,
) -> list[Point]:
    points = []
    for part in range(-1, 62):
        share = part / 60
        bend = _bend(flow.waves, share, level)
        slope = flow.tilt * (share - 0.5)
        x = share * canvas.width
        y = (level + slope + 0.1 * bend) * canvas.height
        points.append((x, y))
    return points


def _bend(
    waves: list[Wave],
    share: float,
    level: float,
) -> float:
    return sum(math.sin(along * share + across * level + phase) for along, across, phase in waves)


# -- Discs ------------------------------------------------------------------------------------

# The angle between neighbouring seeds of a sunflower, in radians.
GOLDEN_ANGLE = 2.39996

# How many rings a disc has: none as often as some.
RING_COUNTS = (0, 0, 1, 4)


def paint_discs(canvas: Canvas) -> Strokes:
    """Overlap large translucent discs along a spiral, with thin rings around some."""
    rng = canvas.random("discs")
    turn = rng.uniform(0, math.tau)
    for index in range(canvas.count(24), 0, -1):
        yield partial(
            _paint_disc,
            canvas,
            rng,
            index,
            turn,
        )


def _paint_disc(
    canvas: Canvas,
    rng: Random,
    index: int,
    turn: float,
) -> None:
    distance = 0.09 * math.sqrt(index) * rng.uniform(0.8, 1.2)
    angle = turn + index * GOLDEN_ANGLE
    offset_x = distance * math.cos(angle) * (canvas.width + canvas.unit)
    offset_y = distance * math.sin(angle) * (canvas.height + canvas.unit)
    x = canvas.width * 0.5 + offset_x * 0.62
    y = canvas.height * 0.5 + offset_y * 0.62
    size = canvas.unit * rng.uniform(0.05, 0.26)
    radius = size * (1 - index / 60)
    accent = rng.choice(canvas.accents)
    opacity = rng.randint(120, 215)
    canvas.disc(
        x,
        y,
        radius,
        colour=(*accent, opacity),
    )
    for ring in range(rng.choice(RING_COUNTS)):
        ring_accent = rng.choice(canvas.accents)
        canvas.ring(
            x,
            y,
            radius=radius * (1.12 + 0.12 * ring),
            colour=(*ring_accent, 220),
            width=canvas.unit * 0.003,
        )


# -- Waves ------------------------------------------------------------------------------------

SHEETS = 7
SHADOW_SCALE = 8


def paint_waves(canvas: Canvas) -> Strokes:
    """Stack sheets of cut paper with soft shadows, under a sun."""
    rng = canvas.random("waves")
    yield partial(
        canvas.disc,
        canvas.light_x,
        canvas.height * 0.24,
        radius=canvas.unit * 0.13,
        colour=canvas.accents[3],
    )
    for sheet in range(SHEETS):
        yield partial(
            _paint_sheet,
            canvas,
            rng,
            nearness=sheet / (SHEETS - 1),
        )


def _paint_sheet(
    canvas: Canvas,
    rng: Random,
    nearness: float,
) -> None:
    line = hill_line(
        rng,
        canvas.width,
        level=canvas.height * (0.3 + 0.66 * nearness),
        swell=canvas.unit * 0.09,
        humps=rng.uniform(0.6, 1.5),
    )
    _paint_shadow(canvas, line)
    colour = _sheet_colour(canvas, nearness)
    canvas.fill_below(
        line,
        top=mix(colour, canvas.light, 0.12),
        bottom=colour,
        reach=canvas.unit * 0.3,
    )


def _sheet_colour(
    canvas: Canvas,
    nearness: float,
) -> Colour:
    colours = [*canvas.accents[:4], canvas.near]
    place = nearness * 4
    stop = min(int(place), 3)
    return mix(
        colours[stop],
        colours[stop + 1],
        place - stop,
    )


def _paint_shadow(
    canvas: Canvas,
    line: list[Point],
) -> None:
    """Shade what lies behind a sheet, a little above its edge."""
    # Blurred at an eighth of the size, which is much faster and looks the same.
    width = canvas.width // SHADOW_SCALE
    height = canvas.height // SHADOW_SCALE
    mask = Image.new("L", (width, height))
    edge = [(x / SHADOW_SCALE, y / SHADOW_SCALE) for x, y in line]
    outline = [*edge, (width, height), (0, height)]
    ImageDraw.Draw(mask).polygon(outline, fill=110)
    blur = ImageFilter.GaussianBlur(canvas.unit * 0.0018)
    mask = mask.filter(blur)
    mask = mask.resize(canvas.size, Image.Resampling.BICUBIC)
    canvas.paste(
        mix(canvas.near, BLACK, 0.5),
        x=0,
        y=-round(canvas.unit * 0.012),
        mask=mask,
    )


# -- Arcs -------------------------------------------------------------------------------------

# The radii of the quarter circles in a tile, in sides of the tile.
ARC_SIZES = (1, 0.62, 0.3)

# How many of them a tile shows: all three as often as fewer.
ARC_COUNTS = (1, 2, 3, 3)


class Tile(NamedTuple):
    x: float
    y: float
    side: int


class Corner(NamedTuple):
    """A corner of a tile, and where the quarter circle around it starts, in degrees."""

    is_right: bool
    is_bottom: bool
    start_angle: int


CORNERS = (
    Corner(is_right=False, is_bottom=False, start_angle=0),
    Corner(is_right=True, is_bottom=False, start_angle=90),
    Corner(is_right=True, is_bottom=True, start_angle=180),
    Corner(is_right=False, is_bottom=True, start_angle=270),
)


def paint_arcs(canvas: Canvas) -> Strokes:
    """Tile the picture with quarter circles, half circles and petals."""
    rng = canvas.random("arcs")
    across = rng.choice((4, 5, 6))
    shorter = min(canvas.width, canvas.height)
    side = math.ceil(shorter / across / 2) * 2
    rows = math.ceil(canvas.height / side)
    columns = math.ceil(canvas.width / side)
    for row in range(rows):
        for column in range(columns):
            tile = Tile(
                x=column * side,
                y=row * side,
                side=side,
            )
            yield partial(
                _paint_tile,
                canvas,
                rng,
                tile,
            )


def _paint_tile(
    canvas: Canvas,
    rng: Random,
    tile: Tile,
) -> None:
    colours = [*canvas.accents, canvas.sky[0], canvas.near]
    back, front, dot = rng.sample(colours, 3)
    canvas.rectangle(
        left=tile.x,
        top=tile.y,
        right=tile.x + tile.side,
        bottom=tile.y + tile.side,
        colour=back,
    )
    corner = rng.choice(CORNERS)
    count = rng.choice(ARC_COUNTS)
    sizes = ARC_SIZES[:count]
    for size, colour in zip(sizes, (front, dot, back)):
        _paint_quarter_circle(
            canvas,
            tile,
            corner,
            radius=tile.side * size,
            colour=colour,
        )


def _paint_quarter_circle(
    canvas: Canvas,
    tile: Tile,
    corner: Corner,
    radius: float,
    colour: Colour,
) -> None:
    x = tile.x + tile.side * corner.is_right
    y = tile.y + tile.side * corner.is_bottom
    box = (
        x - radius,
        y - radius,
        x + radius,
        y + radius,
    )
    canvas.draw.pieslice(
        box,
        start=corner.start_angle,
        end=corner.start_angle + 90,
        fill=colour,
    )


ABSTRACTS = (
    paint_ribbons,
    paint_discs,
    paint_waves,
    paint_arcs,
)
