"""An account deleted by its owner: nothing is left, whatever is killed meanwhile."""

import math
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

import db
from accounts import (
    identities,
    login,
    mails,
    oidc,
    profile,
    registration,
    second_factor,
    sessions,
    tokens,
    users,
)
from accounts.schemas import KeyInput, LoginCodeInput
from accounts.tokens import BadToken, Session
from config import settings as config_settings
from files import storage
from images import archive_links, jobs, queue, shares
from tests.conftest import Person, form, usernames
from tests.pictures import picture
from tests.servers import ROOT, clean_environment, wait_until
from tests.test_profile import avatar, avatars, change, token
from tests.test_queue import submit


def delete(person: Person, password: str = "secret1"):
    return person.open("DELETE", "/api/auth/account", json={"password": password})


def rows_left(user_id: int) -> list[str]:
    """Return the tables in which there still is something of an account."""
    found = [
        table
        for table in users.TABLES_OF_USERS
        if db.value(f"SELECT COUNT(*) FROM {table} WHERE user_id = %s", user_id)
    ]
    if db.value("SELECT COUNT(*) FROM users WHERE id = %s", user_id):
        found.append("users")
    return found


def folders(settings) -> list[str]:
    return sorted(path.name for path in (settings.uploads_dir / "generated_images").iterdir())


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(users, "PORTION", 2)


def test_nothing_is_left_of_a_deleted_account(alice, bob, settings):
    change(alice, avatar=avatar())
    submit(alice, key="k")
    number = alice.generate().json["data"]["id"]
    alice.open("DELETE", f"/api/v1/images/{number}")
    alice.generate()
    bob.generate()

    response = delete(alice)

    assert response.status_code == 200
    assert response.json["message"] == "账号已删除" and response.json["data"] == {"complete": True}
    assert rows_left(alice.id) == []
    assert avatars(settings) == [] and folders(settings) == [str(bob.id)]
    assert db.all("SELECT file_key FROM pending_deletions") == []
    assert len(bob.history()["records"]) == 1


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_no_table_of_what_belongs_to_users_is_left_out(database):
    tables = [row["name"] for row in db.all("SELECT name FROM sqlite_master WHERE type = 'table'")]
    with_user = {
        table
        for table in tables
        if any(row["name"] == "user_id" for row in db.all(f"PRAGMA table_info({table})"))
    }

    assert with_user == set(users.TABLES_OF_USERS)


def test_tokens_links_and_the_password_are_void_at_once(alice, client):
    alice.generate()
    link = alice.history()["records"][0]["signedImageUrl"]

    delete(alice)

    assert alice.get("/api/auth/profile").json["code"] == "token_invalid"
    assert client.get(link).json["code"] == "link_invalid"
    log_in = client.post("/api/auth/login", json={"username": "alice", "password": "secret1"})
    assert log_in.json["code"] == "wrong_credentials"


def test_the_name_may_be_taken_again_at_once(alice, small_portions):
    submit(alice, n=4)
    registration.delete_account(users.get_user(alice.id), seconds=0)
    assert rows_left(alice.id) != []

    again = Person("alice")

    assert again.id != alice.id
    assert again.history()["records"] == []
    jobs.sweep()
    assert rows_left(alice.id) == [] and again.get("/api/auth/profile").status_code == 200


def test_mail_that_waits_for_the_account_is_not_sent(alice, bob):
    for person in (alice, bob):
        mails.add("reset", f"{person.name}@example.com", "en")

    delete(alice)

    assert [row["email"] for row in db.all("SELECT email FROM mails")] == ["bob@example.com"]


# -- Refusals -----------------------------------------------------------------------------------


def test_a_wrong_password_deletes_nothing(alice):
    response = delete(alice, "wrong1")

    assert (response.status_code, response.json["code"]) == (403, "wrong_password")
    assert list(response.json["fields"]) == ["password"]
    assert alice.get("/api/auth/profile").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "password"),
        ({"password": ""}, "password"),
        ({"password": None}, "password"),
        ({"password": "x" * 1001}, "password"),
        ({"password": "secret1", "user_id": 2}, "user_id"),
    ],
)
def test_a_bad_body_names_the_field(alice, body, field):
    response = alice.open("DELETE", "/api/auth/account", json=body)

    assert (response.status_code, list(response.json["fields"])) == (400, [field])


def test_a_body_that_is_missing_is_refused(alice):
    assert alice.open("DELETE", "/api/auth/account").json["code"] == "invalid_json"


def test_nobody_deletes_nothing(client):
    assert delete(client).json["code"] == "token_missing"


def test_a_stolen_token_cannot_guess_the_password(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 2

    codes = [delete(alice, guess).json["code"] for guess in ("wrong1", "wrong2", "secret1")]

    assert codes == ["wrong_password", "wrong_password", "too_many_attempts"]


def test_of_two_deletions_at_once_one_is_answered(live):
    url = live(WEB_WORKERS="2").url
    header = token(url, "alice")

    with ThreadPoolExecutor(4) as threads:
        calls = [
            threads.submit(
                requests.delete,
                f"{url}/api/auth/account",
                json={"password": "secret1"},
                headers=header,
            )
            for _ in range(4)
        ]

    assert sorted(call.result().status_code for call in calls) == [200] + [401] * 3


# -- Many images --------------------------------------------------------------------------------


def test_a_large_account_goes_in_portions(alice, bob, small_portions):
    submit(alice, n=4)
    submit(bob, n=4)
    before = db.value("SELECT COUNT(*) FROM image_generations")

    is_complete = registration.delete_account(users.get_user(alice.id), seconds=0)

    assert not is_complete
    assert db.value("SELECT COUNT(*) FROM image_generations") == before - 2
    jobs.sweep()
    assert rows_left(alice.id) == [] and len(bob.history()["records"]) == 4


def test_a_sweep_says_that_it_has_not_done_all(alice, small_portions, monkeypatch):
    monkeypatch.setattr(registration, "SWEEP_SECONDS", 0)
    submit(alice, n=4)
    registration.delete_account(users.get_user(alice.id), seconds=0)

    sweeps = [jobs.sweep() for _ in range(6)]

    assert sweeps[0] is False and sweeps[-1] is True
    assert rows_left(alice.id) == []


def test_an_account_that_is_being_deleted_is_seen_by_nobody(alice, small_portions):
    submit(alice, n=4)

    registration.delete_account(users.get_user(alice.id), seconds=0)

    [row] = db.all("SELECT username, email, password_hash, avatar_url, is_disabled FROM users")
    assert "alice" not in str(row) and row["is_disabled"] == 1 and row["password_hash"] == ""
    assert usernames() == []
    assert not jobs.acquire(["test_model"])


def test_a_second_deletion_that_comes_while_the_first_goes_on_finds_no_session(
    alice, small_portions
):
    submit(alice, n=4)
    registration.delete_account(users.get_user(alice.id), seconds=0)

    with pytest.raises(BadToken):
        login.confirm_password(alice.id, "secret1", "127.0.0.1")


def test_a_folder_of_many_files_goes_in_portions(alice, settings):
    for number in range(5):
        storage.put(f"generated_images/{alice.id}/{number}.png", b"x")
    folder = settings.uploads_dir / f"generated_images/{alice.id}"

    assert not storage.delete_folder(f"generated_images/{alice.id}/", seconds=-1)
    assert storage.delete_folder(f"generated_images/{alice.id}/", seconds=math.inf)

    assert not folder.exists()


def test_a_link_in_the_folder_is_deleted_and_not_what_it_leads_to(settings, tmp_path):
    storage.put("generated_images/1/a.png", b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (settings.uploads_dir / "generated_images/1/link").symlink_to(tmp_path / "elsewhere")

    storage.delete_folder("generated_images/1/")

    assert (tmp_path / "elsewhere" / "kept").exists()
    assert not (settings.uploads_dir / "generated_images/1").exists()


# -- Workers ------------------------------------------------------------------------------------


def test_a_worker_that_is_at_an_image_leaves_no_file(alice, settings):
    submit(alice)
    job = jobs.acquire(["test_model"])

    delete(alice)

    assert not queue.renew_lease(job["id"], job["claim"], 30, progress=1)
    with pytest.raises(jobs.ClaimLost):
        jobs.run(job)
    assert folders(settings) == []
    assert db.all("SELECT file_key FROM pending_deletions") == []
    assert rows_left(alice.id) == []


def test_a_worker_that_is_killed_after_storing_leaves_no_file(alice, settings, monkeypatch):
    submit(alice)
    job = jobs.acquire(["test_model"])
    monkeypatch.setattr(queue, "complete", lambda *_: sys.exit("killed"))
    delete(alice)
    with pytest.raises(SystemExit):
        jobs.run(job)
    assert folders(settings) == [str(alice.id)]

    db.execute("UPDATE pending_deletions SET due_at = 1")
    jobs.sweep()

    assert folders(settings) == []


def test_a_result_that_is_recorded_during_the_deletion_goes_too(alice, settings, small_portions):
    submit(alice, n=4)
    db.execute("UPDATE image_generations SET not_before = 9999999999 WHERE id < 4")
    job = jobs.acquire(["test_model"])
    registration.delete_account(users.get_user(alice.id), seconds=0)

    assert jobs.run(job) == "completed"
    assert folders(settings) == [str(alice.id)]

    jobs.sweep()
    assert folders(settings) == [] and rows_left(alice.id) == []


# -- Crashes ------------------------------------------------------------------------------------

# Deletes an account slowly, and says so after the first portion.
SLOWLY = """
import sys, time
import config
from accounts import registration, users
config.load()
users.PORTION = 1
delete_portion = users.delete_portion

def slowly(*args):
    is_done = delete_portion(*args)
    print("portion", flush=True)
    time.sleep(60)
    return is_done

users.delete_portion = slowly
registration.delete_account(users.get_user(int(sys.argv[1])))
"""


def test_a_deletion_that_is_killed_is_finished_by_a_sweep(alice, bob, settings):
    change(alice, avatar=avatar())
    alice.generate()
    alice.generate()
    bob.generate()
    names = ("DATA_DIR", "MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_DB", "SECRET_KEY")
    environment = clean_environment(**{name: str(getattr(settings, name)) for name in names})
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, str(alice.id)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "portion\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "users" in rows_left(alice.id)
    assert alice.get("/api/auth/profile").status_code == 401

    jobs.sweep()

    assert rows_left(alice.id) == []
    assert avatars(settings) == [] and folders(settings) == [str(bob.id)]


def test_a_deletion_goes_on_after_the_database_was_killed(killable, settings, monkeypatch):
    alice = Person("alice")
    change(alice, avatar=avatar())
    alice.generate()
    delete_portion = users.delete_portion

    def kill(*arguments):
        killable.kill()
        return delete_portion(*arguments)

    monkeypatch.setattr(users, "delete_portion", kill)
    response = delete(alice)
    monkeypatch.undo()
    killable.start()
    db.pool.close()

    assert (response.status_code, response.json["data"]) == (200, {"complete": False})
    jobs.sweep()
    assert rows_left(alice.id) == [] and folders(settings) == [] and avatars(settings) == []


def test_workers_finish_what_a_killed_deletion_left(alice, settings, small_portions, start_worker):
    storage.put(f"generated_images/{alice.id}/old.png", picture("PNG"))
    submit(alice, n=4)
    registration.delete_account(users.get_user(alice.id), seconds=0)

    start_worker("worker.py")

    wait_until(lambda: rows_left(alice.id) == [] and folders(settings) == [], what="the worker")


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_nothing_is_readable_in_the_files_of_sqlite(alice, settings):
    submit(alice, "a very private prompt")

    delete(alice)

    for name in ("app.db", "app.db-wal"):
        data = (settings.instance_dir / name).read_bytes()
        assert b"very private" not in data and b"alice@example.com" not in data


def test_a_registration_with_the_name_of_a_deleted_account_is_an_ordinary_one(alice, client):
    delete(alice)

    response = client.post("/api/auth/register", data=form("alice"))

    assert response.json["message"] == "注册成功"


# -- Requests that were let in before -------------------------------------------------------------


def link_identity(session: Session) -> None:
    config_settings.OIDC_ISSUER = "https://id.example"
    claims = {"issuer": config_settings.OIDC_ISSUER, "subject": "7"}
    code = identities.add_login_code(identities.challenge_of("v" * 43), claims)
    oidc.link(session, LoginCodeInput(loginCode=code, verifier="v" * 43))


SELECTION = {"ids": [1], "missing": [], "metadata": "keep"}
LATE = {
    "log-in": lambda session: sessions.open_session(session_row(session), "192.0.2.1", "curl/8"),
    "key": lambda session: profile.make_key(session, KeyInput(name="late", scopes=["read"])),
    "share": lambda session: shares.create_share(session, 1, 1),
    "archive": lambda session: archive_links.create_link(session, SELECTION),
    "identity": link_identity,
    "recovery codes": second_factor.renew_recovery_codes,
}


def session_row(session: Session) -> db.Row:
    return {"id": session.user_id, "token_version": session.token_version}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_a_request_that_was_let_in_before_the_deletion_leaves_nothing(alice, late):
    session = tokens.read_token(alice.headers["Authorization"].split()[1])
    delete(alice)

    with pytest.raises(tokens.BadToken):
        late(session)

    assert rows_left(alice.id) == []
