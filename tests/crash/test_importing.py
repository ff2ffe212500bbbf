"""A process dies while it imports an older installation's list; the next import finishes it.

It dies before and after each call into ``durable`` that may change what others see on the disk: while the list is
renamed, while our document is begun in its place, and while the files are recorded and moved.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import importing
from flask_comfy_files.core.errors import OlderInstallationError
from flask_comfy_files.core.layout import DOCUMENT
from tests.crash.library_check import (
    Complaints,
    Scenario,
    delete_index,
    found,
    open_library,
)
from tests.crash.test_crash import Wreck, keep_index
from tests.crash.test_migration import Prepare, crash_at_each_effect
from tests.invariants import assert_sound
from tests.trees import outputs, recording, write_tree

pytestmark = pytest.mark.crash

STAYS = "projects/tokyo/job_1/job_1_1762406010_image.png"
SOURCES = {
    STAYS: "batch_00001_.png",
    "organized/x.png": "batch_00002_.png",
    "organized/y.png": "batch_00003_.png",
    "z.png": "batch_00004_.png",
}
IMPORTED = {
    STAYS: "batch_00001_.png",
    "projects/tokyo/job_1/job_1_1762406010_image_2.png": "batch_00002_.png",
    "projects/osaka/job_2/job_2_1762406010_image.png": "batch_00003_.png",
    "legacy/z.png": "batch_00004_.png",
    "mix_00001_.png": "mix_00001_.png",  # which lies about in every scenario
}
RECORDS: dict[str, dict[str, Any]] = {
    STAYS: {"job_id": "job_1", "project_id": "tokyo", "tags": ["hero"]},
    "organized/x.png": {"job_id": "job_1", "project_id": "tokyo"},
    "organized/y.png": {"job_id": "job_2", "project_id": "osaka"},
    "z.png": {"file_id": "f" * 32},
}
LIST = json.dumps({path: {**said, "timestamp": "1762406010"} for path, said in RECORDS.items()})


def leave_a_list(root: Path) -> None:
    """Put the list of an older installation in the place of the document."""
    write_tree(root, {DOCUMENT: LIST.encode()})


def import_bit_by_bit(manager: FileManager) -> Complaints:
    """Import in several batches; for a child, which takes the setting with it."""
    importing.RECORDS_AT_ONCE = 1  # type: ignore[misc]
    return import_all(manager)


def import_all(manager: FileManager) -> Complaints:
    """Import what an older installation has left."""
    report = manager.import_records()
    return [f"{left.path}: {left.reason}" for left in (*report.skipped, *report.failed)]


SCENARIO = Scenario(import_bit_by_bit, SOURCES, (), build=leave_a_list)


@pytest.fixture(scope="module")
def wrecks(tmp_path_factory: pytest.TempPathFactory) -> list[Wreck]:
    """Return what each crash has left; it is made once."""
    return crash_at_each_effect(SCENARIO, tmp_path_factory.mktemp("crash"))


def do_nothing(_root: Path) -> None:
    """Let the next import come first."""


def change_something_else(root: Path) -> None:
    """Make another change, if the library is begun."""
    with open_library(root) as manager:
        try:
            manager.organize_output("next", files=["nothing.png"])
        except OlderInstallationError:
            return
    assert_sound(root)


@pytest.mark.parametrize("prepare", [keep_index, delete_index])
@pytest.mark.parametrize("begin", [do_nothing, change_something_else])
def test_an_import_that_died_goes_on_and_each_file_is_there_once(
    begin: Prepare, prepare: Prepare, wrecks: list[Wreck], tmp_path: Path
) -> None:
    root = tmp_path / "output"
    assert len(wrecks) > 20
    expected = {path: recording(source) for path, source in IMPORTED.items()}
    for wreck in wrecks:
        with wreck.found_at(root):
            assert Counter(found(root).values()) >= SCENARIO.inputs
            prepare(root)
            begin(root)
            with open_library(root) as manager:
                assert import_all(manager) == []
                assert manager.get_job_files("job_1").tags == ("hero",)
                assert manager.get_system_stats().health.state == "ok"
            after = {path: entry for path, entry in outputs(root).items() if entry is not None}
            (kept,) = (path for path in after if path.startswith(DOCUMENT))
            assert after.pop(kept) == LIST.encode()
            assert after == expected
            assert_sound(root)
