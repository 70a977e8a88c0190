"""openapi.yaml says what the service does: held against the code and the running service."""

import copy
import io
import re
import subprocess
import sys
from unittest.mock import MagicMock
from urllib.parse import urljoin

import pytest
import requests
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from PIL import Image

import app as service
import config
import db
import errors
import heavy
import messages
import metrics
from accounts import invites, limits
from accounts.limits import Limits
from accounts.schemas import InviteInput
from engines import painter
from files import storage
from images import jobs, queue, queue_status, waiting
from tests.conftest import Person, form
from tests.pictures import picture
from tests.servers import ROOT
from tests.test_second_factor import PASSWORD, Phone
from validation import parse

DOCUMENT = service.app.test_client().get("/api/openapi.json").json
COMPONENTS = DOCUMENT["components"]
GENERATED = "/api/uploads/generated_images/{user_id}/{filename}"


@pytest.fixture
def visitor():
    """Somebody who asks only for what needs no database."""
    return Person()


def resolved(node: dict) -> dict:
    """Return what a $ref stands for, with the keys that stand beside it; anything else as it is."""
    if "$ref" not in node:
        return node
    target = DOCUMENT
    for step in node["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return {**resolved(target), **{key: value for key, value in node.items() if key != "$ref"}}


def operations() -> dict[tuple[str, str], dict]:
    return {
        (path, method): found
        for path, methods in DOCUMENT["paths"].items()
        for method, found in methods.items()
    }


def address(path: str) -> str:
    """Return a path of the document as a client calls it, with its examples in place of braces."""
    for operation in DOCUMENT["paths"][path].values():
        for parameter in map(resolved, operation.get("parameters", [])):
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    return path


# -- The document and the routes ----------------------------------------------------------------


def test_document_is_valid():
    validate(DOCUMENT)


def test_document_has_the_routes_of_the_app_and_no_others():
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in service.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }

    assert set(operations()) == routes


def test_document_has_the_version_of_the_app():
    assert DOCUMENT["info"]["version"] == service.VERSION


def test_operation_ids_are_unique():
    ids = [operation["operationId"] for operation in operations().values()]

    assert len(set(ids)) == len(ids)


def test_document_says_which_routes_want_a_token(client):
    wanting = {call for call, operation in operations().items() if operation["security"]}

    answers = {call: client.open(call[1], address(call[0]), json={}) for call in operations()}

    assert wanting == {call for call, answer in answers.items() if answer.status_code == 401}


# -- What is filled in when it is served, and what clients made from it demand ------------------


def nodes(node) -> list[dict]:
    """Return every object within a part of the document, itself included."""
    found = [node] if isinstance(node, dict) else []
    for part in node.values() if found else node:
        if isinstance(part, dict | list):
            found += nodes(part)
    return found


def bodies() -> list[tuple[str, dict]]:
    """Return content type and media of every request body."""
    wanted = [operation.get("requestBody", {}) for operation in operations().values()]
    return [media for body in wanted for media in body.get("content", {}).items()]


def parameters(only: str = "") -> list[dict]:
    """Return the parameters of every operation, or of one alone."""
    wanted = [item for item in operations().values() if only in ("", item["operationId"])]
    named = [operation.get("parameters", []) for operation in wanted]
    return [resolved(parameter) for found in named for parameter in found]


def request_schemas() -> dict[str, dict]:
    """Return the schemas of request bodies, and of objects within them, by name."""
    found = {}
    waiting = [media["schema"] for _, media in bodies()]
    while waiting:
        for node in nodes(waiting.pop()):
            name = node.get("$ref", "").rpartition("/")[2]
            if name and name not in found:
                found[name] = COMPONENTS["schemas"][name]
                waiting.append(found[name])
    return found


def test_no_key_of_our_own_is_served():
    keys = {key for node in nodes(DOCUMENT) for key in node}

    assert not {key for key in keys if key.startswith("x-")}


def test_every_reference_stands_alone_and_leads_somewhere():
    references = [node for node in nodes(DOCUMENT) if "$ref" in node]

    assert len(references) > 100
    for node in references:
        assert set(node) == {"$ref"} and resolved(node)


def test_every_schema_is_complete():
    for name, schema in COMPONENTS["schemas"].items():
        assert "type" in schema, name
        for field in schema.get("properties", {}).values():
            assert field.keys() & {"type", "anyOf", "allOf", "$ref"}, name


def test_every_field_of_a_request_is_described():
    fields = {
        (name, field): schema.get("description") or schema.get("examples")
        for name, model in request_schemas().items()
        for field, schema in model["properties"].items()
    }

    assert [field for field, described in fields.items() if not described] == []
    assert [found["name"] for found in parameters() if not found["description"]] == []


def test_a_model_s_limits_are_served():
    schemas = COMPONENTS["schemas"]
    ids = schemas["DeleteInput"]["properties"]["ids"]
    seed, nothing = schemas["GenerateInput"]["properties"]["seed"]["anyOf"]
    (cursor,) = [found for found in parameters("listHistory") if found["name"] == "cursor"]

    assert ids["items"] == {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
    assert seed == {"type": "integer", "minimum": -1, "maximum": 2**53 - 1}
    assert nothing == {"type": "null"}
    assert schemas["GenerateInput"]["additionalProperties"] is False
    assert cursor["schema"] == {"type": "string"}


def test_request_has_no_default_but_in_words():
    schemas = [*request_schemas().values(), *parameters()]
    generate = COMPONENTS["schemas"]["GenerateInput"]["properties"]
    words = {found["name"]: found["description"] for found in parameters("listHistory")}

    assert not [node for schema in schemas for node in nodes(schema) if "default" in node]
    assert generate["n"]["description"].endswith("Default: 1.")
    assert words["per_page"].endswith("Default: 10.")


def test_unknown_field_is_refused_where_the_document_says_so(alice):
    alice.generate()
    db.execute("UPDATE users SET role = 'admin' WHERE id = %s", alice.id)
    for (path, method), operation in operations().items():
        content = operation.get("requestBody", {}).get("content", {})
        for kind, media in content.items():
            is_closed = resolved(media["schema"]).get("additionalProperties") is False
            body = {**media["example"], "unknown": "1"}
            sent = {"json": body} if kind == "application/json" else {"data": body}

            response = alice.open(method.upper(), address(path), **sent)

            refused = response.json.get("fields", {})
            assert list(refused) == (["unknown"] if is_closed else []), path


def test_only_what_is_required_has_an_example_to_send():
    with_example = [found for found in parameters() if "example" in found or "examples" in found]

    assert with_example and all(found["required"] for found in with_example)


def test_registration_is_a_multipart_form_alone():
    content = operations()["/api/auth/register", "post"]["requestBody"]["content"]

    assert list(content) == ["multipart/form-data"]
    assert "encoding" not in content["multipart/form-data"]


def test_every_body_has_one_example_that_is_right():
    for _, media in bodies():
        strict(media["schema"]).validate(media["example"])


def test_models_of_the_readiness_are_plain_strings():
    data = COMPONENTS["schemas"]["ReadinessAnswer"]["properties"]["data"]

    assert data["properties"]["models"]["additionalProperties"] == {"type": "string"}


def test_schemas_have_names_that_no_language_uses():
    names = set(COMPONENTS["schemas"])

    assert {"ApiError", "Generation"} <= names
    assert not {"Error", "Record", "Object", "Map", "Date", "File"} & names


def test_no_content_type_is_a_wildcard():
    assert not [node for node in nodes(DOCUMENT) if "*/*" in node]


def test_every_operation_says_whether_it_wants_a_token():
    assert all("security" in operation for operation in operations().values())


def test_document_names_its_license_and_contact():
    assert DOCUMENT["info"]["license"] == {"name": "MIT", "identifier": "MIT"}
    assert DOCUMENT["info"]["contact"]["name"]


@pytest.mark.parametrize(
    ("base", "server"),
    [
        ("http://localhost", "http://localhost"),
        ("https://images.example:8443", "https://images.example:8443"),
        ("http://localhost/below", "http://localhost/below"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_server_is_the_one_that_the_client_reached(visitor, base, server):
    response = visitor.get("/api/openapi.json", base_url=base)

    assert response.json["servers"] == [{"url": server}]
    assert response.headers["Cache-Control"] == "no-store"


def test_server_is_not_what_a_forwarded_header_says(visitor):
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}

    response = visitor.get("/api/openapi.json", headers=headers)

    assert response.json["servers"] == [{"url": "http://localhost"}]


def test_process_that_serves_no_document_does_not_load_it():
    code = "import sys, app; sys.exit('yaml' in sys.modules or 'web.openapi' in sys.modules)"

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT)

    assert result.returncode == 0


# -- Errors -------------------------------------------------------------------------------------

ERROR_RESPONSES = {
    name: response
    for name, response in COMPONENTS["responses"].items()
    if "examples" in str(response)
}


def error_parts(response: dict) -> tuple[list[str], dict]:
    """Return the codes of an error response and its examples by code."""
    media = response["content"]["application/json"]
    _, these_codes = media["schema"]["allOf"]
    return these_codes["properties"]["code"]["enum"], media["examples"]


def test_every_error_code_stands_in_a_response():
    listed = {code for response in ERROR_RESPONSES.values() for code in error_parts(response)[0]}

    assert listed == set(errors.ERRORS)


@pytest.mark.parametrize(("path", "method"), operations())
def test_errors_stand_under_their_status(path, method):
    responses = {
        status: resolved(found) for status, found in operations()[path, method]["responses"].items()
    }

    refusals = {status: found for status, found in responses.items() if int(status) >= 400}

    for status, response in refusals.items():
        assert {errors.ERRORS[code][0] for code in error_parts(response)[0]} == {int(status)}


@pytest.mark.parametrize("name", ERROR_RESPONSES)
def test_error_examples_obey_their_schema(name):
    media = ERROR_RESPONSES[name]["content"]["application/json"]

    for example in media["examples"].values():
        strict(media["schema"]).validate(example["value"])


# -- Answers ------------------------------------------------------------------------------------


def strict(schema: dict) -> OAS31Validator:
    """Return a validator of the schema that also refuses what the document does not name."""
    root = copy.deepcopy({**schema, "components": COMPONENTS})
    close(root)
    return OAS31Validator(root, format_checker=OAS31Validator.FORMAT_CHECKER)


def close(node: dict | list) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            node.setdefault("additionalProperties", False)
        # The parts of an allOf are about one object, whose fields the referred part names.
        node = [part for key, part in node.items() if key != "allOf"]
    for part in node:
        if isinstance(part, dict | list):
            close(part)


def check_answer(response, documented: dict) -> None:
    """Check an answer's headers, type and body against a response of the document."""
    documented = resolved(documented)
    headers = {name: resolved(header) for name, header in documented.get("headers", {}).items()}
    assert {name for name, header in headers.items() if header.get("required")} <= set(
        response.headers.keys()
    )
    for name in headers.keys() & {"X-Request-Id", "WWW-Authenticate"}:
        strict(headers[name]["schema"]).validate(response.headers[name])
    content = documented.get("content", {})
    assert response.status_code == 304 or response.mimetype in content
    if response.is_json:
        strict(content["application/json"]["schema"]).validate(response.json)


def check_documented(response, path: str | None = None) -> None:
    """Check an answer against what the document says of the call that brought it."""
    request = response.request
    operation = operations()[path or request.path, request.method.lower()]
    check_answer(response, operation["responses"][str(response.status_code)])


def png() -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    file.seek(0)
    return file


def register(person: Person, **changes):
    return person.post("/api/auth/register", data=form("carol", **changes))


def log_in(person: Person, **changes):
    return person.post(
        "/api/auth/login", json={"username": "alice", "password": "secret1", **changes}
    )


def send_code(person: Person, method: str, path: str):
    phone = Phone(person)
    phone.confirm()
    return person.open(method, f"/api/auth/2fa{path}", json={**PASSWORD, "code": phone.code(1)})


def submit(person: Person, prompt: str = "a fox", key: str = "k", **changes):
    body = {"prompt": prompt, "width": 64, "height": 64, "steps": 1, **changes}
    return person.post("/api/v1/images/generate", json=body, headers={"Idempotency-Key": key})


def upload(person: Person, file: io.BytesIO | None = None):
    return person.post("/api/v1/uploads", data={"file": (file or png(), "me.png")})


def uploaded(person: Person) -> dict:
    return {"upload": upload(person).json["data"]["id"]}


def remove(person: Person, ids: list):
    return person.post("/api/v1/images/delete", json={"ids": ids})


def change(person: Person, **changes):
    return person.open("PATCH", "/api/auth/profile", data={"password": "secret1", **changes})


def delete_account(person: Person, password: str):
    return person.open("DELETE", "/api/auth/account", json={"password": password})


PURGE = "/api/v1/images/delete?purge=true"


def trash_page(person: Person):
    config.settings.TRASH_DAYS = 7
    number = person.generate().json["data"]["id"]
    person.post("/api/v1/images/delete", json={"ids": [number]})
    return person.get("/api/v1/images/trash?per_page=1")


def restore(person: Person, ids: list):
    return person.post("/api/v1/images/restore", json={"ids": ids})


def tag(person: Person, ids: list):
    return person.post("/api/v1/images/tags", json={"ids": ids, "add": ["Sunset", "海"]})


FILTERS = (
    "cursor=MjAyNi0wMS0wMSAwMDowMDowMHwx&status=failed&q=fox&favorite=true&model=x"
    "&since=2026-01-01&until=2026-02-01&tag=a&tag=b"
)
FIRST_BYTES = {"Range": "bytes=0-9"}
BAD_FILTERS = "cursor=x&status=x&favorite=x&since=x&until=x&tag="

ANSWERS = {
    "register": (200, lambda alice: register(alice)),
    "register with avatar": (200, lambda alice: register(alice, avatar=(png(), "me.png"))),
    "register as json": (200, lambda alice: alice.post("/api/auth/register", json=form("carol"))),
    "log in": (200, log_in),
    "profile": (200, lambda alice: alice.get("/api/auth/profile")),
    "change profile": (
        200,
        lambda alice: change(alice, email="new@example.com", avatar=(png(), "me.png")),
    ),
    "delete account": (200, lambda alice: delete_account(alice, "secret1")),
    "no provider": (404, lambda alice: alice.get("/api/auth/oidc")),
    "identities": (200, lambda alice: alice.get("/api/auth/oidc/link")),
    "unlink": (200, lambda alice: alice.open("DELETE", "/api/auth/oidc/link", json=PASSWORD)),
    "second factor": (200, lambda alice: alice.get("/api/auth/2fa")),
    "set up a second factor": (200, lambda alice: alice.post("/api/auth/2fa", json=PASSWORD)),
    "confirm a second factor": (200, lambda alice: Phone(alice).confirm()),
    "remove a second factor": (200, lambda alice: send_code(alice, "DELETE", "")),
    "renew recovery codes": (200, lambda alice: send_code(alice, "POST", "/recovery-codes")),
    "generate-test": (200, lambda alice: alice.generate()),
    "history": (200, lambda alice: alice.generate() and alice.get("/api/v1/images/history")),
    "empty history": (200, lambda alice: alice.get("/api/v1/images/history?page=7")),
    "filtered history": (200, lambda alice: alice.get(f"/api/v1/images/history?{FILTERS}")),
    "full page of history": (
        200,
        lambda alice: submit(alice) and alice.get("/api/v1/images/history?per_page=1"),
    ),
    "models": (200, lambda alice: alice.get("/api/v1/models")),
    "generate": (202, lambda alice: submit(alice, n=4)),
    "generate again": (202, lambda alice: submit(alice) and submit(alice)),
    "several images": (
        200,
        lambda alice: submit(alice, n=2) and alice.get("/api/v1/images?ids=1,2,999"),
    ),
    "several not modified": (
        304,
        lambda alice: alice.get("/api/v1/images?ids=1", headers={"If-None-Match": "*"}),
    ),
    "purge": (200, lambda alice: submit(alice) and alice.post(PURGE, json={"ids": [1]})),
    "bad purge": (400, lambda alice: alice.post(f"{PURGE}x", json={"ids": [1]})),
    "trash": (200, lambda alice: trash_page(alice)),
    "bad trash": (400, lambda alice: alice.get("/api/v1/images/trash?cursor=x&per_page=0")),
    "restore": (200, lambda alice: trash_page(alice) and restore(alice, [1, 999])),
    "restore nothing": (400, lambda alice: restore(alice, [])),
    "tag": (200, lambda alice: submit(alice) and tag(alice, [1, 999])),
    "tag nothing": (400, lambda alice: tag(alice, [])),
    "tags": (200, lambda alice: submit(alice) and tag(alice, [1]) and alice.get("/api/v1/tags")),
    "quota": (200, lambda alice: alice.get("/api/v1/images/quota")),
    "delete several": (200, lambda alice: submit(alice) and remove(alice, [1, 999])),
    "upload": (201, lambda alice: upload(alice)),
    "upload of no picture": (400, lambda alice: upload(alice, io.BytesIO(b"x"))),
    "generate from an upload": (202, lambda alice: submit(alice, images=[uploaded(alice)])),
    "generate from nothing": (404, lambda alice: submit(alice, images=[{"image": 999}])),
    "generate from what is unfinished": (
        409,
        lambda alice: submit(alice) and submit(alice, key="k2", images=[{"image": 1}]),
    ),
    "generate from what is deleted": (
        410,
        lambda alice: (
            submit(alice) and remove(alice, [1]) and submit(alice, key="k2", images=[{"image": 1}])
        ),
    ),
    "generate with a mask alone": (400, lambda alice: submit(alice, mask=uploaded(alice))),
    "health": (200, lambda alice: alice.get("/api/health")),
    "document": (200, lambda alice: alice.get("/api/openapi.json")),
    "docs": (200, lambda alice: alice.get("/api/docs")),
    "home": (200, lambda alice: alice.get("/")),
    "part of the docs": (206, lambda alice: alice.get("/api/docs", headers=FIRST_BYTES)),
    "docs not modified": (
        304,
        lambda alice: alice.get("/api/docs", headers={"If-None-Match": "*"}),
    ),
    "no fields": (400, lambda alice: alice.post("/api/auth/register", data={})),
    "no json": (400, lambda alice: alice.post("/api/auth/login", data="{")),
    "bad params": (400, lambda alice: alice.generate(seed=False)),
    "bad page": (400, lambda alice: alice.get("/api/v1/images/history?page=0&per_page=x")),
    "bad filters": (400, lambda alice: alice.get(f"/api/v1/images/history?{BAD_FILTERS}")),
    "bad key": (400, lambda alice: submit(alice, key="a b")),
    "parameters the model does not take": (
        400,
        lambda alice: submit(alice, guidance=7, width=9999),
    ),
    "bad ids": (400, lambda alice: alice.get("/api/v1/images?ids=x")),
    "bad ids to delete": (400, lambda alice: remove(alice, [])),
    "wrong password": (401, lambda alice: log_in(alice, password="wrong")),
    "wrong password of a change": (
        403,
        lambda alice: change(alice, email="new@example.com", password="wrong"),
    ),
    "wrong password of a deletion": (403, lambda alice: delete_account(alice, "wrong")),
    "bad change": (400, lambda alice: change(alice, email="x")),
    "new email taken": (
        409,
        lambda alice: register(alice) and change(alice, email="carol@example.com"),
    ),
    "no token": (401, lambda alice: alice.http.get("/api/auth/profile")),
    "bad token": (
        401,
        lambda alice: alice.get("/api/v1/images/history", headers={"Authorization": "Bearer x"}),
    ),
    "code of a second factor missing": (
        401,
        lambda alice: Phone(alice).confirm() and log_in(alice),
    ),
    "code of a second factor wrong": (403, lambda alice: Phone(alice).confirm("000000")),
    "no second factor": (
        409,
        lambda alice: alice.open("DELETE", "/api/auth/2fa", json={**PASSWORD, "code": "1"}),
    ),
    "second factor on already": (
        409,
        lambda alice: Phone(alice).confirm() and alice.post("/api/auth/2fa", json=PASSWORD),
    ),
    "name taken": (409, lambda alice: register(alice, username="ALICE")),
    "email taken": (409, lambda alice: register(alice, email="alice@example.com")),
    "key reused": (409, lambda alice: submit(alice) and submit(alice, "a hen")),
    "body too large": (
        413,
        lambda alice: alice.post("/api/auth/login", json={"username": "a" * 9_000_000}),
    ),
    "range past the end": (
        416,
        lambda alice: alice.get("/api/docs", headers={"Range": "bytes=99999-"}),
    ),
}


@pytest.mark.parametrize("call", ANSWERS)
def test_answer_is_as_documented(alice, call):
    status, send = ANSWERS[call]

    response = send(alice)

    assert response.status_code == status
    check_documented(response)


ONE = "/api/v1/images/{generation_id}"
# About a generation that waits: status, path in the document, call.
ANSWERS_ABOUT_ONE = {
    "not modified": (304, ONE, lambda alice, url: alice.get(url, headers={"If-None-Match": "*"})),
    "favorite": (200, ONE, lambda alice, url: alice.open("PATCH", url, json={"favorite": True})),
    "delete": (200, ONE, lambda alice, url: alice.open("DELETE", url)),
    "cancel": (200, f"{ONE}/cancel", lambda alice, url: alice.post(f"{url}/cancel")),
    "retry": (202, f"{ONE}/retry", lambda alice, url: alice.post(f"{url}/retry")),
    "retry anew": (
        202,
        f"{ONE}/retry",
        lambda alice, url: alice.post(f"{url}/retry", json={"seed": "new"}),
    ),
    "bad favorite": (400, ONE, lambda alice, url: alice.open("PATCH", url, json={"favorite": 1})),
    "bad seed": (
        400,
        f"{ONE}/retry",
        lambda alice, url: alice.post(f"{url}/retry", json={"seed": 1}),
    ),
    "not there": (404, ONE, lambda alice, url: alice.get(f"{url}999")),
    "cancel twice": (
        409,
        f"{ONE}/cancel",
        lambda alice, url: alice.post(f"{url}/cancel") and alice.post(f"{url}/cancel"),
    ),
    "purge": (200, ONE, lambda alice, url: alice.open("DELETE", f"{url}?purge=true")),
    "bad purge": (400, ONE, lambda alice, url: alice.open("DELETE", f"{url}?purge=x")),
    "delete what is not there": (404, ONE, lambda alice, url: alice.open("DELETE", f"{url}99")),
    "deleted": (410, ONE, lambda alice, url: alice.open("DELETE", url) and alice.get(url)),
}


@pytest.mark.parametrize("call", ANSWERS_ABOUT_ONE)
def test_answer_about_one_generation_is_as_documented(alice, call):
    status, path, send = ANSWERS_ABOUT_ONE[call]
    url = submit(alice).headers["Location"]

    response = send(alice, url)

    assert response.status_code == status
    check_documented(response, path)


UPLOAD = "/api/v1/uploads/{upload_id}"
INPUT = "/api/uploads/inputs/{user_id}/{filename}"


@pytest.mark.parametrize(
    ("status", "path", "send"),
    [
        (200, UPLOAD, lambda alice, shown: alice.get(shown["url"])),
        (200, UPLOAD, lambda alice, shown: alice.open("DELETE", shown["url"])),
        (404, UPLOAD, lambda alice, shown: alice.get(shown["url"] + "0")),
        (
            410,
            UPLOAD,
            lambda alice, shown: alice.open("DELETE", shown["url"]) and alice.get(shown["url"]),
        ),
        (200, INPUT, lambda alice, shown: alice.http.get(shown["signedUrl"])),
        (200, INPUT, lambda alice, shown: alice.http.get(shown["signedThumbnailUrl"])),
        (403, INPUT, lambda alice, shown: alice.http.get(shown["signedUrl"] + "x")),
    ],
)
def test_answer_about_an_upload_is_as_documented(alice, status, path, send):
    shown = upload(alice).json["data"]

    response = send(alice, {**shown, "url": f"/api/v1/uploads/{shown['id']}"})

    assert response.status_code == status
    check_documented(response, path)


def test_retry_without_its_input_is_refused_as_documented(alice):
    url = submit(alice, images=[uploaded(alice)]).headers["Location"]
    used = alice.get(url).json["data"]["inputs"][0]["id"]
    alice.open("DELETE", f"/api/v1/uploads/{used}")

    response = alice.post(f"{url}/retry")

    assert response.status_code == 409
    check_documented(response, f"{ONE}/retry")


STATES = {
    "pending": lambda alice, url: None,
    "processing": lambda alice, url: jobs.acquire(["test_model"]),
    "completed": lambda alice, url: jobs.run(jobs.acquire(["test_model"])),
    "failed": lambda alice, url: jobs.fail(jobs.acquire(["test_model"]), "engine_error"),
    "canceled": lambda alice, url: alice.post(f"{url}/cancel"),
}


@pytest.mark.parametrize("state", STATES)
def test_record_in_any_state_is_as_documented(alice, state):
    url = submit(alice).headers["Location"]
    STATES[state](alice, url)

    response = alice.get(url)

    assert response.json["data"]["status"] == state
    check_documented(response, ONE)


@pytest.mark.parametrize("code", messages.JOB_ERRORS)
def test_record_of_any_failure_is_as_documented(alice, code):
    url = submit(alice).headers["Location"]
    jobs.fail(jobs.acquire(["test_model"]), code, shown="no such sampler")

    response = alice.get(url)

    assert (
        response.json["data"]["errorMessage"]
        == messages.job_text(code, "zh") + " (no such sampler)"
    )
    check_documented(response, ONE)


def test_record_of_an_older_program_is_as_documented(alice):
    number = db.insert("image_generations", user_id=alice.id, prompt_text="old", status="done")

    response = alice.get(f"/api/v1/images/{number}")

    assert response.json["data"]["status"] == "done"
    check_documented(response, ONE)


MODELS_FILE = """
[forms]
label = "Forms"
engine = "painter"
seed = false
negative_prompt = true
sizes = ["1024x1024", "1024x1536"]
steps = { min = 4, max = 40, default = 8, step = 4 }
guidance = { min = 0.5, max = 9.5, default = 7 }
quality = ["low", "high"]
style = ["vivid"]
sampler = ["Euler a", "DDIM"]
aspect_ratio = ["1:1", "2:3"]
resolution = ["1K"]
pixels = { min = 65536, max = 4194304 }
ratio_max = 2
background = ["auto", "transparent"]
output_format = ["png", "webp"]
output_compression = { min = 0, max = 100, default = 100 }
moderation = ["auto", "low"]
images = { max = 2, mask = true, strength = { min = 0, max = 1, default = 0.5 } }

[plain]
label = "Plain"
engine = "painter"
width = { min = 64, max = 1024, default = 512, step = 64 }
height = { min = 64, max = 1024, default = 512 }
"""


@pytest.fixture
def forms(settings, tmp_path):
    """Offer a model that says all there is to say, `forms`, and one that says little, `plain`."""
    settings.MODELS_FILE = tmp_path / "models.toml"
    settings.MODELS_FILE.write_text(MODELS_FILE)


@pytest.mark.parametrize("problem", ["", "engine_unavailable", "no_worker"])
def test_models_of_every_form_are_as_documented(alice, forms, problem):
    queue.note_worker("w1", "{}" if problem == "no_worker" else f'{{"forms": "{problem}"}}', 1.0)

    response = alice.get("/api/v1/models")

    full, plain = response.json["data"]["models"]
    assert set(full["parameters"]) == set(
        COMPONENTS["schemas"]["Model"]["properties"]["parameters"]["properties"]
    )
    assert (full["available"], full["capabilities"]["seed"], len(full["sizes"])) == (
        not problem,
        False,
        2,
    )
    assert (plain["sizes"], plain["parameters"]["width"]["step"]) == ([], 64)
    check_documented(response)


def test_models_without_a_database_are_refused_as_documented(visitor, monkeypatch):
    def away(*arguments):
        raise db.Unavailable

    monkeypatch.setattr(queue, "list_live_workers", away)
    monkeypatch.setattr(waiting, "count", away)
    queue_status.current.forget()

    response = visitor.get("/api/v1/models")

    assert (response.status_code, response.json["code"]) == (503, "database_unavailable")
    check_documented(response)


def choose(alice, **changes):
    body = {
        "prompt": "a fox",
        "model": "forms",
        "quality": "high",
        "sampler": "DDIM",
        "guidance": 2.5,
        **changes,
    }
    return alice.post("/api/v1/images/generate", json=body)


@pytest.mark.parametrize("embed", [True, False, None])
def test_record_with_choices_and_no_seed_is_as_documented(alice, forms, embed):
    response = choose(alice, embed_metadata=embed)

    params = response.json["data"]["records"][0]["params"]
    assert (params["quality"], params["style"], params["seed"]) == ("high", "vivid", None)
    check_documented(response)


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": "medium"},
        {"style": "x" * 65},
        {"sampler": 1},
        {"embed_metadata": "yes"},
        {"height": 1536, "width": 1536},
        {"steps": 5},
        {"seed": 1},
    ],
)
def test_choice_that_is_not_offered_is_refused_as_documented(alice, forms, changes):
    response = choose(alice, **changes)

    assert (response.status_code, response.json["code"]) == (400, "invalid_input")
    check_documented(response)


@pytest.fixture
def block(settings, tmp_path):
    """Block a word from here on."""

    def block(word: str) -> None:
        settings.PROMPT_BLOCKLIST = str(tmp_path / "words.txt")
        (tmp_path / "words.txt").write_text(word)

    return block


def check_blocked(response, path: str | None = None) -> None:
    """Check that an answer refuses a prompt with "fox" as the document's own example does."""
    example = error_parts(COMPONENTS["responses"]["BadGeneration"])[1]["prompt_blocked"]["value"]
    sentence = example["message"].replace("敏感词", "fox")
    assert response.status_code == 400
    assert response.json == {**example, "message": sentence, "fields": {"prompt": sentence}}
    check_documented(response, path)


@pytest.mark.parametrize("send", [submit, Person.generate])
def test_blocked_prompt_is_refused_as_documented(alice, block, send):
    block("fox")

    response = send(alice)

    check_blocked(response)


def test_retry_of_a_blocked_prompt_is_refused_as_documented(alice, block):
    url = submit(alice).headers["Location"]
    block("fox")

    response = alice.post(f"{url}/retry")

    check_blocked(response, f"{ONE}/retry")


@pytest.mark.parametrize(
    ("setting", "status"),
    [
        ("MAX_ACTIVE_JOBS", 429),
        ("DAILY_IMAGES", 429),
        ("SUBMITS_PER_MINUTE", 429),
        ("MAX_QUEUE", 503),
    ],
)
@pytest.mark.parametrize("send", [submit, Person.generate])
def test_too_many_generations_are_refused_as_documented(
    alice, settings, one_minute, setting, status, send
):
    setattr(settings, setting, 1)
    submit(alice, key="first")

    response = send(alice)

    assert response.status_code == status
    check_documented(response)


def test_image_that_cannot_be_made_is_refused_as_documented(alice, monkeypatch):
    monkeypatch.setattr(painter, "make", lambda job, on_progress: 1 / 0)

    response = alice.generate()

    assert response.status_code == 500
    check_documented(response)


def test_busy_server_refuses_as_documented(alice, monkeypatch):
    monkeypatch.setattr(heavy.pictures, "count", 1000)

    response = alice.generate()

    assert response.status_code == 503
    check_documented(response)


@pytest.fixture
def finished(alice) -> dict:
    """A record whose image is there."""
    alice.generate()
    return alice.history()["records"][0]


@pytest.mark.parametrize(
    ("name", "mimetype"), [("signedImageUrl", "image/png"), ("signedThumbnailUrl", "image/webp")]
)
def test_signed_link_is_as_documented(client, finished, name, mimetype):
    response = client.get(finished[name])

    assert (response.status_code, response.mimetype) == (200, mimetype)
    check_documented(response, GENERATED)


def test_forged_link_is_refused_as_documented(client, finished):
    response = client.get(finished["signedImageUrl"] + "x")

    assert response.status_code == 403
    check_documented(response, GENERATED)


STRIP = {"metadata": "strip"}


@pytest.mark.parametrize(
    ("name", "mimetype"), [("signedImageUrl", "image/png"), ("signedThumbnailUrl", "image/webp")]
)
def test_stripped_picture_is_as_documented(client, finished, name, mimetype):
    response = client.get(finished[name] + "&metadata=strip")

    assert (response.status_code, response.mimetype) == (200, mimetype)
    assert b"a fox" not in response.data
    check_documented(response, GENERATED)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Range": "bytes=0-9"}, 206),
        ({"If-None-Match": "*"}, 304),
        ({"Range": "bytes=999999-"}, 416),
    ],
)
def test_part_of_a_stripped_picture_is_as_documented(alice, finished, headers, status):
    response = alice.get(finished["imageUrl"], query_string=STRIP, headers=headers)

    assert response.status_code == status
    check_documented(response, GENERATED)


@pytest.mark.parametrize("query", [{"metadata": "keep"}, {"metadata": ""}])
def test_file_query_that_is_not_offered_is_refused_as_documented(alice, finished, query):
    response = alice.get(finished["imageUrl"], query_string=query)

    assert (response.status_code, set(response.json["fields"])) == (400, {"metadata"})
    check_documented(response, GENERATED)


KINDS = {"jpg": ("JPEG", "image/jpeg"), "webp": ("WEBP", "image/webp"), "png": ("PNG", "image/png")}


@pytest.mark.parametrize("query", [{}, STRIP])
@pytest.mark.parametrize("extension", KINDS)
def test_picture_of_any_kind_is_as_documented(alice, extension, query):
    kind, mimetype = KINDS[extension]
    key = f"generated_images/{alice.id}/made.{extension}"
    storage.put(key, picture(kind))

    response = alice.get(storage.url(key), query_string=query)

    assert (response.status_code, response.mimetype) == (200, mimetype)
    check_documented(response, GENERATED)


@pytest.mark.parametrize(("query", "status"), [({}, 200), (STRIP, 400)])
@pytest.mark.parametrize(("name", "data"), [("old.gif", picture("GIF")), ("old.bin", b"old")])
def test_file_of_another_kind_is_as_documented(alice, name, data, query, status):
    key = f"generated_images/{alice.id}/{name}"
    storage.put(key, data)

    response = alice.get(storage.url(key), query_string=query)

    assert response.status_code == status
    check_documented(response, GENERATED)


@pytest.mark.parametrize(
    ("report", "shown"),
    [
        ('{"forms": "", "plain": ""}', {"forms": "ok", "plain": "ok"}),
        ('{"forms": "engine_busy", "plain": ""}', {"forms": "engine_busy", "plain": "ok"}),
        ('{"plain": ""}', {"forms": "no_worker", "plain": "ok"}),
    ],
)
def test_readiness_is_as_documented(client, forms, report, shown):
    queue.note_worker("w1", report, 1.0)

    response = client.get("/api/health/ready")

    assert (response.status_code, response.json["data"]["models"]) == (200, shown)
    check_documented(response)


@pytest.mark.parametrize(
    ("report", "away"),
    [
        (None, "queue"),
        ('{"other": ""}', "queue"),
        ('{"forms": "engine_busy"}', "models"),
        ('{"forms": "engine_busy", "plain": "engine_account"}', "models"),
    ],
)
def test_service_that_is_not_ready_says_so_as_documented(client, forms, report, away):
    if report:
        queue.note_worker("w1", report, 1.0)

    response = client.get("/api/health/ready")

    assert (response.status_code, list(response.json["fields"])) == (503, [away])
    check_documented(response)


@pytest.mark.parametrize(("is_on", "status"), [(False, 404), (True, 200)])
def test_metrics_are_as_documented(client, settings, monkeypatch, tmp_path, is_on, status):
    settings.METRICS = is_on
    # The real ones would stay on for the tests after this.
    monkeypatch.setattr(metrics, "meters", MagicMock)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    response = client.get("/metrics")

    assert response.status_code == status
    check_documented(response)


def test_generated_image_is_as_documented(alice):
    url = alice.generate().json["data"]["imageUrl"]

    response = alice.get(url)

    assert (response.status_code, response.mimetype) == (200, "image/png")
    check_documented(response, GENERATED)


def test_image_of_another_is_refused_as_documented(alice, bob):
    url = alice.generate().json["data"]["imageUrl"]

    response = bob.get(url)

    assert response.status_code == 403
    check_documented(response, GENERATED)


def test_avatar_is_as_documented(client):
    url = register(client, avatar=(png(), "me.png")).json["data"]["avatarUrl"]

    response = client.get(url)

    assert (response.status_code, response.mimetype) == (200, "image/png")
    check_documented(response, "/api/uploads/avatars/{filename}")


def test_missing_avatar_is_refused_as_documented(visitor):
    response = visitor.get("/api/uploads/avatars/none.png")

    assert response.status_code == 404
    check_documented(response, "/api/uploads/avatars/{filename}")


def test_too_many_log_ins_are_refused_as_documented(alice, settings):
    settings.LOGIN_FAILURES_PER_ACCOUNT = 1
    log_in(alice, password="wrong")

    response = log_in(alice)

    assert response.status_code == 429
    check_documented(response)


def test_too_many_registrations_are_refused_as_documented(alice, settings):
    settings.REGISTRATIONS_PER_ADDRESS = 1

    response = register(alice)

    assert response.status_code == 429
    check_documented(response)


def redeem(person: Person, code: str):
    return person.post("/api/auth/redeem", json={"code": code})


def make_invite(**fields) -> str:
    _, code = invites.create(parse(InviteInput, fields))
    return code


CODES = {
    "code_used": lambda: db.execute("UPDATE invites SET uses = max_uses"),
    "code_expired": lambda: db.execute("UPDATE invites SET expires_at = 1"),
    "code_unknown": lambda: db.execute("DELETE FROM invites"),
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("send", [redeem, lambda person, code: register(person, inviteCode=code)])
def test_code_that_cannot_be_used_is_refused_as_documented(alice, code, send):
    invite = make_invite()
    CODES[code]()

    response = send(alice, invite)

    assert response.json["code"] == code
    check_documented(response)


def test_limits_of_an_invite_are_as_documented(alice):
    invite = make_invite(dailyImages=9, models=["test_model"], limitDays=1)

    for response in (redeem(alice, invite), alice.get("/api/auth/profile")):
        assert response.json["data"]["limits"]["source"] == "invite"
        check_documented(response)


def test_fixed_limits_and_other_models_are_refused_as_documented(alice, forms):
    limits.set_limits(alice.id, Limits(models=["plain"]), None, limits.ADMIN)

    answers = [redeem(alice, make_invite()), choose(alice), alice.generate()]

    codes = [answer.json["code"] for answer in answers]
    assert codes == ["limits_fixed", "model_not_allowed", "model_not_allowed"]
    for response in answers:
        check_documented(response)


@pytest.mark.parametrize("send", [redeem, lambda person, code: register(person, inviteCode=code)])
def test_too_many_codes_are_refused_as_documented(alice, settings, send):
    settings.INVITE_FAILURES_PER_ADDRESS = 1
    redeem(alice, "x")

    response = send(alice, "x")

    assert response.status_code == 429
    check_documented(response)


@pytest.mark.parametrize("mode", ["invite", "closed"])
def test_registration_that_is_not_open_is_refused_as_documented(alice, settings, mode):
    settings.REGISTRATION = mode

    response = register(alice)

    assert response.status_code == 403
    check_documented(response)


def test_unknown_address_is_refused_as_documented(visitor):
    response = visitor.get("/api/nothing")

    assert response.status_code == 404
    check_answer(response, COMPONENTS["responses"]["NotFound"])


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_other_method_is_refused_as_documented(visitor, path):
    response = visitor.open("PUT", address(path))

    assert response.status_code == 405
    check_answer(response, COMPONENTS["responses"]["MethodNotAllowed"])
    assert {method.lower() for method in response.allow} - {"head", "options"} == set(
        DOCUMENT["paths"][path]
    )


# -- Requests nobody thought of -----------------------------------------------------------------

# What a JSON Schema cannot say, and so only the data that schemathesis makes up at random can get
# wrong: names and prompts are measured without the blanks around them, full-width letters count as
# ordinary ones, invisible characters are refused, and random bytes are no picture. Its systematic
# data (boundaries, other types) is judged for these, too. What the document leaves open, and so any
# data can get wrong: a model has its own limits, and a cursor is one that the service gave.
# `Location` is the history once all records of a repeated request are deleted, so it is not
# followed. No worker runs beside the service here, so it is never ready.
SCHEMATHESIS = """
[generation]
deterministic = true
max-examples = 15

[phases.stateful.inference]
algorithms = ["dependency-analysis"]

[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "410"]
negative_data_rejection.expected-statuses = [
    "400", "401", "403", "404", "405", "409", "410", "413", "414", "429", "5xx",
]

[[operations]]
include-operation-id = "register"
phases.fuzzing.checks.positive_data_acceptance.enabled = false
phases.fuzzing.checks.negative_data_rejection.enabled = false
phases.stateful.checks.positive_data_acceptance.enabled = false
phases.stateful.checks.negative_data_rejection.enabled = false

# Another email needs a password.
[[operations]]
include-operation-id = "changeProfile"
checks.positive_data_acceptance.enabled = false
phases.fuzzing.checks.negative_data_rejection.enabled = false
phases.stateful.checks.negative_data_rejection.enabled = false

[[operations]]
include-operation-id = "generateTest"
phases.fuzzing.checks.negative_data_rejection.enabled = false
phases.stateful.checks.negative_data_rejection.enabled = false

[[operations]]
include-operation-id = "generate"
checks.positive_data_acceptance.enabled = false
phases.fuzzing.checks.negative_data_rejection.enabled = false
phases.stateful.checks.negative_data_rejection.enabled = false

# No schema says what is a picture.
[[operations]]
include-operation-id = "addUpload"
checks.positive_data_acceptance.enabled = false

# Its ids exclude its filters.
[[operations]]
include-operation-id = "archiveImages"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = ["listHistory", "adminListUsers"]
checks.positive_data_acceptance.enabled = false
# A URL that is too long is 414 of any call, as the head of the document says.
phases.fuzzing.checks.status_code_conformance.enabled = false
phases.stateful.checks.status_code_conformance.enabled = false

# No schema says which models there are, and which times are in the future.
[[operations]]
include-operation-id = ["adminChangeUser", "adminCreateInvite", "adminPauseQueue", "makeKey"]
checks.positive_data_acceptance.enabled = false

# No schema says which cursors there are.
[[operations]]
include-operation-id = "listTrash"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "getReadiness"
checks.not_a_server_error.enabled = false
checks.positive_data_acceptance.enabled = false
"""


LIMITS = [
    "LOGIN_FAILURES_PER_ACCOUNT",
    "LOGIN_FAILURES_PER_ADDRESS",
    "REGISTRATIONS_PER_ADDRESS",
    "TAKEN_NAMES_PER_ADDRESS",
    "INVITE_FAILURES_PER_ADDRESS",
    "CODES_PER_ACCOUNT",
    "CODES_PER_ADDRESS",
    "MAX_ACTIVE_JOBS",
    "DAILY_IMAGES",
    "SUBMITS_PER_MINUTE",
    "MAX_QUEUE",
]
NO_LIMITS = dict.fromkeys(LIMITS, "1000000")


# Behind these all others would only be refused.
ENDS_THE_SESSION = ["logOut", "endSession", "deleteAccount"]


def live_token(url: str) -> str:
    requests.post(f"{url}/api/auth/register", data=form("alice"))
    answer = requests.post(
        f"{url}/api/auth/login", json={"username": "alice", "password": "secret1"}
    )
    return answer.json()["data"]["token"]


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
def test_service_keeps_its_word_for_requests_made_up_at_random(live, tmp_path):
    url = live(**NO_LIMITS, METRICS="on").url
    config = tmp_path / "schemathesis.toml"
    config.write_text(SCHEMATHESIS)

    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(config),
        "run",
        f"{url}/api/openapi.json",
    ]
    header = f"Authorization: Bearer {live_token(url)}"
    db.execute("UPDATE users SET role = 'admin'")
    for operation in ENDS_THE_SESSION:
        command += ["--exclude-operation-id", operation]
    result = subprocess.run([*command, "--header", header], cwd=tmp_path, capture_output=True)

    assert result.returncode == 0, result.stdout.decode()


# -- As the service shows it --------------------------------------------------------------------


def page_files(visitor) -> list[str]:
    """Return the addresses of the files of the page, which names them by where it is itself."""
    found = re.findall(r'(?:src|href)="([^"]+)"', visitor.get("/api/docs").text)
    return [urljoin("/api/docs", file) for file in found]


def test_docs_page_loads_nothing_from_elsewhere(visitor):
    page = visitor.get("/api/docs")

    files = page_files(visitor)

    assert len(files) == 4
    assert all(file.startswith("/api/docs/") for file in files)
    assert "//" not in page.text
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=", page.text)


def test_docs_page_may_only_run_our_own_files(visitor):
    page = visitor.get("/api/docs")

    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";")
    )

    assert policy.pop("style-src") == "'self' 'unsafe-inline'"  # Swagger UI sets style attributes
    assert policy == {
        "default-src": "'self'",
        "img-src": "'self' data: blob:",  # answers that are pictures
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
    }


def test_docs_page_finds_its_files(visitor):
    answers = {file: visitor.get(file) for file in page_files(visitor)}

    assert {answer.status_code for answer in answers.values()} == {200}
    # Python 3.11 calls scripts application/javascript where the machine has no /etc/mime.types.
    types = {
        (file.rpartition(".")[2], answer.mimetype.rpartition("/")[2])
        for file, answer in answers.items()
    }
    assert types == {("png", "png"), ("css", "css"), ("js", "javascript")}
    for answer in answers.values():
        check_documented(answer, "/api/docs/{filename}")


def test_docs_page_shows_the_document_and_asks_no_validator(visitor):
    script = visitor.get("/api/docs/docs.js").text

    assert 'url: "openapi.json"' in script
    assert "validatorUrl: null" in script
    assert "http" not in script


def test_docs_folder_holds_nothing_else(visitor):
    response = visitor.get("/api/docs/none.js")

    assert response.status_code == 404
    check_documented(response, "/api/docs/{filename}")


# -- The reference client -----------------------------------------------------------------------

API_JS = "/assets/api.js"
ANSWERS_OF_PAGE = [
    (200, "/{screen}", "/gallery", {}),
    (404, "/{screen}", "/lobby", {}),
    (200, "/assets/{filename}", API_JS, {}),
    (206, "/assets/{filename}", API_JS, FIRST_BYTES),
    (304, "/assets/{filename}", API_JS, {"If-None-Match": "*"}),
    (404, "/assets/{filename}", "/assets/none.js", {}),
]


@pytest.mark.parametrize(("status", "path", "address", "headers"), ANSWERS_OF_PAGE)
def test_answer_of_the_page_is_as_documented(visitor, status, path, address, headers):
    response = visitor.get(address, headers=headers)

    assert response.status_code == status
    check_documented(response, path)
