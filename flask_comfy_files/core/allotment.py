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
from flask_comfy_files.core.errors import ConflictError, IdentifierCaseError
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
        for _, group in groupby(owned, key=lambda pair: pair[0].job_id):
            pairs = list(group)
            change = self._job_line(reader, pairs[0][0], [found.arrival for _, found in pairs])
            if change is not None:
                changes.append(change)
        unowned = [found.arrival for found in files if found.owner is None]
        return [*changes, *(self._legacy_line(reader, arrival) for arrival in unowned)]

    def _job_line(self, reader: Reader, owner: Owner, arrivals: Sequence[Arrival]) -> Change | None:
        try:
            standing = self._standing(reader, owner)
        except ConflictError as error:
            self.failed += [
                LeftFile(path=arrival.path, reason=error.code, bytes=arrival.size)
                for arrival in arrivals
            ]
            return None
        given = self._paths.setdefault(owner.job_id, set())
        filing = Filing(
            JobIdentity(self.root, owner.job_id, standing.project_id, None),
            self.at,
            taken={*standing.paths, *given},
            originals=[*standing.originals, *(arrival.path for arrival in arrivals)],
            exists=self._exists,
        )
        records = [filing.record(arrival) for arrival in arrivals]
        is_first = not standing.is_known and not given
        given |= {record.path for record in records}
        return {
            "kind": "job" if is_first else "add",
            "job_id": owner.job_id,
            "project_id": standing.project_id,
            "operation": self.operation,
            "state": {},
            "files": [file_to_stored(record) for record in records],
        }

    def _standing(self, reader: Reader, owner: Owner) -> Standing:
        """Say what is known of a job; a tag tells its project only as long as nobody else does.

        Raises:
            ConflictError: It contradicts what the library knows, or what this migration has said.
        """
        known = reader.find_job(owner.job_id)
        is_told = known is not None and owner.evidence is not Evidence.LIST
        request = Request(
            job_id=owner.job_id,
            project_id=None if is_told else owner.project_id,
            default_project=self.default_project,
        )
        standing = find_standing(reader, request)
        self._require_one_spelling("job_id", owner.job_id)
        self._require_one_spelling("project_id", standing.project_id)
        return self._jobs.setdefault(owner.job_id, standing) if known is None else standing

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


def stored_files(changes: Iterable[Change]) -> list[Mapping[str, Any]]:
    """Return the files of some lines."""
    return [stored for change in changes for stored in change["files"]]
