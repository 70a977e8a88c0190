"""Tickets, sent by Celery through BROKER_URL: each tells workers of a model that something waits.

A ticket carries no id. Whoever gets it looks into the queue, which is in the database; so one that
is lost, doubled or late does no harm. A request only notes a ticket: one thread of each process
sends them, and drops them while the broker is away. What then waits without one is found by
`images/tickets.py`.

Celery is imported on first use. Its own tools find it as `celery -A images.broker`.
"""

import logging
import os
import queue
import ssl
import threading
import time
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import config
import metrics
from config import settings
from engines import catalog

TASK = "wake"
# The queue of workers that send mail; that of a model has its name behind MODEL.
MAIL = "mail"
MODEL = "model."
# Tickets that a process has noted and not sent; one more is dropped.
MAX_NOTED = 1000
# Tickets in RabbitMQ's queue of a model; more would wake nobody who is not awake.
MAX_KEPT = 1000
# Tickets that one sweep adds for a model.
MAX_MISSING = 100
# For each answer of the broker, and between two attempts while it is away.
TIMEOUT_SECONDS = 3
AWAY_SECONDS = 2
# RabbitMQ and a worker that hear nothing of each other for twice as long take the other for gone.
HEARTBEAT_SECONDS = 30
# How long readiness believes what was last seen of the broker.
SEEN_SECONDS = 10

log = logging.getLogger("broker")


class Tickets(NamedTuple):
    """So many tickets to a queue; `only_missing` counts those that are there already."""

    name: str
    number: int = 1
    only_missing: bool = False
    passes: int = 0  # how often a worker that cannot serve the model may pass it on


def wake(model: str, number: int = 1, passes: int = 10) -> None:
    """Note a ticket for each of some generations that wait. Never waits, never fails."""
    if settings.BROKER_URL:
        sender(os.getpid()).note(Tickets(MODEL + model, number, passes=passes))


def wake_mail() -> None:
    if settings.BROKER_URL and settings.SMTP_URL:
        sender(os.getpid()).note(Tickets(MAIL))


def wake_missing(model: str, number: int) -> None:
    """See to it that a model has so many tickets; few, because who is woken goes on by itself."""
    number = min(number, MAX_MISSING)
    sender(os.getpid()).note(Tickets(MODEL + model, number, only_missing=True, passes=10))


def send(name: str, passes: int) -> None:
    """Note a ticket like one that a worker got."""
    sender(os.getpid()).note(Tickets(name, passes=passes))


def problem() -> str:
    """Return "unavailable" if the broker is away, as far as this process knows; else ""."""
    own = sender(os.getpid())
    if time.monotonic() - own.seen_at > SEEN_SECONDS:
        own.note(Tickets(MAIL, 0, only_missing=True))  # asks the broker, and sends nothing
    return "unavailable" if own.is_away else ""


def is_up() -> bool | None:
    return not problem() if settings.BROKER_URL else None


# -- The thread that sends -----------------------------------------------------------------------


class Sender:
    """The tickets of one process, sent by a thread of its own over one connection."""

    def __init__(self):
        self.noted: queue.Queue[Tickets] = queue.Queue(MAX_NOTED)
        self.is_away = False
        self.seen_at = 0.0
        self.connection: Any = None
        threading.Thread(target=self.loop, daemon=True).start()

    def note(self, tickets: Tickets) -> None:
        try:
            self.noted.put_nowait(tickets)
        except queue.Full:
            metrics.note_tickets("dropped", tickets.number)

    def loop(self) -> None:
        while True:
            tickets = self.noted.get()
            error = self.try_to_send(tickets)
            if error and not self.is_away:
                # A broker closes connections that are idle, and a proxy or a restart does.
                error = self.try_to_send(tickets)
            self.seen_at = time.monotonic()
            self.note_state(error)
            if error:
                metrics.note_tickets("dropped", tickets.number)
                time.sleep(AWAY_SECONDS)
                self.drop_all()

    def try_to_send(self, tickets: Tickets) -> Exception | None:
        try:
            metrics.note_tickets("sent", self.send(tickets))
        except Exception as error:
            self.close()
            return error
        return None

    def send(self, tickets: Tickets) -> int:
        """Send tickets, and return how many that were."""
        app = make_app()
        if not self.connection:
            # A heartbeat would have to be kept up, and ends connections that nobody uses.
            self.connection = app.connection_for_write(
                heartbeat=0, transport_options=transport_options()
            )
            self.connection.ensure_connection(max_retries=1, timeout=TIMEOUT_SECONDS)
        channel = self.connection.default_channel
        target = queue_of(tickets.name)
        number = tickets.number
        if tickets.only_missing:
            number = max(0, number - target(channel).queue_declare().message_count)
        producer = app.amqp.Producer(channel, auto_declare=False)
        arguments = [tickets.name, tickets.passes]
        for _ in range(number):
            app.send_task(
                TASK,
                arguments,
                queue=target,
                producer=producer,
                retry=False,
                confirm_timeout=TIMEOUT_SECONDS,
            )
        return number

    def close(self) -> None:
        with suppress(Exception):
            self.connection.collapse()
        self.connection = None

    def drop_all(self) -> None:
        with suppress(queue.Empty):
            while True:
                metrics.note_tickets("dropped", self.noted.get_nowait().number)

    def note_state(self, error: Exception | None) -> None:
        is_away = error is not None
        if is_away != self.is_away:
            level = logging.WARNING if is_away else logging.INFO
            # What it says may hold the address, and that the password.
            details = {"cause": type(error).__name__} if error else {}
            message = "the broker is away" if is_away else "the broker is back"
            log.log(level, message, extra={"details": details})
        self.is_away = is_away


@lru_cache
def sender(process_id: int) -> Sender:
    """Return the sender of this process: a fork has neither the thread nor the connection."""
    return Sender()


# -- Celery --------------------------------------------------------------------------------------


def queue_of(name: str) -> Any:
    """Return a queue of tickets; its arguments are those it was once declared with, for ever."""
    from kombu import Queue

    arguments = {"x-queue-type": "quorum", "x-max-length": MAX_KEPT}
    return Queue(name, routing_key=name, queue_arguments=arguments)


@lru_cache
def make_app() -> Any:
    """Return Celery's application, which connects to nothing yet."""
    from celery import Celery

    # Celery itself would tell of each ticket, and of a kind of delay that is not used here.
    logging.getLogger("celery").setLevel(logging.WARNING)
    logging.getLogger("kombu.transport.native_delayed_delivery").setLevel(logging.ERROR)
    app = Celery("images", broker=settings.BROKER_URL, set_as_current=False)
    app.conf.update(
        broker_use_ssl=tls_options(),
        broker_connection_timeout=TIMEOUT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_heartbeat=HEARTBEAT_SECONDS,
        task_queues=[queue_of(name) for name in served()],
        task_default_queue=MAIL,
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    return app


def served() -> list[str]:
    """Return the queues whose tickets a worker of this machine gets."""
    models = settings.WORKER_MODELS or catalog.models()
    names = [MODEL + name for name in models]
    return [*names, MAIL] if settings.SMTP_URL else names


def tls_options() -> dict[str, Any] | None:
    """Return what makes TLS check the broker's certificate, by the authorities of the system."""
    scheme, _, _ = settings.BROKER_URL.partition(":")
    if scheme == "amqps":
        # The host's name is that of BROKER_URL where it is None, and is checked then.
        return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}
    if scheme == "rediss":
        return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    return None


def transport_options() -> dict[str, Any]:
    """Return what bounds each wait of a sender for a broker that has ceased to answer."""
    if settings.BROKER_URL.startswith("redis"):
        return {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    timeouts = {"read_timeout": TIMEOUT_SECONDS, "write_timeout": TIMEOUT_SECONDS}
    return {"confirm_publish": True, **timeouts}


def __getattr__(name: str) -> Any:
    """Make `app` when Celery's command line asks for it."""
    if name != "app":
        raise AttributeError(name)
    config.load()
    return make_app()
