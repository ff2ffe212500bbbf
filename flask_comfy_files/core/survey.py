"""What lies about in the output root and may be migrated: listed once, by name alone."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from flask_comfy_files.core import durable
from flask_comfy_files.core.attribution import NOT_SCANNED, unfit_name
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.layout import is_reserved, split
from flask_comfy_files.core.records import LeftFile, SkipReason


@dataclass(slots=True)
class Survey:
    """The files that were found, those of one family side by side, and what is never taken.

    ``failed`` are the folders that the system did not let us look into.
    """

    paths: list[str] = field(default_factory=list)
    skipped: list[LeftFile] = field(default_factory=list)
    failed: list[LeftFile] = field(default_factory=list)


def survey(root: str, exclude: Sequence[str]) -> Survey:
    """List the output root, and no folder in it; what a pattern names is passed over.

    Raises:
        OSError: The output root cannot be listed.
    """
    return _survey(root, exclude, lambda _path: False)


def survey_all(root: str, exclude: Sequence[str]) -> Survey:
    """List the output root with its sub-folders, but for the library's own, hidden ones, and links.

    Raises:
        OSError: The output root cannot be listed.
    """
    return _survey(root, exclude, _may_be_entered)


def _survey(root: str, exclude: Sequence[str], may_be_entered: Callable[[str], bool]) -> Survey:
    found = Survey()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            folders = _look_into(root, inside, exclude, found)
        except FileNotFoundError:
            if not inside:
                raise
        except OSError as error:
            if not inside:
                raise
            found.failed.append(Failure(inside, 0, error).as_left())
        else:
            waiting += filter(may_be_entered, folders)
    found.paths.sort(key=lambda path: (*family_of(path), path))
    return found


def _look_into(root: str, folder: str, exclude: Sequence[str], found: Survey) -> list[str]:
    """Take down the files of a folder, and return the folders in it."""
    folders = []
    for path, entry in _entries(root, folder):
        if is_reserved(path) or _is_excluded(path, exclude):
            continue
        if entry.is_dir(follow_symlinks=False):
            folders.append(path)
        else:
            _sort_in(path, entry, found)
    return folders


def _may_be_entered(path: str) -> bool:
    return path not in NOT_SCANNED and not split(path)[1].startswith(".")


def family_of(path: str) -> tuple[str, str]:
    """Return what a file has in common with those that were written with it: folder, and name without ending.

    A video, its silent twin, its preview, and its caption or workflow differ in their endings only.
    """
    folder, name = split(path)
    return folder, os.path.splitext(name)[0].removesuffix("-audio")


def _entries(root: str, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with durable.open_folder(root, folder) as descriptor:
        # Not of our own user: then the folder's time of access may show that it was read.
        with contextlib.suppress(PermissionError):
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NOATIME)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                yield (f"{folder}/{entry.name}" if folder else entry.name), entry


def _is_excluded(path: str, exclude: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in exclude)


def _sort_in(path: str, entry: os.DirEntry[str], found: Survey) -> None:
    reason = unfit_name(entry.name)
    if entry.is_symlink():
        reason = SkipReason.LINK
    elif not entry.is_file(follow_symlinks=False):
        reason = SkipReason.NOT_A_REGULAR_FILE
    if reason is None:
        found.paths.append(path)
    else:
        found.skipped.append(LeftFile(path=path, reason=reason))
