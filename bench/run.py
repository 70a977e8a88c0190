"""How fast and how small the service is, beside the least code that could do the same: README.md.

    .venv/bin/python bench/run.py [profile] [history] [record] [submit] [watchers] [jobs] [scale]
                                  [memory] [start] [logins] [million]

Compared variants run in turns, ABABAB, and the ratio is the median of the rounds' ratios.
"""

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import jwt
import logins
import pymysql
import watchers
from servers import (
    ROOT,
    SECRET_KEY,
    Server,
    call,
    environment,
    gunicorn,
    mariadb,
    program_path,
    upgrade,
)
from werkzeug.security import generate_password_hash

ROUNDS = 7
ROUND_SECONDS = 2
CONNECTIONS = 8
MILLION = 1_000_000
PROFILE, HISTORY = "/api/auth/profile", "/api/v1/images/history"
RECORD, SUBMIT = "/api/v1/images/1", "/api/v1/images/generate"
SMALL_USER, LARGE_USER = 1, 2  # with 10 and with 1,000,000 generations
SUBMITTERS = range(3, 67)  # the others' histories stay as they are


def main() -> None:
    chosen = sys.argv[1:] or list(PARTS)
    if set(chosen) - set(PARTS):
        sys.exit(f"There is no such part; choose from: {' '.join(PARTS)}")
    program_path("wrk", "wrk")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"{'':52}{'ours':>11}{'beside':>11}{'ratio':>8}   target")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, mariadb(Path(folder)) as environ:
        upgrade(environ)
        with mysql(environ) as connection, connection.cursor() as cursor:
            fill(cursor)
        for part in chosen:
            PARTS[part](environ)


# -- What is shown ------------------------------------------------------------------------------


def report(what: str, ours: str, beside: str = "", ratio: float | None = None,
           target: str = "", is_met: bool | None = None) -> None:  # fmt: skip
    verdict = {True: "  ok", False: "  MISS", None: ""}[is_met]
    shown = "" if ratio is None else f"{ratio:.2f}"
    print(f"{what:52}{ours:>11}{beside:>11}{shown:>8}   {target}{verdict}", flush=True)


def compared(pairs: Iterable[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the median of each side, and of the ratios within a round.

    Both of a round had the same neighbours on the machine.
    """
    pairs = list(pairs)
    mine, beside = (median(side) for side in zip(*pairs))
    return mine, beside, median(one / other for one, other in pairs)


# -- What is in the database --------------------------------------------------------------------

Cursor = pymysql.cursors.Cursor | sqlite3.Cursor

COLUMNS = """
    (user_id, prompt_text, image_url, thumbnail_url, status, generation_params_json,
     created_at, updated_at)
"""
VALUES = """
    'a fox in the snow, evening light, watercolour',
    '/api/uploads/generated_images/1/0123456789abcdef.png',
    '/api/uploads/generated_images/1/0123456789abcdef_thumbnail.webp', 'completed',
    '{"model_used": "painter-1", "seed": 1234567890, "steps": 20, "width": 512, "height": 512}'
"""
SMALL_HISTORY = f"""
    INSERT INTO image_generations {COLUMNS}
    SELECT {SMALL_USER}, {VALUES}, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP
      FROM (SELECT 1 FROM users LIMIT 10) AS ten
"""
LARGE_MYSQL = f"""
    INSERT INTO image_generations {COLUMNS}
    SELECT {LARGE_USER}, {VALUES},
           FROM_UNIXTIME(1700000000 + seq), FROM_UNIXTIME(1700000000 + seq)
      FROM seq_1_to_{MILLION}
"""
LARGE_SQLITE = f"""
    INSERT INTO image_generations {COLUMNS}
      WITH RECURSIVE numbers (seq) AS (
           SELECT 1
            UNION ALL
           SELECT seq + 1 FROM numbers WHERE seq < {MILLION})
    SELECT {LARGE_USER}, {VALUES},
           datetime(1700000000 + seq, 'unixepoch'), datetime(1700000000 + seq, 'unixepoch')
      FROM numbers
"""
ADD_USER = """
    INSERT INTO users (username, username_key, email, email_key, password_hash)
    VALUES ('{name}', '{name}', '{name}@example.com', '{name}@example.com', '{password_hash}')
"""
COUNT_IMAGES = """
    UPDATE users
       SET image_count = (SELECT COUNT(*) FROM image_generations WHERE user_id = users.id)
"""
USER_COLUMNS_MYSQL = """
    SELECT column_name
      FROM information_schema.columns
     WHERE table_schema = DATABASE() AND table_name = 'users'
"""
USER_COLUMNS_SQLITE = "SELECT name FROM pragma_table_info('users')"


def mysql_root(environ: dict[str, str]) -> pymysql.Connection:
    socket_path = str(Path(environ["DATA_DIR"]) / "mariadb.sock")
    return pymysql.connect(unix_socket=socket_path, user="root", autocommit=True, ssl_disabled=True)


def mysql(environ: dict[str, str]) -> pymysql.Connection:
    return pymysql.connect(
        host="127.0.0.1",
        port=int(environ["MYSQL_PORT"]),
        user=environ["MYSQL_USER"],
        password=environ["MYSQL_PASSWORD"],
        database=environ["MYSQL_DB"],
        autocommit=True,
        ssl_disabled=True,
    )


def fill(cursor: Cursor) -> None:
    """Add the users, whose ids are counted from 1, and the small user's history."""
    password_hash = generate_password_hash(logins.PASSWORD)
    for number in range(1, SUBMITTERS.stop):
        cursor.execute(ADD_USER.format(name=f"user{number}", password_hash=password_hash))
    cursor.execute(SMALL_HISTORY)
    count_images(cursor)


def count_images(cursor: Cursor) -> None:
    """Set how many generations each user has, where the schema keeps that number."""
    is_sqlite = isinstance(cursor, sqlite3.Cursor)
    cursor.execute(USER_COLUMNS_SQLITE if is_sqlite else USER_COLUMNS_MYSQL)
    if ("image_count",) in cursor.fetchall():
        cursor.execute(COUNT_IMAGES)


def token(user_id: int) -> str:
    now = int(time.time())
    claims = {"sub": str(user_id), "ver": 0, "iat": now, "exp": now + 86400}
    return jwt.encode(claims, SECRET_KEY, algorithm="HS256")


# -- Requests in a second -----------------------------------------------------------------------


class Load(NamedTuple):
    """Requests answered in a second, and the server's processor time for one."""

    per_second: float
    cpu_us: float


def load(
    server: Server, path: str, user_id: int, connections: int, seconds: int, *options: str
) -> Load:
    """Ask as fast as the answers come."""
    header = f"Authorization: Bearer {token(user_id)}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", header, *options]
    command.append(f"http://127.0.0.1:{server.port}{path}")
    before = server.cpu_seconds()
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = server.cpu_seconds() - before
    if "Non-2xx" in shown or "Socket errors" in shown:
        sys.exit(f"{path} was not answered:\n{shown}")
    number = int(re.search(r"(\d+) requests in", shown)[1])
    per_second = float(re.search(r"Requests/sec: +([\d.]+)", shown)[1])
    return Load(per_second, used / number * 1e6)


def against_limit(
    environ: dict[str, str], name: str, path: str, least: float, *options: str
) -> None:
    def measure(server: Server, seconds: int = ROUND_SECONDS) -> Load:
        return load(server, path, SMALL_USER, CONNECTIONS, seconds, *options)

    with gunicorn(environ) as ours, gunicorn(environ, f"bench.limits:{name}") as limit:
        for server in (ours, limit):
            measure(server, seconds=1)
        rounds = [(measure(ours), measure(limit)) for _ in range(ROUNDS)]
    mine, bare, ratio = compared((ours.per_second, limit.per_second) for ours, limit in rounds)
    what = f"{name}: requests/s, beside a bare WSGI callable"
    report(what, f"{mine:,.0f}", f"{bare:,.0f}", ratio, f">= {least}", ratio >= least)
    mine, bare, ratio = compared((ours.cpu_us, limit.cpu_us) for ours, limit in rounds)
    report("    processor time a request", f"{mine:.0f} us", f"{bare:.0f} us", ratio)


def profile(environ: dict[str, str]) -> None:
    against_limit(environ, "profile", PROFILE, 0.65)


def history(environ: dict[str, str]) -> None:
    against_limit(environ, "history", HISTORY, 0.65)


def record(environ: dict[str, str]) -> None:
    against_limit(environ, "record", RECORD, 0.65)


SUBMIT_SCRIPT = """
tokens = { %s }
turn = 0
request = function()
  turn = turn %% #tokens + 1
  local headers = {
    ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. tokens[turn]
  }
  return wrk.format("POST", nil, headers, '{"prompt": "a fox in the snow", "seed": 1, "steps": 20}')
end
"""
ROOM = {
    "MAX_ACTIVE_JOBS": "100",
    "DAILY_IMAGES": "1000000",
    "SUBMITS_PER_MINUTE": "1000000",
    "MAX_QUEUE": "10000",
}
FINISH = "UPDATE image_generations SET status = 'completed' WHERE status = 'pending'"


def submit(environ: dict[str, str]) -> None:
    """Submit as 64 users with room for all: the limits are checked, but never reached.

    A user has about ten unfinished at a time, so of each ninety submits one counts them.
    """
    script = submit_script(environ)
    with durable(environ), emptied(environ):
        against_limit({**environ, **ROOM}, "submit", SUBMIT, 0.5, "-s", script)


def submit_script(environ: dict[str, str]) -> str:
    """Write what wrk sends, and return its path."""
    tokens = ", ".join(f'"{token(user_id)}"' for user_id in SUBMITTERS)
    path = Path(environ["DATA_DIR"]) / "submit.lua"
    path.write_text(SUBMIT_SCRIPT % tokens)
    return str(path)


@contextmanager
def emptied(environ: dict[str, str]) -> Iterator[None]:
    """Finish what waits twice a second, as workers would: the queue stays as long as in real life.

    At the end nothing waits.
    """
    ended = threading.Event()

    def finish() -> None:
        with mysql(environ) as connection, connection.cursor() as cursor:
            counts = cursor.execute("SHOW TABLES LIKE 'waiting'")  # an older release has none
            while not ended.wait(0.5):
                cursor.execute(FINISH)
                if counts:
                    cursor.execute("DELETE FROM waiting")
            cursor.execute(FINISH)
            if counts:
                cursor.execute("DELETE FROM waiting")

    thread = threading.Thread(target=finish)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def durable(environ: dict[str, str]) -> Iterator[None]:
    """Let the database flush each commit to the disk, as it does when nothing is set."""
    with mysql_root(environ) as connection, connection.cursor() as cursor:
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        yield
        cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 0")


def jobs_overhead(environ: dict[str, str]) -> None:
    """Time take and finish of jobs whose picture costs nothing."""
    command = [sys.executable, "bench/jobs_overhead.py"]
    environ = {**environ, "PYTHONPATH": "."}
    shown = subprocess.run(command, env=environ, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    spent = float(shown.stdout)
    with mysql(environ) as connection, connection.cursor() as cursor:
        count_images(cursor)  # it has removed what it added
    report("take and finish of one job", f"{spent:.1f} ms", target="< 15 ms", is_met=spent < 15)


# -- A long queue -------------------------------------------------------------------------------


def scale(environ: dict[str, str]) -> None:
    long_queue(environ, "MariaDB", users=10_000, jobs=100_000, workers=100)
    with tempfile.TemporaryDirectory(dir=environ["DATA_DIR"]) as folder:
        environ = environment(Path(folder), DATABASE="sqlite")
        upgrade(environ)
        long_queue(environ, "SQLite", users=1000, jobs=10_000, workers=8)


def long_queue(environ: dict[str, str], database: str, users: int, jobs: int, workers: int) -> None:
    command = [sys.executable, "bench/scale.py", str(users), str(jobs), str(workers)]
    environ = {**environ, "PYTHONPATH": "."}
    shown = subprocess.run(command, env=environ, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found = json.loads(shown.stdout)
    what = f"{jobs:,} jobs of {users:,} users wait, {workers} workers: {database}"
    report(what, f"{found['takes']} takes")
    spent = found["median"]
    report("    a take", f"{spent:.1f} ms", target="<= 5 ms", is_met=spent <= 5)
    report("    of 20, the slowest", f"{found['p95']:.1f} ms")
    report("    how long the queue is, and its order", f"{found['status']:.1f} ms")
    report("    wrong numbers", str(found["wrong"]), target="0", is_met=not found["wrong"])


# -- Watchers -----------------------------------------------------------------------------------

WATCHERS = 500


def watch(environ: dict[str, str]) -> None:
    """Let accounts poll what is being made for them, or waits, beside a little ordinary traffic."""
    ordinary = [watchers.Client(PROFILE, token(SMALL_USER), every=0.5) for _ in range(10)]
    ordinary += [watchers.Client(HISTORY, token(SMALL_USER), every=1) for _ in range(10)]
    with watched(environ) as (owned, advance), gunicorn(environ) as server:
        polls = [watchers.Client(f"/api/v1/images/{id_}", token(user_id)) for user_id, id_ in owned]
        cpu = asyncio.run(watchers.run(server, polls + ordinary, advance))
    answers = [answer for client in polls for answer in client.answers]
    others = [answer for client in ordinary for answer in client.answers]
    rate, due = len(answers) / watchers.SECONDS, WATCHERS / watchers.EVERY_SECONDS
    answered = rate / due
    what = f"{WATCHERS} watchers: polls a second, beside those due"
    report(what, f"{rate:.0f}", f"{due:.0f}", answered, ">= 0.99", answered >= 0.99)
    unchanged = sum(answer.status == 304 for answer in answers)
    report("    of them answered with 304", f"{unchanged / len(answers):.0%}")
    report_p99("polls", answers)
    report_p99("30 ordinary requests a second", others)
    wrong = sum(answer.status not in (200, 304) for answer in answers + others)
    report("    errors", str(wrong), target="0", is_met=not wrong)
    report("    processor time of the service", f"{cpu:.0%}", target="of one core")


def report_p99(what: str, answers: list[watchers.Answer]) -> None:
    cuts = quantiles([answer.ms for answer in answers], n=100)
    p99, p50 = cuts[98], cuts[49]
    what = f"    p99 of {what}, beside p50"
    report(what, f"{p99:.1f} ms", f"{p50:.1f} ms", None, "<= 250", p99 <= 250)


ADD_WATCHED = """
    INSERT INTO image_generations (user_id, prompt_text, status, model, width, height, attempt)
    VALUES (%s, 'a fox in the snow', %s, 'watched', 512, 512, %s)
"""
ADVANCE = """
    UPDATE image_generations
       SET progress = progress + 1
     WHERE model = 'watched' AND status = 'processing' AND attempt = %s
"""


@contextmanager
def watched(environ: dict[str, str]) -> Iterator[tuple[list[tuple[int, int]], Callable[[], None]]]:
    """Add the watchers, half of whose generations wait.

    Yields pairs of a user's and a generation's id, and what advances a tenth of the others at
    each call.
    """
    with mysql(environ) as connection, connection.cursor() as cursor:
        owned = []
        for number in range(WATCHERS):
            status, tenth = ("pending", "processing")[number % 2], number // 2 % 10
            cursor.execute(ADD_USER.format(name=f"watcher{number}", password_hash="x"))
            user_id = cursor.lastrowid
            cursor.execute(ADD_WATCHED, (user_id, status, tenth))
            owned.append((user_id, cursor.lastrowid))
        count_images(cursor)
        tenths = cycle(range(10))
        yield owned, lambda: cursor.execute(ADVANCE, (next(tenths),))
        cursor.execute("DELETE FROM image_generations WHERE model = 'watched'")
        cursor.execute("DELETE FROM users WHERE username LIKE 'watcher%'")


# -- A long history -----------------------------------------------------------------------------


def million(environ: dict[str, str]) -> None:
    with mysql(environ) as connection, connection.cursor() as cursor:
        cursor.execute(LARGE_MYSQL)
        count_images(cursor)
    long_history(environ, "MariaDB")
    with tempfile.TemporaryDirectory(dir=environ["DATA_DIR"]) as folder:
        environ = environment(Path(folder), DATABASE="sqlite", WEB_WORKERS="1")
        upgrade(environ)
        with sqlite3.connect(Path(folder) / "instance" / "app.db") as connection:
            cursor = connection.cursor()
            fill(cursor)
            cursor.execute(LARGE_SQLITE)
            count_images(cursor)
        connection.close()
        long_history(environ, "SQLite")


def long_history(environ: dict[str, str], database: str) -> None:
    with gunicorn(environ) as server:
        check_history(server, SMALL_USER, 10)
        check_history(server, LARGE_USER, MILLION)
        rounds = [
            (history_ms(server, LARGE_USER), history_ms(server, SMALL_USER)) for _ in range(ROUNDS)
        ]
        large, small, ratio = compared(rounds)
        what = f"history of {MILLION:,}, page 1, beside one of 10: {database}"
        report(what, f"{large:.2f} ms", f"{small:.2f} ms", ratio, "<= 1.3", ratio <= 1.3)
        for page in (2, 1000, 90_000):
            report(f"    page {page:,}", f"{page_ms(server, page):.2f} ms")


def check_history(server: Server, user_id: int, total: int) -> None:
    _, body = call(server.port, "GET", HISTORY, token(user_id))
    records, pagination = body["data"]["records"], body["data"]["pagination"]
    if pagination["total"] != total or len(records) != 10:
        sys.exit(f"user {user_id} has {pagination}")


def history_ms(server: Server, user_id: int) -> float:
    return 1000 / load(server, HISTORY, user_id, connections=1, seconds=1).per_second


def page_ms(server: Server, page: int) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        call(server.port, "GET", f"{HISTORY}?page={page}", token(LARGE_USER))
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


# -- Memory and start ---------------------------------------------------------------------------


def memory(environ: dict[str, str]) -> None:
    with gunicorn(environ) as ours, gunicorn(environ, "bench.limits:flask_app") as flask:
        for server in (ours, flask):
            warm(server)
        mine, bare = ours.pss_mib(), flask.pss_mib()
    what = "memory at rest (PSS, 2 workers), beside bare Flask"
    report(what, f"{mine:.0f} MiB", f"{bare:.0f} MiB", mine / bare, "<= 90 MiB", mine <= 90)


def warm(server: Server) -> None:
    """Ask for the profile and the history until every worker is connected to the database."""
    workers = server.pids()[1:]
    before = {pid: logins.sockets(pid) for pid in workers}
    for _ in range(500):
        for path in (PROFILE, HISTORY):
            call(server.port, "GET", path, token(SMALL_USER))
        if all(logins.sockets(pid) > before[pid] for pid in workers):
            return
    sys.exit("One worker answered all of 1,000 requests.")


def start(environ: dict[str, str]) -> None:
    seconds = []
    for _ in range(5):
        with gunicorn(environ) as ours:
            pass
        with gunicorn(environ, "bench.limits:flask_app") as flask:
            pass
        seconds.append((ours.start_seconds, flask.start_seconds))
    mine, bare, ratio = compared(seconds)
    what = "start to first answer, beside bare Flask"
    report(what, f"{mine:.2f} s", f"{bare:.2f} s", ratio, "<= 1.0 s", mine <= 1.0)


# -- Log-ins ------------------------------------------------------------------------------------


def log_ins(environ: dict[str, str]) -> None:
    log_ins_of(environ, "64 log-ins of one user", ["user1"] * 64)
    log_ins_of(environ, "64 users", [f"user{number}" for number in range(1, 65)])


def log_ins_of(environ: dict[str, str], what: str, names: list[str]) -> None:
    added, answers = [], []
    for _ in range(3):
        with gunicorn(environ) as server:  # a new one each time: threads and heaps once made stay
            warm(server)
            peak, statuses = logins.peak_during_burst(server, names)
            added.append(peak)
            answers += statuses
    mib = median(added)
    report(f"{what} at once: memory added", f"{mib:.0f} MiB", target="<= 80 MiB", is_met=mib <= 80)
    report("    of them answered with 200", f"{answers.count(200)}/{len(answers)}")
    with gunicorn(environ) as server:
        warm(server)
        for pace in logins.PACES:
            pairs = [logins.profile_p99s(server, names, token(SMALL_USER), pace) for _ in range(3)]
            burst, quiet, ratio = compared(pairs)
            what = f"    p99 of profile meanwhile, {pace}"
            report(what, f"{burst:.1f} ms", f"{quiet:.1f} ms", ratio, "<= 4", ratio <= 4)


PARTS = {
    "profile": profile,
    "history": history,
    "record": record,
    "submit": submit,
    "watchers": watch,
    "jobs": jobs_overhead,
    "scale": scale,
    "memory": memory,
    "start": start,
    "logins": log_ins,
    "million": million,
}

if __name__ == "__main__":
    main()
