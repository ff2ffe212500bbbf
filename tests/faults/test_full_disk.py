"""Disks that are really full: a call answers honestly, loses nothing, and completes when there is room again."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_comfy_files.core.errors import OutOfSpaceError
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    expect_recovery,
    in_child,
    open_library,
)
from tests.faults.ground import Ground, Mount
from tests.faults.test_errors import expect_an_honest_answer, outcome
from tests.trees import outputs

pytestmark = pytest.mark.faults

PAGE = 4096
CHUNK = 64 * 1024


@contextlib.contextmanager
def filled(disk: Path, left_bytes: int) -> Iterator[None]:
    """Fill a disk to the last byte but some."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as rest:
        size = 0
        for chunk in (CHUNK, 1024):
            with contextlib.suppress(OSError):
                while written := rest.write(bytes(chunk)):
                    size += written
        rest.truncate(max(0, size - left_bytes))
    yield
    filler.unlink()


@contextlib.contextmanager
def without_inodes(disk: Path, left: int) -> Iterator[None]:
    """Use all inodes of a disk but some."""
    fillers = []
    with contextlib.suppress(OSError):
        while True:
            fillers.append(disk / f"filler_{len(fillers)}")
            fillers[-1].touch()
    for filler in fillers[len(fillers) - 1 - left :]:
        filler.unlink(missing_ok=True)
    yield
    for filler in fillers:
        filler.unlink(missing_ok=True)


def work_on_a_full_disk(ground: Ground, full: Callable[[], contextlib.AbstractContextManager[None]]) -> bool:
    """Do the work of a scenario while the disk is full; return whether there was room enough."""
    ground.renew()
    with full():
        end = in_child(lambda: outcome(ground.scenario, ground.root))
    expect_an_honest_answer(ground, end.result)
    expect_recovery(ground.scenario, ground.root)
    return bool(end.result == {"left": []})


def test_a_full_disk_loses_nothing_however_little_room_is_left() -> None:
    pass
