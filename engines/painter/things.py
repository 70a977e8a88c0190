"""Things and creatures: the house, the cat, the fox, boats, balloons and birds.

Every paint_ function yields its strokes in painting order.
"""

import math
from functools import partial
from random import Random
from typing import NamedTuple

from engines.painter.canvas import Canvas, Strokes
from engines.painter.colours import BLACK, Colour, mix, rgb
from engines.painter.curves import Point, height_at, hill_line, smooth
from engines.painter.words import SUBJECTS, motifs_in

# -- Cat, fox and house -----------------------------------------------------------------------


class Part(NamedTuple):
    """A part of a silhouette, in a box of 100 by 100; y runs down, 100 is the ground."""

    points: list[Point]
    is_round: bool


def _parse_points(text: str) -> list[Point]:
    pairs = [pair.split(",") for pair in text.split()]
    return [(int(x), int(y)) for x, y in pairs]


def _round(text: str) -> Part:
    return Part(_parse_points(text), is_round=True)


def _angular(text: str) -> Part:
    return Part(_parse_points(text), is_round=False)


SILHOUETTES = {
    "cat": (
        # Body, head, ears and tail.
        _round("37,36 63,36 70,62 74,90 66,100 34,100 26,90 30,62"),
        _round("50,13 62,16 66,27 60,38 40,38 34,27 38,16"),
        _angular("34,26 36,3 48,15"),
        _angular("66,26 64,3 52,15"),
        _round("62,95 80,99 95,90 98,72 93,60 90,63 92,74 88,85 78,91 66,87"),
    ),
    "fox": (
        # Body, front legs, head, ears and tail.
        _round("36,38 52,36 62,50 74,70 76,94 66,100 42,100 38,80 33,55"),
        _angular("37,60 47,60 47,100 36,100"),
        _angular("14,36 28,25 33,20 52,22 56,36 48,46 36,44"),
        _angular("31,24 35,2 45,20"),
        _angular("42,22 50,3 54,27"),
        _round("66,97 70,82 86,72 100,56 106,74 100,93 84,101"),
    ),
    "house": (
        # Walls, roof and chimney.
        _angular("14,52 86,52 86,100 14,100"),
        _angular("4,56 26,20 74,20 96,56"),
        _angular("66,8 76,8 76,30 66,30"),
    ),
}

MOUND_SHADE = (8, 8, 14)
LAMPLIGHT = rgb("ffd27a")


class Subject(NamedTuple):
    """A creature or the house; x is its middle, y its top."""

    name: str
    x: float
    top: float
    size: float


def paint_subjects(canvas: Canvas) -> Strokes:
    """Put the creatures and the house on a dark mound at the front."""
    rng = canvas.random("subjects")
    mound = hill_line(
        rng,
        canvas.width,
        level=canvas.height * 0.9,
        swell=canvas.unit * 0.025,
        humps=0.7,
    )
    colour = mix(canvas.near, MOUND_SHADE, 0.35)
    yield partial(
        canvas.veil,
        top=canvas.height * 0.6,
        bottom=canvas.height * 1.05,
        colour=canvas.mist,
        strength=0.45,
    )
    yield partial(
        canvas.fill_below,
        mound,
        top=colour,
        bottom=mix(colour, BLACK, 0.3),
        reach=canvas.unit * 0.12,
    )
    names = sorted(canvas.motifs & SUBJECTS)
    for name, share in zip(names, _subject_places(canvas)):
        subject = _place_subject(canvas, mound, name, share)
        yield partial(
            _paint_subject,
            canvas,
            subject,
            mix(colour, BLACK, 0.25),
        )


def _subject_places(canvas: Canvas) -> tuple[float, float, float]:
    """Give places from left (0) to right (1); the first is away from the light."""
    first = 0.7 if canvas.is_lit_from_left else 0.3
    second = 1 - first
    third = second + 0.2
    return first, second, third


def _place_subject(
    canvas: Canvas,
    mound: list[Point],
    name: str,
    share: float,
) -> Subject:
    x = canvas.width * share
    size = canvas.unit * (0.24 if name == "house" else 0.3)
    return Subject(
        name=name,
        x=x,
        top=height_at(mound, x) - size * 0.97,
        size=size,
    )


def _paint_subject(
    canvas: Canvas,
    subject: Subject,
    colour: Colour,
) -> None:
    if subject.name != "house":
        _paint_silhouette(canvas, subject, colour)
        return
    canvas.glow(
        subject.x - subject.size * 0.1,
        subject.top + subject.size * 0.75,
        radius=subject.size * 1.1,
        colour=canvas.accents[0],
        strength=0.4,
    )
    _paint_silhouette(canvas, subject, colour)
    for offset in (-0.24, 0.06):
        canvas.rectangle(
            left=subject.x + offset * subject.size,
            top=subject.top + subject.size * 0.64,
            right=subject.x + (offset + 0.16) * subject.size,
            bottom=subject.top + subject.size * 0.82,
            colour=mix(LAMPLIGHT, canvas.light, 0.3),
        )


def _paint_silhouette(
    canvas: Canvas,
    subject: Subject,
    colour: Colour,
) -> None:
    left = subject.x - subject.size / 2
    for part in SILHOUETTES[subject.name]:
        outline = _scale(
            part.points,
            left,
            subject.top,
            subject.size,
        )
        if part.is_round:
            outline = smooth(outline)
        canvas.polygon(outline, colour)


def _scale(
    points: list[Point],
    left: float,
    top: float,
    size: float,
) -> list[Point]:
    """Move points from a box of 100 by 100 to their place in the picture."""
    scaled = []
    for x, y in points:
        scaled_x = left + x * size / 100
        scaled_y = top + y * size / 100
        scaled.append((scaled_x, scaled_y))
    return scaled


# -- Boats ------------------------------------------------------------------------------------


class Boat(NamedTuple):
    """A sailing boat: x of its mast, y of its waterline, and its height."""

    x: float
    waterline: float
    size: float


# In sizes of the boat, from the foot of the mast; y runs up.
MAINSAIL = (
    (0.02, 0.88),
    (0.36, 0.22),
    (0.02, 0.19),
)
JIB = (
    (-0.02, 0.80),
    (-0.32, 0.22),
    (-0.02, 0.19),
)
HULL = (
    (-0.40, 0.14),
    (0.42, 0.16),
    (0.30, -0.01),
    (-0.28, -0.01),
)


def paint_boats(canvas: Canvas) -> Strokes:
    """Set sailing boats on the water, each over its own faint reflection."""
    rng = canvas.random("boats")
    for nearness in (0.06, 0.14, 0.42):
        size = canvas.unit * (0.07 + 0.2 * nearness)
        boat = Boat(
            x=canvas.width * rng.uniform(0.12, 0.88),
            waterline=canvas.ground_y(nearness) + size * 0.1,
            size=size,
        )
        yield partial(_paint_boat, canvas, boat)


def _paint_boat(
    canvas: Canvas,
    boat: Boat,
) -> None:
    _paint_hull_and_sails(
        canvas,
        boat,
        upright=-0.75,
        opacity=70,
    )
    _paint_hull_and_sails(
        canvas,
        boat,
        upright=1,
        opacity=255,
    )
    mast_top = (boat.x, boat.waterline - boat.size * 0.9)
    mast_foot = (boat.x, boat.waterline - boat.size * 0.12)
    canvas.line(
        [mast_top, mast_foot],
        colour=canvas.near,
        width=boat.size * 0.02,
    )


def _paint_hull_and_sails(
    canvas: Canvas,
    boat: Boat,
    upright: float,
    opacity: int,
) -> None:
    """Paint a boat, stretched upwards by `upright`; a negative one mirrors it."""
    sail_tint = canvas.accents[1]
    parts = (
        (MAINSAIL, mix(canvas.light, sail_tint, 0.2)),
        (JIB, mix(canvas.light, sail_tint, 0.6)),
        (HULL, canvas.near),
    )
    for points, colour in parts:
        outline = []
        for point_x, point_y in points:
            x = boat.x + point_x * boat.size
            y = boat.waterline - point_y * boat.size * upright
            outline.append((x, y))
        canvas.polygon(outline, colour=(*colour, opacity))


# -- Balloons ---------------------------------------------------------------------------------


class Balloon(NamedTuple):
    x: float
    y: float
    radius: float


BALLOON_SIZES = (0.028, 0.04, 0.05, 0.085)
BALLOON_STRIPES = 5
CIRCLE = [math.pi * part / 20 for part in range(-20, 21)]


def paint_balloons(canvas: Canvas) -> Strokes:
    """Float striped hot-air balloons."""
    rng = canvas.random("balloons")
    for size in BALLOON_SIZES:
        balloon = Balloon(
            x=canvas.width * rng.uniform(0.1, 0.9),
            y=canvas.horizon * rng.uniform(0.15, 0.65),
            radius=canvas.unit * size,
        )
        yield partial(
            _paint_balloon,
            canvas,
            rng,
            balloon,
        )


def _paint_balloon(
    canvas: Canvas,
    rng: Random,
    balloon: Balloon,
) -> None:
    """Paint the envelope as outlines inside each other, which look like stripes."""
    colours = rng.sample(canvas.accents, 2)
    for stripe in range(BALLOON_STRIPES):
        is_odd = stripe % 2
        outline = _stripe_outline(balloon, width=1 - stripe * 0.23)
        shade = 0.1 if is_odd else 0.2
        canvas.polygon(
            outline,
            colour=mix(colours[is_odd], canvas.near, shade),
        )
    _paint_basket(canvas, balloon)


def _stripe_outline(
    balloon: Balloon,
    width: float,
) -> list[Point]:
    outline = []
    for angle in CIRCLE:
        sine = math.sin(angle)
        # The lower half is longer than the upper one.
        stretch = 1.15 if sine > 0 else 1
        x = balloon.x + math.cos(angle) * balloon.radius * width
        y = balloon.y + sine * balloon.radius * stretch
        outline.append((x, y))
    return outline


def _paint_basket(
    canvas: Canvas,
    balloon: Balloon,
) -> None:
    x, y, radius = balloon
    foot = y + radius * 1.75
    for side in (-1, 1):
        upper_end = (x + side * radius * 0.45, y + radius * 1.02)
        lower_end = (x + side * radius * 0.14, foot)
        canvas.line(
            [upper_end, lower_end],
            colour=canvas.near,
            width=radius * 0.03,
        )
    canvas.rectangle(
        left=x - radius * 0.15,
        top=foot - radius * 0.05,
        right=x + radius * 0.15,
        bottom=foot + radius * 0.2,
        colour=canvas.near,
    )


# -- Birds ------------------------------------------------------------------------------------


class Flock(NamedTuple):
    x: float
    y: float
    # How large its birds are.
    scale: float


def paint_birds(canvas: Canvas) -> Strokes:
    """Send a small flock across the sky."""
    rng = canvas.random("birds")
    is_asked_for = "bird" in motifs_in(canvas.request.prompt)
    flock = Flock(
        x=canvas.width * rng.uniform(0.25, 0.75),
        y=canvas.horizon * rng.uniform(0.25, 0.5),
        scale=1.9 if is_asked_for else 1,
    )
    for _ in range(rng.randint(5, 9)):
        yield partial(
            _paint_bird,
            canvas,
            rng,
            flock,
        )


def _paint_bird(
    canvas: Canvas,
    rng: Random,
    flock: Flock,
) -> None:
    middle_x = flock.x + rng.gauss(0, canvas.unit * 0.1)
    middle_y = flock.y + rng.gauss(0, canvas.unit * 0.05)
    size = canvas.unit * rng.uniform(0.009, 0.018)
    span = size * flock.scale
    lift = rng.uniform(0.35, 0.8)
    # From the left wing tip along the upper edge, and back along the lower one.
    wings = (
        (-1, -lift),
        (-0.55, -lift * 0.95),
        (0, 0),
        (0.55, -lift * 0.95),
        (1, -lift),
        (0.5, -lift * 0.65),
        (0, 0.22),
        (-0.5, -lift * 0.65),
    )
    outline = []
    for wing_x, wing_y in wings:
        x = middle_x + wing_x * span
        y = middle_y + wing_y * span
        outline.append((x, y))
    colour = mix(canvas.near, canvas.sky[0], 0.2)
    canvas.polygon(outline, colour)
