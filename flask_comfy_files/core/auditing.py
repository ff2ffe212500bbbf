"""Comparing one record with the file that it names. Looks at everything, follows no link, changes nothing."""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.examination import why_unseen
from flask_comfy_files.core.findings import Finding, FindingKind
from flask_comfy_files.core.inspection import Failure, why_not_regular
from flask_comfy_files.core.layout import LEGACY, is_in, is_organized, split
from flask_comfy_files.core.placement import modified_at
from flask_comfy_files.core.records import FileRecord, LeftFile, SkipReason

_CHUNK_BYTES: Final = 1024 * 1024

IsLate = Callable[[], bool]
"""Says whether the time is over."""


class Scrutiny(enum.Enum):
    """What of a file is compared: size and time, and the bytes where these raise a doubt; or always the bytes."""

    STATUS = enum.auto()
    BYTES = enum.auto()


@dataclass(frozen=True, slots=True)
class Resting:
    """A record with the place where its file lies; ``key`` says how far one has come when it is done."""

    key: tuple[str, ...]
    record: FileRecord
    place: str
    is_trashed: bool = False


@dataclass(slots=True)
class Audit:
    """What the comparison of one record has brought."""

    findings: list[Finding] = field(default_factory=list)
    failed: list[LeftFile] = field(default_factory=list)


class _LateError(Exception):
    """The time was over before all bytes were read."""


def audit(root: str, resting: Resting, scrutiny: Scrutiny, is_late: IsLate) -> Audit | None:
    """Compare a record with its file; ``None`` where the time was over before that was done."""
    result = Audit()
    if not resting.is_trashed and not is_at_home(resting.record):
        detail = "its record names a place outside of its owner's folder"
        result.findings.append(_finding(FindingKind.WRONG_OWNER, resting, detail))
    try:
        _compare(root, resting, scrutiny, is_late, result)
    except OSError as error:
        failure = Failure(resting.place, resting.record.file_size, error)
        result.failed.append(failure.as_left())
    except (OverflowError, ValueError) as error:  # a path or a time that no file can have
        result.failed.append(LeftFile(path=resting.place, reason=str(error)))
    except _LateError:
        return None
    return result


def is_at_home(record: FileRecord) -> bool:
    """Say whether a record names a place in its job's folder, or below ``legacy/`` where it is nobody's."""
    if record.job_id is None or record.project_id is None:
        return is_in(record.path, LEGACY)
    return is_organized(record.path, record.project_id, record.job_id)


def why_absent(root: str, path: str, status: os.stat_result | None) -> SkipReason | None:
    """Say why there is no file at a path, or ``None`` where one is; ``status`` is what lstat says of it."""
    if status is None:
        return why_unseen(root, path) or SkipReason.NOT_FOUND
    return why_not_regular(status)


def _compare(
    root: str, resting: Resting, scrutiny: Scrutiny, is_late: IsLate, result: Audit
) -> None:
    record, place = resting.record, resting.place
    status = durable.find_status(root, place)
    absent = why_absent(root, place, status)
    if absent is not None or status is None:
        if not (resting.is_trashed and record.missing):  # then nothing rests in the trash
            detail = f"it is not there: {absent}"
            if record.missing:
                detail += ", as recorded"
            result.findings.append(_finding(FindingKind.MISSING, resting, detail))
        return
    if record.missing:
        detail = "it is there, and recorded as missing"
        result.findings.append(_finding(FindingKind.MISSING, resting, detail))
    changed = _why_changed(root, resting, status, scrutiny, is_late)
    if changed is not None:
        result.findings.append(_finding(FindingKind.CHANGED, resting, changed))


def _why_changed(
    root: str, resting: Resting, status: os.stat_result, scrutiny: Scrutiny, is_late: IsLate
) -> str | None:
    record = resting.record
    if status.st_size != record.file_size:
        return f"it has {status.st_size} bytes, and was recorded with {record.file_size}"
    # The time alone may have been touched, by a copy or a backup; only the bytes tell.
    if scrutiny is Scrutiny.STATUS and modified_at(status) == record.modified_at:
        return None
    if _checksum(root, resting.place, is_late) == record.checksum:
        return None
    return "its bytes are not those that were recorded"


def _checksum(root: str, path: str, is_late: IsLate) -> str:
    folder, name = split(path)
    digest = hashlib.sha256()
    with (
        durable.open_folder(root, folder) as parent,
        durable.open_regular(parent, name) as descriptor,
    ):
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            if is_late():
                raise _LateError
            digest.update(chunk)
    return digest.hexdigest()


def _finding(kind: FindingKind, resting: Resting, detail: str) -> Finding:
    record = resting.record
    return Finding(
        kind=str(kind),
        path=resting.place,
        job_id=record.job_id,
        file_id=record.file_id,
        detail=detail,
    )
