"""Sessions: listed, ended one by one or all at once, refreshed; links and tokens end with them."""

import threading
import time

import jwt
import pytest

import db
from accounts import sessions
from tests.conftest import Person, form

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"


@pytest.fixture
def phone(alice):
    """Alice, logged in a second time."""
    other = copy_of(alice)
    other.log_in()
    return other


def copy_of(person: Person) -> Person:
    other = Person()
    other.name = person.name
    return other


def claims_of(person: Person) -> dict:
    return jwt.decode(person.token, options={"verify_signature": False})


def legacy(person: Person, settings) -> Person:
    """Return the person with a token as the release before made it."""
    claims = claims_of(person)
    del claims["sid"]
    other = copy_of(person)
    other.token = jwt.encode(claims, settings.SECRET_KEY, algorithm="HS256")
    other.headers = {"Authorization": f"Bearer {other.token}"}
    other.id = person.id
    return other


def is_in(person: Person) -> list[int]:
    """Return how each way to check a session answers."""
    return [
        person.get("/api/auth/profile").status_code,
        person.get("/api/v1/images/history").status_code,
        person.get("/api/v1/images/history?q=fox").status_code,
        person.get("/api/v1/images/1").status_code,
        person.post("/api/v1/images/generate", json={"prompt": "a fox"}).status_code,
        person.post(
            "/api/v1/images/generate",
            json={"prompt": "a fox"},
            headers={"Idempotency-Key": person.token[-20:]},
        ).status_code,
        person.generate().status_code,
        person.post("/api/auth/refresh").status_code,
    ]


OUT = [401] * 8
IN = [200, 200, 200, 404, 202, 202, 200, 200]


def change(person: Person, old: str = "secret1", new: str = "secret2"):
    body = {"oldPassword": old, "newPassword": new}
    return person.post("/api/auth/password", json=body)


# -- Ending sessions ----------------------------------------------------------------------------


def test_logging_out_ends_this_session_alone(alice, phone):
    response = alice.post("/api/auth/logout")

    assert (response.status_code, response.json["message"]) == (200, "已退出登录")
    assert is_in(alice) == OUT
    assert is_in(phone) == IN


def test_logging_out_everywhere_ends_all(alice, phone, bob):
    assert alice.post("/api/auth/logout", json={"everywhere": True}).status_code == 200

    assert is_in(alice) == is_in(phone) == OUT
    assert bob.get("/api/auth/profile").status_code == 200


@pytest.mark.parametrize("body", [{"everywhere": "yes"}, {"all": True}, [1]])
def test_a_wrong_body_logs_nobody_out(alice, body):
    assert alice.post("/api/auth/logout", json=body).status_code == 400
    assert alice.get("/api/auth/profile").status_code == 200


def test_sessions_are_listed_for_their_owner_alone(alice, bob):
    browser = copy_of(alice)
    browser.headers = {"User-Agent": CHROME}
    login = browser.post("/api/auth/login", json={"username": "alice", "password": "secret1"})
    headers = {"Authorization": f"Bearer {login.json['data']['token']}", "User-Agent": CHROME}

    listed = browser.get("/api/auth/sessions", headers=headers).json["data"]["sessions"]

    assert len(listed) == 2
    [current] = [one for one in listed if one["current"]]
    assert (current["client"], current["address"]) == ("Chrome", "127.0.0.1")
    assert current["createdAt"].endswith("Z")
    assert len(bob.get("/api/auth/sessions").json["data"]["sessions"]) == 1


def test_a_session_is_ended_by_another(alice, phone):
    session_id = claims_of(phone)["sid"]

    assert alice.open("DELETE", f"/api/auth/sessions/{session_id}").status_code == 200

    assert is_in(phone) == OUT
    assert alice.open("DELETE", f"/api/auth/sessions/{session_id}").status_code == 404
    assert alice.get("/api/auth/profile").status_code == 200


@pytest.mark.parametrize("session_id", ["x", "%00", "0" * 16, "é" * 300, "%ff"])
def test_an_unknown_session_is_not_found(alice, session_id):
    assert alice.open("DELETE", f"/api/auth/sessions/{session_id}").status_code == 404


def test_anothers_session_is_not_found(alice, bob):
    session_id = claims_of(bob)["sid"]

    assert alice.open("DELETE", f"/api/auth/sessions/{session_id}").status_code == 404
    assert bob.get("/api/auth/profile").status_code == 200


def test_the_id_of_another_session_in_a_token_of_ones_own_is_refused(alice, bob, settings):
    claims = {**claims_of(alice), "sid": claims_of(bob)["sid"]}
    token = jwt.encode(claims, settings.SECRET_KEY, algorithm="HS256")

    response = alice.get("/api/auth/profile", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == 401


# -- Signed links -------------------------------------------------------------------------------


def link_of(person: Person) -> str:
    [record] = person.history("?per_page=1")["records"]
    return record["signedImageUrl"]


def test_a_link_ends_with_the_session_that_made_it(alice, phone, client):
    alice.generate()
    links = [link_of(alice), link_of(phone)]
    assert [client.get(link).status_code for link in links] == [200, 200]

    alice.post("/api/auth/logout")

    assert [client.get(link).status_code for link in links] == [403, 200]


def test_a_new_password_voids_every_link(alice, phone, client):
    alice.generate()
    links = [link_of(alice), link_of(phone)]

    change(alice)

    assert [client.get(link).status_code for link in links] == [403, 403]


def test_the_session_of_a_link_cannot_be_exchanged(alice, phone, client):
    alice.generate()
    link = link_of(alice)
    mine, other = claims_of(alice)["sid"], claims_of(phone)["sid"]

    for session_id in (other, "", "0" * 16, "'" * 16, "x" * 5000):
        assert client.get(link.replace(mine, session_id)).status_code == 403


def test_links_of_the_release_before_stay_good(alice, client, settings):
    alice.generate()
    old = legacy(alice, settings)
    link = link_of(old)
    assert len(link.partition("sig=")[2]) == 40

    assert client.get(link).status_code == 200
    alice.post("/api/auth/logout", json={"everywhere": True})
    assert client.get(link).status_code == 403


# -- The password -------------------------------------------------------------------------------


def test_a_new_password_ends_every_other_session(alice, phone):
    response = change(alice)
    before = copy_of(alice)
    before.token, before.headers = alice.token, dict(alice.headers)
    alice.token = response.json["data"]["token"]
    alice.headers = {"Authorization": f"Bearer {alice.token}"}

    assert response.json["message"] == "密码已修改"
    assert is_in(phone) == is_in(before) == OUT
    assert is_in(alice) == IN
    assert len(alice.get("/api/auth/sessions").json["data"]["sessions"]) == 1
    phone.log_in("secret2")


def test_a_wrong_old_password_names_its_field_and_counts_like_a_log_in(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 3

    answers = [change(alice, old="wrong") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 429]
    assert answers[0].json["code"] == "wrong_password"
    assert answers[0].json["fields"] == {"oldPassword": "原密码错误"}
    assert alice.get("/api/auth/profile").status_code == 200


@pytest.mark.parametrize("new", ["short", "x" * 21, "", None, 5])
def test_the_rules_of_registration_hold_for_a_new_password(alice, new):
    response = change(alice, new=new)

    assert response.status_code == 400
    assert list(response.json["fields"]) == ["newPassword"]


def test_a_session_that_ends_meanwhile_sets_no_password(alice, monkeypatch):
    from accounts import passwords

    def hash_and_end(password, real=passwords.hash_password):
        sessions.end_everywhere(alice.id)
        return real(password)

    monkeypatch.setattr(passwords, "hash_password", hash_and_end)

    assert change(alice).status_code == 401
    monkeypatch.undo()
    alice.log_in("secret1")


def test_of_two_changes_at_once_one_wins(alice, phone):
    answers = []

    def run(person, new):
        answers.append((change(person, new=new).status_code, new))

    threads = [
        threading.Thread(target=run, args=pair) for pair in [(alice, "one111"), (phone, "two222")]
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    assert sorted(status for status, _ in answers)[0] == 200
    [new] = [new for status, new in answers if status == 200]
    copy_of(alice).log_in(new)


# -- Refreshing ---------------------------------------------------------------------------------


def test_a_fresh_token_is_of_the_same_session(alice):
    fresh = copy_of(alice)
    fresh.token = alice.post("/api/auth/refresh").json["data"]["token"]
    fresh.headers = {"Authorization": f"Bearer {fresh.token}"}

    assert claims_of(fresh)["sid"] == claims_of(alice)["sid"]
    alice.post("/api/auth/logout")
    assert is_in(fresh) == OUT


def test_a_session_is_prolonged_to_its_end_alone(alice, settings):
    began = int(time.time()) - settings.SESSION_DAYS * 86400 + 100
    db.execute("UPDATE sessions SET created_at = %s", began)

    token = alice.post("/api/auth/refresh").json["data"]["token"]

    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] == began + settings.SESSION_DAYS * 86400
    db.execute("UPDATE sessions SET created_at = %s", began - 200)
    response = alice.post("/api/auth/refresh")
    assert (response.status_code, response.json["code"]) == (401, "token_expired")


# -- The release before -------------------------------------------------------------------------


def test_who_is_logged_in_by_the_release_before_stays_so(alice, settings):
    assert is_in(legacy(alice, settings)) == IN


def test_an_old_token_gets_a_session_when_refreshed(alice, settings):
    old = legacy(alice, settings)

    fresh = old.post("/api/auth/refresh").json["data"]["token"]

    assert jwt.decode(fresh, options={"verify_signature": False})["sid"]
    assert len(alice.get("/api/auth/sessions").json["data"]["sessions"]) == 2


def test_an_old_token_ends_with_all_others(alice, settings):
    old = legacy(alice, settings)

    assert old.post("/api/auth/logout").status_code == 200

    assert is_in(old) == is_in(alice) == OUT


def test_an_old_token_changes_the_password(alice, settings):
    old = legacy(alice, settings)

    token = change(old).json["data"]["token"]

    assert is_in(alice) == is_in(old) == OUT
    headers = {"Authorization": f"Bearer {token}"}
    assert copy_of(alice).get("/api/auth/profile", headers=headers).status_code == 200


@pytest.mark.parametrize("sid", [5, None, "A" * 16, "0" * 15, "0" * 17, ["0" * 16], "' OR 1=1 --"])
def test_an_absurd_session_is_refused(alice, settings, sid):
    claims = {**claims_of(alice), "sid": sid}
    token = jwt.encode(claims, settings.SECRET_KEY, algorithm="HS256")

    response = alice.get("/api/auth/profile", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == 401


# -- Rows ---------------------------------------------------------------------------------------


def test_when_a_session_was_seen_is_noted_once_an_hour(alice):
    [before] = db.all("SELECT id, created_at, seen_at FROM sessions")
    sessions._seen.clear()
    db.execute("UPDATE sessions SET seen_at = seen_at - 7200, address = '192.0.2.1'")

    alice.get("/api/v1/images/history")

    [row] = db.all("SELECT seen_at, address FROM sessions")
    assert before["seen_at"] - row["seen_at"] < 3600
    assert row["address"] == "127.0.0.1"


def test_sessions_go_a_day_after_their_tokens(alice):
    sessions.delete_expired()
    assert len(sessions.list_open(alice.id)) == 1

    db.execute("UPDATE sessions SET expires_at = %s", int(time.time()) - 90000)
    sessions.delete_expired()

    assert db.value("SELECT COUNT(*) FROM sessions") == 0


def test_a_deleted_account_leaves_no_session(alice, client):
    from accounts import registration, users

    registration.delete_account(users.get_user(alice.id))

    assert db.value("SELECT COUNT(*) FROM sessions") == 0
    client.post("/api/auth/register", data=form("alice"))
    assert alice.get("/api/auth/profile").status_code == 401


@pytest.mark.parametrize(
    ("user_agent", "client"),
    [
        (CHROME, "Chrome"),
        (CHROME + " Edg/140.0", "Edge"),
        ("Mozilla/5.0 (Macintosh) Version/18.0 Safari/605.1.15", "Safari"),
        ("Mozilla/5.0 (X11; Linux) Gecko/20100101 Firefox/145.0", "Firefox"),
        ("curl/8.5.0", "curl"),
        ("PostmanRuntime/7.4", "PostmanRuntime"),
        ("", ""),
        ("x" * 500, "x" * 40),
        ("猫\x07\u202e/1", ""),
    ],
)
def test_the_family_of_a_browser_is_told(user_agent, client):
    assert sessions.browser_of(user_agent) == client


# -- What ends while a request is under way -----------------------------------------------------


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize("end", ["log-out", "deletion"])
def test_the_new_token_ends_with_what_ended_the_session_meanwhile(
    alice, settings, monkeypatch, is_old, end
):
    from accounts import registration, users

    who = legacy(alice, settings) if is_old else alice
    change_own = users.change_own_password

    def change_and_end(*args):
        change_own(*args)
        if end == "deletion":
            registration.delete_account(users.get_user(alice.id))
        else:
            sessions.end_everywhere(alice.id)

    monkeypatch.setattr(users, "change_own_password", change_and_end)
    response = change(who)

    assert (response.status_code, response.json["code"]) == (401, "token_invalid")
    assert db.value("SELECT COUNT(*) FROM sessions") == 0


@pytest.mark.parametrize("end", ["password", "disabled", "deletion"])
def test_a_log_in_begins_no_session_of_what_ended_meanwhile(alice, monkeypatch, end):
    from accounts import passwords, registration, users

    def check_and_end(*args, real=passwords.is_password_right):
        is_right = real(*args)
        if end == "password":
            users.set_password(alice.id, "x")
        elif end == "disabled":
            users.set_disabled(alice.id, is_disabled=True)
        else:
            registration.delete_account(users.get_user(alice.id))
        return is_right

    monkeypatch.setattr(passwords, "is_password_right", check_and_end)
    body = {"username": "alice", "password": "secret1"}
    response = alice.http.post("/api/auth/login", json=body)

    assert (response.status_code, response.json["code"]) == (401, "token_invalid")
    assert db.value("SELECT COUNT(*) FROM sessions") == 0
