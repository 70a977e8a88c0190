"""How gunicorn serves the API; every value that one may want to change comes from config.py."""

import socket
import sys
import time

from gunicorn import glogging, util
from gunicorn.workers.gthread import ThreadWorker

import logs
from config import load

settings = load()

wsgi_app = "app:app"
bind = (
    f"[{settings.HOST}]:{settings.PORT}"
    if ":" in settings.HOST
    else f"{settings.HOST}:{settings.PORT}"
)
workers = settings.WEB_WORKERS
# Threads are made as they are needed. There are many because those of a burst of log-ins only wait.
threads = settings.WEB_THREADS
keepalive = 5
graceful_timeout = 30
# Its one fixed place in the home directory would be shared by every service of the same user.
control_socket_disable = True
# app.py works out the client's address itself, from TRUSTED_PROXIES.
forwarded_allow_ips = ""
logconfig_dict = logs.dict_config()


class worker_class(ThreadWorker):
    def accept(self, listener) -> None:
        """Accept a connection, and give another worker time to take the next one.

        Of eight that a page or a proxy opens at once, and keeps, one worker would often get all, and the others none.
        """
        super().accept(listener)
        if workers > 1:
            time.sleep(0.0002)


class logger_class(glogging.Logger):
    def access(self, *_) -> None:
        """Write nothing, for which gunicorn would make ready a line: app.py writes one for each request."""


def on_starting(server) -> None:
    """Say plainly that the port is taken, before gunicorn tries five times."""
    family = socket.AF_INET6 if ":" in settings.HOST else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.HOST, settings.PORT))
        except OSError as error:
            sys.exit(
                f"Cannot listen on {bind}: {error.strerror}. Is it running already? Choose another PORT or HOST."
            )


def when_ready(server) -> None:
    host = "localhost" if settings.HOST in ("127.0.0.1", "0.0.0.0", "::") else settings.HOST  # noqa: S104
    print(
        f"Ready: http://{host}:{settings.PORT}/api/health  (documentation: /api/docs)", flush=True
    )


def write_json_error(client, status: int, reason: str, detail: str) -> None:
    """Answer what never reached the application, such as headers too long, in the shape of every other error."""
    body = '{"status":"error","message":"请求无效","code":"bad_request"}\n'.encode()
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    util.write_nonblock(client, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


util.write_error = write_json_error
