"""Jobs and projects as records, put together from what the catalogue answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flask_comfy_files.core.catalog.queries import JobRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import ProjectNotFoundError
from flask_comfy_files.core.listing import Listing, files_page
from flask_comfy_files.core.pages import FilesPage
from flask_comfy_files.core.records import (
    FileRecord,
    JobRecord,
    JobSummary,
    ProjectRecord,
    ProjectSummary,
)


def find_job_record(reader: Reader, job_id: str, part: Listing | None) -> JobRecord | None:
    """Return a job with its files, in the order in which they were organized; or with those of one page."""
    job = reader.find_job(job_id)
    if job is None:
        return None
    if part is None or part.is_all(job.file_count):
        page = FilesPage(files=reader.files_of_job(job_id), next_cursor=None)
    else:
        page = files_page(reader, part)
    return JobRecord(
        job_id=job.job_id,
        project_id=job.project_id,
        files=page.files,
        file_count=job.file_count,
        total_size=job.total_size,
        created_at=job.created_at,
        pinned=bool(job.state.get("pinned")),
        tags=tuple(job.state.get("tags", ())),
        runs=tuple(
            _run(prompt_id, facts) for prompt_id, facts in job.state.get("runs", {}).items()
        ),
        reason=_reason(job.state),
        next_cursor=page.next_cursor,
    )


def _reason(state: Mapping[str, Any]) -> str | None:
    """Return why a job has no files, or may yet get more."""
    reasons = [waiting["reason"] for waiting in state.get("pending", {}).values()]
    return reasons[0] if reasons else state.get("reason")


def _run(prompt_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("status", "started_at", "finished_at", "error")
    return {"prompt_id": prompt_id, **{key: facts.get(key) for key in shown}}


def project_record(reader: Reader, project_id: str, part: Listing | None) -> ProjectRecord:
    """Return a project with its jobs and all their files, oldest job first; or with the files of one page.

    Raises:
        ProjectNotFoundError: It is not known.
    """
    totals = reader.totals(project_id)
    if not totals.projects:
        raise ProjectNotFoundError(project_id)
    if part is None or part.is_all(max(totals.files, totals.jobs)):
        jobs = reader.jobs_of_project(project_id)
        files = tuple(record for job in jobs for record in reader.files_of_job(job.job_id))
        page = FilesPage(files=files, next_cursor=None)
    else:
        page = files_page(reader, part)
        jobs = _jobs_of(reader, page.files)
    return ProjectRecord(
        project_id=project_id,
        jobs=tuple(_summary(job) for job in jobs),
        files=page.files,
        job_count=totals.jobs,
        file_count=totals.files,
        total_size=totals.size,
        next_cursor=page.next_cursor,
    )


def _jobs_of(reader: Reader, files: Iterable[FileRecord]) -> list[JobRow]:
    """Return the jobs to which files belong, in the order in which they come first."""
    job_ids = dict.fromkeys(record.job_id for record in files)
    found = (reader.find_job(job_id) for job_id in job_ids if job_id is not None)
    return [job for job in found if job is not None]


def _summary(job: JobRow) -> JobSummary:
    return JobSummary(
        job_id=job.job_id,
        file_count=job.file_count,
        total_size=job.total_size,
        created_at=job.created_at,
    )


def project_summary(reader: Reader, project_id: str) -> ProjectSummary:
    """Return a project in numbers.

    Raises:
        ProjectNotFoundError: It is not known.
    """
    totals = reader.totals(project_id)
    if not totals.projects:
        raise ProjectNotFoundError(project_id)
    return ProjectSummary(
        project_id=project_id,
        job_count=totals.jobs,
        file_count=totals.files,
        total_size=totals.size,
        file_types=totals.types,
    )
