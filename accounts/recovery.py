"""Codes that the owner of an account gets by mail or from the operator: a new password, an email.

Nothing here tells whether an address has an account: a request for mail reads no account at all.
"""

import db
import heavy
from accounts import codes, mails, passwords, rate_limits, users
from accounts.login import (
    FACTOR_OF_ALL_NETWORKS,
    account_counter,
    account_hash,
    has_logged_in_from,
)
from accounts.mails import Mail
from accounts.names import email_key
from accounts.rate_limits import RateLimit, network, network_hash
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
    mails.add(kind, email_key(email), language, asked_from=network_hash(address))


def request_change(
    user_id: int, token_version: int, email: str, address: str, language: str
) -> None:
    """Have a code mailed to the address that the account is to have; confirm() then sets it.

    To be called with SMTP_URL alone. Whether another account has it, only its owner is told, by
    mail. Ending the account's sessions ends this request, too. Raises ApiError as request_code().
    """
    mail_limit(email, address).hit()
    mails.add("change", email, language, user_id, token_version, network_hash(address))


def mail_limit(email: str, address: str) -> RateLimit:
    """Count mail that one network asks for: nobody can shut others out."""
    here = network(address)
    counters = {
        f"{mail_counter(email)}:{here}": settings.CODES_PER_ACCOUNT,
        f"mail:{here}": settings.CODES_PER_ADDRESS,
    }
    return RateLimit(counters, WINDOW_SECONDS, "too_many_codes")


def mail_counter(email: str) -> str:
    return f"mail:{account_hash(email_key(email))}"


def may_send(mail: Mail) -> bool:
    """Tell if an address may get one more of the mails that all networks together ask for.

    Those that its account logged in from lately always may: strangers can neither fill a mailbox
    without end, nor keep its owner from a code.
    """
    if not mail["network_hash"]:
        return True
    user = users.get_user(mail["user_id"]) if mail["user_id"] else None
    user = user or users.get_user_by_email(mail["email"])
    if user and has_logged_in_from(user["username"], mail["network_hash"]):
        return True
    most = settings.CODES_PER_ACCOUNT * FACTOR_OF_ALL_NETWORKS
    try:
        RateLimit({mail_counter(mail["email"]): most}, WINDOW_SECONDS, "too_many_codes").hit()
    except ApiError:
        return False
    return True


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
    set_password(wanted.code, found["user_id"], password_hash)
    limit.refund()
    # Whoever forgot a password has failed to log in before.
    rate_limits.clear_named(account_counter(found["username"]))


@db.retried
def set_password(code: str, user_id: int, password_hash: str) -> None:
    with db.transaction():
        found = codes.use(user_id, code, *RESETS)
        # One that was mailed to the address that the account had before is good no longer.
        if not found or found["email"] not in ("", found["present_email"]):
            raise CodeInvalid
        users.set_password(user_id, password_hash)
        if found["email"]:
            users.set_email(user_id, found["email"])


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
        set_email(code, found["user_id"], language)
    except db.Duplicate:  # somebody else has opened an account with it meanwhile
        raise CodeInvalid from None
    limit.refund()


@db.retried
def set_email(code: str, user_id: int, language: str) -> None:
    with db.transaction():
        found = codes.use(user_id, code, codes.EMAIL)
        if not found:
            raise CodeInvalid
        email, before = found["email"], found["present_email"]
        users.set_email(user_id, email)
        if email_key(email) != email_key(before):
            mails.add("changed", before, language, user_id)
