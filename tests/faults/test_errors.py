"""Every system call that changes something fails, once or from then on; nothing is lost and nothing is hidden."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.layout import DOCUMENT
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    Scenario,
    check_nothing_is_lost,
    expect_recovery,
    original_paths,
)
from tests.faults.ground import Ground, Mount
from tests.faults.tracing import Traced, traced

pytestmark = pytest.mark.faults

# What is sampled: of the calls on the index each fault hits only every n-th, and each fault others; of
# all other calls it hits every one. The scenarios left out make the same calls in another order, and are
# in `test_kill.py`.
INDEX_STEP = 12
ERRORS = ("ENOSPC", "EIO", "EACCES", "EXDEV")
FAULTS = [(error, lasting) for error in ERRORS for lasting in ("", "+")]
NAMES = ("first job", "added files", "pending job retried", "recovery")

each_fault = pytest.mark.parametrize(
    "fault",
    FAULTS,
    ids=[error + (" from then on" if lasting else " once") for error, lasting in FAULTS],
)


def outcome(scenario: Scenario, root: Path) -> dict[str, Any]:
    """Do the work of a scenario and tell what it answered; an error that is not ours ends the child."""
    try:
        return {"left": scenario.disturbed(root)}
    except ComfyFilesError as error:
        return {"refused": f"{type(error).__name__}: {error}"}


def fail_everywhere(ground: Ground, fault: tuple[str, str]) -> None:
    """Let calls that change something below the output root fail, one in each run, and check what comes of it."""
    error, lasting = fault
    act = functools.partial(outcome, ground.scenario, ground.root)
    ground.renew()
    undisturbed = traced(act, ground.log)
    start = FAULTS.index(fault)
    for call in undisturbed.points(ground.root, index_step=INDEX_STEP, index_start=start):
        ground.renew()
        injection = f"{call.name}:error={error}:when={call.ordinal}{lasting}"
        with ground.hearing(f"{injection} {call}"):
            failed = traced(act, ground.log, injection)
            expect_an_honest_answer(ground, failed)
            if not lasting and (ground.root / DOCUMENT).exists():
                json.loads((ground.root / DOCUMENT).read_bytes())
            expect_recovery(ground.scenario, ground.root)
    ground.conclude()


def expect_an_honest_answer(ground: Ground, failed: Traced) -> None:
    """Expect that a call says what it could not do, and that what it says it did is done."""
    assert failed.was_hit
    answer = failed.end.result
    check_nothing_is_lost(ground.root, ground.scenario.inputs)
    if answer == {"left": []}:
        organized = original_paths(ground.root, ground.scenario.job_id)
        assert sorted(organized) == sorted(ground.scenario.expected)


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
