"""What models.toml may say about each engine, under a model's `options`. Imports no engine: the web needs only this."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from config import settings


def base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError("must look like https://example.com/v1, without user name and password")
    return text.rstrip("/")


def beside_models_file(path: Path) -> Path:
    return settings.MODELS_FILE.parent / path.expanduser()


BaseUrl = Annotated[str, AfterValidator(base_url)]
# Relative to the folder of the models file.
FilePath = Annotated[Path, AfterValidator(beside_models_file)]
# The name of an environment variable, so that no secret stands in the models file.
Variable = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")]
# Not \w{0,64}: pydantic's expressions know all of Unicode, and that one would take 6 MB.
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$", max_length=64)]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    # What engines can do that a model need not declare.
    takes_seed: ClassVar[bool] = True
    is_paid: ClassVar[bool] = False


class Painter(Options):
    pass


class OpenAIImages(Options):
    """A server that speaks OpenAI's Images API."""

    takes_seed: ClassVar[bool] = False
    # What each parameter is called there, if the models file does not say.
    names: ClassVar[dict[str, str]] = {
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
    api_key_env: Variable = ""
    # Whether a picture costs money; if not said, it does where a key is asked for.
    paid: bool | None = None
    response_format: Literal["", "b64_json", "url"] = ""
    # What parameters are called there, where that is not as in `names`; "" leaves one out.
    fields: dict[str, FieldName] = Field({}, validate_default=True)
    # Sent along as they are.
    extra: dict[str, Any] = {}
    # Hosts that URL results may be fetched from beside the server's own; "*.example.com" takes subdomains, "*" all.
    result_hosts: list[
        Annotated[str, Field(pattern=r"^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*)$")]
    ] = []
    # Lets those hosts have private addresses, and be asked without TLS.
    allow_private_results: bool = False
    timeout_seconds: float = Field(300, gt=0, le=3600)

    @property
    def is_paid(self) -> bool:
        return bool(self.api_key_env) if self.paid is None else self.paid

    @field_validator("fields")
    @classmethod
    def fields_are_complete(cls, fields: dict[str, str]) -> dict[str, str]:
        if unknown := fields.keys() - cls.names.keys():
            raise ValueError(
                f"has no {', '.join(sorted(unknown))}; there are {', '.join(cls.names)}"
            )
        if {"model", "prompt"} & set(fields.values()):
            raise ValueError("must leave model and prompt alone")
        return {**cls.names, **fields}

    @field_validator("extra")
    @classmethod
    def extra_has_no_place_elsewhere(cls, extra: dict[str, Any]) -> dict[str, Any]:
        # Of more than one picture, all but the first would be thrown away.
        if taken := extra.keys() & {"model", "prompt", "n", "stream"}:
            raise ValueError(f"must leave {', '.join(sorted(taken))} alone")
        return extra


class SDWebUI(Options):
    """AUTOMATIC1111's WebUI, Forge or SD.Next, started with --api."""

    base_url: BaseUrl = "http://127.0.0.1:7860"
    username: str = ""
    password_env: Variable = ""
    checkpoint: str = ""
    sampler: str = ""
    scheduler: str = ""
    # Sent along in the body of txt2img as they are.
    extra: dict[str, Any] = {}
    timeout_seconds: float = Field(600, gt=0, le=86400)


class ComfyUI(Options):
    """A ComfyUI server and a workflow in its API format."""

    base_url: BaseUrl = "http://127.0.0.1:8188"
    username: str = ""
    password_env: Variable = ""
    workflow: FilePath
    # The node whose picture is taken; if not said, the only one that saves pictures, or the last.
    output_node: str = ""


class Diffusers(Options):
    """A pipeline in a local folder, as diffusers' save_pretrained() writes it."""

    folder: FilePath
    # "auto", "cpu", "cuda", "cuda:1", "mps".
    device: str = Field("auto", pattern=r"^[a-z]+(:[0-9]+)?$")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    # Of weights that are there in several kinds, such as "fp16".
    variant: str = Field("", pattern=r"^[A-Za-z0-9_-]*$")
    # Given to the pipeline's call as they are.
    extra: dict[str, Any] = {}


OF_ENGINE: dict[str, type[Options]] = {
    "painter": Painter,
    "openai_images": OpenAIImages,
    "sdwebui": SDWebUI,
    "comfyui": ComfyUI,
    "diffusers": Diffusers,
}
