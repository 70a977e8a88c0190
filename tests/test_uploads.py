"""Uploads: pictures that an account sends to have others made from them."""

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from werkzeug.datastructures import MultiDict

import db
import heavy
from files import cleanup, pictures, storage, uploaded
from images import jobs, quota, storage_check, uploads
from tests.conftest import Person
from tests.inputs import noise
from tests.pictures import animation, opened, photo_with_gps, picture, png_bomb


def send(person: Person, data: bytes | None = None, name: str = "a.png", **fields):
    file = (io.BytesIO(picture() if data is None else data), name)
    return person.post("/api/v1/uploads", data={"file": file, **fields})


def upload(person: Person, data: bytes | None = None) -> dict:
    response = send(person, data)
    assert response.status_code == 201, response.json
    return response.json["data"]


def files_in(settings) -> list[str]:
    folder = settings.uploads_dir / "inputs"
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def stored(person: Person, shown: dict) -> bytes:
    return person.http.get(shown["signedUrl"]).data


def age(seconds: int) -> None:
    """Let all uploads have been wanted so long ago."""
    db.execute(
        "UPDATE uploads SET wanted_at = wanted_at - %s, due_at = due_at - %s", seconds, seconds
    )


# -- An upload ----------------------------------------------------------------------------------


def test_upload_is_shown_stored_and_counted(alice, settings):
    data = picture("JPEG")

    shown = upload(alice, data)

    assert (shown["width"], shown["height"]) == (40, 30)
    assert shown["bytes"] == len(stored(alice, shown))
    assert opened(alice.http.get(shown["signedThumbnailUrl"]).data).format == "WEBP"
    assert alice.get(f"/api/v1/uploads/{shown['id']}").json["data"] == shown
    assert files_in(settings) == [
        f"{alice.id}/{shown['id']}.jpg",
        f"{alice.id}/{shown['id']}_thumbnail.webp",
    ]
    profile = alice.get("/api/auth/profile").json["data"]
    assert profile["storageBytes"] == db.value("SELECT file_bytes FROM uploads") > shown["bytes"]
    assert quota.list_wrong_counters() == []


def test_same_bytes_are_the_same_upload_for_the_same_account(alice, bob, settings):
    first = upload(alice)
    age(1000)

    again, of_bob = upload(alice), upload(bob)

    assert again["id"] == first["id"] != of_bob["id"]
    assert again["expiresAt"] >= first["expiresAt"]
    assert len(files_in(settings)) == 4


def test_same_bytes_at_the_same_moment_are_one_upload(alice, settings, monkeypatch):
    both = threading.Barrier(2, timeout=10)
    make = uploaded.make
    monkeypatch.setattr(uploaded, "make", lambda data: (make(data), both.wait())[0])
    monkeypatch.setattr(heavy.uploads, "run", lambda call, data, owner: call(data))
    people = [Person() for _ in range(2)]
    for person in people:
        person.headers = alice.headers

    with ThreadPoolExecutor(2) as threads:
        shown = list(threads.map(upload, people))

    assert shown[0]["id"] == shown[1]["id"]
    assert len(files_in(settings)) == 2
    assert quota.list_wrong_counters() == []


def test_upload_leaves_when_its_owner_deletes_it(alice, settings):
    shown = upload(alice)
    url = f"/api/v1/uploads/{shown['id']}"

    assert alice.open("DELETE", url).status_code == 200

    assert files_in(settings) == []
    assert alice.get(url).json["code"] == "upload_deleted"
    assert alice.open("DELETE", url).status_code == alice.get(url).status_code == 410
    assert alice.http.get(shown["signedUrl"]).status_code == 404
    assert alice.get("/api/auth/profile").json["data"]["storageBytes"] == 0
    assert upload(alice)["id"] != shown["id"]


def test_upload_is_its_owner_s_alone(alice, bob, client):
    shown = upload(alice)
    url = f"/api/v1/uploads/{shown['id']}"
    path = shown["signedUrl"].partition("?")[0]

    assert bob.get(url).status_code == bob.open("DELETE", url).status_code == 404
    assert client.get(url).status_code == client.open("DELETE", url).status_code == 401
    assert client.post("/api/v1/uploads").status_code == 401
    assert (client.get(path).status_code, bob.get(path).status_code) == (401, 403)
    assert alice.get(path).status_code == 200
    assert client.get(shown["signedUrl"]).headers["Cache-Control"].startswith("private")
    assert client.get(shown["signedUrl"].replace("expires=", "expires=1")).status_code == 403


@pytest.mark.parametrize("upload_id", ["x", "0" * 32, "%00", "..%2f1", "é"])
def test_upload_that_never_was_is_not_found(alice, upload_id):
    assert alice.get(f"/api/v1/uploads/{upload_id}").status_code == 404
    assert alice.open("DELETE", f"/api/v1/uploads/{upload_id}").status_code == 404


def test_key_that_may_generate_may_upload(alice):
    def key(*scopes):
        made = alice.post("/api/v1/keys", json={"name": "k", "scopes": scopes}).json["data"]
        person = Person()
        person.headers = {"Authorization": f"Bearer {made['key']}"}
        return person

    assert send(key("read")).json["code"] == "scope_missing"
    shown = upload(key("generate"))
    assert alice.http.get(shown["signedUrl"]).status_code == 200


# -- What is refused ----------------------------------------------------------------------------


def noisy(kind: str, size=(300, 200)) -> bytes:
    output = io.BytesIO()
    noise(size).save(output, kind)
    return output.getvalue()


REFUSED = {
    "nothing": (b"", "file"),
    "no picture": (b"GIF89a", "file"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "file"),
    "gif": (picture("GIF"), "file"),
    "animated gif": (animation("GIF"), "file"),
    "animated png": (animation("PNG"), "file"),
    "animated webp": (animation("WEBP"), "file"),
    "bomb": (png_bomb(), "file"),
    "too many pixels": (png_bomb(7100, 7100), "file"),
    "cut png": (noisy("PNG")[:2000], "file"),
    "cut jpeg": (noisy("JPEG")[:2000], "file"),
    "cut webp": (noisy("WEBP")[:2000], "file"),
    "head of a jpeg": (b"\xff\xd8\xff\xe0" + bytes(100), "file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_is_refused(alice, settings, case):
    data, field = REFUSED[case]

    response = send(alice, data)

    assert response.status_code == 400
    assert list(response.json["fields"]) == [field]
    assert files_in(settings) == []
    assert db.value("SELECT COUNT(*) FROM pending_deletions") == 0


def test_form_without_a_file_is_refused(alice):
    bodies = [
        {"data": {}},
        {"data": {"file": "a text"}},
        {"json": {}},
        {"json": {"file": "iVBORw0KGgo="}},
        {"data": b"x", "headers": {"Content-Type": "image/png"}},
    ]
    for body in bodies:
        response = alice.post("/api/v1/uploads", **body)

        assert response.status_code == 400, body
    assert send(alice, unknown="1").json["fields"].keys() == {"unknown"}


def test_form_with_more_than_a_file_is_refused(alice, settings):
    for more in ({"file": "a text"}, {"file": (io.BytesIO(b"x"), "b.png")}):
        form = MultiDict([("file", (io.BytesIO(picture()), "a.png")), *more.items()])
        response = alice.post("/api/v1/uploads", data=form)

        assert (response.status_code, response.json["code"]) == (400, "invalid_input")
        assert (
            "twice" in response.json["fields"]["file"] or "重复" in response.json["fields"]["file"]
        )
    other = send(alice, mask=(io.BytesIO(b"x"), "b.png"))
    assert other.status_code == 400 and other.json["fields"].keys() == {"mask"}
    assert files_in(settings) == []


def test_too_large_a_file_is_refused_before_it_is_looked_at(alice, monkeypatch):
    monkeypatch.setattr(heavy.uploads, "run", None)

    assert send(alice, picture() + bytes(uploaded.MAX_BYTES)).status_code == 413
    assert send(alice, picture() + bytes(uploaded.MAX_BYTES * 2)).status_code == 413
    body = {"prompt": "x" * 100_000}
    assert alice.post("/api/v1/images/generate", json=body).status_code == 413


def test_full_storage_takes_no_upload(alice, settings):
    settings.MAX_STORAGE_MB = 1
    db.execute("UPDATE users SET storage_bytes = %s", 1024 * 1024 - 100)

    almost = send(alice)
    db.execute("UPDATE users SET storage_bytes = %s", 1024 * 1024)
    full = send(alice)

    assert almost.json["code"] == full.json["code"] == "storage_full"
    assert files_in(settings) == []


def test_uploads_are_limited(alice, settings):
    settings.UPLOADS_PER_ACCOUNT = 2
    first = picture(size=(10, 10))
    upload(alice, first)
    send(alice, animation("PNG"))

    response = send(alice)

    assert (response.status_code, response.json["code"]) == (429, "too_many_uploads")
    assert "Retry-After" in response.headers
    upload(alice, first)  # is there already: nothing is decoded


# -- What is kept -------------------------------------------------------------------------------


def test_photo_is_turned_upright_and_says_nothing(alice):
    shown = upload(alice, photo_with_gps())

    data = stored(alice, shown)
    assert (shown["width"], shown["height"]) == opened(data).size == (20, 40)
    assert b"SecretCamera" not in data and not opened(data).getexif()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pixels_of_a_plain_picture_stay_as_they_are(alice, kind):
    data = noisy(kind)

    kept = stored(alice, upload(alice, data + b"<script>alert(1)</script>"))

    assert opened(kept).tobytes() == opened(data).tobytes()
    assert len(kept) <= len(data)
    assert b"script" not in kept


ODD = {
    "cmyk": (picture("JPEG", mode="CMYK"), "RGB"),
    "16 bits": (picture("PNG", mode="I;16"), "L"),
    "palette": (picture("PNG", mode="P"), "P"),
    "two colours": (picture("PNG", mode="1"), "1"),
    "grey": (picture("JPEG", mode="L"), "L"),
    "clear": (picture("WEBP", mode="RGBA"), None),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_pictures_become_what_engines_take(alice, case):
    data, mode = ODD[case]

    kept = opened(stored(alice, upload(alice, data)))

    assert mode is None or kept.mode in (mode, "RGB")
    assert kept.size == (40, 30)


def test_profile_becomes_srgb(alice):
    from files.colours import CODED_PRIMARIES, matrix_profile

    profile = matrix_profile(1 / 2.2, CODED_PRIMARIES[12])
    for kind in ("PNG", "JPEG", "WEBP"):
        shown = upload(alice, picture(kind, mode="RGB", icc_profile=profile))
        kept = opened(stored(alice, shown))

        assert "icc_profile" not in kept.info
        assert kept.convert("RGB").getpixel((5, 5))[0] > 250


def test_rewritten_jpeg_is_as_fine_as_it_was(alice):
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 3
    image = Image.effect_noise((320, 240), 50).convert("RGB")
    for quality in (40, 80, 97):
        output = io.BytesIO()
        image.save(output, "JPEG", quality=quality, exif=exif)
        shown = upload(alice, output.getvalue())

        assert 0.9 < shown["bytes"] / len(output.getvalue()) < 1.1


def test_noise_that_is_packed_tightly_is_no_bomb(monkeypatch):
    monkeypatch.setattr(uploaded, "MAX_WRITTEN_BYTES", 1000)
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 3
    output = io.BytesIO()
    noise((300, 200)).save(output, "PNG", exif=exif)

    with pytest.raises(uploaded.InvalidInput) as refused:
        uploaded.make(output.getvalue())

    assert refused.value.fields == {"file": ("picture_pixels", {})}


def test_clear_pixels_are_counted():
    half = Image.new("RGBA", (40, 600), (0, 0, 0, 255))
    half.paste((0, 0, 0, 0), (0, 0, 40, 300))
    palette = half.quantize(4)
    for image in (half, palette, half.convert("RGB")):
        output = io.BytesIO()
        image.save(output, "PNG")
        clear = 0 if image.mode == "RGB" else 40 * 300

        assert uploaded.make(output.getvalue()).clear_pixels == clear


# -- The sweep ----------------------------------------------------------------------------------


def test_unused_upload_goes_after_a_day(alice, settings):
    old, young = upload(alice, picture(size=(5, 5))), None
    age(uploads.KEEP_SECONDS)
    young = upload(alice)

    jobs.sweep()

    assert alice.get(f"/api/v1/uploads/{old['id']}").status_code == 410
    assert alice.get(f"/api/v1/uploads/{young['id']}").status_code == 200
    assert len(files_in(settings)) == 2
    assert quota.list_wrong_counters() == []


def test_what_is_left_of_a_deleted_upload_goes_after_a_month(alice):
    shown = upload(alice)
    alice.open("DELETE", f"/api/v1/uploads/{shown['id']}")
    age(uploads.TOMBSTONE_SECONDS)

    jobs.sweep()

    assert db.value("SELECT COUNT(*) FROM uploads") == 0
    assert alice.get(f"/api/v1/uploads/{shown['id']}").status_code == 404


def test_sweep_does_not_wait_for_a_store_that_is_away(alice, settings, monkeypatch):
    for side in range(3):
        upload(alice, picture(size=(5, 5 + side)))
    age(uploads.KEEP_SECONDS)
    tried = []

    def away(key):
        tried.append(key)
        raise storage.Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", away)
        jobs.sweep()

    assert len(tried) == 1 and len(files_in(settings)) == 6
    jobs.sweep()
    assert files_in(settings) == []


def test_upload_wanted_again_while_it_is_swept_stays(alice, settings):
    shown = upload(alice)
    age(uploads.KEEP_SECONDS)
    due = uploads.get(alice.id, shown["id"])
    upload(alice)

    assert not uploads._delete(due, f"{uploads.DUE} AND {uploads.UNUSED}")
    assert len(files_in(settings)) == 2


def test_clock_that_was_wrong_keeps_no_upload_for_ever(alice, settings):
    upload(alice)
    age(-10 * 365 * 86400)

    jobs.sweep()

    assert files_in(settings) == []


# -- Killed, and deleted ------------------------------------------------------------------------


class Killed(BaseException):
    pass


def kill(*arguments, **options):
    raise Killed


def test_upload_killed_at_any_step_leaves_no_file(alice, settings, monkeypatch):
    for place, name in ((storage, "put"), (quota, "add_bytes"), (cleanup, "keep")):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(place, name, kill)
            send(alice)
    db.execute("UPDATE pending_deletions SET due_at = 1")

    jobs.sweep()

    assert files_in(settings) == []
    assert db.value("SELECT COUNT(*) FROM pending_deletions") == 0
    assert db.value("SELECT COUNT(*) FROM uploads") == 0


def test_delete_killed_on_its_way_is_finished_by_a_sweep(alice, settings, monkeypatch):
    shown = upload(alice)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(storage, "delete", kill)
        alice.open("DELETE", f"/api/v1/uploads/{shown['id']}")

    jobs.sweep()

    assert files_in(settings) == []


def test_storage_that_is_away_takes_nothing(alice, settings, monkeypatch):
    def away(*arguments):
        raise storage.Unavailable

    monkeypatch.setattr(storage, "put", away)

    assert send(alice).status_code == 503
    assert db.value("SELECT COUNT(*) FROM uploads") == 0
    assert db.value("SELECT COUNT(*) FROM pending_deletions") == 0


def test_account_that_is_deleted_takes_its_uploads_along(alice, bob, settings):
    upload(alice)
    upload(bob)

    alice.open("DELETE", "/api/auth/account", json={"password": "secret1"})

    assert [name.partition("/")[0] for name in files_in(settings)] == [str(bob.id)] * 2
    assert db.value("SELECT COUNT(*) FROM uploads") == 1


def test_upload_of_an_account_that_is_deleted_meanwhile_leaves_nothing(
    alice, settings, monkeypatch
):
    put = storage.put

    def delete_account(*arguments):
        monkeypatch.setattr(storage, "put", put)
        put(*arguments)
        other = Person()
        body = {"password": "secret1"}
        other.open("DELETE", "/api/auth/account", json=body, headers=alice.headers)

    monkeypatch.setattr(storage, "put", delete_account)

    assert send(alice).status_code == 401
    assert files_in(settings) == []
    assert db.value("SELECT COUNT(*) FROM uploads") == 0


def test_many_uploads_and_deletes_leave_no_file(alice, settings):
    settings.UPLOADS_PER_ACCOUNT = 1000
    for number in range(50):
        shown = upload(alice, picture(size=(5 + number, 5)))
        alice.open("DELETE", f"/api/v1/uploads/{shown['id']}")

    assert files_in(settings) == []
    assert db.value("SELECT COUNT(*) FROM pending_deletions") == 0
    assert alice.get("/api/auth/profile").json["data"]["storageBytes"] == 0


# -- flask storage check ------------------------------------------------------------------------


def test_check_finds_lost_uploads_and_files_without_one(alice, settings):
    lost, kept = upload(alice, picture(size=(5, 5))), upload(alice)
    folder = settings.uploads_dir / "inputs" / str(alice.id)
    (folder / f"{lost['id']}.png").unlink()
    orphans = [folder / "orphan.png", settings.uploads_dir / "inputs" / "999" / "orphan.png"]
    for file in orphans:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (1, 1))
    for file in folder.iterdir():
        os.utime(file, (1, 1))

    found = list(storage_check.findings())

    assert sorted(finding.where for finding in found) == sorted(
        [
            f"upload {lost['id']} of user {alice.id}",
            *(str(file.relative_to(settings.uploads_dir)) for file in orphans),
        ]
    )
    assert all(finding.repair() for finding in found)
    assert list(storage_check.findings()) == []
    assert alice.get(f"/api/v1/uploads/{lost['id']}").status_code == 410
    assert stored(alice, kept)
