"""What people and work say of a job, in the index: its state, and what questions need of it in columns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any


def read_state(connection: sqlite3.Connection, job_id: str) -> Mapping[str, Any]:
    """Return the state of a job; of one that is not known an empty one."""
    row = connection.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    state: Mapping[str, Any] = {} if row is None else json.loads(row[0])
    return state


def write_state(
    connection: sqlite3.Connection,
    job_id: str,
    state: Mapping[str, Any],
    before: Mapping[str, Any],
) -> None:
    """Set the state of a job that is known; ``before`` is the one that it had."""
    connection.execute(
        "UPDATE jobs SET state = ?, is_pending = ?, is_pinned = ? WHERE job_id = ?",
        (json.dumps(state), bool(state.get("pending")), bool(state.get("pinned")), job_id),
    )
    if state.get("tags") != before.get("tags"):
        forget_tags(connection, job_id, before)
        connection.executemany(
            "INSERT INTO job_tags VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(tag, job_id) for tag in state.get("tags", ())],
        )


def forget_tags(connection: sqlite3.Connection, job_id: str, state: Mapping[str, Any]) -> None:
    """Take out the tags of a job that has had a state."""
    connection.executemany(
        "DELETE FROM job_tags WHERE tag = ? AND job_id = ?",
        [(tag, job_id) for tag in state.get("tags", ())],
    )


def merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as a merge patch changes it (RFC 7396): by key and in depth, and null removes."""
    after = dict(before)
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, Mapping):
            inside = after.get(key)
            after[key] = merged(inside if isinstance(inside, Mapping) else {}, value)
        else:
            after[key] = value
    return after
