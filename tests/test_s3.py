"""Files in a bucket of a real S3-compatible store: answers, outages, and moving there and back."""

import hashlib
import io
import math
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests

import app as service
import config
import db
from accounts import users
from files import cleanup, moving, storage
from files.stored import Unavailable
from images import PENDING, jobs, results
from tests.conftest import form
from tests.pictures import picture
from tests.servers import ROOT, clean_environment, free_port

DISK = config.Location()
SIZE = {"width": 64, "height": 64, "steps": 1}


@pytest.fixture
def away(bucket, settings):
    """Let the bucket be at an address where nobody answers; return what ends that."""
    good = settings.STORAGE_URL

    def back():
        settings.STORAGE_URL = good

    address = f"s3://images/x?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"
    settings.STORAGE_URL = config.location(address)
    return back


@pytest.fixture
def run():
    """Run `flask storage …` and return its exit status and what it says."""
    runner = service.app.test_cli_runner()

    def run(*words: str) -> tuple[int, str]:
        result = runner.invoke(args=["storage", *words])
        assert not result.exception or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    return run


def made(person, prompt: str = "a fox") -> dict:
    assert person.generate(prompt).status_code == 200
    return person.history()["records"][0]


def keys(store=None) -> list[str]:
    store = store or storage.stores()[0]
    return list(moving._keys(store, ""))


# -- Answers -------------------------------------------------------------------------------------


def test_an_image_is_had_by_a_link_that_ends_soon(alice, bucket, settings):
    record = made(alice)

    response = alice.get(record["imageUrl"])

    assert response.status_code == 302
    assert response.headers["Cache-Control"] == "private, max-age=240"
    assert response.headers["Location"].startswith(bucket.endpoint)
    assert "X-Amz-Expires=300&" in response.headers["Location"]
    shown = requests.get(response.headers["Location"], timeout=9)
    assert (shown.status_code, shown.headers["Content-Type"]) == (200, "image/png")
    assert "Content-Disposition" not in shown.headers
    assert shown.content == storage.read(storage.key_of(record["imageUrl"]))
    assert not settings.uploads_dir.exists()


def test_a_link_is_good_for_one_file_and_one_method(alice, bucket):
    record = made(alice)

    head = alice.open("HEAD", record["thumbnailUrl"]).headers["Location"]
    get = alice.get(record["thumbnailUrl"]).headers["Location"]

    assert requests.head(head, timeout=9).status_code == 200
    assert requests.put(get, data=b"x", timeout=9).status_code == 403
    assert requests.get(get.replace("_thumbnail.webp", ".png"), timeout=9).status_code == 403


def test_a_link_ends_no_later_than_the_signed_link_it_was_given_for(alice, bucket, monkeypatch):
    record = made(alice)
    now = int(time.time())
    parts = urlsplit(record["signedImageUrl"])
    expires = int(dict(pair.split("=") for pair in parts.query.split("&"))["expires"])
    monkeypatch.setattr("web.files.time.time", lambda: expires - 90)

    response = service.app.test_client().get(record["signedImageUrl"])

    assert now < expires
    assert "X-Amz-Expires=90&" in response.headers["Location"]
    assert response.headers["Cache-Control"] == "private, max-age=30"


def test_who_may_not_see_an_image_gets_no_link(alice, bob, client, bucket, settings):
    settings.TRASH_DAYS = 7
    record = made(alice)

    assert client.get(record["imageUrl"]).status_code == 401
    assert bob.get(record["imageUrl"]).status_code == 403
    assert alice.get(f"/api/uploads/generated_images/{alice.id}/no.png").status_code == 404
    alice.open("DELETE", f"/api/v1/images/{record['id']}")
    assert alice.get(record["imageUrl"]).status_code == 410


@pytest.mark.parametrize(
    "name", ["..", "a%00b", "a%2f%2fb", "%2e%2e%2fx", ".x", "ü 中%20.png", "x" * 2000]
)
def test_odd_names_are_not_found(client, bucket, name):
    assert client.get(f"/api/uploads/avatars/{name}").status_code == 404


def test_a_download_has_a_name_and_goes_through_the_service(alice, bucket):
    record = made(alice, "雪中的狐狸")

    response = alice.get(f"{record['imageUrl']}?download=1")

    assert response.status_code == 200 and response.data.startswith(b"\x89PNG")
    assert response.headers["Content-Disposition"].startswith("attachment; filename=")
    assert "%E9%9B%AA" in response.headers["Content-Disposition"]


def test_without_metadata_and_shared_an_image_goes_through_the_service(alice, client, bucket):
    record = made(alice, "a secret fox")
    token = alice.post(f"/api/v1/images/{record['id']}/share", json={}).json["data"]["url"]

    for response in (alice.get(f"{record['imageUrl']}?metadata=strip"), client.get(token)):
        assert response.status_code == 200 and response.data.startswith(b"\x89PNG")
        assert b"secret" not in response.data


def test_an_avatar_is_had_by_a_link_and_replaced(client, alice, bucket):
    data = {"avatar": (io.BytesIO(picture("PNG")), "a.png")}
    url = alice.open("PATCH", "/api/auth/profile", data=data).json["data"]["avatarUrl"]

    link = client.get(url).headers["Location"]

    assert requests.get(link, timeout=9).headers["Content-Type"] == "image/png"
    alice.open("PATCH", "/api/auth/profile", json={"avatar": None})
    assert client.get(url).status_code == 404 and keys() == []


def test_proxied_an_image_is_answered_as_from_the_disk(alice, bucket, settings):
    settings.SERVE_FROM = "proxy"
    url = made(alice)["imageUrl"]
    data = storage.read(storage.key_of(url))

    whole = alice.get(url)
    etag, modified = whole.headers["ETag"], whole.headers["Last-Modified"]

    assert (whole.status_code, whole.data, whole.mimetype) == (200, data, "image/png")
    assert int(whole.headers["Content-Length"]) == len(data)
    assert whole.headers["Cache-Control"].startswith("private, max-age=")
    assert alice.open("HEAD", url).headers["Content-Length"] == str(len(data))
    for name, value in (("If-None-Match", etag), ("If-Modified-Since", modified)):
        assert alice.get(url, headers={name: value}).status_code == 304
    for text, part in (("0-9", data[:10]), ("-5", data[-5:]), ("20-", data[20:])):
        piece = alice.get(url, headers={"Range": f"bytes={text}"})
        assert (piece.status_code, piece.data) == (206, part)
    assert alice.get(url, headers={"Range": "bytes=999999999-"}).status_code == 416
    assert alice.get(url, headers={"If-Match": '"x"'}).status_code == 412


def test_a_large_file_is_read_by_pieces(bucket):
    data = bytes(range(256)) * 20000
    storage.put("generated_images/1/a.bin", data)

    with storage.find("generated_images/1/a.bin").open() as file:
        pieces = [file.read(300_000)]
        file.seek(5_000_000)
        pieces.append(file.read())

    assert pieces == [data[:300_000], data[5_000_000:]]


def test_an_archive_has_the_images_of_a_bucket(alice, bucket):
    kept, gone = made(alice), made(alice)
    storage.delete(storage.key_of(gone["imageUrl"]))

    response = alice.post(
        "/api/v1/images/archive", json={"ids": [kept["id"], gone["id"]]}, buffered=True
    )

    with zipfile.ZipFile(io.BytesIO(response.data)) as file:
        names = file.namelist()
        assert file.read(names[0]) == storage.read(storage.key_of(kept["imageUrl"]))
        assert names[1:] == ["manifest.json", "INCOMPLETE.txt"]


def test_the_page_may_show_images_of_the_bucket_it_is_sent_to(client, bucket, settings):
    settings.STORAGE_OTHER = config.location("s3://images?region=eu-west-1")

    def sources() -> str:
        policy = client.get("/login").headers["Content-Security-Policy"]
        return next(part for part in policy.split("; ") if part.startswith("img-src"))

    assert sources() == f"img-src 'self' blob: {bucket.endpoint} https://*.amazonaws.com"
    settings.SERVE_FROM = "proxy"
    assert sources() == "img-src 'self' blob:"


# -- Writing and deleting ------------------------------------------------------------------------


def test_what_is_there_is_not_overwritten(bucket):
    storage.put("avatars/a.png", b"one")
    storage.put("avatars/a.png", b"one")

    with pytest.raises(Unavailable):
        storage.put("avatars/a.png", b"two")
    assert storage.read("avatars/a.png") == b"one"


def test_a_folder_is_deleted_and_its_neighbours_are_not(bucket):
    for name in ("1/a.png", "1/b.png", "10/a.png"):
        storage.put(f"generated_images/{name}", b"x")

    assert not storage.delete_folder("generated_images/1/", seconds=-1)
    assert storage.delete_folder("generated_images/1/")
    assert storage.delete_folder("/") and storage.delete_folder("../")

    assert keys() == ["generated_images/10/a.png"]


def test_with_an_account_go_its_files(alice, bucket):
    made(alice)
    assert len(keys()) == 2

    alice.open("DELETE", "/api/auth/account", json={"password": "secret1"})

    assert keys() == [] and not users.get_user(alice.id)


def test_check_finds_and_repairs_in_a_bucket(alice, bucket, run, monkeypatch):
    first, second = made(alice), made(alice)
    storage.delete(storage.key_of(first["imageUrl"]))
    storage.delete(storage.key_of(second["thumbnailUrl"]))
    storage.put(f"generated_images/{alice.id}/stray.png", b"x")
    monkeypatch.setattr("images.storage_check.FRESH_SECONDS", -60)

    status, said = run("check")
    repaired, _ = run("check", "--repair")
    run("check", "--repair")  # the thumbnail of the lost image has no row now

    assert (status, repaired) == (1, 0) and "stray.png" in said
    assert run("check") == (0, "All is as it should be\n")
    assert len(keys()) == 2


# -- A store that is away ------------------------------------------------------------------------


def test_a_store_that_is_away_is_a_503_and_is_told_by_ready(alice, client, away, settings):
    for serve_from in ("store", "proxy"):
        settings.SERVE_FROM = serve_from
        response = alice.get(f"/api/uploads/generated_images/{alice.id}/a.png")
        assert (response.status_code, response.json["code"]) == (503, "storage_unavailable")
        assert int(response.headers["Retry-After"]) > 0
    assert "storage" in client.get("/api/health/ready").json["fields"]
    data = form("carol", avatar=(io.BytesIO(picture("PNG")), "a.png"))
    assert client.post("/api/auth/register", data=data).status_code == 503
    assert alice.generate().status_code == 503


def test_a_job_waits_for_the_store_and_is_drawn_once_it_is_back(alice, away):
    response = alice.post("/api/v1/images/generate", json={"prompt": "a fox", **SIZE})
    assert response.status_code == 202
    [record] = response.json["data"]["records"]

    for _ in range(jobs.MAX_ATTEMPTS + 1):
        assert jobs.run(jobs.claim(record["id"])) == "deferred"
    [row] = db.all("SELECT status, attempt FROM image_generations")
    away()

    assert (row["status"], row["attempt"]) == (PENDING, 0)
    assert jobs.run(jobs.claim(record["id"])) == "completed"
    assert len(keys()) == 2 and db.value("SELECT COUNT(*) FROM pending_deletions") == 0


def test_a_result_is_kept_until_a_store_is_back(alice, away, monkeypatch):
    record = alice.post("/api/v1/images/generate", json={"prompt": "a fox", **SIZE})
    monkeypatch.setattr(jobs, "refuse_without_store", lambda: None)
    monkeypatch.setattr(results.time, "sleep", lambda seconds: away())

    assert jobs.run(jobs.claim(record.json["data"]["records"][0]["id"])) == "completed"
    assert len(keys()) == 2


def test_what_a_store_may_write_late_is_deleted_later(alice, bucket, monkeypatch):
    record = alice.post("/api/v1/images/generate", json={"prompt": "a fox", **SIZE})
    put = storage.put

    def hang(key: str, data: bytes) -> None:
        put(key, data)
        raise Unavailable from OSError("timed out")

    monkeypatch.setattr(storage, "put", hang)
    monkeypatch.setattr(jobs, "STORE_PATIENCE_SECONDS", 0)

    assert jobs.run(jobs.claim(record.json["data"]["records"][0]["id"])) == "deferred"
    assert keys() and cleanup.list_pending(keys()) == set(keys())


def test_files_of_a_deleted_image_go_when_the_store_is_back(alice, bucket, settings):
    record = made(alice)
    good = settings.STORAGE_URL
    address = f"s3://images/x?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"
    settings.STORAGE_URL = config.location(address)
    assert alice.open("DELETE", f"/api/v1/images/{record['id']}").status_code == 200
    assert cleanup.delete_expired()

    settings.STORAGE_URL = good
    assert len(keys()) == 2
    cleanup.delete_expired()

    assert keys() == []


def test_only_one_waits_for_a_store_that_does_not_answer(monkeypatch):
    from files import s3

    now = [1.0]
    monkeypatch.setattr(s3, "time", SimpleNamespace(monotonic=lambda: now[0]))
    asked = s3.Asked()
    answered = []

    def ask(seconds: float = 0, error: Exception | None = None) -> None:
        with asked.once():
            answered.append(seconds)
            now[0] += seconds
            if error:
                raise error

    with pytest.raises(Unavailable):
        ask(s3.SECONDS, OSError("timed out"))
    with pytest.raises(Unavailable):
        ask()
    now[0] += s3.AWAY_SECONDS
    with asked.once(), pytest.raises(Unavailable):  # others still need not wait for the next one
        ask()
    ask()

    assert answered == [s3.SECONDS, 0]


def test_a_store_that_refuses_at_once_is_asked_again():
    from files.s3 import Asked

    asked = Asked()
    with pytest.raises(Unavailable), asked.once():
        raise OSError("refused")

    with asked.once():
        pass


@pytest.mark.parametrize("secret", ["wrong", ""])
def test_wrong_keys_or_no_bucket_are_told_by_ready_without_showing_them(
    client, bucket, settings, capfd, secret
):
    settings.AWS_SECRET_ACCESS_KEY = secret or settings.AWS_SECRET_ACCESS_KEY
    if not secret:
        settings.STORAGE_URL = settings.STORAGE_URL._replace(bucket="no-such-bucket")

    response = client.get("/api/health/ready")

    assert "storage" in response.json["fields"]
    assert "testsecret" not in capfd.readouterr().err


# -- Settings ------------------------------------------------------------------------------------


def test_the_address_of_a_bucket_is_read():
    found = config.location("s3://images/a/b/?endpoint=https://s3.example.com/&region=eu-west-1")

    assert found == (
        "images",
        "a/b",
        (("endpoint", "https://s3.example.com"), ("region", "eu-west-1")),
    )
    assert config.location("disk") == DISK


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///x",
        "https://bucket",
        "s3://key:secret@bucket",
        "s3://bucket?endpoint=https://key:secret@host",
        "s3://bucket?endpoint=host",
        "s3://bucket?secret_access_key=x",
        "s3://bucket/../x",
        "s3://bucket/.hidden",
        "s3://bucket/a//b",
        "s3://b b",
        "folder",
    ],
)
def test_what_is_no_address_of_a_bucket_stops_the_start(settings, tmp_path, text):
    with pytest.raises(config.SettingError, match=r"^STORAGE_URL: ") as stopped:
        config.load({"DATA_DIR": str(tmp_path), "STORAGE_URL": text})

    assert "secret" not in str(stopped.value).replace("secret_access_key", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"STORAGE_OTHER": "s3://images"},
        {"AWS_ACCESS_KEY_ID": "x"},
    ],
)
def test_settings_of_buckets_that_do_not_fit_stop_the_start(settings, tmp_path, changes):
    with pytest.raises(config.SettingError):
        config.load({"DATA_DIR": str(tmp_path), "STORAGE_URL": "s3://images", **changes})


def test_without_a_bucket_its_library_is_not_imported():
    code = "import sys, app; sys.exit('obstore' in sys.modules or 'files.s3' in sys.modules)"

    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean_environment())

    assert ended.returncode == 0


def test_each_process_of_the_service_speaks_to_the_store(live, object_store, empty_database):
    if empty_database == "mariadb":
        pytest.skip("the database does not matter here")
    server = live(WEB_WORKERS="3", **object_store.settings("live"))
    http = requests.Session()
    http.post(f"{server.url}/api/auth/register", data=form("alice"), timeout=9)
    body = {"username": "alice", "password": "secret1"}
    token = http.post(f"{server.url}/api/auth/login", json=body, timeout=9).json()["data"]["token"]
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    body = {"prompt": "a fox", "params": SIZE}
    made = [
        requests.post(
            f"{server.url}/api/v1/images/generate-test", json=body, headers=headers, timeout=30
        ).json()["data"]["imageUrl"]
        for _ in range(9)
    ]

    for url in made:
        shown = requests.get(server.url + url, headers=headers, timeout=9)
        assert (shown.status_code, shown.headers["Content-Type"]) == (200, "image/png")


# -- Moving --------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(alice, object_store, settings, monkeypatch):
    """Images on the disk, and where to move them."""
    monkeypatch.setattr("commands.storage.BUCKET_GRACE_SECONDS", 0)
    monkeypatch.setattr("commands.storage.DISK_GRACE_SECONDS", 0)
    settings.STORAGE_URL, settings.STORAGE_OTHER = DISK, None
    for name, text in object_store.KEYS.items():
        setattr(settings, name, text)
    records = [made(alice) for _ in range(3)]
    return records, object_store.url(f"moved-{time.monotonic_ns()}")


def contents(store) -> dict[str, str]:
    return {key: hashlib.sha256(store.read(key)).hexdigest() for key in keys(store)}


def test_files_move_to_a_bucket_and_back(alice, on_disk, settings, run):
    records, url = on_disk
    disk, s3 = storage.store_at(DISK), storage.store_at(config.location(url))
    before = contents(disk)

    assert run("move", "--to", url)[0] == 0
    assert contents(disk) == contents(s3) == before
    settings.STORAGE_URL, settings.STORAGE_OTHER = config.location(url), DISK
    made(alice)
    assert run("move", "--to", url)[0] == 0
    assert contents(disk) == {} and before.items() < contents(s3).items()
    settings.STORAGE_OTHER = None
    assert [alice.get(record["imageUrl"]).status_code for record in records] == [302] * 3
    assert run("check") == (0, "All is as it should be\n")

    settings.STORAGE_URL, settings.STORAGE_OTHER = DISK, config.location(url)
    assert [alice.get(record["imageUrl"]).status_code for record in records] == [302] * 3
    assert run("move", "--to", "disk")[0] == 0
    assert contents(s3) == {} and len(contents(disk)) == 8
    assert [alice.get(record["imageUrl"]).status_code for record in records] == [200] * 3


def test_moving_goes_on_where_it_stopped(on_disk, run):
    _, url = on_disk
    s3 = storage.store_at(config.location(url))
    [first, *_] = keys(storage.store_at(DISK))
    s3.put(first, storage.read(first))

    status, said = run("move", "--to", url)

    assert status == 0 and "1 present" in said and "5 copied" in said


def test_a_file_that_differs_is_told_and_kept(on_disk, settings, run):
    _, url = on_disk
    s3 = storage.store_at(config.location(url))
    [first, *_] = keys(storage.store_at(DISK))
    s3.put(first, b"other")
    settings.STORAGE_URL, settings.STORAGE_OTHER = config.location(url), DISK

    status, said = run("move", "--to", url)

    assert status == 1 and f"different  {first}" in said
    assert s3.read(first) == b"other" and len(keys(storage.store_at(DISK))) == 6


def test_a_file_that_is_deleted_while_it_moves_is_left_nowhere(on_disk, settings):
    _, url = on_disk
    disk, s3 = storage.store_at(DISK), storage.store_at(config.location(url))
    settings.STORAGE_OTHER = config.location(url)
    [first, second, *_] = keys(disk)

    class Racing:
        """A bucket before, or after, whose writing somebody deletes the file."""

        def __init__(self, is_before: bool):
            self.is_before = is_before

        def __getattr__(self, name):
            return getattr(s3, name)

        def put(self, key, data):
            if self.is_before:
                storage.delete(key)
            s3.put(key, data)
            if not self.is_before:
                storage.delete(key)

    assert moving._copy(disk, Racing(True), first) == moving.GONE
    assert moving._copy(disk, Racing(False), second) == moving.GONE
    assert [storage.find(first), storage.find(second)] == [None, None]
    assert keys(s3) == []


def test_a_file_that_moves_while_it_is_looked_for_is_found(on_disk, settings, monkeypatch):
    _, url = on_disk
    disk, s3 = storage.store_at(DISK), storage.store_at(config.location(url))
    settings.STORAGE_URL, settings.STORAGE_OTHER = config.location(url), DISK
    [first, *_] = keys(disk)

    class Moving:
        """The disk, which has lost the file to the bucket when it is looked for here."""

        def __getattr__(self, name):
            monkeypatch.undo()
            moving._copy(disk, s3, first)
            moving._delete_copied(disk, s3, first)
            return getattr(disk, name)

    monkeypatch.setattr(storage, "disk", Moving())

    assert storage.find(first).link


@pytest.mark.parametrize(
    ("other", "goal"), [(None, "disk"), ("s3://another", "s3://third"), (None, "s3://")]
)
def test_what_cannot_be_moved_to_is_refused(on_disk, settings, run, other, goal):
    settings.STORAGE_OTHER = config.location(other) if other else None

    status, said = run("move", "--to", goal)

    assert status != 0 and "Error" in said


def test_an_odd_name_stays_and_is_told(on_disk, settings, run):
    _, url = on_disk
    path = settings.uploads_dir / "generated_images" / "a\nb.png"
    path.write_bytes(b"x")

    status, said = run("move", "--to", url)

    assert status == 1 and "failed" in said
    assert math.isfinite(len(said)) and path.exists()
