"""What every engine takes and gives: an ImageRequest, a callback that hears of progress, and a GeneratedImage.

An engine is a module here with two functions. `make(job, on_progress) -> GeneratedImage` makes one picture; it calls
on_progress at least every second, and what that raises must end it at once, on a remote server too.
`check(options) -> list[str]` says in a few words each what the engine behind these options offers, within 10 s.
Both raise TransientError for what may go better later, PermanentError for what will not. An engine may also have
`prepare(options)`, which a worker calls before its first job: it loads what takes long, and raises
config.SettingError for what the operator must put right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

# Imported late: what an engine needs is not installed everywhere.
NAMES = ("painter", "openai_images", "sdwebui", "comfyui", "diffusers")


def nothing() -> None:
    """Do nothing; the default before_send."""


def no_progress(done: int, total: int) -> None:
    """Ignore progress; the default on_progress."""


@dataclass(frozen=True)
class ImageRequest:
    """One picture to make; width and height in pixels, `options` as engines/options.py declares them.

    What the model does not offer is None or "". `before_send` must be called right before a request that
    somebody may have to pay for: it notes that the request may have been sent, so that nobody repeats it
    without knowing what became of it. It raises if the generation is no longer ours to make.
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
    options: Any = None
    before_send: Callable[[], None] = nothing


@dataclass(frozen=True)
class GeneratedImage:
    """The bytes of one picture file, and what it was really made with where that differs from the job.

    `params` go into the record beside the request's own: a `seed`, a `revised_prompt`, a `sampler`, …
    """

    data: bytes
    params: Mapping[str, Any] = field(default_factory=dict)


class EngineError(Exception):
    """The picture could not be made; `code` is a key of messages.JOB_ERRORS.

    `detail` is for the log, `shown` for the owner, behind the sentence of the code. Neither may hold a key, a
    prompt or an address with a password in it.
    """

    def __init__(self, code: str, detail: str = "", shown: str = ""):
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.shown = shown


class TransientError(EngineError):
    """It may go better later: no connection, too many requests, a server's own error."""

    def __init__(self, code: str, detail: str = "", retry_after: int | None = None):
        super().__init__(code, detail)
        self.retry_after = retry_after


class NoResponse(TransientError):
    """The request may have arrived, but no answer did: nobody knows what the server made of it."""


class PermanentError(EngineError):
    """It will never go better: refused content, parameters the engine does not take."""


def load(name: str) -> ModuleType:
    return import_module(f"engines.{name}")


def prepare(model: Any) -> None:
    """Let the engine of a models.Model get ready. Raises config.SettingError."""
    engine = load(model.engine)
    if hasattr(engine, "prepare"):
        engine.prepare(model.options)
