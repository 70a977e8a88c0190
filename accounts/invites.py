"""SQL of `invites` and `invite_uses`: codes that open an account, or give it limits of its own.

A code is random, and kept only as its hash. How often it is used, one guarded UPDATE decides, in
the transaction that opens the account or sets its limits: if that fails, nothing was used.
"""

import hashlib
import re
import unicodedata

import db
from accounts import limits, sessions
from accounts.codes import random_code
from accounts.limits import Limits
from accounts.rate_limits import RateLimit, network
from accounts.schemas import InviteInput
from accounts.tokens import Session
from config import settings
from errors import ApiError

# Of Crockford's base 32, which has no letter that looks like another or like a digit: 100 bits.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LOOKALIKES = str.maketrans("OIL", "011")
GROUPS, GROUP_LENGTH = 4, 5

IS_OVER = """
    CASE WHEN revoked_at IS NOT NULL OR expires_at <= UNIX_TIMESTAMP() THEN 1 ELSE 0 END
"""
COLUMNS = f"""
    id, note, uses, max_uses, created_at, expires_at, revoked_at, daily_images, active_jobs, models,
    limit_days, {IS_OVER} AS is_over
"""


class UnknownCode(ApiError):
    code = "code_unknown"


class UsedCode(ApiError):
    """The code is used up, or the account has used it before."""

    code = "code_used"


class ExpiredCode(ApiError):
    """The code's time is over, or it was revoked."""

    code = "code_expired"


def hash_of(code: str) -> str:
    """Return the hash of a code as somebody typed it: in any case and width, with any blanks."""
    letters = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", code)).upper()
    return hashlib.sha256(letters.translate(LOOKALIKES).encode()).hexdigest()


# -- The operator's hand ------------------------------------------------------------------------


def create(wanted: InviteInput) -> tuple[int, str]:
    """Add an invite; return its id and its code, which is shown this once."""
    code = random_code(ALPHABET, GROUPS, GROUP_LENGTH)
    invite_id = db.execute(
        """
        INSERT INTO invites
               (code_hash, note, max_uses, created_at, expires_at, daily_images, active_jobs,
                models, limit_days)
        VALUES (%s, %s, %s, UNIX_TIMESTAMP(), %s, %s, %s, %s, %s)
        """,
        hash_of(code),
        wanted.note,
        wanted.uses,
        wanted.expires_at,
        wanted.daily_images,
        wanted.active_jobs,
        limits.join_models(wanted.models),
        wanted.limit_days,
    ).new_id
    return invite_id, code


def list_invites(most: int, before_id: int | None = None) -> list[db.Row]:
    """Return so many invites, the newest first; those before an id if there is one."""
    return db.all(
        f"""
          SELECT {COLUMNS}
            FROM invites
           WHERE id < COALESCE(%s, id + 1)
        ORDER BY id DESC
           LIMIT %s
        """,
        before_id,
        most,
    )


def get_invite(invite_id: int) -> db.Row | None:
    return db.one(f"SELECT {COLUMNS} FROM invites WHERE id = %s", invite_id)


def state_of(invite: db.Row) -> str:
    if invite["revoked_at"]:
        return "revoked"
    if invite["is_over"]:
        return "expired"
    return "used" if invite["uses"] >= invite["max_uses"] else "open"


def revoke(invite_id: int) -> bool:
    """Let nobody use an invite any more; what it gave stays. Says if it was there, not revoked."""
    changed = db.execute(
        "UPDATE invites SET revoked_at = UNIX_TIMESTAMP() WHERE id = %s AND revoked_at IS NULL",
        invite_id,
    )
    return changed.count > 0


# -- Codes that people enter --------------------------------------------------------------------


def check(code: str, address: str) -> None:
    """Raise ApiError for a code that nobody can use now, or after too many of them.

    The try is counted before the look: guesses sent at the same moment are no more than others.
    """
    most = settings.INVITE_FAILURES_PER_ADDRESS
    limit = RateLimit({f"invite:{network(address)}": most}, 3600, "too_many_codes")
    limit.hit()
    invite = find(code)
    if invite["uses"] >= invite["max_uses"]:
        raise UsedCode
    limit.refund()


def find(code: str) -> db.Row:
    """Return the invite of a code. Raises UnknownCode and ExpiredCode."""
    invite = db.one(f"SELECT {COLUMNS} FROM invites WHERE code_hash = %s", hash_of(code))
    if not invite:
        raise UnknownCode
    if invite["is_over"]:
        raise ExpiredCode
    return invite


def use(code: str, user_id: int) -> None:
    """Use a code for an account, which gets its limits, within the caller's transaction.

    The account's row is locked already. Raises ApiError, which must end the transaction.
    """
    used = db.execute(
        f"""
        UPDATE invites
           SET uses = uses + 1
         WHERE code_hash = %s AND uses < max_uses AND {IS_OVER} = 0
        """,
        hash_of(code),
    )
    invite = find(code)
    if not used.count:
        raise UsedCode
    try:
        db.execute(
            """
            INSERT INTO invite_uses (invite_id, user_id, used_at)
            VALUES (%s, %s, UNIX_TIMESTAMP())
            """,
            invite["id"],
            user_id,
        )
    except db.Duplicate:
        raise UsedCode from None
    given = limits_of(invite)
    if given != limits.NO_LIMITS:
        limits.set_limits(user_id, given, limits.days_from_now(invite["limit_days"]), limits.INVITE)


def limits_of(invite: db.Row) -> Limits:
    models = limits.split_models(invite["models"])
    return Limits(invite["daily_images"], invite["active_jobs"], models)


def redeem(session: Session, code: str, address: str) -> db.Row:
    """Give an account the limits of an invite, in place of those it has; return what counts now.

    Raises ApiError: the code cannot be used, or the operator has set the account's limits.
    """
    check(code, address)
    return _redeem(session, code)


@db.retried
def _redeem(session: Session, code: str) -> db.Row:
    with db.transaction():
        account = limits.lock(session.user_id)
        sessions.check(session)
        if account["limits_source"] == limits.ADMIN:
            raise ApiError("limits_fixed")
        use(code, session.user_id)
        return limits.get(session.user_id)
