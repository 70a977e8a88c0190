"""Images made from pictures: uploads, own images, masks."""

import io

import pytest
from PIL import Image

import db
import engines
import pool
from engines import painter
from files import cleanup, storage
from images import inputs, jobs, quota, schemas, submit, uploads
from tests.conftest import Person
from tests.inputs import hole, noise
from tests.pictures import opened
from tests.test_uploads import age, files_in, upload

GENERATE = "/api/v1/images/generate"


def png(image: Image.Image) -> bytes:
    output = io.BytesIO()
    image.save(output, "PNG")
    return output.getvalue()


def send_noise(person: Person, size=(96, 96), mode="RGB") -> dict:
    return {"upload": upload(person, png(noise(size, mode)))["id"]}


def send_mask(person: Person, size=(96, 96), **options) -> dict:
    return {"upload": upload(person, hole(size, **options).data)["id"]}


def generate(person: Person, key: str | None = None, **changes):
    body = {"prompt": "a fox", "width": 96, "height": 96, "steps": 1, **changes}
    headers = {"Idempotency-Key": key} if key else {}
    return person.post(GENERATE, json=body, headers=headers)


def submitted(person: Person, **changes) -> dict:
    response = generate(person, **changes)
    assert response.status_code == 202, response.json
    return response.json["data"]["records"][0]


def run_all() -> None:
    while job := jobs.acquire(["test_model"]):
        jobs.run(job)


def record(person: Person, number: int) -> dict:
    return person.get(f"/api/v1/images/{number}").json["data"]


def image_of(person: Person, number: int) -> Image.Image:
    return opened(person.http.get(record(person, number)["signedImageUrl"]).data)


@pytest.fixture
def one_model(settings, tmp_path):
    """Offer one model, with these lines beside what every model has."""

    def offer(lines: str) -> None:
        number = len(list(tmp_path.glob("*.toml")))
        settings.MODELS_FILE = tmp_path / f"models{number}.toml"
        settings.MODELS_FILE.write_text(f"""
            [test_model]
            label = "Painter"
            engine = "painter"
            width = {{ min = 64, max = 2048, default = 512 }}
            height = {{ min = 64, max = 2048, default = 512 }}
            steps = {{ min = 1, max = 150, default = 20 }}
            {lines}
        """)

    return offer


# -- Made from pictures -------------------------------------------------------------------------


def test_image_is_made_from_an_upload_and_an_own_image(alice):
    first = submitted(alice)["id"]
    run_all()
    source = send_noise(alice)

    made = submitted(alice, images=[source, {"image": first}], strength=0.5, n=2)
    run_all()

    shown = record(alice, made["id"])
    assert shown["status"] == "completed"
    assert [(one["kind"], one["id"]) for one in shown["inputs"]] == [
        ("upload", source["upload"]),
        ("image", first),
    ]
    assert shown["parentId"] == made["parentId"] == first
    assert shown["params"]["strength"] == 0.5
    for one in shown["inputs"]:
        assert opened(alice.http.get(one["signedThumbnailUrl"]).data).format == "WEBP"
    alone = submitted(alice, seed=shown["params"]["seed"])
    run_all()
    assert alone["inputs"] == [] and alone["parentId"] is None
    assert image_of(alice, alone["id"]).tobytes() != image_of(alice, made["id"]).tobytes()


def test_what_the_mask_does_not_show_is_the_picture_s(alice):
    base = noise((96, 96))
    picture = {"upload": upload(alice, png(base))["id"]}

    made = submitted(alice, images=[picture], mask=send_mask(alice), strength=1)
    run_all()

    result = image_of(alice, made["id"]).convert("RGB")
    assert record(alice, made["id"])["inputs"][1]["kind"] == "mask"
    assert result.crop((0, 0, 96, 24)).tobytes() == base.crop((0, 0, 96, 24)).tobytes()
    assert result.crop((24, 24, 72, 72)).tobytes() != base.crop((24, 24, 72, 72)).tobytes()


def test_model_s_strength_counts_if_none_is_asked(alice):
    made = submitted(alice, images=[send_noise(alice)])

    assert made["params"]["strength"] == 0.6
    assert "strength" not in submitted(alice)["params"]


def test_engine_gets_what_is_stored(alice, monkeypatch):
    asked = []
    make = painter.make
    monkeypatch.setattr(
        painter, "make", lambda request, *more: (asked.append(request), make(request, *more))[1]
    )
    source, mask = send_noise(alice, (96, 64)), send_mask(alice, (96, 64), box=(0, 0, 9, 9))

    submitted(alice, images=[source], mask=mask, strength=0.25)
    run_all()

    [request] = asked
    assert (request.images[0].extension, request.images[0].width, request.images[0].height) == (
        "png",
        96,
        64,
    )
    assert opened(request.images[0].data).tobytes() == noise((96, 64)).tobytes()
    assert request.mask.data and request.strength == 0.25


def test_edit_only_model_needs_a_picture(alice, one_model):
    one_model("images = { min = 1, max = 2 }")

    assert generate(alice).json["fields"].keys() == {"images"}
    assert generate(alice, images=[send_noise(alice)]).status_code == 202


def test_only_what_changes_pictures_needs_no_words(alice, one_model):
    size = {"width": 96, "height": 96}
    for lines, status in (("images = { min = 1 }", 202), ("images = { min = 0 }", 400)):
        one_model(lines)
        answer = alice.post(GENERATE, json={"images": [send_noise(alice)], **size})

        assert answer.status_code == status
        empty = alice.post(GENERATE, json={"images": [send_noise(alice)], "prompt": "", **size})
        assert list(empty.json["fields"]) == ["prompt"]
    both = alice.post(GENERATE, json={"width": "x"}).json["fields"]
    one_model("images = { min = 1 }")
    run_all()
    made = alice.history()["records"][0]

    assert both.keys() == {"prompt", "width"}
    assert (made["status"], made["prompt"]) == ("completed", "")
    assert alice.post(f"/api/v1/images/{made['id']}/retry").status_code == 202


# -- Refused before anything is queued ----------------------------------------------------------

OFFER = "images = { max = 2, mask = true, strength = { min = 0.2, max = 0.9, default = 0.5 } }"
NO_MASK = "images = { max = 2 }"
PICTURE, MASK = {"images": ["picture"]}, {"mask": "mask"}
WRONG = {
    "no pictures offered": ("", PICTURE, "images", "不支持"),
    "no mask offered": (NO_MASK, {**PICTURE, **MASK}, "mask", "不支持"),
    "no strength offered": (NO_MASK, {**PICTURE, "strength": 0.5}, "strength", "不支持"),
    "strength for nothing": ("", {"strength": 0.0}, "strength", "不支持"),
    "strength alone": (OFFER, {"strength": 0.5}, "strength", "输入图片"),
    "strength out of range": (OFFER, {**PICTURE, "strength": 1}, "strength", "0.2"),
    "strength beyond any": (OFFER, {**PICTURE, "strength": 1.5}, "strength", "1"),
    "too many": (OFFER, {"images": ["picture"] * 3}, "images", "2"),
    "far too many": (OFFER, {"images": ["picture"] * 99}, "images", "16"),
    "mask alone": (OFFER, MASK, "mask", "输入图片"),
    "mask of another size": (OFFER, {**PICTURE, "mask": "small"}, "mask", "96×96"),
    "mask without a hole": (OFFER, {**PICTURE, "mask": "picture"}, "mask", "透明"),
    "mask that is no png": (OFFER, {**PICTURE, "mask": "photo"}, "mask", "png"),
    "other format": ("images = { formats = ['jpg'] }", PICTURE, "images.0", "jpg"),
    "too many bytes": ("images = { max_bytes = 100 }", PICTURE, "images.0", "100"),
    "neither": (OFFER, {"images": [{}]}, "images.0", "之一"),
    "both": (OFFER, {"images": [{"upload": "x", "image": 1}]}, "images.0", "之一"),
    "url": (OFFER, {"images": [{"url": "http://127.0.0.1/"}]}, "images.0.url", "不支持"),
    "path": (OFFER, {"images": ["../../etc/passwd"]}, "images.0", "对象"),
    "mask that is an image": (OFFER, {**PICTURE, "mask": {"image": 1}}, "mask.image", "不支持"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_before_anything_is_queued(alice, one_model, case):
    offer, body, field, words = WRONG[case]
    one_model(offer)
    photo = io.BytesIO()
    noise((96, 96)).save(photo, "JPEG")
    named = {
        "picture": send_noise(alice),
        "mask": send_mask(alice),
        "small": send_mask(alice, (95, 96)),
        "photo": {"upload": upload(alice, photo.getvalue())["id"]},
    }
    body = dict(body)
    if isinstance(body.get("images"), list):
        body["images"] = [
            named.get(one, one) if isinstance(one, str) else one for one in body["images"]
        ]
    if isinstance(body.get("mask"), str):
        body["mask"] = named[body["mask"]]

    response = generate(alice, **body)

    assert response.status_code == 400, response.json
    assert words in response.json["fields"][field]
    assert db.value("SELECT COUNT(*) FROM image_generations") == 0
    assert db.value("SELECT quota_used FROM users") == 0
    assert db.value("SELECT COUNT(*) FROM upload_uses") == 0


def test_another_s_inputs_are_not_there(alice, bob):
    theirs, image = send_noise(alice), submitted(alice)["id"]
    run_all()
    mine = send_noise(bob)

    for body in (
        {"images": [theirs]},
        {"images": [mine, theirs]},
        {"images": [{"image": image}]},
        {"images": [mine], "mask": theirs},
        {"images": [{"upload": "0" * 32}]},
        {"images": [{"upload": "x"}]},
        {"images": [{"image": 2**31 - 1}]},
    ):
        response = generate(bob, **body)

        assert (response.status_code, response.json["code"]) == (404, "not_found"), body
        assert all(name.startswith(("images.", "mask")) for name in response.json["fields"])
    alice.open("DELETE", f"/api/v1/uploads/{theirs['upload']}")
    assert generate(bob, images=[theirs]).status_code == 404
    assert db.value("SELECT COUNT(*) FROM image_generations WHERE user_id = %s", bob.id) == 0


def test_deleted_and_unfinished_inputs_are_told_apart(alice, settings):
    settings.TRASH_DAYS = 7
    source, image, waiting = send_noise(alice), submitted(alice)["id"], None
    run_all()
    waiting = submitted(alice)["id"]
    alice.open("DELETE", f"/api/v1/uploads/{source['upload']}")
    alice.open("DELETE", f"/api/v1/images/{image}")

    answers = [
        generate(alice, images=[one]) for one in (source, {"image": image}, {"image": waiting})
    ]

    assert [answer.json["code"] for answer in answers] == [
        "upload_deleted",
        "image_deleted",
        "no_image",
    ]


def test_session_that_has_ended_learns_nothing(alice, bob):
    source = send_noise(alice)
    alice.post("/api/auth/logout", json={"everywhere": True})

    for one in (source, {"upload": "0" * 32}):
        assert generate(alice, images=[one]).status_code == 401


def test_file_that_is_lost_is_found_out_at_once(alice, settings):
    source = send_noise(alice)
    for file in files_in(settings):
        (settings.uploads_dir / "inputs" / file).unlink()

    assert generate(alice, images=[source]).status_code == 404


@pytest.mark.parametrize("kind", ["images", "mask"])
def test_file_of_what_was_just_deleted_is_not_called_unknown(alice, monkeypatch, kind):
    source, mask = send_noise(alice), send_mask(alice)
    wanted = mask if kind == "mask" else source
    size = storage.size

    def delete_first(key):
        if wanted["upload"] in key:
            alice.open("DELETE", f"/api/v1/uploads/{wanted['upload']}")
        return size(key)

    monkeypatch.setattr(storage, "size", delete_first)

    response = generate(alice, images=[source], mask=mask)

    assert (response.status_code, response.json["code"]) == (410, "upload_deleted")
    assert list(response.json["fields"]) == ["mask" if kind == "mask" else "images.0"]


def test_conflict_with_another_transaction_is_tried_again(alice, settings, monkeypatch):
    """As on a cluster, where another node may have been faster."""

    def conflict_once(place, name):
        function = getattr(place, name)

        def call(*values, **named):
            monkeypatch.setattr(place, name, function)
            raise pool.Conflict

        monkeypatch.setattr(place, name, call)

    conflict_once(quota, "add_bytes")
    source = send_noise(alice)
    conflict_once(uploads, "note_uses")
    made = submitted(alice, images=[source])
    run_all()
    conflict_once(cleanup, "schedule_deletion")
    deleted = alice.open("DELETE", f"/api/v1/uploads/{source['upload']}")

    assert record(alice, made["id"])["status"] == "completed"
    assert deleted.status_code == 200 and files_in(settings) == []
    assert quota.list_wrong_counters() == []


# -- What is gone later -------------------------------------------------------------------------


def test_upload_deleted_between_check_and_insert_is_refused(alice, monkeypatch):
    source = send_noise(alice)
    lock_user = quota.lock_user

    def delete_first(user_id):
        monkeypatch.setattr(quota, "lock_user", lock_user)
        db.execute("UPDATE uploads SET deleted_at = 1")
        return lock_user(user_id)

    monkeypatch.setattr(quota, "lock_user", delete_first)

    response = generate(alice, images=[source])

    assert response.json["code"] == "upload_deleted"
    assert db.value("SELECT COUNT(*) FROM image_generations") == 0
    assert db.value("SELECT quota_used FROM users") == 0


def test_job_whose_input_is_gone_fails_and_is_refunded(alice):
    source = send_noise(alice)
    made = submitted(alice, images=[source])
    alice.open("DELETE", f"/api/v1/uploads/{source['upload']}")

    run_all()

    shown = record(alice, made["id"])
    assert (shown["status"], shown["errorCode"]) == ("failed", "input_gone")
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 0


def test_job_waits_while_the_storage_is_away(alice, monkeypatch):
    made = submitted(alice, images=[send_noise(alice)])

    def away(key):
        raise storage.Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", away)
        run_all()
    assert record(alice, made["id"])["status"] == "pending"

    db.execute("UPDATE image_generations SET not_before = 0")
    run_all()

    assert record(alice, made["id"])["status"] == "completed"


def test_deleting_an_input_keeps_the_result(alice):
    source, parent = send_noise(alice), submitted(alice)["id"]
    run_all()
    made = submitted(alice, images=[source, {"image": parent}])["id"]
    run_all()

    alice.open("DELETE", f"/api/v1/uploads/{source['upload']}")
    alice.open("DELETE", f"/api/v1/images/{parent}")

    shown = record(alice, made)
    assert shown["status"] == "completed" and shown["parentId"] == parent
    assert image_of(alice, made).size == (96, 96)
    assert alice.http.get(shown["inputs"][0]["signedThumbnailUrl"]).status_code == 404


# -- Again --------------------------------------------------------------------------------------


def test_retry_repeats_the_inputs(alice):
    picture, mask = send_noise(alice), send_mask(alice)
    made = submitted(alice, images=[picture], mask=mask, strength=0.3)
    run_all()

    again = alice.post(f"/api/v1/images/{made['id']}/retry").json["data"]["records"][0]
    run_all()

    shown = record(alice, again["id"])
    assert [one["id"] for one in shown["inputs"]] == [picture["upload"], mask["upload"]]
    assert shown["params"]["strength"] == 0.3
    assert image_of(alice, again["id"]).tobytes() == image_of(alice, made["id"]).tobytes()


def test_retry_without_its_input_is_refused(alice, settings):
    parent = submitted(alice)["id"]
    run_all()
    source = send_noise(alice)
    of_upload, of_image = (
        submitted(alice, images=[one])["id"] for one in (source, {"image": parent})
    )
    alice.open("DELETE", f"/api/v1/uploads/{source['upload']}")
    alice.open("DELETE", f"/api/v1/images/{parent}")

    for number in (of_upload, of_image):
        response = alice.post(f"/api/v1/images/{number}/retry")

        assert (response.status_code, response.json["code"]) == (409, "input_gone")


def test_retry_of_a_model_that_takes_no_pictures_any_more_is_refused(alice, one_model):
    made = submitted(alice, images=[send_noise(alice)])
    one_model("")

    response = alice.post(f"/api/v1/images/{made['id']}/retry")

    assert response.status_code == 400
    assert set(response.json["fields"]) == {"images", "strength"}


def test_same_key_gives_the_same_records_though_the_input_is_gone(alice):
    source = send_noise(alice)
    first = generate(alice, key="k", images=[source], n=2)
    alice.open("DELETE", f"/api/v1/uploads/{source['upload']}")

    again, other = generate(alice, key="k", images=[source], n=2), generate(alice, key="k")

    ids = [[one["id"] for one in answer.json["data"]["records"]] for answer in (first, again)]
    assert ids[0] == ids[1] and len(ids[0]) == 2
    assert (other.status_code, other.json["code"]) == (409, "key_reused")
    assert db.value("SELECT COUNT(*) FROM image_generations") == 2


def test_retry_and_test_image_take_a_key_too(alice):
    made = submitted(alice, images=[send_noise(alice)])
    headers = {"Idempotency-Key": "k"}
    url = f"/api/v1/images/{made['id']}/retry"
    test = {"json": {"prompt": "a", "params": {"width": 64, "height": 64}}}

    retries = [alice.post(url, headers=headers).json["data"]["records"] for _ in range(2)]
    tests = [
        alice.post("/api/v1/images/generate-test", headers={"Idempotency-Key": "t"}, **test)
        for _ in range(2)
    ]

    assert retries[0][0]["id"] == retries[1][0]["id"]
    assert tests[0].json == tests[1].json


def test_request_without_pictures_has_the_fingerprint_of_the_release_before():
    body = schemas.GenerateInput(prompt="a fox", n=2)

    assert "images" not in body.fingerprint() and "strength" not in body.fingerprint()
    strong = schemas.GenerateInput(prompt="a fox", n=2, strength=0)
    assert strong.fingerprint() != body.fingerprint()


def test_first_request_of_a_day_takes_inputs(alice):
    db.execute("UPDATE users SET quota_day = 1, quota_used = 400")

    made = submitted(alice, images=[send_noise(alice)], n=2)

    assert db.value("SELECT COUNT(*) FROM upload_uses") == 2
    assert len(made["inputs"]) == 1


def test_request_without_inputs_is_one_transaction_alone(alice, monkeypatch):
    monkeypatch.setattr(inputs, "find", None)
    monkeypatch.setattr(submit, "run_with_inputs", None)

    assert generate(alice).status_code == 202


# -- How long uploads stay ----------------------------------------------------------------------


def test_used_upload_stays_as_long_as_a_record_has_it(alice, settings):
    settings.TRASH_DAYS = 7
    source = send_noise(alice)
    url = f"/api/v1/uploads/{source['upload']}"
    made = [one["id"] for one in generate(alice, images=[source], n=2).json["data"]["records"]]
    run_all()
    assert alice.get(url).json["data"]["expiresAt"] is None
    age(uploads.KEEP_SECONDS * 2)

    jobs.sweep()
    alice.post("/api/v1/images/delete", json={"ids": made})
    age(uploads.KEEP_SECONDS * 2)
    jobs.sweep()
    assert alice.get(url).status_code == 200
    alice.post("/api/v1/images/delete?purge=true", json={"ids": made[:1]})
    jobs.sweep()
    assert alice.get(url).status_code == 200
    alice.post("/api/v1/images/delete?purge=true", json={"ids": made[1:]})
    jobs.sweep()

    assert alice.get(url).status_code == 410
    assert quota.list_wrong_counters() == []


def test_upload_lives_a_day_from_the_last_request_for_it(alice):
    source = send_noise(alice)
    age(uploads.KEEP_SECONDS - 100)
    made = submitted(alice, images=[source])["id"]
    alice.open("DELETE", f"/api/v1/images/{made}")
    age(uploads.KEEP_SECONDS - 100)

    jobs.sweep()

    assert alice.get(f"/api/v1/uploads/{source['upload']}").status_code == 200


def test_restored_record_has_its_inputs(alice, settings):
    settings.TRASH_DAYS = 7
    source = send_noise(alice)
    made = submitted(alice, images=[source])["id"]
    run_all()
    alice.open("DELETE", f"/api/v1/images/{made}")
    [trashed] = alice.get("/api/v1/images/trash").json["data"]["records"]
    assert trashed["inputs"][0]["signedThumbnailUrl"] is None

    alice.post("/api/v1/images/restore", json={"ids": [made]})

    assert record(alice, made)["inputs"][0]["id"] == source["upload"]
    assert alice.post(f"/api/v1/images/{made}/retry").status_code == 202


def test_account_goes_with_what_it_was_made_from(alice):
    submitted(alice, images=[send_noise(alice)])

    alice.open("DELETE", "/api/auth/account", json={"password": "secret1"})

    assert db.value("SELECT COUNT(*) FROM upload_uses") == 0


def test_engine_without_pictures_says_so(alice, monkeypatch):
    made = submitted(alice, images=[send_noise(alice)])

    def refuse(request, on_progress):
        raise engines.PermanentError("engine_refused", "no pictures")

    monkeypatch.setattr(painter, "make", refuse)
    run_all()

    assert record(alice, made["id"])["errorCode"] == "engine_refused"
