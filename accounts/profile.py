"""What users do with their own account: change email and avatar, delete it."""

from contextlib import suppress

import db
import heavy
from accounts import login, registration, users
from accounts.names import email_key
from accounts.rate_limits import network
from accounts.registration import Taken
from accounts.schemas import ProfileInput
from accounts.tokens import BadToken, Session
from errors import ApiError
from files import cleanup, pictures, storage
from validation import InvalidInput


def change(session: Session, wanted: ProfileInput, avatar: bytes | None, address: str) -> db.Row:
    """Change what was asked for, and return the profile; an empty avatar removes it.

    What is cheap to refuse comes first: no picture is decoded for a wrong password or a taken
    email. Raises InvalidInput, Taken, BadPicture, BadToken, storage.Unavailable, and ApiError
    for a wrong password or after too many.
    """
    before = get_profile(session)
    email = wanted.email if wanted.email != before["email"] else None
    if email:
        check_email_change(session, email, wanted.password, address)
    owner = str(session.user_id)
    picture = heavy.pictures.run(pictures.make_avatar, avatar, owner=owner) if avatar else None
    avatar_key = None
    try:
        avatar_key = registration.store_avatar(picture) if picture else None
        write(session, email, avatar_key, has_new_avatar=avatar is not None)
    except ApiError:
        with suppress(db.Unavailable):
            if avatar_key:
                cleanup.delete_unkept(avatar_key)
        raise
    return db.retry_while_unavailable(get_profile, session)


def get_profile(session: Session) -> db.Row:
    profile = users.get_profile(session)
    if not profile:
        raise BadToken
    return profile


def check_email_change(session: Session, email: str, password: str | None, address: str) -> None:
    """Let only somebody with the password take an email, which nobody else has.

    As at registration, one address cannot ask without end who has an account.
    """
    if not password:
        raise InvalidInput(fields={"password": ("missing", {})})
    conflicts = registration.taken_limit(network(address))
    conflicts.check()
    login.confirm_password(session.user_id, password, address)
    owner = users.get_id_of_email(email_key(email))
    if owner not in (None, session.user_id):
        conflicts.hit()
        raise Taken("email")


def write(
    session: Session, email: str | None, avatar_key: str | None, has_new_avatar: bool
) -> None:
    """Write the changes, of which the account keeps the new file and loses the old one."""
    old_keys = []
    with db.transaction():
        before = users.lock_profile(session)
        if not before:
            raise BadToken
        if email:
            change_email(session.user_id, email)
        if has_new_avatar:
            users.set_avatar(session.user_id, storage.url(avatar_key) if avatar_key else None)
            if avatar_key and not cleanup.keep(avatar_key):
                raise db.Unavailable  # this process slept so long that the file was deleted
            if before["avatar_url"]:
                old_keys = [storage.key_of(before["avatar_url"])]
                cleanup.schedule_deletion(old_keys, after_seconds=0)
    cleanup.delete_files(old_keys)


def change_email(user_id: int, email: str) -> None:
    """Give an account another email. Raises Taken."""
    try:
        users.set_email(user_id, email, email_key(email))
    except db.Duplicate:
        raise Taken("email") from None


def delete(session: Session, password: str, address: str) -> bool:
    """Delete the account of somebody with its password; tells if nothing is left already."""
    login.confirm_password(session.user_id, password, address)
    user = users.get_user(session.user_id)
    if not user:
        raise BadToken
    return registration.delete_account(user, session)
