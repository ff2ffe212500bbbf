"""Putting right what a verification has found: looked at again, and changed by lines of the document.

What has to be read is read first, without the lock. Under it each finding is looked at once more, the lines
are appended, strayed files are moved, and then the index is moved past the lines: as with any change, a
crash is followed by the same again.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.index import is_failure_of_index
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.errors import ChecksumMismatchError, InvalidInputError, StorageError
from flask_comfy_files.core.findings import Finding, FindingKind, LeftFinding, RepairReport
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.layout import INDEX, LEGACY, PROJECTS, require_relative_path, split
from flask_comfy_files.core.legacy import given_back_line, unowned_line
from flask_comfy_files.core.placement import place
from flask_comfy_files.core.presence import require_present
from flask_comfy_files.core.records import file_to_stored, iso_utc
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.remedies import (
    STALE,
    Adopt,
    Asked,
    Left,
    MoveBack,
    Note,
    Prepared,
    Remedies,
    Remedy,
    prepare,
)
from flask_comfy_files.core.request import Clock

Change = dict[str, Any]
Operation = Mapping[str, Any]

Progress = Callable[[int, int], None]
"""Told how many of how many findings are dealt with."""

_AT_ONCE: Final = 256
"""How many findings share one turn with the library's lock, and one append."""


@dataclass(slots=True)
class _Account:
    """What became of each finding so far."""

    found: int
    repaired: list[Finding] = field(default_factory=list)
    skipped: list[LeftFinding] = field(default_factory=list)
    failed: list[LeftFinding] = field(default_factory=list)

    def enter(self, asked: Asked, outcome: Remedy | Left) -> None:
        """Enter a finding with what was, or would be, done about it."""
        if isinstance(outcome, Left):
            entry = LeftFinding(kind=str(asked.kind), path=asked.path, reason=outcome.reason)
            (self.failed if outcome.is_failure else self.skipped).append(entry)
        else:
            record = outcome.record
            self._add(asked, record.job_id, record.file_id, outcome.detail)

    def enter_all(self, batch: Iterable[Asked], left: Left | None) -> None:
        """Enter findings of the index, which is made anew as a whole, or left as it is."""
        for asked in batch:
            if left is None:
                self._add(asked, None, asked.file_id, "made anew from the document")
            else:
                self.enter(asked, left)

    def _add(self, asked: Asked, job_id: str | None, file_id: str | None, detail: str) -> None:
        kind = str(asked.kind)
        self.repaired.append(
            Finding(kind=kind, path=asked.path, job_id=job_id, file_id=file_id, detail=detail)
        )

    @property
    def done(self) -> int:
        """How many findings are dealt with."""
        return len(self.repaired) + len(self.skipped) + len(self.failed)

    def report(self, operation_id: str | None, *, dry_run: bool) -> RepairReport:
        return RepairReport(
            found=self.found,
            repaired=tuple(self.repaired),
            skipped=tuple(self.skipped),
            failed=tuple(self.failed),
            dry_run=dry_run,
            operation_id=operation_id if self.repaired else None,
        )


def require_findings(findings: Any) -> list[Asked]:
    """Return chosen findings, each once, in the order in which they are to be repaired.

    Raises:
        InvalidInputError: One is none.
    """
    if isinstance(findings, str | bytes | Mapping) or not isinstance(findings, Iterable):
        raise InvalidInputError("findings", findings, "is no list of findings")
    asked = dict.fromkeys(_require_finding(number, said) for number, said in enumerate(findings))
    order = list(FindingKind)
    return sorted(asked, key=lambda finding: order.index(finding.kind))


def _require_finding(number: int, said: Any) -> Asked:
    name = f"findings[{number}]"
    if isinstance(said, Finding):
        return Asked(FindingKind(said.kind), said.path, said.file_id)
    if not isinstance(said, Mapping):
        raise InvalidInputError(name, said, "is no object with kind and path")
    kinds = [str(kind) for kind in FindingKind]
    if said.get("kind") not in kinds:
        raise InvalidInputError(f"{name}.kind", said.get("kind"), f"is none of {', '.join(kinds)}")
    file_id = said.get("file_id")
    if not (file_id is None or (isinstance(file_id, str) and file_id.isascii())):
        raise InvalidInputError(f"{name}.file_id", file_id, "is no file id")
    path = require_relative_path(f"{name}.path", said.get("path"))
    return Asked(FindingKind(said["kind"]), path, file_id)


class Repair:
    """Repairs one library; safe for threads and processes."""

    def __init__(self, root: str, catalog: Catalog, clock: Clock) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._clock = clock

    def rehearse(self, chosen: Sequence[Asked], progress: Progress | None = None) -> RepairReport:
        """Return what a repair would do now, and change nothing."""
        require_present(self._root, self._catalog)
        account = _Account(len(chosen))
        for kind, batch in _batches(chosen):
            if progress is not None:
                progress(account.done, account.found)
            if kind is FindingKind.INDEX:
                account.enter_all(batch, self._why_index_stays())
                continue
            prepared = prepare(self._root, batch, self._clock())
            with reading(self._root, self._catalog) as reader:
                remedies = Remedies(self._root, reader, prepared)
                for asked in batch:
                    account.enter(asked, remedies.find(asked))
        return account.report(None, dry_run=True)

    def run(self, chosen: Sequence[Asked], progress: Progress | None = None) -> RepairReport:
        """Put right what was chosen.

        Raises:
            LibraryUnavailableError: The library cannot be changed.
            StorageError: The disk refused; the next change finishes what was recorded.
        """
        require_present(self._root, self._catalog)
        account = _Account(len(chosen))
        at = self._clock()
        operation = {"id": uuid.uuid4().hex, "kind": "repair", "at": iso_utc(at)}
        for kind, batch in _batches(chosen):
            if progress is not None:
                progress(account.done, account.found)
            if kind is FindingKind.INDEX:
                account.enter_all(batch, self._remake_index())
                continue
            prepared = prepare(self._root, batch, at)
            with changing(self._root, self._catalog) as writer:
                try:
                    self._repair(writer, operation, batch, prepared, account)
                except OSError as error:
                    durable.refuse("Repairing", str(error.filename or ""), error)
        return account.report(str(operation["id"]), dry_run=False)

    def _repair(
        self,
        writer: Writer,
        operation: Operation,
        batch: Sequence[Asked],
        prepared: Prepared,
        account: _Account,
    ) -> None:
        remedies = Remedies(self._root, writer, prepared)
        found = [(asked, remedies.find(asked)) for asked in batch]
        chosen = [remedy for _, remedy in found if not isinstance(remedy, Left)]
        if chosen:
            self._catalog.mark_disk(writer)
        failed = _carry_out(self._root, writer, operation, chosen)
        for asked, remedy in found:
            account.enter(asked, failed.get(asked.path, remedy))

    def _remake_index(self) -> Left | None:
        left = self._why_index_stays()
        if left is None:
            self._catalog.distrust_index()
            with changing(self._root, self._catalog):
                pass  # whoever opens it makes the index that there is none of
        return left

    def _why_index_stays(self) -> Left | None:
        """Say why the index is not made anew: it is right, or the document is not."""
        try:
            with reading(self._root, self._catalog) as reader:
                found = next(reader.discrepancies(), None)
        except StorageError as error:
            if not is_failure_of_index(error):
                raise
            return None
        if found is None:
            return Left(STALE)
        return None if found.path == INDEX else Left(found.detail, is_failure=True)


def _batches(chosen: Iterable[Asked]) -> Iterator[tuple[FindingKind, list[Asked]]]:
    """Yield findings that are repaired together: those of one kind, and not too many."""
    for kind, group in itertools.groupby(chosen, key=lambda asked: asked.kind):
        while batch := list(itertools.islice(group, _AT_ONCE)):
            yield kind, batch


def _carry_out(
    root: str, writer: Writer, operation: Operation, remedies: Sequence[Remedy]
) -> dict[str, Left]:
    """Append the lines, move what has to be moved, and return by source what could not be."""
    moves = [remedy for remedy in remedies if isinstance(remedy, MoveBack)]
    changes = [
        *_notes(remedies, operation),
        *_adoptions(remedies, operation),
        *(_moving(remedy, operation) for remedy in moves),
    ]
    if not changes:
        return {}
    before = {move.source: writer.find_file(move.record.file_id) for move in moves}
    targets = [split(move.record.path)[0] for move in moves]
    touched = [
        parent for folder in dict.fromkeys(targets) for parent in durable.make_folders(root, folder)
    ]
    lines = writer.append(changes)
    failed = {move.source: left for move in moves if (left := _move(root, move)) is not None}
    sources = [split(move.source)[0] for move in moves]
    durable.sync_folders(root, dict.fromkeys([*targets, *sources, *touched]))
    given_back = [
        given_back_line(record, operation)
        for source, record in before.items()
        if source in failed and record is not None
    ]
    writer.advance([*lines, *writer.append(given_back)])
    for folder in dict.fromkeys(sources):
        for top in (PROJECTS, LEGACY):
            durable.remove_empty_folders(root, folder, top)
    return failed


def _notes(remedies: Iterable[Remedy], operation: Operation) -> list[Change]:
    """Return a line for each job whose records are brought up to date."""
    lines: dict[str | None, Change] = {}
    for remedy in remedies:
        if isinstance(remedy, Note):
            job_id = remedy.record.job_id
            empty = {
                "kind": "state",
                "job_id": job_id,
                "operation": operation,
                "files": {},
                "before": {},
            }
            line = lines.setdefault(job_id, empty)
            line["files"][remedy.record.file_id] = remedy.overlay
            line["before"][remedy.record.file_id] = {
                key: getattr(remedy.record, key) for key in remedy.overlay
            }
            if remedy.twins:
                line["twins"] = {**line.get("twins", {}), **remedy.twins}
    return list(lines.values())


def _adoptions(remedies: Iterable[Remedy], operation: Operation) -> list[Change]:
    """Return a line for each job whose files get records, and one for each file that is nobody's."""
    lines: list[Change] = []
    by_job: dict[str, Change] = {}
    for remedy in remedies:
        if not isinstance(remedy, Adopt):
            continue
        record, standing = remedy.record, remedy.standing
        stored = file_to_stored(record)
        if standing is None or record.job_id is None:
            lines.append(unowned_line(stored, operation))
        elif record.job_id in by_job:
            by_job[record.job_id]["files"].append(stored)
        else:
            by_job[record.job_id] = {
                "kind": "add" if standing.is_known else "job",
                "job_id": record.job_id,
                "project_id": record.project_id,
                "operation": operation,
                "state": {"reason": None} if "reason" in standing.state else {},
                "files": [stored],
            }
    return [*lines, *by_job.values()]


def _moving(move: MoveBack, operation: Operation) -> Change:
    """Return the line of a file that is moved back; each has its own, since each keeps its own time."""
    return {
        **unowned_line(_as_stored(move), operation),
        "job_id": move.record.job_id,
        "project_id": move.record.project_id,
    }


def _as_stored(move: MoveBack) -> dict[str, Any]:
    return {**file_to_stored(move.record), "moved_from": move.source}


def _move(root: str, move: MoveBack) -> Left | None:
    try:
        place(root, _as_stored(move))
    except ChecksumMismatchError as error:
        return Left(error.code, is_failure=True)
    except OSError as error:
        failure = Failure(move.source, move.record.file_size, error)
        return Left(failure.as_left().reason, is_failure=True)
    return None
