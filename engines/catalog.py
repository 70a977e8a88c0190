"""The models on offer, as MODELS_FILE declares them, and what each one takes."""

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

import engines
from config import SettingError, read_text, settings
from engines import sizes
from engines.options import MAX_INPUTS, OF_ENGINE, Options

# Parameters that have a range of numbers, and those that have a list of choices.
RANGES = ("width", "height", "steps", "guidance", "output_compression")
CHOICES = ("quality", "style", "sampler", "background", "output_format", "moderation")
# Another way to say width and height.
SHAPES = ("aspect_ratio", "resolution")
USUAL_PROMPT = 2000
MAX_PROMPT = 32_000
MAX_IMAGES = 10  # of one request
FRACTIONS = ("guidance", "strength")
INPUT_FORMATS = ("png", "jpg", "webp")
InputFormat = Literal[INPUT_FORMATS]
MAX_INPUT_BYTES = 20 * 1024 * 1024
MAX_SEED = 2**53 - 1  # the largest number that every JSON parser keeps, JavaScript's included


class Range(BaseModel):
    model_config = ConfigDict(extra="forbid")

    min: float
    max: float
    default: float
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def check_order(self) -> "Range":
        if not self.min <= self.default <= self.max:
            raise ValueError("must have min <= default <= max")
        for value in (self.min, self.max, self.default):
            if value % self.step and self.step > 1:
                raise ValueError("min, max and default must be multiples of step")
        return self

    def to_json(self, name: str) -> dict[str, float | int]:
        """Return {min, max, default} of the parameter of that name, and step if it has one."""
        values = self.model_dump(exclude_defaults=True)
        return {key: as_number(name, value) for key, value in values.items()}


def as_number(name: str, value: float) -> float | int:
    """Return the value of a parameter as a whole number, unless it may have a fraction."""
    return value if name in FRACTIONS else int(value)


class Pixels(BaseModel):
    """How many pixels an image may have, however they are spread."""

    model_config = ConfigDict(extra="forbid")

    min: int = Field(1, ge=1)
    max: int = Field(ge=1)


class Images(BaseModel):
    """What a model takes beside the prompt; `min = 1` marks one that only changes pictures."""

    model_config = ConfigDict(extra="forbid")

    min: int = Field(0, ge=0, le=MAX_INPUTS)
    max: int = Field(1, ge=1, le=MAX_INPUTS)
    mask: bool = False
    strength: Range | None = None
    formats: Annotated[list[InputFormat], Field(min_length=1)] = list(INPUT_FORMATS)
    max_bytes: int = Field(MAX_INPUT_BYTES, ge=1, le=MAX_INPUT_BYTES)

    @model_validator(mode="after")
    def check(self) -> "Images":
        if self.min > self.max:
            raise ValueError("must have min <= max")
        if self.strength and not 0 <= self.strength.min <= self.strength.max <= 1:
            raise ValueError("strength must be from 0 to 1")
        return self


Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")]
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]
Ratio = Annotated[str, Field(pattern=r"^([1-9][0-9]?:[1-9][0-9]?|auto)$")]
Choice = Annotated[str, Field(min_length=1, max_length=64)]
Choices = Annotated[list[Choice], Field(min_length=1)]


class Model(BaseModel):
    """One model: which engine makes its pictures, and the limits and defaults of its parameters."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: Name
    label: str
    label_zh: str = ""
    model_used: str = ""  # what records name as the model, if not its name
    engine: Literal[tuple(engines.NAMES)]
    deadline_seconds: int = Field(600, ge=1, le=86400)
    negative_prompt: bool = False
    seed: bool | None = None  # whether it takes a seed; if not said, as the engine usually does
    # Of explicit seeds, if the engine has less. `max_seed` is its name of old.
    max_seed: int = Field(
        MAX_SEED, ge=1, le=MAX_SEED, validation_alias=AliasChoices("seed_max", "max_seed")
    )
    prompt_max: int = Field(USUAL_PROMPT, ge=1, le=MAX_PROMPT)
    n_max: int = Field(4, ge=1, le=MAX_IMAGES)
    width: Range | None = None
    height: Range | None = None
    sizes: list[Size] = []  # the only sizes there are, such as 1024x1536; the first is the default
    aspect_ratio: Annotated[list[Ratio], Field(min_length=1)] | None = None
    resolution: Annotated[list[Literal["1K", "2K", "4K"]], Field(min_length=1)] | None = None
    pixels: Pixels | None = None
    ratio_max: float | None = Field(None, ge=1)  # of the longer side to the shorter one
    steps: Range | None = None
    guidance: Range | None = None
    quality: Choices | None = None  # of each list of choices, the first is the default
    style: Choices | None = None
    sampler: Choices | None = None
    background: Choices | None = None
    output_format: Choices | None = None
    output_compression: Range | None = None
    moderation: Choices | None = None
    images: Images | None = None
    options: SerializeAsAny[Options] = Options()

    @model_validator(mode="before")
    @classmethod
    def read_options(cls, table: Any) -> Any:
        """Read the options as its engine declares them."""
        if not isinstance(table, dict) or table.get("engine") not in OF_ENGINE:
            return table
        schema = OF_ENGINE[table["engine"]]
        try:
            options = schema.model_validate(table.get("options", {}))
        except ValidationError as error:
            raise ValueError(f"options.{explain(error)}") from None
        return {**table, "options": options}

    @model_validator(mode="after")
    def check_size(self) -> "Model":
        if self.aspect_ratio and not (self.sizes or self.width or self.height):
            self.sizes = sizes.derived(self.aspect_ratio, self.resolution or ["1K"])
        if self.sizes:
            if self.width or self.height:
                raise ValueError("has sizes, so width and height must be left out")
            pairs = [sizes.read_size(size) for size in self.sizes]
            self.width = range_of([width for width, _ in pairs])
            self.height = range_of([height for _, height in pairs])
        if not self.width or not self.height:
            raise ValueError("needs width and height, or sizes")
        self.check_pixels()
        self.check_shapes()
        return self

    @model_validator(mode="after")
    def check_images(self) -> "Model":
        """Refuse what its engine would leave out without a word."""
        if not self.images:
            return self
        if self.images.max > self.options.max_images:
            most = self.options.max_images
            raise ValueError(f"images.max: {self.engine} takes {most or 'none'} with these options")
        for name in ("mask", "strength"):
            if getattr(self.images, name) and not getattr(self.options, f"takes_{name}"):
                raise ValueError(f"images.{name}: {self.engine} takes none with these options")
        return self

    def check_pixels(self) -> None:
        """Refuse a size whose result would be refused, after it was made and perhaps paid for."""
        largest = self.width.max * self.height.max
        if self.sizes:
            pairs = map(sizes.read_size, self.sizes)
            largest = max(width * height for width, height in pairs)
        elif self.pixels:
            largest = min(largest, self.pixels.max)
        if largest > settings.MAX_RESULT_PIXELS:
            raise ValueError(
                f"allows images of {largest:.0f} pixels,"
                f" more than MAX_RESULT_PIXELS ({settings.MAX_RESULT_PIXELS})"
            )

    def check_shapes(self) -> None:
        """Refuse rules that the default, or what a ratio stands for, does not keep."""
        shapes = [sizes.default_size(self)]
        for ratio in self.aspect_ratio or [""]:
            for resolution in self.resolution or [""]:
                size = sizes.shaped(self, ratio, resolution)
                shapes.append(size)
                if ratio in ("", sizes.AUTO):
                    continue
                if sizes.off(size, sizes.read_ratio(ratio)) > sizes.TOLERANCE:
                    raise ValueError(f"aspect_ratio: has no size for {ratio}")
        for width, height in shapes:
            if self.breaks_pixels(width, height) or self.breaks_ratio(width, height):
                raise ValueError(f"pixels and ratio_max must allow {width}x{height}")

    def breaks_pixels(self, width: int, height: int) -> bool:
        return bool(self.pixels) and not self.pixels.min <= width * height <= self.pixels.max

    def breaks_ratio(self, width: int, height: int) -> bool:
        return bool(self.ratio_max) and max(width, height) > self.ratio_max * min(width, height)

    @property
    def takes_seed(self) -> bool:
        return self.options.takes_seed if self.seed is None else self.seed


# What draws test images.
TEST_MODEL = Model(
    name="test_model",
    label="Painter",
    model_used="test_model_v1",
    engine="painter",
    deadline_seconds=120,
    negative_prompt=True,
    width=Range(min=64, max=1024, default=512),
    height=Range(min=64, max=1024, default=512),
    steps=Range(min=1, max=150, default=20),
)


def range_of(values: list[int]) -> Range:
    return Range(min=min(values), max=max(values), default=values[0])


def models() -> dict[str, Model]:
    """Return the models on offer by name; the first is the default. Raises SettingError."""
    return load(settings.MODELS_FILE)


def built_in_model() -> Model:
    """Return the model of test images, which draws them whatever the models file declares."""
    declared = models().get(TEST_MODEL.name, TEST_MODEL)
    if declared.engine == TEST_MODEL.engine:
        return TEST_MODEL
    return TEST_MODEL.model_copy(update={"name": "built-in"})


def find_model(name: str) -> Model | None:
    """Return a model on offer, or the built-in one, which need not be."""
    built_in = built_in_model()
    return models().get(name) or (built_in if name == built_in.name else None)


@lru_cache
def load(path: Path) -> dict[str, Model]:
    """Read a models file. Raises SettingError naming the line or the entry that is wrong."""
    try:
        tables = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise SettingError(f"MODELS_FILE: {path.name}: {error}") from None
    if not tables:
        raise SettingError(f"MODELS_FILE: {path.name}: declares no model")
    return {name: read_model(path, name, table) for name, table in tables.items()}


def read_model(path: Path, name: str, table: Any) -> Model:
    if isinstance(table, dict):
        table = {"name": name, **table}
    try:
        return Model.model_validate(table)
    except ValidationError as error:
        raise SettingError(f"MODELS_FILE: {path.name}: [{name}] {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Return what is wrong, and where, in one line."""
    problems = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"]
        if place:
            problems.append(f"{place}: {message}")
        else:
            problems.append(message.removeprefix("Value error, "))
    return "; ".join(problems)
