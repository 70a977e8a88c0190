"""The models on offer, as MODELS_FILE declares them, and what a request may ask of each."""

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import engines
from checks import GenerateInput, InvalidInput
from config import SettingError, settings

RANGED = ("width", "height", "steps", "guidance")


class Range(BaseModel):
    model_config = ConfigDict(extra="forbid")

    min: float
    max: float
    default: float

    @model_validator(mode="after")
    def is_in_order(self) -> "Range":
        if not self.min <= self.default <= self.max:
            raise ValueError("must have min <= default <= max")
        return self

    def shown(self, name: str) -> dict[str, float | int]:
        return {key: as_number(name, value) for key, value in self.model_dump().items()}


class Model(BaseModel):
    """One model: who makes its pictures, and the limits and defaults of its parameters."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    label: str
    label_zh: str = ""
    model_used: str = ""  # what records name as the model, if not its name
    engine: Literal[tuple(engines.NAMES)]
    deadline_seconds: int = Field(600, ge=1, le=86400)
    negative_prompt: bool = False
    width: Range
    height: Range
    steps: Range | None = None
    guidance: Range | None = None
    options: dict[str, Any] = {}


@lru_cache
def load(path: Path) -> dict[str, Model]:
    """Return the models by name. Raises SettingError naming the file, and the line or the entry that is wrong."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"MODELS_FILE: {path.name}: {error}") from None
    if not tables:
        raise SettingError(f"MODELS_FILE: {path.name}: declares no model")
    return {name: declared(path, name, table) for name, table in tables.items()}


def declared(path: Path, name: str, table: Any) -> Model:
    try:
        return Model.model_validate({"name": name, **table} if isinstance(table, dict) else table)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
        raise SettingError(f"MODELS_FILE: {path.name}: [{name}] {'; '.join(wrong)}") from None


def offered() -> dict[str, Model]:
    return load(settings.MODELS_FILE)


def fill(wanted: GenerateInput) -> GenerateInput:
    """Return the request with the model's defaults for what it leaves out.

    Raises InvalidInput naming every field the model does not take, or not at that value.
    """
    model = offered().get(wanted.model or next(iter(offered())))
    if not model:
        raise InvalidInput(fields={"model": ("literal_error", {"expected": ", ".join(offered())})})
    wrong, values = {}, {"model": model.name}
    for name in RANGED:
        limits, value = getattr(model, name), getattr(wanted, name)
        if value is None:
            values[name] = limits and as_number(name, limits.default)
        elif not limits:
            wrong[name] = ("not_offered", {})
        elif not limits.min <= value <= limits.max:
            wrong[name] = ("out_of_range", {"low": limits.min, "high": limits.max})
    if wanted.negative_prompt and not model.negative_prompt:
        wrong["negative_prompt"] = ("not_offered", {})
    if wrong:
        raise InvalidInput(fields=wrong)
    return wanted.model_copy(update=values)


def as_number(name: str, value: float) -> float | int:
    return value if name == "guidance" else int(value)
