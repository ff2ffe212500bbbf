"""Answers on a terminal: as JSON for programs, and in words for people."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import click

from flask_comfy_files.api import Json

as_json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print the answer as JSON."
)

_MOST_LINES: Final = 20
"""Of each kind, in what is printed for people; --json has all."""


def show(answer: Json, as_json: bool, describe: Callable[[Json], list[str]]) -> None:
    """Print an answer as JSON, or the lines that describe it."""
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        for line in describe(answer):
            click.echo(printable(line))


def printable(line: str) -> str:
    """Return a line that this terminal can show, and that it does not obey: names may hold anything."""
    escaped = "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in line
    )
    encoding = sys.stdout.encoding or "utf-8"
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def size_text(size: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(size)
    for unit in ("bytes", "KB", "MB", "GB"):
        if amount < 1024 or unit == "GB":  # noqa: PLR2004 - the unit's own base
            break
        amount /= 1024
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


@contextmanager
def file_progress(
    label: str, *, is_wanted: bool
) -> Iterator[Callable[[int, int, int], None] | None]:
    """Show a bar with rate and time left on a terminal while the work goes on, and nothing elsewhere."""
    if not is_wanted or not sys.stderr.isatty():
        yield None
        return
    began_at = time.monotonic()
    with ExitStack() as stack:
        bar: Any = None

        def advance(done: int, total: int, size: int) -> None:
            nonlocal bar
            elapsed_s = max(time.monotonic() - began_at, 1e-3)
            rate = f"{done / elapsed_s:.0f} files/s, {size_text(int(size / elapsed_s))}/s"
            if bar is None:  # not before it is known that there is something to do
                bar = stack.enter_context(
                    click.progressbar(
                        length=total, label=f"{label}, {rate}", file=sys.stderr, show_pos=True
                    )
                )
            bar.label = f"{label}, {rate}"
            bar.update(done - bar.pos)

        yield advance


def shortened(lines: list[str]) -> list[str]:
    """Return as many lines as people read, and how many more there are."""
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[:_MOST_LINES], f"  … and {len(lines) - _MOST_LINES} more like that"]
