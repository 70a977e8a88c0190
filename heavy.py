"""Heavy work of a request (password hashes, decoding pictures, drawing), a few pieces at a time.

Each piece takes a core and up to 200 MB, an upload up to 800. All processes of this machine
together check about one password per core, and beside that work on half as many pictures, at low
priority: neither a burst of log-ins nor one of pictures exhausts memory, keeps light requests
waiting, or stops the other.
"""

import os
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from functools import cached_property, partial
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from config import settings
from errors import ApiError

NICENESS = 10
# A proxy in front would give up after a minute.
QUEUE_SECONDS = 10


class Busy(ApiError):
    """So many requests wait for heavy work that one more would starve others."""

    code = "server_busy"

    def __init__(self):
        super().__init__(retry_after=2)


class Piece(Future):
    """A call that waits for its turn."""

    def __init__(self, function: Callable[..., Any], arguments: tuple):
        super().__init__()
        # In the request's context: its log lines carry its id, its limits are noted for its answer.
        self.call = partial(copy_context().run, function, *arguments)


class Pool:
    """Threads for one kind of work, where owners (accounts or networks) take turns.

    `cores` and `slots` are shares: of the processors, and of the threads that answer requests.
    Where the processes of this machine are more than their cores, they take turns at those, too.
    With `rest`, what waits leaves a core to others for so much of the time that it has it.
    """

    def __init__(self, name: str, cores: float, slots: float, rest: float = 0):
        self.name, self.cores, self.slots, self.rest = name, cores, slots, rest
        self.lock = threading.Lock()
        self.waiting: OrderedDict[str, deque[Piece]] = OrderedDict()
        self.count = 0  # of those waiting and at work

    @property
    def number_of_cores(self) -> int:
        return max(1, int((os.cpu_count() or 1) * self.cores))

    @cached_property
    def executor(self) -> ThreadPoolExecutor:
        threads = max(1, self.number_of_cores // (settings.WEB_WORKERS or 1))
        return ThreadPoolExecutor(threads, thread_name_prefix=self.name, initializer=_be_nice)

    def run(self, function: Callable[..., Any], *arguments: Any, owner: str = "") -> Any:
        """Return function(*arguments), called when it is the owner's turn and a core is free.

        Raises Busy if that is not soon, and what the function raises.
        """
        piece = Piece(function, arguments)
        self._enter(piece, owner)
        try:
            self.executor.submit(self._run_next)
        except RuntimeError:  # this process is about to end
            self._leave(piece, owner)
            raise Busy from None
        try:
            return piece.result(QUEUE_SECONDS)
        except TimeoutError:
            if self._leave(piece, owner):
                raise Busy from None
            return piece.result()

    def _enter(self, piece: Piece, owner: str) -> None:
        with self.lock:
            if self.count >= max(1, int(settings.WEB_THREADS * self.slots)):
                self._make_room(owner)
            self.count += 1
            self.waiting.setdefault(owner, deque()).append(piece)

    def _make_room(self, owner: str) -> None:
        """Refuse the last piece of whoever has the most waiting. Raises Busy if it is the owner."""
        most = max(self.waiting, key=lambda other: len(self.waiting[other]), default=owner)
        own = len(self.waiting.get(owner, ()))
        if len(self.waiting.get(most, ())) <= own + 1:
            raise Busy
        self.waiting[most].pop().set_exception(Busy())
        self.count -= 1

    def _leave(self, piece: Piece, owner: str) -> bool:
        """Take a piece back; False if a thread is at it already, or through."""
        with self.lock:
            own = self.waiting.get(owner, ())
            if piece not in own:
                return False
            own.remove(piece)
            if not own:
                del self.waiting[owner]
            self.count -= 1
            return True

    def _next(self) -> Piece | None:
        with self.lock:
            if not self.waiting:  # it was refused, or had waited too long
                return None
            owner, own = self.waiting.popitem(last=False)
            piece = own.popleft()
            if own:
                self.waiting[owner] = own
            return piece

    def _run_next(self) -> None:
        with ExitStack() as stack:
            with suppress(OSError):  # of a full disk; the work says so itself if it needs one
                self._take_core(stack)
            started = time.monotonic()
            self._run(self._next())
            if self.waiting:
                time.sleep((time.monotonic() - started) * self.rest)

    def _take_core(self, stack: ExitStack) -> None:
        """Wait for a core of this machine and hold it until the stack is closed.

        The system frees what a process that dies has locked.
        """
        if not fcntl or self.number_of_cores >= (settings.WEB_WORKERS or 1):
            return
        # Whoever waits next for a core holds `turn`: nobody takes one twice before others.
        with self._locked("turn"):
            core = random.randrange(self.number_of_cores)
            stack.enter_context(self._locked(f"core{core}"))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(settings.instance_dir / f"{self.name}.{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _run(self, piece: Piece | None) -> None:
        if not piece:
            return
        try:
            finish = partial(piece.set_result, piece.call())
        except BaseException as error:
            finish = partial(piece.set_exception, error)
        with self.lock:
            self.count -= 1
        finish()


def _be_nice() -> None:
    # On Linux a priority belongs to a thread, so the threads that answer requests keep theirs.
    # Where it is refused, the process has a lower one already, or is not meant to choose.
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


# An eighth of the request threads never waits here.
passwords = Pool("passwords", cores=1, slots=1 / 2)
pictures = Pool("pictures", cores=1 / 2, slots=1 / 4, rest=1)
# Mostly one at a time, as a large one takes so much memory.
uploads = Pool("uploads", cores=1 / 8, slots=1 / 8, rest=1)
# On SQLite they take a core here; elsewhere they keep the database server as busy.
searches = Pool("searches", cores=1 / 2, slots=1 / 8, rest=1)
