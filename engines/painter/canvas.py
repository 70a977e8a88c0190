"""The picture being painted, and the tools that every scene paints with."""

import hashlib
import io
import math
import random
from collections.abc import Callable

from PIL import Image, ImageChops, ImageDraw

from engines import Job
from engines.painter.colours import PALETTES, Colour, gradient, mix, rgb, tinted
from engines.painter.curves import Point
from engines.painter.words import colours_in, compose

VERSION = "test_model_v1"

Stroke = Callable[[], None]


class Canvas:
    """The picture being painted, larger than asked for so that reducing it smooths the edges.

    Every motif draws its luck from its own `random(name)`: leaving one out moves none of the others.
    """

    def __init__(self, job: Job):
        self.job = job
        pixels = job.width * job.height
        scale = 4 if pixels <= 256 * 256 else 2 if pixels <= 1_600_000 else 1.5
        self.width, self.height = round(job.width * scale), round(job.height * scale)
        self.unit = min(self.height, self.width * 1.3)
        # More steps mean more trees, stars and blades of grass; 20 steps count as one.
        self.detail = 0.5 + math.sqrt(job.steps / 80)
        rng = self.random("composition")
        self.mood, self.motifs = compose(job, rng)
        self.low_light = bool(self.motifs & {"sunset", "dawn"}) or self.mood in ("sunset", "dawn")
        self.horizon = self.height * rng.uniform(0.55, 0.62)
        self.light_x = self.width * rng.choice((rng.uniform(0.22, 0.42), rng.uniform(0.58, 0.78)))
        lift, radius = rng.uniform(0.08, 0.17), rng.uniform(0.075, 0.105)
        self.light_y = self.horizon - self.unit * (lift if self.low_light else 0.25 + lift)
        self.light_radius = self.unit * (radius if self.low_light else radius * 0.6)
        self._choose_colours(rng)
        self.image = Image.new("RGB", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def _choose_colours(self, rng: random.Random) -> None:
        sky, light, land, accents = rng.choice(PALETTES[self.mood]).split("|")
        self.sky = [rgb(code) for code in sky.split()]
        self.light, (self.far, self.near) = rgb(light.strip()), map(rgb, land.split())
        self.accents = [rgb(code) for code in accents.split()]
        banned = colours_in(self.job.negative_prompt)
        tints = [colour for colour in colours_in(self.job.prompt) if colour not in banned]
        if tints and "flower" in self.motifs:
            self.accents = tints * 3 + [mix(tints[0], (255, 255, 255), 0.45)]
        elif tints:
            # A green or a brown means the land: no sky looks good in them.
            airy = [tint for tint in tints if tint not in (rgb("43a047"), rgb("8d5a3b"))] if self.motifs else tints
            self.sky = [tinted(colour, airy[0]) for colour in self.sky] if airy else self.sky
            self.far, self.near = (tinted(colour, tints[-1]) for colour in (self.far, self.near))
            self.accents = [tinted(colour, rng.choice(tints)) for colour in self.accents]

    @property
    def mist(self) -> Colour:
        """The colour of the air at the horizon, which far things fade into."""
        return self.sky[-1]

    def land(self, nearness: float) -> Colour:
        """The colour of land, from 0 (far away) to 1 (at our feet)."""
        colour = mix(self.far, self.near, nearness)
        if "snow" not in self.motifs:
            return colour
        return mix(colour, mix(self.far, (255, 255, 255), 0.68), 0.3 + 0.55 * nearness)

    def count(self, number: float) -> int:
        """How many of something to draw, more of them with more steps."""
        return max(1, round(number * self.detail))

    def random(self, name: str) -> random.Random:
        """Start the series of chances that belongs to one motif of this job."""
        text = f"{VERSION}|{self.job.seed}|{self.job.prompt}|{name}"
        return random.Random(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())

    def fill(self, outline: list[Point], top: Colour, bottom: Colour, reach: float | None = None) -> None:
        """Fill an outline with a gradient that ends `reach` pixels below its top, or at its bottom."""
        left, upper = (math.floor(max(0, min(axis))) for axis in zip(*outline))
        right = min(self.width, math.ceil(max(x for x, _ in outline)))
        lower = min(self.height, math.ceil(max(y for _, y in outline)))
        if right <= left or lower <= upper:
            return
        size = (right - left, lower - upper)
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon([(x - left, y - upper) for x, y in outline], fill=255)
        bend = max(1, min(size[1], round(reach or size[1])))
        paint = Image.new("RGB", size, bottom)
        paint.paste(gradient((size[0], bend), [top, bottom]))
        self.image.paste(paint, (left, upper), mask)

    def ground(self, line: list[Point], top: Colour, bottom: Colour, reach: float) -> None:
        """Fill everything below a line."""
        self.fill([*line, (self.width, self.height + 1), (0, self.height + 1)], top, bottom, reach)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Light up a round patch that fades softly to nothing at its radius."""
        side = max(2, round(radius * 2))
        fade = [round(255 * strength * max(0, 1 - level / 180) ** 2.2) for level in range(256)]
        mask = Image.radial_gradient("L").point(fade).resize((side, side), Image.Resampling.BICUBIC)
        self.image.paste(colour, (round(x - radius), round(y - radius)), mask)

    def veil(self, top: float, bottom: float, colour: Colour, strength: float) -> None:
        """Lay a band of mist over the picture, thickest at its middle."""
        band = [(0,) * 3, (round(255 * strength),) * 3, (0,) * 3]
        mask = gradient((self.width, max(2, round(bottom - top))), band).convert("L")
        self.image.paste(colour, (0, round(top)), mask)

    def disc(self, x: float, y: float, radius: float, colour: tuple[int, ...]) -> None:
        """Draw a flat disc; a fourth part of the colour is its opacity."""
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def png(self) -> bytes:
        """Reduce to the size asked for, add a fine grain that hides colour steps, and encode."""
        picture = self.image.resize((self.job.width, self.job.height), Image.Resampling.HAMMING)
        tile = Image.frombytes("L", (192, 192), self.random("grain").randbytes(192 * 192))
        tile = tile.point([124 + level * 9 // 256 for level in range(256)])
        grain = Image.new("L", picture.size)
        for x in range(0, picture.width, 192):
            for y in range(0, picture.height, 192):
                grain.paste(tile, (x, y))
        picture = ImageChops.add(picture, Image.merge("RGB", (grain,) * 3), offset=-128)
        output = io.BytesIO()
        picture.save(output, "PNG", compress_level=4)
        return output.getvalue()
