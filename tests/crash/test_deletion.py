"""A process dies while it deletes, restores or purges; the next change leaves each job whole, in one place."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import JobNotFoundError
from flask_comfy_files.core.layout import DOCUMENT
from tests.crash.library_check import (
    Complaints,
    Scenario,
    Story,
    check_deletions,
    delete_index,
    make_next_change,
    open_library,
    organize,
)
from tests.crash.test_crash import Wreck, crash_everywhere, keep_index
from tests.trees import NOW, Clock

pytestmark = [
    pytest.mark.crash,
    # Of threads that other tests have left; the children run nothing of theirs.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

FILES = {
    "job_1": ("batch_00001_.png", "batch_00002_.png"),
    "job_2": ("bn_0_00001_.png", "bn_1_00002_.png"),
    "job_3": ("batch_00003_.png",),
}
LONG_AGO = NOW - timedelta(days=40)


def delete(manager: FileManager) -> Complaints:
    """Move a job into the trash."""
    report = manager.delete_job_files("job_1")
    return [entry.reason for entry in (*report.skipped, *report.failed)]


def restore(manager: FileManager) -> Complaints:
    """Bring it back."""
    report = manager.restore_job_files("job_1")
    return [entry.reason for entry in (*report.skipped, *report.failed)]


def destroy(manager: FileManager) -> Complaints:
    """Delete it for good; done before, there is none."""
    with contextlib.suppress(JobNotFoundError):
        report = manager.destroy_job_files("job_1")
        return [entry.reason for entry in (*report.skipped, *report.failed)]
    return []


def empty_trash(manager: FileManager) -> Complaints:
    """Delete everything in the trash for good."""
    return [entry.reason for entry in manager.empty_trash().failed]


def clean_up(manager: FileManager) -> Complaints:
    """Delete all jobs, which are old."""
    report = manager.cleanup_old_files(30)
    return [entry.reason for entry in (*report.skipped, *report.failed)]


def build(*jobs: str, deleted: bool = False) -> Callable[[Path], None]:
    """Return what organizes jobs long ago, and deletes them then if that is wanted."""

    def make(root: Path) -> None:
        with open_library(root, clock=Clock(LONG_AGO)) as manager:
            for job_id in jobs:
                assert organize(job_id, FILES[job_id])(manager) == []
        if deleted:
            with open_library(root) as manager:
                for job_id in jobs:
                    manager.delete_job_files(job_id)

    return make


@dataclass(frozen=True)
class Case:
    """One act on some jobs, and where these are in the end."""

    act: Callable[[FileManager], Complaints]
    jobs: tuple[str, ...]
    end: str
    were_deleted: bool = False

    @property
    def scenario(self) -> Scenario:
        """What is disturbed."""
        files = [path for job_id in self.jobs for path in FILES[job_id]]
        made = build(*self.jobs, deleted=self.were_deleted)
        return Scenario(self.act, {path: path for path in files}, files, build=made)


ALL = tuple(FILES)
CASES = {
    "delete": Case(delete, ("job_1",), "trash"),
    "restore": Case(restore, ("job_1",), "place", were_deleted=True),
    "destroy": Case(destroy, ("job_1",), "gone"),
    "empty trash": Case(empty_trash, ("job_1", "job_2"), "gone", were_deleted=True),
    "cleanup": Case(clean_up, ALL, "trash"),
}


def whereabouts(story: Story, job_id: str) -> str:
    """Return where a job is, and expect it whole there."""
    homes = {
        "place": [files for job, files in story.alive.items() if job == job_id],
        "trash": [files for (job, _), files in story.trashed.items() if job == job_id],
    }
    there = {home: found for home, found in homes.items() if found}
    if not there:
        return "gone"
    ((home, (files,)),) = there.items()
    assert Counter(record["original_path"] for record in files.values()) == Counter(FILES[job_id])
    assert [record for record in files.values() if record.get("missing")] == []
    return home


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder in memory, where there is one: processes die here and no disk, so syncs only cost time."""
    memory = "/dev/shm"  # noqa: S108 - only to hold a folder with a random name
    if not os.access(memory, os.W_OK | os.X_OK):
        yield tmp_path_factory.mktemp("deletion")
        return
    with tempfile.TemporaryDirectory(prefix="comfy_files_crash_", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def wrecks_of(workplace: Path) -> Callable[[str], list[Wreck]]:
    """Return what answers the wrecks of a case; they are made once."""

    @functools.cache
    def wrecks(name: str) -> list[Wreck]:
        folder = workplace / name.replace(" ", "_")
        folder.mkdir()
        return crash_everywhere(CASES[name].scenario, folder)

    return wrecks


@pytest.mark.parametrize("prepare", [keep_index, delete_index])
@pytest.mark.parametrize("name", CASES)
def test_the_next_change_leaves_each_job_whole_and_the_act_can_be_repeated(
    name: str,
    prepare: Callable[[Path], None],
    wrecks_of: Callable[[str], list[Wreck]],
    workplace: Path,
) -> None:
    root, case = workplace / "output", CASES[name]
    wrecks = wrecks_of(name)
    before = (wrecks[0].tree / DOCUMENT).read_bytes()
    assert len(wrecks) > 2, "nothing was disturbed"
    for wreck in wrecks:
        # Before its line was written, an act has made folders at most, of which nothing tells.
        unsaid = (wreck.tree / DOCUMENT).read_bytes() == before
        with wreck.found_at(root):
            prepare(root)
            make_next_change(root)
            story = check_deletions(root, may_leave_folders=unsaid)
            found = {whereabouts(story, job_id) for job_id in case.jobs}
            assert case.end == "gone" or "gone" not in found
            with open_library(root) as manager:
                assert case.act(manager) == []
            story = check_deletions(root, may_leave_folders=unsaid)
            assert {whereabouts(story, job_id) for job_id in case.jobs} == {case.end}
