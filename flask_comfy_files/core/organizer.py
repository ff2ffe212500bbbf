"""Organizing a job: find its files, record them, move them, and say what became of each.

The order of effects is the promise. Bytes are synced, then the line that names source and target of
every file is appended to the document and synced, then the files are renamed without ever replacing
one, then the folders are synced, and only then readers see the job. Whoever dies in between leaves
either nothing or a line that the next holder of the lock finishes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.comfyui import ComfyUI, Run
from flask_comfy_files.core.errors import (
    ChecksumMismatchError,
    ComfyFilesError,
)
from flask_comfy_files.core.filing import Arrival, Filing, JobIdentity
from flask_comfy_files.core.gathering import Gathering, ask_history
from flask_comfy_files.core.inspection import Failure, Identity
from flask_comfy_files.core.layout import inbox_folder, job_folder, split
from flask_comfy_files.core.placement import WITHDRAWN, alone_again, place, staging
from flask_comfy_files.core.records import (
    FileRecord,
    LeftFile,
    OrganizeReport,
    SkipReason,
    Tally,
    file_to_stored,
    iso_utc,
)
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.request import Budget, Clock, Request
from flask_comfy_files.core.room import require_room, require_room_for_records
from flask_comfy_files.core.standing import (
    Ledger,
    Standing,
    changes_nothing,
    find_standing,
    make_report,
    new_state,
    why_no_files,
)

_log = logging.getLogger(__name__)


class Organizer:
    """Organizes jobs of one library; safe for threads and processes."""

    def __init__(
        self,
        root: str,
        catalog: Catalog,
        clock: Clock,
        *,
        server: ComfyUI | None,
        min_free_bytes: int,
    ) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._catalog = catalog
        self._clock = clock
        self._server = server
        self._min_free_bytes = min_free_bytes

    def organize(self, request: Request, budget: Budget | None = None) -> OrganizeReport:
        """Move a job's finished files into place and record them; what the job already has stays as it is.

        On return the files are in place, recorded and on the disk. Killed anywhere, it loses
        nothing: the next change finishes it. Two callers at once get the same result.

        Raises:
            IdentifierCaseError: The job or project is known in another case.
            JobInOtherProjectError: The job belongs to another project.
            OutOfSpaceError: The volume is too full.
            BudgetExceededError: It is more than the budget allows; nothing was moved.
            LockTimeoutError: Somebody else kept the library busy.
            LibraryUnavailableError: The library cannot be read or changed.
        """
        asked = ask_history(self._server, request, budget)
        with reading(self._root, self._catalog) as reader:
            standing = find_standing(reader, request)
            gathering = Gathering(self._root, self._clock(), request, standing, asked)
            ledger = gathering.gather(reader, budget)
        if ledger.arrivals:
            require_room_for_records(self._root, len(ledger.arrivals), self._min_free_bytes)
        if changes_nothing(standing, ledger, request):
            with self._catalog.reading() as reader:
                return make_report(reader, request, ledger)
        with contextlib.ExitStack() as stack:
            self._stage(stack, request, standing.project_id, ledger, budget)
            timeout_s = None if budget is None else budget.time_left_s
            writer = stack.enter_context(changing(self._root, self._catalog, timeout_s))
            return self._apply(writer, request, ledger)

    def _stage(
        self,
        stack: contextlib.ExitStack,
        request: Request,
        project_id: str,
        ledger: Ledger,
        budget: Budget | None,
    ) -> None:
        """Copy what lies on another file system to its future place, before the lock is taken."""
        folder = job_folder(project_id, request.job_id)
        try:
            mount = self._mount_of(folder)
        except OSError as error:
            durable.refuse("Organizing into", folder, error)
        foreign = [
            arrival
            for arrival in ledger.arrivals
            if arrival.inspected.mount != mount and arrival.inspected.candidate.shared is None
        ]
        if not foreign:
            return
        require_room(self._root, sum(arrival.size for arrival in foreign), self._min_free_bytes)
        timeout_s = None if budget is None else budget.time_left_s
        try:
            with changing(
                self._root, self._catalog, timeout_s
            ):  # a new library gets its document, and so its folders
                durable.sync_folders(self._root, durable.make_folders(self._root, folder))
            file_ids = [arrival.file_id for arrival in foreign]
            stage = stack.enter_context(staging(self._root, folder, file_ids))
        except OSError as error:
            if isinstance(error, ComfyFilesError):
                raise
            durable.refuse("Organizing into", folder, error)
        for arrival in foreign:
            if budget is not None:
                budget.require_time(request.job_id)
            try:
                stage(arrival.path, arrival.file_id, arrival.inspected.checksum)
            except (OSError, ChecksumMismatchError) as error:
                ledger.arrivals.remove(arrival)
                ledger.failed.append(_left(arrival.path, arrival.size, error))

    def _mount_of(self, folder: str) -> str:
        """Return the mount of the nearest folder that exists above a future one."""
        while True:
            try:
                with durable.open_folder(self._root, folder) as descriptor:
                    return looking.mount_id(descriptor)
            except FileNotFoundError:
                folder = split(folder)[0]

    def _apply(self, writer: Writer, request: Request, ledger: Ledger) -> OrganizeReport:
        """Record and move what has arrived; for the holder of the lock."""
        standing = find_standing(writer, request)
        self._check_again(standing, ledger)
        if changes_nothing(standing, ledger, request):
            return make_report(writer, request, ledger)
        at = self._clock()
        filing = Filing(
            JobIdentity(self._root, request.job_id, standing.project_id, request.prompt_id),
            at,
            taken=standing.paths,
            originals=[*standing.originals, *(arrival.path for arrival in ledger.arrivals)],
            exists=lambda path: durable.find_status(self._root, path) is not None,
        )
        files = [_stored(filing.record(arrival), arrival) for arrival in ledger.arrivals]
        operation = _operation(request, at)
        change: dict[str, Any] = {
            "kind": "add" if standing.is_known else "job",
            "job_id": request.job_id,
            "project_id": standing.project_id,
            "operation": operation,
            "state": new_state(standing, ledger, request),
            "files": files,
        }
        twins = _twins(writer, ledger.arrivals)
        if twins:
            change["twins"] = twins
        self._carry_out(writer, change, standing, ledger)
        self._tidy_inbox(request.job_id, ledger.run)
        return make_report(writer, request, ledger)

    def _carry_out(
        self, writer: Writer, change: Mapping[str, Any], standing: Standing, ledger: Ledger
    ) -> None:
        """Append the line, move its files, and let readers see them."""
        files = change["files"]
        folder = job_folder(change["project_id"], change["job_id"])
        try:
            # Before the line: where no folder can be made, no line may wait for one.
            touched = durable.make_folders(self._root, folder) if files else []
            lines = writer.append([change])
            if files:
                self._catalog.mark_disk(writer)
            withdrawn = self._move(files, ledger)
            durable.sync_folders(self._root, dict.fromkeys([*_folders_of(files), *touched]))
            if withdrawn:
                lines += writer.append([_withdrawal(change, withdrawn, standing, ledger)])
        except OSError as error:
            durable.refuse("Organizing into", folder, error)
        writer.advance(lines)

    def _move(self, files: Sequence[Mapping[str, Any]], ledger: Ledger) -> list[str]:
        """Move files to their recorded places; return the ids of those that could not be moved."""
        withdrawn = []
        for stored in files:
            try:
                place(self._root, stored)
            except (OSError, ChecksumMismatchError) as error:
                path, size = stored["original_path"], stored["file_size"]
                _log.warning("%r could not be moved and was left in place: %s", path, error)
                ledger.failed.append(_left(path, size, error))
                withdrawn.append(stored["file_id"])
            else:
                ledger.moved = Tally(
                    files=ledger.moved.files + 1, bytes=ledger.moved.bytes + stored["file_size"]
                )
        return withdrawn

    def _check_again(self, standing: Standing, ledger: Ledger) -> None:
        """Drop what another call has taken, and what has changed, since it was inspected."""
        for arrival in list(ledger.arrivals):
            candidate = arrival.inspected.candidate
            status = durable.find_status(self._root, candidate.source)
            if arrival.path in standing.settled:
                ledger.arrivals.remove(arrival)
                if status is not None and candidate.shared is None:
                    ledger.skip(arrival.path, SkipReason.NAME_REUSED, status.st_size)
            elif status is None:
                ledger.arrivals.remove(arrival)
                ledger.skip(arrival.path, SkipReason.NOT_FOUND, 0)
            elif Identity.of(status) != arrival.inspected.identity:
                ledger.arrivals.remove(arrival)
                ledger.skip(arrival.path, SkipReason.STILL_BEING_WRITTEN, status.st_size)

    def _tidy_inbox(self, job_id: str, run: Run | None) -> None:
        """Remove the folder of a run that is known to have ended; ComfyUI needs it until then.

        The job's own folder stays: ComfyUI may be about to make the next run's in it.
        """
        if run is None or run.inbox_run is None or "/" in run.inbox_run:
            return
        for folder in _folders_below(self._root, f"{inbox_folder(job_id)}/{run.inbox_run}"):
            durable.remove_empty_folders(self._root, folder, inbox_folder(job_id))


def _stored(record: FileRecord, arrival: Arrival) -> dict[str, Any]:
    """Return what the document keeps of a file; for a shared one also where its bytes are linked from."""
    shared = arrival.inspected.candidate.shared
    stored = file_to_stored(record)
    return stored if shared is None else {**stored, "link_from": shared.path}


def _twins(writer: Writer, arrivals: Sequence[Arrival]) -> dict[str, dict[str, str]]:
    """Return the overlays of files that cached runs were given before the one they share had a record."""
    found = {}
    for arrival in arrivals:
        inspected = arrival.inspected
        if inspected.candidate.shared is not None:
            continue
        facts = inspected.checksum, iso_utc(inspected.modified_at), False
        for record in writer.singles_named(arrival.path):
            if (record.checksum, record.modified_at, record.missing) == facts:
                found[record.file_id] = {"same_file_as": arrival.file_id}
    return found


def _withdrawal(
    change: Mapping[str, Any], withdrawn: Sequence[str], standing: Standing, ledger: Ledger
) -> dict[str, Any]:
    """Return the change that takes back the records of files that could not be moved.

    What waited goes on waiting, a job that still has no files says why, and a cached run's file is alone
    again.
    """
    waiting = standing.state.get("pending", {})
    state: dict[str, Any] = {
        "pending": {
            key: waiting[key] for key in change["state"].get("pending", {}) if key in waiting
        }
    }
    if not standing.file_count and not ledger.moved.files:
        state["reason"] = why_no_files(ledger)
    return {
        "kind": "state",
        "job_id": change["job_id"],
        "operation": change["operation"],
        "state": state,
        "files": {**dict.fromkeys(withdrawn, WITHDRAWN), **alone_again(change, withdrawn)},
    }


def _left(path: str, size: int, error: OSError | ChecksumMismatchError) -> LeftFile:
    if isinstance(error, ChecksumMismatchError):
        return LeftFile(path=path, reason=error.code, bytes=size)
    return Failure(path, size, error).as_left()


def _operation(request: Request, at: datetime) -> dict[str, Any]:
    operation = {
        "id": request.operation_id or uuid.uuid4().hex,
        "kind": "organize",
        "at": iso_utc(at),
    }
    return operation if request.prompt_id is None else {**operation, "prompt_id": request.prompt_id}


def _folders_below(root: str, folder: str) -> list[str]:
    """Return a folder and all folders in it, the innermost first; none where there is no such folder."""
    try:
        with durable.open_folder(root, folder) as descriptor, os.scandir(descriptor) as entries:
            inside = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    below = (_folders_below(root, f"{folder}/{name}") for name in inside)
    return [*itertools.chain.from_iterable(below), folder]


def _folders_of(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the folders that moves change, targets first: so that at no time a name is at neither."""
    sources = [stored["original_path"] for stored in files if "link_from" not in stored]
    return [split(path)[0] for path in (*(stored["path"] for stored in files), *sources)]
