import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

import config
import db
from accounts import passwords, registration, users
from images import jobs
from tests.conftest import form, usernames
from tests.pictures import opened, photo_with_gps, picture


def register(client, **changes):
    return client.post("/api/auth/register", data=form("alice", **changes))


def avatar(data: bytes, name: str = "me.png"):
    return (io.BytesIO(data), name)


def test_register_answers_as_published(client):
    response = register(client)

    assert response.status_code == 200
    assert response.json == {
        "status": "success",
        "message": "注册成功",
        "data": {"avatarUrl": None},
    }


def test_register_with_an_avatar_stores_it(client):
    response = register(client, avatar=avatar(picture("JPEG"), "me.jpg"))

    url = response.json["data"]["avatarUrl"]
    assert url.startswith("/api/uploads/avatars/") and url.endswith(".jpg")
    assert opened(client.get(url).data).size == (40, 30)


def test_the_avatar_of_a_registration_that_was_killed_half_way_is_deleted(
    client, settings, monkeypatch
):
    monkeypatch.setattr(users, "create_user", lambda **_: sys.exit("killed"))
    with pytest.raises(SystemExit):
        register(client, avatar=avatar(picture("PNG")))
    stored = list((settings.uploads_dir / "avatars").iterdir())

    db.execute("UPDATE pending_deletions SET due_at = 1")
    jobs.sweep()

    assert len(stored) == 1 and not list((settings.uploads_dir / "avatars").iterdir())


def test_the_avatar_of_an_account_is_kept(client):
    url = register(client, avatar=avatar(picture("PNG"))).json["data"]["avatarUrl"]

    db.execute("UPDATE pending_deletions SET due_at = 1")
    jobs.sweep()

    assert client.get(url).status_code == 200


def test_a_registration_whose_avatar_was_deleted_meanwhile_is_to_be_repeated(client, monkeypatch):
    store = registration.store_avatar

    def store_and_sleep(picture):
        key = store(picture)
        db.execute("UPDATE pending_deletions SET due_at = 1")
        jobs.sweep()
        return key

    monkeypatch.setattr(registration, "store_avatar", store_and_sleep)

    assert register(client, avatar=avatar(picture("PNG"))).status_code == 503
    assert usernames() == []


def test_a_stored_avatar_is_upright_and_holds_no_metadata(client):
    response = register(client, avatar=avatar(photo_with_gps(), "me.jpg"))

    stored = client.get(response.json["data"]["avatarUrl"]).data
    assert opened(stored).size == (20, 40)
    assert b"SecretCamera" not in stored and not opened(stored).getexif()


@pytest.mark.parametrize(
    "name", ["../../evil.png", "a/b\\c.png", "x" * 300 + ".png", "evil.php", "头像.png"]
)
def test_the_file_name_of_an_avatar_does_not_matter(client, name):
    response = register(client, avatar=avatar(picture("PNG"), name))

    stored = response.json["data"]["avatarUrl"].removeprefix("/api/uploads/avatars/")
    assert len(stored) == len("0" * 32 + ".png") and stored.endswith(".png")


@pytest.mark.parametrize("body", [{"avatar": None}, {"avatar": ""}, {}])
def test_register_takes_json_without_an_avatar(client, body):
    response = client.post("/api/auth/register", json={**form("alice"), **body})

    assert response.status_code == 200
    assert response.json["data"] == {"avatarUrl": None}


def test_a_file_that_json_cannot_carry_is_not_lost_silently(client):
    response = client.post("/api/auth/register", json={**form("alice"), "avatar": {}})

    assert response.status_code == 400
    assert response.json["fields"] == {"avatar": "头像必须以 multipart/form-data 文件上传"}


@pytest.mark.parametrize("text", ["", "null", "undefined"])
def test_what_a_browser_makes_of_no_file_is_no_avatar(client, text):
    assert register(client, avatar=text).json["data"] == {"avatarUrl": None}


@pytest.mark.parametrize("name", ["", "blob", "me.png"])
def test_a_file_field_left_empty_in_a_browser_is_no_avatar(client, name):
    response = register(client, avatar=avatar(b"", name))

    assert response.json["data"] == {"avatarUrl": None}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("username", "al", "用户名至少 3 个字符"),
        ("username", "  al  ", "用户名至少 3 个字符"),
        ("username", "a" * 21, "用户名最多 20 个字符"),
        ("username", "a\0lice", "用户名包含不可见或控制字符"),
        ("username", "ali\u200bce", "用户名包含不可见或控制字符"),
        ("email", "alice", "邮箱格式不正确"),
        ("email", "a@b c.de", "邮箱格式不正确"),
        ("email", "a@" + "b" * 120 + ".de", "邮箱最多 120 个字符"),
        ("password", "12345", "密码至少 6 个字符"),
        ("password", "1" * 21, "密码最多 20 个字符"),
        ("avatar", "text", "头像必须以 multipart/form-data 文件上传"),
    ],
)
def test_a_wrong_field_is_named(client, field, value, message):
    response = register(client, **{field: value})

    assert response.status_code == 400
    assert response.json["code"] == "invalid_input"
    assert response.json["fields"] == {field: message}


def test_every_wrong_field_is_named_at_once(client):
    response = client.post(
        "/api/auth/register", data={"username": "al", "avatar": avatar(b"text", "a.png")}
    )

    assert set(response.json["fields"]) == {"username", "email", "password", "avatar"}


@pytest.mark.parametrize("value", [None, 5, True, [], {}, "\ud800lice"])
def test_json_of_the_wrong_type_is_refused(client, value):
    body = json.dumps({**form("alice"), "username": value})

    response = client.post("/api/auth/register", data=body, content_type="application/json")

    assert response.status_code == 400
    assert set(response.json["fields"]) == {"username"}


@pytest.mark.parametrize(
    "name", ["alice", "ALICE", " alice ", "ａｌｉｃｅ", "ALıCE".replace("ı", "i")]
)
def test_a_name_is_taken_in_any_case_and_unicode_form(client, name):
    register(client)

    response = client.post("/api/auth/register", data=form("other", username=name))

    assert response.status_code == 409
    assert (response.json["code"], response.json["message"]) == ("username_taken", "用户名已存在")


@pytest.mark.parametrize("email", ["alice@example.com", "ALICE@Example.com", " alice@example.com "])
def test_an_email_is_taken_in_any_case(client, email):
    register(client)

    response = client.post("/api/auth/register", data=form("bob", email=email))

    assert response.status_code == 409
    assert response.json["fields"] == {"email": "邮箱已存在"}


def test_a_refused_registration_leaves_no_file(client, settings):
    register(client)

    register(client, avatar=avatar(picture()))

    assert not list(settings.uploads_dir.glob("avatars/*"))


@pytest.mark.parametrize(
    "name", ["测试用户", "O'Brien", "a b c", "<b>x</b>", "renée", "😀😀😀", "'; DROP TABLE--"]
)
def test_unusual_names_are_kept_as_they_are(client, name):
    client.post("/api/auth/register", data=form("x", username=name))

    response = client.post("/api/auth/login", json={"username": name, "password": "secret1"})

    assert response.json["data"]["user"]["username"] == name


def test_too_many_registrations_from_one_address_are_refused(client, settings):
    settings.REGISTRATIONS_PER_ADDRESS = 2
    client.post("/api/auth/register", data=form("ann"))
    client.post("/api/auth/register", data=form("ben"))

    response = client.post("/api/auth/register", data=form("cleo"))

    assert (response.status_code, response.json["code"]) == (429, "too_many_registrations")
    assert 0 < int(response.headers["Retry-After"]) <= 3600


def test_too_many_avatars_from_one_address_are_refused_undecoded(client, settings, monkeypatch):
    settings.UPLOADS_PER_ADDRESS = 1
    first = register(client, username="ann", email="a@example.com", avatar=avatar(picture()))
    monkeypatch.setattr(registration.pictures, "make_avatar", None)

    refused = register(client, username="ben", email="b@example.com", avatar=avatar(picture()))

    assert first.status_code == 200 and '"upload";r=0' in first.headers["RateLimit"]
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_uploads")
    assert client.post("/api/auth/register", data=form("cleo")).status_code == 200


@pytest.mark.parametrize("field", ["username", "email"])
def test_nobody_finds_out_by_the_thousand_who_has_an_account(alice, settings, field):
    settings.TAKEN_NAMES_PER_ADDRESS = 2
    taken = {field: form("alice")[field]}

    def register(name, **options):
        return alice.http.post("/api/auth/register", data={**form(name), **taken}, **options)

    statuses = [register(f"user{number}").status_code for number in range(4)]

    assert statuses == [409, 409, 429, 429]
    response = register("user5", environ_base={"REMOTE_ADDR": "10.9.9.9"})
    assert response.status_code == 409


def test_twenty_registrations_of_one_name_at_once_make_one_account(live):
    service = live(WEB_WORKERS="2")

    with ThreadPoolExecutor(20) as threads:
        calls = [
            threads.submit(
                requests.post,
                f"{service.url}/api/auth/register",
                data=form("alice", email=f"{i}@x.de"),
            )
            for i in range(20)
        ]

    assert sorted(call.result().status_code for call in calls) == [200] + [409] * 19


def test_the_password_is_stored_as_a_hash_only(client):
    register(client)

    stored = db.all("SELECT password_hash FROM users")

    assert (
        stored[0]["password_hash"].startswith("pbkdf2:")
        and "secret1" not in stored[0]["password_hash"]
    )


# -- Passwords that an operator refuses ---------------------------------------------------------


@pytest.mark.parametrize("typed", ["e\u0301" * 10, "密" * 20, "🦊" * 6, "ﷺ" * 20])
def test_the_length_of_a_password_is_that_of_what_was_typed(client, typed):
    assert register(client, password=typed).status_code == 200
    assert (
        client.post("/api/auth/login", json={"username": "alice", "password": typed}).status_code
        == 200
    )


def test_an_operator_may_allow_longer_passwords(client, settings):
    settings.PASSWORD_MAX_LENGTH = 64

    longer = register(client, password="x" * 65)
    long = register(client, password="x" * 64)

    assert longer.json["fields"] == {"password": "密码最多 64 个字符"}
    assert long.status_code == 200


@pytest.mark.parametrize("password", ["123456", "PASSWORD", "ｑｗｅｒｔｙ", "iloveyou"])
def test_a_common_password_is_refused_where_the_list_is_on(client, settings, password):
    settings.PASSWORD_BLOCKLIST = str(config.COMMON_PASSWORDS)

    response = register(client, password=password)

    assert response.json["fields"] == {"password": "密码过于常见"}
    assert register(client, password="correct horse").status_code == 200


def test_a_common_password_is_taken_by_default(client):
    assert register(client, password="123456").status_code == 200


def test_the_list_of_common_passwords_has_ten_thousand():
    assert len(passwords.common_passwords(str(config.COMMON_PASSWORDS))) > 9900
