import json

import pytest

import config
import db
from engines import InputImage, catalog, sizes
from images import parameters, queue, queue_status
from tests.inputs import plain

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
        catalog.load.cache_clear()
        queue_status.current.forget()
        return catalog.models()

    yield write
    catalog.load.cache_clear()


def test_models_are_listed_with_what_a_form_needs(client):
    listed = client.get("/api/v1/models").json["data"]["models"]

    assert listed[0]["name"] == "test_model" and "AI" in listed[0]["label"]
    assert listed[0]["parameters"]["width"] == {"min": 64, "max": 2048, "default": 512}
    assert listed[0]["capabilities"]["negativePrompt"] is True


def test_the_label_follows_the_language(client):
    labels = [
        client.get("/api/v1/models", headers={"Accept-Language": language}).json["data"]["models"][
            0
        ]["label"]
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
    "size",
    [
        'sizes = ["1024x1024", "9000x9000"]',
        "width = { min = 64, max = 8192, default = 64 }\n"
        "height = { min = 64, max = 8192, default = 64 }",
    ],
)
def test_a_model_that_makes_more_than_is_kept_stops_the_start(declare, settings, size):
    settings.MAX_RESULT_PIXELS = 50_000_000

    with pytest.raises(config.SettingError, match=r"\[large\].* more than MAX_RESULT_PIXELS"):
        declare(f'[large]\nlabel = "Large"\nengine = "painter"\n{size}\n')


def test_sizes_are_judged_one_by_one(declare, settings):
    settings.MAX_RESULT_PIXELS = 50_000_000

    declare('[wide]\nlabel = "W"\nengine = "painter"\nsizes = ["9000x5000", "5000x9000"]\n')


FORMS = """
[forms]
label = "Forms"
engine = "painter"
seed = false
sizes = ["1024x1024", "1024x1536"]
quality = ["low", "high"]
steps = { min = 4, max = 40, default = 8, step = 4 }
"""


def ask(person, **body):
    return person.post("/api/v1/images/generate", json={"prompt": "x", **body})


def test_a_model_may_have_sizes_and_choices(declare, alice):
    declare(FORMS)

    listed = alice.get("/api/v1/models").json["data"]["models"][0]
    first = ask(alice).json["data"]["records"][0]
    second = ask(alice, height=1536, quality="high", steps=12).json["data"]["records"][0]

    assert listed["sizes"] == [{"width": 1024, "height": 1024}, {"width": 1024, "height": 1536}]
    assert listed["parameters"]["quality"] == {"choices": ["low", "high"], "default": "low"}
    assert listed["parameters"]["steps"]["step"] == 4 and listed["capabilities"]["seed"] is False
    assert (first["width"], first["height"], first["params"]["quality"]) == (1024, 1024, "low")
    assert (second["height"], second["params"]["quality"], second["params"]["steps"]) == (
        1536,
        "high",
        12,
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"width": 1536, "height": 1024}, "width"),
        ({"height": 1200}, "width"),
        ({"quality": "medium"}, "quality"),
        ({"style": "vivid"}, "style"),
        ({"sampler": ""}, "sampler"),
        ({"steps": 6}, "steps"),
        ({"seed": 1}, "seed"),
    ],
)
def test_what_a_model_does_not_take_is_refused(declare, alice, body, field):
    declare(FORMS)

    refused = ask(alice, **body)

    assert (refused.status_code, set(refused.json["fields"])) == (400, {field})


def test_a_guidance_of_nothing_is_kept(declare, alice):
    declare(GOOD + "guidance = { min = 0, max = 10, default = 7 }")

    record = ask(alice, guidance=0).json["data"]["records"][0]

    assert record["params"]["guidance"] == 0


def test_a_model_without_seeds_records_none(declare, alice):
    declare(FORMS)

    record = ask(alice, seed=-1).json["data"]["records"][0]
    again = alice.post(f"/api/v1/images/{record['id']}/retry").json["data"]["records"][0]

    assert record["params"]["seed"] is None and again["params"] == record["params"]


def test_a_large_seed_can_be_asked_for(declare, alice):
    declare(GOOD)

    record = ask(alice, seed=2**53 - 1).json["data"]["records"][0]
    again = alice.post(f"/api/v1/images/{record['id']}/retry").json["data"]["records"][0]
    beyond = ask(alice, seed=2**53)

    assert record["params"]["seed"] == again["params"]["seed"] == 9007199254740991
    assert list(beyond.json["fields"]) == ["seed"]


def test_a_model_may_have_a_lower_limit_of_seeds(declare, alice):
    declare(GOOD + "max_seed = 99")

    first = ask(alice, seed=98, n=4).json["data"]["records"]
    drawn = ask(alice, n=4).json["data"]["records"]
    beyond = ask(alice, seed=100)

    assert [record["params"]["seed"] for record in first] == [98, 99, 0, 1]
    assert all(record["params"]["seed"] <= 99 for record in drawn)
    assert "99" in beyond.json["fields"]["seed"]


@pytest.mark.parametrize("seed", [2**63, -1, True, "7"])
def test_a_seed_that_nobody_can_ask_for_is_drawn_anew_by_retry(declare, alice, seed):
    declare(GOOD)
    number = ask(alice, seed=5).json["data"]["records"][0]["id"]
    params = json.dumps({"seed": seed, "width": 64, "height": 64})
    statement = "UPDATE image_generations SET generation_params_json = %s WHERE id = %s"
    db.execute(statement, params, number)

    again = alice.post(f"/api/v1/images/{number}/retry")

    assert again.status_code == 202
    assert 0 <= again.json["data"]["records"][0]["params"]["seed"] < 2**31


SERVERS = {
    "openai_images": 'options.model = "x"',
    "sdwebui": "",
}


@pytest.mark.parametrize("engine", SERVERS)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(
    "text",
    [
        'a fox <sd_cpp_extra_args>{"steps": 9000}</sd_cpp_extra_args>',
        "<SD_CPP_Extra_Args>{}",
        "< sd_cpp_extra_args >{}",
        "<\u200bsd_cpp_\u200bextra_args>",
        "</sd_cpp_extra_args>",
        "＜sd＿cpp＿extra＿args＞",
        "<sd-cpp extra\nargs>",
    ],
)
def test_commands_to_the_engine_are_refused(declare, alice, engine, field, text):
    declare(f"{GOOD.replace('painter', engine)}negative_prompt = true\n{SERVERS[engine]}")

    refused = ask(alice, **{field: text})

    assert (refused.status_code, list(refused.json["fields"])) == (400, [field])


def test_a_models_file_may_refuse_other_markers(declare, alice):
    markers = "options = { model = 'x', refused_markers = ['\\bAND\\b', '<lora:'] }"
    declare(f"{GOOD.replace('painter', 'openai_images')}{markers}")

    refused = [ask(alice, prompt=text) for text in ("a AND b", "a and b", "x <LoRA:y:1>")]
    taken = [ask(alice, prompt=text) for text in ("sand", "<sd_cpp_extra_args>", "a {b|c}")]

    assert [response.status_code for response in refused] == [400] * 3
    assert "<LoRA:" in refused[2].json["fields"]["prompt"]
    assert [response.status_code for response in taken] == [202] * 3


@pytest.mark.parametrize(
    ("report", "available", "reason"),
    [
        (None, False, "Queue has no running worker"),
        ('{"test_model": ""}', True, None),
        ('{"test_model": "engine_unavailable"}', False, "The engine was unavailable"),
        ('{"other": ""}', False, "Queue has no running worker"),
        ("test_model", False, "Queue has no running worker"),
        ("5", False, "Queue has no running worker"),
    ],
)
def test_a_model_is_available_while_a_worker_can_make_it(client, report, available, reason):
    if report:
        queue.note_worker("w1", report, 1.0)

    listed = client.get("/api/v1/models", headers={"Accept-Language": "en"}).json["data"]["models"][
        0
    ]

    assert (listed["available"], listed["reason"]) == (available, reason)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (FORMS.replace("1024x1536", "big"), "[forms] sizes.1"),
        (
            FORMS + "width = { min = 64, max = 128, default = 64 }",
            "width and height must be left out",
        ),
        (FORMS.replace("sizes", "style"), "needs width and height"),
        (FORMS.replace("default = 8", "default = 7"), "multiples of step"),
        (FORMS.replace('["low", "high"]', "[]"), "[forms] quality"),
        (FORMS + "[forms.options]\nspeed = 1", "[forms] options.speed"),
        (FORMS.replace("painter", "openai_images"), "[forms] options.model"),
        (FORMS.replace("painter", "comfyui"), "[forms] options.workflow"),
        (FORMS + "[forms.options]\nrefused_markers = ['(']", "options.refused_markers.0"),
        (
            FORMS.replace("painter", "openai_images")
            + "[forms.options]\nmodel = 'x'\nerrors = { 1113 = 'engine_acount' }",
            "options.errors.1113",
        ),
        ("", "declares no model"),
        ("[small\nx = 1", "line 1"),
        ("small = 1", "[small]"),
        (GOOD.replace("painter", "magic"), "[small] engine"),
        (GOOD.replace("label", "lable"), "[small] l"),
        (
            GOOD.replace("min = 64, max = 128, default = 64", "min = 64, max = 32, default = 64"),
            "[small] width",
        ),
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
        catalog.models()


INPUTS = """
[edits]
label = "Edits"
engine = "painter"
width = { min = 64, max = 128, default = 64 }
height = { min = 64, max = 128, default = 128 }
images = { min = 1, max = 2, mask = true, formats = ["png"], max_bytes = 1000 }
"""


def test_the_pictures_that_a_model_takes_are_listed(declare, client):
    declare(GOOD + INPUTS)

    plain, edits = client.get("/api/v1/models").json["data"]["models"]

    assert plain["capabilities"]["images"] is None
    assert edits["capabilities"]["images"] == {
        "min": 1,
        "max": 2,
        "mask": True,
        "strength": None,
        "formats": ["png"],
        "maxBytes": 1000,
    }


def test_the_built_in_model_takes_pictures(client):
    offer = client.get("/api/v1/models").json["data"]["models"][0]["capabilities"]["images"]

    assert (offer["max"], offer["mask"], offer["formats"]) == (4, True, ["png", "jpg", "webp"])
    assert offer["strength"] == {"min": 0, "max": 1, "default": 0.6}


@pytest.mark.parametrize(
    ("engine", "images", "problem"),
    [
        ('"painter"', "{ max = 5 }", r"images.max: painter takes 4"),
        ('"painter"', "{ min = 3, max = 2 }", "min <= max"),
        ('"painter"', "{ max = 0 }", "images.max"),
        ('"painter"', '{ formats = ["gif"] }', "images.formats"),
        ('"painter"', "{ strength = { min = 0, max = 2, default = 1 } }", "from 0 to 1"),
        ('"painter"', "{ max_bytes = 99999999 }", "images.max_bytes"),
    ],
)
def test_pictures_that_no_engine_takes_stop_the_start(declare, engine, images, problem):
    table = GOOD.replace('"painter"', engine) + f"images = {images}\n"

    with pytest.raises(config.SettingError, match=problem):
        declare(table)


# -- Parameters of today's models ---------------------------------------------------------------

TODAY = """
[today]
label = "Today"
engine = "painter"
width = { min = 256, max = 4096, default = 1024, step = 16 }
height = { min = 256, max = 4096, default = 1024, step = 16 }
aspect_ratio = ["auto", "1:1", "16:9", "2:3"]
resolution = ["1K", "2K"]
pixels = { min = 655360, max = 8294400 }
ratio_max = 3
prompt_max = 32000
n_max = 6
seed_max = 100
background = ["auto", "transparent"]
output_format = ["png", "webp"]
output_compression = { min = 0, max = 100, default = 90 }
moderation = ["auto", "low"]
"""


def records_of(response):
    assert response.status_code == 202, response.json
    return response.json["data"]["records"]


def test_todays_parameters_are_listed(declare, client):
    declare(TODAY)

    listed = client.get("/api/v1/models").json["data"]["models"][0]

    assert {name: listed["capabilities"][name] for name in ("n", "promptMax", "seedMax")} == {
        "n": 6,
        "promptMax": 32000,
        "seedMax": 100,
    }
    assert listed["capabilities"]["pixels"] == {"min": 655360, "max": 8294400}
    assert listed["capabilities"]["ratioMax"] == 3
    assert listed["parameters"]["aspect_ratio"]["default"] == "auto"
    assert listed["parameters"]["resolution"] == {"choices": ["1K", "2K"], "default": "1K"}
    assert listed["parameters"]["output_compression"] == {"min": 0, "max": 100, "default": 90}


def test_without_them_limits_are_as_they_were(client):
    offer = client.get("/api/v1/models").json["data"]["models"][0]["capabilities"]

    assert (offer["n"], offer["promptMax"], offer["seedMax"]) == (4, 2000, 2**53 - 1)
    assert (offer["pixels"], offer["ratioMax"]) == (None, None)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ({"aspect_ratio": "1:1"}, (1024, 1024)),
        ({"aspect_ratio": "16:9"}, (1360, 768)),
        ({"aspect_ratio": "16:9", "resolution": "2K"}, (2720, 1536)),
        ({"aspect_ratio": "2:3", "resolution": "1K"}, (832, 1248)),
        ({"resolution": "2K"}, (2048, 2048)),
        ({"aspect_ratio": "auto"}, (1024, 1024)),
        ({}, (1024, 1024)),
    ],
)
def test_a_shape_is_another_way_to_say_the_size(declare, alice, shape, size):
    declare(TODAY)

    [record] = records_of(ask(alice, **shape))

    assert (record["width"], record["height"]) == size
    expected = {"aspect_ratio": "auto", "resolution": "1K", **shape}
    assert {name: record["params"][name] for name in expected} == expected


def test_a_size_in_pixels_is_known_by_its_shape(declare, alice):
    declare(TODAY)

    [record] = records_of(ask(alice, width=1360, height=768))
    [other] = records_of(ask(alice, width=1024, height=1040))

    assert (record["params"]["aspect_ratio"], record["params"]["resolution"]) == ("16:9", "1K")
    assert "aspect_ratio" not in other["params"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"aspect_ratio": "16:9", "width": 512}, {"aspect_ratio"}),
        (
            {"aspect_ratio": "1:1", "resolution": "1K", "height": 512},
            {"aspect_ratio", "resolution"},
        ),
        ({"aspect_ratio": "21:9"}, {"aspect_ratio"}),
        ({"resolution": "4K"}, {"resolution"}),
        ({"width": 256, "height": 256}, {"width"}),
        ({"width": 4096, "height": 4096}, {"width"}),
        ({"width": 4096, "height": 1024}, {"width"}),
        ({"prompt": "x" * 32001}, {"prompt"}),
        ({"n": 7}, {"n"}),
        ({"n": 11}, {"n"}),
        ({"seed": 101}, {"seed"}),
        ({"background": "pink"}, {"background"}),
        ({"output_format": "gif"}, {"output_format"}),
        ({"output_compression": 101}, {"output_compression"}),
        ({"moderation": ""}, {"moderation"}),
    ],
)
def test_what_breaks_a_rule_is_refused_by_field(declare, alice, body, fields):
    declare(TODAY)

    refused = ask(alice, **body)

    assert refused.status_code == 400 and set(refused.json["fields"]) == fields


@pytest.mark.parametrize("field", ["aspect_ratio", "resolution", "background", "moderation"])
def test_what_a_model_does_not_offer_is_refused_by_field(alice, field):
    refused = ask(alice, **{field: "auto"})

    assert refused.status_code == 400 and set(refused.json["fields"]) == {field}


@pytest.mark.parametrize("body", [{"prompt": "x" * 2001}, {"n": 5}])
def test_a_model_of_old_keeps_its_limits(alice, body):
    refused = ask(alice, **body)

    limit = "2000" if "prompt" in body else "4"
    [sentence] = refused.json["fields"].values()
    assert refused.status_code == 400 and limit in sentence


@pytest.mark.parametrize("character", ["x", "长", "🦊"])
def test_a_prompt_may_be_as_long_as_the_model_says(declare, alice, character):
    declare(TODAY)
    prompt = character * 32000

    [record] = records_of(ask(alice, prompt=prompt))

    assert alice.get(f"/api/v1/images/{record['id']}").json["data"]["prompt"] == prompt


def test_a_long_prompt_that_takes_long_to_compare_is_refused(declare, alice):
    declare(TODAY)

    refused = ask(alice, prompt="a" + "\u0323\u0301" * 15000)
    records = records_of(ask(alice, prompt="e\u0301" * 16000))

    assert refused.status_code == 400 and set(refused.json["fields"]) == {"prompt"}
    assert len(records) == 1


def test_many_images_of_one_request(declare, alice):
    declare(TODAY)

    records = records_of(ask(alice, n=6, seed=98))

    assert [record["params"]["seed"] for record in records] == [98, 99, 100, 0, 1, 2]


def test_a_retry_says_the_size_once(declare, alice):
    declare(TODAY)
    [record] = records_of(ask(alice, aspect_ratio="16:9", background="transparent"))
    db.execute("UPDATE image_generations SET status = 'failed' WHERE id = %s", record["id"])

    [again] = records_of(alice.post(f"/api/v1/images/{record['id']}/retry"))

    assert again["params"]["aspect_ratio"] == "16:9" and again["width"] == 1360
    assert again["params"]["background"] == "transparent"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('aspect_ratio = ["1:1", "30:1"]\nsizes = ["512x512"]', "no size for 30:1"),
        ('aspect_ratio = ["wide"]\nsizes = ["512x512"]', "aspect_ratio"),
        ('sizes = ["512x512"]\npixels = { min = 300000, max = 400000 }', "must allow 512x512"),
        ('sizes = ["512x128"]\nratio_max = 3', "must allow 512x128"),
        ('sizes = ["512x512"]\nprompt_max = 32001', "prompt_max"),
        ('sizes = ["512x512"]\nn_max = 11', "n_max"),
    ],
)
def test_rules_that_contradict_each_other_stop_the_start(declare, text, problem):
    with pytest.raises(config.SettingError, match=problem):
        declare(f'[odd]\nlabel = "Odd"\nengine = "painter"\n{text}\n')


def test_ratios_alone_make_the_sizes(declare, alice):
    declare('[r]\nlabel = "R"\nengine = "painter"\naspect_ratio = ["1:1", "16:9"]\n')

    [record] = records_of(ask(alice, aspect_ratio="16:9"))

    assert (record["width"], record["height"]) == (1360, 768)
    assert ask(alice, width=1000, height=1000).status_code == 400


def test_pixels_allow_ranges_whose_corner_is_too_large(declare, settings):
    settings.MAX_RESULT_PIXELS = 9_000_000

    declare(TODAY)


@pytest.mark.parametrize(
    ("picture", "size"),
    [((800, 400), (1440, 720)), ((100, 900), (576, 1728)), ((7, 7), (1024, 1024))],
)
def test_any_ratio_is_that_of_the_first_picture(declare, picture, size):
    model = declare(TODAY)["today"]

    assert sizes.like(model, InputImage(b"", "png", *picture), (1024, 1024)) == size


@pytest.mark.parametrize(
    ("least", "picture", "size"),
    [
        (65536, (1, 9000), (128, 512)),
        (65536, (9000, 1), (512, 128)),
        (65536, (100, 300), (168, 512)),
        (262144, (9000, 1), (512, 512)),
    ],
)
def test_thin_picture_makes_no_size_that_the_model_refuses(declare, least, picture, size):
    model = declare(f"""
        [m]
        label = "M"
        engine = "painter"
        aspect_ratio = ["auto"]
        width = {{ min = 64, max = 512, default = 512, step = 8 }}
        height = {{ min = 64, max = 512, default = 512, step = 8 }}
        pixels = {{ min = {least}, max = 262144 }}
        images = {{ max = 1 }}
    """)["m"]

    found = sizes.like(model, InputImage(b"", "png", *picture), (512, 512))

    assert found == size and not model.breaks_pixels(*found)


def test_pictures_reach_an_engine_in_formats_that_the_model_takes(declare):
    declare(INPUTS)
    row = {"model": "edits", "prompt_text": "x", "width": 64, "height": 64}

    asked = parameters.image_request(
        row, {"seed": 7}, images=(plain("red", extension="webp"), plain("red"))
    )

    assert [image.extension for image in asked.images] == ["png", "png"]
    assert asked.images[0].data.startswith(b"\x89PNG")
