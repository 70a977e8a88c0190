"""The process that makes images: acquires jobs one at a time, runs them, and renews their leases.

Its threads:
- the main thread acquires and runs jobs; without a broker it looks for them four times a second,
  with one when a ticket comes;
- the heartbeat thread renews the lease each second, notices cancels, deadlines and signals, and
  sweeps. An engine hears of it the next time it reports progress;
- one for each model probes its engine: the jobs of one that is unavailable wait in the queue;
- with SMTP_URL, one sends mail, which a hanging server may keep for as long as it likes;
- after an upgrade, one measures older images, and ends.

With BROKER_URL all of this is in the one child of images/celery_worker.py.
"""

import json
import logging
import logging.config
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import config
import db
import engines
import logs
import migrations
from config import settings
from engines import catalog
from images import COMPLETED, broker, jobs, queue, tickets
from images.celery_worker import CeleryWorker
from images.queue import Job

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 1
SWEEP_SECONDS = 10
RETRY_SECONDS = 1
# With a broker, a worker is idle that got no ticket for so long. It then sweeps more seldom.
IDLE_AFTER_SECONDS = 60
IDLE_SWEEP_SECONDS = 30
# While nothing is to be done, it sweeps only so often, and otherwise asks whether that is so.
QUIET_SWEEP_SECONDS = 600
# After so long a ticket is answered, and the jobs go on with another: RabbitMQ waits half an hour.
TICKET_SECONDS = 300
# How long a worker keeps a ticket that it can do nothing for, before it passes it on.
PASS_ON_SECONDS = 1
# An engine that has not stopped this long after it was told to is ended with its process.
KILL_AFTER_SECONDS = 5
# How often an engine is probed, while it is available and while it is not.
PROBE_SECONDS = 30
PROBE_AGAIN_SECONDS = 2
# How often mail is looked for.
MAIL_SECONDS = 2
# The average time of a job before there was one, and how many jobs it is an average of.
FIRST_RUN_SECONDS = 5.0
AVERAGE_OF = 5

log = logging.getLogger("worker")


class Run:
    """One run of one job, shared by the main and the heartbeat thread."""

    def __init__(self, job: Job):
        self.job = job
        self.started_at = time.monotonic()
        self.progress = 0
        self.stop_reason = ""  # "lost", "timeout" or "shutdown", once it must stop
        self.stopped_at = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def stop(self, reason: str) -> None:
        self.stopped_at = time.monotonic()
        self.stop_reason = reason

    def on_progress(self, done: int, total: int) -> None:
        percent = 100 * done // max(1, total)
        self.progress = min(99, percent)
        if self.stop_reason:
            raise jobs.ClaimLost


class EngineProbe:
    """What is known of one model's engine: `problem` is a key of messages.JOB_ERRORS, or ""."""

    def __init__(self, model: catalog.Model):
        self.model = model
        self.problem = "unchecked"
        self.is_available = False
        self.recheck = threading.Event()

    def loop(self) -> None:
        while True:
            self.check()
            self.recheck.wait(PROBE_SECONDS if self.is_available else PROBE_AGAIN_SECONDS)
            self.recheck.clear()

    def check(self) -> None:
        """Probe the engine. The jobs of one that refuses are run, and fail with the reason."""
        problem = cause = ""
        is_available = True
        try:
            engines.load(self.model.engine).check(self.model.options)
        except engines.EngineError as error:
            problem = error.code
            cause = str(error)
            is_available = not isinstance(error, engines.TransientError)
        except Exception as error:
            problem = "engine_error"
            cause = type(error).__name__
        if problem != self.problem:
            level = logging.WARNING if problem else logging.INFO
            details = {"model": self.model.name, "problem": problem, "cause": cause}
            log.log(level, "engine", extra={"details": details})
        self.problem = problem
        self.is_available = is_available


class Worker:
    def __init__(self, served: list[str]):
        self.name = ""
        self.probes = {name: EngineProbe(catalog.find_model(name)) for name in served}
        self.running: Run | None = None
        self.average_seconds = FIRST_RUN_SECONDS
        # A plain value, because a signal handler that waits for a lock can wait for ever.
        self.stopping_since: Any = SimpleNamespace(value=0.0)
        self.is_over = False
        # With a broker:
        self.taking = threading.Lock()
        self.awake_at = time.monotonic()
        self.swept_at = 0.0
        self.mail_wanted = threading.Event()

    @property
    def is_stopping(self) -> bool:
        return self.stopping_since.value > 0

    # -- The main thread ----------------------------------------------------------------------

    def start(self) -> None:
        """Start the other threads. Raises SettingError if a model cannot be loaded."""
        for probe in self.probes.values():
            engines.prepare(probe.model)
        self.name = new_name()
        log.info("ready", extra={"details": {"worker": self.name, "models": list(self.probes)}})
        loops = [self.heartbeat_loop]
        loops += [probe.loop for probe in self.probes.values()]
        if settings.SMTP_URL:
            loops.append(self.mail_loop)
        loops.append(fill_sizes)
        for loop in loops:
            threading.Thread(target=loop, daemon=True).start()

    def work(self) -> None:
        """Acquire and run jobs until told to stop."""
        self.start()
        while not self.is_stopping:
            if not self.take_one():
                time.sleep(POLL_SECONDS)
        self.forget()

    def take_one(self) -> bool:
        """Acquire a job and run it. Tells if there was one."""
        try:
            job = jobs.acquire(self.available_models())
        except db.Unavailable as error:
            details = {"cause": str(error.__cause__)}
            log.warning("the database is away", extra={"details": details})
            time.sleep(RETRY_SECONDS)
            return False
        if job:
            self.run(job)
        return job is not None

    def forget(self) -> None:
        self.is_over = True
        log_errors(queue.forget_worker, self.name)

    def available_models(self) -> list[str]:
        return [name for name, probe in self.probes.items() if probe.is_available]

    def run(self, job: Job) -> None:
        running = Run(job)
        self.running = running
        result = ""
        outcome = "ended"
        try:
            result = jobs.run(job, running.on_progress)
            if result == "deferred":
                self.probes[job["model"]].recheck.set()
        except jobs.ClaimLost:
            outcome = "stopped"
            if running.stop_reason == "shutdown":
                log_errors(jobs.release, job)
        except db.Unavailable:
            outcome = "unrecorded"  # the lease runs out, and the job is made again
        finally:
            self.running = None
        seconds = running.seconds()
        self.average_seconds += (seconds - self.average_seconds) / AVERAGE_OF
        if result == COMPLETED:
            log_errors(queue.note_seconds, job["model"], seconds)
        details = {
            "generation": job["id"],
            "attempt": job["attempt"],
            "seconds": round(seconds, 2),
        }
        log.info(outcome, extra={"details": details})

    # -- The heartbeat thread -----------------------------------------------------------------

    def heartbeat_loop(self) -> None:
        beat_at = 0.0
        noted = None
        is_sweeping = False
        while not self.is_over:
            if running := self.running:
                log_errors(self.heartbeat, running)
            problems = self.known_problems()
            is_due = time.monotonic() - beat_at > self.sweep_seconds()
            if is_due or problems != noted:
                is_turn = log_errors(self.note, json.dumps(problems))
                all_done = log_errors(self.sweep) if is_turn or is_sweeping else True
                # What it had no time for goes on after the next heartbeat.
                is_sweeping = all_done is False
                beat_at = 0.0 if is_sweeping else time.monotonic()
                noted = problems
            time.sleep(HEARTBEAT_SECONDS)

    def sweep_seconds(self) -> int:
        return SWEEP_SECONDS if self.is_awake() else IDLE_SWEEP_SECONDS

    def note(self, problems: str) -> bool:
        """Say that this worker is alive. Tells if it is to sweep, if that is due."""
        if settings.BROKER_URL:
            seconds = self.sweep_seconds()
            return tickets.note_worker(self.name, problems, self.average_seconds, seconds)
        queue.note_worker(self.name, problems, self.average_seconds)
        return True

    def sweep(self) -> bool:
        """Repair what dead processes left. Tells if there was time for all of it."""
        self.mail_wanted.set()
        is_late = time.monotonic() - self.swept_at > QUIET_SWEEP_SECONDS
        if not self.is_awake() and not is_late and not tickets.is_anything_due():
            return True
        all_done = jobs.sweep()
        self.swept_at = time.monotonic()
        if tickets.send_missing():
            # Nobody is woken now: whoever sweeps takes the jobs, and others do so at their turns.
            threading.Thread(target=self.take_all, daemon=True).start()
        return all_done

    def known_problems(self) -> dict[str, str]:
        problems = {}
        for name, probe in self.probes.items():
            if probe.problem != "unchecked":
                problems[name] = probe.problem
        return problems

    def heartbeat(self, running: Run) -> None:
        """Renew the lease of a run, or see to it that it stops."""
        job = running.job
        if running.stop_reason:
            self.kill_if_stuck(running)
        elif running.seconds() > catalog.find_model(job["model"]).deadline_seconds:
            running.stop("timeout")
            jobs.fail(job, "timeout")
        elif self.is_grace_over():
            running.stop("shutdown")
        elif not queue.renew_lease(job["id"], job["claim"], jobs.LEASE_SECONDS, running.progress):
            running.stop("lost")

    def is_grace_over(self) -> bool:
        seconds = time.monotonic() - self.stopping_since.value
        return self.is_stopping and seconds > settings.WORKER_GRACE_SECONDS

    def kill_if_stuck(self, running: Run) -> None:
        """End this process if the engine has not stopped; serve.py starts another."""
        seconds = time.monotonic() - running.stopped_at
        if seconds < KILL_AFTER_SECONDS or self.running is not running:
            return
        if running.stop_reason == "shutdown":
            log_errors(jobs.release, running.job)
        details = {"generation": running.job["id"]}
        log.error("the engine does not stop; ending this process", extra={"details": details})
        os._exit(os.EX_SOFTWARE)

    def on_signal(self, *_: object) -> None:
        self.stopping_since.value = time.monotonic()

    def mail_loop(self) -> None:
        # Imported late, as not everybody sends mail.
        from accounts import mailer

        while True:
            log_errors(mailer.send_due)
            self.mail_wanted.clear()
            self.mail_wanted.wait(MAIL_SECONDS if self.is_awake() else None)

    # -- With a broker ------------------------------------------------------------------------

    def is_awake(self) -> bool:
        """Tell if tickets came lately; without a broker, a worker always looks for itself."""
        seconds = time.monotonic() - self.awake_at
        return not settings.BROKER_URL or bool(self.running) or seconds < IDLE_AFTER_SECONDS

    def answer(self, ticket: str, passes: int) -> None:
        """Do what a ticket says: take jobs until none is left, or look for mail."""
        self.awake_at = time.monotonic()
        if ticket == broker.MAIL:
            self.mail_wanted.set()
            return
        model = ticket.removeprefix(broker.MODEL)
        if model in self.available_models():
            self.take_all(model)
        elif passes:
            time.sleep(PASS_ON_SECONDS)
            broker.wake(model, passes=passes - 1)

    def take_all(self, model: str = "") -> None:
        """Take jobs of any model until none is left. One that lasts goes on by another ticket."""
        with self.taking:
            until = time.monotonic() + TICKET_SECONDS
            while not self.is_stopping and self.take_one():
                self.awake_at = time.monotonic()
                if model and self.awake_at > until:
                    broker.wake(model)
                    break

    def finish(self) -> None:
        """Wait for what is being made, within the grace, and leave."""
        with self.taking:
            self.forget()


def new_name() -> str:
    """Return a name for this process. Containers may have the same process ids and host name."""
    return f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(3)}"


def fill_sizes() -> None:
    log_errors(migrations.fill_sizes)


def log_errors(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what may fail, and is tried again later or made up for by a sweep; None if it does."""
    try:
        return function(*arguments)
    except db.Unavailable:
        log.warning("the database is away")
    except Exception:
        log.exception("unexpected error")


def main() -> None:
    config.load()
    logging.config.dictConfig(logs.dict_config())
    models = catalog.models()
    served = settings.WORKER_MODELS or list(models)
    for name in served:
        if name not in models:
            file = settings.MODELS_FILE.name
            raise config.SettingError(f"WORKER_MODELS: {name} is not in {file}")
    # Test images that a web process left behind when it was killed, which any worker can draw.
    built_in = catalog.built_in_model().name
    worker = Worker(served if built_in in models else [*served, built_in])
    if settings.BROKER_URL:
        sys.exit(CeleryWorker(worker).run())
    signal.signal(signal.SIGTERM, worker.on_signal)
    signal.signal(signal.SIGINT, worker.on_signal)
    worker.work()


if __name__ == "__main__":
    try:
        main()
    except config.SettingError as error:
        print(error, file=sys.stderr)
        sys.exit(config.WRONG_SETTING_STATUS)
