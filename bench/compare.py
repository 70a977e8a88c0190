"""Whether the service is as fast, as small and as quick to start as at an older commit: README.md.

    .venv/bin/python bench/compare.py OLD_COMMIT [profile] [history] [record] [submit] [memory]
                                      [start]

Both run in turns, by the same interpreter and on the same database server. The exit status is 1
if the current tree is more than 5 % worse in anything.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import sqrt
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from dotenv import dotenv_values
from run import (
    CONNECTIONS,
    HISTORY,
    PROFILE,
    RECORD,
    ROOM,
    SMALL_USER,
    SUBMIT,
    compared,
    durable,
    emptied,
    fill,
    load,
    mysql,
    mysql_root,
    submit_script,
    warm,
)
from servers import ROOT, Server, gunicorn, mariadb, program_path, upgrade

TOLERANCE = 0.05
# Rounds go on until the standard error of each ratio is at most this, or there are MOST_ROUNDS.
STANDARD_ERROR = 0.02
REQUEST_ROUNDS, MEMORY_ROUNDS, START_ROUNDS, MOST_ROUNDS = 22, 5, 11, 80
ROUND_SECONDS = 1  # so short that a change of the machine's speed mostly falls on both sides

Figures = tuple[float, ...]  # what is measured at once
Pairs = list[tuple[float, float]]  # a figure of (new, old) in each round


class Side(NamedTuple):
    """A tree of the service, and the environment that leads it to its own database."""

    tree: Path
    environ: dict[str, str]

    def server(self, **settings: str) -> AbstractContextManager[Server]:
        return gunicorn({**self.environ, **settings}, tree=self.tree)


def main() -> None:
    old_commit, chosen = arguments()
    program_path("wrk", "wrk")
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    figures = f"{'new':>12}{'old':>12}{'ratio':>8}{'error':>8}{'rounds':>8}"
    print(f"{'':32}{figures}   target", flush=True)
    with both_sides(old_commit) as (new, old):
        verdicts = [PARTS[part](new, old) for part in chosen]
    sys.exit(0 if all(verdicts) else 1)


def stop(*_: Any) -> None:
    """End, and let nothing disturb what is cleared away then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def arguments() -> tuple[str, list[str]]:
    """Return the old commit and the parts, or say what is wrong with them."""
    if len(sys.argv) < 2:
        sys.exit("Name the commit to compare with: bench/compare.py OLD_COMMIT [PART ...]")
    commit, *parts = sys.argv[1:]
    if set(parts) - set(PARTS):
        sys.exit(f"There is no such part; choose from: {' '.join(PARTS)}")
    if git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"):
        sys.exit(f"There is no commit {commit}.")
    return commit, parts or list(PARTS)


# -- The two sides ------------------------------------------------------------------------------


@contextmanager
def both_sides(old_commit: str) -> Iterator[tuple[Side, Side]]:
    """Yield the current tree and the old one, each with its tables made and filled."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with checkout(old_commit, folder / "old") as old_tree, mariadb(folder) as environ:
            # The old tree has no .env, so what stands in the current one counts for neither.
            environ = {**dict.fromkeys(dotenv_values(ROOT / ".env"), ""), **environ}
            yield prepared(environ, "new", ROOT), prepared(environ, "old", old_tree)


@contextmanager
def checkout(commit: str, path: Path) -> Iterator[Path]:
    """Check the commit out into a worktree, which is removed at the end."""
    try:
        if git("worktree", "add", "--quiet", "--detach", str(path), commit):
            sys.exit(f"{commit} could not be checked out.")
        yield path
    finally:
        # Forced twice, because one that is still being made is locked.
        git("worktree", "remove", "--force", "--force", str(path))


def git(*arguments: str) -> int:
    """Return the exit status."""
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL).returncode


def prepared(environ: dict[str, str], database: str, tree: Path) -> Side:
    """Make the tree's database, with the users and the small user's history."""
    environ = {**environ, "MYSQL_DB": database}
    with mysql_root(environ) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
    upgrade(environ, tree)
    with mysql(environ) as connection, connection.cursor() as cursor:
        fill(cursor)
    return Side(tree, environ)


# -- Rounds -------------------------------------------------------------------------------------


def in_turns(
    measure: Callable[[Any], Figures], new: Any, old: Any, least_rounds: int
) -> list[Pairs]:
    """Measure both in each round, taking turns at going first; return the pairs of each figure."""
    rounds: list[tuple[Figures, Figures]] = []
    while len(rounds) < least_rounds or not is_settled(rounds):
        if len(rounds) % 2:
            of_old, of_new = measure(old), measure(new)
        else:
            of_new, of_old = measure(new), measure(old)
        rounds.append((of_new, of_old))
    return by_figure(rounds)


def by_figure(rounds: list[tuple[Figures, Figures]]) -> list[Pairs]:
    paired = [list(zip(of_new, of_old)) for of_new, of_old in rounds]
    return [list(pairs) for pairs in zip(*paired)]


def is_settled(rounds: list[tuple[Figures, Figures]]) -> bool:
    """Return whether more rounds would add little, or take too long."""
    errors = [standard_error(pairs) for pairs in by_figure(rounds)]
    return max(errors) <= STANDARD_ERROR or len(rounds) >= MOST_ROUNDS


def standard_error(pairs: Pairs) -> float:
    """Return that of the median ratio, from the quartiles, which outliers do not move."""
    low, _, high = quantiles([new / old for new, old in pairs], n=4)
    return 0.93 * (high - low) / sqrt(len(pairs))


# -- What is shown ------------------------------------------------------------------------------


def more_is_better(what: str, form: str, pairs: Pairs) -> bool:
    *_, ratio = compared(pairs)
    least = 1 - TOLERANCE
    return report(what, form, pairs, f">= {least:.2f}", ratio >= least)


def less_is_better(what: str, form: str, pairs: Pairs) -> bool:
    *_, ratio = compared(pairs)
    most = 1 + TOLERANCE
    return report(what, form, pairs, f"<= {most:.2f}", ratio <= most)


def report(what: str, form: str, pairs: Pairs, target: str, is_met: bool) -> bool:
    """Print a line, and return whether the target is met."""
    new, old, ratio = compared(pairs)
    shown = f"{form.format(new):>12}{form.format(old):>12}{ratio:>8.3f}"
    error = standard_error(pairs)
    verdict = "ok" if is_met else "MISS"
    line = f"{what:32}{shown}{error:>8.3f}{len(pairs):>8}   {target}  {verdict}"
    print(line, flush=True)
    return is_met


# -- The parts: each returns whether all its targets are met ------------------------------------


def profile(new: Side, old: Side) -> bool:
    return requests("profile", PROFILE, new, old)


def history(new: Side, old: Side) -> bool:
    return requests("history", HISTORY, new, old)


def record(new: Side, old: Side) -> bool:
    return requests("record", RECORD, new, old)


def submit(new: Side, old: Side) -> bool:
    script = submit_script(new.environ)
    with durable(new.environ), emptied(new.environ), emptied(old.environ):
        return requests("submit", SUBMIT, new, old, "-s", script, **ROOM)


def requests(name: str, path: str, new: Side, old: Side, *options: str, **settings: str) -> bool:
    def measure(server: Server) -> Figures:
        return load(server, path, SMALL_USER, CONNECTIONS, ROUND_SECONDS, *options)

    with new.server(**settings) as new_server, old.server(**settings) as old_server:
        measure(new_server)
        measure(old_server)
        rates, costs = in_turns(measure, new_server, old_server, REQUEST_ROUNDS)
    is_as_fast = more_is_better(f"{name}: requests/s", "{:,.0f}", rates)
    is_as_cheap = less_is_better("    processor time a request", "{:.0f} us", costs)
    return is_as_fast and is_as_cheap


def memory(new: Side, old: Side) -> bool:
    pairs = []
    for _ in range(MEMORY_ROUNDS):
        with new.server() as new_server, old.server() as old_server:
            warm(new_server)
            warm(old_server)
            pairs.append((new_server.pss_mib(), old_server.pss_mib()))
    return less_is_better("memory (PSS, 2 workers)", "{:.1f} MiB", pairs)


def start(new: Side, old: Side) -> bool:
    start_ms(new)  # not counted: it may compile
    start_ms(old)
    (pairs,) = in_turns(start_ms, new, old, START_ROUNDS)
    return less_is_better("start to first answer", "{:.0f} ms", pairs)


def start_ms(side: Side) -> Figures:
    with side.server() as server:
        return (server.start_seconds * 1000,)


PARTS = {
    "profile": profile,
    "history": history,
    "record": record,
    "submit": submit,
    "memory": memory,
    "start": start,
}

if __name__ == "__main__":
    main()
