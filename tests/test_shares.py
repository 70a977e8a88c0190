"""Links by which an owner shows one image to anybody, until they end."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import config
import db
from accounts import tokens, users
from accounts.tokens import BadToken, Session
from errors import ApiError
from files import metadata, storage
from images import shares
from tests.conftest import Person
from tests.pictures import picture
from tests.test_openapi import check_documented

SHARES = "/api/v1/shares"


@pytest.fixture
def image(alice) -> int:
    return alice.generate("a secret fox").json["data"]["id"]


def share(person: Person, image: int, **body):
    return person.post(f"/api/v1/images/{image}/share", json=body)


@pytest.fixture
def link(alice, image) -> str:
    return share(alice, image).json["data"]["url"]


def test_a_share_shows_the_picture_to_anybody_and_nothing_else(client, alice, link):
    response = client.get(link)

    assert (response.status_code, response.mimetype) == (200, "image/png")
    assert response.headers["X-Robots-Tag"] == "noindex"
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert "Set-Cookie" not in response.headers and "Last-Modified" not in response.headers
    original = alice.history()["records"][0]["imageUrl"]
    told = str(response.headers) + response.data.decode("latin-1")
    for secret in ("secret", "fox", "alice", original.rpartition("/")[2], "generated_images"):
        assert secret not in told
    assert response.data == alice.get(original + "?metadata=strip").data


def test_a_share_is_shown_once_and_listed_without_its_token(alice, image):
    made = share(alice, image, days=30)

    assert (made.status_code, made.json["message"]) == (201, "分享成功")
    data = made.json["data"]
    assert re.fullmatch(r"/api/s/[\w-]{32}", data.pop("url"))
    assert data["imageId"] == image
    assert alice.get(SHARES).json["data"]["shares"] == [data]
    token_hash = db.value("SELECT token_hash FROM shares")
    assert re.fullmatch("[0-9a-f]{64}", token_hash)


def test_shares_are_listed_the_newest_first(alice, image):
    numbers = [share(alice, image).json["data"]["id"] for _ in range(3)]

    listed = [each["id"] for each in alice.get(SHARES).json["data"]["shares"]]

    assert listed == numbers[::-1]


def test_a_share_ends_at_its_time(client, alice, image):
    made = share(alice, image, days=1).json["data"]
    db.execute("UPDATE shares SET expires_at = UNIX_TIMESTAMP()")

    assert client.get(made["url"]).status_code == 404
    assert alice.get(SHARES).json["data"]["shares"] == []
    shares.delete_expired()
    assert db.value("SELECT COUNT(*) FROM shares") == 0


def test_only_the_owner_ends_a_share(client, alice, bob, image):
    made = share(alice, image).json["data"]
    path = f"{SHARES}/{made['id']}"

    assert bob.open("DELETE", path).status_code == 404
    assert client.open("DELETE", path).status_code == 401
    assert client.get(made["url"]).status_code == 200
    assert alice.open("DELETE", path).status_code == 200
    assert client.get(made["url"]).status_code == 404
    assert alice.open("DELETE", path).status_code == 404


def test_nobody_shares_or_lists_what_is_anothers(client, alice, bob, image):
    share(alice, image)

    assert share(bob, image).status_code == 404
    assert share(client, image).status_code == 401
    assert bob.get(SHARES).json["data"]["shares"] == []


def end_by_deleting(alice, image):
    assert alice.open("DELETE", f"/api/v1/images/{image}").status_code == 200
    assert db.value("SELECT COUNT(*) FROM shares") == 0


def end_by_the_trash(alice, image):
    config.settings.TRASH_DAYS = 7
    assert alice.open("DELETE", f"/api/v1/images/{image}").status_code == 200


def end_by_disabling(alice, image):
    users.set_disabled(alice.id, True)


def end_by_deleting_the_account(alice, image):
    from accounts import registration

    registration.delete_account(users.get_user(alice.id))
    assert db.value("SELECT COUNT(*) FROM shares") == 0


def end_by_losing_the_file(alice, image):
    storage.delete(storage.key_of(alice.history()["records"][0]["imageUrl"]))


def end_by_a_row_that_names_anothers_file(alice, image):
    db.execute("UPDATE image_generations SET image_url = '/api/uploads/generated_images/9/x.png'")
    storage.put("generated_images/9/x.png", picture("PNG"))


@pytest.mark.parametrize(
    "end",
    [
        end_by_deleting,
        end_by_the_trash,
        end_by_disabling,
        end_by_deleting_the_account,
        end_by_losing_the_file,
        end_by_a_row_that_names_anothers_file,
    ],
)
def test_a_share_that_has_ended_is_as_if_it_had_never_been(client, alice, image, link, end):
    end(alice, image)

    ended = client.get(link)

    unknown = client.get("/api/s/" + "x" * 32)
    assert (ended.status_code, ended.json) == (404, unknown.json)
    assert "X-Robots-Tag" not in ended.headers
    kinds = [{name for name, _ in answer.headers} for answer in (ended, unknown)]
    assert kinds[0] == kinds[1]


def test_a_share_is_back_with_an_image_from_the_trash_until_that_is_purged(
    client, alice, settings, image, link
):
    settings.TRASH_DAYS = 7
    alice.open("DELETE", f"/api/v1/images/{image}")
    assert alice.get(SHARES).json["data"]["shares"] == []

    alice.post("/api/v1/images/restore", json={"ids": [image]})
    restored = client.get(link)
    alice.open("DELETE", f"/api/v1/images/{image}")
    alice.open("DELETE", f"/api/v1/images/{image}?purge=true")

    assert (restored.status_code, client.get(link).status_code) == (200, 404)
    assert db.value("SELECT COUNT(*) FROM shares") == 0


def test_a_new_password_ends_no_share(client, alice, link):
    users.set_password(alice.id, "x")

    assert client.get(link).status_code == 200


@pytest.mark.parametrize("token", ["x", "x" * 5000, "%00", "a%20b", "雪", "..%2f..", "%ff"])
def test_an_odd_token_is_not_found(client, token):
    assert client.get(f"/api/s/{token}").status_code == 404


@pytest.mark.parametrize("days", [0, 366, -1, 1.5, "7", None, True, [7]])
def test_odd_days_are_refused(alice, image, days):
    response = share(alice, image, days=days)

    assert (response.status_code, list(response.json["fields"])) == (400, ["days"])


def test_days_may_be_left_out(alice, image):
    response = alice.post(f"/api/v1/images/{image}/share")

    assert response.status_code == 201
    row = db.one("SELECT expires_at - created_at AS seconds FROM shares")
    assert row["seconds"] == 7 * 86400


def test_an_image_that_is_not_made_yet_cannot_be_shared(alice):
    made = alice.post("/api/v1/images/generate", json={"prompt": "a fox"})
    number = made.json["data"]["records"][0]["id"]

    response = share(alice, number)

    assert (response.status_code, response.json["code"]) == (409, "no_image")


def test_there_is_an_end_to_how_many(alice, image, monkeypatch):
    monkeypatch.setattr(shares, "MAX_SHARES", 2)

    answers = [share(alice, image).status_code for _ in range(3)]

    assert answers == [201, 201, 409]
    assert share(alice, image).json["code"] == "too_many_shares"


@pytest.mark.parametrize("prefix", ["", "/protected-uploads/"])
def test_the_service_itself_sends_what_is_shared(client, settings, link, prefix):
    settings.X_ACCEL_PREFIX = prefix

    response = client.get(link)

    assert "X-Accel-Redirect" not in response.headers
    assert response.data.startswith(b"\x89PNG") and b"fox" not in response.data


def test_a_shared_picture_is_not_sent_again_to_who_has_it(client, alice, image, link):
    etag = client.get(link).headers["ETag"]

    again = client.get(link, headers={"If-None-Match": etag})

    assert (again.status_code, again.data) == (304, b"")
    share_id = alice.get(SHARES).json["data"]["shares"][0]["id"]
    alice.open("DELETE", f"{SHARES}/{share_id}")
    assert client.get(link, headers={"If-None-Match": etag}).status_code == 404


def test_a_shared_picture_can_be_downloaded(client, link):
    response = client.get(f"{link}?download=1")

    name = response.headers["Content-Disposition"]
    assert re.fullmatch(r"attachment; filename=\"(image-\w{8}\.png)\"; filename\*=UTF-8''\1", name)
    assert client.get(f"{link}?download=2").status_code == 400


def test_the_label_of_ai_content_stays(client, alice, settings):
    settings.AIGC_PRODUCER, settings.AIGC_LABEL = "example", True
    link = share(alice, alice.generate().json["data"]["id"]).json["data"]["url"]

    assert metadata.parse(client.get(link).data).label["ContentProducer"] == "example"


def test_a_token_is_not_logged(client, alice, link, caplog):
    token = link.rpartition("/")[2]
    with caplog.at_level("INFO"):
        client.get(link)
        client.post(link)
        client.get(f"{link}/x")

    lines = [getattr(record, "details", {}) for record in caplog.records]
    assert [line["path"] for line in lines if "path" in line] == ["/api/s/-"] * 3
    assert token not in json.dumps(lines, default=str) + caplog.text


@pytest.mark.parametrize("query", ["", "?download=1", "?download=x"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}, {"If-None-Match": "*"}])
def test_a_shared_image_is_as_documented(client, link, query, headers):
    check_documented(client.get(link + query, headers=headers), "/api/s/{token}")
    check_documented(client.get(f"{link}x", headers=headers), "/api/s/{token}")


def test_shares_are_as_documented(alice, image, monkeypatch):
    made = share(alice, image)
    listed = alice.get(SHARES)
    path = f"{SHARES}/{made.json['data']['id']}"
    revoked = [alice.open("DELETE", path) for _ in range(2)]
    monkeypatch.setattr(shares, "MAX_SHARES", 0)
    refused = [share(alice, image), share(alice, 999), share(alice, image, days=0)]

    for answer in (made, *refused):
        check_documented(answer, "/api/v1/images/{generation_id}/share")
    check_documented(listed)
    for answer in revoked:
        check_documented(answer, "/api/v1/shares/{share_id}")
    assert [answer.status_code for answer in refused] == [409, 404, 400]


def test_a_session_that_ends_meanwhile_shares_nothing(alice, image):
    session = Session(alice.id, users.get_user(alice.id)["token_version"])
    users.set_password(alice.id, "x")

    with pytest.raises(BadToken):
        shares.create_share(session, image, 7)

    assert db.value("SELECT COUNT(*) FROM shares") == 0


def test_an_image_that_is_deleted_just_before_has_no_share(alice, image):
    session = tokens.read_token(alice.headers["Authorization"].split()[1])
    alice.open("DELETE", f"/api/v1/images/{image}")

    with pytest.raises(ApiError) as refused:
        shares.create_share(session, image, 7)

    assert refused.value.code == "no_image"


def test_shares_of_images_in_the_trash_count(alice, image, settings, monkeypatch):
    monkeypatch.setattr(shares, "MAX_SHARES", 1)
    other = alice.generate().json["data"]["id"]
    share(alice, image)
    end_by_the_trash(alice, image)

    assert share(alice, other).json["code"] == "too_many_shares"


def test_of_many_requests_at_once_no_more_than_the_most_share(alice, image, monkeypatch):
    monkeypatch.setattr(shares, "MAX_SHARES", 2)

    with ThreadPoolExecutor(6) as threads:
        calls = [threads.submit(share, alice, image) for _ in range(6)]

    assert sorted(call.result().status_code for call in calls) == [201] * 2 + [409] * 4
