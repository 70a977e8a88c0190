"""Heavy work of a request (password hashes, decoding pictures, drawing), a few pieces at a time.

Each piece takes a core and up to 100 MB. All processes of this machine together run about one per core,
at low priority, so that a burst of log-ins neither exhausts memory nor keeps light requests waiting.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from config import settings
from errors import ApiError


class Busy(ApiError):
    """So many requests wait for heavy work that one more would starve the light ones."""

    code = "server_busy"

    def __init__(self):
        super().__init__(retry_after=2)


@lru_cache
def _workers() -> tuple[ThreadPoolExecutor, threading.Semaphore]:
    size = max(1, (os.cpu_count() or 1) // (settings.WEB_WORKERS or 1))
    executor = ThreadPoolExecutor(size, thread_name_prefix="cpu", initializer=_be_nice)
    # A quarter of the request threads never waits here.
    return executor, threading.Semaphore(max(1, settings.WEB_THREADS * 3 // 4))


def _be_nice() -> None:
    # On Linux a priority belongs to a thread, so the threads that answer requests keep theirs.
    if hasattr(os, "setpriority") and threading.current_thread() is not threading.main_thread():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), run when a core is free. Raises Busy, and whatever the function raises."""
    executor, waiting = _workers()
    if not waiting.acquire(blocking=False):
        raise Busy
    try:
        return _submit(executor, function, *arguments).result()
    finally:
        waiting.release()


def _submit(executor: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Future:
    try:
        return executor.submit(function, *arguments)
    except RuntimeError:  # this process is at its end
        raise Busy from None
