from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.errors import StorageError
from flask_comfy_files.core.records import ProjectRecord, file_to_dict
from tests.conftest import OpenManager
from tests.invariants import assert_sound, changes_of
from tests.trees import Clock

INDEX = ".comfy_files/index.sqlite3"
JOBS = ("batch", "AnimateDiff", "loop", "nothing")


def fill(manager: FileManager, clock: Clock) -> None:
    for job_id in JOBS:
        manager.organize_output(job_id, "tokyo" if job_id == "batch" else None)
        clock.advance(1)
    manager.organize_output("batch", files=["adv_00001.png"])


def answers(manager: FileManager) -> object:
    """Return everything that can be asked."""
    records = [record for job_id in JOBS for record in manager.get_job_files(job_id)]
    return (
        [manager.get_job_files(job_id) for job_id in JOBS],
        [manager.get_project_files(project_id) for project_id in ("tokyo", "default")],
        [manager.get_project_summary(project_id) for project_id in ("tokyo", "default")],
        [manager.get_file_metadata(record.file_id) for record in records],
        [manager.get_file_metadata(record.path) for record in records],
        manager.get_pending_jobs(),
        [manager.list_files(sort=sort, limit=3) for sort in ("created_at", "file_size", "path")],
        [manager.list_files(project="tokyo"), manager.list_jobs(), manager.list_projects()],
        [
            getattr(manager.get_system_stats(), key)
            for key in ("total_files", "total_size", "projects", "jobs", "file_types")
        ],
    )


def delete(root: Path) -> None:
    for path in root.glob(f"{INDEX}*"):
        path.unlink()


def delete_database_only(root: Path) -> None:
    (root / INDEX).unlink()


def empty(root: Path) -> None:
    (root / INDEX).write_bytes(b"")


def fill_with_garbage(root: Path) -> None:
    delete(root)
    (root / INDEX).write_bytes(os.urandom(20_000))


def cut_short(root: Path) -> None:
    (root / INDEX).write_bytes((root / INDEX).read_bytes()[:5000])


def damage_pages(root: Path) -> None:
    """Leave the pages with which an index is opened, and the one that says how far it reaches."""
    with contextlib.closing(sqlite3.connect(root / INDEX)) as connection:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        query = "SELECT rootpage FROM sqlite_schema WHERE tbl_name IN ('jobs', 'files')"
        pages = [number for (number,) in connection.execute(query) if number]
    with (root / INDEX).open("r+b") as index:
        for number in pages:
            index.seek((number - 1) * page_bytes)
            index.write(bytes(page_bytes))


def delete_our_folder(root: Path) -> None:
    shutil.rmtree(root / ".comfy_files")


@pytest.mark.parametrize(
    "harm",
    [delete, delete_database_only, empty, fill_with_garbage, cut_short, delete_our_folder],
    ids=lambda harm: harm.__name__,
)
def test_a_closed_index_can_be_harmed_and_nothing_is_forgotten(
    harm: Callable[[Path], None], manager: FileManager, output_root: Path, clock: Clock
) -> None:
    fill(manager, clock)
    expected = answers(manager)
    manager.close()
    harm(output_root)
    assert answers(manager) == expected
    assert manager.organize_output("adv").moved.files == 4
    assert_sound(output_root)


@pytest.mark.parametrize(
    "harm",
    [delete, delete_database_only, fill_with_garbage, delete_our_folder],
    ids=lambda harm: harm.__name__,
)
def test_an_index_in_use_can_be_taken_away_and_nothing_is_forgotten(
    harm: Callable[[Path], None],
    manager: FileManager,
    output_root: Path,
    clock: Clock,
    open_manager: OpenManager,
) -> None:
    fill(manager, clock)
    expected = answers(manager)
    harm(output_root)
    assert answers(manager) == expected
    assert answers(open_manager(output_root)) == expected
    assert manager.organize_output("adv").moved.files == 4
    assert_sound(output_root)


def test_a_manager_sees_what_others_did_after_the_index_it_had_open_was_taken_away(
    manager: FileManager, output_root: Path, open_manager: OpenManager
) -> None:
    manager.organize_output("batch")
    delete(output_root)
    report = open_manager(output_root).organize_output("loop")
    assert manager.get_job_files("loop").files == report.organized_files
    assert manager.get_system_stats().total_files == 6


@pytest.mark.parametrize("is_read_first", [True, False], ids=["reading", "changing"])
def test_an_index_whose_damage_shows_late_is_made_anew_and_nobody_hears_of_it(
    is_read_first: bool,  # noqa: FBT001
    manager: FileManager,
    output_root: Path,
    clock: Clock,
) -> None:
    fill(manager, clock)
    expected = answers(manager)
    manager.close()
    damage_pages(output_root)
    if is_read_first:
        assert manager.get_job_files("batch").file_count > 0
        assert answers(manager) == expected
    assert manager.organize_output("adv").file_count == 4
    assert manager.organize_output("adv").already_there.files == 4
    if not is_read_first:
        assert answers(manager)[0] == expected[0]  # type: ignore[index]
    assert_sound(output_root)


def test_an_index_from_before_catches_up_with_the_document(
    manager: FileManager, output_root: Path, clock: Clock, tmp_path: Path
) -> None:
    manager.organize_output("adv", "tokyo")
    manager.close()
    shutil.copy(output_root / INDEX, tmp_path / "older")
    fill(manager, clock)
    expected = answers(manager)
    manager.close()
    delete(output_root)
    shutil.copy(tmp_path / "older", output_root / INDEX)
    assert answers(manager) == expected
    assert_sound(output_root)


def test_an_index_of_another_library_is_not_believed(
    manager: FileManager, output_root: Path, tmp_path: Path, clock: Clock, open_manager: OpenManager
) -> None:
    other = tmp_path / "other"
    shutil.copytree(output_root, other)
    with_other_answers = open_manager(other)
    with_other_answers.organize_output("batch", "osaka", files=["batch_00001_.png"])
    with_other_answers.close()
    fill(manager, clock)
    expected = answers(manager)
    manager.close()
    delete(output_root)
    shutil.copy(other / INDEX, output_root / INDEX)
    assert answers(manager) == expected
    assert_sound(output_root)


@pytest.mark.parametrize("is_index_there", [True, False], ids=["with index", "without index"])
@pytest.mark.parametrize(
    "torn",
    [b"", b"\n", b"\n]", b"\n]}", b"\0" * 600, b",\n", b',\n{"seq": 7, "kind": "jo', b"\n]}\n\0\0"],
    ids=lambda torn: repr(torn[:30]),
)
def test_a_torn_end_is_mended_by_the_next_change(
    torn: bytes,
    is_index_there: bool,  # noqa: FBT001
    manager: FileManager,
    output_root: Path,
    clock: Clock,
    open_manager: OpenManager,
) -> None:
    fill(manager, clock)
    expected = answers(manager)
    manager.close()
    path = output_root / "file_metadata.json"
    path.write_bytes(path.read_bytes().removesuffix(b"\n]}\n") + torn)
    if not is_index_there:
        delete(output_root)
    later = open_manager(output_root)
    assert later.organize_output("adv", files=[]).file_count == 0
    assert len(changes_of(output_root)) == 6
    assert answers(later)[0] == expected[0]  # type: ignore[index]
    assert_sound(output_root)


@pytest.mark.parametrize("torn", [b"", b"\n", b"\n]", b"\n{}\n", b"\n]}\n\0"], ids=repr)
def test_the_torn_end_of_a_library_without_changes_is_mended(
    torn: bytes, output_root: Path, open_manager: OpenManager
) -> None:
    Path(output_root, ".comfy_files").mkdir()
    document.create(str(output_root), "abc")
    path = output_root / "file_metadata.json"
    path.write_bytes(path.read_bytes().removesuffix(b"\n]}\n") + torn)
    assert open_manager(output_root).organize_output("batch").moved.files == 4
    assert_sound(output_root)


def test_what_was_torn_off_is_kept_aside(manager: FileManager, output_root: Path) -> None:
    manager.organize_output("batch")
    with (output_root / "file_metadata.json").open("ab") as file:
        file.write(b"somebody wrote this by hand")
    manager.organize_output("loop")
    (kept,) = (output_root / ".comfy_files").glob("torn-tail-*")
    assert b"somebody wrote this by hand" in kept.read_bytes()


def test_readers_answer_while_the_end_is_torn_and_change_nothing_that_is_kept(
    manager: FileManager, output_root: Path, clock: Clock, open_manager: OpenManager
) -> None:
    fill(manager, clock)
    expected = answers(manager)
    manager.close()
    path = output_root / "file_metadata.json"
    path.write_bytes(path.read_bytes()[:-3])
    assert answers(open_manager(output_root)) == expected
    assert len(json.loads(path.read_bytes())["changes"]) == 5


def test_a_job_is_seen_whole_or_not_at_all_while_it_is_organized(
    manager: FileManager,
    output_root: Path,
    open_manager: OpenManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager.organize_output("loop")
    before = manager.get_project_files("default")
    readers = [open_manager(output_root), manager]
    seen: list[ProjectRecord] = []
    move = durable.move

    def look_and_move(source_folder: int, source: str, target_folder: int, target: str) -> None:
        seen.extend(reader.get_project_files("default") for reader in readers)
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", look_and_move)
    manager.organize_output("batch")
    assert len(seen) == 8
    assert [project for project in seen if project != before] == []
    assert readers[0].get_project_files("default").file_count == 6


@pytest.mark.parametrize("is_same_manager", [True, False], ids=["same manager", "another one"])
@pytest.mark.parametrize("look", [1, 2], ids=["to read", "to change it"])
def test_a_library_that_is_begun_while_somebody_looks_is_not_taken_for_a_lost_one(
    look: int,
    is_same_manager: bool,  # noqa: FBT001
    manager: FileManager,
    output_root: Path,
    open_manager: OpenManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = manager if is_same_manager else open_manager(output_root)
    open_document = document.open_document
    seen: list[int | None] = []

    @contextmanager
    def open_and_wait(root: str, flags: int = os.O_RDONLY) -> Iterator[int | None]:
        with open_document(root, flags) as descriptor:
            seen.append(descriptor)
            if seen == [None] * look:
                other.organize_output("batch")
            yield descriptor

    monkeypatch.setattr(document, "open_document", open_and_wait)
    if look == 1:
        assert manager.get_pending_jobs() == []
    else:
        assert manager.organize_output("loop").file_count == 2
    assert seen[:look] == [None] * look
    assert manager.get_job_files("batch").file_count == 4


def test_the_document_is_the_truth_and_anybody_can_read_it(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    fill(manager, clock)
    change = changes_of(output_root)[0]
    records = manager.get_job_files("batch").files[:4]
    assert change["files"] == [
        {key: value for key, value in file_to_dict(record).items() if key != "file_path"}
        for record in records
    ]
    assert {key: change[key] for key in ("seq", "kind", "job_id", "project_id")} == {
        "seq": 1,
        "kind": "job",
        "job_id": "batch",
        "project_id": "tokyo",
    }
    assert change["operation"]["kind"] == "organize"
    assert change["operation"]["at"] == "2026-02-03T04:05:06Z"
    assert str(output_root) not in (output_root / "file_metadata.json").read_text()


def test_nothing_is_left_behind_an_index_that_was_just_used(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    fill(manager, clock)
    catalog = Catalog(str(output_root), lock_timeout_s=1)
    assert not catalog.is_behind()
    catalog.close()


def test_an_index_that_cannot_be_kept_is_made_in_memory(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    (output_root / ".comfy_files").mkdir()
    (output_root / INDEX).mkdir()
    fill(manager, clock)
    expected = answers(manager)
    (output_root / INDEX).rmdir()
    assert answers(manager) == expected
    assert_sound(output_root)


def test_a_change_that_the_disk_refuses_leaves_the_document_as_it_was(
    manager: FileManager, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.organize_output("loop")
    before = (output_root / "file_metadata.json").read_bytes()
    write_all = durable.write_all

    def write_half(descriptor: int, content: bytes, offset: int) -> None:
        if b"batch" in content:
            write_all(descriptor, content[: len(content) // 2], offset)
            raise OSError(28, "No space left on device")
        write_all(descriptor, content, offset)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "write_all", write_half)
        with pytest.raises(StorageError, match="No space left"):
            manager.organize_output("batch")
    assert (output_root / "file_metadata.json").read_bytes() == before
    assert (output_root / "batch_00001_.png").exists()
    assert manager.organize_output("batch").moved.files == 4
    assert_sound(output_root)
