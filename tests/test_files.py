import errno
import io
import re
import tempfile
import time
from types import SimpleNamespace

import pytest
from werkzeug.http import parse_options_header

import db
from files import cleanup, disk, storage
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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Range": "bytes=0-"}, 206),
        ({"Range": "bytes=-5"}, 206),
        ({"Range": "bytes=0-99999999999999999999"}, 206),
        ({"Range": "bytes=-99999999"}, 200),
        ({"Range": "bytes=-0"}, 200),
        ({"Range": "bytes=0-1,3-4"}, 200),
        ({"Range": "bytes=" + "0-1," * 2000 + "0-1"}, 200),
        ({"Range": "bytes=5-2"}, 200),
        ({"Range": "bytes=a-b"}, 200),
        ({"Range": "bytes="}, 200),
        ({"Range": "bytes=0-" + "9" * 5000}, 200),
        ({"Range": "items=0-5"}, 200),
        ({"Range": "é"}, 200),
        ({"Range": "bytes=0-1", "If-Range": '"another"'}, 200),
        ({"Range": "bytes=0-1", "If-Range": "nonsense"}, 200),
        (
            {"Range": "bytes=0-1", "If-Range": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"},
            200,
        ),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": 'W/"another"'}, 200),
        ({"If-None-Match": '"é'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"another"'}, 412),
        ({"If-Modified-Since": "Fri, 31 Dec 9999 23:59:59 GMT"}, 304),
        ({"If-Modified-Since": "Thu, 99 Foo 9999 99:99:99 GMT"}, 200),
        ({"If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"}, 200),
        ({"If-Modified-Since": "Mon, 01 Jan 0001 00:00:00 +2359"}, 200),
        ({"If-Modified-Since": "-1"}, 200),
    ],
)
@pytest.mark.parametrize("query", ["", "?metadata=strip"])
def test_conditions_are_those_of_rfc_9110(alice, image, query, headers, status):
    # A picture made anew without its metadata has a tag, but no date of its own.
    is_by_date = "If-Modified-Since" in headers and status == 304
    expected = 200 if query and is_by_date else status

    response = alice.get(image + query, headers=headers)

    assert response.status_code == expected
    assert response.status_code < 400 or response.json["status"] == "error"


def test_weak_tags_are_compared_as_such(alice, image):
    tag = alice.get(image).headers["ETag"]

    answers = [
        alice.get(image, headers={name: text})
        for name, text in [
            ("If-None-Match", f"W/{tag}"),
            ("If-None-Match", f'"x", {tag}'),
            ("If-Match", tag),
        ]
    ]

    assert [answer.status_code for answer in answers] == [304, 304, 200]


@pytest.mark.parametrize(
    ("tag", "status"), [("*", 304), ("W/{}", 304), ('"x", {}', 304), ('"x"', 200), ('"', 200)]
)
@pytest.mark.parametrize("path", ["/api/v1/images/{}", "/api/v1/images?ids={}"])
def test_records_are_compared_by_their_tag_alone(alice, path, tag, status):
    path = path.format(alice.generate().json["data"]["id"])
    tag = tag.format(alice.get(path).headers["ETag"])
    odd = "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"

    response = alice.get(path, headers={"If-None-Match": tag, "If-Modified-Since": odd})

    assert response.status_code == status
    assert bool(response.data) == (status == 200)


@pytest.mark.parametrize("path", ["/api/docs", "/api/docs/docs.js"])
def test_odd_conditions_do_no_harm_to_the_docs_page(client, path):
    odd = "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"
    statuses = [
        client.get(path, headers=headers).status_code
        for headers in ({"If-Modified-Since": odd}, {"Range": "x"}, {"If-Match": '"x"'})
    ]

    assert statuses == [200, 200, 412]


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
    monkeypatch.setattr(disk.os, "replace", lambda *paths: 1 / 0)

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


# -- Files that cannot be deleted -----------------------------------------------------------------


def refuse(monkeypatch, name: str, number: int) -> None:
    """Let the system refuse to delete one file."""
    unlink = disk.Path.unlink

    def unlink_others(path, missing_ok=False):
        if path.name == name:
            raise OSError(number, "refused", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(disk.Path, "unlink", unlink_others)


def listed() -> list[str]:
    return [row["file_key"] for row in db.all("SELECT file_key FROM pending_deletions")]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EROFS, errno.EBUSY, errno.EIO])
def test_a_file_that_cannot_be_deleted_stops_no_other(database, monkeypatch, number):
    keys = [f"avatars/{name}.png" for name in "abc"]
    for key in keys:
        storage.put(key, b"x")
    cleanup.schedule_deletion(keys, after_seconds=0)
    refuse(monkeypatch, "b.png", number)

    cleanup.delete_expired()

    assert [bool(storage.find(key)) for key in keys] == [False, True, False]
    assert listed() == ["avatars/b.png"]
    monkeypatch.undo()
    db.execute("UPDATE pending_deletions SET due_at = 1")
    cleanup.delete_expired()
    assert (storage.find("avatars/b.png"), listed()) == (None, [])


def test_many_files_that_cannot_be_deleted_stop_no_other(database, monkeypatch):
    stuck = [f"avatars/{number:03}/x.png" for number in range(250)]
    cleanup.schedule_deletion(stuck, after_seconds=-10)
    storage.put("avatars/z.png", b"x")
    cleanup.schedule_deletion(["avatars/z.png"], after_seconds=0)
    refuse(monkeypatch, "x.png", errno.EPERM)

    for _ in range(2):
        cleanup.delete_expired()

    assert storage.find("avatars/z.png") is None


@pytest.mark.parametrize(
    "key",
    ["avatars/folder.png", "avatars/a.png/b.png", "avatars/" + "é" * 150, "avatars/a\0b", "x/"],
)
def test_what_is_no_file_is_taken_off_the_list(database, settings, key):
    (settings.uploads_dir / "avatars" / "folder.png").mkdir(parents=True)
    storage.put("avatars/a.png", b"x")
    cleanup.schedule_deletion([key], after_seconds=0)

    cleanup.delete_expired()

    assert listed() == []


def test_a_folder_with_something_that_cannot_be_deleted_is_tried_again(database, monkeypatch):
    storage.put("generated_images/7/a.png", b"x")
    cleanup.schedule_deletion(["generated_images/7/"], after_seconds=0)
    monkeypatch.setattr(disk.shutil, "rmtree", lambda path, ignore_errors: None)

    cleanup.delete_expired()

    assert listed() == ["generated_images/7/"]


def test_a_deleted_image_is_gone_though_its_file_stays(alice, image, monkeypatch):
    refuse(monkeypatch, image.rpartition("/")[2], errno.EPERM)
    number = alice.history()["records"][0]["id"]

    response = alice.open("DELETE", f"/api/v1/images/{number}")

    assert (response.status_code, response.json["data"]) == (200, {"deleted": [number]})
    assert alice.get(f"/api/v1/images/{number}").status_code == 410
    assert len(listed()) == 1


def test_a_file_that_seems_to_be_due_in_a_year_is_deleted(database):
    storage.put("avatars/a.png", b"x")
    cleanup.schedule_deletion(["avatars/a.png"], after_seconds=365 * 86400)

    cleanup.delete_expired()

    assert (storage.find("avatars/a.png"), listed()) == (None, [])


# -- A disk that takes nothing --------------------------------------------------------------------

REFUSALS = [
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO,
]  # fmt: skip


@pytest.fixture(params=REFUSALS, ids=errno.errorcode.get)
def full_disk(request, settings, monkeypatch):
    """Let every file under uploads/ be refused when it is written; return how to end that."""

    def refuse_all(*arguments, **options):
        raise OSError(request.param, "refused")

    monkeypatch.setattr(disk, "open", refuse_all, raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse_all)
    return monkeypatch.undo


def assert_unavailable(response) -> None:
    assert (response.status_code, response.json["code"]) == (503, "storage_unavailable")
    assert int(response.headers["Retry-After"]) > 0


def files_in(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_avatar_that_cannot_be_stored_leaves_nothing(client, full_disk, settings):
    settings.REGISTRATIONS_PER_ADDRESS = 1

    def register():
        data = form("carol", avatar=(io.BytesIO(picture("PNG")), "a.png"))
        return client.post("/api/auth/register", data=data)

    assert_unavailable(register())
    assert_unavailable(register())
    assert db.value("SELECT COUNT(*) FROM users") == 0
    assert files_in(settings.uploads_dir) == []
    full_disk()
    assert register().status_code == 200


def test_a_test_image_that_cannot_be_stored_leaves_nothing(alice, full_disk, settings):
    assert_unavailable(alice.generate())

    assert alice.history()["records"] == []
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 0
    assert files_in(settings.uploads_dir) == []
    full_disk()
    assert alice.generate().status_code == 200


def test_a_disk_that_fills_while_a_test_image_is_drawn_leaves_nothing(
    alice, full_disk, monkeypatch
):
    monkeypatch.setattr(storage, "check", lambda: None)

    assert_unavailable(alice.generate())

    assert alice.history()["records"] == []
    state = alice.get("/api/v1/images/quota").json["data"]
    assert (state["used"], state["active"]) == (0, 0)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOTCONN])
def test_a_file_that_cannot_be_looked_at_for_a_while_is_not_gone(alice, monkeypatch, number):
    image = alice.generate().json["data"]["imageUrl"]

    def refuse(path):
        raise OSError(number, "refused")

    monkeypatch.setattr(disk, "os", SimpleNamespace(stat=refuse))
    response = alice.get(image)
    monkeypatch.undo()

    assert_unavailable(response)
    assert alice.get(image).status_code == 200


def test_readiness_names_a_storage_that_takes_nothing(client, full_disk):
    response = client.get("/api/health/ready")

    assert response.status_code == 503
    assert "storage" in response.json["fields"]


def test_a_check_of_the_storage_has_no_name_that_a_kill_could_leave(settings, monkeypatch):
    seen = []
    written = disk.tempfile.TemporaryFile

    def watch(**options):
        file = written(**options)
        seen.extend(settings.uploads_dir.rglob("*"))
        return file

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", watch)
    storage.check()

    assert seen == []


def test_a_stored_file_that_cannot_be_opened_now_is_503(alice, image, monkeypatch):
    def refuse_all(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("web.files.send_file", refuse_all)

    assert_unavailable(alice.get(image))


# -- Downloads, and what a link shows -------------------------------------------------------------


def name_of(response) -> str:
    """Return the name that an attachment suggests, after a look at its plain form."""
    kind, options = parse_options_header(response.headers["Content-Disposition"])
    assert kind == "attachment"
    plain = re.search('filename="([^"]*)"', response.headers["Content-Disposition"]).group(1)
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", plain)
    return options["filename"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a fox in the snow", "a-fox-in-the-snow"),
        ("雪中的狐狸，油画", "雪中的狐狸-油画"),
        ("../../etc/passwd", "etc-passwd"),
        ('x"; filename="y.exe', "x-filename-y-exe"),
        ("a\r\nSet-Cookie: b=c", "a"),
        ("नमस्ते", "नमस्ते"),
        ("🦊🦊", "image"),
        ("CON", "CON"),
        ("x" * 2000, "x" * 40),
    ],
)
def test_a_download_has_a_name_for_people(alice, client, prompt, name):
    alice.generate(prompt)
    record = alice.history()["records"][0]
    mark = record["imageUrl"].rpartition("/")[2][:8]

    answers = [alice.get(record["imageUrl"] + "?download=1")]
    answers.append(client.get(record["signedImageUrl"] + "&download=1"))

    assert [name_of(answer) for answer in answers] == [f"{name}-{mark}.png"] * 2
    assert answers[0].data == alice.get(record["imageUrl"]).data


def test_a_download_without_metadata_does_not_name_the_prompt(alice, client):
    alice.generate("a secret fox")
    record = alice.history()["records"][0]

    for link in ("signedStrippedUrl", "signedThumbnailUrl"):
        assert "fox" not in name_of(client.get(record[link] + "&download=1"))


def test_a_download_behind_nginx_has_a_name_too(alice, image, settings):
    settings.X_ACCEL_PREFIX = "/protected-uploads/"

    assert name_of(alice.get(image + "?download=1")).startswith("a-fox-")


def test_an_avatar_can_be_downloaded(client):
    storage.put("avatars/0123456789.png", picture("PNG"))

    assert name_of(client.get("/api/uploads/avatars/0123456789.png?download=1")).startswith(
        "image-"
    )
    assert client.get("/api/uploads/avatars/0123456789.png?download=x").status_code == 400


def test_a_link_without_metadata_cannot_be_made_to_show_it(alice, client):
    alice.generate("a secret fox")
    record = alice.history()["records"][0]
    stripped = record["signedStrippedUrl"]
    path, _, query = stripped.partition("?")
    first, *others = query.split("&")

    assert b"secret fox" not in client.get(stripped).data
    tries = [
        "&".join(others),
        "&".join([*others, first.replace("strip", "keep")]),
        "&".join([*others, first, "metadata="]),
        "&".join(["metadata=", *others, first]),
        "&".join([first, *others, others[-1]]),
        "&".join([*others, "Metadata=strip"]),
    ]
    for changed in tries:
        assert client.get(f"{path}?{changed}").status_code in (400, 403)
    reordered = client.get(f"{path}?{'&'.join([*others, first])}")
    assert reordered.status_code == 200 and b"secret fox" not in reordered.data


@pytest.mark.parametrize("name", ["signedImageUrl", "signedThumbnailUrl", "signedStrippedUrl"])
def test_a_picture_is_cached_no_longer_than_its_link_is_good(alice, client, name):
    alice.generate()
    link = alice.history()["records"][0][name]
    end = int(re.search(r"expires=(\d+)", link).group(1))

    before = time.time()
    control = client.get(link).headers["Cache-Control"]

    seconds = int(re.search(r"max-age=(\d+)", control).group(1))
    assert control.startswith("private") and 0 < seconds <= end - before + 1
