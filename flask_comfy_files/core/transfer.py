"""What became of each record that an import was given, and its report: frozen values, named as the JSON keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask_comfy_files.core.records import LeftFile, Tally, add_up


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedFile:
    """A file that was recorded with its own ``checksum``, which is not the one that its older record has."""

    path: str
    recorded_checksum: str
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, or would do.

    ``found``, one for each record that it was given, = ``adopted`` (they stayed where they are) + ``moved`` +
    ``moved_to_legacy`` + ``already_there`` + ``skipped`` + ``failed``, in files and in bytes. ``jobs`` counts
    those that got files. ``document`` is the name under which an older installation's list is kept.
    """

    found: Tally
    adopted: Tally
    moved: Tally
    moved_to_legacy: Tally
    already_there: Tally
    skipped: tuple[LeftFile, ...]
    failed: tuple[LeftFile, ...]
    changed: tuple[ChangedFile, ...]
    jobs: int
    dry_run: bool
    operation_id: str | None
    document: str | None


class Transfer:
    """What became of each record so far."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.skipped: list[LeftFile] = []
        self.failed: list[LeftFile] = []
        self.said: dict[str, str | None] = {}
        """The checksums that the records have of the files that are about to be entered, by id."""
        self._changed: list[ChangedFile] = []
        self._jobs: set[str] = set()
        self._counts: dict[str, list[int]] = {
            key: [0, 0] for key in ("adopted", "moved", "moved_to_legacy", "already_there")
        }

    def enter(self, stored: Mapping[str, Any]) -> None:
        """Enter a file that is where its record says, or would be."""
        if stored["path"] == stored["moved_from"]:
            self._count("adopted", stored["file_size"])
        else:
            key = "moved_to_legacy" if stored["job_id"] is None else "moved"
            self._count(key, stored["file_size"])
        if stored["job_id"] is not None:
            self._jobs.add(stored["job_id"])
        said, checksum = self.said.pop(stored["file_id"], None), stored["checksum"]
        if said is not None and said != checksum:
            changed = ChangedFile(path=stored["path"], recorded_checksum=said, checksum=checksum)
            self._changed.append(changed)

    def enter_known(self, size: int) -> None:
        """Enter a file that has a record already."""
        self._count("already_there", size)

    def skip(self, path: str, reason: str, size: int = 0) -> None:
        """Enter a record of which nothing comes."""
        self.skipped.append(LeftFile(path=path, reason=reason, bytes=size))

    def _count(self, key: str, size: int) -> None:
        self._counts[key][0] += 1
        self._counts[key][1] += size

    def report(self, operation_id: str | None, document: str | None) -> ImportReport:
        """Return the account as a report; a rehearsal is no operation."""
        tallies = {
            key: Tally(files=number, bytes=size) for key, (number, size) in self._counts.items()
        }
        left = [*self.skipped, *self.failed]
        return ImportReport(
            found=add_up(tallies.values(), left),
            **tallies,
            skipped=tuple(self.skipped),
            failed=tuple(self.failed),
            changed=tuple(self._changed),
            jobs=len(self._jobs),
            dry_run=operation_id is None,
            operation_id=operation_id,
            document=document,
        )
