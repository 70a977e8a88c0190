"""ComfyUI: fill the placeholders of a workflow, submit it as a prompt, download its image.

The state of a prompt is polled from /queue and /history. The websocket only reports progress, and
the end of the prompt before the next poll would find it. A prompt that is in neither the queue
nor the history was lost, because the server was restarted or its queue cleared. The job may then
be retried, since ComfyUI charges nothing.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from typing import Any
from urllib.parse import quote

from config import SettingError
from engines import (
    EngineError,
    GeneratedImage,
    ImageRequest,
    NoResponse,
    OnProgress,
    PermanentError,
    TransientError,
    no_progress,
    remote,
)
from engines.catalog import Images
from engines.comfyui.errors import execution_failed, validation_failed
from engines.comfyui.pictures import NOTHING, UPLOAD_PATH, Picture, names_of, pictures_of
from engines.comfyui.progress import WEBSOCKET_TIMEOUT_SECONDS, Listener, Progress
from engines.comfyui.workflow import (
    MUST_END,
    PLACEHOLDERS,
    Workflow,
    WorkflowError,
    fill_placeholders,
    find_placeholders,
    load_workflow,
    placeholder_values,
    read_workflow,
)
from engines.options import ComfyUI
from engines.remote import RemoteResponse, as_dict, as_list

PROGRESS_INTERVAL_SECONDS = 0.5
POLL_SECONDS = 1.0
# Polls are rare while the websocket is connected: the server is up, and reports the end itself.
CONNECTED_POLL_SECONDS = 5.0
# How many polls in a row may fail before the prompt is given up.
MAX_POLL_FAILURES = 3

REQUEST_TIMEOUT_SECONDS = 5
SUBMIT_TIMEOUT_SECONDS = 60
DOWNLOAD_TIMEOUT_SECONDS = 300
CHECK_TIMEOUT_SECONDS = 8.0

# How long a job waits until its canceled prompt is removed from the server, because a worker is
# killed if a cancel takes more than 5 seconds; and how long the removal is retried in all.
CANCEL_WAIT_SECONDS = 2.0
CANCEL_RETRY_SECONDS = 10.0
CANCEL_RETRY_DELAY_SECONDS = 0.25
DELETE_WAIT_SECONDS = 1.0

# Events of the websocket that end a prompt without an image.
ERROR_EVENTS = (
    "execution_error",
    "execution_interrupted",
)
# Errors while an invalid message of the websocket is handled.
INVALID_MESSAGE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")

GetJson = Callable[[str], dict]


class PromptLost(TransientError):
    """The prompt is in neither the queue nor the history of the server any more."""


# -- The interface of an engine -----------------------------------------------------------------


def prepare(options: ComfyUI) -> None:
    """Validate the workflow file when the worker starts. Raises SettingError."""
    try:
        for file in options.workflows:
            read_workflow(file, options.output_node)
    except WorkflowError as error:
        raise SettingError(str(error)) from None


def check_images(options: ComfyUI, images: Images) -> None:
    """Check that the workflows use the pictures that a model offers to take."""
    needed = [f"image{number}" for number in range(1, images.max + 1)]
    if images.strength:
        needed.append("strength")
    try:
        read_workflow(options.workflow_for(True, False), options.output_node, needed)
        if images.mask:
            file = options.workflow_for(True, True)
            read_workflow(file, options.output_node, ["image1", "mask", *needed[images.max :]])
    except WorkflowError as error:
        raise SettingError(str(error)) from None


def make(
    request: ImageRequest,
    on_progress: OnProgress = no_progress,
) -> GeneratedImage:
    """Run the workflow with the values of the request, and return its image.

    An exception of on_progress cancels the prompt on the server. Raises TransientError if the
    server is unavailable or was restarted, and PermanentError if it refuses the workflow or a
    node fails.
    """
    workflow = load_workflow(request.options, request)
    prompt = Prompt(request, workflow, on_progress)
    try:
        entry = prompt.run()
        data = prompt.get_image(entry)
    except TransientError as error:
        # Its nodes may have been charged for, so it is not sent again.
        if request.options.is_paid and prompt.may_have_run:
            raise PermanentError("outcome_unknown", str(error)) from None
        raise
    finally:
        prompt.close()
    params = {}
    uses_seed = "seed" in find_placeholders(workflow)
    if uses_seed and request.seed is None:
        params["seed"] = prompt.values["seed"]
    return GeneratedImage(data, params)


def check(options: ComfyUI) -> list[str]:
    """Describe the server, its devices, and the placeholders of the workflow.

    Raises TransientError and PermanentError, the latter also if the workflow file is invalid, the
    server does not have one of its nodes, or none of them saves anything.
    """
    try:
        workflows = [read_workflow(file, options.output_node) for file in options.workflows]
    except WorkflowError as error:
        raise PermanentError("engine_error", str(error)) from None
    remote.read_secret(options.api_key_env)
    deadline = time.monotonic() + CHECK_TIMEOUT_SECONDS
    with closing(connect(options)) as client:
        get_json = partial(get_before, deadline, client)
        stats = get_json("/system_stats")
        found = node_classes(workflows, get_json)
    missing = [name for name, info in found.items() if info is None]
    if missing:
        names = ", ".join(missing)
        raise PermanentError("engine_refused", f"no node {names}")
    for workflow in workflows:
        used = [found[node["class_type"]] for node in workflow.values()]
        if not any(info.get("output_node", True) for info in used):
            raise PermanentError("engine_refused", f"the workflow saves nothing; {MUST_END}")
    return [
        *describe_server(stats),
        *describe_workflows(workflows),
    ]


def get_before(deadline: float, client: remote.Client, path: str) -> dict:
    """GET a JSON object until the deadline."""
    remaining = deadline - time.monotonic()
    timeout_seconds = max(0.1, remaining)
    body = client.get_json(path, timeout_seconds=timeout_seconds)
    return as_dict(body)


def node_classes(workflows: list[Workflow], get_json: GetJson) -> dict[str, dict | None]:
    """Return what the server says of each class of nodes of workflows; None if it lacks it."""
    names = {node["class_type"] for workflow in workflows for node in workflow.values()}
    found: dict[str, dict | None] = {}
    for name in sorted(names):
        quoted = quote(name, safe="")
        info = get_json(f"/object_info/{quoted}")
        found[name] = as_dict(info[name]) if name in info else None
    return found


def describe_workflows(workflows: list[Workflow]) -> list[str]:
    """Return the numbers of nodes, and the placeholders in the order of PLACEHOLDERS."""
    used = set().union(*map(find_placeholders, workflows))
    numbers = " + ".join(str(len(workflow)) for workflow in workflows)
    names = [name for name in PLACEHOLDERS if name in used]
    placeholders = ", ".join(names) or "nothing"
    return [
        f"{numbers} nodes",
        f"takes {placeholders}",
    ]


def describe_server(stats: dict) -> list[str]:
    """Return the version and the devices from the response of /system_stats."""
    system = as_dict(stats.get("system"))
    version = remote.identifier(system.get("comfyui_version"))
    description = [f"ComfyUI {version}".strip()]
    for device in as_list(stats.get("devices")):
        device = as_dict(device)
        description.append(describe_device(device))
    return description


def describe_device(device: dict) -> str:
    # Names are like "cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync".
    name = str(device.get("name", ""))
    name = name.partition(" : ")[0]
    name = name[:60]
    memory = device.get("vram_total")
    if not isinstance(memory, int):
        return name
    gib = memory / 2**30
    return f"{name}, {gib:.0f} GiB"


def connect(options: ComfyUI) -> remote.Client:
    auth = remote.basic_auth(options.username, options.password_env)
    return remote.Client(options.base_url, auth)


# -- A prompt on the server ---------------------------------------------------------------------


class Prompt:
    """A workflow on the server, from submitting it to downloading its image."""

    def __init__(
        self,
        request: ImageRequest,
        workflow: Workflow,
        on_progress: OnProgress,
    ):
        self.request = request
        self.on_progress = on_progress
        self.options = request.options
        self.client = connect(self.options)
        self.client_id = str(uuid.uuid4())
        self.pictures = pictures_of(request, self.client_id)
        self.values = placeholder_values(request, names_of(self.pictures))
        self.workflow = fill_placeholders(workflow, self.values)
        self.progress = Progress(self.workflow)
        # Servers before July 2025 choose another id, but store our client_id with the prompt.
        self.id = self.client_id
        self.is_submitted = False
        # Whether the server may have begun to run it.
        self.may_have_run = False
        # Set if the server accepts only a part of the workflow.
        self.validation_error: PermanentError | None = None
        self.poll_failures = 0
        # Known from the websocket.
        self.running_id = ""
        self.error_messages: list[list] = []
        self.listener = Listener(
            self.client,
            f"/ws?clientId={self.client_id}",
            self.handle_message,
        )

    def report_progress(self) -> None:
        progress = self.progress
        self.on_progress(progress.done, progress.total)

    def close(self) -> None:
        if self.pictures:
            run_in_background(self.forget_pictures, DELETE_WAIT_SECONDS)
        self.listener.close()
        self.client.close()

    def forget_pictures(self) -> None:
        """Write over the pictures on the server, which has no call to delete them."""
        with closing(connect(self.options)) as client:
            for picture in self.pictures:
                form = picture.form(NOTHING)
                client.send("POST", UPLOAD_PATH, REQUEST_TIMEOUT_SECONDS, **form)

    def send(self, method: str, path: str, **options: Any) -> RemoteResponse:
        """Send one request, and report progress until the response arrives.

        Raises TransientError and PermanentError, but not NoResponse: because nothing is charged,
        it does not matter whether the request has arrived.
        """
        task = partial(self.client.send, method, path, **options)
        try:
            return remote.run_with_progress(
                task,
                self.report_progress,
                PROGRESS_INTERVAL_SECONDS,
            )
        except NoResponse:
            self.may_have_run = True
            detail = f"no response to {method} {path}"
            raise TransientError("engine_unavailable", detail) from None

    def get_json(self, path: str) -> dict:
        response = self.send("GET", path)
        remote.raise_for_status(response, path)
        return as_dict(response.json())

    # -- Queued and running -----------------------------------------------------------------------

    def run(self) -> dict:
        """Submit the prompt, wait until it is done, and return its entry in the history."""
        try:
            self.connect_websocket()
            for picture in self.pictures:
                self.upload(picture)
            self.submit()
            return self.wait()
        except PermanentError:
            raise
        except BaseException:
            run_in_background(self.cancel, CANCEL_WAIT_SECONDS)
            raise

    def connect_websocket(self) -> None:
        """Connect before the prompt is submitted, to miss no message. Polls suffice without it."""
        deadline = time.monotonic() + WEBSOCKET_TIMEOUT_SECONDS
        self.listener.start()
        while time.monotonic() < deadline:
            if self.listener.connect_finished.wait(PROGRESS_INTERVAL_SECONDS):
                return
            self.report_progress()

    def upload(self, picture: Picture) -> None:
        response = self.send(
            "POST", UPLOAD_PATH, timeout_seconds=SUBMIT_TIMEOUT_SECONDS, **picture.form()
        )
        remote.raise_for_status(response, UPLOAD_PATH)

    def submit(self) -> None:
        self.report_progress()
        request_body = {
            "prompt": self.workflow,
            "client_id": self.client_id,
            "prompt_id": self.id,
        }
        if self.options.is_paid:
            key = remote.read_secret(self.options.api_key_env)
            request_body["extra_data"] = {"api_key_comfy_org": key}
            self.request.before_send()
        response = self.send(
            "POST",
            "/prompt",
            json=request_body,
            timeout_seconds=SUBMIT_TIMEOUT_SECONDS,
        )
        if response.status == 400:
            body = as_dict(response.json())
            raise validation_failed(body, self.workflow, self.request)
        self.may_have_run = True
        remote.raise_for_status(response, "/prompt")
        body = as_dict(response.json())
        prompt_id = body.get("prompt_id")
        self.id = remote.identifier(prompt_id)
        if not self.id:
            raise PermanentError("engine_error", "/prompt returned no prompt_id")
        self.is_submitted = True
        if body.get("node_errors"):
            self.validation_error = validation_failed(body, self.workflow, self.request)

    def wait(self) -> dict:
        """Poll until the prompt is done, and return its entry in the history."""
        while True:
            self.listener.poll_now.clear()
            entry = self.poll()
            if entry is not None:
                return entry
            self.wait_for_next_poll()

    def poll(self) -> dict | None:
        """Return the entry in the history, None if it is not there yet or the poll failed.

        Raises TransientError if too many polls in a row have failed, or the prompt is lost.
        """
        try:
            entry = self.get_entry()
        except PromptLost:
            raise
        except TransientError:
            self.poll_failures += 1
            if self.poll_failures == MAX_POLL_FAILURES:
                raise
            return None
        self.poll_failures = 0
        return entry

    def get_entry(self) -> dict | None:
        """Return the entry in the history, None while the prompt is queued. Raises PromptLost."""
        # The queue comes first: a prompt leaves it at the moment when it enters the history.
        queue = self.get_json("/queue")
        state, _ = find_in_queue(queue, self.client_id)
        if state:
            return None
        history = self.get_json(f"/history/{self.id}")
        entry = history.get(self.id)
        if not isinstance(entry, dict):
            detail = "the prompt is neither in the queue nor in the history"
            raise PromptLost("engine_unavailable", detail)
        return entry

    def wait_for_next_poll(self) -> None:
        """Report progress until the next poll is due, or the websocket asks for it."""
        interval = POLL_SECONDS
        if self.listener.is_connected and not self.poll_failures:
            interval = CONNECTED_POLL_SECONDS
        deadline = time.monotonic() + interval
        while time.monotonic() < deadline:
            self.report_progress()
            if self.listener.poll_now.wait(PROGRESS_INTERVAL_SECONDS):
                return

    def handle_message(self, text: str) -> None:
        """Handle a message of the websocket. Invalid ones are ignored: they do no harm."""
        with suppress(*INVALID_MESSAGE):
            message = json.loads(text)
            event = message["type"]
            self.handle_event(event, message["data"])

    def handle_event(self, event: str, data: dict) -> None:
        if event == "execution_start":
            # Sent only to our client_id, and maybe before the response to /prompt arrives, which
            # has the id of the prompt on older servers.
            self.running_id = data["prompt_id"]
        prompt_id = data.get("prompt_id", self.running_id)
        if prompt_id != self.running_id:
            return
        if event in ERROR_EVENTS:
            self.error_messages.append([event, data])
        # Without a node, this is the end of the prompt.
        if event == "executing" and data["node"] is None:
            self.listener.poll_now.set()
        self.progress.update(event, data)

    # -- Canceled ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Remove the prompt from the queue or interrupt it, until the server does not have it."""
        # A client of its own, since that of the job is about to be closed.
        with closing(connect(self.options)) as client:
            self.retry_cancel(client)
        self.delete_from_history()

    def retry_cancel(self, client: remote.Client) -> None:
        deadline = time.monotonic() + CANCEL_RETRY_SECONDS
        while time.monotonic() < deadline:
            is_queued = self.cancel_once(client)
            # If /prompt has not responded, the prompt may still get into the queue.
            if self.is_submitted and not is_queued:
                return
            time.sleep(CANCEL_RETRY_DELAY_SECONDS)

    def cancel_once(self, client: remote.Client) -> bool:
        """Cancel the prompt if the server has it; return whether it does."""
        queue = client.get_json("/queue", timeout_seconds=REQUEST_TIMEOUT_SECONDS)
        queue = as_dict(queue)
        state, prompt_id = find_in_queue(queue, self.client_id)
        if state == "pending":
            body = {"delete": [prompt_id]}
            post(client, "/queue", body)
        elif state == "running":
            # Servers before September 2025 ignore the id and interrupt whichever prompt runs.
            # This is why the queue was checked first.
            body = {"prompt_id": prompt_id}
            post(client, "/interrupt", body)
        return bool(state)

    def delete_from_history(self) -> None:
        """Delete the prompt from the server's history, which every client can read."""
        body = {"delete": [self.id]}
        with closing(connect(self.options)) as client:
            post(client, "/history", body)

    # -- Done -------------------------------------------------------------------------------------

    def get_image(self, entry: dict) -> bytes:
        """Download the image that an entry in the history names, and delete the entry."""
        try:
            self.raise_for_failure(entry)
            outputs = as_dict(entry.get("outputs"))
            image = self.choose_image(outputs)
            return self.download(image)
        finally:
            run_in_background(self.delete_from_history, DELETE_WAIT_SECONDS)

    def raise_for_failure(self, entry: dict) -> None:
        status = entry.get("status")
        if not status:
            status = self.status_from_websocket()
        status = as_dict(status)
        if status.get("status_str") == "error":
            messages = status.get("messages")
            raise execution_failed(messages, self.workflow, self.request)

    def status_from_websocket(self) -> dict:
        """Return a status like that in the history, which servers of 2023 do not store."""
        if not self.error_messages:
            return {}
        return {
            "status_str": "error",
            "messages": self.error_messages,
        }

    def choose_image(self, outputs: dict) -> dict:
        """Return the first image of output_node, or of the last node that saved one."""
        images = self.candidate_images(outputs)
        if images:
            return images[0]
        if self.validation_error:
            raise self.validation_error
        raise PermanentError("bad_picture", "the workflow gave no picture", MUST_END)

    def candidate_images(self, outputs: dict) -> list[dict]:
        """Return the images of output_node if that is set, else of all nodes, the last node first.

        Of all nodes, previews are returned only if no image was saved.
        """
        output_node = self.options.output_node
        if output_node:
            return images_of(outputs.get(output_node))
        # The outputs may have nodes that the server has added to the workflow.
        node_ids = [*reversed(self.workflow), *outputs]
        images = []
        for node_id in node_ids:
            images += images_of(outputs.get(node_id))
        saved = [image for image in images if image.get("type") == "output"]
        return saved or images

    def download(self, image: dict) -> bytes:
        query = {
            "filename": image["filename"],
            "subfolder": image.get("subfolder", ""),
            "type": image.get("type", ""),
        }
        response = self.send(
            "GET",
            "/view",
            params=query,
            timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS,
            max_bytes=remote.max_picture_bytes(),
        )
        if response.status == 404:
            raise PermanentError("bad_picture", "/view does not have the picture")
        remote.raise_for_status(response, "/view")
        if not response.body:
            raise PermanentError("bad_picture", "/view returned an empty file")
        return response.body


def post(client: remote.Client, path: str, body: dict) -> None:
    client.send(
        "POST",
        path,
        REQUEST_TIMEOUT_SECONDS,
        json=body,
    )


def images_of(output: Any) -> list[dict]:
    """Return the images in the output of a node."""
    images = []
    for image in as_list(as_dict(output).get("images")):
        filename = as_dict(image).get("filename")
        # SaveVideo lists its film among the images.
        if isinstance(filename, str) and not filename.lower().endswith(VIDEO_ENDINGS):
            images.append(image)
    return images


def find_in_queue(queue: dict, client_id: str) -> tuple[str, str]:
    """Return "running" or "pending", and the id of the client's prompt; ("", "") if not queued.

    Raises TransientError if the response is not a queue.
    """
    for state in ("running", "pending"):
        items = queue.get(f"queue_{state}")
        if not isinstance(items, list):
            raise TransientError("engine_unavailable", "/queue returned no queue")
        prompt_id = find_prompt(items, client_id)
        if prompt_id:
            return state, prompt_id
    return "", ""


def find_prompt(items: list, client_id: str) -> str:
    """Return the id of the client's prompt in a queue; "" if it is not there."""
    for item in map(as_list, items):
        # The items are like [number, prompt id, workflow, extra data, …].
        if len(item) < 4:
            continue
        extra_data = as_dict(item[3])
        if extra_data.get("client_id") == client_id:
            return str(item[1])
    return ""


def run_in_background(task: Callable[[], None], wait_seconds: float) -> None:
    """Run a task that may fail. After wait_seconds, return while it continues in its thread."""

    def run() -> None:
        with suppress(EngineError):
            task()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(wait_seconds)
