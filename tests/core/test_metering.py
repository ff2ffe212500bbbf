from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import JobNotFoundError, OutOfSpaceError
from flask_comfy_files.core.layout import METRICS, STATE
from flask_comfy_files.core.metering import ABOVE, Meter
from flask_comfy_files.core.tasks import TaskCancelledError
from tests.conftest import OpenManager
from tests.trees import BATCH, NOW, Clock, read_tree

COUNTING = {"metrics_route": True}


@pytest.fixture
def root(output_root: Path) -> Path:
    """Return an output root with a library, in which something can be counted."""
    (output_root / STATE).mkdir()
    return output_root


@pytest.fixture
def counting(output_root: Path, open_manager: OpenManager) -> FileManager:
    """Return a manager that counts."""
    return open_manager(output_root, **COUNTING)


def operations(manager: FileManager) -> dict[tuple[str, ...], float]:
    return dict(manager.get_metrics().counted["operations_total"])


def test_operations_are_counted_by_kind_and_result(
    counting: FileManager, output_root: Path
) -> None:
    counting.organize_output("batch")
    counting.organize_output("batch")
    counting.update_job("batch", pinned=False)
    with pytest.raises(JobNotFoundError):
        counting.delete_job_files("nobody")
    with (output_root / "pv_00001_.png").open("ab"):
        counting.complete_job("pv")
    assert operations(counting) == {
        ("organize", "ok"): 2,
        ("update", "ok"): 1,
        ("delete", "job_not_found"): 1,
        ("complete", "incomplete"): 1,
    }


def test_rehearsals_and_questions_are_no_operations(counting: FileManager) -> None:
    counting.organize_output("batch", files=BATCH[:1])
    counting.plan_cleanup()
    counting.plan_migration()
    counting.get_job_files("batch")
    counting.import_records([], dry_run=True)
    counting.compact_if_worthwhile()
    assert operations(counting) == {("organize", "ok"): 1}


def test_files_are_counted_whether_they_are_organized_or_left(
    counting: FileManager, output_root: Path
) -> None:
    with (output_root / BATCH[0]).open("ab"):
        counting.complete_job("batch")
        counting.organize_output("batch")
    counted = counting.get_metrics().counted
    assert counted["organized_files_total"] == {(): 3}
    size = sum(record.file_size for record in counting.get_job_files("batch"))
    assert counted["organized_bytes_total"] == {(): size}
    assert counted["left_files_total"] == {("skipped",): 2}


@pytest.mark.parametrize(
    ("error", "result"),
    [(ZeroDivisionError, "internal_error"), (TaskCancelledError, "cancelled")],
)
def test_what_is_no_error_of_ours_has_a_result_of_its_own(
    counting: FileManager, error: type[Exception], result: str
) -> None:
    counting.organize_output("batch")

    def advance(*_: int) -> None:
        raise error

    with pytest.raises(error):
        counting.verify_files(on_progress=advance)
    assert operations(counting)["verify", result] == 1


def test_a_refusal_for_want_of_space_is_counted(
    output_root: Path, open_manager: OpenManager
) -> None:
    with open_manager(output_root, **COUNTING) as manager:
        manager.organize_output("batch", files=BATCH[:1])
    poor = open_manager(output_root, min_free_bytes=2**60, **COUNTING)
    with pytest.raises(OutOfSpaceError):
        poor.organize_output("batch", files=BATCH[1:])
    assert operations(poor)["organize", "out_of_space"] == 1


def test_durations_and_waits_are_sorted_into_classes(counting: FileManager) -> None:
    counting.organize_output("batch")
    counted = counting.get_metrics().counted
    assert sum(counted["operation_duration_seconds_bucket"].values()) == 1
    assert {kind for kind, _ in counted["operation_duration_seconds_bucket"]} == {"organize"}
    assert 0 < counted["operation_duration_seconds_sum"]["organize",] < 60
    assert sum(counted["lock_wait_seconds_bucket"].values()) == 1
    assert 0 < counted["lock_wait_seconds_sum"][()] < 60


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.005"), (10.0, "10.0"), (10.1, ABOVE)],
)
def test_a_class_reaches_up_to_its_bound(root: Path, seconds: float, bound: str) -> None:
    meter = Meter(str(root))
    meter.waited(seconds)
    assert meter.read()["lock_wait_seconds_bucket"] == {(bound,): 1}
    meter.close()


def test_the_last_time_of_an_operation_is_that_of_whoever_was_last(
    counting: FileManager, output_root: Path, open_manager: OpenManager, clock: Clock
) -> None:
    counting.organize_output("batch")
    clock.advance(timedelta(hours=1).total_seconds())
    open_manager(output_root, **COUNTING).organize_output("batch")
    clock.advance(-timedelta(hours=2).total_seconds())
    counting.organize_output("batch")
    noted = counting.get_metrics().counted["last_operation_timestamp_seconds"]
    assert noted == {("organize", "ok"): (NOW + timedelta(hours=1)).timestamp()}


def test_nothing_is_counted_where_nobody_asks(manager: FileManager, output_root: Path) -> None:
    manager.organize_output("batch")
    assert manager.get_metrics().counted == {}
    assert not (output_root / METRICS).exists()


def test_nothing_is_begun_where_no_library_is(
    counting: FileManager, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_tree(output_root)
    with pytest.raises(JobNotFoundError):
        counting.delete_job_files("nobody")
    assert counting.get_metrics().counted == {}
    assert read_tree(output_root) == before
    assert caplog.records == []
    counting.organize_output("batch")
    assert operations(counting) == {("delete", "job_not_found"): 1, ("organize", "ok"): 1}


CHILD = """
import sys
from flask_comfy_files.core.metering import Meter
meter = Meter(sys.argv[1])
for _ in range(200):
    meter.count("operations_total", "organize", "ok")
    meter.write()
meter.close()
"""


def test_processes_and_threads_add_up(root: Path) -> None:
    meter = Meter(str(root))

    def count() -> None:
        for _ in range(200):
            meter.count("operations_total", "organize", "ok")
            meter.write()

    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(root)]) for _ in range(2)]
    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait(60) for child in children] == [0, 0]
    assert meter.read()["operations_total"] == {("organize", "ok"): 1000}
    meter.close()


def in_a_fork(act: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        status = 1
        try:
            signal.alarm(20)
            act()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_adds_its_own_numbers_and_not_its_parents_again(root: Path) -> None:
    meter = Meter(str(root))
    meter.count("operations_total", "organize", "ok")
    meter.write()
    meter.count("operations_total", "organize", "ok")  # and not written yet

    def count() -> None:
        meter.count("operations_total", "delete", "ok")
        meter.write()

    in_a_fork(count)
    expected = {("organize", "ok"): 2, ("delete", "ok"): 1}
    assert meter.read()["operations_total"] == expected
    meter.close()


def test_a_deleted_file_is_made_anew(root: Path) -> None:
    meter, other = Meter(str(root)), Meter(str(root))
    for each in (meter, other):
        each.count("operations_total", "organize", "ok")
        each.write()
    for ending in ("", "-wal", "-shm"):
        (root / f"{METRICS}{ending}").unlink()
    for each in (meter, other):
        each.count("operations_total", "delete", "ok")
        each.write()
    assert meter.read()["operations_total"] == {("delete", "ok"): 2}
    meter.close()
    other.close()


@pytest.mark.parametrize("rest", [[], ["-wal", "-shm"]], ids=["alone", "with-its-log"])
def test_deleting_only_the_file_itself_does_no_harm(root: Path, rest: list[str]) -> None:
    meter = Meter(str(root))
    meter.count("operations_total", "organize", "ok")
    meter.write()
    for ending in ["", *rest]:
        (root / f"{METRICS}{ending}").unlink()
    meter.count("operations_total", "delete", "ok")
    meter.write()
    assert meter.read()["operations_total"] == {("delete", "ok"): 1}
    meter.close()


@pytest.mark.parametrize(
    "content", [b"no database at all, and long enough" * 100, b""], ids=["damaged", "empty"]
)
def test_a_damaged_file_is_made_anew_and_nobody_is_disturbed(
    counting: FileManager, output_root: Path, content: bytes
) -> None:
    counting.organize_output("batch", files=BATCH[:1])
    counting.close()
    (output_root / METRICS).write_bytes(content)
    counting.organize_output("batch", files=BATCH[:2])
    counting.organize_output("batch", files=BATCH[:3])
    assert counting.get_job_files("batch").file_count == 3
    assert operations(counting)["organize", "ok"] == 2


def test_a_file_that_cannot_be_written_is_said_once_and_is_no_error(
    counting: FileManager, output_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counting.organize_output("batch", files=BATCH[:1])
    counting.close()
    for ending in ("", "-wal", "-shm"):
        (output_root / f"{METRICS}{ending}").unlink(missing_ok=True)
    (output_root / METRICS).mkdir()
    for number in range(2, 5):
        assert counting.organize_output("batch", files=BATCH[:number]).file_count == number
    assert counting.get_metrics().counted == {}
    (said,) = [record for record in caplog.records if METRICS in record.getMessage()]
    assert said.levelno == logging.WARNING
    (output_root / METRICS).rmdir()
    assert operations(counting)["organize", "ok"] == 3, "what was counted meanwhile is not lost"


def test_a_busy_file_holds_nobody_up_and_is_written_later(
    counting: FileManager, output_root: Path
) -> None:
    counting.organize_output("batch", files=BATCH[:1])
    blocker = sqlite3.connect(output_root / METRICS, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    assert counting.organize_output("batch").file_count == len(BATCH)
    blocker.execute("COMMIT")
    blocker.close()
    assert operations(counting)["organize", "ok"] == 2


def test_the_gauges_are_those_of_the_library(
    counting: FileManager, output_root: Path, clock: Clock
) -> None:
    counting.organize_output("batch", "tokyo")
    counting.organize_output("pv", "osaka")
    counting.delete_job_files("pv")
    counting.cleanup_old_files()
    with (output_root / "clip.mp4").open("ab"):
        counting.complete_job("clip", "tokyo", files=["clip.mp4"])
    gauges = counting.get_metrics().gauges
    stats = counting.get_system_stats()
    assert gauges is not None
    assert {key: tally.files for key, tally in gauges.files.items()} == {("tokyo", "image"): 4}
    assert sum(tally.bytes for tally in gauges.files.values()) == stats.total_size
    assert (gauges.jobs, gauges.projects) == (stats.jobs, stats.projects)
    assert gauges.trash == stats.trash
    assert (gauges.pending_jobs, gauges.oldest_pending_at) == (1, clock.now)
    assert gauges.cleanup_began_at == clock.now
    assert gauges.tasks == {"running": 0, "cancelling": 0, "interrupted": 0}


def test_of_many_projects_the_largest_stand_for_themselves(
    make_tree: Callable[..., Path], open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_comfy_files.core.gauging.MOST_PROJECTS", 2)
    sizes = {"small": 1, "large": 3, "medium": 2, "tiny": 1}
    root = make_tree({f"{name}_{n:05}_.png": b"x" for name, k in sizes.items() for n in range(k)})
    manager = open_manager(root)
    for name in sizes:
        manager.organize_output(name, name)
    gauges = manager.get_metrics().gauges
    assert gauges is not None
    found: dict[Any, int] = {key[0]: tally.files for key, tally in gauges.files.items()}
    assert found == {"large": 3, "medium": 2, "(other)": 2}


def test_a_library_that_cannot_be_used_has_no_gauges_but_a_state(
    counting: FileManager, output_root: Path
) -> None:
    output_root.rename(output_root.with_name("elsewhere"))
    metrics = counting.get_metrics()
    assert (metrics.health.state, metrics.gauges, metrics.disk) == ("unavailable", None, None)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_that_stayed_behind(root: Path) -> None:
    meter = Meter(str(root))
    with meter._lock:  # noqa: SLF001 - as a thread of the parent may at that moment
        in_a_fork(meter.write)
    meter.close()
