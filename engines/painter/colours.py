"""Colours: palettes, blends and gradients."""

import colorsys

from PIL import Image

Colour = tuple[int, int, int]


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


def gradient(size: tuple[int, int], colours: list[Colour]) -> Image.Image:
    """Make a picture whose colour runs from top to bottom through evenly spaced stops."""
    column = Image.new("RGB", (1, size[1]))
    pieces = len(colours) - 1
    for y in range(size[1]):
        place = y / max(1, size[1] - 1) * pieces
        stop = min(int(place), pieces - 1)
        column.putpixel((0, y), mix(colours[stop], colours[stop + 1], place - stop))
    return column.resize(size)
