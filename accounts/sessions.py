"""SQL of `sessions`: the log-ins of an account, each good as long as its row is there.

Ending all of them raises the account's `token_version` as well: that ends the tokens of the release
before, which name no session.
"""

import secrets
import time
from contextlib import suppress
from functools import lru_cache

import db
from accounts import api_keys, tokens
from accounts.tokens import BadToken, Session
from config import settings
from files.withheld import IS_WITHHELD

HOUR_SECONDS = 3600
DAY_SECONDS = 86400
# Rows go a day after their tokens: the clock of another machine may be wrong.
SPARE_SECONDS = DAY_SECONDS
MAX_LISTED = 100
MAX_ADDRESS = 64
MAX_CLIENT = 40
MAX_SEEN = 10_000

# The hour in which this process has noted a session as seen.
_seen: dict[str, int] = {}

# What stands in the header User-Agent of browsers; the first that is found counts.
BROWSERS = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "SamsungBrowser/": "Samsung Internet",
    "MicroMessenger/": "WeChat",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "CriOS/": "Chrome",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
}

OF_USER = "{users}.id = %(user_id)s AND {users}.is_disabled = 0"
BY_VERSION = OF_USER + " AND {users}.token_version = %(token_version)s"
BY_ROW = f"""
    {BY_VERSION} AND {{users}}.id =
        (SELECT s.user_id FROM sessions AS s WHERE s.id = %(session_id)s)
"""
BY_KEY = f"{OF_USER} AND {api_keys.STANDS}"


# -- Whether a session stands -------------------------------------------------------------------


@lru_cache(maxsize=32)
def _condition(kind: str, users: str) -> str:
    return kind.format(users=users)


def condition(session: Session, users: str = "u") -> str:
    """Return what is true of the row of `users` whose session this is, as long as it stands.

    It belongs into the WHERE of the statement that answers the request, so that nothing about
    rights is remembered; its values are those of `session._asdict()`.
    """
    if session.key_hash:
        return _condition(BY_KEY, users)
    return _condition(BY_ROW if session.session_id else BY_VERSION, users)


def check(session: Session) -> None:
    """Raise BadToken unless the session stands, by a statement of its own."""
    sql = f"SELECT u.id FROM users AS u WHERE {condition(session)}"
    if not db.one(sql, **session._asdict()):
        raise BadToken


def lock(session: Session) -> None:
    """Do the same within a transaction, and lock the account until its end."""
    sql = f"SELECT u.id FROM users AS u WHERE {condition(session)} FOR UPDATE"
    if not db.one(sql, **session._asdict()):
        raise BadToken


def check_for_file(session: Session, file_key: str) -> bool:
    """Do as check(), and tell if the file is withheld from everybody."""
    sql = f"SELECT {IS_WITHHELD} AS is_withheld FROM users AS u WHERE {condition(session)}"
    row = db.one(sql, file_key=file_key, **session._asdict())
    if not row:
        raise BadToken
    return bool(row["is_withheld"])


def find_of_link(user_id: int, session_id: str, file_key: str) -> tuple[Session | None, bool]:
    """Return the session that made a signed link, or None if it has ended; and if the file is
    withheld from everybody.

    A link of the release before names no session.
    """
    row = db.one(
        f"""
        SELECT u.token_version,
               EXISTS (SELECT 1 FROM sessions AS s
                        WHERE s.id = %(session_id)s AND s.user_id = u.id) AS is_session,
               EXISTS ({api_keys.OF_LINK}) AS is_key,
               {IS_WITHHELD} AS is_withheld
          FROM users AS u
         WHERE u.id = %(user_id)s AND u.is_disabled = 0
        """,
        user_id=user_id,
        session_id=session_id,
        file_key=file_key,
    )
    session = None
    if row and row["is_key"]:
        session = Session(user_id, 0, session_id)
    elif row and (row["is_session"] or not session_id):
        session = Session(user_id, row["token_version"], session_id)
    return session, bool(row and row["is_withheld"])


# -- Sessions begin, go on and end --------------------------------------------------------------


def open_session(account: db.Row, address: str, user_agent: str) -> str:
    """Begin a session of the account (`id`, `token_version`) and return its token.

    Raises BadToken if its sessions were ended, or it was closed or deleted, since it was read.
    """
    now = int(time.time())
    session = Session(account["id"], account["token_version"], secrets.token_hex(8))
    expires_at = now + _token_seconds()
    opened = db.execute(
        f"""
        INSERT INTO sessions (id, user_id, created_at, seen_at, expires_at, address, client)
        SELECT %(session_id)s, u.id, %(now)s, %(now)s, %(expires_at)s, %(address)s, %(client)s
          FROM users AS u
         WHERE {_condition(BY_VERSION, "u")}
           FOR UPDATE
        """,
        **session._asdict(),
        now=now,
        expires_at=expires_at,
        address=address[:MAX_ADDRESS],
        client=browser_of(user_agent),
    )
    if not opened.count:
        raise BadToken
    return tokens.make_token(session, expires_at)


def _token_seconds() -> int:
    return max(1, int(settings.TOKEN_HOURS * HOUR_SECONDS))


def refresh(session: Session, address: str, user_agent: str) -> str:
    """Return a fresh token of a session, no longer good than SESSION_DAYS after its log-in.

    A token of the release before gets a session. Raises BadToken.
    """
    if not session.session_id:
        account = {"id": session.user_id, "token_version": session.token_version}
        return open_session(account, address, user_agent)
    sql = f"""
        SELECT s.created_at
          FROM users AS u
          JOIN sessions AS s ON s.id = %(session_id)s
         WHERE {condition(session)}
    """
    row = db.one(sql, **session._asdict())
    if not row:
        raise BadToken
    now = int(time.time())
    end = row["created_at"] + settings.SESSION_DAYS * DAY_SECONDS
    expires_at = min(now + _token_seconds(), end)
    if expires_at <= now:
        raise BadToken("token_expired")
    sql = "UPDATE sessions SET expires_at = %s WHERE id = %s AND expires_at < %s"
    db.execute(sql, expires_at, session.session_id, expires_at)
    return tokens.make_token(session, expires_at)


def renew(session: Session, address: str, user_agent: str) -> str:
    """Return a token of the session that end_all() left, which raised the version by one.

    Raises BadToken if it has been ended since.
    """
    left = session._replace(token_version=session.token_version + 1)
    return db.retry_while_unavailable(refresh, left, address, user_agent)


def note_seen(session: Session, address: str) -> None:
    """Note, at most once an hour in each process, that a session or key is in use."""
    session_id = session.session_id
    hour = int(time.time()) // HOUR_SECONDS * HOUR_SECONDS
    if not session_id or _seen.get(session_id) == hour:
        return
    with suppress(db.Unavailable):
        if session.key_hash:
            api_keys.note_used(session_id, hour)
        else:
            _write_seen(session_id, hour, address[:MAX_ADDRESS])
        if len(_seen) >= MAX_SEEN:
            _seen.clear()
        _seen[session_id] = hour


def _write_seen(session_id: str, hour: int, address: str) -> None:
    sql = "UPDATE sessions SET seen_at = %s, address = %s WHERE id = %s AND seen_at <= %s"
    db.execute(sql, hour, address, session_id, hour)


def end(session: Session) -> None:
    """End this session; a token of the release before can only end with all others."""
    if session.session_id:
        end_one(session.user_id, session.session_id)
        return
    end_everywhere(session.user_id)


@db.retried
def end_everywhere(user_id: int) -> None:
    with db.transaction():
        end_all(user_id)


def end_one(user_id: int, session_id: str) -> bool:
    """End a session of the user; False if there is none."""
    sql = "DELETE FROM sessions WHERE id = %s AND user_id = %s"
    return db.execute(sql, session_id, user_id).count > 0


def end_all(user_id: int, but: str = "") -> None:
    """End every session of the account, inside the caller's transaction.

    Of the one that is left, the tokens end as well: it needs a fresh one with the new version.
    """
    db.execute("UPDATE users SET token_version = token_version + 1 WHERE id = %s", user_id)
    db.execute("DELETE FROM sessions WHERE user_id = %s AND id <> %s", user_id, but)


def list_open(user_id: int) -> list[db.Row]:
    """Return the sessions of the account, the one that was seen last first."""
    return db.all(
        """
          SELECT id, created_at, seen_at, address, client
            FROM sessions
           WHERE user_id = %s AND expires_at > %s
        ORDER BY seen_at DESC, id
           LIMIT %s
        """,
        user_id,
        int(time.time()),
        MAX_LISTED,
    )


def delete_expired() -> None:
    before = int(time.time()) - SPARE_SECONDS
    db.execute("DELETE FROM sessions WHERE expires_at < %s", before)


def browser_of(user_agent: str) -> str:
    """Return the family of a browser, or the name of another program."""
    for mark, family in BROWSERS.items():
        if mark in user_agent:
            return family
    name, _, _ = user_agent.partition("/")
    return "".join(c for c in name if c.isascii() and c.isprintable()).strip()[:MAX_CLIENT]
