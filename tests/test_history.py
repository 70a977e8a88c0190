import json
import sqlite3
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

import pytest
from requests.utils import parse_header_links

import db
from accounts import users
from images import history, quota
from pool import pool


def add(person, number: int = 1, **columns) -> None:
    for index in range(number):
        row = {"prompt_text": f"image {index}", "status": "completed", **columns}
        db.insert("image_generations", user_id=person.id, **row)
    quota.recount_images()


def prompts(page: dict) -> list[str]:
    return [record["prompt"] for record in page["records"]]


def test_history_answers_as_published(alice):
    alice.generate(seed=1)

    page = alice.history()

    assert set(page) == {"records", "pagination"}
    assert page["pagination"] == {
        "total": 1,
        "page": 1,
        "perPage": 10,
        "totalPages": 1,
        "nextCursor": None,
    }
    assert set(page["records"][0]) >= {
        "id",
        "prompt",
        "imageUrl",
        "thumbnailUrl",
        "status",
        "createdAt",
        "updatedAt",
        "params",
        "errorMessage",
    }


def test_an_empty_history_has_no_pages(alice):
    assert alice.history() == {
        "records": [],
        "pagination": {"total": 0, "page": 1, "perPage": 10, "totalPages": 0, "nextCursor": None},
    }


def test_the_newest_comes_first(alice):
    add(alice, prompt_text="old", created_at="2020-01-01 00:00:00")
    add(alice, prompt_text="oldest", created_at="2019-01-01 00:00:00")
    add(alice, prompt_text="new", created_at="2021-01-01 00:00:00")
    add(alice, prompt_text="newer", created_at="2021-01-01 00:00:00")

    assert prompts(alice.history()) == ["newer", "new", "old", "oldest"]


def test_pages_follow_each_other(alice):
    add(alice, 5)

    pages = [alice.history(f"?page={page}&per_page=2") for page in (1, 2, 3, 4)]

    assert [prompts(page) for page in pages] == [
        ["image 4", "image 3"],
        ["image 2", "image 1"],
        ["image 0"],
        [],
    ]
    assert pages[3]["pagination"] == {
        "total": 5,
        "page": 4,
        "perPage": 2,
        "totalPages": 3,
        "nextCursor": None,
    }


def test_per_page_is_capped_at_50(alice):
    add(alice, 51)

    page = alice.history("?per_page=1000")

    assert (len(page["records"]), page["pagination"]["perPage"]) == (50, 50)


@pytest.mark.parametrize(
    "value", ["0", "-1", "1.5", "x", "", "1e3", "１", "+1", "1_0", " 1", "9" * 101]
)
@pytest.mark.parametrize("name", ["page", "per_page"])
def test_a_number_that_is_not_positive_is_named(alice, name, value):
    response = alice.get("/api/v1/images/history", query_string={name: value})

    assert response.status_code == 400
    assert list(response.json["fields"]) == [name]


def test_a_page_far_past_the_end_is_empty(alice):
    add(alice)

    page = alice.history("?page=" + "9" * 60)

    assert page["records"] == [] and page["pagination"]["total"] == 1


def test_everyone_sees_only_their_own(alice, bob):
    add(alice, prompt_text="mine")

    assert bob.history()["records"] == []
    assert bob.history()["pagination"]["total"] == 0


def test_the_total_stays_right_as_a_history_grows_and_shrinks(alice):
    totals = []
    for number in (4, 1, 0, 5):
        for _ in range(number):
            alice.generate()
        totals.append(alice.history()["pagination"]["total"])
    ids = [record["id"] for record in alice.history()["records"]]
    alice.post("/api/v1/images/delete", json={"ids": ids[:3]})

    assert totals == [4, 5, 5, 10]
    assert alice.history()["pagination"]["total"] == 7


@pytest.mark.parametrize("stored", [None, "", "not json", "[1]", "null", "[" * 9000])
def test_params_of_old_rows_always_have_model_and_seed(alice, stored):
    add(alice, generation_params_json=stored)

    assert alice.history()["records"][0]["params"] == {"model_used": None, "seed": None}


def test_params_of_old_rows_are_shown_as_they_are(alice):
    params = {"model_used": "test_model_v1", "seed": 12345, "steps": 50, "备注": "中文"}
    add(alice, generation_params_json=json.dumps(params))

    assert alice.history()["records"][0]["params"] == params


def all_views(person, number: int) -> list[dict]:
    """Return a record as each answer that has one shows it; each must be JSON for everyone."""
    answers = [
        person.get("/api/v1/images/history"),
        person.get(f"/api/v1/images?ids={number}"),
        person.get(f"/api/v1/images/{number}"),
        person.open("PATCH", f"/api/v1/images/{number}", json={"favorite": True}),
    ]
    shown = []
    for answer in answers:
        assert answer.status_code == 200
        data = json.loads(answer.data.decode("utf-8"), parse_constant=pytest.fail)["data"]
        records = data.get("records", [data])
        shown.append(next(one for one in records if one["id"] == number))
    return shown


def check_old_row(person, **columns) -> dict:
    """Add a row as an old program left it, and return its record; its owner can do everything."""
    add(person, **columns)
    number = db.value("SELECT MAX(id) FROM image_generations")
    *_, shown = all_views(person, number)
    assert person.post(f"/api/v1/images/{number}/retry").status_code in (202, 400)
    cursor = person.history("?per_page=1")["pagination"]["nextCursor"]
    if cursor:
        assert person.get(f"/api/v1/images/history?cursor={cursor}").status_code == 200
    assert person.post(f"/api/v1/images/{number}/cancel").status_code in (200, 409)
    assert person.open("DELETE", f"/api/v1/images/{number}").status_code == 200
    return shown


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (r'{"a": "\ud800"}', {"a": "?"}),
        (r'{"\udfff": ["\uD83D", "\ud83d\ude00"]}', {"?": ["?", "😀"]}),
        (
            '{"a": NaN, "b": [Infinity, -Infinity], "c": 1e999}',
            {"a": None, "b": [None] * 2, "c": None},
        ),
        ('{"seed": 1' + "0" * 400 + "}", {"seed": 10**400}),
        ('{"seed": 1' + "0" * 9000 + "}", {}),
        ('{"a": ' * 150 + "1" + "}" * 150, {}),
        ("[" * 10_000, {}),
        ('{"a": ' * 900 + "1" + "}" * 900, {}),
        ('"text"', {}),
        ("12", {}),
        ('{"steps": "x", "width": [], "seed": "y", "requested": {"height": {}}}', None),
        ('{"model_used": "m", "guidance": true, "negative_prompt": 1, "steps": 1e308}', None),
    ],
)
def test_params_of_an_old_program_are_shown_whatever_they_are(alice, stored, shown):
    record = check_old_row(alice, generation_params_json=stored, model="test_model")

    if shown is not None:
        assert record["params"] == {"model_used": None, "seed": None, **shown}


@pytest.mark.parametrize(
    "columns",
    [
        {"status": ""},
        {"status": "erledigt"},
        {"status": "pending"},
        {"prompt_text": ""},
        {"prompt_text": "\x00\x1b\u202e\U0001f600"},
        {"image_url": "", "thumbnail_url": "x"},
        {"image_url": "http://[::1", "thumbnail_url": "../" * 60},
        {"image_url": "/api/uploads/" + "a" * 240},
        {"image_url": "/api/uploads/generated_images/"},
        {"image_url": "C:\\images\\1.png?x=1#y"},
        {"error_message": "\x07", "error_code": "none of ours"},
        {"model": "none of ours", "status": "pending", "progress": -7},
        {"width": -1, "height": 2**31 - 1},
    ],
)
def test_a_row_of_an_old_program_is_shown_whatever_it_says(alice, columns):
    check_old_row(alice, **columns)


@pytest.mark.parametrize("text", ["0000-00-00 00:00:00", "2024-00-00 00:00:00"])
def test_a_zero_date_is_shown_as_none(alice, settings, text):
    add(alice)
    with db.transaction():
        if settings.uses_mysql:
            db.execute("SET sql_mode = ''")
            db.execute("ALTER TABLE image_generations MODIFY created_at DATETIME DEFAULT NOW()")
        db.execute("UPDATE image_generations SET created_at = %s, started_at = %s", text, text)
    pool.close()

    shown = check_old_row(alice, prompt_text="another")

    old = alice.history()["records"][-1]
    assert (old["createdAt"], old["startedAt"]) == (None, None)
    assert shown["createdAt"].endswith("Z")
    cursor = alice.history("?per_page=1")["pagination"]["nextCursor"]
    assert alice.get(f"/api/v1/images/history?cursor={cursor}").status_code == 200


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe",
        "\ud800",
        1.5,
        -(2**63),
        2**63 - 1,
        float("inf"),
        "",
        "x" * 5000,
        None,
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_any_column_of_sqlite_may_hold_anything(alice, value):
    columns = [name for name in history.Generation.__annotations__ if name != "id"]
    for name in columns:
        add(alice)
        number = db.value("SELECT MAX(id) FROM image_generations")
        if value == "\ud800":
            db.execute(f"UPDATE image_generations SET {name} = CAST(x'eda080' AS TEXT)")
        else:
            with suppress(sqlite3.IntegrityError):  # NOT NULL
                db.execute(f"UPDATE image_generations SET {name} = %s", value)

        all_views(alice, number)
        cursor = alice.history("?per_page=1")["pagination"]["nextCursor"]
        assert alice.get(f"/api/v1/images/history?cursor={cursor or ''}").status_code in (200, 400)
        assert alice.open("DELETE", f"/api/v1/images/{number}").status_code == 200


def test_a_failed_generation_says_why(alice):
    add(alice, status="failed", error_message="内容被拒绝")

    record = alice.history()["records"][0]

    assert (record["status"], record["errorMessage"], record["imageUrl"]) == (
        "failed",
        "内容被拒绝",
        None,
    )


def test_a_stranger_needs_to_log_in(client):
    assert client.get("/api/v1/images/history").status_code == 401


# -- Filters and the cursor ---------------------------------------------------------------------


@pytest.fixture
def varied(alice):
    """A history with something for each filter, a day apart."""
    for day, (prompt, status, model, favorite) in enumerate(
        [
            ("a fox", "completed", "test_model", 0),
            ("一只狐狸在雪地里", "completed", "test_model", 1),
            ("100% cotton", "failed", "other", 0),
            ("snake_case!", "canceled", "other", 0),
        ],
        start=1,
    ):
        add(
            alice,
            prompt_text=prompt,
            status=status,
            model=model,
            favorite=favorite,
            created_at=f"2024-01-0{day} 12:00:00",
        )
    return alice


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=completed", ["一只狐狸在雪地里", "a fox"]),
        ("status=failed", ["100% cotton"]),
        ("status=pending", []),
        ("q=fox", ["a fox"]),
        ("q=狐狸", ["一只狐狸在雪地里"]),
        ("q=%25", ["100% cotton"]),
        ("q=_", ["snake_case!"]),
        ("q=!", ["snake_case!"]),
        ("q=%27%20OR%201=1", []),
        ("favorite=true", ["一只狐狸在雪地里"]),
        ("favorite=false&model=test_model", ["a fox"]),
        ("model=other", ["snake_case!", "100% cotton"]),
        ("model=none", []),
        ("since=2024-01-03T12:00:00Z", ["snake_case!", "100% cotton"]),
        ("until=2024-01-01", []),
        ("until=2024-01-02T00:00:00%2B00:00", ["a fox"]),
        ("since=2024-01-02T20:00:00%2B08:00&until=2024-01-02T12:00:00Z", ["一只狐狸在雪地里"]),
    ],
)
def test_filters_find_what_they_say(varied, query, found):
    page = varied.history(f"?{query}")

    assert prompts(page) == found
    assert page["pagination"]["total"] == len(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "done"),
        ("favorite", "1"),
        ("since", "yesterday"),
        ("until", "2024-13-01"),
        ("cursor", "x"),
        ("cursor", "é"),
        ("cursor", "MjAyNA"),
        ("q", "x" * 201),
        ("since", "9999-12-31T23:59:59-12:00"),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(alice, name, value):
    response = alice.get("/api/v1/images/history", query_string={name: value})

    assert response.status_code == 400
    assert list(response.json["fields"]) == [name]


def test_the_cursor_walks_through_everything_once(alice):
    add(alice, 4, created_at="2024-01-01 00:00:00")
    add(alice, 3, created_at="2024-01-02 00:00:00")
    seen, cursor = [], ""
    while cursor is not None:
        page = alice.history(f"?per_page=2{cursor and '&cursor=' + cursor}")
        seen += [record["id"] for record in page["records"]]
        cursor = page["pagination"]["nextCursor"]

    assert len(seen) == len(set(seen)) == 7
    assert seen == [record["id"] for record in alice.history("?per_page=50")["records"]]


def test_rows_added_meanwhile_do_not_move_the_cursor(alice):
    add(alice, 4)
    first = alice.history("?per_page=2")
    add(alice, 2)

    second = alice.history(f"?per_page=2&cursor={first['pagination']['nextCursor']}")

    assert prompts(second) == ["image 1", "image 0"]


def test_filters_go_with_the_cursor(varied):
    first = varied.history("?status=completed&per_page=1")

    second = varied.history(
        f"?status=completed&per_page=1&cursor={first['pagination']['nextCursor']}"
    )

    assert prompts(second) == ["a fox"]


def test_a_filtered_count_ends_at_its_bound(alice, monkeypatch):
    monkeypatch.setattr(history, "MAX_COUNT", 3)
    add(alice, 5)

    assert alice.history("?status=completed")["pagination"]["total"] == 3
    assert alice.history()["pagination"]["total"] == 5


@pytest.mark.parametrize(
    "end",
    [lambda user: users.set_disabled(user, True), lambda user: users.set_password(user, "x")],
)
def test_a_session_that_ended_sees_no_history(alice, end):
    add(alice)
    end(alice.id)

    response = alice.get("/api/v1/images/history")

    assert (response.status_code, response.json["code"]) == (401, "token_invalid")


def test_the_next_page_is_a_link(alice):
    for prompt in ("a fox", "a hen", "日落"):
        alice.generate(prompt)

    path, found, calls = "/api/v1/images/history?page=1&per_page=2&q=&nonsense=1", [], 0
    while path and calls < 5:
        response = alice.get(path)
        found += [record["prompt"] for record in response.json["data"]["records"]]
        link = parse_header_links(response.headers.get("Link", ""))
        path, calls = (link[0]["url"] if link else None), calls + 1

    assert (found, calls) == (["日落", "a hen", "a fox"], 2)


def test_link_to_the_next_page_keeps_the_filters_and_is_short(alice):
    alice.generate("长" * 200)

    query = {"q": "长" * 200, "per_page": "1", "page": "1", "status": "completed", "x": "y" * 3000}
    response = alice.get("/api/v1/images/history", query_string=query)

    [link] = parse_header_links(response.headers["Link"])
    kept = dict(parse_qsl(urlsplit(link["url"]).query))
    assert link["rel"] == "next" and len(response.headers["Link"]) < 2500
    assert kept.pop("cursor") == response.json["data"]["pagination"]["nextCursor"]
    assert kept == {"q": "长" * 200, "per_page": "1", "status": "completed"}
