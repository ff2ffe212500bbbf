from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blinker import Signal
from flask import Flask

from flask_comfy_files import FileManager, add_file_manager_routes, signals
from flask_comfy_files.core.errors import OutOfSpaceError
from flask_comfy_files.web.worker import Worker
from tests.conftest import OpenManager
from tests.trees import BATCH, Clock

Told = list[tuple[str, dict[str, Any]]]

ALL: dict[str, Signal] = {
    name: value for name, value in vars(signals).items() if isinstance(value, Signal)
}
MORE_THAN_THERE_IS = 2**60


@pytest.fixture
def told() -> Iterator[Told]:
    """Return what is told by any signal, as it comes."""
    heard: Told = []
    with contextlib.ExitStack() as stack:
        for name, signal in ALL.items():

            def receive(_sender: object, name: str = name, **payload: Any) -> None:
                heard.append((name, payload))

            stack.enter_context(signal.connected_to(receive))
        yield heard


def names(told: Told) -> list[str]:
    return [name for name, _ in told]


# Organizing


def test_a_job_that_got_files_is_told_once_with_its_report(
    manager: FileManager, told: Told
) -> None:
    report = manager.organize_output("batch")
    assert told == [("job_organized", {"report": report})]
    manager.organize_output("batch")
    manager.complete_job("batch")
    assert len(told) == 1


def test_a_job_without_files_is_not_told(manager: FileManager, told: Told) -> None:
    assert manager.organize_output("nobody").file_count == 0
    assert told == []


def test_a_job_that_has_grown_is_told_again(manager: FileManager, told: Told) -> None:
    manager.organize_output("batch", files=BATCH[:1])
    manager.organize_output("batch", files=BATCH)
    assert [payload["report"].moved.files for _, payload in told] == [1, 3]


def test_it_does_not_matter_who_asks(output_root: Path, told: Told) -> None:
    app = Flask("host")
    add_file_manager_routes(app, output_dir=output_root)

    @app.post("/api/jobs/<job_id>/complete")
    def complete(job_id: str) -> dict[str, str]:
        return {"job": job_id}

    client = app.test_client()
    client.post("/api/files/organize", json={"job_id": "a", "files": BATCH[:1]})
    client.post("/api/jobs/b/complete", json={"files": BATCH[1:2]})
    app.test_cli_runner().invoke(args=["files", "organize", "c", "--file", BATCH[2]])
    app.test_cli_runner().invoke(args=["files", "delete", "c", "--yes"])
    client.delete("/api/files/jobs/b")
    client.post("/api/files/cleanup", json={})
    app.extensions["comfy_files"].close()
    assert names(told) == [*["job_organized"] * 3, *["files_deleted"] * 2, "cleanup_finished"]
    assert [payload["report"].job_id for _, payload in told[:5]] == ["a", "b", "c", "c", "b"]


def test_a_completion_that_becomes_pending_is_told_and_so_is_its_end(
    manager: FileManager, output_root: Path, told: Told
) -> None:
    with (output_root / BATCH[0]).open("ab"):
        report = manager.complete_job("batch")
        assert names(told) == ["job_organized", "job_incomplete"]
        assert told[1][1] == {
            "job_id": "batch",
            "reason": "still_being_written",
            "is_pending": True,
            "operation_id": report.organize_operation_id,
        }
        manager.retry_pending_jobs()
        assert len(told) == 2, "nothing has changed"
    Worker(manager, lambda _: None)._run()  # noqa: SLF001 - what its thread does
    assert names(told)[2:] == ["job_organized"]
    assert told[2][1]["report"].file_count == len(BATCH)


def test_a_later_completion_tells_of_an_earlier_one_that_it_finishes(
    output_root: Path, open_manager: OpenManager, told: Told
) -> None:
    with (output_root / BATCH[0]).open("ab"), open_manager(output_root) as manager:
        manager.complete_job("batch", files=BATCH[:1])
    open_manager(output_root).complete_job("other", files=BATCH[1:2])
    assert names(told) == ["job_incomplete", "job_organized", "job_organized"]
    assert [payload["report"].job_id for _, payload in told[1:]] == ["other", "batch"]


def test_a_call_that_leaves_files_says_so_and_that_nobody_comes_back(
    manager: FileManager, output_root: Path, told: Told
) -> None:
    with (output_root / BATCH[0]).open("ab"):
        manager.organize_output("batch", files=BATCH[:1])
    assert told == [
        (
            "job_incomplete",
            {
                "job_id": "batch",
                "reason": "still_being_written",
                "is_pending": False,
                "operation_id": None,
            },
        )
    ]


def test_a_pending_job_that_is_given_up_is_told(
    output_root: Path, open_manager: OpenManager, told: Told
) -> None:
    manager = open_manager(output_root)
    hidden = output_root.with_name("hidden")
    output_root.rename(hidden)
    manager.complete_job("batch", "tokyo")  # kept in mind, as there is nowhere to write it
    hidden.rename(output_root)
    with open_manager(output_root) as another:
        another.organize_output("batch", "osaka")
    manager.retry_pending_jobs()
    assert names(told) == ["job_incomplete", "job_organized", "job_incomplete"]
    assert [told[0][1]["is_pending"], told[2][1]["is_pending"]] == [True, False]
    assert "osaka" in told[2][1]["reason"]


# Deleting


def test_a_deletion_is_told_once_and_what_it_deletes_for_good(
    manager: FileManager, told: Told
) -> None:
    manager.organize_output("batch")
    report = manager.delete_job_files("batch")
    manager.delete_job_files("batch")
    purge = manager.empty_trash()
    manager.empty_trash()
    assert told[1:] == [
        ("files_deleted", {"report": report, "deleted_files": 4, "purged_files": 0}),
        ("files_deleted", {"report": purge, "deleted_files": 0, "purged_files": 4}),
    ]


def test_a_deletion_for_good_is_one_signal(manager: FileManager, told: Told) -> None:
    manager.organize_output("batch")
    report = manager.destroy_job_files("batch")
    assert told[1:] == [
        ("files_deleted", {"report": report, "deleted_files": 4, "purged_files": 4})
    ]


def test_a_deletion_that_may_take_nothing_is_not_told(
    manager: FileManager, output_root: Path, told: Told
) -> None:
    report = manager.organize_output("batch", files=BATCH[:1])
    (output_root / report.organized_files[0].path).write_bytes(b"another picture")
    assert manager.delete_job_files("batch").deleted_files == 0
    assert names(told) == ["job_organized"]


def test_a_restoration_that_is_undone_is_a_deletion(manager: FileManager, told: Told) -> None:
    manager.organize_output("batch")
    manager.delete_job_files("batch")
    restored = manager.restore_job_files("batch")
    assert restored.operation_id is not None
    told.clear()
    report = manager.undo_operation(restored.operation_id)
    manager.undo_operation(restored.operation_id)
    assert told == [("files_deleted", {"report": report, "deleted_files": 4, "purged_files": 0})]


def test_a_deletion_that_is_undone_is_none(manager: FileManager, told: Told) -> None:
    manager.organize_output("batch")
    deleted = manager.delete_job_files("batch")
    told.clear()
    manager.undo_operation(deleted.operation_id)
    assert told == []


def test_a_cleanup_tells_what_it_deleted_and_that_it_has_finished(
    manager: FileManager, clock: Clock, told: Told
) -> None:
    manager.organize_output("batch")
    clock.advance(timedelta(days=40).total_seconds())
    told.clear()
    manager.plan_cleanup()
    assert told == []
    report = manager.cleanup_old_files()
    assert told == [
        ("files_deleted", {"report": report, "deleted_files": 4, "purged_files": 0}),
        ("cleanup_finished", {"report": report}),
    ]
    told.clear()
    manager.cleanup_old_files()
    assert names(told) == ["cleanup_finished"]


def test_a_plan_is_told_when_it_is_carried_out_and_not_again(
    manager: FileManager, clock: Clock, told: Told
) -> None:
    manager.organize_output("batch")
    clock.advance(timedelta(days=40).total_seconds())
    plan = manager.save_cleanup_plan()
    told.clear()
    manager.apply_cleanup_plan(plan.plan_id)
    manager.apply_cleanup_plan(plan.plan_id)
    assert names(told) == ["files_deleted", "cleanup_finished"]


def test_the_daily_cleanup_is_told_when_it_was_due(manager: FileManager, told: Told) -> None:
    manager.organize_output("batch")
    told.clear()
    manager.cleanup_if_due()
    manager.cleanup_if_due()
    assert names(told) == ["cleanup_finished"]


# Space


def test_a_change_that_is_refused_for_want_of_space_is_told_and_not_more_often_than_helps(
    output_root: Path, open_manager: OpenManager, clock: Clock, told: Told
) -> None:
    manager = open_manager(output_root, min_free_bytes=MORE_THAN_THERE_IS)
    for _ in range(3):
        with pytest.raises(OutOfSpaceError):
            manager.organize_output("batch")
    assert names(told) == ["disk_low"]
    payload = told[0][1]
    assert payload["min_free_bytes"] == MORE_THAN_THERE_IS
    assert payload["needed_bytes"] > 0
    assert 0 < payload["free_bytes"] < MORE_THAN_THERE_IS
    clock.advance(timedelta(minutes=5).total_seconds())
    manager.complete_job("batch")
    assert names(told) == ["disk_low", "disk_low", "job_incomplete"]


def test_an_operation_that_leaves_less_than_the_reserve_is_told(
    manager: FileManager, output_root: Path, open_manager: OpenManager, told: Told
) -> None:
    manager.organize_output("batch")
    assert names(told) == ["job_organized"]
    poor = open_manager(output_root, min_free_bytes=MORE_THAN_THERE_IS)
    poor.delete_job_files("batch")
    assert names(told)[1:] == ["files_deleted", "disk_low"]
    assert told[-1][1]["needed_bytes"] is None


# Receivers


def test_a_receiver_that_fails_is_logged_and_disturbs_nobody(
    manager: FileManager, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_sender: object, **_: Any) -> None:
        raise RuntimeError("the host's own trouble")

    def leave(_sender: object, **_: Any) -> None:
        sys.exit("the host's own end")

    async def wait(_sender: object, **_: Any) -> None:
        pass

    with (
        caplog.at_level(logging.ERROR),
        signals.job_organized.connected_to(fail),
        signals.job_organized.connected_to(leave),
        signals.job_organized.connected_to(wait),
    ):
        report = manager.organize_output("batch")
    assert report.file_count == len(BATCH)
    assert names(told) == ["job_organized"]
    logged = [record for record in caplog.records if record.name == "flask_comfy_files.signals"]
    assert [record.levelname for record in logged] == ["ERROR"] * 3
    traces = [str(record.exc_info and record.exc_info[1]) for record in logged]
    assert {"the host's own trouble", "the host's own end"} < {*traces}
    assert [trace for trace in traces if "is a coroutine function" in trace]


def test_a_receiver_may_call_the_manager_and_another_process_may_change_the_library(
    manager: FileManager, output_root: Path, open_manager: OpenManager
) -> None:
    other = open_manager(output_root, lock_timeout=0.01)
    seen = []

    def organize_the_next(sender: FileManager, report: Any) -> None:
        seen.append(sender.get_job_files(report.job_id).file_count)
        if report.job_id == "a":
            sender.organize_output("b", files=BATCH[1:2])
            other.organize_output("c", files=BATCH[2:3])
            sender.delete_job_files("a")

    with signals.job_organized.connected_to(organize_the_next):
        manager.organize_output("a", files=BATCH[:1])
    assert seen == [1, 1, 1]
    assert [job.job_id for job in manager.get_project_files("default").jobs] == ["b", "c"]


def test_a_receiver_of_one_library_hears_nothing_of_another(
    manager: FileManager, tmp_path: Path, open_manager: OpenManager
) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second/x.png").write_bytes(b"a picture")
    second = open_manager(tmp_path / "second")
    heard = []

    def hear(sender: FileManager, **_: Any) -> None:
        heard.append(sender)

    with signals.cleanup_finished.connected_to(hear, sender=second):
        manager.cleanup_old_files()
        second.cleanup_old_files()
    assert heard == [second]


def test_a_signal_can_be_muted(manager: FileManager, told: Told) -> None:
    with signals.job_organized.muted():
        manager.organize_output("batch")
    assert told == []


def test_every_signal_says_what_it_brings() -> None:
    assert sorted(ALL) == [
        "cleanup_finished",
        "disk_low",
        "files_deleted",
        "job_incomplete",
        "job_organized",
    ]
    for name, signal in ALL.items():
        assert signal.name == name  # type: ignore[attr-defined]
        assert "``" in str(signal.__doc__)
