"""The life of an account, no HTTP: register, log in, passwords, delete; and how often one may try."""

import hashlib
import ipaddress
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from werkzeug.security import check_password_hash, generate_password_hash

import db
import heavy
from config import settings
from errors import ApiError
from files import storage
from files.pictures import Picture
from images import results
from validation import LoginInput, RegisterInput, identity_key

# Long enough for storing a file and adding a row.
AVATAR_SECONDS = 60


class Taken(ApiError):
    """The name, the email or both belong to another account."""

    def __init__(self, *fields: str):
        super().__init__(f"{fields[0]}_taken", fields={name: ("taken", {}) for name in fields})


class WrongCredentials(ApiError):
    """No such name, or another password: nobody learns which."""

    code = "wrong_credentials"


class Limit(NamedTuple):
    """At most `most` hits of one counter in a window; `code` is the refusal of one more."""

    name: str
    most: int
    window_seconds: int
    code: str

    def check(self) -> None:
        """Refuse if the counter is spent already; costs one read."""
        counter = db.get_attempts(self.name)
        if counter and counter["hits"] >= self.most:
            raise ApiError(self.code, retry_after=counter["seconds_left"])

    def hit(self) -> None:
        hits, seconds_left = db.count_attempt(self.name, self.window_seconds)
        if hits > self.most:
            raise ApiError(self.code, retry_after=seconds_left)

    def forgive(self) -> None:
        db.forgive_attempt(self.name)


# -- Register -----------------------------------------------------------------------------------


def register(wanted: RegisterInput, avatar: Picture | None = None, address: str = "") -> db.Row:
    """Add an account and return {id, avatar_url}. Raises Taken, and ApiError when the address made too many."""
    username_key, email_key = identity_key(wanted.username), identity_key(wanted.email)
    refuse_taken(username_key, email_key)
    limit = Limit(
        f"register:{network(address)}",
        settings.REGISTRATIONS_PER_ADDRESS,
        3600,
        "too_many_registrations",
    )
    limit.check()
    password_hash = heavy.run(hash_password, wanted.password)
    avatar_url = store_avatar(avatar) if avatar else None
    try:
        with db.transaction():
            user_id = db.create_user(
                wanted.username, username_key, wanted.email, email_key, password_hash, avatar_url
            )
            if avatar_url and not db.forget_file(db.file_key(avatar_url)):
                raise db.Unavailable  # we slept so long that a sweep has removed it
    except db.Duplicate as error:
        storage.delete(avatar_url)
        raise Taken("email" if "email" in error.key else "username") from None
    limit.hit()
    return {"id": user_id, "avatar_url": avatar_url}


def store_avatar(avatar: Picture) -> str:
    """Store an avatar and return its URL. Until its account stands, it is doomed: no crash leaves orphans."""
    key = storage.new_key("avatars", avatar.extension)
    db.doom_files([key], AVATAR_SECONDS)
    return storage.put(key, avatar.data)


def refuse_taken(username_key: str, email_key: str) -> None:
    taken = db.list_taken(username_key, email_key)
    names = [
        *(["username"] if any(row["username_key"] == username_key for row in taken) else []),
        *(["email"] if any(row["email_key"] == email_key for row in taken) else []),
    ]
    if names:
        raise Taken(*names)


# -- Log in -------------------------------------------------------------------------------------


def log_in(wanted: LoginInput, address: str) -> db.Row:
    """Return the account if the password is right.

    Raises WrongCredentials, and ApiError for a disabled account or after too many failures. A name that
    does not exist costs and answers the same as a wrong password.
    """
    limits = login_limits(identity_key(wanted.username), network(address))
    for limit in limits:
        limit.check()
    user = db.get_user_for_login(identity_key(wanted.username), legacy_key(wanted.username))
    heavy.run(verify, user, wanted.password, limits)
    if user["is_disabled"]:
        raise ApiError("account_disabled")
    return user


def login_limits(username_key: str, address: str) -> list[Limit]:
    # Hashed, because people type passwords into the name field.
    account = hashlib.sha256(username_key.encode()).hexdigest()[:32]
    window, code = settings.LOGIN_WINDOW_SECONDS, "too_many_attempts"
    return [
        Limit(f"login:{account}", settings.LOGIN_FAILURES_PER_ACCOUNT, window, code),
        Limit(f"login:{address}", settings.LOGIN_FAILURES_PER_ADDRESS, window, code),
    ]


def verify(user: db.Row | None, password: str, limits: list[Limit]) -> None:
    """Check the password. Raises WrongCredentials, or ApiError if the attempts were used up meanwhile.

    The hit is counted before the check and taken back after a good one: of many guesses sent at the
    same moment, no more than the limit are ever compared.
    """
    for limit in limits:
        limit.hit()
    if (
        not password_matches(
            user["password_hash"] if user else dummy_hash(settings.PASSWORD_HASH), password
        )
        or not user
    ):
        raise WrongCredentials
    for limit in limits:
        limit.forgive()
    if method_of(user["password_hash"]) != method_of(dummy_hash(settings.PASSWORD_HASH)):
        db.set_password_hash(user["id"], hash_password(password), user["password_hash"])


def network(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 network one IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return (
        str(parsed)
        if parsed.version == 4
        else str(ipaddress.ip_network((parsed, 64), strict=False))
    )


# -- Passwords ----------------------------------------------------------------------------------


def hash_password(password: str) -> str:
    return generate_password_hash(password, method=settings.PASSWORD_HASH)


def password_matches(password_hash: str, password: str) -> bool:
    try:
        return check_password_hash(password_hash, password)
    except ValueError:  # a hash in a form this Werkzeug no longer knows matches nothing
        return False


@lru_cache
def dummy_hash(method: str) -> str:
    """Return a hash of today's parameters, to spend the usual time on names that do not exist."""
    return generate_password_hash("no account has this", method=method)


def method_of(password_hash: str) -> str:
    return password_hash.split("$", 1)[0]


# -- Old and closed accounts --------------------------------------------------------------------


def legacy_key(text: str) -> str:
    """Return the key of an old account whose true key another one holds. No true key has capitals."""
    return "LEGACY:" + text[:200]


def fill_keys() -> None:
    """Give the accounts of a database made by hand their keys; safe to run on many machines at once."""
    while found := db.list_users_without_keys(500):
        for user in found:
            fill_key(user)


def fill_key(user: db.Row) -> None:
    names = identity_key(user["username"]), legacy_key(user["username"])
    emails = identity_key(user["email"]), legacy_key(user["email"])
    for username_key, email_key in [(name, email) for name in names for email in emails]:
        with suppress(db.Duplicate):
            db.set_user_keys(user["id"], username_key, email_key)
            return


def delete(user: db.Row) -> None:
    """Delete the account: rows first, so that no row ever points at a missing file, then every file."""
    keys = [f"generated_images/{user['id']}/"]
    if user["avatar_url"]:
        keys.append(db.file_key(user["avatar_url"]))
    db.delete_user(user["id"], keys)
    results.remove(keys)
