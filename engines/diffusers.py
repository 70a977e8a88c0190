"""Makes pictures with a diffusers pipeline from a local folder, in this process, on its GPU if there is one.

Nothing is ever fetched, no code from the folder is run and no pickled weights are read. The libraries write
prompts into their warnings and errors: their loggers are silenced, and no text of theirs leaves a job.
"""

import importlib.util
import inspect
import io
import json
import logging
import os
import re
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from config import SettingError
from engines import GeneratedImage, ImageRequest, PermanentError, TransientError, no_progress
from engines.options import Diffusers

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
PULSE_SECONDS = 0.5
LONGEST_LINE = 300


class Unusable(Exception):
    """The pipeline cannot be used on this machine; the text is one line for the operator."""


class Loaded(NamedTuple):
    """A pipeline, the names of the arguments it takes, and the dtype that each of its networks was loaded with."""

    pipeline: Any
    takes: Set[str]
    dtypes: Mapping[str, Any]


# -- What every engine has ----------------------------------------------------------------------


def make(
    job: ImageRequest, on_progress: Callable[[int, int], None] = no_progress
) -> GeneratedImage:
    """Make the picture of a job, as PNG. Its options are engines.options.Diffusers.

    A seed gives the same bytes again on the same machine. Raises SystemExit when the GPU has failed for good.
    """
    pulse = Pulse(on_progress, job.steps or 1)
    pulse.report()
    try:
        loaded = load(job.options)
    except Unusable as error:
        raise PermanentError("engine_unavailable", str(error)) from None
    result = run(loaded, arguments(job, loaded.takes, pulse), pulse)
    if any(getattr(result, "nsfw_content_detected", None) or ()):
        raise PermanentError("content_refused", "the pipeline's safety checker")
    return drawing(result.images[0], job)


def check(options: Diffusers) -> list[str]:
    """Say which pipeline runs where. Looks at the folder and the device, and loads nothing. Raises PermanentError."""
    try:
        require_libraries()
        name, device = class_in(options.folder), device_of(options.device)
    except Unusable as error:
        raise PermanentError("engine_unavailable", str(error)) from None
    return [name, full_name(device), dtype_of(options.dtype, device, options.folder)]


def prepare(options: Diffusers) -> None:
    """Load the pipeline, so that no job waits for it. Raises SettingError."""
    try:
        load(options)
    except Unusable as error:
        raise SettingError(f"diffusers: {error}") from None


# -- Run ----------------------------------------------------------------------------------------


class Pulse:
    """Reports how many steps are done, and within a step that the run goes on.

    A step, or the decoding at the end, takes minutes on a slow machine; a cancel must not wait for it.
    """

    def __init__(self, on_progress: Callable[[int, int], None], total: int):
        self.on_progress = on_progress
        self.done, self.total = 0, total
        self.reported_at = 0.0
        self.has_raised = False

    def report(self) -> None:
        self.reported_at = time.monotonic()
        try:
            self.on_progress(self.done, self.total)
        except BaseException:
            self.has_raised = True
            raise

    def on_step_end(self, pipeline: Any, step: int, timestep: Any, tensors: dict) -> dict:
        self.done = step + 1
        # Some schedulers take more steps than they are asked for.
        self.total = max(getattr(pipeline, "num_timesteps", 0), self.done)
        self.report()
        return tensors

    def on_layer(self, layer: Any, inputs: Any) -> None:
        if time.monotonic() - self.reported_at > PULSE_SECONDS:
            self.report()


def arguments(job: ImageRequest, takes: Set[str], pulse: Pulse) -> dict[str, Any]:
    """Return what the pipeline is called with: the job's wishes, as far as it takes them, over the options' extra."""
    import torch

    # Drawn by the CPU, the noise of a seed is the same on every device, so a picture can be made again elsewhere.
    generator = torch.Generator("cpu")
    if job.seed is None:
        generator.seed()
    else:
        generator.manual_seed(job.seed)
    wishes = {
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt or None,
        "width": job.width,
        "height": job.height,
        "num_inference_steps": job.steps,
        "guidance_scale": job.guidance,
        "generator": generator,
        "output_type": "pil",
        "callback_on_step_end": pulse.on_step_end,
    }
    return {
        **job.options.extra,
        **{name: wish for name, wish in wishes.items() if wish is not None and name in takes},
    }


def run(loaded: Loaded, called_with: dict[str, Any], pulse: Pulse) -> Any:
    """Call the pipeline. Raises what on_progress raised as it is, and anything else as problem_of() puts it."""
    import torch

    restore_dtypes(loaded)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(pulse.on_layer)
    try:
        return loaded.pipeline(**called_with)
    except Exception as error:
        if pulse.has_raised:
            raise
        problem = problem_of(error)
    finally:
        hook.remove()
    # Not before here: the traceback has kept everything that the run had in memory.
    torch.cuda.empty_cache()
    raise problem


def restore_dtypes(loaded: Loaded) -> None:
    # Some pipelines decode in float32 and go back afterwards; a run that was broken off there has not.
    for name, dtype in loaded.dtypes.items():
        network = getattr(loaded.pipeline, name)
        if network.dtype != dtype:
            network.to(dtype)


def problem_of(error: Exception) -> BaseException:
    """Return what to raise for an error of the libraries, whose text may hold the prompt."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        # A size that never fits is found when the operator first tries it; later, something else holds the memory.
        return TransientError("engine_busy", "out of GPU memory")
    if isinstance(error, torch.AcceleratorError):
        # This process cannot use the GPU again, and would fail one job after the other. The job is made elsewhere.
        return SystemExit("diffusers: the GPU has failed, so this process ends")
    multiple = re.search(r"height.* divisible by (\d{1,4})", str(error))
    if isinstance(error, ValueError) and multiple:
        shown = f"width and height must be multiples of {multiple[1]}"
        return PermanentError("engine_refused", shown, shown)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return PermanentError(
        "engine_error", f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    )


def drawing(picture: Any, job: ImageRequest) -> GeneratedImage:
    file = io.BytesIO()
    picture.save(file, "PNG")
    # Some pipelines round the size to what they can make.
    differs = picture.size != (job.width, job.height)
    return GeneratedImage(
        file.getvalue(), {"width": picture.width, "height": picture.height} if differs else {}
    )


# -- Load ---------------------------------------------------------------------------------------


def load(options: Diffusers) -> Loaded:
    """Return the pipeline of these options, loaded once in a process. Raises Unusable."""
    loaded = load_folder(options.folder, options.device, options.dtype, options.variant)
    if unknown := options.extra.keys() - loaded.takes:
        raise Unusable(
            f"extra: {type(loaded.pipeline).__name__} takes no {', '.join(sorted(unknown))}"
        )
    return loaded


@cache
def load_folder(folder: Path, device_name: str, dtype_name: str, variant: str) -> Loaded:
    # The quick looks come first: a worker that fails at once is not started again and again.
    require_libraries()
    class_in(folder)
    device = device_of(device_name)
    dtype = dtype_of(dtype_name, device, folder)
    try:
        pipeline = read(folder, dtype, variant).to(device)
    except Exception as error:  # the libraries raise anything at all for a file they cannot use
        raise Unusable(f"{folder}: {one_line(error)}") from None
    takes = inspect.signature(pipeline.__call__).parameters.keys()
    if "prompt" not in takes:
        raise Unusable(f"{folder}: {type(pipeline).__name__} takes no prompt")
    return Loaded(pipeline, takes, dtypes_of(pipeline))


def require_libraries() -> None:
    if missing := [name for name in LIBRARIES if importlib.util.find_spec(name) is None]:
        raise Unusable(f"{', '.join(missing)} not found: requirements-gpu.txt is not installed")


def class_in(folder: Path) -> str:
    """Return the name of the pipeline's class, after a look at every part of the folder. Raises Unusable."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        name = index["_class_name"]
    except OSError as error:
        raise Unusable(
            f"{folder}: no pipeline is there: model_index.json: {error.strerror}"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise Unusable(f"{folder}: model_index.json is damaged") from None
    if not isinstance(name, str):
        raise Unusable(f"{folder}: the pipeline brings code of its own, which is never run")
    for part, origin in index.items():
        # A part that is there says which library's class it is; the others say null, or are plain settings.
        if (
            isinstance(origin, list)
            and len(origin) == 2
            and all(isinstance(word, str) for word in origin)
        ):
            check_part(folder / part)
    return name


def check_part(part: Path) -> None:
    if not part.is_dir():
        raise Unusable(f"{part}: is missing")
    if not weights_in(part) and any(part.glob("*.bin")):
        raise Unusable(
            f"{part}: only pickled weights, which are never loaded; save them as safetensors"
        )
    for file in weights_in(part):
        opened(file)


def weights_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def opened(file: Path) -> Any:
    """Return a file of weights, of which only the header is read. Raises Unusable."""
    from safetensors import SafetensorError, safe_open

    try:
        # safetensors calls every file that it cannot read a missing one, and writes its own for one user alone.
        file.open("rb").close()
        return safe_open(file, framework="numpy")
    except SafetensorError:
        raise Unusable(f"{file}: is damaged or cut short") from None
    except OSError as error:
        raise Unusable(f"{file}: {error.strerror or error}") from None


@cache
def device_of(name: str) -> Any:
    """Return the torch device of that name, or the best one there is for "auto". Raises Unusable.

    A device that was there once is not tried again: during a job it may have no memory left for that.
    """
    import torch

    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        return torch.zeros(1, device=name).device
    except Exception as error:  # another type for each kind of device and reason
        raise Unusable(f"device {name}: {one_line(error)}") from None


def full_name(device: Any) -> str:
    import torch

    return (
        f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
    )


def dtype_of(name: str, device: Any, folder: Path) -> str:
    """Return the dtype of that name; for "auto", what suits the device and the weights."""
    if name != "auto":
        return name
    if device.type == "cpu":
        return "float32"
    # What was trained in bfloat16 has values too large for float16: the pictures would be black.
    files = sorted(folder.glob("*/*.safetensors"), key=lambda file: file.stat().st_size)
    largest = [opened(file) for file in files[-1:]]
    stored = {
        weights.get_slice(key).get_dtype() for weights in largest for key in weights.offset_keys()
    }
    return "bfloat16" if "BF16" in stored else "float16"


def read(folder: Path, dtype: str, variant: str) -> Any:
    import torch

    diffusers = quiet_diffusers()
    options = {
        "dtype": getattr(torch, dtype),
        "variant": variant or None,
        "use_safetensors": True,
        "local_files_only": True,
    }
    try:
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(str(folder), **options)
    except (
        ValueError
    ):  # a class that the automatic choice does not know; any other reason comes up again
        pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def quiet_diffusers() -> Any:
    """Import the library so that it fetches nothing and logs nothing: its warnings quote prompts."""
    os.environ.update(OFFLINE)
    import transformers

    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    diffusers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    return diffusers


def dtypes_of(pipeline: Any) -> dict[str, Any]:
    import torch

    return {
        name: part.dtype
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


def one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_LINE]
