"""What a migration could attribute to nobody: listed, and given to a job later."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import (
    IdentifierCaseError,
    InvalidIdentifierError,
    InvalidInputError,
    JobInOtherProjectError,
    JobNotFoundError,
    LibraryUnavailableError,
    StorageError,
)
from flask_comfy_files.core.records import Tally
from flask_comfy_files.core.relocation import AssignReport
from tests.conftest import MakeTree, OpenManager
from tests.core.test_migration import check_library, image, migrated, reasons, refuse_to_move
from tests.crash.library_check import delete_index
from tests.trees import TIMESTAMP, Clock, Link, Tree, outputs, read_tree

TREE: Tree = {
    "a.png": image("a"),
    "b.png": image("b"),
    "sub/c.txt": b"c",
    "sub/deep/d.mp4": b"d",
}


@pytest.fixture
def root(make_tree: MakeTree, open_manager: OpenManager) -> Path:
    """Return a library in which four files belong to nobody."""
    root = make_tree(TREE)
    open_manager(root).migrate_legacy_files(recursive=True)
    shutil.rmtree(root / "sub")
    return root


@pytest.fixture
def manager(root: Path, open_manager: OpenManager, clock: Clock) -> FileManager:
    """Return a manager of that library, an hour later."""
    clock.advance(3600)
    return open_manager(root)


LATER = str(int(TIMESTAMP) + 3600)


def later(job_id: str, ending: str, project_id: str = "default") -> str:
    """Return where a file of a job lies that was assigned an hour after the migration."""
    return migrated(job_id, ending, project_id).replace(TIMESTAMP, LATER)


def assert_reconciles(report: AssignReport) -> None:
    left = [*report.skipped, *report.failed]
    assert report.found.files == report.assigned.files + report.already_there.files + len(left)
    assert report.found.bytes == report.assigned.bytes + report.already_there.bytes + sum(
        entry.bytes for entry in left
    )
    assert report.file_count == len(report.files) == len(list(report))


def test_files_of_nobody_are_listed_in_their_order_and_counted(manager: FileManager) -> None:
    legacy = manager.get_legacy_files()
    assert [record.path for record in legacy] == [f"legacy/{name}" for name in TREE]
    assert legacy.file_count == 4
    assert legacy.total_size == sum(record.file_size for record in legacy)
    assert {(record.job_id, record.project_id, record.evidence) for record in legacy} == {
        (None, None, "none")
    }
    stats = manager.get_system_stats()
    assert stats.legacy == Tally(files=4, bytes=legacy.total_size)
    assert (stats.total_files, stats.jobs, stats.projects) == (4, 0, 0)
    assert manager.get_file_metadata("legacy/sub/c.txt").original_path == "sub/c.txt"


def test_of_a_library_that_is_new_nothing_is_listed(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": b"a"})
    legacy = open_manager(root).get_legacy_files()
    assert (legacy.files, legacy.file_count, legacy.total_size) == ((), 0, 0)
    assert read_tree(root) == {"a.png": b"a"}


def test_chosen_files_are_moved_to_a_new_job_and_stay_what_they_were(
    manager: FileManager, root: Path
) -> None:
    before = {record.path: record for record in manager.get_legacy_files()}
    chosen = [before["legacy/sub/deep/d.mp4"], before["legacy/a.png"]]
    report = manager.assign_legacy_files([chosen[0].file_id, "legacy/a.png"], "job_1", "anime")
    assert_reconciles(report)
    size = chosen[0].file_size + chosen[1].file_size
    assert report.assigned == report.found == Tally(files=2, bytes=size)
    assert (report.job_id, report.project_id, report.file_count) == ("job_1", "anime", 2)
    assert report.operation_id is not None
    paths = [later("job_1", "video.mp4", "anime"), later("job_1", "image.png", "anime")]
    for record, old, path in zip(report, chosen, paths, strict=True):
        assert record == dataclasses.replace(
            old,
            path=path,
            file_path=f"{root}/{path}",
            job_id="job_1",
            project_id="anime",
            timestamp=LATER,
            created_at="2026-02-03T05:05:06Z",
            evidence="assigned",
        )
        assert manager.get_file_metadata(old.file_id) == record
    assert manager.get_job_files("job_1").files == report.files
    rest = {"legacy/b.png": TREE["b.png"], "legacy/sub/c.txt": b"c"}
    assert outputs(root) == {**rest, paths[0]: b"d", paths[1]: TREE["a.png"]}
    assert [record.path for record in manager.get_legacy_files()] == list(rest)
    assert manager.get_system_stats().legacy.files == 2
    check_library(root)
    delete_index(root)
    check_library(root)


def test_a_preview_that_comes_with_its_video_is_a_part_of_the_video(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    manager = open_manager(make_tree({"clip.png": image("clip"), "clip.mp4": b"video"}))
    manager.migrate_legacy_files()
    ids = [record.file_id for record in manager.get_legacy_files()]
    report = manager.assign_legacy_files(ids, "shot")
    assert {record.file_type: record.generation_type for record in report} == {
        "video": "video",
        "image": "video",
    }


def test_files_are_added_to_a_known_job_behind_those_it_has(
    manager: FileManager, make_tree: MakeTree, root: Path
) -> None:
    make_tree({"known.png": image("known")})
    manager.organize_output("job_1", "anime", files=["known.png"])
    report = manager.assign_legacy_files(["legacy/a.png"], "job_1")
    assert [record.path for record in report] == [
        later("job_1", "image.png", "anime"),
        later("job_1", "image_2.png", "anime"),
    ]
    assert (report.project_id, report.assigned.files, report.already_there.files) == ("anime", 1, 0)
    assert [record.evidence for record in report] == ["files", "assigned"]
    check_library(root)


def test_assigning_again_is_harmless(manager: FileManager, root: Path) -> None:
    (file_id,) = (record.file_id for record in manager.get_legacy_files() if "a.png" in record.path)
    first = manager.assign_legacy_files([file_id], "job_1")
    before = read_tree(root)
    for key in (file_id, first.files[0].path):
        again = manager.assign_legacy_files([key], "job_1")
        assert_reconciles(again)
        assert again.already_there == again.found == first.assigned
        assert (again.assigned, again.operation_id) == (Tally(), None)
        assert again.files == first.files
    gone = manager.assign_legacy_files(["legacy/a.png"], "job_1")
    assert reasons(gone.skipped) == {"legacy/a.png": "not_found"}
    after = read_tree(root)
    assert {key: after[key] for key in after if "index" not in key} == {
        key: before[key] for key in before if "index" not in key
    }


def test_a_file_named_by_its_path_and_by_its_id_is_one(manager: FileManager, root: Path) -> None:
    (file_id,) = (record.file_id for record in manager.get_legacy_files() if "a.png" in record.path)
    keys = ["legacy/a.png", file_id, "legacy/a.png", file_id]
    report = manager.assign_legacy_files(keys, "job_1")
    assert_reconciles(report)
    assert (report.found.files, report.assigned.files, report.file_count) == (1, 1, 1)
    path = report.files[0].path
    again = manager.assign_legacy_files([path, file_id], "job_1")
    assert (again.found.files, again.already_there.files) == (1, 1)
    other = manager.assign_legacy_files([path, file_id], "job_2")
    assert reasons(other.skipped) == {path: "belongs_to_another_job"}
    check_library(root)


def test_what_is_unknown_or_somebody_elses_is_told_and_the_others_go(
    manager: FileManager, make_tree: MakeTree, root: Path
) -> None:
    make_tree({"known.png": image("known"), "lies_about.png": b"x", "legacy/untracked.png": b"u"})
    manager.organize_output("job_0", files=["known.png"])
    owned = later("job_0", "image.png")
    unknown = ["0" * 32, "legacy/gone.png", "lies_about.png", "legacy/untracked.png", "", "legacy"]
    unknown += ["/etc/passwd", "../x", "\ud800"]
    report = manager.assign_legacy_files([*unknown, owned, "legacy/b.png"], "job_1")
    assert_reconciles(report)
    assert reasons(report.skipped) == {
        **dict.fromkeys(unknown, "not_found"),
        owned: "belongs_to_another_job",
    }
    assert [record.original_path for record in report] == ["b.png"]
    assert (root / "lies_about.png").read_bytes() == b"x"
    assert (root / "legacy/untracked.png").read_bytes() == b"u"


def test_where_nothing_can_be_given_no_job_is_made(manager: FileManager, root: Path) -> None:
    before = read_tree(root)
    report = manager.assign_legacy_files(["nothing"], "job_1", "anime")
    assert (report.file_count, report.project_id, report.operation_id) == (0, "anime", None)
    with pytest.raises(JobNotFoundError):
        manager.get_job_files("job_1")
    assert read_tree(root).keys() == before.keys()


def test_a_file_that_has_changed_or_is_gone_stays_with_its_record(
    manager: FileManager, root: Path
) -> None:
    (root / "legacy/a.png").write_bytes(b"changed")
    (root / "legacy/b.png").unlink()
    (root / "legacy/sub/c.txt").unlink()
    (root / "legacy/sub/c.txt").symlink_to("/etc/passwd")
    keys = ["legacy/a.png", "legacy/b.png", "legacy/sub/c.txt", "legacy/sub/deep/d.mp4"]
    report = manager.assign_legacy_files(keys, "job_1")
    assert_reconciles(report)
    assert reasons(report.skipped) == {
        "legacy/a.png": "changed",
        "legacy/b.png": "not_found",
        "legacy/sub/c.txt": "link",
    }
    assert [record.original_path for record in report] == ["sub/deep/d.mp4"]
    assert [record.path for record in manager.get_legacy_files()] == keys[:3]
    assert outputs(root) == {
        "legacy/a.png": b"changed",
        "legacy/sub/c.txt": Link("/etc/passwd"),
        later("job_1", "video.mp4"): b"d",
    }


def test_a_touched_file_with_the_same_bytes_is_still_the_same(
    manager: FileManager, root: Path
) -> None:
    os.utime(root / "legacy/a.png", (1_700_000_000, 1_700_000_000))
    assert manager.assign_legacy_files(["legacy/a.png"], "job_1").assigned.files == 1


@pytest.mark.parametrize(
    ("job_id", "project_id", "error"),
    [
        ("job_0", "manga", JobInOtherProjectError),
        ("JOB_0", None, IdentifierCaseError),
        ("job_1", "ANIME", IdentifierCaseError),
        ("..", None, InvalidIdentifierError),
        ("job_1", "a/b", InvalidIdentifierError),
    ],
)
def test_an_owner_that_contradicts_the_library_is_refused_and_nothing_moves(
    manager: FileManager,
    make_tree: MakeTree,
    root: Path,
    job_id: str,
    project_id: str | None,
    error: type[Exception],
) -> None:
    make_tree({"known.png": image("known")})
    manager.organize_output("job_0", "anime", files=["known.png"])
    before = outputs(root)
    with pytest.raises(error):
        manager.assign_legacy_files(["legacy/a.png"], job_id, project_id)
    assert outputs(root) == before
    assert manager.get_legacy_files().file_count == 4


@pytest.mark.parametrize("files", [[], (), "legacy/a.png", b"x", [7], [None], ["legacy/a.png", 7]])
def test_what_is_no_list_of_files_is_refused(manager: FileManager, files: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        manager.assign_legacy_files(files, "job_1")
    assert refused.value.field == "files"
    assert manager.get_legacy_files().file_count == 4


def test_a_file_that_cannot_be_moved_is_nobodys_again_and_the_others_go(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {record.path: record for record in manager.get_legacy_files()}
    with monkeypatch.context() as patch:
        refuse_to_move(patch, "a.png")
        report = manager.assign_legacy_files(["legacy/a.png", "legacy/b.png"], "job_1")
    assert_reconciles(report)
    assert reasons(report.failed) == {
        "legacy/a.png": f"Operation not permitted (uid {os.geteuid()})"
    }
    assert [record.original_path for record in report] == ["b.png"]
    for prepare in (lambda _root: None, delete_index):
        prepare(root)
        assert manager.get_file_metadata("legacy/a.png") == before["legacy/a.png"]
        check_given_back(root)
    assert manager.assign_legacy_files(["legacy/a.png"], "job_1").file_count == 2


def test_after_a_crash_what_cannot_be_moved_is_nobodys_again(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {record.path: record for record in manager.get_legacy_files()}

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(durable, "move", die)
        with pytest.raises(KeyboardInterrupt):
            manager.assign_legacy_files(["legacy/a.png", "legacy/b.png"], "job_1")
    with monkeypatch.context() as patch:
        refuse_to_move(patch, "a.png")
        manager.organize_output("next", files=["nothing.png"])
    assert [record.original_path for record in manager.get_job_files("job_1")] == ["b.png"]
    for prepare in (lambda _root: None, delete_index):
        prepare(root)
        assert manager.get_file_metadata("legacy/a.png") == before["legacy/a.png"]
        check_given_back(root)
    assert manager.assign_legacy_files(["legacy/a.png"], "job_1").file_count == 2
    check_library(root)


def check_given_back(root: Path) -> None:
    assert {path for path in outputs(root) if "a.png" in path} == {"legacy/a.png"}
    with FileManager(root) as manager:
        assert manager.get_system_stats().legacy.files == 3
        assert manager.get_job_files("job_1").file_count == 1


def test_folders_that_assigning_has_emptied_are_removed_and_legacy_stays(
    manager: FileManager, root: Path
) -> None:
    manager.assign_legacy_files(["legacy/sub/deep/d.mp4"], "job_1")
    assert not (root / "legacy/sub/deep").exists()
    assert (root / "legacy/sub/c.txt").exists()
    rest = [record.file_id for record in manager.get_legacy_files()]
    manager.assign_legacy_files(rest, "job_1")
    assert list((root / "legacy").iterdir()) == []


def test_a_full_disk_or_a_folder_that_cannot_be_made_leaves_everything_as_it_is(
    manager: FileManager, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = outputs(root)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(durable, "append", full)
        with pytest.raises(StorageError):
            manager.assign_legacy_files(["legacy/a.png"], "job_1")
    (root / "projects/default/job_1").rmdir()
    (root / "projects/default").rmdir()
    (root / "projects/default").write_bytes(b"no folder")
    with pytest.raises(StorageError):
        manager.assign_legacy_files(["legacy/a.png"], "job_1")
    (root / "projects/default").unlink()
    (root / "projects").rmdir()
    assert outputs(root) == before
    assert manager.get_legacy_files().file_count == 4
    assert manager.assign_legacy_files(["legacy/a.png"], "job_1").file_count == 1


def test_names_that_no_terminal_shows_are_found_again(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = [os.fsdecode(b"not\xffutf8.png"), "new\nline.png", "cafe\u0301.png", "caf\u00e9.png"]
    root = make_tree({name: image(name) for name in names})
    manager = open_manager(root)
    manager.migrate_legacy_files()
    report = manager.assign_legacy_files([f"legacy/{name}" for name in names], "job_1")
    assert [record.original_path for record in report] == names
    check_library(root)


def test_a_library_that_is_not_there_is_unavailable(
    open_manager: OpenManager, tmp_path: Path
) -> None:
    manager = open_manager(tmp_path / "not mounted")
    with pytest.raises(LibraryUnavailableError):
        manager.get_legacy_files()
    with pytest.raises(LibraryUnavailableError):
        manager.assign_legacy_files(["x"], "job_1")
