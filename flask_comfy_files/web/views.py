"""The routes: one table, and views that load, call and answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, default_exceptions
from werkzeug.routing import Map, Rule

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.web import access, problems
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.content import send
from flask_comfy_files.web.routing import AnyMethod, add_converter, yielding
from flask_comfy_files.web.schemas import (
    AssignBody,
    ChangesQuery,
    CleanupBody,
    CompletionBody,
    ContentQuery,
    DeleteQuery,
    MigrateBody,
    NameQuery,
    NothingSaid,
    OperationsQuery,
    OrganizeBody,
    PlanBody,
    RepairBody,
    StampBody,
    UndoBody,
    UpdateBody,
    VerifyBody,
    body_parser,
    read_body,
)
from flask_comfy_files.web.tasks import Tasks, answer_task
from flask_comfy_files.web.works import Work, action_of, work_of_task

BLUEPRINT: Final = "comfy_files"
COMPLETION_ENDPOINT: Final = f"{BLUEPRINT}.complete_job"
JOB_FILES_ROUTE: Final = "/api/jobs/<job_id>/files"

View = Callable[..., Json | Response | Work]
"""Answers, or says which work is to be done for the answer."""


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: ``rule`` is below the prefix, and ``action`` is what the caller must be allowed."""

    method: str
    rule: str
    action: Action
    view: View
    exact: Callable[[FileManagerAPI], Action] | None = None
    """Says what one request does, where that may be less than ``action``, or more."""


def organize(api: FileManagerAPI) -> Json:
    """Organize a job's files."""
    return api.organize_job_files(**body_parser.parse(OrganizeBody(), request, location="json"))


def get_job(api: FileManagerAPI, job_id: str) -> Json:
    """Return a job with its files."""
    return api.get_job_files_api(job_id)


def update_job(api: FileManagerAPI, job_id: str) -> Json:
    """Set a job's pin or tags."""
    said = body_parser.parse(UpdateBody(), request, location="json")
    return api.update_job_api(job_id, **said)


def delete_job(api: FileManagerAPI, job_id: str) -> Json:
    """Delete a job, into the trash or for good."""
    act = api.destroy_job_files_api if _is_permanent() else api.delete_job_files_api
    _require_no_body()
    return act(job_id)


def restore_job(api: FileManagerAPI, job_id: str) -> Json:
    """Bring a job back from the trash."""
    _require_no_query()
    _require_no_body()
    return api.restore_job_files_api(job_id)


def get_trash(api: FileManagerAPI) -> Json:
    """Return the deleted jobs that can be restored."""
    return api.get_trash_api()


def empty_trash(_api: FileManagerAPI) -> Work:
    """Delete everything in the trash for good."""
    _require_no_query()
    _require_no_body()
    return Work("empty_trash", {})


def cleanup(_api: FileManagerAPI) -> Work:
    """Delete what has expired, carry a plan out, or say what would go."""
    _require_no_query()
    return Work("cleanup", body_parser.parse(CleanupBody(), request, location="json"))


def plan_cleanup(_api: FileManagerAPI) -> Work:
    """Rehearse a cleanup, and keep it as a plan."""
    _require_no_query()
    return Work("plan_cleanup", body_parser.parse(PlanBody(), request, location="json"))


def migrate(_api: FileManagerAPI) -> Work:
    """Migrate what lies about from before, or say what would go where."""
    return Work("migrate", body_parser.parse(MigrateBody(), request, location="json"))


def get_legacy(api: FileManagerAPI) -> Json:
    """Return the files that belong to no job."""
    return api.get_legacy_files_api()


def assign_legacy(api: FileManagerAPI) -> Json:
    """Give files that belong to no job to one."""
    return api.assign_legacy_files_api(**body_parser.parse(AssignBody(), request, location="json"))


def get_operations(api: FileManagerAPI) -> Json:
    """Return what was done to the library, newest first."""
    asked = body_parser.parse(OperationsQuery(), request, location="query")
    return api.get_operations_api(**asked)


def get_operation(api: FileManagerAPI, operation_id: str) -> Json:
    """Return an operation with what it changed."""
    asked = body_parser.parse(ChangesQuery(), request, location="query")
    return api.get_operation_api(operation_id, **asked)


def undo_operation(_api: FileManagerAPI, operation_id: str) -> Work:
    """Undo an operation, or say what that would do."""
    _require_no_query()
    return Work("undo", {"operation_id": operation_id, "dry_run": _is_undo_rehearsal()})


def verify(_api: FileManagerAPI) -> Work:
    """Compare document, index and files."""
    return Work("verify", body_parser.parse(VerifyBody(), request, location="json"))


def repair(_api: FileManagerAPI) -> Work:
    """Put right what a verification has found, or say what would be done."""
    return Work("repair", body_parser.parse(RepairBody(), request, location="json"))


def get_tasks(api: FileManagerAPI) -> Json:
    """Return the work that has outlasted its request, newest first."""
    return api.get_tasks_api()


def get_task(api: FileManagerAPI, task_id: str) -> Json:
    """Return how it stands with such work, and its report."""
    return api.get_task_api(task_id)


def cancel_task(api: FileManagerAPI, task_id: str) -> Response:
    """Ask such work to stop."""
    _require_no_query()
    _require_no_body()
    return answer_task(api.cancel_task_api(task_id))


def resume_task(api: FileManagerAPI, task_id: str) -> Work:
    """Go on with such work, where it has stopped before its end."""
    _require_no_query()
    _require_no_body()
    return work_of_task(api, task_id)


def get_project(api: FileManagerAPI, project_id: str) -> Json:
    """Return a project with its jobs and their files."""
    return api.get_project_files_api(project_id)


def get_status(api: FileManagerAPI) -> Json:
    """Return the library in numbers, and how it is."""
    return api.get_system_status_api()


def get_file(api: FileManagerAPI, file_id: str) -> Json:
    """Return one file's record."""
    return api.get_file_api(file_id)


def get_content(api: FileManagerAPI, file_id: str) -> Response:
    """Return the bytes of one file."""
    wanted = body_parser.parse(ContentQuery(), request, location="query")["download"]
    content = api.manager.get_content(file_id)
    return send(api.manager.settings.output_dir, content, as_download=wanted == "1")


def get_file_history(api: FileManagerAPI, file_id: str) -> Json:
    """Return what happened to one file."""
    return api.get_file_history_api(file_id)


def adopt(_api: FileManagerAPI) -> Work:
    """Say that what is in the output root is right."""
    _require_no_query()
    _require_no_body()
    return Work("adopt", {})


def stamp(api: FileManagerAPI) -> Json:
    """Point a workflow's savers into the inbox of a job."""
    return api.stamp_prompt_api(**body_parser.parse(StampBody(), request, location="json"))


def resolve(api: FileManagerAPI) -> Json:
    """Return the records for which a name of ComfyUI's stands."""
    return api.resolve_name_api(**body_parser.parse(NameQuery(), request, location="query"))


def view(api: FileManagerAPI) -> Response:
    """Return the bytes for which a name of ComfyUI's stands, as ComfyUI's own ``/view`` does."""
    asked = body_parser.parse(NameQuery(), request, location="query")
    return send(api.manager.settings.output_dir, api.manager.find_content(**asked))


def complete_job(api: FileManagerAPI, job_id: str) -> Json:
    """Take a job's completion in the place of a host that has no such route."""
    said: Mapping[str, Any] = {}
    if read_body(request):
        said = body_parser.parse(CompletionBody(), request, location="json")
    return {"status": "completed", "job_id": job_id, **api.complete_job_api(job_id, **said)}


def _require_no_query() -> None:
    """Refuse words in the address where they would be passed over.

    Raises:
        MalformedBodyError: There are some.
    """
    body_parser.parse(NothingSaid(), request, location="query")


def _require_no_body() -> None:
    """Refuse words in a body where they would be passed over.

    Raises:
        MalformedBodyError: There are some.
        UnsupportedMediaType: There is a body, and it is not called ``application/json``.
    """
    if read_body(request):
        body_parser.parse(NothingSaid(), request, location="json")


def _is_permanent() -> bool:
    said = body_parser.parse(DeleteQuery(), request, location="query")
    return bool(said["permanent"] == "true")


def _deletes(api: FileManagerAPI) -> Action:
    """Return what deleting a job is: without a trash it cannot be undone."""
    with contextlib.suppress(ComfyFilesError):  # what is wrong is said to those who may delete
        if _is_permanent():
            return Action.DESTROY
    return Action.DELETE if api.manager.settings.trash_days else Action.DESTROY


def _cleans_up(api: FileManagerAPI) -> Action:
    """Return what a cleanup is: nothing but reading when it is rehearsed."""
    is_rehearsal = False
    with contextlib.suppress(ComfyFilesError, HTTPException):  # as above
        is_rehearsal = body_parser.parse(CleanupBody(), request, location="json")["dry_run"]
    return action_of(api, Work("cleanup", {"dry_run": is_rehearsal}))


def _is_undo_rehearsal() -> bool:
    said = body_parser.parse(UndoBody(), request, location="json") if read_body(request) else {}
    return bool(said.get("dry_run"))


def _undoes(api: FileManagerAPI) -> Action:
    """Return what undoing an operation is: deleting, where it had brought deleted jobs back."""
    is_rehearsal = False
    with contextlib.suppress(ComfyFilesError, HTTPException):  # as above
        is_rehearsal = _is_undo_rehearsal()
    said = {"operation_id": (request.view_args or {})["operation_id"], "dry_run": is_rehearsal}
    return action_of(api, Work("undo", said))


def _resumes(api: FileManagerAPI) -> Action:
    """Return what going on with a task is: what its work is."""
    with contextlib.suppress(ComfyFilesError):  # one that is not known is told of by the view
        return action_of(api, work_of_task(api, (request.view_args or {})["task_id"]))
    return Action.WRITE


ROUTES: Final = (
    Route("POST", "/organize", Action.WRITE, organize),
    Route("GET", "/jobs/<job_id>", Action.READ, get_job),
    Route("PATCH", "/jobs/<job_id>", Action.WRITE, update_job),
    Route("DELETE", "/jobs/<job_id>", Action.DELETE, delete_job, _deletes),
    Route("POST", "/jobs/<job_id>/restore", Action.WRITE, restore_job),
    Route("POST", "/migrate", Action.WRITE, migrate),
    Route("GET", "/legacy", Action.READ, get_legacy),
    Route("POST", "/legacy/assign", Action.WRITE, assign_legacy),
    Route("POST", "/verify", Action.READ, verify),
    Route("POST", "/repair", Action.WRITE, repair),
    Route("GET", "/trash", Action.READ, get_trash),
    Route("DELETE", "/trash", Action.DESTROY, empty_trash),
    Route("POST", "/cleanup", Action.DELETE, cleanup, _cleans_up),
    Route("POST", "/cleanup/plan", Action.DELETE, plan_cleanup),
    Route("GET", "/operations", Action.READ, get_operations),
    Route("GET", "/operations/<operation_id>", Action.READ, get_operation),
    Route("POST", "/operations/<operation_id>/undo", Action.WRITE, undo_operation, _undoes),
    Route("GET", "/tasks", Action.READ, get_tasks),
    Route("GET", "/tasks/<task_id>", Action.READ, get_task),
    Route("DELETE", "/tasks/<task_id>", Action.WRITE, cancel_task),
    Route("POST", "/tasks/<task_id>/resume", Action.WRITE, resume_task, _resumes),
    Route("GET", "/projects/<project_id>", Action.READ, get_project),
    Route("GET", "/status", Action.READ, get_status),
    Route("POST", "/stamp", Action.WRITE, stamp),
    Route("GET", "/resolve", Action.READ, resolve),
    Route("GET", "/view", Action.READ, view),
    Route("POST", "/adopt", Action.DESTROY, adopt),
    Route("GET", "/<string(length=32):file_id>", Action.READ, get_file),
    Route("GET", "/<string(length=32):file_id>/content", Action.READ, get_content),
    Route("GET", "/<string(length=32):file_id>/history", Action.READ, get_file_history),
)


def build_blueprint(api: FileManagerAPI) -> Blueprint:
    """Return the blueprint with all routes, below the prefix and beside the host's job routes.

    Its error handlers see only errors of its own routes. What lies under the prefix and is nobody's route gets
    to the last one, so that the host's pages for 404 and 405 stay the host's.
    """
    settings = api.manager.settings
    blueprint = Blueprint(BLUEPRINT, __name__)
    for route in ROUTES:
        _add(blueprint, settings.url_prefix, route, api)
    blueprint.record(add_converter)
    completion = Route("POST", yielding(settings.complete_route), Action.WRITE, complete_job)
    job_files = Route("GET", yielding(JOB_FILES_ROUTE), Action.READ, get_job)
    _add(blueprint, "", completion, api)
    _add(blueprint, "", job_files, api, name="get_job_beside_host")
    blueprint.record(lambda state: _add_last_route(state, settings.url_prefix))
    blueprint.register_error_handler(ComfyFilesError, problems.answer_error)
    # Each by its number, too: Flask prefers a host's handler of a number to one of ours of all.
    for status in default_exceptions:
        blueprint.register_error_handler(status, problems.answer_http_error)
    blueprint.register_error_handler(HTTPException, problems.answer_http_error)
    return blueprint


def _add(
    blueprint: Blueprint, prefix: str, route: Route, api: FileManagerAPI, *, name: str | None = None
) -> None:
    tasks = Tasks(api)

    def answer_request(**arguments: str) -> Response:
        action = route.action if route.exact is None else route.exact(api)
        access.require(request, action, api.manager.settings)
        answer = route.view(api, **arguments)
        if isinstance(answer, Work):
            answer = tasks.answer(answer)
        if isinstance(answer, Response):
            return answer
        return Response(problems.as_json(answer), mimetype="application/json")

    endpoint = name or route.view.__name__
    blueprint.add_url_rule(prefix + route.rule, endpoint, answer_request, methods=[route.method])


def _add_last_route(state: BlueprintSetupState, prefix: str) -> None:
    """Answer everything under the prefix that no route of ours, or of the host, takes."""
    ours = Map([Rule(route.rule, endpoint="", methods=[route.method]) for route in ROUTES]).bind("")

    def refuse(rest: str = "") -> NoReturn:
        allowed = list(ours.allowed_methods(f"/{rest}"))
        if allowed:
            raise MethodNotAllowed([*allowed, "OPTIONS"])
        raise NotFound("There is nothing at this address.")

    endpoint = f"{BLUEPRINT}.refuse"
    for rule in (prefix, f"{prefix}/", f"{prefix}/<path:rest>"):
        # Not by add_url_rule: Flask's rules always name their methods, and this one takes any.
        last = Rule(rule, endpoint=endpoint, strict_slashes=True)
        last.methods = AnyMethod()  # type: ignore[assignment]
        state.app.url_map.add(last)
    state.app.view_functions[endpoint] = refuse
