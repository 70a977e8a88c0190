"""Log-in at an OpenID provider: authorization code flow with PKCE, state and nonce, by Authlib.

The browser is led to the provider with a sealed cookie and comes back with a code, which is
exchanged here for who they are. The front end fetches that by a login code (`identities.py`).
"""

import hmac
import json
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import db
from accounts import identities, registration, sealing, second_factor, sessions, users
from accounts.names import identity_key
from accounts.rate_limits import RateLimit, network
from accounts.schemas import (
    EmailInput,
    LoginCodeInput,
    NameInput,
    OidcTokenInput,
    RegisterInput,
)
from accounts.tokens import Session
from accounts.users import Account
from config import settings
from errors import ApiError
from validation import InvalidInput, parse

PURPOSE = "openid state"
STATE_SECONDS = 600
TIMEOUT_SECONDS = (5, 10)  # to connect, and between two pieces of an answer
SCOPE = "openid profile email"
# What the provider says of itself, and its keys, are asked for again after this.
METADATA_SECONDS = 600
# A key that is public signs nothing by HS256, and "none" is no signature.
ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"}
MAX_SUBJECT = 255
MAX_CLAIM = 200
# Under a domain that does not exist: for whom the provider has confirmed no address.
NO_EMAIL = "@openid.invalid"

log = logging.getLogger("login")


def require_provider() -> None:
    """Raise ApiError if OIDC_ISSUER is not set."""
    if not settings.OIDC_ISSUER:
        raise ApiError("not_found")


# -- To the provider and back ---------------------------------------------------------------------


def begin(challenge: str, redirect_uri: str, address: str) -> tuple[str, str]:
    """Return where to send the browser, and what it must bring back. Raises ApiError."""
    verifier = secrets.token_urlsafe(32)
    with call_of_provider(address):
        begun = provider().create_authorization_url(redirect_uri, code_verifier=verifier)
    state = {
        "state": begun["state"],
        "nonce": begun["nonce"],
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
        "challenge": challenge,
    }
    return begun["url"], sealing.seal(json.dumps(state), PURPOSE)


def finish(cookie: str, answer: dict[str, str], address: str) -> str:
    """Return a login code for whoever came back from the provider. Raises ApiError."""
    sealed = sealing.unseal(cookie, PURPOSE, STATE_SECONDS) or "{}"
    begun = json.loads(sealed)
    came_with = answer.get("state", "").encode()
    if not begun or not hmac.compare_digest(begun["state"].encode(), came_with):
        raise ApiError("oidc_state_invalid")
    if "code" not in answer or answer.get("iss", settings.OIDC_ISSUER) != settings.OIDC_ISSUER:
        raise ApiError("oidc_denied")
    with call_of_provider(address):
        claims = ask_provider(begun, answer["code"])
    identities.delete_expired()
    return identities.add_login_code(begun["challenge"], claims)


def ask_provider(begun: dict[str, str], code: str) -> dict[str, Any]:
    """Exchange the provider's code, and return the claims that matter here."""
    here = provider()
    token = here.fetch_access_token(
        begun["redirect_uri"], code=code, code_verifier=begun["code_verifier"]
    )
    claims = read_id_token(token, begun["nonce"])
    if "email" not in claims and "userinfo_endpoint" in here.server_metadata:
        more = here.userinfo(token=token)
        claims = {**more, **claims} if more["sub"] == claims["sub"] else claims
    is_confirmed = claims.get("email_verified") is True
    return {
        "issuer": settings.OIDC_ISSUER,
        "subject": claims["sub"],
        "name": text_of(claims, "preferred_username") or text_of(claims, "name"),
        "email": text_of(claims, "email") if is_confirmed else "",
    }


def text_of(claims: dict[str, Any], name: str) -> str:
    text = claims.get(name)
    return text[:MAX_CLAIM] if isinstance(text, str) else ""


def read_id_token(token: dict[str, Any], nonce: str) -> dict[str, Any]:
    """Return the claims of an ID token that is signed by the provider and made for this log-in."""
    expected = {
        "iss": {"essential": True, "value": settings.OIDC_ISSUER},
        "aud": {"essential": True, "value": settings.OIDC_CLIENT_ID},
        "exp": {"essential": True},
    }
    claims = provider().parse_id_token(token, nonce=nonce, claims_options=expected)
    if not claims:
        raise ValueError("no ID token")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
        raise ValueError("no subject")
    return dict(claims)


def provider() -> Any:
    """Return Authlib's client of the provider, which knows its endpoints and keys for a while."""
    return _provider(
        settings.OIDC_ISSUER,
        settings.OIDC_CLIENT_ID,
        settings.OIDC_CLIENT_SECRET,
        int(time.time()) // METADATA_SECONDS,
    )


@lru_cache(maxsize=1)
def _provider(issuer: str, client_id: str, client_secret: str, period: int) -> Any:
    # Imported late, as most services have no provider.
    from authlib.integrations.base_client import BaseApp, OAuth2Mixin, OpenIDMixin
    from authlib.integrations.requests_client import OAuth2Session

    class Provider(OAuth2Mixin, OpenIDMixin, BaseApp):
        client_cls = OAuth2Session

    found = Provider(
        framework=None,
        client_id=client_id,
        client_secret=client_secret or None,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": SCOPE,
            "code_challenge_method": "S256",
            "default_timeout": TIMEOUT_SECONDS,
        },
    )
    metadata = found.load_server_metadata()
    if metadata["issuer"] != issuer:
        raise ValueError(f"its issuer is {metadata['issuer']!r}")
    offered = metadata.get("id_token_signing_alg_values_supported", ["RS256"])
    metadata["id_token_signing_alg_values_supported"] = sorted(ALGORITHMS & set(offered))
    methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    if client_secret and "client_secret_basic" not in methods:
        found.client_kwargs.update(token_endpoint_auth_method="client_secret_post")  # noqa: S106
    return found


@contextmanager
def call_of_provider(address: str) -> Iterator[None]:
    """Let one address fail only so often: each time may keep a thread, and the provider, busy."""
    counters = {f"oidc:{network(address)}": settings.LOGIN_FAILURES_PER_ADDRESS}
    limit = RateLimit(counters, settings.LOGIN_WINDOW_SECONDS, "too_many_attempts")
    limit.hit()
    with provider_errors():
        yield
    limit.refund()


@contextmanager
def provider_errors() -> Iterator[None]:
    """Turn whatever goes wrong with the provider into ApiError, and log it without its secrets."""
    import requests
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError

    try:
        yield
    except requests.RequestException as error:
        cause = type(error).__name__  # its text may contain an address with a code
        failed = error
    except (AuthlibBaseError, JoseError, ValueError, LookupError, TypeError) as error:
        cause = f"{type(error).__name__}: {error}"[:200]
        failed = error
    else:
        return
    log.warning("log-in at the OpenID provider failed", extra={"details": {"cause": cause}})
    is_away = isinstance(failed, requests.ConnectionError | requests.Timeout)
    raise ApiError("oidc_unavailable" if is_away else "oidc_failed")


# -- From a login code to an account --------------------------------------------------------------


def log_in(wanted: OidcTokenInput, address: str) -> Account:
    """Return the account of whoever logged in at the provider; a new one the first time.

    Raises ApiError, as log-in by password and registration do.
    """
    claims = get_login(wanted)
    account = get_account(claims) or open_account(claims, wanted.invite_code, address)
    if account["is_disabled"]:
        raise ApiError("account_disabled")
    if account["has_second_factor"] and not wanted.code:
        identities.allow_time_for_a_second_factor(wanted.login_code)
    second_factor.check(account, wanted.code, address)
    use_login_code(wanted)
    return account


def link(session: Session, wanted: LoginCodeInput) -> None:
    """Let whoever logged in at the provider log in as this account from now on. Raises ApiError."""
    claims = get_login(wanted)
    use_login_code(wanted)
    identity = (claims["issuer"], claims["subject"])
    try:
        _add(session, *identity)
    except db.Duplicate:
        if identities.get_user_id(*identity) != session.user_id:
            raise ApiError("identity_taken") from None


@db.retried
def _add(session: Session, issuer: str, subject: str) -> None:
    with db.transaction():
        sessions.lock(session)
        identities.add(session.user_id, issuer, subject)


def get_login(wanted: LoginCodeInput) -> dict[str, Any]:
    claims = identities.get_login(wanted.login_code, wanted.verifier)
    # A provider that was replaced meanwhile counts for nothing.
    if not claims or claims["issuer"] != settings.OIDC_ISSUER:
        raise ApiError("login_code_invalid")
    return claims


def use_login_code(wanted: LoginCodeInput) -> None:
    if not identities.use_login_code(wanted.login_code):
        raise ApiError("login_code_invalid")


def get_account(claims: dict[str, Any]) -> Account | None:
    """Return the account that the identity is linked to, never one that has the same email."""
    user_id = identities.get_user_id(claims["issuer"], claims["subject"])
    return users.get_user(user_id) if user_id else None


def open_account(claims: dict[str, Any], invite_code: str, address: str) -> Account:
    """Open an account by the rules of registration. Raises ApiError.

    It has a password that nobody knows, until it is reset.
    """
    fields = {
        "username": free_name(claims["name"]),
        "email": known_email(claims["email"]),
        "password": secrets.token_urlsafe(15),
        "inviteCode": invite_code,
    }
    wanted = parse(RegisterInput, fields)
    registration.check_admission(wanted, address)

    def link(user_id: int) -> None:
        identities.add(user_id, claims["issuer"], claims["subject"])

    try:
        return registration.register(wanted, address=address, then=link)
    except registration.Taken:
        # Another request of the same person may have been first.
        account = get_account(claims)
        if not account:
            raise
        return account


def known_email(confirmed: str) -> str:
    with suppress(InvalidInput):
        return parse(EmailInput, {"email": confirmed}).email
    return secrets.token_hex(8) + NO_EMAIL


def free_name(wanted: str) -> str:
    """Return a user name that is valid and free, like the wanted one if possible."""
    stem = wanted.partition("@")[0].strip() or "user"
    names = [stem[:20], *(f"{stem[:14]}-{secrets.token_hex(2)}" for _ in range(3))]
    for name in names:
        with suppress(InvalidInput):
            checked = parse(NameInput, {"username": name}).username
            key = identity_key(checked)
            is_reserved = key in map(identity_key, settings.RESERVED_NAMES)
            if not is_reserved and not users.list_taken(key, ""):
                return checked
    return f"user-{secrets.token_hex(6)}"
