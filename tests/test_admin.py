"""The admin API, and the commands that call the same functions."""

import csv
import io
import json
import threading
import time

import pytest

import app as service
import db
from accounts import admin, api_keys, audit
from accounts.audit import Actor
from errors import ApiError
from images import admin as image_admin
from images import jobs, queue, stats
from images.schemas import STATUSES
from tests.conftest import Person, form
from tests.test_openapi import check_documented
from tests.test_queue import next_generation, record, submit, submit_one, work
from tests.test_second_factor import Phone

ADMIN = "/api/v1/admin"
CALLS = [
    ("GET", "users"),
    ("GET", "users/1"),
    ("PATCH", "users/1"),
    ("DELETE", "users/1"),
    ("POST", "users/1/reset-code"),
    ("DELETE", "users/1/2fa"),
    ("POST", "invites"),
    ("GET", "invites"),
    ("DELETE", "invites/1"),
    ("GET", "jobs"),
    ("POST", "jobs/1/cancel"),
    ("POST", "jobs/1/requeue"),
    ("GET", "queue"),
    ("POST", "queue/pause"),
    ("POST", "queue/resume"),
    ("GET", "workers"),
    ("GET", "stats"),
    ("GET", "audit"),
    ("GET", "images?user=1"),
    ("GET", "files/1/a.png"),
]


@pytest.fixture
def root(database):
    """An admin."""
    person = Person("root")
    promote(person)
    return person


@pytest.fixture
def flask(database):
    runner = service.app.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


def promote(person: Person) -> None:
    db.execute("UPDATE users SET role = 'admin' WHERE id = %s", person.id)


def change(person: Person, target: Person, **changes):
    return person.open("PATCH", f"{ADMIN}/users/{target.id}", json=changes)


def data(person: Person, path: str) -> dict:
    response = person.get(f"{ADMIN}/{path}")
    assert response.status_code == 200, response.json
    return response.json["data"]


def entries(query: str = "") -> list[tuple]:
    """Return actor, action, target, before and after of the entries, the oldest first."""
    rows, _ = audit.list_entries({}, 100)
    names = ("actor_name", "action", "target_name", "before", "after")
    return [tuple(row[name] for name in names) for row in reversed(rows)]


def refused(response) -> tuple[int, str]:
    return response.status_code, response.json["code"]


# -- Who may ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_only_an_admin_may_call(client, alice, method, path):
    assert client.open(method, f"{ADMIN}/{path}", json={}).status_code == 401
    assert refused(alice.open(method, f"{ADMIN}/{path}", json={})) == (403, "forbidden")


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_no_api_key_may_call_not_even_an_admins(root, method, path):
    key, _ = api_keys.make_key(root.id, "script", list(api_keys.SCOPES))
    headers = {"Authorization": f"Bearer {key}"}

    response = root.open(method, f"{ADMIN}/{path}", json={}, headers=headers)

    assert refused(response) == (403, "key_not_allowed")


def test_the_calls_of_this_file_are_all_there_are():
    rules = [rule for rule in service.app.url_map.iter_rules() if rule.rule.startswith(ADMIN)]
    calls = {(method, rule.endpoint) for rule in rules for method in rule.methods}

    assert len({call for call in calls if call[0] not in ("HEAD", "OPTIONS")}) == len(CALLS)


def test_admins_may_have_to_set_up_a_second_factor_first(root, settings):
    settings.REQUIRE_2FA = "admins"
    before = root.get(f"{ADMIN}/users")
    check_documented(before)

    Phone(root).confirm()

    assert refused(before) == (403, "second_factor_not_set_up")
    assert root.get(f"{ADMIN}/users").status_code == 200


def test_an_admin_takes_a_lost_second_factor_away(root, alice):
    Phone(alice).confirm()
    path = f"{ADMIN}/users/{alice.id}/2fa"

    answers = [root.open("DELETE", path) for _ in range(2)]

    for answer in answers:
        check_documented(answer, f"{ADMIN}/users/{{user_id}}/2fa")
    assert answers[0].json["data"]["secondFactor"] is False
    assert refused(answers[1]) == (409, "second_factor_off")
    assert alice.get("/api/auth/profile").status_code == 401
    alice.log_in()
    [entry] = entries()
    assert entry[:3] == ("root", "user.secondFactor", "alice")


def test_an_admin_keeps_the_own_second_factor(root):
    Phone(root).confirm()

    answer = root.open("DELETE", f"{ADMIN}/users/{root.id}/2fa")

    assert refused(answer) == (409, "own_account")
    assert db.value("SELECT COUNT(*) FROM recovery_codes") == 10


def test_the_role_is_read_at_each_request(root, alice):
    promote(alice)
    assert alice.get(f"{ADMIN}/users").status_code == 200

    change(root, alice, role="user")

    assert refused(alice.get(f"{ADMIN}/users")) == (403, "forbidden")


def test_the_first_admin_is_made_by_a_command(flask, alice):
    flask("user", "promote", "alice")
    assert alice.get(f"{ADMIN}/users").status_code == 200

    flask("user", "promote", "alice", "--undo")

    assert alice.get(f"{ADMIN}/users").status_code == 403
    assert entries() == [
        ("command", "user.role", "alice", {"role": "user"}, {"role": "admin"}),
        ("command", "user.role", "alice", {"role": "admin"}, {"role": "user"}),
    ]


def prepare(root: Person, alice: Person) -> None:
    """Let there be something of everything: an image, a job, a worker, entries."""
    alice.generate()
    submit(alice, n=2)
    jobs.fail(jobs.acquire(["test_model"]), "engine_error")
    queue.note_worker("w1", '{"test_model": "engine_busy"}', 1.0)
    change(root, alice, role="admin")
    pause(root, model="test_model")
    root.post(f"{ADMIN}/invites", json={"uses": 1})
    db.execute("UPDATE users SET has_second_factor = 1 WHERE id = %s", root.id)


# Status, path in the document, method and address.
ANSWERS = {
    "users": (200, "users", "GET", "users"),
    "bad filters of users": (400, "users", "GET", "users?role=x&status=x&cursor=x&q="),
    "no admin": (403, "users", "GET", "users"),
    "user": (200, "users/{user_id}", "GET", "users/2"),
    "no user": (404, "users/{user_id}", "GET", "users/99"),
    "change": (200, "users/{user_id}", "PATCH", "users/2"),
    "change of oneself": (409, "users/{user_id}", "PATCH", "users/1"),
    "delete": (200, "users/{user_id}", "DELETE", "users/2"),
    "delete of oneself": (409, "users/{user_id}", "DELETE", "users/1"),
    "limits": (200, "users/{user_id}", "PATCH", "users/2"),
    "reset code": (200, "users/{user_id}/reset-code", "POST", "users/2/reset-code"),
    "no second factor": (409, "users/{user_id}/2fa", "DELETE", "users/2/2fa"),
    "invite": (200, "invites", "POST", "invites"),
    "bad invite": (400, "invites", "POST", "invites?bad"),
    "invites": (200, "invites", "GET", "invites"),
    "revoke": (200, "invites/{invite_id}", "DELETE", "invites/1"),
    "no invite": (404, "invites/{invite_id}", "DELETE", "invites/99"),
    "jobs": (200, "jobs", "GET", "jobs"),
    "bad filters of jobs": (400, "jobs", "GET", "jobs?status=x&user=x&since=x"),
    "cancel": (200, "jobs/{job_id}/cancel", "POST", "jobs/3/cancel"),
    "cancel of a finished one": (409, "jobs/{job_id}/cancel", "POST", "jobs/1/cancel"),
    "cancel of none": (404, "jobs/{job_id}/cancel", "POST", "jobs/99/cancel"),
    "requeue": (200, "jobs/{job_id}/requeue", "POST", "jobs/2/requeue"),
    "requeue of a completed one": (409, "jobs/{job_id}/requeue", "POST", "jobs/1/requeue"),
    "queue": (200, "queue", "GET", "queue"),
    "pause": (200, "queue/pause", "POST", "queue/pause"),
    "resume": (200, "queue/resume", "POST", "queue/resume"),
    "workers": (200, "workers", "GET", "workers"),
    "stats": (200, "stats", "GET", "stats"),
    "bad days": (400, "stats", "GET", "stats?days=0"),
    "audit": (200, "audit", "GET", "audit"),
    "audit as csv": (200, "audit", "GET", "audit?format=csv"),
    "audit as lines": (200, "audit", "GET", "audit?format=jsonl"),
    "bad filters of the audit": (400, "audit", "GET", "audit?since=x&format=xml"),
    "images": (200, "images", "GET", "images?user=2"),
    "images of nobody": (404, "images", "GET", "images?user=99"),
    "images without a user": (400, "images", "GET", "images"),
    "no file": (404, "files/{user_id}/{filename}", "GET", "files/2/none.png"),
}
BODIES = {
    "change": {"disabled": True},
    "change of oneself": {"disabled": True},
    "limits": {"limits": {"dailyImages": 5, "models": ["test_model"], "expiresAt": "2099-01-01"}},
    "invite": {"uses": 2, "activeJobs": 1},
    "bad invite": {"uses": 0, "limitDays": 1},
    "pause": {"model": "test_model"},
    "resume": {"model": "test_model"},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_as_documented(root, alice, settings, name):
    settings.ADMIN_SEES_IMAGES = True
    prepare(root, alice)
    status, path, method, address = ANSWERS[name]
    if status == 403:
        db.execute("UPDATE users SET role = 'user'")

    response = root.open(method, f"{ADMIN}/{address}", json=BODIES.get(name))

    assert response.status_code == status
    check_documented(response, f"{ADMIN}/{path}")


# -- Accounts -----------------------------------------------------------------------------------


def names(found: dict) -> list[str]:
    return [user["username"] for user in found["users"]]


def test_users_are_listed_the_newest_first_by_pages(root, alice, bob):
    first = data(root, "users?per_page=2")
    second = data(root, f"users?per_page=2&cursor={first['nextCursor']}")

    assert names(first) == ["bob", "alice"]
    assert (names(second), second["nextCursor"]) == (["root"], None)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=ALI", ["alice"]),
        ("q=bob@EXAMPLE", ["bob"]),
        ("q=%25", []),
        ("q=example&role=user", ["bob", "alice"]),
        ("role=admin", ["root"]),
        ("status=disabled", ["bob"]),
        ("status=active", ["alice", "root"]),
    ],
)
def test_users_are_searched_and_filtered(root, alice, bob, query, found):
    db.execute("UPDATE users SET is_disabled = 1 WHERE id = %s", bob.id)

    assert names(data(root, f"users?{query}")) == found


def test_one_user_is_shown_whole(root, alice):
    alice.generate()

    shown = data(root, f"users/{alice.id}")

    assert shown.pop("createdAt").endswith("Z")
    assert shown == {
        "id": alice.id,
        "username": "alice",
        "email": "alice@example.com",
        "role": "user",
        "status": "active",
        "secondFactor": False,
        "imageCount": 1,
        "storageBytes": db.value("SELECT storage_bytes FROM users WHERE id = %s", alice.id),
        "limits": alice.get("/api/auth/profile").json["data"]["limits"],
    }


@pytest.mark.parametrize("number", ["0", "999999", "9" * 30])
def test_a_user_that_is_not_there(root, number):
    for method, path in [("GET", ""), ("PATCH", ""), ("DELETE", "")]:
        response = root.open(method, f"{ADMIN}/users/{number}{path}", json={"role": "admin"})
        assert refused(response) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"role": "root"}, "role"),
        ({"role": None}, "role"),
        ({"disabled": 1}, "disabled"),
        ({"username": "x"}, "username"),
    ],
)
def test_a_wrong_change_is_named(root, alice, body, field):
    response = change(root, alice, **body)

    assert (response.status_code, list(response.json["fields"])) == (400, [field])


def test_what_a_role_may_be_is_listed_in_every_language(root, alice):
    chinese = change(root, alice, role="boss").json["fields"]["role"]
    path, english = f"{ADMIN}/users/{alice.id}", {"Accept-Language": "en"}
    answer = root.open("PATCH", path, json={"role": "boss"}, headers=english)

    assert chinese == "role 必须是 user, admin 之一"
    assert answer.json["fields"]["role"] == "role must be one of user, admin"


def test_a_closed_account_is_out_at_once_and_its_jobs_are_canceled(root, alice):
    number = submit_one(alice)

    response = change(root, alice, disabled=True)

    assert response.json["data"]["status"] == "disabled"
    assert alice.get("/api/auth/profile").status_code == 401
    assert data(root, f"jobs?user={alice.id}")["jobs"][0]["status"] == "canceled"
    change(root, alice, disabled=False)
    alice.log_in()
    assert record(alice, number)["status"] == "canceled"


def test_a_change_to_the_same_does_nothing(root, alice):
    change(root, alice, disabled=False, role="user")

    assert alice.get("/api/auth/profile").status_code == 200
    assert entries() == []


@pytest.mark.parametrize("changes", [{"disabled": True}, {"role": "user"}])
def test_an_admin_cannot_lose_the_own_rights(root, changes):
    assert refused(change(root, root, **changes)) == (409, "own_account")
    assert refused(root.open("DELETE", f"{ADMIN}/users/{root.id}")) == (409, "own_account")
    assert root.get(f"{ADMIN}/users").status_code == 200


def test_of_two_admins_who_take_each_others_rights_at_once_one_is_left(root, alice):
    promote(alice)
    actors = [Actor(root.id, "root", ""), Actor(alice.id, "alice", "")]
    both = threading.Barrier(2)
    codes = []

    def demote(actor: Actor, number: int) -> None:
        both.wait()
        try:
            admin.change_user(actor, number, {"role": "user"})
        except ApiError as error:
            codes.append(error.code)

    threads = [
        threading.Thread(target=demote, args=(actors[0], alice.id)),
        threading.Thread(target=demote, args=(actors[1], root.id)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert codes == ["forbidden"]
    assert db.value("SELECT COUNT(*) FROM users WHERE role = 'admin'") == 1


def test_the_last_admin_cannot_delete_the_own_account(root, alice):
    def delete():
        return root.open("DELETE", "/api/auth/account", json={"password": "secret1"})

    response = delete()

    assert refused(response) == (409, "last_admin")
    check_documented(response, "/api/auth/account")
    assert root.get("/api/auth/profile").status_code == 200
    promote(alice)
    assert delete().status_code == 200


def test_a_deleted_account_leaves_its_name_in_the_audit_log_alone(root, alice):
    alice.generate()

    response = root.open("DELETE", f"{ADMIN}/users/{alice.id}")

    assert (response.status_code, response.json["data"]) == (200, {"id": alice.id})
    assert names(data(root, "users")) == ["root"]
    assert entries() == [("root", "user.delete", "alice", None, None)]
    assert Person("alice").history()["records"] == []


def test_limits_count_at_once_and_are_noted(root, alice):
    given = {"dailyImages": 1, "activeJobs": None, "models": None, "expiresAt": "2099-01-01"}
    shown = change(root, alice, limits=given).json["data"]["limits"]

    assert (shown["dailyImages"], shown["source"]) == (1, "admin")
    submit(alice)
    assert submit(alice).json["code"] == "quota_spent"
    change(root, alice, limits=given)
    change(root, alice, limits=None)
    assert submit(alice).status_code == 202
    before, after = [entry[3:] for entry in entries()]
    assert before[0] == after[1] == {"limits": None}
    assert before[1]["limits"]["daily_images"] == 1 and before[1] == after[0]


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"dailyImages": 0}, "limits.dailyImages"),
        ({"models": ["nothing"]}, "limits.models"),
        ({"models": []}, "limits.models"),
        ({"expiresAt": "2099-01-01"}, "limits.expiresAt"),
        ({"images": 1}, "limits.images"),
        (1, "limits"),
    ],
)
def test_wrong_limits_are_named(root, alice, limits, field):
    response = change(root, alice, limits=limits)

    assert (response.status_code, list(response.json["fields"])) == (400, [field])


def test_admins_need_a_second_factor_if_the_setting_says_so(root, settings):
    settings.REQUIRE_2FA = "admins"
    assert refused(root.get(f"{ADMIN}/users")) == (403, "second_factor_not_set_up")

    db.execute("UPDATE users SET has_second_factor = 1")

    assert root.get(f"{ADMIN}/users").status_code == 200


def test_a_forgotten_password_is_set_by_a_code_once(root, alice, client):
    path = f"{ADMIN}/users/{alice.id}/reset-code"
    old = root.post(path).json["data"]["code"]
    code = root.post(path).json["data"]["code"]

    def reset(code: str) -> int:
        body = {"code": code, "newPassword": "secret2"}
        return client.post("/api/auth/reset", json=body).status_code

    assert reset(old) >= 400 and reset(code) == 200 and reset(code) >= 400
    assert alice.get("/api/auth/profile").status_code == 401
    alice.log_in("secret2")
    assert [entry[1:] for entry in entries()] == [("user.reset-code", "alice", None, None)] * 2


def test_a_closed_account_gets_no_code(root, alice):
    change(root, alice, disabled=True)

    response = root.post(f"{ADMIN}/users/{alice.id}/reset-code")

    assert refused(response) == (403, "account_disabled")
    check_documented(response, f"{ADMIN}/users/{{user_id}}/reset-code")


# -- Invites ------------------------------------------------------------------------------------


def invite(person: Person, **body) -> dict:
    return person.post(f"{ADMIN}/invites", json=body).json["data"]


def test_an_invite_is_made_shown_and_used(root, client):
    made = invite(root, uses=2, dailyImages=7, note="workshop")

    person = form("carol", inviteCode=made["code"])
    assert client.post("/api/auth/register", data=person).status_code == 200

    [shown] = data(root, "invites")["invites"]
    assert (shown["uses"], shown["maxUses"], shown["state"]) == (1, 2, "open")
    assert (shown["dailyImages"], shown["note"], "code" in shown) == (7, "workshop", False)
    assert [entry[:3] for entry in entries()] == [("root", "invite.create", "workshop")]
    assert made["code"] not in json.dumps(db.all("SELECT * FROM audit_log"))


def test_a_revoked_invite_opens_nothing(root, client):
    made = invite(root)
    for _ in range(2):
        shown = root.open("DELETE", f"{ADMIN}/invites/{made['id']}").json["data"]

    person = form("carol", inviteCode=made["code"])
    refusal = client.post("/api/auth/register", data=person)

    assert (shown["state"], refused(refusal)) == ("revoked", (410, "code_expired"))
    assert [entry[1] for entry in entries()] == ["invite.create", "invite.revoke"]


def test_invites_come_by_pages(root):
    numbers = [invite(root)["id"] for _ in range(3)]

    first = data(root, "invites?per_page=2")
    second = data(root, f"invites?per_page=2&cursor={first['nextCursor']}")

    shown = [one["id"] for page in (first, second) for one in page["invites"]]
    assert (shown, second["nextCursor"]) == (numbers[::-1], None)


# -- Jobs ---------------------------------------------------------------------------------------


def ids(found: dict) -> list[int]:
    return [job["id"] for job in found["jobs"]]


def test_jobs_of_all_are_listed_without_their_prompts(root, alice, bob):
    numbers = [submit_one(alice, prompt="very private"), submit_one(bob)]

    found = data(root, "jobs")

    assert ids(found) == numbers[::-1]
    assert [job["username"] for job in found["jobs"]] == ["bob", "alice"]
    assert "private" not in json.dumps(found)


def test_jobs_are_filtered(root, alice, bob):
    mine, other = submit_one(alice), submit_one(bob)
    jobs.fail(jobs.acquire(["test_model"]), "engine_busy")

    def found(query: str) -> list[int]:
        return ids(data(root, f"jobs?{query}"))

    assert found("status=failed") == found("error=engine_busy") == [mine]
    assert found("status=pending") == found(f"user={bob.id}") == [other]
    assert found("model=test_model&since=2020-01-01") == [other, mine]
    assert found("model=other") == found("since=2999-01-01") == found("user=999") == []


def test_jobs_come_by_pages(root, alice):
    numbers = [submit_one(alice) for _ in range(3)]

    first = data(root, "jobs?per_page=2")
    second = data(root, f"jobs?per_page=2&cursor={first['nextCursor']}")

    assert ids(first) + ids(second) == numbers[::-1]
    assert second["nextCursor"] is None


@pytest.mark.parametrize("query", ["status=failed", "error=engine_busy", "status=failed&user=2"])
def test_a_page_ends_after_so_many_jobs_though_it_is_not_full(root, alice, monkeypatch, query):
    monkeypatch.setattr(image_admin, "MAX_LOOKED_THROUGH", 2)
    numbers = [submit_one(alice) for _ in range(5)]
    jobs.fail(jobs.acquire(["test_model"]), "engine_busy")

    pages = [data(root, f"jobs?{query}")]
    while pages[-1]["nextCursor"]:
        pages.append(data(root, f"jobs?{query}&cursor={pages[-1]['nextCursor']}"))

    assert [ids(page) for page in pages] == [[], [], [numbers[0]]]


@pytest.mark.parametrize("query", [f"status={status}" for status in STATUSES] + ["error=x"])
def test_filters_of_jobs_may_be_combined_with_any_other(root, query):
    everything = "user=1&model=m&since=2026-01-01&cursor=5&per_page=1000"

    assert data(root, f"jobs?{query}&{everything}")["jobs"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=x", "status"),
        ("user=x", "user"),
        ("user=0", "user"),
        ("cursor=-1", "cursor"),
        (f"cursor={2**31}", "cursor"),
        ("per_page=0", "per_page"),
        ("since=x", "since"),
    ],
)
def test_a_wrong_filter_is_named(root, query, field):
    response = root.get(f"{ADMIN}/jobs?{query}")

    assert (response.status_code, list(response.json["fields"])) == (400, [field])


def test_an_admin_cancels_a_job_once(root, alice):
    number = submit_one(alice)

    response = root.post(f"{ADMIN}/jobs/{number}/cancel")
    again = root.post(f"{ADMIN}/jobs/{number}/cancel")

    assert (response.json["message"], refused(again)) == ("任务已取消", (409, "already_finished"))
    assert record(alice, number)["status"] == "canceled"
    assert alice.get("/api/v1/images/quota").json["data"]["used"] == 0
    before, after = entries()[0][3:]
    assert (before["status"], after["status"]) == ("pending", "canceled")


def test_an_admin_puts_a_failed_job_back(root, alice):
    number = submit_one(alice)
    refusal = root.post(f"{ADMIN}/jobs/{number}/requeue")
    jobs.fail(jobs.acquire(["test_model"]), "engine_error")

    root.post(f"{ADMIN}/jobs/{number}/requeue")
    work()

    assert refused(refusal) == (409, "not_requeueable")
    assert record(alice, number)["status"] == "completed"
    assert [entry[1] for entry in entries()] == ["job.requeue"]


@pytest.mark.parametrize("what", ["cancel", "requeue"])
def test_a_job_that_is_not_there(root, alice, what):
    old = db.insert("image_generations", user_id=alice.id, prompt_text="old", status="pending")

    for number in (old, 999999):
        assert refused(root.post(f"{ADMIN}/jobs/{number}/{what}")) == (404, "not_found")


def test_commands_leave_entries_too(flask, alice):
    number = str(submit_one(alice))
    flask("jobs", "cancel", number)
    flask("user", "set-password", "alice", "--password", "secret2")
    flask("user", "disable", "alice")
    flask("user", "create", "carol", "carol@example.com", "--password", "secret1")
    flask("user", "limits", "carol", "--daily", "5")
    flask("invite", "create", "--note", "workshop")
    flask("invite", "revoke", "1")
    flask("user", "delete", "alice", "--yes")

    found = [entry[:3] for entry in entries()]

    assert found == [
        ("command", "job.cancel", "test_model"),
        ("command", "user.password", "alice"),
        ("command", "user.disabled", "alice"),
        ("command", "user.create", "carol"),
        ("command", "user.limits", "carol"),
        ("command", "invite.create", "workshop"),
        ("command", "invite.revoke", "workshop"),
        ("command", "user.delete", "alice"),
    ]
    assert "secret" not in json.dumps(db.all("SELECT * FROM audit_log"))


def test_a_repair_of_the_storage_is_noted(flask):
    flask("storage", "check")
    flask("storage", "check", "--repair")

    assert [entry[:2] for entry in entries()] == [("command", "storage.repair")]


def test_a_note_of_an_invite_is_one_line(root, flask):
    note = "class 5b\n     1  open      used 0/1"
    root.post(f"{ADMIN}/invites", json={"note": note})

    assert len(flask("invite", "list").output.splitlines()) == 1


def test_a_change_that_fails_leaves_no_entry(root, alice, monkeypatch):
    number = submit_one(alice)

    def fail(*arguments):
        raise db.Unavailable

    monkeypatch.setattr(queue.stats, "count", fail)

    assert root.post(f"{ADMIN}/jobs/{number}/cancel").status_code == 503
    assert (entries(), record(alice, number)["status"]) == ([], "pending")


def test_an_entry_that_fails_undoes_the_change(root, alice, monkeypatch):
    def fail(*arguments):
        raise db.Unavailable

    monkeypatch.setattr(audit, "record", fail)

    assert change(root, alice, disabled=True).status_code == 503
    assert alice.get("/api/auth/profile").status_code == 200


# -- Pausing ------------------------------------------------------------------------------------


def pause(person: Person, **body):
    return person.post(f"{ADMIN}/queue/pause", json=body)


def resume(person: Person, **body):
    return person.post(f"{ADMIN}/queue/resume", json=body)


@pytest.mark.parametrize("body", [{}, {"model": "test_model"}])
def test_nothing_is_taken_while_paused_and_submits_go_on(root, alice, body):
    running = submit_one(alice)
    job = jobs.acquire(["test_model"])
    pause(root, **body)
    waiting = submit_one(alice)

    assert jobs.acquire(["test_model"]) is None
    assert jobs.claim(waiting) is None
    jobs.run(job)
    assert record(alice, running)["status"] == "completed"
    resume(root, **body)
    work()
    assert record(alice, waiting)["status"] == "completed"


def test_a_paused_model_leaves_the_others_alone(root, alice):
    number = submit_one(alice)
    db.execute("UPDATE image_generations SET model = 'other' WHERE id = %s", number)
    submit_one(alice)
    db.insert("paused_models", model="test_model", paused_at=1)

    assert next_generation(["test_model", "other"])
    queue.claim_job({**queue.get_job(number)}, "c" * 32, 30, 60, now=1)

    assert queue.get_job(number)["status"] == "processing"


def test_models_say_that_they_are_paused(root, client):
    queue.note_worker("w1", '{"test_model": ""}', 1.0)

    def model() -> tuple:
        found = client.get("/api/v1/models").json["data"]["models"][0]
        return found["available"], found["reason"]

    assert model() == (True, None)
    pause(root, model="test_model")
    assert model() == (False, "队列已暂停处理该模型的任务")
    pause(root)
    assert model() == (False, "队列已暂停")
    resume(root), resume(root, model="test_model")
    assert model() == (True, None)


def test_readiness_says_that_the_queue_is_paused(root, client):
    queue.note_worker("w1", '{"test_model": ""}', 1.0)
    pause(root)

    response = client.get("/api/health/ready")

    found = response.json["data"]
    assert (response.status_code, found["queue"]) == (200, "paused")
    assert found["models"] == {"test_model": "paused"}


def test_a_test_image_is_refused_while_paused(root, alice):
    pause(root)

    response = alice.generate()

    assert refused(response) == (503, "queue_paused")
    assert (int(response.headers["Retry-After"]), alice.history()["records"]) == (30, [])


def test_what_waits_for_a_paused_model_has_no_time(root, alice):
    queue.note_worker("w1", '{"test_model": ""}', 1.0)
    number = submit_one(alice)
    assert record(alice, number)["etaSeconds"]

    pause(root)

    shown = record(alice, number)
    assert (shown["queuePosition"], shown["etaSeconds"]) == (1, None)


def test_pausing_twice_is_noted_once(root):
    for _ in range(2):
        pause(root, model="test_model")
    for _ in range(2):
        shown = resume(root, model="test_model").json["data"]

    assert [entry[1:3] for entry in entries()] == [
        ("queue.pause", "test_model"),
        ("queue.resume", "test_model"),
    ]
    assert shown["models"][0]["pausedAt"] is None


@pytest.mark.parametrize("model", ['"nothing"', '""', r'"\ud800"', r'"\u0000"', "7", '"🦊"'])
@pytest.mark.parametrize("what", ["pause", "resume"])
def test_a_model_that_is_not_there_cannot_be_paused(root, what, model):
    body = f'{{"model": {model}}}'

    response = root.post(f"{ADMIN}/queue/{what}", data=body, content_type="application/json")

    if what == "pause" or model not in ('"nothing"', '"🦊"'):
        assert (response.status_code, list(response.json["fields"])) == (400, ["model"])
    else:
        assert (response.status_code, entries()) == (200, [])


def test_a_body_may_be_left_out(root):
    assert root.post(f"{ADMIN}/queue/pause").json["data"]["pausedAt"].endswith("Z")
    assert root.post(f"{ADMIN}/queue/resume").json["data"]["pausedAt"] is None


def test_the_queue_shows_what_waits_and_runs(root, alice):
    submit(alice, n=3)
    jobs.acquire(["test_model"])
    pause(root, model="test_model")

    [model] = data(root, "queue")["models"]

    assert model.pop("pausedAt")
    assert model == {"name": "test_model", "pending": 2, "processing": 1}


def test_workers_are_shown(root):
    queue.note_worker("w1", '{"test_model": "", "flux": "engine_busy"}', 2.5)

    [worker] = data(root, "workers")["workers"]

    assert worker.pop("seenAt").endswith("Z")
    models = {"test_model": "ok", "flux": "engine_busy"}
    assert worker == {"name": "w1", "averageSeconds": 2.5, "models": models}


def test_the_queue_is_paused_by_commands_too(flask, alice):
    assert flask("queue", "status").output == "Nothing waits or runs\n"
    submit_one(alice)
    flask("queue", "pause", "test_model")
    queue.note_worker("w1", '{"test_model": ""}', 1.0)

    assert jobs.acquire(["test_model"]) is None
    assert "paused" in flask("queue", "status").output
    assert "w1" in flask("queue", "workers").output
    wrong = flask("queue", "pause", "nothing")
    assert wrong.exit_code == 1 and "must be one of test_model" in wrong.output
    assert flask("queue", "resume").output == "Error: the queue is not paused\n"
    flask("queue", "resume", "test_model")
    assert jobs.acquire(["test_model"])


# -- Numbers ------------------------------------------------------------------------------------


def today(found: dict) -> dict:
    """Return the numbers of the model, of today alone."""
    model = found["models"]["test_model"]
    return {name: model[name][-1] for name in stats.OUTCOMES}


def test_numbers_count_each_way_that_a_job_ends(root, alice):
    numbers = [submit_one(alice) for _ in range(3)]
    jobs.run(jobs.acquire(["test_model"]))
    jobs.fail(jobs.acquire(["test_model"]), "engine_error")
    alice.post(f"/api/v1/images/{numbers[2]}/cancel")
    alice.generate()

    found = data(root, "stats?days=3")

    assert today(found) == {"completed": 2, "failed": 1, "canceled": 1}
    assert (found["images"], found["users"]) == ([0, 0, 2], [0, 0, 2])
    assert (len(found["days"]), found["timezone"]) == (3, "UTC")
    completed = alice.history("?status=completed")["records"]
    sizes = [len(alice.get(record["imageUrl"]).data) for record in completed]
    assert found["bytes"][-1] > sum(sizes)
    totals = {"users": 2, "disabled": 0, "admins": 1, "images": 4}
    assert {name: found["totals"][name] for name in totals} == totals


def test_what_is_deleted_stays_counted(root, alice):
    number = alice.generate().json["data"]["id"]

    alice.open("DELETE", f"/api/v1/images/{number}")

    assert today(data(root, "stats"))["completed"] == 1


@pytest.mark.parametrize("days", [0, 30])
def test_an_unfinished_job_that_is_deleted_counts_as_canceled(root, alice, settings, days):
    settings.TRASH_DAYS = days
    numbers = [submit_one(alice) for _ in range(2)]
    jobs.acquire(["test_model"])

    for number in numbers:
        alice.open("DELETE", f"/api/v1/images/{number}")

    assert today(data(root, "stats")) == {"completed": 0, "failed": 0, "canceled": 2}


def test_numbers_say_how_long_images_waited_and_took(root, alice):
    for seconds in (10, 30):
        submit_one(alice)
        job = jobs.acquire(["test_model"])
        jobs.run({**job, "waited_seconds": 5, "taken_at": time.monotonic() - seconds})

    model = data(root, "stats?days=1")["models"]["test_model"]

    assert model["waitingSeconds"] == {"average": [5], "max": [5]}
    assert 20 <= model["runningSeconds"]["average"][0] <= 25
    assert 30 <= model["runningSeconds"]["max"][0] <= 35


def test_days_without_anything_have_no_average(root, alice):
    alice.generate()

    waiting = data(root, "stats?days=2")["models"]["test_model"]["waitingSeconds"]

    assert waiting["average"][0] is None and waiting["average"][1] is not None


@pytest.mark.parametrize("days", ["0", "367", "x", ""])
def test_days_have_limits(root, days):
    assert root.get(f"{ADMIN}/stats?days={days}").status_code == 400


def test_numbers_are_shown_by_a_command(flask, alice):
    alice.generate()

    output = flask("queue", "stats", "--days", "2").output

    assert "completed 1, failed 0, canceled 0" in output


# -- The audit log ------------------------------------------------------------------------------


def test_an_entry_says_who_what_whom_from_where_and_when(root, alice):
    change(root, alice, disabled=True, role="admin")

    newest, oldest = data(root, "audit")["entries"]

    assert newest["action"] == "user.role" and newest["at"].endswith("Z")
    assert {**oldest, "id": 0, "at": ""} == {
        "id": 0,
        "at": "",
        "actorId": root.id,
        "actor": "root",
        "address": "127.0.0.1",
        "action": "user.disabled",
        "targetKind": "user",
        "targetId": alice.id,
        "target": "alice",
        "before": {"disabled": False},
        "after": {"disabled": True},
    }


def test_entries_come_by_pages_and_filters(root, alice):
    for is_disabled in (True, False, True):
        change(root, alice, disabled=is_disabled)
    pause(root)

    first = data(root, "audit?per_page=3")
    second = data(root, f"audit?per_page=3&cursor={first['nextCursor']}")
    numbers = [entry["id"] for page in (first, second) for entry in page["entries"]]

    assert len(numbers) == 4 and numbers == sorted(numbers, reverse=True)
    assert len(data(root, "audit?action=queue.pause")["entries"]) == 1
    assert len(data(root, f"audit?actor={root.id}")["entries"]) == 4
    assert len(data(root, "audit?actor=root&since=2020-01-01")["entries"]) == 4
    assert data(root, "audit?actor=command")["entries"] == []
    assert data(root, "audit?until=2020-01-01")["entries"] == []


def test_the_log_is_exported_whole(root, alice, monkeypatch):
    monkeypatch.setattr("accounts.pages.BATCH_ROWS", 2)
    for number in range(5):
        change(root, alice, disabled=number % 2 == 0)

    table = root.get(f"{ADMIN}/audit?format=csv&action=user.disabled")
    lines = root.get(f"{ADMIN}/audit?format=jsonl")

    rows = list(csv.DictReader(io.StringIO(table.text)))
    objects = [json.loads(line) for line in lines.text.splitlines()]
    assert (table.mimetype, lines.mimetype) == ("text/csv", "application/jsonl")
    assert table.headers["Content-Disposition"] == "attachment; filename=audit.csv"
    assert len(rows) == len(objects) == 5
    assert json.loads(rows[0]["after"]) == objects[0]["after"] == {"disabled": True}


@pytest.mark.parametrize("name", ["=1+1", "+a1", "-a1", "@sum", "＝1"])
def test_no_cell_of_the_export_is_a_formula(root, name):
    audit.record(Actor(None, name, "\tx"), "user.create", audit.Target("user", 1, name))

    [row] = csv.DictReader(io.StringIO(root.get(f"{ADMIN}/audit?format=csv").text))

    assert (row["actor"], row["target"], row["address"]) == (f"'{name}", f"'{name}", "'\tx")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_log_cannot_be_changed(root, method):
    assert root.open(method, f"{ADMIN}/audit").status_code == 405


def test_the_log_is_shown_by_a_command(flask, alice):
    flask("user", "disable", "alice")

    lines = flask("audit", "list", "--actor", "command", "--since", "2020-01-01").output

    assert json.loads(lines)["action"] == "user.disabled"
    assert "alice" in flask("audit", "list", "--format", "csv").output
    wrong = flask("audit", "list", "--since", "x")
    assert wrong.exit_code == 1 and "ISO 8601" in wrong.output


# -- Images -------------------------------------------------------------------------------------


def test_an_admin_sees_no_images_of_others(root, alice):
    alice.generate()
    image = alice.history()["records"][0]
    file = image["imageUrl"].rpartition("/")[2]

    assert refused(root.get(f"{ADMIN}/images?user={alice.id}")) == (403, "forbidden")
    assert refused(root.get(f"{ADMIN}/files/{alice.id}/{file}")) == (403, "forbidden")
    assert refused(root.get(image["imageUrl"])) == (403, "forbidden")
    assert refused(root.get(f"/api/v1/images/{image['id']}")) == (404, "not_found")
    assert entries() == []


def test_each_look_is_noted_if_admins_may(root, alice, settings):
    settings.ADMIN_SEES_IMAGES = True
    number = alice.generate(prompt="very private").json["data"]["id"]

    [image] = data(root, f"images?user={alice.id}")["images"]
    picture = root.get(image["imageUrl"])
    thumbnail = root.get(image["thumbnailUrl"])

    assert (image["prompt"], picture.mimetype) == ("very private", "image/png")
    assert (thumbnail.mimetype, thumbnail.headers["Cache-Control"]) == ("image/webp", "no-store")
    looks = [(entry[1], entry[2], entry[4]) for entry in entries()]
    assert looks == [
        ("image.list", "alice", {"ids": [number]}),
        ("image.file", "alice", {"file": image["imageUrl"].rpartition("/")[2]}),
        ("image.file", "alice", {"file": image["thumbnailUrl"].rpartition("/")[2]}),
    ]


def test_a_look_that_cannot_be_noted_shows_nothing(root, alice, settings, monkeypatch):
    settings.ADMIN_SEES_IMAGES = True
    alice.generate()
    file = alice.history()["records"][0]["imageUrl"].rpartition("/")[2]

    def fail(*arguments):
        raise db.Unavailable

    monkeypatch.setattr(audit, "record", fail)

    assert root.get(f"{ADMIN}/images?user={alice.id}").status_code == 503
    assert root.get(f"{ADMIN}/files/{alice.id}/{file}").status_code == 503


def test_what_is_in_the_trash_is_shown_to_nobody(root, alice, settings):
    settings.ADMIN_SEES_IMAGES = True
    settings.TRASH_DAYS = 30
    number = alice.generate().json["data"]["id"]
    [image] = data(root, f"images?user={alice.id}")["images"]
    alice.open("DELETE", f"/api/v1/images/{number}")

    answers = [root.get(image[name]) for name in ("imageUrl", "thumbnailUrl")]

    assert [refused(answer) for answer in answers] == [(410, "image_deleted")] * 2
    assert data(root, f"images?user={alice.id}")["images"] == []


@pytest.mark.parametrize("file", ["none.png", "..%2f..%2fapp.db", "x" * 5000, ".hidden"])
def test_a_file_that_is_not_there(root, alice, settings, file):
    settings.ADMIN_SEES_IMAGES = True

    assert root.get(f"{ADMIN}/files/{alice.id}/{file}").status_code == 404
