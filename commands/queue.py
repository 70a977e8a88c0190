"""`flask queue …`: see what waits, pause the queue or a model, see the workers and the numbers."""

import click
from flask.cli import AppGroup

from accounts import audit
from commands.failures import plain_errors
from images import admin, queue, queue_status, stats
from validation import parse
from web.admin_schemas import MAX_DAYS, PauseInput

queue_group = AppGroup("queue", help="Pause the queue or a model; see workers and numbers.")
model_argument = click.argument("model", required=False)


def checked(model: str | None) -> str | None:
    """Return the model, None for the whole queue: "", of an empty variable, is neither."""
    return parse(PauseInput, {} if model is None else {"model": model}).model


@queue_group.command("status")
@plain_errors()
def queue_show() -> None:
    """Show what waits and runs of each model, and what is paused."""
    paused = queue.list_paused()
    if "" in paused:
        click.echo("The queue is paused: no job is taken.")
    for model in paused:
        if model:
            click.echo(f"{model:24} paused")
    rows = queue.count_unfinished()
    for row in rows:
        click.echo(f"{row['model']:24} {row['status']:12} {row['number']:>6}")
    if not rows:
        click.echo("Nothing waits or runs")


@queue_group.command("pause")
@model_argument
@plain_errors()
def queue_pause(model: str | None) -> None:
    """Let workers take no job of a model, or none at all; what they are making goes on."""
    admin.pause(audit.command(), checked(model))
    click.echo(f"Paused {model or 'the queue'}")


@queue_group.command("resume")
@model_argument
@plain_errors()
def queue_resume(model: str | None) -> None:
    """Undo a pause; that of a model and that of the whole queue are two."""
    if not admin.resume(audit.command(), checked(model)):
        raise click.ClickException(f"{model or 'the queue'} is not paused")
    click.echo(f"Resumed {model or 'the queue'}")


@queue_group.command("workers")
@plain_errors()
def queue_workers() -> None:
    """List the worker processes that were seen within the last half a minute."""
    for row in queue.list_live_workers(queue_status.LIVE_SECONDS):
        report = queue_status.read_report(row["models"])
        models = ", ".join(f"{name}: {problem or 'ok'}" for name, problem in report.items())
        click.echo(f"{row['name']:32} {row['run_seconds']:>7.1f} s  {models}")


@queue_group.command("stats")
@click.option("--days", default=30, type=click.IntRange(1, MAX_DAYS), help="How many, today last.")
@plain_errors()
def queue_stats(days: int) -> None:
    """Show new accounts, images, bytes, and the jobs of each model, day by day."""
    found = stats.series(days)
    click.echo(f"{'day':12}{'users':>8}{'images':>10}{'bytes':>16}")
    for row in zip(found["days"], found["users"], found["images"], found["bytes"]):
        click.echo("{:12}{:>8}{:>10}{:>16}".format(*row))
    for model, of_model in found["models"].items():
        jobs = ", ".join(f"{outcome} {sum(of_model[outcome])}" for outcome in stats.OUTCOMES)
        click.echo(f"{model:24} {jobs}")
