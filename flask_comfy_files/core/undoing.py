"""Undoing an operation: every file back to where it was, as far as its bytes still exist, and never over another.

An undo is an operation of its own, so it can be undone, too. It goes batch by batch, and each of them the way of
all changes: a line that names what is to be done, the moves, the folders, the index.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.document import Change
from flask_comfy_files.core.catalog.operations import OperationRow
from flask_comfy_files.core.catalog.queries import TrashRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.deletion import new_operation, require_free
from flask_comfy_files.core.disposal import first_deletion, restore_job, trash_jobs
from flask_comfy_files.core.errors import (
    CleanupRunningError,
    ConflictError,
    DocumentDamagedError,
    JobPinnedError,
    LockTimeoutError,
    MigrationRunningError,
    OperationNotUndoableError,
)
from flask_comfy_files.core.examination import Examined, examine
from flask_comfy_files.core.inversion import Inversion
from flask_comfy_files.core.layout import CLEANUP_LOCK, MIGRATION_LOCK, file_path, job_folder
from flask_comfy_files.core.operations import keep_report, read_report, require_operation
from flask_comfy_files.core.records import LeftFile
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.reports import Outcome
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.reversal import carry_out
from flask_comfy_files.core.undone import (
    FILES_AT_ONCE,
    Effects,
    Ledger,
    UndoReport,
    effects_of,
    report_from_dict,
)

Progress = Callable[[int, int, int], None]
"""Told how many of how many files are back, and how many bytes those have."""

_UNDOABLE: Final = frozenset(
    {"organize", "migrate", "assign", "import", "delete", "cleanup", "restore", "repair", "undo"}
)
_RUNNING: Final = {
    "migrate": (MIGRATION_LOCK, MigrationRunningError),
    "cleanup": (CLEANUP_LOCK, CleanupRunningError),
}
"""By kind the lock that an operation holds while it is under way, and the error that says so."""

_WHY_NOT: Final[Mapping[str, str]] = {
    "adopt": "bring the files back; flask files verify finds them, and flask files repair notes it.",
    "rebuild": "it gave records to files whose own were lost; delete their jobs if they are not wanted.",
    "mark": "set the pin or the tags as they should be.",
    "purge": "what was deleted for good is gone; copy it back from a backup, and organize it.",
    "recover": "it finished what a crash had interrupted; undo the operation that it corrected.",
}


class Undoing:
    """Undoes operations of one library; safe for threads and processes."""

    def __init__(self, root: str, catalog: Catalog, clock: Clock) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._clock = clock

    def plan(self, operation_id: str, progress: Progress | None = None) -> UndoReport:
        """Return what undoing an operation would do now; nothing is changed.

        Raises:
            OperationNotFoundError: It is not known.
            OperationNotUndoableError: It is of a kind that cannot be undone.
            JobPinnedError: It would delete a pinned job.
        """
        with reading(self._root, self._catalog) as reader:
            work = self._begin(reader, operation_id, {"id": "", "kind": "undo"})
            for piece in work.effects.pieces:
                work.tell(progress)
                batch = _Batch(self._root, reader, work, make_folder=lambda _: None)
                batch.take(piece)
                batch.rehearse()
        return work.ledger.report(work.row, None, is_rehearsal=True)

    def undo(self, operation_id: str, progress: Progress | None = None) -> Outcome[UndoReport]:
        """Undo an operation; one that is undone already is answered as it was then.

        Raises:
            OperationNotFoundError: It is not known.
            OperationNotUndoableError: It is of a kind that cannot be undone.
            JobPinnedError: It would delete a pinned job.
            BusyError: It is still under way.
        """
        operation = {**new_operation("undo", self._clock()), "undoes": operation_id}
        with contextlib.ExitStack() as stack:
            with reading(self._root, self._catalog) as reader:
                self._require_ended(stack, require_operation(reader, operation_id))
            with reading(self._root, self._catalog) as reader:
                work = self._begin(reader, operation_id, operation)
            before = self._answered_before(operation_id)
            if before is not None and work.effects.ids <= work.effects.already:
                return Outcome(before, is_new=False)
            self._carry_out(work, progress)
        undo_id = operation["id"] if work.ledger.undone[0] else None
        before = None if undo_id or work.ledger.failed else self._answered_before(operation_id)
        if before is not None:
            return Outcome(before, is_new=False)
        report = work.ledger.report(work.row, undo_id, is_rehearsal=False)
        keep_report(self._root, undo_id, report)
        return Outcome(report, is_new=undo_id is not None)

    def _require_ended(self, stack: contextlib.ExitStack, row: OperationRow) -> None:
        """Keep a migration or a cleanup from going on meanwhile.

        Raises:
            BusyError: It is still under way.
        """
        if row.kind in _RUNNING:
            path, running = _RUNNING[row.kind]
            try:
                stack.enter_context(lock.hold(file_path(self._root, path), 0))
            except LockTimeoutError as error:
                raise running from error

    def _carry_out(self, work: _Work, progress: Progress | None) -> None:
        pieces = deque(work.effects.pieces)
        while pieces:
            work.tell(progress)
            with changing(self._root, self._catalog) as writer:
                batch = _Batch(self._root, writer, work, make_folder=work.make_folder(self._root))
                while pieces and batch.weight < FILES_AT_ONCE:
                    batch.take(pieces.popleft())
                try:
                    batch.carry_out(writer)
                except OSError as error:
                    durable.refuse("Undoing in", "", error)

    def _answered_before(self, operation_id: str) -> UndoReport | None:
        """Return what undoing an operation answered, if it is undone; another process may have done that."""
        with reading(self._root, self._catalog) as reader:
            undone_by = require_operation(reader, operation_id).undone_by
        before = None if undone_by is None else read_report(self._root, undone_by)
        return None if before is None else report_from_dict(before)

    def deletes(self, operation_id: str) -> bool:
        """Say whether undoing an operation moves jobs into the trash.

        Raises:
            OperationNotFoundError: It is not known.
        """
        with reading(self._root, self._catalog) as reader:
            row = require_operation(reader, operation_id)
            deleting = {"restore"}
            while row.undoes is not None:
                row = require_operation(reader, row.undoes)
                deleting = {"restore"} if "restore" not in deleting else {"delete", "cleanup"}
            return row.kind in deleting

    def _begin(self, reader: Reader, operation_id: str, operation: Mapping[str, Any]) -> _Work:
        row = require_operation(reader, operation_id)
        if row.kind not in _UNDOABLE:
            reason = _WHY_NOT.get(row.kind, "this version does not know how.")
            raise OperationNotUndoableError(operation_id, row.kind, reason)
        if not reader.has_lines_of(row):
            reason = "its lines stand in an older document, which is gone."
            raise OperationNotUndoableError(operation_id, row.kind, reason)
        work = _Work(row, effects_of(reader, row), operation)
        if len(work.effects.restored) == 1:
            (job_id,) = work.effects.restored
            _require_unpinned(reader, job_id)
        return work


def _require_unpinned(reader: Reader, job_id: str) -> None:
    if _is_pinned(reader, job_id):
        raise JobPinnedError(job_id)


def _is_pinned(reader: Reader, job_id: str) -> bool:
    job = reader.find_job(job_id)
    return job is not None and bool(job.state.get("pinned"))


@dataclass(slots=True)
class _Work:
    """One undo under way."""

    row: OperationRow
    effects: Effects
    operation: Mapping[str, Any]
    ledger: Ledger = field(default_factory=Ledger)
    touched: list[str] = field(default_factory=list)
    """The folders that have got new ones, and are not synced yet."""

    def tell(self, progress: Progress | None) -> None:
        """Say how far it has come, where nothing is half done."""
        if progress is not None:
            files, size = self.ledger.undone
            progress(files, self.row.files, size)

    def make_folder(self, root: str) -> Callable[[str], None]:
        """Return what makes the folder of a target."""

        def make(folder: str) -> None:
            self.touched += durable.make_folders(root, folder)
            with durable.open_folder(root, folder):
                pass  # where there can be no folder, no line may wait for one

        return make


class _Batch:
    """What is undone with one turn of the lock."""

    def __init__(
        self, root: str, reader: Reader, work: _Work, make_folder: Callable[[str], None]
    ) -> None:
        self.weight = 0
        self._root = root
        self._reader = reader
        self._work = work
        self._files = Inversion(
            reader, root, work.row, work.effects, work.operation, work.ledger, make_folder
        )
        self._going: list[Examined] = []
        self._coming: list[TrashRow] = []

    def take(self, piece: tuple[int, int, int, int]) -> None:
        """Take in a line, or a part of it."""
        offset, length, start, stop = piece
        change = self._read(offset, length)
        self._files.take(change, start, stop)
        self.weight += max(len(self._files.steps) - self.weight, 1)
        if start == 0:
            self._take_job(change)

    def _read(self, offset: int, length: int) -> Change:
        """Return a line of the operation.

        Raises:
            OperationNotUndoableError: Somebody has rewritten the document since its lines were looked up.
        """
        row = self._work.row
        change: Change = {"operation": {"id": None}}
        with contextlib.suppress(DocumentDamagedError):
            change = self._reader.read_change(offset, length, row.generation)
        operation = change["operation"]
        if row.operation_id not in {operation["id"], operation.get("corrects")}:
            reason = "its lines have moved meanwhile; try again."
            raise OperationNotUndoableError(row.operation_id, row.kind, reason)
        return change

    def _take_job(self, change: Change) -> None:
        effects, job_id = self._work.effects, change["job_id"]
        if "trash" in change and job_id in effects.trashed:
            self._restore(change)
        if "restore" in change and job_id in effects.restored:
            self._trash(change)

    def _restore(self, change: Change) -> None:
        """Choose a job that the operation moved into the trash to come back."""
        job_id, facts, ledger = change["job_id"], change["trash"], self._work.ledger
        files, size = facts.get("files", 0), facts.get("bytes", 0)
        if f"job {job_id}" in self._work.effects.already:
            ledger.enter_already(size, files)
            return
        resting = list(self._reader.trash(job_id))
        first = first_deletion(facts)
        row = next((row for row in resting if first_deletion(row.facts) == first), None)
        if row is None:
            back = self._reader.find_job(job_id) is not None
            reason = "changed_later" if back or resting else "deleted_for_good"
            ledger.skip(f"job {job_id}", reason, size, None, files)
            return
        try:
            require_free(self._reader, row)
        except ConflictError as error:
            ledger.skip(f"job {job_id}", error.code, size, str(error), files)
            return
        self._coming.append(row)

    def _trash(self, change: Change) -> None:
        """Choose a job that the operation brought back to go into the trash again."""
        job_id, ledger = change["job_id"], self._work.ledger
        ids = set(change["restore"].get("files", ()))
        size = change["restore"].get("bytes", 0)
        job = self._reader.find_job(job_id)
        if f"job {job_id}" in self._work.effects.already:
            ledger.enter_already(size, len(ids))
        elif job is None:
            is_resting = bool(list(self._reader.trash(job_id)))
            reason = "in_trash" if is_resting else "deleted_for_good"
            ledger.skip(f"job {job_id}", reason, size, None, len(ids))
        elif job.state.get("pinned"):
            ledger.skip(f"job {job_id}", "job_pinned", size, "Unpin it first.", len(ids))
        else:
            records = self._reader.files_of_job(job_id)
            examined = examine(self._root, job_id, job.project_id, records)
            examined.again = change["restore"].get("deletion")
            others = [record for record in examined.doomed if record.file_id not in ids]
            examined.doomed = [record for record in examined.doomed if record.file_id in ids]
            examined.held += [
                (record, LeftFile(path=record.path, reason="came_otherwise")) for record in others
            ]
            self._tell_who_stays(examined, ids)
            self._going.append(examined)

    def _tell_who_stays(self, examined: Examined, ids: set[str]) -> None:
        ledger = self._work.ledger
        for record, left in examined.held:
            if record.file_id in ids:
                ledger.skip(left.path, left.reason, left.bytes)
        for record in examined.gone:
            if record.file_id in ids:
                ledger.skip(record.path, "not_found", record.file_size)
        for record, left in examined.failed:
            if record.file_id in ids:
                ledger.fail(left)

    def rehearse(self) -> None:
        """Enter what would be done."""
        ledger = self._work.ledger
        for step in self._files.steps:
            ledger.enter(1, step.size)
        for examined in self._going:
            ledger.enter(len(examined.doomed), examined.size)
        for row in self._coming:
            ledger.enter(row.file_count, row.total_size)

    def carry_out(self, writer: Writer) -> None:
        """Do it.

        Raises:
            OSError: The disk refused; the next change finishes what was recorded.
        """
        work, files = self._work, self._files
        files.finish()
        failures = carry_out(self._root, writer, files.changes, files.steps, work.touched)
        work.touched.clear()
        for step, failure in zip(files.steps, failures, strict=True):
            if failure is None:
                work.ledger.enter(1, step.size)
            else:
                work.ledger.fail(failure)
        self._carry_out_deletions(writer)
        for row in self._coming:
            self._carry_out_restoration(writer, row)

    def _carry_out_deletions(self, writer: Writer) -> None:
        going = [examined for examined in self._going if examined.doomed]
        if not going:
            return
        trashed = trash_jobs(self._root, writer, self._work.operation, going)
        for examined in going:
            failure = trashed.failed.get(examined.job_id)
            if failure is None:
                self._work.ledger.enter(len(examined.doomed), examined.size)
                continue
            for record in examined.doomed:
                left = LeftFile(path=record.path, reason=failure.reason, bytes=record.file_size)
                self._work.ledger.fail(left)

    def _carry_out_restoration(self, writer: Writer, row: TrashRow) -> None:
        ledger = self._work.ledger
        records = writer.trashed_files(row.job_id, row.entry)
        restored = restore_job(self._root, writer, self._work.operation, row)
        if restored.failed is not None:
            for record in records:
                path = f"{job_folder(row.project_id, row.job_id)}/{record.path.rpartition('/')[2]}"
                reason = restored.failed.reason
                ledger.fail(LeftFile(path=path, reason=reason, bytes=record.file_size))
            return
        for record in restored.records:
            if record.missing:
                ledger.skip(record.path, "not_found", record.file_size)
            else:
                ledger.enter(1, record.file_size)
