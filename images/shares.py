"""SQL of `shares`: links by which an owner shows one image to anybody, until they end.

A link's token is random and only its hash is stored, so whoever reads the table can open nothing.
"""

import hashlib
import secrets

import db
from accounts import sessions
from accounts.tokens import Session
from errors import ApiError

# Links of one account that are good at the same time.
MAX_SHARES = 1000
DAY_SECONDS = 86400
COLUMNS = "s.id, s.generation_id, s.created_at, s.expires_at"


def new_token() -> str:
    return secrets.token_urlsafe(24)


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


@db.retried
def create_share(session: Session, generation_id: int, days: int) -> tuple[db.Row, str]:
    """Share an image of the user; return the share, and the token that nobody can look up later.

    Raises BadToken, and ApiError if there is no such image, or the account has too many shares.
    """
    token = new_token()
    with db.transaction():
        sessions.lock(session)
        if count_shares(session.user_id) >= MAX_SHARES:
            raise ApiError("too_many_shares")
        added = db.execute(
            """
            INSERT INTO shares (user_id, generation_id, token_hash, created_at, expires_at)
            SELECT user_id, id, %s, UNIX_TIMESTAMP(), UNIX_TIMESTAMP() + %s
              FROM image_generations
             WHERE id = %s AND user_id = %s AND image_url IS NOT NULL
            """,
            hash_of(token),
            days * DAY_SECONDS,
            generation_id,
            session.user_id,
        )
        if not added.count:
            raise ApiError("no_image")
        share = db.one(f"SELECT {COLUMNS} FROM shares AS s WHERE s.id = %s", added.new_id)
    return share, token


def count_shares(user_id: int) -> int:
    """Count the user's shares that have not ended, those of images in the trash included."""
    sql = "SELECT COUNT(*) FROM shares WHERE user_id = %s AND expires_at > UNIX_TIMESTAMP()"
    return db.value(sql, user_id)


def list_shares(user_id: int) -> list[db.Row]:
    """Return the user's shares that have not ended, the newest first."""
    return db.all(
        f"""
          SELECT {COLUMNS}
            FROM shares AS s
            JOIN image_generations AS g ON g.id = s.generation_id AND g.user_id = s.user_id
           WHERE s.user_id = %s AND s.expires_at > UNIX_TIMESTAMP()
        ORDER BY s.id DESC
        """,
        user_id,
    )


def get_shared(token: str) -> db.Row | None:
    """Return whose image a token shows, and its URL; None once the share has ended."""
    return db.one(
        """
        SELECT g.user_id, g.image_url
          FROM shares AS s
          JOIN users AS u ON u.id = s.user_id AND u.is_disabled = 0
          JOIN image_generations AS g ON g.id = s.generation_id AND g.user_id = s.user_id
         WHERE s.token_hash = %s AND s.expires_at > UNIX_TIMESTAMP()
        """,
        hash_of(token),
    )


def delete_share(user_id: int, share_id: int) -> bool:
    sql = "DELETE FROM shares WHERE id = %s AND user_id = %s"
    return db.execute(sql, share_id, user_id).count > 0


def delete_shares_of(generation_ids: list[int]) -> None:
    """Delete the shares of images that are being deleted."""
    if generation_ids:
        places = db.placeholders(generation_ids)
        db.execute(f"DELETE FROM shares WHERE generation_id IN ({places})", *generation_ids)


def delete_expired() -> None:
    db.execute("DELETE FROM shares WHERE expires_at <= UNIX_TIMESTAMP()")
