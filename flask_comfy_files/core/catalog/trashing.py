"""Jobs on their way into the trash and out of it: what that does to the rows of the index.

A job's rows are set aside with everything that brings it back as it was. So no question about the library
meets a deleted job, and its id is free.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from flask_comfy_files.core.catalog.counting import Counted
from flask_comfy_files.core.catalog.document import Change
from flask_comfy_files.core.catalog.job_state import forget_tags, merged, read_state, write_state
from flask_comfy_files.core.layout import comparable
from flask_comfy_files.core.records import microseconds

FILES_OF_JOB: Final = (
    "CREATE INDEX IF NOT EXISTS files_of_job ON files (job_id, created_us, file_id)"
)
"""Not there while a whole document is taken in; without it each deletion would look at every file."""

_RECOUNT = (
    "UPDATE jobs SET (file_count, total_size, counted_size, newest_us) = (SELECT count(*),"
    " coalesce(sum(file_size), 0), coalesce(sum(counted_size), 0), max(created_us)"
    " FROM files WHERE job_id = ?1) WHERE job_id = ?1"
)

_RECOUNT_ENTRY = (
    "UPDATE trash SET (file_count, total_size, counted_size) = (SELECT count(*),"
    " coalesce(sum(file_size), 0), coalesce(sum(counted_size), 0) FROM trashed"
    " WHERE trashed.job_id = trash.job_id AND trashed.entry = trash.entry"
    " AND NOT coalesce(json_extract(overlay, '$.missing'), 0)) WHERE (job_id, entry) "
)
"""What is missing does not rest in the trash."""


def trash(connection: sqlite3.Connection, change: Change, counted: Counted) -> None:
    """Take a job's rows out, but for the files that are kept; a job that keeps none is known no more."""
    connection.execute(FILES_OF_JOB)
    job_id, facts = change["job_id"], change["trash"]
    project_id, created_at, operation_id, state = connection.execute(
        "SELECT project_id, created_at, operation_id, state FROM jobs WHERE job_id = ?", (job_id,)
    ).fetchone()
    chosen = (job_id, json.dumps(list(facts["kept"])))
    condition = "job_id = ? AND file_id NOT IN (SELECT value FROM json_each(?))"
    for file_type, files, bytes_ in _by_type(connection, condition, chosen):
        counted.add_files(project_id, file_type, -files, -bytes_)
    job = {"created_at": created_at, "operation_id": operation_id, "state": json.loads(state)}
    connection.execute(
        "INSERT INTO trash VALUES (?, ?, ?, ?, 0, 0, 0, ?, ?)",
        (
            job_id,
            facts["entry"],
            project_id,
            microseconds(facts["at"]),
            json.dumps(facts),
            json.dumps(job),
        ),
    )
    connection.execute(
        f"INSERT INTO trashed SELECT ?, * FROM files WHERE {condition} ORDER BY rowid",
        (facts["entry"], *chosen),
    )
    connection.execute(_RECOUNT_ENTRY + "= (?, ?)", (job_id, facts["entry"]))
    connection.execute(f"DELETE FROM files WHERE {condition}", chosen)
    if facts["kept"]:
        connection.execute(_RECOUNT, (job_id,))
    else:
        connection.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))
        forget_tags(connection, job_id, job["state"])
        counted.add_jobs(project_id, -1)


def restore(connection: sqlite3.Connection, change: Change, counted: Counted) -> None:
    """Put a job's rows back; where the job's id is in use again, beside those that it has."""
    connection.execute(FILES_OF_JOB)
    job_id, entry = change["job_id"], change["restore"]["entry"]
    row = connection.execute(
        "DELETE FROM trash WHERE job_id = ? AND entry = ? RETURNING project_id, job",
        (job_id, entry),
    ).fetchone()
    project_id, job = row[0], json.loads(row[1])
    added = connection.execute(
        "INSERT INTO jobs (job_id, comparable, project_id, created_at, created_us, operation_id)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            job_id,
            comparable(job_id),
            project_id,
            job["created_at"],
            microseconds(job["created_at"]),
            job["operation_id"],
        ),
    )
    if added.rowcount:
        counted.add_jobs(project_id, 1)
    # What is said of the job by now holds; what only the deleted one had comes back.
    state = read_state(connection, job_id)
    deleted = {
        key: value for key, value in job["state"].items() if added.rowcount or key != "reason"
    }
    write_state(connection, job_id, merged(deleted, state), state)
    columns = ", ".join(row[1] for row in connection.execute("PRAGMA table_info(files)"))
    connection.execute(
        f"INSERT INTO files ({columns}) SELECT {columns} FROM trashed"
        " WHERE job_id = ? AND entry = ? ORDER BY rowid",
        (job_id, entry),
    )
    restored = "file_id IN (SELECT file_id FROM trashed WHERE job_id = ? AND entry = ?)"
    for file_type, files, bytes_ in _by_type(connection, restored, (job_id, entry)):
        counted.add_files(project_id, file_type, files, bytes_)
    connection.execute("DELETE FROM trashed WHERE job_id = ? AND entry = ?", (job_id, entry))
    connection.execute(_RECOUNT, (job_id,))


def purge(connection: sqlite3.Connection, change: Change) -> None:
    """Forget a job that was deleted for good."""
    key = change["job_id"], change["purge"]["entry"]
    for table in ("trashed", "trash"):
        connection.execute(f"DELETE FROM {table} WHERE job_id = ? AND entry = ?", key)


def recount_with(connection: sqlite3.Connection, file_ids: Iterable[str]) -> None:
    """Count anew what rests in the trash with some files: they may share bytes by now, or be missing."""
    having = (
        "IN (SELECT job_id, entry FROM trashed WHERE file_id IN (SELECT value FROM json_each(?)))"
    )
    connection.execute(_RECOUNT_ENTRY + having, (json.dumps(list(file_ids)),))


def _by_type(
    connection: sqlite3.Connection, condition: str, chosen: tuple[Any, ...]
) -> list[tuple[str, int, int]]:
    """Return for each file type the number and the counted bytes of some files."""
    query = f"SELECT file_type, count(*), sum(counted_size) FROM files WHERE {condition} GROUP BY 1"
    return connection.execute(query, chosen).fetchall()
