"""Tags of images: added, removed, listed, and as a filter of the history."""

import json
import unicodedata

import pytest

import db
from images import history, quota


def add(person, number: int = 1, **columns) -> list[int]:
    """Add rows and return their ids, the oldest first."""
    ids = []
    for _ in range(number):
        row = {"prompt_text": "a fox", "status": "completed", **columns}
        ids.append(db.insert("image_generations", user_id=person.id, **row))
    quota.recount_images()
    return ids


def tag(person, ids: list[int], *added: str, remove: tuple = ()):
    body = {"ids": ids, "add": list(added), "remove": list(remove)}
    return person.post("/api/v1/images/tags", json=body)


def tags_of(person, number: int) -> list[str]:
    return person.get(f"/api/v1/images/{number}").json["data"]["tags"]


def listed(person) -> dict[str, int]:
    rows = person.get("/api/v1/tags").json["data"]["tags"]
    return {row["tag"]: row["count"] for row in rows}


def found(person, *tags: str, **query) -> list[int]:
    answer = person.get("/api/v1/images/history", query_string={"tag": tags, **query})
    return [record["id"] for record in answer.json["data"]["records"]]


def test_tags_are_shown_in_records_and_listed_with_counts(alice):
    first, second, third = add(alice, 3)

    response = tag(alice, [first, second], "Sunset", "海")
    tag(alice, [third], "sunset")

    assert response.json["data"]["images"] == [
        {"id": first, "tags": ["Sunset", "海"]},
        {"id": second, "tags": ["Sunset", "海"]},
    ]
    assert tags_of(alice, first) == ["Sunset", "海"]
    assert alice.get("/api/v1/tags").json["data"]["tags"] == [
        {"tag": "Sunset", "count": 3},
        {"tag": "海", "count": 2},
    ]


def test_tags_are_removed_before_others_are_added(alice):
    [number] = add(alice)
    tag(alice, [number], *[f"t{index}" for index in range(20)])

    response = tag(alice, [number], "new", remove=("T0", "unknown"))

    assert response.status_code == 200
    assert tags_of(alice, number) == [*[f"t{index}" for index in range(1, 20)], "new"]
    assert "t0" not in listed(alice)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sunset", "SUNSET"),
        ("café", unicodedata.normalize("NFD", "CAFÉ")),
        ("a b", "  a \t b "),
        ("straße", "STRASSE"),
    ],
)
def test_spellings_of_a_tag_are_one_tag(alice, one, other):
    first, second = add(alice, 2)

    tag(alice, [first], one)
    tag(alice, [first, second], other)

    assert tags_of(alice, first) == tags_of(alice, second) == [one]
    assert listed(alice) == {one: 2}
    assert found(alice, other) == [second, first]
    tag(alice, [first, second], remove=(other,))
    assert listed(alice) == {}


def test_accents_emoji_and_kana_tell_tags_apart(alice):
    [number] = add(alice)
    different = ["cafe", "café", "😀", "😃", "か", "が", "ａ", "a"]

    tag(alice, [number], *different)

    assert tags_of(alice, number) == different
    assert listed(alice) == dict.fromkeys(different, 1)


def test_one_image_has_at_most_20_tags_and_all_images_change_or_none(alice):
    first, second = add(alice, 2)
    tag(alice, [second], *[f"t{index}" for index in range(20)])

    response = tag(alice, [first, second], "one more")

    assert (response.status_code, list(response.json["fields"])) == (400, ["add"])
    assert tags_of(alice, first) == []
    assert tag(alice, [second], "T5").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ids": []}, "ids"),
        ({"ids": list(range(1, 102))}, "ids"),
        ({"ids": [0]}, "ids.0"),
        ({"ids": [1], "add": ["x" * 41]}, "add.0"),
        ({"ids": [1], "add": ["  "]}, "add.0"),
        ({"ids": [1], "add": ["\u200b"]}, "add.0"),
        ({"ids": [1], "add": ["a\x00"]}, "add.0"),
        ({"ids": [1], "add": ["\ud800"]}, "add.0"),
        ({"ids": [1], "add": [7]}, "add.0"),
        ({"ids": [1], "add": "a"}, "add"),
        ({"ids": [1], "add": [str(index) for index in range(21)]}, "add"),
        ({"ids": [1], "remove": [None]}, "remove.0"),
        ({"ids": [1], "tags": ["a"]}, "tags"),
    ],
)
def test_a_wrong_field_is_named(alice, body, field):
    text = json.dumps(body)
    kind = {"Content-Type": "application/json"}
    response = alice.post("/api/v1/images/tags", data=text, headers=kind)

    assert response.status_code == 400
    assert list(response.json["fields"]) == [field]


@pytest.mark.parametrize("text", ["ΐ" * 40, "ŉ" * 40, "👩‍🎨", "大海", "a\\'\"%_", "<b>&"])
def test_a_tag_of_any_letters_is_kept(alice, text):
    [number] = add(alice)

    assert tag(alice, [number], text).status_code == 200
    assert tags_of(alice, number) == [unicodedata.normalize("NFC", text)]
    assert found(alice, text) == [number]


def test_images_of_others_are_left_out(alice, bob):
    [number] = add(alice)
    tag(alice, [number], "mine")

    response = tag(bob, [number, 999], "theirs", remove=("mine",))

    assert response.json["data"] == {"images": []}
    assert tags_of(alice, number) == ["mine"]
    assert (listed(bob), found(bob, "mine")) == ({}, [])


def test_nobody_tags_without_a_token(client):
    assert tag(client, [1], "a").status_code == 401
    assert client.get("/api/v1/tags").status_code == 401


def test_the_history_is_filtered_by_all_tags(alice):
    first, second, third, fourth = add(alice, 4)
    tag(alice, [first, second, third], "a")
    tag(alice, [second, third, fourth], "b")
    tag(alice, [third], "c")

    assert found(alice, "a") == [third, second, first]
    assert found(alice, "a", "B") == [third, second]
    assert found(alice, "b", "a", "A") == [third, second]
    assert found(alice, "a", "b", "c") == [third]
    assert found(alice, "a", "d") == []


def test_tags_go_together_with_other_filters(alice):
    old, liked, failed = add(alice, 3)
    [hen] = add(alice, prompt_text="a hen", created_at="2020-01-01 00:00:00")
    tag(alice, [old, liked, failed, hen], "a")
    alice.open("PATCH", f"/api/v1/images/{liked}", json={"favorite": True})
    db.execute("UPDATE image_generations SET status = 'failed' WHERE id = %s", failed)

    assert found(alice, "a", favorite="true") == [liked]
    assert found(alice, "a", status="failed") == [failed]
    assert found(alice, "a", q="HEN") == [hen]
    assert found(alice, "a", until="2020-02-01") == [hen]
    assert found(alice, "a", since="2020-02-01") == [failed, liked, old]


@pytest.mark.parametrize("tags", [["a"], ["a", "b"]])
def test_pages_of_a_tag_follow_each_other_by_number_and_by_cursor(alice, tags):
    ids = add(alice, 5)
    tag(alice, ids, "a", "b")
    add(alice, 2)
    query = {"tag": tags, "per_page": 2}

    pages, followed = [], []
    for page in (1, 2, 3, 4):
        answer = alice.get("/api/v1/images/history", query_string={**query, "page": page})
        pages.append([record["id"] for record in answer.json["data"]["records"]])
    answer = alice.get("/api/v1/images/history", query_string=query)
    while answer.json["data"]["records"]:
        followed.append([record["id"] for record in answer.json["data"]["records"]])
        if "Link" not in answer.headers:
            break
        answer = alice.get(answer.headers["Link"].partition(">")[0].strip("<"))

    newest = ids[::-1]
    assert pages == [newest[:2], newest[2:4], newest[4:], []]
    assert followed == pages[:3]


def test_the_total_of_a_tag_ends_at_a_thousand(alice, monkeypatch):
    monkeypatch.setattr(history, "MAX_COUNT", 3)
    tag(alice, add(alice, 5), "a")

    page = alice.history("?tag=a&per_page=1")

    assert page["pagination"]["total"] == 3


def test_a_page_of_a_tag_is_one_statement(alice, monkeypatch):
    tag(alice, add(alice), "a")
    asked = []
    run = db._run
    monkeypatch.setattr(db, "_run", lambda *rest: asked.append(rest) or run(*rest))

    assert alice.get("/api/v1/images/history?tag=a").status_code == 200
    assert len(asked) == 1


@pytest.mark.parametrize(
    "query", ["tag=", "tag=a&tag=%20", "tag=" + "x" * 41, "tag=a" + "&tag=b" * 20]
)
def test_a_tag_that_cannot_be_is_refused(alice, query):
    response = alice.get(f"/api/v1/images/history?{query}")

    assert response.status_code == 400
    assert next(iter(response.json["fields"])).partition(".")[0] == "tag"


def test_an_ended_session_sees_no_tags(alice):
    tag(alice, add(alice), "a")
    db.execute("UPDATE users SET is_disabled = 1, token_version = token_version + 1")

    assert alice.get("/api/v1/images/history?tag=a").status_code == 401
    assert alice.get("/api/v1/images/history?tag=a&tag=b").status_code == 401
    assert alice.get("/api/v1/tags").status_code == 401


def test_a_deleted_image_leaves_no_tag(alice):
    first, second = add(alice, 2)
    tag(alice, [first, second], "a")

    alice.open("DELETE", f"/api/v1/images/{first}")

    assert (listed(alice), found(alice, "a")) == ({"a": 1}, [second])
    assert db.value("SELECT COUNT(*) FROM image_tags") == 1


def test_what_a_release_before_deleted_is_in_no_list(alice):
    first, second = add(alice, 2)
    tag(alice, [first, second], "a")
    db.execute("DELETE FROM image_generations WHERE id = %s", second)

    page = alice.history("?tag=a&per_page=1")

    assert [record["id"] for record in page["records"]] == [first]
    assert page["pagination"]["total"] == 1


@pytest.mark.parametrize("stored", [None, "", "{}", "null", "not json", "[" * 9000, json.dumps([])])
def test_a_row_without_tags_has_none(alice, stored):
    [number] = add(alice, tags=stored)

    assert tags_of(alice, number) == []


@pytest.mark.parametrize("tags", [("common", "rare"), ("rare", "common")])
def test_a_rare_tag_is_found_among_many_images_in_any_order(alice, monkeypatch, tags):
    monkeypatch.setattr(history, "MAX_LOOKED_THROUGH", 3)
    ids = add(alice, 8, created_at="2026-01-01 00:00:00")
    tag(alice, ids, "common")
    tag(alice, ids[:2], "rare")

    assert found(alice, *tags) == [ids[1], ids[0]]
