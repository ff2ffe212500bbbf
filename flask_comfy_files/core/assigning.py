"""Giving files that belong to nobody to a job."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.session import Writer
from flask_comfy_files.core.errors import ChecksumMismatchError
from flask_comfy_files.core.examination import why_held
from flask_comfy_files.core.filing import Filing, JobIdentity
from flask_comfy_files.core.inspection import Failure
from flask_comfy_files.core.layout import LEGACY, file_path, is_in, split
from flask_comfy_files.core.legacy import given_back_line
from flask_comfy_files.core.placement import place
from flask_comfy_files.core.records import (
    Evidence,
    FileRecord,
    FileType,
    LeftFile,
    SkipReason,
    Tally,
    add_up,
    file_to_stored,
    iso_utc,
)
from flask_comfy_files.core.recovery import changing
from flask_comfy_files.core.relocation import AssignReport, LegacyFiles
from flask_comfy_files.core.request import Clock, Request
from flask_comfy_files.core.standing import Standing, find_standing


@dataclass(slots=True)
class _Ledger:
    seen: set[str] = field(default_factory=set)
    chosen: list[FileRecord] = field(default_factory=list)
    already: list[FileRecord] = field(default_factory=list)
    assigned: list[Mapping[str, Any]] = field(default_factory=list)
    skipped: list[LeftFile] = field(default_factory=list)
    failed: list[LeftFile] = field(default_factory=list)


def get_legacy(reader: Reader) -> LegacyFiles:
    """Return the files that belong to no job."""
    files = reader.legacy_files()
    return LegacyFiles(
        files=files,
        file_count=len(files),
        total_size=sum(record.file_size for record in files),
    )


def assign(
    root: str, catalog: Catalog, clock: Clock, request: Request, keys: Sequence[str]
) -> AssignReport:
    """Move files out of ``legacy/``, named by path or id, into a job's folder.

    Raises:
        ConflictError: The job belongs to another project, or an id is known in another case.
    """
    ledger = _Ledger()
    with changing(root, catalog) as writer:
        standing = find_standing(writer, request)
        for key in dict.fromkeys(keys):
            _choose(root, writer, request.job_id, key, ledger)
        operation = {"id": uuid.uuid4().hex, "kind": "assign", "at": iso_utc(clock())}
        if ledger.chosen:
            line = _line(root, standing, operation, request.job_id, ledger.chosen)
            try:
                _carry_out(root, writer, line, ledger)
            except OSError as error:
                durable.refuse("Assigning to", request.job_id, error)
        files = writer.files_of_job(request.job_id)
    return _report(request, standing, files, ledger, operation["id"] if ledger.chosen else None)


def _choose(root: str, reader: Reader, job_id: str, key: str, ledger: _Ledger) -> None:
    record = reader.find_file(key)
    if record is None:
        ledger.skipped.append(LeftFile(path=key, reason=SkipReason.NOT_FOUND))
        return
    if record.file_id in ledger.seen:  # named by its path and by its id
        return
    ledger.seen.add(record.file_id)
    if record.job_id == job_id:
        ledger.already.append(record)
        return
    reason = _why_not(root, record)
    if reason is None:
        ledger.chosen.append(record)
    else:
        ledger.skipped.append(LeftFile(path=record.path, reason=reason, bytes=record.file_size))


def _why_not(root: str, record: FileRecord) -> SkipReason | None:
    if record.job_id is not None:
        return SkipReason.BELONGS_TO_ANOTHER_JOB
    if not is_in(record.path, LEGACY):
        return SkipReason.OUTSIDE_LIBRARY
    status = durable.find_status(root, record.path)
    return SkipReason.NOT_FOUND if status is None else why_held(root, record, status)


def _line(
    root: str,
    standing: Standing,
    operation: Mapping[str, str],
    job_id: str,
    records: Sequence[FileRecord],
) -> dict[str, Any]:
    at = datetime.fromisoformat(operation["at"])
    filing = Filing(
        JobIdentity(root, job_id, standing.project_id, None),
        at,
        taken=standing.paths,
        originals=[*standing.originals, *(record.original_path for record in records)],
        exists=lambda path: durable.find_status(root, path) is not None,
    )
    files = []
    for record in records:
        file_type = FileType(record.file_type)
        path = filing.free_path(file_type, record.file_extension)
        owned = replace(
            record,
            path=path,
            file_path=file_path(root, path),
            job_id=job_id,
            project_id=standing.project_id,
            timestamp=str(int(at.timestamp())),
            created_at=iso_utc(at),
            generation_type=filing.generation_type(record.original_path, file_type),
            evidence=str(Evidence.ASSIGNED),
        )
        before, after = file_to_stored(record), file_to_stored(owned)
        was = {key: before[key] for key in before if before[key] != after[key]}
        files.append({**after, "moved_from": record.path, "was": was})
    return {
        "kind": "add" if standing.is_known else "job",
        "job_id": job_id,
        "project_id": standing.project_id,
        "operation": operation,
        "state": {"reason": None} if "reason" in standing.state else {},
        "files": files,
    }


def _carry_out(root: str, writer: Writer, line: dict[str, Any], ledger: _Ledger) -> None:
    """Append the line, move its files, and give back those that could not be moved."""
    folder = split(line["files"][0]["path"])[0]
    touched = durable.make_folders(root, folder)
    lines = writer.append([line])
    given_back = []
    for record, stored in zip(ledger.chosen, line["files"], strict=True):
        try:
            place(root, stored)
        except (OSError, ChecksumMismatchError) as error:
            left = LeftFile(path=record.path, reason="checksum_mismatch", bytes=record.file_size)
            if isinstance(error, OSError):
                left = Failure(record.path, record.file_size, error).as_left()
            ledger.failed.append(left)
            given_back.append(given_back_line(record, line["operation"]))
        else:
            ledger.assigned.append(stored)
    sources = [split(record.path)[0] for record in ledger.chosen]
    durable.sync_folders(root, dict.fromkeys([folder, *sources, *touched]))
    writer.advance([*lines, *writer.append(given_back)])
    for source in dict.fromkeys(sources):
        durable.remove_empty_folders(root, source, LEGACY)


def _report(
    request: Request,
    standing: Standing,
    files: tuple[FileRecord, ...],
    ledger: _Ledger,
    operation_id: str | None,
) -> AssignReport:
    assigned = Tally(
        files=len(ledger.assigned), bytes=sum(stored["file_size"] for stored in ledger.assigned)
    )
    already = Tally(
        files=len(ledger.already), bytes=sum(record.file_size for record in ledger.already)
    )
    left = [*ledger.skipped, *ledger.failed]
    return AssignReport(
        job_id=request.job_id,
        project_id=standing.project_id,
        files=files,
        file_count=len(files),
        found=add_up([assigned, already], left),
        assigned=assigned,
        already_there=already,
        skipped=tuple(ledger.skipped),
        failed=tuple(ledger.failed),
        operation_id=operation_id,
    )
