"""`flask jobs …`: look at the queue, and put right what is stuck in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import click
from flask.cli import AppGroup

import db
from accounts import audit
from accounts.pages import all_rows
from commands.failures import plain_errors
from errors import ApiError
from images import PENDING, STATUSES, admin, jobs, queue, queue_status
from images.schemas import MAX_ID

jobs_group = AppGroup("jobs", help="Look at the queue, and put right what is stuck in it.")
# What is counted at a look is counted up to here: millions would take seconds.
MAX_COUNT = 100_000


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
@click.option("--user", type=click.IntRange(1, MAX_ID), help="Only those of the user of this id.")
@click.option("--model", help="Only those of this model.")
@click.option("--error", help="Only those that failed with this code.")
@click.option("--limit", default=20, type=click.IntRange(1), help="How many, the newest first.")
@plain_errors()
def jobs_list(limit: int, **filters: str | int | None) -> None:
    """List generations in one status."""
    for row in islice(all_rows(admin.list_jobs, filters), limit):
        whose = f"user {row['user_id']:<6} {row['model']:20}"
        state = f"attempt {row['attempt']}  {row['progress']:>3}%  {row['created_at']}"
        click.echo(f"{row['id']:>8}  {whose} {state}  {row['error_code'] or ''}")


@contextmanager
def job_errors(generation_id: int, refusal: str) -> Iterator[None]:
    """End the command with one line if there is no such job, or nothing to be done with it."""
    try:
        yield
    except db.Unavailable:
        raise
    except ApiError as error:
        if error.code == "not_found":
            raise click.ClickException(f"there is no job {generation_id}") from None
        raise click.ClickException(f"job {generation_id} {refusal}") from None


@jobs_group.command("cancel")
@click.argument("generation_id", type=click.IntRange(1, MAX_ID))
@plain_errors()
def jobs_cancel(generation_id: int) -> None:
    """Cancel an unfinished generation."""
    with job_errors(generation_id, "is finished already"):
        admin.cancel_job(audit.command(), generation_id)
    click.echo(f"Canceled job {generation_id}")


@jobs_group.command("requeue")
@click.argument("generation_id", type=click.IntRange(1, MAX_ID))
@plain_errors()
def jobs_requeue(generation_id: int) -> None:
    """Put a failed or stuck generation back into the queue."""
    with job_errors(generation_id, "is neither failed nor in processing"):
        admin.requeue_job(audit.command(), generation_id)
    click.echo(f"Requeued job {generation_id}")


@jobs_group.command("sweep")
@plain_errors()
def jobs_sweep() -> None:
    """Repair at once what processes that died left behind; every worker does so on a timer."""
    jobs.sweep()
