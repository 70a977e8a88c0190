"""From what a client sent to clean values: all fields are checked, then every wrong one is named.

The schemas stand in `accounts/schemas.py` and `images/schemas.py`; here is what they share.
"""

import re
import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from errors import ApiError

MAX_WRONG_FIELDS = 20

Schema = TypeVar("Schema", bound=BaseModel)


class InvalidInput(ApiError):
    """Some fields are wrong; `fields` names each."""

    code = "invalid_input"


def parse(schema: type[Schema], source: Any) -> Schema:
    """Return the clean values of a JSON object or form. Raises InvalidInput for wrong fields."""
    try:
        return schema.model_validate(source)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    wrong = {}
    for problem in problems[:MAX_WRONG_FIELDS]:
        name = ".".join(str(part) for part in problem["loc"]) or "body"
        wrong.setdefault(name, (problem["type"], sentence_values(problem.get("ctx", {}))))
    raise InvalidInput(fields=wrong)


def sentence_values(context: dict[str, Any]) -> dict[str, Any]:
    """Return what the sentences about a problem name; pydantic lists "'a' or 'b'" in English."""
    if "expected" in context:
        expected = context["expected"].replace("'", "").replace(" or ", ", ")
        return {**context, "expected": expected}
    return context


def validate_all(*steps: Callable[[], Any]) -> list[Any]:
    """Return what each step returns. Raises InvalidInput with the wrong fields of all steps."""
    results = []
    wrong = {}
    for step in steps:
        try:
            results.append(step())
        except ApiError as error:
            if error.code != "invalid_input":
                raise
            wrong |= error.fields
    if wrong:
        raise InvalidInput(fields=wrong)
    return results


# -- Texts: each function takes what pydantic has so far, and returns or refuses it -------------

# Characters that show nothing, as ranges of a regular expression. These choose the form of the one
# before them: of an emoji, a Chinese or a Mongolian letter.
SELECTORS = r"\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
# The others that Unicode calls ignorable, and what joins or annotates letters.
IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
# Blanks that count as letters or signs: of Braille, Egyptian, Khitan and music.
BLANKS = r"\u2800\U00013441\U00013442\U00016fe4\U0001d159"
INVISIBLE = re.compile(f"[{SELECTORS}{IGNORABLE}{BLANKS}]")
# Signs of Arabic and its neighbours, which alone say nothing.
SIGNS = r"\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
NOTHING = rf"\s{SELECTORS}{IGNORABLE}{BLANKS}{SIGNS}"
IS_NOTHING = re.compile(f"[{NOTHING}]*")
# What the document of the API says of a prompt. Patterns of JavaScript have no \U.
NEAR_NOTHING = re.sub(r"\\U\w{8}(-\\U\w{8})?", "", NOTHING)
PROMPT = (
    rf"^[{NEAR_NOTHING}]*[^{NEAR_NOTHING}\x00-\x1f\x7f-\x9f]"
    r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
)


def strip(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def empty_if_invisible(value: Any) -> Any:
    """Return "" for a text that shows nothing, and any other without the blanks around it."""
    if isinstance(value, str) and IS_NOTHING.fullmatch(value):
        return ""
    return strip(value)


def check_prompt(text: str) -> str:
    """Allow line breaks and the joiners of emoji and Indic scripts, but no control characters."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise PydanticCustomError("unprintable", "unprintable")
    return text


def one_line(value: Any) -> Any:
    """Return a text in one Unicode form and on one line; "" if it shows nothing."""
    value = empty_if_invisible(value)
    if not isinstance(value, str):
        return value
    return unicodedata.normalize("NFC", " ".join(value.split()))


# -- Numbers, switches and times ---------------------------------------------------------------


def is_json_number(value: Any) -> bool:
    """Tell a number from true and "512", which pydantic takes for one, and JSON Schema does not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_whole(value: Any) -> Any:
    if not is_json_number(value) or value != value // 1:
        raise PydanticCustomError("number_type", "number")
    return value


def check_real(value: Any) -> Any:
    if not is_json_number(value) or not abs(value) < 1e9:
        raise PydanticCustomError("real_type", "number")
    return value


def read_digits(text: str) -> int:
    # int() would also take "+1", "1_0" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,100}", text):
        raise PydanticCustomError("positive_integer", "positive_integer")
    return int(text)


def read_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise PydanticCustomError("bool_type", "bool")
    return text == "true"


def read_time(text: str) -> str:
    """Read an ISO 8601 date or time, UTC unless it says otherwise, as the database writes it."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("time_type", "time") from None
    return moment.replace(tzinfo=None).isoformat(" ", "seconds")


def read_future(value: Any) -> int:
    """Read a time that is still to come; return it in seconds since 1970."""
    if not isinstance(value, str):
        raise PydanticCustomError("time_type", "time")
    moment = datetime.fromisoformat(read_time(value)).replace(tzinfo=UTC)
    if moment.timestamp() <= time.time():
        raise PydanticCustomError("past_time", "time")
    return int(moment.timestamp())


def read_id_list(text: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18}){0,49}", text):
        raise PydanticCustomError("id_list", "ids")
    return [int(part) for part in text.split(",")]


# In JSON bodies.
Whole = Annotated[int, BeforeValidator(check_whole)]
Real = Annotated[float, BeforeValidator(check_real)]
Prompt = Annotated[str, BeforeValidator(empty_if_invisible), AfterValidator(check_prompt)]
Line = Annotated[str, BeforeValidator(one_line), AfterValidator(check_prompt)]
# In queries, where everything is text.
Digits = Annotated[int, BeforeValidator(read_digits)]
QueryBool = Annotated[bool, BeforeValidator(read_bool)]
QueryTime = Annotated[str, BeforeValidator(read_time)]
FutureTime = Annotated[
    int,
    BeforeValidator(read_future),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
IdList = Annotated[list[int], BeforeValidator(read_id_list)]
