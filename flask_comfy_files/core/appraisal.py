"""Which files the records of an older list stand for, and what is to become of each. Looks, and moves nothing."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from flask_comfy_files.core import durable, inspection
from flask_comfy_files.core.accession import Entry, Said, read_record
from flask_comfy_files.core.allotment import Attributed, Kept
from flask_comfy_files.core.attribution import Candidate
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.filing import Arrival
from flask_comfy_files.core.inspection import Failure, Inspected
from flask_comfy_files.core.layout import is_reserved
from flask_comfy_files.core.records import Evidence, SkipReason
from flask_comfy_files.core.transfer import Transfer


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file without a record, what an older record says of it, and which id it gets."""

    said: Said
    path: str
    size: int
    file_id: str


@dataclass(slots=True)
class Appraisal:
    """One pass over the records of a list; what comes to nothing is entered in the account."""

    root: str
    now: datetime
    account: Transfer
    _roots: tuple[str, str] = field(init=False)
    _paths: set[str] = field(default_factory=set)
    _file_ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Find out under which other name the root may be known."""
        self._roots = self.root, os.path.realpath(self.root)

    def choose(self, reader: Reader, entries: Sequence[Entry]) -> list[Wanted]:
        """Return the files that are there and have no record in the library yet."""
        wanted = []
        for entry in entries:
            try:
                said = read_record(entry, self._roots)
            except InvalidInputError as error:
                self.account.skip(entry.label, error.code)
                continue
            chosen = self._choose(reader, said)
            if chosen is not None:
                wanted.append(chosen)
        return wanted

    def read(self, wanted: Sequence[Wanted]) -> list[Attributed]:
        """Read files whole, and return those that are finished."""
        candidates = [(Candidate(chosen.path, Evidence.LIST), chosen.size) for chosen in wanted]
        results = inspection.inspect_all(self.root, candidates, self.now)
        found = []
        for chosen, result in zip(wanted, results, strict=True):
            if isinstance(result, Inspected):
                self.account.said[chosen.file_id] = chosen.said.checksum
                found.append(self._attributed(chosen, result))
            elif isinstance(result, Failure):
                self.account.failed.append(result.as_left())
            else:
                self.account.skipped.append(result)
        return found

    def _attributed(self, chosen: Wanted, inspected: Inspected) -> Attributed:
        said, path = chosen.said, chosen.path
        kept = Kept(
            at=said.at(inspected.modified_at),
            facts=said.kept_facts(path, self._roots),
            state=said.marks(),
            stays=said.stays_at(path),
        )
        return Attributed(Arrival(chosen.file_id, inspected), said.owner_at(path), kept)

    def _choose(self, reader: Reader, said: Said) -> Wanted | None:
        for path in said.paths:
            try:
                status = durable.find_status(self.root, path)
            except OSError as error:
                self.account.failed.append(Failure(path, 0, error).as_left())
                return None
            if status is not None:
                return self._judge(reader, said, path, status)
        self._enter_absent(reader, said)
        return None

    def _enter_absent(self, reader: Reader, said: Said) -> None:
        """Enter a record without a file in its place: an earlier import has moved it, or it is gone."""
        for file_id in _ids_of(said):
            record = reader.find_file(file_id)
            if record is not None:
                self.account.enter_known(record.file_size)
                return
        if said.paths:
            self.account.skip(said.paths[0], SkipReason.NOT_FOUND)
        else:
            self.account.skip(said.label, SkipReason.OUTSIDE_LIBRARY)

    def _judge(
        self, reader: Reader, said: Said, path: str, status: os.stat_result
    ) -> Wanted | None:
        size = status.st_size
        reason = _why_not(reader, said, path, status)
        if reason is not None:
            self.account.skip(path, reason, size)
        elif path in self._paths or reader.owner_of(path) is not None:
            self.account.enter_known(size)
        elif not _has_usable_time(status):
            too_large = OSError(errno.EOVERFLOW, "its modification time")
            self.account.failed.append(Failure(path, size, too_large).as_left())
        else:
            self._paths.add(path)
            return Wanted(said, path, size, self._free_id(reader, said, path))
        return None

    def _free_id(self, reader: Reader, said: Said, path: str) -> str:
        """Return the id that the record says, or else one that the next import finds again."""
        for file_id in (said.file_id, said.derived_id(path), uuid.uuid4().hex):
            if file_id and file_id not in self._file_ids and not reader.is_file_id(file_id):
                break
        self._file_ids.add(str(file_id))
        return str(file_id)


def _ids_of(said: Said) -> Iterator[str]:
    if said.file_id is not None:
        yield said.file_id
    yield from map(said.derived_id, said.paths)


def _why_not(reader: Reader, said: Said, path: str, status: os.stat_result) -> SkipReason | None:
    """Say why what stands at a place is not the file of which a record speaks."""
    if is_reserved(path):
        return SkipReason.RESERVED
    recorded, owner = reader.owner_of(path), said.owner_at(path)
    if recorded is not None:
        is_others = owner is not None and recorded[0] != owner.job_id
        return SkipReason.BELONGS_TO_ANOTHER_JOB if is_others else None
    if not said.stays_at(path) and any(map(reader.is_file_id, _ids_of(said))):
        return SkipReason.NAME_REUSED  # its file was moved away before, and this is a new one
    return inspection.why_not_regular(status)


def _has_usable_time(status: os.stat_result) -> bool:
    try:
        datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError):  # a year that no calendar has, and no record can hold
        return False
    return True


def without_strangers(reader: Reader, files: Sequence[Attributed]) -> list[Attributed]:
    """Return files that say only of those in the library, or before them, that they share their bytes."""
    checksums: dict[str, str] = {}
    known = []
    for found in files:
        if found.kept is None:
            continue
        facts = dict(found.kept.facts)
        shared, checksum = facts.pop("same_file_as", None), found.arrival.inspected.checksum
        if shared is not None and found.kept.stays:
            other = reader.find_file(shared)
            if checksum == checksums.get(shared, None if other is None else other.checksum):
                facts["same_file_as"] = shared
        if found.kept.stays:
            checksums[found.arrival.file_id] = checksum
        known.append(replace(found, kept=replace(found.kept, facts=facts)))
    return known
