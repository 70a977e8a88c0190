"""The painter, called as the worker calls it: its bytes, sizes, words and progress."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from engines import ImageRequest, painter
from tests.inputs import encoded, halves, hole, noise, plain

ROOT = Path(__file__).resolve().parent.parent


def draw(prompt="sunset over the sea", **parameters):
    parameters = {"width": 96, "height": 96, "steps": 4, **parameters}
    return painter.make(ImageRequest(prompt, **parameters)).data


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def difference(first, second):
    """The mean difference of two pictures, from 0 (equal) to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(opened(first), opened(second))).mean) / 3


def mean_colour(data):
    return ImageStat.Stat(opened(data)).mean


def test_returns_a_png_of_the_size_asked_for():
    image = Image.open(io.BytesIO(draw(width=200, height=120)))

    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (200, 120))


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 129), (2048, 64), (64, 2048), (511, 333), (2048, 2048)]
)
def test_any_size_and_shape_works(size):
    image = opened(draw("aurora, mountains, lake, flowers, a cat", width=size[0], height=size[1]))

    assert image.size == size


def test_the_same_request_gives_the_same_bytes():
    first = draw("forest in fog", seed=3)

    second = draw("forest in fog", seed=3)

    assert first == second


@pytest.mark.parametrize(
    "prompt", ["autumn forest, a fox, snow", "something abstract", "极光 雪山 城市"]
)
def test_another_process_gives_the_same_bytes(prompt):
    code = (
        "import sys; from engines import ImageRequest, painter;"
        "request = ImageRequest(sys.argv[1], width=96, height=96, steps=4);"
        "sys.stdout.buffer.write(painter.make(request).data)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": str(ROOT)}

    run = subprocess.run(
        [sys.executable, "-c", code, prompt], env=environment, capture_output=True, check=True
    )

    assert run.stdout == draw(prompt)


@pytest.mark.parametrize("prompt", ["sunset over the sea", "city at night", "a portrait"])
def test_another_seed_gives_another_picture(prompt):
    pictures = [draw(prompt, seed=seed) for seed in (1, 2)]

    assert difference(*pictures) > 5


def test_another_prompt_gives_another_picture():
    pictures = [draw(prompt) for prompt in ("desert", "deserts")]

    assert difference(*pictures) > 3


def test_more_steps_refine_the_same_composition():
    few, many = draw("misty mountains", steps=1), draw("misty mountains", steps=150)

    assert 0 < difference(few, many) < 25


def test_negative_prompt_removes_a_motif():
    plain, without = (
        draw("mountains and a city"),
        draw("mountains and a city", negative_prompt="city"),
    )

    assert difference(plain, without) > 3


def test_negative_prompt_without_a_known_word_changes_nothing():
    plain, same = draw("mountains"), draw("mountains", negative_prompt="blurry, low quality")

    assert plain == same


def test_negative_prompt_that_forbids_everything_leaves_an_abstract():
    picture = draw("forest", negative_prompt="trees")

    assert opened(picture).size == (96, 96)


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("sunset over the sea", "海上日落"),
        ("sunset over the sea", "海邊的夕陽"),
        ("Mountains and SNOW at night", "夜晚的雪山"),
        ("a city", "城市"),
        ("flowers", "鲜花"),
        ("a cat in the forest", "森林里的猫"),
        ("fireworks", "烟花"),
        ("the galaxy", "银河"),
        ("moon, stars", "月亮和星星"),
    ],
)
def test_chinese_words_ask_for_the_same_motifs(english, chinese):
    motifs = painter.motifs_in(chinese)

    assert motifs == painter.motifs_in(english) != set()


@pytest.mark.parametrize("prompt", ["red dream", "红色的梦"])
def test_a_colour_word_tints_the_picture(prompt):
    red, _, blue = mean_colour(draw(prompt))

    assert red > blue + 20


def test_night_is_darker_than_day():
    night, day = mean_colour(draw("hills at night")), mean_colour(draw("hills in the daytime"))

    assert sum(night) < sum(day) - 100


@pytest.mark.parametrize(
    "text", ["starch", "catalogue", "seaside-less", "moonstruckness", "", "🦊🌲"]
)
def test_latin_words_match_only_whole(text):
    motifs = painter.motifs_in(text)

    assert motifs == set()


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 150])
def test_progress_rises_by_one_to_the_number_of_steps(steps):
    heard = []

    painter.make(
        ImageRequest("a lake", width=64, height=64, steps=steps),
        lambda done, total: heard.append((done, total)),
    )

    assert heard == [(done, steps) for done in range(1, steps + 1)]


def test_progress_that_raises_ends_make_at_once():
    heard = []

    def cancel(done, total):
        heard.append(done)
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        painter.make(ImageRequest("a lake", width=64, height=64, steps=20), cancel)

    assert heard == [1, 2, 3]


@pytest.mark.parametrize(
    "prompt", ["", " ", "🦄🦄🦄", "\x00\x07\n\t", "\ud800", "sea " * 500, "长" * 2000, "%s{}<b>'\""]
)
def test_odd_prompts_still_give_a_picture(prompt):
    picture = opened(draw(prompt))

    assert len(picture.getcolors(96 * 96)) > 50


@pytest.mark.parametrize("motif", sorted(painter.WORDS))
def test_every_known_word_can_be_drawn(motif):
    word = painter.WORDS[motif].split()[0]

    picture = opened(draw(word, steps=2))

    assert painter.motifs_in(word) == {motif}
    assert len(picture.getcolors(96 * 96)) > 50


# -- Pictures that come with the prompt ---------------------------------------------------------


def test_a_reference_gives_its_colours():
    red, green = (
        mean_colour(draw(images=(plain(colour),), strength=1.0)) for colour in ("red", "green")
    )

    assert red[0] > red[1] + 60 and green[1] > green[0] + 30


def test_a_reference_gives_its_composition():
    left, right = (
        draw(images=(halves(*colours),)) for colours in (("white", "black"), ("black", "white"))
    )

    brightness = [opened(data).convert("L") for data in (left, right)]
    assert brightness[0].getpixel((10, 40)) > brightness[0].getpixel((86, 40)) + 40
    assert brightness[1].getpixel((10, 40)) + 40 < brightness[1].getpixel((86, 40))


def test_strength_says_how_far_from_the_reference():
    reference = encoded(noise())

    drawings = [draw(images=(reference,), strength=strength) for strength in (0.0, 0.3, 0.8, 1.0)]

    distances = [difference(drawing, reference.data) for drawing in drawings]
    assert distances[0] == 0
    assert distances == sorted(distances) and distances[-1] > 20


def test_several_references_are_mixed():
    red, blue = plain("red"), plain("blue")

    mixed = mean_colour(draw(images=(red, blue), strength=0.0))

    assert mixed == pytest.approx([127, 0, 127], abs=1)


def test_the_same_references_give_the_same_bytes():
    parameters = {"images": (encoded(noise((50, 80))), plain("teal", extension="webp"))}

    assert draw(**parameters) == draw(**parameters) != draw()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_what_the_mask_covers_stays_as_it_is(mode):
    image = noise(mode=mode)

    drawn = Image.open(io.BytesIO(draw(images=(encoded(image),), mask=hole(), strength=1.0)))

    changed = ImageChops.difference(drawn, image)
    outside = changed.copy()
    outside.paste(0, (24, 24, 72, 72))
    assert drawn.mode == mode and outside.getbbox(alpha_only=False) is None
    inside = changed.crop((24, 24, 72, 72)).convert("RGB")
    assert sum(ImageStat.Stat(inside).mean) > 60


def test_a_mask_of_another_size_is_fitted():
    drawn = draw(images=(plain("red", (192, 192)),), mask=hole((192, 192), (0, 0, 192, 96)))

    assert opened(drawn).getpixel((48, 90)) == (255, 0, 0) != opened(drawn).getpixel((48, 10))
