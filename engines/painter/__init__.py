"""Owns the built-in drawing engine: pictures drawn by plain code from the words of a prompt and a seed.

It is no AI model: it knows the words in WORDS and how to draw them, and nothing else. It needs only Pillow,
and gives the same bytes for the same job in every process; a prompt without a known word becomes an abstract.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from engines import Drawing, Job, no_progress
from engines.painter.abstract import ABSTRACTS, paint_backdrop
from engines.painter.canvas import Canvas, Stroke
from engines.painter.land import paint_city, paint_desert, paint_hills, paint_mountains, paint_sea
from engines.painter.plants import paint_flowers, paint_forest
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


# In painting order, from the sky to what falls before our eyes.
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


def plan(canvas: Canvas) -> list[Stroke]:
    """List the strokes of a picture, at least one for each step; the extra ones are faint flecks of light."""
    painters = [painter for names, painter in PAINTERS if canvas.motifs & set(names.split())]
    chosen = canvas.random("abstract").choice(ABSTRACTS)
    painters = [paint_sky, *painters] if canvas.motifs else [paint_backdrop, chosen]
    strokes = [stroke for painter in painters for stroke in painter(canvas)]
    rng = canvas.random("flecks")
    while len(strokes) < canvas.job.steps:
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        strokes.append(partial(canvas.glow, x, y, canvas.unit * rng.uniform(0.04, 0.12), canvas.light, 0.035))
    return strokes


def make(job: Job, on_progress: Callable[[int, int], None] = no_progress) -> Drawing:
    """Draw the job as a PNG; the same job always gives the same bytes.

    Reads all of the job but guidance and options. Calls on_progress(done, total) after each of job.steps
    steps; what that raises ends the drawing at once and reaches the caller.
    """
    job = replace(job, steps=job.steps or 20)
    canvas = Canvas(job)
    strokes = plan(canvas)
    for step in range(job.steps):
        for stroke in strokes[len(strokes) * step // job.steps : len(strokes) * (step + 1) // job.steps]:
            stroke()
        on_progress(step + 1, job.steps)
    return Drawing(canvas.png())


def check(options: Any) -> list[str]:
    """Say what there is to draw; nothing can be missing."""
    return [f"{len(WORDS)} motifs"]
