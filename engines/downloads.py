"""Pictures that an answer only links to: where they may be downloaded from, and how.

From the server itself, with the API key, or from the hosts that the model's `result_hosts` allows,
without it. Of those, only public addresses are asked, and only over TLS.
"""

import re
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from urllib.parse import urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from engines import PermanentError, TransientError, addresses, remote
from engines.options import OpenAIImages
from engines.remote import RemoteResponse, ReportProgress

# The download of a picture with all its redirects.
DOWNLOAD_TIMEOUT_SECONDS = 300
RETRY_DELAYS_SECONDS = (1, 3)
MAX_REDIRECTS = 3
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
DEFAULT_PORTS = {"http": 80, "https": 443}
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
# What a server may mean as a path on itself.
PATH = re.compile(r"(\.{0,2}/|[\w~%-]+[./])\S*")


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
        task = partial(downloader.get, absolute(url, options))
        return retry(task, report_progress)


def absolute(link: str, options: OpenAIImages) -> str:
    """Return the URL of a link, which may be relative to the server. Raises PermanentError."""
    if SCHEME.match(link):
        return link
    with suppress(ValueError):
        if PATH.fullmatch(link):
            return urljoin(f"{options.base_url}/", link)
    raise PermanentError("engine_error", "an invalid address for the picture")


def retry(task: Callable[[], bytes], report_progress: ReportProgress) -> bytes:
    """Return what task() returns; retry it after a TransientError, with backoff."""
    run = partial(
        remote.run_with_progress,
        report_progress=report_progress,
        timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS,
    )
    for delay in RETRY_DELAYS_SECONDS:
        with suppress(TransientError):
            return run(task)
        pause = partial(time.sleep, delay)
        remote.run_with_progress(pause, report_progress)
    return run(task)


class Downloader:
    """Downloads images from the server itself, with the API key, and from other allowed hosts."""

    def __init__(self, options: OpenAIImages):
        self.options = options
        self.own_client = remote.Client("", remote.api_auth(options))
        is_allowed = addresses.is_public
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
            remote.max_picture_bytes(),
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
