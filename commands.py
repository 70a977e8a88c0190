"""The operator's command line: `flask db …`, `flask user …`, `flask jobs …` and `flask engines …`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pymysql
from flask import Flask
from flask.cli import AppGroup

import db
import engines
import migrations
import validation
from accounts import registration
from config import SettingError
from engines import catalog
from errors import ApiError, error_text
from files import pictures
from images import jobs, parameters, queue_status
from messages import field_text

database = AppGroup("db", help="Look at the schema of the database, or bring it up to date.")
queue = AppGroup("jobs", help="Look at the queue, and put right what is stuck in it.")
image_engines = AppGroup("engines", help="Try the engines behind the models on offer.")
users = AppGroup("user", help="Add, list, change and remove accounts.")
CONNECT_SECONDS = 30


def register(app: Flask) -> None:
    app.cli.add_command(database)
    app.cli.add_command(users)
    app.cli.add_command(queue)
    app.cli.add_command(image_engines)


def fail(refusal: ApiError) -> None:
    """End the command with what a client would be told, in English."""
    sentences = [
        field_text(name, kind, values, "en") for name, (kind, values) in refusal.fields.items()
    ]
    raise click.ClickException("; ".join(sentences) or error_text(refusal.code, "en"))


# -- flask db -----------------------------------------------------------------------------------


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the command with one line if the database is away, or refuses, as when a grant is missing."""
    try:
        yield
    except db.Unavailable as refusal:
        raise click.ClickException(f"the database is away: {refusal.__cause__}") from None
    except pymysql.MySQLError as error:
        raise click.ClickException(f"the database refuses: {error.args[-1]}") from None


@database.command("status")
@plain_errors()
def db_status() -> None:
    """List the migrations, and when each was applied."""
    for name, applied_at in migrations.status():
        click.echo(f"{name:32} {applied_at or 'pending'}")


@database.command("upgrade")
@plain_errors()
def db_upgrade() -> None:
    """Apply the pending migrations; waits half a minute for a database that is still starting."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            applied = migrations.upgrade()
            break
        except db.Unavailable as refusal:
            if time.monotonic() > deadline:
                raise
            click.echo(f"Waiting for the database: {refusal.__cause__}", err=True)
            time.sleep(1)
    db.delete_old_attempts()
    for name in applied:
        click.echo(f"Applied {name}")


# -- flask user ---------------------------------------------------------------------------------


def account(username: str) -> db.Row:
    user = db.get_user_for_login(
        validation.identity_key(username), registration.legacy_key(username)
    )
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


@users.command("create")
@click.argument("username")
@click.argument("email")
@password_option
def user_create(username: str, email: str, password: str) -> None:
    """Add an account."""
    body = {"username": username, "email": email, "password": password}
    try:
        user = registration.register(validation.parse(validation.RegisterInput, body))
    except ApiError as refusal:
        fail(refusal)
    click.echo(f"Created account {user['id']}: {username}")


@users.command("list")
def user_list() -> None:
    """List every account."""
    for user in db.list_users():
        state = "disabled" if user["is_disabled"] else user["role"]
        click.echo(
            f"{user['id']:>6}  {user['username']:22} {user['email']:32} {state:9} {user['created_at']}"
        )


@users.command("set-password")
@click.argument("username")
@password_option
def user_set_password(username: str, password: str) -> None:
    """Set a new password and end every session of the account."""
    user = account(username)
    try:
        wanted = validation.parse(validation.PasswordInput, {"password": password})
    except ApiError as refusal:
        fail(refusal)
    db.change_password(user["id"], registration.hash_password(wanted.password))
    click.echo(f"Changed the password of {user['username']}")


@users.command("disable")
@click.argument("username")
@click.option("--undo", is_flag=True, help="Open the account again.")
def user_disable(username: str, undo: bool) -> None:
    """Close an account: no log-in, and its sessions end."""
    user = account(username)
    db.set_disabled(user["id"], is_disabled=not undo)
    click.echo(f"{'Enabled' if undo else 'Disabled'} {user['username']}")


@users.command("delete")
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask.")
def user_delete(username: str, yes: bool) -> None:
    """Delete an account with its avatar, history and images. There is no way back."""
    user = account(username)
    if not yes:
        click.confirm(f"Delete {user['username']} and every image of theirs?", abort=True)
    registration.delete(user)
    click.echo(f"Deleted {user['username']}")


# -- flask jobs ---------------------------------------------------------------------------------


@queue.command("stats")
@plain_errors()
def jobs_stats() -> None:
    """Count the generations by status, and the workers seen lately."""
    for row in db.count_by_status():
        click.echo(f"{row['status']:12} {row['number']:>8}  oldest {row['oldest']}")
    click.echo(f"workers      {len(db.list_crew(queue_status.CREW_SECONDS)):>8}")


@queue.command("list")
@click.option(
    "--status",
    default="pending",
    type=click.Choice(["pending", "processing", "completed", "failed", "canceled"]),
)
@click.option("--limit", default=20, help="How many, the newest first.")
@plain_errors()
def jobs_list(status: str, limit: int) -> None:
    """List generations in one status."""
    for row in db.list_jobs(status, limit):
        click.echo(
            f"{row['id']:>8}  user {row['user_id']:<6} {row['model']:20} attempt {row['attempt']}"
            f"  {row['progress']:>3}%  {row['created_at']}  {row['error_code'] or ''}"
        )


def job(generation_id: int) -> db.Row:
    found = db.get_job(generation_id)
    if not found or not found["model"]:
        raise click.ClickException(f"there is no job {generation_id}")
    return found


@queue.command("cancel")
@click.argument("generation_id", type=int)
@plain_errors()
def jobs_cancel(generation_id: int) -> None:
    """Cancel an unfinished generation."""
    if not db.cancel_generation(generation_id, job(generation_id)["user_id"]):
        raise click.ClickException(f"job {generation_id} is finished already")
    click.echo(f"Canceled job {generation_id}")


@queue.command("requeue")
@click.argument("generation_id", type=int)
@plain_errors()
def jobs_requeue(generation_id: int) -> None:
    """Put a failed or stuck generation back into the queue."""
    if not db.requeue_generation(job(generation_id)):
        raise click.ClickException(f"job {generation_id} is neither failed nor in processing")
    click.echo(f"Requeued job {generation_id}")


@queue.command("sweep")
@plain_errors()
def jobs_sweep() -> None:
    """Repair at once what processes that died left behind; every worker does so on a timer."""
    jobs.sweep()


# -- flask engines --------------------------------------------------------------------------------

TRIAL_PROMPT = "a red apple on a table"
TRIAL_SIDE = 256


@image_engines.command("check")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--pictures/--no-pictures", default=True, help="Make one small picture where that is free."
)
def engines_check(names: tuple[str, ...], pictures: bool) -> None:
    """Try the engine of each model, or of those named, from this machine; exit status 1 if one fails."""
    offered = catalog.offered()
    if unknown := [name for name in names if name not in offered]:
        raise click.ClickException(
            f"there is no model {unknown[0]}; there are {', '.join(offered)}"
        )
    click.echo(
        f"{'model':24} {'engine':14} {'reached':>9} {'picture':>9}  what it has, or what is wrong"
    )
    failed = False
    for model in (offered[name] for name in names or offered):
        trial = Trial(model, pictures)
        click.echo(
            f"{model.name:24} {model.engine:14} {trial.reached:>9} {trial.picture:>9}  {trial.note}"
        )
        failed = failed or not trial.is_good
    if failed:
        raise SystemExit(1)


class Trial:
    """One try of a model: how long its engine took to answer and to make a picture, and what came of it."""

    def __init__(self, model: catalog.Model, with_picture: bool):
        self.reached = self.picture = "-"
        self.is_good = False
        try:
            self.try_out(model, with_picture)
            self.is_good = True
        except engines.EngineError as error:
            self.note = str(error)
        except pictures.BadPicture:
            self.note = "bad_picture"
        except SettingError as error:
            self.note = str(error)

    def try_out(self, model: catalog.Model, with_picture: bool) -> None:
        engines.prepare(model)
        engine, started = engines.load(model.engine), time.monotonic()
        offers = engine.check(model.options)
        self.reached = f"{(time.monotonic() - started) * 1000:.0f} ms"
        if with_picture and not model.options.is_paid:
            started = time.monotonic()
            picture = pictures.generated(engine.make(trial_job(model), engines.no_progress).data)
            self.picture = f"{time.monotonic() - started:.1f} s"
            offers = [*offers, f"made {picture.width}x{picture.height} {picture.extension}"]
        self.note = ", ".join(offers)


def trial_job(model: catalog.Model) -> engines.ImageRequest:
    """Return the smallest job worth looking at."""
    wanted = validation.GenerateInput(prompt=TRIAL_PROMPT, model=model.name)
    if not model.sizes:
        wanted.width, wanted.height = (
            closest(limits, TRIAL_SIDE) for limits in (model.width, model.height)
        )
    if model.steps:
        wanted.steps = int(model.steps.min)
    return parameters.engine_job(parameters.rows(catalog.fill(wanted), extra={})[0])


def closest(limits: catalog.Range, wanted: int) -> int:
    return int(min(max(wanted // limits.step * limits.step, limits.min), limits.max))
