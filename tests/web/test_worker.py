from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.web.worker import Worker
from tests.web.answers import BATCH


@pytest.fixture(autouse=True)
def no_worker_in_the_way() -> None:
    """Leave the delays as they are: no worker waits here but as a test lets it."""


class Turns:
    """Lets a worker wait until the test tells it to go on; remembers for how long it meant to."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.thread: threading.Thread | None = None
        self._waits = threading.Semaphore(0)
        self._goes_on = threading.Semaphore(0)

    def wait(self, seconds: float) -> None:
        self.delays.append(seconds)
        self.thread = threading.current_thread()
        self._waits.release()
        assert self._goes_on.acquire(timeout=20)

    def until_it_waits(self) -> None:
        assert self._waits.acquire(timeout=20)

    def go_on(self) -> None:
        self._goes_on.release()

    def until_it_ends(self) -> None:
        assert self.thread is not None
        self.go_on()
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()


def leave_pending(manager: FileManager, job_id: str, name: str) -> None:
    """Complete a job one of whose files is open for writing."""
    with (Path(manager.settings.output_dir) / name).open("ab"):
        manager.complete_job(job_id, files=[name])


def test_a_worker_tries_again_less_and_less_often_until_nothing_is_pending(
    manager: FileManager, output_root: Path
) -> None:
    turns = Turns()
    with (output_root / BATCH[0]).open("ab"):
        manager.complete_job("batch")
        Worker(manager, turns.wait).wake()
        for _ in range(8):
            turns.until_it_waits()
            assert len(manager.get_pending_jobs()) == 1
            turns.go_on()
        turns.until_it_waits()
    turns.until_it_ends()
    assert manager.get_pending_jobs() == []
    assert manager.get_job_files("batch").file_count == 4
    assert 2 < turns.delays[0] < 5
    assert turns.delays == sorted(turns.delays)
    assert turns.delays[-1] == 2 * turns.delays[-2] <= 15 * 60


def test_a_worker_is_one_thread_however_often_it_is_woken(manager: FileManager) -> None:
    turns = Turns()
    worker = Worker(manager, turns.wait)
    leave_pending(manager, "batch", BATCH[0])
    for _ in range(5):
        worker.wake()
    turns.until_it_waits()
    turns.until_it_ends()
    assert len(turns.delays) == 1


def test_a_worker_that_has_ended_can_be_woken_again(manager: FileManager) -> None:
    turns = Turns()
    worker = Worker(manager, turns.wait)
    for job_id, name in (("first", BATCH[0]), ("second", BATCH[1])):
        leave_pending(manager, job_id, name)
        worker.wake()
        turns.until_it_waits()
        turns.until_it_ends()
        assert manager.get_job_files(job_id).file_count == 1


def test_a_job_that_becomes_pending_while_the_worker_ends_is_not_forgotten(
    manager: FileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns()
    worker = Worker(manager, turns.wait)
    leave_pending(manager, "first", BATCH[0])
    worker.wake()
    turns.until_it_waits()

    retry = manager.retry_pending_jobs

    def retry_and_meet_another() -> object:
        report = retry()
        monkeypatch.setattr(manager, "retry_pending_jobs", retry)
        leave_pending(manager, "second", BATCH[1])
        worker.wake()
        return report

    monkeypatch.setattr(manager, "retry_pending_jobs", retry_and_meet_another)
    turns.go_on()
    turns.until_it_waits()
    turns.until_it_ends()
    assert manager.get_pending_jobs() == []
    assert manager.get_job_files("second").file_count == 1


def test_a_worker_outlives_a_library_that_cannot_be_used_for_a_while(
    manager: FileManager, output_root: Path
) -> None:
    turns = Turns()
    leave_pending(manager, "batch", BATCH[0])
    Worker(manager, turns.wait).wake()
    turns.until_it_waits()
    away = (output_root / DOCUMENT).rename(output_root / "away")
    turns.go_on()
    turns.until_it_waits()
    away.rename(output_root / DOCUMENT)
    turns.until_it_ends()
    assert manager.get_job_files("batch").file_count == 1


def test_waking_a_worker_of_a_library_that_cannot_be_read_starts_and_breaks_nothing(
    manager: FileManager, output_root: Path
) -> None:
    (output_root / DOCUMENT).write_bytes(b"no JSON at all")
    others = set(threading.enumerate())
    Worker(manager).wake()
    assert [one for one in threading.enumerate() if one not in others] == []
