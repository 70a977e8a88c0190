"""The sky, what is seen in it, and the weather.

Every paint_ function yields its strokes in painting order.
"""

import math
from functools import partial
from random import Random
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from engines.painter.canvas import Canvas, Stroke, Strokes
from engines.painter.colours import (
    BLACK,
    WHITE,
    Colour,
    gradient,
    gradient_until,
    mask_gradient,
    mix,
    rgb,
)
from engines.painter.curves import hill_line
from engines.painter.words import GROUND, SPACE, motifs_in

BICUBIC = Image.Resampling.BICUBIC
UPSIDE_DOWN = Image.Transpose.FLIP_TOP_BOTTOM

# -- The sky itself ---------------------------------------------------------------------------


def paint_sky(canvas: Canvas) -> Strokes:
    """Paint the sky, brighter around the sun or moon."""
    yield partial(_paint_backdrop, canvas)
    if canvas.has("sun", "moon"):
        yield partial(
            canvas.glow,
            canvas.light_x,
            canvas.light_y,
            radius=canvas.unit * 0.62,
            colour=mix(canvas.light, canvas.mist, 0.5),
            strength=0.75 if canvas.has("sun") else 0.4,
        )


def _paint_backdrop(canvas: Canvas) -> None:
    is_only_sky = canvas.has(*SPACE) and not canvas.has(*GROUND)
    bottom = canvas.height if is_only_sky else round(canvas.horizon * 1.05)
    backdrop = gradient_until(canvas.size, canvas.sky, bottom)
    canvas.image.paste(backdrop)


# -- Galaxy -----------------------------------------------------------------------------------


class GasCloud(NamedTuple):
    """Many glows along a slanted band; all but the strength in shares of the picture."""

    colour: Colour
    strength: float
    spread: float
    middle: float
    slant: float


# Strength and spread: three coloured clouds, then a narrow bright one.
GAS_CLOUDS = (
    (0.16, 0.12),
    (0.14, 0.09),
    (0.14, 0.07),
    (0.10, 0.03),
)


def paint_galaxy(canvas: Canvas) -> Strokes:
    """Paint a slanted band of coloured gas."""
    rng = canvas.random("galaxy")
    slant = rng.uniform(-0.5, 0.5)
    middle = rng.uniform(0.3, 0.5)
    colours = rng.sample(canvas.accents, 3)
    colours.append(canvas.light)
    for colour, (strength, spread) in zip(colours, GAS_CLOUDS):
        cloud = GasCloud(
            colour=colour,
            strength=strength,
            spread=spread,
            middle=middle,
            slant=slant,
        )
        yield partial(
            _paint_gas_cloud,
            canvas,
            rng,
            cloud,
        )


def _paint_gas_cloud(
    canvas: Canvas,
    rng: Random,
    cloud: GasCloud,
) -> None:
    for _ in range(18):
        x = rng.uniform(-0.1, 1.1)
        axis = cloud.middle + cloud.slant * (x - 0.5)
        y = axis + rng.gauss(0, cloud.spread)
        canvas.glow(
            x * canvas.width,
            y * canvas.height,
            radius=canvas.unit * rng.uniform(0.1, 0.3),
            colour=cloud.colour,
            strength=cloud.strength,
        )


# -- Stars ------------------------------------------------------------------------------------


def paint_stars(canvas: Canvas) -> Strokes:
    """Scatter stars, the large ones with a halo."""
    rng = canvas.random("stars")
    for _ in range(6):
        yield partial(_paint_stars, canvas, rng)


def _paint_stars(
    canvas: Canvas,
    rng: Random,
) -> None:
    """Paint a batch of stars, the last of them large."""
    bottom = canvas.height if canvas.has(*SPACE) else canvas.horizon
    for _ in range(canvas.count(70)):
        x = rng.uniform(0, canvas.width)
        y = bottom * rng.random() ** 1.3
        _paint_star(
            canvas,
            rng,
            x,
            y,
            fading=1 - 0.75 * y / bottom,
        )
    canvas.glow(
        x,
        y,
        radius=canvas.unit * 0.025,
        colour=canvas.light,
        strength=0.55,
    )
    canvas.disc(
        x,
        y,
        radius=canvas.unit * 0.0028,
        colour=canvas.light,
    )


def _paint_star(
    canvas: Canvas,
    rng: Random,
    x: float,
    y: float,
    fading: float,
) -> None:
    """Paint one small star, fainter near the horizon."""
    size = 1 + 2.4 * rng.random() ** 5
    radius = canvas.unit * 0.0007 * size
    accent = rng.choice(canvas.accents)
    colour = mix(canvas.light, accent, rng.uniform(0, 0.5))
    opacity = round(rng.uniform(90, 255) * fading)
    canvas.disc(
        x,
        y,
        radius=max(0.8, radius),
        colour=(*colour, opacity),
    )


# -- Aurora -----------------------------------------------------------------------------------

AURORA_LOW_COLOURS = (
    rgb("5cf2b0"),
    rgb("57e0c8"),
    rgb("8bf28a"),
)
AURORA_HIGH_COLOURS = (
    rgb("8a6cf0"),
    rgb("3f8fe0"),
    rgb("c06cd8"),
)


class Curtain(NamedTuple):
    """A curtain of light that hangs along a line."""

    # The height of the line, as a share of the sky.
    level: float
    low: Colour
    high: Colour


def paint_aurora(canvas: Canvas) -> Strokes:
    """Hang curtains of light along waving lines, out of narrow upright strips."""
    rng = canvas.random("aurora")
    for level in (0.5, 0.66, 0.84):
        curtain = Curtain(
            level=level,
            low=rng.choice(AURORA_LOW_COLOURS),
            high=rng.choice(AURORA_HIGH_COLOURS),
        )
        yield partial(
            _paint_curtain,
            canvas,
            rng,
            curtain,
        )


def _paint_curtain(
    canvas: Canvas,
    rng: Random,
    curtain: Curtain,
) -> None:
    # Painted at half the size: it is soft, and this takes a quarter of the time.
    width = canvas.width // 2
    height = round(canvas.horizon) // 2
    mask = _curtain_mask(
        canvas,
        rng,
        (width, height),
        curtain.level,
    )
    mask = mask.filter(ImageFilter.BoxBlur(canvas.unit / 400))
    mask = mask.resize((width * 2, height * 2), BICUBIC)
    colours = gradient_until(
        mask.size,
        [curtain.high, curtain.high, curtain.low],
        bottom=round(height * 2 * curtain.level),
    )
    canvas.paste(
        colours,
        x=0,
        y=0,
        mask=mask,
    )


def _curtain_mask(
    canvas: Canvas,
    rng: Random,
    size: tuple[int, int],
    level: float,
) -> Image.Image:
    """Make the mask of a curtain out of one strip for every point of its line."""
    width, height = size
    line = hill_line(
        rng,
        width,
        level=height * level,
        swell=canvas.unit * 0.035,
        humps=rng.uniform(0.7, 1.3),
    )
    mask = Image.new("L", size)
    strip = _strip_of_light()
    frequency = rng.uniform(0.15, 0.3)
    phase = rng.uniform(0, 7)
    strip_width = width // 160 + 2
    for index, (x, y) in enumerate(line):
        wave = abs(math.sin(index * frequency + phase))
        brightness = (0.35 + 0.65 * wave) * rng.uniform(0.75, 1)
        strip_height = round(canvas.unit * (0.08 + 0.14 * brightness))
        _paste_strip(
            mask,
            strip,
            round(x),
            round(y),
            size=(strip_width, strip_height),
            brightness=brightness,
        )
    return mask


def _strip_of_light() -> Image.Image:
    """Make a strip that is dark at its top and grows brighter downwards."""
    levels = [round((level / 255) ** 2 * 255) for level in range(256)]
    return Image.linear_gradient("L").point(levels)


def _paste_strip(
    mask: Image.Image,
    strip: Image.Image,
    x: int,
    y: int,
    size: tuple[int, int],
    brightness: float,
) -> None:
    """Paste a strip of light that stands at y, fades upwards, and has a short foot below."""
    width, height = size
    dimmed = [round(level * brightness) for level in range(256)]
    strip = strip.resize(size)
    mask.paste(strip.point(dimmed), (x, y - height))
    foot = strip.transpose(UPSIDE_DOWN)
    foot = foot.resize((width, height // 6 + 1))
    mask.paste(foot.point(dimmed), (x, y))


# -- Sun and moon -----------------------------------------------------------------------------


def paint_light(canvas: Canvas) -> Strokes:
    """Paint the sun, or the moon with its shadows."""
    rng = canvas.random("light")
    yield partial(
        canvas.glow,
        canvas.light_x,
        canvas.light_y,
        radius=canvas.light_radius * 3,
        colour=canvas.light,
        strength=0.6,
    )
    yield partial(
        canvas.disc,
        canvas.light_x,
        canvas.light_y,
        radius=canvas.light_radius,
        colour=canvas.light,
    )
    if canvas.has("moon"):
        for _ in range(7):
            yield _moon_shadow(canvas, rng)


def _moon_shadow(
    canvas: Canvas,
    rng: Random,
) -> Stroke:
    angle = rng.uniform(0, math.tau)
    distance = canvas.light_radius * rng.uniform(0.1, 0.6)
    shade = mix(canvas.light, canvas.mist, 0.6)
    return partial(
        canvas.disc,
        canvas.light_x + distance * math.cos(angle),
        canvas.light_y + distance * math.sin(angle),
        radius=canvas.light_radius * rng.uniform(0.08, 0.26),
        colour=(*shade, 70),
    )


# -- Planet -----------------------------------------------------------------------------------

# In degrees.
PLANET_TILT = 16


class Planet(NamedTuple):
    x: float
    y: float
    radius: float
    bands: list[Colour]
    ring_colour: Colour


class Ring(NamedTuple):
    """One of the ellipses around a planet; its size in radii of the planet."""

    size: float
    opacity: int


RINGS = (
    Ring(2.1, 120),
    Ring(1.95, 190),
    Ring(1.62, 90),
)


def paint_planet(canvas: Canvas) -> Strokes:
    """Paint a banded planet, lit from one side, with a ring."""
    rng = canvas.random("planet")
    radius = canvas.unit * rng.uniform(0.14, 0.19)
    x = canvas.width * rng.uniform(0.42, 0.58)
    y = canvas.height * rng.uniform(0.36, 0.48)
    base, other = rng.sample(canvas.accents, 2)
    planet = Planet(
        x=x,
        y=y,
        radius=radius,
        bands=[_planet_band(canvas, rng, base) for _ in range(11)],
        ring_colour=mix(other, canvas.light, 0.5),
    )
    yield partial(
        canvas.glow,
        x,
        y,
        radius=radius * 2.1,
        colour=base,
        strength=0.35,
    )
    # The far half of the ring lies behind the ball, the near half before it.
    yield partial(
        _paint_half_ring,
        canvas,
        planet,
        start_angle=180,
    )
    yield partial(_paint_ball, canvas, planet)
    yield partial(
        _paint_half_ring,
        canvas,
        planet,
        start_angle=0,
    )


def _planet_band(
    canvas: Canvas,
    rng: Random,
    base: Colour,
) -> Colour:
    accent = rng.choice(canvas.accents)
    return mix(base, accent, rng.uniform(0, 0.45))


def _paint_half_ring(
    canvas: Canvas,
    planet: Planet,
    start_angle: int,
) -> None:
    side = round(planet.radius * 5)
    middle = planet.radius * 2.5
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    for ring in RINGS:
        wide = planet.radius * ring.size
        tall = planet.radius * ring.size * 0.24
        pen.arc(
            (middle - wide, middle - tall, middle + wide, middle + tall),
            start=start_angle,
            end=start_angle + 180,
            fill=ring.opacity,
            width=round(planet.radius * 0.09),
        )
    canvas.paste(
        planet.ring_colour,
        x=planet.x - middle,
        y=planet.y - middle,
        mask=mask.rotate(PLANET_TILT, BICUBIC),
    )


def _paint_ball(
    canvas: Canvas,
    planet: Planet,
) -> None:
    side = max(2, round(planet.radius * 2))
    ball = gradient((side, side), planet.bands)
    ball = ball.rotate(
        PLANET_TILT,
        BICUBIC,
        fillcolor=planet.bands[0],
    )
    dark = mix(canvas.sky[0], BLACK, 0.4)
    ball.paste(dark, (0, 0), _ball_shadow(side))
    mask = Image.new("L", (side, side))
    last = side - 1
    ImageDraw.Draw(mask).ellipse((0, 0, last, last), fill=255)
    canvas.paste(
        ball,
        x=planet.x - planet.radius,
        y=planet.y - planet.radius,
        mask=mask,
    )


def _ball_shadow(side: int) -> Image.Image:
    """Make a mask that grows with the distance from a point on the lit upper left."""
    distance = Image.radial_gradient("L")
    distance = distance.resize((side * 2, side * 2))
    near = round(side * 0.83)
    far = near + side
    shadow = distance.crop((near, near, far, far))
    opacities = [min(235, level * 3 // 2) for level in range(256)]
    return shadow.point(opacities)


# -- Clouds -----------------------------------------------------------------------------------


class Cloud(NamedTuple):
    x: float
    y: float
    size: float
    # Height as a share of the width.
    flatness: float
    colour: Colour


def paint_clouds(canvas: Canvas) -> Strokes:
    """Drift clouds: soft heaps by day, long thin bars in low light, a dark ceiling in rain."""
    rng = canvas.random("clouds")
    for _ in range(_cloud_count(canvas)):
        cloud = _choose_cloud(canvas, rng)
        yield partial(
            _paint_cloud,
            canvas,
            rng,
            cloud,
        )


def _cloud_count(canvas: Canvas) -> int:
    if canvas.has("rain"):
        return 14
    if "cloud" in motifs_in(canvas.request.prompt):
        return 9
    return 5


def _choose_cloud(
    canvas: Canvas,
    rng: Random,
) -> Cloud:
    highest, lowest = (0, 0.45) if canvas.has("rain") else (0.1, 0.9)
    level = rng.uniform(highest, lowest)
    # Clouds near the horizon are far away, hence small.
    size = canvas.unit * (0.2 - 0.13 * level) * rng.uniform(0.7, 1.4)
    return Cloud(
        x=canvas.width * rng.uniform(-0.05, 1.05),
        y=canvas.horizon * level,
        size=size * 1.7 if canvas.is_light_low else size,
        flatness=0.16 if canvas.is_light_low else 0.42,
        colour=_cloud_colour(canvas, level),
    )


def _cloud_colour(
    canvas: Canvas,
    level: float,
) -> Colour:
    around = canvas.sky[int(level * len(canvas.sky))]
    if canvas.has("rain"):
        return mix(around, canvas.sky[0], 0.5)
    if canvas.is_light_low:
        return mix(around, canvas.accents[1], 0.5)
    return mix(around, canvas.light, 0.8)


def _paint_cloud(
    canvas: Canvas,
    rng: Random,
    cloud: Cloud,
) -> None:
    width = max(8, round(cloud.size * 2.4))
    height = max(8, round(cloud.size * 2.4 * cloud.flatness))
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    for _ in range(16):
        pen.ellipse(_puff_box(rng, cloud, (width, height)), fill=255)
    mask = mask.filter(ImageFilter.BoxBlur(canvas.unit / 500))
    fade = mask_gradient((width, height), [235, 200, 0])
    mask = ImageChops.multiply(mask, fade)
    canvas.paste(
        cloud.colour,
        x=cloud.x - width / 2,
        y=cloud.y - height / 2,
        mask=mask,
    )


def _puff_box(
    rng: Random,
    cloud: Cloud,
    size: tuple[int, int],
) -> tuple[float, float, float, float]:
    """Place one of the round puffs of a cloud, larger towards its middle."""
    width, height = size
    offset = rng.uniform(-0.82, 0.82)
    middle = width / 2 + offset * cloud.size
    puff_height = height * (0.16 + 0.42 * (1 - abs(offset)) * rng.uniform(0.5, 1))
    puff_width = puff_height * (0.34 / cloud.flatness)
    base = height * 0.82
    return (
        middle - puff_width,
        base - puff_height,
        middle + puff_width,
        base + puff_height * 0.35,
    )


# -- Rainbow ----------------------------------------------------------------------------------

RAINBOW_COLOURS = (
    rgb("ff5e5b"),
    rgb("ff9f45"),
    rgb("ffe066"),
    rgb("7ddf80"),
    rgb("56c5f0"),
    rgb("5b7fe8"),
    rgb("a56be0"),
)


def paint_rainbow(canvas: Canvas) -> Strokes:
    """Span seven translucent arcs over the horizon."""
    middle = canvas.width * 0.5
    arc_width = canvas.unit * 0.014
    outer_radius = min(canvas.width * 0.46, canvas.horizon * 0.9)
    for index, colour in enumerate(RAINBOW_COLOURS):
        radius = outer_radius - index * arc_width
        box = (
            middle - radius,
            canvas.horizon - radius,
            middle + radius,
            canvas.horizon + radius,
        )
        yield partial(
            canvas.draw.arc,
            box,
            start=180,
            end=360,
            fill=(*colour, 110),
            width=round(arc_width) + 1,
        )


# -- Fireworks --------------------------------------------------------------------------------


class Burst(NamedTuple):
    x: float
    y: float
    radius: float
    colour: Colour


def paint_fireworks(canvas: Canvas) -> Strokes:
    """Let rockets burst over the horizon."""
    rng = canvas.random("fireworks")
    for _ in range(6):
        burst = Burst(
            x=canvas.width * rng.uniform(0.1, 0.9),
            y=canvas.horizon * rng.uniform(0.12, 0.6),
            radius=canvas.unit * rng.uniform(0.09, 0.2),
            colour=rng.choice(canvas.accents),
        )
        yield partial(
            _paint_burst,
            canvas,
            rng,
            burst,
        )


def _paint_burst(
    canvas: Canvas,
    rng: Random,
    burst: Burst,
) -> None:
    canvas.glow(
        burst.x,
        burst.y,
        radius=burst.radius * 1.2,
        colour=burst.colour,
        strength=0.35,
    )
    for _ in range(canvas.count(46)):
        _paint_spark(canvas, rng, burst)


def _paint_spark(
    canvas: Canvas,
    rng: Random,
    burst: Burst,
) -> None:
    """Paint the trail of one spark, which gravity bends down, with a bright end."""
    angle = rng.uniform(0, math.tau)
    reach = burst.radius * rng.uniform(0.45, 1)
    trail = []
    for time in (0.25, 0.5, 0.75, 1):
        fall = 0.22 * time * time
        x = burst.x + reach * time * math.cos(angle)
        y = burst.y + reach * (time * math.sin(angle) + fall)
        trail.append((x, y))
    canvas.line(
        trail,
        colour=(*burst.colour, 150),
        width=canvas.unit / 420,
        joint="curve",
    )
    canvas.disc(
        x,
        y,
        radius=canvas.unit * 0.003,
        colour=mix(burst.colour, WHITE, 0.6),
    )


# -- Weather ----------------------------------------------------------------------------------


def paint_fog(canvas: Canvas) -> Strokes:
    """Draw banks of mist across the middle."""
    rng = canvas.random("fog")
    half = canvas.unit * 0.14
    for _ in range(4):
        middle = canvas.horizon + canvas.unit * rng.uniform(-0.15, 0.2)
        yield partial(
            canvas.veil,
            top=middle - half,
            bottom=middle + half,
            colour=canvas.mist,
            strength=0.5,
        )


def paint_rain(canvas: Canvas) -> Strokes:
    """Streak the picture with slanting rain."""
    rng = canvas.random("rain")
    for _ in range(4):
        yield partial(_paint_shower, canvas, rng)


def _paint_shower(
    canvas: Canvas,
    rng: Random,
) -> None:
    for _ in range(canvas.count(90)):
        x = rng.uniform(-0.1, 1) * canvas.width
        y = rng.uniform(-0.1, 1) * canvas.height
        nearness = rng.random()
        length = canvas.unit * (0.02 + 0.05 * nearness)
        opacity = round(30 + 60 * nearness)
        canvas.line(
            [(x, y), (x + length * 0.22, y + length)],
            colour=(*canvas.light, opacity),
            width=canvas.unit * (0.0008 + 0.001 * nearness),
        )


def paint_snowfall(canvas: Canvas) -> Strokes:
    """Let snow fall, a few flakes near and out of focus."""
    rng = canvas.random("snowfall")
    for _ in range(4):
        yield partial(_paint_flurry, canvas, rng)


def _paint_flurry(
    canvas: Canvas,
    rng: Random,
) -> None:
    for _ in range(canvas.count(70)):
        x = rng.uniform(0, canvas.width)
        y = rng.uniform(0, canvas.height)
        nearness = rng.random() ** 3
        opacity = round(200 - 90 * nearness)
        canvas.disc(
            x,
            y,
            radius=canvas.unit * (0.0012 + 0.005 * nearness),
            colour=(*WHITE, opacity),
        )
