"""How gunicorn serves the API. The values that one may want to change come from config.py."""

import errno
import json
import resource
import socket
import sys
import time
from contextlib import suppress

from gunicorn import glogging, util

import logs
from config import load
from web.connections import Worker

# For the connections to the database, for files, and for what one process opens besides.
SPARE_FILES = 200
# Less than FAILED_START_SECONDS of serve.py, which starts nothing again that fails within them.
PORT_SECONDS = 2


def more_files(wanted: int) -> int:
    """Let this process open so many files, if the system allows it, and return how many it may."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < wanted:
        allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return min(allowed, wanted)


settings = load()
is_ipv6 = ":" in settings.HOST

wsgi_app = "app:app"
bind = f"[{settings.HOST}]:{settings.PORT}" if is_ipv6 else f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_WORKERS
# Threads are created on demand. There are many because those of a burst of log-ins only wait.
threads = settings.WEB_THREADS
# Connections of one process, most of which only wait; each needs a file descriptor.
worker_connections = more_files(4000) - SPARE_FILES
keepalive = 5
graceful_timeout = 30
# It is one fixed file in the home directory, which all services of the same user would share.
control_socket_disable = True
# The application finds the client's address itself, by TRUSTED_PROXIES.
forwarded_allow_ips = ""
logconfig_dict = logs.dict_config()


class worker_class(Worker):
    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, then give another worker time to accept the next one.

        Otherwise one worker often gets all the connections that a page or a proxy opens at once
        and keeps, and the others get none: of 8 connections, requests a second went up and down
        by half.
        """
        super().accept(listener)
        if workers > 1:
            time.sleep(0.0002)


class logger_class(glogging.Logger):
    def access(self, *_) -> None:
        """Log nothing, and save the time to prepare a line: the application logs each request."""


def on_starting(server) -> None:
    """Stop with one line if the port is in use; gunicorn itself would try five times first.

    What a killed supervisor left lets go of the port within a second, so a little patience helps.
    """
    deadline = time.monotonic() + PORT_SECONDS
    while (error := listening_error()) and error.errno == errno.EADDRINUSE:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if error:
        problem = f"Cannot listen on {bind}: {error.strerror}."
        sys.exit(f"{problem} Is it running already? Choose another PORT or HOST.")


def listening_error() -> OSError | None:
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.HOST, settings.PORT))
        except OSError as error:
            return error
    return None


def when_ready(server) -> None:
    host = settings.HOST
    if host in ("127.0.0.1", "0.0.0.0", "::"):  # noqa: S104
        host = "localhost"
    url = f"http://{host}:{settings.PORT}{settings.URL_PREFIX}"
    with suppress(OSError):  # a full disk
        print(f"Ready: {url}/  (documentation: /api/docs)", flush=True)


def post_worker_init(worker) -> None:
    """Look for the broker now, if there is one: the first submit need not wait for its imports."""
    from images import broker  # not above, as below

    broker.is_up()


ERROR_CODES = {
    408: "request_timeout",
    500: "internal_error",
    503: "server_busy",
}


def write_json_error(client: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer what cannot reach the application, such as too long headers, like any other error."""
    import errors  # not above: after a reload it would still be the old one

    code = ERROR_CODES.get(status, "bad_request")
    error = {"status": "error", "message": errors.error_text(code, "zh"), "code": code}
    body = json.dumps(error, ensure_ascii=False).encode()
    lines = [
        f"HTTP/1.1 {status} {reason}",
        "Connection: close",
        "Cache-Control: no-store",
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; base-uri 'none';"
        " form-action 'none'",
        "X-Content-Type-Options: nosniff",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if status == 503:
        lines.append("Retry-After: 5")
    util.write_nonblock(client, "\r\n".join([*lines, "", ""]).encode() + body)


util.write_error = write_json_error
