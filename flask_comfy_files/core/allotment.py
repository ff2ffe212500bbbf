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
from flask_comfy_files.core.catalog.session import Reader
from flask_comfy_files.core.errors import (
    ConflictError,
    IdentifierCaseError,
    JobInOtherProjectError,
)
from flask_comfy_files.core.filing import Arrival, Filing, JobIdentity, unowned_record
from flask_comfy_files.core.layout import comparable, legacy_path
from flask_comfy_files.core.legacy import unowned_line
from flask_comfy_files.core.provenance import Owner
from flask_comfy_files.core.records import Evidence, LeftFile, file_to_stored
from flask_comfy_files.core.request import Request
from flask_comfy_files.core.standing import Standing, find_standing

Change = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attributed:
    """A finished file, and whose it is; nobody's without an owner."""

    arrival: Arrival
    owner: Owner | None


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
            found = [(owner, entry.arrival) for owner, entry in group]
            change = self._job_line(reader, job_id, found)
            if change is not None:
                changes.append(change)
        unowned = [found.arrival for found in files if found.owner is None]
        return [*changes, *(self._legacy_line(reader, arrival) for arrival in unowned)]

    def _job_line(
        self, reader: Reader, job_id: str, found: Sequence[tuple[Owner, Arrival]]
    ) -> Change | None:
        try:
            standing = self._standing(reader, job_id, [owner for owner, _ in found])
        except ConflictError as error:
            self._fail([arrival for _, arrival in found], error.code)
            return None
        contrary = [arrival for owner, arrival in found if _contradicts(owner, standing.project_id)]
        self._fail(contrary, JobInOtherProjectError.code)
        arrivals = [arrival for _, arrival in found if arrival not in contrary]
        if not arrivals:
            return None
        given = self._paths.setdefault(job_id, set())
        filing = Filing(
            JobIdentity(self.root, job_id, standing.project_id, None),
            self.at,
            taken={*standing.paths, *given},
            originals=[*standing.originals, *(arrival.path for arrival in arrivals)],
            exists=self._exists,
        )
        records = [filing.record(arrival) for arrival in arrivals]
        given |= {record.path for record in records}
        return {
            "kind": "add" if standing.is_known else "job",
            "job_id": job_id,
            "project_id": standing.project_id,
            "operation": self.operation,
            "state": {"reason": None} if "reason" in standing.state else {},
            "files": [file_to_stored(record) for record in records],
        }

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

    def _legacy_line(self, reader: Reader, arrival: Arrival) -> Change:
        given = self._paths.setdefault("", set())
        number = 1
        while True:
            path = legacy_path(arrival.path, number)
            if path not in given and reader.owner_of(path) is None and not self._exists(path):
                break
            number += 1
        given.add(path)
        record = unowned_record(self.root, arrival, path, self.at)
        return unowned_line(file_to_stored(record), self.operation)

    def _exists(self, path: str) -> bool:
        return durable.find_status(self.root, path) is not None


def _is_listed(owner: Owner) -> bool:
    return owner.evidence is Evidence.LIST


def _contradicts(owner: Owner, project_id: str) -> bool:
    """Say whether the host files a job under another project than the one that it has; a tag may be outdated."""
    return _is_listed(owner) and owner.project_id not in {None, project_id}


def stored_files(changes: Iterable[Change]) -> list[Mapping[str, Any]]:
    """Return the files of some lines."""
    return [stored for change in changes for stored in change["files"]]
