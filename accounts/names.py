"""Names and emails: what they may be, and which of their spellings are the same.

What is the same has one key; the keys are unique in the database, and they alone decide.
"""

import re
import unicodedata
from contextlib import suppress
from typing import Any

import email_validator
from email_validator import EmailNotValidError, ValidatedEmail, validate_email
from pydantic_core import PydanticCustomError

from validation import BLANKS, IGNORABLE, INVISIBLE, strip

# Far more than a name may have. The time to normalize grows with the square of the length.
MAX_NORMALIZED = 200
# Control, format (zero width, direction), surrogate, private and unassigned characters; line
# breaks.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Others without a shape of their own, and what stands for something that was lost.
SHAPELESS = re.compile(rf"[{IGNORABLE}{BLANKS}\ufffc\ufffd]")
# The first words of Unicode's names of letters that look like those of another of these scripts.
# With others, such as Chinese or Arabic, Latin may be mixed, as Unicode's UTS 39 has it.
LOOKALIKES = {
    "LATIN", "CYRILLIC", "GREEK", "CHEROKEE", "COPTIC", "LISU", "CANADIAN", "CARIAN", "DESERET",
    "GOTHIC", "LYCIAN", "LYDIAN", "OLD", "OSAGE", "TIFINAGH", "VAI", "WARANG",
}  # fmt: skip
# What the document of the API says of an email. Others are taken, too, such as those in Chinese.
ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LABEL = "([A-Za-z0-9]{1,63}|([A-Za-z0-9]{1,20}-){1,2}[A-Za-z0-9]{1,20})"
EMAIL = rf"^{ATOM}(\.{ATOM})*@({LABEL}\.)+[A-Za-z]{{2,63}}$"
# How a domain ends, unlike an address of a machine or a name without a dot.
TOP_LEVEL = re.compile(r"^localhost$|\.[^.]*[A-Za-z]$")
# People develop with addresses under .test and .local.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def normalize(value: Any) -> Any:
    """Return one Unicode form of a name, without blanks around it."""
    value = strip(value)
    # What is too long is refused after this.
    if isinstance(value, str) and len(value) <= MAX_NORMALIZED:
        value = unicodedata.normalize("NFKC", value).strip()
    return value


def check_printable(text: str) -> str:
    categories = set(map(unicodedata.category, text))
    if categories & UNPRINTABLE or SHAPELESS.search(text):
        raise PydanticCustomError("unprintable", "unprintable")
    return text


def check_name(text: str) -> str:
    """Refuse a name that cannot be seen, or that is made to look like another."""
    if not INVISIBLE.sub("", check_printable(text)).strip():
        raise PydanticCustomError("unprintable", "unprintable")
    scripts = {unicodedata.name(one, "").partition(" ")[0] for one in text if one.isalpha()}
    if len(scripts & LOOKALIKES) > 1:
        raise PydanticCustomError("mixed_scripts", "mixed_scripts")
    return text


def check_email(text: str) -> str:
    try:
        domain = read_email(text).ascii_domain
    except EmailNotValidError:
        raise PydanticCustomError("email", "email") from None
    if not TOP_LEVEL.search(domain):
        raise PydanticCustomError("email", "email")
    return check_printable(text)


def read_email(text: str) -> ValidatedEmail:
    """Return the parts of an address, its domain in one form. Raises EmailNotValidError."""
    return validate_email(text, check_deliverability=False, globally_deliverable=False)


# -- Keys -----------------------------------------------------------------------------------------

MAX_KEY = 255  # characters of a text; cut off before it is normalized


def identity_key(text: str) -> str:
    """Return what the spellings of one name have in common: no case, width or invisible parts."""
    folded = unicodedata.normalize("NFKC", text[:MAX_KEY]).casefold()
    visible = INVISIBLE.sub("", folded)
    return " ".join(unicodedata.normalize("NFKC", visible).split())[:MAX_KEY]


def email_key(email: str) -> str:
    """Return the same for an email, whose domain has several spellings, too."""
    email = email[:MAX_KEY].strip().rstrip(".")
    with suppress(EmailNotValidError):
        email = read_email(email).normalized
    return identity_key(email)


def former_key(name: str) -> str:
    """Return the key of an account from before invisible characters were passed over."""
    folded = unicodedata.normalize("NFKC", name[:MAX_KEY]).casefold()
    return unicodedata.normalize("NFKC", folded).strip()[:MAX_KEY]


def legacy_key(text: str) -> str:
    """Return the key of an old account whose own key is taken; no other key has capitals."""
    return "LEGACY:" + text[:200]


def exact_key(text: str) -> str:
    """Return the key of one whose legacy key is taken, too.

    MySQL passes over blanks at the end of a key, so that a name with two is told from one with one
    by what stands behind them.
    """
    return legacy_key(text) + "|"


def possible_keys(key: str, text: str, user_id: int) -> list[str]:
    """Return the keys that an old account may have, the best one first; the last one is free."""
    return [key, legacy_key(text), exact_key(text), f"LEGACY {user_id}"]
