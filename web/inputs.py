"""What a request says: its body, query, upload, headers and address, checked by validation.py."""

import json
import re
import threading
from collections import Counter
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

import flask
from flask import request
from flask.json.provider import DefaultJSONProvider
from werkzeug.formparser import FormDataParser

from accounts.rate_limits import parse_address
from config import settings
from errors import ApiError
from files import pictures
from validation import InvalidInput, Schema, parse, validate_all

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
# A script that appends "no file" to a form sends it as one of these words.
NO_FILE = (None, "", "null", "undefined")
REMOVED = (None, "", "null")
KEPT = "undefined"
# Forms are taken apart one at a time: many threads at megabytes each would leave the interpreter
# lock to light requests for a small part of the time.
parsing = threading.Lock()
# What decoders put where bytes are no text.
REPLACEMENT = "\ufffd"
NOT_UTF8 = ("not_utf8", {})


class FormParser(FormDataParser):
    """Werkzeug's parser of forms; for one that cannot be read it raises ValueError."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, silent=False, **kwargs)


class Request(flask.Request):
    """Flask's request; what cannot be read of a body is refused, not left out."""

    form_data_parser_class = FormParser

    def get_data(self, *args: Any, **kwargs: Any) -> bytes:
        data = super().get_data(*args, **kwargs)
        # Werkzeug cuts a body without Content-Length off at the limit.
        may_be_cut = self.content_length is None and len(data) >= self.max_content_length
        if may_be_cut and self.environ["wsgi.input"].read(1):
            raise ApiError("payload_too_large")
        return data

    def on_json_loading_failed(self, error: ValueError | None) -> None:
        """Give None for a body that is no JSON. Raises InvalidInput for one that is not UTF-8."""
        if isinstance(error, UnicodeDecodeError):
            names = fields_not_utf8(self.get_data()) or ["body"]
            raise InvalidInput(fields=dict.fromkeys(names, NOT_UTF8))


class UnambiguousJSON(DefaultJSONProvider):
    """Flask's JSON, but an object that has a field twice is refused: who knows which is meant?"""

    def loads(self, s: str | bytes, **options: Any) -> Any:
        return super().loads(s, object_pairs_hook=unique_fields, **options)


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        shown = name.encode(errors="replace").decode()
        raise InvalidInput(fields={shown: ("duplicate", {})})
    return fields


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
    body = form_or_json()
    values, avatar = validate_all(lambda: parse(schema, body), lambda: uploaded_avatar(body))
    return values, avatar


def read_changes(schema: type[Schema]) -> tuple[Schema, bytes | None]:
    """Do the same for changes: an avatar that is null or an empty text is b"", it is removed.

    A file input that nobody touched sends an empty file, which changes nothing.
    """
    body = form_or_json()
    fields = {name: value for name, value in body.items() if name != "avatar"}
    values, avatar = validate_all(lambda: parse(schema, fields), lambda: uploaded_avatar(body))
    is_removed = body.get("avatar", KEPT) in REMOVED
    return values, b"" if is_removed and not avatar else avatar


def read_query(schema: type[Schema], repeated: tuple[str, ...] = ()) -> Schema:
    """Return the clean values of the query; parameters that may be repeated are lists."""
    refuse_other_encodings(request.query_string, "query")
    values = request.args.to_dict()
    lists = {name: request.args.getlist(name) for name in repeated if name in values}
    return parse(schema, {**values, **lists})


def json_body() -> dict[str, Any]:
    """Return the JSON object in the body. Raises ApiError for anything else."""
    try:
        body = request.get_json() if request.is_json else None
    except RecursionError:  # thousands of nested brackets
        body = None
    if not isinstance(body, dict):
        raise ApiError("invalid_json")
    return body


def form_or_json() -> dict[str, Any]:
    """Return the fields of the body. Raises ApiError."""
    if request.is_json:
        return json_body()
    if request.mimetype not in FORMS and request.get_data():
        raise InvalidInput(fields={"body": ("form_type", {})})
    if request.mimetype == "application/x-www-form-urlencoded":
        refuse_other_encodings(request.get_data(), "body")
    try:
        with parsing:
            form = request.form.to_dict()
    except UnicodeDecodeError:  # in the name of a field or file
        raise InvalidInput(fields={"body": NOT_UTF8}) from None
    except ValueError:
        raise InvalidInput(fields={"body": ("form_type", {})}) from None
    wrong = {name: NOT_UTF8 for name, text in form.items() if REPLACEMENT in text}
    if wrong:
        raise InvalidInput(fields=wrong)
    return form


def refuse_other_encodings(pairs: bytes, place: str) -> None:
    """Raise InvalidInput naming the first field of a query or form that is not UTF-8."""
    if is_utf8(unquote_to_bytes(pairs)):
        return
    for pair in pairs.split(b"&"):
        name = unquote_to_bytes(pair.partition(b"=")[0])
        if not is_utf8(unquote_to_bytes(pair)):
            field = name.decode() if is_utf8(name) else place
            raise InvalidInput(fields={field: NOT_UTF8})


def fields_not_utf8(data: bytes) -> list[str]:
    """Return the names of the texts in a JSON object that are not UTF-8, if they can be told."""
    names = []
    with suppress(ValueError, AttributeError):
        # Latin-1 has a character for each byte, so that the rest can be read.
        for name, value in json.loads(data.decode("latin-1")).items():
            is_text = isinstance(value, str)
            if is_text and name.isascii() and not is_utf8(value.encode("latin-1", "replace")):
                names.append(name)
    return names


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def uploaded_avatar(body: dict[str, Any]) -> bytes | None:
    """Return the avatar in the request, of which only the header was looked at, or None.

    Raises BadPicture.
    """
    upload = request.files.get("avatar")
    data = upload.read() if upload else b""
    if data:
        pictures.check_avatar(data)
        return data
    if body.get("avatar") not in NO_FILE:
        raise pictures.BadPicture("avatar_not_a_file")
    return None


def read_upload(schema: type[Schema]) -> bytes:
    """Return the file in the field `file` of a form with nothing else. Raises ApiError."""
    body, files = form_or_json(), request.files
    parse(schema, {**body, **dict.fromkeys(files, b"")})
    if len(files.getlist("file")) + ("file" in body) > 1:
        raise InvalidInput(fields={"file": ("duplicate", {})})
    if upload := files.get("file"):
        return upload.read()
    raise InvalidInput(fields={"file": ("not_a_file", {})})


def idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,100}", key):
        raise InvalidInput(fields={"Idempotency-Key": ("idempotency_key", {})})
    return key


def user_agent() -> str:
    return request.headers.get("User-Agent", "")


def client_address() -> str:
    """Return the address of the client.

    X-Forwarded-For counts only as far as TRUSTED_PROXIES wrote it, and what is no address there
    stands for none.
    """
    address = parse_address(request.remote_addr or "")
    if settings.TRUSTED_PROXIES:
        forwarded_for = request.headers.get("X-Forwarded-For", "")
        hops = [hop for hop in forwarded_for.split(",") if hop.strip()]
        while hops and is_trusted_proxy(str(address)):
            hop = hops.pop()
            if not parse_address(hop):
                break
            address = parse_address(hop)
    return str(address or "")


def service_path() -> str:
    """Return the path below which clients find the service, such as "/studio"; mostly "".

    X-Forwarded-Prefix counts only without URL_PREFIX, and if a proxy of TRUSTED_PROXIES wrote it.
    """
    if settings.URL_PREFIX:
        return settings.URL_PREFIX
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
    parsed = parse_address(address)
    return bool(parsed) and any(parsed in network for network in settings.TRUSTED_PROXIES)
