import base64
import json
import time

import jwt
import pytest

from accounts import tokens, users


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
    assert set(response.json["data"]) == {"id", "username", "email", "avatarUrl", "created_at"}
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

    claims = jwt.decode(
        tokens.make_token({"id": 1, "token_version": 0}), options={"verify_signature": False}
    )

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
    users.change_password(alice.id, "x")

    assert profile(alice, alice.token).json["code"] == "token_invalid"


def test_a_disabled_account_is_out_at_once(alice):
    users.set_disabled(alice.id, is_disabled=True)

    assert profile(alice, alice.token).status_code == 401


def test_a_deleted_account_is_out_at_once(alice):
    users.delete_user(alice.id, [])

    assert profile(alice, alice.token).status_code == 401
