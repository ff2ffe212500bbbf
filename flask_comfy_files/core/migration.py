"""Migrating what lies about from before: find it, say whose it is, and move it, batch by batch.

A rehearsal goes the same way and moves nothing. What moves goes the way of every file: its bytes synced, a line
that names source and target, the move, the folders, the index. One operation covers a whole migration, and one
that was interrupted goes on under the same id: what it moved no longer lies about.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flask_comfy_files.core import durable
from flask_comfy_files.core.allotment import Allotment, Attributed, stored_files
from flask_comfy_files.core.attribution import NOT_SCANNED
from flask_comfy_files.core.carrying import alone, carry_out, keep_unchanged
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.identity import require_root
from flask_comfy_files.core.detection import Detection, Grouping
from flask_comfy_files.core.history import siblings
from flask_comfy_files.core.hostlist import HostList
from flask_comfy_files.core.inspection import Reading
from flask_comfy_files.core.layout import (
    MIGRATION,
    is_reserved,
    top_folder,
)
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.presence import require_present
from flask_comfy_files.core.records import LeftFile, SkipReason, iso_utc
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.relocation import MigrationReport, Relocation
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.room import require_room_for_records
from flask_comfy_files.core.survey import Survey, family_of, survey, survey_all

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

    def rehearse(self, wish: Wish, progress: Progress | None = None) -> MigrationReport:
        """Return what a migration would do now; nothing is changed."""
        now = self._clock()
        account = Relocation()
        surveyed = self._survey(wish, account)
        detection = Detection(self._root, now, wish.hosts, wish.grouping, Reading.HEAD)
        allotment = Allotment(self._root, self._default_project, now, {})
        before = _done(account, detection, allotment)
        with reading(self._root, self._catalog) as reader:
            for batch in detection.batches(surveyed.paths):
                lines = allotment.lines(reader, _wanted(batch, wish, account))
                for stored in stored_files(lines):
                    account.enter(stored)
                if progress is not None:
                    done = _done(account, detection, allotment) - before
                    progress(done, len(surveyed.paths), account.bytes)
        return _report(self._root, account, detection, allotment, None)

    def run(self, wish: Wish, progress: Progress | None = None) -> MigrationReport:
        """Move what is attributed to its jobs, and the rest to ``legacy/``.

        Raises:
            MigrationRunningError: Another one is under way.
            OutOfSpaceError: The records would not fit; nothing was moved.
        """
        if self._catalog.is_behind():
            with changing(self._root, self._catalog):
                pass  # what an interrupted one has recorded does not lie about any more
        account = Relocation()
        surveyed = self._survey(wish, account)
        if not surveyed.paths:
            return account.report(self._root, self._end_interrupted())
        require_room_for_records(self._root, len(surveyed.paths), self._min_free_bytes)
        with changing(self._root, self._catalog):
            pass  # a library that is new gets its document, and with it our folder
        with alone(self._root):
            return self._run(wish, surveyed, account, progress)

    def _run(
        self, wish: Wish, surveyed: Survey, account: Relocation, progress: Progress | None
    ) -> MigrationReport:
        now = self._clock()
        operation = self._begin(iso_utc(now))
        detection = Detection(self._root, now, wish.hosts, wish.grouping, Reading.WHOLE)
        allotment = Allotment(self._root, self._default_project, now, operation)
        before = _done(account, detection, allotment)
        for batch in detection.batches(surveyed.paths):
            wanted = _wanted(batch, wish, account)
            if wanted:
                with changing(self._root, self._catalog) as writer:
                    fresh = keep_unchanged(self._root, wanted, account)
                    lines = allotment.lines(writer, fresh)
                    carry_out(self._root, self._catalog, writer, lines, account)
            if progress is not None:
                done = _done(account, detection, allotment) - before
                progress(done, len(surveyed.paths), account.bytes)
        write_note(self._root, MIGRATION, {**operation, "is_finished": True})
        return _report(self._root, account, detection, allotment, operation["id"])

    def _begin(self, at: str) -> dict[str, Any]:
        """Return the operation: that of a migration which was interrupted, or a new one."""
        note = read_note(self._root, MIGRATION)
        if note.get("is_finished", True):
            note = {"id": uuid.uuid4().hex, "kind": "migrate", "is_finished": False}
            write_note(self._root, MIGRATION, note)
        return {"id": note["id"], "kind": "migrate", "at": at}

    def _end_interrupted(self) -> str:
        """Return the id of a migration of nothing: that of an interrupted one, which has ended with it."""
        if read_note(self._root, MIGRATION).get("is_finished", True):
            return uuid.uuid4().hex
        with alone(self._root):
            operation = self._begin(iso_utc(self._clock()))
            write_note(self._root, MIGRATION, {**operation, "is_finished": True})
        return str(operation["id"])

    def _survey(self, wish: Wish, account: Relocation) -> Survey:
        require_root(self._root)
        require_present(self._root, self._catalog)
        look_around = survey_all if wish.recursive else survey
        try:
            surveyed = look_around(self._root, self._exclude)
        except OSError as error:
            durable.refuse("Listing", "", error)
        known = set(surveyed.paths)
        spoken_of = self._spoken_of(wish.hosts, known, account)
        account.skipped += [left for left in surveyed.skipped if left.path not in spoken_of]
        account.failed += surveyed.failed
        awaited = self._awaited()
        surveyed.paths = []
        for path in sorted(known | spoken_of, key=lambda path: (*family_of(path), path)):
            if family_of(path) in awaited:
                left = LeftFile(path=path, reason=SkipReason.BELONGS_TO_ANOTHER_JOB)
                account.skipped.append(left)
            else:
                surveyed.paths.append(path)
        return surveyed

    def _awaited(self) -> set[tuple[str, str]]:
        """Return the families of the files that completed jobs still wait for."""
        with reading(self._root, self._catalog) as reader:
            return {
                family_of(path)
                for job in reader.pending_jobs()
                for waiting in job.state["pending"].values()
                for path, _ in waiting.get("files") or ()
            }

    def _spoken_of(self, hosts: HostList, known: set[str], account: Relocation) -> set[str]:
        """Return what the host speaks of, wherever it lies, and what ComfyUI puts beside it.

        Nothing in the library is taken; what the host names and is not there is told, unless it has a record.
        """
        beside = {sibling for path in hosts.named for sibling in siblings(path)}
        candidates = {*hosts.named, *hosts.claimed, *beside} - known
        found = {
            path
            for path in candidates
            if _may_be_named(path) and durable.find_status(self._root, path) is not None
        }
        missing = sorted(candidates & hosts.named.keys() - found)
        if missing:
            with reading(self._root, self._catalog) as reader:
                missing = [path for path in missing if not reader.files_named(path)]
        account.skipped += [
            LeftFile(
                path=path,
                reason=SkipReason.NOT_FOUND if _may_be_named(path) else SkipReason.RESERVED,
            )
            for path in missing
        ]
        return found


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


def _done(account: Relocation, detection: Detection, allotment: Allotment) -> int:
    """Return how many files were dealt with so far."""
    left = sum(len(part.skipped) + len(part.failed) for part in (detection, account))
    return account.files + left + len(allotment.failed)


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
