"""Lines and outlines: ridge lines, hill lines and rounded shapes."""

import math
import random
from itertools import pairwise

Point = tuple[float, float]


def rugged(rng: random.Random, points: list[Point], roughness: float, splits: int = 6) -> list[Point]:
    """Break every piece of a line in two, again and again, moving each middle up or down."""
    for _ in range(splits):
        middles = [
            ((x0 + x1) / 2, (y0 + y1) / 2 + rng.uniform(-roughness, roughness) * (x1 - x0))
            for (x0, y0), (x1, y1) in pairwise(points)
        ]
        points = [point for pair in zip(points, middles) for point in pair] + points[-1:]
    return points


def rolling(rng: random.Random, width: int, level: float, swell: float, waves: float) -> list[Point]:
    """Make a soft hill line across the width, about `waves` humps of height `swell` around `level`."""
    parts = [(waves * factor * rng.uniform(0.8, 1.2), rng.uniform(0, 7), 1 / factor) for factor in (1, 2, 3.7)]
    line = []
    for step in range(-2, 163):
        share = step / 160
        lift = sum(size * math.sin(share * rate * math.tau + phase) for rate, phase, size in parts)
        line.append((share * width, level - swell * lift * 0.55))
    return line


def height_at(line: list[Point], x: float) -> float:
    """Read the height of an evenly spaced line at x."""
    first, last = line[0][0], line[-1][0]
    index = round((x - first) / (last - first) * (len(line) - 1))
    return line[max(0, min(index, len(line) - 1))][1]


def smooth(points: list[Point], pieces: int = 8) -> list[Point]:
    """Round off a closed outline: a Catmull-Rom curve through its points."""
    outline = []
    count = len(points)
    for index in range(count):
        p0, p1, p2, p3 = (points[(index + shift) % count] for shift in (-1, 0, 1, 2))
        outline += [_between(p0, p1, p2, p3, piece / pieces) for piece in range(pieces)]
    return outline


def _between(p0: Point, p1: Point, p2: Point, p3: Point, t: float) -> Point:
    return tuple(
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p0, p1, p2, p3)
    )
