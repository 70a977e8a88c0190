"""`flask db …`: look at the schema of the database, or bring it up to date."""

import time

import click
from flask.cli import AppGroup

import db
import migrations
from accounts import rate_limits
from commands.failures import plain_errors

db_group = AppGroup("db", help="Look at the schema of the database, or bring it up to date.")
CONNECT_SECONDS = 30


@db_group.command("status")
@plain_errors()
def db_status() -> None:
    """List the migrations, and when each was applied."""
    for name, applied_at in migrations.status():
        click.echo(f"{name:32} {applied_at or 'pending'}")


@db_group.command("upgrade")
@plain_errors()
def db_upgrade() -> None:
    """Apply the pending migrations; waits half a minute for a database that is still starting."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            applied = migrations.upgrade()
            break
        except db.Unavailable as error:
            if time.monotonic() > deadline:
                raise
            click.echo(f"Waiting for the database: {error.__cause__}", err=True)
            time.sleep(1)
    rate_limits.delete_expired()
    for name in applied:
        click.echo(f"Applied {name}")
