"""How many bytes an account's images take: counted, limited, checked and repaired."""

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import app as service
import db
import migrations
from accounts import users
from config import settings as current
from files import cleanup, storage
from images import jobs, queue, quota, storage_check, trash, usage
from tests.conftest import Person
from tests.pictures import picture
from tests.servers import wait_until
from tests.test_tags import add
from tests.test_trash import delete, files_of, made, restore, together


def stored_bytes(person) -> int:
    return person.get("/api/auth/profile").json["data"]["storageBytes"]


def bytes_on_disk(person) -> int:
    return sum(file.stat().st_size for file in files_of(person))


def test_the_profile_says_how_much_is_stored_and_may_be(alice, settings):
    empty = alice.get("/api/auth/profile").json["data"]
    alice.generate()
    settings.MAX_STORAGE_MB, settings.IMAGE_DAYS, settings.TRASH_DAYS = 3, 30, 7

    full = alice.get("/api/auth/profile").json["data"]

    shown = ("storageBytes", "storageLimitBytes", "retentionDays", "trashDays")
    assert [empty[name] for name in shown] == [0, None, None, 0]
    assert full["storageBytes"] == bytes_on_disk(alice) > 0
    assert [full[name] for name in shown[1:]] == [3 * 1024 * 1024, 30, 7]


def test_the_trash_counts_until_it_is_purged(alice, settings):
    settings.TRASH_DAYS = 7
    first, second = made(alice)["id"], made(alice)["id"]
    both = stored_bytes(alice)

    delete(alice, first)
    assert stored_bytes(alice) == both == bytes_on_disk(alice)
    restore(alice, first)
    assert stored_bytes(alice) == both
    delete(alice, first)
    delete(alice, first, "?purge=true")
    assert 0 < stored_bytes(alice) == bytes_on_disk(alice) < both
    delete(alice, second, "?purge=true")
    assert stored_bytes(alice) == 0


def test_a_full_storage_takes_no_more_until_something_is_deleted(alice, bob, settings):
    settings.MAX_STORAGE_MB = 1
    number = made(alice)["id"]
    db.execute("UPDATE users SET storage_bytes = %s WHERE id = %s", 1024 * 1024, alice.id)

    answers = [
        alice.generate(),
        alice.post("/api/v1/images/generate", json={"prompt": "a fox"}),
        alice.post(f"/api/v1/images/{number}/retry"),
    ]

    assert {(one.status_code, one.json["code"]) for one in answers} == {(409, "storage_full")}
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 1
    assert bob.generate().status_code == 200
    delete(alice, number)
    assert alice.generate().status_code == 200


def test_a_result_that_comes_in_over_the_limit_is_kept(alice, settings):
    settings.MAX_STORAGE_MB = 1
    db.execute("UPDATE users SET storage_bytes = %s", 1024 * 1024 - 1)

    assert alice.generate().status_code == 200
    assert alice.generate().json["code"] == "storage_full"


def test_a_result_whose_claim_is_lost_counts_nothing(alice, monkeypatch):
    answer = alice.post("/api/v1/images/generate", json={"prompt": "a fox"})
    [record] = answer.json["data"]["records"]
    job = jobs.claim(record["id"])
    alice.post(f"/api/v1/images/{record['id']}/cancel")

    with pytest.raises(jobs.ClaimLost):
        jobs.run(job)

    assert stored_bytes(alice) == 0


def test_a_result_that_is_recorded_twice_counts_once(alice, monkeypatch):
    complete = queue.complete
    monkeypatch.setattr(queue, "complete", lambda *rest: complete(*rest) and complete(*rest))

    assert alice.generate().status_code == 200
    assert stored_bytes(alice) == bytes_on_disk(alice)


def test_a_failure_between_the_statements_changes_nothing(alice, monkeypatch):
    number = made(alice)["id"]
    before = stored_bytes(alice)

    def crash(*arguments):
        raise RuntimeError

    monkeypatch.setattr(quota, "forget_images", crash)
    with pytest.raises(RuntimeError):
        trash.take_out(alice.id, [number], into_trash=False)

    assert stored_bytes(alice) == before == bytes_on_disk(alice)


def test_the_counter_stays_right_under_twenty_deletes_and_new_images(alice):
    ids = [made(alice)["id"] for _ in range(10)]
    pairs = [ids[index : index + 2] for index in range(0, 10)]
    deletes = [lambda some=some: trash.take_out(alice.id, some, False) for some in pairs * 2]

    for generations in together(*deletes):
        trash.delete_files(generations)
    for _ in range(2):
        made(alice)

    assert stored_bytes(alice) == bytes_on_disk(alice) > 0
    assert quota.list_wrong_counters() == []


def test_an_upgrade_measures_the_images_of_the_release_before(alice):
    first, second, third = [made(alice)["id"] for _ in range(3)]
    db.execute("UPDATE image_generations SET file_bytes = NULL WHERE id <> %s", third)
    quota.recount_images()
    assert 0 < stored_bytes(alice) < bytes_on_disk(alice)
    [old] = add(alice, image_url="/api/uploads/generated_images/1/gone.png")
    before = db.all("SELECT id, updated_at FROM image_generations ORDER BY id")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(usage.fill_sizes) for _ in range(2)]:
            done.result()
    migrations.upgrade()

    assert stored_bytes(alice) == bytes_on_disk(alice)
    assert db.all("SELECT id, updated_at FROM image_generations ORDER BY id") == before
    row = db.one("SELECT file_bytes FROM image_generations WHERE id = %s", old)
    assert (row["file_bytes"], first < second) == (None, True)


def test_a_worker_measures_the_images_of_the_release_before(alice, start_worker):
    made(alice)
    db.execute("UPDATE image_generations SET file_bytes = NULL")
    migrations.upgrade()
    before = stored_bytes(alice)

    start_worker("worker.py")

    wait_until(lambda: stored_bytes(alice) == bytes_on_disk(alice), what="the sum")
    assert before == 0


def test_what_is_left_a_week_after_an_upgrade_is_not_measured(alice):
    made(alice)
    db.execute("UPDATE image_generations SET file_bytes = NULL")
    db.execute("UPDATE schema_migrations SET applied_at = '2026-01-01 00:00:00'")

    migrations.fill_sizes()

    assert db.value("SELECT file_bytes FROM image_generations") is None


def test_an_upgrade_counts_anew_what_the_release_before_deleted(alice):
    kept, gone = made(alice)["id"], made(alice)["id"]
    db.execute("DELETE FROM image_generations WHERE id = %s", gone)

    migrations.upgrade()

    expected = db.value("SELECT file_bytes FROM image_generations WHERE id = %s", kept)
    assert stored_bytes(alice) == expected


# -- flask storage check ------------------------------------------------------------------------


@pytest.fixture
def check(database):
    """Run `flask storage check` and return its exit status and lines."""
    runner = service.app.test_cli_runner()

    def run(*words: str) -> tuple[int, list[str]]:
        result = runner.invoke(args=["storage", "check", *words])
        assert not result.exception or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output.splitlines()

    return run


GOOD = (0, ["All is as it should be"])


def make_old(key: str) -> None:
    past = time.time() - 2 * storage_check.FRESH_SECONDS
    path = current.uploads_dir / key
    os.utime(path, (past, past))


def test_a_storage_that_is_right_has_no_findings(alice, bob, settings, check):
    settings.TRASH_DAYS = 7
    for person in (alice, bob):
        delete(person, made(person)["id"])
        record = made(person)
        for url in (record["imageUrl"], record["thumbnailUrl"]):
            make_old(storage.key_of(url))
    avatar = {"avatar": (io.BytesIO(picture("PNG")), "a.png")}
    form = {"username": "carol", "email": "c@x.de", "password": "secret1", **avatar}
    url = Person().post("/api/auth/register", data=form).json["data"]["avatarUrl"]
    make_old(storage.key_of(url))

    assert check() == check("--repair") == GOOD
    assert storage.find(storage.key_of(url))


@pytest.mark.parametrize("into_trash", [False, True])
def test_an_image_whose_file_is_missing_is_noted_as_lost(alice, settings, check, into_trash):
    settings.TRASH_DAYS = 7
    record = made(alice)
    made(alice)
    if into_trash:
        delete(alice, record["id"])
    storage.delete(storage.key_of(record["imageUrl"]))
    where = f"image {record['id']} of user {alice.id}"

    found = check()
    repaired = check("--repair")

    assert found == (1, [f"image file missing   {where}"])
    assert repaired[0] == 0 and repaired[1][0] == f"image file missing   {where}  repaired"
    if into_trash:
        restore(alice, record["id"])
    shown = alice.get(f"/api/v1/images/{record['id']}").json["data"]
    assert (shown["status"], shown["errorCode"], shown["imageUrl"]) == (
        "failed",
        "image_lost",
        None,
    )
    make_old(storage.key_of(record["thumbnailUrl"]))
    check("--repair")
    assert check() == GOOD and stored_bytes(alice) == bytes_on_disk(alice)


def test_a_missing_thumbnail_is_made_again(alice, check):
    record = made(alice)
    storage.delete(storage.key_of(record["thumbnailUrl"]))

    found = check()
    repaired = check("--repair")

    assert found[1] == [f"thumbnail missing    image {record['id']} of user {alice.id}"]
    assert repaired[0] == 0 and check() == GOOD
    assert alice.get(record["thumbnailUrl"]).mimetype == "image/webp"
    assert db.value("SELECT COUNT(*) FROM pending_deletions") == 0
    assert stored_bytes(alice) == bytes_on_disk(alice)


def test_an_image_that_cannot_be_decoded_keeps_a_missing_thumbnail(alice, check):
    record = made(alice)
    storage.put(storage.key_of(record["imageUrl"]), b"no picture")
    storage.delete(storage.key_of(record["thumbnailUrl"]))

    status, lines = check("--repair")

    assert status == 1 and not lines[0].endswith("repaired")


def test_wrong_sizes_and_counters_are_put_right(alice, bob, check):
    record = made(alice)
    made(bob)
    db.execute("UPDATE image_generations SET file_bytes = 7 WHERE id = %s", record["id"])
    db.execute("UPDATE users SET image_count = 9 WHERE id = %s", bob.id)

    found = check()
    repaired = check("--repair")

    assert [line.split("  ")[0] for line in found[1]] == ["wrong size"] + ["wrong counter"] * 2
    assert repaired[0] == 0 and check() == GOOD
    assert stored_bytes(alice) == bytes_on_disk(alice)
    assert bob.history()["pagination"]["total"] == 1


@pytest.mark.parametrize(
    "key",
    [
        "generated_images/{id}/orphan.png",
        "generated_images/{id}/.orphan.png.draft",
        "generated_images/999/orphan.png",
        "generated_images/orphan.png",
        "generated_images/other/orphan.png",
        "avatars/orphan.png",
    ],
)
def test_a_file_without_a_row_is_deleted_unless_it_is_fresh(alice, check, key):
    made(alice)
    path = current.uploads_dir / key.format(id=alice.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")

    assert check("--repair") == GOOD and path.exists()
    make_old(key.format(id=alice.id))
    status, lines = check()

    assert status == 1 and lines[0].startswith("file without a row   ")
    assert path.exists() and check("--repair")[0] == 0
    assert not path.exists() and len(files_of(alice)) == 2
    assert check() == GOOD


def test_a_file_that_waits_for_its_row_is_none_without_one(alice, check):
    key = f"generated_images/{alice.id}/soon.png"
    made(alice)
    storage.put(key, b"x")
    make_old(key)
    cleanup.schedule_deletion([key], 60)

    assert check() == GOOD


def test_files_of_an_old_program_count_wherever_they_are(alice, check):
    storage.put("generated_images/old.png", b"old")
    storage.put(f"generated_images/{alice.id + 1}/old.png", b"old")
    for key in ("generated_images/old.png", f"generated_images/{alice.id + 1}/old.png"):
        make_old(key)
        url = storage.url(key)
        add(alice, image_url=url, thumbnail_url=url)
    add(alice, image_url="https://images.example/a.png", status="completed")
    add(alice, image_url="", thumbnail_url="")
    usage.fill_sizes()

    assert check() == GOOD
    assert stored_bytes(alice) == 6


@pytest.mark.parametrize(
    "url",
    [
        "generated_images/{id}/a b.png",
        "/generated_images/{id}/a b.png",
        "/api/uploads/generated_images/{id}/a%20b.png",
        "https://old.example/api/uploads/generated_images/{id}/a%20b.png?v=1#x",
        "/static/a b.png",
    ],
)
@pytest.mark.parametrize("column", ["image_url", "thumbnail_url"])
def test_a_file_that_a_row_names_in_another_way_is_kept(alice, check, url, column):
    storage.put(f"generated_images/{alice.id}/a b.png", b"old")
    make_old(f"generated_images/{alice.id}/a b.png")
    add(alice, status="completed", **{column: url.format(id=alice.id)})

    assert check("--repair") == GOOD
    assert [file.name for file in files_of(alice)] == ["a b.png"]
    assert db.value(f"SELECT COUNT(*) FROM image_generations WHERE {column} IS NOT NULL") == 1


@pytest.mark.parametrize("user_id", [2**31 - 1, -5])
def test_accounts_with_odd_ids_keep_their_files(alice, check, user_id):
    db.execute("UPDATE users SET id = %s WHERE id = %s", user_id, alice.id)
    key = f"generated_images/{user_id}/a.png"
    storage.put(key, b"old")
    make_old(key)
    columns = {"user_id": user_id, "prompt_text": "a fox", "status": "completed"}
    db.insert("image_generations", image_url=storage.url(key), file_bytes=3, **columns)
    quota.recount_images()

    assert check("--repair") == GOOD and storage.find(key)


@pytest.mark.parametrize("url", ["https://images.example/t.png", "/uploads/../../t.png"])
def test_a_thumbnail_elsewhere_is_not_made_there(alice, check, url):
    record = made(alice)
    db.execute("UPDATE image_generations SET thumbnail_url = %s", url)
    storage.delete(storage.key_of(record["thumbnailUrl"]))

    check("--repair")

    assert db.value("SELECT COUNT(*) FROM pending_deletions") == 0
    assert len(files_of(alice)) == 1


def test_names_that_no_program_of_ours_gives_are_no_crash(alice, check):
    folder = made(alice) and files_of(alice)[0].parent
    for name in (b"\xff.png", "a" * 250 + ".png"):
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        open(path, "wb").close()
        os.utime(path, (1, 1))

    status, lines = check("--repair")

    assert status == 1 and len(lines) == 1 and "aaa.png" in lines[0]
    assert len(files_of(alice)) == 4


def test_an_account_that_is_being_deleted_is_no_finding(alice, bob, check):
    record = made(alice)
    for name in ("imageUrl", "thumbnailUrl"):
        make_old(storage.key_of(record[name]))
    db.execute("UPDATE users SET is_disabled = 1, deleted_at = 1 WHERE id = %s", alice.id)
    assert users.delete_portion(alice.id) is False
    half = check("--repair")
    while not users.delete_portion(alice.id):
        pass

    assert half == check("--repair") == GOOD and len(files_of(alice)) == 2


def test_an_empty_folder_is_not_taken_for_lost_images(alice, settings, check, tmp_path):
    made(alice)
    settings.DATA_DIR, before = tmp_path / "elsewhere", settings.DATA_DIR

    if current.uses_mysql:
        status, lines = check("--repair")
        assert status == 1 and "DATA_DIR" in lines[0]
    settings.DATA_DIR = before
    assert check() == GOOD


def test_what_changes_while_it_is_checked_is_no_finding(alice, check, monkeypatch):
    """Another thread makes and deletes images all the time."""
    made(alice)
    is_over = threading.Event()
    monkeypatch.setattr(storage_check, "FRESH_SECONDS", -5)

    def work():
        while not is_over.is_set():
            delete(alice, made(alice)["id"])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        results = [check() for _ in range(15)]
    finally:
        is_over.set()
        thread.join()

    assert results == [GOOD] * 15


def test_storage_that_is_away_is_said_in_one_line(alice, check, monkeypatch):
    def refuse(*arguments):
        raise storage.Unavailable

    monkeypatch.setattr(storage, "list_folders", refuse)
    made(alice)

    status, lines = check()

    assert status == 1 and "unavailable" in lines[0] and len(lines) == 1
