"""The built-in drawing engine: pictures drawn by plain code from the words of a prompt and a seed.

It is no AI model: it knows the words in words.py and how to draw them, and nothing else. It needs
only Pillow, and gives the same bytes for the same request in every process; a prompt without a
known word becomes an abstract picture.

    words.py     from the words of a prompt to motifs, colours and a mood
    reference.py pictures that come with the prompt: their colours, and what stays of them
    colours.py   blends, gradients, and the palettes of the moods
    curves.py    ridge lines, hill lines and rounded outlines
    canvas.py    the picture being painted, and the tools to paint
    sky.py       the sky, sun, moon, stars, clouds, fireworks, and the weather
    land.py      mountains, hills, a city, the sea, a desert
    plants.py    forests and flowers
    things.py    the house, animals, boats, balloons and birds
    abstract.py  abstract pictures

Each motif has a paint_ function, which yields strokes: functions that paint a part of the picture
when they are called. The strokes of a motif share one series of random numbers. Keep the order
in which they take them: another order gives other pictures for the same seed.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from engines import GeneratedImage, ImageRequest, masks, no_progress
from engines.painter.abstract import ABSTRACTS, paint_backdrop
from engines.painter.canvas import Canvas, Stroke, Strokes
from engines.painter.land import paint_city, paint_desert, paint_hills, paint_mountains, paint_sea
from engines.painter.plants import paint_flowers, paint_forest
from engines.painter.reference import Reference
from engines.painter.sky import (
    paint_aurora,
    paint_clouds,
    paint_fireworks,
    paint_fog,
    paint_galaxy,
    paint_light,
    paint_planet,
    paint_rain,
    paint_rainbow,
    paint_sky,
    paint_snowfall,
    paint_stars,
)
from engines.painter.things import paint_balloons, paint_birds, paint_boats, paint_subjects
from engines.painter.words import WORDS, motifs_in

__all__ = ["WORDS", "check", "make", "motifs_in"]

# In painting order, from the sky to rain and snow: the motifs that each function paints.
PAINTERS = (
    ("galaxy", paint_galaxy),
    ("star", paint_stars),
    ("aurora", paint_aurora),
    ("planet", paint_planet),
    ("sun moon", paint_light),
    ("cloud", paint_clouds),
    ("rainbow", paint_rainbow),
    ("firework", paint_fireworks),
    ("mountain", paint_mountains),
    ("city", paint_city),
    ("sea", paint_sea),
    ("desert", paint_desert),
    ("hill", paint_hills),
    ("forest", paint_forest),
    ("flower", paint_flowers),
    ("boat", paint_boats),
    ("balloon", paint_balloons),
    ("bird", paint_birds),
    ("cat fox house", paint_subjects),
    ("fog", paint_fog),
    ("rain", paint_rain),
    ("snowfall", paint_snowfall),
)


def make(
    request: ImageRequest,
    on_progress: Callable[[int, int], None] = no_progress,
) -> GeneratedImage:
    """Draw a request as a PNG; the same request always gives the same bytes.

    Reads all of it but guidance and options. Pictures of the request give the colours, and stay
    visible as far as `strength` lets them. Calls on_progress(done, total) after each of its
    steps; what that raises ends the drawing at once and reaches the caller.
    """
    steps = request.steps or 20
    reference = Reference(request) if request.images else None
    canvas = Canvas(replace(request, steps=steps), reference and reference.palette())
    strokes = plan(canvas)
    for step in range(steps):
        first = len(strokes) * step // steps
        last = len(strokes) * (step + 1) // steps
        for stroke in strokes[first:last]:
            stroke()
        on_progress(step + 1, steps)
    image = canvas.finished()
    return GeneratedImage(masks.png(reference.merge(image) if reference else image))


def check(options: Any) -> list[str]:
    """Say what there is to draw; nothing can be missing."""
    return [f"{len(WORDS)} motifs"]


def plan(canvas: Canvas) -> list[Stroke]:
    """List the strokes of a picture, at least one for each step."""
    strokes = []
    for paint in _painters(canvas):
        strokes += paint(canvas)
    rng = canvas.random("flecks")
    while len(strokes) < canvas.request.steps:
        strokes.append(_fleck(canvas, rng))
    return strokes


def _painters(canvas: Canvas) -> list[Callable[[Canvas], Strokes]]:
    if not canvas.motifs:
        abstract = canvas.random("abstract").choice(ABSTRACTS)
        return [paint_backdrop, abstract]
    painters = [paint_sky]
    for motifs, paint in PAINTERS:
        if canvas.has(*motifs.split()):
            painters.append(paint)
    return painters


def _fleck(
    canvas: Canvas,
    rng: Random,
) -> Stroke:
    """Choose a faint fleck of light, which fills a step that has nothing else to paint."""
    return partial(
        canvas.glow,
        x=rng.uniform(0, canvas.width),
        y=rng.uniform(0, canvas.height),
        radius=canvas.unit * rng.uniform(0.04, 0.12),
        colour=canvas.light,
        strength=0.035,
    )
