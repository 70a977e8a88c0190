"""Log lines: one JSON object each, on standard error, marked with the request they belong to."""

import json
import logging
import time
from contextvars import ContextVar
from functools import lru_cache
from traceback import format_tb

from config import settings

# What our lines do not show need not be found out; the first would be a walk up the stack for each line.
logging._srcfile = None
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = logging.logAsyncioTasks = (
    False
)

to_json = json.JSONEncoder(ensure_ascii=False).encode

request_id: ContextVar[str] = ContextVar("request_id", default="")


@lru_cache(maxsize=1)
def text_of(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{text_of(int(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        line.update(getattr(record, "details", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return to_json(line)


def dict_config() -> dict:
    """Return the logging configuration, for logging.config.dictConfig and for gunicorn."""
    level = settings.LOG_LEVEL.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {"gunicorn.error": {"level": level, "handlers": ["stderr"], "propagate": False}},
    }


def surprise(error: Exception) -> dict[str, str]:
    """Return the details of an exception that nobody expected: its kind and place, not its text, which may hold
    a prompt."""
    return {"cause": type(error).__name__, "traceback": "".join(format_tb(error.__traceback__))}
