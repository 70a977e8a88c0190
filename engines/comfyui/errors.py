"""The errors that ComfyUI reports, as ours: they name nodes, and quote neither prompt nor path."""

from __future__ import annotations

import difflib
import re
from typing import Any, NamedTuple

from engines import EngineError, ImageRequest, PermanentError, TransientError, remote
from engines.comfyui.workflow import Workflow
from engines.remote import as_dict, as_list

# Limits of what is shown of the server's error messages.
MAX_NODE_ERRORS = 3
MAX_LINE_LENGTH = 300
MAX_SHOWN_LENGTH = 160
# So many consecutive characters of a prompt count as a quotation of it.
QUOTATION_LENGTH = 8
# A text in quotes with a slash or backslash in it, or a word with one.
PATH_OR_URL = re.compile(r"(['\"])[^'\"]*[/\\][^'\"]*\1|\S*[/\\]\S*")


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
