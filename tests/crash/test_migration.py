"""A process dies while it migrates, or assigns; the next one finishes it, and each file is there once.

It dies before and after each call into ``durable`` that may change what others see on the disk.
That a migration survives an error in every call is tested in ``tests/core/test_migration.py``.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import detection
from flask_comfy_files.core.layout import DOCUMENT
from tests.core.test_migration import TIME, by_time, check_library, operations
from tests.crash.library_check import (
    DIED,
    Complaints,
    Fuse,
    Scenario,
    check_nothing_is_lost,
    delete_index,
    found,
    in_child,
    open_library,
    wire,
)
from tests.crash.test_crash import MOST_POINTS, Wreck, appearance_of, keep_index
from tests.trees import outputs, recording, write_tree

pytestmark = pytest.mark.crash

STEM = f"x_{TIME}_00001"
SOURCES = {
    f"{STEM}.mp4": "AnimateDiff_00001.mp4",
    f"{STEM}.png": "AnimateDiff_00001.png",
    "batch_00001_.png": "batch_00001_.png",
    "sub/cap_00001_.png": "bn_0_00001_.png",
}
MIGRATED = {
    by_time("video.mp4"): "AnimateDiff_00001.mp4",
    by_time("image.png"): "AnimateDiff_00001.png",
    "legacy/batch_00001_.png": "batch_00001_.png",
    "legacy/sub/cap_00001_.png": "bn_0_00001_.png",
    "legacy/mix_00001_.png": "mix_00001_.png",  # which lies about in every scenario
}
CHOSEN = ("batch_00001_.png", "sub/cap_00001_.png")


def migrate(manager: FileManager) -> Complaints:
    """Migrate everything."""
    report = manager.migrate_legacy_files(recursive=True)
    return [f"{left.path}: {left.reason}" for left in (*report.skipped, *report.failed)]


def migrate_bit_by_bit(manager: FileManager) -> Complaints:
    """Migrate everything in several batches; for a child, which takes the setting with it."""
    detection.FILES_AT_ONCE = 2  # type: ignore[misc]
    return migrate(manager)


def assign(manager: FileManager) -> Complaints:
    """Give two files to a job."""
    root = Path(manager.settings.output_dir)
    keys = [ids_of(root)[original_path] for original_path in CHOSEN]
    report = manager.assign_legacy_files(keys, "job_1", "night_watch")
    return [f"{left.path}: {left.reason}" for left in (*report.skipped, *report.failed)]


def ids_of(root: Path) -> dict[str, str]:
    """Return the id of each file that was ever recorded, by where it lay."""
    changes = json.loads((root / DOCUMENT).read_bytes())["changes"]
    added = [change["files"] for change in changes if change["kind"] != "state"]
    return {stored["original_path"]: stored["file_id"] for files in added for stored in files}


def migrated(root: Path) -> None:
    """Have everything migrated before."""
    with open_library(root) as manager:
        assert migrate(manager) == []


def abandoned(act: Callable[[FileManager], Complaints], root: Path) -> None:
    """Leave an act behind that died when its first line was written and no file moved."""

    def die_after_the_append() -> None:
        wire(Fuse(2, only=" append"))
        with open_library(root) as manager:
            act(manager)

    assert in_child(die_after_the_append).status == DIED


def assignment_abandoned(root: Path) -> None:
    """Leave an assignment behind."""
    migrated(root)
    abandoned(assign, root)


MIGRATIONS = {
    "first": Scenario(migrate_bit_by_bit, SOURCES, ()),
    "resumed": Scenario(
        migrate_bit_by_bit,
        SOURCES,
        (),
        build=functools.partial(abandoned, migrate_bit_by_bit),
    ),
}
ASSIGNMENTS = {
    "first": Scenario(assign, SOURCES, CHOSEN, build=migrated),
    "resumed": Scenario(assign, SOURCES, CHOSEN, build=assignment_abandoned),
}

LEAVES_NO_TRACE = {
    *("open_folder", "open_regular", "find_status", "checksum", "read_abandoned", "refuse"),
    *("sync_bytes", "sync_folder", "sync_folders"),  # where a process dies, and not the machine
}


class EffectFuse(Fuse):
    """Passes over the calls after which the disk is as before."""

    def burn(self, where: str) -> None:
        if where.rpartition(" ")[2] not in LEAVES_NO_TRACE:
            super().burn(where)


def crash_at_each_effect(scenario: Scenario, workplace: Path) -> list[Wreck]:
    """Let a process die around each effect of a scenario, until one survives, and keep what each has left."""
    untouched, root = workplace / "untouched", workplace / "output"
    scenario.lay_out(untouched)
    wrecks: dict[object, Wreck] = {}

    def act(point: int) -> None:
        wire(EffectFuse(point))
        scenario.disturbed(root)

    for point in range(1, MOST_POINTS):
        shutil.copytree(untouched, root)
        end = in_child(functools.partial(act, point))
        assert end.status in {0, DIED}, end.said
        tree = root.rename(workplace / f"wreck_{point}")
        wrecks.setdefault(appearance_of(tree), Wreck(tree, f"crash at effect {point}, {end.said}"))
        if end.status == 0:
            return list(wrecks.values())
    pytest.fail("it does not end")


WrecksOf = Callable[[Scenario], list[Wreck]]


@pytest.fixture(scope="module")
def wrecks_of(tmp_path_factory: pytest.TempPathFactory) -> WrecksOf:
    """Return what answers the wrecks of a scenario; they are made once."""
    made: dict[int, list[Wreck]] = {}

    def wrecks(scenario: Scenario) -> list[Wreck]:
        if id(scenario) not in made:
            made[id(scenario)] = crash_at_each_effect(scenario, tmp_path_factory.mktemp("crash"))
        return made[id(scenario)]

    return wrecks


def change_something_else(root: Path) -> None:
    """Make another change, and so let the library finish what was left unfinished."""
    with open_library(root) as manager:
        manager.organize_output("next", files=["nothing.png"])
    check_library(root)


def do_nothing(_root: Path) -> None:
    """Let the next migration come first."""


each_state = pytest.mark.parametrize("prepare", [keep_index, delete_index])
each_beginning = pytest.mark.parametrize("begin", [do_nothing, change_something_else])
Prepare = Callable[[Path], None]


@each_state
@each_beginning
@pytest.mark.parametrize("scenario", MIGRATIONS.values(), ids=MIGRATIONS)
def test_a_migration_that_died_goes_on_and_each_file_is_there_once(
    scenario: Scenario, begin: Prepare, prepare: Prepare, wrecks_of: WrecksOf, tmp_path: Path
) -> None:
    root = tmp_path / "output"
    expected = {path: recording(source) for path, source in MIGRATED.items()}
    wrecks = wrecks_of(scenario)
    assert len(wrecks) > 10
    for wreck in wrecks:
        with wreck.found_at(root):
            check_nothing_is_lost(root, scenario.inputs)
            prepare(root)
            begin(root)
            with open_library(root) as manager:
                assert migrate(manager) == []
            after = {path: entry for path, entry in outputs(root).items() if entry is not None}
            assert after == expected
            records = check_library(root)
            assert len({record["original_path"] for record in records.values()}) == len(expected)
            (operation_id,) = operations(root)
            write_tree(root, {"later.png": recording("pv_00001_.png")})
            with open_library(root) as manager:
                later = manager.migrate_legacy_files()
            assert operations(root) == [operation_id, later.operation_id]


@each_state
@each_beginning
@pytest.mark.parametrize("scenario", ASSIGNMENTS.values(), ids=ASSIGNMENTS)
def test_an_assignment_that_died_leaves_each_file_with_one_owner_and_can_be_done_again(
    scenario: Scenario, begin: Prepare, prepare: Prepare, wrecks_of: WrecksOf, tmp_path: Path
) -> None:
    root = tmp_path / "output"
    wrecks = wrecks_of(scenario)
    assert len(wrecks) > 3
    for wreck in wrecks:
        with wreck.found_at(root):
            assert Counter(found(root).values()) == scenario.inputs
            ids = ids_of(root)
            prepare(root)
            begin(root)
            with open_library(root) as manager:
                for original_path in CHOSEN:
                    record = manager.get_file_metadata(ids[original_path])
                    owner = record.job_id, record.evidence, record.path.partition("/")[0]
                    assert owner in {(None, "none", "legacy"), ("job_1", "assigned", "projects")}
                    assert Path(record.file_path).read_bytes() == recording(SOURCES[original_path])
                assert assign(manager) == []
                files = manager.get_job_files("job_1").files
            assert [(record.file_id, record.original_path) for record in files] == [
                (ids[original_path], original_path) for original_path in CHOSEN
            ]
            check_library(root)
            assert Counter(found(root).values()) == scenario.inputs
