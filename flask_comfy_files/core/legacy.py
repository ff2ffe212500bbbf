"""Files that belong to no job: their lines in the document; and records that are given back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask_comfy_files.core.records import FileRecord, file_to_stored

Change = dict[str, Any]


def unowned_line(stored: Mapping[str, Any], operation: Mapping[str, Any]) -> Change:
    """Return the line of a file in ``legacy/``; each has one of its own."""
    nobody = {"job_id": None, "project_id": None}
    return {"kind": "add", **nobody, "operation": operation, "state": {}, "files": [stored]}


def given_back_line(record: FileRecord, operation: Mapping[str, Any]) -> Change:
    """Return the line that gives a record back to its owner, after another line had taken it away.

    The file still lies where the record says.
    """
    line = unowned_line(
        {**file_to_stored(record), "moved_from": record.path}, correcting(operation)
    )
    return {**line, "job_id": record.job_id, "project_id": record.project_id}


def correcting(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an operation as those of its lines name it that take back what did not come to pass."""
    return {"corrects": operation["id"], **operation}
