"""The process that makes images: takes jobs from the queue one at a time and keeps their leases.

The main thread takes and runs, the keeper renews the lease every second, notices cancels, deadlines and signals,
and sweeps. An engine hears of all that the next time it reports progress. One more thread for each model asks its
engine every so often whether it is there: the jobs of one that is away wait in the queue.
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

import config
import db
import engines
import logs
from config import settings
from engines import catalog
from images import jobs

POLL_SECONDS = 0.25
SWEEP_SECONDS = 10
# An engine that has not stopped this long after it was told to is ended with its process.
STUBBORN_SECONDS = 5
RUN_SECONDS_AT_FIRST = 5.0
# How often an engine is asked whether it is there, while it is and while it is not.
CHECK_SECONDS = 30
CHECK_AGAIN_SECONDS = 2

log = logging.getLogger("worker")


class Run:
    """One run of one job, shared by the two threads."""

    def __init__(self, job: db.Row):
        self.job = job
        self.started = time.monotonic()
        self.progress = 0
        self.stop_reason = ""  # "lost", "timeout" or "shutdown", once it must stop
        self.told_at = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def stop(self, reason: str) -> None:
        self.stop_reason, self.told_at = reason, time.monotonic()

    def on_progress(self, done: int, total: int) -> None:
        self.progress = min(99, 100 * done // max(1, total))
        if self.stop_reason:
            raise jobs.Stopped


class Watch:
    """What is wrong with one model's engine, as far as is known: a key of messages.JOB_ERRORS, or nothing."""

    def __init__(self, model: catalog.Model):
        self.model = model
        self.problem = "unchecked"
        self.is_away = True
        self.doubt = threading.Event()

    def keep(self) -> None:
        while True:
            self.check()
            self.doubt.wait(CHECK_AGAIN_SECONDS if self.is_away else CHECK_SECONDS)
            self.doubt.clear()

    def check(self) -> None:
        """Ask the engine. One that is away is waited for; one that refuses gets its jobs, and they say why."""
        problem, is_away, cause = "", False, ""
        try:
            engines.load(self.model.engine).check(self.model.options)
        except engines.EngineError as error:
            problem, is_away, cause = (
                error.code,
                isinstance(error, engines.TransientError),
                str(error),
            )
        except Exception as error:
            problem, cause = "engine_error", type(error).__name__
        if problem != self.problem:
            details = {"model": self.model.name, "problem": problem, "cause": cause}
            log.log(
                logging.WARNING if problem else logging.INFO, "engine", extra={"details": details}
            )
        self.problem, self.is_away = problem, is_away


class Worker:
    def __init__(self, served: list[str]):
        self.name = f"{socket.gethostname()[:60]}-{os.getpid()}"
        self.watches = {name: Watch(catalog.offered()[name]) for name in served}
        self.running: Run | None = None
        self.average = RUN_SECONDS_AT_FIRST
        # Plain values, because a signal handler that waits for a lock can wait for ever.
        self.is_stopping, self.stopped_at = False, 0.0

    # -- The main thread ----------------------------------------------------------------------

    def work(self) -> None:
        """Take and run jobs until told to stop."""
        for keep in (self.keep, *(watch.keep for watch in self.watches.values())):
            threading.Thread(target=keep, daemon=True).start()
        while not self.is_stopping:
            try:
                job = jobs.take([name for name, watch in self.watches.items() if not watch.is_away])
            except db.Unavailable as refusal:
                log.warning(
                    "the database is away", extra={"details": {"cause": str(refusal.__cause__)}}
                )
                time.sleep(1)
                continue
            if job:
                self.run(job)
            else:
                time.sleep(POLL_SECONDS)
        self.try_to(db.forget_worker, self.name)

    def run(self, job: db.Row) -> None:
        running = self.running = Run(job)
        outcome = "ended"
        try:
            if jobs.run(job, running.on_progress) == "put off":
                self.watches[job["model"]].doubt.set()
        except jobs.Stopped:
            outcome = "stopped"
            if running.stop_reason == "shutdown":
                self.try_to(jobs.give_back, job)
        except db.Unavailable:
            outcome = "unrecorded"  # the lease runs out, and the job is made again
        finally:
            self.running = None
        self.average += (running.seconds() - self.average) / 5
        details = {
            "generation": job["id"],
            "attempt": job["attempt"],
            "seconds": round(running.seconds(), 2),
        }
        log.info(outcome, extra={"details": details})

    # -- The keeper ---------------------------------------------------------------------------

    def keep(self) -> None:
        swept, noted = 0.0, None
        while True:
            if running := self.running:
                self.try_to(self.keep_run, running)
            problems = {
                name: watch.problem
                for name, watch in self.watches.items()
                if watch.problem != "unchecked"
            }
            is_due = time.monotonic() - swept > SWEEP_SECONDS
            if is_due or problems != noted:
                self.try_to(db.note_worker, self.name, json.dumps(problems), self.average)
                noted = problems
            if is_due:
                swept = time.monotonic()
                self.try_to(jobs.sweep)
            time.sleep(1)

    def keep_run(self, running: Run) -> None:
        """Renew the lease of a run, or see to it that it stops."""
        job = running.job
        if running.stop_reason:
            self.end_if_stubborn(running)
        elif running.seconds() > catalog.offered()[job["model"]].deadline_seconds:
            running.stop("timeout")
            jobs.fail(job, "timeout")
        elif (
            self.is_stopping and time.monotonic() - self.stopped_at > settings.WORKER_GRACE_SECONDS
        ):
            running.stop("shutdown")
        elif not db.renew_lease(job["id"], job["claim"], jobs.LEASE_SECONDS, running.progress):
            running.stop("lost")

    def end_if_stubborn(self, running: Run) -> None:
        if time.monotonic() - running.told_at < STUBBORN_SECONDS or self.running is not running:
            return
        if running.stop_reason == "shutdown":
            self.try_to(jobs.give_back, running.job)
        log.error(
            "the engine does not stop; ending this process",
            extra={"details": {"generation": running.job["id"]}},
        )
        os._exit(70)

    def try_to(self, function, *arguments) -> None:
        """Call what may fail and is tried again later, or made up for by a sweep."""
        try:
            function(*arguments)
        except db.Unavailable:
            log.warning("the database is away")
        except Exception:
            log.exception("unexpected error")

    def on_signal(self, number: int, frame: object) -> None:
        self.is_stopping, self.stopped_at = True, time.monotonic()


def main() -> None:
    config.load()
    logging.config.dictConfig(logs.dict_config())
    offered = catalog.offered()
    served = settings.WORKER_MODELS or list(offered)
    for name in served:
        if name not in offered:
            raise config.SettingError(
                f"WORKER_MODELS: {name} is not in {settings.MODELS_FILE.name}"
            )
        engines.prepare(offered[name])
    worker = Worker(served)
    signal.signal(signal.SIGTERM, worker.on_signal)
    signal.signal(signal.SIGINT, worker.on_signal)
    log.info("ready", extra={"details": {"worker": worker.name, "models": served}})
    worker.work()


if __name__ == "__main__":
    try:
        main()
    except config.SettingError as error:
        print(error, file=sys.stderr)
        sys.exit(os.EX_CONFIG)
