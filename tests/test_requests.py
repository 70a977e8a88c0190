"""What surrounds every request: CORS, headers, request id, log line, the client's address."""

import ipaddress
import json

import pytest

import app as service
from logs import JsonFormatter
from tests.conftest import form

ALLOWED = "http://localhost:5173"


def last_line(caplog) -> dict:
    records = [record for record in caplog.records if record.name == "api"]
    return json.loads(JsonFormatter().format(records[-1]))


@pytest.mark.parametrize("path", ["/api/health", "/api/none", "/api/auth/profile"])
def test_an_allowed_origin_may_read_answers_and_errors(client, path):
    response = client.get(path, headers={"Origin": ALLOWED})

    assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert "Origin" in response.headers["Vary"]
    assert set(response.headers["Access-Control-Expose-Headers"].split(", ")) == {
        "ETag",
        "Retry-After",
        "X-Request-Id",
    }


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
    ],
)
def test_forwarded_addresses_count_only_from_trusted_proxies(
    client, settings, caplog, trusted, forwarded, address
):
    settings.TRUSTED_PROXIES = [ipaddress.ip_network(network) for network in trusted]

    client.get("/api/health", headers={"X-Forwarded-For": forwarded})

    assert last_line(caplog)["address"] == address


def test_the_address_of_the_service_leads_to_its_documentation(client):
    assert client.get("/").headers["Location"] == "/api/docs"
