"""Migrating what lies about from before: find it, say whose it is, and move it, batch by batch.

A rehearsal goes the same way and moves nothing. What moves goes the way of every file: its bytes synced, a line
that names source and target, the move, the folders, the index. One operation covers a whole migration, and one
that was interrupted goes on under the same id: what it moved no longer lies about.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.allotment import Allotment, Attributed, Change, stored_files
from flask_comfy_files.core.attribution import NOT_SCANNED
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.detection import Detection, Grouping
from flask_comfy_files.core.errors import (
    ChecksumMismatchError,
    LockTimeoutError,
    MigrationRunningError,
)
from flask_comfy_files.core.hostlist import HostList
from flask_comfy_files.core.inspection import Failure, Identity, Reading
from flask_comfy_files.core.layout import (
    MIGRATION,
    MIGRATION_LOCK,
    file_path,
    is_reserved,
    split,
    top_folder,
)
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.placement import WITHDRAWN, place
from flask_comfy_files.core.records import LeftFile, SkipReason, iso_utc
from flask_comfy_files.core.recovery import changing
from flask_comfy_files.core.relocation import MigrationReport, Relocation
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.room import require_room_for_records
from flask_comfy_files.core.survey import Survey, family_of, sub_folders, survey

_log = logging.getLogger(__name__)

Progress = Callable[[int, int, int], None]
"""Told how many of how many files are done, and how many bytes those had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a migration is asked for."""

    hosts: HostList
    recursive: bool = False
    grouping: Grouping | None = None
    leave_unmatched: bool = False


class Migration:
    """Migrates what lies about in one output root; safe for threads and processes, of which one does it."""

    def __init__(
        self,
        root: str,
        catalog: Catalog,
        clock: Clock,
        *,
        default_project: str,
        exclude: Sequence[str],
        min_free_bytes: int,
    ) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._clock = clock
        self._default_project = default_project
        self._exclude = exclude
        self._min_free_bytes = min_free_bytes

    def rehearse(self, wish: Wish) -> MigrationReport:
        """Return what a migration would do now; nothing is changed."""
        now = self._clock()
        account = Relocation()
        surveyed = self._survey(wish, account)
        detection = Detection(self._root, now, wish.hosts, wish.grouping, Reading.HEAD)
        allotment = Allotment(self._root, self._default_project, now, {})
        with self._catalog.reading() as reader:
            for batch in detection.batches(surveyed.paths):
                lines = allotment.lines(reader, _wanted(batch, wish, account))
                for stored in stored_files(lines):
                    account.enter(stored)
        return _report(self._root, account, detection, allotment, None)

    def run(self, wish: Wish, progress: Progress | None = None) -> MigrationReport:
        """Move what is attributed to its jobs, and the rest to ``legacy/``.

        Raises:
            MigrationRunningError: Another one is under way.
            OutOfSpaceError: The records would not fit; nothing was moved.
        """
        account = Relocation()
        surveyed = self._survey(wish, account)
        if not surveyed.paths:
            return account.report(self._root, uuid.uuid4().hex)
        require_room_for_records(self._root, len(surveyed.paths), self._min_free_bytes)
        with changing(self._root, self._catalog):
            pass  # a library that is new gets its document, and with it our folder
        with self._alone():
            return self._run(wish, surveyed, account, progress)

    def _run(
        self, wish: Wish, surveyed: Survey, account: Relocation, progress: Progress | None
    ) -> MigrationReport:
        now = self._clock()
        operation = self._begin(iso_utc(now))
        detection = Detection(self._root, now, wish.hosts, wish.grouping, Reading.WHOLE)
        allotment = Allotment(self._root, self._default_project, now, operation)
        for batch in detection.batches(surveyed.paths):
            wanted = _wanted(batch, wish, account)
            if wanted:
                self._move_batch(wanted, allotment, account)
            if progress is not None:
                left = len(detection.skipped) + len(detection.failed) + len(account.failed)
                progress(account.files + left, len(surveyed.paths), account.bytes)
        write_note(self._root, MIGRATION, {**operation, "is_finished": True})
        return _report(self._root, account, detection, allotment, operation["id"])

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with lock.hold(file_path(self._root, MIGRATION_LOCK), 0):
                yield
        except LockTimeoutError as error:
            raise MigrationRunningError from error

    def _begin(self, at: str) -> dict[str, Any]:
        """Return the operation: that of a migration which was interrupted, or a new one."""
        note = read_note(self._root, MIGRATION)
        if note.get("is_finished", True):
            note = {"id": uuid.uuid4().hex, "kind": "migrate", "is_finished": False}
            write_note(self._root, MIGRATION, note)
        return {"id": note["id"], "kind": "migrate", "at": at}

    def _survey(self, wish: Wish, account: Relocation) -> Survey:
        try:
            folders = sub_folders(self._root, self._exclude) if wish.recursive else []
            surveyed = survey(self._root, folders, self._exclude)
        except OSError as error:
            durable.refuse("Listing", "", error)
        account.skipped += surveyed.skipped
        known = set(surveyed.paths)
        # What the host names is looked at wherever it lies, but for what is in the library already.
        named = {path for path in wish.hosts.named if _may_be_named(path)}
        claimed = {
            path
            for path in wish.hosts.claimed
            if _may_be_named(path) and durable.find_status(self._root, path) is not None
        }
        awaited = self._awaited() & (known | named | claimed)
        account.skipped += [
            LeftFile(path=path, reason=SkipReason.BELONGS_TO_ANOTHER_JOB) for path in awaited
        ]
        paths = (known | named | claimed) - awaited
        surveyed.paths = sorted(paths, key=lambda path: (*family_of(path), path))
        return surveyed

    def _awaited(self) -> set[str]:
        """Return the files that completed jobs still wait for."""
        with self._catalog.reading() as reader:
            return {
                path
                for job in reader.pending_jobs()
                for waiting in job.state["pending"].values()
                for path, _ in waiting.get("files") or ()
            }

    def _move_batch(
        self, files: Sequence[Attributed], allotment: Allotment, account: Relocation
    ) -> None:
        with changing(self._root, self._catalog) as writer:
            fresh = [found for found in files if self._is_unchanged(found, account)]
            lines = allotment.lines(writer, fresh)
            if not lines:
                return
            try:
                self._carry_out(writer, lines, account)
            except OSError as error:
                durable.refuse("Migrating into", "", error)

    def _is_unchanged(self, found: Attributed, account: Relocation) -> bool:
        path = found.arrival.path
        status = durable.find_status(self._root, path)
        if status is not None and Identity.of(status) == found.arrival.inspected.identity:
            return True
        reason = SkipReason.NOT_FOUND if status is None else SkipReason.STILL_BEING_WRITTEN
        size = 0 if status is None else status.st_size
        account.skipped.append(LeftFile(path=path, reason=reason, bytes=size))
        return False

    def _carry_out(self, writer: Writer, lines: Sequence[Change], account: Relocation) -> None:
        """Append the lines, move their files, and let readers see them."""
        files = stored_files(lines)
        targets = dict.fromkeys(split(stored["path"])[0] for stored in files)
        touched = [
            parent for folder in targets for parent in durable.make_folders(self._root, folder)
        ]
        appended = writer.append(lines)
        self._catalog.mark_disk(writer)
        withdrawn = [stored for stored in files if not self._has_moved(stored, account)]
        sources = [split(stored["original_path"])[0] for stored in files]
        durable.sync_folders(self._root, dict.fromkeys([*targets, *sources, *touched]))
        appended += writer.append([_withdrawal(lines, stored) for stored in withdrawn])
        writer.advance(appended)

    def _has_moved(self, stored: Mapping[str, Any], account: Relocation) -> bool:
        try:
            place(self._root, stored)
        except (OSError, ChecksumMismatchError) as error:
            path, size = stored["original_path"], stored["file_size"]
            _log.warning("%r could not be moved and was left in place: %s", path, error)
            left = LeftFile(path=path, reason="checksum_mismatch", bytes=size)
            if isinstance(error, OSError):
                left = Failure(path, size, error).as_left()
            account.failed.append(left)
            return False
        account.enter(stored)
        return True


def _may_be_named(path: str) -> bool:
    return top_folder(path) not in NOT_SCANNED and not is_reserved(path)


def _wanted(batch: Sequence[Attributed], wish: Wish, account: Relocation) -> list[Attributed]:
    """Return the files that are to be moved; what nobody owns may be left."""
    if not wish.leave_unmatched:
        return list(batch)
    for found in batch:
        if found.owner is None:
            account.leave(found.arrival.size)
    return [found for found in batch if found.owner is not None]


def _withdrawal(lines: Sequence[Change], stored: Mapping[str, Any]) -> Change:
    """Return the change that takes back the record of a file that could not be moved."""
    return {
        "kind": "state",
        "job_id": stored["job_id"],
        "operation": lines[0]["operation"],
        "state": {},
        "files": {stored["file_id"]: WITHDRAWN},
    }


def _report(
    root: str,
    account: Relocation,
    detection: Detection,
    allotment: Allotment,
    operation_id: str | None,
) -> MigrationReport:
    account.skipped += detection.skipped
    account.failed += [*detection.failed, *allotment.failed]
    return account.report(root, operation_id)
