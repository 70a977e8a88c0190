"""The reference client: that it is built from its source, how it is served, and how it is used."""

import gzip
import os
import re
import subprocess

import pytest

from tests.browser import install, leave_out, need, run, use
from tests.conftest import Person
from tests.servers import ROOT
from web import page

FRONTEND = ROOT / "frontend"
BUILT = ROOT / "static" / "app"
# What Vite needs.
OLDEST_NODE = (20, 19)
MOST_BYTES = 150_000


def run_npm(*command: str, **environment: str) -> str:
    """Run a script of frontend/package.json and return what it printed."""
    result = subprocess.run(
        [need("npm"), "run", *command],
        cwd=FRONTEND,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def frontend() -> None:
    """The packages of frontend/package-lock.json are in place."""
    version = subprocess.run([need("node"), "--version"], capture_output=True, text=True).stdout
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_NODE:
        leave_out(f"Node {version.strip()} is older than Vite needs")
    install(FRONTEND)


# -- The build ------------------------------------------------------------------------------------


def test_lock_file_names_no_host():
    assert "://" not in (FRONTEND / "package-lock.json").read_text()


def test_what_is_served_is_built_from_the_source(frontend, tmp_path):
    run_npm("build", OUT=str(tmp_path))

    built = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*.*")}
    served = {file.relative_to(BUILT): file.read_bytes() for file in BUILT.rglob("*.*")}
    assert built.keys() == served.keys()
    assert [str(name) for name in built if built[name] != served[name]] == []


def test_types_are_right_and_units_work(frontend):
    run_npm("check")
    run_npm("test")


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_types_are_those_of_the_document(live, frontend, tmp_path):
    made = tmp_path / "schema.d.ts"
    tool = FRONTEND / "node_modules" / ".bin" / "openapi-typescript"
    run(str(tool), f"{live().url}/api/openapi.json", "--output", str(made))

    assert made.read_text() == (FRONTEND / "src" / "api" / "schema.d.ts").read_text()


def needed_at_first(name: str) -> set[str]:
    """Return the files that one brings with it at once, without what is imported later."""
    text = (BUILT / "assets" / name).read_text()
    found = set(re.findall(r'(?:from|import)\s*"\./([\w.-]+\.js)"', text))
    return {name}.union(*(needed_at_first(one) for one in found))


def test_the_first_load_is_small():
    index = (BUILT / "index.html").read_text()
    [entry] = re.findall(r'src="\./assets/([\w-]+\.js)"', index)
    files = needed_at_first(entry)
    files |= set(re.findall(r'href="\./assets/([\w.-]+)"', index))
    files |= {max(file.name for file in (BUILT / "assets").glob("en-*.js"))}
    files |= {file.name for file in (BUILT / "assets").glob("*.webp")}  # of the first screen

    sizes = {name: len(gzip.compress((BUILT / "assets" / name).read_bytes())) for name in files}
    assert sum(sizes.values()) + len(gzip.compress(index.encode())) <= MOST_BYTES, sizes


# -- As it is served ------------------------------------------------------------------------------


@pytest.fixture
def visitor(settings):
    return Person().http


def policy_of(response) -> dict[str, str]:
    parts = response.headers["Content-Security-Policy"].split(";")
    return dict(part.strip().split(" ", 1) for part in parts)


def test_the_page_runs_our_own_files_alone(visitor):
    response = visitor.get("/")

    assert policy_of(response) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' blob:",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert not re.search(r"<script(?![^>]* src=)|<style|\s(on\w+|style)=", response.text)
    assert "//" not in response.text.partition("<html")[2]


def test_the_page_is_never_kept_and_its_files_are(visitor):
    page = visitor.get("/")
    files = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page.text)

    answers = [visitor.get(f"/{file}") for file in files]
    module = visitor.get("/assets/api.js")

    assert page.headers["Cache-Control"] == "no-cache"
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["Cache-Control"] for answer in answers} == {
        "public, max-age=31536000, immutable"
    }
    assert (module.status_code, module.headers["Cache-Control"]) == (200, "no-cache")
    assert module.mimetype.endswith("javascript")


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "gzip;q=0", ""])
def test_texts_are_compressed_for_those_who_take_it(visitor, accepted):
    [name] = [file.name for file in BUILT.glob("assets/start-*.css")]

    response = visitor.get(f"/assets/{name}", headers={"Accept-Encoding": accepted})
    etag = {"If-None-Match": response.headers["ETag"], "Accept-Encoding": accepted}
    again = visitor.get(f"/assets/{name}", headers=etag)

    is_zipped = accepted.startswith(("gzip", "br")) and not accepted.endswith("q=0")
    data = gzip.decompress(response.data) if is_zipped else response.data
    assert data == (BUILT / "assets" / name).read_bytes()
    assert (response.headers.get("Content-Encoding") == "gzip") == is_zipped
    assert "Accept-Encoding" in response.headers["Vary"]
    assert (again.status_code, again.data) == (304, b"")


def test_pictures_are_sent_as_they_are(visitor):
    [picture] = BUILT.glob("assets/sea-*.webp")

    response = visitor.get(f"/assets/{picture.name}", headers={"Accept-Encoding": "gzip"})

    assert response.data == picture.read_bytes()
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize(
    "path", ["/create", "/gallery", "/images/7", "/reset-password", "/admin", "/admin/users"]
)
def test_each_screen_has_an_address(visitor, path):
    assert visitor.get(path).text == visitor.get("/").text


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/gallery/",
        "/images/x",
        "/admin/",
        "/admin/Users",
        "/assets/none.js",
        "/assets/../index.html",
    ],
)
def test_other_addresses_are_unknown_as_ever(visitor, path):
    response = visitor.get(path)

    assert (response.status_code, response.json["code"]) == (404, "not_found")


def test_the_screens_of_the_page_are_those_of_the_service():
    router = (FRONTEND / "src" / "router.ts").read_text()
    paths = set(re.findall(r'path: "/([\w-]+)', router))

    assert paths == {name.partition("/")[0] for name in page.PageName.regex.split("|")}


def test_the_page_finds_its_files_below_a_path(visitor):
    below = visitor.get("/gallery", base_url="http://localhost/studio")

    assert '<base href="/studio/">' in below.text


def test_the_page_knows_what_the_api_does_not_say(visitor, settings):
    settings.REGISTRATION, settings.PASSWORD_MAX_LENGTH = "invite", 64

    text = visitor.get("/").text

    assert "<html data-mode=development data-registration=invite data-password-max=64" in text


@pytest.mark.parametrize(
    ("mode", "api", "origin"),
    [
        ("development", "https://other.example/api", " https://other.example"),
        ("development", "http://127.0.0.1:9000/api", " http://127.0.0.1:9000"),
        ("development", "https://a.example;script-src *", ""),
        ("development", "https://a.example 'unsafe-inline'/api", ""),
        ("development", "javascript://a.example/api", ""),
        ("development", "https://user@a.example/api", ""),
        ("development", "https://[", ""),
        ("production", "https://other.example/api", ""),
    ],
)
def test_another_service_is_let_in_by_name_in_development(visitor, settings, mode, api, origin):
    settings.FLASK_ENV = mode

    policy = policy_of(visitor.get("/", query_string={"api": api}))

    assert policy["connect-src"] == f"'self'{origin}"
    assert policy["img-src"] == f"'self' blob:{origin}"
    assert policy["script-src"] == "'self'"


# -- As people use it -----------------------------------------------------------------------------


GOOD = {
    "focus": "username",
    "wrong": 3,
    "kept": True,
    "keptOverLogin": True,
    "saved": "png",
    "shared": "image/png",
    "end": "reached",
}


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("size", "language", "lang", "prefix"),
    [("laptop", "en", "en", ""), ("phone", "zh", "zh-CN", ""), ("laptop", "en", "en", "/imagegen")],
)
def test_a_life_from_registration_to_the_end_of_the_account(
    live, start_worker, tmp_path, size, language, lang, prefix
):
    url = live(TRASH_DAYS="7", URL_PREFIX=prefix).url + prefix
    start_worker("worker.py")

    seen = use("client_page.mjs", url, tmp_path, size, language)

    assert seen == {**GOOD, "language": lang}


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_the_same_on_a_service_of_another_origin(live, start_worker, tmp_path):
    host = live(TRASH_DAYS="7").url
    url = live(TRASH_DAYS="7", CORS_ORIGINS=host).url
    start_worker("worker.py")

    seen = use("client_page.mjs", host, tmp_path, "laptop", "en", url)

    assert seen == {**GOOD, "language": "en", "other": url}
