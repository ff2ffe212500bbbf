"""A process dies while it repairs; the next one leaves each file with one record, and can repair the rest.

It dies before and after each call into ``durable`` that may change what others see on the disk.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from tests.core.test_migration import check_library, refuse_to_move, stored_in
from tests.crash.library_check import (
    Complaints,
    Scenario,
    delete_index,
    found,
    made_by,
    open_library,
    organize,
)
from tests.crash.test_crash import keep_index
from tests.crash.test_migration import (
    Prepare,
    WrecksOf,
    abandoned,
    change_something_else,
    do_nothing,
    wrecks_of,
)
from tests.trees import recording, write_tree

__all__ = ["wrecks_of"]

pytestmark = pytest.mark.crash

FILES = {
    "job_0": ("bn_0_00001_.png", "bn_1_00002_.png"),
    "job_1": ("batch_00001_.png", "batch_00002_.png"),
}
FOLDER = "projects/night_watch"
STRANGERS = {
    f"{FOLDER}/job_1/stranger.png": "pv_00001_.png",
    "projects/new/job_9/stranger.png": "batch_00003_.png",
    "legacy/stranger.mp4": "AnimateDiff_00001.mp4",
}


def repair(manager: FileManager) -> Complaints:
    """Repair everything that is found."""
    report = manager.repair_files(manager.verify_files())
    assert report.found == len(report.repaired) + len(report.skipped) + len(report.failed)
    return [f"{left.path}: {left.reason}" for left in report.failed]


def spoil(root: Path) -> None:
    """Move a file, change one, take one away, and put some there."""
    made_by(*(organize(job_id, files) for job_id, files in FILES.items()))(root)
    first, second = sorted((root / FOLDER / "job_0").iterdir())
    first.rename(root / FOLDER / "job_1" / first.name)
    second.rename(root / f"{second.name}.away")
    _, changed = sorted((root / FOLDER / "job_1").glob("job_1_*"))
    strangers = {path: recording(source) for path, source in STRANGERS.items()}
    write_tree(root, {str(changed.relative_to(root)): b"changed", **strangers})


def abandoned_in(root: Path) -> None:
    """Leave a repair behind of which no more than the first line is there."""
    spoil(root)
    abandoned(repair, root)


SOURCES = {path: path for files in FILES.values() for path in files}
REPAIRS = {
    "first": Scenario(repair, SOURCES, (), build=spoil),
    "resumed": Scenario(repair, SOURCES, (), build=abandoned_in),
}


@pytest.mark.parametrize(
    ("scenario", "begin", "prepare"),
    [
        pytest.param(
            REPAIRS[name], begin, prepare, id=f"{name}-{begin.__name__}-{prepare.__name__}"
        )
        for name, begin, prepare in (
            ("first", do_nothing, keep_index),
            ("first", do_nothing, delete_index),
            ("first", change_something_else, keep_index),
            ("resumed", do_nothing, delete_index),
        )
    ],
)
def test_a_repair_that_died_leaves_no_file_without_its_record_and_can_be_done_again(
    scenario: Scenario, begin: Prepare, prepare: Prepare, wrecks_of: WrecksOf, tmp_path: Path
) -> None:
    root = tmp_path / "output"
    wrecks = wrecks_of(scenario)
    assert len(wrecks) > 3
    for wreck in wrecks:
        with wreck.found_at(root):
            contents = Counter(found(root).values())
            prepare(root)
            with open_library(root) as manager:
                if begin is change_something_else:
                    manager.organize_output("next", files=["nothing.png"])
                assert repair(manager) == []
                (left,) = manager.verify_files(read_bytes=True)
                assert (left.kind, left.detail.endswith("as recorded")) == ("missing", True)
            check_repaired(root)
            assert Counter(found(root).values()) == contents
            delete_index(root)
            with open_library(root) as manager:
                assert list(manager.verify_files(read_bytes=True)) == [left]


def check_repaired(root: Path) -> None:
    """Expect one record for each file in the library and for the one that is gone, all as they must be."""
    records = stored_in(root)
    there = {path for path in found(root) if path.partition("/")[0] in {"projects", "legacy"}}
    gone = {path for path, record in records.items() if record.get("missing")}
    assert (len(gone), set(records) - gone) == (1, there)
    assert set(STRANGERS) < there
    owners = Counter(record["job_id"] for record in records.values())
    assert owners == {"job_0": 2, "job_1": 3, "job_9": 1, None: 1}
    for path, record in records.items():
        assert record["job_id"] == (Path(path).parts[2] if path.startswith("projects/") else None)


def test_a_file_that_recovery_cannot_move_back_stays_its_jobs_and_is_moved_back_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "output", {path: recording(path) for path in FILES["job_0"]})
    made_by(organize("job_0", FILES["job_0"]))(root)
    lost = min((root / FOLDER / "job_0").iterdir())
    (root / FOLDER / "job_1").mkdir()
    lost.rename(root / FOLDER / "job_1" / lost.name)
    abandoned(repair, root)
    with open_library(root) as manager:
        with monkeypatch.context() as patch:
            refuse_to_move(patch, lost.name)
            before = {
                record.path: record.original_path for record in manager.get_job_files("job_0")
            }
        assert set(before.values()) == set(FILES["job_0"])
        (finding,) = manager.verify_files()
        assert (finding.kind, finding.job_id) == ("wrong_owner", "job_0")
        assert repair(manager) == []
        assert list(manager.verify_files(read_bytes=True)) == []
        after = {record.path: record.original_path for record in manager.get_job_files("job_0")}
    assert after == before
    check_library(root)
