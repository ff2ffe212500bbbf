"""Commands that list what was done to the library, and undo it."""

from __future__ import annotations

import sys

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.exits import INCOMPLETE, exits_by_error
from flask_comfy_files.cli.printing import as_json_option, printable, shortened, show, size_text


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [_operations(api), _undo(api)]


def _operations(api: FileManagerAPI) -> click.Command:
    @click.command("operations")
    @click.option("--kind", help="Only those of this kind: organize, delete, cleanup, migrate, …")
    @click.option("--limit", type=int, default=20, show_default=True, help="How many, up to 200.")
    @as_json_option
    @exits_by_error
    def operations(kind: str | None, limit: int, as_json: bool) -> None:
        """List what was done to the library, newest first."""
        show(api.get_operations_api(kind=kind, limit=limit), as_json, _describe_operations)

    return operations


def _undo(api: FileManagerAPI) -> click.Command:
    @click.command("undo")
    @click.argument("operation")
    @click.option("--dry-run", is_flag=True, help="Say what would be undone, and change nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @as_json_option
    @exits_by_error
    def undo(operation: str, dry_run: bool, yes: bool, as_json: bool) -> None:
        """Put back what an operation moved, deleted or restored."""
        if dry_run:
            show(api.plan_undo_api(operation), as_json, _describe_undo)
            return
        if not yes:
            _confirm(api.plan_undo_api(operation))
        answer = api.undo_operation_api(operation)
        show(answer, as_json, _describe_undo)
        if answer["failed"]:
            sys.exit(INCOMPLETE)

    return undo


def _confirm(rehearsal: Json) -> None:
    """Show a person what would be done, and ask.

    Raises:
        click.UsageError: There is no terminal.
        click.Abort: The answer is no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("This moves files, and there is no terminal to ask at. Add --yes.")
    for line in _describe_undo(rehearsal):
        click.echo(printable(line), err=True)
    click.confirm("Do that?", abort=True, err=True)


def _describe_operations(answer: Json) -> list[str]:
    return [
        f"{entry['at']}  {entry['operation_id']}  {entry['kind']}  {entry['jobs']} jobs,"
        f" {entry['files']} files, {size_text(entry['bytes'])}"
        + (f", undoes {entry['undoes']}" if entry["undoes"] else "")
        + (f", undone by {entry['undone_by']}" if entry["undone_by"] else "")
        for entry in answer["operations"]
    ] or ["Nothing was done yet."]


def _describe_undo(answer: Json) -> list[str]:
    would = "Would undo" if answer["dry_run"] else "Undid"
    undone, already = answer["undone"], answer["already_undone"]
    head = (
        f"{would} {answer['kind']} {answer['undoes']}: {undone['files']} files,"
        f" {size_text(undone['bytes'])}; {already['files']} files were undone before."
    )
    undo_id = answer["operation_id"]
    beside = [f"  beside {move['target']}: {move['path']} is taken" for move in answer["beside"]]
    left = [
        f"  {word} {entry['path']}: {entry['reason']}. {entry['advice'] or ''}".rstrip()
        for word, entries in (("left  ", answer["skipped"]), ("failed", answer["failed"]))
        for entry in entries
    ]
    tail = [f"flask files undo {undo_id} undoes that."] if undo_id else []
    return [head, *shortened(beside), *shortened(left), *tail]
