"""What may outlast a request: how each kind of work is done, and what its caller must be allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core.errors import ComfyFilesError, TaskNotFoundError
from flask_comfy_files.web.access import Action

Progress = Callable[..., None]
"""Told how much of how much is done, and perhaps how many bytes that had."""

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """Work that a request asks for; ``arguments`` are JSON, so that another process can do it."""

    kind: str
    arguments: Arguments
    resumes: str | None = None
    """The task with which it goes on."""


@dataclass(frozen=True, slots=True)
class _Kind:
    run: Callable[[FileManagerAPI, Arguments, Progress], Json]
    action: Callable[[FileManagerAPI, Arguments], Action]


def carry_out(api: FileManagerAPI, work: Work, on_progress: Progress) -> Json:
    """Do some work, and return its report. It needs no request, and no app."""
    return _KINDS[work.kind].run(api, work.arguments, on_progress)


def action_of(api: FileManagerAPI, work: Work) -> Action:
    """Return what the caller must be allowed who has some work done."""
    return _KINDS[work.kind].action(api, work.arguments)


def work_of_task(api: FileManagerAPI, task_id: str) -> Work:
    """Return the work of a task, to go on with it.

    Raises:
        TaskNotFoundError: It is not known, or of no kind that is known.
    """
    task = api.manager.get_task(task_id)
    if task.kind not in _KINDS:
        raise TaskNotFoundError(task_id)
    return Work(task.kind, task.arguments, resumes=task_id)


def _cleanup(api: FileManagerAPI, said: Arguments, on_progress: Progress) -> Json:
    if said["plan_id"] is not None:
        return api.apply_cleanup_plan_api(said["plan_id"], on_progress=on_progress)
    act = api.plan_cleanup_api if said["dry_run"] else api.cleanup_old_files_api
    return act(said["days"], allow=said["allow"], on_progress=on_progress)


def _plan_cleanup(api: FileManagerAPI, said: Arguments, on_progress: Progress) -> Json:
    return api.save_cleanup_plan_api(**said, on_progress=on_progress)


def _migrate(api: FileManagerAPI, said: Arguments, on_progress: Progress) -> Json:
    wish = {key: value for key, value in said.items() if key != "dry_run"}
    act = api.plan_migration_api if said["dry_run"] else api.migrate_legacy_files_api
    return act(**wish, on_progress=on_progress)


def _verify(api: FileManagerAPI, said: Arguments, on_progress: Progress) -> Json:
    return api.verify_files_api(**said, on_progress=on_progress)


def _repair(api: FileManagerAPI, said: Arguments, on_progress: Progress) -> Json:
    act = api.plan_repair_api if said["dry_run"] else api.repair_files_api
    return act(said["findings"], on_progress=on_progress)


def _undo(api: FileManagerAPI, said: Arguments, on_progress: Progress) -> Json:
    act = api.plan_undo_api if said["dry_run"] else api.undo_operation_api
    return act(said["operation_id"], on_progress=on_progress)


def _empty_trash(api: FileManagerAPI, _: Arguments, __: Progress) -> Json:
    return api.empty_trash_api()


def _adopt(api: FileManagerAPI, _: Arguments, __: Progress) -> Json:
    return api.adopt_library_api()


def _always(action: Action) -> Callable[[FileManagerAPI, Arguments], Action]:
    return lambda _api, _said: action


def _cleans_up(api: FileManagerAPI, said: Arguments) -> Action:
    """Return what a cleanup is: nothing but reading when it is rehearsed."""
    if said["dry_run"]:
        return Action.READ
    with contextlib.suppress(
        ComfyFilesError
    ):  # a volume that cannot be asked is told of by the cleanup
        return Action.DESTROY if api.manager.deletes_at_once() else Action.DELETE
    return Action.DELETE


def _undoes(api: FileManagerAPI, said: Arguments) -> Action:
    """Return what undoing an operation is: deleting, where it had brought deleted jobs back."""
    if said["dry_run"]:
        return Action.READ
    with contextlib.suppress(ComfyFilesError):  # one that is not known is told of by the view
        is_deletion = api.manager.undo_deletes(said["operation_id"])
        return Action.DELETE if is_deletion else Action.WRITE
    return Action.WRITE


_KINDS: Final[Mapping[str, _Kind]] = {
    "migrate": _Kind(_migrate, _always(Action.WRITE)),
    "cleanup": _Kind(_cleanup, _cleans_up),
    "plan_cleanup": _Kind(_plan_cleanup, _always(Action.DELETE)),
    "verify": _Kind(_verify, _always(Action.READ)),
    "repair": _Kind(_repair, _always(Action.WRITE)),
    "undo": _Kind(_undo, _undoes),
    "empty_trash": _Kind(_empty_trash, _always(Action.DESTROY)),
    "adopt": _Kind(_adopt, _always(Action.DESTROY)),
}
