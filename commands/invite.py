"""`flask invite …`: make, list and revoke the codes that open accounts and give them limits."""

import time
from itertools import islice
from typing import Any

import click
from flask.cli import AppGroup

import db
from accounts import admin, audit, invites
from accounts.limits import Limits
from accounts.pages import all_rows
from accounts.schemas import InviteInput
from commands.failures import plain_errors
from config import words
from images.schemas import MAX_ID
from validation import parse

invite_group = AppGroup("invite", help="Make, list and revoke invites.")


def limit_options(command: Any) -> Any:
    """Add the options for limits of an account; those left out are as the settings say."""
    for name, kind, text in (
        ("--models", str, "Models that the account may use, separated by commas."),
        ("--active", int, "Images that may be unfinished at a time."),
        ("--daily", int, "Images a day."),
    ):
        command = click.option(name, type=kind, help=text)(command)
    return command


def limit_fields(daily: int | None, active: int | None, models: str | None) -> dict[str, Any]:
    names = None if models is None else words(models)
    return {"dailyImages": daily, "activeJobs": active, "models": names}


def shown_limits(limits: Limits) -> str:
    parts = []
    if limits.daily_images is not None:
        parts.append(f"{limits.daily_images} a day")
    if limits.active_jobs is not None:
        parts.append(f"{limits.active_jobs} at a time")
    if limits.models:
        parts.append(f"only {', '.join(limits.models)}")
    return "; ".join(parts) or "as the settings say"


def shown_time(seconds: int | None) -> str:
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


@invite_group.command("create")
@click.option("--uses", default=1, help="How many accounts may use it.")
@click.option("--expires", help="Until when it may be used, UTC, such as 2030-12-31.")
@limit_options
@click.option("--days", type=int, help="For how many days an account has these limits.")
@click.option("--note", default="", help="What it is for; only operators see it.")
@plain_errors()
def invite_create(
    uses: int,
    expires: str | None,
    daily: int | None,
    active: int | None,
    models: str | None,
    days: int | None,
    note: str,
) -> None:
    """Make an invite and show its code, which is kept nowhere."""
    fields = limit_fields(daily, active, models)
    fields |= {"uses": uses, "expiresAt": expires, "limitDays": days, "note": note}
    wanted = parse(InviteInput, fields)
    invite_id, code = admin.create_invite(audit.command(), wanted)
    click.echo(f"Invite {invite_id}; its code is shown only now:\n{code}")


@invite_group.command("list")
@click.option("--limit", default=50, type=click.IntRange(1), help="How many, the newest first.")
@plain_errors()
def invite_list(limit: int) -> None:
    """List invites."""
    for invite in islice(all_rows(admin.list_invites, {}), limit):
        click.echo(invite_line(invite))


def invite_line(invite: db.Row) -> str:
    used = f"{invite['uses']}/{invite['max_uses']}"
    gives = shown_limits(invites.limits_of(invite))
    if invite["limit_days"]:
        gives += f"; for {invite['limit_days']} days"
    state = f"{invites.state_of(invite):8} used {used:9}"
    until = f"until {shown_time(invite['expires_at']):16}"
    return f"{invite['id']:>6}  {state} {until}  {gives}  {invite['note']}".rstrip()


@invite_group.command("revoke")
@click.argument("invite_id", type=click.IntRange(1, MAX_ID))
@plain_errors()
def invite_revoke(invite_id: int) -> None:
    """Let nobody use an invite any more. Accounts keep what it gave them."""
    invite = invites.get_invite(invite_id)
    if not invite or not admin.revoke_invite(audit.command(), invite_id):
        raise click.ClickException(f"there is no invite {invite_id} that is not revoked")
    click.echo(f"Revoked invite {invite_id}")
