"""Password hashes, by Werkzeug's method PASSWORD_HASH, and passwords that are too common."""

import unicodedata
from functools import lru_cache
from pathlib import Path

from werkzeug.security import check_password_hash, generate_password_hash

from config import SettingError, read_text, settings


def normalize(password: str) -> str:
    """Return one Unicode form of a password, whatever the keyboard makes of its letters."""
    return unicodedata.normalize("NFKC", password)


def hash_password(password: str) -> str:
    return generate_password_hash(normalize(password), method=settings.PASSWORD_HASH)


def is_password_right(password_hash: str | None, password: str) -> bool:
    """Compare a password with a hash; None, of no account, takes the usual time and is wrong."""
    stored = password_hash or _dummy_hash(settings.PASSWORD_HASH)
    # Hashes of old are of what was typed.
    forms = dict.fromkeys([normalize(password), password])
    matches = any(_matches(stored, form) for form in forms)
    return matches and password_hash is not None


def needs_rehash(password_hash: str, password: str) -> bool:
    """Tell if a hash was made with other parameters than PASSWORD_HASH, or of what was typed."""
    todays_hash = _dummy_hash(settings.PASSWORD_HASH)
    if _method(password_hash) != _method(todays_hash):
        return True
    normal = normalize(password)
    return normal != password and not _matches(password_hash, normal)


def is_common(password: str) -> bool:
    """Tell if the list PASSWORD_BLOCKLIST has the password, in upper or lower case."""
    return normalize(password).casefold() in common_passwords(settings.PASSWORD_BLOCKLIST)


@lru_cache(maxsize=1)
def common_passwords(file: str) -> frozenset[str]:
    """Return the passwords of a file, one a line after remarks (#). Raises SettingError."""
    if not file:
        return frozenset()
    try:
        lines = read_text(Path(file)).splitlines()
    except (OSError, ValueError) as error:
        raise SettingError(f"PASSWORD_BLOCKLIST: {Path(file).name}: {error}") from None
    words = [line.strip() for line in lines if not line.startswith("# ")]
    return frozenset(normalize(word).casefold() for word in words)


def _matches(password_hash: str, password: str) -> bool:
    try:
        return check_password_hash(password_hash, password)
    except ValueError:  # a hash in a form that this Werkzeug no longer knows
        return False


@lru_cache
def _dummy_hash(method: str) -> str:
    return generate_password_hash("no account has this", method=method)


def _method(password_hash: str) -> str:
    return password_hash.split("$", 1)[0]
