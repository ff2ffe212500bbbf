"""Whose the files are that lie about: looked at family by family, by what the host and they themselves say."""

from __future__ import annotations

import enum
import errno
import logging
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, TypeVar

from flask_comfy_files.core import durable, inspection, provenance
from flask_comfy_files.core.allotment import Attributed
from flask_comfy_files.core.attribution import Candidate
from flask_comfy_files.core.filing import Arrival
from flask_comfy_files.core.hostlist import HostList
from flask_comfy_files.core.inspection import Failure, Inspected, Reading
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.media import extension_of
from flask_comfy_files.core.provenance import Owner
from flask_comfy_files.core.records import Evidence, LeftFile, SkipReason
from flask_comfy_files.core.survey import family_of
from flask_comfy_files.core.tags import read_graph

_log = logging.getLogger(__name__)

QUIET_TIME: Final = timedelta(minutes=1)
"""How long a file must not have changed: ComfyUI may be running, and nobody waits for a migration."""

FILES_AT_ONCE: Final = 256
"""How many files share one append to the document, and one turn with the library's lock."""


_Entry = TypeVar("_Entry")


class Grouping(enum.StrEnum):
    """By what files are put together that nothing else attributes."""

    WORKFLOW = "workflow"
    DAY = "day"


@dataclass(slots=True)
class Detection:
    """One pass over the files of a migration."""

    root: str
    now: datetime
    hosts: HostList
    grouping: Grouping | None
    reading: Reading
    skipped: list[LeftFile] = field(default_factory=list)
    failed: list[LeftFile] = field(default_factory=list)

    def batches(self, paths: Sequence[str]) -> Iterator[list[Attributed]]:
        """Yield the files that are finished, with their owners; those that are grouped come last."""
        grouped: list[Attributed] = []
        for batch in _together(paths, family_of):
            found = self._attribute(batch)
            if self.grouping is not None:
                grouped += [entry for entry in found if entry.owner is None]
                found = [entry for entry in found if entry.owner is not None]
            yield found
        yield from self._in_turn(grouped)

    def _in_turn(self, files: Sequence[Attributed]) -> Iterator[list[Attributed]]:
        """Yield batches of grouped files.

        What one workflow made is in one batch, the oldest first: after an interruption the rest is grouped as
        it would have been.
        """
        owners = self._group(files)
        turns: dict[str, int] = {}
        if self.grouping is Grouping.WORKFLOW:
            for owner in owners.values():
                turns.setdefault(owner.job_id, len(turns))

        def turn_of(entry: Attributed) -> tuple[int, str, str]:
            owner = owners.get(entry.arrival.path)
            if owner is not None and owner.job_id in turns:
                return (turns[owner.job_id], "", "")
            return (len(turns), *family_of(entry.arrival.path))

        for batch in _together(sorted(files, key=turn_of), turn_of):
            yield [_owned(entry.arrival, owners.get(entry.arrival.path)) for entry in batch]

    def _attribute(self, paths: Sequence[str]) -> list[Attributed]:
        inspected = {entry.candidate.path: entry for entry in self._finished(paths)}
        found = []
        for _, family in groupby(paths, key=family_of):
            members = [inspected[path] for path in family if path in inspected]
            owners = self._owners(members)
            found += [
                _owned(Arrival(uuid.uuid4().hex, member), owners.get(member.candidate.path))
                for member in members
            ]
        return found

    def _finished(self, paths: Sequence[str]) -> list[Inspected]:
        """Inspect files; where one of a family is still being written, none of it is taken."""
        before = len(self.skipped)
        sized = [(Candidate(path, Evidence.NONE), self._quiet_size(path)) for path in paths]
        worth = [(candidate, size) for candidate, size in sized if size is not None]
        finished = []
        for result in inspection.inspect_all(self.root, worth, self.now, self.reading):
            if isinstance(result, Inspected):
                finished.append(result)
            elif isinstance(result, Failure):
                self.failed.append(result.as_left())
            else:
                self.skipped.append(result)
        unfinished = {
            family_of(left.path)
            for left in self.skipped[before:]
            if left.reason == SkipReason.STILL_BEING_WRITTEN
        }
        for entry in finished:
            if family_of(entry.candidate.path) in unfinished:
                self._skip(
                    entry.candidate.path, SkipReason.STILL_BEING_WRITTEN, entry.identity.size
                )
        return [entry for entry in finished if family_of(entry.candidate.path) not in unfinished]

    def _quiet_size(self, path: str) -> int | None:
        """Return the size of a file that has been quiet for long enough; note why another is left."""
        try:
            seen = inspection.look(self.root, Candidate(path, Evidence.NONE))
        except OSError as error:
            self.failed.append(Failure(path, 0, error).as_left())
            return None
        if isinstance(seen, LeftFile):
            self.skipped.append(seen)
            return None
        try:
            modified_at = datetime.fromtimestamp(seen.st_mtime, self.now.tzinfo)
        except (ValueError, OverflowError):  # a year that no calendar has, and no record can hold
            too_large = OSError(errno.EOVERFLOW, "its modification time")
            self.failed.append(Failure(path, seen.st_size, too_large).as_left())
            return None
        if abs(self.now - modified_at) < QUIET_TIME:
            self._skip(path, SkipReason.STILL_BEING_WRITTEN, seen.st_size)
            return None
        return seen.st_size

    def _skip(self, path: str, reason: SkipReason, size: int) -> None:
        self.skipped.append(LeftFile(path=path, reason=reason, bytes=size))

    def _owners(self, members: Sequence[Inspected]) -> dict[str, Owner]:
        """Return the owners of one family's files; what some are sure of holds for those that know nothing."""
        owners = {
            member.candidate.path: owner
            for member in members
            if (owner := self._sure_owner(member)) is not None
        }
        sure = {owner.job_id: owner for owner in owners.values()}
        unknown = [member for member in members if member.candidate.path not in owners]
        if len(sure) == 1:
            (owner,) = sure.values()
            owners |= {member.candidate.path: owner for member in unknown}
        elif not sure and any(
            provenance.has_ten_digits(member.candidate.path) for member in unknown
        ):
            seeds = frozenset[str]().union(
                *(provenance.seeds_of(self._graph(member)) for member in members)
            )
            for member in unknown:
                by_time = provenance.owner_by_time(member.candidate.path, seeds, self.now)
                if by_time is not None:
                    owners[member.candidate.path] = by_time
        return owners

    def _sure_owner(self, member: Inspected) -> Owner | None:
        tag = member.tag
        if tag is not None:
            project_id = tag.project_id or self.hosts.projects.get(tag.job_id)
            return Owner(tag.job_id, project_id, Evidence.TAG)
        return self.hosts.owner_of(member.candidate.path, member.identity.modified_ns)

    def _group(self, files: Sequence[Attributed]) -> dict[str, Owner]:
        members = [entry.arrival.inspected for entry in files]
        if self.grouping is Grouping.DAY:
            return _by_day(members)
        made = []
        for member in members:
            graph = self._graph(member)
            if graph is not None:
                path = member.candidate.path
                made.append((path, provenance.digest_of(graph), member.modified_at))
        owners = provenance.owners_by_workflow(made)
        families = {family_of(path): owner for path, owner in owners.items()}
        return owners | {
            member.candidate.path: families[family_of(member.candidate.path)]
            for member in members
            if member.candidate.path not in owners and family_of(member.candidate.path) in families
        }

    def _graph(self, member: Inspected) -> dict[str, Any] | None:
        path = member.candidate.path
        folder, name = split(path)
        try:
            with (
                durable.open_folder(self.root, folder) as parent,
                durable.open_regular(parent, name) as descriptor,
            ):
                return read_graph(descriptor, member.identity.size, extension_of(name))
        except OSError as error:
            _log.info("the graph of %r cannot be read: %s", path, error)
            return None


def _owned(arrival: Arrival, owner: Owner | None) -> Attributed:
    """Return a file with its owner, and with the evidence for it."""
    if owner is None:
        return Attributed(arrival, None)
    inspected = arrival.inspected
    candidate = replace(inspected.candidate, evidence=owner.evidence)
    return Attributed(replace(arrival, inspected=replace(inspected, candidate=candidate)), owner)


def _by_day(members: Sequence[Inspected]) -> dict[str, Owner]:
    """Return the owners of files by the day of the first of their family, which midnight must not part."""
    first: dict[tuple[str, str], datetime] = {}
    for member in members:
        family = family_of(member.candidate.path)
        first[family] = min(first.get(family, member.modified_at), member.modified_at)
    return {
        member.candidate.path: provenance.owner_by_day(first[family_of(member.candidate.path)])
        for member in members
    }


def _together(
    entries: Sequence[_Entry], group_of: Callable[[_Entry], Hashable]
) -> Iterator[list[_Entry]]:
    """Yield batches in which each group of neighbours is whole."""
    batch: list[_Entry] = []
    for _, group in groupby(entries, key=group_of):
        members = list(group)
        if batch and len(batch) + len(members) > FILES_AT_ONCE:
            yield batch
            batch = []
        batch += members
    if batch:
        yield batch
