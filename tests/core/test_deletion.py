from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import (
    IdentifierCaseError,
    JobInOtherProjectError,
    JobNotFoundError,
    JobPinnedError,
    JobTrashedError,
)
from tests.conftest import MakeTree, OpenManager
from tests.crash.library_check import check_deletions, delete_index
from tests.trees import Clock, library, organized_image, outputs, recording

ONE, TWO, THREE = (recording(f"batch_{number:05}_.png") for number in (1, 2, 3))

Stocked = tuple[Path, FileManager]


@pytest.fixture
def stocked(make_tree: MakeTree, open_manager: OpenManager) -> Stocked:
    """Return a library with a job of two files and one of a single file."""
    root = make_tree({"a.png": ONE, "b.png": TWO, "c.png": THREE})
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("job_1", files=["a.png", "b.png"])
    manager.organize_output("other", files=["c.png"])
    return root, manager


def make_again(make_tree: MakeTree, manager: FileManager, project_id: str = "default") -> None:
    """Use the id of the first job for another file."""
    make_tree({"d.png": THREE})
    manager.organize_output("job_1", project_id, files=["d.png"])


def refuse_to_move(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the system refuse to rename one file, forth and back."""
    move = durable.move

    def refusing(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if source == name:
            raise PermissionError(13, os.strerror(13))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", refusing)


def test_a_deleted_job_rests_in_the_trash_whole(stocked: Stocked) -> None:
    root, manager = stocked
    report = manager.delete_job_files("job_1")
    assert (report.deleted_files, report.bytes_trashed) == (2, len(ONE) + len(TWO))
    assert (report.bytes_freed, report.removed_directories) == (0, 1)
    assert (report.skipped, report.failed) == ((), ())
    assert report.restorable_until == "2026-02-10T04:05:06Z"
    assert outputs(root) == {organized_image("other"): THREE}
    (job,) = manager.get_trash()
    assert (job.job_id, job.project_id, job.file_count) == ("job_1", "default", 2)
    assert (job.restorable_until, job.operation_id) == (
        report.restorable_until,
        report.operation_id,
    )
    check_deletions(root)


def test_deleting_again_answers_the_same_and_changes_nothing(
    stocked: Stocked, clock: Clock
) -> None:
    root, manager = stocked
    report = manager.delete_job_files("job_1")
    before = library(root)
    clock.advance(3600)
    assert manager.delete_job_files("job_1") == report
    assert library(root) == before


def test_a_deleted_job_is_not_known_but_says_until_when_it_comes_back(stocked: Stocked) -> None:
    _, manager = stocked
    manager.delete_job_files("job_1")
    with pytest.raises(JobTrashedError) as caught:
        manager.get_job_files("job_1")
    assert str(caught.value).endswith("it can be restored until 2026-02-10T04:05:06Z.")
    with pytest.raises(JobTrashedError):
        manager.update_job("job_1", pinned=True)


def test_restoring_is_the_identity_on_tree_records_and_answer(
    stocked: Stocked, clock: Clock
) -> None:
    root, manager = stocked
    tree, job, stats = outputs(root), manager.get_job_files("job_1"), manager.get_system_stats()
    times = {path: (root / path).stat().st_mtime_ns for path in tree}
    report = manager.delete_job_files("job_1")
    clock.advance(3600)
    restored = manager.restore_job_files("job_1")
    assert (restored.restored.files, restored.restored.bytes) == (2, report.bytes_trashed)
    assert restored.files == job.files
    assert outputs(root) == tree
    assert {path: (root / path).stat().st_mtime_ns for path in tree} == times
    assert manager.get_job_files("job_1") == job
    assert replace(manager.get_system_stats(), disk=stats.disk) == stats
    check_deletions(root)


def test_restoring_again_does_no_harm(stocked: Stocked) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    manager.restore_job_files("job_1")
    before = library(root)
    again = manager.restore_job_files("job_1")
    assert (again.restored.files, again.already_there.files) == (0, 2)
    assert again.operation_id is None
    assert library(root) == before


@pytest.mark.parametrize("is_in_trash", [False, True])
def test_a_destroyed_job_is_gone_for_good(stocked: Stocked, *, is_in_trash: bool) -> None:
    root, manager = stocked
    if is_in_trash:
        manager.delete_job_files("job_1")
    report = manager.destroy_job_files("job_1")
    assert (report.deleted_files, report.bytes_trashed) == (2, 0)
    assert report.bytes_freed == len(ONE) + len(TWO)
    assert report.restorable_until is None
    assert list(manager.get_trash()) == []
    with pytest.raises(JobNotFoundError) as caught:
        manager.restore_job_files("job_1")
    assert caught.type is JobNotFoundError
    check_deletions(root)


def test_without_days_in_the_trash_a_deletion_is_for_good(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": ONE})
    manager = open_manager(root, trash_days=0, min_free_bytes=0)
    manager.organize_output("job_1", files=["a.png"])
    report = manager.delete_job_files("job_1")
    assert (report.bytes_trashed, report.bytes_freed) == (0, len(ONE))
    assert outputs(root) == {"projects": None}
    assert check_deletions(root).trashed == {}


def test_emptying_the_trash_deletes_what_is_in_it_and_nothing_else(stocked: Stocked) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    report = manager.empty_trash()
    assert (report.purged_jobs, report.purged_files) == (1, 2)
    assert (report.bytes_freed, report.failed) == (len(ONE) + len(TWO), ())
    assert outputs(root) == {organized_image("other"): THREE}
    check_deletions(root)
    assert manager.empty_trash().operation_id is None


@pytest.mark.parametrize(
    "act",
    [FileManager.delete_job_files, FileManager.destroy_job_files, FileManager.restore_job_files],
)
def test_an_unknown_job_is_an_error(
    stocked: Stocked, act: Callable[[FileManager, str], object]
) -> None:
    root, manager = stocked
    before = library(root)
    with pytest.raises(JobNotFoundError):
        act(manager, "nobody")
    assert library(root) == before


def test_an_id_is_free_while_its_old_files_rest_and_restoring_joins_both(
    stocked: Stocked, make_tree: MakeTree, clock: Clock
) -> None:
    root, manager = stocked
    old = manager.get_job_files("job_1").files
    manager.delete_job_files("job_1")
    clock.advance(1)
    make_again(make_tree, manager)
    assert len(manager.get_job_files("job_1").files) == 1
    check_deletions(root)
    report = manager.restore_job_files("job_1")
    assert (report.restored.files, report.already_there.files, report.file_count) == (2, 1, 3)
    assert set(old) < set(manager.get_job_files("job_1").files)
    check_deletions(root)


def test_a_job_does_not_come_back_into_another_project(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    make_again(make_tree, manager, "elsewhere")
    before = library(root)
    with pytest.raises(JobInOtherProjectError):
        manager.restore_job_files("job_1")
    assert library(root) == before
    check_deletions(root)


def test_what_took_a_name_meanwhile_stays_and_the_file_comes_back_beside_it(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    make_again(make_tree, manager)  # at the same second, so with the first one's name
    manager.restore_job_files("job_1")
    job = manager.get_job_files("job_1")
    contents = {record.original_path: (root / record.path).read_bytes() for record in job}
    assert contents == {"a.png": ONE, "b.png": TWO, "d.png": THREE}
    assert len({record.path for record in job}) == 3
    assert outputs(root)[organized_image("job_1")] == THREE
    check_deletions(root)
    delete_index(root)
    check_deletions(root)


def test_a_file_does_not_come_back_beside_where_another_of_its_job_belongs(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    first, second = root / organized_image("job_1"), root / organized_image("job_1", 2)
    second.write_bytes(b"edited")
    manager.delete_job_files("job_1")
    manager.restore_job_files("job_1")  # the second file is the first one of the job now
    second.write_bytes(TWO)
    manager.delete_job_files("job_1")
    make_again(make_tree, manager)
    report = manager.restore_job_files("job_1")
    assert (report.failed, report.file_count) == ((), 3)
    assert (first.read_bytes(), second.read_bytes()) == (THREE, TWO)
    check_deletions(root)


def test_a_foreign_file_with_its_name_is_not_replaced(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    make_tree({organized_image("job_1"): b"somebody else's"})
    manager.restore_job_files("job_1")
    assert (root / organized_image("job_1")).read_bytes() == b"somebody else's"
    paths = [record.path for record in manager.get_job_files("job_1")]
    assert sorted(paths) == [organized_image("job_1", number) for number in (2, 3)]
    (root / organized_image("job_1")).unlink()
    check_deletions(root)


def test_two_deletions_of_one_id_come_back_the_last_first(
    stocked: Stocked, make_tree: MakeTree, clock: Clock
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    clock.advance(1)
    make_again(make_tree, manager)
    second = manager.delete_job_files("job_1")
    assert [job.file_count for job in manager.get_trash()] == [2, 1]
    assert manager.delete_job_files("job_1") == second
    check_deletions(root)
    assert manager.restore_job_files("job_1").file_count == 1
    assert manager.restore_job_files("job_1").file_count == 3
    check_deletions(root)


def test_a_pinned_job_is_refused(stocked: Stocked) -> None:
    root, manager = stocked
    manager.update_job("job_1", pinned=True)
    before = library(root)
    for act in (manager.delete_job_files, manager.destroy_job_files):
        with pytest.raises(JobPinnedError):
            act("job_1")
    assert library(root) == before


def test_a_job_without_files_goes_and_comes_back(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": ONE})
    manager = open_manager(root, min_free_bytes=0)
    manager.complete_job("empty", files=[])
    manager.organize_output("job_1", files=["a.png"])
    before = manager.get_job_files("empty")
    assert manager.delete_job_files("empty").deleted_files == 0
    with pytest.raises(JobTrashedError):
        manager.get_job_files("empty")
    check_deletions(root)
    manager.restore_job_files("empty")
    assert manager.get_job_files("empty") == before
    check_deletions(root)


def test_a_changed_file_stays_with_its_record_and_the_others_go(stocked: Stocked) -> None:
    root, manager = stocked
    changed = root / organized_image("job_1")
    changed.write_bytes(b"edited")
    report = manager.delete_job_files("job_1")
    assert report.deleted_files == 1
    assert [(left.path, left.reason) for left in report.skipped] == [
        (organized_image("job_1"), "changed")
    ]
    assert changed.read_bytes() == b"edited"
    assert [record.path for record in manager.get_job_files("job_1")] == [organized_image("job_1")]
    manager.restore_job_files("job_1")
    assert len(manager.get_job_files("job_1").files) == 2
    changed.write_bytes(ONE)
    check_deletions(root)


def test_a_file_whose_time_alone_was_touched_goes(stocked: Stocked) -> None:
    root, manager = stocked
    os.utime(root / organized_image("job_1"), (1, 1))
    assert manager.delete_job_files("job_1").deleted_files == 2
    check_deletions(root)


def test_a_file_that_is_gone_already_is_no_error(stocked: Stocked) -> None:
    root, manager = stocked
    (root / organized_image("job_1")).unlink()
    report = manager.delete_job_files("job_1")
    assert (report.deleted_files, report.failed) == (1, ())
    assert [left.reason for left in report.skipped] == ["already_gone"]
    check_deletions(root)
    restored = manager.restore_job_files("job_1")
    assert restored.restored.files == 1
    assert [left.path for left in restored.skipped] == [organized_image("job_1")]
    check_deletions(root)


def test_marks_survive_deletion_reorganising_and_the_loss_of_the_index(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    manager.update_job("job_1", pinned=True, tags=["best", "final"])
    manager.update_job("job_1", pinned=False)
    manager.delete_job_files("job_1")
    manager.close()
    delete_index(root)
    manager.restore_job_files("job_1")
    assert manager.get_job_files("job_1").tags == ("best", "final")
    manager.update_job("job_1", pinned=True)
    make_again(make_tree, manager)
    manager.close()
    delete_index(root)
    job = manager.get_job_files("job_1")
    assert (job.pinned, job.tags, job.file_count) == (True, ("best", "final"), 3)


def test_a_file_that_cannot_be_moved_keeps_its_job_whole(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked
    tree, job = outputs(root), manager.get_job_files("job_1")
    with monkeypatch.context() as patched:
        refuse_to_move(patched, Path(organized_image("job_1", 2)).name)
        report = manager.delete_job_files("job_1")
    assert (report.deleted_files, report.bytes_trashed, report.restorable_until) == (0, 0, None)
    (left,) = report.failed
    assert (left.path, left.reason) == (
        organized_image("job_1", 2),
        f"Permission denied (uid {os.geteuid()})",
    )
    assert outputs(root) == tree
    assert manager.get_job_files("job_1") == job
    assert list(manager.get_trash()) == []
    check_deletions(root)
    delete_index(root)
    check_deletions(root)
    assert manager.delete_job_files("job_1").deleted_files == 2


def test_a_file_that_cannot_come_back_keeps_its_job_in_the_trash(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch, make_tree: MakeTree
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    make_again(make_tree, manager)
    with monkeypatch.context() as patched:
        refuse_to_move(patched, Path(organized_image("job_1", 2)).name)
        report = manager.restore_job_files("job_1")
    assert [left.reason for left in report.failed] == [f"Permission denied (uid {os.geteuid()})"]
    assert report.file_count == 1
    check_deletions(root)
    manager.close()
    delete_index(root)
    check_deletions(root)
    assert manager.restore_job_files("job_1").file_count == 3
    check_deletions(root)


def test_a_job_known_in_another_case_does_not_come_back(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    make_tree({"d.png": THREE})
    manager.organize_output("JOB_1", files=["d.png"])
    before = library(root)
    with pytest.raises(IdentifierCaseError):
        manager.restore_job_files("job_1")
    assert library(root) == before
    check_deletions(root)
