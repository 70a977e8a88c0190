"""What a request about images may hold; what one model allows is checked by `parameters.fill()`."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from config import settings
from engines.catalog import MAX_IMAGES, MAX_INPUTS, MAX_PROMPT, MAX_SEED
from images import STATUSES
from validation import (
    PROMPT,
    Digits,
    IdList,
    Line,
    Prompt,
    QueryBool,
    QueryTime,
    Real,
    Whole,
    check_prompt,
    read_time,
)

MAX_ID = 2**31 - 1  # what the column holds
MAX_PER_PAGE = 50
MAX_TAGS = 20  # of one image
# Of the params that a request for a test image may carry beside ours.
MAX_EXTRA_BYTES = 4000
MAX_EXTRA_DEPTH = 20

# Fields of GenerateInput that the release before does not have.
ADDED_FIELDS = (
    "images",
    "mask",
    "strength",
    "aspect_ratio",
    "resolution",
    "background",
    "output_format",
    "output_compression",
    "moderation",
)

# Like other image servers, take -1 for "any seed".
Seed = Annotated[Whole | None, Field(ge=-1, le=MAX_SEED)]
StrictBool = Annotated[bool, Field(strict=True)]
ImageId = Annotated[Whole, Field(ge=1, le=MAX_ID)]
Tag = Annotated[Line, Field(min_length=1, max_length=40, json_schema_extra={"pattern": PROMPT})]


# -- Bodies -------------------------------------------------------------------------------------


class UploadInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    file: bytes


class MaskSource(BaseModel):
    model_config = ConfigDict(extra="forbid")

    upload: str = Field(min_length=1, max_length=64)


class ImageSource(BaseModel):
    """An upload, or an image of one's own."""

    model_config = ConfigDict(extra="forbid")

    upload: str | None = Field(None, min_length=1, max_length=64)
    image: ImageId | None = None

    @model_validator(mode="after")
    def check_one(self) -> "ImageSource":
        if bool(self.upload) == bool(self.image):
            raise PydanticCustomError("upload_or_image", "upload or image")
        return self


LEFT_OUT = object()


class GenerateInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    images: list[ImageSource] = Field([], max_length=MAX_INPUTS)
    # After the images, which its validator looks at.
    prompt: Prompt = Field(
        default_factory=lambda: LEFT_OUT,
        validate_default=True,
        min_length=1,
        max_length=MAX_PROMPT,
        json_schema_extra={"pattern": PROMPT},
    )
    negative_prompt: Prompt = Field("", max_length=2000)
    model: str | None = Field(None, max_length=64)
    width: Whole | None = None
    height: Whole | None = None
    # Another way to say width and height.
    aspect_ratio: str | None = Field(None, max_length=64)
    resolution: str | None = Field(None, max_length=64)
    steps: Whole | None = None
    seed: Seed = None
    guidance: Real | None = None
    quality: str | None = Field(None, max_length=64)
    style: str | None = Field(None, max_length=64)
    sampler: str | None = Field(None, max_length=64)
    background: str | None = Field(None, max_length=64)
    output_format: str | None = Field(None, max_length=64)
    output_compression: Whole | None = None
    moderation: str | None = Field(None, max_length=64)
    # None: as EMBED_METADATA says.
    embed_metadata: StrictBool | None = None
    mask: MaskSource | None = None
    strength: Real | None = Field(None, ge=0, le=1)
    n: Whole = Field(1, ge=1, le=MAX_IMAGES)

    @field_validator("prompt", mode="wrap")
    @classmethod
    def may_be_left_out(
        cls, value: Any, handler: Callable[[Any], str], info: ValidationInfo
    ) -> str:
        """Take pictures without words; whether the model does is checked later."""
        if value is not LEFT_OUT:
            return handler(value)
        if not info.data.get("images"):
            raise PydanticCustomError("missing", "missing")
        return ""

    def fingerprint(self) -> str:
        """Return what tells one request from another; the release before says the same of its own.

        While machines are upgraded, a request may be repeated at another release.
        """
        unused = {name for name in ADDED_FIELDS if getattr(self, name) in (None, [])}
        return self.model_dump_json(exclude=unused)


class TestParams(BaseModel):
    model_config = ConfigDict(extra="allow")

    # Any, as published: the built-in engine draws, and the record keeps what was asked.
    model: Any = None
    steps: Whole = Field(20, ge=1, le=150)
    seed: Seed = None
    width: Whole = Field(512, ge=64, le=1024)
    height: Whole = Field(512, ge=64, le=1024)
    negative_prompt: Prompt = Field("", max_length=2000)

    @model_validator(mode="after")
    def check_extras(self) -> "TestParams":
        """Other params are kept in the record as they came, so they must fit there."""
        try:
            kept = {**self.model_extra, "model": self.model}
            text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
            size = len(text.encode())
            is_deep = depth(kept) > MAX_EXTRA_DEPTH
        except RecursionError:
            is_deep = True
        except UnicodeEncodeError:  # lone surrogates
            raise PydanticCustomError("string_unicode", "unicode") from None
        except ValueError:  # NaN and infinity, which JSON has no word for
            raise PydanticCustomError("not_finite", "finite") from None
        if is_deep or size > MAX_EXTRA_BYTES:
            raise PydanticCustomError("too_large", "too_large")
        return self


def depth(value: Any) -> int:
    """Return how many levels of objects and arrays a JSON value has, itself included."""
    if isinstance(value, dict):
        parts = list(value.values())
    else:
        parts = value if isinstance(value, list) else []
    return 1 + max((depth(part) for part in parts), default=0)


class GenerateTestInput(BaseModel):
    prompt: Prompt = Field(min_length=1, max_length=2000, json_schema_extra={"pattern": PROMPT})
    params: TestParams | None = None


class RetryInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: Literal["new"] | None = None


class FavoriteInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    favorite: StrictBool


class DeleteInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: list[ImageId] = Field(min_length=1, max_length=100)


# Images of one archive: their names at its end take memory.
MAX_ARCHIVE = 10_000
MAX_SHARE_DAYS = 365

Time = Annotated[str, AfterValidator(read_time)]


class ArchiveInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: list[ImageId] | None = Field(None, min_length=1, max_length=MAX_ARCHIVE)
    status: Literal[STATUSES] | None = None
    q: Annotated[str, Field(max_length=200), AfterValidator(check_prompt)] | None = None
    favorite: StrictBool | None = None
    model: str | None = Field(None, max_length=64)
    since: Time | None = None
    until: Time | None = None
    tag: Annotated[list[Tag], Field(max_length=10)] | None = None
    metadata: Literal["keep", "strip"] = "keep"
    link: StrictBool = False

    @property
    def filters(self) -> dict[str, Any]:
        """Return the filters of the history among the fields."""
        return self.model_dump(exclude={"ids", "metadata", "link"}, exclude_none=True)

    @model_validator(mode="after")
    def check_ids(self) -> "ArchiveInput":
        if self.ids and self.filters:
            raise PydanticCustomError("ids_and_filters", "ids and filters")
        return self


class ShareInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    days: Whole = Field(7, ge=1, le=MAX_SHARE_DAYS)


class RestoreInput(DeleteInput):
    pass


class TagsInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: list[ImageId] = Field(min_length=1, max_length=100)
    add: list[Tag] = Field([], max_length=MAX_TAGS)
    remove: list[Tag] = Field([], max_length=MAX_TAGS)


ROW_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"


# -- Queries ------------------------------------------------------------------------------------


def make_cursor(moment: str | int, generation_id: int) -> str:
    """Return the cursor of the page that begins after this generation, by a time of it."""
    text = f"{moment}|{generation_id}"
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[str, int]:
    """Return the (created_at, id) that make_cursor() was given."""
    return split_cursor(cursor, is_row_time)


def read_trash_cursor(cursor: str) -> tuple[int, int]:
    """Return the (trashed_at, id) that make_cursor() was given."""
    trashed_at, number = split_cursor(cursor, re.compile("[0-9]{1,18}").fullmatch)
    return int(trashed_at), number


def split_cursor(cursor: str, is_time: Callable[[str], Any]) -> tuple[str, int]:
    padding = "=" * (-len(cursor) % 4)
    try:
        text = urlsafe_b64decode(cursor + padding).decode()
        moment, _, number = text.rpartition("|")
        if not re.fullmatch(r"[0-9]{1,18}", number) or not is_time(moment):
            raise ValueError
        # One spelling: nothing was left out of the letters, digits or bits.
        if cursor != make_cursor(moment, int(number)):
            raise ValueError
    except ValueError:
        raise PydanticCustomError("cursor_type", "cursor") from None
    return moment, int(number)


def is_row_time(text: str) -> bool:
    """Tell if a database takes this as the time of a row; SQLite compares whatever is there."""
    if not settings.uses_mysql:
        return len(text) <= 40 and text.isprintable()
    if not re.fullmatch(ROW_TIME, text):
        return False
    try:
        datetime.fromisoformat(text.replace("-00", "-01"))  # MySQL has days and months of zero
    except ValueError:
        return text.startswith("0000-00-00 ")
    return True


def cap_per_page(wanted: int) -> int:
    return min(wanted, MAX_PER_PAGE)


Cursor = Annotated[
    tuple[str, int], BeforeValidator(read_cursor), WithJsonSchema({"type": "string"})
]


TrashCursor = Annotated[
    tuple[int, int], BeforeValidator(read_trash_cursor), WithJsonSchema({"type": "string"})
]
PerPage = Annotated[Digits, AfterValidator(cap_per_page)]


class TrashQuery(BaseModel):
    per_page: PerPage = Field(10, ge=1)
    cursor: TrashCursor | None = None


class DeleteQuery(BaseModel):
    purge: QueryBool = False


class HistoryQuery(BaseModel):
    page: Digits = Field(1, ge=1)
    per_page: PerPage = Field(10, ge=1)
    cursor: Cursor | None = None
    status: Literal[STATUSES] | None = None
    q: Annotated[str, Field(max_length=200), AfterValidator(check_prompt)] | None = None
    favorite: QueryBool | None = None
    model: str | None = Field(None, max_length=64)
    since: QueryTime | None = None
    until: QueryTime | None = None
    # A URL has 4 KB.
    tag: Annotated[list[Tag], Field(max_length=10)] | None = None

    @property
    def offset(self) -> int:
        # No database takes an offset beyond 64 bits, and no history is that long.
        return min((self.page - 1) * self.per_page, 2**62)

    @property
    def filters(self) -> dict[str, Any]:
        """Return what else was asked for; `history.FILTERS` has the SQL of each."""
        return self.model_dump(exclude={"page", "per_page", "cursor"}, exclude_none=True)


# What validation.read_id_list() takes.
QUERY_IDS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 50,
    "items": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
}


class IdsQuery(BaseModel):
    ids: Annotated[IdList, WithJsonSchema(QUERY_IDS)]


class DownloadQuery(BaseModel):
    download: Literal["1"] | None = None


class LinkQuery(BaseModel):
    ticket: str = Field(max_length=100, examples=["cGxlYXNlIGRvIG5vdCB0cnkgdGhpcyBvbmU"])


class FileQuery(DownloadQuery):
    metadata: Literal["strip"] | None = None
