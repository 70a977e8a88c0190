"""Colours: blends, gradients, and the palettes of the moods."""

import colorsys
from typing import NamedTuple

from PIL import Image

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


def rgb(code: str) -> Colour:
    """Turn six hexadecimal digits into a colour."""
    return tuple(bytes.fromhex(code))


def mix(
    first: Colour,
    second: Colour,
    share: float,
) -> Colour:
    """Blend two colours; share 0 gives the first, 1 the second."""
    red, green, blue = first
    other_red, other_green, other_blue = second
    return (
        round(red + (other_red - red) * share),
        round(green + (other_green - green) * share),
        round(blue + (other_blue - blue) * share),
    )


def tinted(
    colour: Colour,
    tint: Colour,
) -> Colour:
    """Pull a colour towards a tint.

    The colour keeps most of its lightness, so that near and far still look different.
    """
    _, lightness, _ = _hls(colour)
    tint_hue, tint_lightness, tint_saturation = _hls(tint)
    target = colorsys.hls_to_rgb(
        tint_hue,
        lightness * 0.75 + tint_lightness * 0.25,
        tint_saturation * 0.85,
    )
    target_colour = tuple(round(part * 255) for part in target)
    return mix(colour, target_colour, 0.7)


def _hls(colour: Colour) -> tuple[float, float, float]:
    """Give hue, lightness and saturation, each from 0 to 1."""
    return colorsys.rgb_to_hls(*(part / 255 for part in colour))


def gradient(
    size: tuple[int, int],
    colours: list[Colour],
) -> Image.Image:
    """Make an image whose colour runs from top to bottom through evenly spaced stops."""
    height = size[1]
    last_row = max(1, height - 1)
    pieces = len(colours) - 1
    column = Image.new("RGB", (1, height))
    for y in range(height):
        place = y / last_row * pieces
        stop = min(int(place), pieces - 1)
        colour = mix(colours[stop], colours[stop + 1], place - stop)
        column.putpixel((0, y), colour)
    return column.resize(size)


def mask_gradient(
    size: tuple[int, int],
    levels: list[int],
) -> Image.Image:
    """Make a mask whose opacity runs from top to bottom through levels from 0 to 255."""
    greys = [(level, level, level) for level in levels]
    return gradient(size, greys).convert("L")


def gradient_until(
    size: tuple[int, int],
    colours: list[Colour],
    bottom: int,
) -> Image.Image:
    """Make an image with a gradient down to a row; the last colour fills the rest."""
    width, _ = size
    image = Image.new("RGB", size, colours[-1])
    image.paste(gradient((width, bottom), colours))
    return image


class Palette(NamedTuple):
    """The colours of one scene."""

    # From the zenith to the horizon.
    sky: list[Colour]
    # Of the sun, the moon and the stars.
    light: Colour
    # Of land at the horizon, and of land at the bottom of the picture.
    far: Colour
    near: Colour
    # Of flowers, lamps, clouds and other small things.
    accents: list[Colour]


def tint_palette(
    palette: Palette,
    sky_tint: Colour | None,
    land_tint: Colour,
    accents: list[Colour],
) -> Palette:
    """Pull a palette towards tints, and give it other accents."""
    sky = palette.sky
    if sky_tint:
        sky = [tinted(colour, sky_tint) for colour in sky]
    return Palette(
        sky=sky,
        light=palette.light,
        far=tinted(palette.far, land_tint),
        near=tinted(palette.near, land_tint),
        accents=accents,
    )


def _palette(
    sky: str,
    light: str,
    far: str,
    near: str,
    accents: str,
) -> Palette:
    return Palette(
        sky=[rgb(code) for code in sky.split()],
        light=rgb(light),
        far=rgb(far),
        near=rgb(near),
        accents=[rgb(code) for code in accents.split()],
    )


PALETTES: dict[str, tuple[Palette, ...]] = {
    "sunset": (
        _palette(
            sky="2d1b4e 7a2d6b d1495b f79256 fbd1a2",
            light="fff1d0",
            far="c2577a",
            near="2a1536",
            accents="ffd166 ff8a5b f25c78 8d3b8a",
        ),
        _palette(
            sky="1f3a5f 5b6c9e c08497 f7af9d f7e3af",
            light="fff6dc",
            far="b07a94",
            near="2b2745",
            accents="f7e3af f28482 f6bd60 84a59d",
        ),
        _palette(
            sky="3a0f2b 8c1c3a d7402b f48c3b ffd27a",
            light="fff0c0",
            far="b8433a",
            near="240a1c",
            accents="ffd27a ff7b54 ffb26b f2545b",
        ),
    ),
    "dawn": (
        _palette(
            sky="6d7fae a99cc4 e8b4bc fbd6b8 fff0d6",
            light="fffaf0",
            far="b79bb8",
            near="3f3a5c",
            accents="f4acb7 ffcad4 ffe5d9 9d8189",
        ),
        _palette(
            sky="3f6c8a 8fb0b8 e9cfb5 f9dcc4 fff3e2",
            light="fffdf5",
            far="a8a9ad",
            near="2f4550",
            accents="f4a261 e9c46a f7ede2 84a59d",
        ),
    ),
    "night": (
        _palette(
            sky="060b26 0f1d4a 1f3b73 3f6299",
            light="f7f1da",
            far="2f4f86",
            near="050a1c",
            accents="ffd98a ffb86b f7f1da 8fb8ff",
        ),
        _palette(
            sky="0b0620 1e1145 3b2470 7a58a8",
            light="fdf0d5",
            far="4a3480",
            near="0a0618",
            accents="ffcf99 ff9ec4 fdf0d5 b79cff",
        ),
        _palette(
            sky="021019 06283a 0f4c5c 3f858a",
            light="f1faee",
            far="1f5d6b",
            near="020c12",
            accents="ffdf91 ffc36b f1faee 7fe0d0",
        ),
    ),
    "day": (
        _palette(
            sky="2a78b8 62a8da a9d6ee eaf6f3",
            light="fffbe6",
            far="9cc4d8",
            near="22604f",
            accents="f25f5c ffe066 ffffff f7a6c1",
        ),
        _palette(
            sky="1f8a9e 6cc0c4 b8e4d8 f8f3dc",
            light="fffbe6",
            far="9bc9bd",
            near="1d4f45",
            accents="ff8c61 ffe066 ffffff f9a1bc",
        ),
    ),
    "rain": (
        _palette(
            sky="2c3947 4c5f70 8195a1 b9c4c6",
            light="e8eef0",
            far="8798a3",
            near="1c2630",
            accents="e0b36a d9d2c0 c9d6df f2a65a",
        ),
        _palette(
            sky="26323f 3f5866 6f8f94 aebfb8",
            light="e8eee8",
            far="7c959a",
            near="16242b",
            accents="f0c27b d9d2c0 c9d6df f2a65a",
        ),
    ),
    "snow": (
        _palette(
            sky="6f93ba a5c0da d9e5ee f8f1ec",
            light="fffdf5",
            far="a9bfd6",
            near="3a5572",
            accents="ffffff e8eef6 f6d7c3 c9d9ea",
        ),
        _palette(
            sky="7d88b4 b9bad8 ecd5de fdeee6",
            light="fffaf4",
            far="b5b4d2",
            near="454a72",
            accents="ffffff f3e9f2 f7d6d0 cfd2ea",
        ),
    ),
    "forest": (
        _palette(
            sky="6f9c8c a3c4ab d5e3c4 f7f3d8",
            light="fffbe0",
            far="a5c4b0",
            near="12332e",
            accents="f4e285 f4a259 ffffff bc4b51",
        ),
        _palette(
            sky="5d8aa0 9fbfc0 d8e2cf faf0d2",
            light="fffbe0",
            far="9dbbb8",
            near="16302f",
            accents="f4e285 f4a259 ffffff bc4b51",
        ),
    ),
    "desert": (
        _palette(
            sky="2c6e8a 87b5b2 f1d9a7 f6bd83",
            light="fff5d6",
            far="eeb077",
            near="9c4427",
            accents="f4a259 e76f51 ffe8c2 8a3b26",
        ),
        _palette(
            sky="5a4a78 b0738a ee9f7f fbd5a0",
            light="fff1d0",
            far="e59a72",
            near="7a2f2b",
            accents="f4a259 e76f51 ffe8c2 8a3b26",
        ),
    ),
    "autumn": (
        _palette(
            sky="6a8fa0 c3c4ae f3d9a2 f6b26b",
            light="fff4d6",
            far="d9a066",
            near="4e2318",
            accents="e85d04 d00000 faa307 ffba08",
        ),
        _palette(
            sky="7a8b9a c9b8a8 f0cfa0 f2a65a",
            light="fff4d6",
            far="c98c5a",
            near="43201c",
            accents="e85d04 c1121f f48c06 ffba08",
        ),
    ),
    "spring": (
        _palette(
            sky="6db3e0 b0daee f6e6ea fff5ec",
            light="fffbe6",
            far="b0d6c0",
            near="3a7a4e",
            accents="ff7aa2 ffffff ffd23f c77dff",
        ),
        _palette(
            sky="7ba7d9 bcd0ec f7dfe3 fff0de",
            light="fffbe6",
            far="a9cdb0",
            near="2f6b52",
            accents="ff5d5d ffe3ec ffb703 9b7ede",
        ),
    ),
    "abstract": (
        _palette(
            sky="0b132b 1c2541 3a506b",
            light="f7f1e3",
            far="5bc0be",
            near="0b132b",
            accents="5bc0be f4d35e ee964b f95738 f7f1e3",
        ),
        _palette(
            sky="f6f0e4 f3e3cf eed2b6",
            light="1d3557",
            far="e63946",
            near="1d3557",
            accents="e63946 f4a261 2a9d8f 264653 e9c46a",
        ),
        _palette(
            sky="1a1033 3c1a5b 7a2a6b",
            light="ffe8d6",
            far="f25f8a",
            near="1a1033",
            accents="ff9f68 f25f8a b14aed 5e60ce ffe8d6",
        ),
        _palette(
            sky="eef3ef d8e8e0 bfdcd0",
            light="12453f",
            far="3a8c7e",
            near="12453f",
            accents="12453f 3a8c7e f2b880 e4572e fbf3e4",
        ),
        _palette(
            sky="fbeee6 f9d9cf f3bfb8",
            light="3d2c4f",
            far="a05c7b",
            near="3d2c4f",
            accents="3d2c4f a05c7b ef8275 f6b89e 6c8fb3",
        ),
    ),
}
