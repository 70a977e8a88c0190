"""What proves who is asking: session tokens (JWT, HS256), and signed links to single files."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jwt

from config import settings
from errors import ApiError

JWT_OPTIONS = {
    "require": ["exp", "iat", "sub"],
    "verify_iat": False,  # another machine's clock may be a little ahead of ours
    "verify_aud": False,  # see _session_of()
}
AUDIENCE = "image-generator"
# The one spelling of a token: without padding, and without spare bits after the 256 of its
# signature.
SPELLING = r"[\w-]+\.[\w-]+\.[\w-]{42}[AEIMQUYcgkosw048]"
MAX_TOKEN_LENGTH = 2000
MAX_INT = 2**31 - 1  # what the columns hold
SIGNATURE_LENGTH = 40


class BadToken(ApiError):
    """The token is missing, forged, expired or revoked."""

    code = "token_invalid"


class Session(NamedTuple):
    """What a token or an API key says; sessions.condition() is what makes it stand.

    Tokens of the release before have no session_id. A key has a hash and no version.
    """

    user_id: int
    token_version: int
    session_id: str = ""
    key_hash: str = ""


# -- Session tokens -----------------------------------------------------------------------------


def make_token(session: Session, expires_at: int) -> str:
    """Return a token of a session; its end is in seconds since 1970."""
    claims = {
        "aud": AUDIENCE,
        "jti": secrets.token_hex(16),
        "sub": str(session.user_id),
        "sid": session.session_id,
        "ver": session.token_version,
        "iat": int(time.time()),
        "exp": expires_at,
    }
    return jwt.encode(claims, settings.SECRET_KEY, algorithm="HS256")


def read_token(token: str) -> Session:
    """Return the session of a token that we signed. Raises BadToken.

    Whether it still stands is for the database: see sessions.condition().
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise BadToken
    try:
        session, expires_at = _decode(token)
        is_over = expires_at <= time.time()
    except jwt.ExpiredSignatureError:
        raise BadToken("token_expired") from None
    except (jwt.InvalidTokenError, LookupError, ArithmeticError, ValueError, TypeError):
        raise BadToken from None
    if is_over:
        raise BadToken("token_expired")
    return session


def _session_of(claims: dict[str, Any]) -> Session:
    """Return the session that the claims stand for. Raises BadToken for any we would not make."""
    # A token of the release before has no audience.
    if claims.get("aud", AUDIENCE) != AUDIENCE:
        raise BadToken
    subject, version = claims["sub"], claims["ver"]
    if not re.fullmatch("[1-9][0-9]{0,9}", subject) or int(subject) > MAX_INT:
        raise BadToken
    if type(version) is not int or not 0 <= version <= MAX_INT:
        raise BadToken
    session_id = claims.get("sid", "")
    if not re.fullmatch("([0-9a-f]{16})?", session_id):
        raise BadToken
    return Session(int(subject), version, session_id)


def _decode(token: str) -> tuple[Session, float]:
    try:
        return _verify(settings.SECRET_KEY, token)
    except jwt.InvalidSignatureError:
        if not settings.SECRET_KEY_PREVIOUS:
            raise
        return _verify(settings.SECRET_KEY_PREVIOUS, token)


@lru_cache(maxsize=4096)
def _verify(key: str, token: str) -> tuple[Session, float]:
    """Return what a token says and when it ends, if the signature is right: that stays so.

    Remembered, it saves 70 us. What changes with time callers check each time.
    """
    if not re.fullmatch(SPELLING, token, re.ASCII):
        raise jwt.InvalidTokenError
    claims = jwt.decode(token, key, algorithms=["HS256"], options=JWT_OPTIONS)
    return _session_of(claims), claims["exp"]


# -- Signed links: an <img> cannot send a header ------------------------------------------------


def link_signer(session: Session) -> Callable[[str | None], str | None]:
    """Return a function that adds a signature to a URL of the account; None stays None.

    A link is good for one to two hours, the same string for an hour, so that browsers can cache
    what is behind it, and void once the session has ended. URL_PREFIX is put before it and is not
    signed, so that links outlive its change.
    """
    secret, prefix = settings.SECRET_KEY, settings.URL_PREFIX
    this_hour = int(time.time()) // 3600
    expires = (this_hour + 2) * 3600

    def sign(url: str | None) -> str | None:
        if not url:
            return None
        signature = session.session_id + _signature(secret, url, expires, session)
        mark = "&" if "?" in url else "?"
        folder = prefix if url.startswith("/") else ""
        return f"{folder}{url}{mark}expires={expires}&sig={signature}"

    return sign


def session_of_link(signature: str) -> str:
    """Return the id of the session that a link names; none in one of the release before."""
    return signature[:-SIGNATURE_LENGTH]


def is_link_valid(url: str, expires: str, signature: str, session: Session) -> bool:
    """Tell if the session signed this URL, with its query if that leaves something out."""
    if not re.fullmatch("[1-9][0-9]{0,11}", expires):
        return False
    expires_at = int(expires)
    if expires_at < time.time():
        return False
    for secret in (settings.SECRET_KEY, settings.SECRET_KEY_PREVIOUS):
        if not secret:
            continue
        expected = session.session_id + _signature(secret, url, expires_at, session)
        if hmac.compare_digest(signature.encode(), expected.encode()):
            return True
    return False


def _signature(secret: str, url: str, expires: int, session: Session) -> str:
    # The purpose stands first: the same secret also signs session tokens.
    text = f"signed link\n{url}\n{expires}\n{session.token_version}"
    if session.session_id:
        text += f"\n{session.session_id}"
    key = _link_key(secret)
    return hashlib.blake2b(text.encode(), key=key, digest_size=SIGNATURE_LENGTH // 2).hexdigest()


@lru_cache(maxsize=2)
def _link_key(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
