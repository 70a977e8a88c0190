"""Shared by the tests of the remote engines: canceling make(), and all texts of an error."""

import traceback


class Canceled(Exception):
    """Raised by on_progress to cancel an image."""


def ignore(done: int, total: int) -> None:
    """Ignore progress."""


def everything_of(error: BaseException | None) -> str:
    """Return all texts of an error and its causes, which could get into a log."""
    if error is None:
        return ""
    parts = [
        str(error),
        repr(error),
        repr(error.args),
        repr(vars(error)),
        *traceback.format_exception(error),
    ]
    return "\n".join(parts) + everything_of(error.__cause__) + everything_of(error.__context__)
