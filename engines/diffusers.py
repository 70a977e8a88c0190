"""A diffusers pipeline from a local folder, run in the worker process, on its GPU if it has one.

Nothing is downloaded, code in the folder is never run, and pickled weights are never loaded.
The libraries quote prompts in warnings and errors. Therefore their loggers are silenced, and
their error messages are not included in ours.
"""

import importlib.util
import inspect
import io
import json
import logging
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from config import SettingError
from engines import (
    GeneratedImage,
    ImageRequest,
    OnProgress,
    PermanentError,
    TransientError,
    masks,
    no_progress,
    odd_size,
    required_multiple,
)
from engines.catalog import Images
from engines.options import Diffusers

LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
)
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
# The argument of the pipeline's call for each parameter of a request.
ARGUMENTS = {
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "seed": "generator",
}
PROGRESS_INTERVAL_SECONDS = 0.5
MAX_MESSAGE_LENGTH = 300
# How far a result may be from its picture, if the request does not say.
STRENGTH = 0.6


class PipelineError(Exception):
    """The pipeline cannot be used on this machine; the message is one line for the operator."""


class LoadedPipeline(NamedTuple):
    """A pipeline, the arguments of its call, and the original dtype of each of its networks.

    `begins_with_picture` says that it changes one picture, which has the size of the result; else
    it looks at pictures of any size.
    """

    pipeline: Any
    arguments: Mapping[str, inspect.Parameter]
    dtypes: Mapping[str, Any]
    begins_with_picture: bool = False


# -- The interface of an engine -----------------------------------------------------------------


def make(
    request: ImageRequest,
    on_progress: OnProgress = no_progress,
) -> GeneratedImage:
    """Generate the image of a request, as PNG.

    On the same machine, the same seed gives the same bytes. Raises TransientError and
    PermanentError, and SystemExit if this process cannot use the GPU any more.
    """
    progress = ProgressReporter(on_progress, request.steps or 1)
    progress.report()
    try:
        loaded = load_for(request)
    except PipelineError as error:
        raise PermanentError("engine_unavailable", str(error)) from None
    arguments = call_arguments(request, loaded.arguments, progress)
    pictures = picture_arguments(request, loaded)
    result = run(loaded, arguments | pictures, progress)
    flags = getattr(result, "nsfw_content_detected", None)
    if flags and any(flags):
        raise PermanentError("content_refused", "the pipeline's safety checker")
    unused = unused_parameters(request, loaded.arguments, arguments)
    image = result.images[0]
    if request.mask:
        image = keep_unmasked(image, pictures)
    return generated_image(image, request, unused)


def check(options: Diffusers) -> list[str]:
    """Return the class of the pipeline, the device, the dtype, and which parameters it lacks.

    The folder and the device are checked, but the pipeline is not loaded. Raises PermanentError.
    """
    try:
        require_libraries()
        class_name = check_folder(options.folder)
        device = find_device(options.device)
    except PipelineError as error:
        raise PermanentError("engine_unavailable", str(error)) from None
    offers = [
        class_name,
        describe_device(device),
        choose_dtype(options.dtype, device, options.folder),
    ]
    missing = missing_parameters(class_name)
    if missing:
        offers.append(f"takes no {', '.join(missing)}")
    return offers


def missing_parameters(class_name: str) -> list[str]:
    """Return the parameters of a request that the call of a class of pipelines does not take."""
    pipeline_class = getattr(import_diffusers(), class_name, None)
    if pipeline_class is None:
        return []
    arguments = inspect.signature(pipeline_class.__call__).parameters
    return [name for name in ARGUMENTS if not argument_for(name, arguments)]


def prepare(options: Diffusers) -> None:
    """Load the pipeline, so that the first job does not have to wait. Raises SettingError."""
    try:
        load(options)
    except PipelineError as error:
        raise SettingError(f"diffusers: {error}") from None


def check_images(options: Diffusers, images: Images) -> None:
    """Check that the pipeline takes the pictures that a model offers. Raises SettingError."""
    kinds = [False, True] if images.mask else [False]
    try:
        for has_mask in kinds:
            loaded = load_for_pictures(*place_of(options), has_mask)
            class_name = type(loaded.pipeline).__name__
            if images.strength and "strength" not in loaded.arguments:
                raise PipelineError(f"images.strength: {class_name} takes none")
            if images.max > 1 and loaded.begins_with_picture:
                raise PipelineError(f"images.max: {class_name} takes one")
    except PipelineError as error:
        raise SettingError(f"diffusers: {error}") from None


# -- Run the pipeline ---------------------------------------------------------------------------


class ProgressReporter:
    """Reports the number of finished steps, also regularly within a step.

    On a slow machine, a step or the decoding of the image takes minutes. A cancel, which is an
    exception from on_progress, must not have to wait for them.
    """

    def __init__(self, on_progress: OnProgress, total: int):
        self.on_progress = on_progress
        self.done = 0
        self.total = total
        self.reported_at = 0.0
        self.has_raised = False

    def report(self) -> None:
        self.reported_at = time.monotonic()
        try:
            self.on_progress(self.done, self.total)
        except BaseException:
            self.has_raised = True
            raise

    def on_step_end(
        self,
        pipeline: Any,
        step: int,
        timestep: Any,
        tensors: dict,
    ) -> dict:
        """Report a finished step; the pipeline's callback_on_step_end."""
        self.done = step + 1
        # Some schedulers take more steps than requested.
        total = getattr(pipeline, "num_timesteps", 0)
        self.total = max(total, self.done)
        self.report()
        return tensors

    def on_scheduler_step(self) -> None:
        """Report a step of a pipeline that has no callback_on_step_end."""
        self.done += 1
        self.total = max(self.total, self.done)
        self.report()

    def on_layer(self, layer: Any, inputs: Any) -> None:
        """Report if it is due; a hook that torch calls before each layer of a network."""
        elapsed = time.monotonic() - self.reported_at
        if elapsed > PROGRESS_INTERVAL_SECONDS:
            self.report()


def call_arguments(
    request: ImageRequest,
    supported: Mapping[str, inspect.Parameter],
    progress: ProgressReporter,
) -> dict[str, Any]:
    """Return the arguments for calling the pipeline.

    The values of the request are used if the pipeline supports them, and override `extra`.
    """
    values = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt or None,
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.steps,
        "generator": noise_generator(request.seed),
        "output_type": "pil",
        "callback_on_step_end": progress.on_step_end,
    }
    guidance = argument_for("guidance", supported)
    values[guidance] = request.guidance
    if guidance == "true_cfg_scale" and request.guidance is not None:
        # Without a negative prompt, however empty, such a pipeline ignores it.
        values["negative_prompt"] = request.negative_prompt or " "
    extra = request.options.extra
    arguments = {name: value for name, value in extra.items() if name in supported}
    for name, value in values.items():
        if value is not None and name in supported:
            arguments[name] = value
    return arguments


def picture_arguments(request: ImageRequest, loaded: LoadedPipeline) -> dict[str, Any]:
    """Return the arguments for the pictures of a request; {} if it has none."""
    if not request.images:
        return {}
    pictures = [masks.flat(masks.opened(image)) for image in request.images]
    arguments: dict[str, Any] = {}
    if loaded.begins_with_picture:
        size = masks.snapped((request.width, request.height), side_of(loaded.pipeline))
        pictures = [masks.fitted(pictures[0], size)]
        arguments = {"width": size[0], "height": size[1], "strength": used_strength(request)}
        if request.mask:
            arguments["mask_image"] = masks.change(request.mask, size)
    arguments = {name: value for name, value in arguments.items() if name in loaded.arguments}
    return {**arguments, "image": pictures[0] if len(pictures) == 1 else pictures}


def side_of(pipeline: Any) -> int:
    """Return of what the sides of a picture must be multiples."""
    factor = getattr(pipeline, "vae_scale_factor", 8)
    # Transformers look at latents two by two.
    return factor * 2 if "transformer" in pipeline.components else factor


def used_strength(request: ImageRequest) -> float:
    """Return the strength, large enough for one step: a pipeline takes that share of them."""
    strength = STRENGTH if request.strength is None else request.strength
    return max(strength, 1 / (request.steps or 1))


def keep_unmasked(image: Any, arguments: Mapping[str, Any]) -> Any:
    """Return the result with the picture as it was where the mask covers it."""
    from PIL import Image

    return Image.composite(image, arguments["image"], arguments["mask_image"])


def argument_for(parameter: str, supported: Mapping[str, inspect.Parameter]) -> str:
    """Return the argument of the pipeline's call for a parameter of a request; "" if it has none.

    Qwen-Image has a guidance_scale for models to come, None by default: it follows true_cfg_scale.
    """
    name = ARGUMENTS[parameter]
    if parameter != "guidance" or "true_cfg_scale" not in supported:
        return name if name in supported else ""
    is_followed = name in supported and supported[name].default is not None
    return name if is_followed else "true_cfg_scale"


def unused_parameters(
    request: ImageRequest,
    supported: Mapping[str, inspect.Parameter],
    arguments: Mapping[str, Any],
) -> list[str]:
    """Return the parameters of a request that had no influence on the picture."""
    unused = []
    if request.strength is not None and "strength" not in supported:
        unused.append("strength")
    for name in ("negative_prompt", "steps", "guidance", "seed"):
        if getattr(request, name) not in (None, "") and not argument_for(name, supported):
            unused.append(name)
    # Flux takes a negative prompt, but follows it only with a true_cfg_scale above 1.
    if request.negative_prompt and "true_cfg_scale" in supported:
        scale = arguments.get("true_cfg_scale", supported["true_cfg_scale"].default)
        if isinstance(scale, int | float) and scale <= 1:
            unused.append("negative_prompt")
    return unused


def noise_generator(seed: int | None) -> Any:
    """Return a random generator on the CPU: the noise of a seed is then the same on any device."""
    import torch

    generator = torch.Generator("cpu")
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def run(
    loaded: LoadedPipeline,
    arguments: dict[str, Any],
    progress: ProgressReporter,
) -> Any:
    """Call the pipeline.

    An exception of on_progress is raised unchanged, any other as translate_error() returns it.
    """
    import torch

    restore_dtypes(loaded)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(progress.on_layer)
    try:
        with ExitStack() as stack:
            if "callback_on_step_end" not in arguments:
                for scheduler in schedulers_of(loaded.pipeline):
                    stack.enter_context(watched_steps(scheduler, progress))
            return loaded.pipeline(**arguments)
    except Exception as error:
        if progress.has_raised:
            raise
        failure = translate_error(error)
    finally:
        hook.remove()
    # Only after the `except` block is the traceback gone, which keeps the tensors of the run.
    torch.cuda.empty_cache()
    raise failure


def schedulers_of(pipeline: Any) -> list[Any]:
    """Return the components that make the steps; a pipeline of several stages has several."""
    components = pipeline.components.values()
    return [one for one in components if hasattr(one, "step") and hasattr(one, "timesteps")]


@contextmanager
def watched_steps(scheduler: Any, progress: ProgressReporter) -> Iterator[None]:
    """Report each step that the scheduler makes while the block runs."""
    step = scheduler.step

    def watched(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        progress.on_scheduler_step()
        return result

    scheduler.step = watched
    try:
        yield
    finally:
        del scheduler.step


def restore_dtypes(loaded: LoadedPipeline) -> None:
    """Reset the dtypes of the networks.

    Some pipelines switch to float32 for the decoding. A run that is canceled there leaves it so.
    """
    for name, dtype in loaded.dtypes.items():
        network = getattr(loaded.pipeline, name)
        if network.dtype != dtype:
            network.to(dtype)


def translate_error(error: Exception) -> BaseException:
    """Return the exception to raise for an error of the libraries, which may quote the prompt."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        # Transient, because the operator has tried the sizes on offer: another program is using
        # the memory.
        return TransientError("engine_busy", "out of GPU memory")
    if isinstance(error, torch.AcceleratorError):
        # The CUDA context is broken: every other job of this process would fail. Another process
        # retries this one.
        return SystemExit("diffusers: the GPU has failed, so this process ends")
    if isinstance(error, ValueError | AssertionError):
        multiple = required_multiple(str(error))
        if multiple:
            return odd_size(multiple)
    return PermanentError("engine_error", describe_error(error))


def describe_error(error: Exception) -> str:
    """Return the type of an error and where it was raised, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    place = frames[-1]
    file_name = Path(place.filename).name
    return f"{type(error).__name__} at {file_name}:{place.lineno}"


def generated_image(image: Any, request: ImageRequest, unused: list[str]) -> GeneratedImage:
    file = io.BytesIO()
    image.save(file, "PNG")
    params: dict[str, Any] = dict.fromkeys(unused)
    # Some pipelines round the size to one that they can generate.
    requested_size = (request.width, request.height)
    if image.size != requested_size:
        params["width"], params["height"] = image.size
    return GeneratedImage(file.getvalue(), params)


# -- Load the pipeline --------------------------------------------------------------------------


def load_for(request: ImageRequest) -> LoadedPipeline:
    """Return the pipeline for a request, with or without pictures. Raises PipelineError."""
    loaded = load(request.options)
    if not request.images:
        return loaded
    return load_for_pictures(*place_of(request.options), bool(request.mask))


def place_of(options: Diffusers) -> tuple[Path, str, str, str]:
    return options.folder, options.device, options.dtype, options.variant


@cache
def load_for_pictures(
    folder: Path,
    device_name: str,
    dtype_name: str,
    variant: str,
    has_mask: bool,
) -> LoadedPipeline:
    """Return the pipeline that takes pictures; it shares its networks with that for text alone."""
    loaded = load_folder(folder, device_name, dtype_name, variant)
    argument = "mask_image" if has_mask else "image"
    if argument in loaded.arguments:
        return loaded._replace(begins_with_picture=has_mask)
    diffusers = import_diffusers()
    kind = diffusers.AutoPipelineForImage2Image
    if has_mask:
        kind = diffusers.AutoPipelineForInpainting
    try:
        pipeline = kind.from_pipe(loaded.pipeline)
    except Exception:  # of any type, as when it is read
        class_name = type(loaded.pipeline).__name__
        what = "mask" if has_mask else "pictures"
        raise PipelineError(f"{folder}: there is no pipeline for {what} of {class_name}") from None
    pipeline.set_progress_bar_config(disable=True)
    arguments = inspect.signature(pipeline.__call__).parameters
    dtypes = {name: dtype for name, dtype in loaded.dtypes.items() if hasattr(pipeline, name)}
    return LoadedPipeline(pipeline, arguments, dtypes, begins_with_picture=True)


def load(options: Diffusers) -> LoadedPipeline:
    """Return the pipeline of these options, loaded once in a process. Raises PipelineError."""
    loaded = load_folder(*place_of(options))
    unknown = options.extra.keys() - loaded.arguments.keys()
    if unknown:
        class_name = type(loaded.pipeline).__name__
        names = ", ".join(sorted(unknown))
        raise PipelineError(f"extra: {class_name} takes no {names}")
    return loaded


@cache
def load_folder(
    folder: Path,
    device_name: str,
    dtype_name: str,
    variant: str,
) -> LoadedPipeline:
    # The quick checks come first, so that a wrong setting ends the worker at once.
    require_libraries()
    check_folder(folder)
    device = find_device(device_name)
    dtype = choose_dtype(dtype_name, device, folder)
    try:
        pipeline = read_pipeline(folder, dtype, variant)
        pipeline = pipeline.to(device)
    # For files that they cannot use, the libraries raise exceptions of any type.
    except Exception as error:
        raise PipelineError(f"{folder}: {one_line(error)}") from None
    arguments = inspect.signature(pipeline.__call__).parameters
    if "prompt" not in arguments:
        class_name = type(pipeline).__name__
        raise PipelineError(f"{folder}: {class_name} takes no prompt")
    return LoadedPipeline(pipeline, arguments, network_dtypes(pipeline))


def require_libraries() -> None:
    missing = []
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            missing.append(name)
    if missing:
        names = ", ".join(missing)
        raise PipelineError(f"{names} not found: requirements-gpu.txt is not installed")


def check_folder(folder: Path) -> str:
    """Check the files of each component; return the class of the pipeline. Raises PipelineError."""
    index = read_index(folder)
    class_name = index["_class_name"]
    if not isinstance(class_name, str):
        raise PipelineError(f"{folder}: the pipeline brings code of its own, which is never run")
    for name, value in index.items():
        if is_component(value):
            check_component(folder / name)
    return class_name


def read_index(folder: Path) -> dict[str, Any]:
    """Return model_index.json, which has the class of the pipeline. Raises PipelineError."""
    path = folder / "model_index.json"
    damaged = PipelineError(f"{folder}: model_index.json is damaged")
    try:
        text = path.read_text(encoding="utf-8")
        index = json.loads(text)
    except OSError as error:
        problem = f"no pipeline is there: model_index.json: {error.strerror}"
        raise PipelineError(f"{folder}: {problem}") from None
    except ValueError:
        raise damaged from None
    if not isinstance(index, dict) or "_class_name" not in index:
        raise damaged
    return index


def is_component(value: Any) -> bool:
    """Tell whether an entry of the index is a component that has files, such as the UNet.

    Its value is [library, class]. Absent components have null values, settings any other.
    """
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(isinstance(name, str) for name in value)


def check_component(folder: Path) -> None:
    if not folder.is_dir():
        raise PipelineError(f"{folder}: is missing")
    files = weight_files(folder)
    if not files and any(folder.glob("*.bin")):
        problem = "only pickled weights, which are never loaded; save them as safetensors"
        raise PipelineError(f"{folder}: {problem}")
    for file in files:
        open_weights(file)


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def open_weights(file: Path) -> Any:
    """Open a file of weights, which reads only its header. Raises PipelineError."""
    from safetensors import SafetensorError, safe_open

    try:
        # safetensors reports every file that it cannot open as missing. For example, the files
        # that it saves are readable by their owner only.
        file.open("rb").close()
        return safe_open(file, framework="numpy")
    except SafetensorError:
        raise PipelineError(f"{file}: is damaged or cut short") from None
    except OSError as error:
        reason = error.strerror or error
        raise PipelineError(f"{file}: {reason}") from None


@cache
def find_device(name: str) -> Any:
    """Return the torch device of this name, or the best one for "auto". Raises PipelineError.

    The result is cached, because during a job the test of the device may run out of memory.
    """
    import torch

    if name == "auto":
        name = best_device()
    try:
        return torch.zeros(1, device=name).device
    # The type of the exception depends on the kind of device and on the reason.
    except Exception as error:
        raise PipelineError(f"device {name}: {one_line(error)}") from None


def best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def describe_device(device: Any) -> str:
    import torch

    if device.type != "cuda":
        return str(device)
    model = torch.cuda.get_device_name(device)
    return f"{device} {model}"


def choose_dtype(name: str, device: Any, folder: Path) -> str:
    """Return the dtype of this name; for "auto", one that suits the device and the weights."""
    if name != "auto":
        return name
    if device.type == "cpu":
        return "float32"
    # Models trained in bfloat16 have values beyond the range of float16, and would generate
    # black images.
    if "BF16" in stored_dtypes(folder):
        return "bfloat16"
    return "float16"


def stored_dtypes(folder: Path) -> set[str]:
    """Return the dtypes in the largest file of weights, as safetensors names them."""
    files = list(folder.glob("*/*.safetensors"))
    if not files:
        return set()
    largest = max(files, key=file_size)
    weights = open_weights(largest)
    dtypes = set()
    for key in weights.offset_keys():
        tensor = weights.get_slice(key)
        dtypes.add(tensor.get_dtype())
    return dtypes


def file_size(file: Path) -> int:
    return file.stat().st_size


def read_pipeline(folder: Path, dtype: str, variant: str) -> Any:
    import torch

    diffusers = import_diffusers()
    options = {
        "dtype": getattr(torch, dtype),
        "variant": variant or None,
        "use_safetensors": True,
        "local_files_only": True,
    }
    try:
        pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(str(folder), **options)
    # The automatic choice does not know every class. Any other problem will occur again.
    except ValueError:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@cache
def import_diffusers() -> Any:
    """Import diffusers, without downloads and without log messages: they would quote prompts."""
    os.environ.update(OFFLINE)
    import transformers

    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    diffusers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    return diffusers


def network_dtypes(pipeline: Any) -> dict[str, Any]:
    import torch

    dtypes = {}
    for name, component in pipeline.components.items():
        if isinstance(component, torch.nn.Module):
            dtypes[name] = component.dtype
    return dtypes


def one_line(error: Exception) -> str:
    """Return the type and the message of an error, on one line of limited length."""
    message = f"{type(error).__name__}: {error}"
    words = message.split()
    return " ".join(words)[:MAX_MESSAGE_LENGTH]
