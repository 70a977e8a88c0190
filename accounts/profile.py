"""What users do with their own account: change email and avatar, make keys, delete it."""

import db
import heavy
from accounts import api_keys, login, rate_limits, recovery, registration, sessions, users
from accounts.names import email_key
from accounts.rate_limits import network
from accounts.registration import Taken
from accounts.schemas import KeyInput, ProfileInput
from accounts.tokens import BadToken, Session
from config import settings
from files import cleanup, pictures, storage
from validation import InvalidInput


def change(
    session: Session, wanted: ProfileInput, avatar: bytes | None, address: str, language: str
) -> tuple[db.Row, bool]:
    """Change what was asked for; an empty avatar removes it.

    Returns the profile, and whether an email waits to be confirmed by the code mailed to it. What
    is cheap to refuse comes first: no picture is decoded for a wrong password or a taken email.
    Raises InvalidInput, Taken, BadPicture, BadToken, storage.Unavailable, and ApiError
    for a wrong password or after too many.
    """
    before = get_profile(session)
    email = wanted.email if wanted.email != before["email"] else None
    is_mailed = bool(email and settings.SMTP_URL)
    if email:
        confirm_password(session, wanted.password, address)
        if is_mailed:
            recovery.request_change(*session[:2], email, address, language)
        else:
            refuse_taken(session, email, address)
    picture = make_picture(session, avatar) if avatar else None
    with registration.stored_avatar(picture) as avatar_key:
        new_email = None if is_mailed else email
        old_keys = write(session, new_email, avatar_key, has_new_avatar=avatar is not None)
    cleanup.delete_files(old_keys)
    return db.retry_while_unavailable(get_profile, session), is_mailed


def make_picture(session: Session, avatar: bytes) -> pictures.Picture:
    rate_limits.uploads_of(session.user_id).hit()
    return heavy.pictures.run(pictures.make_avatar, avatar, owner=str(session.user_id))


def get_profile(session: Session) -> db.Row:
    profile = users.get_profile(session)
    if not profile:
        raise BadToken
    return profile


def confirm_password(session: Session, password: str | None, address: str) -> None:
    if not password:
        raise InvalidInput(fields={"password": ("missing", {})})
    login.confirm_password(session.user_id, password, address)


def refuse_taken(session: Session, email: str, address: str) -> None:
    """Raise Taken, but as at registration not without end: nobody can find out who has one."""
    conflicts = registration.taken_limit(network(address))
    conflicts.check()
    owner = users.get_id_of_email(email_key(email))
    if owner not in (None, session.user_id):
        conflicts.hit()
        raise Taken("email")


@db.retried
def write(
    session: Session, email: str | None, avatar_key: str | None, has_new_avatar: bool
) -> list[str]:
    """Write the changes; return the files that are not needed any more."""
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
    return old_keys


def change_email(user_id: int, email: str) -> None:
    """Give an account another email. Raises Taken."""
    try:
        users.set_email(user_id, email)
    except db.Duplicate:
        raise Taken("email") from None


@db.retried
def make_key(session: Session, wanted: KeyInput) -> tuple[str, db.Row]:
    """Add an API key; return its text and its row. Raises TooManyKeys, BadToken.

    A key goes on without the session, so none is made by one that is ending at this moment.
    """
    with db.transaction():
        sessions.lock(session)
        return api_keys.make_key(session.user_id, **wanted.model_dump())


def delete(session: Session, password: str, address: str) -> bool:
    """Delete the account of somebody with its password; tells if nothing is left already."""
    login.confirm_password(session.user_id, password, address)
    user = users.get_user(session.user_id)
    if not user:
        raise BadToken
    return registration.delete_account(user, session)
