"""What puts a finding right, if it still holds: looked up in the library as it is now. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.adoption import Adoption, adopted_records, inspect_paths
from flask_comfy_files.core.auditing import is_at_home, why_absent
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import ConflictError, InvalidIdentifierError
from flask_comfy_files.core.findings import FindingKind
from flask_comfy_files.core.inspection import Failure, Identity, Inspected
from flask_comfy_files.core.layout import (
    LEGACY,
    PROJECTS,
    comparable,
    file_path,
    is_in,
    is_reserved,
    job_folder,
    legacy_path,
    split,
)
from flask_comfy_files.core.placement import FOUND, MISSING, free_path_beside
from flask_comfy_files.core.records import (
    FileRecord,
    LeftFile,
    SkipReason,
    iso_utc,
)
from flask_comfy_files.core.request import Request
from flask_comfy_files.core.standing import Standing, find_standing
from flask_comfy_files.core.trash import place_in_trash

STALE: Final = "stale"
"""What was found does not hold any more."""

ALREADY_THERE: Final = "already_there"
"""Something stands where a file should be moved back to."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A finding that is to be repaired."""

    kind: FindingKind
    path: str
    file_id: str | None


@dataclass(frozen=True, slots=True)
class Left:
    """Why a finding is not repaired; with ``is_failure`` the system is the reason."""

    reason: str
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A record is brought up to date; ``twins`` are overlays of those that share bytes with it no more."""

    record: FileRecord
    overlay: Mapping[str, Any]
    detail: str
    twins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adopt:
    """A file gets a record; ``standing`` is that of its job, ``None`` where it is nobody's."""

    record: FileRecord
    standing: Standing | None
    detail: str


@dataclass(frozen=True, slots=True)
class MoveBack:
    """A file is moved from ``source`` to where the record, as it stands here, says."""

    record: FileRecord
    source: str
    detail: str


Remedy = Note | Adopt | MoveBack
Prepared = Mapping[str, Adoption | Inspected | LeftFile | Failure]
"""What was read of files, by path."""


def prepare(root: str, batch: Iterable[Asked], at: datetime) -> Prepared:
    """Read the files for which their bytes matter; without the lock, since that may take long."""
    paths = {asked.path: asked.kind for asked in batch}
    strangers = [path for path, kind in paths.items() if kind is FindingKind.UNTRACKED]
    known = [
        path
        for path, kind in paths.items()
        if kind in {FindingKind.CHANGED, FindingKind.WRONG_OWNER}
    ]
    adopted = zip(strangers, adopted_records(root, strangers, at), strict=True)
    inspected = zip(known, inspect_paths(root, known, at), strict=True)
    return {**dict(adopted), **dict(inspected)}


@dataclass(slots=True)
class Remedies:
    """Finds the remedies of one batch, which must not get into each other's way."""

    root: str
    reader: Reader
    prepared: Prepared
    _taken: set[str] = field(default_factory=set)
    """Paths of which a remedy of this batch speaks already."""
    _jobs: dict[str, tuple[str, str]] = field(default_factory=dict)
    _projects: dict[str, str] = field(default_factory=dict)
    """Owners of files that are adopted, by their ids in lower case."""

    def find(self, asked: Asked) -> Remedy | Left:
        """Return what puts a finding right, or why nothing does."""
        if asked.path in self._taken:
            return Left(STALE)
        find = {
            FindingKind.MISSING: self._missing,
            FindingKind.CHANGED: self._changed,
            FindingKind.UNTRACKED: self._untracked,
            FindingKind.WRONG_OWNER: self._wrong_owner,
        }[asked.kind]
        try:
            remedy = find(asked)
        except OSError as error:
            return _failed(Failure(asked.path, 0, error))
        if not isinstance(remedy, Left):
            self._taken |= {asked.path, remedy.record.path}
        return remedy

    def _missing(self, asked: Asked) -> Remedy | Left:
        record = self._recorded_at(asked)
        if record is None:
            return Left(STALE)
        absent = why_absent(self.root, asked.path, durable.find_status(self.root, asked.path))
        if (absent is not None) is record.missing:
            return Left(STALE)
        if absent is None:
            return Note(record, FOUND, "recorded as there again")
        return Note(record, MISSING, "recorded as missing")

    def _changed(self, asked: Asked) -> Remedy | Left:
        record = self._recorded_at(asked)
        if record is None:
            return Left(STALE)
        inspected = self._inspected(asked.path)
        if isinstance(inspected, Left):
            return inspected
        now = _facts(inspected)
        overlay = {key: value for key, value in now.items() if value != getattr(record, key)}
        if "checksum" not in overlay:
            return Left(STALE)
        parted = self._parted(record, asked.path)
        overlay |= parted.pop(record.file_id, {})
        return Note(record, overlay, "its size, time and checksum are recorded anew", parted)

    def _parted(self, record: FileRecord, path: str) -> dict[str, dict[str, Any]]:
        """Return overlays, by id, for files that do not share their bytes any more, since one was replaced.

        One that was changed in its place has changed all its names, and they still do.
        """
        pairs = [(twin, twin) for twin in self.reader.sharers_of(record.file_id)]
        if record.same_file_as is not None:
            pairs.append((record.file_id, record.same_file_as))
        return {
            sharing: {"same_file_as": None}
            for sharing, other in pairs
            if not self._is_same_file(path, self._place_of(other))
        }

    def _is_same_file(self, path: str, other: str | None) -> bool:
        """Say whether two paths are names of one file; one that is not there may have been."""
        one = durable.find_status(self.root, path)
        two = None if other is None else durable.find_status(self.root, other)
        return one is None or two is None or os.path.samestat(one, two)

    def _place_of(self, file_id: str) -> str | None:
        record = self.reader.find_file(file_id)
        if record is not None:
            return record.path
        found = self.reader.find_trashed(file_id)
        return None if found is None else place_in_trash(found[1], found[0])

    def _untracked(self, asked: Asked) -> Remedy | Left:
        if self.reader.owner_of(asked.path) is not None:
            return Left(STALE)
        found = self.prepared[asked.path]
        if isinstance(found, Failure):
            return _failed(found)
        if not isinstance(found, Adoption):
            return Left(found.reason if isinstance(found, LeftFile) else STALE)
        record = found.record
        if not self._is_still(asked.path, found.identity):
            return Left(SkipReason.CHANGED)
        if record.job_id is None or record.project_id is None:
            return Adopt(record, None, "recorded, and belongs to no job")
        standing = self._standing(record.job_id, record.project_id)
        if isinstance(standing, Left):
            return standing
        return Adopt(record, standing, f"recorded for job {record.job_id}")

    def _standing(self, job_id: str, project_id: str) -> Standing | Left:
        """Return what is known of the job that a file is adopted for, or why it can get none."""
        try:
            standing = find_standing(
                self.reader,
                Request(job_id=job_id, project_id=project_id, default_project=project_id),
            )
        except (ConflictError, InvalidIdentifierError) as error:
            return Left(error.code)
        if self._projects.setdefault(comparable(project_id), project_id) != project_id:
            return Left("identifier_case")
        coming = self._jobs.setdefault(comparable(job_id), (job_id, project_id))
        if coming == (job_id, project_id):
            return standing
        return Left("job_in_other_project" if coming[0] == job_id else "identifier_case")

    def _wrong_owner(self, asked: Asked) -> Remedy | Left:
        record = None if asked.file_id is None else self.reader.find_file(asked.file_id)
        if record is None or durable.find_status(self.root, asked.path) is None:
            return Left(STALE)
        target = (
            self._home_of(record) if record.path == asked.path else self._way_back(asked, record)
        )
        if isinstance(target, Left):
            return target
        inspected = self._inspected(asked.path)
        if isinstance(inspected, Left):
            return inspected
        if inspected.checksum != record.checksum:
            return Left(SkipReason.CHANGED)
        moved = replace(record, path=target, file_path=file_path(self.root, target), missing=False)
        return MoveBack(moved, asked.path, f"moved to {target}")

    def _way_back(self, asked: Asked, record: FileRecord) -> str | Left:
        """Return where a file was, that somebody has put elsewhere."""
        is_inside = is_in(asked.path, PROJECTS) or is_in(asked.path, LEGACY)
        if not is_inside or not is_at_home(record):
            return Left(SkipReason.OUTSIDE_LIBRARY)
        if self.reader.owner_of(asked.path) is not None:
            return Left(STALE)
        if durable.find_status(self.root, record.path) is not None or record.path in self._taken:
            return Left(ALREADY_THERE)
        return record.path

    def _home_of(self, record: FileRecord) -> str | Left:
        """Return a free place in the folder of its owner for a file whose record names another place."""
        if is_at_home(record):
            return Left(STALE)
        home = legacy_path(split(record.path)[1], 1)
        if record.job_id is not None and record.project_id is not None:
            home = f"{job_folder(record.project_id, record.job_id)}/{split(record.path)[1]}"
        if is_reserved(record.path) or not is_at_home(replace(record, path=home)):
            return Left(SkipReason.OUTSIDE_LIBRARY)

        def is_taken(path: str) -> bool:
            return path in self._taken or self.reader.owner_of(path) is not None

        if is_taken(home) or durable.find_status(self.root, home) is not None:
            return free_path_beside(self.root, home, is_taken)
        return home

    def _recorded_at(self, asked: Asked) -> FileRecord | None:
        """Return the record that a finding is about, if its file should still lie there."""
        record = self.reader.find_file(asked.file_id or asked.path)
        if record is not None:
            return record if record.path == asked.path else None
        found = None if asked.file_id is None else self.reader.find_trashed(asked.file_id)
        if found is None or place_in_trash(found[1], found[0]) != asked.path:
            return None
        return found[1]

    def _inspected(self, path: str) -> Inspected | Left:
        found = self.prepared[path]
        if isinstance(found, Failure):
            return _failed(found)
        if not isinstance(found, Inspected):
            return Left(found.reason if isinstance(found, LeftFile) else STALE)
        return found if self._is_still(path, found.identity) else Left(SkipReason.CHANGED)

    def _is_still(self, path: str, identity: Identity) -> bool:
        status = durable.find_status(self.root, path)
        return status is not None and Identity.of(status) == identity


def _facts(inspected: Inspected) -> dict[str, Any]:
    """Return what a record says of a file's bytes."""
    return {
        "file_size": inspected.identity.size,
        "modified_at": iso_utc(inspected.modified_at),
        "checksum": inspected.checksum,
        "media_type": inspected.media_type,
        "width": inspected.facts.width,
        "height": inspected.facts.height,
        "duration_s": inspected.facts.duration_s,
    }


def _failed(failure: Failure) -> Left:
    return Left(failure.as_left().reason, is_failure=True)
