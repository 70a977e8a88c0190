"""The answers of servers with an Images API, and where the picture is in them.

Each provider has a shape of its own: the picture is base64 text or a link, in one of many fields,
in an event of a stream, or it is the whole answer.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from engines import PermanentError, remote
from engines.remote import RemoteResponse, as_dict, as_list

MAX_DEPTH = 8
MAX_REVISED_PROMPT_LENGTH = 4000

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
# The same as base64, in both alphabets; or a data: URL.
ENCODED_PICTURE = re.compile(
    r"data:|(iVBORw0KGg|[/_]9j[/_-]|R0lGOD|UklGR)[\w+/=\s-]{20}",
    re.IGNORECASE,
)
LINK = re.compile(r"(https?:/|\.{0,2}/)\S+", re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\r|\n")

TASK_FIELDS = ("task_id", "taskId", "taskID", "job_id", "jobId")
# In an answer with one of these, an id is the id of a task.
STATE_FIELDS = ("task_status", "status", "state", "polling_url", "status_url")
ID_FIELDS = ("id", "request_id", "requestId")
# Tasks that have ended.
ENDED_STATE = re.compile("fail|error|cancel|reject|succe", re.IGNORECASE)


class Picture(NamedTuple):
    """A picture in an answer: its bytes, its base64 text, or the link to it."""

    data: bytes = b""
    encoded: str = ""
    link: str = ""
    params: dict[str, Any] = {}


class Found(NamedTuple):
    """The text of a picture, and the object that it was in."""

    text: str
    is_encoded: bool
    entry: dict[str, Any] = {}


def picture_of(response: RemoteResponse) -> Picture | None:
    """Return the picture of a successful answer. Raises PermanentError if it is no JSON."""
    if is_picture(response.body):
        return Picture(data=response.body)
    body = parse(response)
    found = find_picture(body)
    if not found:
        return None
    params = used_params(as_dict(body), found.entry)
    if found.is_encoded:
        return Picture(encoded=found.text, params=params)
    return Picture(link=found.text, params=params)


def is_picture(data: bytes) -> bool:
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp or data.startswith(SIGNATURES)


# -- JSON and events ----------------------------------------------------------------------------


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
        # An event may have several lines.
        value += rest
        with suppress(ValueError, RecursionError):
            yield json.loads(value)
            value = ""


def is_preview(event: Any) -> bool:
    event = as_dict(event)
    kind = str(event.get("type"))
    return "partial_image_index" in event or "partial_image" in kind


# -- Pictures -----------------------------------------------------------------------------------


def find_picture(value: Any, depth: int = 0) -> Found | None:
    """Return the first picture in a JSON value; None if there is none."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, str):
        return picture_in_text(value)
    parts = as_list(value)
    if isinstance(value, dict):
        found = picture_in_fields(value)
        if found:
            return found
        parts = inner_values(value)
    for part in parts:
        found = find_picture(part, depth + 1)
        if found:
            return found
    return None


def picture_in_text(text: str) -> Found | None:
    if ENCODED_PICTURE.match(text):
        return Found(text, is_encoded=True)
    if LINK.fullmatch(text):
        return Found(text, is_encoded=False)
    return None


def picture_in_fields(entry: dict) -> Found | None:
    """Return the picture in the fields of an object that are made for it."""
    for name in (*ENCODED_FIELDS, *LINK_FIELDS):
        text = first_text(entry.get(name))
        if not text:
            continue
        is_url = text[:4].lower() == "http"
        is_encoded = name in ENCODED_FIELDS or bool(ENCODED_PICTURE.match(text))
        return Found(text, is_encoded and not is_url, entry)
    return None


def inner_values(entry: dict) -> list[Any]:
    """Return the values of an object that may contain a picture."""
    values = [entry.get(name) for name in CONTAINERS]
    # Google calls the base64 text itself `data`.
    is_inline = "mimeType" in entry or "mime_type" in entry
    data = entry.get("data")
    if is_inline and isinstance(data, str):
        values.insert(0, f"data:,{data}")
    return values


def first_text(value: Any) -> str:
    """Return a text, or the first one in a list; "" if there is none."""
    for text in as_list(value) or [value]:
        if isinstance(text, str) and text.strip():
            return text.strip()
    return ""


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


# -- Tasks --------------------------------------------------------------------------------------


def find_task(body: Any) -> str:
    """Return the id of the task that an answer names instead of a picture; "" if it names none."""
    body = as_dict(body)
    data = body.get("data")
    values = [body, body.get("output"), body.get("result"), data, *as_list(data)]
    for entry in map(as_dict, values):
        states = [str(entry[name]) for name in STATE_FIELDS if entry.get(name)]
        state = " ".join(states)
        if ENDED_STATE.search(state):
            return ""
        task = first_id(entry, TASK_FIELDS)
        if state and not task:
            task = first_id(entry, ID_FIELDS)
        if task:
            return task
    return ""


def first_id(entry: dict, names: tuple[str, ...]) -> str:
    for name in names:
        value = entry.get(name) or ""
        task = remote.identifier(str(value))
        if task:
            return task
    return ""
