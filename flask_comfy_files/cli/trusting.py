"""Commands that look after the library itself."""

from __future__ import annotations

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.asking import confirm, require_terminal, yes_option
from flask_comfy_files.cli.exits import exits_by_error
from flask_comfy_files.cli.printing import as_json_option, show, size_text


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [make(api) for make in (_adopt, _compact, _history)]


def _adopt(api: FileManagerAPI) -> click.Command:
    @click.command("adopt")
    @yes_option
    @as_json_option
    @exits_by_error
    def adopt(yes: bool, as_json: bool) -> None:
        """Say that what is in the output root is right: this disk, this library, and what is gone from it.

        Records whose files are not there are marked as missing. Where no library is, one begins.
        """
        if not yes:
            require_terminal()
            confirm(f"Is {api.manager.settings.output_dir} as it should be?")
        show(api.adopt_library_api(), as_json, _describe_adoption)

    return adopt


def _describe_adoption(answer: Json) -> list[str]:
    return [
        f"Library {answer['library_id']}",
        f"  {answer['checked_files']} files looked for, {answer['missing_files']} of them missing",
    ]


def _compact(api: FileManagerAPI) -> click.Command:
    @click.command("compact")
    @as_json_option
    @exits_by_error
    def compact(as_json: bool) -> None:
        """Write file_metadata.json anew without what holds no more.

        A cleanup does it by itself where that is most of it.
        """
        answer = api.compact_document_api()
        if answer is None:
            click.echo("Another process is at it.", err=True)
        else:
            show(answer, as_json, _describe_compaction)

    return compact


def _describe_compaction(answer: Json) -> list[str]:
    before, after = size_text(answer["bytes_before"]), size_text(answer["bytes_after"])
    return [f"{before} before, {after} now", f"  the one before is kept as {answer['kept_as']}"]


def _history(api: FileManagerAPI) -> click.Command:
    @click.command("history")
    @click.argument("file", metavar="ID_OR_PATH")
    @as_json_option
    @exits_by_error
    def history(file: str, as_json: bool) -> None:
        """Show everything that happened to a file, by its id or its path."""
        show(api.get_file_history_api(file), as_json, _describe_history)

    return history


def _describe_history(answer: Json) -> list[str]:
    return [
        f"File {answer['file_id']}",
        *(
            f"  {event['at']}  {event['what']} by {event['operation_kind']} {event['operation_id']}"
            for event in answer["events"]
        ),
    ]
