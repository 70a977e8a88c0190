"""`flask mail …`: try the settings of mail."""

import click
from flask.cli import AppGroup

from commands.failures import fail
from config import settings
from errors import ApiError

mail_group = AppGroup("mail", help="Try the settings of mail.")


@mail_group.command("test")
@click.argument("address")
@click.option("--language", default="en", type=click.Choice(["en", "zh"]))
def mail_test(address: str, language: str) -> None:
    """Send a mail to an address at once, and say what the server answers."""
    # Imported late, as no other command sends mail.
    from accounts import mail_messages, mailer

    if not settings.SMTP_URL:
        fail(ApiError("mail_not_offered"))
    try:
        mailer.send_now(mail_messages.message(address, "test", {}, language))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from None
    click.echo(f"Sent to {address}")
