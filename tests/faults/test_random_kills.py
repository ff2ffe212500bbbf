"""Four processes organize, delete, restore, clean up and migrate together; at random moments one is killed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import BusyError, ConflictError, NotFoundError
from flask_comfy_files.core.layout import TRASH
from tests.crash.deletions import LONG_AGO
from tests.crash.library_check import checksums_of, end_of, found, open_library, start_child
from tests.invariants import assert_sound, changes_of, fold
from tests.trees import BATCH, Clock, recording, write_tree

pytestmark = pytest.mark.faults

KILLS = 10
"""Of each seed; then a new library begins, for checking one takes the longer the more it holds."""

FILES_A_JOB = 2
NEXT = "pv_00001_.png"

Round = Sequence[str]
"""The jobs of one round: the first four are everybody's, the other two are older."""

Step = Callable[[], object]
"""Does something and returns its report."""

Worker = Callable[[FileManager, FileManager, Round], Iterable[Step]]
"""Returns what to do one after the other, with a manager of today and one of long ago."""


def organizer(manager: FileManager, _: FileManager, jobs: Round) -> Iterator[Step]:
    for job_id in jobs[:4]:
        yield functools.partial(manager.organize_output, job_id)


def deleter(manager: FileManager, _: FileManager, jobs: Round) -> Iterator[Step]:
    for job_id in (*jobs[1::-1], *jobs[:4]):
        yield functools.partial(manager.organize_output, job_id)
        yield functools.partial(manager.delete_job_files, job_id)


def restorer(manager: FileManager, _: FileManager, jobs: Round) -> Iterator[Step]:
    for job_id in (*jobs[3::-1], *jobs[:4]):
        yield functools.partial(manager.organize_output, job_id)
        yield functools.partial(manager.restore_job_files, job_id)


def keeper(manager: FileManager, long_ago: FileManager, jobs: Round) -> Iterator[Step]:
    for job_id in jobs[4:]:
        yield functools.partial(long_ago.organize_output, job_id)
    yield functools.partial(manager.cleanup_old_files, 30)
    yield manager.migrate_legacy_files


WORKERS: Sequence[Worker] = [organizer, deleter, restorer, keeper]


def work(worker: Worker, root: Path, jobs: Round, answers: int) -> None:
    """Do a worker's work in a child; note of each answer, when it is there, which files it names."""
    manager = open_library(root, lock_timeout=60)
    long_ago = open_library(root, lock_timeout=60, clock=Clock(LONG_AGO))
    for step in worker(manager, long_ago, jobs):
        with contextlib.suppress(BusyError, ConflictError, NotFoundError):  # another was faster
            organized = getattr(step(), "organized_files", ())
            ids = [[record.file_id, record.checksum] for record in organized]
            os.write(answers, f"{json.dumps(ids)}\n".encode())


def play(root: Path, jobs: Round, answers: int, victim: int, after_s: float) -> bool:
    """Let all work at once and kill one after a while; return whether it was still at work."""
    children = [start_child(functools.partial(work, one, root, jobs, answers)) for one in WORKERS]
    if after_s:
        time.sleep(after_s)
        os.kill(children[victim][0], signal.SIGKILL)
    ends = [end_of(*child) for child in children]
    for number, end in enumerate(ends):
        assert end.status == 0 or (number, end.status) == (victim, -signal.SIGKILL), end.said
    return ends[victim].status != 0


def remove_untold_folders(root: Path) -> None:
    """Remove the empty folders of a deletion that was killed before its line; emptying the trash does so, too."""
    told = {change["trash"]["entry"] for change in changes_of(root) if "trash" in change}
    for entry in (root / TRASH).glob("*"):
        if entry.name not in told:
            for folder in (*entry.iterdir(), entry):
                folder.rmdir()


def check(root: Path, inputs: Counter[str], answered: set[tuple[str, str]]) -> None:
    """Expect nothing to be lost; after the next change also nothing twice, and all that was ever answered.

    The file of that change is one of the inputs from then on.
    """
    lost = inputs - Counter(found(root).values())
    assert not lost, lost
    inputs += checksums_of([NEXT])
    write_tree(root, {f"next/{sum(inputs.values())}.png": recording(NEXT)})
    with open_library(root) as manager:
        assert manager.organize_output("next").moved.files == 1
    remove_untold_folders(root)
    assert Counter(found(root).values()) == inputs
    assert_sound(root)
    told = fold(changes_of(root))
    assert not [stored for files in told.lists for stored in files if stored.get("missing")]
    known = {(stored["file_id"], stored["checksum"]) for files in told.lists for stored in files}
    assert answered <= known


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments_leave_a_sound_library_and_all_that_was_answered(
    seed: int, memory: Path
) -> None:
    root, notes = memory / "output", memory / "answers"
    chance = random.Random(seed)  # noqa: S311
    inputs: Counter[str] = Counter()
    duration_s, kills, rounds = 0.0, 0, 0
    with notes.open("wb", buffering=0) as answers:
        while kills < KILLS:
            jobs = [f"round-{rounds}-{letter}" for letter in "abcdef"]
            sources = {
                f"{job_id}_{n:05}_.png": BATCH[n] for job_id in jobs for n in range(FILES_A_JOB)
            }
            write_tree(root, {path: recording(source) for path, source in sources.items()})
            inputs += checksums_of(sources.values())
            # Each round tells how long the next may take; in the first nobody is killed.
            after_s, victim = chance.random() * duration_s, chance.randrange(len(WORKERS))
            begun = time.monotonic()
            kills += play(root, jobs, answers.fileno(), victim, after_s)
            duration_s = 0.8 * (time.monotonic() - begun)  # the victim may be the first to end
            check(root, inputs, told_in(notes))
            rounds += 1
            assert rounds < 10 * KILLS, "the kills come too late"


def told_in(notes: Path) -> set[tuple[str, str]]:
    """Return ids and checksums of all files that were answered."""
    return {
        (file_id, checksum)
        for line in notes.read_text().splitlines()
        for file_id, checksum in json.loads(line)
    }
