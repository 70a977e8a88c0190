"""URL_PREFIX: whatever the service says of its own addresses leads below that path."""

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
import requests

import app as service
from tests.conftest import Person, form
from tests.pictures import picture
from tests.servers import Service
from tests.test_admin import promote
from web import hooks

PREFIX = "/imagegen"
LINKS = re.compile(r"""(?:href|src)=["']?([^"' >]+)""")
GENERATE = "/api/v1/images/generate"
SMALL = {"prompt": "a fox", "params": {"width": 64, "height": 64, "steps": 1}}


@pytest.fixture
def below(settings):
    settings.URL_PREFIX = PREFIX
    settings.ADMIN_SEES_IMAGES = True


@pytest.fixture
def root(below, database):
    """An admin with an avatar, an image, a job and a share, who asks below the prefix."""
    client = Person()
    avatar = (BytesIO(picture()), "a.png", "image/png")
    client.post(f"{PREFIX}/api/auth/register", data=form("root", avatar=avatar))
    person = Person("root")
    promote(person)
    return person


def texts(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value, but for the names of its fields."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def addresses(response) -> list[str]:
    """Return the addresses of the service that an answer names, beginning with a slash."""
    found = [response.headers.get("Location", "")]
    found += re.findall("<([^>]*)>", response.headers.get("Link", ""))
    found += re.findall("Path=([^;]*)", response.headers.get("Set-Cookie", ""))
    if response.is_json:
        found += [text.lstrip("<") for text in texts(response.json)]
    elif response.mimetype == "text/html":
        found += LINKS.findall(response.text)
    return [address for address in found if address.startswith("/")]


def calls(person: Person) -> Iterator[Any]:
    """Yield the answers of what makes addresses, then of every GET."""
    made = person.post("/api/v1/images/generate-test", json=SMALL)
    image_id = made.json["data"]["id"]
    image = f"/api/v1/images/{image_id}"
    yield made
    yield person.post(GENERATE, json={"prompt": "a hen"})
    yield person.post(f"{image}/retry")
    uploaded = person.post("/api/v1/uploads", data={"file": (BytesIO(picture()), "a.png")})
    yield uploaded
    source = {"upload": uploaded.json["data"]["id"]}
    changed = person.post(GENERATE, json={"prompt": "a hen", "images": [source]})
    assert changed.json["data"]["records"][0]["inputs"]
    yield changed
    yield person.open("PATCH", image, json={"favorite": True})
    shared = person.post(f"{image}/share")
    yield shared
    yield person.post("/api/v1/images/archive", json={"ids": [image_id], "link": True})
    names = {"generation_id": image_id, "user_id": person.id, "upload_id": source["upload"]}
    for rule in service.app.url_map.iter_rules():
        if "GET" in rule.methods:
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(names.get(found[1], 1)), rule.rule)
            yield person.get(PREFIX + path)
    yield person.get(f"{PREFIX}/api/v1/images?ids={image_id}")
    yield person.get(f"{PREFIX}/api/v1/images/history?per_page=1")
    yield person.get(f"{PREFIX}/api/v1/admin/images?user={person.id}")


def test_no_answer_names_an_address_above_the_prefix(root):
    found = set()

    for response in calls(root):
        assert response.status_code != 500, response.request.path
        for address in addresses(response):
            assert address.startswith(f"{PREFIX}/"), (response.request.path, address)
            found.add(address.partition("?")[0].rpartition("/")[0])

    assert len(found) >= 7


def test_what_answers_name_is_found_there(root):
    record = root.post("/api/v1/images/generate-test", json=SMALL).json["data"]
    record = root.get(f"{PREFIX}/api/v1/images/{record['id']}").json["data"]
    profile = root.get(f"{PREFIX}/api/auth/profile").json["data"]
    image = f"{PREFIX}/api/v1/images/{record['id']}"
    share = root.post(f"{image}/share").json["data"]["url"]
    archive = root.post(
        f"{PREFIX}/api/v1/images/archive", json={"ids": [record["id"]], "link": True}
    )
    stranger = Person()

    for name in ("signedImageUrl", "signedThumbnailUrl", "signedStrippedUrl"):
        assert stranger.get(record[name]).status_code == 200, name
    assert root.get(record["imageUrl"]).status_code == 200
    for address in (profile["avatarUrl"], share, archive.json["data"]["url"]):
        assert stranger.get(address).status_code == 200, address


def test_a_signed_link_outlives_a_change_of_the_prefix(root, settings):
    root.generate()
    [record] = root.history()["records"]
    settings.URL_PREFIX = "/studio"

    address = record["signedImageUrl"].replace(PREFIX, "/studio", 1)

    assert Person().get(address).status_code == 200


def test_paths_count_with_and_without_the_prefix(below, client):
    health = [PREFIX, "", f"{PREFIX}x", PREFIX * 2]
    statuses = [client.get(f"{path}/api/health").status_code for path in health]
    page, page_without_slash = client.get(f"{PREFIX}/"), client.get(PREFIX)

    assert statuses == [200, 200, 404, 404]
    assert page_without_slash.status_code == page.status_code == 200
    assert page_without_slash.data == page.data


def test_document_names_the_service_and_its_examples_below_the_prefix(below, client):
    document = client.get(f"{PREFIX}/api/openapi.json").json

    assert document["servers"] == [{"url": f"http://localhost{PREFIX}"}]
    assert "/api/health" in document["paths"]
    assert document["components"]["schemas"]["AvatarUrl"]["examples"][0].startswith(f"{PREFIX}/api")


def test_the_prefix_wins_over_what_a_proxy_says(below, settings, client):
    settings.TRUSTED_PROXIES = service.config.networks("127.0.0.1")

    document = client.get("/api/openapi.json", headers={"X-Forwarded-Prefix": "/other"}).json

    assert document["servers"] == [{"url": f"http://localhost{PREFIX}"}]


def test_log_line_has_the_path_without_the_prefix_and_no_token(below, client, caplog):
    caplog.set_level("INFO")

    client.get(f"{PREFIX}/api/s/secret")

    assert caplog.records[-1].details["path"] == "/api/s/-"


@pytest.mark.parametrize("path", [f"{PREFIX}/api/auth/register", "/api/auth/register"])
def test_uploads_are_received_below_the_prefix(below, path):
    head = f"POST {path} HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"

    assert hooks.max_body_bytes(service.app, head, None) == hooks.MAX_UPLOAD_BYTES


def test_a_real_server_takes_a_large_avatar_and_says_where_it_is(tmp_path):
    server = Service(tmp_path, URL_PREFIX=PREFIX, PASSWORD_HASH="pbkdf2:sha256:1000").start()
    try:
        files = {"avatar": ("a.png", picture() + bytes(200_000), "image/png")}
        url = f"{server.url}{PREFIX}/api/auth/register"
        answer = requests.post(url, data=form("alice"), files=files, timeout=30)
        shown = requests.get(server.url + answer.json()["data"]["avatarUrl"], timeout=30)
    finally:
        server.stop()

    assert (answer.status_code, shown.status_code) == (200, 200)
    assert f"Ready: http://localhost:{server.port}{PREFIX}/" in server.log_path.read_text()
