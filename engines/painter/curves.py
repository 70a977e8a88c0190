"""Lines and outlines: ridge lines, hill lines and rounded shapes."""

import math
from itertools import pairwise
from random import Random
from typing import NamedTuple

Point = tuple[float, float]

# A hill line has a point every 1/160 of the width, and a few more beyond both ends.
HILL_PIECES = 160
HILL_MARGIN = 2

# A hill line is the sum of waves: a long one, and smaller ones that are this much shorter.
OCTAVES = (1, 2, 3.7)


def lerp(
    start: float,
    end: float,
    share: float,
) -> float:
    """Interpolate between two numbers; share 0 gives the start, 1 the end."""
    return start + (end - start) * share


def ridge_line(
    rng: Random,
    start: Point,
    end: Point,
    roughness: float,
    splits: int,
) -> list[Point]:
    """Draw a rugged line by midpoint displacement: halve every piece again and again."""
    points = [start, end]
    for _ in range(splits):
        points = _displace_midpoints(rng, points, roughness)
    return points


def _displace_midpoints(
    rng: Random,
    points: list[Point],
    roughness: float,
) -> list[Point]:
    """Put a point into the middle of every piece, moved up or down at random."""
    finer = []
    for start, end in pairwise(points):
        x0, y0 = start
        x1, y1 = end
        jitter = rng.uniform(-roughness, roughness)
        middle_x = (x0 + x1) / 2
        middle_y = (y0 + y1) / 2 + jitter * (x1 - x0)
        finer.append(start)
        finer.append((middle_x, middle_y))
    finer.append(points[-1])
    return finer


class _Wave(NamedTuple):
    frequency: float
    phase: float
    amplitude: float


def hill_line(
    rng: Random,
    width: int,
    level: float,
    swell: float,
    humps: float,
) -> list[Point]:
    """Make a soft line across the width: about `humps` humps of height `swell` around `level`."""
    waves = [_wave(rng, humps, octave) for octave in OCTAVES]
    points = []
    first = -HILL_MARGIN
    last = HILL_PIECES + HILL_MARGIN
    for piece in range(first, last + 1):
        share = piece / HILL_PIECES
        lift = _wave_height(waves, share)
        y = level - swell * lift * 0.55
        points.append((share * width, y))
    return points


def _wave(
    rng: Random,
    humps: float,
    octave: float,
) -> _Wave:
    return _Wave(
        frequency=humps * octave * rng.uniform(0.8, 1.2),
        phase=rng.uniform(0, 7),
        amplitude=1 / octave,
    )


def _wave_height(
    waves: list[_Wave],
    share: float,
) -> float:
    return sum(
        amplitude * math.sin(share * frequency * math.tau + phase)
        for frequency, phase, amplitude in waves
    )


def height_at(
    line: list[Point],
    x: float,
) -> float:
    """Read the y of an evenly spaced line at x."""
    first_x, _ = line[0]
    last_x, _ = line[-1]
    last_index = len(line) - 1
    share = (x - first_x) / (last_x - first_x)
    index = round(share * last_index)
    index_in_line = max(0, min(index, last_index))
    _, y = line[index_in_line]
    return y


def smooth(
    points: list[Point],
    pieces: int = 8,
) -> list[Point]:
    """Round off a closed outline with a Catmull-Rom spline through its points."""
    outline = []
    count = len(points)
    for index in range(count):
        # The spline runs from point 1 to point 2; the points around them bend it.
        x0, y0 = points[index - 1]
        x1, y1 = points[index]
        x2, y2 = points[(index + 1) % count]
        x3, y3 = points[(index + 2) % count]
        x_spline = _catmull_rom(
            before=x0,
            start=x1,
            end=x2,
            after=x3,
        )
        y_spline = _catmull_rom(
            before=y0,
            start=y1,
            end=y2,
            after=y3,
        )
        for piece in range(pieces):
            t = piece / pieces
            x = _value_at(x_spline, t)
            y = _value_at(y_spline, t)
            outline.append((x, y))
    return outline


class _Polynomial(NamedTuple):
    """Twice one coordinate of a spline, as a polynomial of t from 0 to 1."""

    constant: float
    linear: float
    square: float
    cube: float


def _catmull_rom(
    before: float,
    start: float,
    end: float,
    after: float,
) -> _Polynomial:
    """Make the spline from start (t = 0) to end (t = 1)."""
    return _Polynomial(
        constant=2 * start,
        linear=end - before,
        square=2 * before - 5 * start + 4 * end - after,
        cube=3 * start - before - 3 * end + after,
    )


def _value_at(
    spline: _Polynomial,
    t: float,
) -> float:
    constant, linear, square, cube = spline
    return 0.5 * (constant + linear * t + square * t * t + cube * t**3)
