"""Commands that write every record out, and that take records of an older installation in."""

from __future__ import annotations

import sys

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.exits import INCOMPLETE, exits_by_error
from flask_comfy_files.cli.printing import as_json_option, shortened, show, size_text
from flask_comfy_files.core.exporting import ExportFormat, lines_of
from flask_comfy_files.core.saving import Existing, save


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [make(api) for make in (_export, _import)]


def _export(api: FileManagerAPI) -> click.Command:
    @click.command("export")
    @click.option(
        "--format",
        "export_format",
        type=click.Choice([str(known) for known in ExportFormat]),
        default=str(ExportFormat.JSON),
        show_default=True,
        help="JSON is what import reads; CSV is for spreadsheets.",
    )
    @click.option(
        "--output",
        type=click.Path(dir_okay=False),
        help="Write to this file, whole or not at all; by default to standard output.",
    )
    @click.option("--force", is_flag=True, help="Replace the file that is there.")
    @exits_by_error
    def export(export_format: str, output: str | None, force: bool) -> None:
        """Write every record, with the pin and the tags of its job."""
        lines = lines_of(api.export_records_api(), ExportFormat(export_format))
        if output is None:
            sys.stdout.buffer.writelines(lines)
            sys.stdout.buffer.flush()
        else:
            save(lines, output, Existing.REPLACE if force else Existing.KEEP)

    return export


def _import(api: FileManagerAPI) -> click.Command:
    @click.command("import")
    @click.argument("file", required=False, type=click.Path(dir_okay=False))
    @click.option("--dry-run", is_flag=True, help="Say what would come of it, and change nothing.")
    @as_json_option
    @exits_by_error
    def import_(file: str | None, dry_run: bool, as_json: bool) -> None:
        """Take over the files of which FILE has records: an export, or an older installation's list.

        Without FILE it is the list that an older installation has left as file_metadata.json. Interrupted, it
        goes on when it is called again.
        """
        answer = api.import_records_api(file, dry_run=dry_run)
        show(answer, as_json, _describe)
        if answer["failed"]:
            sys.exit(INCOMPLETE)

    return import_


def _describe(answer: Json) -> list[str]:
    would = "Would import" if answer["dry_run"] else "Imported"
    adopted, moved, legacy, known = (
        answer[key]["files"] for key in ("adopted", "moved", "moved_to_legacy", "already_there")
    )
    head = (
        f"{would} {adopted + moved + legacy} of {answer['found']['files']} files into {answer['jobs']} jobs:"
        f" {adopted} stay where they are,"
        f" {moved} moved, {legacy} to legacy/; {known} already there, {len(answer['skipped'])} skipped,"
        f" {len(answer['failed'])} failed; {size_text(answer['found']['bytes'])} in all."
    )
    kept = [f"  the list is kept as {answer['document']}"] if answer["document"] else []
    changed = [f"  changed {file['path']}: not as its record says" for file in answer["changed"]]
    skipped = [f"  skipped {left['path']}: {left['reason']}" for left in answer["skipped"]]
    failed = [f"  failed  {left['path']}: {left['reason']}" for left in answer["failed"]]
    return [head, *kept, *shortened(changed), *shortened(skipped), *shortened(failed)]
