import pytest

from engines import painter
from tests.pictures import opened


def test_generate_test_answers_as_published(alice):
    body = {
        "prompt": "你的图像提示词",
        "params": {"model": "test_model", "steps": 50, "seed": 12345},
    }

    response = alice.post("/api/v1/images/generate-test", json=body)

    assert response.status_code == 200
    assert response.json["message"] == "图像生成成功"
    assert set(response.json["data"]) == {"id", "imageUrl", "status"}
    assert response.json["data"]["status"] == "completed"
    assert response.json["data"]["imageUrl"].startswith(
        f"/api/uploads/generated_images/{alice.id}/"
    )


def test_the_image_and_its_thumbnail_are_real(alice):
    alice.generate(width=400, height=200)
    record = alice.history()["records"][0]

    image, thumbnail = (
        opened(alice.get(record[name]).data) for name in ("imageUrl", "thumbnailUrl")
    )

    assert (image.format, image.size) == ("PNG", (400, 200))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (320, 160))


def test_the_record_says_how_the_image_was_made(alice):
    alice.generate("a hen", seed=7, steps=3, style="ink")

    record = alice.history()["records"][0]

    assert record["prompt"] == "a hen"
    assert record["params"] == {
        "model_used": "test_model_v1",
        "seed": 7,
        "steps": 3,
        "width": 64,
        "height": 64,
        "style": "ink",
    }


def test_the_same_seed_draws_the_same_image_and_another_seed_another(alice):
    urls = [alice.generate(seed=seed).json["data"]["imageUrl"] for seed in (1, 1, 2)]

    first, again, other = (alice.get(url).data for url in urls)

    assert first == again != other


@pytest.mark.parametrize("seed", [None, -1])
def test_the_seed_really_used_is_recorded_when_none_was_given(alice, seed):
    first, second = alice.generate(seed=seed), alice.generate(seed=seed)

    seeds = [record["params"]["seed"] for record in alice.history()["records"]]
    assert first.status_code == second.status_code == 200
    assert all(isinstance(seed, int) and seed >= 0 for seed in seeds) and seeds[0] != seeds[1]


@pytest.mark.parametrize("params", [None, {}])
def test_params_may_be_left_out(alice, params):
    body = {"prompt": "x", "params": params}

    response = alice.post("/api/v1/images/generate-test", json=body)

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  \n "}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"prompt": "x", "params": []}, "params"),
        ({"prompt": "x", "params": "y"}, "params"),
        ({"prompt": "x", "params": {"model": "dall-e"}}, "params.model"),
        ({"prompt": "x", "params": {"steps": 0}}, "params.steps"),
        ({"prompt": "x", "params": {"steps": 151}}, "params.steps"),
        ({"prompt": "x", "params": {"steps": "50"}}, "params.steps"),
        ({"prompt": "x", "params": {"seed": True}}, "params.seed"),
        ({"prompt": "x", "params": {"seed": 1.5}}, "params.seed"),
        ({"prompt": "x", "params": {"seed": 2**53}}, "params.seed"),
        ({"prompt": "x", "params": {"seed": 10**400}}, "params.seed"),
        ({"prompt": "x", "params": {"width": 10**6}}, "params.width"),
        ({"prompt": "x", "params": {"note": "y" * 5000}}, "params"),
    ],
)
def test_a_wrong_field_is_named(alice, body, field):
    response = alice.post("/api/v1/images/generate-test", json=body)

    assert response.status_code == 400
    assert list(response.json["fields"]) == [field]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_none_are_refused(alice, number):
    body = f'{{"prompt": "x", "params": {{"seed": {number}}}}}'

    response = alice.post(
        "/api/v1/images/generate-test", data=body, content_type="application/json"
    )

    assert list(response.json["fields"]) == ["params.seed"]


@pytest.mark.parametrize(
    "extra", ["NaN", "1e999", "[" * 900 + "]" * 900, '{"a":' * 30 + "1" + "}" * 30]
)
def test_params_that_no_answer_could_show_are_refused(alice, extra):
    body = f'{{"prompt": "x", "params": {{"note": {extra}}}}}'

    response = alice.post(
        "/api/v1/images/generate-test", data=body, content_type="application/json"
    )

    assert (response.status_code, list(response.json["fields"])) == (400, ["params"])


def test_a_whole_number_may_be_written_with_a_point(alice):
    assert alice.generate(seed=6.0).status_code == 200
    assert alice.history()["records"][0]["params"]["seed"] == 6


@pytest.mark.parametrize(
    "prompt",
    [
        "🦊 家族 👨‍👩‍👧",
        "line\nbreak\ttab",
        "'; DROP TABLE users; --",
        '100% _x_ \\ "q"',
        "<script>",
    ],
)
def test_a_prompt_is_kept_as_it_is(alice, prompt):
    alice.generate(prompt)

    assert alice.history()["records"][0]["prompt"] == prompt


def test_a_stranger_needs_to_log_in(client):
    assert client.post("/api/v1/images/generate-test", json={"prompt": "x"}).status_code == 401


def test_a_generation_that_fails_is_a_failed_record_and_costs_no_quota(alice, monkeypatch):
    monkeypatch.setattr(painter, "make", lambda request, on_progress: 1 / 0)

    response = alice.generate()

    assert (response.status_code, response.json["code"]) == (500, "generation_failed")
    record = alice.history()["records"][0]
    assert (record["status"], record["errorCode"], record["errorMessage"]) == (
        "failed",
        "engine_error",
        "图像生成失败",
    )
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 0
