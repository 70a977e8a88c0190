"""From the words of a prompt to what is drawn: motifs, colours and the mood.

Latin words match whole (plurals too), Chinese ones wherever they stand. A motif is something to
draw, such as a mountain; the mood is the time or weather that sets the palette.
"""

import re
import unicodedata
from random import Random

from engines.painter.colours import Colour, rgb

# The motifs, and the words that ask for each.
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
    "city": (
        "city town skyline skyscraper street building cyberpunk tokyo shanghai "
        "城市 都市 城 街 高楼 大厦 上海"
    ),
    "sea": (
        "sea ocean lake river water beach coast island wave seascape 海 湖 江 河 海浪 浪花 岛 島"
    ),
    "desert": "desert dune sahara sand 沙漠 沙丘 大漠",
    "forest": "forest tree wood woodland pine jungle 森林 树 樹 林",
    "flower": (
        "flower floral meadow blossom garden rose tulip daisy poppy lavender sunflower "
        "花 草原 草地 玫瑰"
    ),
    "boat": "boat sailboat ship sail yacht 帆船 小船 渔船 轮船 帆 舟",
    "house": "house cabin cottage hut 房子 小屋 木屋 屋",
    "balloon": "balloon 气球 氣球",
    "bird": "bird seagull gull swallow crane 鸟 鳥 海鸥 燕 鹤",
    "cat": "cat kitten kitty 猫 貓",
    "fox": "fox 狐",
    "firework": "firework celebration festival 烟花 煙花 烟火 节日",
}

# The colours, and the words that ask for each.
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

GREEN = rgb("43a047")
BROWN = rgb("8d5a3b")

# The motifs of a prompt set the mood, hence the palette: the first line that names one of them
# counts, and the mood is one of those on its right. The last line is for all other prompts.
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

# What else is drawn with a motif or in a mood, unless the negative prompt forbids it.
COMPANIONS = {
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

# Motifs that fill the lower half of the picture.
GROUND = {"mountain", "hill", "city", "sea", "desert", "forest", "flower"}

# Motifs that fill all of it with sky.
SPACE = {"galaxy", "planet"}

# Motifs that stand at the front.
SUBJECTS = {"cat", "fox", "house"}


def motifs_in(text: str) -> set[str]:
    """Name the motifs, of WORDS, that the text asks for."""
    return _matches(text, WORDS)


def colours_in(text: str) -> list[Colour]:
    """List the colours, as RGB, that the text names, in the order of COLOUR_WORDS."""
    found = _matches(text, COLOUR_WORDS)
    return [rgb(code) for code in COLOUR_WORDS if code in found]


def _matches(
    text: str,
    table: dict[str, str],
) -> set[str]:
    """Name the keys of a table whose words are in the text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    latin_words = _latin_words(folded)
    found = set()
    for word, name in _longest_first(table):
        is_named = word in latin_words if word.isascii() else word in folded
        if is_named:
            found.add(name)
            # Struck out, or the 花 in 烟花 (firework) would ask for flowers too.
            folded = folded.replace(word, " ")
    return found


def _latin_words(text: str) -> set[str]:
    """List the words of a text, with what would be the singular of each."""
    words = set(re.findall(r"[a-z]+", text))
    without_s = {word.removesuffix("s") for word in words}
    without_es = {word.removesuffix("es") for word in words}
    words = words | without_s | without_es
    for word in sorted(words):
        if word.endswith("ies"):
            words.add(word.removesuffix("ies") + "y")
    return words


def _longest_first(table: dict[str, str]) -> list[tuple[str, str]]:
    """List every word of a table, with its key."""
    pairs = []
    for name, words in table.items():
        pairs += [(word, name) for word in words.split()]
    return sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)


def compose(
    prompt: str,
    negative_prompt: str,
    rng: Random,
) -> tuple[str, set[str]]:
    """Choose the mood and the motifs of a picture.

    Without a known word the mood is "abstract", and there are no motifs.
    """
    forbidden = motifs_in(negative_prompt)
    wanted = motifs_in(prompt) - forbidden
    if not wanted:
        return "abstract", set()
    mood = _choose_mood(rng, wanted, forbidden)
    added = _companions(wanted | {mood})
    if not (wanted | added) & (GROUND | SPACE):
        added |= _choose_ground(rng, wanted)
    if (wanted | added) & GROUND == {"mountain"}:
        foreground = rng.choice(("hill", "forest", "sea"))
        added.add(foreground)
    added -= _unfitting(wanted, mood)
    return mood, wanted | (added - forbidden)


def _choose_mood(
    rng: Random,
    wanted: set[str],
    forbidden: set[str],
) -> str:
    moods = next(moods for motifs, moods in MOODS if not motifs or wanted & set(motifs.split()))
    allowed = [mood for mood in moods.split() if mood not in forbidden]
    return rng.choice(allowed or ["day"])


def _companions(names: set[str]) -> set[str]:
    """List what is drawn together with these motifs and moods."""
    companions = set()
    for name in names:
        companions.update(COMPANIONS.get(name, "").split())
    return companions


def _choose_ground(
    rng: Random,
    wanted: set[str],
) -> set[str]:
    """Choose land for a picture that would have none."""
    choices = ["mountain", "hill"]
    if not wanted & SUBJECTS:
        choices.append("forest")
    return {"hill", rng.choice(choices)}


def _unfitting(
    wanted: set[str],
    mood: str,
) -> set[str]:
    """List what cannot be seen in this mood, unless the prompt asks for it."""
    if wanted & SPACE or mood == "rain":
        return {"sun", "bird", "moon"}
    if mood == "night":
        return {"sun", "bird"}
    return set()
