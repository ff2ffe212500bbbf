"""The operations of a library in its index: what each did, in numbers, and between which lines it stands."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.catalog.document import COMPACT, Change, Line
from flask_comfy_files.core.records import microseconds

SCHEMA: Final = """
CREATE TABLE operations (
    operation_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    first_offset INTEGER NOT NULL,
    last_end INTEGER NOT NULL,
    jobs INTEGER NOT NULL,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    undoes TEXT,
    undone_by TEXT,
    generation INTEGER
) WITHOUT ROWID;
CREATE TABLE operation_jobs (
    job_id TEXT, operation_id TEXT, PRIMARY KEY (job_id, operation_id)
) WITHOUT ROWID;
"""

INDEXES: Final = """
CREATE INDEX IF NOT EXISTS operations_by_time ON operations (at_us, operation_id);
CREATE INDEX IF NOT EXISTS operations_by_kind ON operations (kind, at_us, operation_id);
CREATE INDEX IF NOT EXISTS undoing_operations ON operations (undoes) WHERE undoes IS NOT NULL;
"""

_OF_ONE_JOB: Final = frozenset({"organize", "mark"})
"""Kinds whose jobs need no counting, so that the most frequent operations cost one row."""


@dataclass(frozen=True, slots=True)
class OperationRow:
    """What the index knows of an operation; its lines stand between two offsets, among others."""

    operation_id: str
    kind: str
    at_us: int
    first_offset: int
    last_end: int
    jobs: int
    files: int
    bytes: int
    undoes: str | None
    undone_by: str | None
    generation: int | None
    """That of the older document in which its lines stand; ``None`` for the one that holds."""


def fold_operation(connection: sqlite3.Connection, line: Line) -> None:
    """Take a line into the account of its operation, before it has its effect on the other rows."""
    change = line.change
    operation = change["operation"]
    if operation["kind"] == COMPACT:
        _take_over(connection, change.get("operations", ()))
        return
    operation_id = _belongs_to(connection, operation)
    files, size = _counted(connection, change, operation_id)
    jobs = _new_jobs(connection, change, operation_id)
    if operation.get("undoes") and find_operation(connection, operation_id) is None:
        _mark_undone(connection, operation_id, operation["undoes"])
    # What is destroyed long after it was deleted has the same id; nobody should have to look that far.
    connection.execute(
        "INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)"
        " ON CONFLICT DO UPDATE SET last_end = CASE WHEN generation IS NOT NULL"
        " OR (excluded.kind = 'purge' AND kind <> 'purge') THEN last_end ELSE excluded.last_end END,"
        " jobs = CASE WHEN kind IN ('organize', 'mark') THEN jobs ELSE jobs + excluded.jobs END,"
        " files = files + excluded.files, bytes = bytes + excluded.bytes",
        (
            operation_id,
            operation["kind"],
            microseconds(operation["at"]),
            line.offset,
            line.end,
            jobs,
            files,
            size,
            operation.get("undoes"),
        ),
    )


def _take_over(connection: sqlite3.Connection, rows: Iterable[Sequence[Any]]) -> None:
    """Take in operations whose lines stand in older documents."""
    marks = ", ".join("?" * len(_COLUMNS.split(", ")))
    connection.executemany(f"INSERT OR REPLACE INTO operations ({_COLUMNS}) VALUES ({marks})", rows)


def rows_for(connection: sqlite3.Connection, generation: int) -> Iterator[list[Any]]:
    """Yield the operations as a document tells them that comes after the one of a generation."""
    query = f"SELECT {_COLUMNS} FROM operations ORDER BY at_us, operation_id"
    for row in connection.execute(query):
        yield [*row[:-1], generation if row[-1] is None else row[-1]]


def _belongs_to(connection: sqlite3.Connection, operation: Mapping[str, Any]) -> str:
    """Return the id of the operation to which a line belongs: a correction to that which it corrects."""
    corrected = operation.get("corrects")
    if corrected is not None and find_operation(connection, corrected) is not None:
        return str(corrected)
    return str(operation["id"])


def _counted(connection: sqlite3.Connection, change: Change, operation_id: str) -> tuple[int, int]:
    """Return by how many files and bytes a line adds to what its operation did; corrections take away."""
    kind = change["operation"]["kind"]
    sign = -1 if "corrects" in change["operation"] else 1
    if change["kind"] != "state":
        sizes = [stored["file_size"] for stored in change["files"]]
        return sign * len(sizes), sign * sum(sizes)
    if "trash" in change:
        # One of another entry takes a restoration back.
        facts = change["trash"]
        return _signed(facts, facts["entry"] == operation_id)
    if "restore" in change or ("purge" in change and kind == "purge"):
        entry = (change.get("restore") or change["purge"])["entry"]
        if "purge" in change and entry == operation_id:
            return 0, 0  # it was counted when it went to the trash
        return _signed(_facts(connection, change["job_id"], entry), entry != operation_id)
    return _counted_overlays(connection, change, sign)


def _signed(facts: Mapping[str, Any], is_effect: bool) -> tuple[int, int]:  # noqa: FBT001 - the sign
    sign = 1 if is_effect else -1
    return sign * facts.get("files", 0), sign * facts.get("bytes", 0)


def _facts(connection: sqlite3.Connection, job_id: str, entry: str) -> Mapping[str, Any]:
    query = "SELECT facts FROM trash WHERE job_id = ? AND entry = ?"
    row = connection.execute(query, (job_id, entry)).fetchone()
    facts: Mapping[str, Any] = {} if row is None else json.loads(row[0])
    return facts


def _counted_overlays(connection: sqlite3.Connection, change: Change, sign: int) -> tuple[int, int]:
    files = size = 0
    for file_id, overlay in change.get("files", {}).items():
        if "record" in overlay:  # put back, or put elsewhere by a correction
            number = int(sign > 0)
            of_file = overlay["record"]["file_size"]
        elif overlay.get("withdrawn") or "before" in change:
            number = -1 if overlay.get("withdrawn") else 1
            query = "SELECT file_size FROM files WHERE file_id = ?"
            row = connection.execute(query, (file_id,)).fetchone()
            if row is None:
                continue
            of_file = row[0]
        else:
            continue
        files, size = files + number, size + number * of_file
    return files, size


def _new_jobs(connection: sqlite3.Connection, change: Change, operation_id: str) -> int:
    job_id, kind = change["job_id"], change["operation"]["kind"]
    if kind in _OF_ONE_JOB:
        return 1
    if job_id is None:
        return 0
    entry = (change.get("trash") or change.get("restore") or {}).get("entry")
    if entry is not None and ("trash" in change) != (entry == operation_id):
        query = "DELETE FROM operation_jobs WHERE operation_id = ? AND job_id = ?"
        return -connection.execute(query, (operation_id, job_id)).rowcount
    query = "INSERT INTO operation_jobs VALUES (?, ?) ON CONFLICT DO NOTHING"
    return connection.execute(query, (job_id, operation_id)).rowcount


def _mark_undone(connection: sqlite3.Connection, operation_id: str, undoes: str) -> None:
    """Note what an undo undoes; undoing an undo brings back what that had undone, and so on."""
    undone: str | None = undoes
    undone_by: str | None = operation_id
    while undone is not None:
        query = "UPDATE operations SET undone_by = ? WHERE operation_id = ? RETURNING undoes"
        row = connection.execute(query, (undone_by, undone)).fetchone()
        undone_by = undone if undone_by is None else None
        undone = None if row is None else row[0]


_COLUMNS: Final = (
    "operation_id, kind, at_us, first_offset, last_end, jobs, files, bytes, undoes, undone_by,"
    " generation"
)


def last_operation_on(connection: sqlite3.Connection, job_id: str) -> str | None:
    """Return the last operation on a job, but for organizing and marking it, as far as the document tells."""
    query = (
        "SELECT operation_id FROM operation_jobs JOIN operations USING (operation_id)"
        " WHERE job_id = ? ORDER BY at_us DESC, operation_id DESC LIMIT 1"
    )
    row = connection.execute(query, (job_id,)).fetchone()
    return None if row is None else str(row[0])


def find_operation(connection: sqlite3.Connection, operation_id: str) -> OperationRow | None:
    """Return an operation by its id."""
    query = f"SELECT {_COLUMNS} FROM operations WHERE operation_id = ?"
    row = connection.execute(query, (operation_id,)).fetchone()
    return None if row is None else OperationRow(*row)


def newest_operations(
    connection: sqlite3.Connection,
    kind: str | None,
    limit: int,
    before: tuple[int, str] | None,
) -> list[OperationRow]:
    """Return operations, of one kind or of all, newest first, that are older than one by time and id."""
    conditions = [
        *(["kind = :kind"] if kind is not None else []),
        *(["(at_us, operation_id) < (:at_us, :id)"] if before is not None else []),
    ]
    query = (
        f"SELECT {_COLUMNS} FROM operations"
        f"{' WHERE ' if conditions else ''}{' AND '.join(conditions)}"
        " ORDER BY at_us DESC, operation_id DESC LIMIT :limit"
    )
    at_us, operation_id = before or (0, "")
    values = {"kind": kind, "limit": limit, "at_us": at_us, "id": operation_id}
    return [OperationRow(*row) for row in connection.execute(query, values)]


def operations_undoing(connection: sqlite3.Connection, operation_id: str) -> list[OperationRow]:
    """Return the operations by which one was undone, or a part of it, oldest first."""
    query = f"SELECT {_COLUMNS} FROM operations WHERE undoes = ? ORDER BY first_offset"
    return [OperationRow(*row) for row in connection.execute(query, (operation_id,))]
