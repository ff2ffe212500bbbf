"""Keeping and deleting: the trash, and cleanups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flask_comfy_files.core.cleanup import Progress
from flask_comfy_files.core.errors import InvalidInputError, JobNotFoundError
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.manager.observing import operation
from flask_comfy_files.core.operations import forget_old_reports, read_report
from flask_comfy_files.core.policy import MOST_DAYS, Allowance
from flask_comfy_files.core.reports import (
    CleanupPlan,
    CleanupReport,
    DeletionReport,
    Outcome,
    PurgeReport,
    RestoreReport,
    Trash,
    deletion_from_dict,
)


class Keeping(Base):
    """What a manager deletes, and brings back."""

    @operation("delete")
    def delete_job_files(self, job_id: str) -> DeletionReport:
        """Move a job into the trash, with all files that are as they were recorded.

        A file that is not stays with its record. With ``TRASH_DAYS`` 0 they are deleted for good. For a
        job that is in the trash already the answer is that of its deletion.

        Raises:
            JobNotFoundError: The job is not known.
            JobPinnedError: It is pinned.
        """
        require_identifier("job_id", job_id)
        if not self.settings.trash_days:
            return self._destroyed(job_id)
        return self._deleted(self._deletion.delete(job_id))

    @operation("destroy")
    def destroy_job_files(self, job_id: str) -> DeletionReport:
        """Delete a job for good, whether it is in the trash or not; nothing brings it back.

        For a job that was deleted for good already the answer is that of its deletion, for as long as that is
        kept.

        Raises:
            JobNotFoundError: The job is not known.
            JobPinnedError: It is pinned.
        """
        return self._destroyed(require_identifier("job_id", job_id))

    @operation("restore")
    def restore_job_files(self, job_id: str) -> RestoreReport:
        """Bring a deleted job back to where it was, with its records as they were.

        A file whose name was taken meanwhile comes back beside it. Where several deletions rest under the
        id, it is the last one. A job that is not in the trash stays as it is.

        Raises:
            JobNotFoundError: It is neither known nor in the trash.
            ConflictError: The id means a job of another project by now, or is known in another case.
            OutOfSpaceError: The records would not fit; nothing was changed.
        """
        require_identifier("job_id", job_id)
        self._require_room(lambda reader: sum(row.file_count for row in reader.trash(job_id)))
        return self._kept(self._deletion.restore(job_id))

    def get_trash(self) -> Trash:
        """Return the deleted jobs that can be restored, oldest first."""
        return self._deletion.get_trash()

    @operation("empty_trash")
    def empty_trash(self) -> PurgeReport:
        """Delete everything in the trash for good."""
        report = self._kept(self._deletion.empty_trash())
        if report.purged_jobs:
            self._witness.purged(report)
        return report

    def plan_cleanup(
        self,
        days: int | None = None,
        *,
        allow: Iterable[str] = (),
        on_progress: Progress | None = None,
    ) -> CleanupReport:
        """Return what ``cleanup_old_files`` would do now, and change nothing.

        Raises:
            InvalidInputError: As ``cleanup_old_files``.
            CleanupRefusedError: Likewise.
        """
        return self._cleanup.rehearse(_require_days(days), _require_allowances(allow), on_progress)

    @operation("cleanup")
    def cleanup_old_files(
        self,
        days: int | None = None,
        *,
        allow: Iterable[str] = (),
        on_progress: Progress | None = None,
    ) -> CleanupReport:
        """Move the jobs that are older than ``days`` into the trash, and purge what lay there long enough.

        ``days`` is by default the setting ``RETENTION_DAYS``; ``RETENTION_POLICY`` says what is kept all
        the same. A job goes whole or not at all; exactly ``days`` old it stays. ``allow`` names what is
        otherwise refused. ``on_progress`` is told how many of how many jobs are done.

        Raises:
            InvalidInputError: ``days`` is no whole number from 0 to 36500, or an allowance is unknown.
            CleanupRefusedError: It would do what probably nobody wants; nothing was deleted.
            CleanupRunningError: Another one is under way.
        """
        report = self._cleanup.run(_require_days(days), _require_allowances(allow), on_progress)
        return self._cleaned_up(report)

    def save_cleanup_plan(
        self,
        days: int | None = None,
        *,
        allow: Iterable[str] = (),
        on_progress: Progress | None = None,
    ) -> CleanupPlan:
        """Rehearse a cleanup, and keep it as a plan that can be carried out within 24 hours.

        Raises:
            InvalidInputError: As ``cleanup_old_files``.
            CleanupRefusedError: Likewise.
        """
        return self._cleanup.save_plan(_require_days(days), _require_allowances(allow), on_progress)

    @operation("cleanup")
    def apply_cleanup_plan(
        self, plan_id: str, *, on_progress: Progress | None = None
    ) -> CleanupReport:
        """Delete exactly what a plan says; applied again, it answers what was done.

        Raises:
            PlanNotFoundError: There is no such plan, or it is more than 24 hours old.
            PlanStaleError: A job of it has changed since; nothing was deleted.
            CleanupRunningError: A cleanup is under way.
        """
        if not isinstance(plan_id, str):
            raise InvalidInputError("plan_id", plan_id, "is not a string")
        outcome = self._cleanup.apply(plan_id, on_progress)
        return self._cleaned_up(outcome.report) if outcome.is_new else self._kept(outcome.report)

    def deletes_at_once(self) -> bool:
        """Say whether a cleanup may delete for good what it takes: there is no trash, or no space for it."""
        return self.settings.trash_days == 0 or self._cleanup.missing_bytes() > 0

    def is_cleanup_due(self) -> bool:
        """Say whether no cleanup was begun for more than a day."""
        return self._cleanup.is_due()

    @operation("cleanup")
    def cleanup_if_due(self) -> CleanupReport | None:
        """Clean up if no cleanup was begun for more than a day; ``None`` where one was.

        Raises:
            CleanupRefusedError: It would do what probably nobody wants; it is not due again today.
        """
        report = self._cleanup.run_if_due()
        return None if report is None else self._cleaned_up(report)

    def _destroyed(self, job_id: str) -> DeletionReport:
        try:
            return self._deleted(self._deletion.destroy(job_id))
        except JobNotFoundError:
            with self._reading() as reader:
                operation_id = reader.last_operation_on(job_id)
            before = None if operation_id is None else read_report(self._root, operation_id)
            is_deletion = before is not None and before.get("job_id") == job_id
            if before is None or not is_deletion or "bytes_trashed" not in before:
                raise
            return deletion_from_dict(before)

    def _deleted(self, outcome: Outcome[DeletionReport]) -> DeletionReport:
        report = self._kept(outcome.report)
        if outcome.is_new:
            self._witness.deleted(report)
        return report

    def _cleaned_up(self, report: CleanupReport) -> CleanupReport:
        forget_old_reports(self._root, self._clock())
        self._kept(report)
        self._witness.cleaned_up(report)
        return report


def _require_days(days: Any) -> int | None:
    is_whole = isinstance(days, int) and not isinstance(days, bool)
    if days is not None and not (is_whole and 0 <= days <= MOST_DAYS):
        raise InvalidInputError("days", days, f"is not a whole number from 0 to {MOST_DAYS}")
    number: int | None = days
    return number


def _require_allowances(allow: Any) -> frozenset[Allowance]:
    known = [str(allowance) for allowance in Allowance]
    if isinstance(allow, str) or not isinstance(allow, Iterable):
        raise InvalidInputError("allow", allow, f"is no list; known are {', '.join(known)}")
    for name in (given := list(allow)):
        if name not in known:
            raise InvalidInputError("allow", name, f"is no allowance; known are {', '.join(known)}")
    return frozenset(map(Allowance, given))
