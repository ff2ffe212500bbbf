"""Commands that hand out the bytes of files."""

from __future__ import annotations

import sys

import click

from flask_comfy_files.api import FileManagerAPI
from flask_comfy_files.cli.exits import exits_by_error
from flask_comfy_files.cli.printing import printable, size_text
from flask_comfy_files.core.saving import Existing, save

_STANDARD_OUTPUT = "-"


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [_archive(api)]


def _archive(api: FileManagerAPI) -> click.Command:
    @click.command("archive")
    @click.argument("job_id")
    @click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="Write to this file, which must not exist; - is standard output. By default JOB_ID.zip.",
    )
    @exits_by_error
    def archive(job_id: str, output: str | None) -> None:
        """Write all files of a job, with a manifest, into one ZIP archive, whole or not at all."""
        made = api.manager.stream_archive(job_id)
        if output == _STANDARD_OUTPUT:
            sys.stdout.buffer.writelines(made.content)
            sys.stdout.buffer.flush()
            return
        path = made.name if output is None else output
        save(made.content, path, Existing.KEEP)
        size = "" if made.size is None else f" ({size_text(made.size)})"
        click.echo(printable(f"Wrote {path}{size}."))

    return archive
