"""The canvas of a picture: its size, its colours, where its light stands, and the tools to paint.

Lengths are pixels of the canvas, y runs down. A nearness runs from 0 (at the horizon) to 1 (at
the bottom of the picture), a share from 0 to 1, an opacity from 0 to 255.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from random import Random

from PIL import Image, ImageChops, ImageDraw

from engines import ImageRequest
from engines.painter.colours import (
    PALETTES,
    WHITE,
    Colour,
    Palette,
    gradient_until,
    mask_gradient,
    mix,
    tint_palette,
    tinted,
)
from engines.painter.curves import Point, lerp
from engines.painter.words import BROWN, GREEN, colours_in, compose

VERSION = "test_model_v1"

# A stroke is a small part of the picture, painted when it is called.
Stroke = Callable[[], None]
Strokes = Iterator[Stroke]

# The grain is a tile of random greys, repeated over the picture; the neutral grey changes nothing.
GRAIN_SIDE = 192
GRAIN_DARKEST = 124
GRAIN_LEVELS = 9
GRAIN_NEUTRAL = 128


class Canvas:
    """The picture while it is painted.

    It is larger than asked for: reducing it at the end smooths the edges (supersampling).
    Every motif takes its random numbers from its own `random(name)`, so that leaving one motif
    out moves none of the others.
    """

    width: int
    height: int
    # What other lengths are given in: the height, or less in a narrow picture.
    unit: float
    # How many trees, stars and blades of grass there are: 1 is what 20 steps give.
    detail: float

    mood: str
    motifs: set[str]

    # The y where the sky ends.
    horizon: float
    # Where the sun or moon stands, even if the picture shows none.
    light_x: float
    light_y: float
    light_radius: float
    is_light_low: bool

    # The colours of the palette; see colours.Palette.
    sky: list[Colour]
    light: Colour
    far: Colour
    near: Colour
    accents: list[Colour]

    def __init__(self, request: ImageRequest, reference: Palette | None = None):
        self.request = request
        self.reference = reference
        scale = _supersampling(request.width * request.height)
        self.width = round(request.width * scale)
        self.height = round(request.height * scale)
        self.unit = min(self.height, self.width * 1.3)
        self.detail = 0.5 + math.sqrt(request.steps / 80)
        rng = self.random("composition")
        self.mood, self.motifs = compose(
            request.prompt,
            request.negative_prompt,
            rng,
        )
        self._place_light(rng)
        self._choose_colours(rng)
        self.image = Image.new("RGB", self.size)
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def _place_light(self, rng: Random) -> None:
        """Place the horizon, and the sun or moon to the left or right of the middle."""
        self.horizon = self.height * rng.uniform(0.55, 0.62)
        left = rng.uniform(0.22, 0.42)
        right = rng.uniform(0.58, 0.78)
        self.light_x = self.width * rng.choice((left, right))
        lift = rng.uniform(0.08, 0.17)
        radius = rng.uniform(0.075, 0.105)
        self.is_light_low = self.has("sunset", "dawn") or self.mood in ("sunset", "dawn")
        if not self.is_light_low:
            lift = 0.25 + lift
            radius = radius * 0.6
        self.light_y = self.horizon - self.unit * lift
        self.light_radius = self.unit * radius

    def _choose_colours(self, rng: Random) -> None:
        """Choose a palette of the mood, tinted with the colours that the prompt names."""
        chosen = rng.choice(PALETTES[self.mood])
        palette = self.reference or chosen
        tints = self._tints()
        if tints and self.has("flower"):
            pale = mix(tints[0], WHITE, 0.45)
            palette = palette._replace(accents=[*tints * 3, pale])
        elif tints:
            palette = self._tint_palette(rng, palette, tints)
        self.sky = palette.sky
        self.light = palette.light
        self.far = palette.far
        self.near = palette.near
        self.accents = palette.accents

    def _tints(self) -> list[Colour]:
        named = colours_in(self.request.prompt)
        unwanted = colours_in(self.request.negative_prompt)
        return [colour for colour in named if colour not in unwanted]

    def _tint_palette(
        self,
        rng: Random,
        palette: Palette,
        tints: list[Colour],
    ) -> Palette:
        """Pull a palette towards tints: the sky to the first, the land to the last of them."""
        sky_tints = tints
        if self.motifs:
            # Green or brown means the land: no sky looks good in them.
            sky_tints = [tint for tint in tints if tint not in (GREEN, BROWN)]
        accents = []
        for accent in palette.accents:
            accents.append(tinted(accent, rng.choice(tints)))
        return tint_palette(
            palette,
            sky_tint=sky_tints[0] if sky_tints else None,
            land_tint=tints[-1],
            accents=accents,
        )

    # -- What scenes ask ------------------------------------------------------------------

    def has(self, *motifs: str) -> bool:
        """Whether the picture shows at least one of these motifs."""
        return not self.motifs.isdisjoint(motifs)

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def mist(self) -> Colour:
        """The colour of the air at the horizon, which far things fade into."""
        return self.sky[-1]

    @property
    def is_lit_from_left(self) -> bool:
        return self.light_x < self.width / 2

    def ground_y(self, nearness: float) -> float:
        """The y of a place between the horizon (0) and the bottom of the picture (1)."""
        return lerp(self.horizon, self.height, nearness)

    def land(self, nearness: float) -> Colour:
        """The colour of land, which may lie under snow."""
        colour = mix(self.far, self.near, nearness)
        if not self.has("snow"):
            return colour
        snow = mix(self.far, WHITE, 0.68)
        return mix(colour, snow, 0.3 + 0.55 * nearness)

    def count(self, number: float) -> int:
        """How many of something to draw; `number` is for 20 steps, more steps give more."""
        return max(1, round(number * self.detail))

    def random(self, name: str) -> Random:
        """Start the series of random numbers of one motif; the same request gives the same."""
        request = self.request
        text = f"{VERSION}|{request.seed}|{request.prompt}|{name}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
        return Random(digest.digest())

    # -- Sharp shapes; a fourth part of a colour is its opacity ---------------------------

    def disc(
        self,
        x: float,
        y: float,
        radius: float,
        colour: tuple[int, ...],
    ) -> None:
        self.ellipse(
            x,
            y,
            half_width=radius,
            half_height=radius,
            colour=colour,
        )

    def ellipse(
        self,
        x: float,
        y: float,
        half_width: float,
        half_height: float,
        colour: tuple[int, ...],
    ) -> None:
        box = (
            x - half_width,
            y - half_height,
            x + half_width,
            y + half_height,
        )
        self.draw.ellipse(box, fill=colour)

    def ring(
        self,
        x: float,
        y: float,
        radius: float,
        colour: tuple[int, ...],
        width: float,
    ) -> None:
        """Draw a circle that is at least one pixel wide."""
        box = (
            x - radius,
            y - radius,
            x + radius,
            y + radius,
        )
        self.draw.ellipse(
            box,
            outline=colour,
            width=max(1, round(width)),
        )

    def line(
        self,
        points: list[Point],
        colour: tuple[int, ...],
        width: float,
        joint: str | None = None,
    ) -> None:
        """Draw a line through points, at least one pixel wide."""
        self.draw.line(
            points,
            fill=colour,
            width=max(1, round(width)),
            joint=joint,
        )

    def rectangle(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        colour: tuple[int, ...],
    ) -> None:
        box = (left, top, right, bottom)
        self.draw.rectangle(box, fill=colour)

    def polygon(
        self,
        outline: list[Point],
        colour: tuple[int, ...],
    ) -> None:
        self.draw.polygon(outline, fill=colour)

    # -- Images, and shapes with a gradient -----------------------------------------------

    def paste(
        self,
        paint: Image.Image | Colour,
        x: float,
        y: float,
        mask: Image.Image | None = None,
    ) -> None:
        """Put an image with its upper left corner at x, y; or a colour, through a mask."""
        corner = (round(x), round(y))
        self.image.paste(paint, corner, mask)

    def fill(
        self,
        outline: list[Point],
        top: Colour,
        bottom: Colour,
        reach: float | None = None,
    ) -> None:
        """Fill an outline with a gradient.

        The gradient ends `reach` pixels below the highest point, or at the lowest one.
        """
        xs, ys = zip(*outline)
        left = math.floor(max(0, min(xs)))
        upper = math.floor(max(0, min(ys)))
        right = min(self.width, math.ceil(max(xs)))
        lower = min(self.height, math.ceil(max(ys)))
        if right <= left or lower <= upper:
            return
        width = right - left
        height = lower - upper
        mask = Image.new("L", (width, height))
        shifted = [(x - left, y - upper) for x, y in outline]
        ImageDraw.Draw(mask).polygon(shifted, fill=255)
        gradient_bottom = min(height, round(reach or height))
        paint = gradient_until(
            (width, height),
            [top, bottom],
            bottom=max(1, gradient_bottom),
        )
        self.paste(
            paint,
            x=left,
            y=upper,
            mask=mask,
        )

    def fill_below(
        self,
        line: list[Point],
        top: Colour,
        bottom: Colour,
        reach: float,
    ) -> None:
        """Fill everything below a line with a gradient."""
        lower_right = (self.width, self.height + 1)
        lower_left = (0, self.height + 1)
        self.fill(
            [*line, lower_right, lower_left],
            top=top,
            bottom=bottom,
            reach=reach,
        )

    # -- Soft light -----------------------------------------------------------------------

    def glow(
        self,
        x: float,
        y: float,
        radius: float,
        colour: Colour,
        strength: float,
    ) -> None:
        """Light up a round patch that fades softly to nothing at its radius."""
        side = max(2, round(radius * 2))
        mask = Image.radial_gradient("L").point(_glow_levels(strength))
        mask = mask.resize((side, side), Image.Resampling.BICUBIC)
        self.paste(
            colour,
            x=x - radius,
            y=y - radius,
            mask=mask,
        )

    def veil(
        self,
        top: float,
        bottom: float,
        colour: Colour,
        strength: float,
    ) -> None:
        """Lay a band of mist across the picture, thickest at its middle."""
        height = max(2, round(bottom - top))
        opacity = round(255 * strength)
        mask = mask_gradient((self.width, height), [0, opacity, 0])
        self.paste(
            colour,
            x=0,
            y=top,
            mask=mask,
        )

    # -- The finished picture -------------------------------------------------------------

    def finished(self) -> Image.Image:
        """Reduce to the size asked for, and add a fine grain that hides colour steps."""
        size = (self.request.width, self.request.height)
        image = self.image.resize(size, Image.Resampling.HAMMING)
        grain = self._grain(size)
        return ImageChops.add(
            image,
            Image.merge("RGB", (grain, grain, grain)),
            offset=-GRAIN_NEUTRAL,
        )

    def _grain(self, size: tuple[int, int]) -> Image.Image:
        """Make a grey image of noise, from one tile that is repeated."""
        width, height = size
        tile = _grain_tile(self.random("grain"))
        grain = Image.new("L", size)
        for x in range(0, width, GRAIN_SIDE):
            for y in range(0, height, GRAIN_SIDE):
                grain.paste(tile, (x, y))
        return grain


def _supersampling(pixels: int) -> float:
    """How much larger to paint a picture of so many pixels, along each side."""
    if pixels <= 256 * 256:
        return 4
    if pixels <= 1_600_000:
        return 2
    return 1.5


def _grain_tile(rng: Random) -> Image.Image:
    noise = rng.randbytes(GRAIN_SIDE * GRAIN_SIDE)
    tile = Image.frombytes(
        "L",
        (GRAIN_SIDE, GRAIN_SIDE),
        noise,
    )
    levels = []
    for level in range(256):
        lift = level * GRAIN_LEVELS // 256
        levels.append(GRAIN_DARKEST + lift)
    return tile.point(levels)


def _glow_levels(strength: float) -> list[int]:
    """Map the distance from the middle, 0 to 255, to an opacity."""
    levels = []
    for distance in range(256):
        share = max(0, 1 - distance / 180)
        levels.append(round(255 * strength * share**2.2))
    return levels
