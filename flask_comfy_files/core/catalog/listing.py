"""Lists of files, jobs and projects, a page at a time: what passes filters, in an order, from behind a key on.

A page is read along an index that has the order, and as many of the filters as it can have. What no index knows is
looked at row by row, of at most ``MOST_ROWS`` rows. So a page costs the same wherever it stands and whatever is
asked for; it may be short, or empty, where more is to come.
"""

from __future__ import annotations

import heapq
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from flask_comfy_files.core.catalog.queries import FileRow
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.pages import ListedJob, ListedProject

INDEXES: Final = """
CREATE INDEX IF NOT EXISTS files_of_type ON files (file_type, created_us, file_id);
CREATE INDEX IF NOT EXISTS files_of_project ON files (project_id, file_type, created_us, file_id);
CREATE INDEX IF NOT EXISTS files_by_size ON files (file_size, file_id);
CREATE INDEX IF NOT EXISTS jobs_of_project ON jobs (project_id, created_us, job_id);
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (created_us, job_id);
CREATE INDEX IF NOT EXISTS jobs_by_size ON jobs (total_size, job_id);
CREATE INDEX IF NOT EXISTS pinned_jobs ON jobs (job_id) WHERE is_pinned;
CREATE INDEX IF NOT EXISTS projects_by_size ON projects (total_size, project_id);
"""

MOST_ROWS: Final = 20_000
"""So many take a tenth of a second or two; fewer would make lists of rare things take more pages."""

Key = tuple[int | str | bytes, ...]
"""Where a row stands in an order: what it is sorted by, and its id where that may be equal for several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is listed; ``None`` is no condition."""

    project_id: str | None = None
    job_id: str | None = None
    file_type: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    """The first moment that is not listed any more."""
    tag: str | None = None
    pinned: bool | None = None
    min_size: int | None = None
    text: str | None = None
    """What a name, an id or a tag contains, case-folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The columns by which rows are sorted; the last one tells any two rows apart."""

    columns: tuple[str, ...]
    is_descending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which page of a list is wanted; ``behind`` is the key after which it begins, ``None`` for the first one."""

    filters: Filters
    order: Order
    behind: Key | None
    limit: int


@dataclass(frozen=True, slots=True)
class _Way:
    """One way through a table on which the rows come in the order that is asked for."""

    table: str
    known: Mapping[str, str] | None = None
    """What is equal for all rows on it, by column."""
    jobs: Sequence[str] | None = None
    """The jobs of all rows on it."""


_Test = Callable[[sqlite3.Row], bool]
_Texts = Callable[[sqlite3.Row], Iterable[str | None]]


def files(
    connection: sqlite3.Connection, question: Question
) -> tuple[list[tuple[str, FileRow]], Key | None]:
    """Return ids and places of files, and the key behind which there may be more."""
    filters, marks = question.filters, _Marks(connection)
    columns = (
        "file_id, job_id, project_id, path, original_path, file_type, created_us, file_size,"
        " offset, length, ordinal, overlay"
    )
    ways = _ways_to_files(connection, filters, question.order)
    tests = [*_tests(filters, "file_size"), *_tests_of_marks(filters, marks)]
    tests += _tests_of_text(filters, lambda row: (*_file_texts(row), *marks.of(row["job_id"])[1]))
    rows, behind = _page(_walked(connection, columns, ways, question), tests, question)
    return [(row["file_id"], _file_row(row)) for row in rows], behind


def jobs(
    connection: sqlite3.Connection, question: Question
) -> tuple[tuple[ListedJob, ...], Key | None]:
    """Return jobs, and the key behind which there may be more."""
    filters, marks = question.filters, _Marks(connection)
    columns = "job_id, project_id, file_count, total_size, created_at, created_us"
    ways = [_way_to_jobs(connection, filters, question.order)]
    tests = [*_tests(filters, "total_size"), *_tests_of_marks(filters, marks)]
    tests += _tests_of_text(
        filters, lambda row: (row["job_id"], row["project_id"], *marks.of(row["job_id"])[1])
    )
    rows, behind = _page(_walked(connection, columns, ways, question), tests, question)
    return tuple(_listed_job(row, *marks.of(row["job_id"])) for row in rows), behind


def projects(
    connection: sqlite3.Connection, question: Question
) -> tuple[tuple[ListedProject, ...], Key | None]:
    """Return projects, and the key behind which there may be more."""
    columns = "project_id, job_count, file_count, total_size"
    by_size = question.order.columns[0] == "total_size"
    ways = [_Way("projects INDEXED BY projects_by_size" if by_size else "projects")]
    tests = _tests(question.filters, "total_size")
    tests += _tests_of_text(question.filters, lambda row: (row["project_id"],))
    rows, behind = _page(_walked(connection, columns, ways, question), tests, question)
    return tuple(ListedProject(**dict(row)) for row in rows), behind


def _page(
    rows: Iterable[sqlite3.Row], tests: Sequence[_Test], question: Question
) -> tuple[list[sqlite3.Row], Key | None]:
    """Return the first rows that pass, and the key of the last one that was looked at, where there may be more."""
    found: list[sqlite3.Row] = []
    for number, row in enumerate(rows, 1):
        if all(test(row) for test in tests):
            if len(found) == question.limit:
                return found, _key(found[-1], question.order)
            found.append(row)
        if number == MOST_ROWS:
            return found, _key(row, question.order)
    return found, None


def _key(row: sqlite3.Row, order: Order) -> Key:
    return tuple(row[column] for column in order.columns)


def _walked(
    connection: sqlite3.Connection, columns: str, ways: Iterable[_Way], question: Question
) -> Iterator[sqlite3.Row]:
    """Yield the rows on some ways, merged in the order that is asked for; no way is walked further than needed."""
    order = question.order
    direction = " DESC" if order.is_descending else ""
    sorting = ", ".join(f"{column}{direction}" for column in order.columns)
    rows = []
    for way in ways:
        conditions, values = _conditions(way, question)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        cursor = connection.cursor()
        cursor.row_factory = sqlite3.Row
        query = f"SELECT {columns} FROM {way.table}{where} ORDER BY {sorting}"
        rows.append(cursor.execute(query, values))
    return heapq.merge(*rows, key=partial(_key, order=order), reverse=order.is_descending)


def _conditions(way: _Way, question: Question) -> tuple[list[str], dict[str, Any]]:
    """Return what the index of a way can answer."""
    known, order = dict(way.known or {}), question.order
    conditions = [f"{column} = :{column}" for column in known]
    values: dict[str, Any] = {**known}
    if way.jobs is not None:
        conditions.append("job_id IN (SELECT value FROM json_each(:jobs))")
        values["jobs"] = json.dumps(way.jobs)
    lowest, highest = _bounds(question)
    # Behind a key the bound of that side is passed already, and would be the worse one to begin at.
    if lowest is not None and (question.behind is None or order.is_descending):
        conditions.append(f"{order.columns[0]} >= :lowest")
        values["lowest"] = lowest
    if highest is not None and (question.behind is None or not order.is_descending):
        conditions.append(f"{order.columns[0]} < :highest")
        values["highest"] = highest
    if question.behind is not None:
        named = {f"key_{number}": part for number, part in enumerate(question.behind)}
        sign = "<" if order.is_descending else ">"
        places = ", ".join(f":{name}" for name in named)
        conditions.append(f"({', '.join(order.columns)}) {sign} ({places})")
        values |= named
    return conditions, values


def _bounds(question: Question) -> tuple[int | None, int | None]:
    """Return between which values the filters want what the rows are sorted by; the second is excluded."""
    filters = question.filters
    if question.order.columns[0] == "created_us":
        return filters.since_us, filters.until_us
    if question.order.columns[0] in {"file_size", "total_size"}:
        return filters.min_size, None
    return None, None


def _ways_to_files(connection: sqlite3.Connection, filters: Filters, order: Order) -> list[_Way]:
    """Return the ways on which few files stand that the filters do not want.

    Where no index has the order, and all files that an index leads to are few, they are sorted.
    """
    by_time = order.columns[0] == "created_us"
    of_job = "files INDEXED BY files_of_job"
    if filters.job_id is not None and (by_time or _is_small(connection, "job", filters.job_id)):
        return [_Way(of_job, {"job_id": filters.job_id})]
    marked = _marked_jobs(connection, filters, "max(file_count, 1)")
    if marked is not None:
        return [_Way(of_job, jobs=marked)]
    project_id = filters.project_id
    if project_id is not None and (by_time or _is_small(connection, "project", project_id)):
        return _by_type(
            connection, filters.file_type, "files_of_project", {"project_id": project_id}
        )
    if by_time:
        return _by_type(connection, filters.file_type, "files_of_type", {})
    return [_Way(f"files INDEXED BY files_by_{'path' if 'path' in order.columns else 'size'}")]


def _way_to_jobs(connection: sqlite3.Connection, filters: Filters, order: Order) -> _Way:
    marked = _marked_jobs(connection, filters, "1")
    if marked is not None:
        return _Way("jobs", jobs=marked)
    by_time, project_id = order.columns[0] == "created_us", filters.project_id
    if project_id is not None and (by_time or _has_few_jobs(connection, project_id)):
        return _Way("jobs INDEXED BY jobs_of_project", {"project_id": project_id})
    if order.columns[0] == "job_id":
        return _Way("jobs")
    return _Way(f"jobs INDEXED BY jobs_by_{'time' if by_time else 'size'}")


def _by_type(
    connection: sqlite3.Connection, file_type: str | None, index: str, known: Mapping[str, str]
) -> list[_Way]:
    """Return the way to one type of files, or that to each; so one index serves with and without a type."""
    table = f"files INDEXED BY {index}"
    if file_type is not None:
        return [_Way(table, {**known, "file_type": file_type})]
    conditions = "".join(f"{column} = :{column} AND " for column in known)
    query = f"SELECT min(file_type) FROM {table} WHERE {conditions}file_type > :last"
    ways: list[_Way] = []
    last = ""
    while (last := connection.execute(query, {**known, "last": last}).fetchone()[0]) is not None:
        ways.append(_Way(table, {**known, "file_type": last}))
    return ways


def _is_small(connection: sqlite3.Connection, owner: str, identifier: str) -> bool:
    """Say whether all files of a job or a project may be looked at for one page."""
    query = f"SELECT file_count FROM {owner}s WHERE {owner}_id = ?"
    row = connection.execute(query, (identifier,)).fetchone()
    return row is None or row[0] <= MOST_ROWS


def _has_few_jobs(connection: sqlite3.Connection, project_id: str) -> bool:
    query = "SELECT job_count FROM projects WHERE project_id = ?"
    row = connection.execute(query, (project_id,)).fetchone()
    return row is None or row[0] <= MOST_ROWS


def _marked_jobs(connection: sqlite3.Connection, filters: Filters, weight: str) -> list[str] | None:
    """Return the jobs with a tag, or those that are pinned; ``None`` where nobody asked, or they are many."""
    if filters.tag is not None:
        table, condition = "job_tags JOIN jobs USING (job_id)", "tag = ?1"
    elif filters.pinned:
        table, condition = "jobs INDEXED BY pinned_jobs", "is_pinned AND ?1 IS NULL"
    else:
        return None
    marked, sum_of_weights = [], 0
    query = f"SELECT job_id, {weight} FROM {table} WHERE {condition}"
    for job_id, number in connection.execute(query, (filters.tag,)):
        marked.append(job_id)
        sum_of_weights += number
        if sum_of_weights > MOST_ROWS:
            return None
    return marked


class _Marks:
    """Whether jobs are pinned, and their tags, each read once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str | None, tuple[bool, tuple[str, ...]]] = {None: (False, ())}

    def of(self, job_id: str | None) -> tuple[bool, tuple[str, ...]]:
        """Return whether a job is pinned, and its tags; for the files of none, neither."""
        if job_id not in self._known:
            query = "SELECT state FROM jobs WHERE job_id = ?"
            state = json.loads(self._connection.execute(query, (job_id,)).fetchone()[0])
            self._known[job_id] = bool(state.get("pinned")), tuple(state.get("tags", ()))
        return self._known[job_id]


def _tests(filters: Filters, size: str) -> list[_Test]:
    """Return what a row has to pass; ``size`` is the column of its bytes."""
    equal = {
        "project_id": filters.project_id,
        "job_id": filters.job_id,
        "file_type": filters.file_type,
    }
    tests = [partial(_equals, column, wanted) for column, wanted in equal.items() if wanted]
    for column, lowest in (("created_us", filters.since_us), (size, filters.min_size)):
        if lowest is not None:
            tests.append(partial(_is_from, column, lowest))
    if filters.until_us is not None:
        tests.append(partial(_is_before, "created_us", filters.until_us))
    return list(tests)


def _equals(column: str, wanted: str, row: sqlite3.Row) -> bool:
    return bool(row[column] == wanted)


def _is_from(column: str, lowest: int, row: sqlite3.Row) -> bool:
    return bool(row[column] >= lowest)


def _is_before(column: str, end: int, row: sqlite3.Row) -> bool:
    return bool(row[column] < end)


def _tests_of_marks(filters: Filters, marks: _Marks) -> list[_Test]:
    tests: list[_Test] = []
    if filters.tag is not None:
        tests.append(lambda row: filters.tag in marks.of(row["job_id"])[1])
    if filters.pinned is not None:
        tests.append(lambda row: marks.of(row["job_id"])[0] == filters.pinned)
    return tests


def _tests_of_text(filters: Filters, texts: _Texts) -> list[_Test]:
    text = filters.text
    if text is None:
        return []
    # As one text, which is twice as fast; what separates the parts stands in no name and in no id.
    return [lambda row: text in "\0".join(filter(None, texts(row))).casefold()]


def _file_texts(row: sqlite3.Row) -> tuple[str | None, ...]:
    names = (split(os.fsdecode(row[column]))[1] for column in ("path", "original_path"))
    return (*names, row["file_id"], row["job_id"], row["project_id"])


def _file_row(row: sqlite3.Row) -> FileRow:
    overlay = json.loads(row["overlay"]) if row["overlay"] else {}
    return FileRow(row["offset"], row["length"], row["ordinal"], overlay)


def _listed_job(row: sqlite3.Row, pinned: bool, tags: tuple[str, ...]) -> ListedJob:  # noqa: FBT001 - a fact
    facts = {key: row[key] for key in row.keys() if key != "created_us"}  # noqa: SIM118 - a row is no dict
    return ListedJob(**facts, pinned=pinned, tags=tags)
