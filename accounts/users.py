"""SQL of `users`: who has an account. Its columns of quota belong to `images/quota.py`.

Deleting an account also deletes its rows in other tables.
"""

import json
import secrets
from contextlib import suppress
from itertools import product
from typing import Any, TypedDict

import db
from accounts import limits, sessions
from accounts.names import (
    email_key,
    exact_key,
    former_key,
    identity_key,
    legacy_key,
    possible_keys,
)
from accounts.tokens import Session
from files import cleanup

# A process of the release before deletes none of these with an account.
NEW_TABLES = (
    "sessions",
    "api_keys",
    "invite_uses",
    "shares",
    "archive_links",
    "image_tags",
    "trashed_generations",
    "trashed_files",
    "recovery_codes",
    "identities",
    "codes",
    "mails",
    "waiting",
    "uploads",
    "upload_uses",
)
TABLES_OF_USERS = (
    "image_generations",
    "idempotency_keys",
    "deleted_generations",
    *NEW_TABLES,
)


FOLDERS_OF_USERS = ("generated_images/{}/", "inputs/{}/")


class Account(TypedDict):
    """A row of users, as get_user() gives it; get_user_for_login() adds `password_hash`."""

    id: int
    username: str
    email: str
    avatar_url: str | None
    created_at: str
    is_disabled: int
    token_version: int
    has_second_factor: int
    email_confirmed: int


COLUMNS = ", ".join(Account.__annotations__)


def create_user(
    username: str,
    username_key: str,
    email: str,
    email_key: str,
    password_hash: str,
    avatar_url: str | None = None,
    email_confirmed: bool = True,
) -> int:
    """Add an account and return its id. Raises Duplicate if the name or the email is taken."""
    return db.insert(
        "users",
        username=username,
        username_key=username_key,
        email=email,
        email_key=email_key,
        password_hash=password_hash,
        avatar_url=avatar_url,
        email_confirmed=int(email_confirmed),
    )


def get_user(user_id: int) -> Account | None:
    return db.one(f"SELECT {COLUMNS} FROM users WHERE id = %s AND deleted_at = 0", user_id)


def get_user_by_email(key: str) -> Account | None:
    return db.one(f"SELECT {COLUMNS} FROM users WHERE email_key = %s", key)


def get_user_with_hash(user_id: int) -> dict[str, Any] | None:
    """Do the same, with the password hash."""
    sql = f"SELECT {COLUMNS}, password_hash FROM users WHERE id = %s AND deleted_at = 0"
    return db.one(sql, user_id)


# What the profile shows, by name. SQLite may hold bytes in columns of text, which JSON cannot.
SHOWN = {
    **{
        name: f"CAST(u.{name} AS CHAR)"
        for name in ("username", "email", "avatar_url", "created_at")
    },
    **{name: f"u.{name}" for name in ("role", "image_count", "storage_bytes", *limits.NAMES)},
}
# All in one column of the answer: each would cost 6 us, and the evaluation of in_force() 12.
PROFILE = f"""
    SELECT JSON_ARRAY({", ".join(SHOWN.values())}) AS packed
      FROM users AS u
     WHERE """


def get_profile(session: Session) -> db.Row | None:
    """Return what users see of their account, if the session stands."""
    row = db.one(PROFILE + sessions.condition(session), **session._asdict())
    if not row:
        return None
    profile = dict(zip(SHOWN, json.loads(row["packed"])))
    return limits.without_ended(profile)


def lock_profile(session: Session) -> db.Row | None:
    """Return {username, email, avatar_url} if the session stands, and lock the account.

    Within a transaction.
    """
    return db.one(
        f"""
        SELECT u.username, u.email, u.avatar_url
          FROM users AS u
         WHERE {sessions.condition(session)}
           FOR UPDATE
        """,
        **session._asdict(),
    )


def get_user_for_login(username: str) -> dict[str, Any] | None:
    """Return the account of that name, with its password hash.

    An old account whose name differs from another's by no more than case or Unicode form is found
    by its exact name.
    """
    keys = [former_key(username), identity_key(username)]
    rows = db.all(
        f"""
        SELECT {COLUMNS}, password_hash, username_key
          FROM users
         WHERE username_key IN (%s, %s, %s, %s)
        """,
        *keys,
        legacy_key(username),
        exact_key(username),
    )
    by_key = {row.pop("username_key"): row for row in rows}
    by_name = {row["username"]: row for row in rows}
    return by_name.get(username) or by_key.get(keys[0]) or by_key.get(keys[1])


def list_taken(username_key: str, email_key: str) -> list[str]:
    """Return which of "username" and "email" another account holds."""
    rows = db.all(
        "SELECT username_key, email_key FROM users WHERE username_key = %s OR email_key = %s",
        username_key,
        email_key,
    )
    taken = []
    if any(row["username_key"] == username_key for row in rows):
        taken.append("username")
    if any(row["email_key"] == email_key for row in rows):
        taken.append("email")
    return taken


def get_id_of_email(key: str) -> int | None:
    row = db.one("SELECT id FROM users WHERE email_key = %s", key)
    return row["id"] if row else None


def list_avatars() -> list[str]:
    """List the URLs of all avatars."""
    rows = db.all("SELECT avatar_url FROM users WHERE avatar_url IS NOT NULL")
    return [str(row["avatar_url"]) for row in rows]


def set_password_hash(user_id: int, password_hash: str, old_hash: str) -> bool:
    """Replace the hash unless another request has replaced it meanwhile; sessions go on."""
    sql = "UPDATE users SET password_hash = %s WHERE id = %s AND password_hash = %s"
    return db.execute(sql, password_hash, user_id, old_hash).count > 0


SET_HASH = "UPDATE users SET password_hash = %s WHERE id = %s"


def set_avatar(user_id: int, avatar_url: str | None) -> None:
    db.execute("UPDATE users SET avatar_url = %s WHERE id = %s", avatar_url, user_id)


def set_password(user_id: int, password_hash: str) -> None:
    """Set a new password and end every session, inside the caller's transaction."""
    db.execute(SET_HASH, password_hash, user_id)
    sessions.end_all(user_id)


@db.retried
def change_own_password(session: Session, password_hash: str) -> None:
    """Set a new password and end every other session. Raises BadToken if this one has ended."""
    with db.transaction():
        db.execute(SET_HASH, password_hash, session.user_id)
        sessions.check(session)
        sessions.end_all(session.user_id, but=session.session_id)


def set_email(user_id: int, email: str) -> None:
    """Give the account an email that is confirmed. Raises Duplicate if another has it."""
    db.execute(
        "UPDATE users SET email = %s, email_key = %s, email_confirmed = 1 WHERE id = %s",
        email,
        email_key(email),
        user_id,
    )


def set_disabled(user_id: int, is_disabled: bool) -> None:
    """Disable or enable an account, whose sessions end, inside the caller's transaction."""
    db.execute("UPDATE users SET is_disabled = %s WHERE id = %s", int(is_disabled), user_id)
    sessions.end_all(user_id)


# -- Deletion: the account ends at once, and its rows go in portions ------------------------------

# On SQLite nobody writes meanwhile; so many take 0.03 s there, and 0.1 s on MariaDB.
PORTION = 1000


def lock_admins() -> list[int]:
    """Return the ids of the admins, and lock their accounts, before any other; in a transaction."""
    rows = db.all(
        "SELECT id FROM users WHERE role = 'admin' AND is_disabled = 0 ORDER BY id FOR UPDATE"
    )
    return [row["id"] for row in rows]


def lock_account(user_id: int) -> db.Row | None:
    """Return the same of an account that is not deleted, and lock it. Within a transaction."""
    sql = """
        SELECT username, email, avatar_url
          FROM users
         WHERE id = %s AND deleted_at = 0
           FOR UPDATE
    """
    return db.one(sql, user_id)


def mark_deleted(user_id: int) -> None:
    """End an account, and free its name and email; who it was is forgotten."""
    db.execute(
        """
        UPDATE users
           SET username = %(nobody)s, username_key = %(nobody)s,
               email = %(nobody)s, email_key = %(nobody)s,
               password_hash = '', avatar_url = NULL, role = 'user', is_disabled = 1,
               totp_secret = NULL, has_second_factor = 0,
               token_version = token_version + 1, deleted_at = UNIX_TIMESTAMP()
         WHERE id = %(id)s
        """,
        nobody=f"deleted {secrets.token_hex(16)}",  # longer than a name may be
        id=user_id,
    )


def list_deleted() -> list[int]:
    """List the deleted accounts of which there still are rows."""
    rows = db.all("SELECT id FROM users WHERE deleted_at > 0 ORDER BY deleted_at LIMIT 100")
    return [row["id"] for row in rows]


def is_deleted(user_id: int) -> bool:
    """Tell if an account is deleted, and there still are rows of it."""
    return db.one("SELECT id FROM users WHERE id = %s AND deleted_at > 0", user_id) is not None


def folders_of(user_id: int) -> list[str]:
    return [folder.format(user_id) for folder in FOLDERS_OF_USERS]


@db.retried
def delete_portion(user_id: int) -> bool:
    """Delete some rows of a deleted account, and tell if these were the last.

    With the last one, its own, the deletion of its folders is scheduled.
    """
    with db.transaction():
        sql = "SELECT id FROM users WHERE id = %s AND deleted_at > 0 FOR UPDATE"
        if not db.one(sql, user_id):
            return True
        for table in TABLES_OF_USERS:
            if db.delete_some(table, user_id, PORTION):
                return False
        cleanup.schedule_deletion(folders_of(user_id), after_seconds=0)
        db.execute("DELETE FROM users WHERE id = %s", user_id)
    return True


def delete_orphans() -> None:
    """Delete what is left of accounts that a process of the release before deleted."""
    for table in NEW_TABLES:
        # An account is seen before anything of it is: they come in one transaction, or later.
        sql = f"""
            SELECT DISTINCT t.user_id
              FROM {table} AS t
             WHERE t.user_id IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM users AS u WHERE u.id = t.user_id)
        """
        for row in db.all(sql):
            while db.delete_some(table, row["user_id"], PORTION):
                pass
            cleanup.schedule_deletion(folders_of(row["user_id"]), after_seconds=0)


# -- Keys of accounts that have none: those of a database made by hand --------------------------


def fill_keys() -> None:
    """Give the accounts of a database made by hand their keys; any number may do so at once."""
    sql = """
          SELECT id, username, email
            FROM users
           WHERE username_key IS NULL AND id > %s
        ORDER BY id
           LIMIT 500
    """
    last_id = -(2**31)
    while rows := db.all(sql, last_id):
        for row in rows:
            _fill_keys_of(row)
        last_id = rows[-1]["id"]


def _fill_keys_of(row: db.Row) -> None:
    name_keys = possible_keys(identity_key(row["username"]), row["username"], row["id"])
    email_keys = possible_keys(email_key(row["email"]), row["email"], row["id"])
    for keys in product(name_keys, email_keys):
        with suppress(db.Duplicate):
            db.execute(
                """
                UPDATE users
                   SET username_key = %s, email_key = %s
                 WHERE id = %s AND username_key IS NULL
                """,
                *keys,
                row["id"],
            )
            return
