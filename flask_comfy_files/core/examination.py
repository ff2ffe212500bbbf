"""Looking at a job's files before they are deleted: only what is as it was recorded may go. Changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.inspection import Failure, why_not_regular
from flask_comfy_files.core.layout import is_organized, job_folder, split
from flask_comfy_files.core.placement import checksum_of, is_recorded
from flask_comfy_files.core.records import FileRecord, LeftFile, SkipReason, file_to_stored


@dataclass(slots=True)
class Examined:
    """A job's files, by what may become of them."""

    job_id: str
    project_id: str
    doomed: list[FileRecord] = field(default_factory=list)
    """They are what their records say, and may go."""
    gone: list[FileRecord] = field(default_factory=list)
    """They are not there any more; their records may go."""
    held: list[tuple[FileRecord, LeftFile]] = field(default_factory=list)
    """They are not what their records say, and stay."""
    failed: list[tuple[FileRecord, LeftFile]] = field(default_factory=list)
    """The system does not let us look at them, and they stay."""
    again: str | None = None
    """The id of the deletion from which they had come back, where they go to the trash once more."""
    untracked: list[LeftFile] = field(default_factory=list)
    """What else lies in the job's folder, and stays."""

    @property
    def kept(self) -> dict[str, str]:
        """Why files stay, by their id."""
        return {record.file_id: left.reason for record, left in (*self.held, *self.failed)}

    @property
    def skipped(self) -> tuple[LeftFile, ...]:
        """What is gone already, or stays, and why."""
        gone = [_left(record, SkipReason.ALREADY_GONE) for record in self.gone]
        return (*gone, *(left for _, left in self.held), *self.untracked)

    @property
    def size(self) -> int:
        """The bytes of the files that may go."""
        return sum(record.file_size for record in self.doomed)

    has_folder: bool = True

    @property
    def empties_folder(self) -> bool:
        """Whether the job's folder is there, and empty once the doomed files have gone."""
        return self.has_folder and not (self.held or self.failed or self.untracked)


def examine(root: str, job_id: str, project_id: str, records: Sequence[FileRecord]) -> Examined:
    """Look at all files of a job, and at what else lies in its folder."""
    examined = Examined(job_id, project_id)
    for record in records:
        _sort_in(root, record, examined)
    known = {split(record.path)[1] for record in records}
    folder = job_folder(project_id, job_id)
    try:
        entries = looking.list_folder(root, folder)
    except OSError:
        entries = []  # what lies in it was told already, file by file
        examined.has_folder = False
    examined.untracked = [
        LeftFile(path=f"{folder}/{name}", reason=SkipReason.UNTRACKED, bytes=status.st_size)
        for name, status in sorted(entries)
        if name not in known
    ]
    return examined


def _sort_in(root: str, record: FileRecord, examined: Examined) -> None:
    owner = examined.project_id, examined.job_id
    is_own = (record.project_id, record.job_id) == owner and is_organized(record.path, *owner)
    if not is_own:
        examined.held.append((record, _left(record, SkipReason.OUTSIDE_LIBRARY)))
        return
    try:
        status = durable.find_status(root, record.path)
        reason = why_unseen(root, record.path) if status is None else why_held(root, record, status)
    except OSError as error:
        failure = Failure(record.path, record.file_size, error).as_left()
        examined.failed.append((record, failure))
        return
    if reason is not None:
        examined.held.append((record, _left(record, reason)))
    elif status is None:
        examined.gone.append(record)
    else:
        examined.doomed.append(record)


def why_unseen(root: str, path: str) -> SkipReason | None:
    """Say why a file that we do not see need not be gone: a link stands in the place of a folder above it."""
    folder, _ = split(path)
    while folder:
        status = durable.find_status(root, folder)
        if status is not None:
            return SkipReason.LINK if stat.S_ISLNK(status.st_mode) else None
        folder, _ = split(folder)
    return None


def why_held(root: str, record: FileRecord, status: os.stat_result) -> SkipReason | None:
    """Say why what stands at a record's path is not the file that was recorded; ``None`` when it is."""
    reason = why_not_regular(status)
    if reason is not None or is_recorded(file_to_stored(record), status):
        return reason
    # The time alone may have been touched; only the bytes tell.
    if status.st_size == record.file_size and checksum_of(root, record.path) == record.checksum:
        return None
    return SkipReason.CHANGED


def _left(record: FileRecord, reason: SkipReason) -> LeftFile:
    return LeftFile(path=record.path, reason=reason, bytes=record.file_size)
