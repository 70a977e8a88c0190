"""Invites: codes that open an account or give it limits; used as often as they say, and no more."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

import app as service
import db
from accounts import invites, limits, registration, users
from accounts.limits import ADMIN, Limits
from accounts.schemas import InviteInput
from tests.conftest import Person, form, usernames
from tests.test_limits import end_limits, shown
from validation import parse


@pytest.fixture
def flask(database):
    """Run `flask …` and return its result."""
    runner = service.app.test_cli_runner()
    return lambda *words: runner.invoke(args=words)


def make(**fields) -> str:
    """Make an invite and return its code."""
    _, code = invites.create(parse(InviteInput, fields))
    return code


def register(person, name: str = "carol", **changes):
    return person.post("/api/auth/register", data=form(name, **changes))


def redeem(person, code: str):
    return person.post("/api/auth/redeem", json={"code": code})


def uses() -> list[int]:
    return [row["uses"] for row in db.all("SELECT uses FROM invites ORDER BY id")]


def expire() -> None:
    db.execute("UPDATE invites SET expires_at = UNIX_TIMESTAMP()")


# -- Codes --------------------------------------------------------------------------------------


def test_a_code_is_random_readable_and_kept_as_its_hash(database):
    codes = {make() for _ in range(50)}

    assert len(codes) == 50
    assert all(
        re.fullmatch("([0-9A-HJKMNP-TV-Z]{5}-){3}[0-9A-HJKMNP-TV-Z]{5}", one) for one in codes
    )
    for row in db.all("SELECT * FROM invites"):
        assert not codes & {str(value) for value in row.values()}


def test_a_code_may_be_typed_in_any_way():
    code = "01ABC-DEFGH-JKMNP-QRSTV"
    typed = [
        "oiabcdefghjkmnpqrstv",
        " 0Labc defgh_jkmnp.qrstv ",
        "０１ＡＢＣ－ＤＥＦＧＨ－ＪＫＭＮＰ－ＱＲＳＴＶ",
    ]

    assert {invites.hash_of(text) for text in typed} == {invites.hash_of(code)}
    assert invites.hash_of(code[:-1]) != invites.hash_of(code)


# -- Registration -------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"inviteCode": ""}])
def test_an_open_service_asks_for_no_code(client, changes):
    assert register(client, **changes).status_code == 200


def test_a_closed_service_takes_nobody_with_or_without_a_code(client, settings):
    settings.REGISTRATION = "closed"
    answers = [register(client), register(client, inviteCode=make())]

    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [
        (403, "registration_closed")
    ] * 2
    assert (uses(), usernames()) == ([0], [])


def test_who_needs_an_invite_and_has_none_is_told_which_field(client, settings):
    settings.REGISTRATION = "invite"
    response = register(client)

    assert (response.status_code, response.json["code"]) == (403, "invite_required")
    assert response.json["fields"] == {"inviteCode": "邀请码缺少此字段"}


def test_nobody_without_an_invite_learns_which_names_are_taken(alice, settings):
    settings.REGISTRATION = "invite"
    answers = [register(alice, name) for name in ("alice", "carol")]

    assert answers[0].json == answers[1].json


@pytest.mark.parametrize("mode", ["open", "invite"])
def test_an_invite_opens_an_account_with_its_limits(client, settings, mode):
    settings.REGISTRATION = mode
    code = make(dailyImages=7, activeJobs=3, models=["test_model"], limitDays=30)

    assert register(client, inviteCode=code.lower()).status_code == 200

    carol = Person("carol")
    state = shown(carol)
    assert (state["dailyImages"], state["activeJobs"]) == (7, 3)
    assert (state["models"], state["source"]) == (["test_model"], "invite")
    left = db.value("SELECT limits_until - UNIX_TIMESTAMP() FROM users WHERE id = %s", carol.id)
    assert 30 * 86400 - 60 < left <= 30 * 86400
    assert uses() == [1]


def test_an_invite_without_limits_leaves_the_settings(client):
    register(client, inviteCode=make())

    assert shown(Person("carol"))["source"] == "setting"


@pytest.mark.parametrize("mode", ["open", "invite"])
@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [
        (lambda: db.execute("DELETE FROM invites"), 404, "code_unknown"),
        (expire, 410, "code_expired"),
        (lambda: invites.revoke(db.value("SELECT id FROM invites")), 410, "code_expired"),
        (lambda: db.execute("UPDATE invites SET uses = max_uses"), 409, "code_used"),
    ],
)
def test_a_code_that_cannot_be_used_opens_nothing(client, settings, mode, spoil, status, code):
    settings.REGISTRATION = mode
    invite = make()
    spoil()

    response = register(client, inviteCode=invite)

    assert (response.status_code, response.json["code"]) == (status, code)
    assert usernames() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"username": "ALICE"},
        {"email": "alice@example.com"},
        {"password": "x"},
    ],
)
def test_a_registration_that_fails_uses_no_invite(alice, changes):
    code = make()

    assert register(alice, inviteCode=code, **changes).status_code in (400, 409)

    assert uses() == [0]
    assert register(alice, inviteCode=code).status_code == 200


def test_a_name_taken_at_the_same_moment_uses_no_invite(alice, monkeypatch):
    code = make()
    monkeypatch.setattr(registration, "refuse_taken", lambda *args, **options: None)

    response = register(alice, "alice", inviteCode=code)

    assert (response.status_code, uses()) == (409, [0])


def test_an_invite_revoked_meanwhile_opens_nothing(client, settings, monkeypatch):
    code = make(dailyImages=7)
    refuse_taken = registration.refuse_taken

    def revoke_first(*args, **options):
        invites.revoke(db.value("SELECT id FROM invites"))
        refuse_taken(*args, **options)

    monkeypatch.setattr(registration, "refuse_taken", revoke_first)
    response = register(client, inviteCode=code)

    assert (response.status_code, response.json["code"]) == (410, "code_expired")
    assert (uses(), usernames()) == ([0], [])
    assert db.value("SELECT hits FROM rate_limits WHERE name LIKE 'register:%%'") == 0


def test_fifty_registrations_at_once_on_three_uses_open_three_accounts(client, settings):
    settings.REGISTRATION = "invite"
    code = make(uses=3, dailyImages=7)

    with ThreadPoolExecutor(10) as threads:
        answers = list(
            threads.map(lambda n: register(Person(), f"user{n}", inviteCode=code), range(50))
        )

    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == 3 and set(statuses) == {200, 409}
    assert {answer.json.get("code") for answer in answers} == {None, "code_used"}
    assert (uses(), len(usernames())) == ([3], 3)
    assert db.value("SELECT COUNT(*) FROM invite_uses") == 3
    assert db.value("SELECT COUNT(*) FROM users WHERE limit_daily_images = 7") == 3


def test_the_operator_opens_accounts_whatever_the_setting(flask, settings):
    settings.REGISTRATION = "closed"
    result = flask("user", "create", "carol", "carol@example.com", "--password", "secret1")

    assert result.exit_code == 0


# -- Redeem -------------------------------------------------------------------------------------


def test_redeem_gives_the_limits_of_an_invite(alice):
    response = redeem(alice, make(dailyImages=900))

    assert (response.status_code, response.json["message"]) == (200, "邀请码已兑换")
    assert response.json["data"]["limits"] == shown(alice)
    assert (shown(alice)["dailyImages"], shown(alice)["source"]) == (900, "invite")


def test_a_later_code_takes_the_place_of_an_earlier_one(alice, settings):
    redeem(alice, make(dailyImages=900, models=["test_model"], limitDays=3))
    redeem(alice, make(activeJobs=2))

    assert shown(alice) == {
        "dailyImages": settings.DAILY_IMAGES,
        "activeJobs": 2,
        "models": None,
        "expiresAt": None,
        "source": "invite",
    }


def test_a_code_that_gives_nothing_takes_nothing(alice):
    redeem(alice, make(dailyImages=900))
    redeem(alice, make())

    assert (shown(alice)["dailyImages"], uses()) == (900, [1, 1])


@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [
        (lambda: db.execute("DELETE FROM invites"), 404, "code_unknown"),
        (expire, 410, "code_expired"),
        (lambda: invites.revoke(db.value("SELECT id FROM invites")), 410, "code_expired"),
        (lambda: db.execute("UPDATE invites SET uses = max_uses"), 409, "code_used"),
    ],
)
def test_a_code_that_cannot_be_used_gives_nothing(alice, spoil, status, code):
    invite = make(dailyImages=900, uses=2)
    spoil()

    response = redeem(alice, invite)

    assert (response.status_code, response.json["code"]) == (status, code)
    assert shown(alice)["source"] == "setting"


def test_an_account_uses_a_code_once(alice, bob):
    code = make(uses=3)

    answers = [redeem(person, code) for person in (alice, alice, bob)]

    assert [answer.status_code for answer in answers] == [200, 409, 200]
    assert (answers[1].json["code"], uses()) == ("code_used", [2])


def test_the_code_of_the_registration_is_used_up_for_its_account(client):
    code = make(uses=3)
    register(client, inviteCode=code)

    assert redeem(Person("carol"), code).status_code == 409
    assert uses() == [1]


def test_an_account_that_redeems_many_times_at_once_uses_a_code_once(alice):
    code = make(uses=10, dailyImages=900)

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: redeem(alice, code).status_code, range(10)))

    assert sorted(answers) == [200] + [409] * 9
    assert uses() == [1]


def test_the_last_use_goes_to_one_of_two_accounts(alice, bob):
    code = make(dailyImages=900)

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda person: redeem(person, code).status_code, (alice, bob)))

    assert sorted(answers) == [200, 409]
    assert sorted(shown(person)["source"] for person in (alice, bob)) == ["invite", "setting"]


def test_an_invite_revoked_between_check_and_use_gives_nothing(alice, monkeypatch):
    code = make(dailyImages=900)
    check = invites.check

    def check_and_revoke(*arguments):
        check(*arguments)
        invites.revoke(db.value("SELECT id FROM invites"))

    monkeypatch.setattr(invites, "check", check_and_revoke)
    response = redeem(alice, code)

    assert (response.status_code, response.json["code"]) == (410, "code_expired")
    assert (shown(alice)["source"], uses()) == ("setting", [0])


def test_no_code_loosens_what_the_operator_has_set(alice):
    limits.set_limits(alice.id, Limits(daily_images=1), None, ADMIN)
    code = make(dailyImages=900)

    response = redeem(alice, code)

    assert (response.status_code, response.json["code"]) == (409, "limits_fixed")
    assert (shown(alice)["dailyImages"], uses()) == (1, [0])
    end_limits(alice)
    assert redeem(alice, code).status_code == 200


def test_a_session_that_has_ended_redeems_nothing(alice):
    code = make()
    users.set_password(alice.id, "x")

    assert redeem(alice, code).status_code == 401
    assert uses() == [0]


@pytest.mark.parametrize("body", [{}, {"code": ""}, {"code": 5}, {"code": "x" * 101}])
def test_a_wrong_body_names_the_field(alice, body):
    response = alice.post("/api/auth/redeem", json=body)

    assert (response.status_code, list(response.json["fields"])) == (400, ["code"])


@pytest.mark.parametrize("code", ["' OR 1=1 --", "\0", "😀", "%", "-", "𝟬" * 100])
def test_a_strange_code_is_unknown(alice, code):
    assert redeem(alice, code).status_code == 404


# -- Guesses ------------------------------------------------------------------------------------


def test_guesses_are_limited_per_address(alice, client, settings):
    settings.INVITE_FAILURES_PER_ADDRESS = 3
    code = make(uses=9)
    guesses = [redeem(alice, "AAAAA").status_code, register(client, inviteCode="B").status_code]
    good = redeem(alice, code).status_code
    guesses.append(redeem(alice, "C").status_code)

    blocked = [redeem(alice, code), register(client, inviteCode=code)]

    assert (guesses, good) == ([404] * 3, 200)
    assert [answer.json["code"] for answer in blocked] == ["too_many_codes"] * 2
    assert 0 < int(blocked[0].headers["Retry-After"]) <= 3600
    assert register(client).status_code == 200


def test_guesses_sent_at_the_same_moment_are_no_more(alice, settings):
    settings.INVITE_FAILURES_PER_ADDRESS = 5

    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda n: redeem(alice, f"X{n}").status_code, range(40)))

    assert sorted(answers) == [404] * 5 + [429] * 35


def test_good_codes_are_no_guesses(alice, settings):
    settings.INVITE_FAILURES_PER_ADDRESS = 1

    answers = [redeem(alice, make()).status_code for _ in range(4)]

    assert answers == [200] * 4


# -- Accounts that go ---------------------------------------------------------------------------


def test_a_deleted_account_leaves_no_trace_and_the_code_stays_used(alice, flask):
    redeem(alice, make(dailyImages=900))

    flask("user", "delete", "alice", "--yes")

    assert db.value("SELECT COUNT(*) FROM invite_uses") == 0
    assert uses() == [1]


# -- The operator's commands --------------------------------------------------------------------


def test_invite_create_shows_a_code_that_works(flask, alice):
    output = flask(
        *("invite", "create", "--uses", "2", "--expires", "2099-12-31", "--daily", "9"),
        *("--active", "2", "--models", "test_model", "--days", "30", "--note", "class 5b"),
    ).output

    assert redeem(alice, output.split()[-1]).status_code == 200
    listed = flask("invite", "list").output
    assert re.search(r"open +used 1/2 +until 2099-12-31 00:00", listed)
    assert "9 a day; 2 at a time; only test_model; for 30 days  class 5b" in listed
    assert output.split()[-1] not in listed


def test_invite_list_says_what_is_over(flask, database):
    for _ in range(4):
        make()
    first, second, third, _ = [row["id"] for row in reversed(invites.list_invites(9))]
    db.execute("UPDATE invites SET uses = 1 WHERE id = %s", first)
    db.execute("UPDATE invites SET expires_at = 1 WHERE id = %s", second)
    revoked = flask("invite", "revoke", str(third))
    again = flask("invite", "revoke", str(third))

    states = [line.split()[1] for line in flask("invite", "list").output.splitlines()]
    assert states == ["open", "revoked", "expired", "used"]
    assert (revoked.exit_code, again.exit_code) == (0, 1)
    assert len(flask("invite", "list", "--limit", "2").output.splitlines()) == 2
    assert [row["id"] for row in invites.list_invites(9, before_id=third)] == [second, first]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--uses", "0"], "uses must be at least 1"),
        (["--expires", "2001-01-01"], "expiresAt must be a time in the future"),
        (["--expires", "soon"], "expiresAt must be an ISO 8601 time"),
        (["--models", "dall-e"], "Models must be one of test_model"),
        (["--models", ""], "Models must have at least 1 items"),
        (["--daily", "0"], "dailyImages must be at least 1"),
        (["--active", "0"], "activeJobs must be at least 1"),
        (["--days", "0"], "limitDays must be at least 1"),
        (["--days", "9"], "limitDays needs a limit that ends then"),
        (["--note", "x" * 201], "note must have at most 200 characters"),
        (["--note", "\x1b[2J"], "note contains invisible or control characters"),
    ],
)
def test_invite_create_says_what_is_wrong(flask, words, complaint):
    result = flask("invite", "create", *words)

    assert result.exit_code == 1 and complaint in result.output


def test_user_limits_are_set_shown_and_reset(flask, alice):
    flask("user", "limits", "alice", "--daily", "9", "--models", "test_model")
    first = shown(alice)
    flask("user", "limits", "Alice", "--active", "2", "--until", "2099-12-31")
    second = shown(alice)
    output = flask("user", "limits", "alice").output
    flask("user", "limits", "alice", "--reset")

    assert (first["dailyImages"], first["models"]) == (9, ["test_model"])
    assert (second["activeJobs"], second["models"]) == (2, None)
    assert (second["expiresAt"], second["source"]) == ("2099-12-31T00:00:00Z", "admin")
    assert output == "alice: 2 at a time (admin, until 2099-12-31 00:00)\n"
    assert flask("user", "limits", "alice").output == "alice: as the settings say\n"
    assert shown(alice)["source"] == "setting"


def test_user_limits_that_have_ended_are_not_shown(flask, alice):
    flask("user", "limits", "alice", "--daily", "9")
    end_limits(alice)

    assert flask("user", "limits", "alice").output == "alice: as the settings say\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["alice", "--daily", "0"], "dailyImages must be at least 1"),
        (["alice", "--models", "x"], "Models must be one of test_model"),
        (["alice", "--until", "2001-01-01"], "expiresAt must be a time in the future"),
        (["alice", "--until", "2099-01-01"], "expiresAt needs a limit that ends then"),
        (["alice", "--daily", "1", "--reset"], "--reset stands alone"),
        (["nobody", "--daily", "1"], "there is no account named nobody"),
    ],
)
def test_user_limits_says_what_is_wrong(flask, alice, words, complaint):
    result = flask("user", "limits", *words)

    assert result.exit_code == 1 and complaint in result.output
    assert shown(alice)["source"] == "setting"
