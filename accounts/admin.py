"""SQL of `users` as operators see them: found, changed and deleted, with an entry in the audit log.

Admins call these functions through the API, and whoever has the shell through `flask user`. An
admin must stay one: nobody can close, demote or delete an own account here, so there is always
one left. The shell may do all of it.
"""

from functools import partial
from typing import Any

import db
from accounts import audit, codes, invites, limits, registration, second_factor, sessions, users
from accounts.audit import Actor, Target
from accounts.names import identity_key
from accounts.pages import Page, page_of
from accounts.schemas import AccountLimitsInput, InviteInput
from accounts.tokens import BadToken, Session
from errors import ApiError

ADMIN = "admin"
USER = "user"
ROLES = (USER, ADMIN)
ACTIVE = "active"
DISABLED = "disabled"
STATES = (ACTIVE, DISABLED)

COLUMNS = f"""
    id, username, email, role, is_disabled, created_at, image_count, storage_bytes,
    has_second_factor,
    {limits.COLUMNS}
"""
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
    caller = db.one(
        f"""
        SELECT u.username, u.role, u.has_second_factor
          FROM users AS u
         WHERE {sessions.condition(session)}
        """,
        **session._asdict(),
    )
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


@db.retried
def change_user(actor: Actor, user_id: int, changes: dict[str, Any]) -> db.Row:
    """Change `disabled`, `role` and `limits` of an account and return it.

    Closing it, or opening it again, ends its sessions. Limits are an AccountLimitsInput, or None.

    Raises OwnAccount, and ApiError if there is no such account or the actor is no admin any more.
    """
    with db.transaction():
        user = lock(actor, user_id)
        if user_id == actor.user_id and (changes.get("disabled") or changes.get("role") == USER):
            raise OwnAccount
        before = state_of(user)
        for name, value in changes.items():
            if name == "limits" or value != before[name]:
                CHANGES[name](user_id, value)
        changed = get_user(user_id)
        after = state_of(changed)
        for name in after:
            if after[name] != before[name]:
                shown = {name: before[name]}, {name: after[name]}
                audit.record(actor, f"user.{name}", target(user), *shown)
        return changed


def state_of(user: db.Row) -> dict[str, Any]:
    """Return what can be changed of an account."""
    own = {**limits.of_row(user)._asdict(), "until": user["limits_until"]}
    return {
        "disabled": bool(user["is_disabled"]),
        "role": user["role"],
        "limits": own if user["limits_source"] else None,
    }


def set_role(user_id: int, role: str) -> None:
    db.execute("UPDATE users SET role = %s WHERE id = %s", role, user_id)


def set_limits(user_id: int, wanted: AccountLimitsInput | None) -> None:
    own = wanted.limits if wanted else limits.NO_LIMITS
    limits.set_limits(user_id, own, wanted and wanted.expires_at, limits.ADMIN)


CHANGES = {"disabled": users.set_disabled, "role": set_role, "limits": set_limits}


@db.retried
def set_password(actor: Actor, user_id: int, password_hash: str) -> None:
    """Set a new password and end every session of the account."""
    with db.transaction():
        user = lock(actor, user_id)
        users.set_password(user_id, password_hash)
        audit.record(actor, "user.password", target(user))


@db.retried
def make_reset_code(actor: Actor, user_id: int) -> str:
    """Return a code for a new password, to hand on. Raises ApiError for a disabled account."""
    with db.transaction():
        user = lock(actor, user_id)
        code = codes.make_within(user_id, codes.HANDED)
        if not code:
            raise ApiError("account_disabled")
        audit.record(actor, "user.reset-code", target(user))
    return code


@db.retried
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
    admins = users.lock_admins()
    if actor.user_id and actor.user_id not in admins:
        raise ApiError("forbidden")
    sql = f"SELECT {COLUMNS} FROM users WHERE id = %s AND deleted_at = 0 FOR UPDATE"
    user = db.one(sql, user_id)
    if not user:
        raise ApiError("not_found")
    return user


def target(user: db.Row) -> Target:
    return Target("user", user["id"], user["username"])


# -- Invites ------------------------------------------------------------------------------------


@db.retried
def create_invite(actor: Actor, wanted: InviteInput) -> tuple[int, str]:
    """Add an invite; return its id and its code, which is shown this once."""
    with db.transaction():
        invite_id, code = invites.create(wanted)
        gives = {**wanted.limits._asdict(), "uses": wanted.uses, "until": wanted.expires_at}
        invite = Target("invite", invite_id, wanted.note[:100])
        audit.record(actor, "invite.create", invite, None, gives)
    return invite_id, code


def list_invites(filters: db.Row, limit: int) -> Page:
    return page_of(invites.list_invites(limit, filters.get("cursor")), limit)


def get_invite(invite_id: int) -> db.Row:
    """Return an invite. Raises ApiError if there is none."""
    invite = invites.get_invite(invite_id)
    if not invite:
        raise ApiError("not_found")
    return invite


@db.retried
def revoke_invite(actor: Actor, invite_id: int) -> bool:
    """Let nobody use an invite any more; says if that is new. Raises ApiError for none."""
    invite = get_invite(invite_id)
    with db.transaction():
        is_new = invites.revoke(invite_id)
        if is_new:
            audit.record(actor, "invite.revoke", Target("invite", invite_id, invite["note"][:100]))
    return is_new
