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
from flask_comfy_files.core.layout import INBOX, require_identifier, require_relative_path
from flask_comfy_files.core.records import StampedPrompt, UnstampedNode

TAG: Final = "comfy_files"
"""Our key in ``extra_data.extra_pnginfo``, every key of which savers embed in the files they write."""

DEEPEST: Final = 100  # levels of nesting; the workflow that the editor adds has about a dozen

_RUN: Final = re.compile(r"[0-9a-f]{4,64}")
_STRAY: Final = re.compile(r"/|(.*[/,])?\s*\.\.\s*([/,]|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saver:
    """How a class of nodes chooses the folder it writes to, by the names of its inputs."""

    field: str = "filename_prefix"  # begins the path below the output root; this is rewritten
    default: str = "ComfyUI"  # its last part where it has none; empty where it names a folder only
    roams: bool = False  # it also writes outside the output root, where ComfyUI's own savers fail
    joined: tuple[str, ...] = ()  # are put before or behind it, and could lead out again
    flat: str = ""  # the one of them that may hold no folder
    root: str = ""  # stands for the output root unless it says "output", which is put there


_PREFIX: Final = _Saver()
_DATASET: Final = _Saver(field="folder_name", default="", roams=True, joined=("filename_prefix",))
_IMAGE_SAVER: Final = _Saver(field="path", default="", roams=True, joined=("filename",))
_KJ: Final = _Saver(joined=("output_folder",), root="output_folder")
_SAVERS: Final[Mapping[str, _Saver]] = {
    # ComfyUI's own, by get_save_image_path; VideoHelperSuite goes by it too
    **dict.fromkeys(["SaveImage", "SaveImageAdvanced", "SaveText", "SaveLatent"], _PREFIX),
    **dict.fromkeys(["SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveSVGNode"], _PREFIX),
    **dict.fromkeys(["SaveVideo", "SaveWEBM", "VHS_VideoCombine", "SaveAudio"], _PREFIX),
    **dict.fromkeys(["SaveAudioMP3", "SaveAudioOpus", "SaveGLB", "Save3DAdvanced"], _PREFIX),
    "SaveLoRA": _Saver(field="prefix"),
    "SaveImageDataSetToFolder": _DATASET,
    "SaveImageTextDataSetToFolder": _DATASET,
    # alexopus/ComfyUI-Image-Saver, ComfyUI-KJNodes, was-node-suite-comfyui
    "Image Saver": _IMAGE_SAVER,
    "Image Saver Simple": _IMAGE_SAVER,
    "SaveImageKJ": _KJ,
    "SaveStringKJ": _KJ,
    "Image Save": _Saver(field="output_path", default="", roams=True, joined=("filename_prefix",)),
    # save-image-extended-comfyui, where some versions put the folder of filename_prefix first
    "SaveImageExtended": _Saver(
        field="foldername_prefix",
        roams=True,
        joined=("filename_prefix", "filename_keys", "foldername_keys"),
        flat="filename_prefix",
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
    Nothing else changes, and no argument is written to. ``run`` is 4 to 64 lower-case hexadecimal
    digits that the job never had before. ``extra_data`` is the host's, with
    ``extra_pnginfo.comfy_files`` by which the files themselves tell whose they are.

    A path that leads out of the output root is refused where ComfyUI's ``get_save_image_path`` in
    ``folder_paths.py`` would fail on it, and ``unstamped`` where a custom saver would write there;
    ``a/../b`` is ``b``, as ComfyUI reads it. A backslash is a character like any other.

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
        unstamped=tuple(_stamp_nodes(prompt, f"{INBOX}/{job_id}/{run}")),
    )


def _stamp_nodes(prompt: dict[str, Any], folder: str) -> Iterator[UnstampedNode]:
    """Rewrite the nodes of a graph of our own in place, and yield those that stay as they are."""
    for node_id, node in prompt.items():
        reason = _stamp_node(node_id, node["class_type"], node["inputs"], folder)
        if reason is not None:
            yield UnstampedNode(node_id=node_id, class_type=node["class_type"], reason=reason)


def _stamp_node(node_id: str, class_type: str, inputs: dict[str, Any], folder: str) -> str | None:
    if class_type == "Preview3D" and isinstance(inputs.get("model_file"), list):
        return "writes a model into the output folder itself, and no input of it says where"
    if class_type == "VHS_VideoCombine" and not inputs.get("save_output", True):
        return None  # it writes into ComfyUI's temp folder, and no output
    saver = _SAVERS.get(class_type, _PREFIX)
    if class_type not in _SAVERS and saver.field not in inputs:
        return None
    reason = _obstacle(inputs, saver, folder)
    if reason is not None:
        return reason
    old = inputs[saver.field]
    try:
        inputs[saver.field] = _below(folder, old, saver.default)
    except UnsafePathError as error:
        if saver.roams:
            return f"{saver.field} {quoted(old)} {error.problem}"
        where = f"({saver.field} of node {quoted(node_id)})"
        raise InvalidInputError("prompt", old, f"{where} {error.problem}") from error
    if saver.root and saver.root in inputs:
        inputs[saver.root] = "output"
    return None


def _obstacle(inputs: Mapping[str, Any], saver: _Saver, folder: str) -> str | None:
    """Say why a node would not write where its path says, or ``None`` when it would."""
    path = inputs.get(saver.field)
    if path is None:
        return f"has no {saver.field} that could be rewritten"
    if isinstance(path, list):
        return f"{saver.field} comes from another node, so it is known only when the workflow runs"
    if not isinstance(path, str):
        return f"{saver.field} is no text but {reprlib.repr(path)}"
    for field in saver.joined:
        text = inputs.get(field, "")
        if isinstance(text, str) and (_STRAY.match(text) or (field == saver.flat and "/" in text)):
            return f"{field} {quoted(text)} leads out of the folder that the job would get"
    if saver.flat and re.search("[_-][/.]", f"{folder}/"):
        return "drops a delimiter before a slash or a dot, as there is one in the job's folder"
    return None


def _below(folder: str, path: str, default: str) -> str:
    """Return a path of a saver, moved from the output root into a folder below it."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part == ".." or (part == "" and path.startswith("/")):
            problem = "leads out of the output folder; give a relative path without '..'"
            raise UnsafePathError("prompt", path, problem)
        elif part not in {"", "."}:
            parts.append(part)
    if default and path.rpartition("/")[2] in {"", ".", ".."}:
        parts.append(default)
    kept = 1 if default else 0
    if parts[:1] == [INBOX] and len(parts) >= 2 + kept:  # an earlier stamp
        again = len(parts) > 2 + kept and _RUN.fullmatch(parts[2])
        del parts[: 3 if again else 2]
    return require_relative_path("prompt", "/".join([folder, *parts]))


def _with_tag(extra_data: Mapping[str, Any] | None, tag: dict[str, str | None]) -> dict[str, Any]:
    merged = _copied("extra_data", {} if extra_data is None else extra_data)
    embedded = merged.get("extra_pnginfo") if isinstance(merged, dict) else merged
    if not isinstance(embedded, dict | None):
        problem = "is no mapping, as extra_data and the extra_pnginfo in it have to be"
        raise InvalidInputError("extra_data", reprlib.repr(embedded), problem)
    return {**merged, "extra_pnginfo": {**(embedded or {}), TAG: tag}}


def _read_graph(graph: object) -> dict[str, Any]:
    """Return a deep copy of a graph in ComfyUI's API format."""
    nodes = _copied("prompt", graph)
    if not isinstance(nodes, dict):
        problem = "is no graph in ComfyUI's API format, which maps node ids to nodes"
        raise InvalidInputError("prompt", reprlib.repr(nodes), problem)
    if isinstance(nodes.get("nodes"), list):
        problem = (
            'is a workflow as the editor saves it; choose "Export (API)" in ComfyUI and send that'
        )
        raise InvalidInputError("prompt", f"{{{', '.join(nodes)}}}", problem)
    for node_id, node in nodes.items():
        match node:
            case {"class_type": str(), "inputs": dict()}:
                continue
        problem = "is no node in ComfyUI's API format, with class_type and a mapping of inputs"
        raise InvalidInputError("prompt", node_id, problem)
    return nodes


def _copied(field: str, value: object, part: str = "", depth: int = 0) -> Any:
    """Return a deep copy of a JSON value; ``part`` is the top-level key under which it stands."""
    if isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    problem = "is not JSON, whose keys are text and whose numbers are finite"
    if depth > DEEPEST:
        problem = f"is nested more than {DEEPEST} levels deep"
    elif isinstance(value, list | tuple):
        return [_copied(field, item, part, depth + 1) for item in value]
    elif isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _copied(field, item, part or key, depth + 1) for key, item in value.items()}
    place = f"(in {quoted(part)}) " if part else ""
    raise InvalidInputError(field, reprlib.repr(value), f"{place}{problem}")
