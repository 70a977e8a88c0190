"""SQL of `codes`: what proves to be the owner of an account, or of an email, once.

A code has 140 random bits; only its hash is stored. An account has at most one for each purpose,
and all of them end when one is used, and with the account's sessions.
"""

import hashlib
import re
import secrets

import db

RESET = "reset"  # of the password, by mail
# The same by the operator. Anybody may ask for mail, which must not end what the operator gave.
HANDED = "handed"
EMAIL = "email"  # to confirm an address
LIFETIMES = {RESET: 30 * 60, HANDED: 30 * 60, EMAIL: 24 * 3600}
# No 0, 1, 8 and 9, which look like letters.
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
GROUPS = 7
MAX_SECONDS = max(LIFETIMES.values())


def random_code(alphabet: str, groups: int, length: int) -> str:
    """Return groups of random letters, with dashes between them so that people can read them."""
    letters = [secrets.choice(alphabet) for _ in range(groups * length)]
    starts = range(0, len(letters), length)
    return "-".join("".join(letters[start : start + length]) for start in starts)


@db.retried
def make(user_id: int, purpose: str, email: str = "", token_version: int | None = None) -> str:
    """Give the account a new code, in place of the one before, and return it.

    "" if there is no such account, if it is disabled, or not of this token_version any more.
    """
    with db.transaction():
        return make_within(user_id, purpose, email, token_version)


def make_within(
    user_id: int, purpose: str, email: str = "", token_version: int | None = None
) -> str:
    """Do the same within the caller's transaction."""
    code = random_code(ALPHABET, GROUPS, 4)
    user = db.one("SELECT token_version, is_disabled FROM users WHERE id = %s FOR UPDATE", user_id)
    if not user or user["is_disabled"]:
        return ""
    if token_version not in (None, user["token_version"]):
        return ""
    db.execute(
        """
        INSERT INTO codes (user_id, purpose, code_hash, email, token_version, expires_at)
        VALUES (%(user_id)s, %(purpose)s, %(code_hash)s, %(email)s, %(token_version)s,
                UNIX_TIMESTAMP() + %(seconds)s)
            ON DUPLICATE KEY UPDATE
               code_hash = %(code_hash)s,
               email = %(email)s,
               token_version = %(token_version)s,
               expires_at = UNIX_TIMESTAMP() + %(seconds)s
        """,
        user_id=user_id,
        purpose=purpose,
        code_hash=code_hash(code),
        email=email,
        token_version=user["token_version"],
        seconds=LIFETIMES[purpose],
    )
    return code


def find(code: str, *purposes: str) -> db.Row | None:
    """Return the account of a code that is good, and the email that it was made for."""
    return db.one(
        f"""
        SELECT codes.user_id, codes.email, users.username, users.email AS present_email
          FROM codes
          JOIN users ON users.id = codes.user_id
         WHERE codes.code_hash = %s
           AND codes.purpose IN ({db.placeholders(purposes)})
           AND codes.expires_at > UNIX_TIMESTAMP()
           AND codes.token_version = users.token_version
           AND users.is_disabled = 0
        """,
        code_hash(code),
        *purposes,
    )


def use(user_id: int, code: str, *purposes: str) -> db.Row | None:
    """Return the same once, in a transaction, whose account then has no code left."""
    db.one("SELECT id FROM users WHERE id = %s FOR UPDATE", user_id)
    found = find(code, *purposes)
    if found:
        db.execute("DELETE FROM codes WHERE user_id = %s", user_id)
    return found


def code_hash(code: str) -> str:
    """Return what is stored of a code, however it is typed."""
    letters = re.sub(r"[\s-]", "", code).upper()
    return hashlib.sha256(letters.encode()).hexdigest()


def delete_expired() -> None:
    """Delete the codes that have run out, or were made while the clock was wrong."""
    db.execute(
        """
        DELETE FROM codes
         WHERE expires_at <= UNIX_TIMESTAMP() OR expires_at > UNIX_TIMESTAMP() + %s
        """,
        MAX_SECONDS,
    )
