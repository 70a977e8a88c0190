"""SQL of the second factor: its columns in `users`, and the table `recovery_codes`.

The codes are those of RFC 6238 (TOTP), which authenticator apps show, and ten recovery codes for
whoever has lost theirs. No code counts twice, on whichever machine it is used first.
"""

import base64
import hashlib
import logging
import re
import secrets
import unicodedata
from contextlib import suppress

import pyotp
from pyotp.exceptions import OTPVerificationError

import db
from accounts import sealing, sessions
from accounts.rate_limits import RateLimit, network_hash
from accounts.tokens import Session
from accounts.users import Account
from config import settings
from errors import ApiError

# What an authenticator app shows above the code.
SERVICE_NAME = "Image Generator"
PURPOSE = "second factor"
RECOVERY_CODES = 10
RECOVERY_CODE_BYTES = 10  # 80 bits, which is why a plain hash of one is enough
# Codes of the steps before and after are taken as well: clocks differ.
STEPS_AROUND = 1
# Who tries codes knows the password already: an hour, and a narrow limit for all networks together.
WINDOW_SECONDS = 3600
FACTOR_OF_ALL_NETWORKS = 2

log = logging.getLogger("login")


class WrongCode(ApiError):
    code = "second_factor_wrong"


class WrongOwnCode(ApiError):
    """The same for somebody who is logged in: not 401, which says to log in again."""

    code = "wrong_code"

    def __init__(self):
        super().__init__(fields={"code": ("wrong_code", {})})


# -- Set up and take away -------------------------------------------------------------------------


def set_up(user_id: int, username: str) -> dict[str, str]:
    """Return a new secret, which counts once turn_on() has seen a code of it. Raises ApiError."""
    secret = pyotp.random_base32()
    started = db.execute(
        "UPDATE users SET totp_secret = %s WHERE id = %s AND has_second_factor = 0",
        sealing.seal(secret, PURPOSE),
        user_id,
    )
    if not started.count:
        raise ApiError("second_factor_on")
    uri = pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=SERVICE_NAME)
    return {"secret": secret, "uri": uri}


def turn_on(session: Session, code: str, address: str) -> list[str]:
    """Let log-in ask for codes, end every other session, and return the recovery codes.

    Raises ApiError unless this is a code of the secret that set_up() gave last.
    """
    row = _get_secret(session.user_id)
    if row["has_second_factor"]:
        raise ApiError("second_factor_on")
    if not row["totp_secret"]:
        raise ApiError("second_factor_off")
    limit = code_limit(session.user_id, address)
    limit.hit()
    step = matching_step(row["totp_secret"], normalize(code))
    if not step:
        raise WrongOwnCode
    codes = _turn_on(session, row["totp_secret"], step)
    limit.refund()
    return codes


@db.retried
def _turn_on(session: Session, secret: str, step: int) -> list[str]:
    with db.transaction():
        changed = db.execute(
            """
            UPDATE users
               SET has_second_factor = 1, totp_step = %s
             WHERE id = %s AND has_second_factor = 0 AND totp_secret = %s
            """,
            step,
            session.user_id,
            secret,
        )
        if not changed.count:  # another request was first
            raise ApiError("second_factor_on")
        sessions.check(session)
        sessions.end_all(session.user_id, but=session.session_id)
        return _replace_recovery_codes(session.user_id)


@db.retried
def renew_recovery_codes(session: Session) -> list[str]:
    """Return ten new recovery codes; those of before are void. Raises ApiError."""
    with db.transaction():
        # Locked first: of two requests at once, the codes of the later one count.
        sessions.lock(session)
        if not _get_secret(session.user_id)["has_second_factor"]:
            raise ApiError("second_factor_off")
        return _replace_recovery_codes(session.user_id)


def _replace_recovery_codes(user_id: int) -> list[str]:
    codes = [new_recovery_code() for _ in range(RECOVERY_CODES)]
    db.execute("DELETE FROM recovery_codes WHERE user_id = %s", user_id)
    for code in codes:
        db.insert("recovery_codes", user_id=user_id, code_hash=hash_of(normalize(code)))
    return codes


@db.retried
def turn_off(session: Session) -> None:
    """Take one's second factor away and end every other session. Raises ApiError."""
    with db.transaction():
        clear(session.user_id)
        sessions.check(session)
        sessions.end_all(session.user_id, but=session.session_id)


def clear(user_id: int) -> bool:
    """Take it away, inside the caller's transaction; False if there is none."""
    changed = db.execute(
        """
        UPDATE users
           SET has_second_factor = 0, totp_secret = NULL, totp_step = 0
         WHERE id = %s AND has_second_factor = 1
        """,
        user_id,
    )
    db.execute("DELETE FROM recovery_codes WHERE user_id = %s", user_id)
    return changed.count > 0


def _get_secret(user_id: int) -> db.Row:
    row = db.one("SELECT totp_secret, has_second_factor FROM users WHERE id = %s", user_id)
    return row or {"totp_secret": None, "has_second_factor": 0}


def get_state(user_id: int) -> db.Row:
    return db.one(
        """
        SELECT has_second_factor,
               (SELECT COUNT(*) FROM recovery_codes WHERE user_id = users.id) AS codes_left
          FROM users
         WHERE id = %s
        """,
        user_id,
    )


# -- Check ----------------------------------------------------------------------------------------


def check(account: Account, code: str | None, address: str) -> None:
    """Use up the code that goes with a right password. Raises ApiError.

    As only whoever knows the password gets here, nobody else can use the attempts up.
    """
    if not account["has_second_factor"]:
        return
    if not code:
        raise ApiError("second_factor_required")
    limit = code_limit(account["id"], address)
    limit.hit()
    if not use(account["id"], normalize(code)):
        log.warning("wrong second factor", extra={"details": {"user_id": account["id"]}})
        raise WrongCode
    with suppress(db.Unavailable):  # the code is right all the same
        limit.refund()


def confirm_code(user_id: int, code: str, address: str) -> None:
    """Use up a code of somebody who is logged in, and whose session may be stolen.

    Counts like a log-in. Raises ApiError naming the field if it is wrong.
    """
    account = _get_secret(user_id)
    if not account["has_second_factor"]:
        raise ApiError("second_factor_off")
    try:
        check({"id": user_id, **account}, code, address)
    except WrongCode:
        raise WrongOwnCode from None


def refuse_admin_without(account: Account | db.Row) -> None:
    """Raise ApiError for an admin who has no second factor, though REQUIRE_2FA asks for one."""
    if settings.REQUIRE_2FA == "admins" and not account["has_second_factor"]:
        raise ApiError("second_factor_not_set_up")


def code_limit(user_id: int, address: str) -> RateLimit:
    everywhere = f"2fa:{user_id}:"
    here = everywhere + network_hash(address)
    most = settings.LOGIN_FAILURES_PER_ACCOUNT
    return RateLimit(
        {here: most, everywhere: most * FACTOR_OF_ALL_NETWORKS},
        WINDOW_SECONDS,
        "too_many_attempts",
        here=here,
        everywhere=everywhere,
    )


def use(user_id: int, code: str) -> bool:
    """Use a code up and say whether it was a good one: of two requests with it, one gets True."""
    if not re.fullmatch("[0-9]{6}", code):
        used = db.execute(
            "DELETE FROM recovery_codes WHERE user_id = %s AND code_hash = %s",
            user_id,
            hash_of(code),
        )
        return used.count > 0
    row = _get_secret(user_id)
    step = matching_step(row["totp_secret"], code) if row["has_second_factor"] else None
    if not step:
        return False
    used = db.execute(
        """
        UPDATE users
           SET totp_step = %s
         WHERE id = %s AND has_second_factor = 1 AND totp_secret = %s AND totp_step < %s
        """,
        step,
        user_id,
        row["totp_secret"],
        step,
    )
    return used.count > 0


def matching_step(sealed: str, code: str) -> int | None:
    """Return the number of the time step that has this code, if it is now or next to now."""
    secret = sealing.unseal(sealed, PURPOSE)
    if not secret:
        log.error("a second factor was sealed with a SECRET_KEY that is gone")
        return None
    with suppress(OTPVerificationError):
        return pyotp.TOTP(secret).verify_and_get_timecode(code, valid_window=STEPS_AROUND)
    return None


# -- Codes ----------------------------------------------------------------------------------------


def new_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def normalize(code: str) -> str:
    """Return a code without the blanks and dashes that people read it with."""
    return re.sub(r"[\s-]", "", unicodedata.normalize("NFKC", code)).lower()


def hash_of(code: str) -> str:
    return hashlib.sha256(f"recovery code\n{code}".encode()).hexdigest()


# -- A new SECRET_KEY -----------------------------------------------------------------------------


def seal_again() -> int:
    """Seal every secret with today's SECRET_KEY and return how many; the previous one may go."""
    count = 0
    for row in db.all("SELECT id, totp_secret FROM users WHERE totp_secret IS NOT NULL"):
        secret = sealing.unseal(row["totp_secret"], PURPOSE)
        if secret:
            changed = db.execute(
                "UPDATE users SET totp_secret = %s WHERE id = %s AND totp_secret = %s",
                sealing.seal(secret, PURPOSE),
                row["id"],
                row["totp_secret"],
            )
            count += changed.count
    return count
