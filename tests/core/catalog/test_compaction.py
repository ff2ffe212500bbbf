"""Writing the document anew: what holds stays to the last key, and what happened can still be told."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from pathlib import Path
from typing import Any, Final

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import compacting
from flask_comfy_files.core.catalog import compaction
from flask_comfy_files.core.errors import (
    OperationNotUndoableError,
    OutOfSpaceError,
    RecordNotFoundError,
)
from flask_comfy_files.core.layout import COMPACTED, DOCUMENT, INDEX, older_document
from tests.conftest import MakeTree, OpenManager
from tests.core.catalog.test_trashing import live
from tests.crash.library_check import delete_index
from tests.invariants import assert_sound
from tests.trees import Clock, library, outputs

HOLDING: Final = {
    "jobs": "*",
    "projects": "*",
    "types": "*",
    "trash": "job_id, entry, project_id, trashed_us, file_count, total_size, counted_size, job",
    "files": "file_id, job_id, path, original_path, created_us, counted_size, is_single, same_file_as",
    "trashed": "entry, file_id, job_id, path, original_path, created_us, counted_size, same_file_as",
}
"""What the index says of the library, but for where its lines stand."""


def rows(root: Path) -> dict[str, list[str]]:
    with contextlib.closing(sqlite3.connect(root / INDEX)) as connection:
        return {
            table: sorted(map(repr, connection.execute(f"SELECT {columns} FROM {table}")))  # noqa: S608
            for table, columns in HOLDING.items()
        }


def changes(root: Path, path: str = DOCUMENT) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / path).read_bytes())["changes"]
    return found


def lived_in(
    seed: int, make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> tuple[Path, FileManager]:
    """Return a library in which a lot has happened."""
    root = make_tree({})
    chance = random.Random(seed)  # noqa: S311 - to be found again
    manager = open_manager(root, min_free_bytes=0)
    for _ in range(40):
        live(manager, make_tree, clock, chance)
    make_tree({"loose.txt": b"nobody's", "gone.txt": b"soon gone"})
    manager.migrate_legacy_files()
    (root / "legacy/gone.txt").unlink()
    manager.adopt_library()
    return root, manager


@pytest.mark.parametrize("seed", range(4))
def test_what_holds_stays_to_the_last_key(
    seed: int, make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root, manager = lived_in(seed, make_tree, open_manager, clock)
    before, files, was = rows(root), outputs(root), (root / DOCUMENT).read_bytes()
    jobs = [manager.get_job_files(row["job_id"]) for row in _alive(root)]
    report = manager.compact_document()
    assert report is not None
    assert (report.bytes_before, report.kept_as) == (len(was), older_document(1))
    assert report.bytes_after == (root / DOCUMENT).stat().st_size < len(was)
    assert (root / report.kept_as).read_bytes() == was
    assert rows(root) == before
    assert outputs(root) == files
    manager.close()
    for _ in range(2):
        assert [manager.get_job_files(job.job_id) for job in jobs] == jobs
        delete_index(root)
    legacy = manager.get_legacy_files().files
    assert {"loose.txt", "gone.txt"} <= {record.original_path for record in legacy}
    assert [record.original_path for record in legacy if record.missing] == ["gone.txt"]
    manager.organize_output("last", files=["none.txt"])
    assert rows(root)["files"] == before["files"]
    assert_sound(root)
    assert not (root / COMPACTED).exists()


def _alive(root: Path) -> list[dict[str, str]]:
    with contextlib.closing(sqlite3.connect(root / INDEX)) as connection:
        return [{"job_id": row[0]} for row in connection.execute("SELECT job_id FROM jobs")]


def test_everything_goes_on_after_it(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root, manager = lived_in(7, make_tree, open_manager, clock)
    seqs = [change["seq"] for change in changes(root)]
    for generation in (2, 3):
        assert manager.compact_document() is not None
        header = json.loads((root / DOCUMENT).read_bytes())
        assert header["generation"] == generation
        assert min(change["seq"] for change in header["changes"]) > max(seqs)
        seqs = [change["seq"] for change in header["changes"]]
    make_tree({"new_00001_.txt": b"new"})
    assert manager.organize_output("new").moved.files == 1
    manager.delete_job_files("new")
    for job in manager.get_trash():
        with contextlib.suppress(Exception):
            manager.restore_job_files(job.job_id)
    assert_sound(root)


def test_a_plan_from_before_it_can_be_carried_out_and_no_other_job_goes_by_it(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root = make_tree({f"{job}_00001_.txt": job.encode() for job in ("one", "two", "three")})
    manager = open_manager(root, min_free_bytes=0)
    for job in ("one", "two", "three"):
        manager.organize_output(job)
    clock.advance(3600)
    plan = manager.save_cleanup_plan(0, allow=["empty_project", "large_share"])
    assert manager.compact_document() is not None
    report = manager.apply_cleanup_plan(plan.plan_id)
    assert report.deleted_files == 3


def test_what_is_appended_while_the_copy_is_made_is_in_it(
    make_tree: MakeTree,
    open_manager: OpenManager,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, manager = lived_in(1, make_tree, open_manager, clock)
    other = open_manager(root, min_free_bytes=0)
    write = compaction.write

    def write_slowly(*arguments: Any) -> Any:
        copy = write(*arguments)
        make_tree({f"late_{n}.txt": b"late" for n in range(3)})
        other.organize_output("late", files=["late_0.txt"])
        other.organize_output("later", files=["late_1.txt"])
        other.delete_job_files("late")
        other.migrate_legacy_files()
        return copy

    monkeypatch.setattr(compaction, "write", write_slowly)
    assert manager.compact_document() is not None
    expected = rows(root)
    assert "later" in str(expected["jobs"])
    assert len(other.get_job_files("later").files) == 1
    assert [job.job_id for job in other.get_trash()].count("late") == 1
    delete_index(root)
    other.restore_job_files("late")
    assert_sound(root)


def test_a_document_that_was_exchanged_meanwhile_stays(
    make_tree: MakeTree,
    open_manager: OpenManager,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, manager = lived_in(1, make_tree, open_manager, clock)
    write = compaction.write

    def rebuilt_meanwhile(*arguments: Any) -> Any:
        copy = write(*arguments)
        (root / DOCUMENT).write_bytes(b"")
        open_manager(root, min_free_bytes=0).organize_output("other", files=["none.txt"])
        return copy

    monkeypatch.setattr(compaction, "write", rebuilt_meanwhile)
    assert manager.compact_document() is None
    assert manager.get_job_files("other").file_count == 0
    assert_sound(root)


def test_operations_from_before_it_are_listed_and_can_be_undone(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    before = outputs(output_root)
    manager.organize_output("batch")
    manager.organize_output("loop")
    clock.advance(1)
    manager.delete_job_files("loop")
    listed = manager.get_operations()
    (organizing,) = [row for row in listed if row.jobs == 1 and row.files == 4]
    changes = manager.get_operation(organizing.operation_id)
    for _ in range(2):
        assert manager.compact_document() is not None
        delete_index(output_root)
        manager.organize_output("other", files=["none.txt"])
        assert [row for row in manager.get_operations() if row in list(listed)] == list(listed)
        assert manager.get_operation(organizing.operation_id) == changes
    for operation in listed:
        assert not manager.undo_operation(operation.operation_id).failed
    assert outputs(output_root) == before
    assert_sound(output_root)


def test_without_the_older_document_an_operation_is_known_and_cannot_be_undone(
    manager: FileManager, output_root: Path
) -> None:
    operation_id = manager.organize_output("batch").operation_id
    assert operation_id is not None
    report = manager.compact_document()
    assert report is not None
    (output_root / report.kept_as).unlink()
    assert manager.get_operation(operation_id).files == 4
    with pytest.raises(OperationNotUndoableError, match="older document"):
        manager.undo_operation(operation_id)
    assert manager.get_job_files("batch").file_count == 4
    assert_sound(output_root)


def test_it_is_done_where_it_is_worth_it(
    manager: FileManager, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.organize_output("batch")
    for number in range(60):
        manager.update_job("batch", tags=[f"{number} {'x' * 50}", "y" * 60, "z" * 60])
    assert manager.compact_if_worthwhile() is None
    monkeypatch.setattr(compacting, "_LEAST_BYTES", 1)
    assert manager.compact_if_worthwhile() is not None
    assert manager.compact_if_worthwhile() is None
    assert manager.get_job_files("batch").tags[0].startswith("59 ")
    assert [change["kind"] for change in changes(output_root)] == ["state", "job"]


def test_there_must_be_room_for_another_document(
    output_root: Path, open_manager: OpenManager
) -> None:
    open_manager(output_root).organize_output("batch")
    before = library(output_root)
    with pytest.raises(OutOfSpaceError):
        open_manager(output_root, min_free_bytes=1024**6).compact_document()
    assert library(output_root) == {**before, ".comfy_files/compaction.lock": b""}


def test_everything_that_happened_to_a_file_is_told_across_it(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    (first, *_) = manager.organize_output("batch").organized_files
    (neighbour, *_) = manager.organize_output("loop").organized_files
    clock.advance(1)
    manager.update_job("batch", pinned=False, tags=["kept"])
    manager.delete_job_files("batch")
    manager.restore_job_files("batch")
    before = manager.get_file_history(first.file_id)
    assert [event.what for event in before.events] == ["recorded", "deleted", "restored"]
    assert before.events[0].facts["original_path"] == first.original_path
    assert [event.operation_kind for event in before.events] == ["organize", "delete", "restore"]
    assert manager.get_file_history(first.path) == before
    manager.compact_document()
    assert manager.get_file_history(first.file_id) == before
    manager.destroy_job_files("batch")
    manager.compact_document()
    after = manager.get_file_history(first.file_id)
    assert after.events[:3] == before.events
    assert [event.what for event in after.events[3:]] == ["deleted", "purged"]
    assert [event.what for event in manager.get_file_history(neighbour.path).events] == ["recorded"]
    for unknown in (first.path, "f" * 32, "../x", "é"):
        with pytest.raises(RecordNotFoundError):
            manager.get_file_history(unknown)
    assert_sound(output_root)
