"""A document that is damaged or lost is rebuilt by the next change, as far as anything tells what it said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import rebuilding
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.errors import (
    DocumentDamagedError,
    JobNotFoundError,
    JobTrashedError,
    LibraryUnavailableError,
)
from flask_comfy_files.core.layout import DOCUMENT, INDEX, INDEX_BEFORE, REBUILD, SENTINEL, STATE
from tests.conftest import MakeTree, OpenManager
from tests.crash.library_check import delete_index
from tests.invariants import assert_sound
from tests.trees import Clock, outputs

JOBS: Final = ("plain", "marked", "grown", "deleted")
NEW: Final = "new_00001_.txt"

Damage = Callable[[Path], object]


@pytest.fixture
def root(make_tree: MakeTree, open_manager: OpenManager, clock: Clock) -> Path:
    """Return a library of four jobs, a file of nobody's, and one that is to come."""
    root = make_tree({f"{job}_0000{n}_.txt": f"{job} {n}".encode() for job in JOBS for n in (1, 2)})
    with open_manager(root, min_free_bytes=0) as manager:
        for job_id in JOBS:
            manager.organize_output(job_id, "tokyo")
            clock.advance(60)
        manager.update_job("marked", pinned=True, tags=["hero"])
        make_tree({"grown_00003_.txt": b"grown 3", "loose.txt": b"nobody's"})
        manager.organize_output("grown")
        manager.delete_job_files("deleted")
        manager.migrate_legacy_files()
    make_tree({NEW: b"new"})
    return root


def line_of(root: Path, number: int) -> tuple[int, int]:
    """Return where the line of a change begins and ends."""
    raw = (root / DOCUMENT).read_bytes()
    start = 0
    for _ in range(number):
        start = raw.index(b"\n", start) + 1
    return start, raw.index(b"\n", start)


def flip(root: Path, number: int = 1) -> None:
    content = bytearray((root / DOCUMENT).read_bytes())
    content[sum(line_of(root, number)) // 2] ^= 1
    (root / DOCUMENT).write_bytes(content)


def flip_header(root: Path) -> None:
    flip(root, 0)


def cut_short(root: Path) -> None:
    os.truncate(root / DOCUMENT, line_of(root, 2)[1] - 30)


def empty(root: Path) -> None:
    os.truncate(root / DOCUMENT, 0)


def fill_with_garbage(root: Path) -> None:
    (root / DOCUMENT).write_bytes(os.urandom(4096))


def delete_document(root: Path) -> None:
    (root / DOCUMENT).unlink()


def make_folder(root: Path) -> None:
    (root / DOCUMENT).unlink()
    (root / DOCUMENT).mkdir()
    (root / DOCUMENT / "somebody's.txt").write_bytes(b"x")


def leave_files_only(root: Path) -> None:
    (root / DOCUMENT).unlink()
    for path in (root / STATE).iterdir():
        if path.name != "trash":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def put_old_one_back(root: Path) -> None:
    raw = (root / DOCUMENT).read_bytes()
    (root / DOCUMENT).write_bytes(raw[: line_of(root, 2)[1]].removesuffix(b",") + document.CLOSING)


DAMAGES: Final[tuple[Damage, ...]] = (
    flip,
    flip_header,
    cut_short,
    empty,
    fill_with_garbage,
    delete_document,
    make_folder,
    leave_files_only,
)


@pytest.mark.parametrize("is_index_there", [True, False], ids=["with-index", "without-index"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_next_change_rebuilds_it_and_every_file_has_its_record(
    damage: Damage,
    is_index_there: bool,  # noqa: FBT001
    root: Path,
    open_manager: OpenManager,
) -> None:
    with open_manager(root) as manager:
        before = {job: manager.get_job_files(job) for job in JOBS[:-1]}
    files = outputs(root)
    damage(root)
    damaged = (root / DOCUMENT).read_bytes() if (root / DOCUMENT).is_file() else None
    if not is_index_there:
        delete_index(root)
    manager = open_manager(root, min_free_bytes=0)
    if damage is flip and is_index_there:
        with pytest.raises(DocumentDamagedError):
            manager.get_job_files("plain")
    assert manager.organize_output("new").moved.files == 1
    json.loads((root / DOCUMENT).read_bytes())
    assert_sound(root)
    del files[NEW]
    assert outputs(root).items() > files.items()
    for job_id, job in before.items():
        rebuilt = manager.get_job_files(job_id)
        assert rebuilt.project_id == "tokyo"
        assert {record.checksum for record in rebuilt} == {record.checksum for record in job}
        assert {record.path for record in rebuilt} == {record.path for record in job}
        assert {record.timestamp for record in rebuilt} == {record.timestamp for record in job}
        if is_index_there and damage is not leave_files_only:
            assert {record.file_id for record in rebuilt} == {record.file_id for record in job}
            assert (rebuilt.pinned, rebuilt.tags) == (job.pinned, job.tags)
            assert rebuilt.created_at == job.created_at
    assert manager.get_legacy_files().file_count == 1
    with pytest.raises(JobTrashedError):
        manager.get_job_files("deleted")
    assert manager.restore_job_files("deleted").restored.files == 2
    assert_sound(root)
    kept = list(root.glob(f"{DOCUMENT}.damaged-*"))
    if damaged is not None and kept:
        assert kept[0].read_bytes() == damaged
    health = manager.get_system_stats().health
    assert health.state == "degraded"
    assert "was rebuilt" in health.messages[0]
    assert all(path.name in health.messages[0] for path in kept)


def test_changes_that_can_be_read_are_believed_and_the_others_are_counted(
    root: Path, open_manager: OpenManager
) -> None:
    flip(root, 1)
    delete_index(root)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("new")
    assert {record.evidence for record in manager.get_job_files("plain")} == {"rebuilt"}
    assert {record.evidence for record in manager.get_job_files("grown")} == {"prefix"}
    assert manager.get_job_files("marked").pinned
    assert "1 changes were lost" in manager.get_system_stats().health.messages[0]


def test_what_was_said_of_a_job_stays_said_when_its_own_line_is_lost(
    root: Path, open_manager: OpenManager
) -> None:
    flip(root, 2)
    delete_index(root)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("new")
    job = manager.get_job_files("marked")
    assert (job.project_id, job.pinned, job.tags, job.file_count) == ("tokyo", True, ("hero",), 2)
    assert_sound(root)


def test_a_file_that_came_later_stays_where_its_record_puts_it_when_the_first_line_is_lost(
    root: Path, open_manager: OpenManager
) -> None:
    flip(root, 3)
    delete_index(root)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("new")
    job = manager.get_job_files("grown")
    assert sorted(record.evidence for record in job) == ["prefix", "rebuilt", "rebuilt"]
    assert_sound(root)


def test_a_flipped_byte_is_noticed_by_who_reads_it_and_the_next_call_answers(
    root: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(root)
    before = manager.get_job_files("plain")
    flip(root)
    with pytest.raises(DocumentDamagedError, match="does not match its check"):
        manager.get_job_files("plain")
    again = manager.get_job_files("plain")
    assert [record.file_id for record in again] == [record.file_id for record in before]
    assert {record.evidence for record in again} == {"rebuilt"}
    assert_sound(root)


def test_an_old_copy_of_it_is_completed_from_what_the_index_and_the_tree_tell(
    root: Path, open_manager: OpenManager
) -> None:
    before = open_manager(root).get_job_files("grown")
    put_old_one_back(root)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("new")
    after = manager.get_job_files("grown")
    assert [record.file_id for record in after] == [record.file_id for record in before]
    assert {record.evidence for record in manager.get_job_files("plain")} == {"prefix"}
    assert_sound(root)


def test_the_document_before_a_compaction_tells_what_the_damaged_one_does_not(
    root: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(root, min_free_bytes=0)
    before = {job: manager.get_job_files(job) for job in JOBS[:-1]}
    manager.compact_document()
    manager.organize_output("new")
    manager.close()
    empty(root)
    delete_index(root)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("other", files=["none.txt"])
    assert {job: manager.get_job_files(job) for job in JOBS[:-1]} == before
    assert {record.evidence for record in manager.get_job_files("new")} == {"rebuilt"}
    with pytest.raises(JobTrashedError):
        manager.get_job_files("deleted")
    assert_sound(root)


def test_no_cleanup_takes_what_was_found_for_the_time_of_retention(
    root: Path, open_manager: OpenManager
) -> None:
    delete_document(root)
    delete_index(root)
    policy = {"max_bytes": 1}
    everything = ["empty_project", "large_share", "clock_jump"]
    now = datetime.now(UTC)

    def clean_up(days: int) -> int:
        at = now + timedelta(days=days)
        with FileManager(
            root, clock=lambda: at, min_free_bytes=0, retention_policy=policy
        ) as manager:
            return manager.cleanup_old_files(allow=everything).deleted_files

    with open_manager(root, min_free_bytes=0) as manager:
        manager.organize_output("other", files=["none.txt"])
    assert clean_up(29) == 0
    assert clean_up(31) == 7


def test_files_that_nobody_has_organized_are_left_alone(
    root: Path, make_tree: MakeTree, open_manager: OpenManager
) -> None:
    theirs = {
        "projects/notes.txt": b"a",
        "projects/tokyo/notes.txt": b"b",
        "projects/tokyo/plain/notes.txt": b"c",
        "projects/to kyo/plain/plain_1770091506_text.txt": b"d",
        "projects/osaka/plain/plain_1770091506_text.txt": b"e",
        "projects/tokyo/PLAIN/PLAIN_1770091506_text.txt": b"f",
    }
    make_tree(theirs)
    delete_document(root)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("new")
    recorded = {record.path for record in manager.get_job_files("plain")}
    assert not recorded & theirs.keys()
    assert outputs(root).items() >= theirs.items()


def test_a_projects_folder_that_is_not_ours_begins_a_new_library(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"projects/blender/scene/scene_final.txt": b"theirs", NEW: b"new"})
    manager = open_manager(root, min_free_bytes=0)
    assert manager.organize_output("new").moved.files == 1
    assert manager.get_system_stats().health.state == "ok"
    assert not (root / REBUILD).exists()


def test_looking_for_files_goes_on_where_a_change_had_no_more_time(
    root: Path, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_document(root)
    delete_index(root)
    monkeypatch.setattr(rebuilding, "_FILES_AT_ONCE", 1)
    monkeypatch.setattr("flask_comfy_files.core.recovery.PATIENCE_S", 0)
    manager = open_manager(root, min_free_bytes=0)
    found = []
    for number in range(20):
        manager.organize_output(f"other-{number}", files=["none.txt"])
        stats = manager.get_system_stats()
        found.append(stats.total_files + stats.trash.files)
        if not rebuilding.is_unfinished(str(root)):
            break
    assert found[0] < found[-1] == 10
    assert sorted(found) == found
    assert_sound(root)
    assert not (root / INDEX_BEFORE).exists()


def test_who_has_seen_it_says_so(root: Path, open_manager: OpenManager) -> None:
    delete_document(root)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("new")
    assert manager.get_system_stats().health.state == "degraded"
    manager.adopt_library()
    assert manager.get_system_stats().health.state == "ok"


def test_it_cannot_be_rebuilt_where_nothing_may_be_written_and_says_so(
    root: Path, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_with_garbage(root)
    before = (root / DOCUMENT).read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(document, "put_in_place", refuse)
        manager = open_manager(root)
        with pytest.raises(DocumentDamagedError, match=r"cannot be rebuilt.*Permission denied"):
            manager.organize_output("new")
        assert manager.get_system_stats().health.state == "unavailable"
    assert (root / DOCUMENT).read_bytes() == before
    assert manager.organize_output("new").moved.files == 1
    assert_sound(root)


def test_the_library_keeps_its_name(root: Path, open_manager: OpenManager) -> None:
    named = json.loads((root / SENTINEL).read_bytes())["library_id"]
    empty(root)
    delete_index(root)
    open_manager(root, min_free_bytes=0).organize_output("new")
    assert json.loads((root / DOCUMENT).read_bytes())["library_id"] == named


def test_a_library_of_another_disk_is_not_rebuilt_into_this_one(
    root: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(root)
    manager.get_job_files("plain")
    manager.organize_output("other", files=["none.txt"])
    (root / DOCUMENT).unlink()
    (root / SENTINEL).write_bytes(document.encode({"library_id": "f" * 32}) + b"\n")
    with pytest.raises(LibraryUnavailableError, match="right disk"):
        manager.organize_output("new")
    assert not (root / DOCUMENT).exists()


def test_an_index_of_another_library_tells_nothing(
    root: Path, open_manager: OpenManager, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    delete_document(other)
    (other / SENTINEL).unlink()
    delete_index(other)
    with open_manager(other, min_free_bytes=0) as manager:
        manager.organize_output("new")
    delete_document(root)
    shutil.copy(other / INDEX, root / INDEX)
    manager = open_manager(root, min_free_bytes=0)
    manager.organize_output("new")
    ids = {record.file_id for record in manager.get_job_files("plain")}
    theirs = {record.file_id for record in open_manager(other).get_job_files("plain")}
    assert not ids & theirs
    with pytest.raises(JobNotFoundError):
        manager.get_job_files("nobody")
    assert_sound(root)


def test_what_one_process_has_noticed_is_mended_for_all(
    root: Path, open_manager: OpenManager
) -> None:
    flip(root)
    with open_manager(root) as manager, pytest.raises(DocumentDamagedError):
        manager.get_job_files("plain")
    json.loads((root / DOCUMENT).read_bytes())
    with open_manager(root) as manager:
        assert {record.evidence for record in manager.get_job_files("plain")} == {"rebuilt"}


def test_who_says_that_all_is_right_looks_at_every_line(
    root: Path, open_manager: OpenManager
) -> None:
    flip(root)
    with open_manager(root) as manager:
        manager.adopt_library()
    with open_manager(root) as manager:
        assert {record.evidence for record in manager.get_job_files("plain")} == {"rebuilt"}
    assert_sound(root)
