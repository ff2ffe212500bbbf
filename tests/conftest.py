from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from flask_comfy_files import FileManager
from tests.trees import AN_HOUR_AGO, Clock, Entry, copy_recordings, write_tree

pytest.register_assert_rewrite(
    "tests.crash.library_check", "tests.faults.ground", "tests.faults.tracing"
)

# A disk may take its time for a sync, and a failure must be found again by whoever runs the tests.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """Let the files of tests lie in memory where they can: thousands of syncs of a disk take minutes.

    What a real disk, a full one or another file system does is tried by the tests of faults.
    """
    memory = "/dev/shm"  # noqa: S108 - pytest makes a folder of the user's own in it
    if config.option.basetemp is None and "TMPDIR" not in os.environ and os.access(memory, os.W_OK):
        tempfile.tempdir = memory


MakeTree = Callable[..., Path]
OpenManager = Callable[..., FileManager]


def _open_files() -> list[str]:
    """Return the files and folders that this process has open, devices and pipes apart."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return sorted(path for path in found if path.startswith("/") and not path.startswith("/dev/p"))


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    """Fail a test that leaves a file or folder open."""
    before = _open_files()
    yield
    if _open_files() != before:
        gc.collect()
    assert [path for path in _open_files() if path not in before] == []


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Fail a test that hangs, as one does that opens a pipe to which nobody writes."""

    def give_up(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def clock() -> Clock:
    """Return the time of day, which stands at ``trees.NOW`` until the test sets it."""
    return Clock()


@pytest.fixture
def output_root(tmp_path: Path) -> Path:
    """Return a fresh copy of the output folder that a real ComfyUI has written."""
    return copy_recordings(tmp_path / "output")


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Return what writes a dict as an output folder, and adds to it when called again."""

    def make(tree: Mapping[str, Entry], modified_at: datetime = AN_HOUR_AGO) -> Path:
        return write_tree(tmp_path / "output", tree, modified_at)

    return make


@pytest.fixture
def open_manager(clock: Clock) -> Iterator[OpenManager]:
    """Return what makes managers on the test's clock; they are closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def make(root: Path, **options: Any) -> FileManager:
            return stack.enter_context(FileManager(root, **{"clock": clock, **options}))

        yield make


@pytest.fixture
def manager(output_root: Path, open_manager: OpenManager) -> FileManager:
    """Return a manager over real recordings."""
    return open_manager(output_root)
