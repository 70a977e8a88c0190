"""ComfyUI: fills the placeholders of a workflow in API format, queues it as a prompt and fetches its picture.

What became of a prompt is asked of /queue and /history; the websocket only tells sooner, and how far it is. A server
that has forgotten our prompt was restarted, and the job may be made again: nobody pays for it.
"""

from __future__ import annotations

import difflib
import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from config import SettingError
from engines import (
    EngineError,
    GeneratedImage,
    ImageRequest,
    NoResponse,
    PermanentError,
    TransientError,
    no_progress,
    remote,
)
from engines.options import ComfyUI

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
# In the place of what a job does not have.
ABSENT = object()

TICK_SECONDS = 0.5
POLL_SECONDS = 1.0
# While the websocket lives, so does the server that has our prompt.
CALM_POLL_SECONDS = 5.0
# How often in a row the server may be out of reach before the prompt is given up.
MISSES = 3
LISTEN_SECONDS = 3.0
# What a job may be held up for withdrawing its prompt: the worker ends whoever takes 5 s over a cancel.
WITHDRAW_SECONDS = 2.0
KEEP_WITHDRAWING_SECONDS = 10.0
FORGET_SECONDS = 1.0
CHECK_SECONDS = 8.0


class Lost(TransientError):
    """The prompt is neither queued nor in the history any more."""


# -- The workflow file --------------------------------------------------------------------------


class WorkflowError(ValueError):
    """What is wrong with a workflow file, in one line."""


def prepare(options: ComfyUI) -> None:
    """Refuse a workflow file that cannot work. Raises SettingError."""
    try:
        load(options)
    except WorkflowError as error:
        raise SettingError(str(error)) from None


def workflow_of(options: ComfyUI) -> dict[str, dict]:
    """Return the workflow as its file is now. Raises PermanentError."""
    try:
        return load(options)
    except WorkflowError as error:
        raise PermanentError("engine_error", str(error)) from None


def load(options: ComfyUI) -> dict[str, dict]:
    """Read the workflow file and return its nodes by their ids. Raises WorkflowError."""
    name = options.workflow.name
    try:
        workflow = json.loads(
            options.workflow.read_text(encoding="utf-8-sig"), parse_constant=no_number
        )
    except OSError as error:
        raise WorkflowError(f"workflow {name}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise WorkflowError(f"workflow {name}: is not JSON") from None
    if problem := problem_of(workflow, options.output_node):
        raise WorkflowError(f"workflow {name}: {problem}")
    return workflow


def no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def problem_of(workflow: Any, output_node: str) -> str:
    """Say why this cannot be sent as a prompt; "" if it can."""
    if not isinstance(workflow, dict) or not workflow:
        return "holds no nodes"
    if isinstance(workflow.get("nodes"), list):
        return "is saved for the editor; export it with File > Export (API)"
    for node_id, node in workflow.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            return f"{node_id!r} is no node with a class_type; export it with File > Export (API)"
        if not isinstance(node.get("inputs"), dict):
            return f"node {node_id!r} has no inputs"
    if unknown := sorted(placeholders_in(workflow) - set(PLACEHOLDERS)):
        return f"unknown placeholder {{{{{unknown[0]}}}}}; there are {', '.join(PLACEHOLDERS)}"
    if output_node and output_node not in workflow:
        return f"has no node {output_node!r}, which output_node names"
    return ""


def placeholders_in(workflow: dict[str, dict]) -> set[str]:
    return {
        name
        for node in workflow.values()
        for text in texts_in(node["inputs"])
        for name in PLACEHOLDER.findall(text)
    }


def texts_in(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from texts_in(item)


def fill(workflow: dict[str, dict], values: dict[str, Any]) -> dict[str, dict]:
    """Return the workflow with these values in the place of its placeholders."""
    return {
        node_id: {**node, "inputs": filled(node["inputs"], values)}
        for node_id, node in workflow.items()
    }


def filled(template: Any, values: dict[str, Any]) -> Any:
    """Return the template with its placeholders replaced; what is put in is never read as a template again.

    An input that is one placeholder and nothing else gets the value itself, or is left out if there is none.
    """
    if isinstance(template, dict):
        inputs = {key: filled(item, values) for key, item in template.items()}
        return {key: item for key, item in inputs.items() if item is not ABSENT}
    if isinstance(template, list):
        return [item for item in (filled(item, values) for item in template) if item is not ABSENT]
    if not isinstance(template, str):
        return template
    if whole := PLACEHOLDER.fullmatch(template):
        return values[whole[1]]
    return PLACEHOLDER.sub(lambda found: in_text(values[found[1]]), template)


def in_text(value: Any) -> str:
    return "" if value is ABSENT else str(value)


def values_of(job: ImageRequest) -> dict[str, Any]:
    """Return what each placeholder stands for. A job without a seed gets one, so that no picture comes from a cache."""
    values = {name: getattr(job, name) for name in PLACEHOLDERS}
    values["sampler"] = job.sampler or None
    values["seed"] = secrets.randbelow(2**32) if job.seed is None else job.seed
    return {name: ABSENT if value is None else value for name, value in values.items()}


# -- What an engine does ------------------------------------------------------------------------


def make(
    job: ImageRequest, on_progress: Callable[[int, int], None] = no_progress
) -> GeneratedImage:
    """Run the workflow with the job's values and return its picture. What on_progress raises withdraws the prompt.

    Raises TransientError if the server is away or was restarted, PermanentError if it refuses the workflow or fails at it.
    """
    template, values = workflow_of(job.options), values_of(job)
    prompt = Prompt(job, fill(template, values), on_progress)
    try:
        entry = prompt.run()
        image = prompt.picture(entry)
    finally:
        prompt.close()
    is_drawn = "seed" in placeholders_in(template) and values["seed"] != job.seed
    return GeneratedImage(image, {"seed": values["seed"]} if is_drawn else {})


def check(options: ComfyUI) -> list[str]:
    """Say which ComfyUI this is, on which devices, and what the workflow takes. Raises TransientError and PermanentError.

    PermanentError also if the file is wrong, or the server lacks a node of it.
    """
    workflow = workflow_of(options)
    server, until = server_of(options), time.monotonic() + CHECK_SECONDS

    def ask(path: str) -> dict:
        return as_dict(server.get_json(path, timeout_seconds=max(0.1, until - time.monotonic())))

    try:
        words = about(ask("/system_stats"))
        classes = sorted({node["class_type"] for node in workflow.values()})
        missing = [
            name for name in classes if name not in ask(f"/object_info/{quote(name, safe='')}")
        ]
    finally:
        server.close()
    if missing:
        raise PermanentError("engine_refused", f"no node {', '.join(missing)}")
    taken = [name for name in PLACEHOLDERS if name in placeholders_in(workflow)]
    return [*words, f"{len(workflow)} nodes", f"takes {', '.join(taken) or 'nothing'}"]


def about(stats: dict) -> list[str]:
    """Return version and devices as /system_stats has them."""
    devices = stats.get("devices") if isinstance(stats.get("devices"), list) else []
    words = [
        f"ComfyUI {remote.identifier(as_dict(stats.get('system')).get('comfyui_version'))}".strip()
    ]
    for device in map(as_dict, devices):
        # As in "cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync".
        name, memory = str(device.get("name", "")).split(" : ")[0][:60], device.get("vram_total")
        words.append(f"{name}, {memory / 2**30:.0f} GiB" if isinstance(memory, int) else name)
    return words


def server_of(options: ComfyUI) -> remote.Client:
    return remote.Client(
        options.base_url, remote.basic_auth(options.username, options.password_env)
    )


def as_dict(value: Any) -> dict:
    """Return what should be a JSON object; {} for anything else."""
    return value if isinstance(value, dict) else {}


# -- One prompt ---------------------------------------------------------------------------------


class Prompt:
    """A workflow that is queued on the server, from posting it to fetching its picture."""

    def __init__(
        self, job: ImageRequest, workflow: dict[str, dict], on_progress: Callable[[int, int], None]
    ):
        self.job, self.workflow, self.on_progress = job, workflow, on_progress
        self.server = server_of(job.options)
        self.progress = Progress(workflow)
        # Servers before July 2025 give the prompt another id, but keep the client's beside it.
        self.id = self.client_id = str(uuid.uuid4())
        self.started_id = ""
        self.troubles: list[list] = []
        self.is_posted = False
        self.partly_refused: PermanentError | None = None
        self.listener = Listener(self.server, f"/ws?clientId={self.client_id}", self.hear)

    def tick(self) -> None:
        self.on_progress(self.progress.done, self.progress.total)

    def close(self) -> None:
        self.listener.close()
        self.server.close()

    def ask(self, method: str, path: str, **options: Any) -> remote.RemoteResponse:
        """Send one request, telling of progress meanwhile. Raises TransientError and PermanentError, never NoResponse."""
        try:
            return remote.run_with_progress(
                lambda: self.server.send(method, path, **options), self.tick, TICK_SECONDS
            )
        except NoResponse:
            raise TransientError("engine_unavailable", f"no answer to {method} {path}") from None

    def get(self, path: str) -> dict:
        answer = self.ask("GET", path)
        remote.raise_for_status(answer, path)
        return as_dict(answer.json())

    # -- Queued and running -----------------------------------------------------------------------

    def run(self) -> dict:
        """Post the prompt and return its entry in the history once it is done."""
        try:
            self.listen()
            self.post()
            return self.wait()
        except PermanentError:
            raise
        except BaseException:
            briefly(self.withdraw, WITHDRAW_SECONDS)
            raise

    def listen(self) -> None:
        """Connect the websocket before there is anything to hear; without it, go on and poll."""
        until = time.monotonic() + LISTEN_SECONDS
        self.listener.start()
        while not self.listener.settled.wait(TICK_SECONDS) and time.monotonic() < until:
            self.tick()

    def post(self) -> None:
        self.tick()
        body = {"prompt": self.workflow, "client_id": self.client_id, "prompt_id": self.id}
        answer = self.ask("POST", "/prompt", json=body, timeout_seconds=60)
        if answer.status == 400:
            raise refusal(as_dict(answer.json()), self.workflow, self.job)
        remote.raise_for_status(answer, "/prompt")
        told = as_dict(answer.json())
        self.id = remote.identifier(told.get("prompt_id"))
        if not self.id:
            raise PermanentError("engine_error", "/prompt gave no prompt_id")
        self.is_posted = True
        if told.get("node_errors"):
            self.partly_refused = refusal(told, self.workflow, self.job)

    def wait(self) -> dict:
        misses = 0
        while True:
            self.listener.news.clear()
            try:
                entry, misses = self.look(), 0
                if entry is not None:
                    return entry
            except TransientError as error:
                misses += 1
                if misses == MISSES or isinstance(error, Lost):
                    raise
            self.pause(
                CALM_POLL_SECONDS if self.listener.is_connected and not misses else POLL_SECONDS
            )

    def look(self) -> dict | None:
        """Return the entry in the history, None while the prompt is in the queue. Raises Lost."""
        # In this order: a prompt that leaves the queue is in the history at the same moment.
        place, _ = place_of(self.get("/queue"), self.client_id)
        if place:
            return None
        entry = self.get(f"/history/{self.id}").get(self.id)
        if not isinstance(entry, dict):
            raise Lost("engine_unavailable", "the server has forgotten the prompt")
        return entry

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the websocket has news."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tick()
            if self.listener.news.wait(TICK_SECONDS):
                return

    def hear(self, text: str) -> None:
        """Take a message of the websocket. An odd one costs some progress, never the picture."""
        with suppress(
            ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError
        ):
            message = json.loads(text)
            kind, data = message["type"], message["data"]
            if kind == "execution_start":
                # Sent to our client_id alone, and maybe before /prompt answers with the id of an older server.
                self.started_id = data["prompt_id"]
            if data.get("prompt_id", self.started_id) != self.started_id:
                return
            if kind in ("execution_error", "execution_interrupted"):
                self.troubles.append([kind, data])
            elif kind == "executing" and data["node"] is None:
                self.listener.news.set()
            self.progress.hear(kind, data)

    def withdraw(self) -> None:
        """Take the prompt out of the queue, or interrupt it, until the server has no more of it."""
        # Not the job's own server: that may be in the middle of a call, and will be closed.
        server, until = server_of(self.job.options), time.monotonic() + KEEP_WITHDRAWING_SECONDS
        while time.monotonic() < until:
            place, prompt_id = place_of(
                as_dict(server.get_json("/queue", timeout_seconds=5)), self.client_id
            )
            if place == "pending":
                server.send("POST", "/queue", timeout_seconds=5, json={"delete": [prompt_id]})
            elif place == "running":
                # Servers before September 2025 interrupt whatever runs: that is why we have looked first.
                server.send("POST", "/interrupt", timeout_seconds=5, json={"prompt_id": prompt_id})
            elif self.is_posted:
                break
            # Before that, our request may still be on its way.
            time.sleep(0.25)
        self.forget()

    def forget(self) -> None:
        """Remove the prompt from the history: a user's words have no business there."""
        server_of(self.job.options).send(
            "POST", "/history", timeout_seconds=5, json={"delete": [self.id]}
        )

    # -- Done -------------------------------------------------------------------------------------

    def picture(self, entry: dict) -> bytes:
        """Return the picture that an entry in the history tells of, and let the server forget the prompt."""
        try:
            # Servers of 2023 have no status, and tell of errors by the websocket alone.
            status = entry.get("status") or {
                "status_str": "error" if self.troubles else "",
                "messages": self.troubles,
            }
            if as_dict(status).get("status_str") == "error":
                raise failure(as_dict(status).get("messages"), self.workflow, self.job)
            return self.view(self.image_in(as_dict(entry.get("outputs"))))
        finally:
            briefly(self.forget, FORGET_SECONDS)

    def image_in(self, outputs: dict) -> dict:
        """Return the first image of the node asked for; else of the last one that saved any, or at least previewed."""
        asked = self.job.options.output_node
        node_ids = [asked] if asked else [*reversed(self.workflow), *outputs]
        found = [
            image for node_id in node_ids for image in images_of(as_dict(outputs.get(node_id)))
        ]
        wanted = (
            found if asked else [image for image in found if image.get("type") == "output"] or found
        )
        if wanted:
            return wanted[0]
        raise self.partly_refused or PermanentError("bad_picture", "the workflow gave no picture")

    def view(self, image: dict) -> bytes:
        query = {name: image.get(name, "") for name in ("filename", "subfolder", "type")}
        answer = self.ask("GET", "/view", params=query)
        if answer.status == 404:
            raise PermanentError("bad_picture", "/view does not have the picture")
        remote.raise_for_status(answer, "/view")
        if not answer.body:
            raise PermanentError("bad_picture", "/view gave nothing")
        return answer.body


def images_of(output: dict) -> list[dict]:
    images = output.get("images") if isinstance(output.get("images"), list) else []
    return [
        image
        for image in images
        if isinstance(image, dict) and isinstance(image.get("filename"), str)
    ]


def place_of(queue: dict, client_id: str) -> tuple[str, str]:
    """Return where in /queue a client's prompt is, "running" or "pending", and its id; ("", "") if nowhere.

    Raises TransientError if that is no queue.
    """
    for place in ("running", "pending"):
        items = queue.get(f"queue_{place}")
        if not isinstance(items, list):
            raise TransientError("engine_unavailable", "/queue gave no queue")
        for item in items:
            if (
                isinstance(item, list)
                and len(item) > 3
                and as_dict(item[3]).get("client_id") == client_id
            ):
                return place, str(item[1])
    return "", ""


def briefly(call: Callable[[], None], seconds: float) -> None:
    """Try something that may fail. Past these seconds it goes on in the background."""

    def run() -> None:
        with suppress(EngineError):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)


# -- Progress -----------------------------------------------------------------------------------


class Progress:
    """How much of a workflow is done: its nodes, and the steps of those that run. Never goes back."""

    def __init__(self, workflow: dict[str, dict]):
        # Samplers take nearly all the time.
        self.weights = {
            node_id: 1000 if "latent_image" in workflow[node_id]["inputs"] else 100
            for node_id in workflow
        }
        self.shares = dict.fromkeys(workflow, 0.0)
        self.current = None
        self.done, self.total = 0, sum(self.weights.values())

    def hear(self, kind: str, data: dict) -> None:
        if kind == "execution_cached":
            for node_id in data["nodes"]:
                self.note(node_id, 1)
        elif kind == "executing":
            self.note(self.current, 1)
            self.current = data["node"]
        elif kind == "executed":
            self.note(data["node"], 1)
        elif kind == "progress":
            self.note(data.get("node") or self.current, data["value"] / data["max"])
        elif kind == "progress_state":
            for node_id, state in data["nodes"].items():
                self.note(
                    node_id, 1 if state["state"] == "finished" else state["value"] / state["max"]
                )

    def note(self, node_id: str | None, share: float) -> None:
        if isinstance(node_id, str) and node_id in self.shares:
            self.shares[node_id] = max(self.shares[node_id], min(share, 1))
            self.done = int(
                sum(self.weights[node_id] * share for node_id, share in self.shares.items())
            )


class Listener(threading.Thread):
    """Listens to the websocket, in a thread; a connection that fails or breaks ends it, without an error."""

    def __init__(self, server: remote.Client, path: str, hear: Callable[[str], None]):
        import requests

        super().__init__(daemon=True)
        # https becomes wss.
        self.url = "ws" + server.base_url.removeprefix("http") + path
        self.header = server.session.auth(requests.Request()).headers
        self.hear = hear
        self.settled, self.news = threading.Event(), threading.Event()
        self.socket: Any = None
        self.is_closed = False

    @property
    def is_connected(self) -> bool:
        return self.settled.is_set() and self.socket is not None

    def run(self) -> None:
        import websocket

        try:
            self.socket = websocket.create_connection(
                self.url,
                timeout=LISTEN_SECONDS,
                header=self.header,
                suppress_origin=True,
                redirect_limit=0,
            )
            self.socket.settimeout(None)
            self.settled.set()
            self.listen()
        except (websocket.WebSocketException, OSError, ValueError):
            pass
        finally:
            self.settled.set()
            if self.socket:
                self.socket.shutdown()
            self.socket = None
            self.news.set()

    def listen(self) -> None:
        while self.socket.connected and not self.is_closed:
            message = self.socket.recv()
            # Binary ones are previews.
            if isinstance(message, str) and message:
                self.hear(message)

    def close(self) -> None:
        self.is_closed = True
        if socket := self.socket:
            socket.abort()


# -- Errors -------------------------------------------------------------------------------------


def refusal(answer: dict, workflow: dict[str, dict], job: ImageRequest) -> PermanentError:
    """Return what /prompt has against the workflow, node by node, without the values it objects to."""
    problems = [
        (node_name(node_id, workflow), as_dict(problem))
        for node_id, node in as_dict(answer.get("node_errors")).items()
        for problem in as_list(as_dict(node).get("errors"))
    ] or [("", as_dict(answer.get("error")))]
    codes, sentences = [], []
    for name, problem in problems[:3]:
        field = clean(as_dict(problem.get("extra_info")).get("input_name"), job)
        codes.append(joined(name, remote.identifier(problem.get("type")), field))
        sentences.append(joined(name, clean(problem.get("message"), job), field))
    return PermanentError("engine_refused", "; ".join(codes), "; ".join(sentences))


def failure(messages: Any, workflow: dict[str, dict], job: ImageRequest) -> EngineError:
    """Return why a prompt failed, as the messages in its history tell; the exception's words are for the owner only."""
    told = {
        str(message[0]): message[1]
        for message in map(as_list, as_list(messages))
        if len(message) == 2
    }
    if "execution_interrupted" in told:
        return TransientError("engine_unavailable", "somebody interrupted the prompt on the server")
    error = as_dict(told.get("execution_error"))
    name = node_name(error.get("node_id"), workflow)
    kind = remote.identifier(str(error.get("exception_type")).rpartition(".")[2])
    return PermanentError(
        "engine_error",
        joined(name, kind),
        joined(name, kind, clean(error.get("exception_message"), job)),
    )


def node_name(node_id: Any, workflow: dict[str, dict]) -> str:
    """Return a node as our own file calls it, such as "KSampler (3)"."""
    node = workflow.get(node_id) if isinstance(node_id, str) else None
    return f"{node['class_type']} ({node_id})" if node else "a node"


def joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else []


def clean(text: Any, job: ImageRequest) -> str:
    """Return the first line of a server's words, without paths and addresses; "" if they repeat part of a prompt."""
    line = text.strip().split("\n")[0][:300] if isinstance(text, str) else ""
    if any(repeats(line, prompt) for prompt in (job.prompt, job.negative_prompt)):
        return ""
    return re.sub(r"(['\"])[^'\"]*[/\\][^'\"]*\1|\S*[/\\]\S*", "…", line)[:160]


def repeats(line: str, prompt: str, length: int = 8) -> bool:
    """Tell if the line holds so many characters in a row of the prompt, or all of a shorter one."""
    line, prompt = line.casefold(), prompt.strip().casefold()
    if len(prompt) < length:
        return bool(prompt) and prompt in line
    return (
        difflib.SequenceMatcher(None, line, prompt, autojunk=False).find_longest_match().size
        >= length
    )
