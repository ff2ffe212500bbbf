"""Work that outlasts its request: what any process can know of it, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import cleanup, detection, undoing
from flask_comfy_files.core import repair as core_repair
from flask_comfy_files.core.errors import InvalidInputError, StorageError, TaskNotFoundError
from flask_comfy_files.core.layout import STATE, TASKS
from flask_comfy_files.core.tasks import TaskCancelledError
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound
from tests.trees import BATCH, Clock, outputs, read_tree, recording, write_tree

ASKED = {"dry_run": False, "days": 30}
REPORT = {"deleted_files": 7}
PROBLEM = {"code": "cleanup_running", "status": 503, "detail": "Another one is at it."}

DIE_AT_WORK = """
import os, sys
from flask_comfy_files import FileManager
task = FileManager(sys.argv[1]).begin_task(sys.argv[2], {"dry_run": sys.argv[3] == "yes"}, (3, 9, 27))
print(task.task_id, flush=True)
os._exit(1)
"""


@pytest.fixture
def output_root(make_tree: MakeTree) -> Path:
    """Return an output folder that nobody has touched."""
    return make_tree({"a.png": b"a"})


@pytest.fixture
def other(output_root: Path, open_manager: OpenManager) -> FileManager:
    """Return a manager of the same library, as another process has one."""
    return open_manager(output_root)


def died(root: Path, kind: str = "cleanup", *, dry_run: bool = False) -> str:
    """Return a task whose process died over it."""
    command = [sys.executable, "-c", DIE_AT_WORK, str(root), kind, "yes" if dry_run else "no"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def state_of(manager: FileManager, task_id: str) -> str:
    return manager.get_task(task_id).state


def test_others_see_how_far_a_task_has_come_and_its_report(
    manager: FileManager, other: FileManager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 100.0
    monkeypatch.setattr("time.monotonic", lambda: seconds)
    task = manager.begin_task("cleanup", ASKED, (1, 9, None))
    seen = other.get_task(task.task_id)
    assert (seen.kind, seen.state, seen.arguments) == ("cleanup", "running", ASKED)
    assert (seen.done, seen.total, seen.bytes, seen.dry_run) == (1, 9, None, False)
    assert seen.started_at == seen.updated_at
    assert (seen.result, seen.error) == (None, None)

    clock.advance(1)
    task.advance(2, 9, 200)
    assert other.get_task(task.task_id) == seen, "progress is not written at every step"
    seconds += 1
    task.advance(3, 9, 300)
    later = other.get_task(task.task_id)
    assert (later.done, later.total, later.bytes, later.state) == (3, 9, 300, "running")
    assert later.started_at == seen.started_at < later.updated_at

    task.advance(9, 9, 900)
    task.finish(REPORT)
    ended = other.get_task(task.task_id)
    assert (ended.state, ended.result, ended.done, ended.bytes) == ("finished", REPORT, 9, 900)
    assert ended.error is None


def test_a_task_that_fails_says_why(manager: FileManager, other: FileManager) -> None:
    task = manager.begin_task("cleanup", ASKED)
    task.fail(PROBLEM)
    ended = other.get_task(task.task_id)
    assert (ended.state, ended.error, ended.result) == ("failed", PROBLEM, None)


def test_the_list_has_the_newest_task_first(
    manager: FileManager, other: FileManager, clock: Clock
) -> None:
    assert other.get_tasks().tasks == ()
    tasks = []
    for kind in ("verify", "migrate", "cleanup"):
        tasks.append(manager.begin_task(kind, {"dry_run": kind == "migrate"}))
        clock.advance(60)
    listed = list(other.get_tasks())
    assert [task.task_id for task in listed] == [task.task_id for task in reversed(tasks)]
    assert [(task.kind, task.dry_run) for task in listed] == [
        *(("cleanup", False), ("migrate", True), ("verify", False))
    ]
    for task in tasks:
        task.release()


def test_a_task_whose_process_died_was_interrupted_and_another_goes_on_with_it(
    manager: FileManager, other: FileManager, output_root: Path
) -> None:
    task_id = died(output_root)
    seen = manager.get_task(task_id)
    assert (seen.state, seen.done, seen.total, seen.bytes) == ("interrupted", 3, 9, 27)
    assert f"task {task_id} (cleanup) was interrupted" in str(manager.get_system_stats().health)

    task = manager.resume_task(task_id)
    assert task is not None
    assert other.resume_task(task_id) is None, "two at one task"
    assert state_of(other, task_id) == "running"
    assert other.get_task(task_id).arguments == {"dry_run": False}
    assert other.get_system_stats().health.state == "ok"
    task.finish(REPORT)
    assert other.get_task(task_id).result == REPORT
    assert other.resume_task(task_id) is None
    assert state_of(other, task_id) == "finished"


@pytest.mark.parametrize(("kind", "dry_run"), [("verify", False), ("cleanup", True)])
def test_nobody_is_warned_of_interrupted_work_that_changes_nothing(
    manager: FileManager, output_root: Path, kind: str, *, dry_run: bool
) -> None:
    task_id = died(output_root, kind, dry_run=dry_run)
    assert state_of(manager, task_id) == "interrupted"
    assert manager.get_system_stats().health.state == "ok"


def test_who_works_on_a_task_is_told_to_stop_at_the_next_step(
    manager: FileManager, other: FileManager
) -> None:
    task = manager.begin_task("cleanup", ASKED)
    task.advance(1, 9)
    assert other.cancel_task(task.task_id).state == "cancelling"
    assert state_of(manager, task.task_id) == "cancelling"
    with pytest.raises(TaskCancelledError):
        task.advance(2, 9)
    task.cancel()
    ended = other.get_task(task.task_id)
    assert (ended.state, ended.done) == ("cancelled", 2)


def test_a_cancelled_task_can_be_gone_on_with(manager: FileManager) -> None:
    task = manager.begin_task("cleanup", ASKED)
    manager.cancel_task(task.task_id)
    task.cancel()
    again = manager.resume_task(task.task_id)
    assert again is not None
    again.advance(1, 9)
    again.finish(REPORT)
    assert state_of(manager, task.task_id) == "finished"


def test_an_interrupted_task_is_cancelled_at_once(manager: FileManager, output_root: Path) -> None:
    task_id = died(output_root)
    assert manager.cancel_task(task_id).state == "cancelled"
    assert manager.get_system_stats().health.state == "ok"


@pytest.mark.parametrize("end", ["finish", "fail"])
def test_a_task_that_has_ended_is_not_cancelled(manager: FileManager, end: str) -> None:
    task = manager.begin_task("cleanup", ASKED)
    getattr(task, end)(REPORT)
    before = manager.get_task(task.task_id)
    assert manager.cancel_task(task.task_id) == before


@pytest.mark.parametrize(
    "task_id", ["0" * 32, "", ".", "..", "../x", "0" * 31, "A" * 32, "é\udcff"]
)
def test_an_unknown_task_is_said_to_be_unknown(manager: FileManager, task_id: str) -> None:
    task = manager.begin_task("cleanup", ASKED)
    for ask in (manager.get_task, manager.cancel_task, manager.resume_task):
        with pytest.raises(TaskNotFoundError):
            ask(task_id)
    task.release()


def test_a_task_is_asked_for_by_text(manager: FileManager) -> None:
    wrong: Any = 7
    for ask in (manager.get_task, manager.cancel_task, manager.resume_task):
        with pytest.raises(InvalidInputError):
            ask(wrong)


def test_tasks_are_forgotten_a_week_after_their_end_and_interrupted_ones_are_not(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    ended, failed, held, left = (manager.begin_task("cleanup", ASKED) for _ in range(4))
    ended.finish(REPORT)
    failed.fail(PROBLEM)
    left.release()
    (output_root / TASKS / ("0" * 32)).mkdir()
    write_tree(output_root, {f"{TASKS}/notes.txt": b"mine"})
    clock.advance(timedelta(days=7).total_seconds())
    manager.begin_task("verify", {}).finish({})
    assert {task.task_id for task in manager.get_tasks()} >= {ended.task_id, failed.task_id}
    clock.advance(1 + timedelta(days=3000).total_seconds())
    newest = manager.begin_task("verify", {})
    kept = {held.task_id, left.task_id, newest.task_id}
    assert {task.task_id for task in manager.get_tasks()} == kept
    assert {path.name for path in (output_root / TASKS).iterdir()} == {*kept, "notes.txt"}
    held.release()
    newest.release()


def test_what_is_no_task_of_ours_is_not_listed(manager: FileManager, output_root: Path) -> None:
    notes = {"1" * 32: b"{}", "2" * 32: b"no JSON", "3" * 32: b'{"task_id": "x"}', "x": b"{}"}
    write_tree(output_root, {f"{TASKS}/{name}/task.json": text for name, text in notes.items()})
    assert manager.get_tasks().tasks == ()
    with pytest.raises(TaskNotFoundError):
        manager.get_task("1" * 32)


def test_where_nothing_can_be_written_a_task_is_refused(
    manager: FileManager, output_root: Path
) -> None:
    write_tree(output_root, {f"{STATE}/tasks": b"in the way"})
    with pytest.raises(StorageError):
        manager.begin_task("cleanup", ASKED)
    assert manager.get_tasks().tasks == ()


def test_asking_about_tasks_leaves_no_trace(manager: FileManager, output_root: Path) -> None:
    assert manager.get_tasks().tasks == ()
    with pytest.raises(TaskNotFoundError):
        manager.cancel_task("0" * 32)
    assert not (output_root / STATE).exists()


FORK_AT_WORK = """
import os, sys
from flask_comfy_files import FileManager
manager = FileManager(sys.argv[1])
task = manager.begin_task("cleanup", {})
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)  # it lives for as long as its parent
    os._exit(0)
task.cancel()
again = manager.resume_task(task.task_id)
print("taken over" if again else "held by the child")
"""


def test_a_process_that_was_forked_at_work_does_not_hold_its_task(output_root: Path) -> None:
    command = [sys.executable, "-c", FORK_AT_WORK, str(output_root)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "taken over\n", result.stderr


IMAGES = {f"image_{number}.png": recording(BATCH[number]) for number in range(4)}


class StopsAt:
    """Stops work at its n-th step."""

    def __init__(self, step: int) -> None:
        self._left = step

    def __call__(self, *_: int) -> None:
        self._left -= 1
        if self._left == 0:
            raise TaskCancelledError


def migrate(manager: FileManager, on_progress: Any) -> int:
    return manager.migrate_legacy_files(on_progress=on_progress).moved_to_legacy.files


def clean_up(manager: FileManager, on_progress: Any) -> int:
    return manager.cleanup_old_files(0, on_progress=on_progress).deleted_files


def repair(manager: FileManager, on_progress: Any) -> int:
    findings = manager.verify_files().findings
    return len(manager.repair_files(findings, on_progress=on_progress).repaired)


def undo(manager: FileManager, on_progress: Any) -> int:
    oldest = manager.get_operations(kind="migrate").operations[-1]
    return manager.undo_operation(oldest.operation_id, on_progress=on_progress).undone.files


def give_each_a_job(manager: FileManager, root: Path) -> None:
    for name in IMAGES:
        manager.organize_output(name.partition(".")[0])
    assert not set(IMAGES) & set(outputs(root))


def put_beside_the_records(manager: FileManager, root: Path) -> None:
    manager.migrate_legacy_files()
    for content in IMAGES.values():
        write_tree(root, {f"legacy/stray_{len(content)}.png": content})


@pytest.mark.parametrize(
    ("prepare", "act"),
    [
        (lambda _manager, _root: None, migrate),
        (give_each_a_job, clean_up),
        (put_beside_the_records, repair),
        (lambda manager, _root: manager.migrate_legacy_files(), undo),
    ],
    ids=["migrate", "cleanup", "repair", "undo"],
)
@pytest.mark.parametrize("step", [1, 2, 3])
def test_work_that_is_stopped_at_any_step_leaves_nothing_half_done_and_goes_on_later(
    make_tree: MakeTree,
    open_manager: OpenManager,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[FileManager, Path], None],
    act: Callable[[FileManager, Any], int],
    step: int,
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 1)
    monkeypatch.setattr(cleanup, "JOBS_AT_ONCE", 1)
    monkeypatch.setattr(core_repair, "_AT_ONCE", 1)
    monkeypatch.setattr(undoing, "FILES_AT_ONCE", 1)
    root = make_tree(IMAGES)
    manager = open_manager(root, min_free_bytes=0)
    prepare(manager, root)
    before = sum(content in IMAGES.values() for content in read_tree(root).values())
    clock.advance(60)
    with pytest.raises(TaskCancelledError):
        act(manager, StopsAt(step))
    assert_sound(root)
    assert act(manager, None) > 0
    assert_sound(root)
    content = [content for content in read_tree(root).values() if content in IMAGES.values()]
    assert len(content) == before, "a file is lost, or is there twice"
    assert set(content) == set(IMAGES.values())
