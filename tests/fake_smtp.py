"""A mail server that keeps what it gets: aiosmtpd, so the real protocol, on a free port."""

import email
import email.policy
import ssl
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from config import SmtpServer
from tests.servers import free_port

USER, PASSWORD = "studio", "p@ss:word/"


class Inbox:
    """What the server was sent, and how it was sent."""

    def __init__(self):
        self.messages = []
        self.recipients = []
        self.is_encrypted = []
        self.answers = {}  # to recipients, by the start of the address

    async def handle_RCPT(self, server, session, envelope, address, options):
        for start, answer in self.answers.items():
            if address.startswith(start):
                return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        text = envelope.content.decode()
        self.messages.append(email.message_from_string(text, policy=email.policy.default))
        self.recipients.append(envelope.rcpt_tos)
        self.is_encrypted.append(session.ssl is not None)
        return "250 OK"


class MailServer(Controller):
    def __init__(self, **options):
        self.inbox = Inbox()
        super().__init__(self.inbox, hostname="127.0.0.1", port=free_port(), **options)

    def url(self, user: str = "", password: str = "", scheme: str = "smtp") -> SmtpServer:
        return SmtpServer(scheme, "127.0.0.1", self.port, user, password)


def check_password(server, session, envelope, mechanism, data) -> AuthResult:
    is_right = data.login == USER.encode() and data.password == PASSWORD.encode()
    return AuthResult(success=is_right, handled=False)


def server_context(file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
