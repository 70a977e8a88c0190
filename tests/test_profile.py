"""One's own account: seen, and changed."""

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

import db
import heavy
from accounts import profile, registration, users
from files import pictures, storage
from images import jobs
from tests.conftest import Person, form
from tests.pictures import opened, picture


def change(person: Person, **fields):
    return person.open("PATCH", "/api/auth/profile", data={"password": "secret1", **fields})


def change_json(person: Person, **fields):
    return person.open("PATCH", "/api/auth/profile", json=fields)


def avatar(kind: str = "PNG"):
    return (io.BytesIO(picture(kind)), "me")


def seen(person: Person) -> dict:
    return person.get("/api/auth/profile").json["data"]


def avatars(settings) -> list[str]:
    folder = settings.uploads_dir / "avatars"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_profile_says_role_and_number_of_images(alice):
    alice.generate()

    assert seen(alice)["role"] == "user"
    assert seen(alice)["imageCount"] == 1


ODD = 'q"b\\\\/ \x01\x1f\x7f\t\r\n 狐 🦊 \u2028\ue000'


def test_an_old_account_may_hold_any_characters(alice):
    db.execute("UPDATE users SET username = %s, email = %s, avatar_url = %s", ODD, ODD, ODD)

    profile = seen(alice)

    assert (profile["username"], profile["email"]) == (ODD, ODD)
    assert profile["avatarUrl"] == ODD
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", profile["created_at"])


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", ["x'00ff'", "CAST(x'eda080' AS TEXT)", "9e999", "1.5", "''"])
def test_an_account_in_sqlite_may_hold_anything(alice, value):
    db.execute(
        f"UPDATE users SET username = {value}, email = {value}, avatar_url = {value},"
        f" created_at = {value}"
    )

    profile = seen(alice)

    assert isinstance(profile["username"], str) and profile["created_at"] is None


def test_an_email_is_changed_with_the_password(alice):
    response = change_json(alice, email=" new@example.com ", password="secret1")

    assert (response.status_code, response.json["message"]) == (200, "资料已更新")
    assert response.json["data"]["email"] == "new@example.com"
    assert response.json["data"] == seen(alice)
    # The old one is free.
    assert register(email="alice@example.com").status_code == 200


def register(name: str = "carol", **changes):
    return Person().http.post("/api/auth/register", data=form(name, **changes))


def test_a_form_changes_email_and_avatar_at_once(alice, settings):
    response = change(alice, email="new@example.com", avatar=avatar("JPEG"))

    data = response.json["data"]
    assert data["email"] == "new@example.com"
    assert opened(alice.get(data["avatarUrl"]).data).size == (40, 30)


def test_the_old_avatar_goes(alice, settings):
    first = change(alice, avatar=avatar()).json["data"]["avatarUrl"]

    second = change(alice, avatar=avatar()).json["data"]["avatarUrl"]

    assert alice.get(first).status_code == 404
    assert avatars(settings) == [storage.key_of(second).removeprefix("avatars/")]
    assert db.all("SELECT file_key FROM pending_deletions") == []


@pytest.mark.parametrize(
    "remove",
    [
        {"json": {"avatar": None}},
        {"json": {"avatar": ""}},
        {"data": {"avatar": ""}},
        {"data": {"avatar": "null"}},
    ],
)
def test_an_avatar_is_removed(alice, settings, remove):
    change(alice, avatar=avatar())

    response = alice.open("PATCH", "/api/auth/profile", **remove)

    assert response.json["data"]["avatarUrl"] is None
    assert avatars(settings) == []


@pytest.mark.parametrize(
    "leave",
    [
        {},
        {"json": {}},
        {"json": {"email": None}},
        {"data": {"email": "alice@example.com"}},
    ],
)
def test_what_is_not_named_stays(alice, leave):
    before = change(alice, avatar=avatar()).json["data"]

    response = alice.open("PATCH", "/api/auth/profile", **leave)

    assert response.status_code == 200
    assert seen(alice) == before


def test_a_file_input_that_nobody_touched_changes_nothing(alice):
    before = change(alice, avatar=avatar()).json["data"]

    response = change(alice, avatar=(io.BytesIO(b""), ""))

    assert response.json["data"] == before


# -- Refusals -----------------------------------------------------------------------------------


def test_an_email_needs_the_password(alice):
    response = change_json(alice, email="new@example.com")

    assert (response.status_code, list(response.json["fields"])) == (400, ["password"])


def test_a_wrong_password_is_refused(alice):
    response = change_json(alice, email="new@example.com", password="wrong1")

    assert (response.status_code, response.json["code"]) == (403, "wrong_password")
    assert response.json["fields"] == {"password": "密码错误"}
    assert seen(alice)["email"] == "alice@example.com"


def test_a_stolen_token_cannot_guess_the_password(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 2

    codes = [
        change_json(alice, email="new@example.com", password=guess).json["code"]
        for guess in ("wrong1", "wrong2", "secret1")
    ]

    assert codes == ["wrong_password", "wrong_password", "too_many_attempts"]
    log_in = alice.post("/api/auth/login", json={"username": "alice", "password": "wrong1"})
    assert log_in.json["code"] == "too_many_attempts"


@pytest.mark.parametrize("email", ["bob@example.com", "BOB@Example.com", "ｂob@example.com"])
def test_a_taken_email_is_refused(alice, bob, email):
    response = change_json(alice, email=email, password="secret1")

    assert (response.status_code, response.json["code"]) == (409, "email_taken")
    assert list(response.json["fields"]) == ["email"]


def test_the_own_email_may_be_spelled_anew(alice):
    response = change_json(alice, email="Alice@Example.com", password="secret1")

    assert response.json["data"]["email"] == "Alice@Example.com"


def test_emails_cannot_be_tried_without_end(alice, bob, settings):
    settings.TAKEN_NAMES_PER_ADDRESS = 1
    change_json(alice, email="bob@example.com", password="secret1")

    response = change_json(alice, email="free@example.com", password="secret1")

    assert (response.status_code, response.json["code"]) == (429, "too_many_registrations")


def test_an_email_that_is_taken_meanwhile_is_refused(alice, bob, monkeypatch):
    monkeypatch.setattr(users, "get_id_of_email", lambda key: None)

    response = change_json(alice, email="bob@example.com", password="secret1")

    assert (response.status_code, response.json["code"]) == (409, "email_taken")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": "nonsense"}, "email"),
        ({"email": 1}, "email"),
        ({"email": "a@" + "b" * 200}, "email"),
        ({"email": "new@example.com", "password": 1}, "password"),
        ({"email": "new@example.com", "password": "x" * 1001}, "password"),
        ({"avatar": "data:image/png;base64,AAAA"}, "avatar"),
        ({"avatar": {}}, "avatar"),
        ({"avatar": False}, "avatar"),
        ({"username": "carol"}, "username"),
        ({"role": "admin"}, "role"),
    ],
)
def test_a_bad_change_names_the_field(alice, body, field):
    response = change_json(alice, **body)

    assert (response.status_code, list(response.json["fields"])) == (400, [field])


@pytest.mark.parametrize("data", [b"no picture", picture("PNG")[:60]])
def test_a_file_that_is_no_picture_changes_nothing(alice, settings, data):
    response = change(alice, email="new@example.com", avatar=(io.BytesIO(data), "me.png"))

    assert (response.status_code, list(response.json["fields"])) == (400, ["avatar"])
    assert seen(alice)["email"] == "alice@example.com"
    assert avatars(settings) == []


def test_no_picture_is_decoded_for_a_wrong_password(alice, monkeypatch):
    monkeypatch.setattr(pictures, "make_avatar", lambda data: pytest.fail("it is decoded"))

    response = change(alice, email="new@example.com", password="wrong1", avatar=avatar())

    assert response.status_code == 403


def test_a_form_may_be_as_large_as_at_registration(alice):
    files = {"avatar": (io.BytesIO(b"x" * 7_000_000), "me.png")}

    too_large_avatar = change(alice, **files)
    too_large_body = change(alice, avatar=(io.BytesIO(b"x" * 9_000_000), "me.png"))
    too_large_json = change_json(alice, email="x" * 70_000)

    assert list(too_large_avatar.json["fields"]) == ["avatar"]
    assert (too_large_body.status_code, too_large_json.status_code) == (413, 413)


def test_avatars_are_limited(alice, settings):
    settings.UPLOADS_PER_ACCOUNT = 1
    change(alice, avatar=avatar())

    response = change(alice, avatar=avatar())

    assert (response.status_code, response.json["code"]) == (429, "too_many_uploads")
    assert change(alice, email="new@example.com").status_code == 200


def test_a_busy_server_stores_nothing(alice, settings, monkeypatch):
    monkeypatch.setattr(heavy.pictures, "count", 1000)

    assert change(alice, avatar=avatar()).status_code == 503
    assert avatars(settings) == []


def test_a_full_disk_keeps_the_old_avatar(alice, settings, monkeypatch):
    before = change(alice, avatar=avatar()).json["data"]["avatarUrl"]

    def refuse(key, data):
        raise storage.Unavailable

    monkeypatch.setattr(storage, "put", refuse)
    response = change(alice, email="new@example.com", avatar=avatar())

    assert (response.status_code, response.json["code"]) == (503, "storage_unavailable")
    assert alice.get(before).status_code == 200
    assert seen(alice)["email"] == "alice@example.com"


# -- Crashes and races --------------------------------------------------------------------------


def test_a_change_that_was_killed_half_way_leaves_the_old_avatar(alice, settings, monkeypatch):
    before = change(alice, avatar=avatar()).json["data"]["avatarUrl"]
    monkeypatch.setattr(profile, "write", lambda *_, **__: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        change(alice, avatar=avatar())

    db.execute("UPDATE pending_deletions SET due_at = 1")
    jobs.sweep()

    assert avatars(settings) == [storage.key_of(before).removeprefix("avatars/")]
    assert alice.get(before).status_code == 200


def test_an_avatar_that_was_deleted_meanwhile_is_to_be_sent_again(alice, monkeypatch):
    before = change(alice, avatar=avatar()).json["data"]["avatarUrl"]
    store = registration.store_avatar

    def store_and_sleep(picture):
        key = store(picture)
        db.execute("UPDATE pending_deletions SET due_at = 1")
        jobs.sweep()
        return key

    monkeypatch.setattr(registration, "store_avatar", store_and_sleep)

    assert change(alice, avatar=avatar()).status_code == 503
    assert alice.get(before).status_code == 200


def test_a_session_that_ends_meanwhile_changes_nothing(alice, settings, monkeypatch):
    make = pictures.make_avatar

    def make_and_end(data):
        users.set_password(alice.id, "x")
        return make(data)

    monkeypatch.setattr(pictures, "make_avatar", make_and_end)
    response = change(alice, email="new@example.com", avatar=avatar())

    assert (response.status_code, response.json["code"]) == (401, "token_invalid")
    assert users.get_user(alice.id)["email"] == "alice@example.com"
    assert avatars(settings) == []


def test_one_of_many_gets_an_email(live):
    url = live(WEB_WORKERS="2", REGISTRATIONS_PER_ADDRESS="100").url
    headers = [token(url, f"user{number}") for number in range(6)]
    body = {"email": "wanted@example.com", "password": "secret1"}

    with ThreadPoolExecutor(6) as threads:
        calls = [
            threads.submit(requests.patch, f"{url}/api/auth/profile", json=body, headers=header)
            for header in headers
        ]

    assert sorted(call.result().status_code for call in calls) == [200] + [409] * 5


def test_avatars_sent_at_once_leave_one_file(live, settings):
    url = live(WEB_WORKERS="2").url
    header = token(url, "alice")
    data = picture("PNG")

    with ThreadPoolExecutor(6) as threads:
        calls = [
            threads.submit(
                requests.patch,
                f"{url}/api/auth/profile",
                files={"avatar": ("me.png", data)},
                headers=header,
            )
            for _ in range(6)
        ]

    assert [call.result().status_code for call in calls] == [200] * 6
    last = requests.get(f"{url}/api/auth/profile", headers=header).json()["data"]["avatarUrl"]
    assert avatars(settings) == [storage.key_of(last).removeprefix("avatars/")]


def token(url: str, name: str) -> dict[str, str]:
    requests.post(f"{url}/api/auth/register", data=form(name))
    answer = requests.post(
        f"{url}/api/auth/login", json={"username": name, "password": "secret1"}
    ).json()
    return {"Authorization": f"Bearer {answer['data']['token']}"}
