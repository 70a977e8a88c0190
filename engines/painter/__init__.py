"""Owns the built-in drawing engine: pictures drawn by plain code from the words of a prompt and a seed.

It is no AI model: it knows the words in WORDS and how to draw them, and nothing else. It needs only Pillow,
and gives the same bytes for the same job in every process; a prompt without a known word becomes an abstract.
"""

import colorsys
import hashlib
import io
import math
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise, takewhile
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from engines import Drawing, Job, no_progress

VERSION = "test_model_v1"

Colour = tuple[int, int, int]
Point = tuple[float, float]
Stroke = Callable[[], None]

# --------------------------------------------------------------------------------------
# What the words mean. Latin words match whole (plurals too), Chinese ones as substrings.
# --------------------------------------------------------------------------------------

WORDS = {
    "sunset": "sunset dusk evening twilight 日落 夕阳 夕陽 落日 黄昏 黃昏 晚霞 傍晚",
    "dawn": "dawn sunrise morning daybreak 日出 黎明 清晨 早晨 朝霞 晨曦",
    "night": "night midnight nocturnal dark 夜 深夜 午夜",
    "day": "day daytime noon sunny 白天 中午 晴",
    "spring": "spring 春",
    "autumn": "autumn autumnal foliage 秋 枫 楓",
    "sun": "sun sunshine sunlight 太阳 太陽 阳光 陽光",
    "moon": "moon moonlight lunar 月亮 月光 明月 月",
    "star": "star starry stardust constellation 星",
    "galaxy": "galaxy nebula cosmos cosmic space universe 银河 銀河 星云 宇宙 太空",
    "planet": "planet saturn jupiter mars 行星 土星 木星 火星",
    "aurora": "aurora borealis 极光 極光",
    "rainbow": "rainbow 彩虹",
    "cloud": "cloud cloudy sky 云 雲 天空 蓝天",
    "fog": "fog foggy mist misty haze 雾 霧",
    "rain": "rain rainy storm stormy 雨 暴风 暴風",
    "snow": "snow snowy winter ice frozen 雪 雪花 冬 冰",
    "mountain": "mountain peak alp alps valley himalaya fuji 山 峰 岭 嶺 峡谷",
    "hill": "hill field countryside landscape farm 丘 田野 乡村 鄉村 风景 風景",
    "city": "city town skyline skyscraper street building cyberpunk tokyo shanghai 城市 都市 城 街 高楼 大厦 上海",
    "sea": "sea ocean lake river water beach coast island wave seascape 海 湖 江 河 海浪 浪花 岛 島",
    "desert": "desert dune sahara sand 沙漠 沙丘 大漠",
    "forest": "forest tree wood woodland pine jungle 森林 树 樹 林",
    "flower": "flower floral meadow blossom garden rose tulip daisy poppy lavender sunflower 花 草原 草地 玫瑰",
    "boat": "boat sailboat ship sail yacht 帆船 小船 渔船 轮船 帆 舟",
    "house": "house cabin cottage hut 房子 小屋 木屋 屋",
    "balloon": "balloon 气球 氣球",
    "bird": "bird seagull gull swallow crane 鸟 鳥 海鸥 燕 鹤",
    "cat": "cat kitten kitty 猫 貓",
    "fox": "fox 狐",
    "firework": "firework celebration festival 烟花 煙花 烟火 节日",
}

COLOUR_WORDS = {
    "d62839": "red crimson scarlet 红 紅",
    "f3722c": "orange 橙 橘",
    "f9c22e": "yellow gold golden 黄色 黃色 金色 金黄",
    "43a047": "green emerald 绿 綠",
    "1fa6a0": "teal turquoise cyan 青色",
    "2667c9": "blue azure navy 蓝 藍",
    "7b3fb5": "purple violet lilac 紫",
    "f283b0": "pink 粉",
    "8d5a3b": "brown 棕 褐",
    "f7f7f5": "white 白色 白雪 洁白",
    "16161c": "black 黑",
    "8a8f98": "gray grey silver monochrome 灰 银色",
}

# Sky from the zenith to the horizon | light | far land, near land | accents.
PALETTES = {
    "sunset": (
        "2d1b4e 7a2d6b d1495b f79256 fbd1a2 | fff1d0 | c2577a 2a1536 | ffd166 ff8a5b f25c78 8d3b8a",
        "1f3a5f 5b6c9e c08497 f7af9d f7e3af | fff6dc | b07a94 2b2745 | f7e3af f28482 f6bd60 84a59d",
        "3a0f2b 8c1c3a d7402b f48c3b ffd27a | fff0c0 | b8433a 240a1c | ffd27a ff7b54 ffb26b f2545b",
    ),
    "dawn": (
        "6d7fae a99cc4 e8b4bc fbd6b8 fff0d6 | fffaf0 | b79bb8 3f3a5c | f4acb7 ffcad4 ffe5d9 9d8189",
        "3f6c8a 8fb0b8 e9cfb5 f9dcc4 fff3e2 | fffdf5 | a8a9ad 2f4550 | f4a261 e9c46a f7ede2 84a59d",
    ),
    "night": (
        "060b26 0f1d4a 1f3b73 3f6299 | f7f1da | 2f4f86 050a1c | ffd98a ffb86b f7f1da 8fb8ff",
        "0b0620 1e1145 3b2470 7a58a8 | fdf0d5 | 4a3480 0a0618 | ffcf99 ff9ec4 fdf0d5 b79cff",
        "021019 06283a 0f4c5c 3f858a | f1faee | 1f5d6b 020c12 | ffdf91 ffc36b f1faee 7fe0d0",
    ),
    "day": (
        "2a78b8 62a8da a9d6ee eaf6f3 | fffbe6 | 9cc4d8 22604f | f25f5c ffe066 ffffff f7a6c1",
        "1f8a9e 6cc0c4 b8e4d8 f8f3dc | fffbe6 | 9bc9bd 1d4f45 | ff8c61 ffe066 ffffff f9a1bc",
    ),
    "rain": (
        "2c3947 4c5f70 8195a1 b9c4c6 | e8eef0 | 8798a3 1c2630 | e0b36a d9d2c0 c9d6df f2a65a",
        "26323f 3f5866 6f8f94 aebfb8 | e8eee8 | 7c959a 16242b | f0c27b d9d2c0 c9d6df f2a65a",
    ),
    "snow": (
        "6f93ba a5c0da d9e5ee f8f1ec | fffdf5 | a9bfd6 3a5572 | ffffff e8eef6 f6d7c3 c9d9ea",
        "7d88b4 b9bad8 ecd5de fdeee6 | fffaf4 | b5b4d2 454a72 | ffffff f3e9f2 f7d6d0 cfd2ea",
    ),
    "forest": (
        "6f9c8c a3c4ab d5e3c4 f7f3d8 | fffbe0 | a5c4b0 12332e | f4e285 f4a259 ffffff bc4b51",
        "5d8aa0 9fbfc0 d8e2cf faf0d2 | fffbe0 | 9dbbb8 16302f | f4e285 f4a259 ffffff bc4b51",
    ),
    "desert": (
        "2c6e8a 87b5b2 f1d9a7 f6bd83 | fff5d6 | eeb077 9c4427 | f4a259 e76f51 ffe8c2 8a3b26",
        "5a4a78 b0738a ee9f7f fbd5a0 | fff1d0 | e59a72 7a2f2b | f4a259 e76f51 ffe8c2 8a3b26",
    ),
    "autumn": (
        "6a8fa0 c3c4ae f3d9a2 f6b26b | fff4d6 | d9a066 4e2318 | e85d04 d00000 faa307 ffba08",
        "7a8b9a c9b8a8 f0cfa0 f2a65a | fff4d6 | c98c5a 43201c | e85d04 c1121f f48c06 ffba08",
    ),
    "spring": (
        "6db3e0 b0daee f6e6ea fff5ec | fffbe6 | b0d6c0 3a7a4e | ff7aa2 ffffff ffd23f c77dff",
        "7ba7d9 bcd0ec f7dfe3 fff0de | fffbe6 | a9cdb0 2f6b52 | ff5d5d ffe3ec ffb703 9b7ede",
    ),
    "abstract": (
        "0b132b 1c2541 3a506b | f7f1e3 | 5bc0be 0b132b | 5bc0be f4d35e ee964b f95738 f7f1e3",
        "f6f0e4 f3e3cf eed2b6 | 1d3557 | e63946 1d3557 | e63946 f4a261 2a9d8f 264653 e9c46a",
        "1a1033 3c1a5b 7a2a6b | ffe8d6 | f25f8a 1a1033 | ff9f68 f25f8a b14aed 5e60ce ffe8d6",
        "eef3ef d8e8e0 bfdcd0 | 12453f | 3a8c7e 12453f | 12453f 3a8c7e f2b880 e4572e fbf3e4",
        "fbeee6 f9d9cf f3bfb8 | 3d2c4f | a05c7b 3d2c4f | 3d2c4f a05c7b ef8275 f6b89e 6c8fb3",
    ),
}

# The first of these that the prompt names sets the mood, hence the palette.
MOODS = (
    ("galaxy planet aurora firework night", "night"),
    ("sunset", "sunset"),
    ("dawn", "dawn"),
    ("moon star", "night"),
    ("rain", "rain"),
    ("autumn", "autumn"),
    ("desert", "desert"),
    ("snow", "snow"),
    ("flower spring", "spring"),
    ("day rainbow sun", "day"),
    ("fog forest", "forest"),
    ("city firework cat", "night sunset"),
    ("sea", "day sunset dawn"),
    ("fox", "sunset dawn"),
    ("", "day dawn sunset"),
)

# What else a motif or a mood brings along, unless the negative prompt forbids it.
BRINGS = {
    "sunset": "sun cloud bird",
    "dawn": "sun cloud bird",
    "day": "sun cloud bird",
    "night": "star moon",
    "galaxy": "star",
    "planet": "star",
    "aurora": "star",
    "rain": "cloud",
    "snow": "snowfall",
    "autumn": "sun forest",
    "desert": "sun",
    "spring": "cloud sun flower",
    "forest": "sun",
    "boat": "sea",
    "house": "hill forest",
    "flower": "hill sun cloud",
    "fog": "mountain forest",
    "rainbow": "hill cloud",
}

GROUND = {"mountain", "hill", "city", "sea", "desert", "forest", "flower"}
SPACE = {"galaxy", "planet"}
SUBJECTS = {"cat", "fox", "house"}


def motifs_in(text: str) -> set[str]:
    """Name the motifs, of WORDS, that the text asks for."""
    return _matches(text, WORDS)


def colours_in(text: str) -> list[Colour]:
    """List the colours, as RGB, that the text names, in the order of COLOUR_WORDS."""
    found = _matches(text, COLOUR_WORDS)
    return [rgb(code) for code in COLOUR_WORDS if code in found]


def _matches(text: str, table: dict[str, str]) -> set[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    latin = set(re.findall(r"[a-z]+", folded))
    latin |= {word.removesuffix("s") for word in latin} | {word.removesuffix("es") for word in latin}
    latin |= {word.removesuffix("ies") + "y" for word in latin if word.endswith("ies")}
    found = set()
    # Long words go first and are struck out, or the 花 in 烟花 (firework) would ask for flowers.
    pairs = [(word, name) for name, words in table.items() for word in words.split()]
    for word, name in sorted(pairs, key=lambda pair: len(pair[0]), reverse=True):
        if word in latin if word.isascii() else word in folded:
            found.add(name)
            folded = folded.replace(word, " ")
    return found


# --------------------------------------------------------------------------------------
# Colours, lines and textures
# --------------------------------------------------------------------------------------


def rgb(code: str) -> Colour:
    """Turn six hexadecimal digits into a colour."""
    return tuple(bytes.fromhex(code))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; share 0 gives the first, 1 the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second))


def tinted(colour: Colour, tint: Colour) -> Colour:
    """Pull a colour towards a tint, keeping most of its lightness so that the depth of a scene survives."""
    _, lightness, _ = colorsys.rgb_to_hls(*(part / 255 for part in colour))
    hue, wanted, saturation = colorsys.rgb_to_hls(*(part / 255 for part in tint))
    target = colorsys.hls_to_rgb(hue, lightness * 0.75 + wanted * 0.25, saturation * 0.85)
    return mix(colour, tuple(round(part * 255) for part in target), 0.7)


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


def gradient(size: tuple[int, int], colours: list[Colour]) -> Image.Image:
    """Make a picture whose colour runs from top to bottom through evenly spaced stops."""
    column = Image.new("RGB", (1, size[1]))
    pieces = len(colours) - 1
    for y in range(size[1]):
        place = y / max(1, size[1] - 1) * pieces
        stop = min(int(place), pieces - 1)
        column.putpixel((0, y), mix(colours[stop], colours[stop + 1], place - stop))
    return column.resize(size)


# --------------------------------------------------------------------------------------
# The canvas
# --------------------------------------------------------------------------------------


def compose(job: Job, rng: random.Random) -> tuple[str, set[str]]:
    """Choose the mood and the motifs of a job; the mood is "abstract", without motifs, if no word is known."""
    forbidden = motifs_in(job.negative_prompt)
    wanted = motifs_in(job.prompt) - forbidden
    if not wanted:
        return "abstract", set()
    choices = next(moods.split() for names, moods in MOODS if not names or wanted & set(names.split()))
    mood = rng.choice([choice for choice in choices if choice not in forbidden] or ["day"])
    brought = {extra for name in wanted | {mood} for extra in BRINGS.get(name, "").split()}
    if not (wanted | brought) & (GROUND | SPACE):
        brought |= {"hill", rng.choice(("mountain", "hill") if wanted & SUBJECTS else ("mountain", "hill", "forest"))}
    if (wanted | brought) & GROUND == {"mountain"}:
        brought.add(rng.choice(("hill", "forest", "sea")))
    if mood in ("night", "rain") or SPACE & wanted:
        brought -= {"sun", "bird"} | ({"moon"} if SPACE & wanted or mood == "rain" else set())
    return mood, wanted | (brought - forbidden)


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


# --------------------------------------------------------------------------------------
# Skies. Each motif is a generator of strokes, in painting order.
# --------------------------------------------------------------------------------------


def paint_sky(canvas: Canvas) -> Iterator[Stroke]:
    """Paint the sky, brighter around the sun or moon."""
    tall = canvas.height if SPACE & canvas.motifs and not GROUND & canvas.motifs else round(canvas.horizon * 1.05)

    def backdrop() -> None:
        canvas.image.paste(canvas.mist, (0, 0, canvas.width, canvas.height))
        canvas.image.paste(gradient((canvas.width, tall), canvas.sky), (0, 0))

    yield backdrop
    if canvas.motifs & {"sun", "moon"}:
        warm = mix(canvas.light, canvas.sky[-1], 0.5)
        strength = 0.75 if "sun" in canvas.motifs else 0.4
        yield partial(canvas.glow, canvas.light_x, canvas.light_y, canvas.unit * 0.62, warm, strength)


def paint_galaxy(canvas: Canvas) -> Iterator[Stroke]:
    """Paint a slanted band of coloured gas."""
    rng = canvas.random("galaxy")
    slant, middle = rng.uniform(-0.5, 0.5), rng.uniform(0.3, 0.5)
    clouds = rng.sample(canvas.accents, 3)

    def wisp(colour: Colour, strength: float, wide: float) -> None:
        for _ in range(18):
            x = rng.uniform(-0.1, 1.1)
            y = middle + slant * (x - 0.5) + rng.gauss(0, wide)
            canvas.glow(x * canvas.width, y * canvas.height, canvas.unit * rng.uniform(0.1, 0.3), colour, strength)

    for colour, strength, wide in zip([*clouds, canvas.light], (0.16, 0.14, 0.14, 0.1), (0.12, 0.09, 0.07, 0.03)):
        yield partial(wisp, colour, strength, wide)


def paint_stars(canvas: Canvas) -> Iterator[Stroke]:
    """Scatter stars, the large ones with a halo."""
    rng = canvas.random("stars")
    deep = canvas.height if SPACE & canvas.motifs else canvas.horizon

    def batch() -> None:
        for _ in range(canvas.count(70)):
            x, y = rng.uniform(0, canvas.width), deep * rng.random() ** 1.3
            size = canvas.unit * 0.0007 * (1 + 2.4 * rng.random() ** 5)
            colour = mix(canvas.light, rng.choice(canvas.accents), rng.uniform(0, 0.5))
            canvas.disc(x, y, max(0.8, size), (*colour, round(rng.uniform(90, 255) * (1 - 0.75 * y / deep))))
        canvas.glow(x, y, canvas.unit * 0.025, canvas.light, 0.55)
        canvas.disc(x, y, canvas.unit * 0.0028, canvas.light)

    yield from [batch] * 6


def paint_aurora(canvas: Canvas) -> Iterator[Stroke]:
    """Hang curtains of light along waving lines, out of narrow upright strips."""
    rng = canvas.random("aurora")
    size = (canvas.width // 2, round(canvas.horizon) // 2)
    wide = size[0] // 160 + 2
    ramp = Image.linear_gradient("L").point([round((level / 255) ** 2 * 255) for level in range(256)])

    def curtain(low: Colour, high: Colour, level: float) -> None:
        line = rolling(rng, size[0], size[1] * level, canvas.unit * 0.035, rng.uniform(0.7, 1.3))
        mask = Image.new("L", size)
        pace, phase = rng.uniform(0.15, 0.3), rng.uniform(0, 7)
        for index, (x, y) in enumerate(line):
            ray = (0.35 + 0.65 * abs(math.sin(index * pace + phase))) * rng.uniform(0.75, 1)
            strip = ramp.resize((wide, round(canvas.unit * (0.08 + 0.14 * ray))))
            mask.paste(strip.point([round(value * ray) for value in range(256)]), (round(x), round(y) - strip.height))
            foot = strip.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((wide, strip.height // 6 + 1))
            mask.paste(foot.point([round(value * ray) for value in range(256)]), (round(x), round(y)))
        mask = mask.filter(ImageFilter.BoxBlur(canvas.unit / 400)).resize(
            (size[0] * 2, size[1] * 2), Image.Resampling.BICUBIC
        )
        reach = round(size[1] * 2 * level)
        paint = Image.new("RGB", mask.size, low)
        paint.paste(gradient((mask.width, reach), [high, high, low]))
        canvas.image.paste(paint, (0, 0), mask)

    for level in (0.5, 0.66, 0.84):
        low = rng.choice((rgb("5cf2b0"), rgb("57e0c8"), rgb("8bf28a")))
        yield partial(curtain, low, rng.choice((rgb("8a6cf0"), rgb("3f8fe0"), rgb("c06cd8"))), level)


def paint_light(canvas: Canvas) -> Iterator[Stroke]:
    """Paint the sun, or the moon with its shadows."""
    x, y, radius = canvas.light_x, canvas.light_y, canvas.light_radius
    rng = canvas.random("light")
    yield partial(canvas.glow, x, y, radius * 3, canvas.light, 0.6)
    yield partial(canvas.disc, x, y, radius, canvas.light)
    if "moon" in canvas.motifs:
        for _ in range(7):
            angle, away = rng.uniform(0, math.tau), radius * rng.uniform(0.1, 0.6)
            size = radius * rng.uniform(0.08, 0.26)
            shade = (*mix(canvas.light, canvas.sky[-1], 0.6), 70)
            yield partial(canvas.disc, x + away * math.cos(angle), y + away * math.sin(angle), size, shade)


def paint_planet(canvas: Canvas) -> Iterator[Stroke]:
    """Paint a banded planet, lit from one side, with a ring."""
    rng = canvas.random("planet")
    radius = canvas.unit * rng.uniform(0.14, 0.19)
    x, y = canvas.width * rng.uniform(0.42, 0.58), canvas.height * rng.uniform(0.36, 0.48)
    base, other = rng.sample(canvas.accents, 2)

    def ring(start: int) -> None:
        layer = Image.new("L", (round(radius * 5),) * 2)
        pen, middle = ImageDraw.Draw(layer), radius * 2.5
        for share, strength in ((2.1, 120), (1.95, 190), (1.62, 90)):
            wide, tall = radius * share, radius * share * 0.24
            box = (middle - wide, middle - tall, middle + wide, middle + tall)
            pen.arc(box, start, start + 180, fill=strength, width=round(radius * 0.09))
        layer = layer.rotate(16, Image.Resampling.BICUBIC)
        canvas.image.paste(mix(other, canvas.light, 0.5), (round(x - middle), round(y - middle)), layer)

    bands = [mix(base, rng.choice(canvas.accents), rng.uniform(0, 0.45)) for _ in range(11)]
    yield partial(canvas.glow, x, y, radius * 2.1, base, 0.35)
    yield partial(ring, 180)
    yield partial(_ball, canvas, (x, y, radius), bands)
    yield partial(ring, 0)


def _ball(canvas: Canvas, place: tuple[float, float, float], bands: list[Colour]) -> None:
    x, y, radius = place
    side = max(2, round(radius * 2))
    paint = gradient((side, side), bands).rotate(16, Image.Resampling.BICUBIC, fillcolor=bands[0])
    # Shadow grows with the distance from a point on the lit upper left.
    distance = Image.radial_gradient("L").resize((side * 2, side * 2))
    near = round(side * 0.83)
    shade = distance.crop((near, near, near + side, near + side)).point(
        [min(235, level * 3 // 2) for level in range(256)]
    )
    paint.paste(mix(canvas.sky[0], (0, 0, 0), 0.4), (0, 0), shade)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
    canvas.image.paste(paint, (round(x - radius), round(y - radius)), mask)


def paint_clouds(canvas: Canvas) -> Iterator[Stroke]:
    """Drift clouds: soft heaps by day, long thin bars in low light, a dark ceiling in the rain."""
    rng = canvas.random("clouds")
    rainy = "rain" in canvas.motifs
    flat = 0.16 if canvas.low_light else 0.42
    for _ in range(14 if rainy else 9 if "cloud" in motifs_in(canvas.job.prompt) else 5):
        height = rng.uniform(0, 0.45) if rainy else rng.uniform(0.1, 0.9)
        size = canvas.unit * (0.2 - 0.13 * height) * rng.uniform(0.7, 1.4) * (1.7 if canvas.low_light else 1)
        place = (canvas.width * rng.uniform(-0.05, 1.05), canvas.horizon * height, size, flat)
        around = canvas.sky[int(height * len(canvas.sky))]
        colour = canvas.sky[0] if rainy else canvas.accents[1] if canvas.low_light else canvas.light
        yield partial(_cloud, canvas, rng, place, mix(around, colour, 0.5 if rainy or canvas.low_light else 0.8))


def _cloud(canvas: Canvas, rng: random.Random, place: tuple[float, float, float, float], colour: Colour) -> None:
    x, y, reach, flat = place
    box = (max(8, round(reach * 2.4)), max(8, round(reach * 2.4 * flat)))
    mask = Image.new("L", box)
    pen = ImageDraw.Draw(mask)
    for _ in range(16):
        away = rng.uniform(-0.82, 0.82)
        tall = box[1] * (0.16 + 0.42 * (1 - abs(away)) * rng.uniform(0.5, 1))
        wide, middle = tall * (0.34 / flat), box[0] / 2 + away * reach
        pen.ellipse((middle - wide, box[1] * 0.82 - tall, middle + wide, box[1] * 0.82 + tall * 0.35), fill=255)
    fade = gradient(box, [(235,) * 3, (200,) * 3, (0,) * 3]).convert("L")
    mask = ImageChops.multiply(mask.filter(ImageFilter.BoxBlur(canvas.unit / 500)), fade)
    canvas.image.paste(colour, (round(x - box[0] / 2), round(y - box[1] / 2)), mask)


def paint_rainbow(canvas: Canvas) -> Iterator[Stroke]:
    """Span seven translucent bows over the horizon."""
    middle, wide = canvas.width * 0.5, canvas.unit * 0.014
    for index, code in enumerate(("ff5e5b", "ff9f45", "ffe066", "7ddf80", "56c5f0", "5b7fe8", "a56be0")):
        radius = min(canvas.width * 0.46, canvas.horizon * 0.9) - index * wide
        box = (middle - radius, canvas.horizon - radius, middle + radius, canvas.horizon + radius)
        yield partial(canvas.draw.arc, box, 180, 360, fill=(*rgb(code), 110), width=round(wide) + 1)


def paint_fireworks(canvas: Canvas) -> Iterator[Stroke]:
    """Let rockets burst over the horizon."""
    rng = canvas.random("fireworks")

    def burst(x: float, y: float, radius: float, colour: Colour) -> None:
        canvas.glow(x, y, radius * 1.2, colour, 0.35)
        for _ in range(canvas.count(46)):
            angle, reach = rng.uniform(0, math.tau), radius * rng.uniform(0.45, 1)
            trail = [
                (x + reach * t * math.cos(angle), y + reach * (t * math.sin(angle) + 0.22 * t * t))
                for t in (0.25, 0.5, 0.75, 1)
            ]
            canvas.draw.line(trail, fill=(*colour, 150), width=max(1, round(canvas.unit / 420)), joint="curve")
            canvas.disc(*trail[-1], canvas.unit * 0.003, mix(colour, (255, 255, 255), 0.6))

    for _ in range(6):
        x, y = canvas.width * rng.uniform(0.1, 0.9), canvas.horizon * rng.uniform(0.12, 0.6)
        yield partial(burst, x, y, canvas.unit * rng.uniform(0.09, 0.2), rng.choice(canvas.accents))


# --------------------------------------------------------------------------------------
# Land and water
# --------------------------------------------------------------------------------------


def paint_mountains(canvas: Canvas) -> Iterator[Stroke]:
    """Raise ranges one before the other, each paler at its foot, with a shaded side and perhaps snow."""
    rng = canvas.random("mountains")

    def mountain_range(nearness: float) -> None:
        foot = canvas.horizon + canvas.unit * (0.02 + 0.05 * nearness) * ("sea" not in canvas.motifs)
        tall = canvas.unit * (0.34 - 0.14 * nearness) * rng.uniform(0.85, 1.15)
        step = canvas.unit * (0.3 - 0.08 * nearness)
        controls, x, high = [], -step * rng.random() - step, True
        while x < canvas.width + step * 2:
            controls.append((x, foot - tall * (rng.uniform(0.58, 1) if high else rng.uniform(0.1, 0.3))))
            x, high = x + step * rng.uniform(0.35, 0.75), not high
        pieces = [rugged(rng, list(pair), 0.2, 5) for pair in pairwise(controls)]
        line = [point for piece in pieces for point in piece]
        colour = canvas.land(nearness * 0.75)
        canvas.ground(line, colour, mix(colour, canvas.mist, 0.75), tall)
        for left, right in pairwise(pieces):
            _facet(canvas, rng, left, right, (colour, foot, tall, nearness))

    for nearness in (0, 0.4, 0.8):
        yield partial(mountain_range, nearness)
        middle = canvas.horizon + canvas.unit * 0.04 * nearness
        yield partial(canvas.veil, middle - canvas.unit * 0.12, middle + canvas.unit * 0.12, canvas.mist, 0.5)


def _facet(canvas: Canvas, rng: random.Random, left: list, right: list, shape: tuple) -> None:
    """Shade the side of one peak away from the light, and put snow on a high one."""
    colour, foot, tall, nearness = shape
    peak = left[-1]
    if peak[1] > left[0][1]:
        return
    dark = right if canvas.light_x < canvas.width / 2 else left[::-1]
    low = (peak[0] + (dark[-1][0] - peak[0]) * 0.1, min(foot, dark[-1][1] + tall * 0.1))
    seam = [_along(peak, low, part / 7, rng.uniform(-0.03, 0.03) * tall * (part > 0)) for part in range(8)]
    foot_colour = mix(colour, canvas.mist, 0.75)
    ends = [mix(colour, foot_colour, max(0, 1 - (foot - y) / tall)) for y in (peak[1], low[1])]
    canvas.fill([*dark, *seam[::-1]], mix(ends[0], canvas.near, 0.3), ends[1])
    snow_line = foot - tall * 0.62
    if peak[1] > snow_line - tall * 0.05:
        return
    above = [list(takewhile(lambda point: point[1] < snow_line, side)) for side in (left[::-1], right)]
    cap = above[0][::-1] + above[1]
    teeth = [(x, y + (snow_line - y) * rng.uniform(0.35, 0.95)) for x, y in cap[::-2]]
    white = mix(canvas.light, canvas.mist, 0.3 + 0.4 * (1 - nearness))
    canvas.draw.polygon(cap + teeth, fill=(*white, 190))


def _along(start: Point, end: Point, share: float, aside: float) -> Point:
    return start[0] + (end[0] - start[0]) * share + aside, start[1] + (end[1] - start[1]) * share


def paint_hills(canvas: Canvas) -> Iterator[Stroke]:
    """Roll soft hills towards us."""
    rng = canvas.random("hills")

    def hill(nearness: float) -> None:
        level = canvas.horizon + (canvas.height - canvas.horizon) * (nearness * 0.8 - 0.1)
        line = rolling(rng, canvas.width, level, canvas.unit * (0.06 - 0.02 * nearness), rng.uniform(0.5, 1.3))
        colour = canvas.land(0.15 + nearness * 0.8)
        canvas.ground(line, colour, mix(colour, canvas.mist, 0.42 * (1 - nearness)), canvas.unit * 0.24)

    for nearness in (0, 0.2, 0.45, 0.72, 1):
        yield partial(hill, nearness)


def paint_city(canvas: Canvas) -> Iterator[Stroke]:
    """Build rows of towers, the near ones with lit windows."""
    rng = canvas.random("city")
    base = canvas.horizon + canvas.unit * 0.01 if "sea" in canvas.motifs else canvas.height

    def row(nearness: float) -> None:
        x = -canvas.unit * 0.05
        bottom = (
            base if "sea" in canvas.motifs else canvas.horizon + (canvas.height - canvas.horizon) * (0.3 + nearness)
        )
        while x < canvas.width:
            wide = canvas.unit * rng.uniform(0.05, 0.1) * (0.7 + 0.5 * nearness)
            centre = 1 - abs((x + wide / 2) / canvas.width - 0.5)
            top = canvas.horizon - canvas.unit * (
                0.34 * centre * rng.uniform(0.3, 1.1) - 0.2 * nearness * (base == canvas.height)
            )
            _tower(canvas, rng, (x, top, wide, bottom), nearness)
            x += wide * rng.uniform(0.85, 1.12)

    for nearness in (0, 0.35, 0.7, 1):
        yield partial(row, nearness)
        glow = mix(canvas.mist, canvas.accents[0], 0.3)
        yield partial(canvas.veil, canvas.horizon - canvas.unit * 0.2, base + canvas.unit * 0.1, glow, 0.22)


def _tower(canvas: Canvas, rng: random.Random, box: tuple[float, ...], nearness: float) -> None:
    x, top, wide, bottom = box
    colour = mix(
        mix(canvas.land(0.1 + 0.9 * nearness), canvas.mist, 0.3 * (1 - nearness)), canvas.far, rng.uniform(0, 0.3)
    )
    style = rng.randrange(5)
    if style == 0:
        canvas.draw.line(
            (x + wide / 2, top - wide * 0.9, x + wide / 2, top), fill=colour, width=max(1, round(wide / 18))
        )
    if style in (0, 1):
        canvas.draw.rectangle((x + wide * 0.2, top - wide * 0.25, x + wide * 0.8, top), fill=colour)
    if style == 2:
        canvas.draw.polygon([(x, top), (x + wide, top - wide * 0.5), (x + wide, top)], fill=colour)
    canvas.fill(
        [(x, top), (x + wide, top), (x + wide, bottom), (x, bottom)],
        colour,
        mix(colour, canvas.mist, 0.25),
        canvas.unit * 0.7,
    )
    cell = canvas.unit * (0.009 + 0.006 * nearness)
    columns = int(wide / cell) - 1
    lit = 0.36 if canvas.mood in ("night", "sunset", "rain") else 0.18
    for row in range(int((min(bottom, canvas.height) - top) / cell / 1.25)):
        for column in range(columns):
            if rng.random() > lit:
                continue
            wx, wy = (x + (wide - columns * cell) / 2 + column * cell + cell * 0.2, top + (row + 0.6) * cell * 1.25)
            window = mix(rng.choice(canvas.accents[:2]), canvas.light, rng.random())
            canvas.draw.rectangle(
                (wx, wy, wx + cell * 0.5, wy + cell * 0.62), fill=(*window, round(60 + 170 * nearness))
            )


def paint_sea(canvas: Canvas) -> Iterator[Stroke]:
    """Mirror what stands above the horizon in rippling water, with a path of light under the sun or moon."""
    rng = canvas.random("sea")
    top, deep = round(canvas.horizon), canvas.height - round(canvas.horizon)
    foam = mix(canvas.mist, canvas.light, 0.5)

    def dash(x: float, near: float, colour: Colour, strength: float) -> None:
        y = top + near * deep
        wide = canvas.unit * (0.006 + 0.05 * near) * rng.uniform(0.4, 1.3)
        tall = max(0.7, canvas.unit * (0.0008 + 0.0026 * near))
        paint = (*colour, round(strength * rng.uniform(0.4, 1)))
        canvas.draw.ellipse((x - wide, y - tall, x + wide, y + tall), fill=paint)

    def waves() -> None:
        for _ in range(canvas.count(70)):
            dash(rng.uniform(0, canvas.width), rng.random() ** 1.3, foam, 60)

    def glitter() -> None:
        for _ in range(canvas.count(130)):
            near = rng.random() ** 1.6
            dash(rng.gauss(canvas.light_x, canvas.light_radius * (0.5 + 1.1 * near)), near, canvas.light, 190)

    yield partial(_mirror, canvas, rng, top, deep)
    yield from [waves] * 3
    if canvas.motifs & {"sun", "moon"}:
        yield from [glitter] * 2


def _mirror(canvas: Canvas, rng: random.Random, top: int, deep: int) -> None:
    seen = canvas.image.crop((0, max(0, top - round(deep * 1.3)), canvas.width, top))
    water = seen.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((canvas.width, deep))
    depths = [canvas.mist, *(mix(canvas.sky[0], canvas.near, share) for share in (0.3, 0.7))]
    water = Image.blend(water, gradient(water.size, depths), 0.42)
    canvas.image.paste(water, (0, top))
    y = 0
    while y < deep:
        tall = max(1, round(canvas.unit * (0.002 + 0.006 * y / deep)))
        shift = canvas.unit * (0.002 + 0.014 * y / deep) * math.sin(y * 31.7 / tall) * rng.uniform(0.3, 1)
        canvas.image.paste(water.crop((0, y, canvas.width, y + tall)), (round(shift), top + y))
        y += tall


def paint_desert(canvas: Canvas) -> Iterator[Stroke]:
    """Heap dunes, each with a lit and a shaded side parted by a winding crest."""
    rng = canvas.random("desert")
    side = -1 if canvas.light_x < canvas.width / 2 else 1

    def dune(nearness: float) -> None:
        base = canvas.horizon + (canvas.height - canvas.horizon) * (nearness * 1.0)
        wide, tall = canvas.width * rng.uniform(0.5, 0.8), canvas.unit * (0.07 + 0.2 * nearness)
        peak = (canvas.width * rng.uniform(0.1, 0.9), base - tall)
        slope = [(t / 24, (1 - math.cos(math.pi * t / 24)) / 2) for t in range(25)]
        rise = [(peak[0] - wide * (1 - t), base - tall * s**1.5) for t, s in slope]
        drop = [(peak[0] + wide * 0.8 * t, base - tall * (1 - s) ** 1.2) for t, s in slope]
        lit = mix(canvas.land(0.1 + 0.5 * nearness), canvas.light, 0.25)
        shade = mix(canvas.land(0.35 + 0.65 * nearness), canvas.sky[0], 0.12)
        canvas.ground(
            [(-canvas.width, base + tall * 0.6), *rise, *drop, (canvas.width * 2, base + tall * 0.6)],
            lit,
            mix(lit, canvas.land(0.6), 0.6),
            tall * 2,
        )
        dark = drop if side < 0 else rise[::-1]
        sway = wide * 0.18 * side
        foot = (peak[0] - sway * 0.6, base + tall * 0.9)
        crest = [
            (peak[0] + (foot[0] - peak[0]) * t + sway * math.sin(t * math.tau) * 0.5, peak[1] + (foot[1] - peak[1]) * s)
            for t, s in slope
        ]
        canvas.fill([*dark, *crest[::-1]], shade, mix(shade, lit, 0.85), tall * 1.9)

    for nearness in (0, 0.15, 0.3, 0.5, 0.75, 1):
        yield partial(dune, nearness)


def paint_forest(canvas: Canvas) -> Iterator[Stroke]:
    """Plant rows of trees, the far ones small and pale in the mist."""
    rng = canvas.random("forest")
    start = 0.75 if canvas.motifs & {"sea", "flower", "city", "desert"} else 0
    leafy = "autumn" in canvas.motifs or (canvas.mood == "spring" and "snow" not in canvas.motifs)

    def row(nearness: float) -> None:
        level = canvas.horizon + (canvas.height - canvas.horizon) * (0.06 + 0.84 * nearness**1.3)
        line = rolling(rng, canvas.width, level, canvas.unit * 0.045, rng.uniform(0.6, 1.4))
        colour = canvas.land(0.2 + 0.8 * nearness)
        bark = mix(canvas.far, canvas.near, 0.35 + 0.65 * nearness)
        size = canvas.unit * (0.09 + 0.2 * nearness)
        for _ in range(canvas.count(canvas.width / size * 3.2)):
            x = rng.uniform(-0.02, 1.02) * canvas.width
            if start and abs(x / canvas.width - 0.5) < 0.3 * rng.random() + 0.12:
                continue
            foot = height_at(line, x) + size * 0.06
            tree = _leafy_tree if leafy else _pine
            tree(canvas, rng, (x, foot, size * rng.uniform(0.45, 1.1)), mix(bark, canvas.far, rng.uniform(0, 0.2)))
        canvas.ground(line, colour, mix(colour, canvas.mist, 0.55 * (1 - nearness)), size * 1.2)

    for nearness in (0, 0.25, 0.5, 0.75, 1):
        if nearness >= start:
            yield partial(row, nearness)
            middle = canvas.horizon + (canvas.height - canvas.horizon) * nearness
            yield partial(
                canvas.veil, middle - canvas.unit * 0.1, middle + canvas.unit * 0.16, canvas.mist, 0.34 * (1 - nearness)
            )


def _pine(canvas: Canvas, rng: random.Random, place: tuple[float, float, float], colour: Colour) -> None:
    x, foot, tall = place
    tiers, wide = 7, tall * rng.uniform(0.17, 0.23)
    left, right = [(x, foot - tall)], []
    for tier in range(1, tiers + 1):
        y, reach = foot - tall * (1 - tier / tiers * 0.93), wide * (tier / tiers) ** 0.85
        left += [(x - reach * rng.uniform(0.8, 1.15), y), (x - reach * 0.5, y - tall * 0.025)]
        right += [(x + reach * rng.uniform(0.8, 1.15), y), (x + reach * 0.5, y - tall * 0.025)]
    trunk = [(x + tall * 0.015, foot), (x - tall * 0.015, foot)]
    canvas.draw.polygon([*left, trunk[1], trunk[0], *right[::-1]], fill=colour)
    if "snow" in canvas.motifs:
        cap = [(x + (px - x) * 0.8, py - tall * 0.02) for px, py in left[:7]]
        canvas.draw.polygon([*cap, (x, left[6][1] - tall * 0.1)], fill=(*mix(canvas.mist, (255, 255, 255), 0.6), 150))


def _leafy_tree(canvas: Canvas, rng: random.Random, place: tuple[float, float, float], colour: Colour) -> None:
    x, foot, tall = place
    canvas.draw.line(
        (x, foot, x, foot - tall * 0.6), fill=mix(colour, (20, 12, 10), 0.4), width=max(1, round(tall * 0.035))
    )
    leaves = mix(
        rng.choice(canvas.accents) if "autumn" in canvas.motifs else canvas.land(0.6), colour, rng.uniform(0.15, 0.5)
    )
    for light in (0, 0, 0, 0.12, 0.12, 0.2):
        px, py = (
            x + rng.gauss(0, tall * 0.1) - light * tall * 0.2,
            foot - tall * (0.64 + light * 0.4) + rng.gauss(0, tall * 0.08),
        )
        canvas.disc(px, py, tall * rng.uniform(0.13, 0.22) * (1 - light), mix(leaves, canvas.light, light))


def paint_flowers(canvas: Canvas) -> Iterator[Stroke]:
    """Grow a meadow: grass and flowers, larger towards us."""
    rng = canvas.random("flowers")
    top = canvas.horizon + (canvas.height - canvas.horizon) * 0.3
    line = rolling(rng, canvas.width, top, canvas.unit * 0.03, 0.8)
    turf = canvas.land(0.75)

    def row(nearness: float) -> None:
        level = top + (canvas.height * 1.04 - top) * nearness
        size = canvas.unit * (0.015 + 0.13 * nearness**1.4)
        for _ in range(canvas.count(min(260, canvas.width / size * 5))):
            _blade(
                canvas,
                rng,
                (rng.uniform(0, canvas.width), level + rng.uniform(-0.6, 0.6) * size, size),
                mix(turf, canvas.near, rng.uniform(0, 0.9)),
            )
        for _ in range(canvas.count(min(90, canvas.width / size * 0.8))):
            _flower(
                canvas,
                rng,
                (rng.uniform(0, canvas.width), level + rng.uniform(-0.6, 0.6) * size, size * rng.uniform(0.8, 1.35)),
            )

    yield partial(canvas.ground, line, mix(turf, canvas.mist, 0.45), canvas.near, canvas.unit * 0.4)
    for nearness in (0.02, 0.07, 0.14, 0.22, 0.32, 0.44, 0.58, 0.75, 0.95):
        yield partial(row, nearness)


def _blade(canvas: Canvas, rng: random.Random, place: tuple[float, float, float], colour: Colour) -> None:
    x, foot, size = place
    lean, tall, wide = rng.gauss(0, size * 0.3), size * rng.uniform(0.6, 1.2), max(0.8, size * 0.035)
    bend = (x + lean * 0.3, foot - tall * 0.55)
    canvas.draw.polygon(
        [
            (x - wide, foot),
            (bend[0] - wide * 0.7, bend[1]),
            (x + lean, foot - tall),
            (bend[0] + wide * 0.7, bend[1]),
            (x + wide, foot),
        ],
        fill=colour,
    )


def _flower(canvas: Canvas, rng: random.Random, place: tuple[float, float, float]) -> None:
    x, foot, size = place
    colour = mix(rng.choice(canvas.accents), canvas.light, rng.uniform(0, 0.2))
    head, radius = (x + rng.gauss(0, size * 0.15), foot - size), size * rng.uniform(0.2, 0.27)
    canvas.draw.line(
        [(x, foot), ((x + head[0]) / 2, foot - size * 0.6), head],
        fill=mix(canvas.near, canvas.land(0.6), 0.4),
        width=max(1, round(size * 0.03)),
    )
    if radius < canvas.unit * 0.006:
        canvas.disc(*head, radius, colour)
        return
    petals, turn, tilt = rng.choice((5, 6, 8, 10)), rng.uniform(0, 7), rng.uniform(0.55, 0.95)
    for petal in range(petals):
        angle = turn + petal * math.tau / petals
        wide = math.pi / petals * 1.05
        rim = [(0, 0.12), (angle - wide, 0.7), (angle - wide * 0.5, 1), (angle + wide * 0.5, 1), (angle + wide, 0.7)]
        outline = [(head[0] + radius * r * math.cos(a), head[1] + radius * r * math.sin(a) * tilt) for a, r in rim]
        canvas.draw.polygon(smooth(outline, 4), fill=mix(colour, canvas.near if petal % 2 else canvas.light, 0.12))
    canvas.disc(*head, radius * 0.3, mix(rgb("f2b632"), canvas.near, 0.12))


# --------------------------------------------------------------------------------------
# Things and creatures, as silhouettes in a box of 1 by 1: y runs down, 1 is the ground
# --------------------------------------------------------------------------------------

# In hundredths: a blob is rounded off, a sharp keeps its corners.
SHAPES = {
    "cat": (
        "blob 37,36 63,36 70,62 74,90 66,100 34,100 26,90 30,62",
        "blob 50,13 62,16 66,27 60,38 40,38 34,27 38,16",
        "sharp 34,26 36,3 48,15",
        "sharp 66,26 64,3 52,15",
        "blob 62,95 80,99 95,90 98,72 93,60 90,63 92,74 88,85 78,91 66,87",
    ),
    "fox": (
        "blob 36,38 52,36 62,50 74,70 76,94 66,100 42,100 38,80 33,55",
        "sharp 37,60 47,60 47,100 36,100",
        "sharp 14,36 28,25 33,20 52,22 56,36 48,46 36,44",
        "sharp 31,24 35,2 45,20",
        "sharp 42,22 50,3 54,27",
        "blob 66,97 70,82 86,72 100,56 106,74 100,93 84,101",
    ),
    "house": ("sharp 14,52 86,52 86,100 14,100", "sharp 4,56 26,20 74,20 96,56", "sharp 66,8 76,8 76,30 66,30"),
}


def _shape(canvas: Canvas, name: str, box: tuple[float, float, float], colour: Colour) -> None:
    left, top, size = box
    for kind, *points in map(str.split, SHAPES[name]):
        places = [map(int, point.split(",")) for point in points]
        outline = [(left + x * size / 100, top + y * size / 100) for x, y in places]
        canvas.draw.polygon(smooth(outline) if kind == "blob" else outline, fill=colour)


def paint_subjects(canvas: Canvas) -> Iterator[Stroke]:
    """Put the creatures and the house on a dark mound at the front."""
    rng = canvas.random("subjects")
    names = sorted(canvas.motifs & SUBJECTS)
    line = rolling(rng, canvas.width, canvas.height * 0.9, canvas.unit * 0.025, 0.7)
    dark = mix(canvas.near, (8, 8, 14), 0.35)
    yield partial(canvas.veil, canvas.height * 0.6, canvas.height * 1.05, canvas.mist, 0.45)
    yield partial(canvas.ground, line, dark, mix(dark, (0, 0, 0), 0.3), canvas.unit * 0.12)

    def stand(name: str, share: float) -> None:
        x = canvas.width * share
        size = canvas.unit * (0.3 if name != "house" else 0.24)
        top = height_at(line, x) - size * 0.97
        if name == "house":
            canvas.glow(x - size * 0.1, top + size * 0.75, size * 1.1, canvas.accents[0], 0.4)
        _shape(canvas, name, (x - size / 2, top, size), mix(dark, (0, 0, 0), 0.25))
        for shift in (-0.24, 0.06) if name == "house" else ():
            box = (x + shift * size, top + size * 0.64, x + (shift + 0.16) * size, top + size * 0.82)
            canvas.draw.rectangle(box, fill=mix(rgb("ffd27a"), canvas.light, 0.3))

    away = 0.7 if canvas.light_x < canvas.width / 2 else 0.3
    for index, name in enumerate(names):
        yield partial(stand, name, away if index == 0 else (1 - away) + 0.2 * (index - 1))


def paint_boats(canvas: Canvas) -> Iterator[Stroke]:
    """Set sailing boats on the water, each over its own faint reflection."""
    rng = canvas.random("boats")
    cloth, jib = (mix(canvas.light, canvas.accents[1], share) for share in (0.2, 0.6))

    def sail(share: float, near: float) -> None:
        size = canvas.unit * (0.07 + 0.2 * near)
        x, foot = canvas.width * share, canvas.horizon + (canvas.height - canvas.horizon) * near + size * 0.1
        rig(x, foot, size, -0.75, 70)
        rig(x, foot, size, 1, 255)
        canvas.draw.line(
            (x, foot - size * 0.9, x, foot - size * 0.12), fill=canvas.near, width=max(1, round(size * 0.02))
        )

    def rig(x: float, foot: float, size: float, upright: float, opacity: int) -> None:
        for colour, outline in (
            (cloth, ((0.02, 0.88), (0.36, 0.22), (0.02, 0.19))),
            (jib, ((-0.02, 0.8), (-0.32, 0.22), (-0.02, 0.19))),
            (canvas.near, ((-0.4, 0.14), (0.42, 0.16), (0.3, -0.01), (-0.28, -0.01))),
        ):
            points = [(x + px * size, foot - py * size * upright) for px, py in outline]
            canvas.draw.polygon(points, fill=(*colour, opacity))

    for near in (0.06, 0.14, 0.42):
        yield partial(sail, rng.uniform(0.12, 0.88), near)


def paint_balloons(canvas: Canvas) -> Iterator[Stroke]:
    """Float striped hot-air balloons."""
    rng = canvas.random("balloons")

    def float_up(x: float, y: float, radius: float) -> None:
        colours = rng.sample(canvas.accents, 2)
        body = [(math.cos(a), math.sin(a)) for a in (math.pi * t / 20 for t in range(-20, 21))]
        for stripe in range(5):
            wide = 1 - stripe * 0.23
            outline = [(x + c * radius * wide, y + s * radius * (1.15 if s > 0 else 1)) for c, s in body]
            canvas.draw.polygon(outline, fill=mix(colours[stripe % 2], canvas.near, 0.1 if stripe % 2 else 0.2))
        foot = y + radius * 1.75
        for side in (-1, 1):
            canvas.draw.line(
                (x + side * radius * 0.45, y + radius * 1.02, x + side * radius * 0.14, foot),
                fill=canvas.near,
                width=max(1, round(radius * 0.03)),
            )
        canvas.draw.rectangle(
            (x - radius * 0.15, foot - radius * 0.05, x + radius * 0.15, foot + radius * 0.2), fill=canvas.near
        )

    for size in (0.028, 0.04, 0.05, 0.085):
        yield partial(
            float_up, canvas.width * rng.uniform(0.1, 0.9), canvas.horizon * rng.uniform(0.15, 0.65), canvas.unit * size
        )


def paint_birds(canvas: Canvas) -> Iterator[Stroke]:
    """Send a small flock across the sky."""
    rng = canvas.random("birds")
    x, y = canvas.width * rng.uniform(0.25, 0.75), canvas.horizon * rng.uniform(0.25, 0.5)
    large = 1.9 if "bird" in motifs_in(canvas.job.prompt) else 1

    def bird() -> None:
        px, py = x + rng.gauss(0, canvas.unit * 0.1), y + rng.gauss(0, canvas.unit * 0.05)
        span, lift = canvas.unit * rng.uniform(0.009, 0.018) * large, rng.uniform(0.35, 0.8)
        wing = [
            (-1, -lift),
            (-0.55, -lift * 0.95),
            (0, 0),
            (0.55, -lift * 0.95),
            (1, -lift),
            (0.5, -lift * 0.65),
            (0, 0.22),
            (-0.5, -lift * 0.65),
        ]
        canvas.draw.polygon(
            [(px + a * span, py + b * span) for a, b in wing], fill=mix(canvas.near, canvas.sky[0], 0.2)
        )

    yield from [bird] * rng.randint(5, 9)


def paint_fog(canvas: Canvas) -> Iterator[Stroke]:
    """Draw banks of mist across the middle."""
    rng = canvas.random("fog")
    for _ in range(4):
        middle = canvas.horizon + canvas.unit * rng.uniform(-0.15, 0.2)
        yield partial(canvas.veil, middle - canvas.unit * 0.14, middle + canvas.unit * 0.14, canvas.mist, 0.5)


def paint_rain(canvas: Canvas) -> Iterator[Stroke]:
    """Streak the picture with slanting rain."""
    rng = canvas.random("rain")

    def shower() -> None:
        for _ in range(canvas.count(90)):
            x, y, near = (rng.uniform(-0.1, 1) * canvas.width, rng.uniform(-0.1, 1) * canvas.height, rng.random())
            tall = canvas.unit * (0.02 + 0.05 * near)
            width = max(1, round(canvas.unit * (0.0008 + 0.001 * near)))
            canvas.draw.line(
                (x, y, x + tall * 0.22, y + tall), fill=(*canvas.light, round(30 + 60 * near)), width=width
            )

    yield from [shower] * 4


def paint_snowfall(canvas: Canvas) -> Iterator[Stroke]:
    """Let snow fall, a few flakes near and out of focus."""
    rng = canvas.random("snowfall")

    def flurry() -> None:
        for _ in range(canvas.count(70)):
            x, y, near = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height), rng.random() ** 3
            canvas.disc(x, y, canvas.unit * (0.0012 + 0.005 * near), (255, 255, 255, round(200 - 90 * near)))

    yield from [flurry] * 4


# --------------------------------------------------------------------------------------
# Abstracts
# --------------------------------------------------------------------------------------


def paint_backdrop(canvas: Canvas) -> Iterator[Stroke]:
    """Paint the ground of an abstract."""
    yield lambda: canvas.image.paste(gradient(canvas.image.size, canvas.sky))
    yield partial(
        canvas.glow, canvas.light_x, canvas.light_y, canvas.unit * 0.8, mix(canvas.sky[-1], canvas.light, 0.4), 0.3
    )


def paint_ribbons(canvas: Canvas) -> Iterator[Stroke]:
    """Let bands of blended colour drift across, all bent by the same slow waves."""
    rng = canvas.random("ribbons")
    waves = [(rng.uniform(1, 6), rng.uniform(0.6, 4), rng.uniform(0, 7)) for _ in range(3)]
    tilt = rng.uniform(-0.5, 0.5)

    def edge(start: float) -> list[Point]:
        line = []
        for share in (part / 60 for part in range(-1, 62)):
            bend = sum(math.sin(a * share + b * start + c) for a, b, c in waves)
            line.append((share * canvas.width, (start + tilt * (share - 0.5) + 0.1 * bend) * canvas.height))
        return line

    def drift(start: float) -> None:
        colour, other = rng.sample(canvas.accents, 2)
        threads = canvas.count(8)
        edges = [edge(start + 0.07 * thread / threads) for thread in range(threads + 1)]
        for thread, (upper, lower) in enumerate(pairwise(edges)):
            # Filled bands, not thick lines: Pillow rounds the width of each piece of a line, which shows.
            if rng.random() < 0.75:
                canvas.draw.polygon(upper + lower[::-1], fill=mix(colour, other, thread / threads))

    starts = [-0.35 + index * 0.065 + rng.uniform(-0.03, 0.03) for index in range(26)]
    for start in rng.sample(starts, 22):
        yield partial(drift, start)


def paint_discs(canvas: Canvas) -> Iterator[Stroke]:
    """Overlap large translucent discs along a spiral, with thin rings around some."""
    rng = canvas.random("discs")
    turn = rng.uniform(0, math.tau)

    def disc(index: int) -> None:
        away, angle = 0.09 * math.sqrt(index) * rng.uniform(0.8, 1.2), turn + index * 2.39996
        x = canvas.width * 0.5 + away * math.cos(angle) * (canvas.width + canvas.unit) * 0.62
        y = canvas.height * 0.5 + away * math.sin(angle) * (canvas.height + canvas.unit) * 0.62
        radius = canvas.unit * rng.uniform(0.05, 0.26) * (1 - index / 60)
        canvas.disc(x, y, radius, (*rng.choice(canvas.accents), rng.randint(120, 215)))
        for ring in range(rng.choice((0, 0, 1, 4))):
            wide = radius * (1.12 + 0.12 * ring)
            pen = (*rng.choice(canvas.accents), 220)
            box = (x - wide, y - wide, x + wide, y + wide)
            canvas.draw.ellipse(box, outline=pen, width=max(1, round(canvas.unit * 0.003)))

    for index in range(canvas.count(24), 0, -1):
        yield partial(disc, index)


def paint_waves(canvas: Canvas) -> Iterator[Stroke]:
    """Stack sheets of cut paper with soft shadows, under a sun."""
    rng = canvas.random("waves")
    colours = [canvas.accents[0], *canvas.accents[1:4], canvas.near]

    def sheet(share: float) -> None:
        line = rolling(
            rng, canvas.width, canvas.height * (0.3 + 0.66 * share), canvas.unit * 0.09, rng.uniform(0.6, 1.5)
        )
        stop = min(int(share * 4), 3)
        colour = mix(colours[stop], colours[stop + 1], share * 4 - stop)
        shadow = Image.new("L", (canvas.width // 8, canvas.height // 8))
        ImageDraw.Draw(shadow).polygon(
            [*((x / 8, y / 8) for x, y in line), (shadow.width, shadow.height), (0, shadow.height)], fill=110
        )
        shadow = shadow.filter(ImageFilter.GaussianBlur(canvas.unit * 0.0018)).resize(
            canvas.image.size, Image.Resampling.BICUBIC
        )
        canvas.image.paste(mix(canvas.near, (0, 0, 0), 0.5), (0, -round(canvas.unit * 0.012)), shadow)
        canvas.ground(line, mix(colour, canvas.light, 0.12), colour, canvas.unit * 0.3)

    yield partial(canvas.disc, canvas.light_x, canvas.height * 0.24, canvas.unit * 0.13, canvas.accents[3])
    for index in range(7):
        yield partial(sheet, index / 6)


def paint_arcs(canvas: Canvas) -> Iterator[Stroke]:
    """Tile the picture with quarter circles, half circles and petals."""
    rng = canvas.random("arcs")
    across = rng.choice((4, 5, 6))
    side = math.ceil(min(canvas.width, canvas.height) / across / 2) * 2
    colours = [*canvas.accents, canvas.sky[0], canvas.near]

    def tile(x: float, y: float) -> None:
        back, front, dot = rng.sample(colours, 3)
        canvas.draw.rectangle((x, y, x + side, y + side), fill=back)
        turn, kind = rng.randrange(4), rng.randrange(4)
        cx, cy = x + side * (turn in (1, 2)), y + side * (turn in (2, 3))
        for share, colour in ((1, front), (0.62, dot), (0.3, back))[: 1 + kind]:
            radius = side * share
            canvas.draw.pieslice(
                (cx - radius, cy - radius, cx + radius, cy + radius), turn * 90, turn * 90 + 90, fill=colour
            )

    for row in range(math.ceil(canvas.height / side)):
        for column in range(math.ceil(canvas.width / side)):
            yield partial(tile, column * side, row * side)


ABSTRACTS = (paint_ribbons, paint_discs, paint_waves, paint_arcs)

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
