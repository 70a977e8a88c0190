import re
import threading

import pytest

import db
import messages
from engines import catalog, painter
from images import gallery, jobs
from tests.pictures import opened
from tests.servers import wait_until
from tests.test_models import GOOD, declare

__all__ = ["declare"]  # a fixture
TEST = "/api/v1/images/generate-test"
SMALL = {"width": 64, "height": 64, "steps": 1, "seed": 5}


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
        ({"prompt": "x", "params": {"model": "y" * 5000}}, "params"),
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


@pytest.mark.parametrize(
    ("extra", "kind"),
    [("NaN", "not_finite"), ("1e999", "not_finite"), (r'"\ud800"', "string_unicode")],
)
def test_params_that_no_json_can_hold_are_named_so(alice, extra, kind):
    body = f'{{"prompt": "x", "params": {{"note": {extra}}}}}'

    response = alice.post(
        "/api/v1/images/generate-test", data=body, content_type="application/json"
    )

    assert response.json["message"] == f"params {messages.FIELDS[kind][0]}"


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


# -- Any model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["dall-e", "模型 x", "", 7, ["a"], {"name": "sdxl"}, False])
def test_any_model_is_drawn_by_the_built_in_engine(alice, model):
    response = alice.generate(model=model)

    record = alice.history()["records"][0]
    assert response.status_code == 200
    assert (record["model"], record["params"]["model_used"]) == ("test_model", "test_model_v1")
    assert record["params"]["requested"] == {"model": model}


@pytest.mark.parametrize("model", [None, "test_model"])
def test_the_built_in_model_by_its_name_or_none_is_no_other(alice, model):
    alice.generate(model=model)

    assert "requested" not in alice.history()["records"][0]["params"]


OTHER = """
[test_model]
label = "Another"
engine = "openai_images"
width = { min = 8, max = 16, default = 8 }
height = { min = 8, max = 16, default = 8 }
options = { base_url = "http://127.0.0.1:9", model = "x", paid = true }
"""


@pytest.mark.parametrize(("text", "name"), [(GOOD, "test_model"), (OTHER, "built-in")])
@pytest.mark.parametrize("asked", ["small", "test_model", "nothing"])
def test_whatever_is_on_offer_a_test_image_is_drawn(alice, declare, text, name, asked):
    declare(text)

    response = alice.generate(width=700, model=asked)

    record = alice.history()["records"][0]
    assert (response.status_code, record["model"], record["width"]) == (200, name, 700)
    assert record["params"]["model_used"] == "test_model_v1"
    assert list(catalog.models()) == re.findall(r"\[(\w+)\]", text)


def test_a_test_image_of_a_killed_process_is_drawn_by_any_worker(
    alice, declare, start_worker, monkeypatch
):
    declare(GOOD)
    monkeypatch.setattr(jobs, "claim", lambda generation_id: None)
    monkeypatch.setattr(gallery, "WAIT_SECONDS", 0)
    assert alice.generate().status_code == 503
    db.execute("UPDATE image_generations SET not_before = 0")

    start_worker("worker.py", WORKER_MODELS="small")

    wait_until(lambda: alice.history()["records"][0]["status"] == "completed", what="the image")


# -- Idempotency-Key ----------------------------------------------------------------------------


def draw(person, key: str, prompt: str = "a fox", **params):
    body = {"prompt": prompt, "params": {**SMALL, **params}}
    return person.post(TEST, json=body, headers={"Idempotency-Key": key})


def retry(person, number: int, key: str, **body):
    path = f"/api/v1/images/{number}/retry"
    return person.post(path, json=body, headers={"Idempotency-Key": key})


def count(person) -> int:
    return person.history()["pagination"]["total"]


def test_the_same_test_image_again_draws_nothing(alice):
    first, again = draw(alice, "k"), draw(alice, "k")

    assert (again.status_code, again.json) == (200, first.json)
    assert (count(alice), alice.get("/api/v1/images/quota").json["data"]["used"]) == (1, 1)


@pytest.mark.parametrize(
    "change", [{"prompt": "a hen"}, {"seed": 6}, {"model": "x"}, {"note": "other"}]
)
def test_a_key_of_another_test_image_is_refused(alice, change):
    draw(alice, "k")

    response = draw(alice, "k", **change)

    assert (response.status_code, response.json["code"], count(alice)) == (409, "key_reused", 1)


def test_the_same_retry_again_queues_nothing(alice):
    number = draw(alice, "k").json["data"]["id"]

    first, again = retry(alice, number, "r", seed="new"), retry(alice, number, "r", seed="new")

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json["data"] == again.json["data"]
    assert first.headers["Location"] == again.headers["Location"]
    assert count(alice) == 2


def test_a_retry_repeated_after_the_old_one_changed_is_the_same(alice):
    number = draw(alice, "k").json["data"]["id"]
    first = retry(alice, number, "r")
    db.execute("UPDATE image_generations SET generation_params_json = NULL WHERE id = %s", number)

    again = retry(alice, number, "r")

    assert first.json["data"]["records"][0]["id"] == again.json["data"]["records"][0]["id"]


def test_a_key_of_another_retry_is_refused(alice):
    number, other = (draw(alice, key).json["data"]["id"] for key in ("a", "b"))
    retry(alice, number, "r")

    responses = [retry(alice, other, "r"), retry(alice, number, "r", seed="new")]

    assert [response.json["code"] for response in responses] == ["key_reused"] * 2


def test_a_key_of_another_call_is_refused(alice):
    body = {"prompt": "a fox"}
    key = {"Idempotency-Key": "k"}
    number = alice.post("/api/v1/images/generate", json=body, headers=key)
    number = number.json["data"]["records"][0]["id"]

    test_image = alice.post(TEST, json=body, headers=key)

    assert test_image.json["code"] == retry(alice, number, "k").json["code"] == "key_reused"


def test_one_key_sent_many_times_at_once_draws_one_image(alice):
    responses = []
    threads = [
        threading.Thread(target=lambda: responses.append(draw(alice, "k"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    answered = [response.json["data"] for response in responses if response.status_code == 200]
    assert {response.status_code for response in responses} <= {200, 503}  # too many at once
    assert len({data["id"] for data in answered}) == 1 and count(alice) == 1


@pytest.mark.parametrize("status", ["processing", "pending"])
def test_a_request_that_waits_too_long_for_the_first_may_come_again(alice, monkeypatch, status):
    monkeypatch.setattr(gallery, "WAIT_SECONDS", 0)
    draw(alice, "k")
    monkeypatch.setattr(jobs, "claim", lambda number: None)  # another just did
    db.execute("UPDATE image_generations SET status = %s", status)

    response = draw(alice, "k")

    assert (response.status_code, response.json["code"]) == (503, "server_busy")
    assert response.headers["Retry-After"]


def test_a_test_image_deleted_since_is_gone(alice):
    number = draw(alice, "k").json["data"]["id"]
    alice.open("DELETE", f"/api/v1/images/{number}")

    assert (draw(alice, "k").status_code, count(alice)) == (410, 0)


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 101])
def test_a_strange_key_is_named(alice, key):
    assert list(draw(alice, key).json["fields"]) == ["Idempotency-Key"]
