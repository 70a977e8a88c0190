"""What a request says: its body, query, upload, headers and address, checked by validation.py."""

import ipaddress
import re
from typing import Any

from flask import request

from config import settings
from errors import ApiError
from files import pictures
from validation import InvalidInput, Schema, parse, validate_all

# A script that appends "no file" to a form sends it as one of these words.
NO_FILE = (None, "", "null", "undefined")


def read_body(schema: type[Schema]) -> Schema:
    """Return the clean values of the JSON body. Raises ApiError."""
    return parse(schema, json_body())


def read_optional_body(schema: type[Schema]) -> Schema:
    """Do the same, but take an empty body for {}."""
    return parse(schema, json_body() if request.get_data() else {})


def read_form(schema: type[Schema]) -> tuple[Schema, bytes | None]:
    """Return the clean values of a form or a JSON body, and the avatar uploaded with a form.

    Raises InvalidInput naming the wrong fields, the avatar among them.
    """
    values, avatar = validate_all(lambda: parse(schema, form_or_json()), uploaded_avatar)
    return values, avatar


def read_query(schema: type[Schema]) -> Schema:
    return parse(schema, request.args.to_dict())


def json_body() -> dict[str, Any]:
    """Return the JSON object in the body. Raises ApiError for anything else."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # thousands of nested brackets
        body = None
    if not isinstance(body, dict):
        raise ApiError("invalid_json")
    return body


def form_or_json() -> dict[str, Any]:
    return json_body() if request.is_json else request.form.to_dict()


def uploaded_avatar() -> bytes | None:
    """Return the avatar in the request, of which only the header was looked at, or None.

    Raises BadPicture.
    """
    upload = request.files.get("avatar")
    data = upload.read() if upload else b""
    if data:
        pictures.check_avatar(data)
        return data
    if form_or_json().get("avatar") not in NO_FILE:
        raise pictures.BadPicture("avatar_not_a_file")
    return None


def idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,100}", key):
        raise InvalidInput(fields={"Idempotency-Key": ("idempotency_key", {})})
    return key


def client_address() -> str:
    """Return the address of the client.

    X-Forwarded-For counts only as far as TRUSTED_PROXIES wrote it.
    """
    address = request.remote_addr or ""
    if not settings.TRUSTED_PROXIES:
        return address
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")
    hops = [hop.strip() for hop in forwarded if hop.strip()]
    while hops and is_trusted_proxy(address):
        address = hops.pop()
    return address


def service_path() -> str:
    """Return the path below which clients find the service, such as "/studio"; mostly "".

    X-Forwarded-Prefix counts only if a proxy of TRUSTED_PROXIES wrote it.
    """
    prefix = forwarded("X-Forwarded-Prefix")
    return prefix if re.fullmatch(r"(/[\w.~-]+)+", prefix, re.ASCII) else request.script_root


def service_url() -> str:
    """Return the address of the service as the client reached it."""
    scheme = forwarded("X-Forwarded-Proto")
    if scheme not in ("http", "https"):
        scheme = request.scheme
    return f"{scheme}://{request.host}{service_path()}"


def forwarded(name: str) -> str:
    """Return a header that only a trusted proxy can set, or ""."""
    text = request.headers.get(name, "")
    return text if text and is_trusted_proxy(request.remote_addr or "") else ""


def is_trusted_proxy(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in settings.TRUSTED_PROXIES)
