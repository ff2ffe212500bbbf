"""Work that takes jobs away or brings them back, to be disturbed; and where each job may be after that."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from unittest import mock

from flask_comfy_files import FileManager
from flask_comfy_files.core import cleanup, durable
from flask_comfy_files.core.errors import JobNotFoundError
from flask_comfy_files.core.layout import INDEX, PLANS
from tests.crash.library_check import (
    Act,
    Complaints,
    Scenario,
    Story,
    abandoned_by,
    check_deletions,
    check_nothing_is_lost,
    checksums_of,
    delete_index,
    make_next_change,
    open_library,
    organize,
)
from tests.trees import NOW, Clock

FILES = {
    "job_0": ("batch_00004_.png",),  # young, and left alone by all
    "job_1": ("batch_00001_.png", "batch_00002_.png"),
    "job_2": ("bn_0_00001_.png", "bn_1_00002_.png"),
    "job_3": ("batch_00003_.png",),
}
LATER = "adv_00001.png"
"""Organized under the id of a deleted job."""

LONG_AGO = NOW - timedelta(days=40)
ALL = ("job_1", "job_2", "job_3")


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
    """Delete the old jobs."""
    report = manager.cleanup_old_files(30)
    return [entry.reason for entry in (*report.skipped, *report.failed)]


def apply_plan(manager: FileManager) -> Complaints:
    """Carry out the plan that was made; it tells all that it has deleted, however often it was begun."""
    (plan,) = Path(manager.settings.output_dir, PLANS).glob("*.json")
    report = manager.apply_cleanup_plan(plan.stem)
    assert {job.job_id: job.files for job in report.jobs} == {job: len(FILES[job]) for job in ALL}
    return [entry.reason for entry in (*report.skipped, *report.failed)]


def in_batches(size: int, act: Act) -> Act:
    """Return an act that takes so few jobs at once that it needs several turns."""

    def act_in_turns(manager: FileManager) -> Complaints:
        with mock.patch.object(cleanup, "JOBS_AT_ONCE", size):
            return act(manager)

    return act_in_turns


def refusing_to_move(number: int, act: Act) -> Act:
    """Return an act during which the system refuses to rename one file of the job out of its place."""

    def act_refused(manager: FileManager) -> Complaints:
        move = durable.move
        calls = 0

        def refusing(source_folder: int, source: str, target_folder: int, target: str) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                raise PermissionError(13, os.strerror(13))
            move(source_folder, source, target_folder, target)

        durable.move = refusing
        try:
            return act(manager)
        finally:
            durable.move = move

    return act_refused


def made(
    *jobs: str, deleted: bool = False, again: bool = False, planned: bool = False
) -> Callable[[Path], None]:
    """Return what organizes jobs long ago, and goes on with them as it is wanted.

    An index that knows the first job alone is kept beside the output root.
    """

    def make(root: Path) -> None:
        with open_library(root) as manager:
            assert organize("job_0", FILES["job_0"])(manager) == []
        shutil.copy(root / INDEX, root.parent)
        with open_library(root, clock=Clock(LONG_AGO)) as manager:
            for job_id in jobs:
                assert organize(job_id, FILES[job_id])(manager) == []
        with open_library(root) as manager:
            for job_id in jobs if deleted else ():
                manager.delete_job_files(job_id)
            if planned:
                manager.save_cleanup_plan(30)
        if again:  # in the same second, so under the same names
            with open_library(root, clock=Clock(LONG_AGO)) as manager:
                assert organize("job_1", [LATER])(manager) == []

    return make


def age_index(root: Path, old: Path) -> None:
    """Put an index in its place that knows the first job alone, as a power cut or a backup may."""
    delete_index(root)
    shutil.copy(old, root / INDEX)


@dataclass(frozen=True)
class Deletion(Scenario):
    """A library from which jobs are taken, or to which they are brought back."""

    jobs: Sequence[str] = ("job_1",)
    end: str = "trash"
    """Where they are in the end: in their ``place``, in the ``trash``, or ``gone``."""
    may_leave_folders: bool = False
    """Whether the disk may refuse to remove empty folders, which is no error."""

    def recovered(self, root: Path) -> None:
        """Make the next change and expect each job whole; do the work again and expect all of it to be done."""
        check_nothing_is_lost(root, self.inputs)
        make_next_change(root)
        # Before its line was written, a restoration has made the folder.
        story = check_deletions(root, may_leave_folders=self.may_leave_folders or is_bare(root))
        expected = {"place", "trash"} | {self.end}
        assert {whereabouts(story, job_id) for job_id in self.jobs} <= expected
        self.finished(root)
        story = check_deletions(root, may_leave_folders=self.may_leave_folders)
        assert {whereabouts(story, job_id) for job_id in self.jobs} == {self.end}
        assert whereabouts(story, "job_0") == "place"

    @property
    def inputs(self) -> Counter[str]:
        """The checksums of all files that there must be: of those that may go, none."""
        inputs: Counter[str] = Scenario.inputs.__get__(self)
        going = [path for job_id in self.jobs for path in FILES[job_id]]
        return inputs - checksums_of(going) if self.end == "gone" else inputs


def is_bare(root: Path) -> bool:
    """Say whether the restored job's folder is all there is of it."""
    folder = root / "projects/night_watch/job_1"
    return folder.is_dir() and not list(folder.iterdir())


def whereabouts(story: Story, job_id: str) -> str:
    """Return where a job is, and expect it whole there."""
    homes = {
        "place": [files for job, files in story.alive.items() if job == job_id],
        "trash": [files for (job, _), files in story.trashed.items() if job == job_id],
    }
    found = {
        (home, record["original_path"], bool(record.get("missing")))
        for home, of_job in homes.items()
        for files in of_job
        for record in files.values()
        if record["original_path"] != LATER
    }
    if not found:
        return "gone"
    home = next(iter(found))[0]
    assert found == {(home, path, False) for path in FILES[job_id]}
    return home


def scenario(
    act: Act,
    end: str,
    build: Callable[[Path], None],
    jobs: Sequence[str] = ("job_1",),
    finish: Act | None = None,
    more: Sequence[str] = (),
) -> Deletion:
    """Return a scenario on jobs that were built before."""
    sources = [*FILES["job_0"], *(path for job_id in jobs for path in FILES[job_id]), *more]
    expected = [path for path in FILES["job_1"] if end == "place"]
    return Deletion(
        act,
        {path: path for path in sources},
        [*expected, *(more if end == "place" else ())],
        build=build,
        finish=finish,
        jobs=jobs,
        end=end,
    )


def in_turn(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    """Return what builds step by step."""

    def build(root: Path) -> None:
        for step in steps:
            step(root)

    return build


DELETIONS = {
    "delete": scenario(delete, "trash", made("job_1")),
    "restore": scenario(restore, "place", made("job_1", deleted=True)),
    "restore beside": scenario(
        restore, "place", made("job_1", deleted=True, again=True), more=[LATER]
    ),
    "destroy": scenario(destroy, "gone", made("job_1")),
    "empty trash": scenario(
        empty_trash, "gone", made("job_1", "job_2", deleted=True), jobs=("job_1", "job_2")
    ),
    "cleanup": scenario(clean_up, "trash", made(*ALL), jobs=ALL),
}
"""What takes jobs away or brings them back."""

INTERRUPTED = {
    "plan": scenario(in_batches(2, apply_plan), "trash", made(*ALL, planned=True), jobs=ALL),
    "refused delete": scenario(refusing_to_move(2, delete), "trash", made("job_1"), finish=delete),
    "refused restore": scenario(
        refusing_to_move(2, restore),
        "place",
        made("job_1", deleted=True, again=True),
        finish=restore,
        more=[LATER],
    ),
    "recovery of a deletion": scenario(
        delete, "trash", in_turn(made("job_1"), abandoned_by(delete, after="move"))
    ),
    "recovery of a restoration": scenario(
        restore, "place", in_turn(made("job_1", deleted=True), abandoned_by(restore, after="move"))
    ),
    "recovery of a purge": scenario(
        empty_trash,
        "gone",
        in_turn(made("job_1", deleted=True), abandoned_by(empty_trash, after="remove")),
    ),
}
"""The same in several steps: batches, what has to be taken back, and what was left unfinished before."""
