"""Writing the document anew with what still holds, without the lines that led there.

The long part, the copy, needs no lock: it is of one moment, that of the index. What was appended meanwhile is
added under the lock, and then the new document takes the place of the old one, which is kept. Numbers go on where
they stood, so that none ever means two changes.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog import document, index, operations
from flask_comfy_files.core.catalog.document import COMPACT, Change, Header
from flask_comfy_files.core.catalog.index import Mark
from flask_comfy_files.core.catalog.queries import FILE_COLUMNS
from flask_comfy_files.core.layout import COMPACTED, older_document, split

_OPERATIONS_AT_ONCE: Final = 1000
_OPERATION_BYTES: Final = 150
"""What an operation takes in a compacted document, more or less."""

Stored = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compacted:
    """A copy of what held when the index stood at ``mark``; its own last number is ``seq``."""

    mark: Mark
    seq: int


def live_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes a compacted document has: lines whose records still hold, and operations."""
    query = (
        "SELECT (SELECT coalesce(sum(length), 0) FROM"
        " (SELECT offset, length FROM files UNION SELECT offset, length FROM trashed))"
        " + ? * (SELECT count(*) FROM operations)"
    )
    return int(connection.execute(query, (_OPERATION_BYTES,)).fetchone()[0])


def write(root: str, connection: sqlite3.Connection, descriptor: int, at: str) -> Compacted | None:
    """Copy what holds to a document of the next generation; ``None`` where no index file can be kept.

    Raises:
        OSError: The disk refused; the document that holds is untouched.
    """
    mark = index.read_mark(connection)
    if mark is None:
        return None
    seq = mark.seq

    def numbered() -> Iterator[Stored]:
        nonlocal seq
        for change in _Live(connection, descriptor, mark.generation, at).changes():
            seq += 1
            yield {"seq": seq, **change}

    header = Header(mark.library_id, mark.generation + 1, end=0)
    document.write_new(root, COMPACTED, header, numbered())
    return Compacted(mark, seq)


@dataclass(frozen=True, slots=True)
class _Live:
    """What holds, as changes that make it so in a document that has nothing yet."""

    connection: sqlite3.Connection
    descriptor: int
    generation: int
    at: str

    def changes(self) -> Iterator[Stored]:
        yield from self._operations()
        yield from self._trash()
        yield from self._legacy()
        yield from self._jobs()

    def _operations(self) -> Iterator[Stored]:
        rows = operations.rows_for(self.connection, self.generation)
        while some := list(islice(rows, _OPERATIONS_AT_ONCE)):
            nobody = {"kind": "state", "job_id": None, "operation": self._operation(None)}
            yield {**nobody, "files": {}, "operations": some}

    def _operation(self, operation_id: str | None) -> Stored:
        return {"id": operation_id or "", "kind": COMPACT, "at": self.at}

    def _trash(self) -> Iterator[Stored]:
        rows = self.connection.execute(
            "SELECT job_id, entry, project_id, facts, job FROM trash ORDER BY trashed_us, entry, job_id"
        )
        for job_id, entry, project_id, facts, job in rows:
            files = self._stored("trashed WHERE job_id = ? AND entry = ?", job_id, entry)
            ids = {"job_id": job_id, "project_id": project_id}
            yield self._job(ids, json.loads(job), files)
            yield {
                "kind": "state",
                "job_id": job_id,
                "operation": self._operation(entry),
                "files": {},
                # What the deletion has kept has a line of its own, if it is still there.
                "trash": {**json.loads(facts), "kept": {}},
            }

    def _legacy(self) -> Iterator[Stored]:
        nobody = {"kind": "add", "job_id": None, "project_id": None}
        for stored in self._stored("files WHERE job_id IS NULL"):
            yield {**nobody, "operation": self._operation(None), "state": {}, "files": [stored]}

    def _jobs(self) -> Iterator[Stored]:
        rows = self.connection.execute(
            "SELECT job_id, project_id, created_at, operation_id, state, seq FROM jobs"
            " ORDER BY created_at, job_id"
        )
        for job_id, project_id, created_at, operation_id, state, seq in rows:
            known = {"created_at": created_at, "operation_id": operation_id}
            ids = {"job_id": job_id, "project_id": project_id}
            files = self._stored("files WHERE job_id = ?", job_id)
            job = self._job(ids, {**known, "state": json.loads(state)}, files)
            yield {**job, "last_change": seq}

    def _job(
        self, ids: Mapping[str, str], known: Mapping[str, Any], files: Iterable[Stored]
    ) -> Stored:
        return {
            "kind": "job",
            **ids,
            "created_at": known["created_at"],
            "operation": self._operation(known["operation_id"]),
            "state": known["state"],
            "files": list(files),
        }

    def _stored(self, rows: str, *keys: str) -> Iterator[Stored]:
        """Yield records as they are by now; a line that holds many of them is read once."""
        place: int | None = None
        change: Change = {}
        query = f"SELECT {FILE_COLUMNS} FROM {rows} ORDER BY rowid"
        for offset, length, ordinal, overlay in self.connection.execute(query, keys):
            if place != offset:
                place = offset
                change = document.read_line(self.descriptor, offset, length)
            stored = {**change["files"][ordinal], **json.loads(overlay or "{}")}
            stored["recorded_by"] = recorded_by(change, ordinal)
            stored.pop("moved_from", None)
            if not stored.get("missing"):
                stored.pop("missing", None)
            yield stored


def recorded_by(change: Change, ordinal: int) -> str:
    """Return the id of the operation that has recorded a file, also where its line only sums up."""
    operation_id: str = change["files"][ordinal].get("recorded_by", change["operation"]["id"])
    return operation_id


def exchange(root: str, header: Header, descriptor: int, copy: Compacted) -> bool:
    """Add what was appended since a copy was made, and put it in the document's place; for the holder of the lock.

    Returns:
        False, with nothing done, where the document is not the one that was copied.

    Raises:
        OSError: The disk refused; the document that holds is untouched.
    """
    mark = copy.mark
    if (header.library_id, header.generation) != (mark.library_id, mark.generation):
        return False
    folder, name = split(COMPACTED)
    with durable.open_folder(root, folder) as parent:
        new = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        _append_tail(header, descriptor, copy, new)
    finally:
        os.close(new)
    kept_as = older_document(header.generation)
    _remove_leftover(root, kept_as)
    document.put_in_place(root, COMPACTED, kept_as)
    return True


def _append_tail(header: Header, descriptor: int, copy: Compacted, new: int) -> None:
    own = document.read_header(new)
    end = os.fstat(new).st_size - len(document.CLOSING)
    seq = copy.seq
    for lines in document.by_append(document.Scan(descriptor, header, copy.mark.position)):
        changes = []
        for line in lines:
            seq += 1
            change = {key: value for key, value in line.change.items() if key != "batch"}
            changes.append({**change, "seq": seq})
        end = document.append(new, own, end, changes)[-1].end


def _remove_leftover(root: str, path: str) -> None:
    """Remove what a crash has left of keeping the document that is to be kept now."""
    folder, name = split(path)
    durable.sync_folders(root, durable.make_folders(root, folder))
    with durable.open_folder(root, folder) as parent:
        durable.remove(parent, name)
