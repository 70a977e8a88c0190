"""SQL of `api_keys`: keys for programs, which stand for a session with fewer rights.

A key says whose it is and what it may do, so that a request is refused or goes on before the
database is asked; that it says so rightly, its hash tells.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

import db
from accounts.tokens import MAX_INT, BadToken, Session
from errors import ApiError

MARK = "igb_"
READ, GENERATE = "read", "generate"
SCOPES = (READ, GENERATE)
MAX_KEYS = 50
# So much of a key is kept to tell it from others: its mark, the account, and five of 43 letters.
SHOWN_LETTERS = 5
SPELLING = re.compile(rf"{MARK}([1-9][0-9]{{0,9}})(r?g?)_([\w-]{{43}})", re.ASCII)

IS_GOOD = "(k.expires_at IS NULL OR k.expires_at > UNIX_TIMESTAMP())"
# On a row of {users}; see sessions.condition().
STANDS = f"""EXISTS
        (SELECT 1
           FROM api_keys AS k
          WHERE k.id = %(session_id)s AND k.user_id = {{users}}.id
            AND k.key_hash = %(key_hash)s AND {IS_GOOD})
"""
OF_LINK = f"""
    SELECT 1 FROM api_keys AS k WHERE k.id = %(session_id)s AND k.user_id = u.id AND {IS_GOOD}
"""


class Key(NamedTuple):
    """What a key says of itself."""

    session: Session
    scopes: tuple[str, ...]


class TooManyKeys(ApiError):
    code = "too_many_keys"


def read_key(text: str) -> Key:
    """Return what a key stands for; whether it stands is for the database. Raises BadToken."""
    found = SPELLING.fullmatch(text)
    if not found or int(found[1]) > MAX_INT:
        raise BadToken("key_invalid")
    key_hash = _hash(text)
    scopes = tuple(scope for scope in SCOPES if scope[0] in found[2])
    return Key(Session(int(found[1]), 0, _id_of(key_hash), key_hash), scopes)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _id_of(key_hash: str) -> str:
    return key_hash[:16]


def make_key(
    user_id: int,
    name: str,
    scopes: list[str],
    expires_at: int | None = None,
    daily_images: int | None = None,
) -> tuple[str, db.Row]:
    """Add a key; return its text, which is never seen again, and its row. Raises TooManyKeys.

    Within a transaction that has locked the account.
    """
    letters = "".join(scope[0] for scope in SCOPES if scope in scopes)
    start = f"{MARK}{user_id}{letters}_"
    text = start + secrets.token_urlsafe(32)
    key_hash = _hash(text)
    number = db.value("SELECT COUNT(*) FROM api_keys WHERE user_id = %s", user_id)
    if number >= MAX_KEYS:
        raise TooManyKeys
    db.insert(
        "api_keys",
        id=_id_of(key_hash),
        user_id=user_id,
        key_hash=key_hash,
        prefix=text[: len(start) + SHOWN_LETTERS],
        name=name,
        scopes=",".join(scope for scope in SCOPES if scope in scopes),
        created_at=db.value("SELECT UNIX_TIMESTAMP()"),
        expires_at=expires_at,
        daily_images=daily_images,
    )
    [row] = [key for key in list_keys(user_id) if key["id"] == _id_of(key_hash)]
    return text, row


def list_keys(user_id: int) -> list[db.Row]:
    return db.all(
        """
          SELECT id, name, prefix, scopes, created_at, last_used_at, expires_at, daily_images
            FROM api_keys
           WHERE user_id = %s
        ORDER BY created_at DESC, id
        """,
        user_id,
    )


def revoke(user_id: int, key_id: str) -> bool:
    """Delete a key of the user; False if there is none."""
    sql = "DELETE FROM api_keys WHERE id = %s AND user_id = %s"
    return db.execute(sql, key_id, user_id).count > 0


# -- Images a day of one key --------------------------------------------------------------------

# Tomorrow has begun for the key when another process, whose clock is ahead, says so: see
# quota.current_day().
USED = "CASE WHEN quota_day IN (%(today)s, %(today)s + 1) THEN quota_used ELSE 0 END"
HAS_ROOM = f"""EXISTS
        (SELECT 1
           FROM api_keys AS k
          WHERE k.id = %(session_id)s
            AND (k.daily_images IS NULL
                 OR %(number)s + {USED.replace("quota_", "k.quota_")} <= k.daily_images))
"""
# After the statement that reserves images of the account; only if that did.
COUNT = f"""
    UPDATE api_keys
       SET quota_used = %(number)s + {USED},
           quota_day = CASE quota_day WHEN %(today)s + 1 THEN quota_day ELSE %(today)s END
     WHERE id = %(session_id)s AND ROW_COUNT() = 1
"""


def has_room(session: Session, number: int, today: int) -> bool:
    values = {"session_id": session.session_id, "number": number, "today": today}
    return db.one(f"SELECT 1 AS found FROM DUAL WHERE {HAS_ROOM}", **values) is not None


def change_count(generation_id: int, by: int) -> None:
    """Give an image back to the day of the key it was asked for by, or take it again."""
    db.execute(
        """
        UPDATE api_keys
           SET quota_used = quota_used + %(by)s
         WHERE quota_used + %(by)s >= 0
           AND id = (SELECT api_key_id FROM image_generations WHERE id = %(generation_id)s)
           AND quota_day = (SELECT quota_day FROM image_generations WHERE id = %(generation_id)s)
        """,
        by=by,
        generation_id=generation_id,
    )


def note_used(key_id: str, hour: int) -> None:
    db.execute("UPDATE api_keys SET last_used_at = %s WHERE id = %s", hour, key_id)
