"""What every engine takes: a Job, and a callback that hears of progress.

An engine is a module here whose make(job, on_progress) returns the bytes of one picture. It raises Transient
for what may go better later, Final for what will not; what on_progress raises must end it at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

# Imported late: what an engine needs is not installed everywhere.
NAMES = ("painter",)


@dataclass(frozen=True)
class Job:
    """One picture to make; width and height in pixels."""

    prompt: str
    negative_prompt: str = ""
    width: int = 512
    height: int = 512
    steps: int = 20
    seed: int = 0
    guidance: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def no_progress(done: int, total: int) -> None:
    """Ignore progress; the default on_progress."""


class EngineError(Exception):
    """The picture could not be made; `code` is a key of messages.JOB_ERRORS, the text is for the log alone."""

    def __init__(self, code: str, detail: str = ""):
        super().__init__(f"{code}: {detail}")
        self.code = code


class Transient(EngineError):
    """It may go better later: no connection, too many requests, a server's own error."""

    def __init__(self, code: str, detail: str = "", retry_after: int | None = None):
        super().__init__(code, detail)
        self.retry_after = retry_after


class Final(EngineError):
    """It will never go better: refused content, parameters the engine does not take."""


def load(name: str) -> ModuleType:
    return import_module(f"engines.{name}")
