"""Search in prompts: the folded texts that are compared, and how many searches run at a time.

There is no index of words: most accounts have so few images that reading their prompts is cheaper,
and what serves Chinese words of two characters, too, would make each submit far slower.
"""

import os
import threading
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

import heavy
from config import settings
from errors import ApiError

# Searches of one account at a time, in all web processes of this machine.
PER_ACCOUNT = 2


def fold(text: str) -> str:
    """Return what two spellings of a text have in common: no case, and one Unicode form.

    Other accents and other emoji stay other ones.
    """
    folded = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFC", folded)


# -- How many at a time -------------------------------------------------------------------------


class TooManySearches(ApiError):
    code = "too_many_searches"

    def __init__(self):
        super().__init__(retry_after=1)


def run(user_id: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), which is to search, called when it is the account's turn.

    Raises TooManySearches and Busy, and what the function raises.
    """
    slot = _take_slot(user_id)
    try:
        return heavy.searches.run(function, *arguments, owner=str(user_id))
    finally:
        _free_slot(slot)


# A slot of an account is a byte of this file: locked while a search of the account runs in any
# process. The system frees what a process that dies had locked.
LOCK_FILE = "searches.lock"

_own_slots: set[int] = set()  # a process does not see its own locks
_own_slots_lock = threading.Lock()


def _take_slot(user_id: int) -> int:
    with _own_slots_lock:
        for slot in range(user_id * PER_ACCOUNT, (user_id + 1) * PER_ACCOUNT):
            if slot not in _own_slots and _lock(slot):
                _own_slots.add(slot)
                return slot
    raise TooManySearches


def _free_slot(slot: int) -> None:
    with _own_slots_lock:
        _own_slots.remove(slot)
        if fcntl:
            fcntl.lockf(_lock_file(settings.instance_dir), fcntl.LOCK_UN, 1, slot)


def _lock(slot: int) -> bool:
    if not fcntl:
        return True
    try:
        fcntl.lockf(_lock_file(settings.instance_dir), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
    except (BlockingIOError, PermissionError):
        return False
    return True


@lru_cache(maxsize=1)
def _lock_file(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Never closed, which would free all locks of this process.
    return os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
