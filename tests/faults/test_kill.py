"""A process is killed before every system call that changes something; the next finds a sound library."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest

from flask_comfy_files.core.layout import INDEX
from tests.crash.deletions import DELETIONS, INTERRUPTED, age_index
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    delete_index,
    expect_recovery,
)
from tests.faults.ground import Ground, Mount
from tests.faults.tracing import traced

pytestmark = pytest.mark.faults

INDEX_STEP = 10
"""Of the calls on the index only every n-th is hit, but for one scenario in which each is."""

DELETION_INDEX_STEP = 40
"""Of deletions fewer still: the index is written in the same way."""


def kill_everywhere(ground: Ground, index_step: int) -> None:
    """Kill at each call that changes something below the output root; expect the next change to finish or undo it.

    Every second time the index is deleted, too.
    """
    act = functools.partial(ground.scenario.disturbed, ground.root)
    points = ground.undisturbed(act).points(ground.root, index_step=index_step)
    for number, call in enumerate(points):
        ground.renew()
        with ground.hearing(call):
            killed = traced(act, ground.log, f"{call.name}:signal=KILL:when={call.ordinal}")
            assert killed.end.status == -signal.SIGKILL, killed.end.said
            if number % 2:
                delete_index(ground.root)
            expect_recovery(ground.scenario, ground.root)
    ground.conclude()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_at_any_system_call_is_survived(name: str, memory: Path) -> None:
    kill_everywhere(Ground(memory, SCENARIOS[name]), 1 if name == "added files" else INDEX_STEP)


def test_a_kill_while_copying_across_file_systems_is_survived(memory: Path, mount: Mount) -> None:
    ground = Ground(memory, OTHER_FILE_SYSTEM)
    mount(ground.root / OTHER_FOLDER, "-t", "tmpfs", "tmpfs")
    kill_everywhere(ground, INDEX_STEP)


def test_a_kill_while_copying_across_a_bind_mount_is_survived(memory: Path, mount: Mount) -> None:
    ground = Ground(memory, OTHER_FILE_SYSTEM)
    store = memory / "store"
    store.mkdir()
    mount(ground.root / "projects", "--bind", str(store))
    kill_everywhere(ground, INDEX_STEP)


@pytest.mark.parametrize("name", ["delete", "restore beside", "destroy", "refused delete"])
def test_a_kill_while_jobs_go_or_come_back_is_survived(name: str, memory: Path) -> None:
    """In turn the index is kept, deleted, or one from long before."""
    scenario = {**DELETIONS, **INTERRUPTED}[name]
    kill_in_turn(Ground(memory, scenario), DELETION_INDEX_STEP)


@pytest.mark.parametrize("name", ["delete", "restore"])
def test_a_kill_while_a_job_is_copied_into_the_trash_or_out_of_it_is_survived(
    name: str, memory: Path, mount: Mount
) -> None:
    ground = Ground(memory, DELETIONS[name])
    mount(ground.root / "projects", "-t", "tmpfs", "tmpfs")
    kill_in_turn(ground, 10 * DELETION_INDEX_STEP)


def kill_in_turn(ground: Ground, index_step: int) -> None:
    """Kill as above; the index is kept, deleted, or replaced by one that knows the first job alone."""
    act = functools.partial(ground.scenario.disturbed, ground.root)
    points = ground.undisturbed(act).points(ground.root, index_step=index_step)
    for number, call in enumerate(points):
        ground.renew()
        with ground.hearing(call):
            killed = traced(act, ground.log, f"{call.name}:signal=KILL:when={call.ordinal}")
            assert killed.end.status == -signal.SIGKILL, killed.end.said
            if number % 3 == 1:
                delete_index(ground.root)
            elif number % 3:
                age_index(ground.root, ground.folder / Path(INDEX).name)
            ground.scenario.recovered(ground.root)
    ground.conclude()
