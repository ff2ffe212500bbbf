"""Comparing the library with its records, and putting right what was found."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from flask_comfy_files.core.auditing import Scrutiny
from flask_comfy_files.core.course import Progress
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.findings import Finding, RepairReport, VerifyReport
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.manager.observing import operation
from flask_comfy_files.core.repair import Progress as RepairProgress
from flask_comfy_files.core.repair import Repair, require_findings
from flask_comfy_files.core.verification import Verification

Findings = Iterable[Finding | Mapping[str, Any]]
"""Those of a report, or objects with ``kind``, ``path`` and ``file_id``."""


class Verifying(Base):
    """What a manager does where records and files may disagree."""

    @operation("verify")
    def verify_files(
        self,
        *,
        read_bytes: bool = False,
        max_seconds: float | None = None,
        cursor: str | None = None,
        on_progress: Progress | None = None,
    ) -> VerifyReport:
        """Compare document, index and files, those in the trash included, and change nothing.

        Of a file, its size and time are compared; where the time alone differs its bytes are read, and with
        ``read_bytes`` those of every file. After ``max_seconds``, or 10,000 findings, it stops, and a later
        call with the report's ``cursor`` goes on; a file that is being read when the time is over is read to
        its end only if the call has done nothing else. ``on_progress`` is told how many files of how many
        were compared, and their bytes.

        Raises:
            InvalidInputError: ``max_seconds`` is no number above 0, or the cursor is none.
            LibraryUnavailableError: The library cannot be read.
            DocumentDamagedError: The document is none of ours, or damaged where no index helps.
        """
        if not isinstance(read_bytes, bool):
            raise InvalidInputError("read_bytes", read_bytes, "is neither true nor false")
        seconds = _require_seconds(max_seconds)
        return Verification(self._root, self._catalog).run(
            Scrutiny.BYTES if read_bytes else Scrutiny.STATUS,
            ends_at=None if seconds is None else time.monotonic() + seconds,
            cursor=cursor,
            on_progress=on_progress,
        )

    def plan_repair(
        self, findings: Findings, *, on_progress: RepairProgress | None = None
    ) -> RepairReport:
        """Return what ``repair_files`` would do now, and change nothing.

        Raises:
            InvalidInputError: As ``repair_files``.
        """
        chosen = require_findings(findings)
        return Repair(self._root, self._catalog, self._clock).rehearse(chosen, on_progress)

    @operation("repair")
    def repair_files(
        self, findings: Findings, *, on_progress: RepairProgress | None = None
    ) -> RepairReport:
        """Put right what a verification has found, as far as it still holds.

        Each finding is an object with ``kind`` and ``path``, and with ``file_id`` where it has one, as
        ``verify_files`` reports them. No file is deleted or overwritten: records are brought up to date,
        files without a record get one, and strayed files are moved back.
        ``on_progress`` is told how many of how many findings are dealt with.

        Raises:
            InvalidInputError: A finding is none.
            LibraryUnavailableError: The library cannot be changed.
            LockTimeoutError: Somebody else kept the library busy.
            OutOfSpaceError: The records would not fit; nothing was changed.
        """
        chosen = require_findings(findings)
        self._require_room(lambda _: len(chosen))
        repair = Repair(self._root, self._catalog, self._clock)
        return self._kept(repair.run(chosen, on_progress))


def _require_seconds(max_seconds: Any) -> float | None:
    if max_seconds is None:
        return None
    is_number = isinstance(max_seconds, int | float) and not isinstance(max_seconds, bool)
    if not is_number or not math.isfinite(max_seconds) or max_seconds <= 0:
        raise InvalidInputError("max_seconds", max_seconds, "is no number of seconds above 0")
    return float(max_seconds)
