"""How far a verification has come, what it has found on the way, and how to go on from there later."""

from __future__ import annotations

import base64
import binascii
import enum
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from flask_comfy_files.core.auditing import Resting, Scrutiny
from flask_comfy_files.core.errors import DocumentDamagedError, InvalidInputError
from flask_comfy_files.core.findings import Finding, FindingKind, VerifyReport
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.core.records import LeftFile, Tally

Progress = Callable[[int, int, int], None]
"""Told the number of files compared, of all recorded files, and the bytes of those compared."""

MOST_FINDINGS: Final = 10_000
"""In one report; so many fit into the body of one repair."""


class Stage(enum.StrEnum):
    """What is verified, in this order."""

    INDEX = "index"
    TREE = "tree"
    JOBS = "jobs"
    NOBODY = "nobody"
    TRASH = "trash"


_KEY_PARTS: Final[Mapping[Stage, int]] = {
    Stage.INDEX: 0,
    Stage.TREE: 1,
    Stage.JOBS: 2,
    Stage.NOBODY: 1,
    Stage.TRASH: 3,
}

Key = tuple[str, ...]


@dataclass(slots=True)
class Course:
    """How far one call has come."""

    scrutiny: Scrutiny
    ends_at: float | None
    progress: Callable[[int, int], None]
    findings: list[Finding] = field(default_factory=list)
    failed: list[LeftFile] = field(default_factory=list)
    strayed: set[str | None] = field(default_factory=set)
    """Files that were found elsewhere, by id; to say that they are missing would be to say it twice."""
    files: int = 0
    bytes: int = 0
    steps: int = 0

    def is_late(self) -> bool:
        """Say whether the time is over; something is done in any call, so that it comes to an end one day."""
        return bool(self.steps) and self.ends_at is not None and time.monotonic() >= self.ends_at

    def deadline_after(self, seconds: float) -> Callable[[], bool]:
        """Return what says whether the time is over, but not before some seconds have passed from now on."""
        if self.ends_at is None:
            return lambda: False
        ends_at = max(self.ends_at, time.monotonic() + seconds)
        return lambda: time.monotonic() >= ends_at

    def is_over(self) -> bool:
        """Say whether the call has to end here."""
        return self.is_late() or len(self.findings) + len(self.failed) >= MOST_FINDINGS

    def take(self, resting: Resting) -> None:
        """Count a record that was compared."""
        self.steps += 1
        self.files += 1
        self.bytes += resting.record.file_size
        self.progress(self.files, self.bytes)

    def damaged(self, job_id: str | None, error: DocumentDamagedError) -> None:
        """Note that records cannot be read."""
        self.findings.append(index_finding(DOCUMENT, str(error), job_id))

    def report(self, cursor: str | None) -> VerifyReport:
        """Return what was found so far."""
        return VerifyReport(
            findings=tuple(self.findings),
            failed=tuple(self.failed),
            checked=Tally(files=self.files, bytes=self.bytes),
            is_complete=cursor is None,
            cursor=cursor,
        )


def index_finding(
    path: str, detail: str, job_id: str | None = None, file_id: str | None = None
) -> Finding:
    """Return a finding about the index or the document."""
    kind = str(FindingKind.INDEX)
    return Finding(kind=kind, path=path, job_id=job_id, file_id=file_id, detail=detail)


def cursor_of(stage: Stage, key: Key) -> str:
    """Return by what a later call goes on behind a key."""
    return base64.urlsafe_b64encode(json.dumps([stage, *key]).encode("ascii")).decode("ascii")


def read_cursor(cursor: object) -> tuple[Stage, Key]:
    """Return the stage and the key of a cursor.

    Raises:
        InvalidInputError: It is none that was answered.
    """
    try:
        stage, *key = json.loads(base64.b64decode(str(cursor), b"-_", validate=True))
        stage = Stage(stage)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        stage, key = None, []
    # A path may hold any bytes, and is only compared; all else are ids.
    is_sound = stage is not None and all(
        isinstance(part, str) and (stage is Stage.TREE or part.isascii()) for part in key
    )
    if not is_sound or len(key) != _KEY_PARTS[stage]:
        raise InvalidInputError("cursor", cursor, "is none that a verification has answered")
    return stage, tuple(key)
