"""What the HTTP engines share: a client with strict limits, authentication, progress while waiting.

No error message contains a URL or text from a response body: both may hold an API key or a prompt.
"""

import base64
import io
import json
import logging
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import select_proxy
from urllib3 import PoolManager, exceptions
from urllib3.connectionpool import HTTPConnectionPool

import config
from engines import NoResponse, PermanentError, TransientError, addresses
from engines.catalog import MAX_SEED
from engines.options import OpenAIImages

CONNECT_TIMEOUT_SECONDS = 5
MAX_RESPONSE_BYTES = 100 * 1024 * 1024
# Of a picture: four channels that no compression makes smaller, as base64 text.
BYTES_PER_PIXEL = 6

IDENTIFIER = re.compile(r"[\w.-]{1,64}", re.ASCII)
CHARSET = re.compile(r"charset=\W*([\w.:-]+)", re.IGNORECASE | re.ASCII)
LINE_BREAKS = re.compile(r"\s*[\r\n]\s*")
BASE64_URL_SAFE = str.maketrans("-_", "+/")

# Errors that occur before a connection exists, as urllib3 and as requests report them.
CONNECTION_FAILED = (
    exceptions.NewConnectionError,
    exceptions.ConnectTimeoutError,
)
REQUEST_NOT_SENT = (
    requests.ConnectTimeout,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)

Result = TypeVar("Result")
# Adds credentials to a request, as the `auth` of a requests session does.
Auth = Callable[[Any], Any]
ReportProgress = Callable[[], None]


# -- Responses ----------------------------------------------------------------------------------


class RemoteResponse(NamedTuple):
    """A response of a remote server, with the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<RemoteResponse {self.status}>"

    def json(self) -> Any:
        """Return the body, parsed as JSON. Raises PermanentError if it is not JSON."""
        with suppress(ValueError, RecursionError):
            return json.loads(self.text())
        # Raised outside of an `except` block: the JSON error quotes the body, and would be
        # attached to this one as its __context__.
        raise PermanentError("engine_error", f"{self.status} without JSON")

    def text(self) -> str:
        """Return the body as text: as JSON is encoded, or else as the headers say."""
        charset = CHARSET.search(self.headers.get("Content-Type", ""))
        named = charset.group(1) if charset else "utf-8"
        for encoding in (json.detect_encoding(self.body), named):
            with suppress(LookupError, ValueError):
                return self.body.decode(encoding)
        return self.body.decode(errors="replace")

    @property
    def retry_after(self) -> int | None:
        header = self.headers.get("Retry-After", "")
        return parse_retry_after(header)


def max_picture_bytes() -> int:
    """Return how large a response may be that holds a picture: enough for each that is taken."""
    return BYTES_PER_PIXEL * config.settings.MAX_RESULT_PIXELS


def parse_retry_after(value: str) -> int | None:
    """Return the seconds to wait by a Retry-After header, a number or a date; None if invalid."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value):
        return int(float(value))
    try:
        retry_at = parsedate_to_datetime(value).timestamp()
        return max(0, int(retry_at - time.time()))
    except (ValueError, TypeError, OverflowError):
        return None


def raise_for_status(response: RemoteResponse, detail: str = "") -> None:
    """Raise the EngineError for an HTTP error status.

    `detail` is added to the error's own detail, which is logged: it must not hold a secret.
    """
    status = response.status
    detail = f"{status} {detail}".strip()
    if status < 300:
        return
    if status == 429:
        raise TransientError("engine_busy", detail, response.retry_after)
    if status in (401, 402, 403):
        raise PermanentError("engine_account", detail)
    if status == 408 or status >= 500:
        raise TransientError("engine_unavailable", detail, response.retry_after)
    if status >= 400:
        raise PermanentError("engine_refused", detail)
    raise PermanentError("engine_error", detail)


def identifier(value: Any) -> str:
    """Return an identifier sent by a server, such as an error code; "" if it is not a short one.

    Any other text of a server may quote the prompt, and must not be logged.
    """
    if isinstance(value, str) and IDENTIFIER.fullmatch(value):
        return value
    return ""


def as_dict(value: Any) -> dict:
    """Return a JSON value that should be an object; {} if it is not one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list:
    """Return a JSON value that should be an array; [] if it is not one."""
    return value if isinstance(value, list) else []


def decode_base64(text: Any) -> bytes:
    """Return the bytes of base64 text, or of a data: URL. Raises PermanentError.

    Padding may be missing, line breaks are ignored, and both alphabets are understood.
    """
    data = b""
    if isinstance(text, str):
        if text[:5].lower() == "data:":
            text = unquote(text.partition(",")[2])
        # The text may have hundreds of MB, so it is copied only if it must be.
        text = text.strip()
        if "\n" in text or "\r" in text:
            text = LINE_BREAKS.sub("", text)
        if "-" in text or "_" in text:
            text = text.translate(BASE64_URL_SAFE)
        text = text.rstrip("=")
        padding = "=" * (-len(text) % 4)
        with suppress(ValueError):
            data = base64.b64decode(text + padding, validate=True)
    if not data:
        raise PermanentError("bad_picture", "not base64")
    return data


def is_seed(value: Any) -> bool:
    """Tell whether a value that a server calls the seed is one that a record can hold."""
    is_integer = type(value) is int
    return is_integer and 0 <= value <= MAX_SEED


# -- The client ---------------------------------------------------------------------------------


def no_auth(request: Any) -> Any:
    """Add no credentials to a request."""
    return request


def any_address(address: str) -> bool:
    """Allow connections to every IP address."""
    return True


class Client:
    """An HTTP client for one server, used for one job.

    close() aborts the requests in progress, in whichever thread they run. `is_allowed_address`
    is called with the IP address of each new connection, before anything is sent over it. Where
    the environment names a proxy, that is asked for the address that was checked, not for a name
    that it could resolve to another one.
    """

    def __init__(
        self,
        base_url: str,
        auth: Auth = no_auth,
        is_allowed_address: Callable[[str], bool] = any_address,
    ):
        # At level DEBUG, urllib3 logs URLs including signatures in the query string.
        logging.getLogger("urllib3").setLevel(logging.INFO)
        self.base_url = base_url
        self.is_allowed_address = is_allowed_address
        self.connections: list[socket.socket] = []
        self.is_closed = False
        self.session = requests.Session()
        # Set even if it adds nothing: without it, requests sends the credentials that ~/.netrc
        # has for the host.
        self.session.auth = auth
        self.session.mount("http://", Adapter(self))
        self.session.mount("https://", Adapter(self))

    def send(
        self,
        method: str,
        path: str,
        timeout_seconds: float = 30,
        max_bytes: int = MAX_RESPONSE_BYTES,
        **options: Any,
    ) -> RemoteResponse:
        """Send one request and return its response, whatever the status.

        There are no retries, and redirects are not followed. `timeout_seconds` limits the wait
        for the response and then the time until its body is complete. Raises TransientError if
        the request was never sent, NoResponse if it may have arrived, and PermanentError if the
        response is larger than max_bytes.
        """
        deadline = time.monotonic() + timeout_seconds
        url = self.base_url + path
        proxy = addresses.proxy_for(url)
        try:
            with self.session.request(
                method,
                url,
                proxies={"http": proxy, "https": proxy},
                timeout=(CONNECT_TIMEOUT_SECONDS, timeout_seconds),
                allow_redirects=False,
                stream=True,
                **options,
            ) as response:
                body = read_body(response, deadline, max_bytes)
                return RemoteResponse(response.status_code, response.headers, body)
        except (requests.RequestException, exceptions.HTTPError) as error:
            error_class = TransientError if was_never_sent(error) else NoResponse
            failure = error_class("engine_unavailable", name_of(error))
        # Raised outside of the `except` block: the original error holds the URL, and would be
        # attached to this one as its __context__.
        raise failure

    def get_json(self, path: str, **options: Any) -> Any:
        """GET a JSON document. Raises as send() and raise_for_status() do."""
        response = self.send("GET", path, **options)
        raise_for_status(response)
        return response.json()

    def auth_headers(self) -> dict[str, str]:
        """Return the authentication headers, for a connection that this client does not make."""
        request = self.session.auth(requests.Request())
        return request.headers

    def add_connection(self, connection: socket.socket) -> None:
        self.connections.append(connection)
        if self.is_closed:
            self.close()

    def close(self) -> None:
        """Abort all requests in progress and refuse new connections."""
        self.is_closed = True
        for connection in self.connections:
            # close() would not wake a thread that is blocked in recv(). The method of the base
            # class, because SSLSocket.shutdown() would also discard the TLS state in use there.
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self.session.close()


class Adapter(HTTPAdapter):
    """A transport adapter that registers connections with a client, and checks their addresses."""

    def __init__(self, client: Client):
        super().__init__()
        self.client = client
        track(self.poolmanager, client, client.is_allowed_address)

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if is_new:
            # The connection itself leads to the proxy, which the operator chose.
            track(manager, self.client, any_address)
        return manager

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str,
        proxies: Any = None,
        cert: Any = None,
    ) -> HTTPConnectionPool:
        proxy = select_proxy(request.url, proxies)
        is_checked = self.client.is_allowed_address is not any_address
        if not proxy or not is_checked:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        if not request.url.startswith("https:"):
            raise PermanentError("engine_error", "no TLS through a proxy")
        target, tls = self.build_connection_pool_key_attributes(request, verify, cert)
        name = target["host"]
        # The proxy is asked for the address, but certificate and Host are still those of the name.
        target["host"] = self.allowed_address(name)
        tls |= {"assert_hostname": name, "server_hostname": name}
        request.headers["Host"] = urlsplit(request.url).netloc
        return self.proxy_manager_for(proxy).connection_from_host(**target, pool_kwargs=tls)

    def allowed_address(self, host: str) -> str:
        """Return an address of the host. Raises PermanentError if one of them is not allowed."""
        found = []
        with suppress(OSError, UnicodeError):
            found = addresses.resolve(host.strip("[]"))
        if not found:
            raise TransientError("engine_unavailable", "a name that does not resolve here")
        if not all(self.client.is_allowed_address(address) for address in found):
            raise PermanentError("engine_error", "an address that is not allowed")
        return f"[{found[0]}]" if ":" in found[0] else found[0]


def track(
    manager: PoolManager,
    client: Client,
    is_allowed_address: Callable[[str], bool],
) -> None:
    """Let a pool manager register its connections with the client, and check their addresses."""
    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {
        scheme: tracking_pool(pool_class, client, is_allowed_address)
        for scheme, pool_class in classes.items()
    }


def tracking_pool(
    pool_class: type[HTTPConnectionPool],
    client: Client,
    is_allowed_address: Callable[[str], bool],
) -> type[HTTPConnectionPool]:
    """Return a connection pool class like this one, for the connections of one client."""

    class TrackedConnection(pool_class.ConnectionCls):
        def _new_conn(self) -> socket.socket:
            connection = super()._new_conn()
            # The address of the connection itself: looking the host name up a second time could
            # give another one (DNS rebinding).
            address = connection.getpeername()[0]
            if not is_allowed_address(address):
                connection.close()
                raise PermanentError("engine_error", "an address that is not allowed")
            return connection

        def connect(self) -> None:
            super().connect()
            client.add_connection(self.sock)

    class TrackedPool(pool_class):
        ConnectionCls = TrackedConnection

    return TrackedPool


def read_body(response: requests.Response, deadline: float, max_bytes: int) -> bytes:
    """Read a body of at most max_bytes until the deadline, even if it arrives byte by byte."""
    body = io.BytesIO()
    # iter_content() would block until a whole chunk has arrived, past the deadline.
    while chunk := response.raw.read1(65536, decode_content=True):
        body.write(chunk)
        if body.tell() > max_bytes:
            raise PermanentError("engine_error", f"an answer of more than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise requests.ReadTimeout
    return body.getvalue()


def name_of(error: Exception) -> str:
    """Return a name for the log; the text of the error may hold the URL."""
    if isinstance(error, exceptions.DecodeError):
        return "a body that is not what its Content-Encoding says"
    if isinstance(error, requests.exceptions.InvalidSchema) and "SOCKS" in str(error):
        return "a SOCKS proxy needs the package PySocks"
    return type(error).__name__


def was_never_sent(error: Exception) -> bool:
    """Tell whether a request failed before it was sent, so that nothing can have come of it.

    True if the host name did not resolve, the connection was refused, the certificate is not
    trusted, or the proxy could not connect.
    """
    # requests wraps urllib3's MaxRetryError, whose `reason` is the original error.
    wrapped = error.args[0] if error.args else None
    reason = getattr(wrapped, "reason", None)
    if isinstance(reason, exceptions.ProxyError):
        # urllib3 also reports a connection that broke after the request as one. A proxy that does
        # not open the tunnel is a plain OSError.
        reason = reason.original_error
        return type(reason) is OSError or isinstance(reason, CONNECTION_FAILED)
    if isinstance(reason, exceptions.SSLError):
        # Any other TLS error may also occur after the request was sent, for example when the
        # connection ends without a close_notify.
        return isinstance(reason.args[0], ssl.SSLCertVerificationError)
    return isinstance(error, REQUEST_NOT_SENT) or isinstance(reason, CONNECTION_FAILED)


# -- Authentication -----------------------------------------------------------------------------


def bearer_auth(variable: str, header: str = "Authorization", prefix: str = "Bearer ") -> Auth:
    """Return an auth that sends the API key in this environment variable, as a bearer token.

    Some servers have a header of their own for it. Without a variable it sends nothing. Raises
    PermanentError if the variable is not set.
    """
    key = read_secret(variable)
    # http.client would refuse such a header with an error message that quotes the key.
    if not re.fullmatch(r"[!-~]*", key):
        detail = f"{variable} holds a space or a character that no key has"
        raise PermanentError("engine_account", detail)

    def auth(request: Any) -> Any:
        if key:
            request.headers[header] = prefix + key
        return request

    return auth


def api_auth(options: OpenAIImages) -> Auth:
    """Return an auth that sends the API key and the additional headers of these options."""
    key_auth = bearer_auth(options.api_key_env, options.api_key_header, options.key_prefix)

    def auth(request: Any) -> Any:
        request.headers.update(options.headers)
        return key_auth(request)

    return auth


def basic_auth(username: str, variable: str) -> Auth:
    """Return an auth that sends a user name, and the password in this environment variable.

    Without a user name it sends nothing. Raises PermanentError if the variable is not set.
    """
    if not username:
        return no_auth
    password = read_secret(variable)
    return HTTPBasicAuth(username.encode(), password.encode())


def read_secret(variable: str) -> str:
    if not variable:
        return ""
    value = config.secret(variable)
    if not value:
        raise PermanentError("engine_account", f"{variable} is not set")
    return value


# -- Progress while waiting ---------------------------------------------------------------------


def run_with_progress(
    task: Callable[[], Result],
    report_progress: ReportProgress,
    interval_seconds: float = 0.5,
    timeout_seconds: float = math.inf,
) -> Result:
    """Run task() in a thread and return its result; meanwhile call report_progress() regularly.

    An exception from report_progress(), such as a cancel, is raised at once, while the thread
    still runs; so is NoResponse after timeout_seconds. The caller must then abort its request, by
    closing the client.
    """
    deadline = time.monotonic() + timeout_seconds
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(task())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([future], timeout=interval_seconds).done:
        report_progress()
        if time.monotonic() > deadline:
            raise NoResponse("engine_unavailable", "no whole answer in time")
    return future.result()
