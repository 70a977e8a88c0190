"""Sends what is in `mails`, by SMTP. Only workers do: no request waits for a mail server."""

import logging
import smtplib
import ssl
from email.message import EmailMessage

from accounts import mail_messages, mails
from accounts.mails import Mail
from config import settings

# For each answer of the server.
TIMEOUT_SECONDS = 20
# So few at a time that nobody sees, by how fast requests are answered, whether mail is being sent.
MAX_AT_ONCE = 10

log = logging.getLogger("mail")


class NoTLS(OSError):
    """The server offers no TLS, and SMTP_REQUIRE_TLS is on."""


def send_due() -> None:
    """Send some of the mail that is due; any number of workers may do so at the same time.

    While the server is away or refuses us, all of it waits.
    """
    if not mails.is_any_due():
        return
    try:
        with connect() as server:
            for _ in range(MAX_AT_ONCE):
                mail = mails.claim()
                if not mail:
                    break
                send(server, mail)
    except OSError as error:  # of which SMTPException is one kind
        log.warning("the mail server is away", extra={"details": describe(error)})
        mails.put_off()


def connect() -> smtplib.SMTP:
    """Return a connection to the server, encrypted and logged in. Raises OSError."""
    scheme, host, port, user, password = settings.SMTP_URL
    context = ssl.create_default_context()
    if scheme == "smtps":
        server = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
    try:
        if scheme == "smtp":
            start_tls(server, context)
        if user:
            server.login(user, password)
    except BaseException:
        server.close()
        raise
    return server


def start_tls(server: smtplib.SMTP, context: ssl.SSLContext) -> None:
    server.ehlo_or_helo_if_needed()
    if server.has_extn("starttls"):
        server.starttls(context=context)
    elif settings.SMTP_REQUIRE_TLS:
        raise NoTLS("the server offers no TLS, and SMTP_REQUIRE_TLS is on")


def send(server: smtplib.SMTP, mail: Mail) -> None:
    """Send one mail, if somebody is to get it; what nobody will ever take is given up."""
    try:
        message = mail_messages.write(mail)
        if message:
            server.send_message(message)
    except smtplib.SMTPServerDisconnected:
        raise
    except (smtplib.SMTPException, ValueError) as error:
        details = {"mail": mail["id"], "kind": mail["kind"], **describe(error)}
        log.warning("a mail was refused", extra={"details": details})
        if not is_final(error):
            return
    mails.delete(mail["id"])


def is_final(error: Exception) -> bool:
    """Tell if this recipient will never get it, unlike when the server dislikes its sender."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return smtp_code(error) >= 500
    return isinstance(error, ValueError | smtplib.SMTPNotSupportedError)


def smtp_code(error: Exception) -> int:
    """Return the code of the server's answer, 0 if there was none."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        [(code, _)] = error.recipients.values()
        return code
    return getattr(error, "smtp_code", 0)


def describe(error: Exception) -> dict[str, str | int]:
    """Return what may be logged: what the server says may name recipient or user."""
    is_network = isinstance(error, OSError) and not isinstance(error, smtplib.SMTPException)
    cause = str(error) if is_network else type(error).__name__
    return {"cause": cause, "smtp_code": smtp_code(error)}


def send_now(message: EmailMessage) -> None:
    """Send a message while the operator waits. Raises OSError."""
    with connect() as server:
        server.send_message(message)
