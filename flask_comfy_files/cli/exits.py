"""How a command ends: its exit code by what went wrong.

0 done, 1 done with files that failed or jobs still pending, 2 wrong usage, 3 refused (invalid, unknown or in
conflict), 4 busy, 5 storage or integrity.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from flask_comfy_files.core import errors

EXIT_CODES: Final[Mapping[type[errors.ComfyFilesError], int]] = {
    errors.ComfyFilesError: 5,
    errors.InvalidInputError: 3,
    errors.NotFoundError: 3,
    errors.ConflictError: 3,
    errors.BusyError: 4,
    errors.IntegrityError: 5,
    errors.StorageError: 5,
    errors.MissingExtraError: 5,
    errors.UpstreamError: 5,
}
"""Which family of errors ends a command with which code; the nearest base class decides."""

INCOMPLETE: Final = 1

_Command = TypeVar("_Command", bound=Callable[..., None])


def exit_code_of(error: errors.ComfyFilesError) -> int:
    """Return the code with which a command ends on an error."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def exits_by_error(command: _Command) -> _Command:
    """Make a command end with the code of the error it raises, and say the error."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except errors.ComfyFilesError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(exit_code_of(error))

    return run  # type: ignore[return-value]
