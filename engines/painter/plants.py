"""What grows on the land: forests and flower meadows.

Every paint_ function yields its strokes in painting order, from far to near.
"""

import math
from functools import partial
from random import Random
from typing import NamedTuple

from engines.painter.canvas import Canvas, Strokes
from engines.painter.colours import WHITE, Colour, mix, rgb
from engines.painter.curves import Point, height_at, hill_line, lerp, smooth

# -- Forest -----------------------------------------------------------------------------------

BARK = (20, 12, 10)
PINE_TIERS = 7
FOREST_ROWS = (0, 0.25, 0.5, 0.75, 1)


class Tree(NamedTuple):
    x: float
    foot: float
    height: float
    colour: Colour


def paint_forest(canvas: Canvas) -> Strokes:
    """Plant rows of trees, the far ones small and pale in the mist."""
    rng = canvas.random("forest")
    # Where there is something else to see, trees stand in front only, to the left and right.
    is_frame = canvas.has("sea", "flower", "city", "desert")
    for nearness in FOREST_ROWS:
        if is_frame and nearness < 0.75:
            continue
        yield partial(
            _paint_trees,
            canvas,
            rng,
            nearness,
            is_frame,
        )
        middle = canvas.ground_y(nearness)
        yield partial(
            canvas.veil,
            top=middle - canvas.unit * 0.1,
            bottom=middle + canvas.unit * 0.16,
            colour=canvas.mist,
            strength=0.34 * (1 - nearness),
        )


def _paint_trees(
    canvas: Canvas,
    rng: Random,
    nearness: float,
    is_frame: bool,
) -> None:
    """Paint a row of trees, then the ground before their feet."""
    size = canvas.unit * (0.09 + 0.2 * nearness)
    line = hill_line(
        rng,
        canvas.width,
        level=canvas.ground_y(0.06 + 0.84 * nearness**1.3),
        swell=canvas.unit * 0.045,
        humps=rng.uniform(0.6, 1.4),
    )
    colour = mix(canvas.far, canvas.near, 0.35 + 0.65 * nearness)
    paint_tree = _paint_leafy_tree if _is_leafy(canvas) else _paint_pine
    for _ in range(canvas.count(canvas.width / size * 3.2)):
        x = rng.uniform(-0.02, 1.02) * canvas.width
        if is_frame and _is_in_the_way(canvas, rng, x):
            continue
        tree = Tree(
            x=x,
            foot=height_at(line, x) + size * 0.06,
            height=size * rng.uniform(0.45, 1.1),
            colour=mix(colour, canvas.far, rng.uniform(0, 0.2)),
        )
        paint_tree(canvas, rng, tree)
    _paint_forest_floor(
        canvas,
        line,
        nearness,
        reach=size * 1.2,
    )


def _is_leafy(canvas: Canvas) -> bool:
    if canvas.has("autumn"):
        return True
    return canvas.mood == "spring" and not canvas.has("snow")


def _is_in_the_way(
    canvas: Canvas,
    rng: Random,
    x: float,
) -> bool:
    """Whether a tree at x would hide the middle of the picture."""
    distance = abs(x / canvas.width - 0.5)
    return distance < 0.3 * rng.random() + 0.12


def _paint_forest_floor(
    canvas: Canvas,
    line: list[Point],
    nearness: float,
    reach: float,
) -> None:
    colour = canvas.land(0.2 + 0.8 * nearness)
    haze = 0.55 * (1 - nearness)
    canvas.fill_below(
        line,
        top=colour,
        bottom=mix(colour, canvas.mist, haze),
        reach=reach,
    )


class Tier(NamedTuple):
    """A tier of branches of a pine: two tips, and two notches towards the next tier."""

    left_x: float
    right_x: float
    y: float
    notch_left_x: float
    notch_right_x: float
    notch_y: float


def _paint_pine(
    canvas: Canvas,
    rng: Random,
    tree: Tree,
) -> None:
    x, foot, height, colour = tree
    width = height * rng.uniform(0.17, 0.23)
    left = [(x, foot - height)]
    right = []
    for number in range(1, PINE_TIERS + 1):
        tier = _choose_tier(
            rng,
            tree,
            width,
            share=number / PINE_TIERS,
        )
        left.append((tier.left_x, tier.y))
        left.append((tier.notch_left_x, tier.notch_y))
        right.append((tier.right_x, tier.y))
        right.append((tier.notch_right_x, tier.notch_y))
    trunk = [
        (x - height * 0.015, foot),
        (x + height * 0.015, foot),
    ]
    canvas.polygon([*left, *trunk, *right[::-1]], colour)
    if canvas.has("snow"):
        _paint_snow_on_pine(canvas, tree, left)


def _choose_tier(
    rng: Random,
    tree: Tree,
    width: float,
    share: float,
) -> Tier:
    """Choose the tier at a share of the way down from the top of the tree."""
    reach = width * share**0.85
    y = tree.foot - tree.height * (1 - share * 0.93)
    return Tier(
        left_x=tree.x - reach * rng.uniform(0.8, 1.15),
        right_x=tree.x + reach * rng.uniform(0.8, 1.15),
        y=y,
        notch_left_x=tree.x - reach * 0.5,
        notch_right_x=tree.x + reach * 0.5,
        notch_y=y - tree.height * 0.025,
    )


def _paint_snow_on_pine(
    canvas: Canvas,
    tree: Tree,
    left: list[Point],
) -> None:
    """Lay snow on the left side of the upper tiers."""
    edge = []
    for edge_x, edge_y in left[:7]:
        x = lerp(tree.x, edge_x, 0.8)
        y = edge_y - tree.height * 0.02
        edge.append((x, y))
    _, lowest_y = left[6]
    end = (tree.x, lowest_y - tree.height * 0.1)
    white = mix(canvas.mist, WHITE, 0.6)
    canvas.polygon([*edge, end], colour=(*white, 150))


# The puffs of leaves of one tree, in painting order: how bright each is.
LEAF_LIGHTS = (0, 0, 0, 0.12, 0.12, 0.2)


def _paint_leafy_tree(
    canvas: Canvas,
    rng: Random,
    tree: Tree,
) -> None:
    x, foot, height, colour = tree
    canvas.line(
        [(x, foot), (x, foot - height * 0.6)],
        colour=mix(colour, BARK, 0.4),
        width=height * 0.035,
    )
    leaves = _leaf_colour(canvas, rng, colour)
    for light in LEAF_LIGHTS:
        _paint_leaves(
            canvas,
            rng,
            tree,
            light,
            colour=mix(leaves, canvas.light, light),
        )


def _paint_leaves(
    canvas: Canvas,
    rng: Random,
    tree: Tree,
    light: float,
    colour: Colour,
) -> None:
    """Paint a puff of leaves; a bright one is smaller, higher, and further to the left."""
    x, foot, height, _ = tree
    shift_left = light * height * 0.2
    lift = height * (0.64 + light * 0.4)
    puff_x = x + rng.gauss(0, height * 0.1) - shift_left
    puff_y = foot - lift + rng.gauss(0, height * 0.08)
    radius = height * rng.uniform(0.13, 0.22)
    canvas.disc(
        puff_x,
        puff_y,
        radius=radius * (1 - light),
        colour=colour,
    )


def _leaf_colour(
    canvas: Canvas,
    rng: Random,
    shade: Colour,
) -> Colour:
    leaves = rng.choice(canvas.accents) if canvas.has("autumn") else canvas.land(0.6)
    return mix(leaves, shade, rng.uniform(0.15, 0.5))


# -- Flowers ----------------------------------------------------------------------------------

MEADOW_ROWS = (
    0.02,
    0.07,
    0.14,
    0.22,
    0.32,
    0.44,
    0.58,
    0.75,
    0.95,
)
FLOWER_HEART = rgb("f2b632")


class Meadow(NamedTuple):
    # The y of its far end.
    top: float
    turf: Colour


class MeadowRow(NamedTuple):
    """The grass and flowers of one nearness."""

    y: float
    # The height of its plants.
    size: float


class Blossom(NamedTuple):
    x: float
    y: float
    radius: float
    # How round it looks: 1 from above, less from the side.
    tilt: float
    colour: Colour


def paint_flowers(canvas: Canvas) -> Strokes:
    """Grow a meadow: grass and flowers, larger towards the bottom of the picture."""
    rng = canvas.random("flowers")
    meadow = Meadow(
        top=canvas.ground_y(0.3),
        turf=canvas.land(0.75),
    )
    line = hill_line(
        rng,
        canvas.width,
        level=meadow.top,
        swell=canvas.unit * 0.03,
        humps=0.8,
    )
    yield partial(
        canvas.fill_below,
        line,
        top=mix(meadow.turf, canvas.mist, 0.45),
        bottom=canvas.near,
        reach=canvas.unit * 0.4,
    )
    for nearness in MEADOW_ROWS:
        yield partial(
            _paint_meadow_row,
            canvas,
            rng,
            meadow,
            nearness,
        )


def _paint_meadow_row(
    canvas: Canvas,
    rng: Random,
    meadow: Meadow,
    nearness: float,
) -> None:
    depth = canvas.height * 1.04 - meadow.top
    size = canvas.unit * (0.015 + 0.13 * nearness**1.4)
    row = MeadowRow(
        y=meadow.top + depth * nearness,
        size=size,
    )
    fitting = canvas.width / size
    for _ in range(canvas.count(min(260, fitting * 5))):
        _paint_blade(canvas, rng, row, meadow.turf)
    for _ in range(canvas.count(min(90, fitting * 0.8))):
        _paint_flower(canvas, rng, row)


def _choose_foot(
    canvas: Canvas,
    rng: Random,
    row: MeadowRow,
) -> Point:
    """Choose where a plant grows."""
    x = rng.uniform(0, canvas.width)
    y = row.y + rng.uniform(-0.6, 0.6) * row.size
    return x, y


def _paint_blade(
    canvas: Canvas,
    rng: Random,
    row: MeadowRow,
    turf: Colour,
) -> None:
    """Paint a blade of grass, bent to one side."""
    x, foot = _choose_foot(canvas, rng, row)
    colour = mix(turf, canvas.near, rng.uniform(0, 0.9))
    lean = rng.gauss(0, row.size * 0.3)
    height = row.size * rng.uniform(0.6, 1.2)
    half_width = max(0.8, row.size * 0.035)
    bend_half_width = half_width * 0.7
    bend_x = x + lean * 0.3
    bend_y = foot - height * 0.55
    outline = [
        (x - half_width, foot),
        (bend_x - bend_half_width, bend_y),
        (x + lean, foot - height),
        (bend_x + bend_half_width, bend_y),
        (x + half_width, foot),
    ]
    canvas.polygon(outline, colour)


def _paint_flower(
    canvas: Canvas,
    rng: Random,
    row: MeadowRow,
) -> None:
    foot = _choose_foot(canvas, rng, row)
    size = row.size * rng.uniform(0.8, 1.35)
    accent = rng.choice(canvas.accents)
    colour = mix(accent, canvas.light, rng.uniform(0, 0.2))
    x = foot[0] + rng.gauss(0, size * 0.15)
    y = foot[1] - size
    radius = size * rng.uniform(0.2, 0.27)
    _paint_stem(
        canvas,
        foot,
        head=(x, y),
        size=size,
    )
    if radius < canvas.unit * 0.006:
        canvas.disc(x, y, radius, colour)
        return
    petals = rng.choice((5, 6, 8, 10))
    turn = rng.uniform(0, 7)
    blossom = Blossom(
        x=x,
        y=y,
        radius=radius,
        tilt=rng.uniform(0.55, 0.95),
        colour=colour,
    )
    _paint_petals(canvas, blossom, petals, turn)
    canvas.disc(
        x,
        y,
        radius=radius * 0.3,
        colour=mix(FLOWER_HEART, canvas.near, 0.12),
    )


def _paint_stem(
    canvas: Canvas,
    foot: Point,
    head: Point,
    size: float,
) -> None:
    foot_x, foot_y = foot
    head_x, _ = head
    bend_x = (foot_x + head_x) / 2
    bend_y = foot_y - size * 0.6
    canvas.line(
        [foot, (bend_x, bend_y), head],
        colour=mix(canvas.near, canvas.land(0.6), 0.4),
        width=size * 0.03,
    )


def _paint_petals(
    canvas: Canvas,
    blossom: Blossom,
    petals: int,
    turn: float,
) -> None:
    """Paint petals in a circle, every other one darker."""
    half_angle = math.pi / petals * 1.05
    for petal in range(petals):
        angle = turn + petal * math.tau / petals
        shade = canvas.near if petal % 2 else canvas.light
        outline = _petal_outline(blossom, angle, half_angle)
        canvas.polygon(
            smooth(outline, pieces=4),
            colour=mix(blossom.colour, shade, 0.12),
        )


def _petal_outline(
    blossom: Blossom,
    angle: float,
    half_angle: float,
) -> list[Point]:
    x, y, radius, tilt, _ = blossom
    # Direction and distance from the heart of the flower, in radii.
    rim = (
        (0, 0.12),
        (angle - half_angle, 0.7),
        (angle - half_angle * 0.5, 1),
        (angle + half_angle * 0.5, 1),
        (angle + half_angle, 0.7),
    )
    outline = []
    for direction, distance in rim:
        rim_x = x + radius * distance * math.cos(direction)
        rim_y = y + radius * distance * math.sin(direction) * tilt
        outline.append((rim_x, rim_y))
    return outline
