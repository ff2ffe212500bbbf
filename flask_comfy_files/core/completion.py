"""A completed job: organized now if that can be, and otherwise remembered, so that it is not forgotten.

What is remembered is a part of the job's state in the document, so any process may finish it. Only where the
library cannot even be written does this process keep it in mind.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.attribution import NamedFile
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.queries import JobRow
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.errors import ComfyFilesError, ConflictError, InvalidInputError
from flask_comfy_files.core.organizer import Organizer
from flask_comfy_files.core.records import (
    CompletionReport,
    OrganizeReport,
    PendingJob,
    RetryReport,
    SkipReason,
    iso_utc,
)
from flask_comfy_files.core.request import Budget, Clock, Request
from flask_comfy_files.core.standing import find_standing

_log = logging.getLogger(__name__)

_MOST_RETRIES: Final = 10
"""Of earlier jobs, when a later one completes: its caller is waiting."""

_REMEMBERING_TIMEOUT_S: Final = 2.0
"""For the lock, to note a job as pending: the budget may be spent on waiting for it already."""


class Completion:
    """Organizes completed jobs of one library, now or later; safe for threads and processes."""

    def __init__(self, catalog: Catalog, organizer: Organizer, clock: Clock) -> None:
        """Work with the collaborators that the manager made."""
        self._catalog = catalog
        self._organizer = organizer
        self._clock = clock
        self._unwritten: dict[str, PendingJob] = {}
        """Pending jobs that the document does not know, since it could not be written."""

    def complete(self, request: Request, budget: Budget) -> CompletionReport:
        """Organize a job within a budget, and what is pending from before with what is left of it.

        Raises:
            InvalidInputError: The caller's own mistake: trying again would not help, so nothing is
                remembered.
            ConflictError: Likewise.
        """
        request = replace(request, operation_id=request.operation_id or uuid.uuid4().hex)
        try:
            report = self._organizer.organize(request, budget)
        except (InvalidInputError, ConflictError):
            raise
        except (ComfyFilesError, OSError) as error:
            _log.warning("job %s is completed but not organized yet: %s", request.job_id, error)
            return self._postponed(request, str(error))
        reason = _why_incomplete(report)
        if reason is None:
            self._unwritten.pop(request.job_id, None)
            answer = _answer(report)
            self._retry_earlier(request.job_id, budget)
            return answer
        postponed = self._postponed(request, reason)
        return replace(
            postponed, organized_files=report.organized_files, file_count=report.file_count
        )

    @property
    def unwritten_count(self) -> int:
        """How many jobs are pending in this process alone."""
        return len(self._unwritten)

    def pending_jobs(self) -> list[PendingJob]:
        """Return the jobs that were completed and wait to be organized, by id.

        Raises:
            LibraryUnavailableError: The library cannot be read, and this process has none in mind.
        """
        try:
            with self._catalog.reading() as reader:
                written = {row.job_id: _pending_job(row) for row in reader.pending_jobs()}
        except (ComfyFilesError, OSError):
            if not self._unwritten:
                raise
            written = {}
        return [pending for _, pending in sorted({**self._unwritten, **written}.items())]

    def retry(self, waiting: Sequence[PendingJob], budget: Budget | None = None) -> RetryReport:
        """Organize jobs that were left pending; what fails again stays so, what never can is given up."""
        organized, still_pending, given_up = [], [], []
        for pending in waiting:
            try:
                report = self._organizer.organize(_request(pending), budget)
            except (InvalidInputError, ConflictError) as error:
                given_up.append(replace(pending, reason=str(error)))
                self._give_up(given_up[-1])
            except (ComfyFilesError, OSError) as error:
                still_pending.append(replace(pending, reason=str(error)))
            else:
                reason = _why_incomplete(report)
                if reason is None:
                    self._unwritten.pop(pending.job_id, None)
                    organized.append(report)
                else:
                    still_pending.append(replace(pending, reason=reason))
        return RetryReport(
            organized=tuple(organized),
            still_pending=tuple(still_pending),
            given_up=tuple(given_up),
        )

    def _retry_earlier(self, job_id: str, budget: Budget) -> None:
        """Finish what is pending from before, as far as time allows; it never spoils this completion."""
        try:
            earlier = [pending for pending in self.pending_jobs() if pending.job_id != job_id]
            for pending in earlier[:_MOST_RETRIES]:
                if time.monotonic() < budget.ends_at:
                    self.retry([pending], budget)
        except (ComfyFilesError, OSError) as error:
            _log.warning("pending jobs could not be looked at: %s", error)

    def _postponed(self, request: Request, reason: str) -> CompletionReport:
        pending = PendingJob(
            job_id=request.job_id,
            project_id=request.project_id or request.default_project,
            prompt_id=request.prompt_id,
            files=None if request.files is None else _pairs(request.files),
            reason=reason,
            operation_id=request.operation_id or uuid.uuid4().hex,
            since=iso_utc(self._clock()),
        )
        try:
            with self._organizer.changing(_REMEMBERING_TIMEOUT_S) as writer:
                find_standing(writer, request)  # refuses what was contradicted meanwhile
                pending = _with_earlier_files(writer, pending)
                _append(
                    writer, pending.job_id, pending.operation_id, pending.since, _state(pending)
                )
        except ConflictError:
            raise
        except (ComfyFilesError, OSError) as error:
            _log.error("job %s is pending in this process alone: %s", pending.job_id, error)
            self._unwritten[pending.job_id] = pending
        return CompletionReport(
            job_id=pending.job_id,
            project_id=pending.project_id,
            organized_files=(),
            file_count=0,
            organize_error=reason,
            organize_operation_id=pending.operation_id,
        )

    def _give_up(self, pending: PendingJob) -> None:
        _log.error("job %s is pending no more: %s", pending.job_id, pending.reason)
        self._unwritten.pop(pending.job_id, None)
        with self._organizer.changing() as writer:
            if writer.find_job(pending.job_id) is not None:
                state = {"pending": None, "reason": pending.reason}
                _append(writer, pending.job_id, uuid.uuid4().hex, iso_utc(self._clock()), state)


def _why_incomplete(report: OrganizeReport) -> str | None:
    """Say why a later call may find more than this one did; ``None`` when it is finished."""
    if report.failed:
        return f"{report.failed[0].path}: {report.failed[0].reason}"
    if any(left.reason == SkipReason.STILL_BEING_WRITTEN for left in report.skipped):
        return str(SkipReason.STILL_BEING_WRITTEN)
    return None


def _answer(report: OrganizeReport) -> CompletionReport:
    return CompletionReport(
        job_id=report.job_id,
        project_id=report.project_id,
        organized_files=report.organized_files,
        file_count=report.file_count,
    )


def _with_earlier_files(writer: Writer, pending: PendingJob) -> PendingJob:
    """Add the files that the job's last completion named, if it is pending, too."""
    job = writer.find_job(pending.job_id)
    if job is None or "pending" not in job.state or pending.files is None:
        return pending
    earlier = _pending_job(job).files or ()
    return replace(pending, files=tuple(dict.fromkeys((*earlier, *pending.files))))


def _state(pending: PendingJob) -> dict[str, Any]:
    kept = ("project_id", "prompt_id", "files", "reason", "operation_id", "since")
    return {"pending": {key: getattr(pending, key) for key in kept}}


def _append(writer: Writer, job_id: str, operation_id: str, at: str, state: dict[str, Any]) -> None:
    """Record a state of a job, and the job itself where it is not known."""
    change = {
        "kind": "state",
        "job_id": job_id,
        "operation": {"id": operation_id, "kind": "organize", "at": at},
        "state": state,
    }
    if writer.find_job(job_id) is None:
        change |= {"kind": "job", "project_id": state["pending"]["project_id"], "files": []}
    try:
        lines = writer.append([change])
    except OSError as error:
        durable.refuse("Recording", job_id, error)
    writer.advance(lines)


def _pending_job(row: JobRow) -> PendingJob:
    pending = row.state["pending"]
    files = pending["files"]
    return PendingJob(
        job_id=row.job_id,
        project_id=row.project_id,
        prompt_id=pending["prompt_id"],
        files=None if files is None else tuple((path, kind) for path, kind in files),
        reason=pending["reason"],
        operation_id=pending["operation_id"],
        since=pending["since"],
    )


def _pairs(files: Sequence[NamedFile]) -> tuple[tuple[str, str], ...]:
    return tuple((entry.path, entry.comfyui_type) for entry in files)


def _request(pending: PendingJob) -> Request:
    return Request(
        job_id=pending.job_id,
        project_id=pending.project_id,
        default_project=pending.project_id,
        prompt_id=pending.prompt_id,
        files=None if pending.files is None else tuple(NamedFile(*pair) for pair in pending.files),
        operation_id=pending.operation_id,
    )
