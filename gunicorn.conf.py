"""How gunicorn serves the API. The values that one may want to change come from config.py."""

import socket
import sys
import time

from gunicorn import glogging, util
from gunicorn.workers.gthread import ThreadWorker

import logs
from config import load

settings = load()
is_ipv6 = ":" in settings.HOST

wsgi_app = "app:app"
bind = f"[{settings.HOST}]:{settings.PORT}" if is_ipv6 else f"{settings.HOST}:{settings.PORT}"
workers = settings.WEB_WORKERS
# Threads are created on demand. There are many because those of a burst of log-ins only wait.
threads = settings.WEB_THREADS
keepalive = 5
graceful_timeout = 30
# It is one fixed file in the home directory, which all services of the same user would share.
control_socket_disable = True
# The application finds the client's address itself, by TRUSTED_PROXIES.
forwarded_allow_ips = ""
logconfig_dict = logs.dict_config()


class worker_class(ThreadWorker):
    def accept(self, listener) -> None:
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
    """Stop with one line if the port is in use; gunicorn itself would try five times first."""
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.HOST, settings.PORT))
        except OSError as error:
            problem = f"Cannot listen on {bind}: {error.strerror}."
            sys.exit(f"{problem} Is it running already? Choose another PORT or HOST.")


def when_ready(server) -> None:
    host = settings.HOST
    if host in ("127.0.0.1", "0.0.0.0", "::"):  # noqa: S104
        host = "localhost"
    url = f"http://{host}:{settings.PORT}"
    print(f"Ready: {url}/api/health  (documentation: /api/docs)", flush=True)


def write_json_error(client, status: int, reason: str, detail: str) -> None:
    """Answer what cannot reach the application, such as too long headers, like any other error."""
    body = '{"status":"error","message":"请求无效","code":"bad_request"}\n'.encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    util.write_nonblock(client, head.encode() + body)


util.write_error = write_json_error
