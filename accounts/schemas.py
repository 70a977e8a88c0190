"""What a request about accounts may hold."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from accounts import passwords
from accounts.api_keys import SCOPES
from accounts.limits import Limits
from accounts.names import EMAIL, check_email, check_name, normalize
from config import settings
from engines import catalog
from validation import FutureTime, Line, Whole, check_prompt, empty_if_invisible, strip

# Of a password that is compared, which may be older than the limits of today.
MAX_TYPED = 1000


def check_new_password(password: str) -> str:
    longest = settings.PASSWORD_MAX_LENGTH
    if len(password) > longest:
        raise PydanticCustomError("string_too_long", "too long", {"max_length": longest})
    if passwords.is_common(password):
        raise PydanticCustomError("common_password", "common password")
    return password


def add_max_length(schema: dict[str, Any]) -> None:
    schema["maxLength"] = settings.PASSWORD_MAX_LENGTH


Username = Annotated[str, BeforeValidator(normalize), AfterValidator(check_name)]
Email = Annotated[str, BeforeValidator(strip), AfterValidator(check_email)]
# The length is that of what was typed.
Password = Annotated[str, AfterValidator(check_new_password)]


class PasswordInput(BaseModel):
    password: Password = Field(min_length=6, json_schema_extra=add_max_length)


class NameInput(BaseModel):
    username: Username = Field(min_length=3, max_length=20)


class EmailInput(BaseModel):
    email: Email = Field(max_length=120, json_schema_extra={"pattern": EMAIL})


class RegisterInput(EmailInput, NameInput, PasswordInput):
    # As forms send it, "" is none.
    invite_code: str = Field("", alias="inviteCode", max_length=100)


# What somebody types to be let in: it may be of a time with other rules.
KnownPassword = Annotated[str, Field(min_length=1, max_length=MAX_TYPED)]


class ProfileInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: Email | None = Field(None, max_length=120, json_schema_extra={"pattern": EMAIL})
    password: str | None = Field(None, max_length=MAX_TYPED)


class LoginInput(BaseModel):
    username: str = Field(min_length=1, max_length=200)
    password: KnownPassword
    code: str | None = Field(default=None, max_length=100)


class OwnPasswordInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: KnownPassword


class CodeInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str = Field(min_length=1, max_length=100)


# -- Log-in at an OpenID provider ---------------------------------------------------------------


class OidcQuery(BaseModel):
    challenge: str = Field(pattern=r"^[A-Za-z0-9_-]{43}$")


class LoginCodeInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    login_code: str = Field(alias="loginCode", min_length=1, max_length=100)
    verifier: str = Field(min_length=43, max_length=128)


class OidcTokenInput(LoginCodeInput):
    code: str | None = Field(default=None, max_length=100)
    invite_code: str = Field("", alias="inviteCode", max_length=100)


class LinkInput(LoginCodeInput, OwnPasswordInput):
    pass


class PasswordAndCodeInput(OwnPasswordInput, CodeInput):
    pass


class NewPasswordInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    old_password: KnownPassword = Field(alias="oldPassword")
    password: Password = Field(alias="newPassword", min_length=6, json_schema_extra=add_max_length)


class LogoutInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    everywhere: StrictBool = False


class ConfirmInput(BaseModel):
    code: str = Field(min_length=1, max_length=100)


class ResetInput(ConfirmInput):
    password: Password = Field(alias="newPassword", min_length=6, json_schema_extra=add_max_length)


# -- API keys -----------------------------------------------------------------------------------

KeyName = Annotated[str, BeforeValidator(empty_if_invisible), AfterValidator(check_prompt)]


def check_scopes(scopes: list[str]) -> list[str]:
    return [scope for scope in SCOPES if scope in scopes]


class KeyInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: KeyName = Field(min_length=1, max_length=64)
    scopes: Annotated[list[Literal[SCOPES]], AfterValidator(check_scopes)] = Field(
        list(SCOPES), min_length=1, max_length=len(SCOPES)
    )
    expires_at: FutureTime | None = Field(None, alias="expiresAt")
    daily_images: Whole | None = Field(None, alias="dailyImages", ge=1, le=10**9)


# -- Invites and limits -------------------------------------------------------------------------

# So many names fit into the column.
MAX_MODELS = 30


def check_models(names: list[str]) -> list[str]:
    """Return the names of models without repetition; each must be that of a model."""
    unknown = [name for name in names if not catalog.find_model(name)]
    if unknown:
        expected = ", ".join(catalog.models())
        raise PydanticCustomError("literal_error", "unknown", {"expected": expected})
    return list(dict.fromkeys(names))


ModelNames = Annotated[
    list[str], Field(min_length=1, max_length=MAX_MODELS), AfterValidator(check_models)
]


def check_end(end: int | None, info: ValidationInfo) -> int | None:
    """Refuse the end of limits where there are none."""
    has_limits = any(info.data.get(name) for name in Limits._fields)
    if end is not None and not has_limits:
        raise PydanticCustomError("end_of_nothing", "end")
    return end


class RedeemInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str = Field(min_length=1, max_length=100)


class LimitsInput(BaseModel):
    """Limits of an account: what is null is as the settings say."""

    model_config = ConfigDict(extra="forbid")

    daily_images: Whole | None = Field(None, alias="dailyImages", ge=1, le=10**9)
    active_jobs: Whole | None = Field(None, alias="activeJobs", ge=1, le=10**6)
    models: ModelNames | None = None

    @property
    def limits(self) -> Limits:
        return Limits(self.daily_images, self.active_jobs, self.models)


class AccountLimitsInput(LimitsInput):
    expires_at: FutureTime | None = Field(None, alias="expiresAt")

    check_end = field_validator("expires_at")(check_end)


class InviteInput(LimitsInput):
    """An invite: how often, until when, and for how many days an account has what it gives."""

    uses: Whole = Field(1, ge=1, le=10**6)
    expires_at: FutureTime | None = Field(None, alias="expiresAt")
    limit_days: Whole | None = Field(None, alias="limitDays", ge=1, le=36500)
    note: Line = Field("", max_length=200)

    check_end = field_validator("limit_days")(check_end)
