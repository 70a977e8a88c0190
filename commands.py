"""The operator's command line: `flask db …`, `flask user …`, `flask jobs …`, `flask engines …`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
import pymysql
from flask import Flask
from flask.cli import AppGroup

import db
import engines
import migrations
from accounts import passwords, rate_limits, registration, users
from accounts.schemas import PasswordInput, RegisterInput
from accounts.users import Account
from config import SettingError
from engines import catalog
from errors import ApiError, error_text
from files import pictures
from images import PENDING, STATUSES, jobs, parameters, queue, queue_status
from images.queue import Job
from images.schemas import MAX_ID, GenerateInput
from messages import field_text
from validation import parse

db_group = AppGroup("db", help="Look at the schema of the database, or bring it up to date.")
jobs_group = AppGroup("jobs", help="Look at the queue, and put right what is stuck in it.")
engines_group = AppGroup("engines", help="Try the engines behind the models on offer.")
user_group = AppGroup("user", help="Add, list, change and remove accounts.")
CONNECT_SECONDS = 30
# What is counted at a look is counted up to here: millions would take seconds.
MAX_COUNT = 100_000


def register(app: Flask) -> None:
    app.cli.add_command(db_group)
    app.cli.add_command(user_group)
    app.cli.add_command(jobs_group)
    app.cli.add_command(engines_group)


def fail(error: ApiError) -> NoReturn:
    """End the command with what a client would be told, in English."""
    sentences = []
    for name, (kind, values) in error.fields.items():
        sentences.append(field_text(name, kind, values, "en"))
    raise click.ClickException("; ".join(sentences) or error_text(error.code, "en"))


# -- flask db -----------------------------------------------------------------------------------


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the command with one line if the database is unavailable, or refuses."""
    try:
        yield
    except db.Unavailable as error:
        raise click.ClickException(f"the database is away: {error.__cause__}") from None
    except pymysql.MySQLError as error:
        raise click.ClickException(f"the database refuses: {error.args[-1]}") from None


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


# -- flask user ---------------------------------------------------------------------------------


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


# -- flask jobs ---------------------------------------------------------------------------------


@jobs_group.command("stats")
@plain_errors()
def jobs_stats() -> None:
    """Count the generations by status, each up to 100000, and the workers seen lately."""
    for row in queue.count_by_status(MAX_COUNT + 1):
        number = f">{MAX_COUNT}" if row["number"] > MAX_COUNT else row["number"]
        oldest = f"  oldest {row['oldest']}" if row["oldest"] else ""
        click.echo(f"{row['status']:12} {number:>8}{oldest}")
    workers = queue.list_live_workers(queue_status.LIVE_SECONDS)
    click.echo(f"workers      {len(workers):>8}")


@jobs_group.command("list")
@click.option(
    "--status",
    default=PENDING,
    type=click.Choice(STATUSES),
)
@click.option("--limit", default=20, help="How many, the newest first.")
@plain_errors()
def jobs_list(status: str, limit: int) -> None:
    """List generations in one status."""
    for row in queue.list_jobs(status, limit):
        whose = f"user {row['user_id']:<6} {row['model']:20}"
        state = f"attempt {row['attempt']}  {row['progress']:>3}%  {row['created_at']}"
        click.echo(f"{row['id']:>8}  {whose} {state}  {row['error_code'] or ''}")


def find_job(generation_id: int) -> Job:
    found = queue.get_job(generation_id)
    if not found or not found["model"]:
        raise click.ClickException(f"there is no job {generation_id}")
    return found


@jobs_group.command("cancel")
@click.argument("generation_id", type=click.IntRange(1, MAX_ID))
@plain_errors()
def jobs_cancel(generation_id: int) -> None:
    """Cancel an unfinished generation."""
    if not queue.cancel(generation_id, find_job(generation_id)["user_id"]):
        raise click.ClickException(f"job {generation_id} is finished already")
    click.echo(f"Canceled job {generation_id}")


@jobs_group.command("requeue")
@click.argument("generation_id", type=click.IntRange(1, MAX_ID))
@plain_errors()
def jobs_requeue(generation_id: int) -> None:
    """Put a failed or stuck generation back into the queue."""
    if not queue.requeue(find_job(generation_id)):
        raise click.ClickException(f"job {generation_id} is neither failed nor in processing")
    click.echo(f"Requeued job {generation_id}")


@jobs_group.command("sweep")
@plain_errors()
def jobs_sweep() -> None:
    """Repair at once what processes that died left behind; every worker does so on a timer."""
    jobs.sweep()


# -- flask engines --------------------------------------------------------------------------------

TRIAL_PROMPT = "a red apple on a table"
TRIAL_SIDE = 256


@engines_group.command("check")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--pictures/--no-pictures",
    "with_picture",
    default=True,
    help="Make one small picture where that is free.",
)
def engines_check(names: tuple[str, ...], with_picture: bool) -> None:
    """Try the engine of each model, or of those named, from this machine.

    The exit status is 1 if one fails.
    """
    models = catalog.models()
    for name in names:
        if name not in models:
            known = ", ".join(models)
            raise click.ClickException(f"there is no model {name}; there are {known}")
    print_trial("model", "engine", "reached", "picture", "what it has, or what is wrong")
    trials = [Trial(models[name], with_picture) for name in names or models]
    if not all(trial.is_good for trial in trials):
        raise SystemExit(1)


def print_trial(model: str, engine: str, reached: str, picture: str, note: str) -> None:
    click.echo(f"{model:24} {engine:14} {reached:>9} {picture:>9}  {note}")


class Trial:
    """One try of a model: how long its engine took to answer and to make a picture."""

    def __init__(self, model: catalog.Model, with_picture: bool):
        self.reached = self.picture = "-"
        self.is_good = False
        try:
            self.note = self.run(model, with_picture)
            self.is_good = True
        except (engines.EngineError, SettingError) as error:
            self.note = str(error)
        except pictures.BadPicture:
            self.note = "bad_picture"
        print_trial(model.name, model.engine, self.reached, self.picture, self.note)

    def run(self, model: catalog.Model, with_picture: bool) -> str:
        engines.prepare(model)
        engine = engines.load(model.engine)
        started = time.monotonic()
        offers = engine.check(model.options)
        if model.sampler and hasattr(engine, "check_samplers"):
            engine.check_samplers(model.options, model.sampler)
        milliseconds = (time.monotonic() - started) * 1000
        self.reached = f"{milliseconds:.0f} ms"
        if with_picture and not model.options.is_paid:
            started = time.monotonic()
            generated = engine.make(trial_request(model), engines.no_progress)
            picture = pictures.check_generated(generated.data)
            self.picture = f"{time.monotonic() - started:.1f} s"
            offers.append(f"made {picture.width}x{picture.height} {picture.extension}")
        return ", ".join(offers)


def trial_request(model: catalog.Model) -> engines.ImageRequest:
    """Return the smallest request worth looking at."""
    wanted = GenerateInput(prompt=TRIAL_PROMPT, model=model.name)
    if not model.sizes:
        wanted.width = closest(model.width, TRIAL_SIDE)
        wanted.height = closest(model.height, TRIAL_SIDE)
    if model.steps:
        wanted.steps = int(model.steps.min)
    [row] = parameters.new_rows(parameters.fill(wanted), extra={})
    return parameters.image_request(row, parameters.params_of(row))


def closest(limits: catalog.Range, wanted: int) -> int:
    """Return the value in a range that is closest to what is wanted, or just below it."""
    multiple = wanted // limits.step * limits.step
    return int(min(max(multiple, limits.min), limits.max))
