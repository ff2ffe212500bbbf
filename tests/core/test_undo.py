"""Undoing operations: every file back where it was, as far as its bytes exist, and never over another."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable, undone
from flask_comfy_files.core.errors import (
    CleanupRunningError,
    JobPinnedError,
    MigrationRunningError,
    OperationNotFoundError,
    OperationNotUndoableError,
)
from flask_comfy_files.core.layout import CLEANUP_LOCK, MIGRATION_LOCK
from flask_comfy_files.core.lock import hold
from flask_comfy_files.core.records import FileRecord
from flask_comfy_files.core.undone import UndoReport
from tests.conftest import MakeTree, OpenManager
from tests.core.test_deletion import share
from tests.crash.library_check import delete_index
from tests.invariants import assert_sound, changes_of
from tests.trees import Clock, Tree, outputs, recording, write_tree

ONE, TWO, THREE = (recording(f"batch_{number:05}_.png") for number in (1, 2, 3))

Stocked = tuple[Path, FileManager]


@pytest.fixture
def stocked(make_tree: MakeTree, open_manager: OpenManager) -> Stocked:
    """Return a library with a job of two files, and a file of nobody's beside."""
    root = make_tree({"a.png": ONE, "sub/b.png": TWO, "c.png": THREE})
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("job_1", files=["a.png", "sub/b.png"])
    return root, manager


def files_in(root: Path) -> Tree:
    """Return all files but our own; folders that are empty tell nothing."""
    return {path: content for path, content in outputs(root).items() if content is not None}


def last(manager: FileManager, kind: str) -> str:
    """Return the id of the last operation of a kind, whatever the time of day."""
    changes = changes_of(Path(manager.settings.output_dir))
    found = [change["operation"] for change in changes if change["operation"]["kind"] == kind]
    return str(found[-1]["id"])


def undo(root: Path, manager: FileManager, operation_id: str) -> UndoReport:
    """Undo an operation, as its rehearsal says, and expect a sound library and an account that adds up."""
    planned = manager.plan_undo(operation_id)
    report = manager.undo_operation(operation_id)
    left = [*report.skipped, *report.failed]
    tallies = [report.undone, report.already_undone]
    assert report.found.files == sum(part.files for part in [*tallies, *left])  # type: ignore[attr-defined]
    assert report.found.bytes == sum(part.bytes for part in [*tallies, *left])  # type: ignore[attr-defined]
    if not report.failed:
        assert (planned.found, planned.undone) == (report.found, report.undone)
        assert (planned.dry_run, planned.operation_id) == (True, None)
    assert_sound(root)
    return report


def reasons(report: UndoReport) -> dict[str, str]:
    """Return why each file was left."""
    return {left.path: left.reason for left in (*report.skipped, *report.failed)}


def facts_of(record: FileRecord) -> dict[str, object]:
    """Return what should survive an undo and its undo."""
    return {key: getattr(record, key) for key in record.__slots__}


def test_an_undone_organize_puts_every_file_back_where_it_lay(stocked: Stocked) -> None:
    root, manager = stocked
    report = undo(root, manager, last(manager, "organize"))
    assert files_in(root) == {"a.png": ONE, "sub/b.png": TWO, "c.png": THREE}
    assert (report.undone.files, report.kind) == (2, "organize")
    job = manager.get_job_files("job_1")
    assert (job.file_count, job.reason) == (0, "its files were put back where they came from")
    again = manager.organize_output("job_1", files=["a.png", "sub/b.png"])
    assert again.moved.files == 2
    assert manager.get_job_files("job_1").reason is None


def test_undone_and_redone_records_are_the_same(stocked: Stocked, clock: Clock) -> None:
    root, manager = stocked
    manager.update_job("job_1", pinned=True, tags=["hero"])
    before, tree = manager.get_job_files("job_1"), files_in(root)
    clock.advance(1000)
    undo(root, manager, last(manager, "organize"))
    clock.advance(1000)
    undo(root, manager, last(manager, "undo"))
    assert manager.get_job_files("job_1") == before
    assert files_in(root) == tree
    manager.close()
    delete_index(root)
    assert manager.get_job_files("job_1") == before
    second, first = manager.get_operations(kind="undo").operations
    assert (first.undone_by, second.undone_by) == (second.operation_id, None)
    assert manager.get_operations(kind="organize").operations[0].undone_by is None


def test_undoing_twice_answers_the_same_and_does_nothing_more(stocked: Stocked) -> None:
    root, manager = stocked
    operation_id = last(manager, "organize")
    first = undo(root, manager, operation_id)
    lines = len(changes_of(root))
    assert manager.undo_operation(operation_id) == first
    assert len(changes_of(root)) == lines
    assert manager.get_operation(operation_id).undone_by == first.operation_id
    assert manager.plan_undo(operation_id).already_undone == first.undone


def test_of_two_who_undo_the_same_one_does_it(stocked: Stocked) -> None:
    root, manager = stocked
    operation_id = last(manager, "organize")
    with FileManager(root, min_free_bytes=0) as other, ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda one: one.undo_operation(operation_id), [manager, other]))
    assert {report.found.files for report in both} == {2}
    undos = [entry for entry in manager.get_operations(kind="undo") if entry.files]
    assert [(entry.files, entry.undoes) for entry in undos] == [(2, operation_id)]
    assert files_in(root) == {"a.png": ONE, "sub/b.png": TWO, "c.png": THREE}
    assert_sound(root)


def test_a_name_that_is_taken_is_left_alone(stocked: Stocked) -> None:
    root, manager = stocked
    write_tree(root, {"a.png": THREE, "a_2.png": TWO})
    report = undo(root, manager, last(manager, "organize"))
    assert [(move.path, move.target) for move in report.beside] == [("a.png", "a_3.png")]
    expected = {"a.png": THREE, "a_2.png": TWO, "a_3.png": ONE, "sub/b.png": TWO, "c.png": THREE}
    assert files_in(root) == expected
    undo(root, manager, last(manager, "undo"))  # it knows where the file lies
    assert [record.original_path for record in manager.get_job_files("job_1")] == [
        "a.png",
        "sub/b.png",
    ]
    assert "a_3.png" not in files_in(root)


def test_a_migration_is_undone_in_batches(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {f"x_{number:05}_.png": b"%d" % number for number in range(20)}
    tree |= {f"job_{number % 3}/y_{number}.png": b"y%d" % number for number in range(7)}
    root = make_tree(tree)
    manager = open_manager(root, min_free_bytes=0)
    listed = [
        {"job_id": f"job_{job}", "files": [path for path in tree if path.startswith(f"job_{job}/")]}
        for job in range(3)
    ]
    manager.migrate_legacy_files(jobs=listed)
    migrated = files_in(root)
    monkeypatch.setattr(undone, "FILES_AT_ONCE", 4)
    monkeypatch.setattr("flask_comfy_files.core.undoing.FILES_AT_ONCE", 4)
    report = undo(root, manager, last(manager, "migrate"))
    assert (report.undone.files, files_in(root)) == (27, tree)
    batches = {change["batch"] for change in changes_of(root) if "batch" in change}
    assert len(batches) > 5
    assert undo(root, manager, last(manager, "undo")).undone.files == 27
    assert files_in(root) == migrated


def test_an_undone_assignment_gives_the_file_back_to_nobody(stocked: Stocked, clock: Clock) -> None:
    root, manager = stocked
    manager.migrate_legacy_files()
    before = manager.get_legacy_files()
    clock.advance(100)
    manager.assign_legacy_files(["legacy/c.png"], "job_1")
    assigned = manager.get_job_files("job_1")
    clock.advance(100)
    undo(root, manager, last(manager, "assign"))
    assert manager.get_legacy_files() == before
    undo(root, manager, last(manager, "undo"))
    assert manager.get_job_files("job_1") == assigned
    report = undo(root, manager, last(manager, "migrate"))
    assert [left.reason for left in report.skipped] == ["changed_later"]
    assert str(last(manager, "undo")) in str(report.skipped[0].advice)


def test_an_undone_deletion_brings_the_job_back(stocked: Stocked) -> None:
    root, manager = stocked
    before, tree = manager.get_job_files("job_1"), files_in(root)
    manager.delete_job_files("job_1")
    report = undo(root, manager, last(manager, "delete"))
    assert (report.undone.files, files_in(root)) == (2, tree)
    assert manager.get_job_files("job_1").files == before.files


def test_an_undone_cleanup_brings_back_what_is_not_purged(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root = make_tree({"a.png": ONE, "b.png": TWO, "c.png": THREE})
    manager = open_manager(root, min_free_bytes=0)
    for job_id, path in (("one", "a.png"), ("two", "b.png"), ("three", "c.png")):
        manager.organize_output(job_id, files=[path])
    tree = files_in(root)
    clock.advance(40 * 24 * 3600)
    manager.cleanup_old_files(allow=["empty_project", "large_share", "clock_jump"])
    cleanup = last(manager, "cleanup")
    assert files_in(root) == {}
    manager.destroy_job_files("two")
    report = undo(root, manager, cleanup)
    assert reasons(report) == {"job two": "deleted_for_good"}
    assert report.skipped[0].bytes == len(TWO)
    assert files_in(root) == {path: tree[path] for path in tree if "two" not in path}
    redone = undo(root, manager, last(manager, "undo"))
    assert (redone.undone.files, files_in(root)) == (2, {})
    assert {job.job_id for job in manager.get_trash()} == {"one", "three"}


def test_an_undone_restoration_deletes_again_but_no_pinned_job(stocked: Stocked) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    tree = files_in(root)
    manager.restore_job_files("job_1")
    restoration = last(manager, "restore")
    assert manager.undo_deletes(restoration)
    manager.update_job("job_1", pinned=True)
    for ask in (manager.plan_undo, manager.undo_operation):
        with pytest.raises(JobPinnedError):
            ask(restoration)
    manager.update_job("job_1", pinned=False)
    undo(root, manager, restoration)
    assert files_in(root) == tree
    assert [job.operation_id for job in manager.get_trash()] == [last(manager, "undo")]
    undo(root, manager, last(manager, "delete"))  # the same files, deleted once more meanwhile
    assert manager.get_job_files("job_1").file_count == 2


def test_an_undone_restoration_takes_only_what_it_had_brought(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    manager.organize_output("job_1", files=["c.png"])
    manager.restore_job_files("job_1")
    make_tree({"later.png": b"later"})
    manager.organize_output("job_1", files=["later.png"])
    report = undo(root, manager, last(manager, "restore"))
    assert (report.undone.files, report.skipped) == (2, ())
    kept = [record.original_path for record in manager.get_job_files("job_1")]
    assert kept == ["c.png", "later.png"]


def test_what_cannot_be_undone_is_told_with_the_reason(stocked: Stocked) -> None:
    root, manager = stocked
    first, second = (record.path for record in manager.get_job_files("job_1"))
    organize = last(manager, "organize")
    (root / first).write_bytes(b"changed")
    (root / second).unlink()
    report = manager.undo_operation(organize)
    assert reasons(report) == {first: "changed", second: "not_found"}
    assert report.operation_id is None
    write_tree(root, {second: TWO})
    manager.delete_job_files("job_1")
    report = manager.undo_operation(organize)
    assert set(reasons(report).values()) == {"changed", "in_trash"}
    assert {left.advice for left in report.skipped if left.reason == "in_trash"} == {
        "Restore job job_1 first."
    }
    manager.empty_trash()
    assert set(reasons(manager.undo_operation(organize)).values()) == {
        "changed",
        "deleted_for_good",
    }


def test_the_rest_is_undone_once_it_can_be(stocked: Stocked) -> None:
    root, manager = stocked
    first, second = (record.path for record in manager.get_job_files("job_1"))
    organize = last(manager, "organize")
    (root / second).unlink()
    assert manager.undo_operation(organize).undone.files == 1
    write_tree(root, {second: TWO})
    report = undo(root, manager, organize)
    assert (report.undone.files, report.already_undone.files) == (1, 1)
    assert not (root / first).exists()
    assert files_in(root) == {"a.png": ONE, "sub/b.png": TWO, "c.png": THREE}


@pytest.mark.parametrize(
    ("kind", "path", "error"),
    [
        ("migrate", MIGRATION_LOCK, MigrationRunningError),
        ("cleanup", CLEANUP_LOCK, CleanupRunningError),
    ],
)
def test_what_is_still_under_way_cannot_be_undone(
    stocked: Stocked, clock: Clock, kind: str, path: str, error: type[Exception]
) -> None:
    root, manager = stocked
    manager.migrate_legacy_files()
    clock.advance(40 * 24 * 3600)
    manager.cleanup_old_files()
    operation_id, before = last(manager, kind), files_in(root)
    with hold(str(root / path), 1), pytest.raises(error):
        manager.undo_operation(operation_id)
    assert files_in(root) == before
    assert undo(root, manager, operation_id).undone.files


def test_what_cannot_be_undone_at_all_is_refused_with_advice(stocked: Stocked) -> None:
    _, manager = stocked
    manager.update_job("job_1", tags=["x"])
    manager.delete_job_files("job_1")
    manager.empty_trash()
    for kind in ("mark", "purge"):
        with pytest.raises(OperationNotUndoableError, match=kind):
            manager.undo_operation(last(manager, kind))
    with pytest.raises(OperationNotFoundError):
        manager.undo_operation("nonsense")
    with pytest.raises(OperationNotFoundError):
        manager.undo_operation("half a pair \udcff")


def test_a_file_that_the_system_does_not_let_go_keeps_its_record(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked
    before = manager.get_job_files("job_1").files
    refuse(monkeypatch, lambda source, _: source == Path(before[0].path).name)
    report = undo(root, manager, last(manager, "organize"))
    assert list(reasons(report)) == [before[0].path]
    assert report.undone.files == 1
    assert manager.get_job_files("job_1").files == before[:1]
    monkeypatch.undo()
    assert undo(root, manager, last(manager, "organize")).undone.files == 1


def test_a_file_that_cannot_come_back_stays_where_it_was_put(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked
    before = manager.get_job_files("job_1").files
    undo(root, manager, last(manager, "organize"))
    first_undo = last(manager, "undo")
    refuse(monkeypatch, lambda source, _: source == "a.png")
    report = undo(root, manager, first_undo)
    assert list(reasons(report)) == ["a.png"]
    assert (root / "a.png").read_bytes() == ONE
    assert manager.get_job_files("job_1").files == before[1:]
    monkeypatch.undo()
    undo(root, manager, first_undo)
    assert {record.file_id for record in manager.get_job_files("job_1")} == {
        record.file_id for record in before
    }


def refuse(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[str, str], bool]) -> None:
    """Let the system refuse some renames."""
    move = durable.move

    def refusing(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if is_refused(source, target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", refusing)


def test_a_shared_name_goes_only_while_another_record_has_its_bytes(stocked: Stocked) -> None:
    root, manager = stocked
    home = manager.get_job_files("job_1").files[0]
    guest = share(root, home, "guest")
    total = manager.get_system_stats().total_size
    sharing = manager.get_operations(limit=200)
    (operation,) = [entry for entry in sharing if entry.jobs and entry.files == 1]
    report = undo(root, manager, operation.operation_id)
    assert (report.undone.files, (root / guest.path).exists()) == (1, False)
    assert (root / home.path).read_bytes() == ONE
    undo(root, manager, last_undo_of(manager, operation.operation_id))
    assert (root / guest.path).read_bytes() == ONE
    assert manager.get_job_files("guest").files == (guest_with_path(guest, root),)
    assert manager.get_system_stats().total_size == total
    manager.delete_job_files("job_1")
    manager.empty_trash()
    report = undo(root, manager, operation.operation_id)
    assert reasons(report) == {guest.path: "only_copy"}
    assert (root / guest.path).read_bytes() == ONE


def die_in(monkeypatch: pytest.MonkeyPatch, effect: str) -> None:
    """Let the work end where it calls an effect on the disk, as a kill would."""

    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(durable, effect, dying)


@pytest.mark.parametrize("has_home", [True, False], ids=["elsewhere", "nowhere else"])
def test_a_shared_name_whose_removal_was_interrupted_goes_if_the_bytes_are_elsewhere(
    stocked: Stocked,
    monkeypatch: pytest.MonkeyPatch,
    has_home: bool,  # noqa: FBT001
) -> None:
    root, manager = stocked
    home = manager.get_job_files("job_1").files[0]
    guest = share(root, home, "guest")
    (operation,) = [entry for entry in manager.get_operations() if entry.files == 1]
    with monkeypatch.context() as patch:
        die_in(patch, "remove")
        with pytest.raises(KeyboardInterrupt):
            manager.undo_operation(operation.operation_id)
    if not has_home:
        (root / home.path).unlink()
    assert manager.get_job_files("guest").file_count == (0 if has_home else 1)
    assert (root / guest.path).exists() is not has_home
    if has_home:
        assert_sound(root)


def last_undo_of(manager: FileManager, operation_id: str) -> str:
    """Return the id of the operation that has undone another."""
    undone_by = manager.get_operation(operation_id).undone_by
    assert undone_by is not None
    return undone_by


def guest_with_path(guest: FileRecord, root: Path) -> FileRecord:
    """Return the record with the absolute path under which a manager tells it."""
    facts = facts_of(guest) | {"file_path": str(root / guest.path)}
    return FileRecord(**facts)  # type: ignore[arg-type]


def test_who_shared_the_bytes_counts_them_while_they_are_undone(stocked: Stocked) -> None:
    root, manager = stocked
    home = manager.get_job_files("job_1").files[0]
    guests = [share(root, home, name) for name in ("guest_1", "guest_2")]
    total = manager.get_system_stats().total_size
    organize = manager.get_operations(kind="organize").operations
    (operation,) = [entry for entry in organize if entry.files == 2]
    undo(root, manager, operation.operation_id)
    assert manager.get_system_stats().total_size == len(ONE)
    heir, other = (manager.get_file_metadata(guest.file_id) for guest in guests)
    assert (heir.same_file_as, other.same_file_as) == (None, heir.file_id)
    undo(root, manager, last_undo_of(manager, operation.operation_id))
    assert manager.get_system_stats().total_size == total
    manager.close()
    delete_index(root)
    assert_sound(root)


def test_everything_undone_in_reverse_order_gives_the_first_tree_back(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root = make_tree({"job_1_00001_.png": ONE, "x.png": TWO, "y.png": THREE, "job_2.png": b"two"})
    manager = open_manager(root, min_free_bytes=0)
    trees = [files_in(root)]
    for act in (
        lambda: manager.organize_output("job_1"),
        manager.migrate_legacy_files,
        lambda: manager.assign_legacy_files(["legacy/y.png"], "job_1"),
        lambda: manager.delete_job_files("job_1"),
        lambda: manager.restore_job_files("job_1"),
        lambda: manager.delete_job_files("job_1"),
    ):
        clock.advance(10)
        act()
        trees.append(files_in(root))
    done = [entry.operation_id for entry in manager.get_operations()]
    undos = []
    for operation_id in done:
        assert files_in(root) == trees.pop()
        clock.advance(10)
        report = undo(root, manager, operation_id)
        assert (report.skipped, report.failed) == ((), ())
        undos.append(str(report.operation_id))
    assert [files_in(root)] == trees
    for operation_id in reversed(undos):  # and forth again
        assert not undo(root, manager, operation_id).skipped
    assert [job.job_id for job in manager.get_trash()] == ["job_1"]
    assert manager.get_legacy_files().file_count == 2
