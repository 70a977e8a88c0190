"""ComfyUI: fill the placeholders of a workflow, submit it as a prompt, download its image.

The state of a prompt is polled from /queue and /history. The websocket only reports progress, and
the end of the prompt before the next poll would find it. A prompt that is in neither the queue
nor the history was lost, because the server was restarted or its queue cleared. The job may then
be retried, since ComfyUI charges nothing.
"""

from __future__ import annotations

import difflib
import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple
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
    addresses,
    no_progress,
    remote,
)
from engines.options import ComfyUI
from engines.remote import RemoteResponse, as_dict, as_list

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
PLACEHOLDERS = (
    "prompt",
    "negative_prompt",
    "seed",
    "width",
    "height",
    "steps",
    "guidance",
    "sampler",
)
# The value of a placeholder for which the request has none.
NO_VALUE = object()

PROGRESS_INTERVAL_SECONDS = 0.5
POLL_SECONDS = 1.0
# Polls are rare while the websocket is connected: the server is up, and reports the end itself.
CONNECTED_POLL_SECONDS = 5.0
# How many polls in a row may fail before the prompt is given up.
MAX_POLL_FAILURES = 3

REQUEST_TIMEOUT_SECONDS = 5
SUBMIT_TIMEOUT_SECONDS = 60
CHECK_TIMEOUT_SECONDS = 8.0
WEBSOCKET_TIMEOUT_SECONDS = 3.0

# How long a job waits until its canceled prompt is removed from the server, because a worker is
# killed if a cancel takes more than 5 seconds; and how long the removal is retried in all.
CANCEL_WAIT_SECONDS = 2.0
CANCEL_RETRY_SECONDS = 10.0
CANCEL_RETRY_DELAY_SECONDS = 0.25
DELETE_WAIT_SECONDS = 1.0

# Samplers take nearly all the time of a workflow.
SAMPLER_WEIGHT = 1000
NODE_WEIGHT = 100

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

# Limits of what is shown of the server's error messages.
MAX_NODE_ERRORS = 3
MAX_LINE_LENGTH = 300
MAX_SHOWN_LENGTH = 160
# So many consecutive characters of a prompt count as a quotation of it.
QUOTATION_LENGTH = 8
# A text in quotes with a slash or backslash in it, or a word with one.
PATH_OR_URL = re.compile(r"(['\"])[^'\"]*[/\\][^'\"]*\1|\S*[/\\]\S*")

# Node id to node, as in the file and in the body of /prompt.
Workflow = dict[str, dict]
# Placeholder name to value.
Values = dict[str, Any]
GetJson = Callable[[str], dict]


class PromptLost(TransientError):
    """The prompt is in neither the queue nor the history of the server any more."""


# -- The workflow file --------------------------------------------------------------------------


class WorkflowError(ValueError):
    """The workflow file cannot be used; the message is one line for the operator."""

    def __init__(self, file_name: str, problem: str):
        super().__init__(f"workflow {file_name}: {problem}")


def prepare(options: ComfyUI) -> None:
    """Validate the workflow file when the worker starts. Raises SettingError."""
    try:
        read_workflow(options)
    except WorkflowError as error:
        raise SettingError(str(error)) from None


def load_workflow(options: ComfyUI) -> Workflow:
    """Read the workflow file, which may be edited at any time. Raises PermanentError."""
    try:
        return read_workflow(options)
    except WorkflowError as error:
        raise PermanentError("engine_error", str(error)) from None


def read_workflow(options: ComfyUI) -> Workflow:
    """Read and validate the workflow file. Raises WorkflowError."""
    name = options.workflow.name
    try:
        text = options.workflow.read_text(encoding="utf-8-sig")
        workflow = json.loads(text, parse_constant=refuse_constant)
    except OSError as error:
        raise WorkflowError(name, error.strerror) from None
    except (ValueError, RecursionError):
        raise WorkflowError(name, "is not JSON") from None
    problem = workflow_problem(workflow, options.output_node)
    if problem:
        raise WorkflowError(name, problem)
    return workflow


def refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python's parser would accept."""
    raise ValueError(f"{name} is not JSON")


def workflow_problem(workflow: Any, output_node: str) -> str:
    """Return why a workflow cannot be submitted; "" if it can."""
    workflow = as_dict(workflow)
    if not workflow:
        return "holds no nodes"
    if isinstance(workflow.get("nodes"), list):
        return "is saved for the editor; export it with File > Export (API)"
    for node_id, node in workflow.items():
        problem = node_problem(node_id, node)
        if problem:
            return problem
    unknown = find_placeholders(workflow).difference(PLACEHOLDERS)
    if unknown:
        placeholder = "{{" + min(unknown) + "}}"
        known = ", ".join(PLACEHOLDERS)
        return f"unknown placeholder {placeholder}; there are {known}"
    if output_node and output_node not in workflow:
        return f"has no node {output_node!r}, which output_node names"
    return ""


def node_problem(node_id: str, node: Any) -> str:
    node = as_dict(node)
    if not isinstance(node.get("class_type"), str):
        return f"{node_id!r} is no node with a class_type; export it with File > Export (API)"
    if not isinstance(node.get("inputs"), dict):
        return f"node {node_id!r} has no inputs"
    return ""


# -- Placeholders -------------------------------------------------------------------------------


def find_placeholders(workflow: Workflow) -> set[str]:
    names = set()
    for node in workflow.values():
        inputs = node["inputs"]
        for text in iter_strings(inputs):
            found = PLACEHOLDER.findall(text)
            names.update(found)
    return names


def iter_strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, at any depth."""
    if isinstance(value, str):
        yield value
    items = as_list(value)
    if isinstance(value, dict):
        items = value.values()
    for item in items:
        yield from iter_strings(item)


def placeholder_values(request: ImageRequest) -> Values:
    """Return the value of each placeholder.

    A request without a seed gets a random one: for the same workflow, ComfyUI would return the
    image in its cache.
    """
    seed = request.seed
    if seed is None:
        seed = secrets.randbelow(2**31)
    values = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": seed,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "guidance": request.guidance,
        "sampler": request.sampler or None,
    }
    for name, value in values.items():
        if value is None:
            values[name] = NO_VALUE
    return values


def fill_placeholders(workflow: Workflow, values: Values) -> Workflow:
    """Return a copy of the workflow with the values in place of the placeholders."""
    filled = {}
    for node_id, node in workflow.items():
        inputs = substitute(node["inputs"], values)
        filled[node_id] = {**node, "inputs": inputs}
    return filled


def substitute(template: Any, values: Values) -> Any:
    """Return a JSON value with the placeholders in its strings replaced.

    A string that consists of one placeholder becomes the value itself, or is removed from its
    object or array if there is no value. Placeholders in longer strings become text. Inserted
    values are not searched for placeholders.
    """
    if isinstance(template, dict):
        return substitute_object(template, values)
    if isinstance(template, list):
        return substitute_array(template, values)
    if isinstance(template, str):
        return substitute_text(template, values)
    return template


def substitute_object(template: dict, values: Values) -> dict:
    result = {}
    for key, item in template.items():
        value = substitute(item, values)
        if value is not NO_VALUE:
            result[key] = value
    return result


def substitute_array(template: list, values: Values) -> list:
    result = []
    for item in template:
        value = substitute(item, values)
        if value is not NO_VALUE:
            result.append(value)
    return result


def substitute_text(template: str, values: Values) -> Any:
    match = PLACEHOLDER.fullmatch(template)
    if match:
        name = match[1]
        return values[name]
    to_text = partial(placeholder_text, values)
    return PLACEHOLDER.sub(to_text, template)


def placeholder_text(values: Values, match: re.Match) -> str:
    name = match[1]
    value = values[name]
    if value is NO_VALUE:
        return ""
    return str(value)


# -- The interface of an engine -----------------------------------------------------------------


def make(
    request: ImageRequest,
    on_progress: OnProgress = no_progress,
) -> GeneratedImage:
    """Run the workflow with the values of the request, and return its image.

    An exception of on_progress cancels the prompt on the server. Raises TransientError if the
    server is unavailable or was restarted, and PermanentError if it refuses the workflow or a
    node fails.
    """
    workflow = load_workflow(request.options)
    values = placeholder_values(request)
    filled = fill_placeholders(workflow, values)
    prompt = Prompt(request, filled, on_progress)
    try:
        entry = prompt.run()
        data = prompt.get_image(entry)
    finally:
        prompt.close()
    params = {}
    uses_seed = "seed" in find_placeholders(workflow)
    if uses_seed and request.seed is None:
        params["seed"] = values["seed"]
    return GeneratedImage(data, params)


def check(options: ComfyUI) -> list[str]:
    """Describe the server, its devices, and the placeholders of the workflow.

    Raises TransientError and PermanentError, the latter also if the workflow file is invalid or
    the server does not have one of its nodes.
    """
    workflow = load_workflow(options)
    deadline = time.monotonic() + CHECK_TIMEOUT_SECONDS
    with closing(connect(options)) as client:
        get_json = partial(get_before, deadline, client)
        stats = get_json("/system_stats")
        missing = missing_nodes(workflow, get_json)
    if missing:
        names = ", ".join(missing)
        raise PermanentError("engine_refused", f"no node {names}")
    return [
        *describe_server(stats),
        *describe_workflow(workflow),
    ]


def get_before(deadline: float, client: remote.Client, path: str) -> dict:
    """GET a JSON object until the deadline."""
    remaining = deadline - time.monotonic()
    timeout_seconds = max(0.1, remaining)
    body = client.get_json(path, timeout_seconds=timeout_seconds)
    return as_dict(body)


def missing_nodes(workflow: Workflow, get_json: GetJson) -> list[str]:
    """Return the classes of nodes that the workflow uses and the server does not have."""
    names = set()
    for node in workflow.values():
        names.add(node["class_type"])
    missing = []
    for name in sorted(names):
        quoted = quote(name, safe="")
        info = get_json(f"/object_info/{quoted}")
        if name not in info:
            missing.append(name)
    return missing


def describe_workflow(workflow: Workflow) -> list[str]:
    """Return the number of nodes, and the placeholders in the order of PLACEHOLDERS."""
    used = find_placeholders(workflow)
    names = [name for name in PLACEHOLDERS if name in used]
    placeholders = ", ".join(names) or "nothing"
    return [
        f"{len(workflow)} nodes",
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
        self.workflow = workflow
        self.on_progress = on_progress
        self.progress = Progress(workflow)
        self.options = request.options
        self.client = connect(self.options)
        self.client_id = str(uuid.uuid4())
        # Servers before July 2025 choose another id, but store our client_id with the prompt.
        self.id = self.client_id
        self.is_submitted = False
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
        self.listener.close()
        self.client.close()

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

    def submit(self) -> None:
        self.report_progress()
        request_body = {
            "prompt": self.workflow,
            "client_id": self.client_id,
            "prompt_id": self.id,
        }
        response = self.send(
            "POST",
            "/prompt",
            json=request_body,
            timeout_seconds=SUBMIT_TIMEOUT_SECONDS,
        )
        if response.status == 400:
            body = as_dict(response.json())
            raise validation_failed(body, self.workflow, self.request)
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
        raise PermanentError("bad_picture", "the workflow gave no picture")

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
        response = self.send("GET", "/view", params=query)
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
        if isinstance(filename, str):
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


# -- Progress -----------------------------------------------------------------------------------


class Progress:
    """The progress of a workflow, from messages about its nodes and their steps.

    It never decreases.
    """

    def __init__(self, workflow: Workflow):
        self.weights = {}
        self.fractions = {}
        for node_id, node in workflow.items():
            self.weights[node_id] = weight_of(node)
            self.fractions[node_id] = 0.0
        self.current_node: str | None = None
        self.done = 0
        self.total = sum(self.weights.values())

    def update(self, event: str, data: dict) -> None:
        """Handle a message of the websocket; its `data` may have any form."""
        if event == "execution_cached":
            for node_id in data["nodes"]:
                self.set_fraction(node_id, 1)
        elif event == "executing":
            self.set_fraction(self.current_node, 1)
            self.current_node = data["node"]
        elif event == "executed":
            node_id = data["node"]
            self.set_fraction(node_id, 1)
        elif event == "progress":
            node_id = data.get("node") or self.current_node
            self.set_fraction(node_id, steps_done(data))
        elif event == "progress_state":
            for node_id, state in data["nodes"].items():
                self.set_fraction(node_id, steps_done(state))

    def set_fraction(self, node_id: Any, fraction: float) -> None:
        if not isinstance(node_id, str):
            return
        old = self.fractions.get(node_id)
        if old is None:
            return
        fraction = min(fraction, 1)
        self.fractions[node_id] = max(old, fraction)
        done = 0.0
        for name, weight in self.weights.items():
            done += weight * self.fractions[name]
        self.done = int(done)


def weight_of(node: dict) -> int:
    if "latent_image" in node["inputs"]:
        return SAMPLER_WEIGHT
    return NODE_WEIGHT


def steps_done(state: dict) -> float:
    """Return the finished fraction of a node, by its steps."""
    if state.get("state") == "finished":
        return 1
    return state["value"] / state["max"]


class Listener(threading.Thread):
    """A thread that receives the messages of the websocket.

    It ends, without an error, if the connection cannot be made or is lost.
    """

    def __init__(
        self,
        client: remote.Client,
        path: str,
        on_message: Callable[[str], None],
    ):
        super().__init__(daemon=True)
        # http becomes ws, and https becomes wss.
        base_url = "ws" + client.base_url.removeprefix("http")
        self.url = base_url + path
        self.http_url = client.base_url
        self.headers = client.auth_headers()
        self.on_message = on_message
        # Set when the connection has been made or has failed.
        self.connect_finished = threading.Event()
        # Set when the prompt may be done, or the connection is lost.
        self.poll_now = threading.Event()
        self.socket: Any = None
        self.is_closed = False

    @property
    def is_connected(self) -> bool:
        if not self.connect_finished.is_set():
            return False
        return self.socket is not None

    def run(self) -> None:
        import websocket

        expected = (
            websocket.WebSocketException,
            OSError,
            ValueError,
            TransientError,
        )
        try:
            with suppress(*expected):
                self.connect()
                self.receive()
        finally:
            self.disconnect()

    def connect(self) -> None:
        import websocket

        self.socket = websocket.create_connection(
            self.url,
            timeout=WEBSOCKET_TIMEOUT_SECONDS,
            header=self.headers,
            suppress_origin=True,
            redirect_limit=0,
            **addresses.websocket_proxy(self.http_url),
        )
        # Between messages there may be any amount of time.
        self.socket.settimeout(None)
        self.connect_finished.set()

    def receive(self) -> None:
        while self.socket.connected and not self.is_closed:
            message = self.socket.recv()
            is_text = isinstance(message, str)
            # Binary messages are previews of the image.
            if is_text and message:
                self.on_message(message)

    def disconnect(self) -> None:
        self.connect_finished.set()
        if self.socket:
            self.socket.shutdown()
        self.socket = None
        self.poll_now.set()

    def close(self) -> None:
        """End the thread, from another thread."""
        self.is_closed = True
        socket = self.socket
        if socket:
            socket.abort()


# -- Errors -------------------------------------------------------------------------------------


class NodeError(NamedTuple):
    """An error that /prompt reports for a node; the name is "" for the workflow as a whole."""

    node: str
    error: dict


def validation_failed(
    body: dict,
    workflow: Workflow,
    request: ImageRequest,
) -> PermanentError:
    """Return the error for a response of /prompt that refuses nodes of the workflow.

    It names the nodes and their inputs, but not the values, which may be the prompt.
    """
    errors = node_errors(body, workflow)
    if not errors:
        error = as_dict(body.get("error"))
        errors = [NodeError("", error)]
    codes = []
    messages = []
    for name, error in errors[:MAX_NODE_ERRORS]:
        code = remote.identifier(error.get("type"))
        message = sanitize(error.get("message"), request)
        extra_info = as_dict(error.get("extra_info"))
        field = sanitize(extra_info.get("input_name"), request)
        codes.append(join(name, code, field))
        messages.append(join(name, message, field))
    detail = "; ".join(codes)
    shown = "; ".join(messages)
    return PermanentError("engine_refused", detail, shown)


def node_errors(body: dict, workflow: Workflow) -> list[NodeError]:
    """Return the errors of the refused nodes."""
    found = []
    nodes = as_dict(body.get("node_errors"))
    for node_id, node in nodes.items():
        name = node_name(node_id, workflow)
        errors = as_dict(node).get("errors")
        for error in map(as_dict, as_list(errors)):
            found.append(NodeError(name, error))
    return found


def execution_failed(
    messages: Any,
    workflow: Workflow,
    request: ImageRequest,
) -> EngineError:
    """Return the error for a prompt that failed, from the messages in its history.

    The message of the exception is shown to the owner, but not logged.
    """
    events = events_of(messages)
    if "execution_interrupted" in events:
        detail = "somebody interrupted the prompt on the server"
        return TransientError("engine_unavailable", detail)
    error = as_dict(events.get("execution_error"))
    name = node_name(error.get("node_id"), workflow)
    exception_type = str(error.get("exception_type"))
    class_name = exception_type.rpartition(".")[2]
    detail = join(name, remote.identifier(class_name))
    message = sanitize(error.get("exception_message"), request)
    shown = join(detail, message)
    return PermanentError("engine_error", detail, shown)


def events_of(messages: Any) -> dict[str, Any]:
    """Return the data of each event in a list like [["execution_start", {…}], …]."""
    events = {}
    for message in map(as_list, as_list(messages)):
        if len(message) == 2:
            event, data = message
            events[str(event)] = data
    return events


def node_name(node_id: Any, workflow: Workflow) -> str:
    """Return the class and the id of a node in the workflow file, such as "KSampler (3)"."""
    if not isinstance(node_id, str):
        return "a node"
    if node_id not in workflow:
        return "a node"
    class_type = workflow[node_id]["class_type"]
    return f"{class_type} ({node_id})"


def join(*parts: str) -> str:
    return ": ".join(filter(None, parts))


def sanitize(text: Any, request: ImageRequest) -> str:
    """Return the first line of a server's message, without paths and URLs.

    Returns "" if the message quotes a part of a prompt.
    """
    if not isinstance(text, str):
        return ""
    first_line = text.strip().split("\n")[0]
    line = first_line[:MAX_LINE_LENGTH]
    prompts = (
        request.prompt,
        request.negative_prompt,
    )
    for prompt in prompts:
        if quotes(line, prompt):
            return ""
    return PATH_OR_URL.sub("…", line)[:MAX_SHOWN_LENGTH]


def quotes(line: str, prompt: str) -> bool:
    """Tell whether a line contains a part of the prompt, or all of a short one, in any case."""
    line = line.casefold()
    prompt = prompt.strip().casefold()
    if not prompt:
        return False
    if len(prompt) < QUOTATION_LENGTH:
        return prompt in line
    matcher = difflib.SequenceMatcher(None, line, prompt, autojunk=False)
    match = matcher.find_longest_match()
    return match.size >= QUOTATION_LENGTH
