"""What an operation did and an undo has to deal with; and the account of that undo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flask_comfy_files.core.catalog.operations import OperationRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.records import LeftFile, Tally
from flask_comfy_files.core.relocation import Move

FILES_AT_ONCE: Final = 256
"""How many files share one append to the document, and one turn with the library's lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotUndone:
    """What an undo left as it is, and why; ``advice`` says what can be done about it.

    It is one file, or where ``files`` is more the files of a whole job; ``bytes`` are theirs.
    """

    path: str
    files: int
    bytes: int
    reason: str
    advice: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoReport:
    """What undoing the operation ``undoes`` did, or would do.

    ``found`` = ``undone`` + ``already_undone`` + ``skipped`` + ``failed``, in files and in bytes. ``beside`` are
    the files whose name was taken, each with the path that it has got instead. Where there was nothing to do,
    ``operation_id`` is ``None``.
    """

    undoes: str
    kind: str
    found: Tally
    undone: Tally
    already_undone: Tally
    skipped: tuple[NotUndone, ...]
    failed: tuple[NotUndone, ...]
    beside: tuple[Move, ...]
    dry_run: bool
    operation_id: str | None


def report_from_dict(stored: Mapping[str, Any]) -> UndoReport:
    """Return a report that was kept as a dict."""
    tallies = {key: Tally(**stored[key]) for key in ("found", "undone", "already_undone")}
    left = {
        key: tuple(NotUndone(**entry) for entry in stored[key]) for key in ("skipped", "failed")
    }
    beside = tuple(Move(**entry) for entry in stored["beside"])
    return UndoReport(**{**stored, **tallies, **left, "beside": beside})


@dataclass(slots=True)
class Ledger:
    """What became of each file so far."""

    undone: list[int] = field(default_factory=lambda: [0, 0])
    already: list[int] = field(default_factory=lambda: [0, 0])
    skipped: list[NotUndone] = field(default_factory=list)
    failed: list[NotUndone] = field(default_factory=list)
    beside: list[Move] = field(default_factory=list)

    def enter(self, files: int, size: int) -> None:
        """Enter files that were undone."""
        self.undone = [self.undone[0] + files, self.undone[1] + size]

    def enter_already(self, size: int, files: int = 1) -> None:
        """Enter files that an earlier undo has undone."""
        self.already = [self.already[0] + files, self.already[1] + size]

    def skip(
        self, path: str, reason: str, size: int, advice: str | None = None, files: int = 1
    ) -> None:
        """Enter what stays as it is."""
        self.skipped.append(
            NotUndone(path=path, files=files, bytes=size, reason=str(reason), advice=advice)
        )

    def fail(self, left: LeftFile) -> None:
        """Enter a file that could not be moved."""
        self.failed.append(
            NotUndone(
                path=left.path, files=1, bytes=left.bytes, reason=str(left.reason), advice=None
            )
        )

    def report(
        self, row: OperationRow, operation_id: str | None, *, is_rehearsal: bool
    ) -> UndoReport:
        """Return the account as a report."""
        left = [*self.skipped, *self.failed]
        tallies = [self.undone, self.already, *([entry.files, entry.bytes] for entry in left)]
        return UndoReport(
            undoes=row.operation_id,
            kind=row.kind,
            found=Tally(
                files=sum(files for files, _ in tallies), bytes=sum(size for _, size in tallies)
            ),
            undone=_tally(self.undone),
            already_undone=_tally(self.already),
            skipped=tuple(self.skipped),
            failed=tuple(self.failed),
            beside=tuple(self.beside),
            dry_run=is_rehearsal,
            operation_id=operation_id,
        )


def _tally(numbers: list[int]) -> Tally:
    return Tally(files=numbers[0], bytes=numbers[1])


@dataclass(slots=True)
class Effects:
    """What the lines of an operation did, all told: what one of them took back, it did not do."""

    files: dict[str, str | None] = field(default_factory=dict)
    """The files that it brought or took away, with where the latter lie now."""
    trashed: set[str] = field(default_factory=set)
    """The jobs that it moved into the trash."""
    restored: set[str] = field(default_factory=set)
    """The jobs that it brought back."""
    already: set[str] = field(default_factory=set)
    """The files and jobs with which earlier undos have dealt."""
    pieces: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Where its lines stand, those of many files in several parts: offset, length, first file, last file."""

    @property
    def ids(self) -> set[str]:
        """The files, and the jobs; an id of one is never an id of the other."""
        return {*self.files, *(f"job {job_id}" for job_id in (*self.trashed, *self.restored))}


def effects_of(reader: Reader, row: OperationRow) -> Effects:
    """Return what an operation did, without what has undone it since."""
    effects = Effects()
    for line in reader.lines_of(row):
        change = line.change
        _take_in(effects, change, row.operation_id)
        number = max(len(change.get("files", ())), 1)
        effects.pieces += [
            (line.offset, line.length, start, start + FILES_AT_ONCE)
            for start in range(0, number, FILES_AT_ONCE)
        ]
    for undo in reader.operations_undoing(row.operation_id):
        effects.already |= _standing(reader, undo)
    return effects


def _standing(reader: Reader, row: OperationRow) -> set[str]:
    """Return the files and jobs with which an operation has dealt, and none has undone that."""
    effects = effects_of(reader, row)
    return effects.ids - effects.already


def _take_in(effects: Effects, change: Mapping[str, Any], operation_id: str) -> None:
    is_correction = "corrects" in change["operation"]
    if change["kind"] != "state":
        for stored in change["files"]:
            effects.files[stored["file_id"]] = None
            if is_correction:
                del effects.files[stored["file_id"]]
        return
    for file_id, overlay in change.get("files", {}).items():
        if "record" in overlay:
            effects.files[file_id] = overlay["moved_to"]
        elif overlay.get("withdrawn"):
            effects.files.pop(file_id, None)
        elif "before" in change:
            effects.files[file_id] = None
    _take_in_job(effects, change, operation_id)


def _take_in_job(effects: Effects, change: Mapping[str, Any], operation_id: str) -> None:
    job_id = change["job_id"]
    if "trash" in change:
        is_effect = change["trash"]["entry"] == operation_id
        _enter(effects.trashed if is_effect else effects.restored, job_id, is_effect)
    if "restore" in change:
        is_effect = change["restore"]["entry"] != operation_id
        _enter(effects.restored if is_effect else effects.trashed, job_id, is_effect)


def _enter(jobs: set[str], job_id: str, is_effect: bool) -> None:  # noqa: FBT001 - or what takes it back
    (jobs.add if is_effect else jobs.discard)(job_id)
