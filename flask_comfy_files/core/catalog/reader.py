"""The library of one moment, as a caller asks it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from flask_comfy_files.core.catalog import (
    compaction,
    comparison,
    document,
    listing,
    operations,
    predecessors,
    queries,
    retelling,
)
from flask_comfy_files.core.catalog.compaction import Compacted
from flask_comfy_files.core.catalog.comparison import Discrepancy, IsLate
from flask_comfy_files.core.catalog.document import Change, Line
from flask_comfy_files.core.catalog.listing import Key, Question
from flask_comfy_files.core.catalog.operations import OperationRow
from flask_comfy_files.core.catalog.queries import AgeRow, FileRow, JobRow, Totals, TrashRow
from flask_comfy_files.core.errors import DocumentDamagedError
from flask_comfy_files.core.layout import DOCUMENT, file_path
from flask_comfy_files.core.pages import ListedJob, ListedProject
from flask_comfy_files.core.records import FileRecord, Tally, file_from_stored


class Reader:
    """The library as it stood at one moment."""

    def __init__(self, root: str, connection: sqlite3.Connection, descriptor: int | None) -> None:
        """Answer from an index and the document it reflects; ``None`` for a library without one."""
        self._root = root
        self._connection = connection
        self._descriptor = descriptor

    def find_job(self, job_id: str) -> JobRow | None:
        """Return a job by its exact id."""
        return queries.find_job(self._connection, job_id)

    def jobs_of_project(self, project_id: str) -> list[JobRow]:
        """Return a project's jobs, oldest first; none when it is not known."""
        return queries.jobs_of_project(self._connection, project_id)

    def pending_jobs(self) -> list[JobRow]:
        """Return the jobs that wait to be organized."""
        return queries.pending_jobs(self._connection)

    def jobs_by_age(self) -> Iterator[AgeRow]:
        """Yield the jobs that have files, newest first."""
        return queries.jobs_by_age(self._connection)

    def trash(self, job_id: str | None = None) -> Iterator[TrashRow]:
        """Yield the deleted jobs, or the deletions of one job id, oldest first."""
        return queries.trash(self._connection, job_id)

    def trash_entries(self) -> set[str]:
        """Return the ids of the operations that have deleted what rests in the trash."""
        return queries.trash_entries(self._connection)

    def trash_totals(self) -> Tally:
        """Return how many files rest in the trash, and their bytes."""
        files, size = queries.trash_totals(self._connection)
        return Tally(files=files, bytes=size)

    def trashed_files(self, job_id: str, entry: str) -> tuple[FileRecord, ...]:
        """Return the files that were deleted with a job, as they were before."""
        return self._records(queries.trashed_files(self._connection, job_id, entry))

    def find_trashed(self, file_id: str) -> tuple[str, FileRecord] | None:
        """Return a file in the trash by its id, behind the id of the operation that deleted it."""
        found = queries.find_trashed(self._connection, file_id)
        return None if found is None else (found[0], self._records([found[1]])[0])

    def jobs_from(self, job_id: str, limit: int) -> list[str]:
        """Return the ids of jobs with files, in their order, from one on."""
        return queries.jobs_from(self._connection, job_id, limit)

    def trash_from(self, job_id: str, entry: str, limit: int) -> list[tuple[str, str]]:
        """Return the deletions in the trash as job id and entry, in their order, from one on."""
        return queries.trash_from(self._connection, job_id, entry, limit)

    def legacy_files_after(self, file_id: str, limit: int) -> tuple[FileRecord, ...]:
        """Return files that belong to no job, in the order of their ids, from behind one on."""
        return self._records(queries.legacy_files_after(self._connection, file_id, limit))

    def discrepancies(self, is_late: IsLate = lambda: False) -> Iterator[Discrepancy]:
        """Yield where document and index contradict each other, or themselves.

        Raises:
            LateError: The time was over before that was known.
        """
        return comparison.discrepancies(self._connection, self._descriptor, is_late)

    def unseen_jobs(self) -> set[str | None]:
        """Return the jobs of changes that are being made, which no reader sees yet; ``None`` is nobody's files."""
        return comparison.unseen_jobs(self._connection, self._descriptor)

    def sharers_of(self, file_id: str) -> list[str]:
        """Return the ids of the files that share a file's bytes, those in the trash last."""
        return queries.sharers(self._connection, file_id)

    def known_job(self, job_id: str) -> str | None:
        """Return the known job id that equals this one, but for case."""
        return queries.known_spelling(self._connection, "jobs", job_id)

    def known_project(self, project_id: str) -> str | None:
        """Return the known project id that equals this one, but for case."""
        return queries.known_spelling(self._connection, "projects", project_id)

    def known_among(self, job_ids: Iterable[str]) -> set[str]:
        """Return those of some ids that are known jobs."""
        return queries.known_among(self._connection, job_ids)

    def files_of_job(self, job_id: str) -> tuple[FileRecord, ...]:
        """Return a job's files in the order in which they were organized."""
        return self._records(queries.files_of_job(self._connection, job_id))

    def list_files(self, question: Question) -> tuple[tuple[FileRecord, ...], Key | None]:
        """Return a page of files, and the key behind which there may be more."""
        found, behind = listing.files(self._connection, question)
        # In the order of the document, so that a line is read once however its files are sorted.
        rows = sorted((row for _, row in found), key=lambda row: (row.offset, row.ordinal))
        records = {record.file_id: record for record in self._records(rows)}
        return tuple(records[file_id] for file_id, _ in found), behind

    def list_jobs(self, question: Question) -> tuple[tuple[ListedJob, ...], Key | None]:
        """Return a page of jobs, and the key behind which there may be more."""
        return listing.jobs(self._connection, question)

    def list_projects(self, question: Question) -> tuple[tuple[ListedProject, ...], Key | None]:
        """Return a page of projects, and the key behind which there may be more."""
        return listing.projects(self._connection, question)

    def find_file(self, key: str) -> FileRecord | None:
        """Return a file by its id or its path."""
        row = queries.find_file(self._connection, key)
        return None if row is None else self._records([row])[0]

    def legacy_files(self) -> tuple[FileRecord, ...]:
        """Return the files that belong to no job, in the order in which they were recorded."""
        return self._records(queries.legacy_files(self._connection))

    def files_named(self, original_path: str) -> tuple[FileRecord, ...]:
        """Return all files that ComfyUI wrote under a path, oldest first."""
        return self._records(queries.files_named(self._connection, original_path))

    def originals_beginning(self, beginning: str) -> list[str]:
        """Return the paths under which ComfyUI wrote recorded files, as far as they begin in some way."""
        found = queries.originals_beginning(self._connection, beginning)
        return [os.fsdecode(path) for path in found]

    def singles_named(self, original_path: str) -> tuple[FileRecord, ...]:
        """Return the files of cached runs whose original, written under a path, has no record yet."""
        return self._records(queries.singles_named(self._connection, original_path))

    def owner_of(self, path: str) -> tuple[str | None] | None:
        """Return the owner of the file recorded at a path in a tuple (a legacy file has none), or ``None``."""
        return queries.owner_of(self._connection, path)

    def paths_of_job(self, job_id: str) -> list[tuple[str, str, str | None]]:
        """Return for each file of a job where it lies, where ComfyUI wrote it, and in which run."""
        found = queries.paths_of_job(self._connection, job_id)
        return [
            (os.fsdecode(path), os.fsdecode(original_path), prompt_id)
            for path, original_path, prompt_id in found
        ]

    def sample_of_paths(self, most: int) -> list[str]:
        """Return where some files lie, spread over the library, that are not known to be missing."""
        return [os.fsdecode(path) for path in queries.sample_of_paths(self._connection, most)]

    def paths_after(self, file_id: str, most: int) -> list[tuple[str, str | None, str]]:
        """Return id, job and path of the next files by their ids that are not known to be missing."""
        found = queries.paths_after(self._connection, file_id, most)
        return [(file_id, job_id, os.fsdecode(path)) for file_id, job_id, path in found]

    def all_files(self) -> Iterator[tuple[FileRecord, Mapping[str, Any]]]:
        """Yield every record, in the order in which they were recorded, with the state of its job."""
        rows = queries.all_files(self._connection)
        for place, group in groupby(rows, key=lambda pair: (pair[0].offset, pair[0].length)):
            stored = self._stored_files(*place)
            for row, state in group:
                yield self._record({**stored[row.ordinal], **row.overlay}), state

    def is_file_id(self, file_id: str) -> bool:
        """Say whether a file in the library or in the trash has an id."""
        return queries.is_file_id(self._connection, file_id)

    def files_with_ids(self, file_ids: Iterable[str]) -> dict[str, FileRecord]:
        """Return those of some files that are in the library, by id."""
        records = self._records(queries.files_with_ids(self._connection, file_ids))
        return {record.file_id: record for record in records}

    def trashed_with_ids(self, file_ids: Iterable[str]) -> dict[str, str]:
        """Return for those of some files that rest in the trash their job."""
        return queries.trashed_with_ids(self._connection, file_ids)

    def last_operation_of(self, file_id: str) -> str | None:
        """Return the id of the operation by whose line a file has its record; ``None`` where it has none."""
        rows = queries.files_with_ids(self._connection, [file_id])
        if not rows:
            return None
        change = self.read_change(rows[0].offset, rows[0].length)
        return str(compaction.recorded_by(change, rows[0].ordinal))

    def find_operation(self, operation_id: str) -> OperationRow | None:
        """Return an operation by its id."""
        return operations.find_operation(self._connection, operation_id)

    def last_operation_on(self, job_id: str) -> str | None:
        """Return the last operation on a job, but for organizing and marking it, as far as it is known."""
        return operations.last_operation_on(self._connection, job_id)

    def newest_operations(
        self, kind: str | None, limit: int, before: tuple[int, str] | None
    ) -> list[OperationRow]:
        """Return operations, of one kind or of all, newest first, that are older than one by time and id."""
        return operations.newest_operations(self._connection, kind, limit, before)

    def operations_undoing(self, operation_id: str) -> list[OperationRow]:
        """Return the operations by which one was undone, or a part of it, oldest first."""
        return operations.operations_undoing(self._connection, operation_id)

    def has_lines_of(self, row: OperationRow) -> bool:
        """Say whether the document is there in which the lines of an operation stand."""
        with self._document_of(row.generation) as descriptor:
            return descriptor is not None

    def lines_of(self, row: OperationRow) -> Iterator[Line]:
        """Yield the lines of an operation, with those that correct it; nothing else may be read meanwhile.

        There are none where they stand in an older document that is gone.
        """
        name = row.operation_id.encode("ascii", "backslashreplace")
        with self._document_of(row.generation) as descriptor:
            if descriptor is None:
                return
            for line in document.read_lines(descriptor, row.first_offset, row.last_end, name):
                operation = line.change["operation"]
                if row.operation_id in {operation["id"], operation.get("corrects")}:
                    yield line

    def read_change(self, offset: int, length: int, generation: int | None = None) -> Change:
        """Read one line of the document, or of an older one.

        Raises:
            DocumentDamagedError: None that we wrote stands there, or the older document is gone.
        """
        with self._document_of(generation) as descriptor:
            if descriptor is None:
                raise DocumentDamagedError(DOCUMENT, f"its generation {generation} is gone")
            return document.read_line(descriptor, offset, length)

    @contextlib.contextmanager
    def _document_of(self, generation: int | None) -> Iterator[int | None]:
        """Open an older document, or hand out the one that holds."""
        if generation is None:
            yield self._descriptor
            return
        with predecessors.open_document(self._root, generation) as descriptor:
            yield descriptor

    def totals(self, project_id: str | None = None) -> Totals:
        """Return the numbers of the library, or of one project."""
        return queries.totals(self._connection, project_id)

    def kept_totals(self) -> dict[tuple[str, str], Tally]:
        """Return the numbers of each project and file type."""
        return {
            (project_id, file_type): Tally(files=files, bytes=size)
            for project_id, file_type, files, size in queries.kept_totals(self._connection)
        }

    def changes_of(self, file_id: str) -> Iterator[Mapping[str, Any]]:
        """Yield everything that was written about a file, oldest first."""
        if self._descriptor is not None:
            yield from retelling.changes_of(self._root, self._descriptor, file_id)

    def superseded_bytes(self) -> tuple[int, int]:
        """Return how many bytes of the document hold no more, and how many do."""
        size = 0 if self._descriptor is None else os.fstat(self._descriptor).st_size
        live = compaction.live_bytes(self._connection)
        return size - live, live

    def compact(self, at: str) -> Compacted | None:
        """Copy what holds beside the document; ``None`` where there is no document, or no index file.

        Raises:
            OSError: The disk refused.
        """
        if self._descriptor is None:
            return None
        return compaction.write(self._root, self._connection, self._descriptor, at)

    def _records(self, rows: Iterable[FileRow]) -> tuple[FileRecord, ...]:
        """Read the records; a line that holds many of them is read once."""
        records: list[FileRecord] = []
        for (offset, length), group in groupby(rows, key=lambda row: (row.offset, row.length)):
            stored = self._stored_files(offset, length)
            records += [self._record({**stored[row.ordinal], **row.overlay}) for row in group]
        return tuple(records)

    def _stored_files(self, offset: int, length: int) -> Sequence[Mapping[str, Any]]:
        if self._descriptor is None:  # pragma: no cover - an index without document has no rows
            return ()
        files: Sequence[Mapping[str, Any]] = document.read_line(self._descriptor, offset, length)[
            "files"
        ]
        return files

    def _record(self, stored: Mapping[str, Any]) -> FileRecord:
        return file_from_stored(stored, file_path(self._root, stored["path"]))
