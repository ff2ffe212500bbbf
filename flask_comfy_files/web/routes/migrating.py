"""The files from before: migrating them, and giving those of nobody to a job."""

from __future__ import annotations

from typing import Final

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core import errors
from flask_comfy_files.core.relocation import AssignReport, LegacyFiles, MigrationReport
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.route import Outlasting, Route
from flask_comfy_files.web.schemas.migrating import AssignBody, MigrateBody

ROUTES: Final = (
    Route(
        name="migrate",
        method="POST",
        rule="/migrate",
        action=Action.WRITE,
        summary="Migrate what lies about from before, or say what would go where.",
        view=Outlasting("migrate"),
        body=MigrateBody,
        answer=MigrationReport,
        errors=(
            errors.InvalidIdentifierError,
            errors.UnsafePathError,
            errors.InvalidInputError,
            errors.MigrationRunningError,
            errors.OutOfSpaceError,
        ),
    ),
    Route(
        name="get_legacy",
        method="GET",
        rule="/legacy",
        action=Action.READ,
        summary="List the files that belong to no job.",
        view=FileManagerAPI.get_legacy_files_api,
        answer=LegacyFiles,
    ),
    Route(
        name="assign_legacy",
        method="POST",
        rule="/legacy/assign",
        action=Action.WRITE,
        summary="Give files that belong to no job to one.",
        view=FileManagerAPI.assign_legacy_files_api,
        body=AssignBody,
        answer=AssignReport,
        errors=(
            errors.JobInOtherProjectError,
            errors.IdentifierCaseError,
            errors.InvalidInputError,
            errors.OutOfSpaceError,
        ),
    ),
)
