"""Whether the index says what the document says, and the document what was written. Changes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.catalog import document, folding, index
from flask_comfy_files.core.catalog.document import Header, Line
from flask_comfy_files.core.layout import DOCUMENT, INDEX

_TABLES: Final = {
    "jobs": ("jobs", ("job_id",)),
    "job_tags": ("job_tags", ("tag", "job_id")),
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

_Row = tuple[Any, ...]

IsLate = Callable[[], bool]
"""Says whether the time is over."""


class LateError(Exception):
    """The time was over before all was compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """Something that document or index says and should not; ``path`` is that of the one to blame."""

    path: str
    detail: str
    job_id: str | None = None
    file_id: str | None = None


def discrepancies(
    connection: sqlite3.Connection, descriptor: int | None, is_late: IsLate
) -> Iterator[Discrepancy]:
    """Yield the damaged lines of a document; where there are none, in what the index differs from it.

    The index is compared with one that is built anew, on a disk where it is large; an index in memory is
    such a one. Lines behind the index belong to a change that is being made.

    Raises:
        sqlite3.Error: The index cannot be read.
        LateError: The time was over.
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
            folding.fold(anew, _in_time(_up_to(scan, mark.position), is_late))
            index.finish(anew)
            if scan.position < mark.position:
                yield from _damaged_lines(descriptor, header, scan.position, mark.position)
            else:
                yield from _differences(connection, anew, is_late)
    finally:
        fresh.close()


def _up_to(scan: document.Scan, position: int) -> Iterator[Line]:
    if scan.position < position:
        for line in scan:
            yield line
            if line.end >= position:
                return


def _in_time(lines: Iterator[Line], is_late: IsLate) -> Iterator[Line]:
    for line in lines:
        if is_late():
            raise LateError
        yield line


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


def _differences(
    connection: sqlite3.Connection, anew: sqlite3.Connection, is_late: IsLate
) -> Iterator[Discrepancy]:
    for name, (source, key) in _TABLES.items():
        query = f"SELECT {', '.join(key)}, * FROM {source} ORDER BY {', '.join(key)}"
        rows, expected_rows = connection.execute(query), anew.execute(query)
        columns = [column[0] for column in rows.description]
        for indexed, expected in _joined(rows, expected_rows, len(key)):
            if indexed != expected:
                yield _difference(name, columns, len(key), indexed, expected)
            if is_late():
                raise LateError


def _joined(
    rows: Iterator[_Row], expected_rows: Iterator[_Row], width: int
) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Yield the rows of two sorted sources in pairs, with ``None`` where one has none; their keys come first."""
    left, right = next(rows, None), next(expected_rows, None)
    while left is not None and right is not None:
        if left[:width] == right[:width]:
            yield left, right
            left, right = next(rows, None), next(expected_rows, None)
        elif left[:width] < right[:width]:
            yield left, None
            left = next(rows, None)
        else:
            yield None, right
            right = next(expected_rows, None)
    while left is not None:
        yield left, None
        left = next(rows, None)
    while right is not None:
        yield None, right
        right = next(expected_rows, None)


def _difference(
    table: str, columns: list[str], width: int, indexed: _Row | None, expected: _Row | None
) -> Discrepancy:
    row = indexed or expected or ()
    name = ", ".join(map(str, row[:width]))
    if indexed is None:
        detail = f"it lacks {name} in {table}"
    elif expected is None:
        detail = f"it has {name} in {table}, of which the document says nothing"
    else:
        pairs = zip(columns, indexed, expected, strict=True)
        wrong = [column for column, old, new in pairs if old != new]
        detail = f"it differs from the document for {name} in {table}: {', '.join(wrong)}"
    facts = dict(zip(columns, row, strict=True))
    return Discrepancy(
        path=INDEX, detail=detail, job_id=facts.get("job_id"), file_id=facts.get("file_id")
    )


def unseen_jobs(connection: sqlite3.Connection, descriptor: int | None) -> set[str | None]:
    """Return the jobs of the lines behind the index; ``None`` stands for files that are nobody's."""
    mark = index.read_mark(connection)
    if descriptor is None or mark is None:
        return set()
    header = document.read_header(descriptor)
    lines = document.Scan(descriptor, header, mark.position, mark.seq)
    return {line.change["job_id"] for line in lines}
