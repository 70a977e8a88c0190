"""The process that makes images: acquires jobs one at a time, runs them, and renews their leases.

Three kinds of threads:
- the main thread acquires and runs jobs;
- the heartbeat thread renews the lease each second, notices cancels, deadlines and signals, and
  sweeps. An engine hears of it the next time it reports progress;
- one thread for each model probes its engine: the jobs of one that is unavailable wait in the
queue;
- with SMTP_URL, one thread sends mail, which a hanging server may keep for as long as it likes;
- after an upgrade, one thread measures older images, and ends.
"""

import json
import logging
import logging.config
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import config
import db
import engines
import logs
import migrations
from config import settings
from engines import catalog
from images import COMPLETED, jobs, queue
from images.queue import Job

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 1
SWEEP_SECONDS = 10
RETRY_SECONDS = 1
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
        self.name = f"{socket.gethostname()[:60]}-{os.getpid()}"
        self.probes = {name: EngineProbe(catalog.find_model(name)) for name in served}
        self.running: Run | None = None
        self.average_seconds = FIRST_RUN_SECONDS
        # Plain values, because a signal handler that waits for a lock can wait for ever.
        self.is_stopping = False
        self.stopping_since = 0.0

    # -- The main thread ----------------------------------------------------------------------

    def work(self) -> None:
        """Acquire and run jobs until told to stop."""
        loops = [self.heartbeat_loop]
        loops += [probe.loop for probe in self.probes.values()]
        if settings.SMTP_URL:
            loops.append(mail_loop)
        loops.append(fill_sizes)
        for loop in loops:
            threading.Thread(target=loop, daemon=True).start()
        while not self.is_stopping:
            try:
                job = jobs.acquire(self.available_models())
            except db.Unavailable as error:
                details = {"cause": str(error.__cause__)}
                log.warning("the database is away", extra={"details": details})
                time.sleep(RETRY_SECONDS)
                continue
            if job:
                self.run(job)
            else:
                time.sleep(POLL_SECONDS)
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
        swept_at = 0.0
        noted = None
        while True:
            if running := self.running:
                log_errors(self.heartbeat, running)
            problems = self.known_problems()
            is_due = time.monotonic() - swept_at > SWEEP_SECONDS
            if is_due or problems != noted:
                text = json.dumps(problems)
                log_errors(queue.note_worker, self.name, text, self.average_seconds)
                noted = problems
            if is_due:
                all_done = log_errors(jobs.sweep)
                # What it had no time for goes on after the next heartbeat.
                swept_at = 0.0 if all_done is False else time.monotonic()
            time.sleep(HEARTBEAT_SECONDS)

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
        seconds = time.monotonic() - self.stopping_since
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

    def on_signal(self, number: int, frame: object) -> None:
        self.stopping_since = time.monotonic()
        self.is_stopping = True


def mail_loop() -> None:
    # Imported late, as not everybody sends mail.
    from accounts import mailer

    while True:
        log_errors(mailer.send_due)
        time.sleep(MAIL_SECONDS)


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
        engines.prepare(models[name])
    # Test images that a web process left behind when it was killed, which any worker can draw.
    built_in = catalog.built_in_model().name
    worker = Worker(served if built_in in models else [*served, built_in])
    signal.signal(signal.SIGTERM, worker.on_signal)
    signal.signal(signal.SIGINT, worker.on_signal)
    log.info("ready", extra={"details": {"worker": worker.name, "models": served}})
    worker.work()


if __name__ == "__main__":
    try:
        main()
    except config.SettingError as error:
        print(error, file=sys.stderr)
        sys.exit(config.WRONG_SETTING_STATUS)
