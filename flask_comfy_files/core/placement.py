"""Bringing one recorded file to the place that its record names, the first time or after a crash.

A file's line in the document stands before the file is moved, so at any later moment the file is at
its source, at its target, or (for an instant, across file systems) at both; never at neither.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.layout import COPIES, STATE, copy_name, split
from flask_comfy_files.core.records import iso_utc

_log = logging.getLogger(__name__)

Stored = Mapping[str, Any]
"""A file's record as the document holds it."""

WITHDRAWN: Final[Mapping[str, Any]] = {"withdrawn": True}
"""Overlay of a record whose file could not be moved after all and stayed where it was."""

MISSING: Final[Mapping[str, Any]] = {"missing": True}
"""Overlay of a record whose bytes are neither at the source nor at the target."""


def place(root: str, stored: Stored) -> None:
    """Rename a file to its recorded path; across file systems copy it, compare, and then remove the source.

    A copy that ``staged`` has made beside the target is used. The caller syncs both folders.

    Raises:
        FileExistsError: Another file has the target's name.
        OSError: The system refused; the file is where it was.
    """
    source_folder, source = split(stored["original_path"])
    target_folder, target = split(stored["path"])
    with (
        durable.open_folder(root, source_folder) as origin,
        durable.open_folder(root, target_folder) as place_,
    ):
        copy = split(copy_name(target_folder, stored["file_id"]))[1]
        with contextlib.suppress(FileNotFoundError):
            durable.move(place_, copy, place_, target)
            durable.remove(origin, source)
            return
        try:
            durable.move(origin, source, place_, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_over(root, stored)
            durable.move(place_, copy, place_, target)
            durable.remove(origin, source)


@contextlib.contextmanager
def staged(root: str, path: str, target_folder: str, file_id: str, checksum: str) -> Iterator[None]:
    """Have a copy of a file beside its future place, made before the lock is taken.

    Raises:
        ChecksumMismatchError: The copy differs from the file.
        OSError: The disk refused.
    """
    with durable.open_folder(root, STATE) as state:
        if durable.make_folder(state, split(COPIES)[1]):
            durable.sync_folder(state)
    copy = copy_name(target_folder, file_id)
    with (
        durable.open_folder(root, COPIES) as copies,
        durable.announced(copies, file_id, os.fsencode(copy)),
        durable.open_folder(root, target_folder) as target,
    ):
        _copy_over(
            root,
            {
                "original_path": path,
                "path": f"{target_folder}/_",
                "file_id": file_id,
                "checksum": checksum,
            },
        )
        try:
            yield
        finally:
            durable.remove(target, split(copy)[1])


def _copy_over(root: str, stored: Stored) -> None:
    source_folder, source = split(stored["original_path"])
    target_folder, _ = split(stored["path"])
    copy = split(copy_name(target_folder, stored["file_id"]))[1]
    with (
        durable.open_folder(root, source_folder) as origin,
        durable.open_regular(origin, source) as descriptor,
        durable.open_folder(root, target_folder) as target,
    ):
        durable.copy(descriptor, target, copy, stored["checksum"])


def sweep_copies(root: str) -> None:
    """Remove the copies that a crash has left half made; for the holder of the lock."""
    try:
        with durable.open_folder(root, COPIES) as copies:
            for name in os.listdir(copies):
                abandoned = durable.read_abandoned(copies, name)
                if abandoned is None:
                    continue
                folder, copy = split(os.fsdecode(abandoned))
                if copy == split(copy_name(folder, name))[1]:
                    with (
                        contextlib.suppress(FileNotFoundError),
                        durable.open_folder(root, folder) as target,
                    ):
                        durable.remove(target, copy)
                durable.remove(copies, name)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("abandoned copies below %s cannot be removed: %s", COPIES, error)


def settle(root: str, stored: Stored) -> Mapping[str, Any] | None:
    """Finish what a crash may have left unfinished of one file; return the overlay of what turned out otherwise.

    Raises:
        FileExistsError: The target's name belongs to another file, and the source is still there:
        it needs a new name. OSError: The system refused; to be tried again.
    """
    source = durable.find_status(root, stored["original_path"])
    target = durable.find_status(root, stored["path"])
    if target is not None and target.st_size == stored["file_size"]:
        if source is not None and _is_second_name(root, stored, source, target):
            folder, name = split(stored["original_path"])
            with durable.open_folder(root, folder) as origin:
                durable.remove(origin, name)
        return None
    if source is None or _checksum_of(root, stored["original_path"]) != stored["checksum"]:
        _log.error(
            "%s of operation under way is gone from %r as well",
            stored["path"],
            stored["original_path"],
        )
        return MISSING
    if target is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), stored["path"])
    durable.make_folders(root, split(stored["path"])[0])
    place(root, stored)
    return None


def _is_second_name(
    root: str, stored: Stored, source: os.stat_result, target: os.stat_result
) -> bool:
    """Say whether what stands at the source is the file that was moved, and not a new one under its old name."""
    if (source.st_dev, source.st_ino) == (target.st_dev, target.st_ino):
        return True
    modified_at = iso_utc(datetime.fromtimestamp(source.st_mtime_ns / 1e9, UTC))
    is_left_over: bool = (
        source.st_size == stored["file_size"] and modified_at == stored["modified_at"]
    )
    return (
        is_left_over
        and _checksum_of(root, stored["original_path"]) == stored["checksum"]
        and _checksum_of(root, stored["path"]) == stored["checksum"]
    )


def _checksum_of(root: str, path: str) -> str | None:
    folder, name = split(path)
    try:
        with (
            durable.open_folder(root, folder) as parent,
            durable.open_regular(parent, name) as descriptor,
        ):
            return durable.checksum(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ELOOP, errno.ENOTDIR}:
            return None
        raise
