import pytest

from config import SettingError
from images import blocklist


@pytest.fixture
def block(settings, tmp_path):
    """Write the file of blocked words and make it the one in use."""

    def write(text: str) -> None:
        path = tmp_path / "words.txt"
        path.write_text(text, encoding="utf-8")
        settings.PROMPT_BLOCKLIST = str(path)
        blocklist._known = (None, {})

    return write


WORDS = """# Words nobody may ask for
ass
bad phrase
敏感词
AV女
C++
naïve   # with a remark
"""


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("an ass on a hill", "ass"),
        ("ASS", "ass"),
        ("画ass的人", "ass"),
        ("big_ass_sky", "ass"),
        ("ａｓｓ", "ass"),
        ("a\u200bs\u00ads", "ass"),
        ("a BAD\n  phrase!", "bad phrase"),
        ("这里有敏感词吗", "敏感词"),
        ("敏\u200b感\u2060词", "敏感词"),
        ("敏\u3164感\U000e0100词", "敏感词"),
        ("a\u115fs\u034fs", "ass"),
        ("看av女优", "AV女"),
        ("c++ code", "C++"),
        ("so NAI\u0308VE", "naïve"),
    ],
)
def test_a_blocked_word_is_found_and_named(block, prompt, word):
    block(WORDS)

    with pytest.raises(blocklist.PromptBlocked) as refused:
        blocklist.check(prompt)

    assert refused.value.fields["prompt"] == ("blocked", {"word": word})


@pytest.mark.parametrize(
    "prompt", ["grass and glass", "assassin", "bad  paraphrase", "敏感", "nav女", "remark", "#"]
)
def test_a_word_inside_another_is_fine(block, prompt):
    block(WORDS)

    blocklist.check(prompt)


def test_without_a_list_everything_is_fine(settings):
    blocklist.check("ass")


def test_a_changed_list_counts_at_once(block):
    block("old")
    blocklist.check("a new fox")

    block("new")

    with pytest.raises(blocklist.PromptBlocked):
        blocklist.check("a new fox")


def test_while_the_file_is_gone_the_last_list_stands(block, tmp_path):
    block("fox")
    blocklist.words()

    (tmp_path / "words.txt").unlink()

    with pytest.raises(blocklist.PromptBlocked):
        blocklist.check("a fox")


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_list_in_another_encoding_stops_the_start(settings, tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(blocklist, "_version", None)
    (tmp_path / "words.txt").write_bytes("敏感词".encode(encoding))
    settings.PROMPT_BLOCKLIST = str(tmp_path / "words.txt")

    with pytest.raises(SettingError) as stopped:
        blocklist.words()

    assert str(stopped.value).startswith("PROMPT_BLOCKLIST: words.txt: is not UTF-8")


def test_a_list_that_is_changed_into_another_encoding_stands_as_it_was(block, tmp_path):
    block("\ufefffox")
    blocklist.words()

    (tmp_path / "words.txt").write_bytes("敏感词".encode("gbk"))

    with pytest.raises(blocklist.PromptBlocked):
        blocklist.check("a fox")


# -- Through the front door -----------------------------------------------------------------------


def by_generate(alice):
    return alice.post("/api/v1/images/generate", json={"prompt": "a red fox"})


def by_generate_test(alice):
    return alice.generate("a red fox")


@pytest.mark.parametrize("ask", [by_generate, by_generate_test])
@pytest.mark.parametrize(
    ("language", "sentence"),
    [("zh", "提示词包含禁用词“fox”"), ("en", 'Prompt contains the blocked word "fox"')],
)
def test_every_way_in_refuses_and_nothing_is_charged(alice, block, ask, language, sentence):
    block("fox")
    alice.headers["Accept-Language"] = language

    refused = ask(alice)

    assert (refused.status_code, refused.json["code"]) == (400, "prompt_blocked")
    assert refused.json["message"] == refused.json["fields"]["prompt"] == sentence
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 0
    assert alice.history()["records"] == []


def test_a_retry_of_what_was_fine_once_is_refused_too(alice, block):
    number = by_generate(alice).json["data"]["records"][0]["id"]
    block("fox")

    refused = alice.post(f"/api/v1/images/{number}/retry")

    assert (refused.status_code, refused.json["code"]) == (400, "prompt_blocked")
