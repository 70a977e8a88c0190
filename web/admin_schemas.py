"""What a request of an admin may hold."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from accounts.admin import ROLES, STATES
from accounts.schemas import AccountLimitsInput
from images import STATUSES
from images.schemas import MAX_ID, StrictBool
from validation import Digits, QueryTime, check_prompt

MAX_PER_PAGE = 100
MAX_DAYS = 366


def cap_per_page(wanted: int) -> int:
    return min(wanted, MAX_PER_PAGE)


Id = Annotated[Digits, Field(ge=1, le=MAX_ID)]
Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_prompt)]
ModelName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(check_prompt)]


class PageQuery(BaseModel):
    """A page of a list, which begins after the cursor of the page before."""

    cursor: Id | None = None
    per_page: Annotated[Digits, AfterValidator(cap_per_page)] = Field(50, ge=1)

    @property
    def filters(self) -> dict[str, Any]:
        """Return what was asked for; the module with the list has the SQL of each."""
        return self.model_dump(exclude={"per_page", "format"}, exclude_none=True)


class UsersQuery(PageQuery):
    q: Text | None = None
    role: Literal[ROLES] | None = None
    status: Literal[STATES] | None = None


class InvitesQuery(PageQuery):
    pass


class JobsQuery(PageQuery):
    status: Literal[STATUSES] | None = None
    user: Id | None = None
    model: str | None = Field(None, max_length=64)
    error: str | None = Field(None, max_length=64)
    since: QueryTime | None = None


class AuditQuery(PageQuery):
    actor: Text | None = None
    action: str | None = Field(None, max_length=40)
    since: QueryTime | None = None
    until: QueryTime | None = None
    format: Literal["json", "csv", "jsonl"] = "json"


class AdminImagesQuery(PageQuery):
    user: Id


class StatsQuery(BaseModel):
    days: Digits = Field(30, ge=1, le=MAX_DAYS)


class UserChange(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    # None is what is left out; it cannot be sent.
    disabled: StrictBool = None
    role: Literal[ROLES] = None
    # None: as the settings say.
    limits: AccountLimitsInput | None = None

    @model_validator(mode="after")
    def check_changes(self) -> "UserChange":
        if not self.model_fields_set:
            raise PydanticCustomError("nothing_to_change", "nothing")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class PauseInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    # None is what is left out: the whole queue.
    model: ModelName = None
