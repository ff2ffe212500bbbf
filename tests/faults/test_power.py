"""The power fails before each system call that changes something, and right after the answer.

Whatever was not synced is gone then. What had been acknowledged must be there all the same, no record
may differ from its file, no file may be in neither place, and the next change must succeed.

Between two syncs nothing reaches the disk, so a cut right after each sync meets every state of it. That
is what ``make test-faults`` tries; ``make test-faults-all`` takes no such thing for granted, and cuts
before every call.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.layout import DOCUMENT, TRASH
from tests.crash.deletions import DELETIONS, INTERRUPTED, Deletion, is_bare
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    Complaints,
    Scenario,
    check_deletions,
    checksums_of,
    found,
    in_child,
    open_library,
    organize,
)
from tests.crash.test_migration import ASSIGNMENTS, MIGRATIONS
from tests.crash.test_undo import SCENARIOS as UNDOS
from tests.crash.test_undo import Undoing
from tests.faults.ground import Hearing
from tests.faults.power import FILE_SYSTEMS, Disk, mounted
from tests.faults.tracing import Call, traced
from tests.invariants import Told, assert_sound, changes_of, fold
from tests.trees import read_tree, recording, write_tree

pytestmark = pytest.mark.faults

EVERY_POINT = os.environ.get("EVERY_POINT") == "1"

SYNCS = frozenset({"fsync", "fdatasync"})
NEXT = "next_00001_.png"
WARM, WARM_SOURCE = "warm_00001_.png", "ComfyUI_00001_.png"

Holdings = list[list[str]]
"""For each file that the library knows: its job, where it stands, its id, and its checksum."""


@dataclass(frozen=True)
class Work:
    """A piece of work during which the power fails."""

    scenario: Scenario
    is_fresh: bool = False
    """Whether its files have just been written and nobody has synced them, as ComfyUI leaves them."""
    is_from_elsewhere: bool = False
    """Whether its files lie on another disk, which has power: what is removed there is gone."""
    is_interrupted: bool = False
    """Whether it begins with something that a crash has left, which any other change would finish."""


WORK = {
    "organize": Work(SCENARIOS["second job"]),
    "organize what is just written": Work(SCENARIOS["second job"], is_fresh=True),
    "organize from another disk": Work(OTHER_FILE_SYSTEM, is_from_elsewhere=True),
    "organize a further run": Work(SCENARIOS["added files"]),
    "delete": Work(DELETIONS["delete"]),
    "restore": Work(DELETIONS["restore"]),
    "destroy": Work(DELETIONS["destroy"]),
    "empty the trash": Work(DELETIONS["empty trash"]),
    "clean up": Work(DELETIONS["cleanup"]),
    "migrate": Work(MIGRATIONS["first"]),
    "assign": Work(ASSIGNMENTS["first"]),
    "undo organizing": Work(UNDOS["organize"]),
    "undo undoing": Work(UNDOS["undo of organize"]),
    "undo migrating": Work(UNDOS["migrate"]),
    "pend": Work(SCENARIOS["pending job recorded"]),
    "retry": Work(SCENARIOS["pending job retried"]),
    "recover": Work(SCENARIOS["recovery"], is_interrupted=True),
    "recover a deletion": Work(INTERRUPTED["recovery of a deletion"], is_interrupted=True),
    "recover a restoration": Work(INTERRUPTED["recovery of a restoration"], is_interrupted=True),
    "recover a purge": Work(INTERRUPTED["recovery of a purge"], is_interrupted=True),
}


class Bench(Hearing):
    """A piece of work on a disk, begun again for each cut."""

    def __init__(self, folder: Path, kind: str, work: Work) -> None:
        super().__init__()
        self._folder = folder
        self._work = work
        self._scenario = work.scenario
        self._elsewhere = folder / "elsewhere"
        self._disk = Disk(folder, FILE_SYSTEMS[kind], self._fill)

    @property
    def root(self) -> Path:
        return self._disk.top / "output"

    def _fill(self, top: Path) -> None:
        root = top / "output"
        self._scenario.lay_out(root)
        for path in self._scenario.expected if self._is_brought else ():
            (root / path).unlink()
        write_tree(root, {WARM: recording(WARM_SOURCE)})
        if not self._work.is_interrupted:
            assert in_child(lambda: warm_up(root)).result == []

    @property
    def _is_brought(self) -> bool:
        return self._work.is_fresh or self._work.is_from_elsewhere

    @contextlib.contextmanager
    def powered(self) -> Iterator[None]:
        """Have the disk mounted, and in it what lies on another."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._disk.mounted())
            if self._work.is_from_elsewhere:
                place = self.root / OTHER_FOLDER
                stack.enter_context(mounted(place, "--bind", str(self._elsewhere)))
            yield

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Have everything as it is when the work begins."""
        self._disk.renew()
        shutil.rmtree(self._elsewhere, ignore_errors=True)
        self._elsewhere.mkdir()
        with self.powered():
            if self._is_brought:
                sources = self._scenario.sources
                tree = {path: recording(sources[path]) for path in self._scenario.expected}
                write_tree(self.root, tree)
            yield

    def work(self) -> list[Holdings]:
        """Do it and answer what the library holds then; as in a server nothing is closed after it."""
        manager = open_library(self.root, **self._scenario.settings)
        assert self._scenario.act(manager) == self.complaints
        return self._state(manager)

    def _state(self, manager: FileManager) -> list[Holdings]:
        return [holdings(self.root), [[job.job_id] for job in manager.get_pending_jobs()]]

    def learn(self) -> Sequence[Call]:
        """Do it undisturbed; keep what was before and what becomes of it, and return its calls.

        It is done in this process first, or the first child alone would import some modules.
        """
        with self.begun():
            self.before = holdings(self.root)
            self.complaints = self._scenario.disturbed(self.root)
            self.make_another_change()
            self.finish()
            self.after = whereabouts(self.root)
        with self.begun():
            run = traced(self.work, self._folder / "strace.log")
        assert run.end.status == 0, run.end.said
        return [call for call in run.calls if call.changes_something and call.touches(self.root)]

    def cut_before(self, call: Call) -> None:
        with self.hearing(call):
            with self.begun():
                fault = f"{call.name}:signal=KILL:when={call.ordinal}"
                killed = traced(self.work, self._folder / "strace.log", fault)
                self._disk.cut_power()
            assert killed.end.status == -signal.SIGKILL, killed.end.said
            with self.powered():
                self.expect_a_sound_library()

    def cut_after_the_answer(self) -> None:
        with self.hearing("after the answer"):
            with self.begun():
                end = in_child(self.work)
                self._disk.cut_power()
            with self.powered():
                # Those that were emptied may be back; the next change removes them.
                self._expect_order(may_leave_folders=True)
                with open_library(self.root) as manager:
                    assert self._state(manager) == end.result
                self.expect_a_sound_library(is_answered=True)

    def expect_a_sound_library(self, *, is_answered: bool = False) -> None:
        """Expect all bytes and all that was known to be there, and the next change and the work to succeed."""
        # What ComfyUI has just written is safe once a line speaks of it, and not before.
        is_safe = is_answered or not self._work.is_fresh
        inputs = self._scenario.inputs + checksums_of([WARM_SOURCE])
        lost = inputs - Counter(found(self.root).values())
        assert not lost or not is_safe, f"lost: {lost}; there are {found(self.root)}"
        self.make_another_change()
        known = holdings(self.root)
        forgotten = files_in(self.before, but=self._doomed) - files_in(known)
        assert not forgotten, f"forgotten: {forgotten}; known are {known}"
        if is_safe:
            self.finish()
            assert whereabouts(self.root) == self.after

    @property
    def _doomed(self) -> Sequence[str]:
        """The jobs of which nothing has to be left."""
        scenario = self._scenario
        if isinstance(scenario, Undoing):
            return ["job_1", ""]  # an undone record has gone, and its file lies where it came from
        return scenario.jobs if isinstance(scenario, Deletion) and scenario.end == "gone" else ()

    def make_another_change(self) -> None:
        """Organize a file of another job, and so let the library finish what was left unfinished."""
        write_tree(self.root, {NEXT: recording("pv_00001_.png")})
        with open_library(self.root) as manager:
            assert organize("next", [NEXT])(manager) == []
        self._expect_order()

    def finish(self) -> None:
        """Do the work again, until nothing is left to do."""
        self._scenario.finished(self.root)
        self._expect_order()

    def _expect_order(self, *, may_leave_folders: bool = False) -> None:
        """Expect document, index, files and trash to tell the same, and nothing to be missing."""
        if isinstance(self._scenario, Deletion):
            check_deletions(self.root, may_leave_folders=may_leave_folders or is_bare(self.root))
        else:
            assert_sound(self.root)
        told = fold(changes_of(self.root))
        everything = [*told.living, *(stored for files in told.trash.values() for stored in files)]
        missing = [stored for stored in everything if stored.get("missing")]
        assert missing == []


def holdings(root: Path) -> Holdings:
    """Return what the document says of each file that the library has."""
    told = fold(changes_of(root)) if (root / DOCUMENT).exists() else Told()
    living = [[stored["job_id"], stored["path"], stored] for stored in told.living]
    resting = [
        [job_id, f"{entry}/{stored['path']}", stored]
        for (job_id, entry), files in told.trash.items()
        for stored in files
    ]
    return [
        [job_id or "", place, stored["file_id"], stored["checksum"]]
        for job_id, place, stored in (*living, *resting)
    ]


def files_in(holdings: Holdings, but: Sequence[str] = ()) -> set[tuple[str, str]]:
    """Return ids and checksums of files, those of some jobs left out."""
    return {(file_id, checksum) for job_id, _, file_id, checksum in holdings if job_id not in but}


def whereabouts(root: Path) -> list[tuple[str, str]]:
    """Return path and checksum of every file; which deletion brought it into the trash does not matter."""
    return sorted(
        (re.sub(f"^{TRASH}/[0-9a-f]+", TRASH, path), checksum)
        for path, checksum in found(root).items()
    )


def after_each_sync(calls: Sequence[Call]) -> list[Call]:
    """Return the calls before which the disk has another state than before the last; the first one, too."""
    return [calls[0], *(call for last, call in pairwise(calls) if last.name in SYNCS)]


def warm_up(root: Path) -> Complaints:
    """Make a change and close nothing after it, for a child.

    The first change after an index was closed syncs its log, and with it all that the disk was told before.
    A server at work has no such luck.
    """
    return organize("warm", [WARM])(open_library(root))


ON_ALL = ("organize", "delete", "restore", "migrate", "undo organizing")
"""What the quick form tries on each file system; the rest it tries on the first."""


def cuts() -> Iterator[tuple[str, str]]:
    """Yield each file system with the work that is tried on it."""
    for kind in FILE_SYSTEMS:
        is_first = kind == next(iter(FILE_SYSTEMS))
        yield from ((kind, name) for name in WORK if EVERY_POINT or is_first or name in ON_ALL)


@pytest.mark.parametrize(("kind", "name"), list(cuts()))
def test_a_power_cut_loses_nothing_that_was_acknowledged(
    kind: str, name: str, memory: Path
) -> None:
    bench = Bench(memory, kind, WORK[name])
    calls = bench.learn()
    for call in calls if EVERY_POINT else after_each_sync(calls):
        bench.cut_before(call)
    bench.cut_after_the_answer()
    bench.conclude()


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_what_is_not_synced_is_gone_after_a_cut_and_what_is_synced_is_not(
    kind: str, memory: Path
) -> None:
    """The other tests here mean nothing where this one fails."""
    disk = Disk(memory, FILE_SYSTEMS[kind], lambda top: (top / "a").mkdir())
    with disk.mounted():
        for name in ("renamed", "synced"):
            (disk.top / name).write_bytes(b"bytes")
            with (disk.top / name).open("rb") as written:
                os.fsync(written.fileno())
        (disk.top / "renamed").rename(disk.top / "a/renamed")
        (disk.top / "b").mkdir()
        (disk.top / "written").write_bytes(b"bytes")
        disk.cut_power()
    with disk.mounted():
        tree = {path: entry for path, entry in read_tree(disk.top).items() if path != "lost+found"}
    assert tree == {"a": None, "renamed": b"bytes", "synced": b"bytes"}
