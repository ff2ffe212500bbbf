"""What lies about in the output root and may be migrated: listed once, by name alone."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flask_comfy_files.core import durable
from flask_comfy_files.core.attribution import NOT_SCANNED, unfit_name
from flask_comfy_files.core.layout import is_reserved, split
from flask_comfy_files.core.records import LeftFile, SkipReason


@dataclass(slots=True)
class Survey:
    """The files that were found, those of one family side by side, and what is never taken."""

    paths: list[str] = field(default_factory=list)
    skipped: list[LeftFile] = field(default_factory=list)


def survey(root: str, folders: Sequence[str], exclude: Sequence[str]) -> Survey:
    """List the output root, and the given sub-folders with all that is in them.

    The library's own folders, and whatever a pattern names, are not looked into.

    Raises:
        OSError: The output root cannot be listed.
    """
    found = Survey()
    waiting = ["", *folders]
    while waiting:
        inside = waiting.pop()
        for path, entry in _entries(root, inside):
            if is_reserved(path) or _is_excluded(path, exclude):
                continue
            if not entry.is_dir(follow_symlinks=False):
                _sort_in(path, entry, found)
            elif inside and path not in NOT_SCANNED and not entry.name.startswith("."):
                waiting.append(path)
    found.paths.sort(key=lambda path: (*family_of(path), path))
    return found


def sub_folders(root: str, exclude: Sequence[str]) -> list[str]:
    """Return the folders directly in the output root that a migration of everything looks into."""
    return [
        path
        for path, entry in _entries(root, "")
        if entry.is_dir(follow_symlinks=False)
        and path not in NOT_SCANNED
        and not path.startswith(".")
        and not _is_excluded(path, exclude)
    ]


def family_of(path: str) -> tuple[str, str]:
    """Return what a file has in common with those that were written with it: folder, and name without ending.

    A video, its silent twin, its preview, and its caption or workflow differ in their endings only.
    """
    folder, name = split(path)
    return folder, os.path.splitext(name)[0].removesuffix("-audio")


def _entries(root: str, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(durable.open_folder(root, folder))
            entries = stack.enter_context(os.scandir(descriptor))
        except OSError:
            if not folder:
                raise
            return
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
