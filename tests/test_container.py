"""Dockerfile, compose.yaml, and nginx as it is there; tests/container.sh builds and runs it."""

import getpass
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

import config
import serve
from tests.servers import ROOT, find_program, free_port
from tests.test_architecture import WINGS
from tests.test_config import GOOD_KEY
from tests.test_deploy import MAIN, Nginx, replaced
from web import hooks

CONFIGURATION = ROOT / "deploy" / "nginx-container.conf"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = ("app", "web", "worker")


def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
    program = Path(sys.executable).with_name(name)
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_dockerfile_has_no_fault():
    found = run("hadolint", "Dockerfile")

    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [("compose-spec", "compose.yaml"), ("github-workflows", ".github/workflows/*.yml")],
)
def test_file_is_what_its_reader_takes(schema, pattern):
    files = [str(file) for file in ROOT.glob(pattern)]

    found = run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)

    assert files and found.returncode == 0, found.stdout


def test_image_holds_the_whole_program_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    compiled = re.search(r"compileall -q (.*)", DOCKERFILE)[1].split()

    assert "*" in lines
    assert let_in >= WINGS and {"*.py", "start.sh", "requirements.lock"} <= let_in
    assert {"openapi.yaml", "openapi", "static", "models.toml"} <= let_in
    assert set(compiled) == {"./*.py", *WINGS}
    assert not let_in & {".env", ".git", "instance", "uploads", "tests", "frontend"}


def test_stand_in_is_for_the_image_that_the_dockerfile_names():
    [image] = re.findall("PYTHON_IMAGE=(.*)", DOCKERFILE)

    assert f"base={image}\n" in (ROOT / "tests" / "container.sh").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_containers_of_the_service_are_shut_in(name):
    service = COMPOSE["services"][name]

    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
    seconds = int(service["stop_grace_period"].removesuffix("s"))
    assert seconds > 10 + serve.WEB_GRACE_SECONDS
    assert service["environment"]["DATA_DIR"] == "/data"


def test_nothing_is_open_to_the_network_unless_it_is_asked_for():
    published = [
        port for service in COMPOSE["services"].values() for port in service.get("ports", [])
    ]

    assert len(published) == 2
    assert all(re.match(r"\$\{\w+:-127\.0\.0\.1:", port) for port in published)


def test_compose_file_has_no_secret():
    text = (ROOT / "compose.yaml").read_text()

    for name in ("PASSWORD", "SECRET_KEY", "SECRET_ACCESS_KEY", "DEFAULT_PASS"):
        for value in re.findall(rf"{name}: (.*)", text):
            assert re.fullmatch(r'\$\{\w+:-\}|"1"', value), value
    assert "amqp://service:${BROKER_PASSWORD:-}@" in text


@pytest.mark.parametrize("name", ["web", "worker"])
def test_settings_of_the_fleet_are_right(settings, tmp_path, name):
    given = {"BROKER_PASSWORD": "x", "AWS_SECRET_ACCESS_KEY": "y", "SECRET_KEY": GOOD_KEY}
    environ = {**given, "FLASK_ENV": "production"}
    for setting, text in COMPOSE["services"][name]["environment"].items():
        environ[setting] = re.sub(
            r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), text
        )

    loaded = config.load({**environ, "DATA_DIR": str(tmp_path)})

    assert (loaded.MYSQL_HOST, loaded.STORAGE_URL.bucket) == ("db", "images")
    assert loaded.BROKER_URL == "amqp://service:x@broker:5672//"
    assert "AWS_SECRET_ACCESS_KEY" in COMPOSE["services"]["store"]["environment"]


class ContainerNginx(Nginx):
    """nginx with the configuration of its container, in front of a port of this machine."""

    def __init__(self, folder: Path, backend_port: int):
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        self.url, self.http = f"http://127.0.0.1:{self.port}", requests.Session()
        self.http.trust_env = False
        changes = {
            "resolver 127.0.0.11 valid=5s ipv6=off;": "",
            "server service:8000 resolve;": f"server 127.0.0.1:{backend_port};",
            "listen 8080;": f"listen 127.0.0.1:{self.port};",
            "/dev/stdout": f"{folder}/access.log",
        }
        text = replaced(CONFIGURATION.read_text(encoding="utf-8"), changes)
        (folder / "site.conf").write_text(text, encoding="utf-8")
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=getpass.getuser()))
        (folder / "mime.types").write_text("types {}")


@pytest.fixture
def start_nginx(tmp_path):
    if not find_program("nginx"):
        pytest.skip("nginx is not installed")
    started = []

    def start(port: int) -> ContainerNginx:
        started.append(ContainerNginx(tmp_path / "nginx", port))
        return started[-1].start()

    yield start
    for nginx in started:
        nginx.stop()


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_nginx_passes_requests_on_and_keeps_numbers_and_tokens_back(live, start_nginx):
    site = start_nginx(live(METRICS="on", TRUSTED_PROXIES="127.0.0.1").port)

    health = site.get("/api/health", headers={"X-Forwarded-For": "203.0.113.7"})
    body = {"username": "a" * hooks.MAX_UPLOAD_BYTES}
    too_large = site.post("/api/auth/login", json=body)
    document = site.get("/api/openapi.json", headers={"X-Forwarded-Proto": "https"}).json()
    site.get("/api/s/secret?q=secret")

    assert health.json()["status"] == "success"
    assert too_large.json()["code"] == "payload_too_large"
    assert document["servers"] == [{"url": f"https://127.0.0.1:{site.port}"}]
    assert site.get("/metrics").json()["code"] == "not_found"
    assert "secret" not in (site.folder / "access.log").read_text()


def test_nginx_says_when_to_try_again_while_the_service_is_away(start_nginx):
    answer = start_nginx(free_port()).get("/api/health")

    assert (answer.status_code, answer.json()["code"]) == (502, "server_busy")
    assert answer.headers["Retry-After"] == "5"
