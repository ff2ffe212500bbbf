"""Deleting, restoring and purging jobs under the library's lock: the lines and the moves of each.

The order of effects is that of organizing: the line, the moves, the folders, and then the index. A job is
whole at any moment that anybody sees: in its place, or in the trash.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flask_comfy_files.core import durable, looking, trash
from flask_comfy_files.core.catalog.document import Change, Line
from flask_comfy_files.core.catalog.queries import TrashRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.examination import Examined
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.layout import PROJECTS, TRASH, job_folder, split, trash_folder
from flask_comfy_files.core.placement import FOUND, MISSING, Stored, free_path_beside
from flask_comfy_files.core.records import FileRecord, LeftFile, left_to_dict
from flask_comfy_files.core.trash import Freed

Operation = Mapping[str, Any]


@dataclass(slots=True)
class Trashed:
    """What became of jobs on their way into the trash."""

    failed: dict[str, LeftFile] = field(default_factory=dict)
    """By job id the file because of which a job had to stay."""
    folders: int = 0
    """How many folders were empty then, and are removed."""


def trash_jobs(
    root: str, writer: Writer, operation: Operation, jobs: Sequence[Examined]
) -> Trashed:
    """Move jobs into the trash, with one append for all.

    Raises:
        OSError: The disk refused; the next change finishes what was recorded.
    """
    entry = operation["id"]
    trashed = Trashed()
    changes = [_trashing(root, operation, examined) for examined in jobs]
    moves = {
        examined.job_id: trash.into_trash(
            [replace(record, missing=False) for record in examined.doomed], entry
        )
        for examined in jobs
    }
    folders = [trash_folder(entry, job_id) for job_id in moves if moves[job_id]]
    touched = [parent for folder in folders for parent in durable.make_folders(root, folder)]
    lines = writer.append(changes)
    for job_id, moves_of_job in moves.items():
        failure = trash.carry(root, moves_of_job)
        if failure is not None:
            trashed.failed[job_id] = _as_left(*failure)
    durable.sync_folders(root, dict.fromkeys([*_folders(moves.values()), *touched]))
    lines += writer.append(
        [take_back(writer, change) for change in changes if change["job_id"] in trashed.failed]
    )
    trashed.folders = sum(_remove_folders(root, examined, entry) for examined in jobs)
    writer.advance(lines)
    return trashed


def _remove_folders(root: str, examined: Examined, entry: str) -> int:
    """Remove what is empty now: of a job that went its own folder, of one that had to stay that in the trash."""
    durable.remove_empty_folders(root, trash_folder(entry, examined.job_id), TRASH)
    folder = job_folder(examined.project_id, examined.job_id)
    return durable.remove_empty_folders(root, folder, PROJECTS)


def _trashing(root: str, operation: Operation, examined: Examined) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "entry": operation["id"],
        "at": operation["at"],
        "kept": examined.kept,
        "directories": len(_emptied(root, examined)),
        "files": len(examined.doomed),
        "bytes": examined.size,
        "skipped": [left_to_dict(left) for left in examined.skipped],
        "failed": [left_to_dict(left) for _, left in examined.failed],
    }
    if examined.again is not None:
        facts["again"] = examined.again
    gone = {record.file_id: MISSING for record in examined.gone if not record.missing}
    found = {record.file_id: FOUND for record in examined.doomed if record.missing}
    return {
        "kind": "state",
        "job_id": examined.job_id,
        "operation": operation,
        "files": {**gone, **found},
        "trash": facts,
    }


def _emptied(root: str, examined: Examined) -> list[str]:
    """Return the folders that are empty once a job's files have gone: its own, and perhaps its project's."""
    folder = job_folder(examined.project_id, examined.job_id)
    if examined.has_folder and not examined.empties_folder:
        return []
    own = [folder] if examined.has_folder else []
    above, name = split(folder)
    try:
        return own if looking.holds_more_than(root, above, name) else [*own, above]
    except OSError:
        return own  # gone as well


def take_back(reader: Reader, change: Change) -> dict[str, Any]:
    """Return the change that takes back a deletion or a restoration which could not be carried out.

    The reader has not seen it yet.
    """
    taken_back = {key: change[key] for key in ("kind", "job_id", "operation")}
    if "trash" in change:
        return {**taken_back, "restore": {"entry": change["trash"]["entry"]}}
    job_id, entry = change["job_id"], change["restore"]["entry"]
    (row,) = (row for row in reader.trash(job_id) if row.entry == entry)
    alive = {record.file_id: "restored_meanwhile" for record in reader.files_of_job(job_id)}
    paths = {record.file_id: record.path for record in reader.trashed_files(job_id, entry)}
    renamed = {file_id: {"path": paths[file_id]} for file_id in change["files"]}
    return {
        **taken_back,
        "files": renamed,
        "trash": {**row.facts, "kept": {**row.facts["kept"], **alive}},
    }


@dataclass(slots=True)
class Restored:
    """What became of a job on its way back."""

    records: Sequence[FileRecord]
    failed: LeftFile | None = None


def restore_job(root: str, writer: Writer, operation: Operation, row: TrashRow) -> Restored:
    """Move a job out of the trash to where it was, and beside what has taken a name meanwhile.

    A file that somebody has taken out of the trash is missing from now on, as long as another is there.

    Raises:
        OSError: The disk refused; the next change finishes what was recorded.
    """
    before = writer.trashed_files(row.job_id, row.entry)
    gone = _gone_from_trash(root, before, row.entry)
    records = _overlaid(before, gone)
    renamed = _renamed(root, writer, records)
    state = {"restored_at": operation["at"], **({"reason": None} if records else {})}
    change = {
        "kind": "state",
        "job_id": row.job_id,
        "operation": operation,
        "state": state,
        "files": {
            record.file_id: {
                **gone.get(record.file_id, {}),
                **({"path": renamed[record.file_id]} if record.file_id in renamed else {}),
            }
            for record in records
            if record.file_id in gone or record.file_id in renamed
        },
        "restore": {
            "entry": row.entry,
            "files": [record.file_id for record in records],
            "bytes": sum(record.file_size for record in records),
            "deletion": first_deletion(row.facts),
        },
    }
    folder = job_folder(row.project_id, row.job_id)
    moves = trash.out_of_trash(records, row.entry, renamed)
    touched = durable.make_folders(root, folder) if moves else []
    lines = writer.append([change])
    failure = trash.carry(root, moves)
    durable.sync_folders(root, dict.fromkeys([*_folders([moves]), *touched]))
    if failure is not None:
        lines += writer.append([take_back(writer, change)])
    trash.tidy(root, moves)
    writer.advance(lines)
    return Restored(records) if failure is None else Restored((), _as_left(*failure))


def first_deletion(facts: Mapping[str, Any]) -> str:
    """Return the deletion that a job rests after: an undo may have brought it to the trash again."""
    first: str = facts.get("again", facts["entry"])
    return first


def _gone_from_trash(
    root: str, records: Iterable[FileRecord], entry: str
) -> dict[str, Mapping[str, Any]]:
    """Return overlays for files that are not where they should rest; none where all are gone, as with a mount."""
    resting = [record for record in records if not record.missing]
    gone = {
        record.file_id: MISSING
        for record in resting
        if durable.find_status(root, trash.place_in_trash(record, entry)) is None
    }
    return gone if len(gone) < len(resting) else {}


def _renamed(root: str, writer: Writer, records: Sequence[FileRecord]) -> dict[str, str]:
    """Return new paths, by file id, for those whose path now belongs to another file."""
    renamed: dict[str, str] = {}
    coming = {record.path for record in records}

    def is_taken(path: str) -> bool:
        return path in renamed.values() or writer.owner_of(path) is not None

    def is_occupied(record: FileRecord) -> bool:
        return not record.missing and durable.find_status(root, record.path) is not None

    for record in records:
        if is_taken(record.path) or is_occupied(record):
            renamed[record.file_id] = free_path_beside(
                root, record.path, lambda path: path in coming or is_taken(path)
            )
    return renamed


@dataclass(slots=True)
class Purged:
    """What was deleted for good."""

    jobs: int = 0
    files: int = 0
    freed: Freed = field(default_factory=Freed)
    failed: list[LeftFile] = field(default_factory=list)


def purge_jobs(
    root: str, writer: Writer, operation: Operation, rows: Sequence[TrashRow], purged: Purged
) -> None:
    """Delete jobs in the trash for good, with one append for all.

    Raises:
        OSError: The disk refused; the next change finishes what was recorded.
    """
    files = [writer.trashed_files(row.job_id, row.entry) for row in rows]
    heirs = Heirs(writer, itertools.chain.from_iterable(files))
    changes = [
        {
            "kind": "state",
            "job_id": row.job_id,
            "operation": operation,
            "files": {},
            "twins": heirs.of(records),
            "purge": {"entry": row.entry},
        }
        for row, records in zip(rows, files, strict=True)
    ]
    if not changes:
        return
    lines = writer.append(changes)
    for row, records in zip(rows, files, strict=True):
        left = trash.remove(root, row.entry, records, purged.freed)
        purged.failed += left
        purged.files += sum(not record.missing for record in records) - len(left)
        purged.jobs += 1
    # Or a power cut would bring back what no record speaks of any more.
    durable.sync_folders(root, [TRASH, *dict.fromkeys(f"{TRASH}/{row.entry}" for row in rows)])
    writer.advance(lines)


class Heirs:
    """Who counts the bytes of files that go for good: of those that share them, one."""

    def __init__(self, writer: Reader, going: Iterable[FileRecord]) -> None:
        """Look at files of which all go at once."""
        self._writer = writer
        self._going = {record.file_id: record for record in going}
        self._heirs: dict[str, str] = {}

    def of(self, records: Iterable[FileRecord]) -> dict[str, dict[str, str | None]]:
        """Return overlays for the files that share bytes with some of those that go."""
        return {
            file_id: {"same_file_as": self._heir(record, file_id)}
            for record in records
            for file_id in self._writer.sharers_of(record.file_id)
            if file_id not in self._going
        }

    def _heir(self, record: FileRecord, file_id: str) -> str | None:
        """Return with whom a file shares its bytes from now on; ``None`` for the heir itself."""
        while record.same_file_as in self._going:
            record = self._going[record.same_file_as]
        if record.same_file_as is not None:
            return record.same_file_as
        heir = self._heirs.setdefault(record.file_id, file_id)
        return None if heir == file_id else heir


def _as_left(stored: Stored, error: trash.MoveError) -> LeftFile:
    if isinstance(error, OSError):
        return Failure(stored["original_path"], stored["file_size"], error).as_left()
    return LeftFile(path=stored["original_path"], reason=error.code, bytes=stored["file_size"])


def _folders(moves: Iterable[Sequence[Stored]]) -> list[str]:
    return trash.folders_of(itertools.chain.from_iterable(moves))


def interrupted(writer: Writer, lines: Iterable[Line]) -> list[tuple[Change, list[Stored]]]:
    """Return the deletions and restorations among unfinished lines, each with its moves."""
    return [
        (line.change, _moves(writer, line.change))
        for line in lines
        if "trash" in line.change or "restore" in line.change
    ]


def _moves(writer: Writer, change: Change) -> list[Stored]:
    overlays = change.get("files", {})
    if "trash" in change:
        facts = change["trash"]
        # One that gets another path came out of the trash before, and was moved back for this line.
        staying = {*facts["kept"], *(key for key in overlays if "path" in overlays[key])}
        records = writer.files_of_job(change["job_id"])
        going = [record for record in records if record.file_id not in staying]
        return trash.into_trash(_overlaid(going, overlays), facts["entry"])
    entry = change["restore"]["entry"]
    records = writer.trashed_files(change["job_id"], entry)
    new_paths = {key: overlay["path"] for key, overlay in overlays.items() if "path" in overlay}
    return trash.out_of_trash(_overlaid(records, overlays), entry, new_paths)


def _overlaid(
    records: Iterable[FileRecord], overlays: Mapping[str, Mapping[str, Any]]
) -> list[FileRecord]:
    """Return records with what their line says of being missing, which no reader knows yet."""
    return [
        replace(record, missing=overlays.get(record.file_id, {}).get("missing", record.missing))
        for record in records
    ]


def tidy(root: str, writer: Writer, change: Change, moves: Sequence[Stored]) -> None:
    """Remove what an interrupted deletion or restoration has left empty."""
    trash.tidy(root, moves)
    job = writer.find_job(change["job_id"])
    if "trash" in change and job is not None:
        durable.remove_empty_folders(root, job_folder(job.project_id, job.job_id), PROJECTS)


def finish_purges(root: str, writer: Writer, lines: Sequence[Line]) -> None:
    """Delete for good what unfinished lines say is deleted."""
    for line in lines:
        if "purge" in line.change:
            entry = line.change["purge"]["entry"]
            records = writer.trashed_files(line.change["job_id"], entry)
            trash.remove(root, entry, records, Freed())
