"""The models on offer, as MODELS_FILE declares them, and what a request may ask of each."""

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

import engines
from config import SettingError, settings
from engines.options import OF_ENGINE, Options
from validation import GenerateInput, InvalidInput

RANGED = ("width", "height", "steps", "guidance")
CHOSEN = ("quality", "style", "sampler")


class Range(BaseModel):
    model_config = ConfigDict(extra="forbid")

    min: float
    max: float
    default: float
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def is_in_order(self) -> "Range":
        if not self.min <= self.default <= self.max:
            raise ValueError("must have min <= default <= max")
        if self.step > 1 and (
            self.min % self.step or self.max % self.step or self.default % self.step
        ):
            raise ValueError("min, max and default must be multiples of step")
        return self

    def shown(self, name: str) -> dict[str, float | int]:
        return {
            key: as_number(name, value)
            for key, value in self.model_dump(exclude_defaults=True).items()
        }


Size = Annotated[str, Field(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]
Choices = Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1)]


class Model(BaseModel):
    """One model: who makes its pictures, and the limits and defaults of its parameters."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    label: str
    label_zh: str = ""
    model_used: str = ""  # what records name as the model, if not its name
    engine: Literal[tuple(engines.NAMES)]
    deadline_seconds: int = Field(600, ge=1, le=86400)
    negative_prompt: bool = False
    seed: bool | None = (
        None  # whether a seed may be asked for; if not said, as the engine usually does
    )
    width: Range | None = None
    height: Range | None = None
    sizes: list[Size] = []  # the only sizes there are, such as 1024x1536; the first is the default
    steps: Range | None = None
    guidance: Range | None = None
    quality: Choices | None = None  # of each list of choices, the first is the default
    style: Choices | None = None
    sampler: Choices | None = None
    options: SerializeAsAny[Options] = Options()

    @model_validator(mode="before")
    @classmethod
    def options_are_the_engines(cls, table: Any) -> Any:
        if isinstance(table, dict) and (kind := OF_ENGINE.get(table.get("engine"))):
            try:
                return {**table, "options": kind.model_validate(table.get("options", {}))}
            except ValidationError as error:
                raise ValueError(f"options.{complaints(error)}") from None
        return table

    @model_validator(mode="after")
    def size_is_known(self) -> "Model":
        if self.sizes:
            if self.width or self.height:
                raise ValueError("has sizes, so width and height must be left out")
            pairs = [self.size_of(text) for text in self.sizes]
            (self.width, self.height) = (span([pair[side] for pair in pairs]) for side in (0, 1))
        if not self.width or not self.height:
            raise ValueError("needs width and height, or sizes")
        return self

    @staticmethod
    def size_of(text: str) -> tuple[int, int]:
        width, _, height = text.partition("x")
        return int(width), int(height)

    @property
    def takes_seed(self) -> bool:
        return self.options.takes_seed if self.seed is None else self.seed


def span(values: list[int]) -> Range:
    return Range(min=min(values), max=max(values), default=values[0])


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
        raise SettingError(f"MODELS_FILE: {path.name}: [{name}] {complaints(error)}") from None


def complaints(error: ValidationError) -> str:
    wrong = [
        (".".join(map(str, item["loc"])), item["msg"]) for item in error.errors(include_url=False)
    ]
    return "; ".join(
        f"{where}: {what}" if where else what.removeprefix("Value error, ") for where, what in wrong
    )


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
    for name in (*RANGED, *CHOSEN):
        offer, value = getattr(model, name), getattr(wanted, name)
        if value is None:
            values[name] = offer and default_of(name, offer)
        elif problem := problem_with(offer, value):
            wrong[name] = problem
    if wanted.negative_prompt and not model.negative_prompt:
        wrong["negative_prompt"] = NOT_OFFERED
    if wanted.seed not in (None, -1) and not model.takes_seed:
        wrong["seed"] = NOT_OFFERED
    filled = wanted.model_copy(update=values)
    if not wrong and model.sizes and f"{filled.width}x{filled.height}" not in model.sizes:
        wrong["width"] = ("size_not_offered", {"sizes": ", ".join(model.sizes)})
    if wrong:
        raise InvalidInput(fields=wrong)
    return filled


NOT_OFFERED = ("not_offered", {})


def default_of(name: str, offer: Range | list[str]) -> float | int | str:
    return as_number(name, offer.default) if isinstance(offer, Range) else offer[0]


def problem_with(offer: Range | list[str] | None, value: float | str) -> tuple[str, dict] | None:
    """Return what is wrong with a value, as messages.FIELDS words it; None if nothing is."""
    if not offer:
        return NOT_OFFERED
    if isinstance(offer, list):
        return None if value in offer else ("literal_error", {"expected": ", ".join(offer)})
    if not offer.min <= value <= offer.max:
        return "out_of_range", {"low": offer.min, "high": offer.max}
    if offer.step > 1 and value % offer.step:
        return "not_multiple", {"step": offer.step}
    return None


def as_number(name: str, value: float) -> float | int:
    return value if name == "guidance" else int(value)
