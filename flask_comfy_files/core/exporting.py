"""Every record as JSON or CSV, for a backup or for people: written as it is read, in flat memory.

JSON is what ``importing`` reads. CSV is for spreadsheets: a text that one of them would take for a formula gets an
apostrophe before it.
"""

from __future__ import annotations

import csv
import enum
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.records import FileRecord, file_to_dict

Record = Mapping[str, Any]

COLUMNS: Final = (*(entry.name for entry in fields(FileRecord)), "pinned", "tags")
"""The head of the CSV form: the keys of a record, and what people said of its job."""

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would run (OWASP, "CSV Injection")."""


class ExportFormat(enum.StrEnum):
    """How an export is written."""

    JSON = "json"
    CSV = "csv"


def records_of(reader: Reader) -> Iterator[dict[str, Any]]:
    """Yield every record as a JSON-ready dict, with ``pinned`` and ``tags`` of its job."""
    for record, state in reader.all_files():
        marks = {"pinned": bool(state.get("pinned")), "tags": list(state.get("tags", ()))}
        yield file_to_dict(record) | marks


def lines_of(records: Iterable[Record], export_format: ExportFormat) -> Iterator[bytes]:
    r"""Yield the lines of an export; in JSON those of a plain array, one record a line.

    Names that are not UTF-8 have their bytes as ``\udcXX``, as everywhere.
    """
    lines = _json_lines if export_format is ExportFormat.JSON else _csv_lines
    return (line.encode("utf-8", "backslashreplace") for line in lines(records))


def _json_lines(records: Iterable[Record]) -> Iterator[str]:
    before = "[\n"
    for record in records:
        yield before + json.dumps(record, ensure_ascii=False)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _csv_lines(records: Iterable[Record]) -> Iterator[str]:
    line = io.StringIO(newline="")
    rows = csv.DictWriter(line, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    yield line.getvalue()
    for record in records:
        line.seek(0)
        line.truncate()
        rows.writerow({key: _cell(value) for key, value in record.items()})
        yield line.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool | list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    return value
