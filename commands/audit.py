"""`flask audit …`: who changed what, by the admin API or by a command."""

import click
from flask.cli import AppGroup

from accounts import audit
from accounts.pages import all_rows
from commands.failures import plain_errors
from validation import parse
from web.admin_records import as_text
from web.admin_schemas import AuditQuery

audit_group = AppGroup("audit", help="See who changed what, by the admin API or by a command.")


@audit_group.command("list")
@click.option("--actor", help='Name or id of an admin, or "command".')
@click.option("--action", help="Such as user.disabled.")
@click.option("--since", help="Only entries of then or later: a date or time, in UTC.")
@click.option("--until", help="Only entries of then or earlier.")
@click.option("--format", default="jsonl", type=click.Choice(["jsonl", "csv"]))
@plain_errors()
def audit_list(**options: str | None) -> None:
    """Print the entries, the newest first, as JSON lines or CSV."""
    query = parse(AuditQuery, {name: text for name, text in options.items() if text})
    for text in as_text(all_rows(audit.list_entries, query.filters), query.format):
        click.echo(text, nl=False)
