"""A process dies before and after every call into ``durable``; whoever comes next finds a sound library.

Everything runs as an ordinary user: processes die by ``os._exit``, and the border between file
systems is played. Kills at every system call and real borders are in ``tests/faults``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flask_comfy_files.core import durable, lock, looking
from flask_comfy_files.core.errors import JobNotFoundError
from flask_comfy_files.core.layout import LOCK
from tests.crash.library_check import (
    DIED,
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    Fuse,
    Scenario,
    delete_index,
    expect_recovery,
    in_child,
    open_library,
    wire,
)

pytestmark = pytest.mark.crash

MOST_POINTS = 2000
"""More calls than any scenario makes: whoever gets that far does not end."""

RANDOM_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Wreck:
    """What a crash has left of an output root, and where it was."""

    tree: Path
    where: str

    @contextlib.contextmanager
    def found_at(self, root: Path) -> Iterator[None]:
        """Have a copy of it at the output root; whatever goes wrong is told with where the crash was."""
        shutil.copytree(self.tree, root)
        try:
            yield
        except BaseException as error:
            error.add_note(self.where)
            raise
        finally:
            shutil.rmtree(root)


def crash_everywhere(scenario: Scenario, workplace: Path) -> list[Wreck]:
    """Let a process die at each point of a scenario, until one survives, and keep what each has left.

    Wrecks in which all names, sizes and times are the same count as one: most calls change nothing.
    """
    untouched, root = workplace / "untouched", workplace / "output"
    scenario.lay_out(untouched)
    wrecks: dict[object, Wreck] = {}

    def act(point: int) -> None:
        wire(Fuse(point))
        scenario.disturbed(root)

    for point in range(1, MOST_POINTS):
        shutil.copytree(untouched, root)
        end = in_child(functools.partial(act, point))
        assert end.status in {0, DIED}, end.said
        appearance = appearance_of(root)
        if appearance in wrecks:
            shutil.rmtree(root)
        else:
            tree = root.rename(workplace / f"wreck_{point}")
            wrecks[appearance] = Wreck(tree, f"crash at point {point}, {end.said}")
        if end.status == 0:
            return list(wrecks.values())
    pytest.fail(f"still alive and at work after {MOST_POINTS} calls")


def appearance_of(root: Path) -> object:
    """Return what tells one wreck from another."""
    seen = []
    for path in root.rglob("*"):
        facts = path.stat()
        name = RANDOM_ID.sub("?", str(path.relative_to(root)))
        is_own = name.startswith((".comfy_files", "file_metadata.json")) or path.is_dir()
        seen.append((name, facts.st_size, facts.st_mode, 0 if is_own else facts.st_mtime_ns))
    return tuple(sorted(seen))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder in memory, where there is one: processes die here and no disk, so syncs only cost time."""
    memory = "/dev/shm"  # noqa: S108 - only to hold a folder with a random name
    if not os.access(memory, os.W_OK | os.X_OK):
        yield tmp_path_factory.mktemp("crash")
        return
    with tempfile.TemporaryDirectory(prefix="comfy_files_crash_", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def wrecks_of(workplace: Path) -> Callable[[str], list[Wreck]]:
    """Return what answers the wrecks of a scenario; they are made once."""

    @functools.cache
    def wrecks(name: str) -> list[Wreck]:
        folder = workplace / name.replace(" ", "_")
        folder.mkdir()
        return crash_everywhere(SCENARIOS[name], folder)

    return wrecks


WrecksOf = Callable[[str], list[Wreck]]

each_scenario = pytest.mark.parametrize("name", SCENARIOS)


def keep_index(_root: Path) -> None:
    """Leave everything as it is."""


@each_scenario
def test_the_next_change_finishes_what_a_crash_left(
    name: str, wrecks_of: WrecksOf, workplace: Path
) -> None:
    root = workplace / "output"
    for wreck in wrecks_of(name):
        with wreck.found_at(root):
            expect_recovery(SCENARIOS[name], root)
            assert files_seen(root, SCENARIOS[name].job_id) == list(SCENARIOS[name].expected)


@each_scenario
def test_a_crash_is_survived_without_the_index(
    name: str, wrecks_of: WrecksOf, workplace: Path
) -> None:
    root = workplace / "output"
    for wreck in wrecks_of(name):
        with wreck.found_at(root):
            delete_index(root)
            expect_recovery(SCENARIOS[name], root)


@each_scenario
def test_the_next_reader_finishes_what_a_crash_left(
    name: str, wrecks_of: WrecksOf, workplace: Path
) -> None:
    root = workplace / "output"
    for wreck in wrecks_of(name):
        with wreck.found_at(root):
            seen = files_seen(root, SCENARIOS[name].job_id)
            with lock_held_by_another(root):
                assert files_seen(root, SCENARIOS[name].job_id) == seen
            expect_recovery(SCENARIOS[name], root)


@pytest.mark.parametrize("prepare", [keep_index, delete_index])
@each_scenario
def test_a_reader_who_cannot_recover_sees_the_job_as_before_or_whole(
    name: str, prepare: Callable[[Path], None], wrecks_of: WrecksOf, workplace: Path
) -> None:
    root, scenario = workplace / "output", SCENARIOS[name]
    wrecks = wrecks_of(name)
    with wrecks[0].found_at(root), lock_held_by_another(root):
        before = files_seen(root, scenario.job_id)
    for wreck in wrecks:
        with wreck.found_at(root):
            prepare(root)
            with lock_held_by_another(root):
                assert files_seen(root, scenario.job_id) in (before, list(scenario.expected))


@contextlib.contextmanager
def lock_held_by_another(root: Path) -> Iterator[None]:
    """Hold the library's lock, so that nobody else can recover anything."""
    (root / LOCK).parent.mkdir(exist_ok=True)
    with lock.hold(str(root / LOCK), timeout_s=1):
        yield


def files_seen(root: Path, job_id: str) -> list[str]:
    """Return the original paths of a job's files as a reader sees them, and expect each where it is said to be."""
    try:
        with open_library(root) as manager:
            files = manager.get_job_files(job_id).files
    except JobNotFoundError:
        return []
    assert [record.path for record in files if not Path(record.file_path).is_file()] == []
    return [record.original_path for record in files]


@pytest.mark.parametrize("told_by", ["mount id", "rename alone"])
def test_a_crash_while_copying_across_file_systems_is_survived(
    told_by: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most borders show in the mount id; quota trees and overlays answer a rename with EXDEV on one mount."""
    move = durable.move

    def system_of(folder: int) -> str:
        is_other = OTHER_FOLDER in Path(f"/proc/self/fd/{folder}").readlink().parts
        return "other" if is_other else "library"

    @functools.wraps(move)
    def move_within(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if system_of(source_folder) != system_of(target_folder):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", move_within)
    if told_by == "mount id":
        monkeypatch.setattr(looking, "mount_id", functools.wraps(looking.mount_id)(system_of))
    folder = workplace / told_by.replace(" ", "_")
    folder.mkdir()
    wrecks = crash_everywhere(OTHER_FILE_SYSTEM, folder)
    assert any(path.name.endswith(".part") for wreck in wrecks for path in wreck.tree.rglob("*"))
    for wreck in wrecks:
        with wreck.found_at(folder / "output"):
            expect_recovery(OTHER_FILE_SYSTEM, folder / "output")
