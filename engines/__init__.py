"""What every engine takes: a Job, and a callback that hears of progress.

An engine is a module here whose make(job, on_progress) returns the bytes of one picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
