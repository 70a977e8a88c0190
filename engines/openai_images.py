"""Servers with OpenAI's Images API: OpenAI, LocalAI, vLLM-Omni, SiliconFlow and many others.

A request that may be charged for is never repeated while its outcome is unknown:

- make() sends the request once. There are no retries, and redirects are not followed.
- Directly before, it calls before_send(), which records that the request may have been sent. If
  the worker then dies, its job fails with outcome_unknown instead of being retried.
- If no response arrives, or an error of which ProviderError.is_free() is not certain, the outcome
  is unknown. That is PermanentError("outcome_unknown") if the image costs money, and a
  TransientError if it is free.
"""

import json
import time
from contextlib import closing
from typing import Any, NamedTuple

from engines import (
    GeneratedImage,
    ImageRequest,
    NoResponse,
    OnProgress,
    PermanentError,
    TransientError,
    answers,
    downloads,
    masks,
    remote,
)
from engines.answers import Picture
from engines.options import OpenAIImages
from engines.provider_errors import ProviderError
from engines.remote import RemoteResponse, ReportProgress, as_dict, as_list
from engines.sizes import AUTO

# The API does not report progress, so it is estimated: 50 % after this time.
TYPICAL_SECONDS = 30
CHECK_TIMEOUT_SECONDS = 4
EDITS_PATH = "/images/edits"
# What a request may say beside the prompt, as OpenAIImages.default_fields names it.
PARAMETERS = (
    "quality",
    "style",
    "sampler",
    "seed",
    "steps",
    "guidance",
    "negative_prompt",
    "width",
    "height",
    "resolution",
    "background",
    "output_format",
    "moderation",
    "strength",
)
# These have no quality to choose.
LOSSLESS = ("", "png")


def make(
    request: ImageRequest,
    on_progress: OnProgress,
) -> GeneratedImage:
    """Generate one image. Raises TransientError and PermanentError."""
    options = request.options
    report_progress = estimated_progress(on_progress)
    call = make_call(request)
    with closing(connect(options)) as client:
        if options.is_paid:
            request.before_send()
        picture = ask(client, call, options, report_progress)
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


class Call(NamedTuple):
    """A request to make a picture: its path, and its body as JSON or, with files, as a form."""

    path: str
    body: dict[str, Any]
    files: list[tuple[str, tuple[str, bytes, str]]] = []


def make_call(request: ImageRequest) -> Call:
    options = request.options
    if not request.images:
        return Call(options.path, request_body(request, options.fields))
    body = request_body(request, options.images_fields)
    if options.images_as == "files":
        form = {name: form_text(value) for name, value in body.items()}
        return Call(options.images_path or EDITS_PATH, form, files_of(request))
    path = options.images_path or options.path
    return Call(path, {**body, **data_urls(request)})


def request_body(request: ImageRequest, names: dict[str, str]) -> dict[str, Any]:
    options = request.options
    values = {
        # Several images are several requests: each has a record, and an outcome, of its own.
        "n": 1,
        "size": f"{request.width}x{request.height}",
    }
    if request.aspect_ratio == AUTO:
        values["size"] = AUTO
    else:
        values["aspect_ratio"] = request.aspect_ratio
    if request.output_format not in LOSSLESS:
        values["output_compression"] = request.output_compression
    for name in PARAMETERS:
        values[name] = getattr(request, name)
    body = {
        "model": options.model,
        "prompt": request.prompt,
    }
    for name, value in values.items():
        field = names[name]
        if field and value not in (None, ""):
            body[field] = value
    # OpenAI's own models refuse this field, so it has no default.
    if options.response_format:
        body["response_format"] = options.response_format
    return {**body, **options.extra}


def form_text(value: Any) -> str:
    """Return a value of the body as a field of a form has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def files_of(request: ImageRequest) -> list[tuple[str, tuple[str, bytes, str]]]:
    names = request.options.images_fields
    files = []
    for number, image in enumerate(request.images, 1):
        file = (f"image{number}.{image.extension}", image.data, masks.MEDIA_TYPES[image.extension])
        files.append((names["image"], file))
    if request.mask:
        mask = masks.in_both_ways(request.mask)
        files.append((names["mask"], ("mask.png", mask, "image/png")))
    return files


def data_urls(request: ImageRequest) -> dict[str, Any]:
    """Return the fields of a JSON body with the pictures in them."""
    options = request.options
    name = options.images_fields["image"]
    urls = [masks.data_url(image.data, image.extension) for image in request.images]
    fields: dict[str, Any] = {name: urls}
    if options.images_as == "fields":
        names = [name, *(f"{name}{number}" for number in range(2, len(urls) + 1))]
        fields = dict(zip(names, urls, strict=True))
    if request.mask:
        mask = masks.in_both_ways(request.mask)
        fields[options.images_fields["mask"]] = masks.data_url(mask, "png")
    return fields


def ask(
    client: remote.Client,
    call: Call,
    options: OpenAIImages,
    report_progress: ReportProgress,
) -> Picture:
    """Send the request, once, and return the picture of its answer."""
    started = time.monotonic()
    try:
        response = remote.run_with_progress(
            lambda: send_request(client, call, options),
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
    call: Call,
    options: OpenAIImages,
) -> RemoteResponse:
    body = {"data": call.body, "files": call.files} if call.files else {"json": call.body}
    return client.send(
        "POST",
        call.path,
        options.timeout_seconds,
        remote.max_picture_bytes(),
        params=options.query,
        **body,
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
