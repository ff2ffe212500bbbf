"""A completed job: organized now if that can be, and otherwise remembered, so that it is not forgotten.

What is remembered is a part of the job's state in the document, so any process may finish it. Only where the
library cannot even be written does this process keep it in mind.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
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
    iso_utc,
)
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.request import Budget, Clock, Request
from flask_comfy_files.core.standing import find_standing, what_remains
from flask_comfy_files.core.witness import Witness

_log = logging.getLogger(__name__)

_MOST_RETRIES: Final = 10
"""Of earlier jobs, when a later one completes: its caller is waiting."""

_RETRY_AFTER_S: Final = 20.0
"""Before a later completion tries the same one again: what waits for a run or a person waits long."""

_REMEMBERING_TIMEOUT_S: Final = 2.0
"""For the lock, to note a job as pending: the budget may be spent on waiting for it already."""


class Completion:
    """Organizes completed jobs of one library, now or later; safe for threads and processes."""

    def __init__(
        self,
        root: str,
        catalog: Catalog,
        organizer: Organizer,
        clock: Clock,
        witness: Witness,
        *,
        default_project: str,
    ) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._organizer = organizer
        self._clock = clock
        self._witness = witness
        self._default_project = default_project
        self._unwritten: dict[str, PendingJob] = {}
        """Waiting completions that the document does not know, since it could not be written."""
        self._tried_at: dict[str, float] = {}
        """When this process last tried a waiting completion, on the monotonic clock."""

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
            self._witness.refused(error)
            return self._postponed(request, str(error))
        self._witness.organized(report)
        reason = what_remains(report.skipped, report.failed)
        if reason is None:
            self._retry_earlier(request, budget)
            return _answer(report)
        postponed = self._postponed(request, reason)
        return replace(
            postponed, organized_files=report.organized_files, file_count=report.file_count
        )

    @property
    def unwritten_count(self) -> int:
        """How many completions wait in this process alone."""
        return len(self._unwritten)

    def pending_jobs(self) -> list[PendingJob]:
        """Return the completions that wait to be organized, the oldest first; a job may have several.

        Raises:
            LibraryUnavailableError: The library cannot be read, and this process has none in mind.
        """
        try:
            with reading(self._root, self._catalog) as reader:
                written = {
                    pending.operation_id: pending
                    for row in reader.pending_jobs()
                    for pending in _waiting(row)
                }
        except (ComfyFilesError, OSError):
            if not self._unwritten:
                raise
            written = {}
        waiting = {**self._unwritten, **written}
        return sorted(
            waiting.values(),
            key=lambda pending: (pending.since, pending.job_id, pending.operation_id),
        )

    def retry(self, waiting: Sequence[PendingJob], budget: Budget | None = None) -> RetryReport:
        """Organize jobs that were left pending; what fails again stays so, what never can is given up."""
        organized, still_pending, given_up = [], [], []
        for pending in waiting:
            self._tried_at[pending.operation_id] = time.monotonic()
            try:
                report = self._organizer.organize(self._request(pending), budget)
            except (InvalidInputError, ConflictError) as error:
                given_up.append(replace(pending, reason=str(error)))
                self._give_up(given_up[-1])
            except (ComfyFilesError, OSError) as error:
                self._witness.refused(error)
                still_pending.append(replace(pending, reason=str(error)))
            else:
                self._witness.organized(report)
                reason = what_remains(report.skipped, report.failed)
                if reason is None:
                    self._forget(pending.operation_id)
                    organized.append(report)
                else:
                    still_pending.append(replace(pending, reason=reason))
        return RetryReport(
            organized=tuple(organized),
            still_pending=tuple(still_pending),
            given_up=tuple(given_up),
        )

    def _retry_earlier(self, request: Request, budget: Budget) -> None:
        """Finish what waits from before, as far as time allows; it never spoils this completion.

        The caller waits, so nothing is tried that this process tried a moment ago, and nothing that has to
        be waited for.
        """
        not_since = time.monotonic() - _RETRY_AFTER_S
        at_once = replace(budget, history_wait_s=0.0)
        try:
            earlier = [
                pending
                for pending in self.pending_jobs()
                if pending.operation_id != request.operation_id
                and self._tried_at.get(pending.operation_id, not_since) <= not_since
            ]
            for pending in earlier[:_MOST_RETRIES]:
                if budget.time_left_s > 0:
                    self.retry([pending], at_once)
        except (ComfyFilesError, OSError) as error:
            _log.warning("pending jobs could not be looked at: %s", error)

    def _forget(self, operation_id: str) -> None:
        self._unwritten.pop(operation_id, None)
        self._tried_at.pop(operation_id, None)

    def _postponed(self, request: Request, reason: str) -> CompletionReport:
        pending = PendingJob(
            job_id=request.job_id,
            project_id=request.project_id,
            prompt_id=request.prompt_id,
            files=None if request.files is None else _pairs(request.files),
            reason=reason,
            operation_id=request.operation_id or uuid.uuid4().hex,
            since=iso_utc(self._clock()),
        )
        try:
            with changing(self._root, self._catalog, _REMEMBERING_TIMEOUT_S) as writer:
                find_standing(writer, request)  # refuses what was contradicted meanwhile
                self._append(writer, pending, _entry(pending))
        except ConflictError:
            raise
        except (ComfyFilesError, OSError) as error:
            _log.error("job %s is pending in this process alone: %s", pending.job_id, error)
            self._unwritten[pending.operation_id] = pending
        self._witness.pending(pending)
        return CompletionReport(
            job_id=pending.job_id,
            project_id=request.project_id or request.default_project,
            organized_files=(),
            file_count=0,
            organize_error=reason,
            organize_operation_id=pending.operation_id,
        )

    def _give_up(self, pending: PendingJob) -> None:
        _log.error("job %s is pending no more: %s", pending.job_id, pending.reason)
        self._forget(pending.operation_id)
        try:
            with changing(self._root, self._catalog) as writer:
                if writer.find_job(pending.job_id) is not None:
                    self._append(writer, pending, None)
        except (ComfyFilesError, OSError) as error:
            _log.warning("job %s is given up again at the next try: %s", pending.job_id, error)
        self._witness.given_up(pending)

    def _append(self, writer: Writer, pending: PendingJob, entry: dict[str, Any] | None) -> None:
        """Record a waiting completion, and the job itself where it is not known, or that it waits no more."""
        change = {
            "kind": "state",
            "job_id": pending.job_id,
            "operation": {"id": pending.operation_id, "kind": "organize", "at": pending.since},
            "state": {"pending": {pending.operation_id: entry}},
        }
        if writer.find_job(pending.job_id) is None:
            project_id = pending.project_id or self._default_project
            change |= {"kind": "job", "project_id": project_id, "files": []}
        try:
            lines = writer.append([change])
        except OSError as error:
            durable.refuse("Recording", pending.job_id, error)
        writer.advance(lines)

    def _request(self, pending: PendingJob) -> Request:
        files = pending.files
        return Request(
            job_id=pending.job_id,
            project_id=pending.project_id,
            default_project=self._default_project,
            prompt_id=pending.prompt_id,
            files=None if files is None else tuple(NamedFile(*pair) for pair in files),
            operation_id=pending.operation_id,
        )


def _answer(report: OrganizeReport) -> CompletionReport:
    return CompletionReport(
        job_id=report.job_id,
        project_id=report.project_id,
        organized_files=report.organized_files,
        file_count=report.file_count,
    )


def _entry(pending: PendingJob) -> dict[str, Any]:
    """Return what the document keeps of a waiting completion; what was not said is left out."""
    kept = ("project_id", "prompt_id", "files", "reason", "since")
    said = {key: getattr(pending, key) for key in kept}
    return {key: value for key, value in said.items() if value is not None}


def _waiting(row: JobRow) -> Iterator[PendingJob]:
    for operation_id, entry in row.state.get("pending", {}).items():
        files = entry.get("files")
        yield PendingJob(
            job_id=row.job_id,
            project_id=entry.get("project_id"),
            prompt_id=entry.get("prompt_id"),
            files=None if files is None else tuple((path, kind) for path, kind in files),
            reason=entry["reason"],
            operation_id=operation_id,
            since=entry["since"],
        )


def _pairs(files: Sequence[NamedFile]) -> tuple[tuple[str, str], ...]:
    return tuple((entry.path, entry.comfyui_type) for entry in files)
