"""A process dies while it undoes something, or undoes that; the next change leaves each file in one place."""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from tests.crash.deletions import in_turn
from tests.crash.library_check import (
    Act,
    Complaints,
    Scenario,
    abandoned_by,
    check_deletions,
    check_nothing_is_lost,
    delete_index,
    found,
    make_next_change,
    open_library,
    organize,
)
from tests.crash.test_crash import Wreck, crash_everywhere, lock_held_by_another
from tests.invariants import assert_sound, changes_of, fold
from tests.trees import TIMESTAMP

pytestmark = pytest.mark.crash

LATER = "mix_00001_.png"
"""What the next change organizes."""
BOTH = ("batch_00001_.png", "sub/batch_00002_.png")
SOURCES = {path: Path(path).name for path in BOTH}
JOB = "projects/night_watch/job_1/job_1"
ORGANIZED = {
    f"{JOB}_{TIMESTAMP}_image.png": "batch_00001_.png",
    f"{JOB}_{TIMESTAMP}_image_2.png": "batch_00002_.png",
}
LEGACY = {f"legacy/{path}": Path(path).name for path in BOTH}


def undo_first(kind: str) -> Act:
    """Return the act of undoing the first operation of a kind, however often others followed."""

    def undo(manager: FileManager) -> Complaints:
        changes = changes_of(Path(manager.settings.output_dir))
        found = (change["operation"] for change in changes)
        operation_id = next(operation["id"] for operation in found if operation["kind"] == kind)
        report = manager.undo_operation(operation_id)
        return [f"{left.path}: {left.reason}" for left in (*report.skipped, *report.failed)]

    return undo


def done(*acts: Callable[[FileManager], object]) -> Callable[[Path], None]:
    """Return what was done before."""

    def build(root: Path) -> None:
        with open_library(root) as manager:
            for act in acts:
                act(manager)

    return build


def organized(manager: FileManager) -> None:
    """Organize the job."""
    assert organize("job_1", BOTH)(manager) == []


def migrated(manager: FileManager) -> None:
    """Migrate the two files; the one that is needed later is not there for that moment."""
    root = Path(manager.settings.output_dir)
    later = (root / LATER).rename(root.parent / LATER)
    manager.migrate_legacy_files(recursive=True)
    later.rename(root / LATER)


def assigned(manager: FileManager) -> None:
    """Give what nobody owns to the job."""
    keys = [f"legacy/{path}" for path in BOTH]
    assert manager.assign_legacy_files(keys, "job_1", "night_watch").assigned.files == 2


def deleted(manager: FileManager) -> None:
    """Move the job into the trash."""
    manager.delete_job_files("job_1")


def restored(manager: FileManager) -> None:
    """Bring it back."""
    manager.restore_job_files("job_1")


@dataclass(frozen=True)
class Undoing(Scenario):
    """A library in which something is undone."""

    end: Mapping[str, str] = field(default_factory=dict)
    """Where the files are in the end: place → recording."""
    is_of_trash: bool = False

    def recovered(self, root: Path) -> None:
        """Make the next change and expect each file once; do it again and expect all of it to be done."""
        check_nothing_is_lost(root, self.inputs)
        make_next_change(root)
        self.check(root)
        self.finished(root)
        self.check(root)

    def check(self, root: Path) -> None:
        """Expect every file once, with or without a record, and none in the library of which nothing tells."""
        files = found(root)
        assert Counter(files.values()) == self.inputs
        told = {stored["path"] for stored in fold(changes_of(root)).living}
        assert told == {path for path in files if path.startswith(("projects/", "legacy/"))}
        if self.is_of_trash:  # before its line was written, a deletion has made folders there
            check_deletions(root)
        else:
            assert_sound(root)

    def finished(self, root: Path) -> None:
        """Do it again, and expect the files where they should be."""
        with open_library(root) as manager:
            assert self.act(manager) == []
        others = ("mix", "next", "warm")
        there = {path for path in found(root) if not any(other in path for other in others)}
        if self.end:
            assert there == set(self.end)
        else:
            assert {Path(path).parts[1] for path in there} == {"trash"}


def scenario(
    act: Act, build: Callable[[Path], None], end: Mapping[str, str] | None = None
) -> Undoing:
    """Return a scenario on the two files; without an end they are in the trash then."""
    is_of_trash = end is None
    return Undoing(act, SOURCES, list(BOTH), build=build, end=end or {}, is_of_trash=is_of_trash)


SCENARIOS = {
    "organize": scenario(undo_first("organize"), done(organized), SOURCES),
    "undo of organize": scenario(
        undo_first("undo"), done(organized, undo_first("organize")), ORGANIZED
    ),
    "migrate": scenario(undo_first("migrate"), done(migrated), SOURCES),
    "assign": scenario(undo_first("assign"), done(migrated, assigned), LEGACY),
    "delete": scenario(undo_first("delete"), done(organized, deleted), ORGANIZED),
    "restore": scenario(undo_first("restore"), done(organized, deleted, restored)),
    "interrupted": scenario(
        undo_first("organize"),
        in_turn(done(organized), abandoned_by(undo_first("organize"), after="move")),
        SOURCES,
    ),
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder in memory, where there is one: processes die here and no disk, so syncs only cost time."""
    memory = "/dev/shm"  # noqa: S108 - only to hold a folder with a random name
    if not os.access(memory, os.W_OK | os.X_OK):
        yield tmp_path_factory.mktemp("undo")
        return
    with tempfile.TemporaryDirectory(prefix="comfy_files_crash_", dir=memory) as folder:
        yield Path(folder)


def wrecks_of(name: str, workplace: Path) -> list[Wreck]:
    """Return the wrecks of a scenario."""
    folder = workplace / name.replace(" ", "_")
    folder.mkdir()
    wrecks = crash_everywhere(SCENARIOS[name], folder)
    assert len(wrecks) > 3, "nothing was disturbed"
    return wrecks


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_next_change_leaves_each_file_once_and_the_undo_can_be_repeated(
    name: str, workplace: Path
) -> None:
    root = workplace / "output"
    for wreck in wrecks_of(name, workplace):
        for prepare in (lambda _: None, delete_index):
            with wreck.found_at(root):
                prepare(root)
                with lock_held_by_another(root), open_library(root) as manager:
                    manager.get_operations()  # a reader who cannot recover is answered, too
                    assert manager.get_system_stats().health.state != "unavailable"
                SCENARIOS[name].recovered(root)


def test_a_crash_while_the_library_is_on_another_file_system_is_survived(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = durable.move

    def is_library(folder: int) -> bool:
        return "projects" in Path(f"/proc/self/fd/{folder}").readlink().parts

    @functools.wraps(move)
    def move_within(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if is_library(source_folder) != is_library(target_folder):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", move_within)
    folder = workplace / "copied"
    folder.mkdir()
    wrecks = crash_everywhere(SCENARIOS["organize"], folder)
    assert any(path.name.endswith(".part") for wreck in wrecks for path in wreck.tree.rglob("*"))
    for number, wreck in enumerate(wrecks):
        with wreck.found_at(folder / "output"):
            if number % 2:
                delete_index(folder / "output")
            SCENARIOS["organize"].recovered(folder / "output")
