"""The interface of every engine: ImageRequest in, progress callbacks, GeneratedImage out.

An engine is a module in this package with two functions:

- `make(request, on_progress) -> GeneratedImage` generates one image. It calls
  `on_progress(done, total)` at least once a second. If that raises, for example because the job
  was canceled, the engine stops at once, on a remote server too, and lets the exception through.
- `check(options) -> list[str]` describes in a few short texts what the engine offers with these
  options. It must finish within 10 seconds.

Both raise TransientError if a retry may succeed, and PermanentError if it cannot.

An engine may also define `prepare(options)`. A worker calls it once, before its first job, to load
what takes long. It raises config.SettingError if the operator has to correct something.

`check_images(options, images)`, if there is one, is called after that for a model that takes
pictures, with its catalog.Images: it raises SettingError if some of what they offer would have no
effect.

`check_samplers(options, names)`, if there is one, raises PermanentError naming the samplers, among
those that a model offers, that the engine does not have. `flask engines check` calls it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

# Engines are imported only when they are used: not every machine has what they need installed.
NAMES = (
    "painter",
    "openai_images",
    "sdwebui",
    "comfyui",
    "diffusers",
)

# Called with the steps that are done, and how many there are.
OnProgress = Callable[[int, int], None]


def nothing() -> None:
    """Do nothing; the default of before_send."""


def no_progress(done: int, total: int) -> None:
    """Ignore progress; the default of on_progress."""


@dataclass(frozen=True)
class InputImage:
    """A picture that an image is to be made from: upright, in sRGB, `png`, `jpg` or `webp`."""

    data: bytes = field(repr=False)
    extension: str
    width: int
    height: int


@dataclass(frozen=True)
class ImageRequest:
    """One image to generate.

    Width and height are in pixels. `options` holds the model's options for its engine, one of the
    classes in engines/options.py. A parameter that the model does not offer is None or "".

    `images` are what it is to be made from. `mask` is a PNG of the size of the first of them:
    what is transparent there shall change, and nothing else. `strength` says from 0 to 1 how far
    the result may be from the first image.

    An engine must call `before_send` directly before a request that may be charged for. It records
    that the request may have been sent, so that a request whose outcome is unknown is never
    retried. It raises if this worker no longer holds the job.
    """

    prompt: str
    negative_prompt: str = ""
    width: int = 512
    height: int = 512
    steps: int | None = 20
    seed: int | None = 0
    guidance: float | None = None
    quality: str = ""
    style: str = ""
    sampler: str = ""
    # Another way to say the size; `auto` is any ratio that suits.
    aspect_ratio: str = ""
    resolution: str = ""
    background: str = ""
    output_format: str = ""
    output_compression: int | None = None
    moderation: str = ""
    images: tuple[InputImage, ...] = ()
    mask: InputImage | None = None
    strength: float | None = None
    options: Any = None
    before_send: Callable[[], None] = nothing


@dataclass(frozen=True)
class GeneratedImage:
    """The bytes of one image file, and the parameters that were really used.

    `params` holds only what differs from the request or was not part of it, such as `seed`,
    `revised_prompt` or `sampler`. It is merged into the parameters of the record. None says that
    a parameter of the request was not used, or that nobody knows.
    """

    data: bytes
    params: Mapping[str, Any] = field(default_factory=dict)


class EngineError(Exception):
    """The image could not be generated.

    `code` is a key of messages.JOB_ERRORS. `detail` is for the log. `shown` is displayed to the
    owner of the image after the message of the code. Neither may contain an API key, a prompt, or
    a URL with a password.
    """

    def __init__(self, code: str, detail: str = "", shown: str = ""):
        message = f"{code}: {detail}" if detail else code
        super().__init__(message)
        self.code = code
        self.shown = shown


class TransientError(EngineError):
    """A retry may succeed: no connection, too many requests, or an error inside the server.

    `retry_after` is the number of seconds that the server asked to wait, if it did.
    """

    def __init__(self, code: str, detail: str = "", retry_after: int | None = None):
        super().__init__(code, detail)
        self.retry_after = retry_after


class NoResponse(TransientError):
    """The request may have arrived, but no complete response came: the outcome is unknown."""


class PermanentError(EngineError):
    """A retry cannot succeed: refused content, or parameters that the engine does not accept."""


# Such as "`height` and `width` have to be divisible by 8" or "Width must be a multiple of 16".
MULTIPLE = re.compile(
    r"(?:height|width|size|dimension|resolution).*?(?:divisible\s+by|multiples?\s+of)\D{0,40}?(\d{1,4})",
    re.IGNORECASE | re.DOTALL,
)


def required_multiple(text: str) -> int:
    """Return of what an error message says that width and height must be multiples; else 0."""
    match = MULTIPLE.search(text)
    return int(match[1]) if match else 0


def odd_size(multiple: int) -> PermanentError:
    """Return the error for a size that the engine cannot make."""
    shown = f"width and height must be multiples of {multiple}"
    return PermanentError("engine_refused", shown, shown)


def load(name: str) -> ModuleType:
    """Import the engine of this name."""
    return import_module(f"engines.{name}")


def prepare(model: Any) -> None:
    """Let the engine of a catalog.Model load what it needs. Raises config.SettingError."""
    engine = load(model.engine)
    if hasattr(engine, "prepare"):
        engine.prepare(model.options)
    if model.images and hasattr(engine, "check_images"):
        engine.check_images(model.options, model.images)
