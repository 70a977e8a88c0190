"""API keys: what they may do, what they never may, their own images a day, and how they end."""

import hashlib
import threading

import pytest

import db
from accounts import sessions
from images import queue
from tests.conftest import Person
from tests.test_sessions import claims_of


def make_key(person: Person, **body) -> dict:
    response = person.post("/api/v1/keys", json={"name": "job", **body})
    assert response.status_code == 201, response.json
    return response.json["data"]


def program(person: Person, **body) -> Person:
    """Return a program with a key of the person's."""
    made = make_key(person, **body)
    other = Person()
    other.id, other.key = person.id, made
    other.headers = {"Authorization": f"Bearer {made['key']}"}
    return other


def submit(person: Person, **body):
    return person.post("/api/v1/images/generate", json={"prompt": "a fox", **body})


# -- Making, listing, revoking ------------------------------------------------------------------


def test_a_key_is_shown_once_and_kept_as_its_hash(alice):
    made = make_key(alice, name="  nightly job ")

    assert made["key"].startswith(f"igb_{alice.id}rg_") and made["key"].startswith(made["prefix"])
    assert (made["name"], made["scopes"]) == ("nightly job", ["read", "generate"])
    [row] = db.all("SELECT key_hash, prefix FROM api_keys")
    assert row["key_hash"] == hashlib.sha256(made["key"].encode()).hexdigest()
    [listed] = alice.get("/api/v1/keys").json["data"]["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a\u0007"}, "name"),
        ({"name": "a", "scopes": []}, "scopes"),
        ({"name": "a", "scopes": ["admin"]}, "scopes.0"),
        ({"name": "a", "scopes": "read"}, "scopes"),
        ({"name": "a", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"name": "a", "expiresAt": "soon"}, "expiresAt"),
        ({"name": "a", "expiresAt": 9999999999}, "expiresAt"),
        ({"name": "a", "dailyImages": 0}, "dailyImages"),
        ({"name": "a", "dailyImages": "5"}, "dailyImages"),
        ({"name": "a", "role": "admin"}, "role"),
    ],
)
def test_a_wrong_field_is_named(alice, body, field):
    response = alice.post("/api/v1/keys", json=body)

    assert response.status_code == 400
    assert list(response.json["fields"]) == [field]


def test_an_account_has_so_many_keys_at_most(alice, monkeypatch):
    monkeypatch.setattr("accounts.api_keys.MAX_KEYS", 2)
    make_key(alice), make_key(alice)

    response = alice.post("/api/v1/keys", json={"name": "third"})

    assert (response.status_code, response.json["code"]) == (409, "too_many_keys")


def test_a_session_that_ends_meanwhile_makes_no_key(alice, monkeypatch):
    """A key would go on without it."""
    from web import account

    def read_and_end(schema, real=account.read_body):
        sessions.end_everywhere(alice.id)
        return real(schema)

    monkeypatch.setattr(account, "read_body", read_and_end)

    assert alice.post("/api/v1/keys", json={"name": "job"}).status_code == 401
    assert db.value("SELECT COUNT(*) FROM api_keys") == 0


def test_a_revoked_key_is_out_at_once_with_its_links(alice, client):
    job = program(alice)
    job.generate()
    [record] = job.history()["records"]
    assert client.get(record["signedImageUrl"]).status_code == 200

    assert alice.open("DELETE", f"/api/v1/keys/{job.key['id']}").status_code == 200

    response = job.get("/api/auth/profile")
    assert (response.status_code, response.json["code"]) == (401, "key_invalid")
    assert submit(job).status_code == job.generate().status_code == 401
    assert client.get(record["signedImageUrl"]).status_code == 403
    assert alice.open("DELETE", f"/api/v1/keys/{job.key['id']}").status_code == 404


def test_an_expired_key_is_out(alice, client):
    job = program(alice, expiresAt="2999-01-01T00:00:00+08:00")
    assert job.key["expiresAt"] == "2998-12-31T16:00:00Z"
    job.generate()
    [record] = job.history()["records"]

    db.execute("UPDATE api_keys SET expires_at = 1000")

    assert job.get("/api/auth/profile").status_code == submit(job).status_code == 401
    assert client.get(record["signedImageUrl"]).status_code == 403


def test_keys_are_their_owners_alone(alice, bob):
    job = program(alice)

    assert bob.get("/api/v1/keys").json["data"]["keys"] == []
    assert bob.open("DELETE", f"/api/v1/keys/{job.key['id']}").status_code == 404
    assert job.get("/api/auth/profile").json["data"]["username"] == "alice"


def test_a_key_that_says_something_else_is_none(alice, bob):
    key = make_key(alice, scopes=["read"])["key"]
    mark, account, end = key.split("_", 2)

    for text in (
        f"{mark}_{bob.id}r_{end}",
        f"{mark}_{alice.id}rg_{end}",
        f"{mark}_{alice.id}r_{end[:-1]}",
        f"{mark}_{alice.id}r_{'A' * 43}",
        f"{mark}_99999999999r_{end}",
        f"{mark}_{alice.id}_{end}",
        f"{mark}_",
        f"{mark}_{account}_{end}é",
    ):
        headers = {"Authorization": f"Bearer {text}"}
        response = Person().get("/api/v1/images/history", headers=headers)
        assert response.status_code in (401, 403), text


def test_a_disabled_account_has_no_key(alice):
    from accounts import users

    job = program(alice)
    users.set_disabled(alice.id, is_disabled=True)

    assert job.get("/api/auth/profile").status_code == submit(job).status_code == 401


def test_keys_go_on_after_a_new_password(alice):
    job = program(alice)
    alice.post("/api/auth/password", json={"oldPassword": "secret1", "newPassword": "secret2"})

    assert job.get("/api/auth/profile").status_code == 200


# -- What a key may do --------------------------------------------------------------------------

FOR_KEYS = {
    ("GET", "/api/auth/profile"): "read",
    ("GET", "/api/v1/images/history"): "read",
    ("GET", "/api/v1/images/quota"): "read",
    ("GET", "/api/v1/images?ids=1"): "read",
    ("GET", "/api/v1/images/1"): "read",
    ("GET", "/api/v1/tags"): "read",
    ("GET", "/api/v1/images/trash"): "read",
    ("POST", "/api/v1/images/archive"): "read",
    ("POST", "/api/v1/images/generate"): "generate",
    ("POST", "/api/v1/images/generate-test"): "generate",
    ("POST", "/api/v1/images/1/cancel"): "generate",
    ("POST", "/api/v1/images/1/retry"): "generate",
    ("POST", "/api/v1/uploads"): "generate",
    ("GET", "/api/v1/uploads/upload_id"): "generate",
    ("DELETE", "/api/v1/uploads/upload_id"): "generate",
}
FILES = ("generated_file", "uploads.input_file")


@pytest.mark.parametrize("scope", ["read", "generate"])
def test_a_key_does_what_its_scope_says(alice, scope):
    alice.generate()
    job = program(alice, scopes=[scope])

    for (method, path), needed in FOR_KEYS.items():
        response = job.open(method, path, json={"prompt": "x"} if method == "POST" else None)
        code = response.json.get("code")
        assert (code == "scope_missing") == (scope != needed), (path, response.json)
        assert code not in ("key_not_allowed", "key_invalid")


def test_a_key_never_does_what_needs_a_session(alice):
    """Every route that asks who is there refuses keys, but for those that are named above."""
    import app as service

    alice.generate()
    job = program(alice)
    named = {(method, path.partition("?")[0]) for method, path in FOR_KEYS}
    allowed = 0
    for rule in service.app.url_map.iter_rules():
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            path = str(rule).replace("<int:generation_id>", "1")
            path = path.replace("<user_id>", str(alice.id)).replace("<", "").replace(">", "")
            if Person().open(method, path).status_code != 401:
                continue
            response = job.open(method, path)
            if (method, path) in named or rule.endpoint in FILES:
                allowed += 1
                assert response.status_code != 403, path
            else:
                assert response.json["code"] == "key_not_allowed", (method, path, response.json)
    assert allowed >= len(named)


# -- Images a day -------------------------------------------------------------------------------


def test_a_key_has_a_daily_count_of_its_own(alice):
    job = program(alice, dailyImages=3)

    assert submit(job, n=2).status_code == 202
    response = submit(job, n=2)

    assert (response.status_code, response.json["code"]) == (429, "key_quota_spent")
    assert int(response.headers["Retry-After"]) > 0
    assert submit(job).status_code == submit(alice).status_code == 202
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 4


def test_an_image_that_is_canceled_or_fails_is_given_back_to_the_key(alice):
    job = program(alice, dailyImages=1)
    first = submit(job).json["data"]["records"][0]["id"]
    assert submit(job).status_code == 429

    job.post(f"/api/v1/images/{first}/cancel")
    second = submit(job).json["data"]["records"][0]["id"]
    db.execute(
        "UPDATE image_generations SET status = 'processing', claim = 'c' WHERE id = %s", second
    )
    queue.fail({"id": second, "user_id": alice.id, "claim": "c"}, "engine_error", "x")

    assert submit(job).status_code == 202
    assert db.value("SELECT quota_used FROM api_keys") == 1


def test_the_count_of_a_key_begins_anew_each_day(alice):
    job = program(alice, dailyImages=1)
    submit(job)
    db.execute("UPDATE api_keys SET quota_day = quota_day - 1")

    assert submit(job).status_code == 202


def test_a_process_whose_clock_is_behind_begins_no_day_anew(alice):
    job = program(alice, dailyImages=1)
    submit(job)
    db.execute("UPDATE api_keys SET quota_day = quota_day + 1")

    assert submit(job).json["code"] == "key_quota_spent"


def test_a_key_is_given_back_what_the_account_is(alice):
    """Deleted before it was made, failed and put back, and canceled on a later day."""
    job = program(alice)

    def new() -> int:
        return submit(job).json["data"]["records"][0]["id"]

    def counts() -> list[int]:
        keys = db.value("SELECT quota_used FROM api_keys")
        return [keys, db.value("SELECT quota_used FROM users")]

    alice.open("DELETE", f"/api/v1/images/{new()}")
    assert counts() == [0, 0]
    job.post(f"/api/v1/images/{new()}/retry")
    alice.post(f"/api/v1/images/{new()}/retry")
    assert counts() == [3, 4]
    failed = new()
    db.execute(
        "UPDATE image_generations SET status = 'processing', claim = 'c' WHERE id = %s", failed
    )
    queue.fail({"id": failed, "user_id": alice.id, "claim": "c"}, "engine_error", "x")
    assert counts() == [3, 4]
    queue.requeue_within({"id": failed, "user_id": alice.id, "status": "failed"})
    assert counts() == [4, 5]
    old = new()
    db.execute("UPDATE image_generations SET quota_day = quota_day - 1 WHERE id = %s", old)
    alice.post(f"/api/v1/images/{old}/cancel")
    assert counts() == [5, 6]


def test_the_accounts_quota_holds_for_keys(alice, settings):
    settings.DAILY_IMAGES = 1
    job = program(alice, dailyImages=5)
    submit(job)

    assert submit(job).json["code"] == "quota_spent"
    assert db.value("SELECT quota_used FROM api_keys") == 1


def test_of_many_submits_at_once_no_more_than_the_key_allows_get_through(alice):
    job = program(alice, dailyImages=5)
    statuses = []

    def run():
        statuses.append(submit(job).status_code)

    threads = [threading.Thread(target=run) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    assert sorted(statuses) == [202] * 5 + [429] * 7
    assert db.value("SELECT quota_used FROM api_keys") == 5


def test_generate_test_and_idempotency_count_once(alice):
    job = program(alice, dailyImages=2)
    headers = {"Idempotency-Key": "k"}
    body = {"prompt": "a fox"}

    for _ in range(3):
        response = job.post("/api/v1/images/generate", json=body, headers=headers)
        assert response.status_code == 202
    assert job.generate().status_code == 200
    assert job.generate().status_code == 429


def test_when_a_key_was_used_is_noted(alice):
    job = program(alice)
    assert job.key["lastUsedAt"] is None

    job.get("/api/auth/profile")

    [listed] = alice.get("/api/v1/keys").json["data"]["keys"]
    assert listed["lastUsedAt"].endswith(":00:00Z")


def test_no_secret_of_a_key_or_session_is_logged(alice, caplog):
    job = program(alice)
    job.get("/api/auth/profile")
    alice.post("/api/auth/logout")

    text = caplog.text + str([record.__dict__ for record in caplog.records])
    assert job.key["key"] not in text and alice.token not in text
    assert claims_of(alice)["sid"] not in text
