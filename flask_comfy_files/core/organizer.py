"""Organizing a job: find its files, record them, move them, and say what became of each.

The order of effects is the promise. Bytes are synced, then the line that names source and target of
every file is appended to the document and synced, then the files are renamed without ever replacing
one, then the folders are synced, and only then readers see the job. Whoever dies in between leaves
either nothing or a line that the next holder of the lock finishes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from flask_comfy_files.core import attribution, durable, inspection
from flask_comfy_files.core.attribution import Attribution, Candidate, NamedFile
from flask_comfy_files.core.catalog.catalog import Catalog, Reader, Writer
from flask_comfy_files.core.errors import (
    BudgetExceededError,
    ChecksumMismatchError,
    IdentifierCaseError,
    JobInOtherProjectError,
    OutOfSpaceError,
)
from flask_comfy_files.core.filing import Arrival, Filing, JobIdentity
from flask_comfy_files.core.inspection import Failure, Identity, Inspected
from flask_comfy_files.core.layout import job_folder, split
from flask_comfy_files.core.placement import WITHDRAWN, place, staged, sweep_copies
from flask_comfy_files.core.records import (
    LeftFile,
    OrganizeReport,
    SkipReason,
    Tally,
    file_to_stored,
    iso_utc,
)
from flask_comfy_files.core.recovery import recover

_log = logging.getLogger(__name__)

_LINE_BYTES: Final = (
    2048  # what one file's part of a line takes at most, for the check of free space
)

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: the files of a job, filed under a project; ids are checked already.

    ``project_id`` is ``None`` for the job's own project where it is known, else
    ``default_project``. ``operation_id`` is given where the operation was announced before it could
    be carried out.
    """

    job_id: str
    project_id: str | None
    default_project: str
    prompt_id: str | None = None
    files: tuple[NamedFile, ...] | None = None
    operation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one call may do before the work belongs to a worker; ``ends_at`` is on the monotonic clock."""

    bytes: int
    ends_at: float

    def require_bytes(self, job_id: str, size: int) -> None:
        """Refuse work that is too large.

        Raises:
            BudgetExceededError: It does not fit.
        """
        if size > self.bytes:
            raise BudgetExceededError(job_id, f"{size} bytes, {self.bytes} at most")

    def require_time(self, job_id: str) -> None:
        """Refuse to go on when the time is over.

        Raises:
            BudgetExceededError: It is over.
        """
        if time.monotonic() > self.ends_at:
            raise BudgetExceededError(job_id, "its time is over")

    @property
    def time_left_s(self) -> float:
        """How long there is left to wait for a lock."""
        return max(0.0, self.ends_at - time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """What the library knows of a job before a call."""

    project_id: str
    is_known: bool
    file_count: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)
    paths: frozenset[str] = frozenset()
    originals: frozenset[str] = frozenset()
    """Where ComfyUI wrote the job's files."""
    settled: frozenset[str] = frozenset()
    """Those of them that a call with this prompt id cannot bring again."""


@dataclass(slots=True)
class _Ledger:
    """What became of each file that one call looked at."""

    originals: frozenset[str]
    skipped: list[LeftFile] = field(default_factory=list)
    failed: list[LeftFile] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    moved: Tally = field(default_factory=Tally)

    def skip(self, path: str, reason: str, size: int) -> None:
        """Note a file that stays; one that is not there, since the job has it already, is no news."""
        if reason != SkipReason.NOT_FOUND or path not in self.originals:
            self.skipped.append(LeftFile(path=path, reason=reason, bytes=size))

    @property
    def is_complete(self) -> bool:
        """Whether nothing was left that a later call could take."""
        return not self.failed and all(
            left.reason != SkipReason.STILL_BEING_WRITTEN for left in self.skipped
        )


class Organizer:
    """Organizes jobs of one library; safe for threads and processes."""

    def __init__(self, root: str, catalog: Catalog, clock: Clock, min_free_bytes: int) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._clock = clock
        self._min_free_bytes = min_free_bytes

    def organize(self, request: Request, budget: Budget | None = None) -> OrganizeReport:
        """Move a job's finished files into place and record them; what the job already has stays as it is.

        On return the files are in place, recorded and on the disk. Killed anywhere, it loses
        nothing: the next change finishes it. Two callers at once get the same result.

        Raises:
            IdentifierCaseError: The job or project is known in another case.
            JobInOtherProjectError: The job belongs to another project.
            OutOfSpaceError: The volume is too full.
            BudgetExceededError: It is more than the budget allows; nothing was moved.
            LockTimeoutError: Somebody else kept the library busy.
            LibraryUnavailableError: The library cannot be read or changed.
        """
        with self._catalog.reading() as reader:
            standing = _standing(reader, request)
            attributed = self._attribute(reader, request)
        ledger = self._inspect(request, standing, attributed, budget)
        if _changes_nothing(standing, ledger):
            with self._catalog.reading() as reader:
                return _report(reader, request, ledger)
        with contextlib.ExitStack() as stack:
            self._stage(stack, request, standing.project_id, ledger)
            timeout_s = None if budget is None else budget.time_left_s
            writer = stack.enter_context(self.changing(timeout_s))
            return self._apply(writer, request, ledger)

    @contextlib.contextmanager
    def changing(self, lock_timeout_s: float | None = None) -> Iterator[Writer]:
        """Open the library for a change, after finishing what a crash has left unfinished."""
        with self._catalog.changing(lock_timeout_s) as writer:
            if writer.unfinished:
                recover(self._root, writer)
            sweep_copies(self._root)
            yield writer

    def _attribute(self, reader: Reader, request: Request) -> Attribution:
        if request.files is not None:
            return attribution.attribute_named(request.job_id, request.files, reader.owner_of)
        try:
            return attribution.attribute_by_scan(self._root, request.job_id, reader.known_among)
        except OSError as error:
            durable.refuse("Listing", "", error)

    def _inspect(
        self, request: Request, standing: _Standing, attributed: Attribution, budget: Budget | None
    ) -> _Ledger:
        ledger = _Ledger(standing.originals, list(attributed.skipped))
        fresh = self._look(standing, attributed.candidates, ledger)
        size = sum(size for _, size in fresh)
        if budget is not None:
            budget.require_bytes(request.job_id, size)
        if fresh:
            self._require_space(len(fresh) * _LINE_BYTES)
        for result in inspection.inspect_all(self._root, fresh, self._clock()):
            if budget is not None:
                budget.require_time(request.job_id)
            if isinstance(result, Inspected):
                ledger.arrivals.append(Arrival(uuid.uuid4().hex, result))
            elif isinstance(result, Failure):
                ledger.failed.append(result.as_left())
            else:
                ledger.skip(result.path, result.reason, result.bytes)
        return ledger

    def _look(
        self, standing: _Standing, candidates: Sequence[Candidate], ledger: _Ledger
    ) -> list[tuple[Candidate, int]]:
        fresh = []
        for candidate in candidates:
            try:
                seen = inspection.look(self._root, candidate)
            except OSError as error:
                ledger.failed.append(Failure(candidate.path, 0, error).as_left())
                continue
            if isinstance(seen, LeftFile):
                ledger.skip(seen.path, seen.reason, seen.bytes)
            elif candidate.path in standing.settled:
                ledger.skip(candidate.path, SkipReason.NAME_REUSED, seen)
            else:
                fresh.append((candidate, seen))
        return fresh

    def _require_space(self, needed_bytes: int) -> None:
        volume = os.statvfs(self._root)
        free_bytes = volume.f_bavail * volume.f_frsize - self._min_free_bytes
        if free_bytes < needed_bytes:
            raise OutOfSpaceError(needed_bytes, max(0, free_bytes))

    def _stage(
        self, stack: contextlib.ExitStack, request: Request, project_id: str, ledger: _Ledger
    ) -> None:
        """Copy what lies on another file system to its future place, before the lock is taken."""
        folder = job_folder(project_id, request.job_id)
        foreign = [
            arrival
            for arrival in ledger.arrivals
            if arrival.inspected.mount != self._mount_of(folder)
        ]
        if not foreign:
            return
        self._require_space(sum(arrival.size for arrival in foreign))
        with (
            self.changing() as _writer
        ):  # a new library gets its document, and so its right to folders
            durable.sync_folders(self._root, durable.make_folders(self._root, folder))
        for arrival in foreign:
            checksum = arrival.inspected.checksum
            try:
                stack.enter_context(
                    staged(self._root, arrival.path, folder, arrival.file_id, checksum)
                )
            except OSError as error:
                ledger.arrivals.remove(arrival)
                ledger.failed.append(Failure(arrival.path, arrival.size, error).as_left())
            except ChecksumMismatchError as error:
                _log.error("%s", error)
                ledger.arrivals.remove(arrival)
                ledger.failed.append(
                    LeftFile(path=arrival.path, reason=error.code, bytes=arrival.size)
                )

    def _mount_of(self, folder: str) -> str:
        """Return the mount of the nearest folder that exists above a future one."""
        while True:
            try:
                with durable.open_folder(self._root, folder) as descriptor:
                    return durable.mount_id(descriptor)
            except FileNotFoundError:
                folder = split(folder)[0]

    def _apply(self, writer: Writer, request: Request, ledger: _Ledger) -> OrganizeReport:
        """Record and move what has arrived; for the holder of the lock."""
        standing = _standing(writer, request)
        self._check_again(standing, ledger)
        if _changes_nothing(standing, ledger):
            return _report(writer, request, ledger)
        at = self._clock()
        filing = Filing(
            JobIdentity(self._root, request.job_id, standing.project_id, request.prompt_id),
            at,
            taken=standing.paths,
            originals=[*standing.originals, *(arrival.path for arrival in ledger.arrivals)],
            exists=lambda path: durable.find_status(self._root, path) is not None,
        )
        files = [file_to_stored(filing.record(arrival)) for arrival in ledger.arrivals]
        operation = _operation(request, at)
        change = {
            "kind": "add" if standing.is_known else "job",
            "job_id": request.job_id,
            "project_id": standing.project_id,
            "operation": operation,
            "state": _new_state(standing, ledger),
            "files": files,
        }
        self._carry_out(writer, change, ledger)
        return _report(writer, request, ledger)

    def _carry_out(self, writer: Writer, change: Mapping[str, Any], ledger: _Ledger) -> None:
        """Append the line, move its files, and let readers see it."""
        files = change["files"]
        folder = job_folder(change["project_id"], change["job_id"])
        try:
            lines = writer.append([change])
            if files and self._catalog.read_sentinel() is None:
                self._catalog.write_sentinel(writer.library_id)
            touched = durable.make_folders(self._root, folder) if files else []
            withdrawn = self._move(files, ledger)
            durable.sync_folders(self._root, dict.fromkeys([*_folders_of(files), *touched]))
            if withdrawn:
                correction = {
                    **change,
                    "kind": "state",
                    "state": {},
                    "files": dict.fromkeys(withdrawn, WITHDRAWN),
                }
                lines += writer.append([correction])
        except OSError as error:
            durable.refuse("Organizing into", folder, error)
        writer.advance(lines)

    def _move(self, files: Sequence[Mapping[str, Any]], ledger: _Ledger) -> list[str]:
        """Move files to their recorded places; return the ids of those that could not be moved."""
        withdrawn = []
        for stored in files:
            try:
                place(self._root, stored)
            except OSError as error:
                _log.warning(
                    "%r could not be moved and was left in place: %s",
                    stored["original_path"],
                    error,
                )
                ledger.failed.append(
                    Failure(stored["original_path"], stored["file_size"], error).as_left()
                )
                withdrawn.append(stored["file_id"])
            else:
                ledger.moved = Tally(
                    files=ledger.moved.files + 1, bytes=ledger.moved.bytes + stored["file_size"]
                )
        return withdrawn

    def _check_again(self, standing: _Standing, ledger: _Ledger) -> None:
        """Drop what another call has taken, and what has changed, since it was inspected."""
        for arrival in list(ledger.arrivals):
            status = durable.find_status(self._root, arrival.path)
            if arrival.path in standing.settled:
                ledger.arrivals.remove(arrival)
                if status is not None:
                    ledger.skip(arrival.path, SkipReason.NAME_REUSED, status.st_size)
            elif status is None:
                ledger.arrivals.remove(arrival)
                ledger.skip(arrival.path, SkipReason.NOT_FOUND, 0)
            elif Identity.of(status) != arrival.inspected.identity:
                ledger.arrivals.remove(arrival)
                ledger.skip(arrival.path, SkipReason.STILL_BEING_WRITTEN, status.st_size)


def _standing(reader: Reader, request: Request) -> _Standing:
    """Say what the library knows of a job, and refuse ids that contradict it."""
    _require_spelling("job_id", request.job_id, reader.known_job(request.job_id))
    if request.project_id is not None:
        _require_spelling(
            "project_id", request.project_id, reader.known_project(request.project_id)
        )
    job = reader.find_job(request.job_id)
    if job is None:
        project_id = request.project_id or request.default_project
        _require_spelling("project_id", project_id, reader.known_project(project_id))
        return _Standing(project_id=project_id, is_known=False)
    if request.project_id not in {None, job.project_id}:
        raise JobInOtherProjectError(request.job_id, str(request.project_id), job.project_id)
    files = reader.paths_of_job(request.job_id)
    return _Standing(
        project_id=job.project_id,
        is_known=True,
        file_count=job.file_count,
        state=job.state,
        paths=frozenset(path for path, _, _ in files),
        originals=frozenset(original for _, original, _ in files),
        settled=frozenset(
            original for _, original, run in files if request.prompt_id in {None, run}
        ),
    )


def _require_spelling(field: str, given: str, known: str | None) -> None:
    if known not in {None, given}:
        raise IdentifierCaseError(field, given, str(known))


def _new_state(standing: _Standing, ledger: _Ledger) -> dict[str, Any]:
    """Return what changes of the job's state: the reason why it has no files, and whether it still waits."""
    has_files = bool(standing.file_count or ledger.arrivals)
    reason = None if has_files else _why_no_files(ledger)
    wanted = {"reason": reason}
    if ledger.is_complete:
        wanted["pending"] = None
    return {key: value for key, value in wanted.items() if value != standing.state.get(key)}


def _why_no_files(ledger: _Ledger) -> str:
    left = [*ledger.skipped, *ledger.failed]
    if not left:
        return "no file of this job was found"
    reasons = ", ".join(sorted({str(entry.reason) for entry in left}))
    return f"none of the {len(left)} files found or named could be taken: {reasons}"


def _changes_nothing(standing: _Standing, ledger: _Ledger) -> bool:
    return standing.is_known and not ledger.arrivals and not _new_state(standing, ledger)


def _operation(request: Request, at: datetime) -> dict[str, Any]:
    operation = {
        "id": request.operation_id or uuid.uuid4().hex,
        "kind": "organize",
        "at": iso_utc(at),
    }
    return operation if request.prompt_id is None else {**operation, "prompt_id": request.prompt_id}


def _folders_of(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the folders that moves change, targets first: so that at no time a name is at neither."""
    return [split(stored[key])[0] for key in ("path", "original_path") for stored in files]


def _report(reader: Reader, request: Request, ledger: _Ledger) -> OrganizeReport:
    job = reader.find_job(request.job_id)
    files = reader.files_of_job(request.job_id)
    total = Tally(files=len(files), bytes=sum(record.file_size for record in files))
    already = Tally(files=total.files - ledger.moved.files, bytes=total.bytes - ledger.moved.bytes)
    left = [*ledger.skipped, *ledger.failed]
    return OrganizeReport(
        job_id=request.job_id,
        project_id=request.default_project if job is None else job.project_id,
        organized_files=files,
        file_count=total.files,
        found=Tally(
            files=total.files + len(left), bytes=total.bytes + sum(entry.bytes for entry in left)
        ),
        moved=ledger.moved,
        already_there=already,
        skipped=tuple(ledger.skipped),
        failed=tuple(ledger.failed),
        operation_id=None if job is None else job.operation_id,
    )
