import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pyotp
import pytest
import requests

import db
from accounts import second_factor, users
from tests.conftest import form

NOW = 1_800_000_000  # the middle of no step: 15 s after one began
PASSWORD = {"password": "secret1"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; `clock(30)` moves it on."""
    now = [NOW]
    monkeypatch.setattr(pyotp.totp, "time", SimpleNamespace(time=lambda: now[0]))

    def move(seconds: int) -> None:
        now[0] += seconds

    return move


class Phone:
    """An authenticator app, with the recovery codes that its owner wrote down."""

    def __init__(self, person):
        self.person = person
        self.secret = person.post("/api/auth/2fa", json=PASSWORD).json["data"]["secret"]

    def code(self, steps: int = 0) -> str:
        return pyotp.TOTP(self.secret).at(pyotp.totp.time.time() + 30 * steps)

    def confirm(self, code: str | None = None):
        answer = self.person.post("/api/auth/2fa/confirm", json={"code": code or self.code()})
        if answer.status_code == 200:
            token = answer.json["data"]["token"]
            self.person.headers = {"Authorization": f"Bearer {token}"}
        return answer


@pytest.fixture
def phone(alice, clock) -> Phone:
    """What alice logs in with from now on."""
    phone = Phone(alice)
    answer = phone.confirm()
    phone.recovery_codes = answer.json["data"]["recoveryCodes"]
    clock(30)
    return phone


def log_in(client, code=None, password="secret1", **options):
    body = {"username": "alice", "password": password}
    if code is not None:
        body["code"] = code
    return client.post("/api/auth/login", json=body, headers={"Authorization": ""}, **options)


def state(person) -> tuple[bool, int]:
    data = person.get("/api/auth/2fa").json["data"]
    return data["enabled"], data["recoveryCodesLeft"]


def test_setting_it_up_takes_a_password_and_a_code(alice, clock):
    begun = alice.post("/api/auth/2fa", json=PASSWORD)
    before = state(alice), log_in(alice).status_code
    phone = Phone(alice)  # begun again: the first secret is void
    stale = phone.confirm(pyotp.TOTP(begun.json["data"]["secret"]).at(NOW))

    confirmed = phone.confirm()

    uri = begun.json["data"]["uri"]
    assert uri.startswith("otpauth://totp/Image%20Generator:alice?secret=")
    assert before == ((False, 0), 200)
    assert (stale.status_code, stale.json["code"]) == (403, "wrong_code")
    assert list(stale.json["fields"]) == ["code"]
    assert confirmed.status_code == 200 and len(set(confirmed.json["data"]["recoveryCodes"])) == 10
    assert state(alice) == (True, 10)


def test_log_in_asks_for_the_code_only_after_the_right_password(phone, client):
    assert log_in(client).json["code"] == "second_factor_required"
    assert log_in(client).status_code == 401
    assert log_in(client, phone.code(), password="wrong1").json["code"] == "wrong_credentials"
    answer = log_in(client, phone.code())
    assert answer.status_code == 200
    assert set(answer.json["data"]) == {"token", "user"}


def test_code_is_not_asked_for_without_a_second_factor(alice):
    assert log_in(alice, "000000").status_code == 200


@pytest.mark.parametrize("written", ["{0} {1}", " {0}-{1} ", "\uff10"])
def test_code_may_be_typed_with_blanks_or_in_full_width(phone, client, written):
    code = phone.code()
    typed = written.format(code[:3], code[3:])
    if written == "\uff10":
        typed = "".join(chr(0xFF10 + int(digit)) for digit in code)

    assert log_in(client, typed).status_code == 200


@pytest.mark.parametrize("code", ["", "12345", "1234567", "000000", "x" * 99, "\u0661" * 6, "%s"])
def test_wrong_code_is_refused(phone, client, code):
    assert log_in(client, code).status_code == 401


@pytest.mark.parametrize("code", [123456, ["1"], {"a": 1}, "1" * 101])
def test_code_of_another_type_is_named(client, code):
    answer = log_in(client, code)

    assert answer.status_code == 400 and list(answer.json["fields"]) == ["code"]


def test_code_counts_once_and_none_before_it_after_it(phone, client):
    earlier, now, later = phone.code(-1), phone.code(), phone.code(1)

    statuses = [log_in(client, code).status_code for code in (now, now, earlier, later, later)]

    assert statuses == [200, 401, 401, 200, 401]


def test_code_that_confirmed_logs_nobody_in(alice, client, clock):
    phone = Phone(alice)
    code = phone.code()
    phone.confirm(code)

    assert log_in(client, code).status_code == 401


@pytest.mark.parametrize("steps", [-2, 2])
def test_code_of_a_clock_that_is_wrong_by_a_minute_is_refused(phone, client, clock, steps):
    clock(60)

    assert log_in(client, phone.code(steps)).status_code == 401


def test_code_sent_at_once_to_several_processes_logs_in_once(live):
    service = live(WEB_WORKERS="3", LOGIN_FAILURES_PER_ACCOUNT="100")
    url = f"{service.url}/api/auth"
    requests.post(f"{url}/register", data=form("alice"))
    body = {"username": "alice", **PASSWORD}
    token = requests.post(f"{url}/login", json=body).json()["data"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    secret = requests.post(f"{url}/2fa", json=PASSWORD, headers=headers).json()["data"]["secret"]
    totp, now = pyotp.TOTP(secret), time.time()
    answer = requests.post(f"{url}/2fa/confirm", json={"code": totp.at(now)}, headers=headers)

    for code in (totp.at(now + 30), answer.json()["data"]["recoveryCodes"][0]):
        with ThreadPoolExecutor(8) as threads:
            calls = [
                threads.submit(requests.post, f"{url}/login", json={**body, "code": code})
                for _ in range(8)
            ]
        assert sorted(call.result().status_code for call in calls) == [200] + [401] * 7


def test_recovery_code_logs_in_once(phone, client, alice):
    code = phone.recovery_codes[3]

    statuses = [log_in(client, typed).status_code for typed in (code.upper(), code)]

    assert statuses == [200, 401]
    log_in(client, phone.code())
    assert db.value("SELECT COUNT(*) FROM recovery_codes") == 9


def test_nothing_readable_is_stored(phone):
    rows = str(db.all("SELECT * FROM users")) + str(db.all("SELECT * FROM recovery_codes"))

    assert phone.secret not in rows
    for code in phone.recovery_codes:
        assert code not in rows and code.replace("-", "") not in rows


def test_too_many_wrong_codes_are_refused(phone, client, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 3
    for _ in range(3):
        assert log_in(client, "000000").status_code == 401

    answer = log_in(client, phone.code())

    assert (answer.status_code, answer.json["code"]) == (429, "too_many_attempts")


def test_strangers_without_the_password_use_no_attempt_up(phone, client, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 3
    away = {"REMOTE_ADDR": "10.0.0.7"}
    for _ in range(9):
        log_in(client, "000000", password="wrong1", environ_base=away)

    assert log_in(client, phone.code()).status_code == 200


def test_who_stole_the_password_cannot_lock_the_owner_out(phone, client, settings):
    assert log_in(client, phone.code()).status_code == 200
    settings.LOGIN_FAILURES_PER_ACCOUNT = 2
    codes = []
    for number in range(6):
        away = {"REMOTE_ADDR": f"10.0.0.{number}"}
        codes.append(log_in(client, "000000", environ_base=away).json["code"])

    assert codes == ["second_factor_wrong"] * 4 + ["too_many_attempts"] * 2
    assert log_in(client, phone.code(1)).status_code == 200


def test_disabled_account_is_not_asked_for_a_code(phone, client, alice):
    users.set_disabled(alice.id, is_disabled=True)

    assert log_in(client).json["code"] == "account_disabled"


def test_turning_it_on_or_off_ends_every_other_session(alice, clock):
    def profile(headers: dict) -> int:
        return alice.get("/api/auth/profile", headers=headers).status_code

    other = {"Authorization": f"Bearer {log_in(alice).json['data']['token']}"}
    first = alice.headers
    phone = Phone(alice)
    phone.confirm()
    assert [profile(other), profile(first), profile(alice.headers)] == [401, 401, 200]

    token = log_in(alice, phone.code(1)).json["data"]["token"]
    other = {"Authorization": f"Bearer {token}"}
    clock(60)
    body = {**PASSWORD, "code": phone.code()}
    answer = alice.open("DELETE", "/api/auth/2fa", json=body)
    assert [profile(other), profile(alice.headers)] == [401, 401]
    assert profile({"Authorization": f"Bearer {answer.json['data']['token']}"}) == 200


# -- Taking it away -------------------------------------------------------------------------------


def test_taking_it_away_asks_for_password_and_code(phone, client, alice):
    def remove(**body):
        return alice.open("DELETE", "/api/auth/2fa", json=body).json.get("code")

    assert remove(**PASSWORD) == "invalid_input"
    assert remove(password="wrong1", code=phone.code()) == "wrong_password"
    assert remove(**PASSWORD, code="000000") == "wrong_code"
    assert log_in(client).status_code == 401
    assert remove(**PASSWORD, code=phone.code()) is None
    assert log_in(client).status_code == 200
    assert db.one("SELECT totp_secret FROM users")["totp_secret"] is None
    assert db.value("SELECT COUNT(*) FROM recovery_codes") == 0


def test_new_recovery_codes_replace_the_old_ones(phone, alice, client):
    body = {**PASSWORD, "code": phone.code()}

    answer = alice.post("/api/auth/2fa/recovery-codes", json=body)

    new = answer.json["data"]["recoveryCodes"]
    assert len(new) == 10
    assert log_in(client, phone.recovery_codes[0]).status_code == 401
    assert log_in(client, new[0]).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "2fa", PASSWORD, "second_factor_on"),
        ("POST", "2fa/confirm", {"code": "000000"}, "second_factor_on"),
    ],
)
def test_it_is_not_set_up_twice(phone, alice, method, path, body, code):
    answer = alice.open(method, f"/api/auth/{path}", json=body)

    assert (answer.status_code, answer.json["code"]) == (409, code)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "2fa/confirm", {"code": "000000"}),
        ("POST", "2fa/recovery-codes", {**PASSWORD, "code": "000000"}),
        ("DELETE", "2fa", {**PASSWORD, "code": "000000"}),
    ],
)
def test_what_is_not_there_is_not_changed(alice, method, path, body):
    answer = alice.open(method, f"/api/auth/{path}", json=body)

    assert (answer.status_code, answer.json["code"]) == (409, "second_factor_off")


def test_one_account_s_codes_are_nothing_to_another(phone, bob, clock):
    other = Phone(bob)
    other.confirm()
    clock(30)
    body = {"username": "bob", "password": "secret1", "code": phone.code()}

    assert bob.post("/api/auth/login", json=body).status_code == 401
    assert (
        bob.post("/api/auth/login", json={**body, "code": phone.recovery_codes[0]}).status_code
        == 401
    )


# -- A new SECRET_KEY -----------------------------------------------------------------------------

NEW_KEY = "another key for the tests, long enough too"


def test_it_survives_a_new_key_while_the_previous_one_is_known(phone, client, settings):
    settings.SECRET_KEY_PREVIOUS, settings.SECRET_KEY = settings.SECRET_KEY, NEW_KEY
    assert log_in(client, phone.code()).status_code == 200

    assert second_factor.seal_again() == 1
    settings.SECRET_KEY_PREVIOUS = ""

    assert log_in(client, phone.code(1)).status_code == 200


def test_recovery_codes_survive_a_key_that_is_gone(phone, client, settings):
    settings.SECRET_KEY = NEW_KEY

    assert log_in(client, phone.code()).status_code == 401
    assert log_in(client, phone.recovery_codes[0]).status_code == 200
    assert second_factor.seal_again() == 0
