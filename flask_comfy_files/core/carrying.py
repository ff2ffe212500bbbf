"""Bringing files of old to where their lines say: lines first, then files, folders, and the index."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.allotment import Attributed, Change, stored_files
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.errors import (
    ChecksumMismatchError,
    LockTimeoutError,
    MigrationRunningError,
)
from flask_comfy_files.core.inspection import Failure, Identity
from flask_comfy_files.core.layout import MIGRATION_LOCK, file_path, split
from flask_comfy_files.core.placement import WITHDRAWN, place, source_of
from flask_comfy_files.core.records import LeftFile, SkipReason

_log = logging.getLogger(__name__)

_OF_ONE_FOLDER: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
)
"""Why one folder cannot be made while others can."""


class Account(Protocol):
    """What is told what became of each file."""

    skipped: list[LeftFile]
    failed: list[LeftFile]

    def enter(self, stored: Mapping[str, Any]) -> None:
        """Enter a file that is where its record says."""


@contextlib.contextmanager
def alone(root: str) -> Iterator[None]:
    """Be the only one who brings files of old into a library; our own folder must be there.

    Raises:
        MigrationRunningError: Somebody else is at it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.hold(file_path(root, MIGRATION_LOCK), 0))
        except LockTimeoutError as error:
            raise MigrationRunningError from error
        yield


def keep_unchanged(root: str, files: Sequence[Attributed], account: Account) -> list[Attributed]:
    """Return the files that are as they were when they were read; the others are skipped."""
    return [found for found in files if _is_unchanged(root, found, account)]


def _is_unchanged(root: str, found: Attributed, account: Account) -> bool:
    path = found.arrival.path
    status = durable.find_status(root, path)
    if status is not None and Identity.of(status) == found.arrival.inspected.identity:
        return True
    reason = SkipReason.NOT_FOUND if status is None else SkipReason.STILL_BEING_WRITTEN
    size = 0 if status is None else status.st_size
    account.skipped.append(LeftFile(path=path, reason=reason, bytes=size))
    return False


def carry_out(
    root: str, catalog: Catalog, writer: Writer, lines: Sequence[Change], account: Account
) -> None:
    """Append lines, move their files, and let readers see them; the record of one that cannot move is withdrawn.

    Raises:
        StorageError: The disk refused; what was recorded is finished by the next change.
    """
    if lines:
        try:
            _carry_out(root, catalog, writer, lines, account)
        except OSError as error:
            durable.refuse("Moving files in", "", error)


def _carry_out(
    root: str, catalog: Catalog, writer: Writer, lines: Sequence[Change], account: Account
) -> None:
    touched: list[str] = []
    lines = [line for line in lines if _has_folder(root, line, touched, account)]
    if not lines:
        return
    appended = writer.append(lines)
    catalog.mark_disk(writer)
    files = stored_files(lines)
    withdrawn = {stored["file_id"] for stored in files if not _has_moved(root, stored, account)}
    folders = [split(path)[0] for stored in files for path in (stored["path"], source_of(stored))]
    durable.sync_folders(root, dict.fromkeys([*folders, *touched]))
    appended += writer.append([change for line in lines for change in _withdrawal(line, withdrawn)])
    writer.advance(appended)


def _has_folder(root: str, line: Change, touched: list[str], account: Account) -> bool:
    """Make the folder of a line's files; where that cannot be done, no line may wait for one."""
    folder = split(line["files"][0]["path"])[0]
    try:
        touched += durable.make_folders(root, folder)
        with durable.open_folder(root, folder):
            return True
    except OSError as error:
        if error.errno not in _OF_ONE_FOLDER:
            raise
        _log.warning("%s cannot be made, and its files were left in place: %s", folder, error)
        account.failed += [
            Failure(source_of(stored), stored["file_size"], error).as_left()
            for stored in line["files"]
        ]
        return False


def _has_moved(root: str, stored: Mapping[str, Any], account: Account) -> bool:
    path, size = source_of(stored), stored["file_size"]
    try:
        if path != stored["path"]:
            place(root, stored)
    except (OSError, ChecksumMismatchError) as error:
        _log.warning("%r could not be moved and was left in place: %s", path, error)
        left = LeftFile(path=path, reason="checksum_mismatch", bytes=size)
        if isinstance(error, OSError):
            left = Failure(path, size, error).as_left()
        account.failed.append(left)
        return False
    account.enter(stored)
    return True


def _withdrawal(line: Change, withdrawn: Collection[str]) -> Iterator[Change]:
    """Yield the change that takes back the records of files that could not be moved, if there are any."""
    back = [stored["file_id"] for stored in line["files"] if stored["file_id"] in withdrawn]
    if back:
        is_empty = line["kind"] == "job" and len(back) == len(line["files"])
        yield {
            "kind": "state",
            "job_id": line["job_id"],
            "operation": line["operation"],
            "state": {"reason": "no file could be moved"} if is_empty else {},
            "files": dict.fromkeys(back, WITHDRAWN),
        }
