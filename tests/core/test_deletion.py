from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import deletion, durable
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.errors import (
    IdentifierCaseError,
    JobInOtherProjectError,
    JobNotFoundError,
    JobPinnedError,
    JobTrashedError,
)
from flask_comfy_files.core.examination import Examined, examine
from flask_comfy_files.core.layout import TRASH
from flask_comfy_files.core.records import FileRecord, file_to_stored
from flask_comfy_files.core.recovery import changing
from flask_comfy_files.core.reports import DeletionReport
from tests.conftest import MakeTree, OpenManager
from tests.crash.library_check import check_deletions, delete_index
from tests.invariants import assert_sound
from tests.trees import Clock, library, organized_image, outputs, read_tree, recording

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


def test_a_file_that_cannot_be_looked_at_keeps_its_job_whole(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is what its record says is not known, and what was asked for is the whole job."""
    root, manager = stocked
    os.utime(root / organized_image("job_1", 2), (1, 1))  # so that its bytes are read
    before = library(root)
    open_regular = durable.open_regular

    def refusing(folder: int, name: str) -> AbstractContextManager[int]:
        if name == Path(organized_image("job_1", 2)).name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_regular(folder, name)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "open_regular", refusing)
        report = manager.delete_job_files("job_1")
    assert report.deleted_files == 0
    assert [left.path for left in report.failed] == [organized_image("job_1", 2)]
    assert library(root) == before
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


def test_an_older_deletion_of_another_project_stays_where_it_is(
    stocked: Stocked, make_tree: MakeTree, clock: Clock
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    clock.advance(1)
    make_again(make_tree, manager, "elsewhere")
    manager.delete_job_files("job_1")
    assert manager.restore_job_files("job_1").project_id == "elsewhere"
    with pytest.raises(JobInOtherProjectError):
        manager.restore_job_files("job_1")
    assert [job.project_id for job in manager.get_trash()] == ["default"]
    check_deletions(root)


def test_destroying_a_job_takes_what_rests_under_its_id_as_well(
    stocked: Stocked, make_tree: MakeTree, clock: Clock
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    clock.advance(1)
    make_again(make_tree, manager, "elsewhere")
    report = manager.destroy_job_files("job_1")
    assert (report.project_id, report.deleted_files) == ("elsewhere", 1)
    assert report.bytes_freed == len(ONE) + len(TWO) + len(THREE)
    assert list(manager.get_trash()) == []
    check_deletions(root)


def test_destroying_a_job_of_which_a_file_stays_takes_nothing_that_rests_under_its_id(
    stocked: Stocked, make_tree: MakeTree, clock: Clock
) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    clock.advance(1)
    make_again(make_tree, manager)
    (changed,) = manager.get_job_files("job_1").files
    (root / changed.path).write_bytes(b"edited")
    report = manager.destroy_job_files("job_1")
    assert [left.reason for left in report.skipped] == ["changed"]
    assert [job.file_count for job in manager.get_trash()] == [2]


def test_a_project_may_come_again_in_another_case_once_it_is_gone(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    """Whoever reads the document as a whole meets both spellings."""
    root, manager = stocked
    make_tree({"d.png": THREE, "e.png": ONE})
    manager.organize_output("in_one", "Tokyo", files=["d.png"])
    manager.delete_job_files("in_one")
    manager.organize_output("in_other", "tokyo", files=["e.png"])
    manager.update_job("in_other", tags=["last"])
    manager.close()
    delete_index(root)
    check_deletions(root)
    with pytest.raises(IdentifierCaseError, match="Tokyo"):
        manager.restore_job_files("in_one")
    manager.destroy_job_files("in_other")
    assert manager.restore_job_files("in_one").project_id == "Tokyo"
    check_deletions(root)


def test_what_waits_goes_with_its_job_and_comes_back_with_it(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    make_tree({"late.png": THREE})
    with FileManager(root, request_budget_bytes=1, min_free_bytes=0) as hasty:
        hasty.complete_job("job_1", files=["late.png"])
    waiting = manager.get_pending_jobs()
    assert len(waiting) == 1
    manager.delete_job_files("job_1")
    assert manager.get_pending_jobs() == []
    manager.close()
    delete_index(root)
    manager.restore_job_files("job_1")
    assert manager.get_pending_jobs() == waiting
    manager.retry_pending_jobs()
    assert manager.get_job_files("job_1").file_count == 3
    check_deletions(root)


def test_joined_to_a_job_of_its_id_a_job_brings_its_runs_and_tags_and_no_reason(
    stocked: Stocked, make_tree: MakeTree
) -> None:
    root, manager = stocked
    note(root, "job_1", {"runs": {"old": {"status": "success"}, "both": {"status": "error"}}})
    manager.update_job("job_1", tags=["kept"])
    manager.delete_job_files("job_1")
    manager.organize_output("job_1", files=["gone.png"])
    note(root, "job_1", {"runs": {"both": {"status": "success"}}})
    assert manager.get_job_files("job_1").reason is not None
    manager.restore_job_files("job_1")
    for _ in range(2):
        job = manager.get_job_files("job_1")
        assert {run["prompt_id"]: run["status"] for run in job.runs} == {
            "old": "success",
            "both": "success",
        }
        assert (job.tags, job.reason, job.file_count) == (("kept",), None, 2)
        manager.close()
        delete_index(root)
    make_tree({"d.png": THREE})
    manager.delete_job_files("job_1")
    manager.organize_output("job_1", files=["d.png"])
    manager.update_job("job_1", tags=["new"])
    manager.restore_job_files("job_1")
    assert manager.get_job_files("job_1").tags == ("new",)


def note(root: Path, job_id: str, state: dict[str, object]) -> None:
    """Record something of a job, as a call that hears of its runs does."""
    catalog = Catalog(str(root), lock_timeout_s=1)
    operation = {"id": uuid.uuid4().hex, "kind": "organize", "at": "2026-02-03T04:05:06Z"}
    with changing(str(root), catalog) as writer:
        change = {"kind": "state", "job_id": job_id, "operation": operation, "state": state}
        writer.advance(writer.append([change]))
    catalog.close()


# --- what is shared


def share(root: Path, original: FileRecord, job_id: str) -> FileRecord:
    """Give a job the file of another record, as a cached run gets it: as a link, and its bytes counted once."""
    path = organized_image(job_id)
    (root / path).parent.mkdir(parents=True)
    os.link(root / original.path, root / path)
    guest = replace(
        original,
        file_id=uuid.uuid4().hex,
        path=path,
        job_id=job_id,
        evidence="cached",
        same_file_as=original.file_id,
    )
    change = {
        "kind": "job",
        "job_id": job_id,
        "project_id": guest.project_id,
        "operation": {"id": uuid.uuid4().hex, "kind": "organize", "at": guest.created_at},
        "state": {},
        "files": [{**file_to_stored(guest), "link_from": original.path}],
    }
    catalog = Catalog(str(root), lock_timeout_s=1)
    with changing(str(root), catalog) as writer:
        writer.advance(writer.append([change]))
    catalog.close()
    return guest


def bytes_counted(manager: FileManager) -> tuple[int, int]:
    """Return how many bytes count in the library, and in the trash."""
    stats = manager.get_system_stats()
    return stats.total_size, stats.trash.bytes


def test_shared_bytes_count_once_wherever_their_files_are(stocked: Stocked) -> None:
    root, manager = stocked
    (home,) = manager.get_job_files("other").files
    guests = {name: share(root, home, name) for name in ("guest_1", "guest_2")}
    rest, size = len(ONE) + len(TWO), len(THREE)
    assert bytes_counted(manager) == (rest + size, 0)
    manager.delete_job_files("guest_2")
    assert bytes_counted(manager) == (rest + size, 0)
    manager.delete_job_files("other")  # the others still share its bytes
    assert bytes_counted(manager) == (rest, size)
    assert_sound(root)
    report = manager.destroy_job_files("other")
    assert (report.deleted_files, report.bytes_freed) == (1, 0)
    assert bytes_counted(manager) == (rest + size, 0)
    (heir,) = manager.get_job_files("guest_1").files
    assert (heir.file_id, heir.same_file_as) == (guests["guest_1"].file_id, None)
    assert_sound(root)
    manager.close()
    delete_index(root)
    assert_sound(root)
    assert manager.destroy_job_files("guest_1").bytes_freed == 0
    assert bytes_counted(manager) == (rest, size)  # those of the one in the trash
    manager.restore_job_files("guest_2")
    assert bytes_counted(manager) == (rest + size, 0)
    assert_sound(root)
    assert manager.destroy_job_files("guest_2").bytes_freed == size


def test_one_heir_counts_the_bytes_though_a_chain_of_records_goes_at_once(stocked: Stocked) -> None:
    root, manager = stocked
    (home,) = manager.get_job_files("other").files
    first = share(root, home, "guest_1")
    share(root, first, "guest_2")
    share(root, home, "guest_3")
    before = bytes_counted(manager)
    for job_id in ("other", "guest_1"):
        manager.delete_job_files(job_id)
    assert manager.empty_trash().purged_jobs == 2
    assert bytes_counted(manager) == before
    assert_sound(root)
    manager.close()
    delete_index(root)
    assert bytes_counted(manager) == before


# --- what does not go as it should


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let somebody else do something when the job's files have been looked at, and the lock is not held yet."""
    acts = [act]

    def examine_late(*args: Any) -> Examined:
        examined = examine(*args)
        while acts:
            acts.pop()()
        return examined

    monkeypatch.setattr(deletion, "examine", examine_late)


def test_what_is_organized_while_a_job_is_looked_at_goes_with_it(
    stocked: Stocked, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked
    meanwhile(monkeypatch, lambda: make_again(make_tree, manager))
    assert manager.delete_job_files("job_1").deleted_files == 3
    check_deletions(root)


def test_a_job_that_is_pinned_while_it_is_looked_at_stays(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked
    meanwhile(monkeypatch, lambda: manager.update_job("job_1", pinned=True))
    with pytest.raises(JobPinnedError):
        manager.delete_job_files("job_1")
    assert manager.get_job_files("job_1").file_count == 2
    check_deletions(root)


def test_of_two_who_delete_a_job_at_once_the_second_answers_as_the_first(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked
    first: list[DeletionReport] = []
    meanwhile(monkeypatch, lambda: first.append(manager.delete_job_files("job_1")))
    assert [manager.delete_job_files("job_1")] == first
    check_deletions(root)


def test_a_job_of_which_nothing_can_come_back_says_because_of_which_file(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked
    until = manager.delete_job_files("job_1").restorable_until
    before = outputs(root)
    with monkeypatch.context() as patched:
        refuse_to_move(patched, Path(organized_image("job_1", 2)).name)
        report = manager.restore_job_files("job_1")
    (left,) = report.failed
    assert left.reason == f"Permission denied (uid {os.geteuid()})"
    assert (report.project_id, report.restored.files, report.file_count) == ("default", 0, 0)
    assert report.found.files == 1
    assert outputs(root) == before
    assert [job.restorable_until for job in manager.get_trash()] == [until]
    check_deletions(root)
    assert manager.restore_job_files("job_1").restored.files == 2
    check_deletions(root)


def test_a_file_that_somebody_took_out_of_the_trash_is_missing_and_the_others_come_back(
    stocked: Stocked,
) -> None:
    root, manager = stocked
    entry = manager.delete_job_files("job_1").operation_id
    (root / TRASH / entry / "job_1" / Path(organized_image("job_1")).name).unlink()
    report = manager.restore_job_files("job_1")
    assert (report.restored.files, report.found.files) == (1, 2)
    assert [(left.path, left.reason) for left in report.skipped] == [
        (organized_image("job_1"), "not_found")
    ]
    assert [record.missing for record in manager.get_job_files("job_1")] == [True, False]
    check_deletions(root)
    manager.close()
    delete_index(root)
    check_deletions(root)


def test_a_job_whose_folder_in_the_trash_is_gone_stays_there_and_says_so(stocked: Stocked) -> None:
    """It may be a disk that is not mounted."""
    root, manager = stocked
    manager.delete_job_files("job_1")
    (root / TRASH).rename(root / "elsewhere")
    report = manager.restore_job_files("job_1")
    assert [left.reason for left in report.failed] == [
        f"No such file or directory (uid {os.geteuid()})"
    ]
    (root / "elsewhere").rename(root / TRASH)
    assert manager.restore_job_files("job_1").restored.files == 2
    check_deletions(root)


def test_a_trash_that_somebody_has_removed_can_be_emptied(stocked: Stocked) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    shutil.rmtree(root / TRASH)
    report = manager.empty_trash()
    assert (report.purged_jobs, report.bytes_freed, report.failed) == (1, 0, ())
    check_deletions(root)


def test_a_file_that_the_system_does_not_let_go_is_not_said_to_be_deleted(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, manager = stocked
    remove = durable.remove

    def refusing(folder: int, name: str) -> None:
        if name == Path(organized_image("job_1")).name:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        remove(folder, name)

    monkeypatch.setattr(durable, "remove", refusing)
    report = manager.destroy_job_files("job_1")
    assert (report.deleted_files, report.bytes_freed) == (1, len(TWO))
    (left,) = report.failed
    assert left.reason == "Operation not permitted"
    assert left.path.startswith(TRASH)


@pytest.mark.parametrize("is_index_lost", [False, True])
def test_a_file_that_was_missing_and_is_there_again_goes_with_its_job(
    stocked: Stocked, *, is_index_lost: bool
) -> None:
    root, manager = stocked
    first = root / organized_image("job_1")
    first.unlink()
    manager.delete_job_files("job_1")
    manager.restore_job_files("job_1")
    first.write_bytes(ONE)
    assert manager.get_job_files("job_1").files[0].missing
    report = manager.delete_job_files("job_1")
    assert (report.deleted_files, report.removed_directories) == (2, 1)
    if is_index_lost:
        manager.close()
        delete_index(root)
    assert [job.file_count for job in manager.get_trash()] == [2]
    check_deletions(root)
    manager.restore_job_files("job_1")
    assert not manager.get_job_files("job_1").files[0].missing
    check_deletions(root)


@pytest.mark.parametrize("level", ["projects", "projects/default", "projects/default/job_1"])
def test_what_lies_behind_a_link_is_not_taken_for_gone(
    level: str, stocked: Stocked, tmp_path: Path
) -> None:
    root, manager = stocked
    (root / level).rename(tmp_path / "moved")
    (root / level).symlink_to(tmp_path / "moved")
    before = library(root)
    report = manager.delete_job_files("job_1")
    assert [left.reason for left in report.skipped] == ["link", "link"]
    assert report.deleted_files == 0
    assert library(root) == before


@pytest.mark.parametrize("is_touched", [False, True])
def test_across_file_systems_nothing_is_left_where_it_was(
    stocked: Stocked,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_touched: bool,
) -> None:
    """A copy is told from a new file by its time, which may not be the recorded one."""
    root, manager = stocked
    move = durable.move

    def within_one(source_folder: int, source: str, target_folder: int, target: str) -> None:
        inside = [
            "trash" in Path(f"/proc/self/fd/{folder}").readlink().parts
            for folder in (source_folder, target_folder)
        ]
        if inside[0] != inside[1]:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", within_one)
    if is_touched:
        os.utime(root / organized_image("job_1"), (1, 1))
    tree = outputs(root)
    assert manager.delete_job_files("job_1").deleted_files == 2
    check_deletions(root)
    assert manager.restore_job_files("job_1").restored.files == 2
    assert outputs(root) == tree
    check_deletions(root)


@pytest.mark.parametrize(
    "act", [FileManager.empty_trash, FileManager.get_trash], ids=["empty", "look"]
)
def test_where_no_library_is_none_is_begun(
    make_tree: MakeTree, open_manager: OpenManager, act: Callable[[FileManager], object]
) -> None:
    root = make_tree({"a.png": ONE})
    before = read_tree(root)
    manager = open_manager(root)
    act(manager)
    for ask in (manager.restore_job_files, manager.delete_job_files, manager.destroy_job_files):
        with pytest.raises(JobNotFoundError):
            ask("nobody")
    assert read_tree(root) == before


def test_empty_folders_of_a_deletion_that_never_was_go_when_the_trash_is_emptied(
    stocked: Stocked,
) -> None:
    root, manager = stocked
    unborn = [root / TRASH / uuid.uuid4().hex for _ in range(2)]
    (unborn[0] / "job_1").mkdir(parents=True)
    (unborn[1] / "job_1").mkdir(parents=True)
    (unborn[1] / "job_1/somebodys").write_bytes(b"not ours")
    manager.delete_job_files("other")
    manager.destroy_job_files("other")
    manager.empty_trash()
    assert list((root / TRASH).rglob("*")) == [
        unborn[1],
        unborn[1] / "job_1",
        unborn[1] / "job_1/somebodys",
    ]


def test_the_trash_shows_what_a_process_that_died_has_deleted(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, manager = stocked

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync_folders", die)
        with pytest.raises(KeyboardInterrupt):
            manager.delete_job_files("job_1")
    assert [job.file_count for job in manager.get_trash()] == [2]
    check_deletions(root)
