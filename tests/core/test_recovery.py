from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound
from tests.trees import NOW, recording

FIRST, SECOND = recording("batch_00001_.png"), recording("batch_00002_.png")
TIMESTAMP = str(int(NOW.timestamp()))


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
