"""Commands that organize jobs, and ask what is in the library."""

from __future__ import annotations

import json
import sys
from typing import Final, TextIO

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.exits import EXIT_CODES, INCOMPLETE, exits_by_error
from flask_comfy_files.cli.printing import as_json_option, show, size_text
from flask_comfy_files.core import errors

_BY_STATE: Final = {
    "ok": 0,
    "degraded": INCOMPLETE,
    "unavailable": EXIT_CODES[errors.StorageError],
}
"""With which code a look at the health ends."""


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    makers = (_organize, _job, _project, _update, _status, _health, _retry, _stamp, _resolve)
    return [make(api) for make in makers]


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
    @as_json_option
    @exits_by_error
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
        show(answer, as_json, _describe_organized)
        if answer["failed"]:
            sys.exit(INCOMPLETE)

    return organize


def _job(api: FileManagerAPI) -> click.Command:
    @click.command("job")
    @click.argument("job_id")
    @as_json_option
    @exits_by_error
    def job(job_id: str, as_json: bool) -> None:
        """Show a job and its files."""
        show(api.get_job_files_api(job_id), as_json, _describe_job)

    return job


def _project(api: FileManagerAPI) -> click.Command:
    @click.command("project")
    @click.argument("project_id")
    @as_json_option
    @exits_by_error
    def project(project_id: str, as_json: bool) -> None:
        """Show a project, its jobs and their files."""
        show(api.get_project_files_api(project_id), as_json, _describe_project)

    return project


def _update(api: FileManagerAPI) -> click.Command:
    @click.command("update")
    @click.argument("job_id")
    @click.option(
        "--pin/--unpin", "pinned", default=None, help="Whether nothing may delete the job."
    )
    @click.option("--tag", "tags", multiple=True, help="A tag of the job; may be repeated.")
    @click.option("--no-tags", is_flag=True, help="Take all tags away.")
    @as_json_option
    @exits_by_error
    def update(
        job_id: str, pinned: bool | None, tags: tuple[str, ...], no_tags: bool, as_json: bool
    ) -> None:
        """Pin a job, or set its tags; those that are given replace those that it has."""
        if tags and no_tags:
            raise click.UsageError("--tag and --no-tags contradict each other.")
        wanted = list(tags) if tags or no_tags else None
        answer = api.update_job_api(job_id, pinned=pinned, tags=wanted)
        show(answer, as_json, _describe_job)

    return update


def _status(api: FileManagerAPI) -> click.Command:
    @click.command("status")
    @as_json_option
    @exits_by_error
    def status(as_json: bool) -> None:
        """Show the library in numbers, and how it is. Exit code 5 when it cannot be used."""
        answer = api.get_system_status_api()
        show(answer, as_json, _describe_status)
        if answer["health"]["state"] == "unavailable":
            sys.exit(EXIT_CODES[errors.StorageError])

    return status


def _health(api: FileManagerAPI) -> click.Command:
    @click.command("health")
    @as_json_option
    @exits_by_error
    def health(as_json: bool) -> None:
        """Say whether the library works. Exit code 1 when it is degraded, 5 when it cannot be used."""
        found = api.manager.get_health()
        answer = {"state": found.state, "messages": list(found.messages)}
        show(
            answer,
            as_json,
            lambda said: [said["state"], *(f"  {line}" for line in said["messages"])],
        )
        sys.exit(_BY_STATE[found.state])

    return health


def _retry(api: FileManagerAPI) -> click.Command:
    @click.command("retry")
    @as_json_option
    @exits_by_error
    def retry(as_json: bool) -> None:
        """Organize the jobs that were completed and are still pending."""
        answer = api.retry_pending_jobs_api()
        show(answer, as_json, _describe_retried)
        if answer["still_pending"] or answer["given_up"]:
            sys.exit(INCOMPLETE)

    return retry


def _stamp(api: FileManagerAPI) -> click.Command:
    @click.command("stamp")
    @click.argument("job_id")
    @click.argument("graph", type=click.File("r", encoding="utf-8"), default="-")
    @click.option("--project", "project_id", help="The project that the embedded tag names.")
    @exits_by_error
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
    @as_json_option
    @exits_by_error
    def resolve(filename: str, subfolder: str, prompt_id: str | None, as_json: bool) -> None:
        """Show which file a name of ComfyUI's stands for. Exit code 1 when it stands for several."""
        answer = api.resolve_name_api(filename, subfolder=subfolder, prompt_id=prompt_id)
        show(answer, as_json, lambda found: _describe_files(found["matches"]))
        if not answer["exact"]:
            sys.exit(INCOMPLETE)

    return resolve


def _describe_files(files: list[Json]) -> list[str]:
    return [
        f"  {file['path']}  {size_text(file['file_size'])}  from {file['original_path']}"
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
        f" {answer['file_count']} files, {size_text(answer['total_size'])}."
    )
    marks = [*(["pinned"] if answer["pinned"] else []), *answer["tags"]]
    marked = [f"  {', '.join(marks)}"] if marks else []
    reason = [f"  {answer['reason']}"] if answer["reason"] else []
    return [head, *marked, *reason, *_describe_files(answer["files"])]


def _describe_project(answer: Json) -> list[str]:
    head = (
        f"Project {answer['project_id']}: {len(answer['jobs'])} jobs,"
        f" {answer['file_count']} files, {size_text(answer['total_size'])}."
    )
    jobs = [
        f"  {job['job_id']}  {job['file_count']} files, {size_text(job['total_size'])}, {job['created_at']}"
        for job in answer["jobs"]
    ]
    return [head, *jobs]


def _describe_status(answer: Json) -> list[str]:
    types = ", ".join(f"{number} {name}" for name, number in answer["file_types"].items()) or "none"
    disk, trash = answer["disk"], answer["trash"]
    lines = [
        f"State    {answer['health']['state']}",
        f"Files    {answer['total_files']} ({types}), {size_text(answer['total_size'])}",
        f"Jobs     {answer['jobs']} in {answer['projects']} projects, {answer['pending_jobs']} pending",
    ]
    if trash["files"]:
        lines.append(f"Trash    {trash['files']} files, {size_text(trash['bytes'])}")
    if disk:
        lines.append(f"Disk     {size_text(disk['free'])} free of {size_text(disk['total'])}")
    return lines + [f"         {message}" for message in answer["health"]["messages"]]


def _describe_retried(answer: Json) -> list[str]:
    lines = [
        f"{job['job_id']}: organized, {job['file_count']} files" for job in answer["organized"]
    ]
    lines += [f"{job['job_id']}: still pending: {job['reason']}" for job in answer["still_pending"]]
    lines += [f"{job['job_id']}: given up: {job['reason']}" for job in answer["given_up"]]
    return lines or ["No job is pending."]
