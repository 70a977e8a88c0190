import pytest

from files import storage
from tests.conftest import form
from tests.pictures import picture


@pytest.fixture
def image(alice):
    return alice.generate().json["data"]["imageUrl"]


def test_the_owner_gets_the_image(alice, image):
    response = alice.get(image)

    assert (response.status_code, response.mimetype) == (200, "image/png")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"].startswith("private")


def test_nobody_else_gets_the_image(bob, client, image):
    assert bob.get(image).status_code == 403
    assert client.get(image).status_code == 401


def test_a_stranger_cannot_tell_which_files_exist(bob, alice):
    response = bob.get(f"/api/uploads/generated_images/{alice.id}/{'0' * 32}.png")

    assert response.status_code == 403


@pytest.mark.parametrize("user", ["0", "-1", "abc", "1'--", "0x1", "１", "%2e%2e"])
def test_a_folder_that_is_nobodys_is_forbidden(alice, user):
    assert alice.get(f"/api/uploads/generated_images/{user}/x.png").status_code == 403


def test_an_owners_missing_file_is_not_found(alice):
    assert alice.get(f"/api/uploads/generated_images/{alice.id}/none.png").status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fconfig.py",
        "%2e%2e%2finstance%2fapp.db",
        "..%5c..%5capp.py",
        "%00",
        "x%00.png",
        "%2fetc%2fpasswd",
        "a" * 5000,
        ".",
    ],
)
@pytest.mark.parametrize("folder", ["avatars", "generated_images/1"])
def test_a_path_never_leads_out_of_its_folder(alice, settings, name, folder):
    (settings.uploads_dir / "generated_images" / "1").mkdir(parents=True, exist_ok=True)

    response = alice.get(f"/api/uploads/{folder}/{name}")

    assert response.status_code in (403, 404)
    assert response.json["status"] == "error"


def test_a_half_written_file_is_never_served(client, settings):
    (settings.uploads_dir / "avatars").mkdir(parents=True)
    (settings.uploads_dir / "avatars" / ".x.png.1234").write_bytes(b"half")

    assert client.get("/api/uploads/avatars/.x.png.1234").status_code == 404


@pytest.mark.parametrize(
    ("name", "served_as"), [("old.jpg", "image/jpeg"), ("a.svg", None), ("a.html", None)]
)
def test_only_pictures_are_shown_and_the_rest_is_a_download(client, settings, name, served_as):
    storage.put(f"avatars/{name}", b"<script>alert(1)</script>")

    response = client.get(f"/api/uploads/avatars/{name}")

    assert response.mimetype == served_as or response.headers["Content-Disposition"].startswith(
        "attachment"
    )
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_a_download_can_be_resumed_and_cached(alice, image):
    whole = alice.get(image)

    part = alice.get(image, headers={"Range": "bytes=10-19"})
    again = alice.get(image, headers={"If-None-Match": whole.headers["ETag"]})

    assert (part.status_code, part.data) == (206, whole.data[10:20])
    assert (again.status_code, again.data) == (304, b"")


def test_an_impossible_range_is_refused_in_the_usual_shape(alice, image):
    response = alice.get(image, headers={"Range": "bytes=99999999-"})

    assert (response.status_code, response.json["code"]) == (416, "range_not_satisfiable")


def test_behind_nginx_the_bytes_are_left_to_it(alice, image, settings):
    settings.X_ACCEL_PREFIX = "/protected-uploads/"

    response = alice.get(image)

    assert response.data == b""
    assert response.headers["X-Accel-Redirect"] == image.replace(
        "/api/uploads/", "/protected-uploads/"
    )
    assert response.mimetype == "image/png"


def test_avatars_are_public(client):
    import io

    data = form("carol", avatar=(io.BytesIO(picture("WEBP")), "a.webp"))
    url = client.post("/api/auth/register", data=data).json["data"]["avatarUrl"]

    response = client.get(url)

    assert (response.status_code, response.mimetype) == (200, "image/webp")
    assert response.headers["Cache-Control"].startswith("public")


def test_a_write_that_fails_leaves_nothing(settings, monkeypatch):
    monkeypatch.setattr(storage.os, "replace", lambda *paths: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        storage.put("avatars/a.png", b"x")

    assert list((settings.uploads_dir / "avatars").iterdir()) == []


@pytest.mark.parametrize(
    "url", [None, "", "/etc/passwd", "/api/uploads/../../x", "/api/uploads/avatars/none.png"]
)
def test_deleting_what_is_not_there_does_nothing(settings, url):
    assert storage.delete(url) is None


@pytest.mark.parametrize(
    "key", ["", "/", "..", "../", "a/../..", "generated_images/../../", "generated_images/.."]
)
def test_a_folder_outside_or_all_of_uploads_is_never_deleted(settings, key):
    storage.put("generated_images/1/x.png", b"x")

    storage.delete_folder(key)

    assert storage.find("generated_images/1/x.png")
