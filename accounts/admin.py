"""SQL of `users` as operators see them: found, changed and deleted, with an entry in the audit log.

Admins call these functions through the API, and whoever has the shell through `flask user`. An
admin must stay one: nobody can close, demote or delete an own account here, so there is always
one left. The shell may do all of it.
"""

from functools import partial
from typing import Any

import db
from accounts import audit, registration, second_factor, sessions, users
from accounts.audit import Actor, Target
from accounts.names import identity_key
from accounts.pages import Page, page_of
from accounts.tokens import BadToken, Session
from errors import ApiError

ADMIN = "admin"
USER = "user"
ROLES = (USER, ADMIN)
ACTIVE = "active"
DISABLED = "disabled"
STATES = (ACTIVE, DISABLED)

COLUMNS = "id, username, email, role, is_disabled, has_second_factor, created_at, image_count"
FILTERS = {
    "cursor": "id < %(cursor)s",
    "q": "(INSTR(username_key, %(q)s) > 0 OR INSTR(email_key, %(q)s) > 0)",
    "role": "role = %(role)s",
    "status": "is_disabled = %(is_disabled)s",
}
# A search reads the whole table.
MAX_SECONDS = 5


class OwnAccount(ApiError):
    """An admin tried to lose the own account or the rights of an admin."""

    code = "own_account"


def get_caller(session: Session) -> Actor:
    """Return who is calling, an admin at this moment. Raises BadToken, ApiError for others."""
    columns = "u.username, u.role, u.has_second_factor"
    sql = f"SELECT {columns} FROM users AS u WHERE {sessions.condition(session)}"
    caller = db.one(sql, **session._asdict())
    if not caller:
        raise BadToken
    if caller["role"] != ADMIN:
        raise ApiError("forbidden")
    second_factor.refuse_admin_without(caller)
    return Actor(session.user_id, caller["username"], "")


def list_users(filters: db.Row, limit: int) -> Page:
    """List the accounts that match the filters of FILTERS, the newest first."""
    values = dict(filters)
    if "q" in filters:
        values["q"] = identity_key(filters["q"])
    if "status" in filters:
        values["is_disabled"] = int(filters["status"] == DISABLED)
    conditions = " AND ".join(["deleted_at = 0", *(FILTERS[name] for name in filters)])
    sql = f"SELECT {COLUMNS} FROM users WHERE {conditions} ORDER BY id DESC LIMIT %(limit)s"
    return page_of(db.all_within(MAX_SECONDS, sql, **values, limit=limit), limit)


def get_user(user_id: int) -> db.Row:
    """Return one account. Raises ApiError if there is none."""
    user = db.one(f"SELECT {COLUMNS} FROM users WHERE id = %s AND deleted_at = 0", user_id)
    if not user:
        raise ApiError("not_found")
    return user


def change_user(actor: Actor, user_id: int, changes: dict[str, Any]) -> db.Row:
    """Change `disabled` or `role` of an account and return it; closing it ends its sessions.

    Raises OwnAccount, and ApiError if there is no such account or the actor is no admin any more.
    """
    with db.transaction():
        user = lock(actor, user_id)
        if user_id == actor.user_id and (changes.get("disabled") or changes.get("role") == USER):
            raise OwnAccount
        before = {"disabled": bool(user["is_disabled"]), "role": user["role"]}
        new = {name: value for name, value in changes.items() if value != before[name]}
        if "disabled" in new:
            sql = "UPDATE users SET is_disabled = %s WHERE id = %s"
            db.execute(sql, int(new["disabled"]), user_id)
            sessions.end_all(user_id)
        if "role" in new:
            db.execute("UPDATE users SET role = %s WHERE id = %s", new["role"], user_id)
        for name, value in new.items():
            shown = {name: before[name]}, {name: value}
            audit.record(actor, f"user.{name}", target(user), *shown)
        return get_user(user_id)


def set_password(actor: Actor, user_id: int, password_hash: str) -> None:
    """Set a new password and end every session of the account."""
    with db.transaction():
        user = lock(actor, user_id)
        db.execute(users.SET_HASH, password_hash, user_id)
        sessions.end_all(user_id)
        audit.record(actor, "user.password", target(user))


def reset_second_factor(actor: Actor, user_id: int) -> None:
    """Take away the second factor of somebody who has lost it; every session of theirs ends.

    Raises OwnAccount, whose owner needs password and code for that, and ApiError.
    """
    with db.transaction():
        user = lock(actor, user_id)
        if user_id == actor.user_id:
            raise OwnAccount
        if not second_factor.clear(user_id):
            raise ApiError("second_factor_off")
        sessions.end_all(user_id)
        shown = {"secondFactor": True}, {"secondFactor": False}
        audit.record(actor, "user.secondFactor", target(user), *shown)


def delete_user(actor: Actor, user_id: int, seconds: float = registration.DELETE_SECONDS) -> None:
    """Delete an account for good. Raises as change_user() does."""
    user = users.get_user(user_id)
    if not user:
        raise ApiError("not_found")
    note = partial(note_deletion, actor, user_id)
    registration.delete_account(user, seconds=seconds, first=note)


def note_deletion(actor: Actor, user_id: int) -> None:
    user = lock(actor, user_id)
    if user_id == actor.user_id:
        raise OwnAccount
    audit.record(actor, "user.delete", target(user))


def lock(actor: Actor, user_id: int) -> db.Row:
    """Lock the admins, and then an account, until the end of the transaction; return the account.

    Of two admins who take each other's rights at the same moment, the second is none any more.
    Raises ApiError then, and if there is no such account.
    """
    admins = db.all(
        "SELECT id FROM users WHERE role = %s AND is_disabled = 0 ORDER BY id FOR UPDATE", ADMIN
    )
    if actor.user_id and actor.user_id not in [row["id"] for row in admins]:
        raise ApiError("forbidden")
    sql = f"SELECT {COLUMNS} FROM users WHERE id = %s AND deleted_at = 0 FOR UPDATE"
    user = db.one(sql, user_id)
    if not user:
        raise ApiError("not_found")
    return user


def target(user: db.Row) -> Target:
    return Target("user", user["id"], user["username"])
