"""Where deleted files rest, and how they come back: all files of a job, or none.

A file's place in the trash follows from the operation that deleted it, its job and its name, so no record
has to say it. The way there and back is the same as into the library: never onto another file, and across
file systems a copy that is compared.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask_comfy_files.core import durable, looking, thumbnail_cache
from flask_comfy_files.core.errors import ChecksumMismatchError
from flask_comfy_files.core.layout import PROJECTS, TRASH, is_in, split, trash_folder
from flask_comfy_files.core.placement import (
    Stored,
    checksum_of,
    drop_half_copy,
    is_in_place,
    is_recorded,
    modified_at,
    place,
    settle,
    source_of,
)
from flask_comfy_files.core.records import FileRecord, LeftFile

_log = logging.getLogger(__name__)

MoveError = OSError | ChecksumMismatchError


def place_in_trash(record: FileRecord, entry: str) -> str:
    """Return where a file rests that was deleted by an operation."""
    return f"{trash_folder(entry, str(record.job_id))}/{split(record.path)[1]}"


def into_trash(records: Iterable[FileRecord], entry: str) -> list[Stored]:
    """Return the moves that bring files into the trash; those that are gone have none."""
    return [
        as_move(record, record.path, place_in_trash(record, entry))
        for record in records
        if not record.missing
    ]


def out_of_trash(
    records: Iterable[FileRecord], entry: str, new_paths: Mapping[str, str]
) -> list[Stored]:
    """Return the moves that bring files back, to new paths where they have some by file id."""
    return [
        as_move(record, place_in_trash(record, entry), new_paths.get(record.file_id, record.path))
        for record in records
        if not record.missing
    ]


def as_move(record: FileRecord, source: str, target: str) -> Stored:
    """Return a move of a recorded file in the form in which ``placement`` takes a file's first one."""
    return {
        "file_id": record.file_id,
        "file_size": record.file_size,
        "modified_at": record.modified_at,
        "checksum": record.checksum,
        "original_path": source,
        "path": target,
    }


def back(moves: Iterable[Stored]) -> list[Stored]:
    """Return the moves that undo some moves."""
    return [
        {**stored, "original_path": stored["path"], "path": stored["original_path"]}
        for stored in moves
    ]


def folders_of(moves: Iterable[Stored]) -> list[str]:
    """Return the folders that moves change, targets first."""
    pairs = [(stored["path"], stored["original_path"]) for stored in moves]
    return list(
        dict.fromkeys(split(path)[0] for paths in zip(*pairs, strict=True) for path in paths)
    )


def carry(root: str, moves: Sequence[Stored]) -> tuple[Stored, MoveError] | None:
    """Move all files or none; return the one that could not be moved, and why. The caller syncs the folders.

    Raises:
        StorageError: What was moved could not be moved back, so that the operation is left to be finished.
    """
    for number, stored in enumerate(moves):
        try:
            place(root, as_it_lies(root, stored))
        except (OSError, ChecksumMismatchError) as error:
            _log.warning("%r could not be moved: %s", stored["original_path"], error)
            _carry_back(root, moves[:number])
            return stored, error
    return None


def _carry_back(root: str, moves: Sequence[Stored]) -> None:
    for stored in back(moves):
        try:
            place(root, as_it_lies(root, stored))
        except OSError as error:
            durable.refuse("Moving back", stored["path"], error)


def as_it_lies(root: str, stored: Stored) -> Stored:
    """Return a move with the time that its file has now, by which its copy is told from a new file.

    Somebody may have touched it since it was recorded, and it is the same file all the same.
    """
    status = durable.find_status(root, source_of(stored))
    return stored if status is None else {**stored, "modified_at": modified_at(status)}


@dataclass(slots=True)
class Finished:
    """What became of moves that a crash had interrupted."""

    is_undone: bool = False
    """Whether the files are where they came from, since one of them could not be moved."""
    overlays: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def finish(root: str, moves: Sequence[Stored]) -> Finished:
    """Bring all files of interrupted moves to their targets, or all back to where they came from.

    Raises:
        OSError: The disk refused both.
    """
    try:
        for stored in moves:
            _require_unchanged(root, stored)
        return Finished(overlays=_settle_all(root, moves))
    except (OSError, ChecksumMismatchError) as error:
        _log.warning("an interrupted move cannot be finished, and is undone: %s", error)
        undone = _settle_all(root, back(moves))
        for stored in moves:
            with contextlib.suppress(OSError):
                drop_half_copy(root, stored)
        return Finished(is_undone=True, overlays=undone)


def _require_unchanged(root: str, stored: Stored) -> None:
    """Refuse to go on with a deletion when one of its files is not any more what was looked at.

    Raises:
        OSError: It has changed, or a link hides it.
    """
    path = stored["original_path"]
    with contextlib.suppress(FileNotFoundError), durable.open_folder(root, split(path)[0]):
        pass
    status = durable.find_status(root, path)
    if status is None or is_in(path, TRASH) or is_recorded(stored, status):
        return
    if not is_in_place(root, stored) and checksum_of(root, path) != stored["checksum"]:
        raise OSError(errno.ESTALE, "it has changed since", path)


def _settle_all(root: str, moves: Sequence[Stored]) -> dict[str, Mapping[str, Any]]:
    for folder in {split(stored["path"])[0] for stored in moves}:
        durable.make_folders(root, folder)
    settled = ((stored["file_id"], _settle(root, stored)) for stored in moves)
    return {file_id: overlay for file_id, overlay in settled if overlay is not None}


def _settle(root: str, stored: Stored) -> Mapping[str, Any] | None:
    """Finish one move; what is in one place only needs not be read."""
    source = durable.find_status(root, stored["original_path"])
    target = durable.find_status(root, stored["path"])
    if source is not None and target is None:
        drop_half_copy(root, stored)
        place(root, as_it_lies(root, stored))
        return None
    if source is None and target is not None:
        return None
    overlay = settle(root, as_it_lies(root, stored))
    if overlay is not None and target is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), stored["path"])
    return overlay


def tidy(root: str, moves: Iterable[Stored]) -> int:
    """Remove the folders that moves have left empty, or have made and not used; return how many."""
    return sum(
        durable.remove_empty_folders(root, folder, TRASH if is_in(folder, TRASH) else PROJECTS)
        for folder in folders_of(moves)
    )


class Freed:
    """By how many bytes a volume grows when names are removed from it: a file goes with its last name."""

    def __init__(self) -> None:
        """Begin with none."""
        self.bytes = 0
        self._names: Counter[tuple[int, int]] = Counter()

    def count(self, status: os.stat_result) -> None:
        """Count a name that is removed, or would be."""
        inode = status.st_dev, status.st_ino
        self._names[inode] += 1
        if self._names[inode] == status.st_nlink:
            self.bytes += status.st_size


def remove(root: str, entry: str, records: Iterable[FileRecord], freed: Freed) -> list[LeftFile]:
    """Delete files of one job in the trash for good; return those that the system does not let go."""
    failed = []
    job_ids = set()
    for record in records:
        job_ids.add(record.job_id)
        # First: once the file is gone nobody comes back for them.
        thumbnail_cache.forget(root, record.checksum)
        folder, name = split(place_in_trash(record, entry))
        try:
            with durable.open_folder(root, folder) as parent:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                durable.remove(parent, name)
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.error("%r in the trash cannot be deleted: %s", f"{folder}/{name}", error)
            reason = os.strerror(error.errno or 0)
            failed.append(LeftFile(path=f"{folder}/{name}", reason=reason, bytes=record.file_size))
        else:
            if status.st_nlink == 1:
                freed.bytes += status.st_size
    for job_id in job_ids:
        durable.remove_empty_folders(root, trash_folder(entry, str(job_id)), TRASH)
    return failed


def sweep(root: str, entries: Container[str]) -> None:
    """Remove the empty folders of deletions that nothing is known of: a crash came before their line."""
    for entry in looking.names_in(root, TRASH):
        if entry not in entries:
            for job_id in looking.names_in(root, f"{TRASH}/{entry}"):
                durable.remove_empty_folders(root, trash_folder(entry, job_id), TRASH)
            durable.remove_empty_folders(root, f"{TRASH}/{entry}", TRASH)
