"""Land and water: mountains, hills, a city, the sea and a desert.

Every paint_ function yields its strokes in painting order, from far to near.
"""

import math
from functools import partial
from itertools import pairwise, takewhile
from random import Random
from typing import NamedTuple

from PIL import Image

from engines.painter.canvas import Canvas, Strokes
from engines.painter.colours import Colour, gradient, mix
from engines.painter.curves import Point, hill_line, lerp, ridge_line

UPSIDE_DOWN = Image.Transpose.FLIP_TOP_BOTTOM

# -- Mountains --------------------------------------------------------------------------------


class MountainRange(NamedTuple):
    """One range; foot and snow line are heights in the picture, as y."""

    nearness: float
    foot: float
    height: float
    snow_line: float
    colour: Colour
    foot_colour: Colour


def paint_mountains(canvas: Canvas) -> Strokes:
    """Raise ranges one before the other, each paler at its foot."""
    rng = canvas.random("mountains")
    half = canvas.unit * 0.12
    for nearness in (0, 0.4, 0.8):
        yield partial(
            _paint_range,
            canvas,
            rng,
            nearness,
        )
        middle = canvas.horizon + canvas.unit * 0.04 * nearness
        yield partial(
            canvas.veil,
            top=middle - half,
            bottom=middle + half,
            colour=canvas.mist,
            strength=0.5,
        )


def _paint_range(
    canvas: Canvas,
    rng: Random,
    nearness: float,
) -> None:
    mountains = _choose_range(canvas, rng, nearness)
    controls = _peaks_and_valleys(canvas, rng, mountains)
    slopes = []
    for start, end in pairwise(controls):
        slope = ridge_line(
            rng,
            start,
            end,
            roughness=0.2,
            splits=5,
        )
        slopes.append(slope)
    canvas.fill_below(
        [point for slope in slopes for point in slope],
        top=mountains.colour,
        bottom=mountains.foot_colour,
        reach=mountains.height,
    )
    for left, right in pairwise(slopes):
        peak_y = left[-1][1]
        left_end_y = left[0][1]
        if peak_y <= left_end_y:
            _shade_peak(
                canvas,
                rng,
                mountains,
                left,
                right,
            )


def _choose_range(
    canvas: Canvas,
    rng: Random,
    nearness: float,
) -> MountainRange:
    foot = canvas.horizon
    if not canvas.has("sea"):
        foot += canvas.unit * (0.02 + 0.05 * nearness)
    highest = canvas.unit * (0.34 - 0.14 * nearness)
    height = highest * rng.uniform(0.85, 1.15)
    colour = canvas.land(nearness * 0.75)
    return MountainRange(
        nearness=nearness,
        foot=foot,
        height=height,
        snow_line=foot - height * 0.62,
        colour=colour,
        foot_colour=mix(colour, canvas.mist, 0.75),
    )


def _peaks_and_valleys(
    canvas: Canvas,
    rng: Random,
    mountains: MountainRange,
) -> list[Point]:
    """Place peaks and valleys in turn, from left of the picture to right of it."""
    step = canvas.unit * (0.3 - 0.08 * mountains.nearness)
    points = []
    x = -step * rng.random() - step
    is_peak = True
    while x < canvas.width + step * 2:
        rise = rng.uniform(0.58, 1) if is_peak else rng.uniform(0.1, 0.3)
        y = mountains.foot - mountains.height * rise
        points.append((x, y))
        x += step * rng.uniform(0.35, 0.75)
        is_peak = not is_peak
    return points


def _shade_peak(
    canvas: Canvas,
    rng: Random,
    mountains: MountainRange,
    left: list[Point],
    right: list[Point],
) -> None:
    """Shade the side of one peak away from the light, and put snow on a high one."""
    left_from_peak = left[::-1]
    dark_side = right if canvas.is_lit_from_left else left_from_peak
    peak_y = dark_side[0][1]
    seam_end = _seam_end(mountains, dark_side)
    seam = _seam(
        rng,
        start=dark_side[0],
        end=seam_end,
        jitter=mountains.height,
    )
    peak_colour = _colour_at(mountains, peak_y)
    canvas.fill(
        [*dark_side, *seam[::-1]],
        top=mix(peak_colour, canvas.near, 0.3),
        bottom=_colour_at(mountains, seam_end[1]),
    )
    if peak_y <= mountains.snow_line - mountains.height * 0.05:
        _paint_snow_cap(
            canvas,
            rng,
            mountains,
            left_from_peak,
            right,
        )


def _seam_end(
    mountains: MountainRange,
    dark_side: list[Point],
) -> Point:
    """Place the foot of the line that parts the lit from the dark side, almost below the peak."""
    peak_x, _ = dark_side[0]
    valley_x, valley_y = dark_side[-1]
    x = lerp(peak_x, valley_x, 0.1)
    y = valley_y + mountains.height * 0.1
    return x, min(mountains.foot, y)


def _seam(
    rng: Random,
    start: Point,
    end: Point,
    jitter: float,
) -> list[Point]:
    """Wind a line from a peak down to its foot."""
    start_x, start_y = start
    end_x, end_y = end
    points = []
    for part in range(8):
        share = part / 7
        aside = rng.uniform(-0.03, 0.03) * jitter
        if part == 0:
            aside = 0
        x = lerp(start_x, end_x, share) + aside
        y = lerp(start_y, end_y, share)
        points.append((x, y))
    return points


def _colour_at(
    mountains: MountainRange,
    y: float,
) -> Colour:
    """Give the colour of a range at one height: the lower, the paler."""
    height = (mountains.foot - y) / mountains.height
    return mix(
        mountains.colour,
        mountains.foot_colour,
        max(0, 1 - height),
    )


def _paint_snow_cap(
    canvas: Canvas,
    rng: Random,
    mountains: MountainRange,
    left_from_peak: list[Point],
    right: list[Point],
) -> None:
    """Cover a peak with snow down to the snow line, with a ragged lower edge."""
    left_snow = _above(left_from_peak, mountains.snow_line)
    right_snow = _above(right, mountains.snow_line)
    ridge = left_snow[::-1] + right_snow
    lower_edge = []
    for x, y in ridge[::-2]:
        depth = mountains.snow_line - y
        edge_y = y + depth * rng.uniform(0.35, 0.95)
        lower_edge.append((x, edge_y))
    white = mix(
        canvas.light,
        canvas.mist,
        0.3 + 0.4 * (1 - mountains.nearness),
    )
    canvas.polygon(ridge + lower_edge, colour=(*white, 190))


def _above(
    slope: list[Point],
    snow_line: float,
) -> list[Point]:
    """Follow a slope down from its peak as far as it lies above the snow line."""
    return list(takewhile(lambda point: point[1] < snow_line, slope))


# -- Hills ------------------------------------------------------------------------------------


def paint_hills(canvas: Canvas) -> Strokes:
    """Roll soft hills, one before the other."""
    rng = canvas.random("hills")
    for nearness in (0, 0.2, 0.45, 0.72, 1):
        yield partial(
            _paint_hill,
            canvas,
            rng,
            nearness,
        )


def _paint_hill(
    canvas: Canvas,
    rng: Random,
    nearness: float,
) -> None:
    line = hill_line(
        rng,
        canvas.width,
        level=canvas.ground_y(nearness * 0.8 - 0.1),
        swell=canvas.unit * (0.06 - 0.02 * nearness),
        humps=rng.uniform(0.5, 1.3),
    )
    colour = canvas.land(0.15 + nearness * 0.8)
    haze = 0.42 * (1 - nearness)
    canvas.fill_below(
        line,
        top=colour,
        bottom=mix(colour, canvas.mist, haze),
        reach=canvas.unit * 0.24,
    )


# -- City -------------------------------------------------------------------------------------


class Tower(NamedTuple):
    x: float
    top: float
    width: float
    bottom: float
    nearness: float
    colour: Colour


class Window(NamedTuple):
    left: float
    top: float
    width: float
    height: float
    nearness: float


class WindowGrid(NamedTuple):
    # The width of a column.
    cell: float
    left: float
    columns: int
    rows: int


class RoofStyle(NamedTuple):
    """Which parts stand on the roof of a tower."""

    has_antenna: bool = False
    has_storey: bool = False
    has_slope: bool = False


ROOF_STYLES = (
    RoofStyle(has_antenna=True, has_storey=True),
    RoofStyle(has_storey=True),
    RoofStyle(has_slope=True),
    RoofStyle(),
    RoofStyle(),
)


def paint_city(canvas: Canvas) -> Strokes:
    """Build rows of towers, the near ones with brighter windows."""
    rng = canvas.random("city")
    foot = _city_foot(canvas)
    for nearness in (0, 0.35, 0.7, 1):
        yield partial(
            _paint_towers,
            canvas,
            rng,
            nearness,
        )
        yield partial(
            canvas.veil,
            top=canvas.horizon - canvas.unit * 0.2,
            bottom=foot + canvas.unit * 0.1,
            colour=mix(canvas.mist, canvas.accents[0], 0.3),
            strength=0.22,
        )


def _city_foot(canvas: Canvas) -> float:
    """The y where the city ends: at the shore, or at the bottom of the picture."""
    if canvas.has("sea"):
        return canvas.horizon + canvas.unit * 0.01
    return canvas.height


def _paint_towers(
    canvas: Canvas,
    rng: Random,
    nearness: float,
) -> None:
    """Paint a row of towers, the highest ones in the middle of the picture."""
    bottom = canvas.ground_y(0.3 + nearness)
    sunk = 0.2 * nearness
    if canvas.has("sea"):
        bottom = _city_foot(canvas)
        sunk = 0
    x = -canvas.unit * 0.05
    while x < canvas.width:
        base_width = canvas.unit * rng.uniform(0.05, 0.1)
        width = base_width * (0.7 + 0.5 * nearness)
        middle = (x + width / 2) / canvas.width
        centrality = 1 - abs(middle - 0.5)
        rise = 0.34 * centrality * rng.uniform(0.3, 1.1) - sunk
        tower = Tower(
            x=x,
            top=canvas.horizon - canvas.unit * rise,
            width=width,
            bottom=bottom,
            nearness=nearness,
            colour=_tower_colour(canvas, rng, nearness),
        )
        _paint_tower(canvas, rng, tower)
        x += width * rng.uniform(0.85, 1.12)


def _tower_colour(
    canvas: Canvas,
    rng: Random,
    nearness: float,
) -> Colour:
    land = canvas.land(0.1 + 0.9 * nearness)
    haze = 0.3 * (1 - nearness)
    hazy = mix(land, canvas.mist, haze)
    return mix(hazy, canvas.far, rng.uniform(0, 0.3))


def _paint_tower(
    canvas: Canvas,
    rng: Random,
    tower: Tower,
) -> None:
    roof = rng.choice(ROOF_STYLES)
    _paint_roof(canvas, tower, roof)
    right = tower.x + tower.width
    canvas.fill(
        [
            (tower.x, tower.top),
            (right, tower.top),
            (right, tower.bottom),
            (tower.x, tower.bottom),
        ],
        top=tower.colour,
        bottom=mix(tower.colour, canvas.mist, 0.25),
        reach=canvas.unit * 0.7,
    )
    _light_windows(canvas, rng, tower)


def _paint_roof(
    canvas: Canvas,
    tower: Tower,
    roof: RoofStyle,
) -> None:
    x = tower.x
    top = tower.top
    width = tower.width
    if roof.has_antenna:
        middle = x + width / 2
        canvas.line(
            [(middle, top - width * 0.9), (middle, top)],
            colour=tower.colour,
            width=width / 18,
        )
    if roof.has_storey:
        canvas.rectangle(
            left=x + width * 0.2,
            top=top - width * 0.25,
            right=x + width * 0.8,
            bottom=top,
            colour=tower.colour,
        )
    if roof.has_slope:
        right = x + width
        slope = [
            (x, top),
            (right, top - width * 0.5),
            (right, top),
        ]
        canvas.polygon(slope, tower.colour)


def _light_windows(
    canvas: Canvas,
    rng: Random,
    tower: Tower,
) -> None:
    """Light some of the windows of a tower, more of them when it is dark."""
    is_dark = canvas.mood in ("night", "sunset", "rain")
    lit_share = 0.36 if is_dark else 0.18
    grid = _window_grid(canvas, tower)
    cell = grid.cell
    for row in range(grid.rows):
        for column in range(grid.columns):
            if rng.random() > lit_share:
                continue
            window = Window(
                left=grid.left + column * cell + cell * 0.2,
                top=tower.top + (row + 0.6) * cell * 1.25,
                width=cell * 0.5,
                height=cell * 0.62,
                nearness=tower.nearness,
            )
            _paint_window(canvas, rng, window)


def _window_grid(
    canvas: Canvas,
    tower: Tower,
) -> WindowGrid:
    """Fit a grid of windows into the visible part of a tower, centred on it."""
    cell = canvas.unit * (0.009 + 0.006 * tower.nearness)
    columns = int(tower.width / cell) - 1
    margin = (tower.width - columns * cell) / 2
    visible_height = min(tower.bottom, canvas.height) - tower.top
    return WindowGrid(
        cell=cell,
        left=tower.x + margin,
        columns=columns,
        rows=int(visible_height / cell / 1.25),
    )


def _paint_window(
    canvas: Canvas,
    rng: Random,
    window: Window,
) -> None:
    lamp = rng.choice(canvas.accents[:2])
    colour = mix(lamp, canvas.light, rng.random())
    opacity = round(60 + 170 * window.nearness)
    canvas.rectangle(
        left=window.left,
        top=window.top,
        right=window.left + window.width,
        bottom=window.top + window.height,
        colour=(*colour, opacity),
    )


# -- Sea --------------------------------------------------------------------------------------


class Dash(NamedTuple):
    """A short bright stroke on the water."""

    x: float
    nearness: float
    colour: Colour
    opacity: int


def paint_sea(canvas: Canvas) -> Strokes:
    """Mirror what stands above the horizon, and lay a path of light under the sun or moon."""
    rng = canvas.random("sea")
    yield partial(_paint_reflection, canvas, rng)
    for _ in range(3):
        yield partial(_paint_foam, canvas, rng)
    if canvas.has("sun", "moon"):
        for _ in range(2):
            yield partial(_paint_glitter, canvas, rng)


def _paint_reflection(
    canvas: Canvas,
    rng: Random,
) -> None:
    """Mirror the picture above the horizon, in rows shifted sideways like ripples."""
    top = round(canvas.horizon)
    depth = canvas.height - top
    water = _mirror_image(canvas, top, depth)
    canvas.paste(water, 0, top)
    y = 0
    while y < depth:
        height = canvas.unit * (0.002 + 0.006 * y / depth)
        height = max(1, round(height))
        ripple = math.sin(y * 31.7 / height)
        swing = canvas.unit * (0.002 + 0.014 * y / depth)
        row = water.crop((0, y, canvas.width, y + height))
        canvas.paste(
            row,
            x=swing * ripple * rng.uniform(0.3, 1),
            y=top + y,
        )
        y += height


def _mirror_image(
    canvas: Canvas,
    top: int,
    depth: int,
) -> Image.Image:
    """Make the water out of what stands above it, blended with colours of the deep."""
    highest = max(0, top - round(depth * 1.3))
    above = canvas.image.crop((0, highest, canvas.width, top))
    mirrored = above.transpose(UPSIDE_DOWN)
    mirrored = mirrored.resize((canvas.width, depth))
    colours = [
        canvas.mist,
        mix(canvas.sky[0], canvas.near, 0.3),
        mix(canvas.sky[0], canvas.near, 0.7),
    ]
    return Image.blend(
        mirrored,
        gradient(mirrored.size, colours),
        0.42,
    )


def _paint_foam(
    canvas: Canvas,
    rng: Random,
) -> None:
    foam = mix(canvas.mist, canvas.light, 0.5)
    for _ in range(canvas.count(70)):
        dash = Dash(
            x=rng.uniform(0, canvas.width),
            nearness=rng.random() ** 1.3,
            colour=foam,
            opacity=60,
        )
        _paint_dash(canvas, rng, dash)


def _paint_glitter(
    canvas: Canvas,
    rng: Random,
) -> None:
    """Scatter light below the sun or moon, wider towards the bottom of the picture."""
    for _ in range(canvas.count(130)):
        nearness = rng.random() ** 1.6
        spread = canvas.light_radius * (0.5 + 1.1 * nearness)
        dash = Dash(
            x=rng.gauss(canvas.light_x, spread),
            nearness=nearness,
            colour=canvas.light,
            opacity=190,
        )
        _paint_dash(canvas, rng, dash)


def _paint_dash(
    canvas: Canvas,
    rng: Random,
    dash: Dash,
) -> None:
    top = round(canvas.horizon)
    y = top + dash.nearness * (canvas.height - top)
    longest = canvas.unit * (0.006 + 0.05 * dash.nearness)
    half_width = longest * rng.uniform(0.4, 1.3)
    thickness = canvas.unit * (0.0008 + 0.0026 * dash.nearness)
    opacity = round(dash.opacity * rng.uniform(0.4, 1))
    canvas.ellipse(
        dash.x,
        y,
        half_width=half_width,
        half_height=max(0.7, thickness),
        colour=(*dash.colour, opacity),
    )


# -- Desert -----------------------------------------------------------------------------------


class Dune(NamedTuple):
    nearness: float
    peak_x: float
    # The y of its foot.
    base: float
    width: float
    height: float


# How many pieces the outline of a side has.
DUNE_PIECES = 24


def paint_desert(canvas: Canvas) -> Strokes:
    """Heap dunes, each with a lit and a shaded side parted by a winding crest."""
    rng = canvas.random("desert")
    for nearness in (0, 0.15, 0.3, 0.5, 0.75, 1):
        yield partial(
            _paint_dune,
            canvas,
            rng,
            nearness,
        )


def _paint_dune(
    canvas: Canvas,
    rng: Random,
    nearness: float,
) -> None:
    dune = Dune(
        nearness=nearness,
        base=canvas.ground_y(nearness),
        width=canvas.width * rng.uniform(0.5, 0.8),
        height=canvas.unit * (0.07 + 0.2 * nearness),
        peak_x=canvas.width * rng.uniform(0.1, 0.9),
    )
    left_side = _left_side(dune)
    right_side = _right_side(dune)
    lit = mix(
        canvas.land(0.1 + 0.5 * nearness),
        canvas.light,
        0.25,
    )
    low = dune.base + dune.height * 0.6
    canvas.fill_below(
        [
            (-canvas.width, low),
            *left_side,
            *right_side,
            (canvas.width * 2, low),
        ],
        top=lit,
        bottom=mix(lit, canvas.land(0.6), 0.6),
        reach=dune.height * 2,
    )
    dark_side = right_side if canvas.is_lit_from_left else left_side[::-1]
    _shade_dune(canvas, dune, dark_side, lit)


def _ease_curve() -> list[tuple[float, float]]:
    """List points of an S-shaped curve from 0, 0 to 1, 1: flat, then steep, then flat again."""
    points = []
    for piece in range(DUNE_PIECES + 1):
        share = piece / DUNE_PIECES
        angle = math.pi * piece / DUNE_PIECES
        eased = (1 - math.cos(angle)) / 2
        points.append((share, eased))
    return points


EASE_CURVE = _ease_curve()


def _left_side(dune: Dune) -> list[Point]:
    """Rise gently to the peak."""
    points = []
    for share, eased in EASE_CURVE:
        x = dune.peak_x - dune.width * (1 - share)
        y = dune.base - dune.height * eased**1.5
        points.append((x, y))
    return points


def _right_side(dune: Dune) -> list[Point]:
    """Fall from the peak, over a shorter way than the left side rises."""
    points = []
    for share, eased in EASE_CURVE:
        x = dune.peak_x + dune.width * 0.8 * share
        y = dune.base - dune.height * (1 - eased) ** 1.2
        points.append((x, y))
    return points


def _shade_dune(
    canvas: Canvas,
    dune: Dune,
    dark_side: list[Point],
    lit: Colour,
) -> None:
    crest = _crest(canvas, dune)
    land = canvas.land(0.35 + 0.65 * dune.nearness)
    shade = mix(land, canvas.sky[0], 0.12)
    canvas.fill(
        [*dark_side, *crest[::-1]],
        top=shade,
        bottom=mix(shade, lit, 0.85),
        reach=dune.height * 1.9,
    )


def _crest(
    canvas: Canvas,
    dune: Dune,
) -> list[Point]:
    """Wind a line from the peak down to the foot, which parts light from shade."""
    side = -1 if canvas.is_lit_from_left else 1
    sway = dune.width * 0.18 * side
    peak_y = dune.base - dune.height
    foot_x = dune.peak_x - sway * 0.6
    foot_y = dune.base + dune.height * 0.9
    points = []
    for share, eased in EASE_CURVE:
        wave = sway * math.sin(share * math.tau) * 0.5
        x = lerp(dune.peak_x, foot_x, share) + wave
        y = lerp(peak_y, foot_y, eased)
        points.append((x, y))
    return points
