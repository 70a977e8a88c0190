"""SQL of `mails`: mail to be sent, by whichever worker comes first.

A request only adds a row, the same whether or not an account has the address; who gets what is
looked up when the mail is sent, and only then a code is made. What cannot be sent is tried again
after minutes, and is given up after an hour.
"""

import logging
from typing import TypedDict

import db

log = logging.getLogger("mail")


def on_added() -> None:
    """Called when a mail was added; `app.py` puts a function here that tells the workers."""


# Longer than a server may take over one mail; the next try comes after twice that, and so on.
SECONDS_BETWEEN_TRIES = 120
SECONDS_WITHOUT_SERVER = 60
MAX_AGE_SECONDS = 3600


class Mail(TypedDict):
    """A row of mails. `user_id` and `token_version` are None where only the email is known.

    The hash is that of the network that asked for it, "" if nobody did.
    """

    id: int
    kind: str
    user_id: int | None
    token_version: int | None
    email: str
    language: str
    network_hash: str


def add(
    kind: str,
    email: str,
    language: str,
    user_id: int | None = None,
    token_version: int | None = None,
    asked_from: str = "",
) -> None:
    db.execute(
        """
        INSERT INTO mails
               (kind, user_id, token_version, email, language, network_hash, created_at, due_at)
        VALUES (%s, %s, %s, %s, %s, %s, UNIX_TIMESTAMP(), UNIX_TIMESTAMP())
        """,
        kind,
        user_id,
        token_version,
        email,
        language,
        asked_from,
    )
    on_added()


def is_any_due() -> bool:
    return db.one("SELECT id FROM mails WHERE due_at <= UNIX_TIMESTAMP() LIMIT 1") is not None


def claim() -> Mail | None:
    """Return the next mail that is due, and put its next try off; None if there is none."""
    sql = """
          SELECT id, kind, user_id, token_version, email, language, network_hash, due_at
            FROM mails
           WHERE due_at <= UNIX_TIMESTAMP() AND created_at > UNIX_TIMESTAMP() - %s
        ORDER BY due_at, id
           LIMIT 1
    """
    while mail := db.one(sql, MAX_AGE_SECONDS):
        claimed = db.execute(
            """
            UPDATE mails
               SET due_at = UNIX_TIMESTAMP() + %s * (tries + 1), tries = tries + 1
             WHERE id = %s AND due_at = %s
            """,
            SECONDS_BETWEEN_TRIES,
            mail["id"],
            mail.pop("due_at"),
        )
        if claimed.count:
            return mail
        # Another worker was faster.
    return None


def delete_to(email: str, key: str) -> None:
    """Delete what is to be sent to an address, of which this is the key."""
    db.execute("DELETE FROM mails WHERE email IN (%s, %s)", email, key)


def delete(mail_id: int) -> None:
    db.execute("DELETE FROM mails WHERE id = %s", mail_id)


def put_off() -> None:
    """Let all that is due wait, for every worker: the server is away."""
    sql = "UPDATE mails SET due_at = UNIX_TIMESTAMP() + %s WHERE due_at <= UNIX_TIMESTAMP()"
    db.execute(sql, SECONDS_WITHOUT_SERVER)


def delete_expired() -> None:
    """Give up what could not be sent in an hour."""
    deleted = db.execute(
        """
        DELETE FROM mails
         WHERE created_at <= UNIX_TIMESTAMP() - %s OR due_at > UNIX_TIMESTAMP() + %s
        """,
        MAX_AGE_SECONDS,
        MAX_AGE_SECONDS,
    )
    if deleted.count:
        log.warning("mails given up", extra={"details": {"number": deleted.count}})
