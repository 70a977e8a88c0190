"""Password hashes, by Werkzeug's method PASSWORD_HASH."""

from functools import lru_cache

from werkzeug.security import check_password_hash, generate_password_hash

from config import settings


def hash_password(password: str) -> str:
    return generate_password_hash(password, method=settings.PASSWORD_HASH)


def is_password_right(password_hash: str | None, password: str) -> bool:
    """Compare a password with a hash; None, of no account, takes the usual time and is wrong."""
    try:
        matches = check_password_hash(
            password_hash or _dummy_hash(settings.PASSWORD_HASH), password
        )
    except ValueError:  # a hash in a form that this Werkzeug no longer knows
        return False
    return matches and password_hash is not None


def needs_rehash(password_hash: str) -> bool:
    """Tell if a hash was made with other parameters than PASSWORD_HASH."""
    todays_hash = _dummy_hash(settings.PASSWORD_HASH)
    return _method(password_hash) != _method(todays_hash)


@lru_cache
def _dummy_hash(method: str) -> str:
    return generate_password_hash("no account has this", method=method)


def _method(password_hash: str) -> str:
    return password_hash.split("$", 1)[0]
