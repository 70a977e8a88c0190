"""The workflow of a model of ComfyUI: read from its file, checked, its placeholders filled in."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

from engines import ImageRequest, PermanentError
from engines.options import ComfyUI
from engines.remote import as_dict, as_list

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

# Nodes at the end of a workflow whose results are no pictures that ComfyUI's history names.
NO_PICTURES = (
    "SaveImageWebsocket",
    "SaveVideo",
    "SaveWEBM",
    "VHS_VideoCombine",
    "SaveAudio",
    "SaveAudioMP3",
    "SaveAudioOpus",
    "PreviewAudio",
    "SaveLatent",
    "SaveGLB",
    "Preview3D",
    "PreviewAny",
)
MUST_END = "end the workflow in SaveImage or PreviewImage"

# Node id to node, as in the file and in the body of /prompt.
Workflow = dict[str, dict]
# Placeholder name to value.
Values = dict[str, Any]


class WorkflowError(ValueError):
    """The workflow file cannot be used; the message is one line for the operator."""

    def __init__(self, file_name: str, problem: str):
        super().__init__(f"workflow {file_name}: {problem}")


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
    return output_problem(workflow, output_node)


def output_problem(workflow: Workflow, output_node: str) -> str:
    """Return why there will be no picture at the end of a workflow; "" if there may be one.

    Nodes that only the server knows may save one.
    """
    ends = [workflow[output_node]] if output_node else end_nodes(workflow)
    names = {node["class_type"] for node in ends}
    if names and names.issubset(NO_PICTURES):
        return f"{min(names)} saves no picture; {MUST_END}"
    return ""


def end_nodes(workflow: Workflow) -> list[dict]:
    """Return the nodes whose outputs no other node takes."""
    used = set()
    for node in workflow.values():
        # A link is like ["4", 0].
        links = [value for value in node["inputs"].values() if isinstance(value, list) and value]
        used.update(str(link[0]) for link in links)
    return [node for node_id, node in workflow.items() if node_id not in used]


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
