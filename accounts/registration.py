"""Accounts opened and deleted, with their avatars."""

from contextlib import suppress

import db
import heavy
from accounts import passwords, rate_limits, users
from accounts.login import account_hash
from accounts.names import email_key, identity_key
from accounts.rate_limits import RateLimit, network
from accounts.schemas import RegisterInput
from accounts.users import Account
from config import settings
from errors import ApiError
from files import cleanup, pictures, storage

# Long enough for storing a file and adding a row.
AVATAR_SECONDS = 60


class Taken(ApiError):
    """The name, the email or both belong to another account."""

    def __init__(self, *fields: str):
        problems = {name: ("taken", {}) for name in fields}
        super().__init__(f"{fields[0]}_taken", fields=problems)


def register(wanted: RegisterInput, avatar: bytes | None = None, address: str = "") -> Account:
    """Add an account and return it.

    What is cheap to check comes first: no picture is decoded and no password hashed for an account
    that cannot be. Raises Taken, BadPicture, storage.Unavailable, and ApiError when too many
    accounts came from this address.
    """
    here = network(address)
    limit = hourly_limit("register", here, settings.REGISTRATIONS_PER_ADDRESS)
    conflicts = hourly_limit("taken", here, settings.TAKEN_NAMES_PER_ADDRESS)
    limit.check()
    conflicts.check()
    # The operator's command has no address.
    refuse_taken(wanted, conflicts, reserved=settings.RESERVED_NAMES if address else [])
    picture = make_avatar(avatar, address) if avatar else None
    password_hash = heavy.passwords.run(passwords.hash_password, wanted.password, owner=here)
    limit.hit()
    avatar_key = None
    try:
        avatar_key = store_avatar(picture) if picture else None
        user_id = add_account(wanted, password_hash, avatar_key)
    except ApiError:
        with suppress(db.Unavailable):
            limit.refund()
            if avatar_key:
                cleanup.delete_unkept(avatar_key)
        raise
    return db.retry_while_unavailable(users.get_user, user_id)


def make_avatar(avatar: bytes, address: str) -> pictures.Picture:
    """Decode an upload from this address. Raises BadPicture, and ApiError after too many."""
    rate_limits.uploads_from(address).hit()
    return heavy.pictures.run(pictures.make_avatar, avatar, owner=network(address))


def hourly_limit(name: str, here: str, most: int) -> RateLimit:
    return RateLimit({f"{name}:{here}": most}, rate_limits.HOUR_SECONDS, "too_many_registrations")


def refuse_taken(wanted: RegisterInput, conflicts: RateLimit, reserved: list[str]) -> None:
    """Raise Taken, but not so often that one could find out who has an account."""
    name = identity_key(wanted.username)
    taken = users.list_taken(name, email_key(wanted.email))
    if not taken and name in map(identity_key, reserved):
        taken = ["username"]
    if taken:
        conflicts.hit()
        raise Taken(*taken)


def add_account(wanted: RegisterInput, password_hash: str, avatar_key: str | None) -> int:
    """Add the account, which keeps its avatar, and return its id. Raises Taken."""
    try:
        with db.transaction():
            user_id = users.create_user(
                username=wanted.username,
                username_key=identity_key(wanted.username),
                email=wanted.email,
                email_key=email_key(wanted.email),
                password_hash=password_hash,
                avatar_url=storage.url(avatar_key) if avatar_key else None,
            )
            if avatar_key and not cleanup.keep(avatar_key):
                raise db.Unavailable  # this process slept so long that the file was deleted
    except db.Duplicate as error:
        raise Taken("email" if "email" in error.key else "username") from None
    return user_id


def store_avatar(picture: pictures.Picture) -> str:
    """Store an avatar and return its key. It is deleted again unless its account keeps it."""
    key = storage.new_key("avatars", picture.extension)
    cleanup.schedule_deletion([key], AVATAR_SECONDS)
    storage.put(key, picture.data)
    return key


def delete_account(user: Account) -> None:
    """Delete the account: rows first, so that no row ever names a missing file, then every file."""
    keys = [f"generated_images/{user['id']}/"]
    if user["avatar_url"]:
        keys.append(storage.key_of(user["avatar_url"]))
    users.delete_user(user["id"], keys)
    rate_limits.delete_named(f"login:{account_hash(user['username'])}")
    cleanup.delete_files(keys)
    db.erase_deleted()
