"""The command that lists files, jobs and projects, a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.exits import exits_by_error
from flask_comfy_files.cli.printing import as_json_option, show, size_text
from flask_comfy_files.core.listing import MOST_LISTED, SORTS
from flask_comfy_files.core.records import FileType

_TYPE: Final = click.Choice([str(file_type) for file_type in FileType])
_NOT_FOR: Final = {
    "files": frozenset[str](),
    "jobs": frozenset({"job", "file_type"}),
    "projects": frozenset(
        {"project", "job", "file_type", "since", "until", "tag", "pinned"},
    ),
}
"""The filters that mean nothing for what is listed."""


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [_list(api)]


def _list(api: FileManagerAPI) -> click.Command:
    lists: dict[str, Callable[..., Json]] = {
        "files": api.list_files_api,
        "jobs": api.list_jobs_api,
        "projects": api.list_projects_api,
    }

    @click.command("list")
    @click.argument("kind", type=click.Choice(list(lists)), default="files")
    @click.option("--project", help="Those of this project.")
    @click.option("--job", help="Files of this job.")
    @click.option("--type", "file_type", type=_TYPE, help="Files of this type.")
    @click.option("--since", help="From this time on: ISO 8601 with an offset or Z, or a date.")
    @click.option("--until", help="Before this time.")
    @click.option("--tag", help="Those of jobs with this tag.")
    @click.option("--pinned/--unpinned", default=None, help="Those of pinned jobs, or of others.")
    @click.option("--min-size", type=int, help="Those of at least so many bytes.")
    @click.option("--q", help="Those with this in a name, an id or a tag, in any case of letters.")
    @click.option("--sort", help=f"{_sorts()}; with - in front the other way round.")
    @click.option("--limit", type=int, default=50, show_default=True, help="How many, up to 200.")
    @click.option("--cursor", help="Where to go on, as the page before says.")
    @click.option("--all", "wants_all", is_flag=True, help="All pages, one after the other.")
    @as_json_option
    @exits_by_error
    def list_(
        kind: str, limit: int, cursor: str | None, wants_all: bool, as_json: bool, **said: Any
    ) -> None:
        """List files, jobs or projects."""
        asked = {name: value for name, value in said.items() if value is not None}
        for name in sorted(_NOT_FOR[kind].intersection(asked)):
            option = {"file_type": "--type", "pinned": "--pinned"}.get(name, f"--{name}")
            raise click.UsageError(f"{option} is no condition for {kind}.")
        number = MOST_LISTED if wants_all else limit
        while True:
            page = lists[kind](limit=number, cursor=cursor, **asked)
            cursor = page["next_cursor"]
            show(page, as_json, _describe_all if wants_all else _describe)
            if not wants_all or cursor is None:
                return

    return list_


def _sorts() -> str:
    """Return the words of --sort, by what is listed."""
    return "; ".join(f"{kind}: {', '.join(sorts)}" for kind, sorts in SORTS.items())


def _describe(page: Json) -> list[str]:
    lines = _describe_all(page)
    if page["next_cursor"] is not None:
        return [*lines, f"There is more: --cursor {page['next_cursor']}"]
    return lines or ["There is nothing of the kind."]


def _describe_all(page: Json) -> list[str]:
    if "files" in page:
        return _columns([_file_cells(file) for file in page["files"]])
    if "jobs" in page:
        return _columns([_job_cells(job) for job in page["jobs"]])
    return _columns([_project_cells(project) for project in page["projects"]])


def _file_cells(file: Json) -> tuple[str, ...]:
    return file["created_at"], size_text(file["file_size"]), file["file_type"], file["path"]


def _job_cells(job: Json) -> tuple[str, ...]:
    marks = ", ".join([*(["pinned"] if job["pinned"] else []), *job["tags"]])
    files, name = f"{job['file_count']} files", f"{job['project_id']}/{job['job_id']}"
    return job["created_at"], size_text(job["total_size"]), files, name, marks


def _project_cells(project: Json) -> tuple[str, ...]:
    jobs, files = f"{project['job_count']} jobs", f"{project['file_count']} files"
    return size_text(project["total_size"]), jobs, files, project["project_id"]


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines whose cells stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
