"""What was done to the library, undoing it, and work that takes long."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from flask import Response, request
from werkzeug.exceptions import HTTPException

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.core import errors
from flask_comfy_files.core.operations import OperationList, OperationRecord
from flask_comfy_files.core.tasks import TaskList, TaskRecord
from flask_comfy_files.core.undone import UndoReport
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.parsing import body_parser, read_body
from flask_comfy_files.web.route import Outlasting, Route
from flask_comfy_files.web.schemas.operating import ChangesQuery, OperationsQuery, UndoBody
from flask_comfy_files.web.tasks import answer_task
from flask_comfy_files.web.works import Work, action_of, work_of_task


def cancel_task(api: FileManagerAPI, task_id: str) -> Response:
    """Ask work that has outlasted its request to stop."""
    return answer_task(api.cancel_task_api(task_id))


def _undoes(api: FileManagerAPI) -> Action:
    """Return what undoing an operation is: deleting, where it had brought deleted jobs back."""
    said: dict[str, Any] = {"dry_run": False}
    # What is wrong is said to those who may undo.
    with contextlib.suppress(errors.ComfyFilesError, HTTPException):
        if read_body(request):
            said = body_parser.parse(UndoBody(), request, location="json")
    return action_of(api, Work("undo", {**(request.view_args or {}), **said}))


def _resumes(api: FileManagerAPI) -> Action:
    """Return what going on with a task is: what its work is."""
    # One that is not known is told of by the view.
    with contextlib.suppress(errors.ComfyFilesError):
        return action_of(api, work_of_task(api, (request.view_args or {})["task_id"]))
    return Action.WRITE


ROUTES: Final = (
    Route(
        name="get_operations",
        method="GET",
        rule="/operations",
        action=Action.READ,
        summary="List what was done to the library, newest first.",
        view=FileManagerAPI.get_operations_api,
        query=OperationsQuery,
        answer=OperationList,
        errors=(errors.InvalidInputError,),
    ),
    Route(
        name="get_operation",
        method="GET",
        rule="/operations/<operation_id>",
        action=Action.READ,
        summary="Get an operation with what it changed.",
        view=FileManagerAPI.get_operation_api,
        query=ChangesQuery,
        answer=OperationRecord,
        errors=(errors.OperationNotFoundError, errors.InvalidInputError),
    ),
    Route(
        name="undo_operation",
        method="POST",
        rule="/operations/<operation_id>/undo",
        action=Action.WRITE,
        exact=_undoes,
        summary="Undo an operation, or say what that would do.",
        view=Outlasting("undo"),
        optional_body=UndoBody,
        answer=UndoReport,
        errors=(
            errors.OperationNotFoundError,
            errors.OperationNotUndoableError,
            errors.JobPinnedError,
            errors.InvalidInputError,
            errors.MigrationRunningError,
            errors.CleanupRunningError,
            errors.OutOfSpaceError,
        ),
    ),
    Route(
        name="get_tasks",
        method="GET",
        rule="/tasks",
        action=Action.READ,
        summary="List the work that has outlasted its request, newest first.",
        view=FileManagerAPI.get_tasks_api,
        answer=TaskList,
    ),
    Route(
        name="get_task",
        method="GET",
        rule="/tasks/<task_id>",
        action=Action.READ,
        summary="Get how it stands with such work, and its report.",
        view=FileManagerAPI.get_task_api,
        answer=TaskRecord,
        errors=(errors.TaskNotFoundError,),
    ),
    Route(
        name="cancel_task",
        method="DELETE",
        rule="/tasks/<task_id>",
        action=Action.WRITE,
        summary="Ask such work to stop.",
        view=cancel_task,
        answer=TaskRecord,
        errors=(errors.TaskNotFoundError,),
    ),
    Route(
        name="resume_task",
        method="POST",
        rule="/tasks/<task_id>/resume",
        action=Action.WRITE,
        exact=_resumes,
        summary="Go on with such work, where it has stopped before its end.",
        view=work_of_task,
        answer=TaskRecord,
        errors=(errors.TaskNotFoundError, errors.TasksRunningError),
    ),
)
