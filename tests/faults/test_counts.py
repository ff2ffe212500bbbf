"""How often one call goes to the disk: no listing, each source opened once, few syncs, little written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from flask_comfy_files.core.layout import DOCUMENT, STATE
from tests.crash.library_check import open_library, organize
from tests.faults.tracing import LISTING, OPENING, Call, traced
from tests.trees import recording, write_tree

pytestmark = pytest.mark.faults

NAMES = [f"batch_0000{number}_.png" for number in (1, 2, 3, 4)]
OTHERS = ["bn_0_00001_.png", "mix_00001_.png", "pv_00001_.png", "within_00001_.png"]
SYNCS = frozenset({"fsync", "fdatasync"})
WRITES = frozenset({"write", "writev", "pwrite64", "pwritev", "pwritev2"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an output root whose library has one job."""
    root = write_tree(
        tmp_path / "output", {path: recording(path) for path in (*NAMES, *OTHERS, "adv_00001.png")}
    )
    with open_library(root) as manager:
        manager.organize_output("job_0", "night_watch", files=["adv_00001.png"])
    return root


def calls_of_organizing(
    root: Path, job_id: str, project_id: str, files: Sequence[str]
) -> list[Call]:
    """Return the system calls below the output root, of a manager that is new to the library."""

    def act() -> int:
        with open_library(root) as manager:
            return manager.organize_output(job_id, project_id, files=files).moved.files

    run = traced(act, root.parent / "strace.log")
    assert run.end.result == len(files)
    return [call for call in run.calls if call.touches(root)]


def is_at(call: Call, path: Path) -> bool:
    return str(path) in call.paths


def is_of_index(call: Call, root: Path) -> bool:
    """Say whether SQLite makes a call: on its own files, or on the folder in which its log is new."""
    return call.concerns_index or (call.name == "fdatasync" and is_at(call, root / STATE))


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    ("job_id", "project_id", "most_beyond_files"),
    [
        pytest.param("job_0", "night_watch", 3, id="folders there"),
        pytest.param("job_1", "night_watch", 5, id="new job"),
        pytest.param("job_1", "new_project", 5, id="new project"),
    ],
)
def test_syncs_are_few(
    root: Path, job_id: str, project_id: str, most_beyond_files: int, count: int
) -> None:
    calls = calls_of_organizing(root, job_id, project_id, NAMES[:count])
    syncs = [call for call in calls if call.name in SYNCS and not is_of_index(call, root)]
    assert len(syncs) <= count + most_beyond_files, [str(call) for call in syncs]
    assert sum(is_at(call, root / DOCUMENT) for call in syncs) == 1
    synced = {path for call in syncs for path in call.paths}
    assert synced >= {str(root / name) for name in NAMES[:count]}


def test_with_names_known_nothing_is_listed_and_each_source_is_opened_once(root: Path) -> None:
    calls = calls_of_organizing(root, "job_1", "night_watch", NAMES)
    own_folder = root / STATE
    listed = [call for call in calls if call.name in LISTING and not call.touches(own_folder)]
    assert [str(call) for call in listed] == []
    for name in NAMES:
        opened = [call for call in calls if call.name in OPENING and is_at(call, root / name)]
        assert len(opened) == 1, [str(call) for call in opened]


@pytest.mark.parametrize("before", [0, 4], ids=["small library", "larger library"])
def test_a_commit_writes_its_line_and_little_more(root: Path, before: int) -> None:
    with open_library(root) as manager:
        for number, path in enumerate(OTHERS[:before]):
            organize(f"other_{number}", [path])(manager)
    calls = calls_of_organizing(root, "job_1", "night_watch", NAMES)
    line = (root / DOCUMENT).read_bytes().splitlines()[-2]
    writes = [call for call in calls if call.name in WRITES and is_at(call, root / DOCUMENT)]
    assert b'"job_1"' in line
    assert len(line) <= sum(int(call.result) for call in writes) <= len(line) + 64
