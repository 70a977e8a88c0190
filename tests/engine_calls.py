"""What the tests of the remote engines share: how a call of make() is canceled, and all that its error tells."""

import traceback


class Canceled(Exception):
    """What on_progress raises to end a picture."""


def ignore(done: int, total: int) -> None:
    """Hear of progress, and go on."""


def everything_of(error: BaseException | None) -> str:
    """Return every text of an error, and of those it came from, that could get into a log."""
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
