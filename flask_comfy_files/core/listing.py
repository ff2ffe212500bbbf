"""What may be asked of a list, and the page that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from flask_comfy_files.core.catalog.listing import Filters, Key, Order, Question
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.pages import FilesPage, JobsPage, ProjectsPage
from flask_comfy_files.core.paging import Part, cursor_text, require_cursor, require_limit
from flask_comfy_files.core.policy import LONGEST_TAG, is_tag
from flask_comfy_files.core.records import EPOCH, FileType

MOST_LISTED: Final = 200
MOST_FILES: Final = 1000
"""The most files of a job or a project that one answer has."""
LONGEST_TEXT: Final = 200
LARGEST_SIZE: Final = 2**63 - 1

Moment = str | date | None
"""A time: ISO 8601 with an offset or ``Z``, a date, or an object of either; a date is its beginning in UTC."""


@dataclass(frozen=True, slots=True)
class _Sort:
    """What a word of ``sort`` stands for: the columns, and the kinds of their values."""

    columns: tuple[str, ...]
    kinds: tuple[type[Part], ...]


SORTS: Final[Mapping[str, Mapping[str, _Sort]]] = {
    "files": {
        "created_at": _Sort(("created_us", "file_id"), (int, str)),
        "file_size": _Sort(("file_size", "file_id"), (int, str)),
        "path": _Sort(("path",), (bytes,)),
    },
    "jobs": {
        "created_at": _Sort(("created_us", "job_id"), (int, str)),
        "total_size": _Sort(("total_size", "job_id"), (int, str)),
        "job_id": _Sort(("job_id",), (str,)),
    },
    "projects": {
        "project_id": _Sort(("project_id",), (str,)),
        "total_size": _Sort(("total_size", "project_id"), (int, str)),
    },
}
"""The words by which each kind of list is sorted; with ``-`` in front the other way round."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that was asked for, and which page of it."""

    question: Question
    asked: Mapping[str, Any]
    """What its cursors are good for: this list in this sort with these filters."""

    def cursor(self, behind: Key | None) -> str | None:
        """Return the cursor that leads behind a key."""
        return cursor_text(self.asked, behind)

    def is_all(self, count: int) -> bool:
        """Say whether this page is the whole list, if that has so many rows."""
        return self.question.behind is None and count <= self.question.limit


def listing(
    kind: str,
    filters: Filters,
    *,
    sort: object,
    limit: object,
    cursor: object,
    most: int = MOST_LISTED,
) -> Listing:
    """Return a list of one of the kinds in ``SORTS`` that is asked for, with filters that were checked.

    Raises:
        InvalidInputError: ``sort`` is no word of this kind, ``limit`` is no whole number from 1 to ``most``, or
            ``cursor`` none of this list.
    """
    sorts = SORTS[kind]
    if not isinstance(sort, str) or sort.removeprefix("-") not in sorts:
        words = ", ".join(f"{sign}{word}" for word in sorts for sign in ("", "-"))
        raise InvalidInputError("sort", sort, f"is none of {words}")
    asked = {"list": kind, "sort": sort, **asdict(filters)}
    by = sorts[sort.removeprefix("-")]
    question = Question(
        filters=filters,
        order=Order(columns=by.columns, is_descending=sort.startswith("-")),
        behind=require_cursor(cursor, asked, by.kinds),
        limit=require_limit(limit, most),
    )
    return Listing(question, asked)


def files_of(
    *, job_id: str | None = None, project_id: str | None = None, limit: object, cursor: object
) -> Listing | None:
    """Return which files of a job or a project are asked for, by time; ``None`` for all of them.

    Raises:
        InvalidInputError: ``limit`` is no whole number from 1 to 1000, or ``cursor`` is none of this list.
    """
    if limit is None and cursor is None:
        return None
    return listing(
        "files",
        Filters(job_id=job_id, project_id=project_id),
        sort="created_at",
        limit=MOST_FILES if limit is None else limit,
        cursor=cursor,
        most=MOST_FILES,
    )


def files_page(reader: Reader, wanted: Listing) -> FilesPage:
    """Return a page of files."""
    found, behind = reader.list_files(wanted.question)
    return FilesPage(files=found, next_cursor=wanted.cursor(behind))


def jobs_page(reader: Reader, wanted: Listing) -> JobsPage:
    """Return a page of jobs."""
    found, behind = reader.list_jobs(wanted.question)
    return JobsPage(jobs=found, next_cursor=wanted.cursor(behind))


def projects_page(reader: Reader, wanted: Listing) -> ProjectsPage:
    """Return a page of projects."""
    found, behind = reader.list_projects(wanted.question)
    return ProjectsPage(projects=found, next_cursor=wanted.cursor(behind))


def require_filters(
    *,
    project: object = None,
    job: object = None,
    file_type: object = None,
    since: object = None,
    until: object = None,
    tag: object = None,
    pinned: object = None,
    min_size: object = None,
    q: object = None,
) -> Filters:
    """Return the conditions of a list as the catalog knows them.

    Raises:
        InvalidInputError: One of them cannot be.
    """
    if pinned is not None and not isinstance(pinned, bool):
        raise InvalidInputError("pinned", pinned, "is neither true nor false")
    return Filters(
        project_id=None if project is None else require_identifier("project", project),
        job_id=None if job is None else require_identifier("job", job),
        file_type=None if file_type is None else _require_type(file_type),
        since_us=None if since is None else _require_moment("since", since),
        until_us=None if until is None else _require_moment("until", until),
        tag=None if tag is None else _require_tag(tag),
        pinned=pinned,
        min_size=None if min_size is None else _require_size(min_size),
        text=None if q is None or q == "" else _require_text(q),
    )


def _require_type(file_type: object) -> str:
    known = [str(entry) for entry in FileType]
    if not isinstance(file_type, str) or file_type not in known:
        raise InvalidInputError("file_type", file_type, f"is none of {', '.join(known)}")
    return file_type


def _require_moment(field: str, value: object) -> int:
    """Return a time as whole microseconds since 1970."""
    moment = value
    if isinstance(value, str):
        try:
            moment = date.fromisoformat(value)
        except ValueError:
            moment = _read_time(value)
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        problem = "is neither an ISO 8601 time with an offset or Z nor a date (in an address + is written %2B)"
        raise InvalidInputError(field, value, problem)
    return (moment - EPOCH) // timedelta(microseconds=1)


def _read_time(value: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _require_tag(tag: object) -> str:
    if not isinstance(tag, str) or not is_tag(tag):
        problem = f"is no tag: 1 to {LONGEST_TAG} printable characters, no space around them"
        raise InvalidInputError("tag", tag, problem)
    return tag


def _require_size(size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LARGEST_SIZE:
        raise InvalidInputError("min_size", size, "is no number of bytes")
    return size


def _require_text(q: object) -> str:
    if not isinstance(q, str) or len(q) > LONGEST_TEXT or "\0" in q:
        raise InvalidInputError("q", q, f"is no text of at most {LONGEST_TEXT} characters")
    return q.casefold()
