"""Commands that write every record out, and that take records of an older installation in."""

from __future__ import annotations

import sys

import click

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.cli.exits import exits_by_error
from flask_comfy_files.core.exporting import Existing, ExportFormat, save, write


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [make(api) for make in (_export,)]


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
        records, form = api.export_records_api(), ExportFormat(export_format)
        if output is None:
            write(records, sys.stdout.buffer, form)
        else:
            save(records, output, form, Existing.REPLACE if force else Existing.KEEP)

    return export
