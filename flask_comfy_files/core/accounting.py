"""The account of one cleanup: every file of the library is in it once, deleted or kept or left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from flask_comfy_files.core.examination import Examined
from flask_comfy_files.core.records import LeftFile, Tally
from flask_comfy_files.core.reports import CleanedProject, CleanupReport, DeletedJob, KeptJobs
from flask_comfy_files.core.retention import Choice, kept_job


class Account:
    """What became of each job so far."""

    def __init__(self, found: Tally, kept: Iterable[KeptJobs]) -> None:
        """Begin with what the library holds, and with the jobs that the rules keep."""
        self._found = found
        self._kept = list(kept)
        self._jobs: list[DeletedJob] = []
        self._skipped: list[LeftFile] = []
        self._failed: list[LeftFile] = []
        self.left_in_trash: list[LeftFile] = []
        """Files that were to be deleted for good, and that the system did not let go."""
        self.folders = 0
        """How many folders were, or would be, removed."""
        self.purged_files = 0
        self.purged_at_once = 0
        """Bytes of deleted jobs that do not stay in the trash."""
        self.freed = 0

    def delete(self, choice: Choice, files: int, size: int, skipped: Iterable[LeftFile]) -> None:
        """Enter a job whose files go; ``skipped`` are those that were gone already, and what else lies there."""
        job = choice.job
        self._jobs.append(
            DeletedJob(
                job_id=job.job_id,
                project_id=job.project_id,
                files=files,
                bytes=size,
                created_at=job.created_at,
                reason=str(choice.reason),
            )
        )
        self._skipped += skipped

    def hold(self, choice: Choice, examined: Examined, failure: LeftFile | None = None) -> None:
        """Enter a job that stays because of one of its files."""
        failed = [left for _, left in examined.failed]
        reason = next((left.reason for _, left in examined.held), "failed")
        files, size = len(examined.doomed), examined.size
        if failure is not None:
            failed.append(failure)
            files, size = files - 1, size - failure.bytes
        self._kept.append(kept_job(choice.job, str(reason), files=files, size=size))
        self._skipped += examined.skipped
        self._failed += failed

    def pass_over(self, choice: Choice) -> None:
        """Enter a job that has changed since it was chosen."""
        self._kept.append(kept_job(choice.job, "changed_meanwhile"))

    def report(self, days: int, operation_id: str | None) -> CleanupReport:
        """Return the account as a report; a rehearsal is no operation."""
        strangers = [left for left in self._skipped if left.reason == "untracked"]
        strangers += self.left_in_trash
        size = sum(left.bytes for left in strangers)
        deleted_bytes = sum(job.bytes for job in self._jobs)
        return CleanupReport(
            days=days,
            found=Tally(files=self._found.files + len(strangers), bytes=self._found.bytes + size),
            deleted_files=sum(job.files for job in self._jobs),
            bytes_trashed=deleted_bytes - self.purged_at_once,
            bytes_freed=self.freed,
            purged_files=self.purged_files,
            removed_directories=self.folders,
            kept=tuple(self._kept),
            skipped=tuple(self._skipped),
            failed=(*self._failed, *self.left_in_trash),
            jobs=tuple(self._jobs),
            projects=_by_project(self._jobs, self._kept),
            dry_run=operation_id is None,
            operation_id=operation_id,
        )


def _by_project(
    deleted: Sequence[DeletedJob], kept: Sequence[KeptJobs]
) -> tuple[CleanedProject, ...]:
    counts: dict[str, Counter[str]] = {}
    for job in deleted:
        count = counts.setdefault(job.project_id, Counter())
        count.update(deleted_jobs=1, deleted_files=job.files, deleted_bytes=job.bytes)
    for jobs in kept:
        count = counts.setdefault(jobs.project_id, Counter())
        count.update(kept_jobs=jobs.jobs, kept_files=jobs.files, kept_bytes=jobs.bytes)
    keys = (
        "deleted_jobs",
        "deleted_files",
        "deleted_bytes",
        "kept_jobs",
        "kept_files",
        "kept_bytes",
    )
    return tuple(
        CleanedProject(project_id=project_id, **{key: counts[project_id][key] for key in keys})
        for project_id in sorted(counts)
    )
