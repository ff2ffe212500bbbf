from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import (
    IdentifierCaseError,
    InvalidInputError,
    JobInOtherProjectError,
)
from flask_comfy_files.core.lock import hold
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound
from tests.trees import NOW, Clock, copy_recordings, library, recording

UNFINISHED = recording("batch_00001_.png")[:-12]


@contextmanager
def somebody_has_the_library(root: Path) -> Iterator[None]:
    with hold(str(root / ".comfy_files/lock"), 1):
        yield


def test_a_completed_job_whose_files_are_there_is_organized_at_once(manager: FileManager) -> None:
    answer = manager.complete_job("batch", "tokyo", prompt_id="run-1")
    assert answer.file_count == len(answer.organized_files) == 4
    assert (answer.organize_error, answer.organize_operation_id) == (None, None)
    assert manager.get_job_files("batch").files == answer.organized_files
    assert manager.get_pending_jobs() == []


def test_a_job_whose_file_is_still_being_written_is_pending_and_keeps_what_is_there(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1_00001_.png": recording("batch_00001_.png"), "a.png": UNFINISHED})
    named = ["job_1_00001_.png", {"filename": "a.png", "subfolder": "", "type": "output"}, "b.png"]
    manager = open_manager(root)
    answer = manager.complete_job("job_1", "tokyo", prompt_id="run-1", files=named)
    assert [record.original_path for record in answer.organized_files] == ["job_1_00001_.png"]
    assert answer.organize_error == "still_being_written"
    (pending,) = manager.get_pending_jobs()
    assert (pending.job_id, pending.project_id, pending.prompt_id) == ("job_1", "tokyo", "run-1")
    assert pending.files == (
        ("job_1_00001_.png", "output"),
        ("a.png", "output"),
        ("b.png", "output"),
    )
    assert pending.operation_id == answer.organize_operation_id
    assert pending.since == "2026-02-03T04:05:06Z"
    stats = manager.get_system_stats()
    assert (stats.pending_jobs, stats.health.state) == (1, "degraded")
    assert manager.get_job_files("job_1").reason == "still_being_written"
    assert_sound(root)


def test_another_process_finishes_a_pending_job_as_it_was_asked_for(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = ["job_1_00001_.png", "nicht-utf-8-\udcff.png"]
    root = make_tree(dict.fromkeys(names, UNFINISHED) | {"job_1_00002_.png": UNFINISHED})
    answer = open_manager(root).complete_job("job_1", "tokyo", prompt_id="run-1", files=names)
    assert answer.file_count == 0
    make_tree(dict.fromkeys(names, recording("batch_00001_.png")))
    other = open_manager(root)
    report = other.retry_pending_jobs()
    (organized,) = report.organized
    assert (report.still_pending, report.given_up) == ((), ())
    assert [record.original_path for record in organized] == names
    assert {(record.project_id, record.prompt_id) for record in organized} == {("tokyo", "run-1")}
    assert organized.operation_id == answer.organize_operation_id
    assert other.get_pending_jobs() == []
    stats = other.get_system_stats()
    assert (stats.pending_jobs, stats.health.state) == (0, "ok")
    assert other.get_job_files("job_1").reason is None
    assert (root / "job_1_00002_.png").exists()
    assert_sound(root)


def test_a_job_that_fails_again_stays_pending(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    manager = open_manager(make_tree({"job_1.png": UNFINISHED}))
    manager.complete_job("job_1")
    for _ in range(2):
        report = manager.retry_pending_jobs()
        assert [(job.job_id, job.reason) for job in report.still_pending] == [
            ("job_1", "still_being_written")
        ]
        assert [job.job_id for job in manager.get_pending_jobs()] == ["job_1"]


def test_only_the_named_jobs_are_tried_again(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    jobs = ["job_1", "job_2", "job_3"]
    manager = open_manager(make_tree({f"{job}.png": UNFINISHED for job in jobs}))
    for job in jobs:
        manager.complete_job(job)
    make_tree({f"{job}.png": recording("batch_00001_.png") for job in jobs})
    report = manager.retry_pending_jobs(["job_2", "job_9"])
    assert [organized.job_id for organized in report.organized] == ["job_2"]
    assert [job.job_id for job in manager.get_pending_jobs()] == ["job_1", "job_3"]


def test_organizing_a_pending_job_in_any_way_finishes_it(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    manager = open_manager(make_tree({"job_1.png": UNFINISHED}))
    manager.complete_job("job_1")
    make_tree({"job_1.png": recording("batch_00001_.png")})
    assert manager.organize_output("job_1").moved.files == 1
    assert manager.get_pending_jobs() == []


def test_completing_another_job_finishes_what_is_pending(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1.png": UNFINISHED})
    open_manager(root).complete_job("job_1", "tokyo")
    make_tree(dict.fromkeys(["job_1.png", "job_2.png"], recording("batch_00001_.png")))
    manager = open_manager(root)
    assert manager.complete_job("job_2").file_count == 1
    assert manager.get_pending_jobs() == []
    assert manager.get_job_files("job_1").file_count == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"request_budget_bytes": 100}, "bytes, 100 at most"),
        ({"request_budget_seconds": 1e-9}, "time is over"),
        ({"min_free_bytes": 1 << 62}, "are free beyond the reserve"),
    ],
    ids=["too many bytes", "too long", "disk full"],
)
def test_what_does_not_fit_is_pending_and_nothing_is_moved(
    settings: dict[str, float], said: str, output_root: Path, open_manager: OpenManager
) -> None:
    answer = open_manager(output_root, **settings).complete_job("batch", "tokyo")
    assert answer.organize_error is not None
    assert said in answer.organize_error
    assert answer.file_count == 0
    assert (output_root / "batch_00001_.png").exists()
    later = open_manager(output_root)
    assert [(job.job_id, job.files) for job in later.get_pending_jobs()] == [("batch", None)]
    (organized,) = later.retry_pending_jobs().organized
    assert (organized.file_count, organized.project_id) == (4, "tokyo")
    assert_sound(output_root)


def test_a_job_that_cannot_be_written_down_is_kept_in_mind(
    output_root: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(output_root, lock_timeout=0.02, request_budget_seconds=0.5)
    manager.organize_output("adv")
    with somebody_has_the_library(output_root):
        answer = manager.complete_job("batch", "tokyo")
        assert answer.organize_error is not None
        assert answer.organize_operation_id is not None
        assert [job.job_id for job in manager.get_pending_jobs()] == ["batch"]
        assert manager.get_system_stats().pending_jobs == 1
        assert [job.job_id for job in manager.retry_pending_jobs().still_pending] == ["batch"]
    assert [report.file_count for report in manager.retry_pending_jobs().organized] == [4]
    assert manager.get_pending_jobs() == []
    assert_sound(output_root)


def test_a_job_completed_while_the_root_is_missing_is_organized_when_it_is_back(
    tmp_path: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(tmp_path / "unplugged")
    answer = manager.complete_job("batch", "tokyo", prompt_id="run-1")
    assert answer.organize_error is not None
    assert "does not exist" in answer.organize_error
    copy_recordings(tmp_path / "unplugged")
    assert [report.file_count for report in manager.retry_pending_jobs().organized] == [4]
    assert manager.get_job_files("batch").files[0].prompt_id == "run-1"


def test_a_mistake_of_the_caller_is_answered_and_not_remembered(
    manager: FileManager, output_root: Path
) -> None:
    manager.organize_output("batch", "tokyo")
    before = library(output_root)
    with pytest.raises(JobInOtherProjectError):
        manager.complete_job("batch", "osaka")
    with pytest.raises(IdentifierCaseError):
        manager.complete_job("Batch")
    with pytest.raises(InvalidInputError):
        manager.complete_job("../x")
    with pytest.raises(InvalidInputError):
        manager.complete_job("job_1", files=["../x"])
    assert manager.get_pending_jobs() == []
    assert library(output_root) == before


def test_a_job_without_files_is_complete_and_not_pending(manager: FileManager) -> None:
    answer = manager.complete_job("job_9", files=["gone.png"])
    assert (answer.file_count, answer.organize_error) == (0, None)
    assert manager.get_pending_jobs() == []
    assert manager.get_job_files("job_9").reason is not None


def test_a_job_that_is_contradicted_while_it_fails_is_refused_and_not_remembered(
    output_root: Path, open_manager: OpenManager
) -> None:
    other = open_manager(output_root)

    class Meanwhile(Clock):
        """A clock at whose second look somebody else organizes the job under another spelling."""

        looks = 0

        def __call__(self) -> datetime:
            self.looks += 1
            if self.looks == 2:
                other.organize_output("batch", "tokyo")
            return NOW

    manager = open_manager(output_root, clock=Meanwhile(), request_budget_seconds=1e-9)
    with pytest.raises(IdentifierCaseError, match="'batch'"):
        manager.complete_job("Batch", files=["adv_00001.png"])
    assert manager.get_pending_jobs() == []
    assert_sound(output_root)


def test_a_later_completion_of_a_job_leaves_what_waits_for_it(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"slow.png": UNFINISHED, "quick.png": recording("batch_00002_.png")})
    manager = open_manager(root)
    manager.complete_job("job_1", files=["slow.png"])
    answer = manager.complete_job("job_1", files=["quick.png"])
    assert (answer.file_count, answer.organize_error) == (1, None)
    manager.organize_output("job_1")
    assert [pending.files for pending in manager.get_pending_jobs()] == [(("slow.png", "output"),)]
    make_tree({"slow.png": recording("batch_00001_.png")})
    manager.retry_pending_jobs()
    assert manager.get_pending_jobs() == []
    taken = {record.original_path for record in manager.get_job_files("job_1")}
    assert taken == {"slow.png", "quick.png"}
    assert_sound(root)


@pytest.mark.parametrize("is_locked", [False, True], ids=["in the document", "in mind"])
def test_every_waiting_completion_of_a_job_is_kept(
    make_tree: MakeTree, open_manager: OpenManager, *, is_locked: bool
) -> None:
    files = {"a.png": UNFINISHED, "b.png": UNFINISHED, "job_1.png": UNFINISHED}
    root = make_tree(files)
    manager = open_manager(root, lock_timeout=0.05, request_budget_seconds=0.05)
    manager.organize_output("other")
    with contextlib.ExitStack() as stack:
        if is_locked:
            stack.enter_context(somebody_has_the_library(root))
        for named in (["a.png"], ["b.png"], None):
            manager.complete_job("job_1", prompt_id=f"run-{named}", files=named)
    assert len(manager.get_pending_jobs()) == 3
    assert manager.get_system_stats().pending_jobs == 1
    make_tree(dict.fromkeys(files, recording("batch_00001_.png")))
    manager.retry_pending_jobs()
    assert {record.original_path for record in manager.get_job_files("job_1")} == set(files)
    assert manager.get_pending_jobs() == []


def test_a_waiting_completion_without_project_goes_to_the_project_of_its_job(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {"a.png": recording("batch_00001_.png"), "b.png": recording("batch_00002_.png")}
    )
    manager = open_manager(root, lock_timeout=0.05, request_budget_seconds=0.05)
    manager.organize_output("ep1", "tokyo", files=["a.png"])
    with somebody_has_the_library(root):
        assert manager.complete_job("ep1", files=["b.png"]).organize_error is not None
    report = manager.retry_pending_jobs()
    assert [organized.project_id for organized in report.organized] == ["tokyo"]
    assert manager.get_job_files("ep1").file_count == 2
