"""Whether the index says what the document says, and the document what was written. Changes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.catalog import document, folding, index
from flask_comfy_files.core.catalog.document import Header, Line
from flask_comfy_files.core.layout import DOCUMENT, INDEX

_TABLES: Final = {
    "jobs": ("jobs", ("job_id",)),
    "projects": ("projects", ("project_id",)),
    # Numbers that have come down to nothing may have a row or none.
    "types": (
        "(SELECT * FROM types WHERE file_count OR total_size)",
        ("project_id", "file_type"),
    ),
    "files": ("files", ("file_id",)),
    "trash": ("trash", ("job_id", "entry")),
    "trashed": ("trashed", ("file_id",)),
}
"""What is compared: each table of the index, and by which columns its rows are known."""

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """Something that document or index says and should not; ``path`` is that of the one to blame."""

    path: str
    detail: str
    job_id: str | None = None
    file_id: str | None = None


def discrepancies(connection: sqlite3.Connection, descriptor: int | None) -> Iterator[Discrepancy]:
    """Yield the damaged lines of a document; where there are none, in what the index differs from it.

    The index is compared with one that is built anew, on a disk where it is large; an index in memory is
    such a one. Lines behind the index belong to a change that is being made.

    Raises:
        sqlite3.Error: The index cannot be read.
    """
    mark = index.read_mark(connection)
    if descriptor is None or mark is None:
        return
    header = document.read_header(descriptor)
    fresh = index.MemoryIndex("")
    try:
        with fresh.writing() as anew:
            scan = document.Scan(descriptor, header, header.end)
            anew.execute("BEGIN")
            folding.fold(anew, _up_to(scan, mark.position))
            index.finish(anew)
            if scan.position < mark.position:
                yield from _damaged_lines(descriptor, header, scan.position, mark.position)
            else:
                yield from _differences(connection, anew)
    finally:
        fresh.close()


def _up_to(scan: document.Scan, position: int) -> Iterator[Line]:
    if scan.position < position:
        for line in scan:
            yield line
            if line.end >= position:
                return


def _damaged_lines(
    descriptor: int, header: Header, position: int, end: int
) -> Iterator[Discrepancy]:
    """Yield the lines that fail their check, from the end of the last good one on."""
    while position < end:
        start = position + (1 if position == header.end else 2)
        position = _end_of_line(descriptor, start)
        detail = f"the line at byte {start} does not match its check"
        yield Discrepancy(path=DOCUMENT, detail=detail)
        scan = document.Scan(descriptor, header, position)
        for _ in _up_to(scan, end):
            pass
        position = max(scan.position, position)


def _end_of_line(descriptor: int, start: int) -> int:
    with os.fdopen(descriptor, "rb", closefd=False) as source:
        source.seek(start)
        raw = source.readline()
    return start + len(raw.removesuffix(b"\n").removesuffix(b","))


def _differences(connection: sqlite3.Connection, anew: sqlite3.Connection) -> Iterator[Discrepancy]:
    for name, (source, key) in _TABLES.items():
        pairs = _joined(_rows(connection, source, key), _rows(anew, source, key), key)
        for indexed, expected in pairs:
            if indexed != expected:
                yield _difference(name, key, indexed, expected)


def _rows(connection: sqlite3.Connection, source: str, key: tuple[str, ...]) -> Iterator[_Row]:
    cursor = connection.execute(f"SELECT * FROM {source} ORDER BY {', '.join(key)}")
    columns = [column[0] for column in cursor.description]
    for row in cursor:
        yield dict(zip(columns, row, strict=True))


def _joined(
    indexed: Iterator[_Row], expected: Iterator[_Row], key: tuple[str, ...]
) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Yield the rows of two sorted sources in pairs, with ``None`` where one has none."""
    left, right = next(indexed, None), next(expected, None)
    while left is not None or right is not None:
        left_key = None if left is None else tuple(str(left[name]) for name in key)
        right_key = None if right is None else tuple(str(right[name]) for name in key)
        if right_key is None or (left_key is not None and left_key < right_key):
            yield left, None
            left = next(indexed, None)
        elif left_key is None or right_key < left_key:
            yield None, right
            right = next(expected, None)
        else:
            yield left, right
            left, right = next(indexed, None), next(expected, None)


def _difference(
    table: str, key: tuple[str, ...], indexed: _Row | None, expected: _Row | None
) -> Discrepancy:
    row = indexed or expected or {}
    name = ", ".join(str(row[column]) for column in key)
    if indexed is None:
        detail = f"it lacks {name} in {table}"
    elif expected is None:
        detail = f"it has {name} in {table}, of which the document says nothing"
    else:
        columns = [column for column in indexed if indexed[column] != expected.get(column)]
        detail = f"it differs from the document for {name} in {table}: {', '.join(columns)}"
    file_id = row.get("file_id")
    return Discrepancy(path=INDEX, detail=detail, job_id=row.get("job_id"), file_id=file_id)


def unseen_jobs(connection: sqlite3.Connection, descriptor: int | None) -> set[str | None]:
    """Return the jobs of the lines behind the index; ``None`` stands for files that are nobody's."""
    mark = index.read_mark(connection)
    if descriptor is None or mark is None:
        return set()
    header = document.read_header(descriptor)
    lines = document.Scan(descriptor, header, mark.position, mark.seq)
    return {line.change["job_id"] for line in lines}
