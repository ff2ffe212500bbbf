"""Told of what is done in a library: it sends the signals, and counts where metrics are wanted."""

from __future__ import annotations

import weakref
from collections.abc import Sized
from datetime import datetime, timedelta
from typing import Any, Final

from flask_comfy_files import signals
from flask_comfy_files.core.errors import ComfyFilesError, OutOfSpaceError, StorageError
from flask_comfy_files.core.metering import Meter
from flask_comfy_files.core.records import OrganizeReport, PendingJob
from flask_comfy_files.core.reports import CleanupReport, DeletionReport, PurgeReport
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.room import free_bytes
from flask_comfy_files.core.tasks import TaskCancelledError

_LOW_DISK_EVERY: Final = timedelta(minutes=5)

OK: Final = "ok"
INCOMPLETE: Final = "incomplete"
_CANCELLED: Final = "cancelled"
_UNEXPECTED: Final = "internal_error"

_UNFINISHED: Final = ("failed", "organize_error", "still_pending", "given_up")
"""What of a report tells that not everything was done; empty, or ``None``, where everything was."""


class Witness:
    """What one manager tells others; safe for threads. It holds no library's lock while it tells."""

    def __init__(
        self, sender: object, root: str, clock: Clock, *, min_free_bytes: int, meter: Meter | None
    ) -> None:
        """Speak for a manager, which it does not keep alive."""
        self._sender = weakref.ref(sender)
        self._root = root
        self._clock = clock
        self._min_free_bytes = min_free_bytes
        self._meter = meter
        self._low_at: datetime | None = None

    def organized(self, report: OrganizeReport) -> None:
        """Tell that a job was organized, now or when it had been pending."""
        if self._meter is not None:
            self._meter.count("organized_files_total", amount=report.moved.files)
            self._meter.count("organized_bytes_total", amount=report.moved.bytes)
            self._count_left(report)
        if report.moved.files:
            signals.send(signals.job_organized, self._sender(), report=report)

    def left_behind(self, report: OrganizeReport, reason: str) -> None:
        """Tell that a call has left files of a job that nobody comes back for."""
        self._incomplete(report.job_id, reason)

    def pending(self, waiting: PendingJob) -> None:
        """Tell that a completion waits to be organized."""
        self._incomplete(waiting.job_id, waiting.reason, waiting.operation_id)

    def given_up(self, waiting: PendingJob) -> None:
        """Tell that a completion does not wait any more, and is not organized."""
        self._incomplete(waiting.job_id, waiting.reason)

    def _incomplete(self, job_id: str, reason: str, operation_id: str | None = None) -> None:
        signals.send(
            signals.job_incomplete,
            self._sender(),
            job_id=job_id,
            reason=reason,
            is_pending=operation_id is not None,
            operation_id=operation_id,
        )

    def deleted(self, report: DeletionReport) -> None:
        """Tell that a job was deleted."""
        is_for_good = report.restorable_until is None
        self._deleted(report, report.deleted_files, report.deleted_files if is_for_good else 0)

    def purged(self, report: PurgeReport) -> None:
        """Tell that the trash was emptied."""
        self._deleted(report, 0, report.purged_files)

    def deleted_again(self, report: object, files: int) -> None:
        """Tell that jobs that had been restored went back to the trash, with so many files."""
        self._deleted(report, files, 0)

    def cleaned_up(self, report: CleanupReport) -> None:
        """Tell that a cleanup was carried out."""
        if report.deleted_files or report.purged_files:
            self._deleted(report, report.deleted_files, report.purged_files)
        signals.send(signals.cleanup_finished, self._sender(), report=report)

    def _deleted(self, report: object, deleted_files: int, purged_files: int) -> None:
        signals.send(
            signals.files_deleted,
            self._sender(),
            report=report,
            deleted_files=deleted_files,
            purged_files=purged_files,
        )

    def refused(self, error: Exception) -> None:
        """Tell what kept an operation from being done, where that is for others to know."""
        if isinstance(error, OutOfSpaceError):
            self._tell_of_disk(error.needed_bytes)

    def returned(self, kind: str, answer: object, seconds: float) -> None:
        """Tell that an operation has come to its end; ``None`` and a rehearsal are none."""
        if answer is None or getattr(answer, "dry_run", False):
            return
        is_unfinished = any(getattr(answer, name, None) for name in _UNFINISHED)
        if not isinstance(answer, OrganizeReport):  # which was told of before
            self._count_left(answer)
        self._count(kind, INCOMPLETE if is_unfinished else OK, seconds)
        self._tell_of_disk()

    def raised(self, kind: str, error: Exception, seconds: float) -> None:
        """Tell that an operation has failed."""
        if isinstance(error, ComfyFilesError):
            result = error.code
        else:
            result = _CANCELLED if isinstance(error, TaskCancelledError) else _UNEXPECTED
        self._count(kind, result, seconds)
        self.refused(error)

    def _count(self, kind: str, result: str, seconds: float) -> None:
        if self._meter is not None:
            self._meter.count("operations_total", kind, result)
            self._meter.note("last_operation_timestamp_seconds", kind, result, at=self._clock())
            self._meter.measure("operation_duration_seconds", kind, seconds=seconds)
            self._meter.write()

    def _count_left(self, report: Any) -> None:
        if self._meter is None:
            return
        for outcome in ("skipped", "failed"):
            left = getattr(report, outcome, ())
            if isinstance(left, Sized) and left:
                self._meter.count("left_files_total", outcome, amount=len(left))

    def _tell_of_disk(self, needed_bytes: int | None = None) -> None:
        """Tell that space runs out: it was refused so many bytes, or less is free than should be."""
        if not signals.disk_low.receivers:
            return
        try:
            free = free_bytes(self._root)
        except StorageError:
            return
        now = self._clock()
        is_told = self._low_at is not None and abs(now - self._low_at) < _LOW_DISK_EVERY
        if is_told or (needed_bytes is None and free >= self._min_free_bytes):
            return
        self._low_at = now
        signals.send(
            signals.disk_low,
            self._sender(),
            free_bytes=free,
            min_free_bytes=self._min_free_bytes,
            needed_bytes=needed_bytes,
        )
