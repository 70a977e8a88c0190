"""The trash: what is deleted goes there, comes back, and is purged; and what goes by itself."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import db
from accounts import registration, users
from config import settings as current
from files import storage
from images import jobs, queue, retention, trash
from tests.conftest import Person
from tests.test_queue import next_generation
from tests.test_tags import add, found, listed, tag, tags_of

DAY = 86400


@pytest.fixture
def bin_of_a_week(settings):
    settings.TRASH_DAYS = 7


def made(person) -> dict:
    """Make an image and return its record."""
    number = person.generate().json["data"]["id"]
    return person.get(f"/api/v1/images/{number}").json["data"]


def delete(person, number: int, query: str = ""):
    return person.open("DELETE", f"/api/v1/images/{number}{query}")


def restore(person, *ids: int) -> list[int]:
    answer = person.post("/api/v1/images/restore", json={"ids": list(ids)})
    return answer.json["data"]["restored"]


def in_trash(person, query: str = "") -> list[int]:
    page = person.get(f"/api/v1/images/trash{query}").json["data"]
    return [record["id"] for record in page["records"]]


def urls(record: dict) -> list[str]:
    """Return the links to an image that need no token."""
    return [record[name] for name in ("signedImageUrl", "signedThumbnailUrl", "signedStrippedUrl")]


def files_of(person) -> list:
    folder = current.uploads_dir / "generated_images" / str(person.id)
    return sorted(folder.iterdir()) if folder.exists() else []


def counters(person) -> tuple[int, int]:
    row = db.one("SELECT image_count, storage_bytes FROM users WHERE id = %s", person.id)
    return row["image_count"], row["storage_bytes"]


def test_what_is_deleted_answers_410_at_once_and_comes_back_as_it_was(alice, client, bin_of_a_week):
    record = made(alice)
    number = record["id"]
    tag(alice, [number], "Sunset")
    alice.open("PATCH", f"/api/v1/images/{number}", json={"favorite": True})
    before = alice.get(f"/api/v1/images/{number}").json["data"]

    assert delete(alice, number).json["data"] == {"deleted": [number]}

    ways = [
        alice.get(f"/api/v1/images/{number}"),
        alice.get(record["imageUrl"]),
        alice.get(record["thumbnailUrl"]),
        alice.post(f"/api/v1/images/{number}/retry"),
        delete(alice, number),
        *[client.get(url) for url in urls(record)],
    ]
    assert {(way.status_code, way.json["code"]) for way in ways} == {(410, "image_deleted")}
    assert alice.history()["records"] == [] and alice.history()["pagination"]["total"] == 0
    assert alice.history("?q=fox")["records"] == []
    assert (listed(alice), found(alice, "sunset")) == ({}, [])
    assert alice.get(f"/api/v1/images?ids={number}").json["data"]["records"] == []
    assert len(files_of(alice)) == 2

    assert restore(alice, number, 999) == [number]

    after = alice.get(f"/api/v1/images/{number}").json["data"]
    assert {**after, "updatedAt": None} == {**before, "updatedAt": None}
    assert {client.get(url).status_code for url in urls(record)} == {200}
    assert alice.history()["pagination"]["total"] == 1
    assert (listed(alice), found(alice, "sunset")) == ({"Sunset": 1}, [number])
    assert in_trash(alice) == []
    assert delete(alice, number).status_code == 200 and restore(alice, number) == [number]


def test_without_a_trash_a_deleted_image_is_gone_at_once(alice):
    record = made(alice)

    assert delete(alice, record["id"]).status_code == 200

    assert (in_trash(alice), files_of(alice)) == ([], [])
    assert restore(alice, record["id"]) == []
    assert alice.get(f"/api/v1/images/{record['id']}").status_code == 410


def test_the_trash_shows_what_is_in_it_and_when_it_is_purged(alice, bin_of_a_week):
    record = made(alice)
    delete(alice, record["id"])
    db.execute("UPDATE trashed_generations SET trashed_at = 1800000000")

    [shown] = alice.get("/api/v1/images/trash").json["data"]["records"]

    gone = ("imageUrl", "thumbnailUrl", "signedImageUrl", "signedThumbnailUrl", "signedStrippedUrl")
    assert {shown[name] for name in gone} == {None}
    assert (shown["id"], shown["prompt"]) == (record["id"], record["prompt"])
    assert shown["purgesAt"] == "2027-01-22T08:00:00Z"
    assert shown["expiresAt"] is None


def test_pages_of_the_trash_follow_each_other(alice, bin_of_a_week):
    ids = add(alice, 5)
    alice.post("/api/v1/images/delete", json={"ids": ids})
    db.execute("UPDATE trashed_generations SET trashed_at = trashed_at - 9 WHERE id = %s", ids[4])

    pages, cursor = [], ""
    while cursor is not None:
        answer = alice.get(f"/api/v1/images/trash?per_page=2{cursor and '&cursor=' + cursor}")
        page = answer.json["data"]
        pages.append([record["id"] for record in page["records"]])
        cursor = page["pagination"]["nextCursor"]

    assert pages == [[ids[3], ids[2]], [ids[1], ids[0]], [ids[4]]]
    assert page["pagination"] == {"total": 5, "perPage": 2, "nextCursor": None}


@pytest.mark.parametrize("query", ["per_page=0", "per_page=x", "cursor=x", "cursor=eHwx"])
def test_a_query_of_the_trash_that_cannot_be_is_refused(alice, query):
    response = alice.get(f"/api/v1/images/trash?{query}")

    assert response.status_code == 400
    assert list(response.json["fields"]) == [query.partition("=")[0]]


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"ids": ["1"]}, {"ids": [1], "x": 1}])
def test_a_restore_that_cannot_be_is_refused(alice, body):
    assert alice.post("/api/v1/images/restore", json=body).status_code == 400


def test_a_purge_that_is_neither_true_nor_false_is_refused(alice):
    [number] = add(alice)

    assert list(delete(alice, number, "?purge=1").json["fields"]) == ["purge"]
    assert alice.history()["pagination"]["total"] == 1


def test_a_purge_deletes_for_good_also_what_is_in_the_trash(alice, bin_of_a_week):
    first, second, third = made(alice), made(alice), made(alice)
    delete(alice, first["id"])
    stored = counters(alice)

    assert delete(alice, first["id"], "?purge=true").json["data"] == {"deleted": [first["id"]]}
    body = {"ids": [second["id"], first["id"]]}
    answer = alice.post("/api/v1/images/delete?purge=true", json=body)

    assert answer.json["data"] == {"deleted": [second["id"]]}
    assert len(files_of(alice)) == 2 and in_trash(alice) == []
    assert restore(alice, first["id"], second["id"]) == []
    assert delete(alice, first["id"], "?purge=true").status_code == 410
    assert stored[0] == 2 and counters(alice)[0] == 1
    assert db.value("SELECT COUNT(*) FROM pending_deletions") == 0
    assert alice.get(third["imageUrl"]).status_code == 200


def test_the_trash_of_others_is_as_if_it_were_not_there(alice, bob, client, bin_of_a_week):
    record = made(alice)
    delete(alice, record["id"])

    assert in_trash(bob) == [] and restore(bob, record["id"]) == []
    assert delete(bob, record["id"], "?purge=true").status_code == 404
    answer = bob.post("/api/v1/images/delete?purge=true", json={"ids": [record["id"]]})
    assert answer.json["data"] == {"deleted": []}
    assert bob.get(record["imageUrl"]).status_code == 403
    assert client.get(record["imageUrl"]).status_code == 401
    assert client.get(record["signedImageUrl"] + "0").status_code == 403
    assert in_trash(alice) == [record["id"]]
    for path in ("images/trash", "images/restore"):
        method = "GET" if path.endswith("trash") else "POST"
        assert client.open(method, f"/api/v1/{path}", json={"ids": [1]}).status_code == 401


def test_what_is_made_for_the_trash_is_canceled_and_refunded(alice, bin_of_a_week):
    answer = alice.post("/api/v1/images/generate", json={"prompt": "a fox", "n": 2})
    first, second = [record["id"] for record in answer.json["data"]["records"]]
    job = jobs.claim(first)

    alice.post("/api/v1/images/delete", json={"ids": [first, second]})

    with pytest.raises(jobs.ClaimLost):
        jobs.run(job)
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 0
    assert files_of(alice) == []
    assert restore(alice, first, second) == [first, second]
    states = {record["status"] for record in alice.history()["records"]}
    assert states == {"canceled"}
    assert next_generation([job["model"]]) is None


def test_the_trash_moves_every_column(database):
    listed_columns = [name.strip() for name in trash.ROW.split(",")]

    columns = [
        list(row) for row in map(table_columns, ("image_generations", "trashed_generations"))
    ]

    assert sorted(columns[0]) == sorted(listed_columns)
    assert sorted(columns[1]) == sorted([*listed_columns, "trashed_at"])


def table_columns(table: str) -> list[str]:
    if current.uses_mysql:
        sql = """
            SELECT COLUMN_NAME AS name
              FROM information_schema.COLUMNS
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = %s
        """
        return [row["name"] for row in db.all(sql, table)]
    return [row["name"] for row in db.all(f"PRAGMA table_info({table})")]


@pytest.mark.parametrize(
    "columns",
    [
        {"image_url": None},
        {"image_url": "/api/uploads/generated_images/{id}/old.png"},
        {
            "image_url": "http://old.example/api/uploads/generated_images/{id}/old.png",
            "thumbnail_url": "http://old.example/api/uploads/generated_images/{id}/old.png",
        },
        {"status": "weird", "generation_params_json": "[" * 900, "error_message": "x" * 5000},
        {"created_at": "1971-01-01 00:00:01", "status": "pending"},
    ],
)
def test_a_row_of_an_old_program_goes_and_comes_back(alice, client, bin_of_a_week, columns):
    filled = {name: str(text).format(id=alice.id) for name, text in columns.items() if text}
    key = f"generated_images/{alice.id}/old.png"
    storage.put(key, b"old")
    [number] = add(alice, **filled)
    before = alice.get(f"/api/v1/images/{number}").json["data"]

    assert delete(alice, number).status_code == 200
    withheld = alice.get(storage.url(key)).status_code
    assert len(in_trash(alice)) == 1
    restore(alice, number)

    after = alice.get(f"/api/v1/images/{number}").json["data"]
    is_pending = filled.get("status") == "pending"
    changed = {"updatedAt", "finishedAt", "status"} if is_pending else {"updatedAt"}
    assert {name for name in after if after[name] != before[name]} <= changed
    assert withheld == (410 if "image_url" in filled else 200)
    assert alice.get(storage.url(key)).status_code == 200
    delete(alice, number)
    delete(alice, number, "?purge=true")
    assert alice.get(storage.url(key)).status_code == (404 if "image_url" in filled else 200)


def test_a_deleted_account_leaves_nothing_in_the_trash(alice, bin_of_a_week):
    number = made(alice)["id"]
    tag(alice, [number, made(alice)["id"]], "a")
    delete(alice, number)

    registration.delete_account(users.get_user(alice.id))

    for table in ("trashed_generations", "trashed_files", "image_tags", "deleted_generations"):
        assert db.value(f"SELECT COUNT(*) FROM {table}") == 0
    assert files_of(alice) == []


# -- What goes by itself ------------------------------------------------------------------------


def test_the_sweep_purges_what_was_in_the_trash_for_so_long(alice, bin_of_a_week):
    first, second = made(alice)["id"], made(alice)["id"]
    alice.post("/api/v1/images/delete", json={"ids": [first, second]})
    db.execute(
        "UPDATE trashed_generations SET trashed_at = trashed_at - %s WHERE id = %s", 7 * DAY, first
    )

    jobs.sweep()

    assert in_trash(alice) == [second] and len(files_of(alice)) == 2
    assert restore(alice, first) == []


def test_a_trash_that_is_switched_off_is_emptied(alice, bob, settings, bin_of_a_week):
    for person in (alice, bob):
        delete(person, made(person)["id"])
    settings.TRASH_DAYS = 0

    jobs.sweep()

    assert (in_trash(alice), in_trash(bob)) == ([], [])
    assert (files_of(alice), files_of(bob)) == ([], [])


def age(days: float, number: int) -> None:
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - days * DAY))
    db.execute("UPDATE image_generations SET created_at = %s WHERE id = %s", moment, number)


@pytest.mark.parametrize("trash_days", [0, 7])
def test_old_images_go_unless_they_are_favorites(alice, settings, trash_days):
    settings.IMAGE_DAYS, settings.TRASH_DAYS = 30, trash_days
    old, liked, young = made(alice)["id"], made(alice)["id"], made(alice)["id"]
    alice.open("PATCH", f"/api/v1/images/{liked}", json={"favorite": True})
    age(31, old)
    age(31, liked)
    age(29, young)

    jobs.sweep()

    assert [record["id"] for record in alice.history()["records"]] == [young, liked]
    assert alice.history()["pagination"]["total"] == 2
    assert in_trash(alice) == ([old] if trash_days else [])
    assert len(files_of(alice)) == (6 if trash_days else 4)
    assert alice.get(f"/api/v1/images/{old}").status_code == 410


def test_nothing_goes_by_itself_unless_it_is_set(alice):
    number = made(alice)["id"]
    age(10_000, number)

    jobs.sweep()

    [record] = alice.history()["records"]
    assert (record["id"], record["expiresAt"]) == (number, None)


def test_a_record_says_when_it_goes(alice, settings):
    settings.IMAGE_DAYS = 30
    number = made(alice)["id"]
    db.execute("UPDATE image_generations SET created_at = '2026-01-01 00:00:00'")

    def shown() -> str | None:
        return alice.get(f"/api/v1/images/{number}").json["data"]["expiresAt"]

    assert shown() == "2026-01-31T00:00:00Z"
    alice.open("PATCH", f"/api/v1/images/{number}", json={"favorite": True})
    assert shown() is None
    [waiting] = alice.post("/api/v1/images/generate", json={"prompt": "x"}).json["data"]["records"]
    assert waiting["expiresAt"] is None


def test_what_is_restored_stays_as_long_as_a_new_one(alice, settings, bin_of_a_week):
    settings.IMAGE_DAYS = 30
    number = made(alice)["id"]
    age(31, number)
    jobs.sweep()

    assert restore(alice, number) == [number]
    jobs.sweep()

    [record] = alice.history()["records"]
    expires = time.mktime(time.strptime(record["expiresAt"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert 29 * DAY < expires - time.time() <= 30 * DAY
    db.execute("UPDATE image_generations SET kept_since = kept_since - %s", 31 * DAY)
    jobs.sweep()
    assert alice.history()["records"] == []


@pytest.mark.parametrize("created_at", ["not a time", 12, b"\xff", "2020/01/01", None])
def test_a_row_whose_time_is_none_stays(database, settings, created_at):
    if database == "mariadb":
        pytest.skip("only SQLite takes any value for a time")
    alice = Person("alice")
    settings.IMAGE_DAYS = 1
    [number] = add(alice)
    db.execute("UPDATE image_generations SET created_at = %s", created_at)

    jobs.sweep()

    assert alice.get(f"/api/v1/images/{number}").json["data"]["expiresAt"] is None


def test_a_clock_that_is_years_ahead_deletes_nothing(alice, settings, monkeypatch, bin_of_a_week):
    settings.IMAGE_DAYS = 30
    kept, trashed = made(alice)["id"], made(alice)["id"]
    delete(alice, trashed)
    monkeypatch.setattr(queue, "database_time", lambda: time.time() + 3650 * DAY)

    retention.sweep()

    assert alice.history()["pagination"]["total"] == 1
    assert in_trash(alice) == [trashed]
    assert kept


def test_a_favorite_of_the_last_moment_stays(alice, settings, monkeypatch):
    settings.IMAGE_DAYS = 30
    number = made(alice)["id"]
    age(31, number)
    list_expired_of = retention.list_expired_of

    def list_and_mark(*arguments):
        ids = list_expired_of(*arguments)
        alice.open("PATCH", f"/api/v1/images/{number}", json={"favorite": True})
        return ids

    monkeypatch.setattr(retention, "list_expired_of", list_and_mark)
    jobs.sweep()

    assert alice.get(f"/api/v1/images/{number}").status_code == 200


# -- At the same moment -------------------------------------------------------------------------


def together(*calls) -> list:
    """Call functions at the same moment, each in a thread, and return what they return."""
    barrier = threading.Barrier(len(calls))

    def wait_and(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(wait_and, call) for call in calls]]


def test_of_deletes_restores_and_purges_at_once_the_counters_stay_right(alice, bin_of_a_week):
    ids = [made(alice)["id"] for _ in range(4)]
    other = Person()
    other.headers = alice.headers

    for _ in range(3):
        together(
            lambda: alice.post("/api/v1/images/delete", json={"ids": ids}),
            lambda: other.post("/api/v1/images/restore", json={"ids": ids}),
            lambda: trash.purge(alice.id, ids[:1]),
            lambda: trash.take_out(alice.id, ids[1:2], into_trash=False),
        )

    left = alice.history()["pagination"]["total"]
    trashed = alice.get("/api/v1/images/trash").json["data"]["pagination"]["total"]
    rows = db.value("SELECT COUNT(*) FROM image_generations")
    assert left == rows and left + trashed <= 4
    assert counters(alice)[0] == rows
    tombstones = db.value("SELECT COUNT(*) FROM deleted_generations")
    assert tombstones == 4 - rows
    assert db.value("SELECT COUNT(DISTINCT generation_id) FROM trashed_files") == trashed


def test_twenty_deletes_at_once_delete_each_image_once(alice):
    ids = [made(alice)["id"] for _ in range(5)]

    answers = together(*[lambda: trash.take_out(alice.id, ids, into_trash=False)] * 20)

    assert sorted(row["id"] for rows in answers for row in rows) == ids
    assert counters(alice) == (0, 0)


def test_a_file_that_goes_while_it_is_sent_is_not_found(alice, monkeypatch):
    record = made(alice)
    found_file = storage.find

    def find_and_purge(key):
        path = found_file(key)
        storage.delete(key)
        return path

    monkeypatch.setattr(storage, "find", find_and_purge)

    for query in ("", "?metadata=strip", "?download=1"):
        assert alice.get(record["imageUrl"] + query).status_code == 404


def test_tags_of_what_is_in_the_trash_cannot_be_changed(alice, bin_of_a_week):
    [number] = add(alice)
    tag(alice, [number], "a")
    delete(alice, number)

    answer = tag(alice, [number], "b", remove=("a",))
    restore(alice, number)

    assert answer.json["data"] == {"images": []}
    assert tags_of(alice, number) == ["a"]


def test_a_restored_image_has_its_tags_as_the_account_spells_them_by_now(alice, bin_of_a_week):
    first, second, third = add(alice, 3)
    tag(alice, [first], "Fox", "sea")
    delete(alice, first)
    tag(alice, [second], "fox")
    delete(alice, second)
    tag(alice, [third], "FOX")

    restore(alice, first, second)

    assert listed(alice) == {"FOX": 3, "sea": 1}
    assert [tags_of(alice, each) for each in (first, second)] == [["FOX", "sea"], ["FOX"]]


def old_rows(person, *keys: str) -> list[int]:
    """Add rows as a program before the queue did, for files that there are."""
    for key in keys:
        storage.put(key, b"old")
    urls = [storage.url(key) for key in keys]
    return [add(person, image_url=url, thumbnail_url=url)[0] for url in urls]


@pytest.mark.parametrize("days", [0, 7])
def test_a_file_of_two_rows_goes_with_the_last_of_them(alice, settings, days):
    settings.TRASH_DAYS = days
    key = f"generated_images/{alice.id}/a.png"
    first, second = old_rows(alice, key, key)

    delete(alice, first)
    assert alice.get(storage.url(key)).status_code == 200
    delete(alice, second)
    if days:
        assert alice.get(storage.url(key)).status_code == 410
        restore(alice, first)
        assert alice.get(storage.url(key)).status_code == 200
        delete(alice, second, "?purge=true")
        assert storage.find(key)
        delete(alice, first, "?purge=true")

    assert storage.find(key) is None


@pytest.mark.parametrize("days", [0, 7])
@pytest.mark.parametrize("key", ["generated_images/{bob}/a.png", "avatars/a.png"])
def test_a_row_that_names_anothers_file_takes_it_from_nobody(alice, bob, settings, days, key):
    settings.TRASH_DAYS = days
    key = key.format(bob=bob.id)
    [row] = old_rows(alice, key)

    delete(alice, row)
    assert bob.get(storage.url(key)).status_code == 200
    delete(alice, row, "?purge=true")

    assert storage.find(key)


def test_what_was_restored_lately_hides_nobody_else_who_has_expired_images(alice, bob, settings):
    settings.IMAGE_DAYS = 30
    restored = add(alice, created_at="2026-01-01 00:00:00")
    db.execute("UPDATE image_generations SET kept_since = %s", int(time.time()))
    [expired] = add(bob, created_at="2026-01-01 00:00:00")

    retention.sweep()

    kept = [row["id"] for row in db.all("SELECT id FROM image_generations")]
    assert (kept, trash.was_deleted(bob.id, expired)) == (restored, True)


@pytest.mark.parametrize("trash_days", [0, 7])
def test_sweep_does_not_wait_for_a_store_that_is_away(
    alice, bob, settings, monkeypatch, trash_days
):
    settings.IMAGE_DAYS, settings.TRASH_DAYS = 30, trash_days
    for person in (alice, bob):
        if trash_days:
            delete(person, made(person)["id"])
        else:
            age(31, made(person)["id"])
    db.execute("UPDATE trashed_generations SET trashed_at = 1")
    tried = []

    def away(key):
        tried.append(key)
        raise storage.Unavailable

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", away)
        retention.sweep()
    assert len(tried) == 1

    jobs.sweep()
    assert (files_of(alice), files_of(bob)) == ([], [])
