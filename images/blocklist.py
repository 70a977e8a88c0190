"""The words that no prompt may contain: one a line in the file PROMPT_BLOCKLIST, # for comments."""

import logging
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

from config import SettingError, read_text, settings
from errors import ApiError
from validation import INVISIBLE

log = logging.getLogger("api")

# Characters of scripts that write words without blanks between them, so that a word has no edges.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    # Chinese, Japanese, Korean
    "\u2e80-\u31ff\u3400-\ua4cf\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
# A letter or digit of any other script.
LETTER = f"[^\\W_{UNSPACED}]"


class PromptBlocked(ApiError):
    """The prompt contains a blocked word, which `fields` names."""

    code = "prompt_blocked"

    def __init__(self, word: str):
        super().__init__(fields={"prompt": ("blocked", {"word": word})})


def check(prompt: str) -> None:
    """Raise PromptBlocked for a prompt with a blocked word.

    Words are literal in scripts without blanks, such as Chinese, and whole words in others: with
    `ass` blocked, `grass` is fine. Case, width and invisible characters make no difference.
    """
    blocked = words()
    if not blocked:
        return
    text = normalize(prompt)
    for word, shown in blocked.items():
        if word in text and re.search(whole_word(word), text):
            raise PromptBlocked(shown)


_version: tuple[Path, int] | None = None
_words: dict[str, str] = {}


def words() -> dict[str, str]:
    """Return the blocked words in normal form, each with how the file writes it.

    A changed file is read again.
    """
    global _version, _words
    if not settings.PROMPT_BLOCKLIST:
        return {}
    path = Path(settings.PROMPT_BLOCKLIST)
    with suppress(OSError):  # while an editor replaces the file, the words known before stand
        version = (path, path.stat().st_mtime_ns)
        if version != _version:
            _words = read(path)
            _version = version
    return _words


def read(path: Path) -> dict[str, str]:
    """Return the words of a file. Raises OSError, and SettingError before there are any."""
    try:
        text = read_text(path)
    except ValueError as error:
        if not _version:
            raise SettingError(f"PROMPT_BLOCKLIST: {path.name}: {error}") from None
        log.error("the blocked words stay as they were", exc_info=error)
        return _words
    found = {}
    for line in text.splitlines():
        word = line.partition("#")[0].strip()
        if normalize(word):
            found[normalize(word)] = word
    return found


def normalize(text: str) -> str:
    """Return the text in one form: no case, no width, no invisible characters, single blanks."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    visible = [c for c in INVISIBLE.sub("", folded) if unicodedata.category(c) not in ("Cf", "Mn")]
    return " ".join("".join(visible).split())


def whole_word(word: str) -> str:
    """Return a pattern for the word that ends where letters of its own kind end."""
    before = f"(?<!{LETTER})" if re.match(LETTER, word[0]) else ""
    after = f"(?!{LETTER})" if re.match(LETTER, word[-1]) else ""
    return before + re.escape(word) + after
