"""What can still be read of damaged documents, as changes that make a sound document again.

A line is believed when it fits its check, whatever stands around it. Changes whose ground was lost, such as the
deletion of a job whose own line cannot be read, are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final

from flask_comfy_files.core.catalog.document import COMPACT, Change, decode_start

_BETWEEN_LINES: Final = b"\n]},\0 "

ProjectOf = Callable[[str], str | None]
"""Tells the project of a job whose own line was lost."""


def readable_changes(source: BinaryIO) -> Iterator[Change | None]:
    """Yield each change of a document that can be read, and ``None`` for each piece that cannot."""
    is_first = True
    for raw in source:
        rest = raw
        while rest.strip(_BETWEEN_LINES):
            found = decode_start(rest)
            if found is None:
                if not (is_first and rest.startswith(b'{"format"')):
                    yield None
                break
            length, change = found
            yield change
            # A newline that was changed glues two lines together.
            behind = rest[length:]
            rest = behind[max(0, behind.find(b'{"')) :]
        is_first = False


class Salvage:
    """Puts the changes of damaged documents together; afterwards says how much was lost."""

    def __init__(self, first_seq: int, project_of: ProjectOf) -> None:
        """Number the changes from ``first_seq``; ``project_of`` is asked where a job's own line was lost."""
        self.lost = 0
        """How many changes could not be read, or have lost their ground."""
        self._seq = first_seq - 1
        self._told_seq = 0
        self._project_of = project_of
        self._jobs: set[str] = set()
        self._seen: set[str] = set()
        self._trash: set[tuple[str, str]] = set()
        self._batches: dict[int, int] = {}

    def mend(self, changes: Iterable[Change | None], *, is_older: bool = False) -> Iterator[Change]:
        """Yield sound changes; those of an ``is_older`` document come before those of the one after it."""
        for change in changes:
            if change is None:
                self.lost += not is_older
                continue
            if not is_older and self._was_told(change):
                continue
            self._told_seq = max(self._told_seq, change["seq"]) if is_older else self._told_seq
            mended = self._mended(change)
            if mended is None:
                self.lost += not is_older
                continue
            yield from map(self._numbered, mended)
        self._batches.clear()

    def _was_told(self, change: Change) -> bool:
        """Say whether the older document told a change, or all that a compacted line sums up."""
        if change["seq"] <= self._told_seq:
            return True
        is_summary = bool(self._told_seq) and change["operation"]["kind"] == COMPACT
        return is_summary and (change["job_id"] is None or change["job_id"] in self._seen)

    def _mended(self, change: Change) -> list[Change] | None:
        """Return a change with what it needs before it, or ``None`` where that is lost."""
        job_id = change["job_id"]
        if job_id is None:
            return [change]
        for part in ("restore", "purge"):
            if part in change and (job_id, change[part]["entry"]) not in self._trash:
                return None
        begun = self._begun(change) if job_id not in self._jobs else [change]
        if begun:
            self._follow(change)
        return begun

    def _begun(self, change: Change) -> list[Change] | None:
        """Return a change of a job that is not known, in a form that makes it known."""
        if change["kind"] == "job" or "restore" in change or "purge" in change:
            return [change]
        if "trash" in change:
            return None
        if change["kind"] == "add":
            return [{**change, "kind": "job"}]
        project_id = self._project_of(change["job_id"])
        if project_id is None or not change.get("state"):
            return None
        shell = {key: change[key] for key in ("job_id", "operation")}
        return [
            {**shell, "kind": "job", "project_id": project_id, "state": {}, "files": []},
            change,
        ]

    def _follow(self, change: Change) -> None:
        job_id = change["job_id"]
        self._seen.add(job_id)
        if "purge" not in change:
            self._jobs.add(job_id)
        if "trash" in change:
            self._trash.add((job_id, change["trash"]["entry"]))
            if not change["trash"]["kept"]:
                self._jobs.discard(job_id)
        for part in ("restore", "purge"):
            if part in change:
                self._trash.discard((job_id, change[part]["entry"]))

    def _numbered(self, change: Change) -> dict[str, Any]:
        self._seq += 1
        numbered = {**change, "seq": self._seq}
        if "batch" in change:
            numbered["batch"] = self._batches.setdefault(change["batch"], self._seq)
        return numbered
