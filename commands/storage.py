"""`flask storage …`: hold the files and what the database says of them against each other."""

import click
from flask.cli import AppGroup

from accounts import audit
from accounts.audit import Target
from commands.failures import plain_errors
from images import storage_check

storage_group = AppGroup("storage", help="Hold files and database against each other.")


@storage_group.command("check")
@click.option("--repair", is_flag=True, help="Put right what is found.")
@plain_errors()
def storage_check_command(repair: bool) -> None:
    """Find rows without files, files without rows, and wrong numbers; the service may run.

    Repaired, an image whose file is missing says so as a failed one, a missing thumbnail is made
    again, and a file that no row names, older than an hour, is deleted. The exit status is 1 if
    something is left wrong. A repair is noted in the audit log when it begins.
    """
    left = 0
    try:
        storage_check.check_folder()
        if repair:
            audit.record(audit.command(), "storage.repair", Target("storage"))
        for finding in storage_check.findings():
            is_repaired = repair and finding.repair()
            left += not is_repaired
            click.echo(f"{finding.kind:20} {finding.where}{'  repaired' if is_repaired else ''}")
    except storage_check.NothingThere:
        folder = storage_check.IMAGES
        raise click.ClickException(
            f"uploads/{folder} is empty, and the database has images: is DATA_DIR right?"
        ) from None
    if left:
        raise SystemExit(1)
    click.echo("All is as it should be")
