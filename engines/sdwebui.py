"""Images from AUTOMATIC1111's WebUI, Forge or SD.Next, by their common API under /sdapi/v1.

Such a server generates one image at a time, for all its clients. txt2img and img2img respond when
our image is complete; until then, a thread polls the progress. The API's `interrupt` stops
whichever image is being generated, so it is sent only after a check that this is ours.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from base64 import b64encode
from contextlib import closing
from functools import partial
from pathlib import PureWindowsPath
from typing import Any

from PIL import Image

from engines import (
    GeneratedImage,
    ImageRequest,
    NoResponse,
    OnProgress,
    PermanentError,
    TransientError,
    masks,
    odd_size,
    remote,
    required_multiple,
)
from engines.options import SDWebUI
from engines.remote import as_dict, as_list

PROGRESS_INTERVAL_SECONDS = 0.5
POLL_SECONDS = 1
# For polls and interrupts.
STATUS_TIMEOUT_SECONDS = 2
# check() sends three requests, and must finish within 10 seconds.
LIST_TIMEOUT_SECONDS = 3
# How long a cancel waits for the interrupt: a worker is killed if it takes more than 5 seconds.
INTERRUPT_WAIT_SECONDS = 3

# SD.Next gives the same response to an interrupt and to some errors.
INTERRUPTED = "interrupted on the server, or an error that its log describes"
MAX_NAME_LENGTH = 200
# The end of a checkpoint's title, such as " [6ce0161689]", and of its file name.
HASH = re.compile(r"\s*\[[^]]*\]$")
EXTENSION = re.compile(r"\.(safetensors|sft|ckpt|pth?|bin|gguf)$", re.IGNORECASE)
# What every Stable Diffusion model can make: a picture is made of squares of this side.
SIDE = 8
TEXT_TO_IMAGE = "/sdapi/v1/txt2img"
IMAGE_TO_IMAGE = "/sdapi/v1/img2img"
# As the page of such a server has it: begin with what is there, and look at the whole picture.
INPAINTING = {"inpainting_fill": 1, "inpaint_full_res": False}


def make(
    request: ImageRequest,
    on_progress: OnProgress,
) -> GeneratedImage:
    """Generate one image. Raises TransientError and PermanentError.

    The server is the operator's own and charges nothing. So request.before_send is not called,
    and a request whose outcome is unknown may be retried.
    """
    options = request.options
    body = request_body(request)
    checkpoint = {}
    with closing(connect(options)) as client:
        name = override_settings(options).get("sd_model_checkpoint")
        if name:
            checkpoint = remote.run_with_progress(
                partial(get_checkpoint, client, name),
                lambda: on_progress(0, 100),
                PROGRESS_INTERVAL_SECONDS,
            )
            if name not in checkpoint_names(checkpoint):  # other slashes than the server's
                body["override_settings"]["sd_model_checkpoint"] = checkpoint["title"]
        task = Task(client, IMAGE_TO_IMAGE if request.images else TEXT_TO_IMAGE)
        response = task.run(body, options.timeout_seconds, on_progress)
    raise_for_odd_size(response, request)
    raise_for_error(response)
    return generated_image(response.json(), request, checkpoint)


def check(options: SDWebUI) -> list[str]:
    """Count the server's checkpoints and samplers.

    Raises PermanentError if it does not have the checkpoint, sampler or scheduler of these options,
    because it would silently use another one instead.
    """
    with closing(connect(options)) as client:
        checkpoints = get_list(client, "/sdapi/v1/sd-models")
        samplers = get_list(client, "/sdapi/v1/samplers")
        schedulers = get_schedulers(client)
    name = override_settings(options).get("sd_model_checkpoint")
    if name:
        find_checkpoint(checkpoints, name)
    sampler = options.sampler or options.extra.get("sampler_name")
    if sampler and not has_sampler(samplers, schedulers, sampler):
        raise PermanentError("engine_refused", "no such sampler", "sampler")
    scheduler = options.scheduler or options.extra.get("scheduler")
    if scheduler and schedulers and scheduler not in scheduler_names(schedulers):
        raise PermanentError("engine_refused", "no such scheduler", "scheduler")
    return [
        count(checkpoints, "checkpoint"),
        count(samplers, "sampler"),
    ]


def check_samplers(options: SDWebUI, names: list[str]) -> None:
    """Check the samplers that a model offers as choices. Raises PermanentError naming others."""
    with closing(connect(options)) as client:
        samplers = get_list(client, "/sdapi/v1/samplers")
        schedulers = get_schedulers(client)
    missing = [name for name in names if not has_sampler(samplers, schedulers, name)]
    if missing:
        raise PermanentError("engine_refused", f"no sampler {', '.join(missing)}", "sampler")


def count(items: list, noun: str) -> str:
    if len(items) == 1:
        return f"1 {noun}"
    return f"{len(items)} {noun}s"


def connect(options: SDWebUI) -> remote.Client:
    auth = remote.basic_auth(options.username, options.password_env)
    return remote.Client(options.base_url, auth)


def get_list(client: remote.Client, path: str) -> list[dict]:
    response = client.send("GET", path, LIST_TIMEOUT_SECONDS)
    raise_for_error(response)
    return list_in(response)


def get_schedulers(client: remote.Client) -> list[dict]:
    """Return the server's schedulers; [] of one without a list, such as SD.Next."""
    response = client.send("GET", "/sdapi/v1/schedulers", LIST_TIMEOUT_SECONDS)
    if response.status in (404, 405):
        return []
    raise_for_error(response)
    return list_in(response)


def list_in(response: remote.RemoteResponse) -> list[dict]:
    items = response.json()
    if not isinstance(items, list):
        raise PermanentError("engine_error", "not the API of a Stable Diffusion WebUI")
    return [item for item in items if isinstance(item, dict)]


# -- Checkpoints and samplers ---------------------------------------------------------------------


def get_checkpoint(client: remote.Client, name: str) -> dict:
    """Return the server's checkpoint of this name. Raises TransientError and PermanentError."""
    checkpoints = get_list(client, "/sdapi/v1/sd-models")
    return find_checkpoint(checkpoints, name)


def find_checkpoint(checkpoints: list[dict], name: str) -> dict:
    """Return the checkpoint of this name.

    Raises PermanentError if there is none: the server would use whichever it has loaded.
    """
    wanted = forward_slashes(name)
    for checkpoint in checkpoints:
        names = [forward_slashes(known) for known in checkpoint_names(checkpoint)]
        if wanted in names:
            return checkpoint
        # The list has a hash only once the checkpoint was loaded.
        if not checkpoint.get("hash") and HASH.sub("", wanted) in names:
            return checkpoint
    raise PermanentError("engine_refused", "no such checkpoint", "checkpoint")


def forward_slashes(name: Any) -> str:
    """Return a name as a server on Linux has it; one on Windows has backslashes."""
    return "" if name is None else str(name).replace("\\", "/")


def checkpoint_names(checkpoint: dict) -> list[Any]:
    """Return every name that a server accepts for a checkpoint.

    These are the file name with or without folder, extension and hash, and the hash alone.
    """
    title = str(checkpoint.get("title"))
    without_hash = HASH.sub("", title)
    # The Windows flavor of paths accepts both kinds of slashes as separators.
    stem = PureWindowsPath(without_hash).stem
    short_hash = checkpoint.get("hash")
    return [
        title,
        without_hash,
        stem,
        f"{stem} [{short_hash}]",
        short_hash,
        checkpoint.get("sha256"),
        checkpoint.get("model_name"),
        checkpoint.get("filename"),
    ]


def is_same_checkpoint(checkpoint: dict, info: dict) -> bool:
    """Tell whether a response, by its `info`, may come from this checkpoint of the server's list.

    Servers say its hash, its name or neither; the list may lack the hash until it is first loaded.
    """
    evidence = []
    used_hash = info.get("sd_model_hash")
    known_hashes = [checkpoint.get("hash"), checkpoint.get("sha256")]
    if used_hash and any(known_hashes):
        evidence.append(any(str(known).startswith(used_hash) for known in known_hashes if known))
    used_name = info.get("sd_model_name")
    if used_name:
        known_names = [base_name(name) for name in checkpoint_names(checkpoint)]
        evidence.append(base_name(used_name) in known_names)
    return any(evidence) or not evidence


def base_name(name: Any) -> str:
    """Return the name of a checkpoint without folder, extension and hash."""
    without_hash = HASH.sub("", str(name))
    file_name = PureWindowsPath(without_hash).name
    return EXTENSION.sub("", file_name)


def has_sampler(samplers: list[dict], schedulers: list[dict], name: str) -> bool:
    """Tell whether the server has a sampler.

    The name may end with the name of a scheduler, as in "DPM++ 2M Karras".
    """
    endings = ["", *(f" {scheduler}" for scheduler in scheduler_names(schedulers))]
    names = [str(sampler.get("name")) for sampler in samplers]
    return any(name == known + ending for known in names for ending in endings)


def scheduler_names(schedulers: list[dict]) -> list[str]:
    names = []
    for scheduler in schedulers:
        names += [scheduler.get("name"), scheduler.get("label")]
        names += as_list(scheduler.get("aliases"))
    return names


# -- The request --------------------------------------------------------------------------------


def request_body(request: ImageRequest) -> dict[str, Any]:
    """Return the body of txt2img, or of img2img if the request has a picture.

    The values of the request override `extra`, because they are what the record shows.
    """
    options = request.options
    pictures = picture_fields(request) if request.images else {}
    fields = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "cfg_scale": request.guidance,
        "seed": request.seed,
        "sampler_name": request.sampler or options.sampler,
        "scheduler": options.scheduler,
        "override_settings": override_settings(options),
        **pictures,
    }
    body = {"save_images": False, **(INPAINTING if request.mask else {}), **options.extra}
    for name, value in fields.items():
        if value not in (None, "", {}):
            body[name] = value
    # Only one image is used, and it is read from the response.
    body["batch_size"] = 1
    body["n_iter"] = 1
    body["send_images"] = True
    return body


def picture_fields(request: ImageRequest) -> dict[str, Any]:
    """Return the fields of img2img for a picture, which has the size that the result will have."""
    size = masks.snapped((request.width, request.height), SIDE)
    image = masks.flat(masks.opened(request.images[0]))
    fields = {
        "width": size[0],
        "height": size[1],
        "init_images": [base64_png(masks.fitted(image, size))],
        "denoising_strength": request.strength,
    }
    if request.mask:
        fields["mask"] = base64_png(masks.change(request.mask, size))
        fields["inpainting_mask_invert"] = 0
    return fields


def base64_png(image: Image.Image) -> str:
    return b64encode(masks.png(image)).decode()


def override_settings(options: SDWebUI) -> dict[str, Any]:
    settings = as_dict(options.extra.get("override_settings"))
    if options.checkpoint:
        return {**settings, "sd_model_checkpoint": options.checkpoint}
    return dict(settings)


# -- A request and its progress -----------------------------------------------------------------


class Task:
    """One request of txt2img or img2img, and what is known about it until the response arrives.

    AUTOMATIC1111 (since 1.8) and Forge report the progress of our task by its id. Other servers
    only report whether an image is being generated. It is assumed to be ours if the server was
    idle directly before the request.
    """

    def __init__(self, client: remote.Client, path: str):
        self.client = client
        self.path = path
        self.id = f"task({secrets.token_hex(8)})"
        self.is_known_by_id = False
        self.was_idle = False
        self.is_running = False
        self.percent = 0
        # Set when the response has arrived, or nobody waits for it any more.
        self.finished = threading.Event()

    def run(
        self,
        body: dict,
        timeout_seconds: float,
        on_progress: OnProgress,
    ) -> remote.RemoteResponse:
        """Return the response. If anything ends the wait, interrupt the server."""
        poller = threading.Thread(target=self.poll_progress, daemon=True)
        poller.start()
        try:
            return remote.run_with_progress(
                lambda: self.send(body, timeout_seconds),
                lambda: on_progress(self.percent, 100),
                PROGRESS_INTERVAL_SECONDS,
            )
        except BaseException:
            self.cancel()
            raise
        finally:
            self.finished.set()

    def send(self, body: dict, timeout_seconds: float) -> remote.RemoteResponse:
        progress = self.get_progress()
        if progress:
            self.was_idle = not is_busy(progress)
        if self.finished.is_set():
            raise TransientError("engine_unavailable", "canceled before it was sent")
        body = {**body, "force_task_id": self.id}
        response = self.client.send(
            "POST",
            self.path,
            timeout_seconds,
            remote.max_picture_bytes(),
            json=body,
        )
        # A timeout of a proxy: the server behind it still generates the image.
        if response.status == 504:
            raise NoResponse("engine_unavailable", "504")
        self.finished.set()
        # If another client interrupts, the response holds an unfinished image, but looks normal.
        if response.status == 200:
            progress = self.get_progress()
            if was_interrupted(progress):
                raise TransientError("engine_unavailable", INTERRUPTED)
        return response

    def poll_progress(self) -> None:
        while not self.finished.wait(POLL_SECONDS):
            self.update_progress()

    def update_progress(self) -> None:
        """Find out whether our image is being generated, and how far; keep the old state if not."""
        progress = self.get_task_progress()
        if self.is_known_by_id:
            is_running = bool(progress.get("active"))
        else:
            progress = self.get_progress()
            is_running = self.was_idle and is_busy(progress)
        if not progress:
            return
        self.is_running = is_running
        if is_running:
            percent = percent_of(progress)
            self.percent = max(self.percent, percent)

    def get_task_progress(self) -> dict:
        """Return the progress of our task id; {} on an error."""
        body = {
            "id_task": self.id,
            "id_live_preview": -1,
            "live_preview": False,
        }
        progress = self.try_send("POST", "/internal/progress", json=body)
        for state in ("active", "queued", "completed"):
            if progress.get(state):
                self.is_known_by_id = True
        return progress

    def get_progress(self) -> dict:
        """Return the progress of whichever image is being generated; {} on an error."""
        return self.try_send("GET", "/sdapi/v1/progress?skip_current_image=true")

    def cancel(self) -> None:
        """Interrupt our image if it is being generated. Waits for that only a short time."""
        if self.finished.is_set():
            return
        thread = threading.Thread(target=self.interrupt, daemon=True)
        thread.start()
        thread.join(INTERRUPT_WAIT_SECONDS)

    def interrupt(self) -> None:
        self.update_progress()
        if self.is_running:
            self.try_send("POST", "/sdapi/v1/interrupt")

    def try_send(self, method: str, path: str, **options: Any) -> dict:
        """Return the JSON object of a response; {} on an error, which must not fail the job."""
        try:
            response = self.client.send(method, path, STATUS_TIMEOUT_SECONDS, **options)
        except (TransientError, PermanentError):
            return {}
        if response.status != 200:
            return {}
        return json_object(response)


def is_busy(progress: dict) -> bool:
    state = as_dict(progress.get("state"))
    job = state.get("job") or state.get("job_count")
    return bool(job)


def was_interrupted(progress: dict) -> bool:
    """Tell whether the last image was interrupted; the flags are reset when the next one starts."""
    state = as_dict(progress.get("state"))
    if state.get("interrupted") is True:
        return True
    return state.get("skipped") is True


def percent_of(progress: dict) -> int:
    fraction = progress.get("progress")
    if not isinstance(fraction, int | float):
        return 0
    if not 0 <= fraction <= 1:
        return 0
    return int(100 * fraction)


# -- The response -------------------------------------------------------------------------------


def json_object(response: remote.RemoteResponse) -> dict:
    """Return the JSON object of a response; {} if it is anything else."""
    try:
        body = response.json()
    except PermanentError:
        return {}
    return as_dict(body)


def raise_for_odd_size(response: remote.RemoteResponse, request: ImageRequest) -> None:
    """Raise PermanentError if a server failed because it cannot make a picture of this size.

    SD.Next answers that with 500, as it does what may go better the next time.
    """
    if response.status < 500:
        return
    error = json_object(response)
    multiple = 0
    for name in ("errors", "message", "detail"):
        multiple = multiple or required_multiple(str(error.get(name)))
    is_odd = request.width % SIDE or request.height % SIDE
    if not multiple and is_odd and error.get("error") != "OutOfMemoryError":
        multiple = SIDE
    if multiple:
        raise odd_size(multiple)


def raise_for_error(response: remote.RemoteResponse) -> None:
    """Raise the EngineError for an error response, without its message: that may quote a prompt."""
    if response.status < 300:
        return
    error = json_object(response)
    if response.status == 422:
        names = invalid_fields(error)
        raise PermanentError("engine_refused", f"422 {names}".strip(), names)
    if error.get("detail") == "Sampler not found":
        raise PermanentError("engine_refused", "no such sampler", "sampler")
    # Transient, because a server that is starting serves its web page before its API.
    if response.status in (404, 405):
        detail = "no API at this address; is the server started with --api?"
        raise TransientError("engine_unavailable", detail)
    # Transient, because usually another program uses the GPU, and a retry often succeeds.
    if error.get("error") == "OutOfMemoryError":
        raise TransientError("engine_busy", "out of GPU memory")
    error_type = remote.identifier(error.get("error"))
    remote.raise_for_status(response, error_type)


def invalid_fields(error: dict) -> str:
    """Return the names of the fields that a 422 reports, without their values."""
    names = []
    for problem in as_list(error.get("detail")):
        name = field_name(problem)
        if name and name not in names:
            names.append(name)
    return ", ".join(names)


def field_name(problem: Any) -> str:
    """Return the field of a validation problem, whose location is like ["body", "steps"]."""
    problem = as_dict(problem)
    location = as_list(problem.get("loc"))
    if len(location) < 2:
        return ""
    return remote.identifier(location[1])


def generated_image(body: Any, request: ImageRequest, checkpoint: dict) -> GeneratedImage:
    """Return the first image of a successful response, and the parameters it reports.

    Raises PermanentError if it comes from another checkpoint than the one that was asked for.
    """
    images = as_dict(body).get("images")
    if not isinstance(images, list):
        raise PermanentError("bad_picture", "no list of images")
    if not images:
        raise TransientError("engine_unavailable", INTERRUPTED)
    data = remote.decode_base64(images[0])
    info = parse_info(body.get("info"))
    if checkpoint and not is_same_checkpoint(checkpoint, info):
        detail = "the server used another checkpoint"
        raise PermanentError("engine_refused", detail, "checkpoint")
    return GeneratedImage(data, used_params(info, request))


def used_params(info: dict, request: ImageRequest) -> dict[str, Any]:
    """Return the seed, sampler and checkpoint that the server used, as far as `info` has them.

    A sampler that was asked for is None if the server does not say that it used it.
    """
    params = {}
    seed = info.get("seed")
    if remote.is_seed(seed):
        params["seed"] = seed
    if request.sampler:
        params["sampler"] = None
    names = {
        "sampler": info.get("sampler_name"),
        "checkpoint": info.get("sd_model_name") or info.get("sd_model_hash"),
    }
    for param, name in names.items():
        if isinstance(name, str) and 1 <= len(name) <= MAX_NAME_LENGTH:
            params[param] = name
    steps = info.get("steps")
    if request.steps and type(steps) is int and steps != request.steps:
        params["steps"] = steps
    return params


def parse_info(info: Any) -> dict[str, Any]:
    """Return the JSON object in the text `info`; {} if it is anything else."""
    try:
        values = json.loads(info)
    except (TypeError, ValueError, RecursionError):
        return {}
    return as_dict(values)
