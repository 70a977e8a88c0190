"""What proves who is asking: session tokens (JWT, HS256), and signed links to single files."""

import hashlib
import hmac
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jwt

from config import settings
from errors import ApiError


class BadToken(ApiError):
    """The token is missing, forged, expired or revoked."""

    code = "token_invalid"


def make(user: dict[str, Any]) -> str:
    """Return a session token for the account, good for TOKEN_HOURS or until its token_version changes."""
    now = int(time.time())
    claims = {
        "sub": str(user["id"]),
        "ver": user["token_version"],
        "iat": now,
        "exp": now + max(1, int(settings.TOKEN_HOURS * 3600)),
    }
    return jwt.encode(claims, settings.SECRET_KEY, algorithm="HS256")


def read(token: str) -> tuple[int, int]:
    """Return (user id, token version) of a token we signed. Raises BadToken."""
    try:
        claims = _decode(token)
        return int(claims["sub"]), int(claims["ver"])
    except jwt.ExpiredSignatureError:
        raise BadToken("token_expired") from None
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
        raise BadToken from None


def _decode(token: str) -> dict[str, Any]:
    try:
        return _decode_with(settings.SECRET_KEY, token)
    except jwt.InvalidSignatureError:
        if not settings.SECRET_KEY_PREVIOUS:
            raise
        return _decode_with(settings.SECRET_KEY_PREVIOUS, token)


def _decode_with(key: str, token: str) -> dict[str, Any]:
    claims = _verified(key, token)
    if claims["exp"] <= time.time():
        raise jwt.ExpiredSignatureError
    return claims


@lru_cache(maxsize=4096)
def _verified(key: str, token: str) -> dict[str, Any]:
    """Check form and signature. What is remembered cannot change; what can, callers check each time."""
    # `iat` is not compared with our clock: another machine's may be a little ahead.
    options = {"require": ["exp", "iat", "sub"], "verify_iat": False}
    return jwt.decode(token, key, algorithms=["HS256"], options=options)


# -- Signed links: an <img> cannot send a header ---------------------------------------------------


def link_signer(token_version: int) -> Callable[[str | None], str | None]:
    """Return a function from a URL of the account's to the same with a signature, good for one to two hours.

    That is the same string for an hour, so that browsers can cache what is behind it, and void once the
    account's sessions are ended.
    """
    expires, secret = (int(time.time()) // 3600 + 2) * 3600, settings.SECRET_KEY

    def sign(url: str | None) -> str | None:
        return (
            f"{url}?expires={expires}&sig={_signature(secret, url, expires, token_version)}"
            if url
            else None
        )

    return sign


def link_is_good(url: str, expires: str, signature: str, token_version: int) -> bool:
    if not expires.isdecimal() or not expires.isascii() or int(expires[:12]) < time.time():
        return False
    keys = [key for key in (settings.SECRET_KEY, settings.SECRET_KEY_PREVIOUS) if key]
    made = [_signature(key, url, int(expires[:12]), token_version) for key in keys]
    return any(hmac.compare_digest(signature.encode(), one.encode()) for one in made)


def _signature(secret: str, url: str, expires: int, token_version: int) -> str:
    # The purpose stands first: the same secret also signs session tokens.
    text = f"signed link\n{url}\n{expires}\n{token_version}"
    return hashlib.blake2b(text.encode(), key=_link_key(secret), digest_size=20).hexdigest()


@lru_cache(maxsize=2)
def _link_key(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
