"""A process dies before and after every call into ``durable``; whoever comes next finds a sound library.

Everything runs as an ordinary user: processes die by ``os._exit``, a border between file systems
is played. Kills at every system call and real borders are in ``tests/faults``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.errors import JobNotFoundError
from flask_comfy_files.core.layout import LOCK
from tests.crash.library_check import (
    DIED,
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    Fuse,
    Scenario,
    check_library,
    check_nothing_is_lost,
    delete_index,
    die,
    in_child,
    make_next_change,
    open_library,
    original_paths,
    wire,
)

pytestmark = pytest.mark.crash

MOST_POINTS = 2000
"""More calls than any scenario makes: whoever gets that far does not end."""

each_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


def crash_everywhere(scenario: Scenario, tmp_path: Path, check: Callable[[Path], None]) -> None:
    """Let a process die at each point of a scenario until one survives, and check the tree after each."""
    template, root = tmp_path / "template", tmp_path / "output"
    scenario.lay_out(template)

    def act(point: int) -> None:
        wire(Fuse(point))
        scenario.disturbed(root)

    for point in range(1, MOST_POINTS):
        shutil.copytree(template, root)
        end = in_child(functools.partial(act, point))
        assert end.status in {0, DIED}, end.said
        try:
            check(root)
        except BaseException as error:
            error.add_note(f"crash at point {point}, {end.said}")
            raise
        shutil.rmtree(root)
        if end.status == 0:
            assert point > 1
            return
    pytest.fail(f"still alive and at work after {MOST_POINTS} calls")


def expect_recovery(scenario: Scenario, root: Path) -> None:
    """Make the next change and expect a sound library; do the work again and expect all of it to be done."""
    check_nothing_is_lost(root, scenario.inputs)
    make_next_change(root)
    check_library(root, scenario.inputs)
    scenario.finished(root)
    check_library(root, scenario.inputs)
    assert original_paths(root, scenario.job_id) == list(scenario.expected)


@each_scenario
def test_the_next_change_finishes_what_a_crash_left(scenario: Scenario, tmp_path: Path) -> None:
    crash_everywhere(scenario, tmp_path, functools.partial(expect_recovery, scenario))


@each_scenario
def test_a_crash_is_survived_without_the_index(scenario: Scenario, tmp_path: Path) -> None:
    def check(root: Path) -> None:
        delete_index(root)
        expect_recovery(scenario, root)

    crash_everywhere(scenario, tmp_path, check)


@each_scenario
def test_the_next_reader_finishes_what_a_crash_left(scenario: Scenario, tmp_path: Path) -> None:
    def check(root: Path) -> None:
        with contextlib.suppress(JobNotFoundError):
            original_paths(root, scenario.job_id)
        expect_recovery(scenario, root)

    crash_everywhere(scenario, tmp_path, check)


@pytest.mark.parametrize("keep_index", [True, False], ids=["index", "no index"])
@each_scenario
def test_a_reader_who_cannot_recover_sees_the_job_as_before_or_whole(
    scenario: Scenario, keep_index: bool, tmp_path: Path
) -> None:
    untouched = tmp_path / "untouched"
    scenario.lay_out(untouched)
    before = seen_by_a_mere_reader(untouched, scenario.job_id)

    def check(root: Path) -> None:
        if not keep_index:
            delete_index(root)
        assert seen_by_a_mere_reader(root, scenario.job_id) in (before, list(scenario.expected))

    crash_everywhere(scenario, tmp_path, check)


def seen_by_a_mere_reader(root: Path, job_id: str) -> list[str]:
    """Return the original paths of a job's files while somebody else holds the library's lock."""
    with contextlib.ExitStack() as stack:
        if (root / LOCK).exists():
            stack.enter_context(lock.hold(str(root / LOCK), timeout_s=1))
        try:
            with open_library(root) as manager:
                files = manager.get_job_files(job_id).files
        except JobNotFoundError:
            return []
    assert [record.path for record in files if not Path(record.file_path).is_file()] == []
    return [record.original_path for record in files]


def test_a_second_crash_during_recovery_is_survived(tmp_path: Path) -> None:
    """The crash that leaves most to do is followed by another at every point of the recovery, and by the index's loss."""
    scenario = SCENARIOS["recovery"]

    def check(root: Path) -> None:
        delete_index(root)
        assert in_child(lambda: die_in_recovery(root)).status == DIED
        expect_recovery(scenario, root)

    crash_everywhere(scenario, tmp_path, check)


def die_in_recovery(root: Path) -> None:
    """Let a process die when it has finished what it found, before its own change is written."""

    def append(_descriptor: int, _offset: int, _content: bytes, _tail: bytes) -> None:
        die("before append")

    durable.append = append
    make_next_change(root)


@pytest.mark.parametrize("told_by", ["mount id", "rename alone"])
def test_a_crash_while_copying_across_file_systems_is_survived(
    told_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most borders show in the mount id; quota trees and overlays answer a rename with EXDEV on one mount."""
    move = durable.move

    def system_of(folder: int) -> str:
        is_other = OTHER_FOLDER in Path(os.readlink(f"/proc/self/fd/{folder}")).parts
        return "other" if is_other else "library"

    @functools.wraps(move)
    def move_within(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if system_of(source_folder) != system_of(target_folder):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", move_within)
    if told_by == "mount id":
        monkeypatch.setattr(durable, "mount_id", functools.wraps(durable.mount_id)(system_of))
    crash_everywhere(
        OTHER_FILE_SYSTEM, tmp_path, functools.partial(expect_recovery, OTHER_FILE_SYSTEM)
    )
