"""``flask files …``: parse, call one method, print, exit.

Exit codes: 0 done, 1 done with files that failed or jobs still pending, 2 wrong usage, 3 refused (invalid,
unknown or in conflict), 4 busy, 5 storage or integrity.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TextIO, TypeVar

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.core import errors

EXIT_CODES: Final[Mapping[type[errors.ComfyFilesError], int]] = {
    errors.ComfyFilesError: 5,
    errors.InvalidInputError: 3,
    errors.NotFoundError: 3,
    errors.ConflictError: 3,
    errors.BusyError: 4,
    errors.IntegrityError: 5,
    errors.StorageError: 5,
    errors.UpstreamError: 5,
}
"""Which family of errors ends a command with which code; the nearest base class decides."""

INCOMPLETE: Final = 1

_Command = TypeVar("_Command", bound=Callable[..., None])


def exit_code_of(error: errors.ComfyFilesError) -> int:
    """Return the code with which a command ends on an error."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def _exits_by_error(command: _Command) -> _Command:
    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except errors.ComfyFilesError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(exit_code_of(error))

    return run  # type: ignore[return-value]


_as_json: Final = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


def files_group(api: FileManagerAPI) -> click.Group:
    """Return the commands of one app's library."""
    group = click.Group("files", help="The library of ComfyUI's output.")
    for make in (_organize, _job, _project, _status, _retry, _stamp, _resolve):
        group.add_command(make(api))
    return group


def _organize(api: FileManagerAPI) -> click.Command:
    @click.command("organize")
    @click.argument("job_id")
    @click.option(
        "--project",
        "project_id",
        help="The project; by default the job's own, else DEFAULT_PROJECT.",
    )
    @click.option("--prompt-id", help="The id of the ComfyUI run that made the files.")
    @click.option(
        "--file",
        "files",
        multiple=True,
        help="A file of the job, relative to the output root; may be repeated, and excludes all others.",
    )
    @_as_json
    @_exits_by_error
    def organize(
        job_id: str,
        project_id: str | None,
        prompt_id: str | None,
        files: tuple[str, ...],
        as_json: bool,
    ) -> None:
        """Move a job's files into place and record them."""
        answer = api.organize_job_files(
            job_id, project_id, prompt_id=prompt_id, files=files or None
        )
        _print(answer, as_json, _describe_organized)
        if answer["failed"]:
            sys.exit(INCOMPLETE)

    return organize


def _job(api: FileManagerAPI) -> click.Command:
    @click.command("job")
    @click.argument("job_id")
    @_as_json
    @_exits_by_error
    def job(job_id: str, as_json: bool) -> None:
        """Show a job and its files."""
        _print(api.get_job_files_api(job_id), as_json, _describe_job)

    return job


def _project(api: FileManagerAPI) -> click.Command:
    @click.command("project")
    @click.argument("project_id")
    @_as_json
    @_exits_by_error
    def project(project_id: str, as_json: bool) -> None:
        """Show a project, its jobs and their files."""
        _print(api.get_project_files_api(project_id), as_json, _describe_project)

    return project


def _status(api: FileManagerAPI) -> click.Command:
    @click.command("status")
    @_as_json
    @_exits_by_error
    def status(as_json: bool) -> None:
        """Show the library in numbers, and how it is. Exit code 5 when it cannot be used."""
        answer = api.get_system_status_api()
        _print(answer, as_json, _describe_status)
        if answer["health"]["state"] == "unavailable":
            sys.exit(EXIT_CODES[errors.StorageError])

    return status


def _retry(api: FileManagerAPI) -> click.Command:
    @click.command("retry")
    @_as_json
    @_exits_by_error
    def retry(as_json: bool) -> None:
        """Organize the jobs that were completed and are still pending."""
        answer = api.retry_pending_jobs_api()
        _print(answer, as_json, _describe_retried)
        if answer["still_pending"] or answer["given_up"]:
            sys.exit(INCOMPLETE)

    return retry


def _stamp(api: FileManagerAPI) -> click.Command:
    @click.command("stamp")
    @click.argument("job_id")
    @click.argument("graph", type=click.File("r", encoding="utf-8"), default="-")
    @click.option("--project", "project_id", help="The project that the embedded tag names.")
    @_exits_by_error
    def stamp(job_id: str, graph: TextIO, project_id: str | None) -> None:
        """Print a workflow that writes into the job's inbox, as JSON.

        GRAPH is a workflow in ComfyUI's API format, by default standard input. What is printed has the
        new "prompt" and the "extra_data" to queue it with.
        """
        try:
            prompt = json.load(graph)
        except (ValueError, RecursionError) as error:
            raise errors.InvalidInputError("GRAPH", graph.name, f"is no JSON: {error}") from None
        answer = api.stamp_prompt_api(prompt, job_id=job_id, project_id=project_id)
        click.echo(json.dumps(answer, indent=2))

    return stamp


def _resolve(api: FileManagerAPI) -> click.Command:
    @click.command("resolve")
    @click.argument("filename")
    @click.option("--subfolder", default="", help="The folder in which ComfyUI wrote it.")
    @click.option("--prompt-id", help="The id of the ComfyUI run, where the name was used again.")
    @_as_json
    @_exits_by_error
    def resolve(filename: str, subfolder: str, prompt_id: str | None, as_json: bool) -> None:
        """Show which file a name of ComfyUI's stands for. Exit code 1 when it stands for several."""
        answer = api.resolve_name_api(filename, subfolder=subfolder, prompt_id=prompt_id)
        _print(answer, as_json, lambda found: _describe_files(found["matches"]))
        if not answer["exact"]:
            sys.exit(INCOMPLETE)

    return resolve


def _print(answer: Json, as_json: bool, describe: Callable[[Json], list[str]]) -> None:
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        for line in describe(answer):
            click.echo(_printable(line))


def _printable(line: str) -> str:
    """Return a line that this terminal can show, and that it does not obey: names may hold anything."""
    escaped = "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in line
    )
    encoding = sys.stdout.encoding or "utf-8"
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def _size_text(size: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(size)
    for unit in ("bytes", "KB", "MB", "GB"):
        if amount < 1024 or unit == "GB":  # noqa: PLR2004 - the unit's own base
            break
        amount /= 1024
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


def _describe_files(files: list[Json]) -> list[str]:
    return [
        f"  {file['path']}  {_size_text(file['file_size'])}  from {file['original_path']}"
        for file in files
    ]


def _describe_organized(answer: Json) -> list[str]:
    tallies = ", ".join(
        f"{answer[key]['files']} {words}"
        for key, words in (("moved", "moved"), ("already_there", "already there"))
    )
    lines = [f"Job {answer['job_id']} in project {answer['project_id']}: {tallies}."]
    lines += _describe_files(answer["organized_files"])
    lines += [f"  skipped {left['path']}: {left['reason']}" for left in answer["skipped"]]
    return lines + [f"  failed  {left['path']}: {left['reason']}" for left in answer["failed"]]


def _describe_job(answer: Json) -> list[str]:
    head = (
        f"Job {answer['job_id']} in project {answer['project_id']}:"
        f" {answer['file_count']} files, {_size_text(answer['total_size'])}."
    )
    reason = [f"  {answer['reason']}"] if answer["reason"] else []
    return [head, *reason, *_describe_files(answer["files"])]


def _describe_project(answer: Json) -> list[str]:
    head = (
        f"Project {answer['project_id']}: {len(answer['jobs'])} jobs,"
        f" {answer['file_count']} files, {_size_text(answer['total_size'])}."
    )
    jobs = [
        f"  {job['job_id']}  {job['file_count']} files, {_size_text(job['total_size'])}, {job['created_at']}"
        for job in answer["jobs"]
    ]
    return [head, *jobs]


def _describe_status(answer: Json) -> list[str]:
    types = ", ".join(f"{number} {name}" for name, number in answer["file_types"].items()) or "none"
    disk = answer["disk"]
    lines = [
        f"State    {answer['health']['state']}",
        f"Files    {answer['total_files']} ({types}), {_size_text(answer['total_size'])}",
        f"Jobs     {answer['jobs']} in {answer['projects']} projects, {answer['pending_jobs']} pending",
    ]
    if disk:
        lines.append(f"Disk     {_size_text(disk['free'])} free of {_size_text(disk['total'])}")
    return lines + [f"         {message}" for message in answer["health"]["messages"]]


def _describe_retried(answer: Json) -> list[str]:
    lines = [
        f"{job['job_id']}: organized, {job['file_count']} files" for job in answer["organized"]
    ]
    lines += [f"{job['job_id']}: still pending: {job['reason']}" for job in answer["still_pending"]]
    lines += [f"{job['job_id']}: given up: {job['reason']}" for job in answer["given_up"]]
    return lines or ["No job is pending."]
