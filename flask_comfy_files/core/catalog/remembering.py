"""What the index of a damaged document still tells, of which the document itself does not any more.

It is believed in what it says of a path or a job, and never where it cannot be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.catalog import index

_COLUMNS: Final = "file_id, original_path, prompt_id, created_us, same_file_as"


@dataclass(frozen=True, slots=True)
class RememberedFile:
    """What was known of a file."""

    file_id: str
    original_path: str
    prompt_id: str | None
    created_us: int
    same_file_as: str | None


@dataclass(frozen=True, slots=True)
class RememberedJob:
    """What was known of a job."""

    project_id: str
    created_at: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RememberedDeletion:
    """What was known of a deleted job; ``facts`` are those of its deletion."""

    project_id: str
    facts: Mapping[str, Any]
    job: RememberedJob


class Remembered:
    """Answers from an index that nobody changes any more."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        """Answer nothing at all without a connection."""
        self._connection = connection

    def file(self, path: str) -> RememberedFile | None:
        """Return what was known of the file at a path."""
        return _file(self._ask(f"SELECT {_COLUMNS} FROM files WHERE path = ?", os.fsencode(path)))

    def trashed_file(self, job_id: str, entry: str, path: str) -> RememberedFile | None:
        """Return what was known of a file that was deleted with a job and lay at a path before."""
        query = f"SELECT {_COLUMNS} FROM trashed WHERE job_id = ? AND entry = ? AND path = ?"
        return _file(self._ask(query, job_id, entry, os.fsencode(path)))

    def deletion(self, job_id: str, entry: str) -> RememberedDeletion | None:
        """Return what was known of a deleted job."""
        query = "SELECT project_id, facts, job FROM trash WHERE job_id = ? AND entry = ?"
        row = self._ask(query, job_id, entry)
        if row is None:
            return None
        project_id, facts, job = row[0], json.loads(row[1]), json.loads(row[2])
        known = RememberedJob(project_id, job["created_at"], job["state"])
        return RememberedDeletion(project_id, facts, known)

    def job(self, job_id: str) -> RememberedJob | None:
        """Return what was known of a job."""
        row = self._ask("SELECT project_id, created_at, state FROM jobs WHERE job_id = ?", job_id)
        return None if row is None else RememberedJob(row[0], row[1], json.loads(row[2]))

    def _ask(self, query: str, *key: object) -> tuple[Any, ...] | None:
        if self._connection is None:
            return None
        try:
            row: tuple[Any, ...] | None = self._connection.execute(query, key).fetchone()
        except (sqlite3.Error, ValueError):
            return None
        return row


def _file(row: tuple[Any, ...] | None) -> RememberedFile | None:
    return None if row is None else RememberedFile(row[0], os.fsdecode(row[1]), *row[2:])


@contextlib.contextmanager
def remember(path: str, library_id: str | None) -> Iterator[Remembered]:
    """Open an index for what it remembers; one of another library or version, or a damaged one, tells nothing."""
    with contextlib.ExitStack() as stack:
        connection = None
        with contextlib.suppress(sqlite3.Error):
            connection = stack.enter_context(index.opened(path))
            mark = index.read_mark(connection)
            if mark is None or library_id not in {None, mark.library_id}:
                connection = None
        yield Remembered(connection)
