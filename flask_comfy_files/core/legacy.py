"""Files that belong to no job: their lines in the document, and the way into a job's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask_comfy_files.core.records import FileRecord, file_to_stored

Change = dict[str, Any]


def unowned_line(stored: Mapping[str, Any], operation: Mapping[str, Any]) -> Change:
    """Return the line of a file in ``legacy/``; each has one of its own."""
    nobody = {"job_id": None, "project_id": None}
    return {"kind": "add", **nobody, "operation": operation, "state": {}, "files": [stored]}


def disowned_line(record: FileRecord, operation: Mapping[str, Any]) -> Change:
    """Return the line that takes a file back to whose it was before, nobody's as a rule, where it still lies."""
    stored = {**file_to_stored(record), "moved_from": record.path}
    before = {"job_id": record.job_id, "project_id": record.project_id}
    return {**unowned_line(stored, operation), **before}
