"""Commands that list the long work of a server, and cancel it."""

from __future__ import annotations

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.exits import exits_by_error
from flask_comfy_files.cli.printing import as_json_option, show, size_text


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [_tasks(api), _cancel(api)]


def _tasks(api: FileManagerAPI) -> click.Command:
    @click.command("tasks")
    @as_json_option
    @exits_by_error
    def tasks(as_json: bool) -> None:
        """List the work that took servers longer than a request, newest first."""
        show(api.get_tasks_api(), as_json, _describe_tasks)

    return tasks


def _cancel(api: FileManagerAPI) -> click.Command:
    @click.command("cancel")
    @click.argument("task")
    @as_json_option
    @exits_by_error
    def cancel(task: str, as_json: bool) -> None:
        """Ask a task to stop; what it has done stays done."""
        show(api.cancel_task_api(task), as_json, lambda answer: [_describe(answer)])

    return cancel


def _describe_tasks(answer: Json) -> list[str]:
    return [_describe(task) for task in answer["tasks"]] or ["No work took longer than a request."]


def _describe(task: Json) -> str:
    kind = f"{task['kind']} (rehearsal)" if task["dry_run"] else task["kind"]
    total = "?" if task["total"] is None else task["total"]
    size = "" if task["bytes"] is None else f", {size_text(task['bytes'])}"
    error = f": {task['error']['detail']}" if task["error"] else ""
    head = f"{task['started_at']}  {task['task_id']}  {kind}  {task['state']}"
    return f"{head}, {task['done']} of {total}{size}{error}"
