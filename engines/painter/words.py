"""What the words of a prompt mean: motifs, colours, and the mood that sets the palette.

Latin words match whole (plurals too), Chinese ones as substrings.
"""

import random
import re
import unicodedata

from engines import Job
from engines.painter.colours import Colour, rgb

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
