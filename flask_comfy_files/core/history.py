"""Which files a ComfyUI run made: those that its history names, and those beside them that it does not.

A name in the history is a claim. It holds when the file's modification time lies within the run, since
the name may by now stand for a later run's file, and when the node was not cached, since then an earlier
run wrote the file.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.attribution import (
    Attribution,
    Candidate,
    NamedFile,
    OwnerOf,
    why_not,
)
from flask_comfy_files.core.comfyui import Output, Run
from flask_comfy_files.core.errors import UnsafePathError
from flask_comfy_files.core.layout import require_relative_path, split
from flask_comfy_files.core.records import Evidence, LeftFile, SkipReason

TOLERANCE: Final = timedelta(milliseconds=50)
"""The kernel's clock for time stamps lags some milliseconds; runs of cached graphs lie 160 apart."""

_FRAME_NUMBER: Final = re.compile(r"%0([1-9])d")
_VIDEO_COMBINE: Final = re.compile(r"_[0-9]{5,}$", re.ASCII)
"""How Video Combine's counter ends a stem; the savers of ComfyUI itself put another ``_`` behind theirs."""
_DATASET_SAVERS: Final = frozenset({"SaveImageDataSetToFolder", "SaveImageTextDataSetToFolder"})


Recorded = Callable[[str], Iterable[str]]
"""Answers under which paths that begin in some way ComfyUI wrote files that are recorded."""


class Verdict(enum.Enum):
    """Whether a file's time fits a run."""

    MADE = enum.auto()
    EARLIER = enum.auto()
    LATER = enum.auto()
    UNSURE = enum.auto()
    """The time stamp is too coarse to tell; the neighbouring runs may."""


def attribute_by_history(
    root: str, job_id: str, run: Run, owner_of: OwnerOf, recorded: Recorded
) -> Attribution:
    """Return the files that a run claims, in the order in which its nodes ran, and what was passed over.

    Raises:
        OSError: A folder that it names cannot be listed.
    """
    candidates: dict[str, Candidate] = {}
    skipped = {
        path: LeftFile(path=path, reason=SkipReason.NOT_AN_OUTPUT) for path in run.passed_over
    }
    for output, is_expected in _claimed(root, run, recorded):
        reason = why_not(job_id, NamedFile(output.path), owner_of)
        if reason is not None:
            skipped[output.path] = LeftFile(path=output.path, reason=reason)
        elif owner_of(output.path) is None and output.path not in candidates:
            candidates[output.path] = Candidate(
                output.path, Evidence.HISTORY, output.node_id, is_expected=is_expected
            )
    return Attribution(tuple(candidates.values()), tuple(skipped.values()))


def _claimed(root: str, run: Run, recorded: Recorded) -> Iterator[tuple[Output, bool]]:
    """Yield files with whether the history names them; what it does not name need not be there."""
    named = {output.path for output in run.outputs}
    for output in run.outputs:
        for path in _meant_by(root, run, output, recorded):
            yield Output(path, output.node_id), not output.is_guess
        for path in siblings(output.path):
            if path not in named:
                yield Output(path, output.node_id), False
    for node_id, folder in dataset_folders(run):
        for path in _beginning(root, run, Output(f"{folder}/", node_id), recorded):
            if split(path)[0] == folder:
                yield Output(path, node_id), False


def _meant_by(root: str, run: Run, output: Output, recorded: Recorded) -> list[str]:
    """Return the paths that the name of an output stands for: its own, or those of the frames of a sequence."""
    pattern = _FRAME_NUMBER.search(split(output.path)[1])
    if pattern is None:
        return [output.path]
    beginning = Output(output.path[: output.path.rindex(pattern[0])], output.node_id)
    paths = _beginning(root, run, beginning, recorded)
    return [path for path in paths if _is_frame(output.path, pattern, path)]


def _beginning(root: str, run: Run, output: Output, recorded: Recorded) -> list[str]:
    """Return what stands on the disk; where the node was cached, also what an earlier run's job has taken."""
    found = set(_listed(root, split(output.path)[0]))
    if output.node_id in run.cached_nodes:
        found.update(recorded(output.path))
    return sorted(path for path in found if path.startswith(output.path))


def siblings(path: str) -> list[str]:
    """Return the paths at which a saver may have put something beside a file without naming it.

    Video Combine writes the first frame as PNG, and the silent clip beside the one with sound; others write
    the caption or the workflow under the same stem.
    """
    return list(_iter_siblings(path))


def _iter_siblings(path: str) -> Iterator[str]:
    stem, extension = os.path.splitext(path)
    base = stem.removesuffix("-audio")
    frames = _FRAME_NUMBER.search(split(stem)[1])
    if frames is not None:
        base = stem[: stem.rindex(frames[0])].rstrip(".")
    is_combined = _VIDEO_COMBINE.search(base) is not None
    if is_combined and (extension.lower() in _CLIPS or frames is not None):
        yield f"{base}.png"
    if is_combined and base != stem and frames is None:
        yield base + extension
    if extension.lower() not in _SIDECARS:
        yield from (stem + sidecar for sidecar in _SIDECARS)


_CLIPS: Final = frozenset({".mp4", ".webm", ".mkv", ".mov", ".gif", ".webp", ".avi", ".m4v"})
_SIDECARS: Final = (".txt", ".json", ".caption", ".csv", ".md", ".yaml", ".yml")


def _is_frame(named: str, pattern: re.Match[str], path: str) -> bool:
    """Say whether a path is one of the frames that a name with ``%03d`` stands for."""
    digits = f"[0-9]{{{pattern[1]},}}"
    return re.fullmatch(re.escape(named).replace(re.escape(pattern[0]), digits), path) is not None


def dataset_folders(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the nodes that save a data set: they name nothing, but the graph says into which folder they write."""
    for node_id, node in run.graph.items():
        match node:
            case {"class_type": str(kind), "inputs": dict(inputs)} if kind in _DATASET_SAVERS:
                with contextlib.suppress(UnsafePathError):
                    yield (
                        node_id,
                        require_relative_path("folder_name", inputs.get("folder_name")),
                    )


def makers(run: Run, path: str) -> Iterator[str]:
    """Yield the nodes of a run that were executed and may have written a file under a path."""
    for output in run.outputs:
        if output.node_id not in run.cached_nodes and _may_be_of(output.path, path):
            yield output.node_id
    for node_id, folder in dataset_folders(run):
        if node_id not in run.cached_nodes and split(path)[0] == folder:
            yield node_id


def _may_be_of(named: str, path: str) -> bool:
    pattern = _FRAME_NUMBER.search(split(named)[1])
    if pattern is not None and _is_frame(named, pattern, path):
        return True
    return path == named or path in siblings(named)


def _listed(root: str, folder: str) -> list[str]:
    try:
        with durable.open_folder(root, folder) as descriptor:
            names = os.listdir(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{folder}/{name}" if folder else name for name in names]


def judge(run: Run, modified_ns: int) -> Verdict:
    """Say whether a file was last written while a run was under way."""
    modified_at = datetime.fromtimestamp(modified_ns / 1e9, UTC)
    # A whole second may be all that the file system keeps: then the file is as old as any moment of it.
    spread = timedelta(0) if modified_ns % 1_000_000_000 else timedelta(seconds=1)
    starts, ends = run.started_at, run.finished_at
    if starts is not None and modified_at + spread < starts - TOLERANCE:
        return Verdict.EARLIER
    if ends is not None and modified_at > ends + TOLERANCE:
        return Verdict.LATER
    if starts is None or ends is None:
        return Verdict.UNSURE
    return Verdict.UNSURE if spread else Verdict.MADE


def is_the_only_one(run: Run, others: Iterable[Run], path: str, modified_ns: int) -> bool:
    """Say whether, of the runs that name a path, none but this one can have made the file there.

    ``others`` are its neighbours with itself; where it is not among them, nothing is known of them.
    """
    fitting = {
        other.prompt_id
        for other in others
        if other.prompt_id == run.prompt_id
        or (
            judge(other, modified_ns) in {Verdict.MADE, Verdict.UNSURE} and any(makers(other, path))
        )
    }
    return run.started_at is not None and fitting == {run.prompt_id}
