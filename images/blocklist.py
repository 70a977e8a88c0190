"""The words no prompt may hold, from the file PROMPT_BLOCKLIST: one a line, `#` begins a remark."""

import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

from config import settings
from errors import ApiError

# Characters of scripts that write words without blanks between them, so that a word has no edges to look for.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u2e80-\u31ff\u3400-\ua4cf\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese, Japanese, Korean
)
# A letter or digit of any other script.
LETTER = f"[^\\W_{UNSPACED}]"


class PromptBlocked(ApiError):
    """The prompt holds a blocked word, which `fields` names."""

    code = "prompt_blocked"

    def __init__(self, word: str):
        super().__init__(fields={"prompt": ("blocked", {"word": word})})


def check(prompt: str) -> None:
    """Raise PromptBlocked for a prompt with a blocked word.

    Words are literal in scripts without blanks, such as Chinese, and whole words in others: with `ass` blocked,
    `grass` is fine. Case, width and invisible characters make no difference.
    """
    blocked = words()
    if not blocked:
        return
    text = plain(prompt)
    for word, shown in blocked.items():
        if word in text and re.search(bounded(word), text):
            raise PromptBlocked(shown)


_known: tuple[Any, dict[str, str]] = (None, {})


def words() -> dict[str, str]:
    """Return the blocked words in plain form, each with how the file writes it; a changed file is read again."""
    global _known
    if not settings.PROMPT_BLOCKLIST:
        return {}
    path = Path(settings.PROMPT_BLOCKLIST)
    with suppress(OSError):  # while an editor replaces the file, the words known before stand
        version = (path, path.stat().st_mtime_ns)
        if version != _known[0]:
            _known = (version, read(path))
    return _known[1]


def read(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    found = [line.partition("#")[0].strip() for line in lines]
    return {plain(word): word for word in found if plain(word)}


def plain(text: str) -> str:
    """Return the text in one form: no case, no width, no invisible characters, single blanks."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c for c in text if unicodedata.category(c) not in ("Cf", "Mn")).split())


def bounded(word: str) -> str:
    """Return a pattern for the word that ends where letters of its own kind end."""
    before = f"(?<!{LETTER})" if re.match(LETTER, word[0]) else ""
    after = f"(?!{LETTER})" if re.match(LETTER, word[-1]) else ""
    return before + re.escape(word) + after
