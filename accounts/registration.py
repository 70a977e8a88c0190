"""Accounts opened and deleted, with their avatars."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import db
import heavy
from accounts import identities, invites, mails, passwords, rate_limits, users
from accounts.login import account_counter
from accounts.names import email_key, identity_key
from accounts.rate_limits import RateLimit, network
from accounts.schemas import RegisterInput
from accounts.tokens import BadToken, Session
from accounts.users import Account
from config import settings
from errors import ApiError
from files import cleanup, pictures, storage

# Long enough for storing a file and adding a row.
AVATAR_SECONDS = 60
# How long a request, and each sweep, is at the rows and files of deleted accounts.
DELETE_SECONDS = 3
SWEEP_SECONDS = 2


class Taken(ApiError):
    """The name, the email or both belong to another account."""

    def __init__(self, *fields: str):
        problems = {name: ("taken", {}) for name in fields}
        super().__init__(f"{fields[0]}_taken", fields=problems)


def check_admission(wanted: RegisterInput, address: str) -> None:
    """Raise ApiError unless a stranger may open an account now, as REGISTRATION says."""
    if settings.REGISTRATION == "closed":
        raise ApiError("registration_closed")
    if wanted.invite_code:
        invites.check(wanted.invite_code, address)
    elif settings.REGISTRATION == "invite":
        raise ApiError("invite_required", fields={"inviteCode": ("missing", {})})


def register(
    wanted: RegisterInput,
    avatar: bytes | None = None,
    address: str = "",
    language: str = "",
    then: Callable[[int], None] | None = None,
) -> Account:
    """Add an account and return it; `then` gets its id, in the same transaction.

    Its email counts as confirmed unless REQUIRE_EMAIL is on and there is a language: then a code is
    mailed. What is cheap to check comes first: no picture is decoded and no password hashed for an
    account that cannot be. Raises Taken, BadPicture, storage.Unavailable, and ApiError when too
    many accounts came from this address, or an invite cannot be used.
    """
    here = network(address)
    limit = hourly_limit("register", here, settings.REGISTRATIONS_PER_ADDRESS)
    conflicts = taken_limit(here)
    limit.check()
    conflicts.check()
    # The operator's command has no address.
    refuse_taken(wanted, conflicts, reserved=settings.RESERVED_NAMES if address else [])
    picture = make_avatar(avatar, address) if avatar else None
    password_hash = heavy.passwords.run(passwords.hash_password, wanted.password, owner=here)
    limit.hit()
    mail_language = language if settings.REQUIRE_EMAIL else ""
    try:
        with stored_avatar(picture) as avatar_key:
            user_id = add_account(wanted, password_hash, avatar_key, mail_language, then)
    except ApiError:
        with suppress(db.Unavailable):
            limit.refund()
        raise
    return db.retry_while_unavailable(users.get_user, user_id)


def make_avatar(avatar: bytes, address: str) -> pictures.Picture:
    """Decode an upload from this address. Raises BadPicture, and ApiError after too many."""
    rate_limits.uploads_from(address).hit()
    return heavy.pictures.run(pictures.make_avatar, avatar, owner=network(address))


def hourly_limit(name: str, here: str, most: int) -> RateLimit:
    return RateLimit({f"{name}:{here}": most}, rate_limits.HOUR_SECONDS, "too_many_registrations")


def taken_limit(here: str) -> RateLimit:
    return hourly_limit("taken", here, settings.TAKEN_NAMES_PER_ADDRESS)


def refuse_taken(wanted: RegisterInput, conflicts: RateLimit, reserved: list[str]) -> None:
    """Raise Taken, but not so often that one could find out who has an account."""
    name = identity_key(wanted.username)
    taken = users.list_taken(name, email_key(wanted.email))
    if not taken and name in map(identity_key, reserved):
        taken = ["username"]
    if taken:
        conflicts.hit()
        raise Taken(*taken)


@db.retried
def add_account(
    wanted: RegisterInput,
    password_hash: str,
    avatar_key: str | None,
    mail_language: str,
    then: Callable[[int], None] | None,
) -> int:
    """Add the account, which keeps its avatar and uses its invite, and return its id.

    With a language, it gets mail to confirm its email. Raises Taken, and ApiError for an invite
    that cannot be used (any more).
    """
    try:
        with db.transaction():
            user_id = users.create_user(
                username=wanted.username,
                username_key=identity_key(wanted.username),
                email=wanted.email,
                email_key=email_key(wanted.email),
                password_hash=password_hash,
                avatar_url=storage.url(avatar_key) if avatar_key else None,
                email_confirmed=not mail_language,
            )
            if mail_language:
                mails.add("confirm", email_key(wanted.email), mail_language)
            if avatar_key and not cleanup.keep(avatar_key):
                raise db.Unavailable  # this process slept so long that the file was deleted
            if wanted.invite_code:
                invites.use(wanted.invite_code, user_id)
            if then:
                then(user_id)
    except db.Duplicate as error:
        raise Taken("email" if "email" in error.key else "username") from None
    return user_id


@contextmanager
def stored_avatar(picture: pictures.Picture | None) -> Iterator[str | None]:
    """Store an avatar, if there is one, for a block that keeps it; delete it if the block fails."""
    key = store_avatar(picture) if picture else None
    try:
        yield key
    except ApiError:
        if key:
            cleanup.delete_unkept(key)
        raise


def store_avatar(picture: pictures.Picture) -> str:
    """Store an avatar and return its key. It is deleted again unless its account keeps it."""
    key = storage.new_key("avatars", picture.extension)
    cleanup.schedule_deletion([key], AVATAR_SECONDS)
    storage.put(key, picture.data)
    return key


# -- Deletion -------------------------------------------------------------------------------------


def delete_account(
    user: Account,
    session: Session | None = None,
    seconds: float = DELETE_SECONDS,
    first: Callable[[], None] | None = None,
) -> bool:
    """Delete an account for good: for everybody at once, its rows and files as far as time allows.

    Sweeps do the rest, also if this process is killed. Tells if nothing is left. In the transaction
    that ends the account, `first` is called before anything else. Raises BadToken if the account
    was deleted before, or its owner's session has ended; ApiError for the last admin, who would
    leave nobody to make another.
    """
    give_up_at = time.monotonic() + seconds
    cleanup.delete_files(end_account(user, session, first))
    with suppress(db.Unavailable):
        return delete_rest(user["id"], give_up_at)
    return False


@db.retried
def end_account(
    user: Account, session: Session | None, first: Callable[[], None] | None
) -> list[str]:
    """Do the first part of it, after which the account is gone; return the files to delete."""
    with db.transaction():
        if first:
            first()
        if session and users.lock_admins() == [session.user_id]:
            raise ApiError("last_admin")
        before = users.lock_profile(session) if session else users.lock_account(user["id"])
        if not before:
            raise BadToken
        users.mark_deleted(user["id"])
        # Who logs in from there may have a new account at once.
        identities.delete_of(user["id"])
        keys = [storage.key_of(before["avatar_url"])] if before["avatar_url"] else []
        cleanup.schedule_deletion(keys, after_seconds=0)
        mails.delete_to(before["email"], email_key(before["email"]))
        rate_limits.delete_named(account_counter(before["username"]))
        rate_limits.delete_named(f"2fa:{user['id']}:")
        rate_limits.delete_named(f"upload:user {user['id']}:")
    return keys


def finish_deletions() -> bool:
    """Go on with the deletion of accounts that have many rows, or whose process was killed.

    Tells if nothing is left.
    """
    give_up_at = time.monotonic() + SWEEP_SECONDS
    return all(delete_rest(user_id, give_up_at) for user_id in users.list_deleted())


def delete_rest(user_id: int, give_up_at: float) -> bool:
    """Delete rows until that time, then the files: no row ever names a file that is gone."""
    started = time.monotonic()
    while not users.delete_portion(user_id):
        now = time.monotonic()
        if now > give_up_at:
            return False
        time.sleep(now - started)  # on SQLite others want to write, too
        started = time.monotonic()
    is_done = True
    for folder in users.folders_of(user_id):
        is_done &= cleanup.delete_folder(folder, give_up_at - time.monotonic())
    db.erase_deleted()
    return is_done
