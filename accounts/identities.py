"""SQL of `identities`, who somebody is at an OpenID provider, and of `login_codes`.

A login code stands for a log-in there that the front end has not fetched yet. It is good once, for
a minute, and only for whoever knows the verifier whose challenge the log-in began with.
"""

import base64
import hashlib
import hmac
import json
import secrets
from typing import Any

import db

CODE_SECONDS = 60


def get_user_id(issuer: str, subject: str) -> int | None:
    row = db.one(
        "SELECT user_id FROM identities WHERE identity_hash = %s", identity_hash(issuer, subject)
    )
    return row["user_id"] if row else None


def add(user_id: int, issuer: str, subject: str) -> None:
    """Let this identity log in as the user. Raises Duplicate if it already is anyone's."""
    db.execute(
        """
        INSERT INTO identities (identity_hash, user_id, issuer, subject)
        VALUES (%s, %s, %s, %s)
        """,
        identity_hash(issuer, subject),
        user_id,
        issuer,
        subject,
    )


def list_of(user_id: int) -> list[db.Row]:
    return db.all(
        """
          SELECT issuer, subject, created_at
            FROM identities
           WHERE user_id = %s
        ORDER BY created_at, identity_hash
        """,
        user_id,
    )


def delete_of(user_id: int) -> int:
    return db.execute("DELETE FROM identities WHERE user_id = %s", user_id).count


def identity_hash(issuer: str, subject: str) -> str:
    # JSON keeps the two apart: no other pair has the same text.
    return hashlib.sha256(json.dumps([issuer, subject]).encode()).hexdigest()


# -- Login codes ----------------------------------------------------------------------------------


def add_login_code(challenge: str, claims: dict[str, Any]) -> str:
    """Return a new code for who has these claims."""
    code = secrets.token_urlsafe(32)
    db.execute(
        """
        INSERT INTO login_codes (code_hash, challenge, claims, expires_at)
        VALUES (%s, %s, %s, UNIX_TIMESTAMP() + %s)
        """,
        hash_of(code),
        challenge,
        json.dumps(claims),
        CODE_SECONDS,
    )
    return code


def get_login(code: str, verifier: str) -> dict[str, Any] | None:
    """Return the claims of a code that has not run out, if the verifier is that of its log-in."""
    row = db.one(
        """
        SELECT challenge, claims
          FROM login_codes
         WHERE code_hash = %s AND expires_at > UNIX_TIMESTAMP()
        """,
        hash_of(code),
    )
    if not row or not hmac.compare_digest(row["challenge"], challenge_of(verifier)):
        return None
    return json.loads(row["claims"])


def allow_time_for_a_second_factor(code: str) -> None:
    db.execute(
        """
        UPDATE login_codes
           SET expires_at = expires_at + %s
         WHERE code_hash = %s AND expires_at BETWEEN UNIX_TIMESTAMP() AND UNIX_TIMESTAMP() + %s
        """,
        CODE_SECONDS,
        hash_of(code),
        CODE_SECONDS,
    )


def use_login_code(code: str) -> bool:
    """Use a code up; of two requests with it, one gets True."""
    used = db.execute(
        "DELETE FROM login_codes WHERE code_hash = %s AND expires_at > UNIX_TIMESTAMP()",
        hash_of(code),
    )
    return used.count > 0


def delete_expired() -> int:
    return db.execute("DELETE FROM login_codes WHERE expires_at <= UNIX_TIMESTAMP()").count


def hash_of(code: str) -> str:
    return hashlib.sha256(f"login code\n{code}".encode()).hexdigest()


def challenge_of(verifier: str) -> str:
    """Return the challenge of a verifier, as RFC 7636 makes it by S256."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
