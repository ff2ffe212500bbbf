"""The questions that the index answers, and the rows it answers with."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.layout import comparable


@dataclass(frozen=True, slots=True)
class JobRow:
    """What the index knows of a job."""

    job_id: str
    project_id: str
    created_at: str
    operation_id: str | None
    file_count: int
    total_size: int
    state: Mapping[str, Any]
    seq: int
    """The number of the last change to it."""


@dataclass(frozen=True, slots=True)
class AgeRow:
    """What the index knows of a job with files that decides how long it is kept."""

    job_id: str
    project_id: str
    newest_us: int
    file_count: int
    total_size: int
    counted_size: int
    seq: int
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrashRow:
    """What the index knows of a deleted job; ``facts`` are what its line says of the deletion."""

    job_id: str
    entry: str
    project_id: str
    file_count: int
    total_size: int
    counted_size: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FileRow:
    """Where a file's record stands in the document, and what changed since; ``ordinal`` counts within the line."""

    offset: int
    length: int
    ordinal: int
    overlay: Mapping[str, Any]


_JOB_COLUMNS: Final = (
    "job_id, project_id, created_at, operation_id, file_count, total_size, state, seq"
)


def _job_row(row: tuple[Any, ...]) -> JobRow:
    return JobRow(*(*row[:-2], json.loads(row[-2]), row[-1]))


def find_job(connection: sqlite3.Connection, job_id: str) -> JobRow | None:
    """Return a job by its exact id."""
    row = connection.execute(
        f"SELECT {_JOB_COLUMNS} FROM jobs WHERE job_id = ?", (job_id,)
    ).fetchone()
    return None if row is None else _job_row(row)


def jobs_of_project(connection: sqlite3.Connection, project_id: str) -> list[JobRow]:
    """Return a project's jobs, oldest first."""
    query = f"SELECT {_JOB_COLUMNS} FROM jobs WHERE project_id = ? ORDER BY created_us, job_id"
    return [_job_row(row) for row in connection.execute(query, (project_id,))]


def pending_jobs(connection: sqlite3.Connection) -> list[JobRow]:
    """Return the jobs that wait to be organized."""
    query = f"SELECT {_JOB_COLUMNS} FROM jobs WHERE is_pending ORDER BY job_id"
    return [_job_row(row) for row in connection.execute(query)]


def jobs_by_age(connection: sqlite3.Connection) -> Iterator[AgeRow]:
    """Yield the jobs that have files, newest first."""
    query = (
        "SELECT job_id, project_id, newest_us, file_count, total_size, counted_size, seq, state"
        " FROM jobs WHERE file_count ORDER BY newest_us DESC, job_id DESC"
    )
    for row in connection.execute(query):
        yield AgeRow(*(*row[:-1], json.loads(row[-1])))


def trash(connection: sqlite3.Connection, job_id: str | None = None) -> Iterator[TrashRow]:
    """Yield the deleted jobs, or the deletions of one job id, oldest first."""
    query = (
        "SELECT job_id, entry, project_id, file_count, total_size, counted_size, facts FROM trash"
        " WHERE ?1 IS NULL OR job_id = ?1 ORDER BY trashed_us, entry, job_id"
    )
    for row in connection.execute(query, (job_id,)):
        yield TrashRow(*(*row[:-1], json.loads(row[-1])))


def trash_entries(connection: sqlite3.Connection) -> set[str]:
    """Return the ids of the operations that have deleted what rests in the trash."""
    return {row[0] for row in connection.execute("SELECT DISTINCT entry FROM trash")}


def trash_totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many files rest in the trash, and their bytes."""
    query = "SELECT coalesce(sum(file_count), 0), coalesce(sum(counted_size), 0) FROM trash"
    files, size = connection.execute(query).fetchone()
    return files, size


def trashed_files(connection: sqlite3.Connection, job_id: str, entry: str) -> list[FileRow]:
    """Return the files that were deleted with a job, in their order."""
    query = f"SELECT {FILE_COLUMNS} FROM trashed WHERE job_id = ? AND entry = ? ORDER BY rowid"
    return [_file_row(row) for row in connection.execute(query, (job_id, entry))]


def sharers(connection: sqlite3.Connection, file_id: str) -> list[str]:
    """Return the ids of the files that share a file's bytes: those of the library, and then of the trash."""
    query = (
        "SELECT file_id FROM (SELECT file_id, 0 AS place, rowid AS number FROM files WHERE same_file_as = ?1"
        " UNION ALL SELECT file_id, 1, rowid FROM trashed WHERE same_file_as = ?1) ORDER BY place, number"
    )
    return [row[0] for row in connection.execute(query, (file_id,))]


def known_spelling(connection: sqlite3.Connection, table: str, identifier: str) -> str | None:
    """Return the id that is known in ``jobs`` or ``projects`` and equals this one but for case."""
    column = {"jobs": "job_id", "projects": "project_id"}[table]
    query = f"SELECT {column} FROM {table} WHERE comparable = ?"
    row = connection.execute(query, (comparable(identifier),)).fetchone()
    return None if row is None else str(row[0])


def known_among(connection: sqlite3.Connection, job_ids: Iterable[str]) -> set[str]:
    """Return those of some ids that are known jobs."""
    query = "SELECT job_id FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))"
    return {row[0] for row in connection.execute(query, (json.dumps(list(job_ids)),))}


FILE_COLUMNS: Final = "offset, length, ordinal, overlay"


def _file_row(row: tuple[Any, ...]) -> FileRow:
    return FileRow(row[0], row[1], row[2], json.loads(row[3]) if row[3] else {})


def files_of_job(connection: sqlite3.Connection, job_id: str) -> list[FileRow]:
    """Return a job's files in the order in which they were organized."""
    query = f"SELECT {FILE_COLUMNS} FROM files WHERE job_id = ? ORDER BY rowid"
    return [_file_row(row) for row in connection.execute(query, (job_id,))]


def find_file(connection: sqlite3.Connection, key: str) -> FileRow | None:
    """Return a file by its id or its path."""
    query = f"SELECT {FILE_COLUMNS} FROM files WHERE file_id = ? OR path = ?"
    try:
        path = os.fsencode(key)
    except UnicodeEncodeError:  # half a surrogate pair, which no name can hold
        return None
    row = connection.execute(query, (path.decode("ascii", "replace"), path)).fetchone()
    return None if row is None else _file_row(row)


def files_with_ids(connection: sqlite3.Connection, file_ids: Iterable[str]) -> list[FileRow]:
    """Return the files of the library that have some ids, in the order of the document."""
    query = (
        f"SELECT {FILE_COLUMNS} FROM files WHERE file_id IN (SELECT value FROM json_each(?))"
        " ORDER BY offset, ordinal"
    )
    return [_file_row(row) for row in connection.execute(query, (json.dumps(list(file_ids)),))]


def trashed_with_ids(connection: sqlite3.Connection, file_ids: Iterable[str]) -> dict[str, str]:
    """Return for those of some files that rest in the trash their job."""
    query = "SELECT file_id, job_id FROM trashed WHERE file_id IN (SELECT value FROM json_each(?))"
    return dict(connection.execute(query, (json.dumps(list(file_ids)),)).fetchall())


def legacy_files(connection: sqlite3.Connection) -> Iterator[FileRow]:
    """Yield the files that belong to no job, in the order in which they were recorded."""
    query = f"SELECT {FILE_COLUMNS} FROM files WHERE job_id IS NULL ORDER BY rowid"
    return map(_file_row, connection.execute(query))


def all_files(connection: sqlite3.Connection) -> Iterator[tuple[FileRow, Mapping[str, Any]]]:
    """Yield every file, in the order in which they were recorded, with the state of its job."""
    query = (
        f"SELECT {FILE_COLUMNS}, coalesce(state, '{{}}') FROM files LEFT JOIN jobs USING (job_id)"
        " ORDER BY files.rowid"
    )
    for row in connection.execute(query):
        yield _file_row(row), json.loads(row[-1])


def is_file_id(connection: sqlite3.Connection, file_id: str) -> bool:
    """Say whether a file in the library or in the trash has an id."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM files WHERE file_id = ?1)"
        " OR EXISTS (SELECT 1 FROM trashed WHERE file_id = ?1)"
    )
    return bool(connection.execute(query, (file_id,)).fetchone()[0])


def legacy_files_after(connection: sqlite3.Connection, file_id: str, limit: int) -> list[FileRow]:
    """Return files that belong to no job, in the order of their ids, from behind one on."""
    # The plus keeps SQLite from sorting all of them, each time, by the index of jobs.
    query = (
        f"SELECT {FILE_COLUMNS} FROM files WHERE +job_id IS NULL AND file_id > ?"
        " ORDER BY file_id LIMIT ?"
    )
    return [_file_row(row) for row in connection.execute(query, (file_id, limit))]


def jobs_from(connection: sqlite3.Connection, job_id: str, limit: int) -> list[str]:
    """Return the ids of jobs with files, in their order, from one on."""
    query = "SELECT job_id FROM jobs WHERE job_id >= ? AND file_count ORDER BY job_id LIMIT ?"
    return [row[0] for row in connection.execute(query, (job_id, limit))]


def trash_from(
    connection: sqlite3.Connection, job_id: str, entry: str, limit: int
) -> list[tuple[str, str]]:
    """Return the deletions in the trash as job id and entry, in their order, from one on."""
    query = (
        "SELECT job_id, entry FROM trash WHERE (job_id, entry) >= (?, ?) ORDER BY job_id, entry"
        " LIMIT ?"
    )
    return connection.execute(query, (job_id, entry, limit)).fetchall()


def find_trashed(connection: sqlite3.Connection, file_id: str) -> tuple[str, FileRow] | None:
    """Return a file in the trash by its id, behind the entry in which it rests."""
    query = f"SELECT entry, {FILE_COLUMNS} FROM trashed WHERE file_id = ?"
    row = connection.execute(query, (file_id,)).fetchone()
    return None if row is None else (row[0], _file_row(row[1:]))


def files_named(connection: sqlite3.Connection, original_path: str) -> list[FileRow]:
    """Return all files that ComfyUI wrote under a path, oldest first."""
    # Not by rowid: a row that was in the trash meanwhile stands last in its table.
    query = (
        f"SELECT {FILE_COLUMNS} FROM files WHERE original_path = ?"
        " ORDER BY created_us, offset, ordinal"
    )
    return [_file_row(row) for row in connection.execute(query, (os.fsencode(original_path),))]


def originals_beginning(connection: sqlite3.Connection, beginning: str) -> list[bytes]:
    """Return the paths under which ComfyUI wrote recorded files, as far as they begin in some way."""
    query = "SELECT DISTINCT original_path FROM files WHERE original_path BETWEEN ?1 AND ?2"
    first = os.fsencode(beginning)
    return [row[0] for row in connection.execute(query, (first, first + b"\xff"))]


def singles_named(connection: sqlite3.Connection, original_path: str) -> list[FileRow]:
    """Return the files of cached runs whose original, written under a path, has no record yet."""
    query = f"SELECT {FILE_COLUMNS} FROM files WHERE is_single AND original_path = ?"
    return [_file_row(row) for row in connection.execute(query, (os.fsencode(original_path),))]


_NOT_MISSING: Final = "NOT coalesce(json_extract(overlay, '$.missing'), 0)"


def sample_of_paths(connection: sqlite3.Connection, most: int) -> list[bytes]:
    """Return the paths of some files that are not known to be missing, evenly spread over the table."""
    last = connection.execute("SELECT coalesce(max(rowid), 0) FROM files").fetchone()[0]
    step = last // most + 1
    numbers = json.dumps(list(range(1, last + 1, step)))
    query = (
        "SELECT path FROM files WHERE rowid IN (SELECT value FROM json_each(?)) AND " + _NOT_MISSING
    )
    return [row[0] for row in connection.execute(query, (numbers,))]


def paths_after(
    connection: sqlite3.Connection, file_id: str, most: int
) -> list[tuple[str, str | None, bytes]]:
    """Return id, job and path of files that are not known to be missing, in the order of their ids."""
    query = (
        f"SELECT file_id, job_id, path FROM files WHERE file_id > ? AND {_NOT_MISSING}"
        " ORDER BY file_id LIMIT ?"
    )
    return connection.execute(query, (file_id, most)).fetchall()


def owner_of(connection: sqlite3.Connection, path: str) -> tuple[str | None] | None:
    """Return the owner of the file recorded at a path in a tuple (a legacy file has none), or ``None``."""
    row: tuple[str | None] | None = connection.execute(
        "SELECT job_id FROM files WHERE path = ?", (os.fsencode(path),)
    ).fetchone()
    return row


def paths_of_job(
    connection: sqlite3.Connection, job_id: str
) -> list[tuple[bytes, bytes, str | None]]:
    """Return path, original path (as the file system has it) and ComfyUI run of each file of a job."""
    return connection.execute(
        "SELECT path, original_path, prompt_id FROM files WHERE job_id = ?", (job_id,)
    ).fetchall()


@dataclass(frozen=True, slots=True)
class Totals:
    """The library in numbers; what belongs to no job is ``legacy``, and counted in all of it, too."""

    jobs: int
    projects: int
    files: int
    size: int
    types: Mapping[str, int]
    legacy_files: int
    legacy_size: int


def kept_totals(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int, int]]:
    """Yield project, file type, number of files and their bytes, of all files that belong to a job."""
    query = (
        "SELECT project_id, file_type, file_count, total_size FROM types"
        " WHERE project_id != '' AND file_count"
    )
    return connection.execute(query)


def totals(connection: sqlite3.Connection, project_id: str | None = None) -> Totals:
    """Return the kept totals of the library, or of one project."""
    chosen = ("", ()) if project_id is None else (" WHERE project_id = ?", (project_id,))
    projects, jobs = connection.execute(
        f"SELECT count(*), coalesce(sum(job_count), 0) FROM projects{chosen[0]}", chosen[1]
    ).fetchone()
    types: Counter[str] = Counter()
    sizes: Counter[bool] = Counter()
    numbers: Counter[bool] = Counter()
    query = f"SELECT project_id = '', file_type, file_count, total_size FROM types{chosen[0]}"
    for is_legacy, file_type, number, size in connection.execute(query, chosen[1]):
        types[file_type] += number
        numbers[bool(is_legacy)] += number
        sizes[bool(is_legacy)] += size
    return Totals(
        jobs=jobs,
        projects=projects,
        files=numbers.total(),
        size=sizes.total(),
        types={name: types[name] for name in sorted(types) if types[name]},
        legacy_files=numbers[True],
        legacy_size=sizes[True],
    )
