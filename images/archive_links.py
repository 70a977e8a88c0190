"""SQL of `archive_links`: links by which a browser fetches an archive, which sends no token.

Only the hash of a link's token is stored. The session that made the link stands in the row: it is
checked again at every image that is sent.
"""

import json
from typing import Any

import db
from accounts import sessions
from accounts.tokens import BadToken, Session
from errors import ApiError
from images.shares import hash_of, new_token

# A download must begin within these seconds, and may be begun again.
LINK_SECONDS = 600
# One more ends the oldest.
MAX_LINKS = 10


@db.retried
def create_link(session: Session, selection: dict[str, Any]) -> tuple[str, int]:
    """Return the token of a new link to this selection, and when it ends. Raises BadToken."""
    token = new_token()
    with db.transaction():
        sessions.lock(session)
        db.execute(
            """
            INSERT INTO archive_links (user_id, token_hash, selection, expires_at)
            VALUES (%s, %s, %s, UNIX_TIMESTAMP() + %s)
            """,
            session.user_id,
            hash_of(token),
            json.dumps({"session": session._asdict(), **selection}),
            LINK_SECONDS,
        )
        links = db.all(
            "SELECT id, expires_at FROM archive_links WHERE user_id = %s ORDER BY id DESC",
            session.user_id,
        )
        for link in links[MAX_LINKS:]:
            db.execute("DELETE FROM archive_links WHERE id = %s", link["id"])
    return token, links[0]["expires_at"]


def read_link(token: str) -> tuple[Session, dict[str, Any]]:
    """Return the session that made a link, and its selection. Raises ApiError once it has ended."""
    row = db.one(
        """
        SELECT selection
          FROM archive_links
         WHERE token_hash = %s AND expires_at > UNIX_TIMESTAMP()
        """,
        hash_of(token),
    )
    if not row:
        raise ApiError("link_invalid")
    selection = json.loads(row["selection"])
    try:
        session = Session(**selection.pop("session"))
        sessions.check(session)
    except (TypeError, BadToken):  # the former while machines are upgraded one by one
        raise ApiError("link_invalid") from None
    return session, selection


def delete_expired() -> None:
    db.execute("DELETE FROM archive_links WHERE expires_at <= UNIX_TIMESTAMP()")
