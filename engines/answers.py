"""The answers of servers with an Images API, of which each has a shape of its own.

`picture_of()` finds the picture, or its address, in a successful answer. `error_of()` classifies
an error by the codes in it, or else by its HTTP status. Messages are ignored: they may quote the
prompt or the key.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from engines import EngineError, PermanentError, TransientError, remote
from engines.remote import RemoteResponse, as_dict, as_list

MAX_DEPTH = 8
MAX_REVISED_PROMPT_LENGTH = 4000
# Errors that take longer may come from a server that has made an image first.
QUICK_SECONDS = 5

# -- Where pictures are --------------------------------------------------------------------------

ENCODED_FIELDS = ("b64_json", "b64", "base64", "image_base64", "image_b64", "base64_image")
LINK_FIELDS = ("url", "image_url", "image_urls", "urls", "uri", "link")
# Where other objects, lists or the picture itself are.
CONTAINERS = (
    "data",
    "images",
    "image",
    "image_url",
    "output",
    "outputs",
    "results",
    "result",
    "artifacts",
    "choices",
    "message",
    "content",
    "candidates",
    "parts",
    "inlineData",
    "inline_data",
)
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8")
# The same as base64, in both alphabets.
ENCODED_PICTURE = re.compile(r"data:|(iVBORw0KGg|[/_]9j[/_-]|R0lGOD|UklGR)[\w+/=\s-]{20}", re.I)
LINK = re.compile(r"(https?:/|\.{0,2}/)\S+", re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\r|\n")
TASK_FIELDS = ("task_id", "taskId", "taskID", "job_id", "jobId")
# In an answer with one of these, an id is the id of a task.
STATE_FIELDS = ("task_status", "status", "state", "polling_url", "status_url")
ID_FIELDS = ("id", "request_id", "requestId")

# -- What errors mean ----------------------------------------------------------------------------

TRANSIENT = ("engine_busy", "engine_unavailable")
# Timeouts of the server, and what gateways answer for a server that did not; 520 to 529 are
# Cloudflare's and others'.
GATEWAY_STATUSES = (408, 502, 504, *range(520, 530))
# Parts of error codes of OpenAI, Azure, Google, DashScope, Volcengine, One API and others.
ACCOUNT_ERROR = re.compile(
    r"billing|insufficient_?(\w+_)?(quota|balance|credit|fund)|credit_balance|balance_?not_?enough"
    r"|not_?enough_?balance|(spend|usage)_limit|arrear|overdue|deactivated|unpurchased|pre_consume"
    r"|payment_?required|api_?key",
    re.IGNORECASE,
)
CONTENT_ERROR = re.compile(
    r"content_?(policy|filter)|policy_?violation|moderat|safety|sensitive|inspection|unsafe"
    r"|prohibited|nsfw|risk_?detect|image_generation_user_error|illegal_?(prompt|image|content)"
    r"|inappropriate|flagged",
    re.IGNORECASE,
)
BUSY_ERROR = re.compile(
    r"rate_?limit|too_?many|throttl|overload|capacity|busy|resource_?exhausted|concurrency",
    re.IGNORECASE,
)
# What gateways say of their own requests, and the headers of some of their answers.
GATEWAY_ERROR = re.compile(r"do_request|bad_response|upstream|gateway|litellm|(one|new)_api", re.I)
GATEWAY_HEADERS = ("x-litellm-", "x-portkey-", "x-oneapi-", "x-new-api-", "cf-aig-")
# Codes that say nothing: a status, or that there is none.
EMPTY_CODE = re.compile(r"[1-5][0-9][0-9]|none|null|error|unknown(_error)?", re.IGNORECASE)
FAILED_STATE = re.compile("fail|error|cancel|reject|succe", re.IGNORECASE)
# Zhipu's; its HTTP status for an account in arrears is 429.
NUMBERED_ERRORS = {
    **dict.fromkeys(map(str, range(1000, 1005)), "engine_account"),
    **dict.fromkeys(("1110", "1111", "1112", "1113", "1120", "1121"), "engine_account"),
    **dict.fromkeys(("1211", "1212", "1213", "1214", "1215", "1261"), "engine_refused"),
    **dict.fromkeys(("1300", "1301"), "content_refused"),
    **dict.fromkeys(("1302", "1303", "1305", "1312"), "engine_busy"),
    **dict.fromkeys(("1304", "1308", "1309", "1310", "1311"), "engine_account"),
}
# MiniMax's, in `base_resp` of an answer with status 200.
MINIMAX_ERRORS = {
    **dict.fromkeys(("1004", "1008", "2049", "2056"), "engine_account"),
    **dict.fromkeys(("1026", "1027"), "content_refused"),
    **dict.fromkeys(("1002", "1039", "1041"), "engine_busy"),
    **dict.fromkeys(("1000", "1001", "1013", "1024", "1033"), "engine_unavailable"),
    **dict.fromkeys(("2013", "1042", "2037"), "engine_refused"),
}


# -- Pictures -----------------------------------------------------------------------------------


class Picture(NamedTuple):
    """A picture in an answer: its bytes, its base64 text, or the link to it."""

    data: bytes = b""
    encoded: str = ""
    link: str = ""
    params: dict[str, Any] = {}


def picture_of(response: RemoteResponse) -> Picture | None:
    """Return the picture of a successful answer. Raises PermanentError if it is no JSON."""
    if is_picture(response.body):
        return Picture(data=response.body)
    body = parse(response)
    found = find_picture(body)
    if not found:
        return None
    text, is_encoded, entry = found
    params = used_params(as_dict(body), entry)
    if is_encoded:
        return Picture(encoded=text, params=params)
    return Picture(link=text, params=params)


def is_picture(data: bytes) -> bool:
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp or data.startswith(SIGNATURES)


def parse(response: RemoteResponse) -> Any:
    """Return the JSON of an answer, or of the event that counts in a stream of events."""
    try:
        return response.json()
    except PermanentError:
        events = list(read_events(response.text()))
        if not events:
            raise
    # Pictures that are not complete yet come first.
    whole = [event for event in events if not is_preview(event)]
    for event in reversed(whole):
        if find_picture(event):
            return event
    return whole


def read_events(text: str) -> Iterator[Any]:
    """Yield the JSON of each event of a stream (SSE); `[DONE]` at its end is none."""
    value = ""
    for line in LINE_END.split(text):
        field, _, rest = line.partition(":")
        if field != "data":
            value = ""
            continue
        value += rest
        with suppress(ValueError, RecursionError):
            yield json.loads(value)
            value = ""


def is_preview(event: Any) -> bool:
    event = as_dict(event)
    return "partial_image_index" in event or "partial_image" in str(event.get("type"))


def find_picture(value: Any, depth: int = 0) -> tuple[str, bool, dict] | None:
    """Return the first picture in a JSON value: its text, if that is base64, and its object."""
    if depth > MAX_DEPTH:
        return None
    inner = as_list(value)
    if isinstance(value, str):
        is_encoded = bool(ENCODED_PICTURE.match(value))
        return (value, is_encoded, {}) if is_encoded or LINK.fullmatch(value) else None
    if isinstance(value, dict):
        for name in (*ENCODED_FIELDS, *LINK_FIELDS):
            if text := first_text(value.get(name)):
                return text, is_base64(name, text), value
        inner = [value.get(name) for name in CONTAINERS]
        # Google calls the base64 text itself `data`.
        is_inline = "mimeType" in value or "mime_type" in value
        if is_inline and isinstance(value.get("data"), str):
            inner.insert(0, f"data:,{value['data']}")
    found = (find_picture(part, depth + 1) for part in inner)
    return next(filter(None, found), None)


def first_text(value: Any) -> str:
    """Return a text, or the first one in a list."""
    texts = [text for text in as_list(value) or [value] if isinstance(text, str) and text]
    return texts[0] if texts else ""


def is_base64(name: str, text: str) -> bool:
    if text[:4].lower() == "http":
        return False
    return name in ENCODED_FIELDS or bool(ENCODED_PICTURE.match(text))


def used_params(body: dict, entry: dict) -> dict[str, Any]:
    """Return the seed and the revised prompt that the server reports."""
    params = {}
    for source in (entry, body):
        seed = source.get("seed")
        if remote.is_seed(seed):
            params["seed"] = seed
    revised_prompt = entry.get("revised_prompt")
    if isinstance(revised_prompt, str) and revised_prompt.strip():
        params["revised_prompt"] = revised_prompt.strip()[:MAX_REVISED_PROMPT_LENGTH]
    return params


def find_task(body: Any) -> str:
    """Return the id of the task that an answer names instead of a picture; "" if it names none."""
    body = as_dict(body)
    entries = [body, *[as_dict(body.get(name)) for name in ("output", "data", "result")]]
    entries += [as_dict(entry) for entry in as_list(body.get("data"))]
    for entry in entries:
        states = [str(entry[name]) for name in STATE_FIELDS if entry.get(name)]
        if FAILED_STATE.search(" ".join(states)):
            return ""
        has_state = bool(states)
        fields = TASK_FIELDS + ID_FIELDS if has_state else TASK_FIELDS
        for name in fields:
            if task := remote.identifier(str(entry.get(name) or "")):
                return task
    return ""


# -- Errors -------------------------------------------------------------------------------------


def error_of(response: RemoteResponse, errors: dict[str, str]) -> EngineError:
    """Return the error that an answer means; `errors` is the table of the model's options."""
    status = response.status
    body = None
    with suppress(PermanentError):
        body = parse(response)
    codes = error_codes(body, status)
    kind = kind_of(body, status, codes, errors)
    task = find_task(body) if status < 300 and kind == "engine_error" else ""
    if task:
        detail = f"{status} with the task {task} instead of a picture"
        return PermanentError("engine_task", detail, shown=f"task {task}")
    names = [str(status), *codes]
    if kind == "engine_refused":
        names.append(refused_parameter(body))
    elif status < 300:
        names.insert(1, "without a picture")
    detail = " ".join(names).strip()
    if kind in TRANSIENT:
        return TransientError(kind, detail, response.retry_after)
    shown = detail.partition(" ")[2] if kind == "engine_refused" else ""
    return PermanentError(kind, detail, shown)


def is_free(response: RemoteResponse, errors: dict[str, str], seconds: float) -> bool:
    """Tell whether an error that may be temporary certainly was not charged.

    A quick error with a code of the provider's own was not. An error of a gateway says nothing
    about what the server behind it did, nor does one that came late.
    """
    body = None
    with suppress(PermanentError):
        body = parse(response)
    codes = error_codes(body, response.status)
    if declared_kind(response.status, codes, errors):
        return True
    if seconds > QUICK_SECONDS:
        return False
    kind = kind_of(body, response.status, codes, errors)
    if kind == "engine_busy":
        return True
    status = status_of(response.status, codes)
    if status in GATEWAY_STATUSES or is_of_gateway(response, codes):
        return False
    if status == 503:
        return bool(BUSY_ERROR.search(" ".join(codes)))
    return status >= 500 and not all(EMPTY_CODE.fullmatch(code) for code in codes)


def is_of_gateway(response: RemoteResponse, codes: list[str]) -> bool:
    """Tell whether an error comes from a known gateway, not from the provider itself."""
    if any(name.lower().startswith(GATEWAY_HEADERS) for name in response.headers):
        return True
    return bool(GATEWAY_ERROR.search(" ".join(codes)))


def kind_of(body: Any, status: int, codes: list[str], errors: dict[str, str]) -> str:
    """Return the key of messages.JOB_ERRORS for an error."""
    declared = declared_kind(status, codes, errors)
    if declared:
        return declared
    is_minimax = "base_resp" in as_dict(body)
    known = MINIMAX_ERRORS if is_minimax else NUMBERED_ERRORS
    for code in codes:
        if code in known:
            return known[code]
    text = " ".join(codes)
    if ACCOUNT_ERROR.search(text):
        return "engine_account"
    if status == 451 or CONTENT_ERROR.search(text):
        return "content_refused"
    return kind_of_status(status, codes)


def declared_kind(status: int, codes: list[str], errors: dict[str, str]) -> str:
    table = {code.casefold(): kind for code, kind in errors.items()}
    kinds = [table.get(code.casefold()) for code in (*codes, str(status))]
    return next(filter(None, kinds), "")


def status_of(status: int, codes: list[str]) -> int:
    """Return the HTTP status of an answer; some send that of an error as a code only."""
    if status >= 300:
        return status
    return next((int(code) for code in codes if re.fullmatch("[45][0-9][0-9]", code)), status)


def kind_of_status(status: int, codes: list[str]) -> str:
    status = status_of(status, codes)
    is_busy = BUSY_ERROR.search(" ".join(codes))
    if status == 429 or (is_busy and status < 500):
        return "engine_busy"
    if status in (401, 402, 403):
        return "engine_account"
    if status == 408 or status >= 500:
        return "engine_unavailable"
    return "engine_refused" if status >= 400 else "engine_error"


def refused_parameter(body: Any) -> str:
    names = [remote.identifier(error.get("param")) for error in error_objects(body)]
    return next(filter(None, names), "")


def error_codes(body: Any, status: int) -> list[str]:
    """Return the codes in an answer."""
    codes = []
    for error in error_objects(body):
        for value in code_values(error):
            is_code = isinstance(value, str | int) and not isinstance(value, bool)
            code = remote.identifier(str(value)) if is_code else ""
            # Some servers repeat the status as a code, or have one for success.
            if code not in ("", "0", str(status), *codes):
                codes.append(code)
    return codes


def code_values(error: dict) -> Iterator[Any]:
    """Yield what may be a code in the object of an error."""
    for name in ("code", "type", "status_code", "error_code", "errorCode"):
        yield error.get(name)
    message = error.get("message")
    if isinstance(message, str):
        # Google's word for the HTTP status.
        yield error.get("status")
        # Its only mark in many of its errors.
        if message.startswith("litellm."):
            yield "litellm"
    inner = error.get("inner_error") or error.get("innererror")
    yield as_dict(inner).get("code")
    for detail in as_list(error.get("details")):
        yield as_dict(detail).get("reason")
    # OpenRouter refuses prompts with 403, and says why.
    if as_dict(error.get("metadata")).get("reasons"):
        yield "moderation"


def error_objects(body: Any) -> list[dict]:
    """Return the objects that describe an error; the body itself if there is none in it."""
    found = []
    for part in as_list(body) or [body]:
        part = as_dict(part)
        places = [part.get(name) for name in ("error", "errors", "base_resp", "detail", "output")]
        for name in ("data", "images", "results"):
            places += [as_dict(entry).get("error") for entry in as_list(part.get(name))]
        inner = [as_error(entry) for place in places for entry in as_list(place) or [place]]
        found += list(filter(None, inner)) or [part]
    return found


def as_error(value: Any) -> dict:
    """Return an error as an object; some servers have only a word for it.

    Of the words only known ones: any other may be a message, and quote the prompt.
    """
    is_word = isinstance(value, str)
    if is_word and any(kind.search(value) for kind in (ACCOUNT_ERROR, CONTENT_ERROR, BUSY_ERROR)):
        return {"code": value}
    error = as_dict(value)
    return as_dict(error.get("error")) or error
