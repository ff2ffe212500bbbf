"""Bringing one recorded file to the place that its record names, the first time or after a crash.

A file's line in the document stands before the file is moved, so at any later moment the file is at
its source, at its target, or (for an instant, across file systems) at both; never at neither.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from flask_comfy_files.core import announcing, durable
from flask_comfy_files.core.layout import COPIES, STATE, copy_name, split
from flask_comfy_files.core.records import iso_utc

_log = logging.getLogger(__name__)

Stored = Mapping[str, Any]
"""A file's record as the document holds it."""

_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})

_COPY_NAME: Final = re.compile(r"\.[0-9a-f]{32}\.part", re.ASCII)

Stage = Callable[[str, str, str], None]
"""Copies the file at a path, for a file id, if its bytes have a checksum."""

IsTaken = Callable[[str], bool]
"""Says whether a path belongs to another record."""

WITHDRAWN: Final[Mapping[str, Any]] = {"withdrawn": True}
"""Overlay of a record whose file could not be moved after all and stayed where it was."""

MISSING: Final[Mapping[str, Any]] = {"missing": True}
"""Overlay of a record whose bytes are neither at the source nor at the target."""

FOUND: Final[Mapping[str, Any]] = {"missing": False}
"""Overlay of a record whose bytes were missing and are there again."""


_ALONE: Final[Mapping[str, Any]] = {"same_file_as": None}
"""Overlay of a file whose bytes no other record has any more."""


def alone_again(
    change: Mapping[str, Any], withdrawn: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Return overlays for the files that a line told to share bytes with some that are taken back."""
    twins = change.get("twins", {})
    return {file_id: _ALONE for file_id in twins if twins[file_id]["same_file_as"] in withdrawn}


def place(root: str, stored: Stored) -> None:
    """Rename a file to its recorded path; across file systems copy it, compare, and then remove the source.

    A copy that ``staged`` has made beside the target is used, so a leftover of another process must
    have been removed. The caller syncs both folders.

    Raises:
        FileExistsError: Another file has the target's name.
        OSError: The system refused; the file is where it was.
    """
    source_folder, source = split(source_of(stored))
    target_folder, target = split(stored["path"])
    with (
        durable.open_folder(root, source_folder) as origin,
        durable.open_folder(root, target_folder) as destination,
    ):
        if is_shared(stored):
            _share(root, stored, origin, destination)
            return
        try:
            durable.move(origin, source, destination, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
        _place_copy(root, stored, destination)
        try:
            durable.sync_folder(destination)
            # Whatever took the source's name while it was copied is a new file, and stays.
            status = durable.find_status(root, source_of(stored))
            if status is not None and is_recorded(stored, status):
                durable.remove(origin, source)
        except OSError:
            # The source has to stay, and then its copy must not.
            if durable.find_status(root, source_of(stored)) is not None:
                _take_back(root, stored["path"])
                raise


def source_of(stored: Stored) -> str:
    """Return where the bytes of a file come from: for one that is shared, from where they stay."""
    elsewhere = stored.get("link_from") or stored.get("moved_from")
    source: str = elsewhere or stored["original_path"]
    return source


def is_shared(stored: Stored) -> bool:
    """Say whether a record's file has the bytes of another record's, which keeps them."""
    return "link_from" in stored


def _share(root: str, stored: Stored, origin: int, destination: int) -> None:
    """Link a file to its recorded path, or copy it where links do not work."""
    source, target = split(source_of(stored))[1], split(stored["path"])[1]
    try:
        durable.link(origin, source, destination, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _place_copy(root, stored, destination)


def _copy_beside(stored: Stored) -> str:
    return copy_name(split(stored["path"])[0], stored["file_id"])


def _place_copy(root: str, stored: Stored, destination: int) -> None:
    """Put a copy of a file, of ``staged`` or made here, at its recorded path, or leave none behind."""
    copy, target = _copy_beside(stored), split(stored["path"])[1]
    try:
        if durable.find_status(root, copy) is None:
            _copy_over(root, stored)
        durable.move(destination, split(copy)[1], destination, target)
    except OSError:
        _take_back(root, copy)
        raise


def drop_half_copy(root: str, stored: Stored) -> None:
    """Remove what a crash has left of a copy beside a file's target; its bytes are at the source.

    Raises:
        OSError: The system refused.
    """
    folder, copy = split(_copy_beside(stored))
    with contextlib.suppress(FileNotFoundError), durable.open_folder(root, folder) as parent:
        durable.remove(parent, copy)


def _take_back(root: str, path: str) -> None:
    """Remove a copy whose source stays.

    Raises:
        StorageError: That is impossible, too, so that the operation is left to be finished.
    """
    folder, name = split(path)
    try:
        with durable.open_folder(root, folder) as parent:
            durable.remove(parent, name)
    except OSError as error:
        durable.refuse("Removing the copy", path, error)


@contextlib.contextmanager
def staging(root: str, target_folder: str, file_ids: Sequence[str]) -> Iterator[Stage]:
    """Make copies of files beside their future places, before the lock is taken, and remove what is not used.

    The copies are announced by one file, so that whoever finds them can tell whether their maker still works.
    """
    with durable.open_folder(root, STATE) as state:
        if durable.make_folder(state, split(COPIES)[1]):
            durable.sync_folder(state)
    copies = [copy_name(target_folder, file_id) for file_id in file_ids]
    announcement = file_ids[0]
    with (
        durable.open_folder(root, COPIES) as announcements,
        announcing.announced(announcements, announcement, "\n".join(copies).encode("ascii")),
    ):

        def stage(path: str, file_id: str, checksum: str) -> None:
            target = f"{target_folder}/_"
            _copy_over(
                root,
                {"original_path": path, "path": target, "file_id": file_id, "checksum": checksum},
            )

        try:
            yield stage
        finally:
            try:
                _remove_copies(root, copies)
                durable.remove(announcements, announcement)
            except OSError as error:
                _log.warning("copies in %s are left to be swept: %s", target_folder, error)


def _remove_copies(root: str, copies: Sequence[str]) -> None:
    """Remove copies that were announced; of what an announcement says, only what can be a copy."""
    for path in copies:
        folder, name = split(path)
        if not is_copy(name):
            continue
        with contextlib.suppress(FileNotFoundError), durable.open_folder(root, folder) as parent:
            durable.remove(parent, name)


def is_copy(name: str) -> bool:
    """Say whether a name is that of a copy on its way into the library."""
    return _COPY_NAME.fullmatch(name) is not None


def _copy_over(root: str, stored: Stored) -> None:
    source_folder, source = split(source_of(stored))
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
        with durable.open_folder(root, COPIES) as announcements:
            for name in os.listdir(announcements):
                abandoned = announcing.read_abandoned(announcements, name)
                if abandoned is not None:
                    _remove_copies(root, os.fsdecode(abandoned).split("\n"))
                    durable.remove(announcements, name)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("abandoned copies below %s cannot be removed: %s", COPIES, error)


def settle(root: str, stored: Stored) -> Mapping[str, Any] | None:
    """Finish what a crash may have left unfinished of one file.

    Returns:
        The overlay of what turned out otherwise, or ``None`` when the file is in place.

    Raises:
        FileExistsError: The target's name belongs to another file, and the source is still there, so
            that it needs a new name.
        OSError: The system refused.
    """
    if not is_in_place(root, stored):
        overlay = _settle_unplaced(root, stored)
        if overlay is not None:
            return overlay
    _remove_second_name(root, stored)
    return None


def is_in_place(root: str, stored: Stored) -> bool:
    """Say whether a file stands at its recorded path; while its source is there too, its bytes tell."""
    target = durable.find_status(root, stored["path"])
    if target is None or target.st_size != stored["file_size"]:
        return False
    source = durable.find_status(root, source_of(stored))
    if source is None or os.path.samestat(source, target):
        return True
    is_same: bool = checksum_of(root, stored["path"]) == stored["checksum"]
    return is_same


def _settle_unplaced(root: str, stored: Stored) -> Mapping[str, Any] | None:
    copy = _copy_beside(stored)
    is_at_source = checksum_of(root, source_of(stored)) == stored["checksum"]
    if not is_at_source and checksum_of(root, copy) != stored["checksum"]:
        _log.error("%s: the file is gone, from %r as well", stored["path"], source_of(stored))
        return MISSING
    if durable.find_status(root, stored["path"]) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), stored["path"])
    folder, copy_beside = split(copy)
    durable.make_folders(root, folder)
    with durable.open_folder(root, folder) as destination:
        if is_at_source:
            # A copy that a crash has left may lack its times, or its last bytes on the disk.
            durable.remove(destination, copy_beside)
            place(root, stored)
        else:
            with durable.open_regular(destination, copy_beside) as descriptor:
                durable.sync_bytes(descriptor)
            durable.move(destination, copy_beside, destination, split(stored["path"])[1])
    return None


def _remove_second_name(root: str, stored: Stored) -> None:
    """Remove what a crash has left at the source of a file in place: its second name, or its original."""
    if is_shared(stored) or source_of(stored) == stored["path"]:
        return
    source = durable.find_status(root, source_of(stored))
    target = durable.find_status(root, stored["path"])
    if source is None or target is None or not _is_second_name(root, stored, source, target):
        return
    folder, name = split(source_of(stored))
    with durable.open_folder(root, folder) as origin:
        durable.remove(origin, name)


def _is_second_name(
    root: str, stored: Stored, source: os.stat_result, target: os.stat_result
) -> bool:
    """Say whether what stands at the source is the file that was moved, and not a new one under its old name."""
    if (source.st_dev, source.st_ino) == (target.st_dev, target.st_ino):
        return True
    return (
        is_recorded(stored, source)
        and checksum_of(root, source_of(stored)) == stored["checksum"]
        and checksum_of(root, stored["path"]) == stored["checksum"]
    )


def is_recorded(stored: Stored, status: os.stat_result) -> bool:
    """Say whether a file has the size and the time of the one that was recorded."""
    recorded: tuple[int, str] = stored["file_size"], stored["modified_at"]
    return (status.st_size, modified_at(status)) == recorded


def modified_at(status: os.stat_result) -> str:
    """Return when a file was modified, as a record has it."""
    return iso_utc(datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC))


def free_path_beside(root: str, path: str, is_taken: IsTaken) -> str:
    """Return the next path beside one that no file has, and no record."""
    stem, extension = os.path.splitext(path)
    number = 2
    while True:
        beside = f"{stem}_{number}{extension}"
        if not is_taken(beside) and durable.find_status(root, beside) is None:
            return beside
        number += 1


def checksum_of(root: str, path: str) -> str | None:
    """Return the checksum of a regular file, or ``None`` where there is none."""
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
