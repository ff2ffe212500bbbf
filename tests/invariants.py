"""What holds for every library after every change, checked with nothing of the library's own code."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flask_comfy_files import FileManager
from flask_comfy_files.core.records import LeftFile, OrganizeReport, Tally
from flask_comfy_files.core.reports import CleanupReport

Stored = dict[str, Any]


def changes_of(root: Path) -> list[dict[str, Any]]:
    """Return the changes that the document holds, as any JSON program reads them."""
    document = json.loads((root / "file_metadata.json").read_bytes())
    changes: list[dict[str, Any]] = document["changes"]
    return changes


@dataclass
class Told:
    """What the changes tell, put together in their order: who has which files, in the library and in the trash."""

    jobs: dict[str, list[Stored]] = field(default_factory=dict)
    legacy: list[Stored] = field(default_factory=list)
    """Those of no job."""
    trash: dict[tuple[str, str], list[Stored]] = field(default_factory=dict)
    """By the id of the job and of the operation that deleted it."""

    @property
    def living(self) -> list[Stored]:
        """All files in the library."""
        return [*(stored for files in self.jobs.values() for stored in files), *self.legacy]

    @property
    def resting(self) -> list[Stored]:
        """All files in the trash that are there."""
        files = [stored for files in self.trash.values() for stored in files]
        return [stored for stored in files if not stored.get("missing")]

    @property
    def lists(self) -> list[list[Stored]]:
        """The same files, in the lists that they stand in."""
        return [*self.jobs.values(), self.legacy, *self.trash.values()]


def fold(changes: list[dict[str, Any]]) -> Told:
    """Return what the changes tell."""
    told = Told()
    for change in changes:
        if change["kind"] == "state":
            _fold_state(told, change)
        else:
            _fold_files(told, change)
        for stored in (stored for files in told.lists for stored in files):
            stored.update(change.get("twins", {}).get(stored["file_id"], {}))
    return told


def _fold_files(told: Told, change: dict[str, Any]) -> None:
    came = change["files"]
    changed_hands = {stored["file_id"] for stored in came if "moved_from" in stored}
    for files in told.lists:
        files[:] = [stored for stored in files if stored["file_id"] not in changed_hands]
    if change["job_id"] is None:
        told.legacy += came
    else:
        before = [] if change["kind"] == "job" else told.jobs[change["job_id"]]
        told.jobs[change["job_id"]] = [*before, *came]


def _fold_state(told: Told, change: dict[str, Any]) -> None:
    job_id, overlays = change["job_id"], change.get("files", {})
    for files in told.lists:
        files[:] = [
            {**stored, **overlays.get(stored["file_id"], {})}
            for stored in files
            if not overlays.get(stored["file_id"], {}).get("withdrawn")
        ]
    if "restore" in change:
        back = told.trash.pop((job_id, change["restore"]["entry"]))
        told.jobs[job_id] = [*told.jobs.get(job_id, []), *back]
    if "trash" in change:
        kept = change["trash"]["kept"]
        files = told.jobs.pop(job_id)
        going = [stored for stored in files if stored["file_id"] not in kept]
        told.trash[job_id, change["trash"]["entry"]] = going
        if kept:
            told.jobs[job_id] = [stored for stored in files if stored["file_id"] in kept]
    if "purge" in change:
        del told.trash[job_id, change["purge"]["entry"]]


def assert_sound(root: Path) -> None:
    """Check that document, tree, trash and what a manager answers tell the same story."""
    raw = (root / "file_metadata.json").read_bytes()
    changes = changes_of(root)
    first = changes[0]["seq"] if changes else 1
    assert first == 1 or json.loads(raw)["generation"] > 1
    assert [change["seq"] for change in changes] == list(range(first, first + len(changes)))
    _assert_lines_match_their_checks(raw)
    _assert_what_leaves_can_come_back(changes)
    told = fold(changes)
    for stored in told.living:
        _assert_bytes_match(root / stored["path"], stored)
    assert len({stored["path"] for stored in told.living}) == len(told.living)
    everything = [*told.living, *(stored for files in told.trash.values() for stored in files)]
    assert len({stored["file_id"] for stored in everything}) == len(everything)
    _assert_trash_matches(root, told)
    with FileManager(root) as manager:
        for job_id, files in told.jobs.items():
            _assert_same(manager.get_job_files(job_id).files, files)
        stats = manager.get_system_stats()
        trash = manager.get_trash()
    assert (stats.jobs, stats.total_files) == (len(told.jobs), len(told.living))
    assert stats.total_size == _counted(told.living)
    assert stats.legacy == Tally(files=len(told.legacy), bytes=_counted(told.legacy))
    _assert_shared_bytes_lead_home(everything)
    assert {(job.job_id, job.operation_id): job.file_count for job in trash} == {
        key: sum(not stored.get("missing") for stored in files) for key, files in told.trash.items()
    }
    assert (trash.files, trash.bytes) == (len(told.resting), _counted(told.resting))
    assert (stats.trash.files, stats.trash.bytes) == (trash.files, trash.bytes)
    assert not list(root.glob("**/*.part")), "a copy was left behind"


def _counted(files: list[Stored]) -> int:
    """Return the bytes of files, those that several share counted once."""
    return sum(stored["file_size"] for stored in files if not stored.get("same_file_as"))


def _assert_trash_matches(root: Path, told: Told) -> None:
    """Check that the trash holds what the changes put into it, and nothing else."""
    trash = root / ".comfy_files/trash"
    expected = set()
    for (job_id, entry), files in told.trash.items():
        for stored in files:
            place = trash / entry / job_id / Path(stored["path"]).name
            _assert_bytes_match(place, stored)
            expected |= set() if stored.get("missing") else {place}
    assert {path for path in trash.rglob("*") if not path.is_dir()} == expected
    folders = {path for path in trash.rglob("*") if path.is_dir()}
    assert folders == {parent for path in expected for parent in (path.parent, path.parents[1])}


def _assert_lines_match_their_checks(raw: bytes) -> None:
    for line in raw.splitlines()[:-1]:
        body, _, check = (
            line.rstrip(b",").removesuffix(b', "changes": [').rpartition(b', "check": ')
        )
        assert b'"%08x"' % zlib.crc32(body + b"}") == check.removesuffix(b"}")


def _assert_what_leaves_can_come_back(changes: list[dict[str, Any]]) -> None:
    """Check that whoever takes a file out of the library says where it goes, and keeps its record."""
    known: dict[str, Stored] = {}
    for change in changes:
        if change["kind"] != "state":
            known |= {stored["file_id"]: stored for stored in change["files"]}
            continue
        for file_id, overlay in change.get("files", {}).items():
            assert ("moved_to" in overlay) == ("record" in overlay)
            if "record" in overlay:
                record = overlay["record"]
                assert overlay["withdrawn"]
                assert record.keys() == known[file_id].keys() - {
                    "link_from",
                    "moved_from",
                    "recorded_by",
                    "was",
                }
                assert (record["file_id"], record["checksum"], record["original_path"]) == (
                    file_id,
                    known[file_id]["checksum"],
                    known[file_id]["original_path"],
                )


def _assert_shared_bytes_lead_home(stored_files: list[Stored]) -> None:
    """Check that whoever shares bytes leads to one who has the same, and is counted for all."""
    by_id = {stored["file_id"]: stored for stored in stored_files}
    for stored in stored_files:
        home, steps = stored, 0
        while home.get("same_file_as"):
            home, steps = by_id[home["same_file_as"]], steps + 1
            assert home["checksum"] == stored["checksum"]
            assert steps <= len(stored_files), "they lead in a circle"


def _assert_bytes_match(place: Path, stored: Stored) -> None:
    if stored.get("missing"):
        assert not place.exists()
        return
    content = place.read_bytes()
    assert len(content) == stored["file_size"]
    assert hashlib.sha256(content).hexdigest() == stored["checksum"]


def _assert_same(records: tuple[Any, ...], files: list[Stored]) -> None:
    keys = (
        set().union(*files) - {"link_from", "moved_from", "recorded_by", "was"} if files else set()
    )
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


def assert_cleanup_reconciles(report: CleanupReport) -> None:
    """Check that a cleanup accounts for every file of the library, in files, in bytes and by project."""
    left = [*report.skipped, *report.failed]
    size = sum(job.bytes for job in report.jobs)
    assert report.found == Tally(
        files=report.deleted_files + sum(kept.files for kept in report.kept) + len(left),
        bytes=size + sum(kept.bytes for kept in report.kept) + sum(entry.bytes for entry in left),
    )
    assert report.deleted_files == sum(job.files for job in report.jobs)
    assert 0 <= report.bytes_trashed <= size
    counted: dict[str, Counter[str]] = {}
    for job in report.jobs:
        numbers = {"deleted_jobs": 1, "deleted_files": job.files, "deleted_bytes": job.bytes}
        counted.setdefault(job.project_id, Counter()).update(numbers)
    for kept in report.kept:
        numbers = {"kept_jobs": kept.jobs, "kept_files": kept.files, "kept_bytes": kept.bytes}
        counted.setdefault(kept.project_id, Counter()).update(numbers)
    assert [project.project_id for project in report.projects] == sorted(counted)
    for project in report.projects:
        told = asdict(project)
        assert counted[told.pop("project_id")] == Counter(told)  # to which none is zero


def reasons(report: OrganizeReport) -> dict[str, str]:
    """Return why each file was left, after checking that the report reconciles."""
    assert_reconciles(report)
    left: tuple[LeftFile, ...] = (*report.skipped, *report.failed)
    found = {entry.path: str(entry.reason) for entry in left}
    assert len(found) == len(left), "a file is left twice"
    return found
