"""What undoes the lines of an operation: for each the opposite line, and the moves of its files. Moves nothing.

What a line did is undone for those of its files that are still where it brought them. All others are told, with
the reason and what can be done about it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from flask_comfy_files.core import durable, trash
from flask_comfy_files.core.catalog.document import Change
from flask_comfy_files.core.catalog.operations import OperationRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.disposal import Heirs
from flask_comfy_files.core.examination import why_held
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.layout import file_path, split
from flask_comfy_files.core.legacy import correcting
from flask_comfy_files.core.placement import (
    WITHDRAWN,
    Stored,
    alone_again,
    checksum_of,
    free_path_beside,
)
from flask_comfy_files.core.records import FileRecord, file_from_stored, file_to_stored
from flask_comfy_files.core.relocation import Move
from flask_comfy_files.core.reversal import Step, find_twin, leaving, taking_back
from flask_comfy_files.core.undone import Effects, Ledger

PUT_BACK: Final = "its files were put back where they came from"
"""Why a job has no files whose operation was undone."""

MakeFolder = Callable[[str], None]


@dataclass(slots=True)
class Inversion:
    """The lines and moves that undo some lines, in one append."""

    reader: Reader
    root: str
    row: OperationRow
    effects: Effects
    operation: Mapping[str, Any]
    ledger: Ledger
    make_folder: MakeFolder
    """Makes the folder of a target; a rehearsal makes none."""
    changes: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)
    _begun: set[str] = field(default_factory=set)
    _going: dict[str, FileRecord] = field(default_factory=dict)
    _left_in: dict[str, int] = field(default_factory=dict)

    def take(self, change: Change, start: int, stop: int) -> None:
        """Take in a line, or a part of its files."""
        if change["kind"] != "state":
            self._undo_arrivals(change, change["files"][start:stop])
            return
        overlays = list(change.get("files", {}).items())[start:stop]
        left = {file_id: overlay for file_id, overlay in overlays if "record" in overlay}
        if left:
            self._undo_departures(change, left)
        if "before" in change:
            self._undo_notes(change, dict(overlays))

    def finish(self) -> None:
        """Say with whom files share their bytes once all of these have gone."""
        heirs = Heirs(self.reader, self._going.values())
        for change in self.changes:
            if change["kind"] == "state" and "before" not in change:
                twins = heirs.of(self._going[file_id] for file_id in change["files"])
                if twins:
                    change["twins"] = twins

    # Files that a line has brought

    def _undo_arrivals(self, change: Change, listed: Sequence[Stored]) -> None:
        mine = [stored for stored in listed if stored["file_id"] in self.effects.files]
        records = self.reader.files_with_ids(stored["file_id"] for stored in mine)
        leaving_job: dict[str, Any] = {}
        for stored in mine:
            record = records.get(stored["file_id"])
            if stored["file_id"] in self.effects.already:
                self.ledger.enter_already(stored["file_size"])
            elif record is None or record.job_id != stored["job_id"]:
                self._tell_where_it_is(stored, record)
            elif not self._is_as_recorded(record, record.path):
                continue
            elif (was := _owner_before(stored, self.row.kind)) is not None:
                self._give_to(record, was)
            else:
                overlay = self._leave_library(record, stored)
                leaving_job |= {} if overlay is None else {record.file_id: overlay}
        if leaving_job:
            self.changes.append(
                {
                    "kind": "state",
                    "job_id": change["job_id"],
                    "operation": self.operation,
                    "state": self._reason(change["job_id"], len(leaving_job)),
                    "files": leaving_job,
                }
            )

    def _reason(self, job_id: str | None, leaving_now: int) -> dict[str, str]:
        """Say why a job has no files, where it has none any more."""
        job = None if job_id is None else self.reader.find_job(job_id)
        if job is None:
            return {}
        left = self._left_in.get(job.job_id, job.file_count) - leaving_now
        self._left_in[job.job_id] = left
        return {} if left else {"reason": PUT_BACK}

    def _tell_where_it_is(self, stored: Stored, record: FileRecord | None) -> None:
        resting = self.reader.trashed_with_ids([stored["file_id"]])
        path, size = stored["path"], stored["file_size"]
        if record is not None:
            later = self.reader.last_operation_of(record.file_id)
            self.ledger.skip(record.path, "changed_later", size, f"Undo operation {later} first.")
        elif resting:
            job_id = resting[stored["file_id"]]
            self.ledger.skip(path, "in_trash", size, f"Restore job {job_id} first.")
        else:
            lies_there = checksum_of(self.root, stored["original_path"]) == stored["checksum"]
            self.ledger.skip(path, "put_back" if lies_there else "deleted_for_good", size)

    def _is_as_recorded(self, record: FileRecord, path: str) -> bool:
        """Say whether the recorded file lies at a path; where it does not, it is told why."""
        size = record.file_size
        try:
            status = durable.find_status(self.root, path)
            reason = (
                "not_found"
                if status is None
                else why_held(self.root, replace(record, path=path), status)
            )
        except OSError as error:
            self.ledger.fail(Failure(path, size, error).as_left())
            return False
        if reason is not None:
            self.ledger.skip(path, reason, size)
        return reason is None

    def _leave_library(self, record: FileRecord, stored: Stored) -> dict[str, Any] | None:
        back = taking_back(self.reader, record, correcting(self.operation))
        if "link_from" in stored:
            if find_twin(self.root, self.reader, record, self._going) is None:
                advice = "No other recorded file has its bytes any more; delete its job instead."
                self.ledger.skip(record.path, "only_copy", record.file_size, advice)
                return None
            self._going[record.file_id] = record
            self.steps.append(Step(record.path, record.file_size, None, [back]))
            return leaving(record, None)
        # An import keeps what its list says of the origin, which is not where it has taken the file from.
        came_from = stored.get("moved_from", record.original_path)
        target = self._target(record, record.path, came_from)
        if target is None:
            return None
        self._going[record.file_id] = record
        move = trash.as_move(record, record.path, target)
        self.steps.append(Step(record.path, record.file_size, move, [back]))
        return leaving(record, target)

    def _target(self, record: FileRecord, source: str, wanted: str) -> str | None:
        """Return a free path for a file, with its folder; ``None`` where there can be no folder."""

        def is_taken(path: str) -> bool:
            return path in self._taken or self.reader.owner_of(path) is not None

        target = wanted
        try:
            self.make_folder(split(wanted)[0])
            is_own = source == wanted
            if not is_own and (
                is_taken(wanted) or durable.find_status(self.root, wanted) is not None
            ):
                target = free_path_beside(self.root, wanted, is_taken)
                self.ledger.beside.append(Move(path=wanted, target=target))
        except OSError as error:
            self.ledger.fail(Failure(source, record.file_size, error).as_left())
            return None
        self._taken.add(target)
        return target

    def _give_to(self, record: FileRecord, was: Mapping[str, Any]) -> None:
        """Give a file to the owner that it had."""
        job_id, project_id = was["job_id"], was["project_id"]
        problem = self._why_not_into(job_id, project_id)
        if problem is not None:
            self.ledger.skip(record.path, problem, record.file_size)
            return
        target = self._target(record, record.path, was["path"])
        if target is None:
            return
        now = file_to_stored(record)
        stored = {
            **now,
            **was,
            "path": target,
            "moved_from": record.path,
            "was": {key: now[key] for key in was},
        }
        self.changes.append(self._arrival(job_id, project_id, [stored]))
        back = taking_back(self.reader, record, correcting(self.operation))
        self.steps.append(Step(record.path, record.file_size, stored, [back]))

    def _arrival(
        self, job_id: str | None, project_id: str | None, files: Sequence[Stored]
    ) -> dict[str, Any]:
        """Return the line by which files come to a job, known or not, or to nobody."""
        is_new = job_id is not None and job_id not in self._begun
        is_new = is_new and self.reader.find_job(str(job_id)) is None
        self._begun |= set() if job_id is None else {job_id}
        return {
            "kind": "job" if is_new else "add",
            "job_id": job_id,
            "project_id": project_id,
            "operation": self.operation,
            "state": {} if job_id is None else {"reason": None},
            "files": list(files),
        }

    def _why_not_into(self, job_id: str | None, project_id: str | None) -> str | None:
        """Say why no file can come to a job, whose id means something else by now."""
        if job_id is None or project_id is None:
            return None
        if self.reader.known_job(job_id) not in {None, job_id}:
            return "identifier_case"
        if self.reader.known_project(project_id) not in {None, project_id}:
            return "identifier_case"
        job = self.reader.find_job(job_id)
        return None if job is None or job.project_id == project_id else "job_in_other_project"

    # Records that a line has brought up to date

    def _undo_notes(self, change: Change, overlays: Mapping[str, Mapping[str, Any]]) -> None:
        records = self.reader.files_with_ids(overlays)
        as_before: dict[str, Mapping[str, Any]] = {}
        for file_id, overlay in overlays.items():
            record, before = records.get(file_id), change["before"][file_id]
            if record is None:
                advice = "Its record is in the library no more."
                self.ledger.skip(file_id, "changed_later", 0, advice)
            elif file_id in self.effects.already:
                self.ledger.enter_already(record.file_size)
            elif any(getattr(record, key) != value for key, value in overlay.items()):
                self.ledger.skip(record.path, "changed_later", record.file_size)
            else:
                as_before[file_id] = before
                stays = {"path": record.path}
                self.steps.append(Step(record.path, record.file_size, stays, []))
        if as_before:
            self.changes.append(
                {
                    "kind": "state",
                    "job_id": change["job_id"],
                    "operation": self.operation,
                    "files": as_before,
                    "before": {file_id: overlays[file_id] for file_id in as_before},
                }
            )

    # Files that a line has taken out of the library: they come back

    def _undo_departures(self, change: Change, left: Mapping[str, Mapping[str, Any]]) -> None:
        coming = self._coming(left)
        if not coming:
            return
        twins = self._twins_again(change, coming)
        groups = [coming] if change["job_id"] is not None else [[stored] for stored in coming]
        for files in groups:
            line = self._arrival(change["job_id"], files[0]["project_id"], files)
            self.changes.append({**line, "twins": twins} if twins else line)
        for stored in coming:
            correction = {
                "kind": "state",
                "job_id": change["job_id"],
                "operation": correcting(self.operation),
                "files": {
                    stored["file_id"]: WITHDRAWN,
                    **alone_again({"twins": twins}, [stored["file_id"]]),
                },
            }
            source = stored.get("link_from") or stored["moved_from"]
            self.steps.append(Step(source, stored["file_size"], stored, [correction]))

    def _coming(self, left: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the records of the files that come back, those that share bytes only with what is there."""
        known = {*self.reader.files_with_ids(left), *self.reader.trashed_with_ids(left)}
        coming: list[dict[str, Any]] = []
        for file_id in filter(self.effects.files.__contains__, left):
            stored = left[file_id]["record"]
            if file_id in self.effects.already:
                self.ledger.enter_already(stored["file_size"])
            elif file_id in known:
                self.ledger.skip(stored["path"], "changed_later", stored["file_size"])
            elif (returning := self._return(stored, self.effects.files[file_id])) is not None:
                coming.append(returning)
        homes = {stored["file_id"] for stored in coming}
        for stored in coming:
            if stored["same_file_as"] not in homes and not self._is_known(stored["same_file_as"]):
                stored["same_file_as"] = None
        return coming

    def _return(self, stored: Stored, lies_at: str | None) -> dict[str, Any] | None:
        """Return the record of a file that comes back, with the way it takes; ``None`` where it cannot."""
        record = file_from_stored(stored, file_path(self.root, stored["path"]))
        size = record.file_size
        problem = self._why_not_into(record.job_id, record.project_id)
        if problem is not None:
            self.ledger.skip(stored["path"], problem, size)
            return None
        if lies_at is None:
            twin = find_twin(self.root, self.reader, record, ())
            if twin is None:
                self.ledger.skip(record.path, "not_found", size)
                return None
            source = {"link_from": twin.path}
        else:
            if not self._is_as_recorded(record, lies_at):
                return None
            source = {"moved_from": lies_at}
        target = self._target(record, lies_at or "", record.path)
        if target is None:
            return None
        return {**stored, "path": target, **source}

    def _is_known(self, file_id: str | None) -> bool:
        ids = [] if file_id is None else [file_id]
        return bool(self.reader.files_with_ids(ids) or self.reader.trashed_with_ids(ids))

    def _twins_again(
        self, change: Change, coming: Sequence[Stored]
    ) -> dict[str, dict[str, str | None]]:
        """Return overlays for the files that had to do without those which come back now."""
        alone = [
            file_id
            for file_id, overlay in change.get("twins", {}).items()
            if overlay["same_file_as"] is None
        ]
        homes = {stored["checksum"]: stored["file_id"] for stored in reversed(coming)}
        records = self.reader.files_with_ids(alone)
        twins: dict[str, dict[str, str | None]] = {}
        for file_id, record in records.items():
            if record.same_file_as is None and record.checksum in homes:
                twins[file_id] = {"same_file_as": homes[record.checksum]}
        return twins


def _owner_before(stored: Stored, kind: str) -> Mapping[str, Any] | None:
    """Return what a record said before its file changed hands; ``None`` where it did not."""
    if "was" in stored:
        was: Mapping[str, Any] = stored["was"]
        return was
    if kind == "repair" and "moved_from" in stored:  # it had strayed
        return {
            "path": stored["moved_from"],
            "job_id": stored["job_id"],
            "project_id": stored["project_id"],
        }
    if kind == "assign" and "moved_from" in stored:  # of a version that did not keep more
        nobody = {"job_id": None, "project_id": None, "evidence": "none"}
        return {"path": stored["moved_from"], **nobody}
    return None
