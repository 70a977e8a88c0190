"""deploy/nginx-site.conf in a real nginx, in front of the real service."""

import getpass
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.conftest import form
from tests.servers import ROOT, Service, find_program, free_port, new_certificate, wait_until
from tests.test_connections import ARCHIVE, add_large_images, check_broken_off
from web import hooks

SITE = ROOT / "deploy" / "nginx-site.conf"
UNITS = sorted((ROOT / "deploy").glob("*.service"))
ORIGIN = "https://www.example.com"
PREFIX = "/protected-uploads/"
SMALL = {"prompt": "a fox", "params": {"width": 64, "height": 64, "steps": 1}}

MAIN = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
    include mime.types;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include site.conf;
}}
"""


class Nginx:
    """nginx with the site file, in which ports, certificate and folders are ours.

    `changes` are further replacements.
    """

    def __init__(
        self, folder: Path, backend_port: int, data_dir: Path, certificate: Path, **changes: str
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.plain_port = folder, free_port(), free_port()
        self.url = f"https://localhost:{self.port}"
        self.http = requests.Session()
        self.http.trust_env, self.http.verify = False, str(certificate)
        site = replaced(
            SITE.read_text(),
            {
                "127.0.0.1:8000": f"127.0.0.1:{backend_port}",
                "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
                "listen 443 ssl http2;": f"listen 127.0.0.1:{self.port} ssl http2;",
                "listen [::]:80;": "",
                "listen [::]:443 ssl http2;": "",
                "/etc/letsencrypt/live/api.example.com/fullchain.pem": str(certificate),
                "/etc/letsencrypt/live/api.example.com/privkey.pem": str(
                    certificate.with_name("both.pem")
                ),
                "/var/lib/image-generator/uploads/": f"{data_dir}/uploads/",
                "/var/log/nginx/image-generator.log": f"{folder}/access.log",
                **changes,
            },
        )
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=getpass.getuser()))
        (folder / "mime.types").write_text("types { text/html html; image/png png; }")

    def start(self) -> "Nginx":
        self.log = open(self.folder / "output.log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [find_program("nginx"), "-p", self.folder, "-c", self.folder / "nginx.conf"],
            stdout=self.log,
            stderr=self.log,
        )
        wait_until(self.listens, what="nginx")
        return self

    def listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "output.log").read_text()[-3000:])
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    def get(self, path: str, **options) -> requests.Response:
        return self.http.get(self.url + path, timeout=30, **options)

    def post(self, path: str, **options) -> requests.Response:
        return self.http.post(self.url + path, timeout=30, **options)


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"{SITE.name} no longer says {old!r}"
        text = text.replace(old, new)
    return text


def behind_nginx(**settings: str) -> dict[str, str]:
    return {
        "TRUSTED_PROXIES": "127.0.0.1",
        "X_ACCEL_PREFIX": PREFIX,
        "CORS_ORIGINS": ORIGIN,
        "PASSWORD_HASH": "pbkdf2:sha256:1000",
        **settings,
    }


# -- Fixtures ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost, its key beside it.

    Without nginx or openssl the tests are skipped; in CI they fail.
    """
    for program in ("nginx", "openssl"):
        if not find_program(program):
            missing = f"{program} is not installed"
            if os.environ.get("CI"):
                pytest.fail(f"{missing}, and CI must not skip the tests of deploy/")
            pytest.skip(f"{missing}: the tests of deploy/nginx-site.conf are left out")
    folder = tmp_path_factory.mktemp("certificate")
    new_certificate(folder)
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def service(certificate, tmp_path_factory):
    """The service, configured as behind nginx."""
    data_dir = tmp_path_factory.mktemp("data")
    server = Service(data_dir, **behind_nginx()).start()
    server.data_dir = data_dir
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(service, certificate, tmp_path_factory):
    """nginx in front of the service."""
    nginx = Nginx(
        tmp_path_factory.mktemp("nginx"), service.port, service.data_dir, certificate
    ).start()
    yield nginx
    nginx.stop()


@pytest.fixture
def start_nginx(certificate, tmp_path):
    """Start nginx in front of any port: `start_nginx(port)`."""
    started = []

    def start(port: int, **changes: str) -> Nginx:
        started.append(Nginx(tmp_path / "nginx", port, tmp_path, certificate, **changes))
        return started[-1].start()

    yield start
    for nginx in started:
        nginx.stop()


@pytest.fixture
def site_alone(start_nginx):
    """nginx whose service does not run."""
    return start_nginx(free_port())


@pytest.fixture(scope="module")
def alice(service):
    """The headers of someone with an account."""
    requests.post(f"{service.url}/api/auth/register", data=form("alice"), timeout=30)
    body = {"username": "alice", "password": "secret1"}
    token = requests.post(f"{service.url}/api/auth/login", json=body, timeout=30).json()["data"][
        "token"
    ]
    return {"Authorization": f"Bearer {token}", "Origin": ORIGIN}


@pytest.fixture
def image(site, alice):
    """The path of an image of alice's."""
    return site.post("/api/v1/images/generate-test", json=SMALL, headers=alice).json()["data"][
        "imageUrl"
    ]


# -- HTTPS --------------------------------------------------------------------------------------


def test_https_reaches_the_service(site):
    response = site.get("/api/health", headers={"X-Request-Id": "mine"})

    assert response.json() == {
        "message": "API服务运行正常",
        "status": "success",
        "version": "1.0.0",
    }
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert response.headers["X-Request-Id"] == "mine"


def test_http_leads_to_https(site):
    plain = f"http://localhost:{site.plain_port}/api/health?x=1"

    response = requests.post(plain, allow_redirects=False, timeout=30)

    assert response.status_code == 308
    assert response.headers["Location"] == "https://api.example.com/api/health?x=1"


def test_errors_of_the_service_pass_unchanged(site):
    wrong = {"username": "nobody", "password": "secret1"}

    response = site.post("/api/auth/login", json=wrong, headers={"Origin": ORIGIN})

    assert response.status_code == 401
    assert response.json() == {
        "status": "error",
        "message": "用户名或密码错误",
        "code": "wrong_credentials",
    }
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_error_arrives_though_the_body_was_not_read(site):
    big = b"x" * 7_000_000

    statuses = {site.post("/api/v1/images/generate-test", data=big).status_code for _ in range(20)}

    assert statuses == {401}


# -- Errors of nginx itself ---------------------------------------------------------------------


def test_too_large_a_body_is_refused_in_the_shape_of_the_api(site):
    response = site.post("/api/auth/register", data=b"x" * 9_000_000, headers={"Origin": ORIGIN})

    assert response.status_code == 413
    assert response.json() == {
        "status": "error",
        "message": "请求体过大",
        "code": "payload_too_large",
    }
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_foreign_origin_may_not_read_an_error(site):
    headers = {"Origin": "https://www.example.com.evil.test"}

    response = site.post("/api/auth/register", data=b"x" * 9_000_000, headers=headers)

    assert response.status_code == 413
    assert "Access-Control-Allow-Origin" not in response.headers
    assert response.headers["Vary"] == "Origin"


def test_error_speaks_english_to_who_prefers_it(site_alone):
    response = site_alone.get("/api/health", headers={"Accept-Language": "en-GB,en;q=0.9,zh;q=0.8"})

    assert response.json()["message"] == "The service is unavailable; try again soon"


def test_nginx_takes_as_much_as_the_service():
    megabytes = hooks.MAX_UPLOAD_BYTES // 2**20

    assert f"client_max_body_size {megabytes}m;" in SITE.read_text()


def test_uploads_alone_may_be_larger(site, alice):
    megabytes = hooks.MAX_INPUT_BYTES // 2**20
    body = {"files": {"file": b"x" * 19_000_000}, "headers": alice}

    answers = [site.post(path, **body) for path in ("/api/v1/uploads", "/api/v1/images/generate")]

    assert f"client_max_body_size {megabytes}m;" in SITE.read_text()
    assert [answer.status_code for answer in answers] == [400, 413]
    assert answers[0].json()["fields"]["file"]
    assert answers[0].headers["Strict-Transport-Security"]
    too_large = site.post("/api/v1/uploads", files={"file": b"x" * 22_500_000})
    assert (too_large.status_code, too_large.json()["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("path", ["/api/v1/uploads", "/api/v1/images"])
def test_preflight_of_any_call_succeeds_while_the_service_is_away(site_alone, path):
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}

    response = site_alone.http.options(site_alone.url + path, headers=headers, timeout=30)

    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_service_that_is_unavailable_is_a_502_that_says_when_to_try_again(site_alone):
    response = site_alone.get("/api/health", headers={"Origin": ORIGIN})

    assert response.status_code == 502
    assert response.json()["status"] == "error"
    assert response.json()["code"] == "server_busy"
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Expose-Headers"] == ", ".join(hooks.EXPOSED_HEADERS)
    assert response.headers["Access-Control-Allow-Credentials"] == "true"


def test_preflight_succeeds_while_the_service_is_unavailable(site_alone):
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, traceparent",
    }

    response = site_alone.http.options(
        site_alone.url + "/api/auth/login", headers=headers, timeout=30
    )

    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, traceparent"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"


def test_service_that_never_answers_is_a_504(start_nginx):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = start_nginx(
            silent.getsockname()[1], **{"proxy_read_timeout 60s": "proxy_read_timeout 1s"}
        )

        response = site.get("/api/health", headers={"Origin": ORIGIN})

    assert response.status_code == 504
    assert response.json()["code"] == "server_busy"
    assert "Retry-After" in response.headers
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize("path", ["/api/health", "/metrics"])
def test_errors_of_nginx_have_the_headers_of_the_service(site_alone, path):
    response = site_alone.get(path)

    names = {name for name, _ in hooks.DEFAULT_HEADERS} - {"Vary"}
    assert {name: response.headers[name] for name in names} == {
        name: value for name, value in hooks.DEFAULT_HEADERS if name in names
    }


@pytest.mark.parametrize("path", ["/api/" + "a" * 4000, "/api/" + "a" * 9000])
def test_too_long_an_address_is_refused_in_the_shape_of_the_api(site, path):
    response = site.get(path)

    assert response.status_code == 414
    assert response.json()["code"] == "bad_request"


def test_flood_of_logins_is_refused(site_alone):
    answers = (site_alone.post("/api/auth/login", json={}) for _ in range(500))

    refused = next(response for response in answers if response.status_code == 429)

    assert refused.json()["code"] == "too_many_attempts"
    assert "Retry-After" in refused.headers


# -- Requests that never end --------------------------------------------------------------------


def test_half_requests_do_not_use_up_the_connections(site):
    connections = [
        socket.create_connection(("127.0.0.1", port)) for port in [site.plain_port, site.port] * 800
    ]
    for number, connection in enumerate(connections):
        # Half a head, or half of what begins TLS.
        connection.sendall([b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"\x16\x03\x01\x02"][number % 2])

    response = site.get("/api/health")

    assert response.status_code == 200
    for connection in connections:
        connection.close()


def test_half_a_head_is_ended(start_nginx):
    site = start_nginx(free_port(), **{"client_header_timeout 10s;": "client_header_timeout 1s;"})
    for port, half in ((site.plain_port, b"GET / HTTP/1.1\r\n"), (site.port, b"\x16\x03\x01")):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(half)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""


def test_guide_says_how_many_connections_nginx_needs():
    for name in ("DEPLOYMENT_GUIDE.md", "DEPLOYMENT_GUIDE.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "worker_connections 8192;" in text and "worker_rlimit_nofile 20000;" in text


def test_log_has_no_query_strings(site):
    site.get("/api/health?sig=secret-signature", headers={"Referer": "https://x.test/?q=secret"})
    requests.get(f"http://localhost:{site.plain_port}/api/none?q=secret", allow_redirects=False)

    log = (site.folder / "access.log").read_text()
    assert '"GET /api/health HTTP/1.1" 200' in log and '"GET /api/none HTTP/1.1" 308' in log
    assert "secret" not in log


# -- Files --------------------------------------------------------------------------------------


def test_owner_gets_an_image_from_nginx(site, service, alice, image):
    direct = requests.get(service.url + image, headers=alice, timeout=30)

    response = site.get(image, headers=alice)

    assert direct.content == b"" and direct.headers["X-Accel-Redirect"] == image.replace(
        "/api/uploads/", PREFIX
    )
    assert response.content == (service.data_dir / image.removeprefix("/api/")).read_bytes()
    assert response.headers["Content-Type"] == "image/png"
    assert "X-Accel-Redirect" not in response.headers


def test_image_from_nginx_keeps_the_headers_of_the_service(site, alice, image):
    headers = site.get(image, headers=alice).headers

    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Vary"] == "Origin"
    assert headers["X-Request-Id"]
    assert headers["ETag"]


def test_a_shared_image_is_stripped_by_the_service(site, service, alice, image):
    number = site.get("/api/v1/images/history", headers=alice).json()["data"]["records"][0]["id"]
    made = site.post(f"/api/v1/images/{number}/share", headers=alice).json()["data"]

    response = site.get(made["url"])

    assert response.status_code == 200 and b"a fox" not in response.content
    assert response.headers["X-Robots-Tag"] == "noindex"
    assert response.headers["Cache-Control"] == "private, no-cache"
    file = site.folder / "access.log"
    wait_until(lambda: '"GET /api/s/- HTTP/1.1" 200' in file.read_text(), what="the log line")
    assert made["url"].rpartition("/")[2] not in file.read_text()


def test_an_archive_passes_through_and_breaks_off_visibly(site, service, tmp_path):
    requests.post(f"{service.url}/api/auth/register", data=form("dora"), timeout=30)
    body = {"username": "dora", "password": "secret1"}
    token = site.post("/api/auth/login", json=body).json()["data"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    profile = site.get("/api/auth/profile", headers=headers).json()["data"]
    add_large_images(service.data_dir, profile["id"])
    link = site.post(ARCHIVE, json={"ids": [1], "link": True}, headers=headers)
    assert link.status_code == 409  # it is alice's

    check_broken_off(
        site.post(ARCHIVE, json={}, headers=headers, stream=True),
        tmp_path / "out.zip",
        lambda: site.post("/api/auth/logout", headers=headers),
    )

    assert list((site.folder / "proxy").rglob("*")) == []


def test_part_of_an_image(site, alice, image):
    response = site.get(image, headers={**alice, "Range": "bytes=0-7"})

    assert response.status_code == 206
    assert response.content == b"\x89PNG\r\n\x1a\n"


def test_part_beyond_the_end_is_refused_in_the_shape_of_the_api(site, alice, image):
    response = site.get(image, headers={**alice, "Range": "bytes=99999999-"})

    assert response.status_code == 416
    assert response.json()["code"] == "range_not_satisfiable"
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.parametrize("wanted", ["bytes=99999999-", "bytes=x", "bytes=9-2"])
def test_no_range_that_nginx_refuses_reaches_it(site, alice, image, wanted):
    response = site.get(image, headers={**alice, "Range": wanted})

    assert response.status_code == 416
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("wanted", "status"), [("bytes=-5", 206), ("x=1", 200), ("bytes=0-1,4-5", 200)]
)
def test_other_ranges_do(site, alice, image, wanted, status):
    assert site.get(image, headers={**alice, "Range": wanted}).status_code == status


def test_nobody_gets_no_image(site, image):
    response = site.get(image)

    assert response.status_code == 401
    assert response.json()["code"] == "token_missing"


def test_internal_location_is_closed_to_clients(site, alice, image):
    inside = image.replace("/api/uploads/", PREFIX)

    answers = [site.get(path, headers=alice) for path in (inside, PREFIX, "/x/.." + inside)]

    assert [response.status_code for response in answers] == [404, 404, 404]
    assert {response.json()["code"] for response in answers} == {"not_found"}


# -- Below a path --------------------------------------------------------------------------------


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_service_below_a_path_of_the_site(live, start_nginx):
    server = live(**behind_nginx(URL_PREFIX="/imagegen", METRICS="on"))
    whole, part = (f"location {path} {{\n        proxy_pass" for path in ("/", "/imagegen/"))
    site = start_nginx(server.port, **{whole: part})
    site.post("/imagegen/api/auth/register", data=form("alice"))
    answer = site.post(
        "/imagegen/api/auth/login", json={"username": "alice", "password": "secret1"}
    )
    site.http.headers["Authorization"] = f"Bearer {answer.json()['data']['token']}"

    made = site.post("/imagegen/api/v1/images/generate-test", json=SMALL).json()["data"]
    shared = site.post(f"/imagegen/api/v1/images/{made['id']}/share").json()["data"]

    assert site.get(made["imageUrl"]).content.startswith(b"\x89PNG")
    assert site.get(shared["url"]).status_code == 200
    assert site.get("/imagegen/metrics").json()["code"] == "not_found"
    assert site.get("/api/health").status_code == 404
    log = (site.folder / "access.log").read_text()
    assert "/imagegen/api/s/- " in log and shared["url"] not in log


# -- Addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_client_cannot_choose_the_address_its_failures_count_for(live, start_nginx):
    site = start_nginx(live(**behind_nginx(LOGIN_FAILURES_PER_ADDRESS="2")).port)

    statuses = [log_in_from(site, f"203.0.113.{number}").status_code for number in range(3)]

    assert statuses == [401, 401, 429]


def log_in_from(site: Nginx, address: str) -> requests.Response:
    body = {"username": f"user of {address}", "password": "secret1"}
    return site.post("/api/auth/login", json=body, headers={"X-Forwarded-For": address})


# -- systemd ------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd is not installed: its unit is not checked"
)
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_such_as_systemd_understands(tmp_path, path):
    unit = tmp_path / path.name
    unit.write_text(replaced(path.read_text(), {"/opt/image-generator": str(ROOT)}))

    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
    )

    assert (result.returncode, result.stderr) == (0, "")
