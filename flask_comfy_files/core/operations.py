"""What was done to a library: the list of operations, the changes of each, and the reports that are kept."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.catalog.document import Change
from flask_comfy_files.core.catalog.operations import OperationRow
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import (
    ComfyFilesError,
    InvalidInputError,
    OperationNotFoundError,
)
from flask_comfy_files.core.layout import OPERATIONS, trash_folder
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.placement import source_of
from flask_comfy_files.core.records import EPOCH, iso_utc

_log = logging.getLogger(__name__)

MOST_OPERATIONS: Final = 200
MOST_CHANGES: Final = 1000
_KEPT_FOR: Final = timedelta(days=90)
"""How long a report is kept; the operation itself stays known."""
_CURSOR: Final = re.compile(r"(\d{1,18})-([0-9a-z_-]{1,64})", re.ASCII)
_LEFT_OUT: Final = frozenset({"files", "moves"})
"""Parts of reports that may be as long as the library, and that the changes tell, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSummary:
    """One operation in numbers, ``at`` the time (ISO 8601 UTC) at which it began.

    ``files`` and ``bytes`` are what it changed; ``undoes`` is the operation that it undid, ``undone_by`` that
    which undid it. ``report`` is what it answered, or ``None`` where that is not known any more.
    """

    operation_id: str
    kind: str
    at: str
    jobs: int
    files: int
    bytes: int
    undone_by: str | None
    undoes: str | None
    report: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationList:
    """Operations, newest first; ``next_cursor`` leads to older ones."""

    operations: tuple[OperationSummary, ...]
    next_cursor: str | None

    def __iter__(self) -> Iterator[OperationSummary]:
        """Iterate over the operations."""
        return iter(self.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRecord:
    """One operation with what it changed, in order; ``next_cursor`` leads to further changes.

    Each of ``changes`` has ``file_id``, ``job_id``, ``from``, ``to`` and ``what``. A job that went to the trash
    or came back is one change, without ``file_id``.
    """

    operation_id: str
    kind: str
    at: str
    jobs: int
    files: int
    bytes: int
    undone_by: str | None
    undoes: str | None
    report: Mapping[str, Any] | None
    changes: tuple[Mapping[str, Any], ...]
    next_cursor: str | None


def require_kind(kind: object) -> str | None:
    """Return the kind of operations that are asked for; ``None`` for all.

    Raises:
        InvalidInputError: It is none.
    """
    if kind is None or (isinstance(kind, str) and kind.isascii()):
        return kind
    raise InvalidInputError("kind", kind, "is no kind of operation")


def require_cursor(cursor: object) -> tuple[int, str] | None:
    """Return what a cursor says.

    Raises:
        InvalidInputError: It is none that was answered.
    """
    if cursor is None:
        return None
    found = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None:
        raise InvalidInputError("cursor", cursor, "is no cursor of an earlier answer")
    return int(found[1]), found[2]


def list_operations(
    root: str, reader: Reader, kind: str | None, limit: int, before: tuple[int, str] | None
) -> OperationList:
    """Return operations, of one kind or of all, newest first."""
    rows = reader.newest_operations(kind, limit + 1, before)
    shown = rows[:limit]
    last = shown[-1] if len(rows) > limit else None
    return OperationList(
        operations=tuple(OperationSummary(**_summary(root, row)) for row in shown),
        next_cursor=None if last is None else f"{last.at_us}-{last.operation_id}",
    )


def require_operation(reader: Reader, operation_id: object) -> OperationRow:
    """Return what is known of an operation.

    Raises:
        OperationNotFoundError: Nothing is.
        InvalidInputError: It is no string.
    """
    if not isinstance(operation_id, str):
        raise InvalidInputError("operation_id", operation_id, "is not a string")
    # Half a surrogate pair, which a command line may hold, is no question for the index.
    row = reader.find_operation(operation_id) if operation_id.isascii() else None
    if row is None:
        raise OperationNotFoundError(operation_id)
    return row


def operation_record(
    root: str, reader: Reader, row: OperationRow, limit: int, behind: tuple[int, str] | None
) -> OperationRecord:
    """Return an operation with some of its changes."""
    first = 0 if behind is None else behind[0]
    changes = (
        part for line in reader.lines_of(row) for part in _changes_of(line.change, row.operation_id)
    )
    found = list(itertools.islice(changes, first, first + limit + 1))
    is_more = len(found) > limit
    return OperationRecord(
        **_summary(root, row),
        changes=tuple(found[:limit]),
        next_cursor=f"{first + limit}-changes" if is_more else None,
    )


def _summary(root: str, row: OperationRow) -> dict[str, Any]:
    known = ("operation_id", "kind", "jobs", "files", "bytes", "undone_by", "undoes")
    return {
        **{key: getattr(row, key) for key in known},
        "at": iso_utc(EPOCH + timedelta(microseconds=row.at_us)),
        "report": _report(root, row),
    }


def _report(root: str, row: OperationRow) -> Mapping[str, Any] | None:
    if row.kind == "organize":
        return {"moved": {"files": row.files, "bytes": row.bytes}}
    return read_report(root, row.operation_id)


def _changes_of(change: Change, operation_id: str) -> Iterator[dict[str, Any]]:
    """Yield what a line tells of the files and the job that it changes."""
    job_id = change["job_id"]
    said = {"file_id": None, "job_id": job_id, "from": None, "to": None}
    if change["kind"] != "state":
        is_correction = "corrects" in change["operation"]
        for stored in change["files"]:
            what = "shared" if "link_from" in stored else "moved"
            yield {
                **said,
                "file_id": stored["file_id"],
                "from": source_of(stored),
                "to": stored["path"],
                "what": "left" if is_correction else what,
            }
        return
    for file_id, overlay in change.get("files", {}).items():
        yield {**said, "file_id": file_id, **_of_overlay(overlay)}
    for key, what in (("trash", "trashed"), ("restore", "restored"), ("purge", "purged")):
        if key in change:
            entry = change[key]["entry"]
            is_into = key == "trash"
            is_back = key != "purge" and is_into != (entry == operation_id)
            place = {"to" if is_into else "from": trash_folder(entry, job_id)}
            yield {**said, **place, "what": "left" if is_back and key == "restore" else what}
    if change["operation"]["kind"] == "mark":
        yield {**said, "what": "marked"}


def _of_overlay(overlay: Mapping[str, Any]) -> dict[str, Any]:
    if "record" in overlay:
        what = "removed" if overlay["moved_to"] is None else "put_back"
        return {"from": overlay["record"]["path"], "to": overlay["moved_to"], "what": what}
    if overlay.get("withdrawn"):
        return {"what": "left"}
    if overlay.get("missing"):
        return {"what": "missing"}
    return {"to": overlay.get("path"), "what": "renamed" if "path" in overlay else "changed"}


def _note(operation_id: str) -> str:
    return f"{OPERATIONS}/{operation_id}.json"


def keep_report(root: str, operation_id: str | None, report: Any) -> None:
    """Keep what an operation answered; if that cannot be, it is not known later, and nothing else is amiss."""
    if operation_id is None:
        return
    facts = [entry.name for entry in fields(report) if entry.name not in _LEFT_OUT]
    told = {key: _plain(getattr(report, key)) for key in facts}
    if read_report(root, operation_id) == told:
        return  # it was answered before
    try:
        durable.sync_folders(root, durable.make_folders(root, OPERATIONS))
        write_note(root, _note(operation_id), told)
    except (ComfyFilesError, OSError) as error:
        _log.warning("the report of operation %s cannot be kept: %s", operation_id, error)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def read_report(root: str, operation_id: str) -> dict[str, Any] | None:
    """Return what an operation answered; ``None`` where it is not known any more."""
    return read_note(root, _note(operation_id)) or None


def forget_old_reports(root: str, now: datetime) -> None:
    """Remove the reports of operations that were long ago."""
    oldest = (now - _KEPT_FOR).timestamp()
    with contextlib.suppress(OSError), durable.open_folder(root, OPERATIONS) as folder:
        for name, status in looking.list_folder(root, OPERATIONS):
            if status.st_mtime < oldest:
                durable.remove(folder, name)
