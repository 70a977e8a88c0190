"""`flask user …`: add, list, change and remove accounts."""

import click
from flask.cli import AppGroup

from accounts import passwords, recovery, registration, users
from accounts.schemas import PasswordInput, RegisterInput
from accounts.users import Account
from commands.failures import fail, plain_errors
from errors import ApiError
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
    try:
        wanted = parse(RegisterInput, {"username": username, "email": email, "password": password})
        user = registration.register(wanted)
    except ApiError as error:
        fail(error)
    click.echo(f"Created account {user['id']}: {username}")


@user_group.command("list")
@plain_errors()
def user_list() -> None:
    """List every account."""
    for user in users.list_users():
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
    try:
        wanted = parse(PasswordInput, {"password": password})
    except ApiError as error:
        fail(error)
    users.change_password(user["id"], passwords.hash_password(wanted.password))
    click.echo(f"Changed the password of {user['username']}")


@user_group.command("reset-code")
@click.argument("username")
@plain_errors()
def user_reset_code(username: str) -> None:
    """Make a code for a new password, good once and for 30 minutes; the one before is void."""
    user = find_account(username)
    try:
        click.echo(recovery.make_reset_code(user["id"]))
    except ApiError as error:
        fail(error)


@user_group.command("disable")
@click.argument("username")
@click.option("--undo", is_flag=True, help="Open the account again.")
@plain_errors()
def user_disable(username: str, undo: bool) -> None:
    """Close an account: no log-in, its sessions end, and its unfinished images are canceled."""
    user = find_account(username)
    users.set_disabled(user["id"], is_disabled=not undo)
    queue.cancel_of_disabled()
    click.echo(f"{'Enabled' if undo else 'Disabled'} {user['username']}")


@user_group.command("delete")
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask.")
@plain_errors()
def user_delete(username: str, yes: bool) -> None:
    """Delete an account with its avatar, history and images. There is no way back."""
    user = find_account(username)
    if not yes:
        click.confirm(f"Delete {user['username']} and every image of theirs?", abort=True)
    registration.delete_account(user)
    click.echo(f"Deleted {user['username']}")
