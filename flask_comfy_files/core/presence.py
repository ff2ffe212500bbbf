"""Whether the files of a library are where its records say, as far as a sample tells.

A disk that is not mounted below the output root looks like a library whose files are gone. Nothing may be
concluded from that: not that they can be forgotten, and not that there is room.
"""

from __future__ import annotations

from typing import Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.identity import IF_RIGHT
from flask_comfy_files.core.catalog.session import Reader
from flask_comfy_files.core.errors import LibraryUnavailableError

_SAMPLE: Final = 64


def why_absent(root: str, reader: Reader) -> LibraryUnavailableError | None:
    """Return the error for a library of which more than half of a sample is not there, or ``None``."""
    paths = reader.sample_of_paths(_SAMPLE)
    gone = [path for path in paths if durable.find_status(root, path) is None]
    if 2 * len(gone) <= len(paths):
        return None
    return LibraryUnavailableError(
        f"of {len(paths)} recorded files that were looked for {len(gone)} are not there, {gone[0]} for one",
        f"See whether all its disks are mounted. {IF_RIGHT}",
    )


def require_present(root: str, reader: Reader) -> None:
    """Refuse to go on where most files are not there.

    Raises:
        LibraryUnavailableError: They are not.
    """
    error = why_absent(root, reader)
    if error is not None:
        raise error
