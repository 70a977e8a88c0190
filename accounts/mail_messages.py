"""What each kind of mail says, and to whom: made when it is sent, with the code that it carries."""

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid

import messages
from accounts import codes, recovery, users
from accounts.mails import Mail
from accounts.names import email_key, read_email
from config import settings

# Who gets it, which of messages.MAILS, and the values for its text.
Content = tuple[str, str, dict[str, str]]


def reset(mail: Mail) -> Content | None:
    """Give a code to whoever has the address, for a new password."""
    user = users.get_user_by_email(mail["email"])
    code = codes.make(user["id"], codes.RESET, user["email"]) if user else ""
    if not code:
        return None
    values = {"name": user["username"], **with_link(code, settings.RESET_PAGE)}
    return user["email"], "reset", values


def confirm(mail: Mail) -> Content | None:
    """Give a code to the address that an account was opened with, if it is not confirmed yet."""
    user = users.get_user_by_email(mail["email"])
    if not user or user["email_confirmed"]:
        return None
    code = codes.make(user["id"], codes.EMAIL, user["email"])
    return (user["email"], "confirm", with_link(code, settings.CONFIRM_PAGE)) if code else None


def change(mail: Mail) -> Content | None:
    """Give a code to the address that an account is to have from now on."""
    user_id, email = mail["user_id"], mail["email"]
    if users.get_id_of_email(email_key(email)) not in (None, user_id):
        return email, "taken", {}
    code = codes.make(user_id, codes.EMAIL, email, mail["token_version"])
    return (email, "confirm", with_link(code, settings.CONFIRM_PAGE)) if code else None


def changed(mail: Mail) -> Content | None:
    """Tell the address that an account had."""
    user = users.get_user(mail["user_id"])
    return (mail["email"], "changed", {"name": user["username"]}) if user else None


KINDS = {"reset": reset, "confirm": confirm, "change": change, "changed": changed}


def with_link(code: str, page: str) -> dict[str, str]:
    """Return the code as texts have it: with the page of the front end that takes it, if any."""
    link = settings.PUBLIC_URL + page.replace("{code}", code) if settings.PUBLIC_URL else ""
    return {"code": f"{code}\n\n{link}" if link else code}


def write(mail: Mail) -> EmailMessage | None:
    """Return the message, or None if nobody is to get it. Raises ValueError for a bad address."""
    content = KINDS[mail["kind"]](mail) if recovery.may_send(mail) else None
    return message(*content, mail["language"]) if content else None


def message(
    recipient: str, text: str, values: dict[str, str], language: str = "zh"
) -> EmailMessage:
    """Return a message with one of messages.MAILS. Raises ValueError for a bad address."""
    subject, body = messages.mail_text(text, language)
    to = read_email(recipient)
    made = EmailMessage(SMTP)
    made["From"] = settings.MAIL_FROM
    # By its parts: nothing in an address can become another address, or a header.
    made["To"] = Address(username=to.local_part, domain=to.ascii_domain)
    made["Subject"] = subject
    made["Date"] = formatdate()
    made["Message-ID"] = make_msgid(domain=made["From"].addresses[0].domain)
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(body.format(**values))
    made["Content-Language"] = language
    return made
