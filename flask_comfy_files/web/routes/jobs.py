"""Jobs and projects: organizing them, asking for them, and keeping or deleting a job."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import request

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core import errors
from flask_comfy_files.core.records import (
    FileRecord,
    JobRecord,
    OrganizeReport,
    ProjectRecord,
)
from flask_comfy_files.core.reports import DeletionReport, RestoreReport
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.parsing import body_parser
from flask_comfy_files.web.route import Route
from flask_comfy_files.web.schemas.base import Loose
from flask_comfy_files.web.schemas.jobs import (
    CompletionBody,
    DeleteQuery,
    OrganizeBody,
    UpdateBody,
)
from flask_comfy_files.web.schemas.listing import PartQuery


def delete_job(api: FileManagerAPI, job_id: str, permanent: str) -> Json:
    """Delete a job, into the trash or for good."""
    act = api.destroy_job_files_api if permanent == "true" else api.delete_job_files_api
    return act(job_id)


def _deletes(api: FileManagerAPI) -> Action:
    """Return what deleting a job is: without a trash it cannot be undone."""
    with contextlib.suppress(errors.ComfyFilesError):  # told to those who may delete
        said: Mapping[str, Any] = body_parser.parse(DeleteQuery(), request, location="query")
        if said["permanent"] == "true":
            return Action.DESTROY
    return Action.DELETE if api.manager.settings.trash_days else Action.DESTROY


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedJob:
    """What a completion answers where the host has no such route."""

    status: str
    job_id: str
    organized_files: tuple[FileRecord, ...]
    file_count: int
    organize_error: str | None = None
    organize_operation_id: str | None = None


def complete_job(api: FileManagerAPI, job_id: str, **said: Any) -> Json:
    """Take a job's completion in the place of a host that has no such route."""
    return {"status": "completed", "job_id": job_id, **api.complete_job_api(job_id, **said)}


ROUTES: Final = (
    Route(
        name="organize",
        method="POST",
        rule="/organize",
        action=Action.WRITE,
        summary="Organize a job's files.",
        view=FileManagerAPI.organize_job_files,
        body=OrganizeBody,
        answer=OrganizeReport,
        errors=(
            errors.JobInOtherProjectError,
            errors.IdentifierCaseError,
            errors.UnsafePathError,
            errors.InvalidInputError,
            errors.ComfyUIAnswerError,
            errors.RunNotFinishedError,
            errors.HistoryUnavailableError,
            errors.OutOfSpaceError,
        ),
    ),
    Route(
        name="get_job",
        method="GET",
        rule="/jobs/<job_id>",
        action=Action.READ,
        summary="Get a job with its files.",
        view=FileManagerAPI.get_job_files_api,
        query=PartQuery,
        answer=JobRecord,
        errors=(errors.JobNotFoundError, errors.JobTrashedError, errors.InvalidInputError),
    ),
    Route(
        name="update_job",
        method="PATCH",
        rule="/jobs/<job_id>",
        action=Action.WRITE,
        summary="Set a job's pin or tags.",
        view=FileManagerAPI.update_job_api,
        body=UpdateBody,
        answer=JobRecord,
        errors=(errors.JobNotFoundError, errors.JobTrashedError, errors.InvalidInputError),
    ),
    Route(
        name="delete_job",
        method="DELETE",
        rule="/jobs/<job_id>",
        action=Action.DELETE,
        exact=_deletes,
        summary="Delete a job's files, into the trash or for good.",
        view=delete_job,
        query=DeleteQuery,
        answer=DeletionReport,
        errors=(errors.JobNotFoundError, errors.JobPinnedError),
    ),
    Route(
        name="restore_job",
        method="POST",
        rule="/jobs/<job_id>/restore",
        action=Action.WRITE,
        summary="Bring a job back from the trash.",
        view=FileManagerAPI.restore_job_files_api,
        answer=RestoreReport,
        errors=(
            errors.JobNotFoundError,
            errors.JobInOtherProjectError,
            errors.IdentifierCaseError,
            errors.OutOfSpaceError,
        ),
    ),
    Route(
        name="get_project",
        method="GET",
        rule="/projects/<project_id>",
        action=Action.READ,
        summary="Get a project with its jobs and all their files.",
        view=FileManagerAPI.get_project_files_api,
        query=PartQuery,
        answer=ProjectRecord,
        errors=(errors.ProjectNotFoundError, errors.InvalidInputError),
    ),
)

COMPLETION: Final = Route(
    name="complete_job",
    method="POST",
    rule="/api/jobs/<job_id>/complete",
    action=Action.WRITE,
    summary="Complete a job: organize its files, or remember to.",
    view=complete_job,
    query=Loose,
    optional_body=CompletionBody,
    answer=CompletedJob,
    errors=(
        errors.JobInOtherProjectError,
        errors.IdentifierCaseError,
        errors.UnsafePathError,
        errors.InvalidInputError,
    ),
)
"""Beside the host's own routes, where the host has no such rule; the setting ``COMPLETE_ROUTE`` may change it."""

JOB_FILES: Final = Route(
    name="get_job_beside_host",
    method="GET",
    rule="/api/jobs/<job_id>/files",
    action=Action.READ,
    summary="Get a job with its files, beside the app's own job routes.",
    view=FileManagerAPI.get_job_files_api,
    query=PartQuery,
    answer=JobRecord,
    errors=(errors.JobNotFoundError, errors.JobTrashedError, errors.InvalidInputError),
)
