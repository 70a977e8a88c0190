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


def new_token() -> str:
    return secrets.token_urlsafe(24)


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def create_share(session: Session, generation_id: int, days: int) -> tuple[db.Row, str]:
    """Share an image of the user; return the share, and the token that nobody can look up later.

    Raises BadToken, and ApiError if there is no such image, or the account has too many shares.
    """
    token = new_token()
    added = db.execute(
        f"""
        INSERT INTO shares (user_id, generation_id, token_hash, created_at, expires_at)
        SELECT u.id, g.id, %(token_hash)s, UNIX_TIMESTAMP(), UNIX_TIMESTAMP() + %(seconds)s
          FROM users AS u
          JOIN image_generations AS g ON g.id = %(id)s AND g.user_id = u.id
         WHERE {sessions.condition(session)} AND g.image_url IS NOT NULL
           AND (SELECT COUNT(*)
                  FROM shares
                 WHERE user_id = %(user_id)s AND expires_at > UNIX_TIMESTAMP()) < %(most)s
        """,
        id=generation_id,
        token_hash=hash_of(token),
        seconds=days * DAY_SECONDS,
        most=MAX_SHARES,
        **session._asdict(),
    )
    sessions.check(session)
    shares = {share["id"]: share for share in list_shares(session.user_id)}
    if added.count and added.new_id in shares:
        return shares[added.new_id], token
    is_full = not added.count and len(shares) >= MAX_SHARES
    raise ApiError("too_many_shares" if is_full else "no_image")  # or deleted just now


def list_shares(user_id: int) -> list[db.Row]:
    """Return the user's shares that have not ended, the newest first."""
    return db.all(
        """
          SELECT s.id, s.generation_id, s.created_at, s.expires_at
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
