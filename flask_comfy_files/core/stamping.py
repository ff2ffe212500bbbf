"""Point a workflow's save nodes at a folder of their own before it is queued. Touches no disk.

A file in ``inbox/{job_id}/{run}/`` belongs to that job by construction: nothing else writes there, so
no name is used twice, and a save node whose folder changed runs again even when ComfyUI has cached
everything before it. What cannot be pointed there is named, never passed over.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.errors import InvalidInputError, UnsafePathError, quoted
from flask_comfy_files.core.layout import (
    INBOX,
    inbox_folder,
    require_identifier,
    require_relative_path,
)

TAG: Final = "comfy_files"
"""Our key in ``extra_data.extra_pnginfo``, every key of which savers embed in the files they write."""

DEEPEST: Final = (
    100  # levels of nesting; the editor's own workflow, the deepest we know, has a dozen
)

_RUN: Final = re.compile(r"[0-9a-f]{4,64}", re.ASCII)
_API_FORMAT: Final = (
    "is no graph in ComfyUI's API format, which maps node ids to class_type and inputs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstampedNode:
    """An output node whose files will not lie in the job's inbox, and why."""

    node_id: str
    class_type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StampedPrompt:
    """What to send to ComfyUI's ``POST /prompt``; ``unstamped`` is in the order of the graph."""

    prompt: dict[str, Any]
    extra_data: dict[str, Any]
    run: str
    unstamped: tuple[UnstampedNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saver:
    """How a class of nodes chooses the folder it writes to."""

    field: str = "filename_prefix"
    """The input that begins the path below the output root; it is rewritten."""
    default: str = "ComfyUI"
    """The name where that input has none; empty where the input may name a folder only."""
    leaves_root: bool = False
    """It writes outside the output root when told to, where ComfyUI's own savers fail."""
    joined: tuple[str, ...] = ()
    """Inputs that are put behind ``field`` and could lead out of the folder again."""
    flat: str = ""
    """The input among ``joined`` that may hold no folder, since some versions put it before ``field``."""
    delimiter: str = ""
    """The input whose first character is dropped from the path beside a slash and before a dot."""
    root: str = ""
    """The input that replaces the output root, unless it says ``output``."""


_PREFIX: Final = _Saver()
_DATASET: Final = _Saver(
    field="folder_name", default="", leaves_root=True, joined=("filename_prefix",)
)
_IMAGE_SAVER: Final = _Saver(field="path", default="", leaves_root=True, joined=("filename",))
_KJ: Final = _Saver(root="output_folder")
_SAVERS: Final[Mapping[str, _Saver]] = {
    # ComfyUI: nodes.py and comfy_extras, by folder_paths.get_save_image_path
    "SaveImage": _PREFIX,
    "SaveImageAdvanced": _PREFIX,
    "SaveAnimatedWEBP": _PREFIX,
    "SaveAnimatedPNG": _PREFIX,
    "SaveVideo": _PREFIX,
    "SaveWEBM": _PREFIX,
    "SaveSVGNode": _PREFIX,
    "SaveAudio": _PREFIX,
    "SaveAudioMP3": _PREFIX,
    "SaveAudioOpus": _PREFIX,
    "SaveText": _PREFIX,
    "SaveLatent": _PREFIX,
    "SaveGLB": _PREFIX,
    "Save3DAdvanced": _PREFIX,
    "SaveLoRA": _Saver(field="prefix"),
    # ComfyUI: comfy_extras/nodes_dataset.py
    "SaveImageDataSetToFolder": _DATASET,
    "SaveImageTextDataSetToFolder": _DATASET,
    # VideoHelperSuite, alexopus/ComfyUI-Image-Saver, ComfyUI-KJNodes, was-node-suite-comfyui
    "VHS_VideoCombine": _PREFIX,
    "Image Saver": _IMAGE_SAVER,
    "Image Saver Simple": _IMAGE_SAVER,
    "SaveImageKJ": _KJ,
    "SaveStringKJ": _KJ,
    "Image Save": _Saver(
        field="output_path", default="", leaves_root=True, joined=("filename_prefix",)
    ),
    # save-image-extended-comfyui
    "SaveImageExtended": _Saver(
        field="foldername_prefix",
        leaves_root=True,
        joined=("filename_prefix", "filename_keys", "foldername_keys"),
        flat="filename_prefix",
        delimiter="delimiter",
    ),
}


def stamp_prompt(
    graph: Mapping[str, Any],
    *,
    job_id: str,
    project_id: str | None,
    run: str,
    extra_data: Mapping[str, Any] | None = None,
) -> StampedPrompt:
    """Return a copy of a graph that writes into ``inbox/{job_id}/{run}/``, and the data to queue with it.

    ``graph`` is in ComfyUI's API format. Every input that begins a saver's path is put behind that
    folder, ``filename_prefix`` in nodes of any class; the folder of an earlier stamp is replaced.
    Nothing else changes, and neither argument is written to. ``run`` is made by the caller, 4 to 64
    lower-case hexadecimal digits that the job never had before. ``extra_data`` is the host's with
    ``extra_pnginfo.comfy_files`` added, by which the files themselves tell whose they are.

    A path that leads out of the output root by ``/`` or ``..`` is refused where ComfyUI's
    ``folder_paths.get_save_image_path`` would fail on it, and ``unstamped`` where a custom saver would write
    there; ``a/../b`` is ``b``, as ComfyUI reads it. A backslash is a character like any other.

    Raises:
        InvalidIdentifierError: ``job_id`` or ``project_id`` cannot name a folder.
        InvalidInputError: The graph is in another format, it or ``extra_data`` is not JSON, or a
        prefix cannot be a path; the error quotes it and names the node.
    """
    require_identifier("job_id", job_id)
    if project_id is not None:
        require_identifier("project_id", project_id)
    if _RUN.fullmatch(run) is None:
        raise InvalidInputError("run", run, "is not 4 to 64 lower-case hexadecimal digits")
    prompt = _read_graph(graph)
    tag = {"job_id": job_id, "project_id": project_id, "run": run}
    return StampedPrompt(
        prompt=prompt,
        extra_data=_with_tag(extra_data, tag),
        run=run,
        unstamped=tuple(_stamp_nodes(prompt, f"{inbox_folder(job_id)}/{run}")),
    )


def inbox_run_of(path: str) -> tuple[str, str] | None:
    """Return the job and the run in whose folder a file's path lies, or ``None``."""
    parts = path.split("/")
    if len(parts) < 4 or parts[0] != INBOX or _RUN.fullmatch(parts[2]) is None:  # noqa: PLR2004 - inbox/{job}/{run}/…
        return None
    return parts[1], parts[2]


def _stamp_nodes(prompt: dict[str, Any], folder: str) -> Iterator[UnstampedNode]:
    """Rewrite the nodes of a graph of our own in place, and yield those that stay as they are."""
    for node_id, node in prompt.items():
        reason = _stamp_node(node_id, node["class_type"], node["inputs"], folder)
        if reason is not None:
            yield UnstampedNode(node_id=node_id, class_type=node["class_type"], reason=reason)


def _stamp_node(node_id: str, class_type: str, inputs: dict[str, Any], folder: str) -> str | None:
    if class_type == "Preview3D" and not isinstance(inputs.get("model_file"), str):
        return "writes a model into the output folder itself, and no input of it says where"
    if class_type == "VHS_VideoCombine" and not inputs.get("save_output", True):
        return None  # it writes into ComfyUI's temp folder, and no output
    saver = _SAVERS.get(class_type, _PREFIX)
    if class_type not in _SAVERS and saver.field not in inputs:
        return None
    reason = (
        _not_text(inputs, saver.field)
        or _other_root(inputs, saver)
        or _strays(inputs, saver, folder)
    )
    if reason is not None:
        return reason
    path = _below(folder, inputs[saver.field], saver.default)
    if path is None and saver.leaves_root:
        return (
            f"{saver.field} {quoted(inputs[saver.field])} lies outside the output folder; "
            "a relative one can be stamped"
        )
    inputs[saver.field] = _checked(node_id, saver.field, inputs[saver.field], path)
    if saver.root in inputs:
        inputs[saver.root] = "output"
    return None


def _not_text(inputs: Mapping[str, Any], field: str) -> str | None:
    value = inputs.get(field)
    if isinstance(value, str):
        return None
    if value is None:
        return f"has no {field} that could be rewritten"
    if isinstance(value, list):
        return f"{field} comes from another node, so it is known only when the workflow runs"
    return f"{field} {quoted(reprlib.repr(value))} is not text"


def _other_root(inputs: Mapping[str, Any], saver: _Saver) -> str | None:
    if saver.root not in inputs:
        return None
    if not isinstance(inputs[saver.root], str):
        return _not_text(inputs, saver.root)
    if inputs[saver.root].startswith("/"):
        return f"{saver.root} {quoted(inputs[saver.root])} lies outside the output folder"
    return None


def _strays(inputs: Mapping[str, Any], saver: _Saver, folder: str) -> str | None:
    """Say why a saver would not stay in a folder that it is given, or return ``None``."""
    for field in saver.joined:
        text = inputs.get(field)
        if isinstance(text, str) and (
            text.startswith("/")
            or (field == saver.flat and "/" in text)
            or ".." in {part.strip() for part in re.split("[/,]", text)}
        ):
            return f"{field} {quoted(text)} would lead out of the job's folder"
    mark = str(inputs.get(saver.delimiter, ""))[:1]
    if mark and any(pair in f"/{folder}/" for pair in (f"/{mark}", f"{mark}/", f"{mark}.")):
        return f"{saver.delimiter} {quoted(mark)} would change the name of the job's folder"
    return None


def _below(folder: str, path: str, default: str) -> str | None:
    """Return a path moved into the folder, or ``None`` when it leads out of the output root."""
    if path.startswith("/"):
        return None
    parts: list[str] = []
    for part in path.split("/"):
        if part != "..":
            parts += [part] if part not in {"", "."} else []
        elif parts:
            parts.pop()
        else:
            return None
    if default and path.rpartition("/")[2] in {"", ".", ".."}:
        parts.append(default)
    return "/".join([folder, *_without_stamp(parts, 1 if default else 0)])


def _without_stamp(parts: list[str], kept: int) -> list[str]:
    """Return a path without the folders of an earlier stamp; the last ``kept`` parts always stay."""
    if parts[:1] == [INBOX] and len(parts) >= 2 + kept:
        parts = parts[2:]
        if len(parts) > kept and _RUN.fullmatch(parts[0]):
            parts = parts[1:]
    return parts


def _checked(node_id: str, field: str, old: str, path: str | None) -> str:
    """Return a path that a file system takes, or refuse the input it was made of."""
    where = f"({field} of node {quoted(node_id)})"
    if path is None:
        raise InvalidInputError(
            "prompt",
            old,
            f"{where} leads out of the output folder, where ComfyUI saves nothing; "
            "give a relative path without '..'",
        )
    try:
        return require_relative_path("prompt", path)
    except UnsafePathError as error:
        raise InvalidInputError("prompt", old, f"{where} {error.problem}") from error


def _with_tag(extra_data: Mapping[str, Any] | None, tag: dict[str, str | None]) -> dict[str, Any]:
    merged = _read_mapping("extra_data", {} if extra_data is None else extra_data)
    embedded = merged.get("extra_pnginfo")
    if embedded is not None and not isinstance(embedded, dict):
        raise InvalidInputError(
            "extra_data", reprlib.repr(embedded), "(extra_pnginfo) is no mapping"
        )
    merged["extra_pnginfo"] = {**(embedded or {}), TAG: tag}
    return merged


def _read_graph(graph: object) -> dict[str, Any]:
    if not isinstance(graph, Mapping):
        raise InvalidInputError("prompt", reprlib.repr(graph), _API_FORMAT)
    if isinstance(graph.get("nodes"), list):
        problem = (
            'is a workflow as ComfyUI\'s editor saves it; choose "Export (API)" there and send that'
        )
        raise InvalidInputError("prompt", reprlib.repr(list(graph)), problem)
    if isinstance(graph.get("prompt"), Mapping) and "class_type" not in graph["prompt"]:
        problem = "is a whole request to ComfyUI; send only what stands under 'prompt'"
        raise InvalidInputError("prompt", reprlib.repr(list(graph)), problem)
    copied = _read_mapping("prompt", graph)
    for node_id, node in copied.items():
        if not isinstance(node, dict):
            raise InvalidInputError("prompt", node_id, _API_FORMAT)
        if not isinstance(node.get("class_type"), str):
            raise InvalidInputError("prompt", node_id, "is a node without a class_type")
        if not isinstance(node.get("inputs"), dict):
            raise InvalidInputError("prompt", node_id, "is a node without a mapping of inputs")
    return copied


def _read_mapping(field: str, mapping: object) -> dict[str, Any]:
    """Return a deep copy of a mapping of JSON values."""
    if not isinstance(mapping, Mapping):
        raise InvalidInputError(field, reprlib.repr(mapping), "is no mapping")
    return {_json_key(field, key): _json_copy(field, key, item, 1) for key, item in mapping.items()}


def _json_key(field: str, key: object) -> str:
    if not isinstance(key, str):
        raise InvalidInputError(field, reprlib.repr(key), "is no key in JSON; keys are strings")
    return key


def _json_copy(field: str, part: str, value: object, depth: int) -> Any:
    """Return a deep copy of a JSON value; ``part`` is the top-level key under which it stands."""
    if depth > DEEPEST:
        raise InvalidInputError(field, part, f"is nested more than {DEEPEST} levels deep")
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        return {
            _json_key(field, key): _json_copy(field, part, item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_json_copy(field, part, item, depth + 1) for item in value]
    raise InvalidInputError(field, reprlib.repr(value), f"(in {quoted(part)}) is no JSON value")
