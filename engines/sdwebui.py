"""Pictures from AUTOMATIC1111's WebUI, Forge or SD.Next, over the API they share under /sdapi/v1.

Such a server draws one picture at a time, for whoever asks, and txt2img answers only when ours is done. Meanwhile a
thread asks how far it is. `interrupt` stops whatever is being drawn, so we first make out whether that is ours.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import PureWindowsPath
from typing import Any

from engines import GeneratedImage, ImageRequest, NoResponse, PermanentError, TransientError, remote
from engines.options import SDWebUI

TICK_SECONDS = 0.5
POLL_SECONDS = 1
# For the small questions beside the picture.
ANSWER_SECONDS = 2
# check() asks twice, and has 10 s.
LIST_SECONDS = 4
# A worker that does not end a canceled job within 5 s is killed.
STOP_SECONDS = 3
# SD.Next answers in the same way to errors of its own.
UNFINISHED = "interrupted on the server, or an error that its log tells"


def make(job: ImageRequest, on_progress: Callable[[int, int], None]) -> GeneratedImage:
    """Make one picture.

    Nobody pays for it, so job.before_send is not called: what broke off in the middle may be repeated.
    """
    with closing(connect(job.options)) as server:
        answer = Task(server).run(fields_of(job), job.options.timeout_seconds, on_progress)
    raise_for(answer)
    return drawing(answer.json())


def check(options: SDWebUI) -> list[str]:
    """Return what the server has. Raises PermanentError if it lacks the checkpoint or the sampler of these options."""
    with closing(connect(options)) as server:
        checkpoints = listed(server, "/sdapi/v1/sd-models")
        samplers = [str(item.get("name")) for item in listed(server, "/sdapi/v1/samplers")]
    # A server that does not know one takes another, and says nothing.
    if options.checkpoint and not any(options.checkpoint in names_of(item) for item in checkpoints):
        raise PermanentError("engine_refused", "no such checkpoint")
    # With the name of a scheduler behind it, as in "DPM++ 2M Karras", it means both.
    if options.sampler and not any(
        f"{options.sampler} ".startswith(f"{name} ") for name in samplers
    ):
        raise PermanentError("engine_refused", "no such sampler")
    return [counted(len(checkpoints), "checkpoint"), counted(len(samplers), "sampler")]


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def connect(options: SDWebUI) -> remote.Client:
    return remote.Client(
        options.base_url, remote.basic_auth(options.username, options.password_env)
    )


def listed(server: remote.Client, path: str) -> list[dict]:
    answer = server.send("GET", path, timeout_seconds=LIST_SECONDS)
    raise_for(answer)
    items = answer.json()
    if not isinstance(items, list):
        raise PermanentError("engine_error", "not the API of a Stable Diffusion WebUI")
    return [item for item in items if isinstance(item, dict)]


def names_of(checkpoint: dict) -> set[Any]:
    """Return the names that servers take for a checkpoint: of its file, with or without its hash, and the hash."""
    title = str(checkpoint.get("title"))
    name = re.sub(r"\s*\[[^]]*\]$", "", title)
    # Both kinds of slash separate here, as they do in titles of subfolders.
    stem = PureWindowsPath(name).stem
    others = (checkpoint.get(key) for key in ("model_name", "filename", "hash", "sha256"))
    return {title, name, stem, f"{stem} [{checkpoint.get('hash')}]", *others}


# -- The request --------------------------------------------------------------------------------


def fields_of(job: ImageRequest) -> dict[str, Any]:
    """Return the body of txt2img. The job's own fields go over `extra`, because the record says them."""
    options = job.options
    fields = {
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "width": job.width,
        "height": job.height,
        "steps": job.steps,
        "cfg_scale": job.guidance,
        "seed": job.seed,
        "sampler_name": job.sampler or options.sampler,
        "scheduler": options.scheduler,
        "override_settings": settings_of(options),
    }
    said = {name: value for name, value in fields.items() if value not in (None, "", {})}
    return {
        "save_images": False,
        **options.extra,
        **said,
        "batch_size": 1,
        "n_iter": 1,
        "send_images": True,
    }


def settings_of(options: SDWebUI) -> dict[str, Any]:
    settings = options.extra.get("override_settings")
    settings = settings if isinstance(settings, dict) else {}
    return (
        {**settings, "sd_model_checkpoint": options.checkpoint} if options.checkpoint else settings
    )


class Task:
    """One picture of ours on a server, and what can be known of it while txt2img does not answer.

    A1111 since 1.8 and Forge know it by its id. Elsewhere we only hear of what is being drawn, and take that for
    ours if the server was idle when we asked.
    """

    def __init__(self, server: remote.Client):
        self.server = server
        self.id = f"task({secrets.token_hex(8)})"
        self.is_known_by_id = False
        self.found_idle = False
        self.is_running = False
        self.percent = 0
        self.over = threading.Event()

    def run(
        self, fields: dict, seconds: float, on_progress: Callable[[int, int], None]
    ) -> remote.RemoteResponse:
        """Return the answer to txt2img. Whatever ends the wait for it ends the drawing too."""
        threading.Thread(target=self.watch, daemon=True).start()
        try:
            return remote.run_with_progress(
                lambda: self.send(fields, seconds),
                lambda: on_progress(self.percent, 100),
                TICK_SECONDS,
            )
        except BaseException:
            self.stop()
            raise
        finally:
            self.over.set()

    def send(self, fields: dict, seconds: float) -> remote.RemoteResponse:
        before = self.progress()
        self.found_idle = bool(before) and not is_busy(before)
        if self.over.is_set():
            raise TransientError("engine_unavailable", "given up before it was sent")
        body = {**fields, "force_task_id": self.id}
        answer = self.server.send("POST", "/sdapi/v1/txt2img", timeout_seconds=seconds, json=body)
        if answer.status == 504:  # a proxy lost patience, but the server draws on
            raise NoResponse("engine_unavailable", "504")
        self.over.set()
        # Somebody's interrupt leaves an unfinished picture, which looks like any other.
        if answer.status == 200 and was_interrupted(self.progress()):
            raise TransientError("engine_unavailable", UNFINISHED)
        return answer

    def watch(self) -> None:
        while not self.over.wait(POLL_SECONDS):
            self.look()

    def look(self) -> None:
        """Find out if it is being drawn, and how far it is. No answer is no news."""
        question = {"id_task": self.id, "id_live_preview": -1, "live_preview": False}
        said = self.ask("POST", "/internal/progress", json=question)
        if any(said.get(key) for key in ("active", "queued", "completed")):
            self.is_known_by_id = True
        if self.is_known_by_id:
            is_ours = bool(said.get("active"))
        else:
            said = self.progress()
            is_ours = self.found_idle and is_busy(said)
        if not said:
            return
        self.is_running = is_ours
        if is_ours:
            self.percent = max(self.percent, percent_of(said))

    def stop(self) -> None:
        """Interrupt it if it is being drawn, but wait for that only so long."""
        if self.over.is_set():
            return
        thread = threading.Thread(target=self.interrupt, daemon=True)
        thread.start()
        thread.join(STOP_SECONDS)

    def interrupt(self) -> None:
        self.look()
        if self.is_running:
            self.ask("POST", "/sdapi/v1/interrupt")

    def progress(self) -> dict:
        return self.ask("GET", "/sdapi/v1/progress?skip_current_image=true")

    def ask(self, method: str, path: str, **options: Any) -> dict:
        """Return what the server answers; {} for trouble, none of which may harm the picture."""
        try:
            answer = self.server.send(method, path, timeout_seconds=ANSWER_SECONDS, **options)
        except (TransientError, PermanentError):
            return {}
        return object_in(answer) if answer.status == 200 else {}


def is_busy(progress: dict) -> bool:
    state = state_of(progress)
    return bool(state.get("job") or state.get("job_count"))


def was_interrupted(progress: dict) -> bool:
    """Tell if the last picture was; the server forgets it only when it begins another."""
    state = state_of(progress)
    return state.get("interrupted") is True or state.get("skipped") is True


def state_of(progress: dict) -> dict:
    state = progress.get("state")
    return state if isinstance(state, dict) else {}


def percent_of(progress: dict) -> int:
    share = progress.get("progress")
    return int(100 * share) if isinstance(share, int | float) and 0 <= share <= 1 else 0


# -- The answer ---------------------------------------------------------------------------------


def object_in(answer: remote.RemoteResponse) -> dict:
    """Return the JSON object an answer holds; {} if it is none."""
    try:
        said = answer.json()
    except PermanentError:
        return {}
    return said if isinstance(said, dict) else {}


def raise_for(answer: remote.RemoteResponse) -> None:
    """Raise what an answer without a picture means, in our own words: the server's may hold the prompt."""
    if answer.status < 300:
        return
    said = object_in(answer)
    if answer.status == 422:
        names = wrong_fields(said)
        raise PermanentError("engine_refused", f"422 {names}".strip(), names)
    if said.get("detail") == "Sampler not found":
        raise PermanentError("engine_refused", "no such sampler", "sampler")
    # Not final: while it starts, the server has its pages before it has its API.
    if answer.status in (404, 405):
        raise TransientError(
            "engine_unavailable", "no API at this address; is the server started with --api?"
        )
    # Not final: memory is short mostly because something else is on the GPU, and a second try often works.
    if said.get("error") == "OutOfMemoryError":
        raise TransientError("engine_busy", "out of GPU memory")
    remote.raise_for_status(answer, remote.identifier(said.get("error")))


def wrong_fields(said: dict) -> str:
    """Return the names of the fields a 422 complains of; their values and its messages stay out."""
    problems = said.get("detail")
    places = (
        [item.get("loc") for item in problems if isinstance(item, dict)]
        if isinstance(problems, list)
        else []
    )
    names = [
        remote.identifier(part)
        for place in places
        if isinstance(place, list)
        for part in place[1:2]
    ]
    return ", ".join(dict.fromkeys(filter(None, names)))


def drawing(said: Any) -> GeneratedImage:
    images = said.get("images") if isinstance(said, dict) else None
    if not isinstance(images, list):
        raise PermanentError("bad_picture", "no list of images")
    if not images:
        raise TransientError("engine_unavailable", UNFINISHED)
    return GeneratedImage(decoded(images[0]), used(said.get("info")))


def decoded(image: Any) -> bytes:
    """Return the bytes of a picture in base64, bare or as a data: URL."""
    data = b""
    if isinstance(image, str):
        with suppress(ValueError):
            data = base64.b64decode(image.rpartition(",")[2], validate=True)
    if not data:
        raise PermanentError("bad_picture", "not base64")
    return data


def used(info: Any) -> dict[str, Any]:
    """Return what the picture was really made with, as far as `info` tells in a form we know."""
    try:
        said = json.loads(info)
    except (TypeError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        return {}
    texts = {
        "sampler": said.get("sampler_name"),
        "checkpoint": said.get("sd_model_name") or said.get("sd_model_hash"),
    }
    params = {
        name: text for name, text in texts.items() if isinstance(text, str) and 0 < len(text) <= 200
    }
    seed = said.get("seed")
    return {"seed": seed, **params} if type(seed) is int and 0 <= seed < 2**63 else params
