import pytest

import config
import models

GOOD = """
[small]
label = "Small"
engine = "painter"
width = { min = 64, max = 128, default = 64 }
height = { min = 64, max = 128, default = 128 }
"""


@pytest.fixture
def declare(settings, tmp_path):
    """Write a models file and make it the one in use."""

    def write(text: str):
        settings.MODELS_FILE = tmp_path / "models.toml"
        settings.MODELS_FILE.write_text(text)
        models.load.cache_clear()
        return models.offered()

    yield write
    models.load.cache_clear()


def test_models_are_listed_with_what_a_form_needs(client):
    listed = client.get("/api/v1/models").json["data"]["models"]

    assert listed[0]["name"] == "test_model" and "AI" in listed[0]["label"]
    assert listed[0]["parameters"]["width"] == {"min": 64, "max": 2048, "default": 512}
    assert listed[0]["capabilities"]["negativePrompt"] is True


def test_the_label_follows_the_language(client):
    labels = [
        client.get("/api/v1/models", headers={"Accept-Language": language}).json["data"]["models"][0]["label"]
        for language in ("zh", "en")
    ]

    assert not labels[0].isascii() and labels[1].isascii()


def test_a_model_needs_no_code(declare, alice):
    declare(GOOD)

    record = alice.post("/api/v1/images/generate", json={"prompt": "x"}).json["data"]["records"][0]
    refused = alice.post("/api/v1/images/generate", json={"prompt": "x", "width": 256, "steps": 5})

    assert (record["model"], record["width"], record["height"]) == ("small", 64, 128)
    assert set(refused.json["fields"]) == {"width", "steps"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "declares no model"),
        ("[small\nx = 1", "line 1"),
        ("small = 1", "[small]"),
        (GOOD.replace("painter", "magic"), "[small] engine"),
        (GOOD.replace("label", "lable"), "[small] l"),
        (GOOD.replace("min = 64, max = 128, default = 64", "min = 64, max = 32, default = 64"), "[small] width"),
        (GOOD.replace("width", "widht"), "widht: Extra"),
    ],
)
def test_a_wrong_file_stops_the_start_and_says_where(declare, text, complaint):
    with pytest.raises(config.SettingError) as stopped:
        declare(text)

    assert str(stopped.value).startswith("MODELS_FILE: models.toml: ")
    assert complaint in str(stopped.value) and "\n" not in str(stopped.value)


def test_a_missing_file_stops_the_start(settings, tmp_path):
    settings.MODELS_FILE = tmp_path / "none.toml"

    with pytest.raises(config.SettingError, match=r"none\.toml"):
        models.offered()
