"""Every answer that is not a success has one shape."""

import json
import re
import socket

import pytest
import requests

import app as service
import db
import errors
import messages
from accounts import users

LOGIN = "/api/auth/login"


def assert_error(response, status: int, code: str) -> None:
    assert (response.status_code, response.json["code"]) == (status, code)
    assert response.json["status"] == "error" and response.json["message"]
    assert response.headers["X-Request-Id"]


@pytest.mark.parametrize("path", ["/api/none", "/api//health", "/api/health/", "/api/auth"])
def test_an_unknown_address(client, path):
    assert_error(client.get(path), 404, "not_found")


def test_a_wrong_method_names_the_right_ones(client):
    response = client.get(LOGIN)

    assert_error(response, 405, "method_not_allowed")
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("rule", list(service.app.url_map.iter_rules()), ids=str)
def test_every_route_answers_head_and_options(client, settings, rule):
    path = re.sub("<[^>]+>", "1", rule.rule.replace("<page:screen>", "gallery"))
    options = client.open("OPTIONS", path)
    head, get, trace = (client.open(method, path) for method in ("HEAD", "GET", "TRACE"))

    allowed = set(options.headers["Allow"].split(", "))
    assert (options.status_code, options.data) == (200, b"")
    assert "OPTIONS" in allowed and ("HEAD" in allowed) == ("GET" in allowed)
    assert (head.status_code, head.data) == (get.status_code, b"")
    assert head.headers.get("Content-Length") == get.headers.get("Content-Length")
    assert_error(trace, 405, "method_not_allowed")
    assert set(trace.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"5",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"NaN",
    ],
)
def test_a_body_that_is_no_json_object(client, body):
    assert_error(
        client.post(LOGIN, data=body, content_type="application/json"), 400, "invalid_json"
    )


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"]
)
def test_json_under_another_content_type(client, kind):
    body = json.dumps({"username": "alice", "password": "secret1"})

    assert_error(client.post(LOGIN, data=body, content_type=kind), 400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"username": "a", "username": "b", "password": "secret1"}', "username"),
        (b'{"username": "a", "password": {"x": 1, "y": 2, "x": 1}}', "x"),
        (b'[{"a": 1, "a": 2}]', "a"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "?"),
        (b'{"": 1, "": 2}', ""),
    ],
)
def test_a_field_that_is_given_twice(client, body, name):
    response = client.post(LOGIN, data=body, content_type="application/json")

    assert_error(response, 400, "invalid_input")
    assert list(response.json["fields"]) == [name]


@pytest.mark.parametrize(
    "kind",
    ["APPLICATION/JSON", "application/json; charset=gbk", "application/ld+json; profile=x"],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_json_under_each_of_its_names(client, kind, bom):
    body = bom + b'{"username": "nobody", "password": "secret1"}'

    assert_error(client.post(LOGIN, data=body, content_type=kind), 401, "wrong_credentials")


def test_too_large_a_body(client):
    response = client.post(LOGIN, data=b" " * (9 * 1024 * 1024), content_type="application/json")

    assert_error(response, 413, "payload_too_large")


def test_too_large_a_form_field(client):
    response = client.post(
        "/api/auth/register", data={"username": "x" * 600_000, "avatar": (b"", "")}
    )

    assert response.status_code in (400, 413)
    assert response.json["status"] == "error"


def test_a_broken_multipart_body(client):
    kind = "multipart/form-data; boundary=x"

    response = client.post("/api/auth/register", data=b"--x\r\nnonsense", content_type=kind)

    assert_error(response, 400, "invalid_input")


def test_a_surprise_is_logged_but_not_shown(client, monkeypatch, caplog):
    monkeypatch.setattr(service.logins, "log_in", lambda *arguments: {}["secret detail"])

    response = client.post(LOGIN, json={"username": "alice", "password": "secret1"})

    assert_error(response, 500, "internal_error")
    assert "secret detail" not in response.text and "KeyError" in caplog.text


def test_a_database_that_is_unavailable(client, monkeypatch):
    def unavailable(*arguments):
        raise db.Unavailable

    monkeypatch.setattr(users, "get_user_for_login", unavailable)

    response = client.post(LOGIN, json={"username": "alice", "password": "secret1"})

    assert_error(response, 503, "database_unavailable")
    assert int(response.headers["Retry-After"]) > 0


def test_health_needs_no_database(client, monkeypatch):
    monkeypatch.setattr(db.pool, "take", lambda: 1 / 0)

    response = client.get("/api/health")

    assert response.status_code == 200
    assert response.json == {"message": "API服务运行正常", "status": "success", "version": "1.0.0"}


@pytest.mark.parametrize(
    ("accepted", "message"),
    [
        (None, "资源不存在"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "资源不存在"),
        ("en-US,en;q=0.9,zh;q=0.8", "Not found"),
        ("en", "Not found"),
        ("fr", "资源不存在"),
        ("*", "资源不存在"),
        ("nonsense;;q=x", "资源不存在"),
    ],
)
def test_messages_follow_accept_language(client, accepted, message):
    headers = {"Accept-Language": accepted} if accepted else {}

    assert client.get("/api/none", headers=headers).json["message"] == message


def test_english_names_the_field_too(client):
    response = client.post(LOGIN, json={}, headers={"Accept-Language": "en"})

    assert response.json["fields"] == {
        "username": "User name is required",
        "password": "Password is required",
    }


def test_chinese_is_not_escaped(client):
    assert "资源不存在".encode() in client.get("/api/none").data


def test_every_message_exists_in_both_languages():
    sentences = [
        *(texts[1:] for texts in errors.ERRORS.values()),
        *messages.FIELDS.values(),
        *messages.SUCCESS.values(),
        *messages.LABELS.values(),
    ]

    assert all(not zh.isascii() and en.isascii() for zh, en in sentences)


@pytest.mark.parametrize(
    "request_line", ["GET /" + "x" * 9000 + " HTTP/1.1", "NONSENSE", "GET /api/health HTTP/9.9"]
)
def test_what_never_reaches_the_application_is_refused_in_the_same_shape(live, request_line):
    service = live()

    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(f"{request_line}\r\nHost: x\r\n\r\n".encode())
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 4") and b"application/json" in head
    assert b"\r\nContent-Security-Policy: default-src 'none'" in head
    assert json.loads(body)["code"] == "bad_request"


def test_an_error_arrives_though_the_body_was_not_read(live):
    service = live()

    response = requests.post(f"{service.url}/api/none", data=b"x" * 7_000_000)

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
