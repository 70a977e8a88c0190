"""web/connections.py: requests that never end, arrive in pieces, or are too large."""

import json
import os
import signal
import socket
import sqlite3
import time
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import requests

from tests.conftest import form
from tests.servers import ROOT, Service, wait_until

HEAD = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
UPLOAD = b"POST /api/auth/register HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
LOGIN = b'{"username": "nobody", "password": "secret1"}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(LOGIN) + LOGIN
IN_CHUNKS = (
    HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n%x;x=y\r\n" % 9
    + LOGIN[:9]
    + b"\r\n%X\r\n" % len(LOGIN[9:])
    + LOGIN[9:]
    + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
)
NEVER_ENDING = {
    "nothing": b"",
    "half a line": b"GET /api/hea",
    "half a head": b"GET /api/health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    "half a body": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "half an upload": UPLOAD + b"Content-Length: 5000000\r\n\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{",
    "no last chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n",
    "half a trailer": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: \r\n",
    "an awaited body": HEAD + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
}


def connect(service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


def read_answer(stream) -> tuple[int, dict[str, str], dict]:
    """Read one answer from a connection, and return its status, its headers and its JSON."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name] = value.strip()
    return status, headers, json.loads(stream.read(int(headers["Content-Length"])))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The service with two threads."""
    data_dir = tmp_path_factory.mktemp("data")
    settings = {"WEB_THREADS": "2", "LOGIN_FAILURES_PER_ACCOUNT": "1000"}
    server = Service(data_dir, PASSWORD_HASH="pbkdf2:sha256:1000", **settings).start()
    yield server
    server.stop()


@pytest.fixture
def live_with(monkeypatch, tmp_path):
    """Start the service with other limits: `live_with("HEAD_SECONDS = 0.5")`."""
    started = []

    def start(*limits: str, options: str = ""):
        lines = ["import web.connections", *(f"web.connections.{limit}" for limit in limits)]
        lines.append(f"exec(open({str(ROOT / 'gunicorn.conf.py')!r}).read())")
        (tmp_path / "limits.conf.py").write_text("\n".join(lines))
        monkeypatch.setenv("GUNICORN_CMD_ARGS", f"-c {tmp_path}/limits.conf.py {options}")
        started.append(Service(tmp_path).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


# -- Requests that never end --------------------------------------------------------------------


@pytest.mark.parametrize("sent", NEVER_ENDING.values(), ids=NEVER_ENDING)
def test_requests_that_never_end_take_no_thread(service, sent):
    slow = [connect(service) for _ in range(20)]
    for connection in slow:
        connection.sendall(sent)

    response = requests.get(f"{service.url}/api/health", timeout=10)

    assert response.status_code == 200
    for connection in slow:
        connection.close()


def test_who_does_not_close_a_connection_that_has_ended_holds_up_nobody(service):
    ended = [connect(service) for _ in range(20)]
    for connection in ended:
        connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert all(connection.recv(20).startswith(b"HTTP/1.1 200") for connection in ended)

    started = time.monotonic()
    requests.get(f"{service.url}/api/health", timeout=30)

    assert time.monotonic() - started < 2  # each of them would take as long in the event loop
    for connection in ended:
        connection.close()


@pytest.mark.parametrize("kind", ["half a head", "half a body", "no last chunk"])
def test_a_request_that_takes_too_long_is_a_408(live_with, kind):
    service = live_with("HEAD_SECONDS = 0.5", "BODY_SECONDS = 0.5")

    with connect(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(NEVER_ENDING[kind])
        status, headers, body = read_answer(stream)

        assert (status, body["code"]) == (408, "request_timeout")
        assert headers["Connection"] == "close"
        assert stream.read() == b""


def test_who_says_nothing_is_told_nothing(live_with):
    service = live_with("IDLE_SECONDS = 0.5")

    with connect(service) as connection:
        assert connection.recv(1) == b""


def test_the_connection_that_waits_longest_makes_room(live_with):
    service = live_with(options="--worker-connections 10")
    slow = [connect(service) for _ in range(30)]
    for connection in slow:
        connection.sendall(NEVER_ENDING["half a head"])

    response = requests.get(f"{service.url}/api/health", timeout=10)

    with slow[0].makefile("rb") as stream:
        status, headers, body = read_answer(stream)
    assert response.status_code == 200
    assert (status, body["code"], headers["Retry-After"]) == (503, "server_busy", "5")
    for connection in slow:
        connection.close()


def test_large_bodies_make_room_for_each_other(live_with):
    service = live_with("MAX_RECEIVED_BYTES = 10_000_000", options="--worker-connections 100")
    slow = [connect(service) for _ in range(6)]
    small = connect(service)
    small.sendall(WHOLE[:-1])
    for connection in slow:
        connection.sendall(UPLOAD + b"Content-Length: 5000000\r\n\r\n" + b"x" * 3_000_000)

    with slow[0].makefile("rb") as stream, small.makefile("rb") as small_stream:
        refused, _, _ = read_answer(stream)
        small.sendall(WHOLE[-1:])
        answered, _, _ = read_answer(small_stream)

    assert (refused, answered) == (503, 401)
    for connection in [*slow, small]:
        connection.close()


# -- Requests in pieces -------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [WHOLE, IN_CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_request_in_pieces_is_answered_once_it_is_whole(service, request_, size):
    with connect(service) as connection, connection.makefile("rb") as stream:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request_), size):
            connection.sendall(request_[start : start + size])
        first = read_answer(stream)
        connection.sendall(request_ + request_)
        others = [read_answer(stream), read_answer(stream)]

    assert [body["code"] for _, _, body in [first, *others]] == ["wrong_credentials"] * 3


@pytest.mark.parametrize("is_last", [False, True])
def test_a_client_that_waits_for_100_continue_gets_it_once(service, is_last):
    headers = [b"Expect: 100-Continue\r\n", b"Content-Length: 2\r\n"]
    with connect(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(HEAD + b"".join(sorted(headers, reverse=not is_last)) + b"\r\n")
        interim = stream.readline(), stream.readline()
        connection.sendall(b"{}")
        status, _, _ = read_answer(stream)

    assert interim == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")
    assert status == 400


def test_a_picture_of_some_megabytes_arrives_whole(service):
    noise = bytes(range(256)) * 16_000

    response = requests.post(
        f"{service.url}/api/auth/register", data=form("alice"), files={"avatar": noise}, timeout=30
    )

    assert list(response.json()["fields"]) == ["avatar"]


# -- Too much -----------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [b"X: y", b"Expect: 100-continue"])
@pytest.mark.parametrize(("start", "length"), [(HEAD, 65537), (UPLOAD, 8388609), (HEAD, 10**18)])
def test_too_large_a_body_is_refused_by_its_length_before_it_is_sent(
    service, start, length, header
):
    with connect(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(start + header + b"\r\nContent-Length: %d\r\n\r\n" % length)
        status, headers, body = read_answer(stream)

    assert (status, body["code"], headers["Connection"]) == (413, "payload_too_large", "close")


@pytest.mark.parametrize("in_chunks", [False, True])
def test_after_a_413_the_next_request_succeeds(service, in_chunks):
    data = b" " * 12_000_000

    with requests.Session() as session:
        for _ in range(5):
            body = iter([data]) if in_chunks else data
            headers = {"Content-Type": "application/json"}
            large = session.post(f"{service.url}/api/auth/login", data=body, headers=headers)
            after = session.get(f"{service.url}/api/health")
            assert (large.status_code, after.status_code) == (413, 200)


def test_too_long_a_head_is_refused_before_it_ends(service):
    with connect(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000)
        status, _, body = read_answer(stream)

    assert (status, body["code"]) == (431, "bad_request")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5, 5",
        b"Content-Length: -1",
        b"Content-Length: " + b"9" * 5000,
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    ],
)
def test_a_body_of_unclear_length_is_refused(service, head):
    with connect(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(HEAD + head + b"\r\n\r\n0\r\n\r\n")
        status, _, body = read_answer(stream)

    assert (status, body["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"\r\n", b"5" * 9000, b"-5\r\nxxxxx\r\n", b"1\r\nabc0\r\n\r\n"]
)
def test_a_body_that_is_not_in_chunks_is_refused_at_once(service, body):
    with connect(service) as connection, connection.makefile("rb") as stream:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        status, _, _ = read_answer(stream)

    assert status == 400


def test_a_server_of_both_protocols_tells_its_ipv4_clients_apart(tmp_path):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    limits = {"LOGIN_FAILURES_PER_ADDRESS": "1", "TRUSTED_PROXIES": "127.0.0.1"}
    server = Service(tmp_path, HOST="::", PASSWORD_HASH="pbkdf2:sha256:1000", **limits).start()
    body = {"username": "nobody", "password": "secret1"}

    statuses = []
    for client in ("1.1.1.1", "1.1.1.1:99", "2.2.2.2"):
        headers = {"X-Forwarded-For": client}
        response = requests.post(f"{server.url}/api/auth/login", json=body, headers=headers)
        statuses.append(response.status_code)

    server.stop()
    assert statuses == [401, 429, 401]


# -- Clients that do not read -------------------------------------------------------------------

ARCHIVE = "/api/v1/images/archive"
LARGE = 4 * 1024 * 1024  # together far more than the system keeps for a client that does not read
NUMBER = 50


def log_in(url: str) -> tuple[dict[str, str], int]:
    """Return the headers of somebody with an account, and its id."""
    requests.post(f"{url}/api/auth/register", data=form("carol"), timeout=30)
    body = {"username": "carol", "password": "secret1"}
    data = requests.post(f"{url}/api/auth/login", json=body, timeout=30).json()["data"]
    headers = {"Authorization": f"Bearer {data['token']}"}
    profile = requests.get(f"{url}/api/auth/profile", headers=headers, timeout=30).json()
    return headers, profile["data"]["id"]


def add_large_images(data_dir: Path, user_id: int) -> None:
    """Give an account on SQLite many rows, whose large files are in truth one."""
    folder = data_dir / "uploads" / "generated_images" / str(user_id)
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(os.urandom(LARGE))
    with closing(sqlite3.connect(data_dir / "instance" / "app.db")) as connection, connection:
        for number in range(NUMBER):
            if number:
                os.link(folder / "0.png", folder / f"{number}.png")
            url = f"/api/uploads/generated_images/{user_id}/{number}.png"
            connection.execute(
                "INSERT INTO image_generations (user_id, prompt_text, image_url, status)"
                " VALUES (?, 'a fox', ?, 'completed')",
                (user_id, url),
            )


def ask(service, method: str, path: str, headers: dict[str, str], body: str = "") -> socket.socket:
    """Send a request whose answer nobody reads."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json", *(": ".join(pair) for pair in headers.items())]
    connection = connect(service)
    connection.sendall("\r\n".join([*lines, "", body]).encode())
    return connection


@pytest.mark.parametrize("what", ["archive", "archives of a link", "image"])
def test_who_stops_to_read_holds_no_thread(live_with, tmp_path, what):
    service = live_with("SEND_SECONDS = 0.5", options="--threads 2")
    headers, user_id = log_in(service.url)
    add_large_images(tmp_path, user_id)
    call = ("GET", f"/api/uploads/generated_images/{user_id}/0.png", headers)
    if what == "archive":
        call = ("POST", ARCHIVE, headers, "{}")
    elif what == "archives of a link":
        body = {"link": True}
        made = requests.post(service.url + ARCHIVE, json=body, headers=headers, timeout=30)
        call = ("GET", made.json()["data"]["url"], {})

    stopped = [ask(service, *call) for _ in range(6)]

    def is_free() -> bool:
        answer = requests.post(
            service.url + ARCHIVE, json={"ids": [1]}, headers=headers, timeout=30
        )
        return answer.status_code == 200

    wait_until(is_free)
    assert "Traceback" not in service.log_path.read_text()
    for connection in stopped:
        connection.close()


def begin_archive(service, headers: dict[str, str]) -> requests.Response:
    return requests.post(service.url + ARCHIVE, json={}, headers=headers, stream=True, timeout=30)


def check_broken_off(response: requests.Response, path: Path, end) -> None:
    """Read an archive that ends in the middle by end(): it must not look like a whole one."""
    pieces = response.iter_content(100_000)
    with path.open("wb") as file:
        file.write(next(pieces))
        end()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for piece in pieces:
                file.write(piece)
    assert path.stat().st_size < LARGE * NUMBER
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(path)


def test_an_archive_breaks_off_at_a_log_out(live_with, tmp_path):
    service = live_with()
    headers, user_id = log_in(service.url)
    add_large_images(tmp_path, user_id)

    check_broken_off(
        begin_archive(service, headers),
        tmp_path / "out.zip",
        lambda: requests.post(f"{service.url}/api/auth/logout", headers=headers, timeout=30),
    )

    assert "Traceback" not in service.log_path.read_text()


def test_a_kill_in_the_middle_of_an_archive_leaves_nothing(live_with, tmp_path):
    service = live_with()
    headers, user_id = log_in(service.url)
    add_large_images(tmp_path, user_id)
    before = files_below(tmp_path)
    task = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    [worker] = map(int, task.read_text().split())

    check_broken_off(
        begin_archive(service, headers),
        tmp_path / "out.zip",
        lambda: os.kill(worker, signal.SIGKILL),
    )

    assert files_below(tmp_path) - before <= {tmp_path / "out.zip"}


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "instance" not in path.parts}
