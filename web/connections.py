"""How a web process receives requests: whole, before one of its threads works on them.

In gunicorn's own `gthread` worker a thread waits for what its client has yet to send, so that as
many half-sent requests as there are threads stop the process. Here the event loop of the worker
receives them, within limits of time, number and memory.

It imports nothing of the service: after a reload of gunicorn this module is still the old one.
"""

import errno
import re
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from gunicorn import util
from gunicorn.config import Config
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

IDLE_SECONDS = 10
HEAD_SECONDS = 10
BODY_SECONDS = 60
# What is sent at once, at most 256 KB of it, must be on its way by then. A client that stops to
# read, or hardly does, would otherwise hold one of the few threads for ever.
SEND_SECONDS = 60
# How long a client that was refused, or said goodbye to, may take to end what it is sending.
LINGER_SECONDS = 5
CHECK_SECONDS = 1

READ_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 8 * 1024
# What all unanswered requests of one process may hold.
MAX_RECEIVED_BYTES = 128 * 1024 * 1024

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*chunked[ \t]*\r\n", re.IGNORECASE)
EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")


class Connection(TConn):
    """A client's connection, and what has come of its next request."""

    def __init__(self, cfg: Config, sock: socket.socket, client: tuple, server: tuple):
        super().__init__(cfg, sock, client, server)
        self.data_ready = True  # before a thread gets it
        self.received = bytearray()
        self.begin(IDLE_SECONDS)

    def begin(self, idle_seconds: float) -> None:
        """Expect the first byte of a request within some seconds."""
        self.timeout = time.monotonic() + idle_seconds
        self.counted = 0
        self.searched = 0
        self.body_at = 0
        self.length = 0
        self.chunk_at = 0
        self.max_body_bytes: int | None = None
        self.expects_continue = False
        self.is_too_large = False
        self.is_closing = False

    def init(self) -> None:
        if not self.initialized:
            self.initialized = True
            self.parser = RequestParser(self.cfg, self, self.client)

    def recv(self, size: int) -> bytes:
        """Give gunicorn's parser what was received; for a thread there is never more to come."""
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def is_ready(self, max_body_bytes: Callable[[str, int | None], int]) -> bool:
        """Tell if a thread can answer: the request is whole, or will be refused as it is.

        The largest body that is worth waiting for depends on the head.
        """
        if not self.body_at and not self.has_head():
            return False
        if self.max_body_bytes is None and (self.length or self.chunk_at):
            head = self.received[: self.body_at].decode("latin-1")
            self.max_body_bytes = max_body_bytes(head, None if self.chunk_at else self.length)
        if self.chunk_at:
            is_whole = self.has_last_chunk()
            self.length = len(self.received) - self.body_at
        else:
            is_whole = len(self.received) >= self.body_at + self.length
        self.is_too_large = self.length > (self.max_body_bytes or 0)
        return is_whole or self.is_too_large

    def has_head(self) -> bool:
        end = self.received.find(b"\r\n\r\n", self.searched)
        if end < 0:
            self.searched = max(0, len(self.received) - 3)
            return False
        self.timeout = time.monotonic() + BODY_SECONDS
        if expected := EXPECT.search(self.received, 0, end + 2):
            first, past = expected.span()  # expected[0] would be cut from what is left
            del self.received[first:past]
            end -= past - first
        self.expects_continue = bool(expected)
        self.body_at = end + 4
        if found := CONTENT_LENGTH.search(self.received, 0, end + 2):
            self.length = int(found[1][:18])
        elif CHUNKED.search(self.received, 0, end + 2):
            self.chunk_at = self.body_at
        return True

    def has_last_chunk(self) -> bool:
        """Go on from chunk to chunk; tell if the body ends here, or is wrong and to be refused."""
        while (end := self.received.find(b"\r\n", self.chunk_at)) >= 0:
            found = CHUNK_SIZE.match(self.received, self.chunk_at)
            size = int(found[0], 16) if found else 0
            if not size:
                is_wrong = not found or len(self.received) - end > MAX_HEAD_BYTES
                return is_wrong or self.received.find(b"\r\n\r\n", end) >= 0
            following = end + 2 + size + 2
            if following > len(self.received):
                return False
            self.chunk_at = following
        return len(self.received) - self.chunk_at > MAX_CHUNK_LINE_BYTES


class Worker(ThreadWorker):
    """gunicorn's worker with threads; `receiving` are the connections that no thread works on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.receiving: dict[Connection, None] = {}  # the one that waits longest comes first
        self.received_bytes = 0
        self.next_check = 0.0

    def load_wsgi(self) -> None:
        super().load_wsgi()
        from web import hooks  # of the application that was just loaded

        self.max_body_bytes = partial(hooks.max_body_bytes, self.wsgi)

    # -- Connections come and go ----------------------------------------------------------------

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection; the one that waits longest makes room for it if there are many."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                return
            raise
        self.nr_conns += 1
        conn = Connection(self.cfg, sock, client, listener.getsockname())
        self.watch(conn)
        self.receive(conn, sock)  # mostly it is there already
        if self.nr_conns >= self.worker_connections and self.receiving:
            self.make_room(next(iter(self.receiving)))

    def watch(self, conn: Connection) -> None:
        conn.sock.setblocking(False)
        self.receiving[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.receive, conn))

    def unwatch(self, conn: Connection) -> None:
        del self.receiving[conn]
        self.poller.unregister(conn.sock)

    def drop(self, conn: Connection) -> None:
        self.unwatch(conn)
        self.nr_conns -= 1
        self.count_bytes(conn, 0)
        conn.close()

    def say_goodbye(self, conn: Connection) -> None:
        """End the connection, but read on for a while.

        A client that were cut off while it sends would never see the answer.
        """
        conn.is_closing = True
        conn.timeout = time.monotonic() + LINGER_SECONDS
        conn.received.clear()
        self.count_bytes(conn, 0)
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_WR)

    def refuse(self, conn: Connection, status: int, reason: str) -> None:
        """Answer a request that no thread will see."""
        with suppress(OSError):
            util.write_error(conn.sock, status, reason, "")
        self.say_goodbye(conn)

    # -- Requests are received ------------------------------------------------------------------

    def receive(self, conn: Connection, sock: socket.socket) -> None:
        """Take what there is to read; a thread gets the connection once the request is whole."""
        try:
            data = sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(conn)
        elif not conn.is_closing:
            if not conn.received:
                conn.timeout = time.monotonic() + HEAD_SECONDS
            conn.received += data
            self.advance(conn)

    def advance(self, conn: Connection) -> None:
        self.count_bytes(conn, len(conn.received))
        if conn.is_ready(self.max_body_bytes):
            self.unwatch(conn)
            self.enqueue_req(conn)
        elif not conn.body_at and len(conn.received) > MAX_HEAD_BYTES:
            self.refuse(conn, 431, "Request Header Fields Too Large")
        elif conn.expects_continue:
            conn.expects_continue = False
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.received_bytes > MAX_RECEIVED_BYTES:
            share = MAX_RECEIVED_BYTES / self.worker_connections
            large = (one for one in self.receiving if one.counted > share)
            self.make_room(next(large, None))

    def make_room(self, conn: Connection | None) -> None:
        if conn:
            self.refuse(conn, 503, "Service Unavailable")
            self.drop(conn)

    def count_bytes(self, conn: Connection, count: int) -> None:
        self.received_bytes += count - conn.counted
        conn.counted = count

    def murder_pending(self) -> None:
        """End what has taken too long; called by gunicorn's loop after each event."""
        now = time.monotonic()
        if now < self.next_check:
            return
        self.next_check = now + CHECK_SECONDS
        for conn in [one for one in self.receiving if one.timeout <= now]:
            if conn.received:
                self.refuse(conn, 408, "Request Timeout")
            else:
                self.drop(conn)

    # -- Requests are answered ------------------------------------------------------------------

    def handle_request(self, req: Request, conn: Connection) -> bool:
        if conn.is_too_large:
            req.force_close()  # the rest of the body was not received
        if conn.chunk_at:
            data = b"" if conn.is_too_large else req.body.read()
            set_body(req, data, conn.length if conn.is_too_large else len(data))
        conn.sock.settimeout(SEND_SECONDS)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            self.log.info("a client does not read its answer")
            return False

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        # What the application left unread of the body costs no waiting: all of it is there.
        return bool(keepalive and conn.parser.finish_body())

    def finish_request(self, conn: Connection, future: Future) -> None:
        """Wait for the next request of the connection, which may be there already, or end it."""
        self.count_bytes(conn, 0)
        is_kept = not future.cancelled() and not future.exception() and future.result()
        if conn.parser:
            conn.received[:0] = conn.parser.unreader.take_buffered()
        conn.begin(self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        try:
            self.watch(conn)
        except (OSError, ValueError):  # handle() has closed it
            self.receiving.pop(conn, None)
            self.nr_conns -= 1
            return
        if not is_kept:
            self.say_goodbye(conn)
        elif conn.received:
            conn.timeout = time.monotonic() + HEAD_SECONDS
            self.advance(conn)

    # -- The worker ends ------------------------------------------------------------------------

    def _cap_keepalive(self, deadline: float) -> None:
        """Begin the end: gunicorn calls this when it has stopped to accept connections."""
        for listener in self.sockets:
            listener.close()  # or the next server would find its port taken until the last answer
        for conn in self.receiving:
            if not conn.received:
                conn.timeout = min(conn.timeout, deadline)

    def murder_keepalived(self, force: bool = False) -> None:
        for conn in list(self.receiving) if force else ():
            self.drop(conn)


def set_body(req: Request, data: bytes, length: int) -> None:
    """Let a body that came in chunks look like one whose length was sent before it."""
    req.headers = [header for header in req.headers if header[0] != "TRANSFER-ENCODING"]
    req.headers.append(("CONTENT-LENGTH", str(length)))
    req.body = Body(LengthReader(IterUnreader([data]), length))
