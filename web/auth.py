"""Who is asking: decorators for routes. Each sets `g.session`, and the log line names its user."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import g, request

import db
from accounts import admin, api_keys, sessions, tokens, users
from accounts.api_keys import GENERATE, READ
from accounts.tokens import BadToken, Session
from errors import ApiError
from files import storage
from images import history, trash
from images.schemas import MAX_ID
from web.inputs import client_address

# What an API key needs for a route; all others are closed to keys.
KEY_SCOPES = {
    "profile": READ,
    "generate_test": GENERATE,
    "generate": GENERATE,
    "image": READ,
    "images": READ,
    "cancel": GENERATE,
    "retry": GENERATE,
    "quota": READ,
    "history": READ,
    "list_tags": READ,
    "list_trash": READ,
    "generated_file": READ,
    "archive_images": READ,
    "uploads.add_upload": GENERATE,
    "uploads.show_upload": GENERATE,
    "uploads.delete_upload": GENERATE,
    "uploads.input_file": READ,
}
MAX_SESSION_ID = 16


def login_required(view: Callable) -> Callable:
    """Let only a logged-in caller through; the profile of the account is `g.user`."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        g.user = get_profile(read_session())
        return view(*args, **kwargs)

    return guarded


def token_required(view: Callable) -> Callable:
    """Let a caller with a good token through; the view gets its session, which is not checked yet.

    It must go to a function that checks it within a statement of its own: that spares a SELECT of
    the account, 80 us of processor time and a round trip.
    """

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return view(read_session(), *args, **kwargs)

    return guarded


def owner_required(view: Callable) -> Callable:
    """Let only the owner of the generation in the address through; the view gets the generation.

    Raises ApiError: 410 for a deleted one, 404 for one that never was or is another's.
    """

    @wraps(view)
    def guarded(generation_id: int) -> Any:
        session = read_session()
        known_id = min(generation_id, MAX_ID)
        generation = history.get_owned(session, known_id)
        if generation and generation_id == known_id:
            return view(generation)
        was_deleted = trash.was_deleted(session.user_id, known_id)
        raise ApiError("image_deleted" if was_deleted else "not_found")

    return guarded


def admin_required(view: Callable) -> Callable:
    """Let only an admin through, as the account's row says now; the view gets the actor."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        actor = admin.get_caller(read_session())
        return view(actor._replace(address=client_address()), *args, **kwargs)

    return guarded


def read_session() -> Session:
    """Return the session of the bearer token or API key, as `g.session` too. Raises ApiError."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise BadToken("token_missing")
    is_key = token.startswith(api_keys.MARK)
    g.session = read_key(token) if is_key else tokens.read_token(token)
    return g.session


def read_key(text: str) -> Session:
    """Return the session of an API key. Raises ApiError if it may not call this route."""
    key = api_keys.read_key(text)
    wanted = KEY_SCOPES.get(request.endpoint)
    if not wanted:
        raise ApiError("key_not_allowed")
    if wanted not in key.scopes:
        raise ApiError("scope_missing")
    return key.session


def get_profile(session: Session) -> db.Row:
    """Return the profile of the session's account. Raises BadToken if the session has ended."""
    profile = users.get_profile(session)
    if not profile:
        raise BadToken
    return profile


def file_owner_required(view: Callable) -> Callable:
    """Let only the owner of the folder in the address through, by token or by a signed link.

    Raises ApiError: 401 without either, 403 for anyone else's, whether it exists or not, and 410
    for what is in the trash.
    """

    @wraps(view)
    def guarded(user_id: str, filename: str) -> Any:
        key = storage.key_of(request.path)
        if "sig" in request.args:
            session, is_withheld = read_link(user_id, key)
        else:
            session = read_session()
            is_withheld = sessions.check_for_file(session, key)
        if user_id != str(session.user_id):
            raise ApiError("forbidden")
        if is_withheld:
            raise ApiError("image_deleted")
        return view(user_id, filename)

    return guarded


def one_argument(name: str) -> str:
    """Return a parameter of the address; of one that is repeated, nobody knows which counts."""
    values = request.args.getlist(name)
    if len(values) != 1:
        raise ApiError("link_invalid")
    return values[0]


def shown_urls() -> list[str]:
    """Return the URLs whose signature lets somebody see what the request asks for.

    Who may see all of a picture may see less of it, but not the other way round.
    """
    whole = request.path
    if "metadata" not in request.args:
        return [whole]
    return [whole, f"{whole}?metadata={one_argument('metadata')}"]


def read_link(user_id: str, file_key: str) -> tuple[Session, bool]:
    """Return the session that the signed link stands for, as `g.session` too, and if the file is
    withheld. Raises ApiError.
    """
    expires, signature = one_argument("expires"), one_argument("sig")
    session_id = tokens.session_of_link(signature)
    is_known = re.fullmatch(r"[0-9]{1,9}", user_id) and len(session_id) <= MAX_SESSION_ID
    session, is_withheld = None, False
    if is_known:
        session, is_withheld = sessions.find_of_link(int(user_id), session_id, file_key)
    if not session:
        raise ApiError("link_invalid")
    if not any(tokens.is_link_valid(url, expires, signature, session) for url in shown_urls()):
        raise ApiError("link_invalid")
    g.link_expires = int(expires)
    g.session = session
    return session, is_withheld
