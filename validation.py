"""From what a client sent to clean values: every field is looked at, then all wrong ones are named at once."""

import json
import re
import time
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from calendar import timegm
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from errors import ApiError

MAX_WRONG_FIELDS = 20
MAX_EXTRA_BYTES = 4000
MAX_SEED = 2**32 - 1
MAX_ID = 2**31 - 1  # what the column holds
MAX_EXTRA_DEPTH = 20
# Control, format (zero width, direction), surrogate, private and unassigned characters; line breaks.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
EMAIL = r"^[^@\s\x00-\x1F\x7F]+@[^@\s\x00-\x1F\x7F]+\.[^@\s\x00-\x1F\x7F]+$"

Model = TypeVar("Model", bound=BaseModel)


class InvalidInput(ApiError):
    """Some fields are wrong; `fields` names each."""

    code = "invalid_input"


def parse(model: type[Model], source: Any) -> Model:
    """Return the clean values of a JSON object or form. Raises InvalidInput naming every wrong field."""
    try:
        return model.model_validate(source)
    except ValidationError as error:
        wrong = {}
        for item in error.errors(include_url=False, include_input=False)[:MAX_WRONG_FIELDS]:
            name = ".".join(str(part) for part in item["loc"]) or "body"
            wrong.setdefault(name, (item["type"], item.get("ctx", {})))
        raise InvalidInput(fields=wrong) from None


def together(*steps: Callable[[], Any]) -> list[Any]:
    """Return what each step returns, or raise InvalidInput with the wrong fields of all of them."""
    results, wrong = [], {}
    for step in steps:
        try:
            results.append(step())
        except ApiError as refusal:
            if refusal.code != "invalid_input":
                raise
            wrong |= refusal.fields
    if wrong:
        raise InvalidInput(fields=wrong)
    return results


def identity_key(text: str) -> str:
    """Return what two spellings of one name or email have in common: no case, one Unicode form, no blanks."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded).strip()[:255]


# -- Kinds of values ----------------------------------------------------------------------------


def one_form(text: Any) -> Any:
    return unicodedata.normalize("NFKC", text).strip() if isinstance(text, str) else text


def stripped(text: Any) -> Any:
    return text.strip() if isinstance(text, str) else text


def printable(text: str) -> str:
    if any(unicodedata.category(character) in UNPRINTABLE for character in text):
        raise PydanticCustomError("unprintable", "unprintable")
    return text


def prompt_text(text: str) -> str:
    """Allow line breaks and the joiners of emoji and Indic scripts, but no other control characters."""
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in text):
        raise PydanticCustomError("unprintable", "unprintable")
    return text


def email_address(text: str) -> str:
    if not re.fullmatch(EMAIL, text):
        raise PydanticCustomError("email", "email")
    return printable(text)


def number_only(value: Any) -> Any:
    # pydantic would take true for 1 and "512" for 512; JSON Schema, and so our document, takes neither.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise PydanticCustomError("number_type", "number")
    return value


def real_number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise PydanticCustomError("real_type", "number")
    return value


def true_or_false(value: str) -> bool:
    if value not in ("true", "false"):
        raise PydanticCustomError("bool_type", "bool")
    return value == "true"


def utc_time(value: str) -> str:
    """Read an ISO 8601 date or time, UTC unless it says otherwise, as the database writes it."""
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("time_type", "time") from None
    return moment.replace(tzinfo=None).isoformat(" ", "seconds")


def seconds_of(text: str) -> int:
    """Return the database's UTC time as seconds since 1970."""
    return timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S"))


def make_cursor(created_at: str, generation_id: int) -> str:
    return urlsafe_b64encode(f"{created_at}|{generation_id}".encode()).decode().rstrip("=")


def read_cursor(value: str) -> tuple[str, int]:
    """Read what make_cursor() made."""
    try:
        created_at, _, number = (
            urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode().partition("|")
        )
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", created_at):
            return created_at, int(number) % 2**63
    except ValueError:
        pass
    raise PydanticCustomError("cursor_type", "cursor")


def id_list(value: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18}){0,49}", value):
        raise PydanticCustomError("id_list", "ids")
    return [int(part) for part in value.split(",")]


def depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, parts), default=0)


def digits(value: Any) -> Any:
    # int() would also take "+1", "1_0" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,100}", value):
        raise PydanticCustomError("positive_integer", "positive_integer")
    return int(value)


Whole = BeforeValidator(number_only)
Digits = BeforeValidator(digits)
Prompt = Annotated[str, BeforeValidator(stripped), AfterValidator(prompt_text)]
# Like other image servers, take -1 for "any seed".
Seed = Annotated[Annotated[int, Whole] | None, Field(ge=-1, le=MAX_SEED)]


# -- Bodies -------------------------------------------------------------------------------------


class PasswordInput(BaseModel):
    password: str = Field(min_length=6, max_length=20)


class RegisterInput(PasswordInput):
    username: Annotated[str, BeforeValidator(one_form), AfterValidator(printable)] = Field(
        min_length=3, max_length=20
    )
    email: Annotated[str, BeforeValidator(stripped), AfterValidator(email_address)] = Field(
        max_length=120, json_schema_extra={"pattern": EMAIL}
    )


class LoginInput(BaseModel):
    username: str = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1000)


class TestParams(BaseModel):
    model_config = ConfigDict(extra="allow")

    model: Literal["test_model"] = "test_model"
    steps: Annotated[int, Whole] = Field(20, ge=1, le=150)
    seed: Seed = None
    width: Annotated[int, Whole] = Field(512, ge=64, le=1024)
    height: Annotated[int, Whole] = Field(512, ge=64, le=1024)
    negative_prompt: Prompt = Field("", max_length=2000)

    @model_validator(mode="after")
    def extras_are_small(self) -> "TestParams":
        """Other params are kept in the record as they came, so they must fit there."""
        try:
            size = len(json.dumps(self.model_extra, ensure_ascii=False, allow_nan=False).encode())
            too_large = size > MAX_EXTRA_BYTES or depth(self.model_extra) > MAX_EXTRA_DEPTH
        except RecursionError:
            too_large = True
        except ValueError:  # lone surrogates, and infinity, which JSON has no word for
            raise PydanticCustomError("unprintable", "unprintable") from None
        if too_large:
            raise PydanticCustomError("too_large", "too_large")
        return self


class GenerateTestInput(BaseModel):
    prompt: Prompt = Field(min_length=1, max_length=2000)
    params: TestParams | None = None


class GenerateInput(BaseModel):
    """What may be asked for; the limits of a model are checked by models.fill()."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt = Field(min_length=1, max_length=2000)
    negative_prompt: Prompt = Field("", max_length=2000)
    model: str | None = Field(None, max_length=64)
    width: Annotated[int, Whole] | None = None
    height: Annotated[int, Whole] | None = None
    steps: Annotated[int, Whole] | None = None
    seed: Seed = None
    guidance: Annotated[float, BeforeValidator(real_number)] | None = None
    quality: str | None = Field(None, max_length=64)
    style: str | None = Field(None, max_length=64)
    sampler: str | None = Field(None, max_length=64)
    # None: as EMBED_METADATA says.
    embed_metadata: Annotated[bool, Field(strict=True)] | None = None
    n: Annotated[int, Whole] = Field(1, ge=1, le=4)


class RetryInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: Literal["new"] | None = None


class FavoriteInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    favorite: Annotated[bool, Field(strict=True)]


class DeleteInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: list[Annotated[int, Whole, Field(ge=1, le=MAX_ID)]] = Field(min_length=1, max_length=100)


# -- Queries ------------------------------------------------------------------------------------


class HistoryQuery(BaseModel):
    page: Annotated[int, Digits] = Field(1, ge=1)
    per_page: Annotated[int, Digits, AfterValidator(lambda wanted: min(wanted, 50))] = Field(
        10, ge=1
    )
    cursor: Annotated[tuple[str, int], BeforeValidator(read_cursor)] | None = None
    status: Literal["pending", "processing", "completed", "failed", "canceled"] | None = None
    q: Annotated[str, AfterValidator(prompt_text)] | None = Field(None, max_length=200)
    favorite: Annotated[bool, BeforeValidator(true_or_false)] | None = None
    model: str | None = Field(None, max_length=64)
    since: Annotated[str, BeforeValidator(utc_time)] | None = None
    until: Annotated[str, BeforeValidator(utc_time)] | None = None

    @property
    def offset(self) -> int:
        # No database takes an offset beyond 64 bits, and no history is that long.
        return min((self.page - 1) * self.per_page, 2**62)

    @property
    def filters(self) -> dict[str, Any]:
        return self.model_dump(
            include={"status", "q", "favorite", "model", "since", "until"}, exclude_none=True
        )


class FileQuery(BaseModel):
    metadata: Literal["strip"] | None = None


class IdsQuery(BaseModel):
    ids: Annotated[list[int], BeforeValidator(id_list)]
