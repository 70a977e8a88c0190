"""Texts that are kept or sent sealed: encrypted and signed with a key made from SECRET_KEY."""

import base64
import hashlib
from functools import lru_cache
from typing import Any

from config import settings


def seal(text: str, purpose: str) -> str:
    return _fernet(purpose).encrypt(text.encode()).decode()


def unseal(sealed: str, purpose: str, seconds: int | None = None) -> str | None:
    """Return the text; None if we did not seal it for this purpose, or longer ago than that."""
    from cryptography.fernet import InvalidToken

    try:
        return _fernet(purpose).decrypt(sealed.encode(), ttl=seconds).decode()
    except InvalidToken:
        return None


def _fernet(purpose: str) -> Any:
    """Return what seals with today's key, and opens what was sealed with the previous one too."""
    # Imported late, as most log-ins do without: 5 MB.
    from cryptography.fernet import Fernet, MultiFernet

    secrets = (settings.SECRET_KEY, settings.SECRET_KEY_PREVIOUS)
    return MultiFernet([Fernet(_key(secret, purpose)) for secret in secrets if secret])


@lru_cache(maxsize=8)
def _key(secret: str, purpose: str) -> bytes:
    # The purpose stands in the key: the same secret also signs session tokens and links.
    digest = hashlib.sha256(f"sealed {purpose}\n{secret}".encode()).digest()
    return base64.urlsafe_b64encode(digest)
