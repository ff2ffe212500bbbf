"""What holds for every library after every change, checked with nothing of the library's own code."""

from __future__ import annotations

import hashlib
import json
import zlib
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


def fold(changes: list[dict[str, Any]]) -> dict[str, list[Stored]]:
    """Return the files of each job, put together from the changes in their order."""
    jobs: dict[str, list[Stored]] = {}
    for change in changes:
        files = jobs.setdefault(change["job_id"], [])
        if change["kind"] == "job":
            files[:] = change["files"]
        elif change["kind"] == "add":
            files += change["files"]
        else:
            overlays = change.get("files", {})
            files[:] = [
                {**stored, **overlays.get(stored["file_id"], {})}
                for stored in files
                if not overlays.get(stored["file_id"], {}).get("withdrawn")
            ]
        for stored in (stored for files in jobs.values() for stored in files):
            stored.update(change.get("twins", {}).get(stored["file_id"], {}))
    return jobs


def assert_sound(root: Path) -> None:
    """Check that document, tree and what a manager answers tell the same story."""
    raw = (root / "file_metadata.json").read_bytes()
    changes = changes_of(root)
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    _assert_lines_match_their_checks(raw)
    jobs = fold(changes)
    stored_files = [stored for files in jobs.values() for stored in files]
    for stored in stored_files:
        _assert_bytes_match(root, stored)
    assert len({stored["path"] for stored in stored_files}) == len(stored_files)
    assert len({stored["file_id"] for stored in stored_files}) == len(stored_files)
    with FileManager(root) as manager:
        for job_id, files in jobs.items():
            _assert_same(manager.get_job_files(job_id).files, files)
        stats = manager.get_system_stats()
    assert stats.total_files == len(stored_files)
    assert stats.total_size == sum(
        stored["file_size"] for stored in stored_files if not stored.get("same_file_as")
    )
    _assert_shared_bytes_lead_home(stored_files)
    assert stats.jobs == len(jobs)
    assert not list(root.glob("**/*.part")), "a copy was left behind"


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
