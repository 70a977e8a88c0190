"""openapi.yaml and openapi/*.yaml as they are served: one document, with what the code knows.

The head of openapi.yaml explains its `x-` keys; none of them is served. This module is imported at
the first request for the document, so a process that never serves it pays nothing.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

import accounts.schemas
import images.schemas
import messages
from config import settings
from errors import ERRORS, ApiError
from web import admin_schemas, responses

ROOT = Path(__file__).parent.parent
# What web/hooks.py adds to every answer, and web/responses.py to errors.
COMMON_HEADER = "X-Request-Id"
ERROR_HEADERS = {
    401: ["WWW-Authenticate"],
    405: ["Allow"],
    416: ["Content-Range"],
    429: ["Retry-After", "RateLimit", "RateLimit-Policy"],
    503: ["Retry-After"],
}
# What every operation that takes a token answers to some API keys.
KEY_REFUSED = "KeyRefused"
# pydantic leaves these names as they are beside a validator of ours.
KEYWORDS = {
    "ge": "minimum",
    "le": "maximum",
}
NULL = {"type": "null"}

Node = dict[str, Any]


def document(server_url: str) -> Node:
    """Return the document for a client that reached the service at this URL."""
    return {
        **located(complete_document()),
        "servers": [{"url": server_url}],
    }


def located(node: Any) -> Any:
    """Return a part of the document in which examples of addresses begin with URL_PREFIX."""
    if not settings.URL_PREFIX:
        return node
    if isinstance(node, dict):
        return {name: located(value) for name, value in node.items()}
    if isinstance(node, list):
        return [located(value) for value in node]
    is_address = isinstance(node, str) and re.match("<?/api/", node)
    return node.replace("/api/", f"{settings.URL_PREFIX}/api/", 1) if is_address else node


@lru_cache(maxsize=1)
def complete_document() -> Node:
    found = read_files()
    components = found["components"]
    schemas = components["schemas"]
    shared = components["responses"]

    complete_answers(schemas)
    statuses = complete_errors(shared)
    complete_responses(shared)
    security = found.pop("security")
    queries = set()
    for methods in found["paths"].values():
        for operation in methods.values():
            operation.setdefault("security", security)
            refer_to_errors(operation, statuses)
            complete_responses(operation["responses"])
            complete_body(operation, schemas)
            queries.add(complete_query(operation, schemas))
    for name in queries - {None}:
        del schemas[name]
    return found


def read_files() -> Node:
    """Return openapi.yaml with the paths and components that the files of openapi/ add to it."""
    found = read(ROOT / "openapi.yaml")
    for file in sorted((ROOT / "openapi").glob("*.yaml")):
        added = read(file)
        add(found["paths"], added.get("paths", {}))
        for kind, named in added.get("components", {}).items():
            add(found["components"].setdefault(kind, {}), named)
    return found


def read(file: Path) -> Node:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def add(known: Node, more: Node) -> None:
    """Add methods to paths, or entries to components; one name stands for one thing."""
    for name, node in more.items():
        if known.get(name, {}).keys() & node.keys():
            raise ValueError(f"openapi/ says {name} twice")
        known[name] = {**known.get(name, {}), **node}


def reference(kind: str, name: str) -> Node:
    return {"$ref": f"#/components/{kind}/{name}"}


# -- Answers ------------------------------------------------------------------------------------


def complete_answers(schemas: Node) -> None:
    schemas["ErrorCode"]["enum"] = list(ERRORS)
    schemas["FailureCode"]["enum"] = list(messages.JOB_ERRORS)
    for schema in schemas.values():
        if "x-data" in schema or "x-message" in schema:
            complete_success(schema)


def complete_success(schema: Node) -> None:
    """Make the schema of what responses.success() returns."""
    message = schema.pop("x-message", None)
    data = schema.pop("x-data", None)
    properties = {"status": reference("schemas", "Success")}
    if message:
        properties["message"] = {
            "type": "string",
            "examples": [messages.success_text(message, "zh")],
        }
    if data:
        properties["data"] = data
    schema["type"] = "object"
    schema["required"] = list(properties)
    schema["properties"] = properties


def complete_errors(shared: Node) -> dict[str, str]:
    """Complete the error responses, and return the HTTP status of each."""
    statuses = {}
    for name, response in shared.items():
        codes = response.pop("x-codes", None)
        if not codes:
            continue
        code = next(iter(codes))  # they have one status
        status, *_ = ERRORS[code]
        statuses[name] = str(status)
        response["content"] = {
            "application/json": error_media(codes),
        }
        headers = ERROR_HEADERS.get(status, [])
        response["headers"] = {name: reference("headers", name) for name in headers}
    return statuses


def error_media(codes: Node) -> Node:
    """Return the schema of an error with one of these codes, and an example of each."""
    examples = {}
    for code, shown in codes.items():
        fields = shown.pop("fields", None)
        error = ApiError(code, fields=fields)
        examples[code] = {
            **shown,
            "value": responses.error_body(error, "zh"),
        }
    any_error = reference("schemas", "ApiError")
    these_codes = {
        "type": "object",
        "properties": {"code": {"enum": list(codes)}},
    }
    return {
        "schema": {"allOf": [any_error, these_codes]},
        "examples": examples,
    }


def refer_to_errors(operation: Node, statuses: dict[str, str]) -> None:
    errors = operation.pop("x-errors", [])
    if "Unauthorized" in errors:
        errors = [KEY_REFUSED, *errors]
    for name in errors:
        status = statuses[name]
        operation["responses"][status] = reference("responses", name)


def complete_responses(responses: Node) -> None:
    """Add the schemas of answers, and the header that each of them has."""
    header = reference("headers", COMMON_HEADER)
    for response in responses.values():
        if answer := response.pop("x-answer", None):
            schema = reference("schemas", answer)
            response["content"] = {"application/json": {"schema": schema}}
        if "$ref" not in response:
            others = response.get("headers", {})
            response["headers"] = {COMMON_HEADER: header, **others}


# -- Requests -----------------------------------------------------------------------------------


def complete_body(operation: Node, schemas: Node) -> None:
    """Add schema and example of a request body."""
    body = operation.get("requestBody", {"content": {}})
    for media in body["content"].values():
        name = media.pop("x-model")
        schema = model_schema(name, schemas)
        media["schema"] = reference("schemas", name)
        if "examples" in schema:
            media["example"] = schema["examples"][0]


def complete_query(operation: Node, schemas: Node) -> str | None:
    """Add the parameters that are fields of the query's model, and return its name."""
    name = operation.pop("x-query", None)
    if not name:
        return None
    model = model_schema(name, schemas)
    required = model.get("required", [])
    parameters = operation.setdefault("parameters", [])
    for field, schema in model["properties"].items():
        found = parameter(field, schema)
        if field in required:
            found["required"] = True
            found["example"] = schema["examples"][0]
        parameters.append(found)
    return name


def parameter(name: str, field: Node) -> Node:
    """Return a field of a query as a parameter, which may be left out but is never null."""
    schema = dict(field)
    for kind in schema.pop("anyOf", []):
        if kind != NULL:
            schema |= kind
    schema.pop("examples", None)
    found = {
        "name": name,
        "in": "query",
        "description": schema.pop("description"),
        "schema": schema,
    }
    if schema["type"] == "array":
        found["style"] = "form"
        # As `name=a&name=b`, or else as `name=a,b`.
        found["explode"] = schema.pop("x-repeated", False)
    return found


def model_schema(name: str, schemas: Node) -> Node:
    """Return the schema of a pydantic model, and put it among the others with those within it."""
    found = schemas.get(name, {})
    if "type" in found:  # another operation has it, too
        return found
    models = vars(accounts.schemas) | vars(images.schemas) | vars(admin_schemas)
    model = models[name]
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    for each, known in inner.items():
        described = schemas.get(each, {})
        schemas[each] = merge(known, described)
    schemas[name] = merge(schema, found)
    return schemas[name]


def merge(known: Node, described: Node) -> Node:
    """Return what a model knows of a value and what the file says of it as one schema."""
    merged = {}
    for keyword, value in {**known, **described}.items():
        keyword = KEYWORDS.get(keyword, keyword)
        merged[keyword] = value
    merged.pop("title", None)
    describe_default(merged)
    if "items" in merged:
        merged["items"] = merge(merged["items"], {})
    if "anyOf" in merged:
        kinds = merged["anyOf"]
        merged["anyOf"] = [merge(kind, {}) for kind in kinds]
    if "properties" in merged:
        fields = known["properties"]
        texts = described.get("properties", {})
        merged["properties"] = {}
        for name in {**texts, **fields}:
            field = fields.get(name, {})
            text = texts.get(name, {})
            merged["properties"][name] = merge(field, text)
    return merged


def describe_default(schema: Node) -> None:
    """Move a default into the description.

    A type made from a schema with one often demands the field.
    """
    default = schema.pop("default", None)
    if default in (None, ""):
        return
    value = json.dumps(default)
    text = schema.get("description", "").strip()
    schema["description"] = f"{text} Default: {value}.".strip()
