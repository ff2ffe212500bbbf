"""What was done to the library, and undoing it."""

from __future__ import annotations

from flask_comfy_files.core import operations
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.manager.observing import operation
from flask_comfy_files.core.operations import (
    MOST_CHANGES,
    MOST_OPERATIONS,
    OperationList,
    OperationRecord,
)
from flask_comfy_files.core.paging import require_limit
from flask_comfy_files.core.undoing import Progress
from flask_comfy_files.core.undone import UndoReport


class Operating(Base):
    """What a manager knows of its operations."""

    def get_operations(
        self, *, kind: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> OperationList:
        """Return operations, of one kind or of all, newest first.

        ``cursor`` is the ``next_cursor`` of an earlier answer. What is done meanwhile does not move the pages.

        Raises:
            InvalidInputError: ``limit`` is no whole number from 1 to 200, or ``kind`` or ``cursor`` is
                none.
        """
        wanted = operations.require_kind(kind)
        number = require_limit(limit, MOST_OPERATIONS)
        before = operations.require_cursor(cursor)
        with self._reading() as reader:
            return operations.list_operations(self._root, reader, wanted, number, before)

    def get_operation(
        self, operation_id: str, *, limit: int = MOST_CHANGES, cursor: str | None = None
    ) -> OperationRecord:
        """Return an operation with what it changed, in order; at most ``limit`` changes at once.

        Raises:
            OperationNotFoundError: It is not known.
            InvalidInputError: ``limit`` is no whole number from 1 to 1000, or ``cursor`` is none.
        """
        number = require_limit(limit, MOST_CHANGES)
        behind = operations.require_cursor(cursor)
        with self._reading() as reader:
            row = operations.require_operation(reader, operation_id)
            return operations.operation_record(self._root, reader, row, number, behind)

    def plan_undo(self, operation_id: str, *, on_progress: Progress | None = None) -> UndoReport:
        """Return what ``undo_operation`` would do now, and change nothing.

        Raises:
            OperationNotFoundError: As ``undo_operation``.
            ConflictError: Likewise.
        """
        return self._undoing.plan(operation_id, on_progress)

    @operation("undo")
    def undo_operation(
        self, operation_id: str, *, on_progress: Progress | None = None
    ) -> UndoReport:
        """Put back what an operation moved, deleted or restored, as far as the bytes still exist.

        A file whose name was taken meanwhile is put beside it. What cannot be undone is told with the reason. An
        undo is an operation itself, and can be undone. Called again, it does what was not possible before, or
        answers what was done. ``on_progress`` is told how many files of how many are back, and their bytes.

        Raises:
            OperationNotFoundError: It is not known.
            OperationNotUndoableError: It is of a kind that cannot be undone; the error says what to do.
            JobPinnedError: It would delete a pinned job.
            BusyError: It is a migration or a cleanup that is still under way.
            OutOfSpaceError: The records would not fit; nothing was changed.
        """
        self._require_room(lambda reader: operations.require_operation(reader, operation_id).files)
        is_deletion = self._undoing.deletes(operation_id)
        outcome = self._undoing.undo(operation_id, on_progress)
        if is_deletion and outcome.is_new:
            self._witness.deleted_again(outcome.report, outcome.report.undone.files)
        return outcome.report

    def undo_deletes(self, operation_id: str) -> bool:
        """Say whether undoing an operation would move jobs into the trash.

        Raises:
            OperationNotFoundError: It is not known.
        """
        return self._undoing.deletes(operation_id)
