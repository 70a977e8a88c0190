"""Servers with OpenAI's Images API: OpenAI, LocalAI, vLLM-Omni, SiliconFlow and many others.

A request that may be charged for is never repeated while its outcome is unknown:

- make() sends the request once. There are no retries, and redirects are not followed.
- Directly before, it calls before_send(), which records that the request may have been sent. If
  the worker then dies, its job fails with outcome_unknown instead of being retried.
- If no response arrives, or an error of which ProviderError.is_free() is not certain, the outcome
  is unknown. That is PermanentError("outcome_unknown") if the image costs money, and a
  TransientError if it is free.
"""

import time
from contextlib import closing
from typing import Any

from engines import (
    GeneratedImage,
    ImageRequest,
    NoResponse,
    OnProgress,
    PermanentError,
    TransientError,
    answers,
    downloads,
    remote,
)
from engines.answers import Picture
from engines.options import OpenAIImages
from engines.provider_errors import ProviderError
from engines.remote import RemoteResponse, ReportProgress, as_dict, as_list

# The API does not report progress, so it is estimated: 50 % after this time.
TYPICAL_SECONDS = 30
CHECK_TIMEOUT_SECONDS = 4


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
        picture = ask(client, body, options, report_progress)
    data = picture.data
    if picture.encoded:
        data = remote.decode_base64(picture.encoded)
    elif picture.link:
        data = downloads.download_image(picture.link, options, report_progress)
    return GeneratedImage(data, picture.params)


def check(options: OpenAIImages) -> list[str]:
    """Ask for the list of models, which is free. Raises TransientError and PermanentError.

    Many servers offer models that they do not list, so the list proves nothing.
    """
    with closing(connect(options)) as client:
        response = client.send("GET", "/models", CHECK_TIMEOUT_SECONDS, params=options.query)
    if response.status in (404, 405):
        return ["no model list"]
    if response.status >= 300:
        raise ProviderError(response, options.errors).exception()
    names = model_names(response.json())
    if not names:
        return ["no model list"]
    count = "1 model" if len(names) == 1 else f"{len(names)} models"
    if options.model not in names:
        return [count, "this one is not in the list"]
    return [count]


def connect(options: OpenAIImages) -> remote.Client:
    return remote.Client(options.base_url, remote.api_auth(options))


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
        "width": request.width,
        "height": request.height,
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


def ask(
    client: remote.Client,
    body: dict,
    options: OpenAIImages,
    report_progress: ReportProgress,
) -> Picture:
    """Send the request, once, and return the picture of its answer."""
    started = time.monotonic()
    try:
        response = remote.run_with_progress(
            lambda: send_request(client, body, options),
            report_progress,
            # The client limits each wait; this limits an answer whose head arrives byte by byte.
            timeout_seconds=2 * options.timeout_seconds + 10,
        )
    except NoResponse as error:
        if options.is_paid:
            raise PermanentError("outcome_unknown", str(error)) from None
        raise
    return read_answer(response, options, time.monotonic() - started)


def send_request(
    client: remote.Client,
    body: dict,
    options: OpenAIImages,
) -> RemoteResponse:
    return client.send(
        "POST",
        options.path,
        options.timeout_seconds,
        remote.max_picture_bytes(),
        json=body,
        params=options.query,
    )


def read_answer(response: RemoteResponse, options: OpenAIImages, seconds: float) -> Picture:
    """Return the picture of an answer that took so long. Raises EngineError if there is none."""
    if response.status < 300 and (picture := answers.picture_of(response)):
        return picture
    problem = ProviderError(response, options.errors)
    error = problem.exception()
    is_doubtful = error.code == "engine_task"
    if isinstance(error, TransientError):
        is_doubtful = not problem.is_free(seconds)
    if options.is_paid and is_doubtful:
        raise PermanentError("outcome_unknown", str(error), error.shown)
    raise error
