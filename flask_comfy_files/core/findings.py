"""What a verification finds, and what a repair makes of it: frozen values, named as the JSON keys."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from flask_comfy_files.core.records import LeftFile, Tally


class FindingKind(enum.StrEnum):
    """In what respect document, index and files disagree; a repair takes them in this order."""

    INDEX = "index"
    WRONG_OWNER = "wrong_owner"
    MISSING = "missing"
    CHANGED = "changed"
    UNTRACKED = "untracked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One disagreement: where, with which record, and in words what is wrong.

    ``path`` is where the file lies, or should lie, relative to the output root; of ``index`` it is the
    index or the document. ``job_id`` is the job whose record, or in whose folder it is.
    """

    kind: str
    path: str
    job_id: str | None
    file_id: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What one verification has looked at and found.

    ``checked`` are the recorded files that were compared, with the bytes that they should have; ``failed``
    is what the system did not let us look at. Where the time ran out, or there were too many findings, it
    is not ``is_complete``, and a later call with ``cursor`` goes on from there.
    """

    findings: tuple[Finding, ...]
    failed: tuple[LeftFile, ...]
    checked: Tally
    is_complete: bool
    cursor: str | None

    def __iter__(self) -> Iterator[Finding]:
        """Iterate over the findings."""
        return iter(self.findings)

    def __len__(self) -> int:
        """Return how many findings there are."""
        return len(self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFinding:
    """A finding that was not repaired, and why."""

    kind: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair did, or would do; ``found`` = ``repaired`` + ``skipped`` + ``failed``, in findings.

    The ``detail`` of what was repaired says what was done.
    """

    found: int
    repaired: tuple[Finding, ...]
    skipped: tuple[LeftFinding, ...]
    failed: tuple[LeftFinding, ...]
    dry_run: bool
    operation_id: str | None
