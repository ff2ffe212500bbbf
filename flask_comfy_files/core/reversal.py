"""Moving files in the wake of an undo, and finishing that after a crash.

A file that leaves the library again has an overlay that withdraws its record, says where the file goes, and holds
the record, so that undoing the undo brings back both. The order of effects is that of organizing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask_comfy_files.core import durable, trash
from flask_comfy_files.core.catalog.document import Change
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.errors import ChecksumMismatchError
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.layout import LEGACY, PROJECTS, file_path, is_in, split
from flask_comfy_files.core.legacy import given_back_line
from flask_comfy_files.core.placement import (
    MISSING,
    Stored,
    checksum_of,
    drop_half_copy,
    free_path_beside,
    is_in_place,
    is_shared,
    place,
    settle,
)
from flask_comfy_files.core.records import FileRecord, LeftFile, file_from_stored, file_to_stored

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One file of an undo: where it goes, and the lines that take that back if it cannot go there."""

    path: str
    """Where it lies."""
    size: int
    move: Stored | None
    """``None`` where only this name of it goes, since another record has its bytes."""
    corrections: Sequence[Change]


def leaving(record: FileRecord, moved_to: str | None) -> dict[str, Any]:
    """Return the overlay of a file that leaves the library for a path; without one, only its name goes."""
    return {"withdrawn": True, "moved_to": moved_to, "record": file_to_stored(record)}


def taking_back(reader: Reader, record: FileRecord, operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line that gives a record back that was to leave, with those who share its bytes."""
    sharers = reader.sharers_of(record.file_id)
    twins = {file_id: {"same_file_as": record.file_id} for file_id in sharers}
    line = given_back_line(record, operation)
    return {**line, "twins": twins} if twins else line


def find_twin(
    root: str, reader: Reader, record: FileRecord, going: Iterable[str]
) -> FileRecord | None:
    """Return another record that has the same bytes, after reading them, and does not go itself."""
    wanted = [record.same_file_as] if record.same_file_as else reader.sharers_of(record.file_id)
    others = reader.files_with_ids(set(wanted) - {*going, record.file_id})
    for other in others.values():
        if other.path != record.path and checksum_of(root, other.path) == record.checksum:
            return other
    return None


def carry_out(
    root: str,
    writer: Writer,
    changes: Sequence[Change],
    steps: Sequence[Step],
    touched: Iterable[str],
) -> list[LeftFile | None]:
    """Append the lines, move their files, and let readers see them; the folders must be there.

    ``touched`` are folders that have got new ones for it.

    Returns:
        For each step why it failed, or ``None``.

    Raises:
        OSError: The disk refused; the next change finishes what was recorded.
    """
    if not changes:
        return []
    lines = writer.append(changes)
    failures = [_take(root, step) for step in steps]
    targets = [step.move["path"] for step in steps if step.move is not None]
    folders = [split(path)[0] for path in (*targets, *(step.path for step in steps))]
    durable.sync_folders(root, dict.fromkeys([*folders, *touched]))
    failed = [step for step, failure in zip(steps, failures, strict=True) if failure is not None]
    lines += writer.append([change for step in failed for change in step.corrections])
    writer.advance(lines)
    tidy(root, (step.path for step in steps))
    return failures


def _take(root: str, step: Step) -> LeftFile | None:
    move = step.move
    try:
        if move is None:
            _remove(root, step.path)
        elif is_shared(move):
            place(root, move)
        elif move["path"] != step.path:
            place(root, trash.as_it_lies(root, move))
    except ChecksumMismatchError as error:
        return LeftFile(path=step.path, reason=error.code, bytes=step.size)
    except OSError as error:
        _log.warning("%r could not be moved and was left in place: %s", step.path, error)
        return Failure(step.path, step.size, error).as_left()
    return None


def _remove(root: str, path: str) -> None:
    folder, name = split(path)
    with durable.open_folder(root, folder) as parent:
        durable.remove(parent, name)


def tidy(root: str, paths: Iterable[str]) -> None:
    """Remove the folders of the library that are empty without the files that lay in them."""
    for folder in dict.fromkeys(split(path)[0] for path in paths):
        for top in (PROJECTS, LEGACY):
            if is_in(folder, top):
                durable.remove_empty_folders(root, folder, top)


def _leaving(change: Change) -> dict[str, Mapping[str, Any]]:
    """Return the overlays of a line by which files leave the library, by their ids."""
    if change["kind"] != "state":
        return {}
    overlays: Mapping[str, Mapping[str, Any]] = change.get("files", {})
    return {file_id: overlay for file_id, overlay in overlays.items() if "record" in overlay}


def paths_of(change: Change) -> list[str]:
    """Return the paths between which files leave the library by a line."""
    overlays = _leaving(change).values()
    pairs = [(overlay["moved_to"], overlay["record"]["path"]) for overlay in overlays]
    return [path for paths in pairs for path in paths if path is not None]


def finish(
    root: str, writer: Writer, change: Change, operation: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Bring the files that a line takes out of the library to where it says; return what corrects it.

    Raises:
        OSError: The disk refused.
    """
    corrections: list[dict[str, Any]] = []
    for file_id, overlay in _leaving(change).items():
        stored = overlay["record"]
        record = file_from_stored(stored, file_path(root, stored["path"]))
        if overlay["moved_to"] is None:
            corrections += _finish_removal(root, writer, record, operation)
            continue
        move = trash.as_move(record, record.path, overlay["moved_to"])
        outcome, found = _settle(root, writer, trash.as_it_lies(root, move))
        if outcome is None and found["path"] == overlay["moved_to"]:
            continue
        said = {"kind": "state", "job_id": change["job_id"], "operation": operation}
        if outcome is None:
            corrections.append({**said, "files": {file_id: leaving(record, found["path"])}})
            continue
        corrections.append(taking_back(writer, record, operation))
        if outcome is MISSING:
            corrections.append({**said, "files": {file_id: MISSING}})
    tidy(root, paths_of(change))
    return corrections


_STAYS: Mapping[str, Any] = {}
"""What became of a file that could not be moved."""


def _settle(root: str, writer: Writer, move: Stored) -> tuple[Mapping[str, Any] | None, Stored]:
    """Finish one move, beside the target where that is taken; return what came of it, and the move."""
    try:
        try:
            return settle(root, move), move
        except FileExistsError:
            beside = free_path_beside(
                root, move["path"], lambda path: writer.owner_of(path) is not None
            )
            move = {**move, "path": beside}
            return settle(root, move), move
    except (OSError, ChecksumMismatchError) as error:
        is_untouched = durable.find_status(root, move["original_path"]) is not None
        if is_untouched and not is_in_place(root, move):
            _log.error("%r stays where it is: %s", move["original_path"], error)
            drop_half_copy(root, move)
            return _STAYS, move
        raise


def _finish_removal(
    root: str, writer: Writer, record: FileRecord, operation: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Remove a name whose bytes another record has; if none has them any more, it stays."""
    if durable.find_status(root, record.path) is None:
        return []
    if find_twin(root, writer, record, ()) is None:
        return [taking_back(writer, record, operation)]
    _remove(root, record.path)
    return []
