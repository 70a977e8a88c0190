"""Which names and emails are the same, which are refused, and who logs in: on every database."""

import pytest

import db
from accounts import names, users
from accounts.schemas import RegisterInput
from tests.conftest import Person, form, usernames
from validation import InvalidInput, parse

DIFFERENT = [
    ("josé", "jose"),
    ("günter", "gunter"),
    ("🐱🐱🐱", "🐶🐶🐶"),
    ("ёлка", "елка"),
    ("ははは", "ハハハ"),
    ("łukasz", "lukasz"),
    ("naïve", "naive"),
    ("ひらがな", "ひらかな"),
    ("𠮷野家", "吉野家"),
    ("ıstanbul", "istanbul"),
]
SAME = [
    ("straße", "STRASSE"),
    ("josé", "JOSE\u0301"),
    ("ａｌｉｃｅ", "alice"),
    ("ﬁsher", "fisher"),
    ("ЛИСА", "лиса"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("ﾊﾊﾊ", "ハハハ"),
    ("a b c", "a  b\u3000c"),
]


def register(name: str, **changes):
    changes = {"email": f"{len(usernames())}@example.com", **changes}
    return Person().post("/api/auth/register", json=form(name, **changes))


def log_in(name: str, password: str = "secret1"):
    return Person().post("/api/auth/login", json={"username": name, "password": password})


def name_after_log_in(name: str, password: str = "secret1") -> str:
    return log_in(name, password).json["data"]["user"]["username"]


def refused(**changes: str) -> dict:
    """Return what is wrong with a registration; {} if nothing is."""
    try:
        parse(RegisterInput, form("alice", **changes))
    except InvalidInput as error:
        return {name: kind for name, (kind, _) in error.fields.items()}
    return {}


def test_different_names_are_two_accounts(database):
    for one, other in DIFFERENT:
        register(one, password="of the one")
        register(other, password="of the other")

        assert name_after_log_in(one, "of the one") == one
        assert name_after_log_in(other, "of the other") == other


def test_spellings_of_one_name_are_one_account(database):
    for one, other in SAME:
        register(one)
        shown = usernames()[-1]

        assert register(other).json["code"] == "username_taken"
        assert name_after_log_in(other) == shown


def test_different_emails_are_two_accounts(database):
    emails = ["josé@x.de", "jose@x.de", "ё@x.de", "е@x.de", "は@x.de", "ハ@x.de"]

    answers = [register(f"user{n}", email=email) for n, email in enumerate(emails)]

    assert [answer.status_code for answer in answers] == [200] * len(emails)


# -- Names that look like others ----------------------------------------------------------------

INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u17b4\u17b5\u180b\u180e\u200b\u200d\u200f\u202e\u2060\u2800\u3164"
    "\ufe00\ufe0f\ufeff\uffa0\ufff0\ufffa\U00013430\U00013441\U00016fe4\U0001d159\U0001d173"
    "\U000e0001\U000e0100\U000e01ef\U000e0800"
)


@pytest.mark.parametrize("character", INVISIBLE)
@pytest.mark.parametrize("name", ["ali{}ce", "{}alice", "alice{}"])
def test_invisible_characters_make_no_new_name(name, character):
    name = name.format(character)

    assert refused(username=name) or names.identity_key(name) == "alice"


@pytest.mark.parametrize("character", INVISIBLE)
def test_a_name_that_cannot_be_seen_is_refused(character):
    assert refused(username=character * 4)


def test_characters_that_choose_a_form_are_kept_in_a_name_and_make_no_other(database):
    for name in ["I ❤\ufe0f you", "葛\U000e0100城市", "ᠨ\u180bᠠᠨ"]:
        register(name)

        assert name_after_log_in(name) == name
        assert register(name.translate(dict.fromkeys([0xFE0F, 0xE0100, 0x180B]))).status_code == 409


@pytest.mark.parametrize(
    "name",
    [
        "аlice",
        "alicе",
        "аррle",
        "Ρeter",
        "pαypal",
        "Вob",
        "αдмин",
        "Ꭺlice",
        "ꓐob",
        "ⲟscar",
        "ᗷob1",
        "𐊠lice",
        "𐐃scar",
        "𐌀lice",
        "ⵏils",
        "ꔖam",
    ],
)
def test_a_name_of_letters_that_look_alike_is_refused(name):
    assert refused(username=name) == {"username": "mixed_scripts"}


def test_a_name_of_letters_that_look_alike_is_told_so(database):
    response = register("аlice")

    assert response.json["fields"] == {"username": "用户名不能混用形似的拉丁、西里尔或希腊字母"}


@pytest.mark.parametrize(
    "name",
    [
        "张三 Tom",
        "Hello世界",
        "さくらchan",
        "ハナko",
        "한국Kim",
        "علي Ali",
        "שלוםShalom",
        "नमस्तेRaj",
        "สวัสดีBob",
        "ელენეNino",
        "Աննա Anna",
        "ёлка2024",
        "Αθήνα_1",
        "ㄅㄆㄇ abc",
        "zoë_1!",
        "한국 русский",
        "bob🗝",
    ],
)
def test_other_scripts_may_be_mixed(name):
    assert refused(username=name) == {}


# -- Names that nobody may have -----------------------------------------------------------------


def test_a_reserved_name_counts_as_taken(database, settings):
    settings.RESERVED_NAMES = ["Admin", "root", "客服1"]
    names = ["admin", "ADMIN", "ａdmin", "ad\ufe0fmin", "客服1"]

    codes = [register(name).json["code"] for name in names]

    assert codes == ["username_taken"] * len(names)
    assert register("administrator").status_code == 200


def test_without_the_setting_no_name_is_reserved(database):
    assert register("admin").status_code == 200


# -- Accounts of old ----------------------------------------------------------------------------


def add_old(name: str, email: str = "old@example.com") -> None:
    """Add an account as the release before did: keys with invisible characters in them."""
    register("template")
    key = names.former_key(name)
    row = {"username": name, "username_key": key, "email": email, "email_key": email}
    password_hash = db.value("SELECT password_hash FROM users WHERE username = 'template'")
    db.insert("users", password_hash=password_hash, **row)


@pytest.mark.parametrize(
    "name", ["ali\u034fce", "alice\ufe0f", "аlice", "a  b", "\u3164\u3164\u3164"]
)
def test_an_old_account_logs_in_by_the_name_it_has(database, name):
    add_old(name)
    register("alice", password="another1")

    assert name_after_log_in(name) == name
    assert name_after_log_in(name.upper()) == name
    assert name_after_log_in("alice", "another1") == "alice"


# -- Emails -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "email",
    [
        "a@foo.test",
        "a@printer.local",
        "a@shop.example",
        "a@localhost",
        "a@app.localhost",
        "a@x.invalid",
        "o'brien+tag@example.co.uk",
        "first.last@sub-domain.example.com",
        "1@2.de",
        "用户@例子.中国",
        "jörg@bücher.example",
    ],
)
def test_an_email_is_taken_as_it_is(email):
    assert parse(RegisterInput, form("alice", email=email)).email == email


@pytest.mark.parametrize(
    "email",
    [
        "<a@example.com>x",
        "Alice <a@example.com>",
        "a@-x.com",
        "a@x-.com",
        "a..b@example.com",
        ".a@example.com",
        "a.@example.com",
        "a@example.com.",
        "a@example..com",
        "a@example",
        "a@1.2",
        "a@[127.0.0.1]",
        "a@b@example.com",
        "a b@example.com",
        "a@exa mple.com",
        "a@exa_mple.com",
        "a@xn--a.com",
        "@example.com",
        "a@",
        "a,b@example.com",
        "a@" + "b" * 64 + ".com",
        "a\u200b@example.com",
        "a\u3164@example.com",
        "a\u2800@example.com",
        "a\ufffd@example.com",
    ],
)
def test_what_is_no_email_is_refused(email):
    assert set(refused(email=email)) == {"email"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("a@xn--bcher-kva.example", "A@BÜCHER.example"),
        ("a@bücher.example", "a@bu\u0308cher.example"),
        ("a@example.com", "a@example\u3002com"),
        ("a@example.com", "a@ｅxample.com"),
        ("a@example.com", "a\ufe0f@example.com"),
        ("a@example.com", "a@exam\ufe0fple.com"),
        ("a@example.com", "a@exam\u00adple.com"),
        ("a@example.com", "a@example.com."),
        ("a@example.com", "a\u034f@example.com"),
        ("a@例子.中国", "a@xn--fsqu00a.xn--fiqs8s"),
    ],
)
def test_other_spellings_make_no_new_email(one, other):
    assert refused(email=other) or names.email_key(other) == names.email_key(one)


def test_an_email_in_another_spelling_is_taken(database):
    register("alice", email="a@bücher.example")

    response = register("bob", email="A@xn--bcher-kva.example")

    assert (response.status_code, response.json["code"]) == (409, "email_taken")


def test_emails_of_old_get_keys_in_one_form(database):
    for number, email in enumerate(["a@bücher.example", "a@xn--bcher-kva.example", "b@x.de."]):
        db.insert("users", username=f"old{number}", email=email, password_hash="x")

    users.fill_keys()

    keys = [row["email_key"] for row in db.all("SELECT email_key FROM users ORDER BY id")]
    assert keys == ["a@bücher.example", "LEGACY:a@xn--bcher-kva.example", "b@x.de"]
