"""Lists of files, jobs and projects, a page at a time."""

from __future__ import annotations

from typing import Final

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core import errors
from flask_comfy_files.core.pages import FilesPage, JobsPage, ProjectsPage
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.route import Route
from flask_comfy_files.web.schemas.listing import FilesQuery, JobsQuery, ProjectsQuery

ROUTES: Final = (
    Route(
        name="list_files",
        method="GET",
        rule="",
        action=Action.READ,
        summary="List files, a page at a time.",
        view=FileManagerAPI.list_files_api,
        query=FilesQuery,
        answer=FilesPage,
        errors=(errors.InvalidInputError, errors.InvalidIdentifierError),
    ),
    Route(
        name="list_jobs",
        method="GET",
        rule="/jobs",
        action=Action.READ,
        summary="List jobs, a page at a time.",
        view=FileManagerAPI.list_jobs_api,
        query=JobsQuery,
        answer=JobsPage,
        errors=(errors.InvalidInputError, errors.InvalidIdentifierError),
    ),
    Route(
        name="list_projects",
        method="GET",
        rule="/projects",
        action=Action.READ,
        summary="List projects, a page at a time.",
        view=FileManagerAPI.list_projects_api,
        query=ProjectsQuery,
        answer=ProjectsPage,
        errors=(errors.InvalidInputError,),
    ),
)
