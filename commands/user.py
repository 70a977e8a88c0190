"""`flask user …`: add, list, change and remove accounts."""

import math

import click
from flask.cli import AppGroup

from accounts import admin, audit, limits, passwords, registration, second_factor, users
from accounts.pages import all_rows
from accounts.schemas import AccountLimitsInput, PasswordInput, RegisterInput
from accounts.users import Account
from commands.failures import plain_errors
from commands.invite import limit_fields, limit_options, shown_limits, shown_time
from images import queue
from validation import parse

user_group = AppGroup("user", help="Add, list, change and remove accounts.")


def find_account(username: str) -> Account:
    user = users.get_user_for_login(username)
    if not user:
        raise click.ClickException(f"there is no account named {username}")
    return user


password_option = click.option(
    "--password",
    prompt=True,
    hide_input=True,
    confirmation_prompt=True,
    help="Asked for when not given; given here, it ends up in the shell's history.",
)


@user_group.command("create")
@click.argument("username")
@click.argument("email")
@password_option
@plain_errors()
def user_create(username: str, email: str, password: str) -> None:
    """Add an account."""
    wanted = parse(RegisterInput, {"username": username, "email": email, "password": password})

    def note(user_id: int) -> None:
        target = audit.Target("user", user_id, wanted.username)
        audit.record(audit.command(), "user.create", target)

    user = registration.register(wanted, then=note)
    click.echo(f"Created account {user['id']}: {username}")


@user_group.command("list")
@click.option("--q", help="Only those with this in their name or email.")
@click.option("--role", type=click.Choice(admin.ROLES))
@click.option("--status", type=click.Choice(admin.STATES))
@plain_errors()
def user_list(**filters: str | None) -> None:
    """List accounts, the newest first."""
    for user in all_rows(admin.list_users, filters):
        state = "disabled" if user["is_disabled"] else user["role"]
        name = f"{user['username']:22} {user['email']:32}"
        click.echo(f"{user['id']:>6}  {name} {state:9} {user['created_at']}")


@user_group.command("set-password")
@click.argument("username")
@password_option
@plain_errors()
def user_set_password(username: str, password: str) -> None:
    """Set a new password and end every session of the account."""
    user = find_account(username)
    wanted = parse(PasswordInput, {"password": password})
    admin.set_password(audit.command(), user["id"], passwords.hash_password(wanted.password))
    click.echo(f"Changed the password of {user['username']}")


@user_group.command("reset-2fa")
@click.argument("username")
@plain_errors()
def user_reset_2fa(username: str) -> None:
    """Take away the second factor of somebody who has lost it."""
    user = find_account(username)
    admin.reset_second_factor(audit.command(), user["id"])
    click.echo(f"Took away the second factor of {user['username']}")


@user_group.command("renew-secrets")
@plain_errors()
def user_renew_secrets() -> None:
    """Seal second factors with today's SECRET_KEY; SECRET_KEY_PREVIOUS may go after that."""
    number = second_factor.seal_again()
    audit.record(
        audit.command(), "secrets.renew", audit.Target("secrets"), None, {"sealed": number}
    )
    click.echo(f"Sealed {number} second factors with SECRET_KEY")


@user_group.command("reset-code")
@click.argument("username")
@plain_errors()
def user_reset_code(username: str) -> None:
    """Make a code for a new password, good once and for 30 minutes; the one before is void."""
    user = find_account(username)
    click.echo(admin.make_reset_code(audit.command(), user["id"]))


@user_group.command("disable")
@click.argument("username")
@click.option("--undo", is_flag=True, help="Open the account again.")
@plain_errors()
def user_disable(username: str, undo: bool) -> None:
    """Close an account: no log-in, its sessions end, and its unfinished images are canceled."""
    user = find_account(username)
    admin.change_user(audit.command(), user["id"], {"disabled": not undo})
    queue.cancel_of_disabled()
    click.echo(f"{'Enabled' if undo else 'Disabled'} {user['username']}")


@user_group.command("limits")
@click.argument("username")
@limit_options
@click.option("--until", help="When these limits end, UTC, such as 2030-12-31.")
@click.option("--reset", is_flag=True, help="Let the settings alone count again.")
@plain_errors()
def user_limits(
    username: str,
    daily: int | None,
    active: int | None,
    models: str | None,
    until: str | None,
    reset: bool,
) -> None:
    """Show the limits of an account, or set them all: what is not given is as the settings say."""
    user = find_account(username)
    fields = {**limit_fields(daily, active, models), "expiresAt": until}
    is_given = any(value is not None for value in fields.values())
    if reset and is_given:
        raise click.ClickException("--reset stands alone")
    if reset or is_given:
        wanted = parse(AccountLimitsInput, fields)
        admin.change_user(audit.command(), user["id"], {"limits": wanted})
    click.echo(f"{user['username']}: {account_limits(user)}")


def account_limits(user: Account) -> str:
    own = limits.get(user["id"])
    shown = shown_limits(limits.of_row(own))
    source = own["limits_source"]
    return f"{shown} ({source}, until {shown_time(own['limits_until'])})" if source else shown


@user_group.command("promote")
@click.argument("username")
@click.option("--undo", is_flag=True, help="Make an admin an ordinary user again.")
@plain_errors()
def user_promote(username: str, undo: bool) -> None:
    """Make an account an admin, who may use the admin API."""
    user = find_account(username)
    role = admin.USER if undo else admin.ADMIN
    admin.change_user(audit.command(), user["id"], {"role": role})
    click.echo(f"{user['username']} is now {'a user' if undo else 'an admin'}")


@user_group.command("delete")
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask.")
@plain_errors()
def user_delete(username: str, yes: bool) -> None:
    """Delete an account with its avatar, history and images. There is no way back."""
    user = find_account(username)
    if not yes:
        click.confirm(f"Delete {user['username']} and every image of theirs?", abort=True)
    admin.delete_user(audit.command(), user["id"], seconds=math.inf)
    click.echo(f"Deleted {user['username']}")
