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

MAX_DEPTH = 12
MAX_REVISED_PROMPT_LENGTH = 4000

# The first bytes of pictures. BMP, WebP and AVIF have more of them behind a length.
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
AVIF_BRANDS = (b"avif", b"avis", b"mif1")

# Names of fields with base64 text, with a link, and with what may be a link.
ENCODED_NAME = re.compile(r"b64|base_?64|image_?bytes", re.IGNORECASE)
URL_NAME = re.compile(r"(ur[li]s?|links?|href)$", re.IGNORECASE)
PICTURE_NAME = re.compile(
    r"^$|image|img|picture|photo|output|result|sample|artifact|file|data", re.IGNORECASE
)
# Those of what is no result; and no prompt may choose what is fetched.
OTHER_NAME = re.compile(
    r"prompt|input|mask|thumb|preview|partial|poll|status|cancel|response_?url|call_?back|hook"
    r"|error|web_?url|html|page|share|icon|logo|doc|help|support",
    re.IGNORECASE,
)
LINK = re.compile(r"(https?:/|\.{0,2}/)\S+|\S+\.(png|jpe?g|webp|gif|avif|bmp|tiff?)", re.IGNORECASE)
DATA_URL = re.compile(r"data:[\w/+.;=-]*,", re.IGNORECASE)
LINE_END = re.compile(r"\r\n|\r|\n")

TASK_NAME = re.compile(r"(task|job|prediction|generation)_?id", re.IGNORECASE)
# In an answer with one of these, an id is the id of a task.
STATE_FIELDS = ("task_status", "status", "state")
POLL_FIELDS = ("polling_url", "status_url", "response_url")
ID_FIELDS = ("id", "request_id", "requestId", "uuid")
WAITING_STATE = re.compile(
    "pending|queue|process|progress|running|start|submit|wait", re.IGNORECASE
)
ENDED_STATE = re.compile(
    "fail|error|cancel|reject|succe|complete|finish|done|ready|expire", re.IGNORECASE
)


class Picture(NamedTuple):
    """A picture in an answer: its bytes, its base64 text, or the link to it."""

    data: bytes = b""
    encoded: str = ""
    link: str = ""
    params: dict[str, Any] = {}


class Text(NamedTuple):
    """A text in an answer, with the name of its field and the object that this is in."""

    text: str
    name: str = ""
    entry: dict[str, Any] = {}

    @property
    def is_encoded(self) -> bool:
        """Whether this is a picture as base64 text."""
        if ENCODED_NAME.search(self.name):
            return self.text[:4].lower() != "http"
        return bool(DATA_URL.match(self.text)) or is_picture(first_bytes(self.text))

    @property
    def is_link(self) -> bool:
        if URL_NAME.search(self.name):
            return True
        return bool(PICTURE_NAME.search(self.name) and LINK.fullmatch(self.text))


def picture_of(response: RemoteResponse) -> Picture | None:
    """Return the picture of a successful answer. Raises PermanentError if it is no JSON."""
    if is_picture(response.body):
        return Picture(data=response.body)
    body = parse(response)
    found = find_picture(body)
    if not found or (not found.is_encoded and is_waiting(body)):
        return None
    params = used_params(as_dict(body), found.entry)
    if found.is_encoded:
        return Picture(encoded=found.text, params=params)
    return Picture(link=found.text, params=params)


def is_picture(data: bytes) -> bool:
    """Tell whether bytes are the beginning of a picture."""
    is_bmp = data[:2] == b"BM" and data[6:10] == bytes(4)
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    is_avif = data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS
    return data.startswith(SIGNATURES) or is_bmp or is_webp or is_avif


# -- JSON and events ----------------------------------------------------------------------------


def parse(response: RemoteResponse) -> Any:
    """Return the JSON of an answer, or of the event that counts in a stream of events.

    A link or base64 text that is the whole answer is returned as it is.
    """
    try:
        return response.json()
    except PermanentError:
        text = response.text().strip()
        events = list(read_events(text))
        if not events and find_picture(text):
            return text
        if not events:
            raise
    # Pictures that are not complete yet come first.
    whole = [event for event in events if not is_preview(event)]
    for event in reversed(whole):
        if find_picture(event):
            return event
    return whole


def read_events(text: str) -> Iterator[Any]:
    """Yield the JSON of each event of a stream (SSE), or of each line; `[DONE]` is none."""
    value = ""
    for line in LINE_END.split(text):
        field, _, rest = line.partition(":")
        if line.startswith("{"):
            field, rest = "data", line
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


def find_picture(body: Any) -> Text | None:
    """Return the first picture in an answer, base64 text before a link; None if there is none."""
    texts = list(texts_in(body))
    encoded = (text for text in texts if text.is_encoded)
    links = (text for text in texts if text.is_link)
    return next(encoded, None) or next(links, None)


def texts_in(value: Any, name: str = "", entry: dict | None = None, depth: int = 0) -> Iterator:
    """Yield each Text in a JSON value that may be a picture."""
    if isinstance(value, str) and value.strip():
        yield Text(value.strip(), name, entry or {})
    if depth > MAX_DEPTH:
        return
    for part in as_list(value):
        yield from texts_in(part, name, entry, depth + 1)
    for key, part in as_dict(value).items():
        if not OTHER_NAME.search(key):
            yield from texts_in(part, key, value, depth + 1)


def first_bytes(text: str) -> bytes:
    """Return the first bytes of what may be base64 text; b"" if it is not."""
    with suppress(PermanentError):
        return remote.decode_base64(text[:24])
    return b""


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


def objects_in(value: Any, depth: int = 0) -> Iterator[dict]:
    """Yield each object in a JSON value, the outer ones first."""
    if isinstance(value, dict):
        yield value
    if depth <= MAX_DEPTH:
        for part in as_list(value) or as_dict(value).values():
            yield from objects_in(part, depth + 1)


def find_task(body: Any) -> str:
    """Return the id of the task that an answer names instead of a picture; "" if it names none."""
    for entry in objects_in(body):
        state = state_of(entry)
        if ENDED_STATE.search(state):
            return ""
        names = [name for name in entry if TASK_NAME.fullmatch(name)]
        if state or any(entry.get(name) for name in POLL_FIELDS):
            names += ID_FIELDS
        task = first_id(entry, names)
        if task:
            return task
    return ""


def is_waiting(body: Any) -> bool:
    """Tell whether an answer says that its picture is yet to be made."""
    return any(WAITING_STATE.search(state_of(entry)) for entry in objects_in(body))


def state_of(entry: dict) -> str:
    states = [str(entry[name]) for name in STATE_FIELDS if entry.get(name)]
    return " ".join(states)


def first_id(entry: dict, names: list[str]) -> str:
    for name in names:
        value = entry.get(name) or ""
        task = remote.identifier(str(value))
        if task:
            return task
    return ""
