"""What surrounds every request: CORS, headers, request id, log line, the client's address."""

import ipaddress
import json
import logging
import re

import pytest
from flask import Flask

import app as service
import config
from logs import JsonFormatter
from tests.conftest import Person, form
from web import hooks

ALLOWED = "http://localhost:5173"


def last_line(caplog) -> dict:
    records = [record for record in caplog.records if record.name == "api"]
    return json.loads(JsonFormatter().format(records[-1]))


@pytest.mark.parametrize("path", ["/api/health", "/api/none", "/api/auth/profile"])
def test_an_allowed_origin_may_read_answers_and_errors(client, path):
    response = client.get(path, headers={"Origin": ALLOWED})

    assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert "Origin" in response.headers["Vary"]
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Content-Disposition", "ETag", "Link", "Location", "Retry-After"} < set(exposed)
    assert response.headers["Access-Control-Allow-Credentials"] == "true"


def test_an_allowed_origin_may_read_a_500(client, monkeypatch):
    monkeypatch.setattr(service, "read_body", lambda schema: 1 / 0)

    response = client.post("/api/auth/login", headers={"Origin": ALLOWED})

    assert response.status_code == 500
    assert response.headers["Access-Control-Allow-Origin"] == ALLOWED


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:51730",
        "http://xlocalhost:5173",
        "https://localhost:5173",
        "null",
    ],
)
def test_another_origin_may_not(client, origin):
    response = client.get("/api/health", headers={"Origin": origin})

    assert "Access-Control-Allow-Origin" not in response.headers


def test_a_preflight_allows_what_clients_send(client):
    asked = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}
    wanted = "Authorization, Content-Type, Idempotency-Key, If-None-Match"

    response = client.open(
        "OPTIONS", "/api/auth/login", headers={**asked, "Access-Control-Request-Headers": wanted}
    )

    assert response.status_code == 200
    assert set(response.headers["Access-Control-Allow-Headers"].split(", ")) == set(
        wanted.split(", ")
    )
    assert "PATCH" in response.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    ("method", "header"),
    [
        ("GET", "cache-control,pragma,range,if-modified-since,if-range"),
        ("PATCH", "x-requested-with, x-request-id, x-xsrf-token"),
        ("POST", "traceparent, tracestate, baggage, sentry-trace"),
        ("DELETE", "authorization, x-datadog-trace-id"),
    ],
)
def test_a_preflight_allows_what_libraries_add(client, method, header):
    headers = {
        "Origin": ALLOWED,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": header,
    }

    answers = [
        client.open("OPTIONS", path, headers=headers)
        for path in ("/api/auth/login", "/api/v1/images/1", "/api/none")
    ]

    allowed = [answer.headers["Access-Control-Allow-Headers"] for answer in answers]
    assert {answer.status_code for answer in answers} == {200}
    assert all(set(one.split(", ")) == set(header.replace(" ", "").split(",")) for one in allowed)


def test_a_preflight_of_another_origin_is_not_allowed(client):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}

    for path in ("/api/auth/login", "/api/none"):
        answer = client.open("OPTIONS", path, headers=headers)
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    ("setting", "origin", "is_allowed"),
    [
        ("https://example.com", "https://example.com", True),
        ("https://example.com", "HTTPS://Example.com", True),
        ("https://example.com", "https://example.com.evil.test", False),
        ("https://example.com", "https://www.example.com", False),
        ("https://example.com", "https://examplexcom", False),
        ("https://example.com", "https://example.com:8443", False),
        ("https://example.com", "https://example.com.", False),
        ("https://example.com", "http://example.com", False),
        ("https://example.com", "null", False),
        ("https://example.com:443", "https://example.com", True),
        ("https://*.example.com", "https://www.example.com", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://wwwexample.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://example.com.evil.test", False),
        ("https://*.example.com", "https://www.example.com.evil.test", False),
        ("https://*.example.com", "https://evil.test/.example.com", False),
        ("https://*.example.com", "https://evil.test:1.example.com", False),
        ("https://*.example.com", "https://user@www.example.com", False),
        ("https://*.example.com", "https://www.example.com\x00", False),
        ("https://*.example.com", "http://www.example.com", False),
        ("https://*.example.com", "https://www.example.com:8443", False),
        ("https://*.example.com:8443", "https://www.example.com:8443", True),
        ("http://*.localhost:5173", "http://app.localhost:5173", True),
        ("http://[::1]:5173", "http://[::1]:5173", True),
        ("http://[::1]:5173", "http://1:5173", False),
        ("http://[::1]:5173", "http://::5173", False),
        ("http://192.168.0.10:3000", "http://192.168.0.10:3000", True),
        ("http://192.168.0.10:3000", "http://192.168.0a10:3000", False),
        ("https://例子.测试", "https://xn--fsqu00a.xn--0zwm56d", True),
        ("capacitor://localhost", "capacitor://localhost", True),
        ("capacitor://localhost", "http://localhost", False),
        ("tauri://localhost", "tauri://localhost", True),
        ("ionic://localhost", "ionic://localhost", True),
        ("app://MyApp", "app://MyApp", True),
        ("app://.", "app://.", True),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", True),
        ("chrome-extension://abcdef", "chrome-extension://abcdefg", False),
    ],
)
def test_an_entry_of_cors_origins_means_what_it_says(settings, setting, origin, is_allowed):
    settings.CORS_ORIGINS = config.origins(setting)
    app = Flask("one")
    hooks.init_app(app)

    headers = app.test_client().get("/", headers={"Origin": origin}).headers

    assert headers.get("Access-Control-Allow-Origin") == (origin if is_allowed else None)
    assert headers.get("Access-Control-Allow-Credentials") == ("true" if is_allowed else None)
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize("setting", ["*", "https://example.com,*"])
def test_any_origin_may_not_send_credentials(settings, setting):
    settings.CORS_ORIGINS = config.origins(setting)
    app = Flask("any")
    hooks.init_app(app)

    headers = app.test_client().get("/", headers={"Origin": "https://example.com"}).headers

    assert headers["Access-Control-Allow-Origin"] in ("*", "https://example.com")
    assert "Access-Control-Allow-Credentials" not in headers


def test_every_answer_has_the_security_headers(client):
    for path in ("/api/health", "/api/none"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] == "no-store"


def test_a_request_id_is_taken_over_and_logged(client, caplog):
    response = client.get("/api/health", headers={"X-Request-Id": "abc-123"})

    assert response.headers["X-Request-Id"] == "abc-123"
    assert last_line(caplog)["path"] == "/api/health"


@pytest.mark.parametrize("wanted", ["", "a b", "x" * 65, 'a"b', "é"])
def test_a_strange_request_id_is_replaced(client, wanted):
    response = client.get("/api/health", headers={"X-Request-Id": wanted})

    assert response.headers["X-Request-Id"] != wanted


def test_a_request_leaves_one_line_without_secrets(alice, caplog):
    caplog.clear()

    alice.get("/api/auth/profile?token=in-the-query")
    alice.log_in()
    alice.post("/api/auth/register", data=form("carol"))

    text = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    assert len(caplog.records) == 4
    assert not any(
        secret in text for secret in (alice.token, "secret1", "in-the-query", "carol@example.com")
    )


def test_a_log_line_is_one_line_whatever_is_in_the_path(client, caplog):
    client.get("/api/%0a%22evil%22:%7b")

    assert "\n" not in JsonFormatter().format(caplog.records[-1])
    assert last_line(caplog)["path"] == '/api/\n"evil":{'


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ([], "6.6.6.6", "127.0.0.1"),
        (["10.0.0.0/8"], "6.6.6.6", "127.0.0.1"),
        (["127.0.0.1"], "6.6.6.6", "6.6.6.6"),
        (["127.0.0.1"], "spoofed, 6.6.6.6", "6.6.6.6"),
        (["127.0.0.1", "10.0.0.0/8"], "6.6.6.6, 10.1.2.3", "6.6.6.6"),
        (["127.0.0.1"], "6.6.6.6, 10.1.2.3", "10.1.2.3"),
        (["127.0.0.1"], "", "127.0.0.1"),
        (["127.0.0.1"], "6.6.6.6, ", "6.6.6.6"),
        (["127.0.0.1"], "6.6.6.6:5678", "6.6.6.6"),
        (["127.0.0.1"], "::ffff:6.6.6.6", "6.6.6.6"),
        (["127.0.0.1"], "[::ffff:6.6.6.6]:5678", "6.6.6.6"),
        (["127.0.0.1"], "[2001:DB8::1]:99", "2001:db8::1"),
        (["127.0.0.1"], "[2001:db8::1]", "2001:db8::1"),
        (["127.0.0.1"], "2001:db8:0::1", "2001:db8::1"),
        (["127.0.0.1"], "6.6.6.6, 127.0.0.1:80", "6.6.6.6"),
        (["127.0.0.1"], "6.6.6.6, unknown", "127.0.0.1"),
        (["127.0.0.1"], "6.6.6.6, _hidden", "127.0.0.1"),
        (["127.0.0.1"], "6.6.6.6, 1.2.3.4.5", "127.0.0.1"),
        (["127.0.0.1"], "[", "127.0.0.1"),
    ],
)
def test_forwarded_addresses_count_only_from_trusted_proxies(
    client, settings, caplog, trusted, forwarded, address
):
    settings.TRUSTED_PROXIES = [ipaddress.ip_network(network) for network in trusted]

    client.get("/api/health", headers={"X-Forwarded-For": forwarded})

    assert last_line(caplog)["address"] == address


def test_an_ipv4_client_of_an_ipv6_server_keeps_its_address(client, settings, caplog):
    mapped = {"REMOTE_ADDR": "::ffff:127.0.0.1"}

    client.get("/api/health", environ_base=mapped)
    direct = last_line(caplog)["address"]
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("127.0.0.1")]
    client.get("/api/health", environ_base=mapped, headers={"X-Forwarded-For": "6.6.6.6"})

    assert (direct, last_line(caplog)["address"]) == ("127.0.0.1", "6.6.6.6")


@pytest.mark.parametrize(
    ("trusted", "prefix", "path"),
    [
        ([], "/studio", ""),
        (["10.0.0.0/8"], "/studio", ""),
        (["127.0.0.1"], "/studio", "/studio"),
        (["127.0.0.1"], "/a/b-c", "/a/b-c"),
        (["127.0.0.1"], "//evil.example", ""),
        (["127.0.0.1"], "/studio/", ""),
        (["127.0.0.1"], "/a b", ""),
        (["127.0.0.1"], "", ""),
    ],
)
def test_links_begin_with_the_path_that_a_trusted_proxy_names(
    alice, settings, trusted, prefix, path
):
    settings.TRUSTED_PROXIES = [ipaddress.ip_network(network) for network in trusted]
    headers = {"X-Forwarded-Prefix": prefix, "X-Forwarded-Proto": "https"}

    home = alice.get("/", headers=headers)
    document = alice.get("/api/openapi.json", headers=headers)
    submitted = alice.post("/api/v1/images/generate", json={"prompt": "a fox"}, headers=headers)
    history = alice.get("/api/v1/images/history?per_page=1", headers=headers)

    scheme = "https" if trusted == ["127.0.0.1"] else "http"
    record = submitted.json["data"]["records"][0]
    assert f'<base href="{path}/">' in home.text
    assert document.json["servers"] == [{"url": f"{scheme}://localhost{path}"}]
    assert submitted.headers["Location"] == f"{path}/api/v1/images/{record['id']}"
    assert history.headers["Link"].startswith(f"<{path}/api/v1/images/history?per_page=1&cursor=")


def test_the_service_may_lie_below_a_path(alice):
    alice.generate()
    below = {"base_url": "http://localhost/studio"}

    record = alice.get("/api/v1/images/history", **below).json["data"]["records"][0]

    assert '<base href="/studio/">' in alice.get("/", **below).text
    assert record["imageUrl"].startswith("/api/uploads/")
    assert Person().get(record["signedImageUrl"], **below).status_code == 200


@pytest.mark.parametrize(
    "character", ["\0", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", "\u2066",
                  "\u200f", "\u061c", "\ufeff", "\xad", "\ud800", "\U000e0041"],
)  # fmt: skip
def test_a_log_line_holds_nothing_that_a_terminal_obeys(caplog, character):
    caplog.set_level("INFO")
    logging.getLogger("api").info("a%sb", character, extra={"details": {"x": f"é猫{character}"}})

    line = JsonFormatter().format(caplog.records[-1])

    assert character not in line and "é猫" in line
    assert json.loads(line)["message"] == f"a{character}b"


def test_a_log_line_names_the_error_code(client, caplog):
    caplog.set_level("INFO")
    client.get("/api/none")

    assert json.loads(JsonFormatter().format(caplog.records[-1]))["code"] == "not_found"


def test_a_log_in_names_the_account(alice, caplog):
    caplog.set_level("INFO")
    alice.post("/api/auth/login", json={"username": "alice", "password": "secret1"})

    assert last_line(caplog)["user_id"] == alice.id


def test_a_failed_log_in_names_the_hash_of_the_account(alice, caplog):
    def failed(name: str) -> str:
        alice.post("/api/auth/login", json={"username": name, "password": "wrong1"})
        [record] = [one for one in caplog.records if one.message == "failed log-in"]
        caplog.clear()
        return record.details["account"]

    first, again, other = failed("alice"), failed("ALICE"), failed("my-secret-password")

    assert first == again != other
    assert re.fullmatch("[0-9a-f]{32}", first)
