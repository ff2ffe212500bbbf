from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ground import Mount


@pytest.fixture(scope="session", autouse=True)
def nothing_else_can_change() -> None:
    """Refuse to disturb anything where more than the tests' own folder could be hit."""
    if os.geteuid() != 0 or not os.statvfs("/").f_flag & os.ST_RDONLY:
        pytest.exit("these tests run as root under a read-only root: make test-faults", 1)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return what mounts something on a folder, which is made where it is missing, until the test ends."""
    with contextlib.ExitStack() as stack:

        def mount_on(place: Path, *options: str) -> Path:
            assert place.is_relative_to(tmp_path)
            place.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", *options, str(place)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(place)], check=True)
            return place

        yield mount_on


@pytest.fixture
def memory(tmp_path: Path, mount: Mount) -> Path:
    """Return a folder on a file system in memory, which does not make hundreds of runs wait for a disk."""
    return mount(tmp_path / "memory", "-t", "tmpfs", "tmpfs")
