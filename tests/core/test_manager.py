from __future__ import annotations

import os
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import (
    ConfigurationError,
    InvalidIdentifierError,
    InvalidInputError,
    JobNotFoundError,
    OutOfSpaceError,
    ProjectNotFoundError,
    RecordNotFoundError,
)
from flask_comfy_files.core.layout import COMPACTION_LOCK
from tests.conftest import OpenManager
from tests.invariants import assert_sound
from tests.trees import Clock, copy_recordings, library, read_tree, recording

# --- reading


def test_a_job_is_answered_with_its_files_and_their_sum(manager: FileManager) -> None:
    report = manager.organize_output("batch", "tokyo")
    job = manager.get_job_files("batch")
    assert job.files == report.organized_files
    assert (job.job_id, job.project_id, job.file_count) == ("batch", "tokyo", 4)
    assert job.total_size == sum(len(recording(record.original_path)) for record in job)
    assert job.created_at == "2026-02-03T04:05:06Z"
    assert (job.pinned, job.tags, job.runs, job.reason) == (False, (), (), None)
    assert len(job) == len(list(job)) == 4


def test_a_project_is_answered_with_its_jobs_and_all_their_files(
    manager: FileManager, clock: Clock
) -> None:
    jobs = []
    for job_id in ("loop", "batch", "adv"):
        jobs.append(manager.organize_output(job_id, "tokyo"))
        clock.advance(1)
    manager.organize_output("AnimateDiff", "osaka")
    manager.organize_output("empty", "tokyo", files=[])
    project = manager.get_project_files("tokyo")
    assert project.files == tuple(record for report in jobs for record in report)
    assert [job.job_id for job in project.jobs] == ["loop", "batch", "adv", "empty"]
    assert [job.file_count for job in project.jobs] == [2, 4, 5, 0]
    assert project.file_count == len(project) == len(list(project)) == 11
    assert project.total_size == sum(record.file_size for record in project)
    assert project.total_size == sum(job.total_size for job in project.jobs)


def test_a_project_is_summed_up_by_type(manager: FileManager) -> None:
    manager.organize_output("loop", "tokyo")
    manager.organize_output("AnimateDiff", "tokyo")
    manager.organize_output("batch", "osaka")
    summary = manager.get_project_summary("tokyo")
    assert (summary.project_id, summary.job_count, summary.file_count) == ("tokyo", 2, 7)
    assert dict(summary.file_types) == {"gif": 1, "image": 3, "video": 3}
    assert summary.total_size == manager.get_project_files("tokyo").total_size


def test_the_library_is_answered_in_numbers(manager: FileManager, output_root: Path) -> None:
    manager.organize_output("loop", "tokyo")
    manager.organize_output("batch", "osaka")
    manager.organize_output("empty", "tokyo")
    stats = manager.get_system_stats()
    size = sum(
        len(recording(record.original_path))
        for project_id in ("tokyo", "osaka")
        for record in manager.get_project_files(project_id)
    )
    assert (stats.total_files, stats.total_size, stats.projects, stats.jobs) == (6, size, 2, 3)
    assert stats.total_size_mb == round(size / 1024 / 1024, 2) > 0
    assert dict(stats.file_types) == {"gif": 1, "image": 5}
    assert stats.pending_jobs == 0
    assert (stats.health.state, stats.health.messages) == ("ok", ())
    volume = os.statvfs(output_root)
    assert stats.disk is not None
    assert stats.disk.total == volume.f_blocks * volume.f_frsize
    assert 0 < stats.disk.free <= stats.disk.total - stats.disk.used


def test_a_record_is_found_by_id_by_path_and_by_absolute_path(manager: FileManager) -> None:
    for record in manager.organize_output("batch"):
        for key in (record.file_id, record.path, record.file_path):
            assert manager.get_file_metadata(key) == record


@pytest.mark.parametrize(
    "key",
    ["0" * 32, "batch_00002_.png", "", "/etc/passwd", "x\ud800", "\udcff", "%", "x" * 10_000],
    ids=ascii,
)
def test_a_record_that_is_not_there_is_not_found(key: str, manager: FileManager) -> None:
    manager.organize_output("batch")
    with pytest.raises(RecordNotFoundError) as caught:
        manager.get_file_metadata(key)
    assert len(str(caught.value)) < 400


def test_what_is_no_key_of_a_record_is_refused(manager: FileManager) -> None:
    with pytest.raises(InvalidInputError):
        manager.get_file_metadata(7)  # type: ignore[arg-type]


def test_what_is_not_known_is_not_found_and_what_cannot_be_known_is_refused(
    manager: FileManager,
) -> None:
    for ask, absence in (
        (manager.get_job_files, JobNotFoundError),
        (manager.get_project_files, ProjectNotFoundError),
        (manager.get_project_summary, ProjectNotFoundError),
    ):
        with pytest.raises(absence):
            ask("nobody")
        with pytest.raises(InvalidIdentifierError):
            ask("../nobody")


def test_an_id_in_another_case_is_not_found(manager: FileManager) -> None:
    manager.organize_output("batch", "tokyo")
    with pytest.raises(JobNotFoundError):
        manager.get_job_files("Batch")
    with pytest.raises(ProjectNotFoundError):
        manager.get_project_files("Tokyo")


def test_reading_a_root_that_is_no_library_yet_writes_nothing(
    manager: FileManager, output_root: Path
) -> None:
    before = read_tree(output_root)
    assert manager.get_system_stats().total_files == 0
    with pytest.raises(JobNotFoundError):
        manager.get_job_files("batch")
    with pytest.raises(RecordNotFoundError):
        manager.get_file_metadata("batch_00001_.png")
    assert manager.get_pending_jobs() == []
    assert read_tree(output_root) == before


# --- one library, several managers


def test_another_manager_sees_what_one_has_organized(
    manager: FileManager, output_root: Path, open_manager: OpenManager
) -> None:
    other = open_manager(output_root)
    for job_id in ("batch", "loop"):
        report = manager.organize_output(job_id)
        assert other.get_job_files(job_id).files == report.organized_files


def test_two_libraries_in_one_process_share_nothing(
    tmp_path: Path, open_manager: OpenManager
) -> None:
    roots = [copy_recordings(tmp_path / name) for name in "ab"]
    one, other = (open_manager(root) for root in roots)
    one.organize_output("batch", "tokyo")
    other.organize_output("batch", "osaka")
    assert one.get_job_files("batch").project_id == "tokyo"
    assert other.get_job_files("batch").project_id == "osaka"
    for root in roots:
        assert_sound(root)


def test_a_manager_that_was_closed_can_be_used_again(manager: FileManager) -> None:
    report = manager.organize_output("batch")
    manager.close()
    manager.close()
    assert manager.get_job_files("batch").files == report.organized_files
    assert manager.organize_output("loop").moved.files == 2


def test_a_library_can_be_moved_with_its_root(
    output_root: Path, tmp_path: Path, open_manager: OpenManager
) -> None:
    first = open_manager(output_root)
    before = first.organize_output("batch").organized_files
    first.close()
    output_root.rename(tmp_path / "moved")
    manager = open_manager(tmp_path / "moved")
    after = manager.get_job_files("batch").files
    assert [record.path for record in after] == [record.path for record in before]
    assert all(Path(record.file_path).is_file() for record in after)
    assert manager.organize_output("loop").moved.files == 2
    assert_sound(tmp_path / "moved")


def test_the_root_itself_may_be_reached_over_a_link(
    output_root: Path, tmp_path: Path, open_manager: OpenManager
) -> None:
    (tmp_path / "link").symlink_to(output_root)
    assert open_manager(tmp_path / "link").organize_output("batch").moved.files == 4
    assert open_manager(output_root).get_job_files("batch").file_count == 4


@pytest.mark.parametrize(
    "name", ["with space", "50%?x#y&z", "アニメ", "q'\"\n", "\udcff\udcfe", "é" * 127], ids=ascii
)
def test_a_root_may_have_any_name(name: str, tmp_path: Path, open_manager: OpenManager) -> None:
    root = copy_recordings(tmp_path / name)
    report = open_manager(root).organize_output("batch")
    assert open_manager(root).get_job_files("batch").files == report.organized_files
    assert (root / ".comfy_files/index.sqlite3").is_file()
    assert_sound(root)


def test_a_manager_can_do_without_arguments_where_the_environment_names_the_root(
    output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFY_FILES_OUTPUT_DIR", str(output_root))
    with FileManager() as manager:
        assert manager.organize_output("batch", "tokyo").moved.files == 4


def test_settings_are_checked_when_a_manager_is_made(output_root: Path) -> None:
    with pytest.raises(ConfigurationError, match="default_project"):
        FileManager(output_root, default_project="../x")
    with pytest.raises(ConfigurationError, match="no such setting"):
        FileManager(output_root, retentiondays=3)


def test_the_default_project_is_a_setting(output_root: Path, open_manager: OpenManager) -> None:
    report = open_manager(output_root, default_project="tokyo").organize_output("batch")
    assert report.project_id == "tokyo"


def test_what_records_something_is_refused_where_there_is_no_room_and_what_deletes_is_not(
    output_root: Path, open_manager: OpenManager
) -> None:
    with open_manager(output_root, min_free_bytes=0) as manager:
        for job_id in ("batch", "loop"):
            manager.organize_output(job_id)
        manager.delete_job_files("loop")
        manager.migrate_legacy_files()
        (organizing, *_) = manager.get_operations(kind="organize")
        (legacy, *_) = manager.get_legacy_files().files
    full = open_manager(output_root, min_free_bytes=1024**6)
    before = library(output_root)
    for change in (
        lambda: full.restore_job_files("loop"),
        lambda: full.undo_operation(organizing.operation_id),
        lambda: full.assign_legacy_files([legacy.path], "batch"),
        lambda: full.repair_files([{"kind": "missing", "path": legacy.path}]),
        full.compact_document,
    ):
        with pytest.raises(OutOfSpaceError, match="bytes are needed"):
            change()
    after = library(output_root)
    assert {path: after[path] for path in after if path != COMPACTION_LOCK} == before
    assert full.delete_job_files("batch").deleted_files == 4
