"""Images taken out as a ZIP file that is made while it is sent."""

import io
import json
import zipfile
from pathlib import PurePosixPath

import pytest

import db
from accounts import users
from files import storage
from images import archive, archive_links, schemas
from tests.conftest import Person
from tests.pictures import picture
from tests.test_openapi import check_documented

ARCHIVE = "/api/v1/images/archive"


def make(person: Person, *prompts: str) -> list[int]:
    return [person.generate(prompt).json["data"]["id"] for prompt in prompts]


def take(person: Person, **body):
    return person.post(ARCHIVE, json=body, buffered=True)


def opened(response) -> zipfile.ZipFile:
    assert (response.status_code, response.mimetype) == (200, "application/zip")
    file = zipfile.ZipFile(io.BytesIO(response.data))
    assert file.testzip() is None
    return file


def manifest_of(file: zipfile.ZipFile) -> dict:
    return json.loads(file.read("manifest.json"))


def test_an_archive_has_the_images_and_says_what_they_are(alice):
    ids = make(alice, "a fox", "雪中的狐狸")

    response = take(alice, ids=ids)

    file = opened(response)
    manifest = manifest_of(file)
    assert manifest["complete"] is True and manifest["missing"] == []
    fox, snow = manifest["images"]
    assert file.namelist() == [fox["file"], snow["file"], "manifest.json"]
    assert (fox["file"], snow["file"]) == (f"{ids[0]}-a-fox.png", f"{ids[1]}-雪中的狐狸.png")
    records = {record["id"]: record for record in alice.history()["records"]}
    for entry in (fox, snow):
        record = records[entry["id"]]
        assert file.read(entry["file"]) == alice.get(record["imageUrl"]).data
        assert entry == {
            "file": entry["file"],
            "id": record["id"],
            "prompt": record["prompt"],
            "model": record["params"]["model_used"],
            "seed": record["params"]["seed"],
            "width": 64,
            "height": 64,
            "createdAt": record["createdAt"],
        }


def test_headers_let_no_proxy_keep_it(alice):
    response = take(alice, ids=make(alice, "a fox"))

    headers = response.headers
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Cache-Control"] == "no-store"
    assert "Content-Length" not in headers
    name = r'attachment; filename="images-'
    assert headers["Content-Disposition"].startswith(name)


def test_without_metadata_nothing_tells_of_the_prompt(alice):
    ids = make(alice, "a secret fox")

    response = take(alice, ids=ids, metadata="strip")

    file = opened(response)
    assert file.namelist() == [f"{ids[0]}-image.png", "manifest.json"]
    assert all(b"fox" not in file.read(name) for name in file.namelist())
    [entry] = manifest_of(file)["images"]
    assert set(entry) == {"file", "id", "width", "height", "createdAt"}


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({}, ["a hen", "a red fox", "a fox"]),
        ({"q": "FOX"}, ["a red fox", "a fox"]),
        ({"favorite": True}, ["a red fox"]),
        ({"favorite": True, "q": "hen"}, []),
        ({"status": "completed", "since": "2000-01-01"}, ["a hen", "a red fox", "a fox"]),
        ({"status": "failed"}, []),
        ({"until": "2000-01-01T00:00:00Z"}, []),
        ({"model": "nothing"}, []),
        ({"tag": ["Wild"]}, ["a red fox", "a fox"]),
        ({"tag": ["wild", "best"]}, ["a red fox"]),
        ({"tag": ["wild"], "q": "red", "favorite": True}, ["a red fox"]),
        ({"tag": ["wild"], "status": "failed"}, []),
    ],
)
def test_the_filters_of_the_history_choose(alice, filters, kept):
    fox, red, _ = make(alice, "a fox", "a red fox", "a hen")
    alice.post("/api/v1/images/tags", json={"ids": [fox, red], "add": ["wild"]})
    alice.post("/api/v1/images/tags", json={"ids": [red], "add": ["best"]})
    alice.open("PATCH", f"/api/v1/images/{red}", json={"favorite": True})
    alice.post("/api/v1/images/generate", json={"prompt": "a fox that is not drawn"})

    response = take(alice, **filters)

    if kept:
        assert [entry["prompt"] for entry in manifest_of(opened(response))["images"]] == kept
    else:
        assert (response.status_code, response.json["code"]) == (409, "no_image")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ids": []}, "ids"),
        ({"ids": [0]}, "ids.0"),
        ({"ids": ["1"]}, "ids.0"),
        ({"ids": "all"}, "ids"),
        ({"ids": [1], "q": "fox"}, "body"),
        ({"metadata": "drop"}, "metadata"),
        ({"link": 1}, "link"),
        ({"since": 5}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"favorite": "true"}, "favorite"),
        ({"page": 1}, "page"),
        ({"tag": "wild"}, "tag"),
        ({"tag": [""]}, "tag.0"),
    ],
)
def test_what_is_no_choice_is_refused(alice, body, field):
    response = take(alice, **body)

    assert (response.status_code, list(response.json["fields"])) == (400, [field])


def test_anothers_images_are_as_if_they_were_not_there(alice, bob, client):
    [secret] = make(alice, "a secret fox")
    [own] = make(bob, "a hen")

    file = opened(take(bob, ids=[secret, own, 999]))

    manifest = manifest_of(file)
    assert [entry["id"] for entry in manifest["images"]] == [own]
    assert manifest["complete"] is False
    assert manifest["missing"] == [
        {"id": secret, "reason": "not_found"},
        {"id": 999, "reason": "not_found"},
    ]
    assert str(secret) in file.read("INCOMPLETE.txt").decode()
    assert take(bob, ids=[secret]).status_code == 409
    assert take(client, ids=[secret]).status_code == 401


@pytest.fixture(autouse=True)
def no_archives():
    """Let a test that fails half-way leave no place taken."""
    yield
    archive._running.clear()


def begin(person: Person, **body):
    """Begin to read an archive; return an iterator over the rest of it."""
    return person.post(ARCHIVE, json=body, buffered=False).iter_encoded()


def rest_of(pieces) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(b"".join(pieces)))


def test_what_is_deleted_meanwhile_is_left_out_and_named(alice, monkeypatch):
    first, second, third = make(alice, "a fox", "a hen", "an owl")
    urls = {record["id"]: record["imageUrl"] for record in alice.history()["records"]}
    find = archive.history.get_owned

    def get_owned(session, number):
        if number == first:
            alice.open("DELETE", f"/api/v1/images/{second}")
            storage.delete(storage.key_of(urls[third]))
        return find(session, number)

    monkeypatch.setattr(archive.history, "get_owned", get_owned)
    selection = {"ids": [first, second, third], "missing": [], "metadata": "keep"}
    session = archive_links.Session(alice.id, users.get_user(alice.id)["token_version"])
    pieces = archive.stream(session, selection, lambda row: {"id": row["id"]})

    file = rest_of(pieces)

    manifest = manifest_of(file)
    assert [entry["id"] for entry in manifest["images"]] == [first]
    assert manifest["missing"] == [
        {"id": second, "reason": "not_found"},
        {"id": third, "reason": "no_file"},
    ]


@pytest.mark.parametrize("end", [users.set_disabled, users.set_password])
def test_an_archive_breaks_off_when_the_session_ends(alice, end):
    ids = make(alice, "a fox", "a hen", "an owl")
    pieces = begin(alice, ids=ids)
    sent = [next(pieces), next(pieces)]

    end(alice.id, "1")

    with pytest.raises(ConnectionResetError):
        sent.extend(pieces)
    with pytest.raises(zipfile.BadZipFile):
        rest_of(sent)
    assert not archive._running


def test_the_manifest_is_not_for_a_session_that_ended_after_the_last_image(alice, monkeypatch):
    [only] = make(alice, "a fox")
    find = archive.history.get_owned

    def get_owned(session, number):
        found = find(session, number)
        users.set_password(alice.id, "1")
        return found

    monkeypatch.setattr(archive.history, "get_owned", get_owned)
    pieces = begin(alice, ids=[only])

    with pytest.raises(ConnectionResetError):
        list(pieces)


def test_an_archive_breaks_off_when_the_storage_stays_away(alice, monkeypatch):
    ids = make(alice, "a fox", "a hen", "an owl")
    pieces = begin(alice, ids=ids)
    sent = [next(pieces), next(pieces)]

    def find(key):
        raise storage.Unavailable

    monkeypatch.setattr(storage, "find", find)

    with pytest.raises(ConnectionResetError):
        sent.extend(pieces)
    assert not archive._running


def test_a_file_of_another_kind_is_left_out_only_without_metadata(alice):
    [number] = make(alice, "a fox")
    key = f"generated_images/{alice.id}/old.gif"
    storage.put(key, picture("GIF"))
    db.execute("UPDATE image_generations SET image_url = %s", storage.url(key))

    kept = opened(take(alice, ids=[number]))
    stripped = opened(take(alice, ids=[number], metadata="strip"))

    assert f"{number}-a-fox.gif" in kept.namelist()
    assert manifest_of(stripped)["missing"] == [{"id": number, "reason": "not_strippable"}]


@pytest.mark.parametrize("name", ["../8/x.png", "8/x.png", "../../instance/app.db", "", "."])
def test_a_row_cannot_lead_to_another_file(alice, name):
    [number] = make(alice, "a fox")
    storage.put("generated_images/8/x.png", picture("PNG"))
    url = storage.url(f"generated_images/{alice.id}/{name}")
    db.execute("UPDATE image_generations SET image_url = %s", url)

    file = opened(take(alice, ids=[number]))

    assert manifest_of(file)["missing"] == [{"id": number, "reason": "no_file"}]


@pytest.mark.parametrize(
    "prompt",
    [
        "../../etc/passwd",
        "C:\\x",
        "a\nb",
        "CON",
        "x" * 2000,
        "🦊",
        ".hidden",
        "雪" * 100,
        "a\u202eb",
    ],
)
def test_names_are_safe_and_unique(alice, prompt):
    ids = make(alice, prompt, prompt)

    names = opened(take(alice, ids=ids)).namelist()[:2]

    assert len({name.casefold() for name in names}) == 2
    for name in names:
        assert PurePosixPath(name).name == name and len(name.encode()) < 200
        assert not set(name) & set('\\/:*?"<>|\0\n\u202e') and name[0].isdigit()


def test_an_odd_row_does_no_harm(alice):
    [number] = make(alice, "a fox")
    if not archive.settings.uses_mysql:
        db.execute("UPDATE image_generations SET created_at = 'never', prompt_text = 5")
    db.execute("UPDATE image_generations SET generation_params_json = '{\"seed\": [1]}'")

    [entry] = manifest_of(opened(take(alice, ids=[number])))["images"]

    assert entry["seed"] is None


def test_there_is_an_end_to_how_many_images(alice, monkeypatch):
    make(alice, "a fox", "a hen")
    monkeypatch.setattr("images.archive.MAX_ARCHIVE", 1)

    response = take(alice)

    assert (response.status_code, response.json["code"]) == (413, "archive_too_large")
    assert take(alice, ids=list(range(1, 10_001))).status_code == 413
    assert take(alice, ids=[1] * 10_001).status_code == 400


# -- How many at a time -------------------------------------------------------------------------


def test_an_account_has_two_at_a_time(alice, bob):
    ids = make(alice, "a fox")
    pieces = [begin(alice, ids=ids) for _ in range(2)]
    for each in pieces:
        next(each)

    refused = take(alice, ids=ids)

    assert (refused.status_code, refused.json["code"]) == (429, "too_many_archives")
    assert int(refused.headers["Retry-After"]) > 0
    assert take(bob, ids=make(bob, "a hen")).status_code == 200
    pieces[0].close()
    assert take(alice, ids=ids).status_code == 200


def test_a_process_has_an_eighth_of_its_threads_for_archives(alice, bob, settings):
    settings.WEB_THREADS = 8
    pieces = begin(alice, ids=make(alice, "a fox"))
    next(pieces)

    refused = take(bob, ids=make(bob, "a hen"))

    assert (refused.status_code, refused.json["code"]) == (503, "server_busy")


def test_a_client_that_leaves_frees_its_place(alice):
    pieces = begin(alice, ids=make(alice, "a fox", "a hen"))
    next(pieces)
    next(pieces)
    assert archive._running == {alice.id: 1}

    pieces.close()

    assert not archive._running


# -- Links for browsers -------------------------------------------------------------------------


@pytest.fixture
def link(alice) -> str:
    make(alice, "a fox", "a hen")
    return take(alice, link=True).json["data"]["url"]


def test_a_link_fetches_the_archive_without_a_token(alice, client):
    ids = make(alice, "a fox", "a hen")

    made = take(alice, ids=[*ids, 999], link=True)

    data = made.json["data"]
    assert (made.status_code, data["images"]) == (201, 2)
    assert data["url"].startswith(f"{ARCHIVE}?ticket=") and data["expiresAt"].endswith("Z")
    manifest = manifest_of(opened(client.get(data["url"])))
    assert [entry["id"] for entry in manifest["images"]] == ids
    assert manifest["missing"] == [{"id": 999, "reason": "not_found"}]
    assert client.get(data["url"]).status_code == 200
    assert data["url"].partition("=")[2] not in str(db.one("SELECT * FROM archive_links"))


def test_a_head_request_holds_no_place(client, link):
    response = client.open("HEAD", link)

    assert (response.status_code, response.mimetype) == (200, "application/zip")
    assert not archive._running


def test_a_link_ends_at_its_time(client, link):
    db.execute("UPDATE archive_links SET expires_at = UNIX_TIMESTAMP()")

    assert client.get(link).json["code"] == "link_invalid"
    archive_links.delete_expired()
    assert db.value("SELECT COUNT(*) FROM archive_links") == 0


@pytest.mark.parametrize("end", [users.set_disabled, users.set_password])
def test_a_link_ends_with_the_session(alice, client, link, end):
    end(alice.id, "1")

    refused = client.get(link)

    assert (refused.status_code, refused.json["code"]) == (403, "link_invalid")


@pytest.mark.parametrize("ticket", ["", "x", "雪", "%ff", "x" * 100])
def test_an_odd_ticket_is_refused(client, ticket):
    assert client.get(f"{ARCHIVE}?ticket={ticket}").status_code in (400, 403)
    assert client.get(ARCHIVE).status_code == 400


def test_an_eleventh_link_ends_the_first(alice, bob, client, link):
    make(bob, "an owl")
    other = take(bob, link=True).json["data"]["url"]

    for _ in range(10):
        take(alice, link=True)

    assert client.get(link).status_code == 403
    assert client.get(other).status_code == 200
    assert db.value("SELECT COUNT(*) FROM archive_links") == 11


def test_the_longest_list_of_ids_fits(alice):
    [number] = make(alice, "a fox")
    ids = [number, *range(2**31 - schemas.MAX_ARCHIVE, 2**31 - 1)]

    assert take(alice, ids=ids, link=True).status_code == 201
    assert take(alice, q="x" * 132_000).status_code == 413


# -- As documented ------------------------------------------------------------------------------


def test_answers_are_as_documented(alice, client, settings):
    ids = make(alice, "a fox")
    made = take(alice, ids=ids, link=True)
    url = made.json["data"]["url"]
    answers = [
        take(alice, ids=ids),
        made,
        take(alice, ids=[999]),
        take(alice, q="x" * 132_000),
        take(alice, ids=ids, q="fox"),
        take(client, ids=ids),
        client.get(url, buffered=True),
        client.get(ARCHIVE),
        client.get(f"{url}x"),
    ]
    settings.WEB_THREADS = 1
    pieces = begin(alice, ids=ids)
    answers += [take(alice, ids=ids), client.get(url)]
    pieces.close()

    statuses = [answer.status_code for answer in answers]

    assert statuses == [200, 201, 409, 413, 400, 401, 200, 400, 403, 503, 503]
    for answer in answers:
        check_documented(answer)


def test_too_many_archives_are_refused_as_documented(alice):
    ids = make(alice, "a fox")
    pieces = [begin(alice, ids=ids) for _ in range(2)]

    refused = take(alice, ids=ids)

    assert refused.status_code == 429
    check_documented(refused)
    for each in pieces:
        each.close()


# -- API keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scopes", "status"), [(["read"], 200), (["generate"], 403)])
def test_a_key_that_may_read_takes_images_out(alice, scopes, status):
    ids = make(alice, "a fox")
    key = alice.post("/api/v1/keys", json={"name": "backup", "scopes": scopes}).json["data"]

    response = alice.post(
        ARCHIVE, json={"ids": ids}, headers={"Authorization": f"Bearer {key['key']}"}
    )

    assert response.status_code == status


def test_a_revoked_key_takes_its_links_and_archives_with_it(alice, client):
    ids = make(alice, "a fox", "a hen", "an owl")
    key = alice.post("/api/v1/keys", json={"name": "backup", "scopes": ["read"]}).json["data"]
    headers = {"Authorization": f"Bearer {key['key']}"}
    link = client.post(ARCHIVE, json={"ids": ids, "link": True}, headers=headers).json["data"]
    pieces = client.get(link["url"]).iter_encoded()
    sent = [next(pieces), next(pieces)]

    alice.open("DELETE", f"/api/v1/keys/{key['id']}")

    with pytest.raises(ConnectionResetError):
        sent.extend(pieces)
    assert client.get(link["url"]).status_code == 403
    assert key["key"] not in str(db.all("SELECT * FROM archive_links"))


def test_logging_out_ends_the_links_of_that_session_alone(alice, client, link):
    alice.post("/api/auth/logout")
    alice.log_in()
    other = take(alice, link=True).json["data"]["url"]

    assert client.get(link).status_code == 403
    assert client.get(other).status_code == 200
