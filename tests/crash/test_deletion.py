"""A process dies while it deletes, restores or purges; the next change leaves each job whole, in one place."""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_comfy_files.core import durable
from flask_comfy_files.core.layout import INDEX
from tests.crash.deletions import DELETIONS, FILES, INTERRUPTED, LATER, age_index
from tests.crash.library_check import check_deletions, delete_index, open_library
from tests.crash.test_crash import Wreck, crash_everywhere, files_seen, lock_held_by_another

pytestmark = pytest.mark.crash

SCENARIOS = {**DELETIONS, **INTERRUPTED}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder in memory, where there is one: processes die here and no disk, so syncs only cost time."""
    memory = "/dev/shm"  # noqa: S108 - only to hold a folder with a random name
    if not os.access(memory, os.W_OK | os.X_OK):
        yield tmp_path_factory.mktemp("deletion")
        return
    with tempfile.TemporaryDirectory(prefix="comfy_files_crash_", dir=memory) as folder:
        yield Path(folder)


WrecksOf = Callable[[str], list[Wreck]]


@pytest.fixture(scope="module")
def wrecks_of(workplace: Path) -> WrecksOf:
    """Return what answers the wrecks of a scenario; they are made once."""

    @functools.cache
    def wrecks(name: str) -> list[Wreck]:
        folder = workplace / name.replace(" ", "_")
        folder.mkdir()
        found = crash_everywhere(SCENARIOS[name], folder)
        assert len(found) > 2, "nothing was disturbed"
        return found

    return wrecks


def keep_index(_root: Path, _old: Path) -> None:
    """Leave everything as it is."""


def lose_index(root: Path, _old: Path) -> None:
    """Delete the index."""
    delete_index(root)


each_scenario = pytest.mark.parametrize("name", SCENARIOS)


@pytest.mark.parametrize("prepare", [keep_index, lose_index, age_index])
@each_scenario
def test_the_next_change_leaves_each_job_whole_and_the_act_can_be_repeated(
    name: str, prepare: Callable[[Path, Path], None], wrecks_of: WrecksOf, workplace: Path
) -> None:
    root = workplace / "output"
    for wreck in wrecks_of(name):
        with wreck.found_at(root):
            prepare(root, wreck.tree.parent / Path(INDEX).name)
            SCENARIOS[name].recovered(root)


@each_scenario
def test_who_does_it_again_at_once_finishes_it(
    name: str, wrecks_of: WrecksOf, workplace: Path
) -> None:
    root = workplace / "output"
    for wreck in wrecks_of(name):
        with wreck.found_at(root):
            SCENARIOS[name].finished(root)
            check_deletions(root)
            SCENARIOS[name].recovered(root)


@pytest.mark.parametrize("prepare", [keep_index, lose_index])
@each_scenario
def test_a_reader_who_cannot_recover_sees_each_job_whole_in_one_place(
    name: str, prepare: Callable[[Path, Path], None], wrecks_of: WrecksOf, workplace: Path
) -> None:
    root, scenario = workplace / "output", SCENARIOS[name]
    for wreck in wrecks_of(name):
        with wreck.found_at(root):
            prepare(root, wreck.tree)
            with lock_held_by_another(root):
                homes = {job_id: home_seen(root, job_id) for job_id in scenario.jobs}
                if (
                    prepare is lose_index
                ):  # an index knows what was before; without one, all must be there
                    for job_id in scenario.jobs:
                        files_seen(root, job_id)
        assert set(homes.values()) <= {"place", "trash", scenario.end}


def home_seen(root: Path, job_id: str) -> str:
    """Return where a reader sees a job, and expect it whole there."""
    with open_library(root) as manager:
        trashed = [job.file_count for job in manager.get_trash() if job.job_id == job_id]
        in_place = {
            record.original_path
            for record in manager.get_project_files("night_watch")
            if record.job_id == job_id
        }
    in_place.discard(LATER)
    if trashed:
        assert (trashed, in_place) == ([len(FILES[job_id])], set())
        return "trash"
    assert in_place in (set(), set(FILES[job_id]))
    return "place" if in_place else "gone"


@pytest.mark.parametrize("name", ["delete", "restore", "refused delete"])
def test_a_crash_while_the_trash_is_on_another_file_system_is_survived(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files go into it and out of it as copies, which are compared."""
    move = durable.move

    def is_trash(folder: int) -> bool:
        return "trash" in Path(f"/proc/self/fd/{folder}").readlink().parts

    @functools.wraps(move)
    def move_within(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if is_trash(source_folder) != is_trash(target_folder):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", move_within)
    folder = workplace / f"copied_{name}"
    folder.mkdir()
    wrecks = crash_everywhere(SCENARIOS[name], folder)
    assert any(path.name.endswith(".part") for wreck in wrecks for path in wreck.tree.rglob("*"))
    for number, wreck in enumerate(wrecks):
        with wreck.found_at(folder / "output"):
            if number % 2:
                delete_index(folder / "output")
            SCENARIOS[name].recovered(folder / "output")
