"""Commands that bring what lies about from before into the library."""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.exits import INCOMPLETE, exits_by_error
from flask_comfy_files.cli.printing import (
    as_json_option,
    file_progress,
    shortened,
    show,
    size_text,
)
from flask_comfy_files.core import errors
from flask_comfy_files.core.detection import Grouping


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [make(api) for make in (_migrate, _legacy, _assign)]


def _migrate(api: FileManagerAPI) -> click.Command:
    @click.command("migrate")
    @click.option("--dry-run", is_flag=True, help="Say what would go where, and change nothing.")
    @click.option("--recursive", is_flag=True, help="Take sub-folders, too, but for EXCLUDE.")
    @click.option(
        "--jobs",
        "jobs_file",
        type=click.File("r", encoding="utf-8"),
        help="JSON: a list of jobs with their files, or a history of ComfyUI's.",
    )
    @click.option(
        "--group-by",
        type=click.Choice([str(grouping) for grouping in Grouping]),
        help="Put together what nothing else attributes.",
    )
    @click.option("--leave-unmatched", is_flag=True, help="Leave what nobody owns where it is.")
    @click.option("--quiet", is_flag=True, help="Show no progress.")
    @as_json_option
    @exits_by_error
    def migrate(
        dry_run: bool,
        recursive: bool,
        jobs_file: TextIO | None,
        group_by: str | None,
        leave_unmatched: bool,
        quiet: bool,
        as_json: bool,
    ) -> None:
        """Move every file that lies directly in the output root to its job, or to legacy/.

        Interrupted, it goes on when it is called again.
        """
        asked: dict[str, Any] = {
            "recursive": recursive,
            "jobs": None if jobs_file is None else _read_json(jobs_file),
            "group_by": group_by,
            "leave_unmatched": leave_unmatched,
        }
        if dry_run:
            show(api.plan_migration_api(**asked), as_json, _describe_plan)
            return
        with file_progress("Migrating", is_wanted=not quiet) as progress:
            answer = api.migrate_legacy_files_api(**asked, on_progress=progress)
        show(answer, as_json, _describe_migrated)
        if answer["failed"]:
            sys.exit(INCOMPLETE)

    return migrate


def _legacy(api: FileManagerAPI) -> click.Command:
    @click.command("legacy")
    @as_json_option
    @exits_by_error
    def legacy(as_json: bool) -> None:
        """List the files that belong to no job."""
        show(api.get_legacy_files_api(), as_json, _describe_legacy)

    return legacy


def _assign(api: FileManagerAPI) -> click.Command:
    @click.command("assign")
    @click.argument("job_id")
    @click.argument("files", nargs=-1, required=True)
    @click.option(
        "--project",
        "project_id",
        help="The project; by default the job's own, else DEFAULT_PROJECT.",
    )
    @as_json_option
    @exits_by_error
    def assign(job_id: str, files: tuple[str, ...], project_id: str | None, as_json: bool) -> None:
        """Move FILES out of legacy/, named by path or id, to a new or known job."""
        answer = api.assign_legacy_files_api(files, job_id, project_id)
        show(answer, as_json, _describe_assigned)
        if answer["failed"] or answer["skipped"]:
            sys.exit(INCOMPLETE)

    return assign


def _read_json(source: TextIO) -> Any:
    try:
        return json.load(source)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidInputError("--jobs", source.name, f"is no JSON: {error}") from None


def _describe_plan(answer: Json) -> list[str]:
    """Return a tree of what would go where, and the totals."""
    lines = []
    folder = None
    for move in sorted(answer["moves"], key=lambda move: move["target"]):
        above, _, name = move["target"].rpartition("/")
        if above != folder:
            folder = above
            lines.append(f"{above}/")
        lines.append(f"  {name}  from {move['path']}")
    return [*lines, *_describe_migrated(answer)]


def _describe_migrated(answer: Json) -> list[str]:
    would = "Would migrate" if answer["dry_run"] else "Migrated"
    migrated, legacy, left = (answer[key] for key in ("migrated", "moved_to_legacy", "left"))
    head = (
        f"{would} {migrated['files']} of {answer['found']['files']} files into {len(answer['jobs'])} jobs,"
        f" {legacy['files']} to legacy/; {left['files']} left, {len(answer['skipped'])} skipped,"
        f" {len(answer['failed'])} failed; {size_text(answer['found']['bytes'])} in all."
    )
    alike = [
        f"  the same {size_text(same['bytes'])}: {', '.join(same['paths'])}"
        for same in answer["duplicates"]
    ]
    skipped = [f"  skipped {left['path']}: {left['reason']}" for left in answer["skipped"]]
    failed = [f"  failed  {left['path']}: {left['reason']}" for left in answer["failed"]]
    return [head, *shortened(alike), *shortened(skipped), *shortened(failed)]


def _describe_legacy(answer: Json) -> list[str]:
    head = f"{answer['file_count']} files belong to no job, {size_text(answer['total_size'])}."
    return [
        head,
        *(f"  {file['path']}  {size_text(file['file_size'])}" for file in answer["files"]),
    ]


def _describe_assigned(answer: Json) -> list[str]:
    head = (
        f"Job {answer['job_id']} in project {answer['project_id']}: {answer['assigned']['files']} assigned,"
        f" {answer['already_there']['files']} already there, {answer['file_count']} files in all."
    )
    left = [f"  left {left['path']}: {left['reason']}" for left in answer["skipped"]]
    failed = [f"  failed {left['path']}: {left['reason']}" for left in answer["failed"]]
    return [head, *shortened(left), *shortened(failed)]
