"""The options of each engine: the table `options` of a model in models.toml, with its validation.

It imports no engine, because the web processes need only the options.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from config import settings

VARIABLE_NAME = r"^([A-Za-z_][A-Za-z0-9_]*)?$"
HOST_PATTERN = r"^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*)$"
DEVICE = r"^[a-z]+(:[0-9]+)?$"
VARIANT = r"^[A-Za-z0-9_-]*$"


def validate_base_url(text: str) -> str:
    parts = urlsplit(text)
    is_valid = (
        parts.scheme in ("http", "https")
        and parts.hostname
        and not parts.username
        and not parts.query
    )
    if not is_valid:
        raise ValueError("must look like https://example.com/v1, without user name and password")
    return text.rstrip("/")


def resolve_path(path: Path) -> Path:
    """Return a path relative to the folder of the models file as an absolute one."""
    folder = settings.MODELS_FILE.parent
    return folder / path.expanduser()


BaseUrl = Annotated[str, AfterValidator(validate_base_url)]
FilePath = Annotated[Path, AfterValidator(resolve_path)]
# The models file names environment variables, so that it need not hold passwords and API keys.
VariableName = Annotated[str, Field(pattern=VARIABLE_NAME)]
# The length is not part of the pattern: pydantic compiles \w{0,64}, with all of Unicode, to 6 MB.
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$", max_length=64)]
FieldNames = dict[str, FieldName]
HostPattern = Annotated[str, Field(pattern=HOST_PATTERN)]
# Sent to the server, or given to the pipeline, without any validation.
Extra = dict[str, Any]


class Options(BaseModel):
    """The options of an engine, and what the engine supports unless a model says otherwise."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    takes_seed: ClassVar[bool] = True
    is_paid: ClassVar[bool] = False


class Painter(Options):
    """The built-in painter has no options."""


class OpenAIImages(Options):
    """A server with OpenAI's Images API."""

    takes_seed: ClassVar[bool] = False
    # The field of the request body for each parameter, unless `fields` names another.
    default_fields: ClassVar[FieldNames] = {
        "n": "n",
        "size": "size",
        "quality": "quality",
        "style": "style",
        "sampler": "sampler",
        "seed": "seed",
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
        "negative_prompt": "negative_prompt",
    }

    base_url: BaseUrl = "https://api.openai.com/v1"
    model: str = Field(min_length=1)
    api_key_env: VariableName = ""
    # Whether an image costs money. By default it does if the server needs an API key.
    paid: bool | None = None
    response_format: Literal["", "b64_json", "url"] = ""
    # Field names that differ from default_fields; "" leaves the parameter out of the request.
    fields: FieldNames = Field({}, validate_default=True)
    # Additional fields of the request body.
    extra: Extra = {}
    # The allow-list of hosts, besides the server itself, that images may be downloaded from.
    # "*.example.com" allows all subdomains, "*" every host.
    result_hosts: list[HostPattern] = []
    # Allow those hosts to have private IP addresses and to be used without TLS.
    allow_private_results: bool = False
    timeout_seconds: float = Field(300, gt=0, le=3600)

    @property
    def is_paid(self) -> bool:
        if self.paid is None:
            return bool(self.api_key_env)
        return self.paid

    @field_validator("fields")
    @classmethod
    def complete_fields(cls, fields: FieldNames) -> FieldNames:
        known = cls.default_fields
        unknown = fields.keys() - known.keys()
        if unknown:
            names = ", ".join(sorted(unknown))
            known_names = ", ".join(known)
            raise ValueError(f"has no {names}; there are {known_names}")
        reserved = {"model", "prompt"}
        if reserved & set(fields.values()):
            raise ValueError("must leave model and prompt alone")
        return {**known, **fields}

    @field_validator("extra")
    @classmethod
    def check_extra(cls, extra: Extra) -> Extra:
        # `n` is reserved because only the first image of a response is used.
        reserved = {"model", "prompt", "n", "stream"}
        taken = extra.keys() & reserved
        if taken:
            names = ", ".join(sorted(taken))
            raise ValueError(f"must leave {names} alone")
        return extra


class SDWebUI(Options):
    """AUTOMATIC1111's WebUI, Forge or SD.Next, started with --api."""

    base_url: BaseUrl = "http://127.0.0.1:7860"
    username: str = ""
    password_env: VariableName = ""
    checkpoint: str = ""
    sampler: str = ""
    scheduler: str = ""
    # Additional fields of the body of txt2img.
    extra: Extra = {}
    timeout_seconds: float = Field(600, gt=0, le=86400)


class ComfyUI(Options):
    """A ComfyUI server and a workflow in its API format."""

    base_url: BaseUrl = "http://127.0.0.1:8188"
    username: str = ""
    password_env: VariableName = ""
    workflow: FilePath
    # The id of the node whose image is taken. By default the last node that saved one.
    output_node: str = ""
    # The key of a ComfyUI account, for workflows with API nodes, which cost money.
    api_key_env: VariableName = ""

    @property
    def is_paid(self) -> bool:
        return bool(self.api_key_env)


class Diffusers(Options):
    """A pipeline in a local folder, as diffusers' save_pretrained() writes it."""

    folder: FilePath
    # "auto", "cpu", "cuda", "cuda:1", "mps".
    device: str = Field("auto", pattern=DEVICE)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    # Which weight files to read if the folder holds several kinds, such as "fp16".
    variant: str = Field("", pattern=VARIANT)
    # Additional arguments of the pipeline's call.
    extra: Extra = {}


OF_ENGINE: dict[str, type[Options]] = {
    "painter": Painter,
    "openai_images": OpenAIImages,
    "sdwebui": SDWebUI,
    "comfyui": ComfyUI,
    "diffusers": Diffusers,
}
