from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import JobTrashedError, StorageError
from flask_comfy_files.core.layout import INDEX, TRASH
from tests.conftest import MakeTree, OpenManager
from tests.crash.library_check import check_deletions, delete_index
from tests.invariants import assert_sound
from tests.trees import NOW, organized_image, outputs, recording

FIRST, SECOND = recording("batch_00001_.png"), recording("batch_00002_.png")
TIMESTAMP = str(int(NOW.timestamp()))


THIRD = recording("batch_00003_.png")


def die_before_moving(manager: FileManager, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> None:
    """Organize as far as the line in the document, and no further."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(durable, "move", die)
        with pytest.raises(KeyboardInterrupt):
            manager.organize_output(**asked)


def test_a_file_whose_name_was_taken_goes_beside_it_and_beside_all_other_records(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"a.png": FIRST, "b.png": SECOND})
    manager = open_manager(root)
    manager.organize_output("other")
    die_before_moving(manager, monkeypatch, job_id="job_1", files=["a.png", "b.png"])
    taken = root / f"projects/default/job_1/job_1_{TIMESTAMP}_image.png"
    taken.write_bytes(b"somebody else's")
    open_manager(root).organize_output("another")
    names = {Path(record.path).name for record in open_manager(root).get_job_files("job_1")}
    assert names == {f"job_1_{TIMESTAMP}_image_{number}.png" for number in (2, 3)}
    assert taken.read_bytes() == b"somebody else's"
    taken.unlink()
    assert_sound(root)


def test_a_source_folder_that_was_replaced_by_a_link_blocks_nothing(
    make_tree: MakeTree, open_manager: OpenManager, tmp_path: Path
) -> None:
    root = make_tree({"batch/x.png": FIRST, "y.png": SECOND})
    manager = open_manager(root)
    manager.organize_output("job_1", files=["batch/x.png"])
    manager.close()
    shutil.rmtree(root / "batch")
    (root / "batch").symlink_to(tmp_path)
    (root / ".comfy_files/index.sqlite3").unlink()
    again = open_manager(root)
    assert again.organize_output("job_2", files=["y.png"]).file_count == 1
    assert again.get_job_files("job_1").file_count == 1


def test_a_file_that_cannot_be_moved_waits_and_the_library_goes_on(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"a.png": FIRST, "b.png": SECOND})
    manager = open_manager(root)
    manager.organize_output("other")
    die_before_moving(manager, monkeypatch, job_id="job_1", files=["a.png"])
    with monkeypatch.context() as patched:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        patched.setattr(durable, "move", refuse)
        manager.organize_output("job_2", files=[])
    assert (root / "a.png").read_bytes() == FIRST
    (pending,) = manager.get_pending_jobs()
    assert (pending.job_id, pending.files) == ("job_1", (("a.png", "output"),))
    manager.retry_pending_jobs()
    assert manager.get_job_files("job_1").file_count == 1
    assert_sound(root)


def test_a_new_file_under_the_name_of_one_that_was_copied_away_stays(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree({"a.png": FIRST})
    manager = open_manager(root)
    new = root / "new"
    new.write_bytes(SECOND)
    move, sync_folder = durable.move, durable.sync_folder

    def across(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if source == "a.png":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source_folder, source, target_folder, target)

    def write_again(folder: int) -> None:
        if new.exists() and "job_1" in str(Path(f"/proc/self/fd/{folder}").readlink()):
            new.replace(root / "a.png")
        sync_folder(folder)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "move", across)
        patched.setattr(durable, "sync_folder", write_again)
        (record,) = manager.organize_output("job_1", files=["a.png"])
    assert Path(record.file_path).read_bytes() == FIRST
    assert (root / "a.png").read_bytes() == SECOND


# --- deletions and restorations


@pytest.fixture
def stocked(make_tree: MakeTree, open_manager: OpenManager) -> tuple[Path, FileManager]:
    """Return a library with a job of two files, and a file for the next change."""
    root = make_tree({"a.png": FIRST, "b.png": SECOND, "next.png": THIRD})
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("job_1", files=["a.png", "b.png"])
    return root, manager


Stocked = tuple[Path, FileManager]
PATHS = [organized_image("job_1"), organized_image("job_1", 2)]


def die_after_moves(number: int, act: Callable[[str], object]) -> None:
    """Do something with the job, and die when so many files have been moved."""
    move = durable.move
    left = number

    def dying(source_folder: int, source: str, target_folder: int, target: str) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        move(source_folder, source, target_folder, target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(durable, "move", dying)
        with pytest.raises(KeyboardInterrupt):
            act("job_1")


def in_trash(root: Path, name: str = "") -> Path:
    """Return where the job rests in the trash, or a file of it."""
    (folder,) = (root / TRASH).glob("*/job_1")
    return folder / Path(name).name if name else folder


def make_next_change(manager: FileManager) -> None:
    """Organize another job, which recovers first."""
    assert manager.organize_output("next", files=["next.png"]).file_count == 1


def test_a_job_of_which_a_file_has_changed_since_is_not_deleted(stocked: Stocked) -> None:
    root, manager = stocked
    job = manager.get_job_files("job_1")
    die_after_moves(1, manager.delete_job_files)
    (root / PATHS[1]).write_bytes(b"edited")
    make_next_change(manager)
    assert manager.get_job_files("job_1") == job
    assert [(root / path).read_bytes() for path in PATHS] == [FIRST, b"edited"]
    assert list(manager.get_trash()) == []
    (root / PATHS[1]).write_bytes(SECOND)
    check_deletions(root)


def test_a_file_touched_since_is_deleted_with_its_job(stocked: Stocked) -> None:
    root, manager = stocked
    die_after_moves(1, manager.delete_job_files)
    os.utime(root / PATHS[1], (1, 1))
    make_next_change(manager)
    assert [job.file_count for job in manager.get_trash()] == [2]
    check_deletions(root)


def test_of_what_is_in_neither_place_the_record_stays_and_it_is_not_counted(
    stocked: Stocked,
) -> None:
    """Somebody has emptied the folder of the trash by hand."""
    root, manager = stocked
    die_after_moves(1, manager.delete_job_files)
    shutil.rmtree(root / TRASH)
    make_next_change(manager)
    (job,) = manager.get_trash()
    assert (job.file_count, job.total_size) == (1, len(SECOND))
    check_deletions(root)
    manager.close()
    delete_index(root)
    check_deletions(root)
    assert manager.restore_job_files("job_1").restored.files == 1
    check_deletions(root)


def test_a_foreign_file_in_the_trash_is_not_replaced_and_the_job_stays(stocked: Stocked) -> None:
    root, manager = stocked
    job = manager.get_job_files("job_1")
    die_after_moves(1, manager.delete_job_files)
    foreign = in_trash(root, PATHS[1])
    foreign.write_bytes(b"somebody else's")
    make_next_change(manager)
    assert manager.get_job_files("job_1") == job
    assert foreign.read_bytes() == b"somebody else's"
    shutil.rmtree(root / TRASH)
    check_deletions(root)


def test_a_foreign_file_where_a_deleted_one_was_stays(stocked: Stocked) -> None:
    root, manager = stocked
    die_after_moves(1, manager.delete_job_files)
    (root / PATHS[0]).write_bytes(b"somebody else's")
    make_next_change(manager)
    assert (root / PATHS[0]).read_bytes() == b"somebody else's"
    assert [job.file_count for job in manager.get_trash()] == [2]
    (root / PATHS[0]).unlink()
    (root / PATHS[0]).parent.rmdir()
    check_deletions(root)


def test_a_foreign_file_where_one_is_restored_keeps_the_job_in_the_trash(stocked: Stocked) -> None:
    root, manager = stocked
    manager.delete_job_files("job_1")
    die_after_moves(1, manager.restore_job_files)
    (root / PATHS[1]).write_bytes(b"somebody else's")
    make_next_change(manager)
    assert [job.file_count for job in manager.get_trash()] == [2]
    assert outputs(root)[PATHS[1]] == b"somebody else's"
    assert manager.restore_job_files("job_1").restored.files == 2
    assert outputs(root)[PATHS[1]] == b"somebody else's"


def test_where_a_file_can_go_neither_way_the_library_says_which_and_goes_on_without_it(
    stocked: Stocked,
) -> None:
    root, manager = stocked
    die_after_moves(1, manager.delete_job_files)
    for place in (root / PATHS[0], in_trash(root, PATHS[1])):
        place.write_bytes(b"somebody else's")
    with pytest.raises(StorageError, match=r"job_1_1770091506_image\.png' failed: File exists"):
        make_next_change(manager)
    (root / PATHS[0]).unlink()
    make_next_change(manager)
    assert len(manager.get_job_files("job_1").files) == 2
    shutil.rmtree(root / TRASH)
    check_deletions(root)


def test_the_folder_of_a_job_whose_files_were_gone_already_goes_with_it(stocked: Stocked) -> None:
    root, manager = stocked
    for path in PATHS:
        (root / path).unlink()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(durable, "remove_empty_folders", die)
        with pytest.raises(KeyboardInterrupt):
            manager.delete_job_files("job_1")
    make_next_change(manager)
    assert [job.file_count for job in manager.get_trash()] == [0]
    check_deletions(root)


def test_what_a_link_hides_is_not_recorded_as_missing(stocked: Stocked, tmp_path: Path) -> None:
    root, manager = stocked
    job = manager.get_job_files("job_1")
    die_after_moves(1, manager.delete_job_files)
    (root / "projects/default").rename(tmp_path / "moved")
    (root / "projects/default").symlink_to(tmp_path / "moved")
    with pytest.raises(StorageError, match="links are never followed"):
        make_next_change(manager)
    (root / "projects/default").unlink()
    (tmp_path / "moved").rename(root / "projects/default")
    make_next_change(manager)
    assert [job.file_count for job in manager.get_trash()] == [2]
    assert manager.restore_job_files("job_1").files == job.files
    check_deletions(root)


def test_a_trash_that_cannot_be_made_keeps_nobody_from_going_on(stocked: Stocked) -> None:
    """The place of its folder was taken by a file, after the line was written."""
    root, manager = stocked
    job = manager.get_job_files("job_1")
    die_after_moves(0, manager.delete_job_files)
    shutil.rmtree(root / TRASH)
    (root / TRASH).write_bytes(b"")
    make_next_change(manager)
    assert manager.get_job_files("job_1") == job
    (root / TRASH).unlink()
    check_deletions(root)


def test_several_changes_that_the_index_has_lost_are_taken_from_the_document(
    stocked: Stocked,
) -> None:
    """A power cut may take the last changes of the index. All but the last change were finished then."""
    root, manager = stocked
    manager.close()
    before = (root / INDEX).read_bytes()
    make_next_change(manager)
    manager.delete_job_files("next")
    manager.delete_job_files("job_1")
    manager.restore_job_files("job_1")
    manager.destroy_job_files("job_1")
    manager.close()
    delete_index(root)
    (root / INDEX).write_bytes(before)
    with pytest.raises(JobTrashedError):
        manager.get_job_files("next")
    check_deletions(root)
    assert manager.restore_job_files("next").restored.files == 1
    check_deletions(root)
