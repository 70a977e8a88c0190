"""Servers with OpenAI's Images API: OpenAI, LocalAI, vLLM-Omni, SiliconFlow and many others.

A request that may be charged for is never repeated while its outcome is unknown:

- make() sends the request once. There are no retries, and redirects are not followed.
- Directly before, it calls before_send(), which records that the request may have been sent. If
  the worker then dies, its job fails with outcome_unknown instead of being retried.
- If no response arrives, or only the timeout of a gateway, the outcome is unknown. That is
  PermanentError("outcome_unknown") if the image costs money, and TransientError if it is free.
- 429, 500, 502 and 503 are TransientError in both cases: providers do not charge for them.
"""

import base64
import ipaddress
import re
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from engines import (
    GeneratedImage,
    ImageRequest,
    NoResponse,
    OnProgress,
    PermanentError,
    TransientError,
    remote,
)
from engines.options import OpenAIImages
from engines.remote import RemoteResponse, ReportProgress, as_dict, as_list

# The API does not report progress, so it is estimated: 50 % after this time.
TYPICAL_SECONDS = 30
CHECK_TIMEOUT_SECONDS = 4

# The download of an image that the response only links to.
DOWNLOAD_TIMEOUT_SECONDS = 60
RETRY_DELAYS_SECONDS = (1, 3)
MAX_IMAGE_BYTES = 50 * 1024 * 1024
MAX_REDIRECTS = 3
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
DEFAULT_PORTS = {"http": 80, "https": 443}

MAX_REVISED_PROMPT_LENGTH = 4000

# Timeouts of the server or of a gateway before it; 520 to 524 are Cloudflare's.
TIMEOUT_STATUSES = (408, 504, 520, 521, 522, 523, 524)
# Client errors that remote.raise_for_status() does not report as engine_refused.
OTHER_CLIENT_ERRORS = (401, 402, 403, 408, 429)

# Parts of error codes of OpenAI, Azure, DashScope, Volcengine, One API and others.
ACCOUNT_ERROR = re.compile(
    r"billing|insufficient_?(\w+_)?(quota|balance|credit|fund)|credit_balance"
    r"|(spend|usage)_limit|arrear|overdue|deactivated",
    re.IGNORECASE,
)
CONTENT_ERROR = re.compile(
    r"content_?(policy|filter)|policy_?violation|moderation|safety|sensitive|inspection"
    r"|prohibited|nsfw|risk_?detect|image_generation_user_error",
    re.IGNORECASE,
)


def make(
    request: ImageRequest,
    on_progress: OnProgress,
) -> GeneratedImage:
    """Generate one image. Raises TransientError and PermanentError."""
    options = request.options
    report_progress = estimated_progress(on_progress)
    body = request_body(request)
    with closing(connect(options)) as client:
        if options.is_paid:
            request.before_send()
        response = remote.run_with_progress(
            lambda: send_request(client, body, options),
            report_progress,
        )
    image = first_image(response)
    if image.encoded:
        data = decode_base64(image.encoded)
    else:
        data = download_image(image.url, options, report_progress)
    return GeneratedImage(data, image.params)


def check(options: OpenAIImages) -> list[str]:
    """Ask for the list of models, which is free. Raises TransientError and PermanentError."""
    with closing(connect(options)) as client:
        response = client.send("GET", "/models", CHECK_TIMEOUT_SECONDS)
    if response.status in (404, 405):
        return ["no model list"]
    raise_for_error(response)
    names = model_names(response.json())
    if not names:
        return ["no model list"]
    if options.model not in names:
        raise PermanentError("engine_refused", "no such model", "no such model")
    if len(names) == 1:
        return ["1 model"]
    return [f"{len(names)} models"]


def connect(options: OpenAIImages) -> remote.Client:
    auth = remote.bearer_auth(options.api_key_env)
    return remote.Client(options.base_url, auth)


def model_names(body: Any) -> set[str]:
    models = as_list(as_dict(body).get("data"))
    names = set()
    for model in models:
        if isinstance(model, dict):
            name = model.get("id")
            names.add(str(name))
    return names


def estimated_progress(on_progress: OnProgress) -> ReportProgress:
    """Return a function that reports a progress that grows with time, but never reaches 100 %."""
    started = time.monotonic()

    def report_progress() -> None:
        elapsed = time.monotonic() - started
        fraction = elapsed / (elapsed + TYPICAL_SECONDS)
        on_progress(int(100 * fraction), 100)

    return report_progress


# -- The request --------------------------------------------------------------------------------


def request_body(request: ImageRequest) -> dict:
    options = request.options
    values = {
        # Several images are several requests: each has a record, and an outcome, of its own.
        "n": 1,
        "size": f"{request.width}x{request.height}",
        "quality": request.quality,
        "style": request.style,
        "sampler": request.sampler,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "negative_prompt": request.negative_prompt,
    }
    body = {
        "model": options.model,
        "prompt": request.prompt,
    }
    for name, value in values.items():
        field = options.fields[name]
        if field and value not in (None, ""):
            body[field] = value
    # OpenAI's own models refuse this field, so it has no default.
    if options.response_format:
        body["response_format"] = options.response_format
    return {**body, **options.extra}


def send_request(
    client: remote.Client,
    body: dict,
    options: OpenAIImages,
) -> RemoteResponse:
    """Send the request, once, and return a successful response."""
    try:
        response = client.send(
            "POST",
            "/images/generations",
            options.timeout_seconds,
            json=body,
        )
    except NoResponse as error:
        if options.is_paid:
            raise PermanentError("outcome_unknown", str(error)) from None
        raise
    if options.is_paid and response.status in TIMEOUT_STATUSES:
        raise PermanentError("outcome_unknown", str(response.status))
    raise_for_error(response)
    return response


# -- The response -------------------------------------------------------------------------------


class ImageEntry(NamedTuple):
    """An image in a response: either its base64 text or the URL to download it from."""

    encoded: str
    url: str
    params: dict


def first_image(response: RemoteResponse) -> ImageEntry:
    """Return the image of a successful response. Raises PermanentError if there is none."""
    body = as_dict(response.json())
    images = body.get("data") or body.get("images")
    entry = first_entry(images)
    encoded = text_of(entry, "b64_json")
    url = text_of(entry, "url")
    if not encoded and url.startswith("data:"):
        encoded = url
    if not encoded and not url:
        raise_for_missing_image(response)
    params = used_params(body, entry)
    return ImageEntry(encoded, url, params)


def first_entry(images: Any) -> dict:
    """Return the first of the images; {} if there is none or it is not an object."""
    images = as_list(images)
    if not images:
        return {}
    return as_dict(images[0])


def raise_for_missing_image(response: RemoteResponse) -> NoReturn:
    """Raise the error of a response that has the status 200, but an error instead of an image."""
    status = response.status
    error = error_object(response)
    raise_for_error_codes(status, error_codes(error, status))
    raise PermanentError("engine_error", f"{status} without a picture")


def used_params(body: dict, entry: dict) -> dict:
    """Return the seed and the revised prompt that the server reports."""
    params = {}
    for source in (entry, body):
        seed = source.get("seed")
        if remote.is_seed(seed):
            params["seed"] = seed
    revised_prompt = text_of(entry, "revised_prompt").strip()
    if revised_prompt:
        params["revised_prompt"] = revised_prompt[:MAX_REVISED_PROMPT_LENGTH]
    return params


def text_of(entry: dict, name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64 text or of a data: URL. Raises PermanentError."""
    if text.startswith("data:"):
        text = text.partition(";base64,")[2]
    text = "".join(text.split())
    data = b""
    with suppress(ValueError):
        data = base64.b64decode(text, validate=True)
    if not data:
        raise PermanentError("bad_picture", "broken base64")
    return data


# -- Error responses ----------------------------------------------------------------------------


def raise_for_error(response: RemoteResponse) -> None:
    """Raise the EngineError for an error response, by its error codes or else by its status."""
    status = response.status
    if status < 300:
        return
    error = error_object(response)
    codes = error_codes(error, status)
    parameter = remote.identifier(error.get("param"))
    names = [*codes, parameter]
    detail = " ".join(names)
    detail = detail.strip()
    is_client_error = 400 <= status < 500
    if is_client_error:
        raise_for_error_codes(status, codes)
    if is_client_error and status not in OTHER_CLIENT_ERRORS:
        text = f"{status} {detail}".strip()
        raise PermanentError("engine_refused", text, shown=detail)
    remote.raise_for_status(response, detail)


def raise_for_error_codes(status: int, codes: list[str]) -> None:
    text = " ".join(codes)
    detail = f"{status} {text}".strip()
    if ACCOUNT_ERROR.search(text):
        raise PermanentError("engine_account", detail)
    if status == 451 or CONTENT_ERROR.search(text):
        raise PermanentError("content_refused", detail)


def error_object(response: RemoteResponse) -> dict:
    """Return the error of a response: `error` in the body, or on some servers the body itself."""
    body = {}
    with suppress(PermanentError):
        body = as_dict(response.json())
    error = body.get("error")
    return error if isinstance(error, dict) else body


def error_codes(error: dict, status: int) -> list[str]:
    """Return the codes in an error. Its message is ignored, because it may quote the prompt."""
    inner_error = error.get("inner_error") or error.get("innererror")
    values = (
        error.get("code"),
        error.get("type"),
        as_dict(inner_error).get("code"),
    )
    # Some servers repeat the status as a code.
    ignored = ("", str(status))
    codes = []
    for value in values:
        if not isinstance(value, str | int):
            continue
        code = remote.identifier(str(value))
        if code not in ignored and code not in codes:
            codes.append(code)
    return codes


# -- Downloads ----------------------------------------------------------------------------------


def download_image(
    url: str,
    options: OpenAIImages,
    report_progress: ReportProgress,
) -> bytes:
    """Download the image. There are retries: unlike the request for it, a GET is never charged."""
    try:
        return download_with_retries(url, options, report_progress)
    except TransientError as error:
        if not options.is_paid:
            raise
        detail = f"the picture could not be fetched: {error}"
        raise PermanentError("outcome_unknown", detail) from None


def download_with_retries(
    url: str,
    options: OpenAIImages,
    report_progress: ReportProgress,
) -> bytes:
    with closing(Downloader(options)) as downloader:
        task = partial(downloader.get, url)
        return retry(task, report_progress)


def retry(task: Callable[[], bytes], report_progress: ReportProgress) -> bytes:
    """Return what task() returns; retry it after a TransientError, with backoff."""
    for delay in RETRY_DELAYS_SECONDS:
        with suppress(TransientError):
            return remote.run_with_progress(task, report_progress)
        pause = partial(time.sleep, delay)
        remote.run_with_progress(pause, report_progress)
    return remote.run_with_progress(task, report_progress)


class Downloader:
    """Downloads images from the server itself, with the API key, and from other allowed hosts."""

    def __init__(self, options: OpenAIImages):
        self.options = options
        auth = remote.bearer_auth(options.api_key_env)
        self.own_client = remote.Client("", auth)
        is_allowed = is_public_address
        if options.allow_private_results:
            is_allowed = remote.any_address
        self.other_client = remote.Client("", is_allowed_address=is_allowed)

    def close(self) -> None:
        self.own_client.close()
        self.other_client.close()

    def get(self, url: str) -> bytes:
        """Return the image at this URL. The target of each redirect is validated like the URL."""
        max_requests = 1 + MAX_REDIRECTS
        for _ in range(max_requests):
            target = validate_url(url, self.options)
            response = self.send(target)
            if response.status == 200:
                return response.body
            if response.status not in REDIRECT_STATUSES:
                detail = f"{response.status} for the picture"
                raise TransientError("engine_unavailable", detail)
            location = response.headers.get("Location", "")
            url = urljoin(target.url, location)
        raise PermanentError("engine_error", "too many redirects")

    def send(self, target: Url) -> RemoteResponse:
        client = self.other_client
        if is_own_origin(target, self.options):
            client = self.own_client
        return client.send(
            "GET",
            target.url,
            DOWNLOAD_TIMEOUT_SECONDS,
            MAX_IMAGE_BYTES,
        )


def validate_url(url: str, options: OpenAIImages) -> Url:
    """Return the parsed URL. Raises PermanentError if nothing may be downloaded from there."""
    target = parse_http_url(url)
    if is_own_origin(target, options):
        return target
    host = remote.identifier(target.host) or "a host"
    if not is_allowed_host(target.host, options.result_hosts):
        raise PermanentError("engine_error", f"{host} is not in result_hosts")
    if target.scheme != "https" and not options.allow_private_results:
        raise PermanentError("engine_error", f"{host} asked without TLS")
    return target


def parse_http_url(url: str) -> Url:
    """Parse a URL with the parser that the HTTP client uses too, so that both see the same host."""
    target = Url()
    # suppress() instead of `except`: the original error holds the URL, and would be attached to
    # the PermanentError as its __context__.
    with suppress(LocationParseError):
        target = parse_url(url)
    is_http = target.scheme in DEFAULT_PORTS
    if not is_http or not target.host or target.auth:
        raise PermanentError("engine_error", "an invalid address for the picture")
    return target


def is_own_origin(target: Url, options: OpenAIImages) -> bool:
    """Tell whether a URL has the scheme, host and port of the server itself."""
    base = parse_url(options.base_url)
    base_origin = origin(base)
    return origin(target) == base_origin


def origin(url: Url) -> tuple:
    default_port = DEFAULT_PORTS.get(url.scheme)
    port = url.port or default_port
    return (url.scheme, url.host, port)


def is_allowed_host(host: str, patterns: list[str]) -> bool:
    """Tell whether a host matches an allow-list such as ["cdn.example.com", "*.example.org"]."""
    for pattern in patterns:
        if pattern in ("*", host):
            return True
        is_wildcard = pattern.startswith("*.")
        if is_wildcard and host.endswith(pattern[1:]):
            return True
    return False


def is_public_address(address: str) -> bool:
    """Tell whether an IP address is public; IPv4 addresses may be mapped to IPv6."""
    ip = ipaddress.ip_address(address)
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped:
        ip = mapped
    return ip.is_global and not ip.is_multicast
