"""Codes that the owner of an account gets by mail or from the operator: a new password, an email.

Nothing here tells whether an address has an account: a request for mail reads no account at all.
"""

import db
import heavy
from accounts import codes, mails, passwords, rate_limits, users
from accounts.login import FACTOR_OF_ALL_NETWORKS, account_hash
from accounts.names import email_key
from accounts.rate_limits import RateLimit, network
from accounts.schemas import ResetInput
from config import settings
from errors import ApiError

WINDOW_SECONDS = 3600
RESETS = (codes.RESET, codes.HANDED)


class CodeInvalid(ApiError):
    """The code is wrong, used or expired: nobody learns which."""

    code = "code_invalid"


def request_code(kind: str, email: str, address: str, language: str) -> None:
    """Have a code mailed to whoever has this email: `reset`, or `confirm` for an unconfirmed one.

    Raises ApiError if this server sends no mail, and after too many requests.
    """
    if not settings.SMTP_URL:
        raise ApiError("mail_not_offered")
    mail_limit(email, address).hit()
    mails.add(kind, email_key(email), language)


def request_change(
    user_id: int, token_version: int, email: str, address: str, language: str
) -> None:
    """Have a code mailed to the address that the account is to have; confirm() then sets it.

    To be called with SMTP_URL alone. Whether another account has it, only its owner is told, by
    mail. Ending the account's sessions ends this request, too. Raises ApiError as request_code().
    """
    mail_limit(email, address).hit()
    mails.add("change", email, language, user_id, token_version)


def mail_limit(email: str, address: str) -> RateLimit:
    """Count mail for each address from each network first: nobody can shut others out."""
    here = network(address)
    account = f"mail:{account_hash(email_key(email))}"
    counters = {
        f"{account}:{here}": settings.CODES_PER_ACCOUNT,
        account: settings.CODES_PER_ACCOUNT * FACTOR_OF_ALL_NETWORKS,
        f"mail:{here}": settings.CODES_PER_ADDRESS,
    }
    return RateLimit(counters, WINDOW_SECONDS, "too_many_codes")


def try_limit(address: str) -> RateLimit:
    """Count codes that were tried from a network. A wrong one belongs to no account."""
    counters = {f"code:{network(address)}": settings.CODES_PER_ADDRESS}
    return RateLimit(counters, WINDOW_SECONDS, "too_many_codes")


def reset_password(wanted: ResetInput, address: str) -> None:
    """Set a new password by a code, and end every session. Raises ApiError."""
    limit = try_limit(address)
    limit.hit()
    found = codes.find(wanted.code, *RESETS)
    if not found:
        raise CodeInvalid
    password_hash = heavy.passwords.run(
        passwords.hash_password, wanted.password, owner=network(address)
    )
    with db.transaction():
        found = codes.use(found["user_id"], wanted.code, *RESETS)
        # One that was mailed to the address that the account had before is good no longer.
        if not found or found["email"] not in ("", found["present_email"]):
            raise CodeInvalid
        users.set_password(found["user_id"], password_hash)
        if found["email"]:
            users.set_email(found["user_id"], found["email"])
    limit.refund()
    # Whoever forgot a password has failed to log in before.
    rate_limits.clear_named(f"login:{account_hash(found['username'])}")


def confirm_email(code: str, address: str, language: str) -> None:
    """Make the email that a code was mailed to the confirmed one of its account. Raises ApiError.

    The address before is told.
    """
    limit = try_limit(address)
    limit.hit()
    found = codes.find(code, codes.EMAIL)
    if not found:
        raise CodeInvalid
    try:
        with db.transaction():
            set_email(code, found["user_id"], language)
    except db.Duplicate:  # somebody else has opened an account with it meanwhile
        raise CodeInvalid from None
    limit.refund()


def set_email(code: str, user_id: int, language: str) -> None:
    found = codes.use(user_id, code, codes.EMAIL)
    if not found:
        raise CodeInvalid
    email, before = found["email"], found["present_email"]
    users.set_email(user_id, email)
    if email_key(email) != email_key(before):
        mails.add("changed", before, language, user_id)
