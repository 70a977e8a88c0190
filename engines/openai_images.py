"""Servers that speak OpenAI's Images API: OpenAI, LocalAI, vLLM-Omni, SiliconFlow and many more.

What may cost money is never asked for twice on a guess:
- make() sends the request once; neither requests nor a redirect repeats it.
- before_send() notes in the row, right before, that it may have gone out. A sweep that finds such a row without
  its worker fails it with outcome_unknown; it does not give it to another.
- If no answer came, or one from a gateway that gave up waiting, nobody knows what became of it. That is
  PermanentError("outcome_unknown") where somebody pays, and TransientError where nobody does.
- 429, 500, 502 and 503 are TransientError for all: providers charge for pictures, not for errors of their own.
"""

import base64
import ipaddress
import re
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from engines import GeneratedImage, ImageRequest, NoResponse, PermanentError, TransientError, remote
from engines.options import OpenAIImages

# Half of the progress bar is full after this time; the API says nothing until the picture is there.
TYPICAL_SECONDS = 30
CHECK_SECONDS = 4

# A picture that the answer only links to.
FETCH_SECONDS = 60
MAX_PICTURE_BYTES = 50 * 1024 * 1024
PAUSES_SECONDS = (1, 3)
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)

# The server, or a gateway before it, gave up waiting; those from 520 on are Cloudflare's.
UNDECIDED = (408, 504, 520, 521, 522, 523, 524)
# How providers name such errors: OpenAI, Azure, DashScope, Volcengine, One API and their like.
ACCOUNT = re.compile(
    r"billing|insufficient_?(\w+_)?(quota|balance|credit|fund)|credit_balance|(spend|usage)_limit|arrear|overdue"
    r"|deactivated",
    re.IGNORECASE,
)
CONTENT = re.compile(
    r"content_?(policy|filter)|policy_?violation|moderation|safety|sensitive|inspection|prohibited|nsfw|risk_?detect"
    r"|image_generation_user_error",
    re.IGNORECASE,
)


# -- The two calls ------------------------------------------------------------------------------


def make(job: ImageRequest, on_progress: Callable[[int, int], None]) -> GeneratedImage:
    """Have one picture made. Raises TransientError and PermanentError, and whatever on_progress raises."""
    options, tick = job.options, estimate(on_progress)
    with closing(
        remote.Client(options.base_url, remote.bearer_auth(options.api_key_env))
    ) as server:
        body = request_body(job)
        if options.is_paid:
            job.before_send()
        answer = remote.run_with_progress(lambda: submit(server, body, options), tick)
    found = first_picture(answer)
    data = decoded(found.encoded) if found.encoded else fetch(found.url, options, tick)
    return GeneratedImage(data, found.params)


def check(options: OpenAIImages) -> list[str]:
    """Ask for the list of models, which is free. Raises TransientError and PermanentError."""
    with closing(
        remote.Client(options.base_url, remote.bearer_auth(options.api_key_env))
    ) as server:
        answer = server.send("GET", "/models", CHECK_SECONDS)
    if answer.status in (404, 405):
        return ["no model list"]
    raise_for_status(answer)
    names = model_names(answer.json())
    if not names:
        return ["no model list"]
    if options.model not in names:
        raise PermanentError("engine_refused", "no such model", "no such model")
    return [f"{len(names)} model{'s' if len(names) > 1 else ''}"]


def model_names(body: Any) -> set[str]:
    items = body.get("data") if isinstance(body, dict) else None
    return (
        {str(item.get("id")) for item in items if isinstance(item, dict)}
        if isinstance(items, list)
        else set()
    )


def estimate(on_progress: Callable[[int, int], None]) -> Callable[[], None]:
    """Return what tells on_progress a share that grows with time and never gets to the whole."""
    started = time.monotonic()

    def tick() -> None:
        seconds = time.monotonic() - started
        on_progress(int(100 * seconds / (seconds + TYPICAL_SECONDS)), 100)

    return tick


# -- The request --------------------------------------------------------------------------------


def request_body(job: ImageRequest) -> dict[str, Any]:
    options = job.options
    values = {
        # Each record of ours is one picture, with an end of its own; several are several requests.
        "n": 1,
        "size": f"{job.width}x{job.height}",
        "quality": job.quality,
        "style": job.style,
        "sampler": job.sampler,
        "seed": job.seed,
        "steps": job.steps,
        "guidance": job.guidance,
        "negative_prompt": job.negative_prompt,
    }
    body = {"model": options.model, "prompt": job.prompt}
    body |= {
        options.fields[name]: value for name, value in values.items() if value not in (None, "")
    }
    body.pop("", None)
    # Sent only if asked for: OpenAI's own models refuse the field.
    if options.response_format:
        body["response_format"] = options.response_format
    return body | options.extra


def submit(
    server: remote.Client, body: dict[str, Any], options: OpenAIImages
) -> remote.RemoteResponse:
    """Send the request, once, and return the answer if it is a good one."""
    try:
        answer = server.send("POST", "/images/generations", options.timeout_seconds, json=body)
    except NoResponse as error:
        if not options.is_paid:
            raise
        raise PermanentError("outcome_unknown", str(error)) from None
    if options.is_paid and answer.status in UNDECIDED:
        raise PermanentError("outcome_unknown", str(answer.status))
    raise_for_status(answer)
    return answer


# -- The answer ---------------------------------------------------------------------------------


class Found(NamedTuple):
    """A picture in an answer: as base64, or else where it is."""

    encoded: str
    url: str
    params: dict[str, Any]


def first_picture(answer: remote.RemoteResponse) -> Found:
    """Return the picture in a good answer. Raises PermanentError if there is none."""
    body = answer.json()
    entries = (body.get("data") or body.get("images")) if isinstance(body, dict) else None
    entry = (
        entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    )
    encoded, url = text_of(entry, "b64_json"), text_of(entry, "url")
    if not encoded and url.startswith("data:"):
        encoded = url
    if not encoded and not url:
        raise_for_names(answer.status, names_of(error_of(answer), answer.status))
        raise PermanentError("engine_error", f"{answer.status} without a picture")
    return Found(encoded, url, params_of(body, entry))


def params_of(body: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for seed in (entry.get("seed"), body.get("seed")):
        if type(seed) is int and 0 <= seed < 2**63:
            params["seed"] = seed
    if revised := text_of(entry, "revised_prompt").strip():
        params["revised_prompt"] = revised[:4000]
    return params


def text_of(entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def decoded(text: str) -> bytes:
    """Return the bytes of base64 text, which may stand in a data: URL. Raises PermanentError."""
    if text.startswith("data:"):
        text = text.partition(";base64,")[2]
    data = b""
    with suppress(ValueError):
        data = base64.b64decode("".join(text.split()), validate=True)
    if not data:
        raise PermanentError("bad_picture", "broken base64")
    return data


# -- An answer that is no good one --------------------------------------------------------------


def raise_for_status(answer: remote.RemoteResponse) -> None:
    """Raise what an answer means, by the server's own names for it and else by its status."""
    if answer.status < 300:
        return
    error = error_of(answer)
    names = names_of(error, answer.status)
    detail = " ".join(filter(None, [*names, remote.identifier(error.get("param"))]))
    if 400 <= answer.status < 500:
        raise_for_names(answer.status, names)
    if 400 <= answer.status < 500 and answer.status not in (401, 402, 403, 408, 429):
        raise PermanentError("engine_refused", f"{answer.status} {detail}".strip(), detail)
    remote.raise_for_status(answer, detail)


def raise_for_names(status: int, names: list[str]) -> None:
    text = " ".join(names)
    if ACCOUNT.search(text):
        raise PermanentError("engine_account", f"{status} {text}")
    if CONTENT.search(text) or status == 451:
        raise PermanentError("content_refused", f"{status} {text}".strip())


def error_of(answer: remote.RemoteResponse) -> dict[str, Any]:
    """Return the object in an answer that names the error; some servers put the names at the top."""
    body = None
    with suppress(PermanentError):
        body = answer.json()
    if not isinstance(body, dict):
        return {}
    return body["error"] if isinstance(body.get("error"), dict) else body


def names_of(error: dict[str, Any], status: int) -> list[str]:
    """Return the server's own short names for what is wrong; not its sentences, which may quote the prompt."""
    inner = error.get("inner_error") or error.get("innererror")
    codes = [
        error.get("code"),
        error.get("type"),
        inner.get("code") if isinstance(inner, dict) else None,
    ]
    names = dict.fromkeys(
        remote.identifier(str(code)) for code in codes if isinstance(code, str | int)
    )
    # Some repeat the status as their code.
    return [name for name in names if name not in ("", str(status))]


# -- A picture that the answer only links to ----------------------------------------------------


def fetch(url: str, options: OpenAIImages, tick: Callable[[], None]) -> bytes:
    """Fetch the picture, in three tries: a GET costs nothing."""
    is_allowed_address = {} if options.allow_private_results else {"is_allowed_address": is_public}
    with (
        closing(remote.Client("", remote.bearer_auth(options.api_key_env))) as own,
        closing(remote.Client("", **is_allowed_address)) as others,
    ):
        for pause in (0, *PAUSES_SECONDS):
            remote.run_with_progress(partial(time.sleep, pause), tick)
            try:
                return remote.run_with_progress(partial(follow, url, options, own, others), tick)
            except TransientError as error:
                failure = error
    if options.is_paid:
        raise PermanentError("outcome_unknown", f"the picture could not be fetched: {failure}")
    raise failure


def follow(url: str, options: OpenAIImages, own: remote.Client, others: remote.Client) -> bytes:
    """Return what is found at an address, after some redirects; only the server itself gets the key."""
    for _ in range(1 + MAX_REDIRECTS):
        target = checked(url, options)
        server = own if is_own(target, options) else others
        answer = server.send("GET", target.url, FETCH_SECONDS, MAX_PICTURE_BYTES)
        if answer.status == 200:
            return answer.body
        if answer.status not in REDIRECTS:
            raise TransientError("engine_unavailable", f"{answer.status} for the picture")
        url = urljoin(target.url, answer.headers.get("Location", ""))
    raise PermanentError("engine_error", "too many redirects")


def checked(url: str, options: OpenAIImages) -> Url:
    """Return an address as the client will read it. Raises PermanentError if nothing may be fetched there."""
    target = Url()
    # Not an `except`, or the error, which has the address, would go along as the context of ours.
    with suppress(LocationParseError):
        target = parse_url(url)
    if target.scheme not in ("http", "https") or not target.host or target.auth:
        raise PermanentError("engine_error", "an odd address for the picture")
    if is_own(target, options):
        return target
    if not any(matches(target.host, pattern) for pattern in options.result_hosts):
        raise PermanentError(
            "engine_error", f"{remote.identifier(target.host) or 'a host'} is not in result_hosts"
        )
    if target.scheme == "http" and not options.allow_private_results:
        raise PermanentError(
            "engine_error", f"{remote.identifier(target.host) or 'a host'} asked without TLS"
        )
    return target


def is_own(target: Url, options: OpenAIImages) -> bool:
    """Tell if an address is the server's own: scheme, host and port, as another port is another program."""
    return origin(target) == origin(parse_url(options.base_url))


def origin(target: Url) -> tuple[str | None, str | None, int]:
    return target.scheme, target.host, target.port or {"http": 80}.get(target.scheme or "", 443)


def matches(host: str, pattern: str) -> bool:
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_global and not ip.is_multicast
