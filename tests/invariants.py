"""What holds for every library after every change, checked with nothing of the library's own code."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask_comfy_files import FileManager
from flask_comfy_files.core.records import LeftFile, OrganizeReport, Tally

Stored = dict[str, Any]


def changes_of(root: Path) -> list[dict[str, Any]]:
    """Return the changes that the document holds, as any JSON program reads them."""
    document = json.loads((root / "file_metadata.json").read_bytes())
    changes: list[dict[str, Any]] = document["changes"]
    return changes


@dataclass
class Told:
    """What the changes tell: records of each job, of files in ``legacy/``, and of deletions in the trash."""

    jobs: dict[str, list[Stored]] = field(default_factory=dict)
    legacy: list[Stored] = field(default_factory=list)
    trash: dict[tuple[str, str], list[Stored]] = field(default_factory=dict)
    """By entry and job id."""

    @property
    def everything(self) -> list[Stored]:
        return [*self.recorded, *(stored for files in self.trash.values() for stored in files)]

    @property
    def recorded(self) -> list[Stored]:
        return [*(stored for files in self.jobs.values() for stored in files), *self.legacy]

    def take(self, change: dict[str, Any]) -> None:
        job_id = change["job_id"]
        if job_id is None:
            self.legacy += change["files"]
        else:
            self._take_of_job(job_id, change)
        for stored in self.everything:
            stored.update(change.get("twins", {}).get(stored["file_id"], {}))

    def _take_of_job(self, job_id: str, change: dict[str, Any]) -> None:
        if change["kind"] in {"job", "add"}:
            came = change["files"]
            taken_over = {stored["file_id"] for stored in came if stored.get("moved_from")}
            self.legacy = [stored for stored in self.legacy if stored["file_id"] not in taken_over]
            before = [] if change["kind"] == "job" else self.jobs.get(job_id, [])
            self.jobs[job_id] = [*before, *came]
            return
        if "purge" in change:
            del self.trash[change["purge"]["entry"], job_id]
            return
        files = self.jobs.pop(job_id, [])
        if "restore" in change:
            files = [*files, *self.trash.pop((change["restore"]["entry"], job_id))]
        overlays = change.get("files", {})
        files = [
            {**stored, **overlays.get(stored["file_id"], {})}
            for stored in files
            if not overlays.get(stored["file_id"], {}).get("withdrawn")
        ]
        if "trash" in change:
            kept = change["trash"]["kept"]
            self.trash[change["trash"]["entry"], job_id] = [
                stored for stored in files if stored["file_id"] not in kept
            ]
            files = [stored for stored in files if stored["file_id"] in kept]
        if files or "trash" not in change:
            self.jobs[job_id] = files


def read_changes(changes: list[dict[str, Any]]) -> Told:
    """Return what the changes tell, put together in their order."""
    told = Told()
    for change in changes:
        told.take(change)
    return told


def fold(changes: list[dict[str, Any]]) -> dict[str, list[Stored]]:
    """Return the files of each job, put together from the changes in their order."""
    return read_changes(changes).jobs


def assert_sound(root: Path) -> None:
    """Check that document, tree and what a manager answers tell the same story."""
    raw = (root / "file_metadata.json").read_bytes()
    changes = changes_of(root)
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    _assert_lines_match_their_checks(raw)
    told = read_changes(changes)
    jobs, stored_files = told.jobs, told.recorded
    for stored in stored_files:
        _assert_bytes_match(root, stored)
    assert len({stored["path"] for stored in stored_files}) == len(stored_files)
    assert len({stored["file_id"] for stored in stored_files}) == len(stored_files)
    for (entry, job_id), files in told.trash.items():
        for stored in files:
            _assert_bytes_match(root, {**stored, "path": place_in_trash(entry, job_id, stored)})
    assert _files_in_trash(root) == {
        place_in_trash(entry, job_id, stored)
        for (entry, job_id), files in told.trash.items()
        for stored in files
        if not stored.get("missing")
    }
    with FileManager(root) as manager:
        for job_id, files in jobs.items():
            _assert_same(manager.get_job_files(job_id).files, files)
        stats = manager.get_system_stats()
    assert stats.total_files == len(stored_files)
    assert stats.total_size == _size(stored_files)
    assert stats.legacy == Tally(files=len(told.legacy), bytes=_size(told.legacy))
    trashed = [stored for files in told.trash.values() for stored in files]
    assert stats.trash == Tally(files=len(trashed), bytes=_size(trashed))
    _assert_shared_bytes_lead_home(told.everything)
    assert stats.jobs == len(jobs)
    assert not list(root.glob("**/*.part")), "a copy was left behind"


def place_in_trash(entry: str, job_id: str, stored: Stored) -> str:
    """Return where a file rests that was deleted."""
    return f".comfy_files/trash/{entry}/{job_id}/{stored['path'].rpartition('/')[2]}"


def _files_in_trash(root: Path) -> set[str]:
    found = (root / ".comfy_files/trash").glob("**/*")
    return {str(path.relative_to(root)) for path in found if not path.is_dir()}


def _size(files: list[Stored]) -> int:
    """Return how many bytes some files have, those that they share counted once."""
    return sum(stored["file_size"] for stored in files if not stored.get("same_file_as"))


def _assert_lines_match_their_checks(raw: bytes) -> None:
    for line in raw.splitlines()[:-1]:
        body, _, check = (
            line.rstrip(b",").removesuffix(b', "changes": [').rpartition(b', "check": ')
        )
        assert b'"%08x"' % zlib.crc32(body + b"}") == check.removesuffix(b"}")


def _assert_shared_bytes_lead_home(stored_files: list[Stored]) -> None:
    """Check that whoever shares bytes leads to one who has the same, and is counted for all."""
    by_id = {stored["file_id"]: stored for stored in stored_files}
    for stored in stored_files:
        home, steps = stored, 0
        while home.get("same_file_as"):
            home, steps = by_id[home["same_file_as"]], steps + 1
            assert home["checksum"] == stored["checksum"]
            assert steps <= len(stored_files), "they lead in a circle"


def _assert_bytes_match(root: Path, stored: Stored) -> None:
    if stored.get("missing"):
        assert not (root / stored["path"]).exists()
        return
    content = (root / stored["path"]).read_bytes()
    assert len(content) == stored["file_size"]
    assert hashlib.sha256(content).hexdigest() == stored["checksum"]


def _assert_same(records: tuple[Any, ...], files: list[Stored]) -> None:
    keys = set().union(*files) - {"link_from"} if files else set()
    assert [{key: getattr(record, key) for key in keys} for record in records] == [
        {key: stored.get(key, False if key == "missing" else None) for key in keys}
        for stored in files
    ]


def assert_reconciles(report: OrganizeReport) -> None:
    """Check that a report accounts for everything it found, in files and in bytes."""
    accounted = [
        report.moved,
        report.already_there,
        *(Tally(files=1, bytes=left.bytes) for left in (*report.skipped, *report.failed)),
    ]
    assert report.found.files == sum(tally.files for tally in accounted)
    assert report.found.bytes == sum(tally.bytes for tally in accounted)
    assert report.file_count == len(report.organized_files)
    assert report.file_count == report.moved.files + report.already_there.files
    total = report.moved.bytes + report.already_there.bytes
    assert sum(record.file_size for record in report) == total


def reasons(report: OrganizeReport) -> dict[str, str]:
    """Return why each file was left, after checking that the report reconciles."""
    assert_reconciles(report)
    left: tuple[LeftFile, ...] = (*report.skipped, *report.failed)
    found = {entry.path: str(entry.reason) for entry in left}
    assert len(found) == len(left), "a file is left twice"
    return found
