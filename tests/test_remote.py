"""The HTTP client of the remote engines, against servers that answer byte by byte."""

import gzip
import http.client
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from urllib3 import exceptions
from werkzeug.serving import generate_adhoc_ssl_pair

from engines import EngineError, NoResponse, PermanentError, TransientError, remote
from tests.servers import free_port

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def serving(talk, tls=None, heads=None):
    """Run a server and yield its URL.

    After the head of a request has arrived, talk(connection) sends the response.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls:
        context.load_cert_chain(tls)

    def answer(connection):
        with (
            suppress(OSError),
            context.wrap_socket(connection, server_side=True) if tls else connection as connection,
        ):
            head = connection.recv(65536)
            if head:
                [] if heads is None else heads.append(head)
                talk(connection)

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http{'s' if tls else ''}://localhost:{listener.getsockname()[1]}"


def says(*pieces: bytes, end: bytes | None = None):
    """Send these pieces; then repeat `end` until the client leaves, or hang up if there is none."""

    def talk(connection):
        for piece in pieces:
            connection.sendall(piece)
        while end is not None:
            connection.sendall(end)
            time.sleep(0.01)

    return talk


def call(url: str, seconds: float = 5, **options) -> remote.RemoteResponse:
    return remote.Client(url).send("GET", "/", seconds, **options)


def failure(url: str, seconds: float = 5, **options) -> EngineError:
    with pytest.raises(EngineError) as caught:
        call(url, seconds, **options)
    return caught.value


# -- Answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
    ],
)
def test_answer_is_read_whole(answer):
    with serving(says(answer)) as url:
        got = call(url)

    assert (got.status, got.body, got.json()) == (200, b"{}", {})


def test_compressed_answer_is_unpacked():
    packed = gzip.compress(b"x" * 500_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)

    with serving(says(head, packed)) as url:
        assert call(url).body == b"x" * 500_000


def test_connection_is_kept_for_the_next_call():
    def twice(connection):
        connection.sendall(GOOD)
        connection.recv(65536)
        connection.sendall(GOOD)

    with serving(twice) as url:
        client = remote.Client(url)

        assert [client.send("GET", "/").status for _ in range(2)] == [200, 200]
        assert len(client.connections) == 1


def test_redirect_is_not_followed():
    with serving(says(b"HTTP/1.1 307 Go\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")) as url:
        assert call(url).status == 307


@pytest.mark.parametrize("body", [b"", b"<h1>", b"\xff", b"[" * 100_000])
def test_body_that_is_no_json_is_final(body):
    with pytest.raises(PermanentError) as caught:
        remote.RemoteResponse(200, {}, body).json()

    assert str(caught.value) == "engine_error: 200 without JSON"
    assert caught.value.__context__ is None


def test_answer_does_not_show_its_body():
    assert repr(remote.RemoteResponse(200, {"X": "secret"}, b"secret")) == "<RemoteResponse 200>"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("1.9", 1), ("0", 0), ("", None), ("-1", None), ("soon", None), ("9" * 30, None)],
)
def test_retry_after_is_understood(text, seconds):
    assert remote.parse_retry_after(text) == seconds


def test_retry_after_may_be_a_date():
    assert remote.parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert remote.parse_retry_after("Wed, 21 Oct 2099 07:28:00 GMT") > 10**9


# -- What breaks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "talk",
    [
        says(),
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
        says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
        says(b"nonsense\r\n\r\n"),
    ],
    ids=["no answer", "half a body", "half of the chunks", "not gzip", "not HTTP"],
)
def test_answer_that_breaks_off_is_none(talk):
    with serving(talk) as url:
        error = failure(url)

    assert isinstance(error, NoResponse)
    assert error.__context__ is None


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"]
)
def test_slow_answer_is_given_up(head):
    started = time.monotonic()

    with serving(says(head, end=b" " if head else b"")) as url:
        error = failure(url, 0.2)

    assert isinstance(error, NoResponse)
    assert time.monotonic() - started < 60


def test_answer_beyond_measure_is_final():
    with serving(says(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 2000)) as url:
        error = failure(url, max_bytes=1000)

    assert isinstance(error, PermanentError)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}", "http://nobody.invalid", "http://[", "gopher://x"]
)
def test_request_that_was_never_sent_is_known_as_such(url):
    error = failure(url.format(port=free_port()))

    assert isinstance(error, TransientError)
    assert not isinstance(error, NoResponse)
    assert error.__context__ is None


def broken_tls(cause: Exception) -> requests.RequestException:
    return requests.exceptions.SSLError(
        exceptions.MaxRetryError(None, "/", exceptions.SSLError(cause))
    )


@pytest.mark.parametrize(
    ("error", "never_sent"),
    [
        (broken_tls(ssl.SSLCertVerificationError("self-signed")), True),
        (broken_tls(ssl.SSLEOFError("ended without a good-bye")), False),
        (exceptions.SSLError(ssl.SSLError("bad record")), False),
        (requests.ReadTimeout(), False),
        (requests.ConnectTimeout(), True),
        (
            requests.exceptions.ProxyError(
                exceptions.MaxRetryError(None, "/", exceptions.ProxyError("", OSError()))
            ),
            True,
        ),
        *[
            (
                requests.exceptions.ProxyError(
                    exceptions.MaxRetryError(None, "/", exceptions.ProxyError("", cause))
                ),
                False,
            )
            for cause in (http.client.RemoteDisconnected(), ConnectionResetError(), TimeoutError())
        ],
    ],
)
def test_only_what_cannot_have_arrived_was_never_sent(error, never_sent):
    assert remote.was_never_sent(error) == never_sent


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate for localhost, and its key, in a file."""
    certificate, key = generate_adhoc_ssl_pair("localhost")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file


@pytest.fixture
def trusted(tls, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls))
    return tls


def test_server_without_a_certificate_we_trust_hears_nothing(tls):
    heard = []

    with serving(heard.append, tls) as url:
        error = failure(url)

    assert type(error) is TransientError
    assert heard == []


def test_tls_that_ends_without_a_good_bye_leaves_the_outcome_open(trusted):
    heard = []

    with serving(heard.append, trusted) as url:
        error = failure(url)

    assert isinstance(error, NoResponse)
    assert len(heard) == 1


# -- Breaking off -------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
    ids=["before the answer", "within it"],
)
def test_close_breaks_off_what_is_under_way(request, head, secure):
    reached, left, ended = (threading.Event() for _ in range(3))

    def wait(connection):
        connection.sendall(head)
        reached.set()
        connection.recv(100)
        left.set()

    with serving(wait, request.getfixturevalue("trusted") if secure else None) as url:
        client = remote.Client(url)
        in_thread(lambda: client.send("GET", "/", 60), ended)
        assert reached.wait(10)

        client.close()

        assert left.wait(10)
        assert ended.wait(10)


def in_thread(task, ended: threading.Event) -> None:
    def run():
        with pytest.raises(NoResponse):
            task()
        ended.set()

    threading.Thread(target=run, daemon=True).start()


def test_connection_made_after_the_close_is_not_used():
    heard = []

    with serving(heard.append) as url:
        client = remote.Client(url)
        client.close()
        with pytest.raises(TransientError):
            client.send("GET", "/")

    assert heard == []


def test_address_that_may_not_be_reached_hears_nothing():
    with socket.create_server(("127.0.0.1", 0)) as private:
        client = remote.Client(
            f"https://localhost:{private.getsockname()[1]}",
            is_allowed_address=lambda address: False,
        )

        with pytest.raises(PermanentError, match="an address that is not allowed"):
            client.send("GET", "/")

        assert private.accept()[0].recv(100) == b""


def test_waiting_ends_at_once_with_what_the_tick_raises():
    over = threading.Event()

    with pytest.raises(KeyError):
        remote.run_with_progress(lambda: over.wait(60), {}.popitem, interval_seconds=0.01)

    over.set()


@pytest.mark.parametrize("call", [lambda: 7, lambda: {}["x"]])
def test_waiting_gives_what_the_call_gives(call):
    try:
        assert remote.run_with_progress(call, lambda: None) == 7
    except KeyError as error:
        assert error.args == ("x",)


# -- Keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "a\r\nX: y", "clé", "\x7f"])
def test_key_that_cannot_be_sent_is_refused_without_being_quoted(monkeypatch, key):
    monkeypatch.setenv("FAKE_KEY", key)

    with pytest.raises(PermanentError) as caught:
        remote.bearer_auth("FAKE_KEY")

    assert caught.value.code == "engine_account"
    assert not key or key not in str(caught.value)


def test_passwords_of_netrc_are_not_sent(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine localhost login somebody password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    heads = []

    with serving(lambda connection: connection.sendall(GOOD), heads=heads) as url:
        call(url)

    assert b"authorization" not in heads[0].lower()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("invalid_size", "invalid_size"),
        ("a.b-c", "a.b-c"),
        ("a b", ""),
        ("狐", ""),
        ("x" * 65, ""),
        (None, ""),
        (7, ""),
    ],
)
def test_only_short_names_of_the_server_are_kept(value, kept):
    assert remote.identifier(value) == kept
