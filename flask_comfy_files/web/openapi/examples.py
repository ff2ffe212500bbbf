"""An example of each error that may be answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask_comfy_files.core import errors
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.web.openapi.vocabulary import FILE_ID, OPERATION_ID
from flask_comfy_files.web.problems import MalformedBodyError, MalformedJsonError

_ERRORS: Final[tuple[ComfyFilesError, ...]] = (
    errors.InvalidInputError("days", -1, "is below 0"),
    errors.InvalidIdentifierError("job_id", "a b", "may hold no space"),
    errors.UnsafePathError("files[0]", "../x", "must not contain '..'"),
    errors.JobNotFoundError("clip_8"),
    errors.JobTrashedError("clip_8", "2026-02-03T04:05:06Z", "2026-02-10T04:05:06Z"),
    errors.ProjectNotFoundError("tokyo"),
    errors.RecordNotFoundError(FILE_ID),
    errors.NameNotFoundError("ComfyUI_00001_.png"),
    errors.PlanNotFoundError(OPERATION_ID),
    errors.JobPinnedError("clip_8"),
    errors.CleanupRefusedError("the policy would leave project 'tokyo' empty", "empty_project"),
    errors.PlanStaleError("clip_8"),
    errors.OperationNotFoundError(OPERATION_ID),
    errors.TaskNotFoundError(OPERATION_ID),
    errors.OperationNotUndoableError(
        OPERATION_ID, "mark", "set the pin or the tags as they should be."
    ),
    errors.CleanupRunningError(),
    errors.MigrationRunningError(),
    errors.TasksRunningError(8),
    errors.IdentifierCaseError("job_id", "Clip_8", "clip_8"),
    errors.JobInOtherProjectError("clip_8", "osaka", "tokyo"),
    errors.AmbiguousNameError("ComfyUI_00001_.png", (FILE_ID, "0c4e8b1f5a7d42e3962c1d8f0b6a7e95")),
    errors.RunNotFinishedError("d6cf22c3"),
    errors.HistoryUnavailableError("d6cf22c3", "the server does not answer"),
    errors.LockTimeoutError(10.0),
    errors.BudgetExceededError("clip_8", "3 bytes, 2 at most"),
    errors.ChecksumMismatchError("a.png"),
    errors.ArchiveBrokenOffError("a.png", "its size has changed"),
    errors.DocumentDamagedError("file_metadata.json", "it is a folder"),
    errors.StorageError("Organizing into", "projects/p/j", "Permission denied", "Ask the owner."),
    errors.OutOfSpaceError(4096, 0),
    errors.LibraryUnavailableError("the output root does not exist", "Mount its disk."),
    errors.OlderInstallationError("file_metadata.json"),
    errors.TokenRequiredError(),
    errors.AccessDeniedError("Set COMFY_FILES_TOKEN."),
    errors.MissingExtraError("A thumbnail", "media"),
    errors.ComfyUIAnswerError("something that is no JSON"),
    MalformedBodyError(
        "The request is not valid: see job_id.", {"job_id": ["Missing data for required field."]}
    ),
    MalformedJsonError(
        "The request body is not valid JSON: it is not UTF-8.", {"body": ["it is not UTF-8"]}
    ),
)

ERRORS: Final[Mapping[type[ComfyFilesError], ComfyFilesError]] = {
    type(error): error for error in _ERRORS
}
