"""Asking a person before something is done."""

from __future__ import annotations

import sys
from typing import Final

import click

from flask_comfy_files.cli.printing import printable

yes_option: Final = click.option("--yes", is_flag=True, help="Do not ask.")


def require_terminal() -> None:
    """See to it that there is somebody to ask; where there is nobody, say how to go without.

    Raises:
        click.UsageError: There is no terminal.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(
            "This wants to be confirmed, and there is no terminal to ask at. Add --yes."
        )


def confirm(question: str) -> None:
    """Ask a person.

    Raises:
        click.UsageError: There is no terminal.
        click.Abort: The answer is no.
    """
    require_terminal()
    click.confirm(printable(question), abort=True, err=True)
