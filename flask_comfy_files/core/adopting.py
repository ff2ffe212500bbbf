"""Saying that what is there is right: this disk, this library, and that what is gone from it is gone."""

from __future__ import annotations

import uuid
from itertools import groupby
from typing import Any, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.layout import REBUILD, split
from flask_comfy_files.core.placement import MISSING
from flask_comfy_files.core.rebuilding import adopt_lost
from flask_comfy_files.core.records import iso_utc
from flask_comfy_files.core.recovery import changing
from flask_comfy_files.core.reports import AdoptionReport
from flask_comfy_files.core.request import Clock

_FILES_AT_ONCE: Final = 1000


def adopt(root: str, catalog: Catalog, clock: Clock) -> AdoptionReport:
    """Take what is there for the library, with every record whose file is gone marked as missing.

    Raises:
        LibraryUnavailableError: The root is missing or unwritable, or a setting names another library.
    """
    catalog.adopt()
    catalog.examine()
    with changing(root, catalog) as writer:
        library_id = writer.library_id
    adopt_lost(root, catalog, float("inf"))
    operation = {"id": uuid.uuid4().hex, "kind": "adopt", "at": iso_utc(clock())}
    checked = missing = 0
    after = ""
    while True:
        with changing(root, catalog) as writer:
            batch = writer.paths_after(after, _FILES_AT_ONCE)
            gone = [entry for entry in batch if durable.find_status(root, entry[2]) is None]
            _mark(writer, operation, gone)
        checked, missing = checked + len(batch), missing + len(gone)
        if not batch:
            break
        after = batch[-1][0]
    folder, name = split(REBUILD)
    with durable.open_folder(root, folder) as parent:
        durable.remove(parent, name)  # what it says has been seen now
    return AdoptionReport(
        library_id=library_id,
        checked_files=checked,
        missing_files=missing,
        operation_id=operation["id"],
    )


def _mark(
    writer: Writer, operation: dict[str, Any], gone: list[tuple[str, str | None, str]]
) -> None:
    by_job = sorted(gone, key=lambda entry: entry[1] or "")
    changes = [
        {
            "kind": "state",
            "job_id": job_id,
            "operation": operation,
            "files": {file_id: MISSING for file_id, _, _ in files},
        }
        for job_id, files in groupby(by_job, key=lambda entry: entry[1])
    ]
    if not changes:
        return
    try:
        lines = writer.append(changes)
    except OSError as error:
        durable.refuse("Recording", "", error)
    writer.advance(lines)
