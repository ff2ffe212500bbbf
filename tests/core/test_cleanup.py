from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import cleanup, durable, plans
from flask_comfy_files.core.catalog.document import decode, encode
from flask_comfy_files.core.errors import (
    CleanupRefusedError,
    CleanupRunningError,
    InvalidInputError,
    JobNotFoundError,
    PlanNotFoundError,
    PlanStaleError,
    StorageError,
)
from flask_comfy_files.core.layout import (
    CLEANUP_LOCK,
    DOCUMENT,
    INDEX,
    LAST_CLEANUP,
    LOCK,
    PLANS,
    STATE,
)
from flask_comfy_files.core.reports import CleanupReport
from tests.comfyui.recordings import clock_afterwards, pixels
from tests.comfyui.replay import replaying
from tests.comfyui.world import World
from tests.conftest import OpenManager
from tests.crash.library_check import end_of, start_child
from tests.invariants import assert_cleanup_reconciles, assert_sound
from tests.trees import (
    BATCH,
    Clock,
    Fifo,
    Link,
    Tree,
    library,
    outputs,
    read_tree,
    recording,
    set_modified,
    write_tree,
)

A_MICROSECOND = timedelta(microseconds=1)
A_DAY = timedelta(days=1)
PICTURES = [*BATCH, "bn_0_00001_.png", "bn_1_00002_.png", "mix_00001_.png", "pv_00001_.png"]
EVERYTHING = ("large_share", "empty_project", "clock_jump")


@dataclass
class Shelf:
    """A library in which jobs of any age are put."""

    root: Path
    clock: Clock
    open: Callable[..., FileManager]
    """Returns a manager of the library, with some settings."""
    written: int = 0

    def put(
        self, job_id: str, age: timedelta | float, project_id: str = "tokyo", pictures: int = 1
    ) -> list[Path]:
        """Organize new files of a job as of some days ago; return where they lie."""
        now = self.clock.now
        self.clock.now -= age if isinstance(age, timedelta) else timedelta(days=age)
        names = [f"ComfyUI_{self.written + number:05}_.png" for number in range(pictures)]
        written = {
            name: recording(PICTURES[(self.written + number) % len(PICTURES)])
            for number, name in enumerate(names)
        }
        self.written += pictures
        write_tree(self.root, written, self.clock.now - timedelta(hours=1))
        report = self.open().organize_output(job_id, project_id, files=names)
        self.clock.now = now
        return [self.root / record.path for record in report][-pictures:]

    def delete(self, job_id: str, age: timedelta | float) -> None:
        """Delete a job as of some days ago."""
        now = self.clock.now
        self.clock.now -= age if isinstance(age, timedelta) else timedelta(days=age)
        self.open().delete_job_files(job_id)
        self.clock.now = now

    def clean(self, days: int | None = None, **settings: Any) -> CleanupReport:
        """Clean up, and expect what must hold of every cleanup."""
        manager = self.open(**settings)
        before = read_facts(self.root)
        rehearsal = manager.plan_cleanup(days, allow=EVERYTHING)
        assert read_facts(self.root) == before
        assert (rehearsal.dry_run, rehearsal.operation_id) == (True, None)
        report = manager.cleanup_old_files(days, allow=EVERYTHING)
        assert replace(rehearsal, dry_run=False, operation_id=report.operation_id) == report
        assert_cleanup_reconciles(report)
        return report


@pytest.fixture
def shelf(tmp_path: Path, clock: Clock, open_manager: OpenManager) -> Shelf:
    root = tmp_path / "output"
    root.mkdir()
    return Shelf(root, clock, functools.partial(open_manager, root, min_free_bytes=0))


Facts = dict[str, tuple[object, ...]]


def read_facts(root: Path) -> Facts:
    """Return all that the system tells of everything below a root, bytes and times included.

    Reading leaves no trace. The index and the lock are left out, and what is told of the folder that they are in.
    """
    facts: Facts = {}
    _read_facts(root, "", facts)
    for ours in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm", LOCK, STATE):
        facts.pop(ours, None)
    return facts


def _read_facts(root: Path, below: str, facts: Facts) -> None:
    path = root / below
    told = path.lstat()
    content = b""
    if stat.S_ISDIR(told.st_mode):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        os.close(folder)
        for name in names:
            _read_facts(root, f"{below}/{name}".lstrip("/"), facts)
    elif stat.S_ISREG(told.st_mode):
        with open(path, "rb", opener=lambda name, how: os.open(name, how | os.O_NOATIME)) as source:
            content = source.read()
    facts[below] = (
        *(content, told.st_ino, told.st_nlink, told.st_mode),
        *(told.st_mtime_ns, told.st_ctime_ns, told.st_atime_ns),
    )


def gone(report: CleanupReport) -> list[str]:
    """Return the jobs that went, oldest first."""
    return [job.job_id for job in report.jobs]


def left(report: CleanupReport) -> dict[str, str]:
    """Return why files were left, by their name."""
    return {Path(entry.path).name: entry.reason for entry in (*report.skipped, *report.failed)}


def kept(report: CleanupReport) -> dict[str, str]:
    """Return why jobs were kept that have a reason of their own."""
    return {entry.job_id: entry.reason for entry in report.kept if entry.job_id}


# --- a rehearsal


def age_all_times(root: Path) -> None:
    """Have everything last looked at long ago, so that the next look would be noted (mount(8), relatime)."""
    for path in [root, *root.rglob("*")]:
        told = path.lstat()
        os.utime(path, ns=(10**18, told.st_mtime_ns), follow_symlinks=False)


def put_all_sorts(shelf: Shelf) -> None:
    """Put jobs into a library to which all happens that happens in a cleanup."""
    shelf.put("purged", 90)
    shelf.put("resting", 90)
    shelf.delete("purged", 8)
    shelf.delete("resting", 6)
    (path,) = shelf.put("strange", 82, "osaka")
    (path.parent / "notes.txt").write_bytes(b"my own")
    path, _ = shelf.put("half", 81, "osaka", pictures=2)
    path.unlink()
    path, _ = shelf.put("grown", 80, pictures=2)
    path.write_bytes(path.read_bytes() + b"more")
    (path,) = shelf.put("linked", 79, "osaka")
    path.unlink()
    path.symlink_to(shelf.root / DOCUMENT)
    path, _ = shelf.put("half_too", 78, pictures=2)
    path.unlink()
    (path,) = shelf.put("touched", 77, "kyoto")
    set_modified(path, shelf.clock.now)
    shelf.put("plain", 76, "nara", pictures=3)
    shelf.put("young", 3)
    shelf.put("pinned", 75)
    shelf.open().update_job("pinned", pinned=True)
    write_tree(shelf.root, {"loose.png": recording("bn_2_00003_.png"), "legacy/old.png": b"old"})


@pytest.mark.parametrize("trash_days", [0, 7])
def test_a_rehearsal_leaves_no_trace_on_the_disk_and_tells_what_the_cleanup_does(
    trash_days: int, shelf: Shelf
) -> None:
    put_all_sorts(shelf)
    age_all_times(shelf.root)
    report = shelf.clean(trash_days=trash_days)
    assert gone(report) == ["strange", "half", "half_too", "touched", "plain"]
    assert kept(report) == {"grown": "changed", "linked": "link", "pinned": "pinned"}
    assert report.deleted_files == 1 + 1 + 1 + 1 + 3
    assert report.purged_files == (1 if trash_days else 2 + 7)
    assert (
        report.removed_directories
        == len(["half_too", "kyoto/touched", "kyoto", "plain", "nara"]) + 1
    )


def test_a_plan_leaves_nothing_but_itself(shelf: Shelf) -> None:
    put_all_sorts(shelf)
    age_all_times(shelf.root)
    before = read_facts(shelf.root)
    plan = shelf.open().save_cleanup_plan()
    after = read_facts(shelf.root)
    assert after.keys() - before.keys() == {PLANS, f"{PLANS}/{plan.plan_id}.json"}
    assert {path: after[path] for path in before} == before
    assert plan.report == shelf.open().plan_cleanup()


def test_the_tests_here_see_when_somebody_looks(shelf: Shelf) -> None:
    (path,) = shelf.put("job", 90)
    for look in (path.read_bytes, lambda: list(path.parent.iterdir())):
        age_all_times(shelf.root)
        before = read_facts(shelf.root)
        assert read_facts(shelf.root) == before
        look()
        assert read_facts(shelf.root) != before


# --- only what is as it was recorded


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def other_bytes(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_link_to_the_same(path: Path) -> None:
    elsewhere = path.parents[3].parent / "elsewhere.png"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("exchange", "reason"),
    [
        (longer, "changed"),
        (other_bytes, "changed"),
        (a_link_to_the_same, "link"),
        (a_link_to_nothing, "link"),
        (a_folder, "directory"),
        (a_pipe, "not_a_regular_file"),
    ],
)
def test_a_job_with_a_file_that_is_another_now_stays_whole(
    exchange: Callable[[Path], None], reason: str, shelf: Shelf
) -> None:
    _, path, _ = shelf.put("batch", 90, pictures=3)
    shelf.put("plain", 80)
    exchange(path)
    elsewhere = read_tree(shelf.root.parent)
    before = outputs(shelf.root)
    report = shelf.clean()
    assert (gone(report), kept(report)) == (["plain"], {"batch": reason})
    assert left(report) == {path.name: reason}
    assert [(entry.files, entry.jobs) for entry in report.kept] == [(2, 1)]
    after = outputs(shelf.root)
    assert {key: entry for key, entry in before.items() if "/batch/" in key} == after
    assert shelf.open().get_job_files("batch").file_count == 3
    there = {key: entry for key, entry in elsewhere.items() if not key.startswith("output/")}
    assert {key: read_tree(shelf.root.parent)[key] for key in there} == there


def test_a_file_of_which_only_the_time_was_touched_goes(shelf: Shelf) -> None:
    (path,) = shelf.put("job", 90)
    set_modified(path, shelf.clock.now)
    assert gone(shelf.clean()) == ["job"]
    assert not path.exists()
    assert_sound(shelf.root)


def test_a_file_that_is_gone_already_is_told_and_no_error(shelf: Shelf) -> None:
    first, second = shelf.put("job", 90, pictures=2)
    first.unlink()
    size = second.stat().st_size
    report = shelf.clean()
    assert left(report) == {first.name: "already_gone"}
    assert (report.deleted_files, report.bytes_trashed, report.removed_directories) == (1, size, 2)
    assert report.failed == ()
    assert outputs(shelf.root) == {"projects": None}
    assert_sound(shelf.root)
    shelf.open().restore_job_files("job")
    assert second.stat().st_size == size
    assert_sound(shelf.root)


def test_a_job_whose_folder_is_gone_goes_without_a_file(shelf: Shelf) -> None:
    (path, _) = shelf.put("job", 90, pictures=2)
    shutil.rmtree(path.parent)
    report = shelf.clean()
    assert (gone(report), report.deleted_files, report.removed_directories) == (["job"], 0, 1)
    assert set(left(report).values()) == {"already_gone"}
    assert_sound(shelf.root)


def test_what_nobody_recorded_stays_in_the_jobs_folder_and_is_told(shelf: Shelf) -> None:
    (path,) = shelf.put("job", 90)
    theirs: Tree = {
        "notes.txt": b"my own",
        "link.png": Link("/"),
        "pipe": Fifo(),
        "folder/picture.png": b"a picture",
        "folder/empty": None,
    }
    write_tree(path.parent, theirs)
    report = shelf.clean()
    assert (gone(report), report.removed_directories) == (["job"], 0)
    assert left(report) == dict.fromkeys(["notes.txt", "link.png", "pipe", "folder"], "untracked")
    assert read_tree(path.parent) == theirs


def test_what_is_not_in_a_job_of_projects_is_never_touched(shelf: Shelf) -> None:
    theirs: Tree = {
        "loose_00001_.png": b"loose",
        "legacy/old.png": b"old",
        "inbox/job/run/x.png": b"not organized yet",
        "projects/notes.txt": b"my own",
        "projects/tokyo/job_2/unrecorded.png": b"my own",
        "projects/empty": None,
    }
    write_tree(shelf.root, theirs)
    shelf.put("job", 90)
    shelf.clean(0)
    assert outputs(shelf.root) == theirs


@pytest.mark.parametrize("trash_days", [0, 7])
@pytest.mark.parametrize("depth", [0, 1, 2], ids=["job", "project", "projects"])
def test_a_link_in_the_place_of_a_folder_is_never_followed(
    depth: int, trash_days: int, shelf: Shelf
) -> None:
    (path,) = shelf.put("job", 90)
    folder = path.parents[depth]
    elsewhere = shelf.root.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    before = read_facts(elsewhere)
    report = shelf.clean(trash_days=trash_days)
    assert (gone(report), kept(report)) == ([], {"job": "link"})
    assert left(report) == {path.name: "link"}
    assert read_facts(elsewhere) == before
    assert folder.is_symlink()
    folder.unlink()
    elsewhere.rename(folder)
    assert gone(shelf.clean()) == ["job"]


# --- what the document says after somebody has edited it


def edit_record(root: Path, of: str, **facts: Any) -> None:
    """Edit the record of a job's file by hand, with a check that fits; the index is thrown away."""
    path = root / DOCUMENT
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        change = decode(line.removesuffix(b","))
        if change is not None and change.get("job_id") == of and change["kind"] != "state":
            change["files"][0] |= facts
            lines[number] = encode(change) + (b"," if line.endswith(b",") else b"")
    path.write_bytes(b"\n".join(lines))
    for index in root.glob(f"{INDEX}*"):
        index.unlink()


VICTIMS = (
    "../victim.png",
    "victim.png",
    "projects/victim.png",
    "projects/tokyo/victim.png",
    "projects/tokyo/job/victim.png",
    "projects/tokyo/job/below/victim.png",
    "projects/tokyo/other/victim.png",
    "projects/osaka/job/victim.png",
    "legacy/victim.png",
    "inbox/job/victim.png",
    ".comfy_files/victim.png",
)


def put_victims(root: Path, content: bytes) -> Tree:
    """Put files with some bytes wherever an edited record may lead; return them all, as they are."""
    write_tree(root, dict.fromkeys(VICTIMS, content), clock_afterwards().now)
    return victims(root)


def victims(root: Path) -> Tree:
    tree = read_tree(root.parent)
    return {path: entry for path, entry in tree.items() if path.endswith("victim.png")}


@pytest.mark.parametrize("trash_days", [0, 7])
@pytest.mark.parametrize(
    "path",
    [
        *(path for path in VICTIMS if path != "projects/tokyo/job/victim.png"),
        "projects/../../victim.png",
        "projects/tokyo/job/../../../../victim.png",
        "projects/tokyo/job/./victim.png",
        "projects/tokyo/job//victim.png",
        "{absolute}",
        "/{absolute}",
        "projects/tokyo/job/{absolute}",
        "projects/tokyo/job/..",
        "projects/tokyo/job/.",
        "projects/tokyo/job/",
        "projects/tokyo/job",
        "projects/tokyo/job/a\0b",
        "",
        "{longest}",
    ],
)
def test_a_record_whose_path_leads_elsewhere_takes_no_file(
    path: str, trash_days: int, shelf: Shelf
) -> None:
    (picture,) = shelf.put("job", 90)
    shelf.put("plain", 80)
    before = put_victims(shelf.root, picture.read_bytes())
    path = path.format(absolute=shelf.root.parent / "victim.png", longest="x/" * 3000)
    edit_record(shelf.root, "job", path=path)
    report = shelf.clean(trash_days=trash_days)
    assert (gone(report), kept(report)) == (["plain"], {"job": "outside_library"})
    assert "outside_library" in left(report).values()
    assert victims(shelf.root) == before
    assert picture.exists()


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "gone"])
@pytest.mark.parametrize("trash_days", [0, 7])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("job_id", value) for value in ("../../../..", "../..", "..", "other", "{absolute}")),
        *(("project_id", value) for value in ("../..", "..", "osaka", "{absolute}")),
    ],
)
def test_a_record_that_names_another_owner_takes_no_file(
    key: str, value: str, trash_days: int, shelf: Shelf, *, is_there: bool
) -> None:
    (picture,) = shelf.put("job", 90)
    shelf.put("other", 1)
    before = put_victims(shelf.root, picture.read_bytes())
    path = "projects/tokyo/job/victim.png"
    if not is_there:
        (shelf.root / path).unlink()
        del before[f"output/{path}"]
    edit_record(shelf.root, "job", path=path, **{key: value.format(absolute=shelf.root.parent)})
    report = shelf.clean(trash_days=trash_days)
    assert kept(report) == {"job": "outside_library"}
    assert victims(shelf.root) == before


def test_a_record_with_the_path_of_another_jobs_takes_no_file(shelf: Shelf) -> None:
    shelf.put("job", 90)
    (theirs,) = shelf.put("other", 1)
    content = theirs.read_bytes()
    edit_record(shelf.root, "job", path=str(theirs.relative_to(shelf.root)))
    with pytest.raises(StorageError):
        shelf.open().cleanup_old_files()
    assert theirs.read_bytes() == content


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", "../{name}"),
        ("path", "projects/../../{name}"),
        ("path", "{outside}/{name}"),
        ("job_id", "../../../.."),
        ("job_id", "{outside}"),
    ],
)
def test_a_record_edited_in_the_trash_takes_no_file_and_puts_none_elsewhere(
    key: str, value: str, shelf: Shelf
) -> None:
    (first,) = shelf.put("restored", 90)
    (second,) = shelf.put("purged", 90)
    for job_id in ("restored", "purged"):
        shelf.delete(job_id, 30)
    shelf.put("last", 1)
    outside = shelf.root.parent
    for job_id, picture in (("restored", first), ("purged", second)):
        edited = value.format(name=picture.name, outside=outside)
        edit_record(shelf.root, job_id, **{key: edited})
    (outside / second.name).write_bytes(b"theirs")
    before = {path: entry for path, entry in read_tree(outside).items() if "output/" not in path}
    report = shelf.open().restore_job_files("restored")
    assert (report.files, report.restored.files, len(report.failed)) == ((), 0, 1)
    shelf.open().cleanup_old_files()
    after = {path: entry for path, entry in read_tree(outside).items() if "output/" not in path}
    assert after == before


# --- folders


def test_empty_folders_of_jobs_and_projects_are_removed_and_counted(shelf: Shelf) -> None:
    shelf.put("a", 90, "tokyo")
    shelf.put("b", 90, "tokyo")
    shelf.put("c", 90, "osaka")
    shelf.put("d", 1, "osaka")
    (path,) = shelf.put("e", 90, "kyoto")
    write_tree(path.parents[1], {"notes.txt": b"my own"})
    report = shelf.clean()
    assert report.removed_directories == len(["a", "b", "tokyo", "c", "e"])
    assert sorted(outputs(shelf.root)) == [
        "projects/kyoto/notes.txt",
        *(record.path for record in shelf.open().get_job_files("d")),
    ]
    assert {path.name for path in shelf.root.glob("projects/*/*")} == {"d", "notes.txt"}


# --- what goes wrong on the way


def refuse_to_move(monkeypatch: pytest.MonkeyPatch, ending: str, error: BaseException) -> None:
    """Have the system refuse to move a file whose name ends in some way."""
    move = durable.move

    def refusing(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if source.endswith(ending):
            raise error
        move(source_folder, source, target_folder, target)

    monkeypatch.setattr(durable, "move", refusing)


def test_a_job_with_a_file_that_cannot_be_moved_stays_whole_and_is_told(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put("batch", 90, pictures=3)
    before = outputs(shelf.root)
    shelf.put("plain", 80)
    refuse_to_move(monkeypatch, "_image_2.png", PermissionError(errno.EPERM, "not permitted"))
    report = shelf.open().cleanup_old_files()
    assert_cleanup_reconciles(report)
    assert (gone(report), kept(report)) == (["plain"], {"batch": "failed"})
    (failure,) = report.failed
    assert failure.path.endswith("_image_2.png")
    assert "Operation not permitted" in failure.reason
    assert outputs(shelf.root) == before
    assert_sound(shelf.root)
    monkeypatch.undo()
    assert gone(shelf.clean()) == ["batch"]


def test_the_work_is_done_in_batches_and_told_while_it_goes_on(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "JOBS_AT_ONCE", 2)
    for age in (50, 60, 70, 80, 90):
        shelf.put(f"job_{age}", age)
    told: list[tuple[int, int, int]] = []

    def listen(done: int, total: int) -> None:
        told.append((done, total, len(list(shelf.root.glob("projects/*/*")))))

    report = shelf.open().cleanup_old_files(on_progress=listen)
    assert told == [(0, 5, 5), (2, 5, 3), (4, 5, 1), (5, 5, 0)]
    assert gone(report) == ["job_90", "job_80", "job_70", "job_60", "job_50"]
    assert report.removed_directories == 6
    assert len({job.operation_id for job in shelf.open().get_trash()}) == 1
    assert_cleanup_reconciles(report)
    assert_sound(shelf.root)


@pytest.mark.parametrize("change", ["grown", "pinned", "deleted"])
def test_a_job_that_changes_before_its_turn_stays_as_it_is(change: str, shelf: Shelf) -> None:
    for job_id in ("job", "plain"):
        shelf.put(job_id, 90)
    acts: dict[str, Callable[[], object]] = {
        "grown": lambda: shelf.put("job", 0),
        "pinned": lambda: shelf.open().update_job("job", pinned=True),
        "deleted": lambda: shelf.delete("job", 0),
    }
    pictures: list[Path] = []

    def change_it(done: int, _total: int) -> None:
        if not done:
            acts[change]()
            pictures.extend(shelf.root.glob("**/job/*.png"))

    report = shelf.open().cleanup_old_files(on_progress=change_it)
    assert_cleanup_reconciles(report)
    assert (gone(report), kept(report)) == (["plain"], {"job": "changed_meanwhile"})
    assert all(path.exists() for path in pictures)
    assert_sound(shelf.root)


# --- one at a time


def test_a_second_cleanup_is_refused_while_one_is_under_way(shelf: Shelf) -> None:
    shelf.put("job", 90)
    other = shelf.open()
    plan = other.save_cleanup_plan()
    heard = []

    def try_meanwhile(_done: int, _total: int) -> None:
        with pytest.raises(CleanupRunningError, match="under way already"):
            other.cleanup_old_files()
        with pytest.raises(CleanupRunningError, match="under way already"):
            other.apply_cleanup_plan(plan.plan_id)
        shelf.clock.now += 2 * A_DAY
        assert other.cleanup_if_due() is None
        assert other.plan_cleanup().deleted_files in {0, 1}  # looking is free
        heard.append(other.get_system_stats().total_files)

    report = shelf.open().cleanup_old_files(on_progress=try_meanwhile)
    assert gone(report) == ["job"]
    assert heard == [1, 0]


def test_a_cleanup_in_another_process_is_under_way_until_it_ends(shelf: Shelf) -> None:
    shelf.put("job", 90)
    held, say_so = os.pipe()
    wait, release = os.pipe()

    def clean_slowly() -> None:
        def stop(_done: int, _total: int) -> None:
            os.write(say_so, b"!")
            os.read(wait, 1)

        with FileManager(shelf.root, clock=shelf.clock, min_free_bytes=0) as manager:
            manager.cleanup_old_files(on_progress=stop)

    child = start_child(clean_slowly)
    os.read(held, 1)
    with pytest.raises(CleanupRunningError):
        shelf.open().cleanup_old_files()
    os.write(release, b"!!")
    end = end_of(*child)
    for descriptor in (held, say_so, wait, release):
        os.close(descriptor)
    assert end.status == 0, end.said
    assert gone(shelf.open().cleanup_old_files()) == []
    assert outputs(shelf.root) == {"projects": None}


def test_a_library_that_was_never_begun_has_nothing_to_clean_up(shelf: Shelf) -> None:
    report = shelf.open().cleanup_old_files(0)
    assert (report.found.files, report.jobs, report.kept, report.dry_run) == (0, (), (), False)
    assert read_tree(shelf.root) == {}
    plan = shelf.open().save_cleanup_plan(0)
    assert shelf.open().apply_cleanup_plan(plan.plan_id).jobs == ()


# --- the trash


def test_what_was_in_the_trash_for_exactly_its_days_is_purged(shelf: Shelf) -> None:
    (path,) = shelf.put("job", 90)
    shelf.put("young", 1)
    size = path.stat().st_size
    report = shelf.clean()
    assert (report.bytes_trashed, report.bytes_freed, report.purged_files) == (size, 0, 0)
    shelf.clock.now += 7 * A_DAY - A_MICROSECOND
    assert shelf.clean().purged_files == 0
    shelf.open().restore_job_files("job")
    shelf.delete("job", 0)
    shelf.clock.now += 7 * A_DAY
    report = shelf.clean()
    assert (report.bytes_trashed, report.bytes_freed, report.purged_files) == (0, size, 1)
    with pytest.raises(JobNotFoundError):
        shelf.open().restore_job_files("job")
    assert not list((shelf.root / ".comfy_files/trash").iterdir())
    assert_sound(shelf.root)


def test_without_days_in_the_trash_a_cleanup_deletes_for_good(shelf: Shelf) -> None:
    size = sum(path.stat().st_size for path in shelf.put("job", 90, pictures=2))
    shelf.put("younger", 40)
    shelf.delete("younger", 0)
    report = shelf.clean(trash_days=0)
    assert (report.deleted_files, report.purged_files, report.bytes_trashed) == (2, 3, 0)
    assert report.bytes_freed > size
    assert shelf.open().get_trash().jobs == ()
    assert [path for path in read_tree(shelf.root) if path.endswith(".png")] == []
    assert_sound(shelf.root)


def have_free(monkeypatch: pytest.MonkeyPatch, free: Callable[[], int]) -> None:
    """Have some bytes free on every volume."""

    def statvfs(_path: str) -> os.statvfs_result:
        return os.statvfs_result([1, 1, 2**62, free(), free(), 9, 9, 9, 0, 255])

    monkeypatch.setattr(os, "statvfs", statvfs)


@pytest.mark.parametrize("setting", ["min_free_bytes", "policy"])
def test_the_oldest_in_the_trash_are_purged_until_enough_is_free(
    setting: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {}
    for age in (1, 2, 3, 4):
        (path,) = shelf.put(f"job_{age}", 90 - age)
        sizes[age] = path.stat().st_size
        shelf.delete(f"job_{age}", age)
    have_free(monkeypatch, lambda: 1000)
    floor: dict[str, Any] = {"min_free_bytes": 1000 + sizes[4] + 1}
    assert shelf.clean(min_free_bytes=1000).purged_files == 0
    report = shelf.clean(**floor if setting == "min_free_bytes" else {"retention_policy": floor})
    assert (report.purged_files, report.bytes_freed) == (2, sizes[4] + sizes[3])
    assert [job.job_id for job in shelf.open().get_trash()] == ["job_2", "job_1"]
    assert_sound(shelf.root)


def test_a_rehearsal_knows_which_of_those_that_go_now_are_purged_for_want_of_space(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job_id, age in (("a", 80), ("b", 90), ("c", 85)):
        shelf.put(job_id, age)
    have_free(monkeypatch, lambda: 1000)
    report = shelf.clean(min_free_bytes=1001)
    assert (report.deleted_files, report.purged_files) == (3, 1)
    assert report.bytes_trashed + report.bytes_freed == sum(job.bytes for job in report.jobs)
    assert_sound(shelf.root)


def test_pictures_that_share_bytes_free_them_with_the_last(
    tmp_path: Path, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "JOBS_AT_ONCE", 1)
    clock = clock_afterwards()
    root = tmp_path / "output"
    root.mkdir()
    with replaying() as server:
        world = World(root, server)
        manager = open_manager(root, clock=clock, comfyui_url=server.url)
        first = world.happens("cached_first", {"cached/c_00001_.png": pixels(1)})
        again = world.happens("cached_rerun_identical")
        for job_id, prompt_id in (("home", first), ("guest", again), ("last_guest", again)):
            manager.organize_output(job_id, prompt_id=prompt_id)
    size = len(pixels(1))
    shelf = Shelf(root, clock, functools.partial(open_manager, root, clock=clock, min_free_bytes=0))
    assert shelf.open().get_system_stats().total_size == size
    shelf.delete("home", 0)
    clock.now += 8 * A_DAY
    report = shelf.clean()
    assert (report.purged_files, report.bytes_freed) == (1, 0)
    assert shelf.open().get_system_stats().total_size == size
    assert_sound(root)
    for job_id in ("guest", "last_guest"):
        shelf.delete(job_id, 0)
    clock.now += 8 * A_DAY
    report = shelf.clean()
    assert (report.purged_files, report.bytes_freed) == (2, size)
    assert shelf.open().get_trash().jobs == ()
    assert_sound(root)


def test_of_two_files_of_one_name_the_older_is_still_told_first_when_it_comes_back(
    shelf: Shelf,
) -> None:
    for job_id, age in (("older", 90), ("newer", 80)):
        shelf.written = 0
        shelf.put(job_id, age)
    name = "ComfyUI_00000_.png"
    before = shelf.open().resolve_name(name)
    assert [record.job_id for record in before.matches] == ["older", "newer"]
    shelf.delete("older", 0)
    shelf.open().restore_job_files("older")
    assert shelf.open().resolve_name(name) == before


# --- plans


def test_a_plan_is_carried_out_exactly(shelf: Shelf) -> None:
    put_all_sorts(shelf)
    plan = shelf.open().save_cleanup_plan()
    shelf.put("late", 89)
    shelf.clock.now += A_DAY - A_MICROSECOND  # a whole one, and something else would be purged
    shelf.put("later", 29)
    report = shelf.open(retention_days=0, retention_policy={"keep_last": 99}).apply_cleanup_plan(
        plan.plan_id
    )
    assert replace(plan.report, dry_run=False, operation_id=plan.plan_id) == report
    assert_cleanup_reconciles(report)
    assert {"late", "later", "young", "grown"} <= {
        path.name for path in shelf.root.glob("projects/*/*")
    }
    assert {job.operation_id for job in shelf.open().get_trash() if job.job_id in gone(report)} == {
        plan.plan_id
    }


def test_a_plan_that_was_carried_out_answers_its_report_again(shelf: Shelf) -> None:
    shelf.put("job", 90)
    plan = shelf.open().save_cleanup_plan()
    report = shelf.open().apply_cleanup_plan(plan.plan_id)
    shelf.open().restore_job_files("job")
    before = library(shelf.root)
    shelf.clock.now += A_DAY
    assert shelf.open().apply_cleanup_plan(plan.plan_id) == report
    assert library(shelf.root) == before


def but_for_its_lock(root: Path) -> Tree:
    """Return a library but for the lock of cleanups, which the first one makes."""
    return {path: entry for path, entry in library(root).items() if path != CLEANUP_LOCK}


def test_a_plan_is_good_for_24_hours(shelf: Shelf) -> None:
    shelf.put("job", 90)
    plans = [shelf.open().save_cleanup_plan() for _ in range(2)]
    assert (plans[0].created_at, plans[0].expires_at) == (
        "2026-02-03T04:05:06Z",
        "2026-02-04T04:05:06Z",
    )
    shelf.clock.now += A_DAY + A_MICROSECOND
    before = but_for_its_lock(shelf.root)
    with pytest.raises(PlanNotFoundError, match="kept for 24 hours"):
        shelf.open().apply_cleanup_plan(plans[0].plan_id)
    assert but_for_its_lock(shelf.root) == before
    shelf.clock.now -= A_MICROSECOND
    assert gone(shelf.open().apply_cleanup_plan(plans[1].plan_id)) == ["job"]


@pytest.mark.parametrize("plan_id", ["0" * 32, "", "../cleanup", "x" * 32, "0" * 31 + "\n"])
def test_a_plan_that_nobody_made_is_not_found(plan_id: str, shelf: Shelf) -> None:
    shelf.put("job", 90)
    shelf.open().save_cleanup_plan()
    with pytest.raises(PlanNotFoundError):
        shelf.open().apply_cleanup_plan(plan_id)


def test_what_is_no_id_of_a_plan_is_refused(shelf: Shelf) -> None:
    with pytest.raises(InvalidInputError, match="plan_id"):
        shelf.open().apply_cleanup_plan(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["grown", "pinned", "deleted", "restored", "forgotten"])
def test_a_plan_of_a_job_that_has_changed_deletes_nothing(change: str, shelf: Shelf) -> None:
    for job_id, age in (("first", 95), ("job", 90), ("last", 85)):
        shelf.put(job_id, age)
    plan = shelf.open().save_cleanup_plan()
    if change == "grown":
        shelf.put("job", 0)
    elif change == "pinned":
        shelf.open().update_job("job", pinned=True)
    elif change == "forgotten":
        shelf.open().destroy_job_files("job")
    else:
        shelf.delete("job", 0)
    if change == "restored":
        shelf.open().restore_job_files("job")
    before = but_for_its_lock(shelf.root)
    with pytest.raises(PlanStaleError, match="'job' has changed"):
        shelf.open().apply_cleanup_plan(plan.plan_id)
    assert but_for_its_lock(shelf.root) == before


class Crash(BaseException):
    """What a test raises in the place of a crash."""


@pytest.mark.parametrize("at_once", [1, 2, 256])
@pytest.mark.parametrize("point", range(6))
def test_a_plan_that_was_interrupted_is_finished_and_tells_all(
    point: int, at_once: int, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in (95, 90, 85):
        shelf.put(f"job_{age}", age, f"project_{age}", pictures=2)
    shelf.put("young", 1)
    plan = shelf.open().save_cleanup_plan()
    monkeypatch.setattr(cleanup, "JOBS_AT_ONCE", at_once)
    moved = 0
    move = durable.move

    def crashing(*places: Any) -> None:
        nonlocal moved
        if moved == point:
            raise Crash
        moved += 1
        move(*places)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "move", crashing)
        with pytest.raises(Crash):
            shelf.open().apply_cleanup_plan(plan.plan_id)
    shelf.clock.now += timedelta(hours=1)
    report = shelf.open().apply_cleanup_plan(plan.plan_id)
    assert replace(plan.report, dry_run=False, operation_id=plan.plan_id) == report
    assert len(list(shelf.root.glob("projects/*/*/*.png"))) == 1
    assert shelf.open().apply_cleanup_plan(plan.plan_id) == report
    assert_sound(shelf.root)


def test_a_cleanup_after_one_that_was_interrupted_tells_what_is_left_to_do(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in (95, 90, 85):
        shelf.put(f"job_{age}", age)
    shelf.put("young", 1)
    with monkeypatch.context() as patch:
        refuse_to_move(patch, "_image.png", Crash())
        with pytest.raises(Crash):
            shelf.open().cleanup_old_files()
    report = shelf.open().cleanup_old_files()
    assert_cleanup_reconciles(report)
    assert (gone(report), kept(report)) == ([], {})
    assert {job.job_id for job in shelf.open().get_trash()} == {"job_95", "job_90", "job_85"}
    assert_sound(shelf.root)


# --- once a day


def test_a_cleanup_is_due_when_there_was_none_and_a_day_after_the_last(shelf: Shelf) -> None:
    shelf.put("job", 90)
    manager = shelf.open()
    assert manager.is_cleanup_due()
    report = manager.cleanup_if_due()
    assert report is not None
    assert gone(report) == ["job"]
    shelf.put("another", 90)
    shelf.clock.now += A_DAY
    assert (manager.is_cleanup_due(), manager.cleanup_if_due()) == (False, None)
    shelf.clock.now += A_MICROSECOND
    assert manager.is_cleanup_due()
    report = shelf.open().cleanup_if_due()
    assert report is not None
    assert gone(report) == ["another"]
    assert not manager.is_cleanup_due()


def test_a_cleanup_by_hand_is_todays(shelf: Shelf) -> None:
    shelf.put("job", 1)
    shelf.open().cleanup_old_files(30)
    assert shelf.open().cleanup_if_due() is None
    shelf.open().plan_cleanup()
    shelf.clock.now += A_DAY + A_MICROSECOND
    shelf.open().plan_cleanup()
    assert shelf.open().is_cleanup_due(), "a rehearsal is none"


def test_a_cleanup_that_was_refused_is_not_tried_again_the_same_day(shelf: Shelf) -> None:
    shelf.put("job", 90)
    manager = shelf.open(retention_policy={"keep_within": 1})
    with pytest.raises(CleanupRefusedError):
        manager.cleanup_if_due()
    shelf.clock.now += A_DAY
    assert manager.cleanup_if_due() is None
    shelf.clock.now += A_MICROSECOND
    with pytest.raises(CleanupRefusedError):
        manager.cleanup_if_due()


def test_a_cleanup_that_was_interrupted_is_not_tried_again_the_same_day(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put("job", 90)
    with monkeypatch.context() as patch:
        refuse_to_move(patch, ".png", Crash())
        with pytest.raises(Crash):
            shelf.open().cleanup_if_due()
    assert shelf.open().cleanup_if_due() is None


def test_what_was_noted_of_the_last_cleanup_may_be_damaged(shelf: Shelf) -> None:
    shelf.put("job", 90)
    for content in (b"", b"[]", b"{", b"\xff", b"{}"):
        (shelf.root / LAST_CLEANUP).write_bytes(content)
        assert shelf.open().is_cleanup_due()
    assert shelf.open().cleanup_if_due() is not None
    assert not shelf.open().is_cleanup_due()


def test_only_one_of_several_managers_does_todays_cleanup(shelf: Shelf) -> None:
    for age in (90, 80):
        shelf.put(f"job_{age}", age)
    managers = [shelf.open() for _ in range(6)]
    barrier = threading.Barrier(len(managers))
    reports: list[CleanupReport | None] = []

    def work(manager: FileManager) -> None:
        barrier.wait(20)
        reports.append(manager.cleanup_if_due())

    threads = [threading.Thread(target=work, args=(manager,)) for manager in managers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(reports) == len(managers)
    (report,) = [report for report in reports if report is not None]
    assert gone(report) == ["job_90", "job_80"]
    assert_sound(shelf.root)


def test_who_waited_for_todays_cleanup_does_no_second_one(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job_id in ("job", "other"):
        shelf.put(job_id, 90)
    only_cleanup = plans.only_cleanup
    reports: list[CleanupReport | None] = []

    def another_comes_first(root: str) -> contextlib.AbstractContextManager[None]:
        monkeypatch.undo()
        reports.append(shelf.open().cleanup_if_due())
        shelf.open().restore_job_files("other")
        return only_cleanup(root)

    monkeypatch.setattr(plans, "only_cleanup", another_comes_first)
    assert shelf.open().cleanup_if_due() is None
    assert [report is not None and gone(report) for report in reports] == [["job", "other"]]


def test_only_one_of_several_processes_does_todays_cleanup(shelf: Shelf) -> None:
    for age in (90, 80):
        shelf.put(f"job_{age}", age)

    def work() -> list[str] | None:
        with FileManager(shelf.root, clock=shelf.clock, min_free_bytes=0) as manager:
            report = manager.cleanup_if_due()
        return None if report is None else gone(report)

    children = [start_child(work) for _ in range(4)]
    results = [end_of(*child).result for child in children]
    assert sorted(results, key=bool) == [None, None, None, ["job_90", "job_80"]]
    assert_sound(shelf.root)
