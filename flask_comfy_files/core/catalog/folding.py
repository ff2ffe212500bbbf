"""Taking lines of the document into the index: what each kind of change does to the rows."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from flask_comfy_files.core.catalog import operations, trashing
from flask_comfy_files.core.catalog.counting import Counted
from flask_comfy_files.core.catalog.document import Change, Line
from flask_comfy_files.core.catalog.job_state import merged, read_state, write_state
from flask_comfy_files.core.layout import comparable
from flask_comfy_files.core.records import Evidence, microseconds


def fold(connection: sqlite3.Connection, lines: Iterable[Line]) -> None:
    """Take lines into the index, in their order."""
    counted = Counted()
    for line in lines:
        change = line.change
        operations.fold_operation(connection, line)
        if change["kind"] == "state":
            _fold_state(connection, change, counted)
        else:
            _fold_files(connection, line, counted)
        connection.execute(
            "UPDATE jobs SET seq = ? WHERE job_id = ?",
            (change.get("last_change", change["seq"]), change["job_id"]),
        )
    counted.write(connection)


def _fold_files(connection: sqlite3.Connection, line: Line, counted: Counted) -> None:
    change = line.change
    job_id, files = change["job_id"], change["files"]
    if change["kind"] == "job":
        _begin_job(connection, change, counted)
    for stored in files:
        if "moved_from" in stored:
            _withdraw(connection, stored["file_id"], counted)
    size = counted_size = 0
    for stored in files:
        size += stored["file_size"]
        counted_size += _counted_size(stored)
        counted.add_files(stored["project_id"] or "", stored["file_type"], 1, _counted_size(stored))
    created_us = [microseconds(stored["created_at"]) for stored in files]
    connection.execute(
        "UPDATE jobs SET operation_id = ?1, file_count = file_count + ?2, total_size = total_size + ?3,"
        " counted_size = counted_size + ?4, newest_us = max(coalesce(newest_us, ?5), coalesce(?5, newest_us))"
        " WHERE job_id = ?6",
        (
            change["operation"]["id"],
            len(files),
            size,
            counted_size,
            max(created_us, default=None),
            job_id,
        ),
    )
    _set_state(connection, job_id, change.get("state", {}))
    twins = change.get("twins", {})
    for twin_id, overlay in twins.items():
        _overlay_file(connection, twin_id, overlay, counted)
    if twins:
        trashing.recount_with(connection, twins)
    connection.executemany(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                stored["file_id"],
                job_id,
                stored["project_id"],
                os.fsencode(stored["path"]),
                os.fsencode(stored["original_path"]),
                stored["prompt_id"],
                stored["file_type"],
                created_us[ordinal],
                stored["file_size"],
                _counted_size(stored),
                stored["evidence"] == Evidence.CACHED and stored["same_file_as"] is None,
                stored["same_file_as"],
                line.offset,
                line.length,
                ordinal,
                '{"missing": true}' if stored.get("missing") else None,
            )
            for ordinal, stored in enumerate(files)
        ],
    )


def _begin_job(connection: sqlite3.Connection, change: Change, counted: Counted) -> None:
    """Take in a job; its line names its files whole, so those of an earlier line give way."""
    job_id, project_id = change["job_id"], change["project_id"]
    created_at = change.get("created_at", change["operation"]["at"])
    added = connection.execute(
        "INSERT INTO jobs (job_id, comparable, project_id, created_at, created_us)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            job_id,
            comparable(job_id),
            project_id,
            created_at,
            microseconds(created_at),
        ),
    )
    if added.rowcount:
        counted.add_jobs(project_id, 1)
        return
    earlier = connection.execute(
        "DELETE FROM files WHERE job_id = ? RETURNING file_type, counted_size", (job_id,)
    )
    for file_type, size in earlier.fetchall():
        counted.add_files(project_id, file_type, -1, -size)
    connection.execute(
        "UPDATE jobs SET file_count = 0, total_size = 0, counted_size = 0, newest_us = NULL"
        " WHERE job_id = ?",
        (job_id,),
    )


def _fold_state(connection: sqlite3.Connection, change: Change, counted: Counted) -> None:
    job_id = change["job_id"]
    # A file takes its new path while it is in the trash, where it is in nobody's way.
    if "trash" in change:
        trashing.trash(connection, change, counted)
    overlays = {**change.get("files", {}), **change.get("twins", {})}
    for file_id, overlay in overlays.items():
        if overlay.get("withdrawn"):
            _withdraw(connection, file_id, counted)
        else:
            _overlay_file(connection, file_id, overlay, counted)
    if overlays:
        trashing.recount_with(connection, overlays)
    if "restore" in change:
        trashing.restore(connection, change, counted)
    _set_state(connection, job_id, change.get("state", {}))
    if "purge" in change:
        trashing.purge(connection, change)


def _overlay_file(
    connection: sqlite3.Connection, file_id: str, overlay: Mapping[str, Any], counted: Counted
) -> None:
    if "same_file_as" in overlay:
        _share_or_not(connection, file_id, overlay["same_file_as"], counted)
    if "file_size" in overlay:
        _resize(connection, file_id, overlay["file_size"], counted)
    path = os.fsencode(overlay["path"]) if "path" in overlay else None
    for table in ("files", "trashed"):
        query = f"SELECT overlay FROM {table} WHERE file_id = ?"
        for (before,) in connection.execute(query, (file_id,)).fetchall():
            # Not by json_patch: a null would remove the key, and has to hide that of the record.
            after = {**json.loads(before or "{}"), **overlay}
            connection.execute(
                f"UPDATE {table} SET overlay = ?, path = coalesce(?, path) WHERE file_id = ?",
                (json.dumps(after), path, file_id),
            )


def _resize(connection: sqlite3.Connection, file_id: str, size: int, counted: Counted) -> None:
    """Take in that a file has another size than it was recorded with."""
    query = "SELECT job_id, file_type, file_size, same_file_as FROM files WHERE file_id = ?"
    for job_id, file_type, before, same_file_as in connection.execute(query, (file_id,)).fetchall():
        change = size - before
        counted_change = change if same_file_as is None else 0
        job = connection.execute(
            "UPDATE jobs SET total_size = total_size + ?, counted_size = counted_size + ?"
            " WHERE job_id = ? RETURNING project_id",
            (change, counted_change, job_id),
        ).fetchone()
        counted.add_files(job[0] if job else "", file_type, 0, counted_change)
    for table in ("files", "trashed"):
        connection.execute(
            f"UPDATE {table} SET file_size = ?1,"
            " counted_size = CASE WHEN same_file_as IS NULL THEN ?1 ELSE 0 END WHERE file_id = ?2",
            (size, file_id),
        )


def _withdraw(connection: sqlite3.Connection, file_id: str, counted: Counted) -> None:
    query = (
        "DELETE FROM files WHERE file_id = ? RETURNING job_id, file_type, file_size, counted_size"
    )
    rows = connection.execute(query, (file_id,)).fetchall()
    for job_id, file_type, size, counted_size in rows:
        job = connection.execute(
            "UPDATE jobs SET file_count = file_count - 1, total_size = total_size - ?,"
            " counted_size = counted_size - ? WHERE job_id = ? RETURNING project_id",
            (size, counted_size, job_id),
        ).fetchone()
        counted.add_files(job[0] if job else "", file_type, -1, -counted_size)


def _share_or_not(
    connection: sqlite3.Connection, file_id: str, same_file_as: str | None, counted: Counted
) -> None:
    """Leave the counting of a file's bytes to the record with which it shares them, or take it back."""
    query = "SELECT job_id, file_type, file_size, counted_size FROM files WHERE file_id = ?"
    for job_id, file_type, size, counted_before in connection.execute(query, (file_id,)).fetchall():
        change = (size if same_file_as is None else 0) - counted_before
        job = connection.execute(
            "UPDATE jobs SET counted_size = counted_size + ? WHERE job_id = ? RETURNING project_id",
            (change, job_id),
        )
        counted.add_files(job.fetchone()[0], file_type, 0, change)
    for table in ("files", "trashed"):
        connection.execute(
            f"UPDATE {table} SET same_file_as = ?1, is_single = ?1 IS NULL,"
            " counted_size = CASE WHEN ?1 IS NULL THEN file_size ELSE 0 END WHERE file_id = ?2",
            (same_file_as, file_id),
        )


def _counted_size(stored: Mapping[str, Any]) -> int:
    """Return the bytes by which a file adds to the totals: none where another record has them."""
    return 0 if stored.get("same_file_as") else int(stored["file_size"])


def _set_state(connection: sqlite3.Connection, job_id: str, patch: Mapping[str, Any]) -> None:
    if patch:
        before = read_state(connection, job_id)
        write_state(connection, job_id, merged(before, patch), before)
