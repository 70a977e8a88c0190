"""Heavy work of a request (password hashes, decoding pictures, drawing), a few pieces at a time.

Each piece takes a core and up to 100 MB. All processes of this machine together run about one per
core, at low priority, so that a burst of log-ins neither exhausts memory nor keeps light requests
waiting.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from config import settings
from errors import ApiError

NICENESS = 10


class Busy(ApiError):
    """So many requests wait for heavy work that one more would starve the light ones."""

    code = "server_busy"

    def __init__(self):
        super().__init__(retry_after=2)


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), called when a core is free. Raises Busy, and what it raises."""
    executor, slots = _workers()
    if not slots.acquire(blocking=False):
        raise Busy
    try:
        future = executor.submit(function, *arguments)
    except RuntimeError:  # this process is about to end
        slots.release()
        raise Busy from None
    try:
        return future.result()
    finally:
        slots.release()


@lru_cache
def _workers() -> tuple[ThreadPoolExecutor, threading.Semaphore]:
    cores = os.cpu_count() or 1
    threads = max(1, cores // (settings.WEB_WORKERS or 1))
    executor = ThreadPoolExecutor(threads, thread_name_prefix="heavy", initializer=_be_nice)
    # A quarter of the request threads never waits here.
    slots = threading.Semaphore(max(1, settings.WEB_THREADS * 3 // 4))
    return executor, slots


def _be_nice() -> None:
    # On Linux a priority belongs to a thread, so the threads that answer requests keep theirs.
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
