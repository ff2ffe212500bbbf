"""Which name and which line each migrated file gets. Looks at the library, and changes nothing.

A rehearsal moves nothing, so the names that it gave are remembered: the next batch must not give them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import (
    ConflictError,
    IdentifierCaseError,
    JobInOtherProjectError,
)
from flask_comfy_files.core.filing import Arrival, Filing, JobIdentity, unowned_record
from flask_comfy_files.core.layout import comparable, legacy_path
from flask_comfy_files.core.legacy import unowned_line
from flask_comfy_files.core.provenance import Owner
from flask_comfy_files.core.records import Evidence, FileRecord, LeftFile, file_to_stored, iso_utc
from flask_comfy_files.core.request import Request
from flask_comfy_files.core.standing import Standing, find_standing

Change = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """What an older record says of a file that goes on being true.

    ``at`` is when it was organized, ``facts`` are keys of its record here, ``state`` is what people said of
    its job. A file that ``stays`` lies where it belongs already.
    """

    at: datetime
    facts: Mapping[str, Any]
    state: Mapping[str, Any]
    stays: bool


@dataclass(frozen=True, slots=True)
class Attributed:
    """A finished file, and whose it is; nobody's without an owner."""

    arrival: Arrival
    owner: Owner | None
    kept: Kept | None = None

    @property
    def place(self) -> str | None:
        """The path that it keeps, if it does."""
        return self.arrival.path if self.kept is not None and self.kept.stays else None

    @property
    def original_path(self) -> str:
        """Where ComfyUI wrote it."""
        said = {} if self.kept is None else self.kept.facts
        path: str = said.get("original_path", self.arrival.path)
        return path

    def stored(self, record: FileRecord) -> dict[str, Any]:
        """Return its record as the document keeps it."""
        stored = file_to_stored(record)
        if self.kept is None:
            return stored
        return {**stored, **self.kept.facts, "moved_from": self.arrival.path}


@dataclass(slots=True)
class Allotment:
    """What one migration has given away so far."""

    root: str
    default_project: str
    at: datetime
    operation: Mapping[str, Any]
    failed: list[LeftFile] = field(default_factory=list)
    _jobs: dict[str, Standing] = field(default_factory=dict)
    _spellings: dict[tuple[str, str], str] = field(default_factory=dict)
    _paths: dict[str, set[str]] = field(default_factory=dict)

    def lines(self, reader: Reader, files: Sequence[Attributed]) -> list[Change]:
        """Return the lines of some files: one for each job, and one for each that is nobody's."""
        owned = sorted(
            ((found.owner, found) for found in files if found.owner is not None),
            key=lambda pair: pair[0].job_id,
        )
        changes = []
        for job_id, group in groupby(owned, key=lambda pair: pair[0].job_id):
            changes += self._job_lines(reader, job_id, list(group))
        unowned = [found for found in files if found.owner is None]
        return [*changes, *(self._legacy_line(reader, found) for found in unowned)]

    def _job_lines(
        self, reader: Reader, job_id: str, found: Sequence[tuple[Owner, Attributed]]
    ) -> list[Change]:
        """Return a job's lines: one for all files that were organized at the same time."""
        try:
            standing = self._standing(reader, job_id, [owner for owner, _ in found])
        except ConflictError as error:
            self._fail([entry.arrival for _, entry in found], error.code)
            return []
        contrary = [owner for owner, _ in found if _contradicts(owner, standing.project_id)]
        self._fail(
            [entry.arrival for owner, entry in found if owner in contrary],
            JobInOtherProjectError.code,
        )
        entries = [entry for owner, entry in found if owner not in contrary]
        originals = [*standing.originals, *(entry.original_path for entry in entries)]
        changes: list[Change] = []
        for at, group in groupby(entries, key=self._moment):
            begun = standing.is_known or bool(changes)
            change = {
                "kind": "add" if begun else "job",
                "job_id": job_id,
                "project_id": standing.project_id,
                "operation": self.operation,
                "state": {"reason": None} if "reason" in standing.state else {},
                "files": self._job_files(job_id, standing, originals, at, list(group)),
            }
            changes.append(change if begun else _with_what_is_kept(change, entries))
        return changes

    def _moment(self, found: Attributed) -> datetime:
        return self.at if found.kept is None else found.kept.at

    def _job_files(
        self,
        job_id: str,
        standing: Standing,
        originals: Sequence[str],
        at: datetime,
        entries: Sequence[Attributed],
    ) -> list[dict[str, Any]]:
        given = self._paths.setdefault(job_id, set())
        filing = Filing(
            JobIdentity(self.root, job_id, standing.project_id, None),
            at,
            taken={*standing.paths, *given},
            originals=originals,
            exists=self._exists,
        )
        records = [filing.record(entry.arrival, entry.place) for entry in entries]
        given |= {record.path for record in records}
        return [entry.stored(record) for entry, record in zip(entries, records, strict=True)]

    def _fail(self, arrivals: Iterable[Arrival], reason: str) -> None:
        self.failed += [
            LeftFile(path=arrival.path, reason=reason, bytes=arrival.size) for arrival in arrivals
        ]

    def _standing(self, reader: Reader, job_id: str, owners: Sequence[Owner]) -> Standing:
        """Say what is known of a job; its files tell its project only as long as nobody else does.

        Raises:
            IdentifierCaseError: The library, or this migration, knows an id in another case.
        """
        known = reader.find_job(job_id)
        if known is None and job_id in self._jobs:  # by a rehearsal, which records nothing
            return self._jobs[job_id]
        told = [owner.project_id for owner in sorted(owners, key=_is_listed) if owner.project_id]
        request = Request(
            job_id=job_id,
            project_id=told[0] if told and known is None else None,
            default_project=self.default_project,
        )
        standing = find_standing(reader, request)
        self._require_one_spelling("job_id", job_id)
        self._require_one_spelling("project_id", standing.project_id)
        if known is None:
            self._jobs[job_id] = standing
        return standing

    def _require_one_spelling(self, name: str, identifier: str) -> None:
        other = self._spellings.setdefault((name, comparable(identifier)), identifier)
        if other != identifier:
            raise IdentifierCaseError(name, identifier, other)

    def _legacy_line(self, reader: Reader, found: Attributed) -> Change:
        path = found.place or self._legacy_path(reader, found.original_path)
        record = unowned_record(self.root, found.arrival, path, self._moment(found))
        return unowned_line(found.stored(record), self.operation)

    def _legacy_path(self, reader: Reader, original_path: str) -> str:
        given = self._paths.setdefault("", set())
        number = 1
        while True:
            path = legacy_path(original_path, number)
            if path not in given and reader.owner_of(path) is None and not self._exists(path):
                break
            number += 1
        given.add(path)
        return path

    def _exists(self, path: str) -> bool:
        return durable.find_status(self.root, path) is not None


def _is_listed(owner: Owner) -> bool:
    return owner.evidence is Evidence.LIST


def _contradicts(owner: Owner, project_id: str) -> bool:
    """Say whether the host files a job under another project than the one that it has; a tag may be outdated."""
    return _is_listed(owner) and owner.project_id not in {None, project_id}


def _with_what_is_kept(change: Change, entries: Sequence[Attributed]) -> Change:
    """Return the first line of a job with what its older records say of it, if there are any."""
    kept = [entry.kept for entry in entries if entry.kept is not None]
    if not kept:
        return change
    state = {key: value for said in kept for key, value in said.state.items()}
    created_at = iso_utc(min(said.at for said in kept))
    return {**change, "created_at": created_at, "state": {**change["state"], **state}}


def stored_files(changes: Iterable[Change]) -> list[Mapping[str, Any]]:
    """Return the files of some lines."""
    return [stored for change in changes for stored in change["files"]]
