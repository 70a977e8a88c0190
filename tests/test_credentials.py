"""What lets somebody in, before and after each change that is to end it: a table of both."""

import re

import pytest

import db
from accounts import admin, audit, codes
from tests.conftest import Person, form
from tests.test_api_keys import program
from tests.test_second_factor import Phone
from tests.test_sessions import claims_of, copy_of, legacy, link_of

TOKENS = {"token", "other token", "old token"}
LINKS = {"link", "other link", "old link"}
KEYS = {"key", "link of the key", "archive of the key"}
CODES = {"mailed code", "operator's code", "code for an email"}
ALL = TOKENS | LINKS | KEYS | CODES | {"archive", "share"}
# What is no session goes on without any; a code is for whoever has none.
WITHOUT_SESSIONS = KEYS | {"share"}
NEW_KEY = "another key for the tests, long enough for HS256"


def authorized(person: Person, path: str = "/api/auth/profile") -> bool:
    return person.get(path).status_code == 200


def archive_link(person: Person) -> str:
    body = {"ids": [person.history()["records"][0]["id"]], "link": True}
    return person.post("/api/v1/images/archive", json=body).json["data"]["url"]


def checks(alice, other, settings) -> dict:
    """Return how to try what lets somebody in, as functions."""
    alice.generate()
    nobody, old, job = Person(), legacy(alice, settings), program(alice)
    image_id = alice.history()["records"][0]["id"]
    shared = alice.post(f"/api/v1/images/{image_id}/share").json["data"]["url"]
    urls = {
        "link": link_of(alice),
        "other link": link_of(other),
        "old link": link_of(old),
        "link of the key": link_of(job),
        "archive": archive_link(other),
        "archive of the key": archive_link(job),
        "share": re.sub("^https?://[^/]+", "", shared),
    }
    people = {"token": copy_with_token(alice), "other token": other, "old token": old, "key": job}
    made = {
        "mailed code": (codes.RESET, codes.make(alice.id, codes.RESET, "alice@example.com")),
        "operator's code": (codes.HANDED, codes.make(alice.id, codes.HANDED)),
        "code for an email": (codes.EMAIL, codes.make(alice.id, codes.EMAIL, "new@example.com")),
    }
    return {
        **{name: lambda url=url: nobody.get(url).status_code == 200 for name, url in urls.items()},
        **{name: lambda who=who: authorized(who) for name, who in people.items()},
        **{name: lambda code=code: is_code_good(*code) for name, code in made.items()},
    }


def copy_with_token(person: Person) -> Person:
    other = copy_of(person)
    other.headers = dict(person.headers)
    return other


def is_code_good(purpose: str, code: str) -> bool:
    found = codes.find(code, purpose)
    return bool(found) and found["email"] in ("", "new@example.com", found["present_email"])


# -- The changes --------------------------------------------------------------------------------


def password(alice, **_):
    body = {"oldPassword": "secret1", "newPassword": "secret2"}
    assert alice.post("/api/auth/password", json=body).status_code == 200


def reset(alice, **_):
    body = {"code": codes.make(alice.id, codes.HANDED), "newPassword": "secret2"}
    assert alice.post("/api/auth/reset", json=body).status_code == 200


def password_by_operator(alice, **_):
    admin.set_password(audit.command(), alice.id, "x")


def log_out(alice, **_):
    assert alice.post("/api/auth/logout").status_code == 200


def log_out_everywhere(alice, **_):
    assert alice.post("/api/auth/logout", json={"everywhere": True}).status_code == 200


def end_the_other(alice, other, **_):
    path = f"/api/auth/sessions/{claims_of(other)['sid']}"
    assert alice.open("DELETE", path).status_code == 200


def refresh(alice, **_):
    assert alice.post("/api/auth/refresh").status_code == 200


def second_factor_on(alice, **_):
    Phone(alice).confirm()


def second_factor_off(alice, **_):
    phone = Phone(alice)
    codes_left = phone.confirm().json["data"]["recoveryCodes"]
    body = {"password": "secret1", "code": codes_left[0]}
    assert alice.open("DELETE", "/api/auth/2fa", json=body).status_code == 200


def reset_of_the_second_factor(alice, **_):
    Phone(alice).confirm()
    admin.reset_second_factor(audit.command(), alice.id)


def disable(alice, **_):
    admin.change_user(audit.command(), alice.id, {"disabled": True})


def disable_and_enable(alice, **_):
    disable(alice)
    admin.change_user(audit.command(), alice.id, {"disabled": False})


def promote(alice, **_):
    admin.change_user(audit.command(), alice.id, {"role": "admin"})


def demote(alice, **_):
    promote(alice)
    admin.change_user(audit.command(), alice.id, {"role": "user"})


def delete(alice, **_):
    body = {"password": "secret1"}
    assert alice.open("DELETE", "/api/auth/account", json=body).status_code == 200


def delete_and_register(alice, **_):
    delete(alice)
    assert Person().post("/api/auth/register", data=form("alice")).status_code == 200


def delete_by_operator(alice, **_):
    admin.delete_user(audit.command(), alice.id)


def another_email(alice, **_):
    body = {"email": "other@example.com", "password": "secret1"}
    assert alice.open("PATCH", "/api/auth/profile", json=body).status_code == 200


def revoke_the_key(alice, **_):
    [key] = alice.get("/api/v1/keys").json["data"]["keys"]
    assert alice.open("DELETE", f"/api/v1/keys/{key['id']}").status_code == 200


def let_the_key_expire(**_):
    db.execute("UPDATE api_keys SET expires_at = UNIX_TIMESTAMP()")


def new_secret_key(settings, **_):
    settings.SECRET_KEY_PREVIOUS, settings.SECRET_KEY = settings.SECRET_KEY, NEW_KEY


def new_secret_key_alone(settings, **_):
    settings.SECRET_KEY = NEW_KEY


GOOD_AFTER = {
    password: WITHOUT_SESSIONS,
    reset: WITHOUT_SESSIONS,
    password_by_operator: WITHOUT_SESSIONS,
    log_out: ALL - {"token", "link"},
    log_out_everywhere: WITHOUT_SESSIONS,
    end_the_other: ALL - {"other token", "other link", "archive"},
    refresh: ALL,
    second_factor_on: WITHOUT_SESSIONS,
    second_factor_off: WITHOUT_SESSIONS,
    reset_of_the_second_factor: WITHOUT_SESSIONS,
    disable: set(),
    disable_and_enable: WITHOUT_SESSIONS,
    promote: ALL,
    demote: ALL,
    delete: set(),
    delete_and_register: set(),
    delete_by_operator: set(),
    another_email: ALL - {"mailed code"},
    revoke_the_key: ALL - KEYS,
    let_the_key_expire: ALL - KEYS,
    new_secret_key: ALL,
    new_secret_key_alone: ALL - TOKENS - LINKS - {"link of the key"},
}


@pytest.mark.parametrize(
    ("change", "good"), GOOD_AFTER.items(), ids=[change.__name__ for change in GOOD_AFTER]
)
def test_what_lets_in_after_a_change(alice, settings, change, good):
    other = copy_of(alice)
    other.log_in()
    ways = checks(alice, other, settings)
    before = {name for name, is_good in ways.items() if is_good()}

    change(alice=alice, other=other, settings=settings)

    assert before == ALL
    assert {name for name, is_good in ways.items() if is_good()} == good
