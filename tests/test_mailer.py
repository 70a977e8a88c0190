"""How mail leaves: over the real protocol, with servers that misbehave and odd addresses."""

import socket

import pytest

import app as service
import db
from accounts import mail_messages, mailer, mails, users
from config import SmtpServer
from tests.fake_smtp import (
    PASSWORD,
    USER,
    MailServer,
    check_password,
    server_context,
)
from tests.servers import free_port, new_certificate, wait_until


@pytest.fixture
def start(settings):
    """Start a mail server that the service uses: `start(enable_SMTPUTF8=False)`."""
    started = []

    def start(scheme: str = "smtp", user: str = "", password: str = "", **options) -> MailServer:
        server = MailServer(**options)
        server.start()
        started.append(server)
        settings.SMTP_URL = server.url(user, password, scheme)
        settings.MAIL_FROM = "Studio <no-reply@example.com>"
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def certified(tmp_path, monkeypatch):
    """A certificate that this machine trusts."""
    file = new_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return server_context(file)


def add(email="alice@example.com") -> None:
    mails.add("reset", email, "en")


def logged(caplog) -> str:
    """Return what we have logged, without what the mail server has."""
    return str([vars(record) for record in caplog.records if record.name == "mail"])


def waiting() -> list[int]:
    """Return in how many seconds each mail is tried again."""
    rows = db.all("SELECT due_at - UNIX_TIMESTAMP() AS seconds FROM mails ORDER BY id")
    return [row["seconds"] for row in rows]


def make_due() -> None:
    db.execute("UPDATE mails SET due_at = UNIX_TIMESTAMP() - 1")


# -- TLS and log-in -----------------------------------------------------------------------------


def test_starttls_is_used_where_it_is_offered(alice, start, certified):
    inbox = start(tls_context=certified).inbox
    add()

    mailer.send_due()

    assert inbox.is_encrypted == [True]


def test_tls_from_the_start(alice, start, certified, settings):
    settings.SMTP_REQUIRE_TLS = True
    inbox = start("smtps", ssl_context=certified).inbox
    add()

    mailer.send_due()

    assert inbox.recipients == [["alice@example.com"]]


def test_server_without_tls_gets_nothing_where_tls_is_required(alice, start, settings, caplog):
    settings.SMTP_REQUIRE_TLS = True
    inbox = start(user=USER, password=PASSWORD).inbox
    add()

    mailer.send_due()

    assert inbox.messages == [] and len(waiting()) == 1
    assert "offers no TLS" in logged(caplog)


def test_certificate_that_nobody_signed_is_refused(alice, start, certified, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    inbox = start(tls_context=certified).inbox
    add()

    mailer.send_due()

    assert inbox.messages == [] and len(waiting()) == 1


@pytest.mark.parametrize(("password", "number"), [(PASSWORD, 1), ("wrong", 0)])
def test_password_is_sent_over_tls(alice, start, certified, caplog, password, number):
    options = {"authenticator": check_password, "auth_required": True}
    inbox = start(user=USER, password=password, tls_context=certified, **options).inbox
    add()

    mailer.send_due()

    assert len(inbox.messages) == number and len(waiting()) == 1 - number
    said = logged(caplog)
    assert PASSWORD not in said and (number or "SMTPAuthenticationError" in said)


# -- Servers that are away, slow or unwilling ---------------------------------------------------


@pytest.fixture
def away(settings):
    """A mail server that is not there."""
    settings.SMTP_URL = SmtpServer("smtp", "127.0.0.1", free_port(), "", "")
    settings.MAIL_FROM = "no-reply@example.com"


def test_server_that_is_away_puts_everything_off(alice, away, caplog):
    add()

    mailer.send_due()

    assert [0 < seconds <= 60 for seconds in waiting()] == [True]
    assert "alice@example.com" not in logged(caplog)


def test_silent_server_is_left_after_a_while(alice, away, settings, monkeypatch):
    monkeypatch.setattr(mailer, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.SMTP_URL = settings.SMTP_URL._replace(port=silent.getsockname()[1])
        add()

        mailer.send_due()

    assert len(waiting()) == 1


@pytest.mark.parametrize(
    ("answer", "is_kept"), [("450 greylisted", True), ("550 no such user", False)]
)
def test_refused_recipient_does_not_stop_the_others(alice, bob, start, caplog, answer, is_kept):
    inbox = start().inbox
    inbox.answers["alice"] = answer
    add()
    add("bob@example.com")

    mailer.send_due()

    assert inbox.recipients == [["bob@example.com"]]
    assert [100 < seconds <= 120 for seconds in waiting()] == [True] * is_kept
    assert "alice@example.com" not in logged(caplog)


def test_each_try_is_put_off_for_longer(alice, start):
    start().inbox.answers["alice"] = "450 not yet"
    add()
    for _ in range(2):
        make_due()
        mailer.send_due()

    assert [230 < seconds <= 240 for seconds in waiting()] == [True]


def test_only_some_mail_is_sent_at_a_time(alice, start):
    inbox = start().inbox
    for _ in range(mailer.MAX_AT_ONCE + 2):
        add()

    numbers = []
    for _ in range(2):
        mailer.send_due()
        numbers.append(len(inbox.messages))

    assert numbers == [mailer.MAX_AT_ONCE, mailer.MAX_AT_ONCE + 2]


def test_mail_is_claimed_by_one_worker(alice, start):
    start()
    add()

    assert mails.claim()["email"] == "alice@example.com"
    assert mails.claim() is None


# -- Addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("email", "sent"),
    [
        ("a@例子.测试", "a@xn--fsqu00a.xn--0zwm56d"),
        ("测试@example.com", "测试@example.com"),
        ("o'neil+tag@example.com", "o'neil+tag@example.com"),
    ],
)
def test_odd_addresses_get_their_mail(alice, start, email, sent):
    users.set_email(alice.id, email)
    inbox = start(enable_SMTPUTF8=True).inbox
    add(email)

    mailer.send_due()

    assert inbox.recipients == [[sent]]
    assert inbox.messages[0]["To"].addresses[0].addr_spec == sent


def test_address_that_the_server_cannot_take_is_given_up(alice, start):
    users.set_email(alice.id, "测试@example.com")
    inbox = start(enable_SMTPUTF8=False).inbox
    add("测试@example.com")

    mailer.send_due()

    assert (inbox.messages, waiting()) == ([], [])


@pytest.mark.parametrize("email", ["no address", "a@b.de\nBcc: x@y.de", "a@b.de, x@y.de"])
def test_address_of_an_old_row_becomes_no_header(alice, start, email):
    users.set_email(alice.id, email)
    inbox = start().inbox
    add(email)

    mailer.send_due()

    assert (inbox.messages, waiting()) == ([], [])


@pytest.mark.parametrize("name", ["x\r\nBcc: x@y.de", "{code}", "测试"])
def test_name_stays_in_the_text(settings, name):
    settings.MAIL_FROM = "no-reply@example.com"

    made = mail_messages.message("a@example.com", "changed", {"name": name}, "en")

    assert set(made.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Language",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert name.replace("\r", "") in made.get_content().replace("\r", "")


# -- The command --------------------------------------------------------------------------------


def test_operator_tries_the_settings(database, start):
    runner = service.app.test_cli_runner()
    inbox = start().inbox

    result = runner.invoke(args=["mail", "test", "me@example.com"])

    assert (result.exit_code, inbox.recipients) == (0, [["me@example.com"]])


def test_operator_hears_why_mail_does_not_work(database, away, settings):
    runner = service.app.test_cli_runner()
    refused = runner.invoke(args=["mail", "test", "me@example.com"])
    settings.SMTP_URL = None
    none = runner.invoke(args=["mail", "test", "me@example.com"])

    assert (refused.exit_code, none.exit_code) == (1, 1)
    assert "refused" in refused.output and "sends no mail" in none.output


def test_worker_sends_mail(alice, start, start_worker):
    server = start()
    add()

    start_worker(
        "worker.py",
        SMTP_URL=f"smtp://127.0.0.1:{server.port}",
        MAIL_FROM="no-reply@example.com",
    )
    wait_until(lambda: server.inbox.messages, what="the mail")

    assert server.inbox.recipients == [["alice@example.com"]]
