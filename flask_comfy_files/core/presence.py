"""Whether the files of a library are where its records say, as far as a sample tells.

A disk that is not mounted below the output root looks like a library whose files are gone. Nothing may be
concluded from that: not that they can be forgotten, and not that there is room.
"""

from __future__ import annotations

from typing import Final

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.identity import IF_RIGHT
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import LibraryUnavailableError, LockTimeoutError
from flask_comfy_files.core.layout import PROJECTS
from flask_comfy_files.core.recovery import changing, reading

_SAMPLE: Final = 64
_TELLING: Final = 4
"""Of fewer files somebody may have removed most by hand, as long as there is anything at all."""


def require_present(root: str, catalog: Catalog, lock_timeout_s: float | None = None) -> None:
    """Refuse to go on where most files are not there.

    Raises:
        LibraryUnavailableError: They are not.
        LockTimeoutError: It seems so, and somebody is moving files.
    """
    with reading(root, catalog) as reader:
        if find_absence(root, reader) is None:
            return
    with changing(root, catalog, lock_timeout_s) as writer:  # while nobody else moves anything
        absent = find_absence(root, writer)
    if absent is not None:
        raise absent


def why_absent(root: str, catalog: Catalog) -> str | None:
    """Say why most files are not there, or ``None``; nothing is said while somebody moves files."""
    try:
        require_present(root, catalog, lock_timeout_s=0)
    except LockTimeoutError:
        return None
    except LibraryUnavailableError as error:
        return str(error)
    return None


def find_absence(root: str, reader: Reader) -> LibraryUnavailableError | None:
    """Return the error for a library most of whose files are not there, which may be under way just now."""
    paths = reader.sample_of_paths(_SAMPLE)
    gone = [path for path in paths if not _is_there(root, path)]
    if 2 * len(gone) <= len(paths) or (len(paths) < _TELLING and not _is_nothing_there(root)):
        return None
    return LibraryUnavailableError(
        f"of {len(paths)} recorded files that were looked for {len(gone)} are not there, {gone[0]} for one",
        f"See whether all its disks are mounted. {IF_RIGHT}",
    )


def _is_there(root: str, path: str) -> bool:
    try:
        return durable.find_status(root, path) is not None
    except (OSError, ValueError):
        return False


def _is_nothing_there(root: str) -> bool:
    try:
        return not looking.list_folder(root, PROJECTS)
    except FileNotFoundError:
        return True
    except OSError:
        return False
