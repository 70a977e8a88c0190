"""The options of each engine: the table `options` of a model in models.toml, with its validation.

It imports no engine, because the web processes need only the options.
"""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from config import settings

VARIABLE_NAME = r"^([A-Za-z_][A-Za-z0-9_]*)?$"
HOST_PATTERN = r"^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*)$"
DEVICE = r"^[a-z]+(:[0-9]+)?$"
HEADER_NAME = r"^[A-Za-z][A-Za-z0-9-]*$"
URL_PATH = r"^(/[A-Za-z0-9_.~%:@!$&()*+,;=/-]*)?$"
# Not in the models file, which may be read by anyone.
SECRET_NAME = re.compile(r"key|token|secret|auth|password|cookie|signature|^sig$", re.IGNORECASE)
OWN_HEADERS = ("host", "connection", "content-length", "content-type", "transfer-encoding")
# stable-diffusion.cpp's server reads options of any size from such a mark in the prompt.
SD_CPP_ARGUMENTS = r"<[^\w<]*sd[\W_]*cpp[\W_]*extra[\W_]*args"
VARIANT = r"^[A-Za-z0-9_-]*$"
MAX_INPUTS = 16  # pictures that an image is made from: as many as any provider takes


def validate_base_url(text: str) -> str:
    parts = urlsplit(text)
    is_valid = (
        parts.scheme in ("http", "https")
        and parts.hostname
        and not parts.username
        and not parts.query
    )
    if not is_valid:
        raise ValueError(
            "must look like https://example.com/v1, without user name and password;"
            " a query belongs into the option query"
        )
    return text.rstrip("/")


def resolve_path(path: Path) -> Path:
    """Return a path relative to the folder of the models file as an absolute one."""
    folder = settings.MODELS_FILE.parent
    return folder / path.expanduser()


def check_names(values: dict[str, str]) -> dict[str, str]:
    """Refuse headers and parameters that hold a secret or that the client sets itself."""
    for name in values:
        if SECRET_NAME.search(name):
            raise ValueError(f"must leave {name} alone; a key is sent by api_key_env")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"must leave {name} alone")
    return values


def check_fields(fields: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """Refuse names of parameters that there are not, and of fields that have their value."""
    unknown = fields.keys() - known.keys()
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"has no {names}; there are {', '.join(known)}")
    if {"model", "prompt"} & set(fields.values()):
        raise ValueError("must leave model and prompt alone")
    return fields


def compile_pattern(text: str) -> re.Pattern:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None


BaseUrl = Annotated[str, AfterValidator(validate_base_url)]
FilePath = Annotated[Path, AfterValidator(resolve_path)]
# The models file names environment variables, so that it need not hold passwords and API keys.
VariableName = Annotated[str, Field(pattern=VARIABLE_NAME)]
# The length is not part of the pattern: pydantic compiles \w{0,64}, with all of Unicode, to 6 MB.
FieldName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_]+(\[\])?)?$", max_length=64)]
FieldNames = dict[str, FieldName]
HostPattern = Annotated[str, Field(pattern=HOST_PATTERN)]
HeaderName = Annotated[str, Field(pattern=HEADER_NAME, max_length=64)]
# Without control characters, and so without line breaks.
HeaderValue = Annotated[str, Field(pattern=r"^[ -~]*$", max_length=1000)]
Headers = Annotated[dict[HeaderName, HeaderValue], AfterValidator(check_names)]
Query = Annotated[dict[str, str], AfterValidator(check_names)]
Markers = list[Annotated[str, AfterValidator(compile_pattern)]]
# What a provider's code means, as a key of messages.JOB_ERRORS.
ErrorKind = Literal[
    "engine_account",
    "content_refused",
    "engine_refused",
    "engine_busy",
    "engine_unavailable",
    "outcome_unknown",
]
# Sent to the server, or given to the pipeline, without any validation.
Extra = dict[str, Any]


class Options(BaseModel):
    """The options of an engine, and what the engine supports unless a model says otherwise."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    takes_seed: ClassVar[bool] = True
    is_paid: ClassVar[bool] = False
    # Of the pictures that an image is made from.
    max_images: ClassVar[int] = 0
    takes_mask: ClassVar[bool] = False
    takes_strength: ClassVar[bool] = False

    # Regular expressions of what a prompt must not contain, because the engine would obey it.
    refused_markers: Markers = []


class Painter(Options):
    """The built-in painter has no options."""

    max_images: ClassVar[int] = 4
    takes_mask: ClassVar[bool] = True
    takes_strength: ClassVar[bool] = True


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
        "width": "",
        "height": "",
        "aspect_ratio": "",
        "resolution": "",
        "background": "background",
        "output_format": "output_format",
        "output_compression": "output_compression",
        "moderation": "moderation",
        "image": "image[]",
        "mask": "mask",
        "strength": "",
    }
    # Where it is another one in a request with pictures: OpenAI's edits refuse `moderation`.
    default_images_fields: ClassVar[dict[str, FieldNames]] = {
        "files": {"moderation": ""},
        "fields": {"image": "image"},
        "list": {"image": "image"},
    }

    refused_markers: Markers = Field([SD_CPP_ARGUMENTS], validate_default=True)
    base_url: BaseUrl = "https://api.openai.com/v1"
    # Of the call that makes an image, after base_url.
    path: str = Field("/images/generations", pattern=URL_PATH)
    # Added to the URL of each call, such as {"api-version" = "…"}.
    query: Query = {}
    headers: Headers = {}
    model: str = Field(min_length=1)
    api_key_env: VariableName = ""
    # By default a bearer token.
    api_key_header: HeaderName = "Authorization"
    api_key_prefix: HeaderValue | None = None
    # Whether an image costs money. By default it does if the server needs an API key.
    paid: bool | None = None
    response_format: Literal["", "b64_json", "url"] = ""
    # Field names that differ from default_fields; "" leaves the parameter out of the request.
    fields: FieldNames = Field({}, validate_default=True)
    # How pictures are sent: as files of a form; or in JSON as data URLs, each in a field of its
    # own (image, image2, …) or all in one list.
    images_as: Literal["files", "fields", "list"] = "files"
    # Of the call that takes pictures; by default /images/edits for files, else `path`.
    images_path: str = Field("", pattern=URL_PATH)
    # Field names of a request with pictures, where they differ from `fields`.
    images_fields: FieldNames = Field({}, validate_default=True)
    # Additional fields of the request body.
    extra: Extra = {}
    # The allow-list of hosts, besides the server itself, that images may be downloaded from.
    # "*.example.com" allows all subdomains, "*" every host.
    result_hosts: list[HostPattern] = []
    # Allow those hosts to have private IP addresses and to be used without TLS.
    allow_private_results: bool = False
    timeout_seconds: float = Field(300, gt=0, le=3600)
    # Codes of the provider, or HTTP statuses, and what they mean. Errors that are declared as
    # engine_busy or engine_unavailable are retried, also if images cost money.
    errors: dict[str, ErrorKind] = {}

    @property
    def key_prefix(self) -> str:
        if self.api_key_prefix is not None:
            return self.api_key_prefix
        return "Bearer " if self.api_key_header.lower() == "authorization" else ""

    @property
    def is_paid(self) -> bool:
        if self.paid is None:
            return bool(self.api_key_env)
        return self.paid

    @property
    def max_images(self) -> int:
        name = self.images_fields["image"]
        if self.images_as == "files" and not name.endswith("[]"):
            return int(bool(name))
        return MAX_INPUTS if name else 0

    @property
    def takes_mask(self) -> bool:
        return bool(self.images_fields["mask"])

    @property
    def takes_strength(self) -> bool:
        return bool(self.images_fields["strength"])

    @field_validator("fields")
    @classmethod
    def complete_fields(cls, fields: FieldNames) -> FieldNames:
        return {**cls.default_fields, **check_fields(fields, cls.default_fields)}

    @field_validator("images_fields")
    @classmethod
    def complete_images_fields(cls, fields: FieldNames, known: ValidationInfo) -> FieldNames:
        usual = cls.default_fields | cls.default_images_fields[known.data.get("images_as", "files")]
        given = known.data.get("fields", {}).items() - cls.default_fields.items()
        return {**usual, **dict(given), **check_fields(fields, cls.default_fields)}

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

    max_images: ClassVar[int] = 1
    takes_mask: ClassVar[bool] = True
    takes_strength: ClassVar[bool] = True

    refused_markers: Markers = Field([SD_CPP_ARGUMENTS], validate_default=True)
    base_url: BaseUrl = "http://127.0.0.1:7860"
    username: str = ""
    password_env: VariableName = ""
    checkpoint: str = ""
    sampler: str = ""
    scheduler: str = ""
    # Additional fields of the body of txt2img and img2img.
    extra: Extra = {}
    timeout_seconds: float = Field(600, gt=0, le=86400)


class ComfyUI(Options):
    """A ComfyUI server and a workflow in its API format."""

    max_images: ClassVar[int] = MAX_INPUTS
    takes_mask: ClassVar[bool] = True
    takes_strength: ClassVar[bool] = True

    base_url: BaseUrl = "http://127.0.0.1:8188"
    username: str = ""
    password_env: VariableName = ""
    workflow: FilePath
    # For requests with pictures, and with a mask, if `workflow` is not for them.
    image_workflow: FilePath | None = None
    mask_workflow: FilePath | None = None
    # The id of the node whose image is taken. By default the last node that saved one.
    output_node: str = ""
    # The key of a ComfyUI account, for workflows with API nodes, which cost money.
    api_key_env: VariableName = ""

    @property
    def is_paid(self) -> bool:
        return bool(self.api_key_env)

    def workflow_for(self, has_images: bool, has_mask: bool) -> Path:
        """Return the workflow file of requests with or without pictures and a mask."""
        for_images = self.image_workflow or self.workflow
        if has_mask:
            return self.mask_workflow or for_images
        return for_images if has_images else self.workflow

    @property
    def workflows(self) -> list[Path]:
        files = [self.workflow, self.image_workflow, self.mask_workflow]
        return list(dict.fromkeys(filter(None, files)))


class Diffusers(Options):
    """A pipeline in a local folder, as diffusers' save_pretrained() writes it."""

    # What the pipeline really takes is seen once it is loaded.
    max_images: ClassVar[int] = MAX_INPUTS
    takes_mask: ClassVar[bool] = True
    takes_strength: ClassVar[bool] = True

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
