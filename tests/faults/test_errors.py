"""Every system call that changes something fails once, or fails from then on; nothing is lost and nothing hidden."""

from __future__ import annotations

import functools
import json
from collections import Counter
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
    found,
    original_paths,
)
from tests.faults.ground import Ground, Mount
from tests.faults.tracing import Call, traced

pytestmark = pytest.mark.faults

FAULTS = ["ENOSPC", "EIO", "EACCES", "EXDEV"]


def outcome(scenario: Scenario, root: Path) -> dict[str, Any]:
    """Do the work of a scenario and tell what it answered; any error but our own ends the child with a traceback."""
    try:
        return {"left": scenario.disturbed(root)}
    except ComfyFilesError as error:
        return {"refused": f"{type(error).__name__}: {error}"}


def fail_everywhere(ground: Ground, error: str, once: str) -> None:
    act = functools.partial(outcome, ground.scenario, ground.root)
    ground.renew()
    points = traced(act, ground.log).points(ground.root)
    for place, call in enumerate(points):
        ground.renew()
        before = Counter(points[:place])
        fault = f"{call.name}:error={error}:when={call.ordinal}"
        with ground.hearing(f"{fault} {call}"):
            failed = traced(act, ground.log, fault + ("" if once == "once" else "+"))
            assert failed.was_hit
            answer = failed.end.result
            if once == "once" and (ground.root / DOCUMENT).exists():
                json.loads((ground.root / DOCUMENT).read_bytes())
            check_nothing_is_lost(ground.root, ground.scenario.inputs)
            if answer == {"left": []}:
                assert not ground.scenario.settings
                assert sorted(original_paths(ground.root, ground.scenario.job_id)) == sorted(
                    ground.scenario.expected
                )
            expect_recovery(ground.scenario, ground.root)
    ground.conclude()


@pytest.mark.parametrize("once", ["once", "from then on"])
@pytest.mark.parametrize("error", FAULTS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failing_system_call_loses_nothing(
    name: str, error: str, once: str, memory: Path
) -> None:
    fail_everywhere(Ground(memory, SCENARIOS[name]), error, once)


@pytest.mark.parametrize("once", ["once", "from then on"])
@pytest.mark.parametrize("error", FAULTS)
def test_a_failing_system_call_while_copying_loses_nothing(
    error: str, once: str, memory: Path, mount: Mount
) -> None:
    ground = Ground(memory, OTHER_FILE_SYSTEM)
    mount(ground.root / OTHER_FOLDER, "-t", "tmpfs", "tmpfs")
    fail_everywhere(ground, error, once)
