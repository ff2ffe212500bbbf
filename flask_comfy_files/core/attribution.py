"""Which files belong to a job, and by which evidence. Looks, and moves nothing.

The rules are those of ``docs/concepts/attribution.md``: files that the caller names are taken and
nothing else; without them everything in the job's inbox, and every file whose name begins with the
job's id in a way that no other job's name could.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.layout import (
    COMFYUI_PLACEHOLDER,
    INBOX,
    LEGACY,
    LONGEST_ID,
    PROJECTS,
    STATE,
    inbox_folder,
    inbox_owner,
    is_reserved,
    require_relative_path,
    split,
)
from flask_comfy_files.core.records import Evidence, LeftFile, SkipReason

_SEPARATORS: Final = "_-. "
# SaveImage 00001_, Video Combine 00001, save-image-extended 0001, a clip with sound 00001-audio, a
# frame 00001.001.
_COUNTER: Final = re.compile(r"[0-9]{4,6}(_|-audio|\.[0-9]{3,})?", re.ASCII)
_NUMBERS: Final = re.compile(r"([0-9]+)")
COMFYUI_TYPES: Final = frozenset({"output", "temp", "input"})
NOT_SCANNED: Final = frozenset({PROJECTS, LEGACY, INBOX, STATE})
"""The library's own folders, in which nothing is looked for."""


OwnerOf = Callable[[str], tuple[str | None] | None]
"""Answers which job a recorded path belongs to: a tuple with it, or ``None`` where nothing is recorded."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may belong to a job; ``path`` is where ComfyUI wrote it, relative to the output root.

    ``node_id`` is the node whose output names it, where the history does. One that is not
    ``is_expected`` may be missing without a word. The file of a cached run is ``shared``: it lies at
    another job's path, or is still to be that job's, and is linked and not moved.
    """

    path: str
    evidence: Evidence
    node_id: str | None = None
    is_expected: bool = True
    shared: Shared | None = None

    @property
    def source(self) -> str:
        """Where the bytes lie now."""
        return self.path if self.shared is None else self.shared.path


@dataclass(frozen=True, slots=True)
class Shared:
    """A file that another job has, or will have: where it lies, and its record's id where there is one."""

    path: str
    file_id: str | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """The candidates of a job in the order of the caller or of their counters, and what was passed over."""

    candidates: tuple[Candidate, ...] = ()
    skipped: tuple[LeftFile, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file as the caller named it, checked."""

    path: str
    comfyui_type: str = "output"


def require_named_files(files: object) -> tuple[NamedFile, ...]:
    """Check what a caller names: relative paths, or ComfyUI's ``{"filename", "subfolder", "type"}``.

    Other keys of such an object are passed over, as ComfyUI's nodes add their own.

    Raises:
        InvalidInputError: An entry is neither; the error names it by its place.
        UnsafePathError: A path is absolute or leads out of the output root.
    """
    if isinstance(files, str | bytes | Mapping) or not isinstance(files, Iterable):
        raise InvalidInputError("files", files, "is not a list of files")
    return tuple(_require_named_file(f"files[{place}]", entry) for place, entry in enumerate(files))


def _require_named_file(field: str, entry: object) -> NamedFile:
    if isinstance(entry, str | os.PathLike):
        return NamedFile(require_relative_path(field, os.fspath(entry)))
    if not isinstance(entry, Mapping):
        raise InvalidInputError(field, entry, 'is neither a path nor an object with "filename"')
    comfyui_type = entry.get("type", "output")
    if not isinstance(comfyui_type, str) or comfyui_type not in COMFYUI_TYPES:
        raise InvalidInputError(
            f"{field}.type", comfyui_type, 'is not one of "output", "temp" and "input"'
        )
    filename, subfolder = entry.get("filename"), entry.get("subfolder", "")
    path = require_relative_path(f"{field}.filename", filename)
    if subfolder not in ("", None):
        path = f"{require_relative_path(f'{field}.subfolder', subfolder)}/{path}"
    return NamedFile(path, comfyui_type)


def attribute_named(job_id: str, named: Sequence[NamedFile], owner_of: OwnerOf) -> Attribution:
    """Return the files that the caller named, each once, in the caller's order."""
    candidates: dict[str, Candidate] = {}
    skipped: dict[str, LeftFile] = {}
    for entry in named:
        reason = why_not(job_id, entry, owner_of)
        if reason is not None:
            skipped[entry.path] = LeftFile(path=entry.path, reason=reason)
        elif owner_of(entry.path) is None:
            candidates[entry.path] = Candidate(entry.path, Evidence.FILES)
    return Attribution(tuple(candidates.values()), tuple(skipped.values()))


def why_not(job_id: str, entry: NamedFile, owner_of: OwnerOf) -> SkipReason | None:
    """Return why a named file cannot be the job's, whatever stands there; ``None`` when it can."""
    if entry.comfyui_type != "output":
        return SkipReason.NOT_AN_OUTPUT
    if split(entry.path)[1] == COMFYUI_PLACEHOLDER:
        return SkipReason.PLACEHOLDER
    if is_reserved(entry.path):
        return SkipReason.RESERVED
    if inbox_owner(entry.path) not in {None, job_id} or owner_of(entry.path) not in {
        None,
        (job_id,),
    }:
        return SkipReason.BELONGS_TO_ANOTHER_JOB
    return None


def attribute_by_scan(
    root: str, job_id: str, known_among: Callable[[Iterable[str]], set[str]]
) -> Attribution:
    """Look through the output root once for files that are the job's by inbox or by name.

    ``known_among`` answers which of some ids are known jobs: a longer id that also fits a name
    wins.

    Raises:
        OSError: The output root cannot be listed.
    """
    found = [(path, Evidence.INBOX) for path in _iter_files(root, inbox_folder(job_id))]
    ambiguous: list[tuple[str, Evidence]] = []
    for path in _iter_files(root, ""):
        match = _Match.FOREIGN if is_reserved(path) else _match(job_id, path)
        if match is not _Match.FOREIGN and not known_among(_longer_ids(job_id, path)):
            (found if match is _Match.OWN else ambiguous).append((path, Evidence.PREFIX))
    found.sort(key=lambda entry: (entry[1] is Evidence.PREFIX, counter_order(entry[0])))
    skipped = [LeftFile(path=path, reason=SkipReason.AMBIGUOUS_PREFIX) for path, _ in ambiguous]
    candidates = []
    for path, evidence in found:
        reason = unfit_name(split(path)[1])
        if reason is None:
            candidates.append(Candidate(path, evidence))
        else:
            skipped.append(LeftFile(path=path, reason=reason))
    return Attribution(tuple(candidates), tuple(skipped))


def _iter_files(root: str, folder: str) -> Iterator[str]:
    """Yield what is no folder below a folder; a folder that is not there, or is a link, holds nothing."""
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        with contextlib.ExitStack() as stack:
            try:
                descriptor = stack.enter_context(durable.open_folder(root, inside))
                entries = stack.enter_context(os.scandir(descriptor))
            except OSError:
                if not inside:
                    raise
                continue
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if not entry.is_dir(follow_symlinks=False):
                    yield path
                elif path not in NOT_SCANNED and (folder or not entry.name.startswith(".")):
                    waiting.append(path)


class _Match(enum.Enum):
    OWN = enum.auto()
    AMBIGUOUS = enum.auto()
    FOREIGN = enum.auto()


def _match(job_id: str, path: str) -> _Match:
    if job_id not in path:
        return _Match.FOREIGN
    folder, name = split(path)
    if job_id in folder.split("/"):
        return _Match.OWN
    stem = os.path.splitext(name)[0]
    if not stem.startswith(job_id):
        return _Match.FOREIGN
    remainder = stem[len(job_id) :]
    if not remainder:
        return _Match.OWN
    if remainder[0] not in _SEPARATORS:
        return _Match.FOREIGN
    rest = remainder.lstrip(_SEPARATORS)
    is_own = rest[:1].isalpha() or _COUNTER.fullmatch(rest) is not None
    return _Match.OWN if is_own else _Match.AMBIGUOUS


def _longer_ids(job_id: str, path: str) -> list[str]:
    """Return every id longer than the job's by which the name could also begin."""
    stem = os.path.splitext(split(path)[1])[0]
    if not stem.startswith(job_id):
        return []
    ends = range(len(job_id) + 1, min(len(stem), LONGEST_ID) + 1)
    return [stem[:end] for end in ends if end == len(stem) or stem[end] in _SEPARATORS]


def unfit_name(name: str) -> SkipReason | None:
    """Say why a name that nobody gave us is not looked at."""
    if name == COMFYUI_PLACEHOLDER:
        return SkipReason.PLACEHOLDER
    if name.startswith("."):
        return SkipReason.HIDDEN
    return SkipReason.UNFINISHED_NAME if name.endswith(".part") else None


def counter_order(path: str) -> list[Any]:
    """Return the key by which names sort as their counters count: ``_2_`` before ``_10_``."""
    parts = _NUMBERS.split(path)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)] + [path]
