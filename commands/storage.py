"""`flask storage …`: hold files and database against each other; move files to another store."""

import time
from collections import Counter

import click
from flask.cli import AppGroup

from accounts import audit
from accounts.audit import Target
from commands.failures import plain_errors
from config import Location, location, settings
from files import moving, storage
from images import storage_check

storage_group = AppGroup("storage", help="Check the stored files, or move them to another store.")

# Before files are deleted that were moved: who was about to read one has done so, and links to a
# bucket have ended.
DISK_GRACE_SECONDS = 10
BUCKET_GRACE_SECONDS = storage.LINK_SECONDS + 30
SHOW_SECONDS = 5


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
        raise click.ClickException(
            "there are no files, and the database has images: are DATA_DIR and STORAGE_URL right?"
        ) from None
    if left:
        raise SystemExit(1)
    click.echo("All is as it should be")


@storage_group.command("move")
@click.option("--to", "target", required=True, help="disk, or s3://… as in STORAGE_URL.")
@plain_errors()
def storage_move_command(target: str) -> None:
    """Copy all files to another store; the service may run.

    Each copy is compared with its original. As long as STORAGE_URL names the old store, nothing is
    deleted there. Once it names the new one, and STORAGE_OTHER the old, what is left is copied, and
    each file is deleted in the old one when the new one has it. May be stopped and run again.
    """
    goal = _read_target(target)
    is_switched = goal == settings.STORAGE_URL
    origin = settings.STORAGE_OTHER if is_switched else settings.STORAGE_URL
    stores = (storage.store_at(origin), storage.store_at(goal))
    audit.record(audit.command(), "storage.move", Target("storage"), after={"deletes": is_switched})
    left = _show(moving.copy_all(*stores))
    if is_switched and not left:
        grace = BUCKET_GRACE_SECONDS if origin.bucket else DISK_GRACE_SECONDS
        click.echo(f"All is copied; waiting {grace} s for those who read old files")
        time.sleep(grace)
        left = _show(moving.delete_copied(*stores))
    if left:
        raise SystemExit(1)
    click.echo(_next_step(is_switched))


def _read_target(text: str) -> Location:
    """Return where to move to, if the settings fit that."""
    try:
        goal = location(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--to") from None
    if goal == settings.STORAGE_URL and settings.STORAGE_OTHER is None:
        raise click.ClickException("STORAGE_OTHER must say where the files are now")
    if goal not in (settings.STORAGE_URL, settings.STORAGE_OTHER or goal):
        raise click.ClickException("STORAGE_OTHER names another store; files move to one at a time")
    return goal


def _show(outcomes: moving.Outcomes) -> int:
    """Show what came of the files; return how many need somebody to look at them."""
    counts: Counter[str] = Counter()
    shown_at = time.monotonic()
    for key, outcome in outcomes:
        counts[outcome] += 1
        if outcome in moving.PROBLEMS:
            click.echo(f"{outcome:10} {key}")
        if time.monotonic() > shown_at + SHOW_SECONDS:
            shown_at = time.monotonic()
            click.echo(_line(counts))
    click.echo(_line(counts))
    return sum(counts[outcome] for outcome in moving.PROBLEMS)


def _line(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in counts.items()) or "no files"


def _next_step(is_switched: bool) -> str:
    if is_switched:
        return "All is moved. Now remove STORAGE_OTHER, and start the service anew"
    return (
        "All is copied. Now set STORAGE_OTHER to what STORAGE_URL is, STORAGE_URL to the new store,"
        " start the service anew, and run this command again"
    )
