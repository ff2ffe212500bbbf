"""Jobs and projects as records, put together from what the catalogue answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask_comfy_files.core.catalog.session import Reader
from flask_comfy_files.core.errors import ProjectNotFoundError
from flask_comfy_files.core.records import JobRecord, JobSummary, ProjectRecord, ProjectSummary


def find_job_record(reader: Reader, job_id: str) -> JobRecord | None:
    """Return a job with its files, in the order in which they were organized."""
    job = reader.find_job(job_id)
    if job is None:
        return None
    return JobRecord(
        job_id=job.job_id,
        project_id=job.project_id,
        files=reader.files_of_job(job_id),
        file_count=job.file_count,
        total_size=job.total_size,
        created_at=job.created_at,
        pinned=bool(job.state.get("pinned")),
        tags=tuple(job.state.get("tags", ())),
        runs=tuple(
            _run(prompt_id, facts) for prompt_id, facts in job.state.get("runs", {}).items()
        ),
        reason=_reason(job.state),
    )


def _reason(state: Mapping[str, Any]) -> str | None:
    """Return why a job has no files, or may yet get more."""
    reasons = [waiting["reason"] for waiting in state.get("pending", {}).values()]
    return reasons[0] if reasons else state.get("reason")


def _run(prompt_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("status", "started_at", "finished_at", "error")
    return {"prompt_id": prompt_id, **{key: facts.get(key) for key in shown}}


def project_record(reader: Reader, project_id: str) -> ProjectRecord:
    """Return a project with its jobs and all their files, oldest job first.

    Raises:
        ProjectNotFoundError: It is not known.
    """
    jobs = reader.jobs_of_project(project_id)
    if not jobs:
        raise ProjectNotFoundError(project_id)
    files = tuple(record for job in jobs for record in reader.files_of_job(job.job_id))
    summaries = [
        JobSummary(
            job_id=job.job_id,
            file_count=job.file_count,
            total_size=job.total_size,
            created_at=job.created_at,
        )
        for job in jobs
    ]
    return ProjectRecord(
        project_id=project_id,
        jobs=tuple(summaries),
        files=files,
        file_count=len(files),
        total_size=reader.totals(project_id).size,
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
