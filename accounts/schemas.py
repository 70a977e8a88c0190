"""What a request about accounts may hold."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from accounts import passwords
from accounts.names import EMAIL, check_email, check_name, normalize
from config import settings
from validation import strip


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


class LoginInput(BaseModel):
    username: str = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1000)
