"""Records for files that lie in the library and have none: found again, or left from a lost document.

Nothing is known of such a file but its place and its bytes. Its folder says whose it is, and it counts as
new, so that no cleanup takes it before the time for which a new file is kept.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from flask_comfy_files.core.attribution import Candidate
from flask_comfy_files.core.filing import Arrival, unowned_record
from flask_comfy_files.core.inspection import Failure, Identity, Inspected, inspect_all, look
from flask_comfy_files.core.layout import LEGACY, PROJECTS, is_in, is_organized
from flask_comfy_files.core.records import Evidence, FileRecord, LeftFile, SkipReason

_AT_ONCE: Final = 256
"""How many files are held in memory, without their bytes."""

_DEPTH: Final = 4
"""The parts of ``projects/{project_id}/{job_id}/{name}``."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """The record that a file may get, and by what to tell whether it is still the file that was read."""

    record: FileRecord
    identity: Identity


def owner_by_path(path: str) -> tuple[str, str] | None:
    """Return the project and the job in whose folder a file lies, or ``None`` where it lies in none."""
    parts = path.split("/")
    if len(parts) != _DEPTH or parts[0] != PROJECTS or not is_organized(path, parts[1], parts[2]):
        return None
    return parts[1], parts[2]


def adopted_records(
    root: str, paths: Iterable[str], at: datetime
) -> Iterator[Adoption | LeftFile | Failure]:
    """Yield for each path below ``projects/`` and ``legacy/`` the record its file gets, or why it gets none.

    Reads all bytes of the files, so it is to be called outside of the lock. The paths may be as many as
    there are files, and are taken a few at a time. Whether a path has a record by then is for the caller to
    look up.
    """
    waiting = iter(paths)
    while batch := list(itertools.islice(waiting, _AT_ONCE)):
        inside = [path for path in batch if owner_by_path(path) or is_in(path, LEGACY)]
        inspected = dict(zip(inside, inspect_paths(root, inside, at), strict=True))
        for path in batch:
            found = inspected.get(path, LeftFile(path=path, reason=SkipReason.OUTSIDE_LIBRARY))
            yield _adopt(root, found, at) if isinstance(found, Inspected) else found


def _adopt(root: str, inspected: Inspected, at: datetime) -> Adoption:
    path = inspected.candidate.path
    record = unowned_record(root, Arrival(uuid.uuid4().hex, inspected), path, at)
    owner = owner_by_path(path)
    if owner is not None:
        record = replace(record, project_id=owner[0], job_id=owner[1])
    return Adoption(record, inspected.identity)


def inspect_paths(
    root: str, paths: Iterable[str], now: datetime
) -> Iterator[Inspected | LeftFile | Failure]:
    """Read files where they lie and sync their bytes; links, folders and devices are not opened."""
    found: list[LeftFile | Failure | None] = []
    regular: list[tuple[Candidate, int]] = []
    for path in paths:
        candidate = Candidate(path, Evidence.REBUILT)
        try:
            status = look(root, candidate)
        except OSError as error:
            found.append(Failure(path, 0, error))
            continue
        if isinstance(status, LeftFile):
            found.append(status)
        else:
            found.append(None)
            regular.append((candidate, status.st_size))
    inspected = inspect_all(root, regular, now)
    for entry in found:
        yield next(inspected) if entry is None else entry
