"""The list of operations: what was done, in numbers and file by file, with the reports that are kept."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import InvalidInputError, OperationNotFoundError
from flask_comfy_files.core.layout import LOCK, OPERATIONS, STATE, TRASH
from flask_comfy_files.core.lock import hold
from flask_comfy_files.core.operations import OperationSummary
from tests.conftest import MakeTree, OpenManager
from tests.crash.library_check import delete_index
from tests.trees import NOW, Clock, organized_image, recording

ONE, TWO, THREE = (recording(f"batch_{number:05}_.png") for number in (1, 2, 3))
BOTH = len(ONE) + len(TWO)


@pytest.fixture
def worked(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> tuple[Path, FileManager]:
    """Return a library in which something was done every minute."""
    root = make_tree({"a.png": ONE, "b.png": TWO, "c.png": THREE})
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("job_1", files=["a.png", "b.png"])
    clock.advance(60)
    manager.migrate_legacy_files()
    clock.advance(60)
    manager.assign_legacy_files(["legacy/c.png"], "job_2")
    clock.advance(60)
    manager.update_job("job_2", pinned=True)
    clock.advance(60)
    manager.delete_job_files("job_1")
    clock.advance(60)
    manager.restore_job_files("job_1")
    return root, manager


def told(manager: FileManager) -> list[tuple[str, int, int, int]]:
    """Return kind and numbers of each operation, newest first."""
    return [
        (found.kind, found.jobs, found.files, found.bytes) for found in manager.get_operations()
    ]


EXPECTED = [
    ("restore", 1, 2, BOTH),
    ("delete", 1, 2, BOTH),
    ("mark", 1, 0, 0),
    ("assign", 1, 1, len(THREE)),
    ("migrate", 0, 1, len(THREE)),
    ("organize", 1, 2, BOTH),
]


def test_operations_are_listed_newest_first_with_their_numbers(
    worked: tuple[Path, FileManager],
) -> None:
    root, manager = worked
    assert told(manager) == EXPECTED
    newest = manager.get_operations(limit=1).operations[0]
    assert newest.at == "2026-02-03T04:10:06Z"
    manager.close()
    delete_index(root)
    assert told(manager) == EXPECTED


def test_a_reader_without_an_index_sees_the_same(worked: tuple[Path, FileManager]) -> None:
    root, manager = worked
    before = manager.get_operations()
    manager.close()
    delete_index(root)
    with hold(str(root / LOCK), 1):
        assert manager.get_operations() == before
    assert not list((root / STATE).glob("index*"))


def test_pages_hold_every_operation_once(worked: tuple[Path, FileManager]) -> None:
    _, manager = worked
    everything = manager.get_operations().operations
    found: list[OperationSummary] = []
    cursor: str | None = None
    while len(found) < len(everything):
        page = manager.get_operations(limit=4, cursor=cursor)
        found += page.operations
        cursor = page.next_cursor
        manager.update_job("job_1", tags=[str(len(found))])  # newer ones move nothing
    assert tuple(found) == everything
    assert cursor is None
    assert [entry.kind for entry in manager.get_operations(kind="delete")] == ["delete"]
    assert manager.get_operations(kind="nothing").operations == ()


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": True},
        {"cursor": "later"},
        {"kind": 7},
        {"cursor": 1},
    ],
    ids=repr,
)
def test_what_cannot_be_asked_is_refused(worked: tuple[Path, FileManager], asked: object) -> None:
    assert isinstance(asked, dict)
    with pytest.raises(InvalidInputError):
        worked[1].get_operations(**asked)


def test_an_operation_tells_where_each_file_went(worked: tuple[Path, FileManager]) -> None:
    _, manager = worked
    by_kind = {entry.kind: entry for entry in manager.get_operations()}
    organized = manager.get_operation(by_kind["organize"].operation_id)
    records = manager.get_job_files("job_1").files
    assert organized.changes == tuple(
        {
            "file_id": record.file_id,
            "job_id": "job_1",
            "from": record.original_path,
            "to": record.path,
            "what": "moved",
        }
        for record in records
    )
    assert organized.next_cursor is None
    first = manager.get_operation(organized.operation_id, limit=1)
    second = manager.get_operation(organized.operation_id, limit=1, cursor=first.next_cursor)
    assert (*first.changes, *second.changes) == organized.changes
    assert second.next_cursor is None
    deleted = manager.get_operation(by_kind["delete"].operation_id)
    place = f"{TRASH}/{deleted.operation_id}/job_1"
    assert deleted.changes == (
        {"file_id": None, "job_id": "job_1", "from": None, "to": place, "what": "trashed"},
    )
    with pytest.raises(OperationNotFoundError):
        manager.get_operation("0" * 32)


def test_a_report_is_kept_as_it_was_answered(
    worked: tuple[Path, FileManager], clock: Clock
) -> None:
    root, manager = worked
    clock.advance(60)
    report = manager.delete_job_files("job_1")
    entry = manager.get_operations().operations[0]
    assert entry.report is not None
    expected = asdict(report) | {"skipped": [], "failed": []}
    assert entry.report == expected
    organize = manager.get_operations(kind="organize").operations[0]
    assert organize.report == {"moved": {"files": 2, "bytes": BOTH}}
    note = root / OPERATIONS / f"{report.operation_id}.json"
    note.unlink()
    assert manager.get_operation(report.operation_id).report is None
    assert told(manager)[0][0] == "delete"


def test_a_cleanup_forgets_the_reports_of_three_months_ago(
    worked: tuple[Path, FileManager],
) -> None:
    root, manager = worked
    notes = sorted((root / OPERATIONS).iterdir())
    at = (NOW - timedelta(days=91)).timestamp()
    os.utime(notes[0], (at, at))
    manager.cleanup_old_files(3000)
    assert sorted((root / OPERATIONS).iterdir()) == notes[1:]
    assert len(manager.get_operations().operations) == len(EXPECTED)
    assert organized_image("job_1") in {record.path for record in manager.get_job_files("job_1")}


def test_a_report_that_cannot_be_kept_harms_nothing(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": ONE})
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("job_1", files=["a.png"])
    (root / OPERATIONS).write_bytes(b"in the way")
    assert manager.delete_job_files("job_1").deleted_files == 1
    assert manager.get_operations(kind="delete").operations[0].report is None


def test_asking_where_nothing_was_done_begins_nothing(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": ONE})
    manager = open_manager(root)
    assert manager.get_operations().operations == ()
    manager.cleanup_old_files()
    assert [path.name for path in root.iterdir()] == ["a.png"]
