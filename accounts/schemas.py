"""What a request about accounts may hold."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool
from pydantic_core import PydanticCustomError

from accounts import passwords
from accounts.api_keys import SCOPES
from accounts.names import EMAIL, check_email, check_name, normalize
from config import settings
from validation import FutureTime, Whole, check_prompt, empty_if_invisible, strip


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


class RegisterInput(PasswordInput):
    username: Username = Field(min_length=3, max_length=20)
    email: Email = Field(max_length=120, json_schema_extra={"pattern": EMAIL})


# What somebody types to be let in: it may be of a time with other rules.
KnownPassword = Annotated[str, Field(min_length=1, max_length=1000)]


class LoginInput(BaseModel):
    username: str = Field(min_length=1, max_length=200)
    password: KnownPassword


class NewPasswordInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    old_password: KnownPassword = Field(alias="oldPassword")
    password: Password = Field(alias="newPassword", min_length=6, json_schema_extra=add_max_length)


class LogoutInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    everywhere: StrictBool = False


class EmailInput(BaseModel):
    email: Email = Field(max_length=120, json_schema_extra={"pattern": EMAIL})


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
