"""Every system call that changes something fails, once or from then on; nothing is lost and nothing is hidden."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from flask_comfy_files.core.layout import DOCUMENT
from tests.crash.deletions import DELETIONS
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    expect_recovery,
)
from tests.faults.ground import Ground, Mount, expect_an_honest_answer, outcome
from tests.faults.tracing import traced

pytestmark = pytest.mark.faults

# What is sampled: of the calls on the index each fault hits only every n-th, and each fault others; of
# all other calls it hits every one, but EXDEV, which only renaming and linking answer in truth, only
# every fourth of the rest. The scenarios left out make the same calls in another order, and are in
# `test_kill.py`.
INDEX_STEP = 12
EXDEV_STEP = 4
ERRORS = ("ENOSPC", "EIO", "EACCES", "EXDEV")
FAULTS = [(error, lasting) for error in ERRORS for lasting in ("", "+")]
NAMES = ("first job", "added files", "pending job retried", "recovery")

each_fault = pytest.mark.parametrize(
    "fault",
    FAULTS,
    ids=[error + (" from then on" if lasting else " once") for error, lasting in FAULTS],
)


def fail_everywhere(ground: Ground, fault: tuple[str, str]) -> None:
    """Let calls that change something below the output root fail, one in each run, and check what comes of it."""
    error, lasting = fault
    act = functools.partial(outcome, ground.scenario, ground.root)
    start = FAULTS.index(fault)
    run = ground.undisturbed(act)
    points = run.points(ground.root, index_step=INDEX_STEP, index_start=start)
    for number, call in enumerate(points):
        if (
            error == "EXDEV"
            and number % EXDEV_STEP
            and not call.name.startswith(("rename", "link"))
        ):
            continue
        ground.renew()
        injection = f"{call.name}:error={error}:when={call.ordinal}{lasting}"
        with ground.hearing(f"{injection} {call}"):
            failed = traced(act, ground.log, injection)
            assert failed.was_hit
            expect_an_honest_answer(ground, failed.end.result)
            if not lasting and (ground.root / DOCUMENT).exists():
                json.loads((ground.root / DOCUMENT).read_bytes())
            expect_recovery(ground.scenario, ground.root)
    ground.conclude()


@pytest.mark.parametrize("error", ["EIO", "EMFILE", "EACCES"])
@pytest.mark.parametrize("name", ["added files", "recovery"])
def test_a_failing_look_loses_nothing(name: str, error: str, memory: Path) -> None:
    """What cannot be read is not taken for missing, damaged or empty. Each error hits every third call."""
    ground = Ground(memory, SCENARIOS[name])
    act = functools.partial(outcome, ground.scenario, ground.root)
    looks = ground.undisturbed(act).looks(ground.root)
    assert len(looks) > 30
    for call in looks[["EIO", "EMFILE", "EACCES"].index(error) :: 3]:
        ground.renew()
        injection = f"{call.name}:error={error}:when={call.ordinal}"
        with ground.hearing(f"{injection} {call}"):
            failed = traced(act, ground.log, injection)
            assert failed.was_hit
            expect_an_honest_answer(ground, failed.end.result)
            expect_recovery(ground.scenario, ground.root)
    ground.conclude()


@each_fault
@pytest.mark.parametrize("name", NAMES)
def test_a_failing_system_call_loses_nothing(
    name: str, fault: tuple[str, str], memory: Path
) -> None:
    fail_everywhere(Ground(memory, SCENARIOS[name]), fault)


@each_fault
def test_a_failing_system_call_while_copying_loses_nothing(
    fault: tuple[str, str], memory: Path, mount: Mount
) -> None:
    ground = Ground(memory, OTHER_FILE_SYSTEM)
    mount(ground.root / OTHER_FOLDER, "-t", "tmpfs", "tmpfs")
    fail_everywhere(ground, fault)


DELETION_FAULTS = ("ENOSPC:when={}+", "EIO:when={}", "EROFS:when={}+", "EACCES:when={}")
"""Each call is hit by one of them, in turn."""


@pytest.mark.parametrize("name", ["delete", "restore", "empty trash"])
def test_a_failing_system_call_leaves_each_job_whole_on_its_way(name: str, memory: Path) -> None:
    """A purge that cannot remove a file is in ``test_permissions.py``: it says so, and does not wait."""
    ground = Ground(memory, replace(DELETIONS[name], may_leave_folders=True))
    act = functools.partial(outcome, ground.scenario, ground.root)
    points = ground.undisturbed(act).points(ground.root, index_step=4 * INDEX_STEP)
    points = [
        call for call in points if not (name == "empty trash" and call.name.startswith("unlink"))
    ]
    assert len(points) > 8
    for number, call in enumerate(points):
        ground.renew()
        fault = DELETION_FAULTS[number % len(DELETION_FAULTS)].format(call.ordinal)
        with ground.hearing(f"{fault} {call}"):
            failed = traced(act, ground.log, f"{call.name}:error={fault}")
            assert failed.was_hit
            expect_an_honest_answer(ground, failed.end.result)
            expect_recovery(ground.scenario, ground.root)
    ground.conclude()


@pytest.mark.parametrize("name", ["delete", "restore"])
def test_a_failing_look_at_a_job_on_its_way_loses_nothing(name: str, memory: Path) -> None:
    """What cannot be read is not taken for gone. Each third call fails, with one error after the other."""
    ground = Ground(memory, replace(DELETIONS[name], may_leave_folders=True))
    act = functools.partial(outcome, ground.scenario, ground.root)
    looks = ground.undisturbed(act).looks(ground.root)
    assert len(looks) > 30
    for number, call in enumerate(looks[::3]):
        ground.renew()
        fault = f"{('EIO', 'EMFILE', 'EACCES')[number % 3]}:when={call.ordinal}"
        with ground.hearing(f"{fault} {call}"):
            failed = traced(act, ground.log, f"{call.name}:error={fault}")
            assert failed.was_hit
            expect_an_honest_answer(ground, failed.end.result)
            expect_recovery(ground.scenario, ground.root)
    ground.conclude()
