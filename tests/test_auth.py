import base64
import hmac
import json
import re
import time
from urllib.parse import quote

import jwt
import pytest

from accounts import registration, users


def profile(client, token: str | None, scheme: str = "Bearer"):
    headers = {"Authorization": f"{scheme} {token}"} if token is not None else {}
    return client.http.get("/api/auth/profile", headers=headers)


def forged(settings, key: str | None = None, algorithm: str = "HS256", **changes) -> str:
    now = int(time.time())
    claims = {"sub": "1", "ver": 0, "iat": now, "exp": now + 60, **changes}
    return jwt.encode(
        {k: v for k, v in claims.items() if v is not None}, key or settings.SECRET_KEY, algorithm
    )


def test_profile_answers_as_published(alice):
    response = alice.get("/api/auth/profile")

    assert response.status_code == 200
    assert set(response.json) == {"status", "data"}
    published = {"id", "username", "email", "avatarUrl", "created_at"}
    storage = {"storageBytes", "storageLimitBytes", "retentionDays", "trashDays"}
    assert set(response.json["data"]) == published | storage | {"role", "imageCount", "limits"}
    assert time.strptime(response.json["data"]["created_at"], "%Y-%m-%dT%H:%M:%SZ")


def test_times_are_utc(alice):
    created = alice.get("/api/auth/profile").json["data"]["created_at"]

    age = time.time() - __import__("calendar").timegm(time.strptime(created, "%Y-%m-%dT%H:%M:%SZ"))
    assert -5 < age < 60


def test_no_token_is_refused(client):
    response = profile(client, None)

    assert (response.status_code, response.json["code"]) == (401, "token_missing")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(alice, scheme):
    assert profile(alice, alice.token, scheme).status_code == 200


@pytest.mark.parametrize("token", ["", " ", "x", "a.b.c", "é", "null", "." * 5000, "Bearer x"])
def test_nonsense_is_refused(client, token):
    response = profile(client, token)

    is_missing = response.json["code"] == "token_missing"
    said = response.headers["WWW-Authenticate"]
    assert response.status_code == 401
    assert said == ("Bearer" if is_missing else 'Bearer error="invalid_token"')


@pytest.mark.parametrize("scheme", ["Basic", "Token", ""])
def test_another_scheme_is_refused(alice, scheme):
    assert profile(alice, alice.token, scheme).status_code == 401


def test_an_unsigned_token_is_refused(alice):
    header = (
        base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode())
        .rstrip(b"=")
        .decode()
    )
    unsigned = f"{header}.{alice.token.split('.')[1]}."

    assert profile(alice, unsigned).json["code"] == "token_invalid"


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "another key, long enough to be one for HS256"},
        {"algorithm": "HS512", "key": "k" * 64},
        {"sub": "999999"},
        {"sub": "1 OR 1=1"},
        {"sub": None},
        {"ver": 7},
        {"ver": None},
        {"exp": None},
        {"iat": None},
        {"nbf": 2**33},
    ],
)
def test_a_token_that_is_not_ours_is_refused(alice, settings, changes):
    response = profile(alice, forged(settings, **{"sub": str(alice.id), **changes}))

    assert (response.status_code, response.json["code"]) == (401, "token_invalid")


def test_an_expired_token_is_refused_and_says_so(alice, settings):
    response = profile(alice, forged(settings, sub=str(alice.id), exp=int(time.time()) - 1))

    assert (response.status_code, response.json["code"]) == (401, "token_expired")
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


def test_a_token_lives_for_token_hours(alice, settings):
    settings.TOKEN_HOURS = 2

    alice.log_in()
    claims = jwt.decode(alice.token, options={"verify_signature": False})

    assert claims["exp"] - claims["iat"] == 7200


def test_a_clock_that_runs_ahead_on_another_machine_does_no_harm(alice, settings):
    ahead = int(time.time()) + 90

    assert (
        profile(alice, forged(settings, sub=str(alice.id), iat=ahead, exp=ahead + 60)).status_code
        == 200
    )


def test_the_previous_key_is_still_good_while_it_is_named(alice, settings):
    settings.SECRET_KEY_PREVIOUS, settings.SECRET_KEY = (
        settings.SECRET_KEY,
        "the new key, long enough for HS256 too",
    )

    assert profile(alice, alice.token).status_code == 200
    settings.SECRET_KEY_PREVIOUS = ""
    assert profile(alice, alice.token).status_code == 401


def test_a_new_password_ends_every_session(alice):
    users.set_password(alice.id, "x")

    assert profile(alice, alice.token).json["code"] == "token_invalid"


def test_a_disabled_account_is_out_at_once(alice):
    users.set_disabled(alice.id, is_disabled=True)

    assert profile(alice, alice.token).status_code == 401


def test_a_deleted_account_is_out_at_once(alice):
    registration.delete_account(users.get_user(alice.id))

    assert profile(alice, alice.token).status_code == 401


# -- Absurd claims, and other spellings -----------------------------------------------------------

ABSURD = [
    1, 1.5, 1e308, float("inf"), float("nan"), -1, 0, 2**31, 2**63, 10**400, True, None,
    "", "0", "-1", "01", " 1", "1 ", "+1", "1_0", "1.0", "1e0", "٣", "１", "0x1", "1\0", "9" * 400,
    [], [1], ["1"], {}, {"a": 1}, "2147483648",
]  # fmt: skip


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize(
    "path", ["/api/auth/profile", "/api/v1/images/history", "/api/v1/images/1"]
)
def test_an_absurd_subject_is_refused(alice, settings, value, path):
    token = forged(settings, sub=str(alice.id))
    claims = {**jwt.decode(token, options={"verify_signature": False}), "sub": value}

    response = alice.http.get(path, headers={"Authorization": f"Bearer {sign(claims, settings)}"})

    assert (response.status_code, response.json["code"]) == (401, "token_invalid")


@pytest.mark.parametrize("value", [*ABSURD[1:], "0"], ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("claim", ["ver", "exp", "iat", "nbf", "aud"])
def test_any_absurd_claim_is_no_error_of_ours(alice, settings, claim, value):
    claims = jwt.decode(alice.token, options={"verify_signature": False, "verify_aud": False})

    response = profile(alice, sign({**claims, claim: value}, settings))

    assert response.status_code in (200, 401)
    if claim in ("ver", "aud") and value != 0:
        assert response.status_code == 401


def sign(claims, settings) -> str:
    """Return a token with these claims, which jwt.encode() may refuse to make."""
    parts = [base64_text(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims)]
    key = settings.SECRET_KEY.encode()
    signature = hmac.digest(key, ".".join(parts).encode(), "sha256")
    return ".".join([*parts, base64_text(signature)])


def base64_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("claims", ["[]", "1", "null", '"x"', "{}", "[" * 1200, "\xff"])
def test_claims_that_are_no_object_are_refused(client, settings, claims):
    parts = base64_text(b'{"alg":"HS256"}'), base64_text(claims.encode("latin-1"))
    signature = hmac.digest(settings.SECRET_KEY.encode(), ".".join(parts).encode(), "sha256")

    assert profile(client, ".".join([*parts, base64_text(signature)])).status_code == 401


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize(
    "respell",
    [
        lambda token: token + "=",
        lambda token: token + "==",
        lambda token: token + ".",
        lambda token: token + "!",
        lambda token: token + "\xa0",
        lambda token: token[:-5] + " " + token[-5:],
        lambda token: token[:-5] + "*" + token[-5:],
        lambda token: token.replace(".", "=.", 1),
        # The last letter holds four bits of the signature, and two that nobody reads.
        lambda token: token[:-1] + LETTERS[LETTERS.index(token[-1]) + 1],
        lambda token: token[:-1] + LETTERS[LETTERS.index(token[-1]) + 3],
    ],
)
def test_a_token_has_one_spelling(alice, respell):
    assert profile(alice, alice.token).status_code == 200
    assert profile(alice, respell(alice.token)).status_code == 401


def test_a_token_names_itself_and_whom_it_is_for(alice):
    first = alice.token
    alice.log_in()
    read = [
        jwt.decode(token, options={"verify_signature": False, "verify_aud": False})
        for token in (first, alice.token)
    ]

    assert [claims["aud"] for claims in read] == ["image-generator"] * 2
    assert read[0]["jti"] != read[1]["jti"]


def test_a_token_of_the_release_before_stays_good(alice, settings):
    assert profile(alice, forged(settings, sub=str(alice.id))).status_code == 200
    assert profile(alice, forged(settings, sub=str(alice.id), aud="other")).status_code == 401


# -- Numbers beyond any column --------------------------------------------------------------------


@pytest.mark.parametrize("number", ["٣", "１", "+1", "-1", "1_0", " 1", "1.0", "0x1", "1e3", "²"])
def test_only_plain_digits_are_the_number_of_an_image(alice, number):
    alice.generate()

    assert alice.get(f"/api/v1/images/{number}").status_code == 404


@pytest.mark.parametrize("number", [2**31, 2**63, 10**30, "9" * 5000, "0" * 5000])
def test_a_number_beyond_the_column_is_no_image(alice, number):
    assert alice.get(f"/api/v1/images/{number}").status_code == 404
    assert alice.open("DELETE", f"/api/v1/images/{number}").status_code == 404
    body = {"ids": [int(number) if len(str(number)) < 4000 else 10**400]}
    assert alice.post("/api/v1/images/delete", json=body).status_code == 400
    assert alice.get(f"/api/v1/images?ids={number}").status_code in (200, 400)
    for name in ("page", "per_page", "cursor"):
        assert alice.get(f"/api/v1/images/history?{name}={number}").status_code in (200, 400)


@pytest.mark.parametrize(
    "number", ["9" * 19, "9" * 30, "-1", "+1", "1_0", "٣", " 1", "1.0", "", "²"]
)
@pytest.mark.parametrize("when", ["2024-01-01 00:00:00"])
def test_a_cursor_with_another_number_is_none(alice, number, when):
    cursor = base64_text(f"{when}|{number}".encode())

    assert alice.get(f"/api/v1/images/history?cursor={cursor}").status_code == 400


@pytest.mark.parametrize(
    "when", ["2024-13-01 00:00:00", "2024-02-31 00:00:00", "x", "", "٢024-01-01"]
)
def test_a_cursor_with_another_time_is_no_error_of_ours(alice, when):
    cursor = base64_text(f"{when}|1".encode())

    assert alice.get(f"/api/v1/images/history?cursor={cursor}").status_code in (200, 400)


@pytest.mark.parametrize("more", ["=", "==", "A", "!", "%20", "%0A"])
def test_a_cursor_has_one_spelling(alice, more):
    cursor = base64_text(b"2024-01-01 00:00:00|10")

    assert alice.get(f"/api/v1/images/history?cursor={cursor}").status_code == 200
    assert alice.get(f"/api/v1/images/history?cursor={cursor}{more}").status_code == 400


@pytest.mark.parametrize(
    "expires",
    [str(10**30), "9" * 5000, "٣", "1_000", "+{}", " {}", "{} ", "0{}", "{}.0", "{}0", "", "x"],
)
def test_the_end_of_a_signed_link_has_one_spelling(alice, client, expires):
    alice.generate()
    link = alice.history()["records"][0]["signedImageUrl"]
    end = re.search(r"expires=(\d+)", link).group(1)
    other = quote(expires.format(end))

    assert client.get(link).status_code == 200
    assert client.get(link.replace(f"expires={end}", f"expires={other}")).status_code == 403
    assert client.get(f"{link}&expires={other}").status_code == 403
