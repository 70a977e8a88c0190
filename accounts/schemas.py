"""What a request about accounts may hold."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from validation import EMAIL, check_email, check_printable, normalize, strip

Username = Annotated[str, BeforeValidator(normalize), AfterValidator(check_printable)]
Email = Annotated[str, BeforeValidator(strip), AfterValidator(check_email)]


class PasswordInput(BaseModel):
    password: str = Field(min_length=6, max_length=20)


class RegisterInput(PasswordInput):
    username: Username = Field(min_length=3, max_length=20)
    email: Email = Field(max_length=120, json_schema_extra={"pattern": EMAIL})


class LoginInput(BaseModel):
    username: str = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1000)
