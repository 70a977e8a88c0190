"""What the engines that speak HTTP share: a careful client, and waiting without going deaf.

Nothing a server says and no address gets into the text of an error: keys and prompts could be in it.
"""

import json
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3 import exceptions
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

import config
from engines import NoResponse, PermanentError, TransientError

CONNECT_SECONDS = 5
MAX_ANSWER_BYTES = 100 * 1024 * 1024

Result = TypeVar("Result")


class Answer(NamedTuple):
    """What a server answered; the body is read whole."""

    status: int
    headers: Any
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"

    def json(self) -> Any:
        """Return the body as JSON. Raises PermanentError."""
        # Not raised inside `except`: that error has the body, and would go along as the context of ours.
        with suppress(ValueError, RecursionError):
            return json.loads(self.body)
        raise PermanentError("engine_error", f"{self.status} without JSON")

    @property
    def retry_after(self) -> int | None:
        return seconds_of(self.headers.get("Retry-After", ""))


def seconds_of(retry_after: str) -> int | None:
    """Return the seconds a Retry-After header says, as a number or as a date; None if it says nothing."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", retry_after):
        return int(float(retry_after))
    try:
        return max(0, int(parsedate_to_datetime(retry_after).timestamp() - time.time()))
    except (ValueError, TypeError, OverflowError):
        return None


class Server:
    """One remote server, for one job. Close it to break off whatever is under way, in any thread.

    `may_reach` is asked about the address of each connection, before a byte is sent; a proxy's is not asked about.
    """

    def __init__(
        self,
        base_url: str,
        authorize: Callable[[Any], Any] = lambda request: request,
        may_reach: Callable[[str], bool] = lambda address: True,
    ):
        # At DEBUG it logs addresses, and what is signed about them.
        logging.getLogger("urllib3").setLevel(logging.INFO)
        self.base_url, self.may_reach = base_url, may_reach
        self.connections: list[socket.socket] = []
        self.is_closed = False
        self.session = requests.Session()
        # Set even if it does nothing: requests would otherwise send what ~/.netrc has for the host.
        self.session.auth = authorize
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, watched_by(self))

    def call(
        self,
        method: str,
        path: str,
        read_seconds: float = 30,
        limit: int = MAX_ANSWER_BYTES,
        **options: Any,
    ) -> Answer:
        """Send one request, once, and return its answer whatever the status; redirects are not followed.

        Raises TransientError if the request was never sent, NoResponse if it may have arrived, PermanentError for an answer
        beyond all measure.
        """
        until = time.monotonic() + read_seconds
        try:
            with self.session.request(
                method,
                self.base_url + path,
                timeout=(CONNECT_SECONDS, read_seconds),
                allow_redirects=False,
                stream=True,
                **options,
            ) as response:
                return Answer(
                    response.status_code, response.headers, read_body(response, until, limit)
                )
        except (requests.RequestException, exceptions.HTTPError) as error:
            kind = TransientError if was_never_sent(error) else NoResponse
            failure = kind("engine_unavailable", type(error).__name__)
        # Not raised inside `except`: that error has the address, and would go along as the context of ours.
        raise failure

    def get_json(self, path: str, **options: Any) -> Any:
        """Return the JSON of a good answer. Raises as call() and raise_for_status() do."""
        answer = self.call("GET", path, **options)
        raise_for_status(answer)
        return answer.json()

    def connected(self, connection: socket.socket) -> None:
        self.connections.append(connection)
        if self.is_closed:
            self.close()

    def close(self) -> None:
        self.is_closed = True
        for connection in self.connections:
            # Closing it would not wake the thread that waits for it. Past SSLSocket, which would forget its keys.
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.session.close()


def watched_by(server: Server) -> HTTPAdapter:
    """Return what makes the connections of a session and lets the server know them; those to a proxy stay unknown."""

    def watched(kind: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        class Connection(kind.ConnectionCls):
            def _new_conn(self) -> socket.socket:
                # The address really reached: a name may mean another by now than when somebody looked it up.
                connection = super()._new_conn()
                if not server.may_reach(connection.getpeername()[0]):
                    connection.close()
                    raise PermanentError("engine_error", "an address that is not allowed")
                return connection

            def connect(self) -> None:
                super().connect()
                server.connected(self.sock)

        return type(kind.__name__, (kind,), {"ConnectionCls": Connection})

    adapter = HTTPAdapter()
    kinds = (HTTPConnectionPool, HTTPSConnectionPool)
    adapter.poolmanager.pool_classes_by_scheme = {kind.scheme: watched(kind) for kind in kinds}
    return adapter


def read_body(response: requests.Response, until: float, limit: int = MAX_ANSWER_BYTES) -> bytes:
    """Read a body of at most `limit` bytes before the time is up, however slowly it drips."""
    pieces, size = [], 0
    # Not iter_content(): that waits until a piece is full.
    while piece := response.raw.read1(65536, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise PermanentError("engine_error", f"an answer of more than {limit} bytes")
        if time.monotonic() > until:
            raise requests.ReadTimeout
    return b"".join(pieces)


def was_never_sent(error: Exception) -> bool:
    """Tell if the connection was not even made: no address, refused, no trust in it, no way through the proxy."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, exceptions.SSLError):
        # Any other may also come later, such as a connection that ends without a good-bye.
        return isinstance(reason.args[0], ssl.SSLCertVerificationError)
    never = (exceptions.NewConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyError)
    refused_here = (
        requests.ConnectTimeout,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
    )
    return isinstance(error, refused_here) or isinstance(reason, never)


def raise_for_status(answer: Answer, detail: str = "") -> None:
    """Raise what an HTTP status means for a job; `detail` says more, in words that are safe to log."""
    status, detail = answer.status, f"{answer.status} {detail}".strip()
    if status < 300:
        return
    if status == 429:
        raise TransientError("engine_busy", detail, answer.retry_after)
    if status in (401, 402, 403):
        raise PermanentError("engine_account", detail)
    if status == 408 or status >= 500:
        raise TransientError("engine_unavailable", detail, answer.retry_after)
    raise PermanentError("engine_refused" if status >= 400 else "engine_error", detail)


def word(value: Any) -> str:
    """Return a server's own short name for something, such as an error code; "" for anything longer or stranger."""
    return (
        value if isinstance(value, str) and re.fullmatch(r"[\w.-]{1,64}", value, re.ASCII) else ""
    )


def bearer(variable: str) -> Callable[[Any], Any]:
    """Return what adds the key in this environment variable to a request. Raises PermanentError if it is not set."""
    key = secret(variable)
    # Such a key could not be sent, and the error would quote it.
    if not re.fullmatch(r"[!-~]*", key):
        raise PermanentError(
            "engine_account", f"{variable} holds a space or a character that no key has"
        )

    def authorize(request: Any) -> Any:
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    return authorize


def basic(username: str, variable: str) -> Callable[[Any], Any]:
    """Return what adds user name and password to a request, if there is a user name. Raises PermanentError."""
    if not username:
        return lambda request: request
    return HTTPBasicAuth(username.encode(), secret(variable).encode())


def secret(variable: str) -> str:
    value = config.secret(variable) if variable else ""
    if variable and not value:
        raise PermanentError("engine_account", f"{variable} is not set")
    return value


def while_waiting(
    call: Callable[[], Result], tick: Callable[[], None], seconds: float = 0.5
) -> Result:
    """Return what call() returns, which runs in a thread, and call tick() every so many seconds meanwhile.

    What tick raises goes up at once; the caller then breaks the call off, by closing its server.
    """
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([future], timeout=seconds).done:
        tick()
    return future.result()
