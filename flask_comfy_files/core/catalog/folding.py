"""Taking lines of the document into the index: what each kind of change does to the rows."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from flask_comfy_files.core.catalog.document import Line
from flask_comfy_files.core.layout import comparable
from flask_comfy_files.core.records import Evidence


class _Counted:
    """Numbers and bytes by project and file type that lines add or take away, written at once."""

    def __init__(self) -> None:
        self._jobs: dict[str, int] = {}
        self._types: dict[tuple[str, str], tuple[int, int]] = {}

    def add_job(self, project_id: str) -> None:
        self._jobs[project_id] = self._jobs.get(project_id, 0) + 1

    def add_files(self, project_id: str, file_type: str, number: int, size: int) -> None:
        key = project_id, file_type
        before = self._types.get(key, (0, 0))
        self._types[key] = before[0] + number, before[1] + size

    def write(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO projects (project_id, comparable, job_count) VALUES (?1, ?2, ?3)"
            " ON CONFLICT (project_id) DO UPDATE SET job_count = job_count + ?3",
            [(name, comparable(name), number) for name, number in self._jobs.items()],
        )
        connection.executemany(
            "UPDATE projects SET file_count = file_count + ?2, total_size = total_size + ?3"
            " WHERE project_id = ?1",
            [(name, *numbers) for (name, _), numbers in self._types.items()],
        )
        connection.executemany(
            "INSERT INTO types VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " file_count = file_count + excluded.file_count,"
            " total_size = total_size + excluded.total_size",
            [(*key, *numbers) for key, numbers in self._types.items()],
        )


def fold(connection: sqlite3.Connection, lines: Iterable[Line]) -> None:
    """Take lines into the index, in their order."""
    counted = _Counted()
    for line in lines:
        if line.change["kind"] == "state":
            _fold_state(connection, line, counted)
        else:
            _fold_files(connection, line, counted)
    counted.write(connection)


def _fold_files(connection: sqlite3.Connection, line: Line, counted: _Counted) -> None:
    change = line.change
    job_id, files = change["job_id"], change["files"]
    if change["kind"] == "job":
        _begin_job(connection, change, counted)
    project_id = files[0]["project_id"] if files else ""
    size = 0
    for stored in files:
        size += stored["file_size"]
        counted.add_files(project_id, stored["file_type"], 1, _counted_size(stored))
    connection.execute(
        "UPDATE jobs SET operation_id = ?, file_count = file_count + ?, total_size = total_size + ?"
        " WHERE job_id = ?",
        (change["operation"]["id"], len(files), size, job_id),
    )
    _set_state(connection, job_id, change.get("state", {}))
    for twin_id, overlay in change.get("twins", {}).items():
        _overlay_file(connection, twin_id, overlay, counted)
    connection.executemany(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        [
            (
                stored["file_id"],
                job_id,
                stored["path"],
                os.fsencode(stored["original_path"]),
                stored["prompt_id"],
                stored["file_type"],
                stored["file_size"],
                _counted_size(stored),
                stored["evidence"] == Evidence.CACHED and stored["same_file_as"] is None,
                line.offset,
                line.length,
                ordinal,
            )
            for ordinal, stored in enumerate(files)
        ],
    )


def _begin_job(
    connection: sqlite3.Connection, change: Mapping[str, Any], counted: _Counted
) -> None:
    """Take in a job; its line names its files whole, so those of an earlier line give way."""
    job_id, project_id = change["job_id"], change["project_id"]
    added = connection.execute(
        "INSERT INTO jobs (job_id, comparable, project_id, created_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (job_id, comparable(job_id), project_id, change["operation"]["at"]),
    )
    if added.rowcount:
        counted.add_job(project_id)
        return
    earlier = connection.execute(
        "DELETE FROM files WHERE job_id = ? RETURNING file_type, counted_size", (job_id,)
    )
    for file_type, size in earlier.fetchall():
        counted.add_files(project_id, file_type, -1, -size)
    connection.execute("UPDATE jobs SET file_count = 0, total_size = 0 WHERE job_id = ?", (job_id,))


def _fold_state(connection: sqlite3.Connection, line: Line, counted: _Counted) -> None:
    job_id = line.change["job_id"]
    _set_state(connection, job_id, line.change.get("state", {}))
    for file_id, overlay in line.change.get("files", {}).items():
        if overlay.get("withdrawn"):
            _withdraw(connection, job_id, file_id, counted)
        else:
            _overlay_file(connection, file_id, overlay, counted)


def _overlay_file(
    connection: sqlite3.Connection, file_id: str, overlay: Mapping[str, Any], counted: _Counted
) -> None:
    if "same_file_as" in overlay:
        _share_or_not(connection, file_id, counted, is_shared=overlay["same_file_as"] is not None)
    connection.execute(
        "UPDATE files SET overlay = json_patch(coalesce(overlay, '{}'), ?1),"
        " path = coalesce(?2, path) WHERE file_id = ?3",
        (json.dumps(overlay), overlay.get("path"), file_id),
    )


def _withdraw(connection: sqlite3.Connection, job_id: str, file_id: str, counted: _Counted) -> None:
    query = "DELETE FROM files WHERE file_id = ? RETURNING file_type, file_size, counted_size"
    for file_type, size, counted_size in connection.execute(query, (file_id,)).fetchall():
        job = connection.execute(
            "UPDATE jobs SET file_count = file_count - 1, total_size = total_size - ?"
            " WHERE job_id = ? RETURNING project_id",
            (size, job_id),
        )
        counted.add_files(job.fetchone()[0], file_type, -1, -counted_size)


def _share_or_not(
    connection: sqlite3.Connection, file_id: str, counted: _Counted, *, is_shared: bool
) -> None:
    """Leave the counting of a file's bytes to the record with which it shares them, or take it back."""
    rows = connection.execute(
        "SELECT project_id, file_type, file_size, counted_size FROM files JOIN jobs USING (job_id)"
        " WHERE file_id = ?",
        (file_id,),
    ).fetchall()
    for project_id, file_type, size, counted_before in rows:
        counted_now = 0 if is_shared else size
        counted.add_files(project_id, file_type, 0, counted_now - counted_before)
        connection.execute(
            "UPDATE files SET counted_size = ?, is_single = ? WHERE file_id = ?",
            (counted_now, not is_shared, file_id),
        )


def _counted_size(stored: Mapping[str, Any]) -> int:
    """Return the bytes by which a file adds to the totals: none where another record has them."""
    return 0 if stored.get("same_file_as") else int(stored["file_size"])


def _set_state(connection: sqlite3.Connection, job_id: str, state: Mapping[str, Any]) -> None:
    row = (
        state
        and connection.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    )
    if not row:
        return
    after = _merged(json.loads(row[0]), state)
    connection.execute(
        "UPDATE jobs SET state = ?, is_pending = ? WHERE job_id = ?",
        (json.dumps(after), bool(after.get("pending")), job_id),
    )


def _merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as a merge patch changes it (RFC 7396): by key and in depth, and null removes."""
    after = dict(before)
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, Mapping):
            inside = after.get(key)
            after[key] = _merged(inside if isinstance(inside, Mapping) else {}, value)
        else:
            after[key] = value
    return after
