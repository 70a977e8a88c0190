"""Log lines: one JSON object each, on standard error, marked with the request they belong to."""

import json
import logging
import re
import time
from contextvars import ContextVar
from functools import lru_cache
from traceback import format_tb

from config import settings

# As the documentation of logging advises, what our lines do not show is not looked up. The first
# would be a walk up the stack for each line.
logging._srcfile = None
logging.logThreads = False
logging.logProcesses = False
logging.logMultiprocessing = False
logging.logAsyncioTasks = False

# Flask's development server colours what it says.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
to_json = json.JSONEncoder(ensure_ascii=False).encode
request_id: ContextVar[str] = ContextVar("request_id", default="")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{shown_second(int(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": COLOURS.sub("", record.getMessage()),
        }
        if wanted := request_id.get():
            line["request_id"] = wanted
        line.update(getattr(record, "details", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return printable(to_json(line))


@lru_cache(maxsize=1)
def shown_second(seconds: int) -> str:
    """Return a time in seconds since 1970; a busy service has many lines in each."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def printable(text: str) -> str:
    r"""Return a JSON text with \\uXXXX for what a terminal or viewer would obey, not show."""
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def dict_config() -> dict:
    """Return the logging configuration, for logging.config.dictConfig and for gunicorn."""
    level = settings.LOG_LEVEL.upper()
    gunicorn = {"level": level, "handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {"gunicorn.error": gunicorn},
    }


def describe(error: Exception) -> dict[str, str]:
    """Return the kind and place of an unexpected exception; its text may hold a prompt."""
    return {
        "cause": type(error).__name__,
        "traceback": "".join(format_tb(error.__traceback__)),
    }
