"""Back in after forgetting, and the confirmation of emails, as clients and mailboxes see them."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import app as service
import db
from accounts import codes, mailer, mails, recovery, registration, users
from config import COMMON_PASSWORDS
from images import jobs
from tests.conftest import Person, form
from tests.fake_smtp import MailServer
from tests.test_openapi import check_documented

NEW = "another1"
CODE = re.compile(r"\b[A-Z2-7]{4}(?:-[A-Z2-7]{4}){6}\b")


@pytest.fixture
def inbox(settings):
    """A mail server that the service uses, and what it got."""
    server = MailServer()
    server.start()
    settings.SMTP_URL = server.url()
    settings.MAIL_FROM = "Studio <no-reply@example.com>"
    yield server.inbox
    server.stop()


@pytest.fixture
def must_confirm(inbox, settings):
    settings.REQUIRE_EMAIL = True
    return inbox


@pytest.fixture
def flask(database):
    runner = service.app.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


def post(person, path: str, body: dict, **options):
    """Send a request whose answer must be as the document of the API says."""
    response = person.post(path, json=body, **options)
    check_documented(response)
    return response


def ask(person, email="alice@example.com", call="reset", **options):
    return post(person, f"/api/auth/{call}/request", {"email": email}, **options)


def reset(person, code, password=NEW, **options):
    return post(person, "/api/auth/reset", {"code": code, "newPassword": password}, **options)


def confirm(person, code, **options):
    return post(person, "/api/auth/confirm", {"code": code}, **options)


def log_in(person, password=NEW, name="alice"):
    return post(person, "/api/auth/login", {"username": name, "password": password})


def last_text(inbox) -> str:
    mailer.send_due()
    return inbox.messages[-1].get_content()


def last_code(inbox) -> str:
    [code] = CODE.findall(last_text(inbox))
    return code


def statuses(*answers) -> list[int]:
    return [answer.status_code for answer in answers]


# -- A new password -----------------------------------------------------------------------------


def test_mailed_code_sets_a_new_password(alice, inbox):
    ask(alice)

    response = reset(alice, last_code(inbox))

    assert (response.status_code, response.json["message"]) == (200, "密码已重置，请重新登录")
    assert statuses(log_in(alice, "secret1"), log_in(alice)) == [401, 200]
    assert inbox.recipients == [["alice@example.com"]]


def test_new_password_ends_every_session_and_link(alice, inbox):
    alice.generate()
    link = alice.history()["records"][0]["signedImageUrl"]
    ask(alice)
    reset(alice, last_code(inbox))

    assert statuses(alice.get("/api/auth/profile"), alice.http.get(link)) == [401, 403]


def test_code_is_good_once(alice, inbox):
    ask(alice)
    code = last_code(inbox)

    answers = [reset(alice, code), reset(alice, code, "a third one")]

    assert statuses(*answers) == [200, 403]
    assert answers[1].json["code"] == "code_invalid"
    assert log_in(alice).status_code == 200


def test_of_many_at_once_one_uses_the_code(alice, inbox):
    ask(alice)
    code = last_code(inbox)

    with ThreadPoolExecutor(8) as threads:
        tries = [threads.submit(reset, Person(), code, f"secret-{n}") for n in range(8)]
    answers = [one.result().status_code for one in tries]

    assert sorted(answers) == [200] + [403] * 7
    assert log_in(alice, f"secret-{answers.index(200)}").status_code == 200


def test_new_code_voids_the_one_before(alice, inbox):
    ask(alice)
    first = last_code(inbox)
    ask(alice)
    second = last_code(inbox)

    assert statuses(reset(alice, first), reset(alice, second)) == [403, 200]


def test_code_ends_after_thirty_minutes(alice, inbox):
    ask(alice)
    code = last_code(inbox)
    [row] = db.all("SELECT expires_at - UNIX_TIMESTAMP() AS seconds FROM codes")
    db.execute("UPDATE codes SET expires_at = UNIX_TIMESTAMP()")

    assert 1790 <= row["seconds"] <= 1800
    assert reset(alice, code).status_code == 403


@pytest.mark.parametrize("change", [str.lower, lambda code: f" {code.replace('-', ' ')}\n"])
def test_code_may_be_typed_in_any_form(alice, inbox, change):
    ask(alice)

    assert reset(alice, change(last_code(inbox))).status_code == 200


def test_only_a_hash_of_the_code_is_stored(alice, inbox):
    ask(alice)
    waiting = db.all("SELECT * FROM mails")
    code = last_code(inbox)
    stored = db.all("SELECT * FROM codes")

    assert len(waiting) == len(stored) == 1
    assert code not in str(stored) and code.replace("-", "") not in str(stored)
    assert not CODE.search(str(waiting)) and db.all("SELECT * FROM mails") == []


@pytest.mark.parametrize("code", ["x", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA", "' OR 1=1 --", "测试"])
def test_wrong_code_is_refused(alice, inbox, code):
    ask(alice)
    mailer.send_due()

    response = reset(alice, code)

    assert (response.status_code, response.json["code"]) == (403, "code_invalid")
    assert response.json["message"] == "验证码无效、已使用或已过期"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"code", "newPassword"}),
        ({"code": "", "newPassword": "12345"}, {"code", "newPassword"}),
        ({"code": 1, "newPassword": ["x"]}, {"code", "newPassword"}),
        ({"code": "x" * 101, "newPassword": "x" * 21}, {"code", "newPassword"}),
    ],
)
def test_wrong_fields_are_named_whatever_the_code(client, body, fields):
    response = client.post("/api/auth/reset", json=body)

    assert response.status_code == 400
    assert set(response.json["fields"]) == fields


def test_common_password_is_refused_and_leaves_the_code(alice, inbox, settings):
    settings.PASSWORD_BLOCKLIST = str(COMMON_PASSWORDS)
    ask(alice)
    code = last_code(inbox)

    assert statuses(reset(alice, code, "password1"), reset(alice, code)) == [400, 200]


def test_code_ends_with_the_account_s_sessions(alice, inbox):
    ask(alice)
    code = last_code(inbox)
    users.set_disabled(alice.id, True)
    disabled = reset(alice, code)
    users.set_disabled(alice.id, False)

    assert statuses(disabled, reset(alice, code)) == [403, 403]


def test_code_to_an_address_that_is_no_longer_the_account_s_is_void(alice, inbox):
    ask(alice)
    code = last_code(inbox)
    users.set_email(alice.id, "new@example.com")

    assert reset(alice, code).status_code == 403


def test_wrong_codes_from_one_address_come_to_an_end(alice, inbox, settings):
    settings.CODES_PER_ADDRESS = 2
    ask(alice)
    code = last_code(inbox)
    answers = [reset(alice, "wrong"), confirm(alice, "wrong"), reset(alice, code)]
    elsewhere = reset(alice, code, environ_base={"REMOTE_ADDR": "10.0.0.8"})

    assert statuses(*answers, elsewhere) == [403, 403, 429, 200]
    assert answers[2].json["code"] == "too_many_codes"
    assert 0 < int(answers[2].headers["Retry-After"]) <= 3600


def test_failed_log_ins_before_do_not_stop_the_new_password(alice, inbox, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 1
    log_in(alice, "wrong1")
    refused = log_in(alice, "secret1")
    ask(alice)
    reset(alice, last_code(inbox))

    assert statuses(refused, log_in(alice)) == [429, 200]


# -- Asking for it ------------------------------------------------------------------------------


def test_answer_is_the_same_whoever_has_the_address(alice, bob, inbox):
    users.set_disabled(bob.id, True)
    emails = ["alice@example.com", "bob@example.com", "nobody@example.com"]

    answers = [ask(alice, email) for email in emails]
    mailer.send_due()

    assert {(one.status_code, one.text) for one in answers} == {(200, answers[0].text)}
    assert inbox.recipients == [["alice@example.com"]]
    assert db.all("SELECT * FROM mails") == []


def test_request_runs_the_same_statements_whoever_has_the_address(alice, inbox, monkeypatch):
    said = []
    run, run_all = db._run, db.run_transaction
    monkeypatch.setattr(db, "_run", lambda sql, *rest: (said.append(sql), run(sql, *rest))[1])
    monkeypatch.setattr(
        db, "run_transaction", lambda *all: (said.extend(sql for sql, _ in all), run_all(*all))[1]
    )
    known, unknown = [], []
    for email, kept in [("alice@example.com", known), ("nobody@example.com", unknown)]:
        said.clear()
        ask(alice, email)
        kept.extend(said)

    assert known == unknown and len(known) == 3
    assert not any("users" in sql for sql in known)


def test_request_does_not_wait_for_the_mail_server(alice, inbox, settings, monkeypatch):
    monkeypatch.setattr(mailer, "connect", lambda: pytest.fail("a request sent mail"))

    assert ask(alice).status_code == 200


def test_mail_goes_to_the_address_as_it_is_stored(alice, inbox):
    ask(alice, " ALICE@ＥXAMPLE.com ")
    mailer.send_due()

    assert inbox.recipients == [["alice@example.com"]]


def test_without_a_mail_server_everybody_is_told(alice):
    answers = [ask(alice), ask(alice, "nobody@example.com"), ask(alice, call="confirm")]

    assert {(one.status_code, one.json["code"]) for one in answers} == {(404, "mail_not_offered")}
    assert db.all("SELECT * FROM mails") == []


@pytest.mark.parametrize("email", ["", "nonsense", "a@b.c\r\nBcc: x@y.de", None, ["a@b.de"]])
@pytest.mark.parametrize("call", ["reset", "confirm"])
def test_what_is_no_address_is_refused(client, inbox, email, call):
    response = ask(client, email, call)

    assert (response.status_code, list(response.json["fields"])) == (400, ["email"])


@pytest.mark.parametrize("email", ["alice@example.com", "nobody@example.com"])
def test_requests_for_one_address_are_limited(alice, inbox, settings, email):
    settings.CODES_PER_ACCOUNT = 2
    answers = [ask(alice, email) for _ in range(3)]
    elsewhere = ask(alice, email, environ_base={"REMOTE_ADDR": "10.0.0.8"})

    assert statuses(*answers, elsewhere) == [200, 200, 429, 200]


def test_requests_from_one_address_are_limited(alice, inbox, settings):
    settings.CODES_PER_ADDRESS = 2
    answers = [ask(alice, f"nobody{n}@example.com") for n in range(3)]

    assert statuses(*answers) == [200, 200, 429]


def test_strangers_neither_fill_a_mailbox_nor_keep_its_owner_from_a_code(alice, inbox, settings):
    settings.CODES_PER_ACCOUNT = 1

    def ask_from(number: int, person=alice):
        return ask(person, environ_base={"REMOTE_ADDR": f"10.0.0.{number}"})

    answers = [ask_from(number) for number in range(14)]
    for _ in range(2):
        mailer.send_due()
    number = len(inbox.messages)
    answers.append(ask(alice))
    code = last_code(inbox)

    assert {(one.status_code, one.text) for one in answers} == {(200, answers[0].text)}
    assert (number, len(inbox.messages)) == (10, 11)
    assert db.all("SELECT * FROM mails") == []
    assert reset(alice, code).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "subject", "word"),
    [("en", "Reset your password", "Somebody asked"), ("zh-CN", "重置密码", "有人请求")],
)
def test_mail_is_in_the_language_of_the_request(alice, inbox, accepted, subject, word):
    ask(alice, headers={"Accept-Language": accepted})
    text = last_text(inbox)

    assert inbox.messages[0]["Subject"] == subject
    assert word in text and "alice" in text


def test_mail_links_to_the_page_of_the_front_end(alice, inbox, settings):
    settings.PUBLIC_URL = "https://studio.example.com"
    ask(alice)
    text = last_text(inbox)
    [code, _] = CODE.findall(text)

    assert f"https://studio.example.com/reset-password#code={code}" in text.splitlines()
    assert inbox.messages[0]["Auto-Submitted"] == "auto-generated"


# -- By the operator ----------------------------------------------------------------------------


def test_operator_s_code_sets_a_new_password(alice, flask):
    code = flask("user", "reset-code", "alice").output.strip()

    assert CODE.fullmatch(code)
    assert statuses(reset(alice, code), reset(alice, code), log_in(alice)) == [200, 403, 200]


def test_admin_s_code_sets_a_new_password_and_is_audited(alice, bob):
    db.execute("UPDATE users SET role = 'admin' WHERE id = %s", bob.id)
    path = f"/api/v1/admin/users/{alice.id}/reset-code"

    response = bob.post(path)

    check_documented(response, "/api/v1/admin/users/{user_id}/reset-code")
    code = response.json["data"]["code"]
    [entry] = db.all("SELECT * FROM audit_log WHERE action = 'user.reset-code'")
    assert code not in str(entry) and "alice" in str(entry)
    assert statuses(alice.post(path), reset(alice, code)) == [403, 200]


def test_asking_for_mail_does_not_end_the_code_of_the_operator(alice, inbox, flask):
    code = flask("user", "reset-code", "alice").output.strip()
    ask(alice)
    mailed = last_code(inbox)

    assert statuses(reset(alice, code), reset(alice, mailed)) == [200, 403]


def test_operator_hears_that_there_is_no_such_account(alice, flask):
    users.set_disabled(alice.id, True)
    nobody, disabled = flask("user", "reset-code", "ann"), flask("user", "reset-code", "alice")

    assert (nobody.exit_code, disabled.exit_code) == (1, 1)
    assert "disabled" in disabled.output


def test_deleted_account_leaves_no_code_and_no_mail(alice, inbox, flask):
    codes.make(alice.id, codes.RESET)
    recovery.request_change(alice.id, 0, "new@example.com", "", "en")
    ask(alice, "ALICE@example.com")

    registration.delete_account(users.get_user(alice.id))

    assert db.all("SELECT * FROM codes") == db.all("SELECT * FROM mails") == []


def test_sweep_deletes_what_has_run_out(alice, inbox):
    codes.make(alice.id, codes.RESET)
    ask(alice)
    jobs.sweep()
    kept = len(db.all("SELECT * FROM codes")), len(db.all("SELECT * FROM mails"))
    db.execute("UPDATE codes SET expires_at = UNIX_TIMESTAMP() - 1")
    db.execute("UPDATE mails SET created_at = UNIX_TIMESTAMP() - 3601")
    assert mails.claim() is None

    jobs.sweep()

    assert kept == (1, 1)
    assert db.all("SELECT * FROM codes") == db.all("SELECT * FROM mails") == []


# -- The confirmation of an email ---------------------------------------------------------------


@pytest.fixture
def carol(client, must_confirm):
    """Somebody who has registered while emails must be confirmed."""
    client.http.post("/api/auth/register", data=form("carol"))
    return client


def test_registration_answers_as_published_while_emails_must_be_confirmed(client, must_confirm):
    response = client.http.post("/api/auth/register", data=form("carol"))

    assert (response.status_code, response.json["message"]) == (200, "注册成功")


def test_new_account_logs_in_after_its_email_is_confirmed(carol, must_confirm):
    before = log_in(carol, "secret1", "carol")
    response = confirm(carol, last_code(must_confirm))

    assert (before.status_code, before.json["code"]) == (403, "email_unconfirmed")
    assert (response.status_code, response.json["message"]) == (200, "邮箱验证成功")
    assert log_in(carol, "secret1", "carol").status_code == 200
    mailer.send_due()
    assert len(must_confirm.messages) == 1


def test_wrong_password_of_an_unconfirmed_account_is_a_wrong_password(carol):
    assert log_in(carol, "wrong1", "carol").json["code"] == "wrong_credentials"


def test_code_to_confirm_is_good_once_and_sets_no_password(carol, must_confirm):
    code = last_code(must_confirm)

    answers = [reset(carol, code), confirm(carol, code), confirm(carol, code)]

    assert statuses(*answers) == [403, 200, 403]


def test_code_to_confirm_ends_after_a_day(carol, must_confirm):
    code = last_code(must_confirm)
    [row] = db.all("SELECT expires_at - UNIX_TIMESTAMP() AS seconds FROM codes")
    db.execute("UPDATE codes SET expires_at = UNIX_TIMESTAMP()")

    assert 86390 <= row["seconds"] <= 86400
    assert confirm(carol, code).status_code == 403


def test_code_to_confirm_is_mailed_again(carol, must_confirm):
    first = last_code(must_confirm)
    answers = [ask(carol, email, "confirm") for email in ("carol@example.com", "no@example.com")]
    second = last_code(must_confirm)

    assert answers[0].text == answers[1].text and first != second
    assert statuses(*answers, confirm(carol, first), confirm(carol, second)) == [200, 200, 403, 200]
    ask(carol, "carol@example.com", "confirm")
    mailer.send_due()
    assert len(must_confirm.messages) == 2


def test_new_password_by_mail_confirms_the_email(carol, must_confirm):
    ask(carol, "carol@example.com")
    reset(carol, last_code(must_confirm))

    assert log_in(carol, NEW, "carol").status_code == 200


def test_new_password_by_the_operator_does_not(carol, flask):
    reset(carol, flask("user", "reset-code", "carol").output)

    assert log_in(carol, NEW, "carol").json["code"] == "email_unconfirmed"


def test_accounts_from_before_count_as_confirmed(alice, must_confirm, flask):
    runner = service.app.test_cli_runner()
    runner.invoke(args=["user", "create", "dora", "dora@example.com"], input="secret1\nsecret1\n")

    assert statuses(log_in(alice, "secret1"), log_in(alice, "secret1", "dora")) == [200, 200]


# -- A new email --------------------------------------------------------------------------------


def request_change(person, email="new@example.com"):
    body = {"email": email, "password": "secret1"}
    response = person.open("PATCH", "/api/auth/profile", json=body)
    check_documented(response)
    return response


def email_of(person) -> str:
    return users.get_user(person.id)["email"]


def test_new_email_counts_once_it_is_confirmed_and_the_old_one_is_told(alice, inbox):
    asked = request_change(alice)
    code = last_code(inbox)
    before = email_of(alice)

    response = confirm(alice, code, headers={"Accept-Language": "en"})

    assert asked.json["message"] == "验证码已发送到新邮箱，验证后生效"
    assert asked.json["data"]["email"] == before == "alice@example.com"
    assert response.status_code == 200
    assert email_of(alice) == "new@example.com"
    assert 'The account "alice" has another email now' in last_text(inbox)
    assert inbox.recipients == [["new@example.com"], ["alice@example.com"]]
    assert alice.get("/api/auth/profile").json["data"]["email"] == "new@example.com"


def test_email_of_another_is_told_only_to_its_owner(alice, bob, inbox):
    answers = [request_change(alice, email) for email in ("BOB@example.com", "free@example.com")]
    mailer.send_due()
    text = inbox.messages[0].get_content()

    assert answers[0].text == answers[1].text
    assert inbox.messages[0]["Subject"] == "该邮箱已有账号"
    assert not CODE.search(text) and CODE.search(inbox.messages[1].get_content())


def test_email_that_another_took_meanwhile_is_refused(alice, inbox):
    request_change(alice)
    code = last_code(inbox)
    Person("dora").http.post("/api/auth/register", data=form("erin", email="new@example.com"))

    assert confirm(alice, code).status_code == 403
    assert email_of(alice) == "alice@example.com"


@pytest.mark.parametrize("is_sent", [True, False])
def test_new_password_ends_the_request_for_a_new_email(alice, inbox, is_sent):
    request_change(alice, "thief@example.com")
    if is_sent:
        code = last_code(inbox)
    users.set_password(alice.id, "hash")
    mailer.send_due()

    assert len(inbox.messages) == is_sent
    assert not is_sent or confirm(alice, code).status_code == 403


def test_mail_to_new_addresses_is_limited(alice, inbox, settings):
    settings.CODES_PER_ACCOUNT = 1
    answers = [request_change(alice), request_change(alice)]

    assert statuses(*answers) == [200, 429]
    assert answers[1].json["code"] == "too_many_codes"


def test_codes_have_at_least_128_bits(alice):
    letters = codes.make(alice.id, codes.RESET).replace("-", "")

    assert len(codes.ALPHABET) == len(set(codes.ALPHABET)) == 32
    assert len(letters) * 5 >= 128
