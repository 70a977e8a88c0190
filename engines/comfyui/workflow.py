"""The workflow of a model of ComfyUI: read from its file, checked, its placeholders filled in."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engines import ImageRequest, PermanentError, masks
from engines.options import MAX_INPUTS, ComfyUI
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
    "strength",
    "mask",
    *(f"image{number}" for number in range(1, MAX_INPUTS + 1)),
)
# What stands for a file; a node that is to load one that there is not goes.
PICTURES = frozenset(name for name in PLACEHOLDERS if name.startswith(("image", "mask")))
# The sides that every latent image can have are multiples of this.
SIDE = 8
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


def load_workflow(options: ComfyUI, request: ImageRequest) -> Workflow:
    """Read the workflow file for a request; it may be edited at any time. Raises PermanentError."""
    file = options.workflow_for(bool(request.images), bool(request.mask))
    needed = [f"image{number}" for number in range(1, len(request.images) + 1)]
    if request.mask:
        needed.append("mask")
    try:
        return read_workflow(file, options.output_node, needed)
    except WorkflowError as error:
        raise PermanentError("engine_error", str(error)) from None


def read_workflow(file: Path, output_node: str, needed: list[str] | None = None) -> Workflow:
    """Read and check a workflow file, which must have some placeholders. Raises WorkflowError."""
    name = file.name
    try:
        text = file.read_text(encoding="utf-8-sig")
        workflow = json.loads(text, parse_constant=refuse_constant)
    except OSError as error:
        raise WorkflowError(name, error.strerror) from None
    except (ValueError, RecursionError):
        raise WorkflowError(name, "is not JSON") from None
    problem = workflow_problem(workflow, output_node)
    if problem:
        raise WorkflowError(name, problem)
    missing = set(needed or []) - find_placeholders(workflow)
    if missing:
        placeholder = "{{" + min(missing) + "}}"
        raise WorkflowError(name, f"has no {placeholder}, so that it would have no effect")
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
        used.update(map(source, node["inputs"].values()))
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


def placeholder_values(request: ImageRequest, files: Values | None = None) -> Values:
    """Return the value of each placeholder; `files` are the names of pictures on the server.

    A request without a seed gets a random one: for the same workflow, ComfyUI would return the
    image in its cache.
    """
    seed = request.seed
    if seed is None:
        seed = secrets.randbelow(2**31)
    width, height = request.width, request.height
    if request.images:
        width, height = masks.snapped((width, height), SIDE)
    values = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": seed,
        "width": width,
        "height": height,
        "steps": request.steps,
        "guidance": request.guidance,
        "sampler": request.sampler or None,
        "strength": request.strength,
        **(files or {}),
    }
    known = {name: value for name, value in values.items() if value is not None}
    return {**dict.fromkeys(PLACEHOLDERS, NO_VALUE), **known}


def fill_placeholders(workflow: Workflow, values: Values) -> Workflow:
    """Return a copy of the workflow with the values in place of the placeholders."""
    filled = {}
    for node_id, node in without_unused(workflow, values).items():
        inputs = substitute(node["inputs"], values)
        filled[node_id] = {**node, "inputs": inputs}
    return filled


def without_unused(workflow: Workflow, values: Values) -> Workflow:
    """Return the workflow without nodes that load a picture that there is not, and what needs them.

    A link to such a node goes; and a node that had no other links goes, too, such as one that
    scales that picture.
    """
    unused = {name for name in PICTURES if values[name] is NO_VALUE}
    gone = {node_id for node_id, node in workflow.items() if unused & find_placeholders({"": node})}
    kept = {node_id: node for node_id, node in workflow.items() if node_id not in gone}
    while gone:
        changed = {}
        for node_id, node in kept.items():
            inputs = {
                name: value for name, value in node["inputs"].items() if source(value) not in gone
            }
            if len(inputs) < len(node["inputs"]):
                changed[node_id] = {**node, "inputs": inputs}
        kept |= changed
        gone = {
            node_id
            for node_id, node in changed.items()
            if not any(map(source, node["inputs"].values()))
        }
        kept = {node_id: node for node_id, node in kept.items() if node_id not in gone}
    return kept


def source(value: Any) -> str:
    """Return the node that an input comes from; "" if it is no link, which is like ["4", 0]."""
    return str(value[0]) if isinstance(value, list) and value else ""


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
