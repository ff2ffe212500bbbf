"""What deleting, restoring and cleaning up answer: frozen values, named as the JSON keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flask_comfy_files.core.records import FileRecord, LeftFile, Tally

Report = TypeVar("Report")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Report]):
    """What an operation answers, and whether it has done that just now, and not when it was asked before."""

    report: Report
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionReport:
    """What deleting one job did.

    ``deleted_files`` of ``bytes_trashed`` bytes rest in the trash until ``restorable_until``; where they
    were deleted for good it is ``None``, and ``bytes_freed`` says by how much the volume has grown.
    ``skipped`` and ``failed`` files are where they were, but for those that were gone already.
    """

    job_id: str
    project_id: str
    deleted_files: int
    bytes_trashed: int
    bytes_freed: int
    removed_directories: int
    skipped: tuple[LeftFile, ...]
    failed: tuple[LeftFile, ...]
    restorable_until: str | None
    operation_id: str


def deletion_from_dict(stored: Mapping[str, Any]) -> DeletionReport:
    """Return a report that was kept as a dict."""
    left = {key: tuple(LeftFile(**entry) for entry in stored[key]) for key in ("skipped", "failed")}
    return DeletionReport(**{**stored, **left})


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What restoring one job did, with all files that it now has.

    ``found`` = ``restored`` + ``already_there`` + ``skipped`` + ``failed``, in files and in bytes.
    """

    job_id: str
    project_id: str
    files: tuple[FileRecord, ...]
    file_count: int
    found: Tally
    restored: Tally
    already_there: Tally
    skipped: tuple[LeftFile, ...]
    failed: tuple[LeftFile, ...]
    operation_id: str | None

    def __iter__(self) -> Iterator[FileRecord]:
        """Iterate over all files that the job now has."""
        return iter(self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashedJob:
    """A deleted job that can be restored; times are ISO 8601 UTC, ``total_size`` counts bytes."""

    job_id: str
    project_id: str
    file_count: int
    total_size: int
    trashed_at: str
    restorable_until: str
    operation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trash:
    """Everything in the trash, oldest first; ``bytes`` counts shared bytes once."""

    jobs: tuple[TrashedJob, ...]
    files: int
    bytes: int

    def __iter__(self) -> Iterator[TrashedJob]:
        """Iterate over the deleted jobs."""
        return iter(self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeReport:
    """What was deleted for good; ``bytes_freed`` says by how much the volume has grown."""

    purged_jobs: int
    purged_files: int
    bytes_freed: int
    failed: tuple[LeftFile, ...]
    operation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionReport:
    """What was found to be right: the library, and how many of its files are missing from now on."""

    library_id: str
    checked_files: int
    missing_files: int
    operation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvent:
    """Something that happened to a file: ``what``, by which operation, and ``facts`` about it.

    ``what`` is ``recorded``, ``assigned``, ``changed``, ``withdrawn``, ``deleted``, ``restored`` or ``purged``.
    """

    what: str
    at: str
    operation_id: str
    operation_kind: str
    job_id: str | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHistory:
    """What happened to a file, oldest first."""

    file_id: str
    events: tuple[FileEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionReport:
    """A document that was written anew: its bytes before and after, and where the one before is kept."""

    bytes_before: int
    bytes_after: int
    kept_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedJob:
    """A job that a cleanup takes, and the reason that made it; ``bytes`` are those of its files."""

    job_id: str
    project_id: str
    files: int
    bytes: int
    created_at: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptJobs:
    """Jobs that a cleanup keeps, and why.

    One with a reason of its own has its ``job_id``; those of a project that are kept for a reason they
    share are counted together, and ``job_id`` is ``None``.
    """

    job_id: str | None
    project_id: str
    jobs: int
    files: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedProject:
    """One project's part of a cleanup."""

    project_id: str
    deleted_jobs: int
    deleted_files: int
    deleted_bytes: int
    kept_jobs: int
    kept_files: int
    kept_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupReport:
    """What a cleanup did, or would do.

    ``found``, all files of the library, = ``deleted_files`` + those of ``kept`` + ``skipped`` + ``failed``.
    ``bytes_trashed`` rest in the trash; ``bytes_freed`` are those by which the volume has grown, and come
    from the trash, of which ``purged_files`` were deleted for good.
    """

    days: int
    found: Tally
    deleted_files: int
    bytes_trashed: int
    bytes_freed: int
    purged_files: int
    removed_directories: int
    kept: tuple[KeptJobs, ...]
    skipped: tuple[LeftFile, ...]
    failed: tuple[LeftFile, ...]
    jobs: tuple[DeletedJob, ...]
    projects: tuple[CleanedProject, ...]
    dry_run: bool
    operation_id: str | None


def cleanup_from_dict(stored: Mapping[str, Any]) -> CleanupReport:
    """Return a report that was kept as a dict."""
    parts = {
        "found": Tally(**stored["found"]),
        **{
            key: tuple(kind(**entry) for entry in stored[key])
            for key, kind in (
                ("kept", KeptJobs),
                ("skipped", LeftFile),
                ("failed", LeftFile),
                ("jobs", DeletedJob),
                ("projects", CleanedProject),
            )
        },
    }
    return CleanupReport(**{**stored, **parts})


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupPlan:
    """A cleanup that was planned, and can be carried out until ``expires_at``."""

    plan_id: str
    created_at: str
    expires_at: str
    report: CleanupReport
