"""Log-in: a name and a password for an account; too many failures are refused."""

import hashlib
import logging
from contextlib import suppress

import db
import heavy
from accounts import passwords, second_factor, sessions, tokens, users
from accounts.names import identity_key
from accounts.rate_limits import RateLimit, is_known, network, network_hash
from accounts.schemas import LoginInput, NewPasswordInput
from accounts.tokens import Session
from accounts.users import Account
from config import settings
from errors import ApiError

# So many times the failures that one network may have are allowed to all of them together.
FACTOR_OF_ALL_NETWORKS = 10

log = logging.getLogger("login")


class WrongCredentials(ApiError):
    """No such name, or another password: nobody learns which."""

    code = "wrong_credentials"


def log_in(wanted: LoginInput, address: str) -> Account:
    """Return the account if the password is right, and the code where there is a second factor.

    Raises WrongCredentials, and ApiError for a disabled account, an email that is not confirmed, or
    after too many failures. A name that does not exist costs and answers the same as a wrong
    password.
    """
    limit = login_limit(wanted.username, address)
    limit.check()
    user = users.get_user_for_login(wanted.username)
    heavy.passwords.run(
        verify, user, wanted.username, wanted.password, limit, owner=network(address)
    )
    if user["is_disabled"]:
        raise ApiError("account_disabled")
    second_factor.check(user, wanted.code, address)
    if settings.REQUIRE_EMAIL and not user["email_confirmed"]:
        raise ApiError("email_unconfirmed")
    return user


def confirm_password(user_id: int, password: str, address: str, field: str = "password") -> None:
    """Check the password of somebody who is logged in, and whose session may be stolen.

    Counts like a log-in. Raises ApiError naming the field if it is wrong.
    """
    user = users.get_user_with_hash(user_id)
    if not user:
        raise tokens.BadToken
    limit = confirm_limit(user["username"], address)
    limit.check()
    try:
        heavy.passwords.run(verify, user, user["username"], password, limit, owner=str(user_id))
    except WrongCredentials:
        raise ApiError("wrong_password", fields={field: ("wrong_password", {})}) from None


def change_password(
    session: Session, wanted: NewPasswordInput, address: str, user_agent: str
) -> str:
    """Set a new password, which ends every other session, and return a new token of this one."""
    confirm_password(session.user_id, wanted.old_password, address, field="oldPassword")
    owner = str(session.user_id)
    new_hash = heavy.passwords.run(passwords.hash_password, wanted.password, owner=owner)
    users.change_own_password(session, new_hash)
    return sessions.renew(session, address, user_agent)


def login_limit(username: str, address: str) -> RateLimit:
    """Count the failures on an account from each network first: nobody can lock others out.

    Those from all networks together count too, for guesses from many, but not against a network
    that the account logged in from lately.
    """
    account = account_counter(username)
    here = f"{account}:{network_hash(address)}"
    return RateLimit(
        {
            here: settings.LOGIN_FAILURES_PER_ACCOUNT,
            account: settings.LOGIN_FAILURES_PER_ACCOUNT * FACTOR_OF_ALL_NETWORKS,
            f"login:{network(address)}": settings.LOGIN_FAILURES_PER_ADDRESS,
        },
        settings.LOGIN_WINDOW_SECONDS,
        "too_many_attempts",
        here=here,
        everywhere=account,
    )


def confirm_limit(username: str, address: str) -> RateLimit:
    """Count the same for whoever has a session, whom failures of strangers do not shut out."""
    limit = login_limit(username, address)
    everywhere = f"{limit.everywhere}:confirm"
    counters = {**limit.counters, everywhere: limit.counters[limit.everywhere]}
    del counters[limit.everywhere]
    return limit._replace(counters=counters, everywhere=everywhere)


def account_counter(username: str) -> str:
    """Return the name of an account's counter, with which those of its networks begin."""
    return f"login:{account_hash(username)}"


def has_logged_in_from(username: str, its_hash: str) -> bool:
    """Tell if the account has logged in lately from the network that has this hash."""
    return is_known(f"{account_counter(username)}:{its_hash}")


def account_hash(username: str) -> str:
    """Return what stands for a name in counters and log lines: people type passwords there."""
    key = hashlib.sha256(settings.SECRET_KEY.encode()).digest()
    name = identity_key(username).encode()
    return hashlib.blake2b(name, key=key, digest_size=16).hexdigest()


def verify(user: Account | None, username: str, password: str, limit: RateLimit) -> None:
    """Check the password. Raises WrongCredentials, or ApiError if the attempts are used up by now.

    The hit is counted before the check and refunded after a good one: of many guesses sent at the
    same moment, no more than the limit are ever compared.
    """
    limit.hit()
    password_hash = user["password_hash"] if user else None
    if not passwords.is_password_right(password_hash, password):
        details = {"account": account_hash(username)}
        log.warning("failed log-in", extra={"details": details})
        raise WrongCredentials
    with suppress(db.Unavailable):  # the password is right all the same
        limit.refund()
        if passwords.needs_rehash(password_hash, password):
            new_hash = passwords.hash_password(password)
            users.set_password_hash(user["id"], new_hash, password_hash)
