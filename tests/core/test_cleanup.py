"""Cleaning up on a clock that stands still: what goes, what stays and why, and that nothing else is touched."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog.document import encode
from flask_comfy_files.core.errors import (
    CleanupRefusedError,
    CleanupRunningError,
    InvalidInputError,
    PlanNotFoundError,
    PlanStaleError,
)
from flask_comfy_files.core.layout import CLEANUP_LOCK, DOCUMENT, INDEX, LOCK
from flask_comfy_files.core.lock import hold
from flask_comfy_files.core.reports import CleanupReport
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound
from tests.trees import BATCH, NOW, Clock, Tree, library, outputs, recording, set_modified

LONG_AGO = NOW - timedelta(days=1000)
IMAGES = [*BATCH, "mix_00001_.png", "pv_00001_.png"]
"""Real images of different bytes; one for each job."""

EMPTY: Tree = {"projects": None}

ENORMOUS = 2**60
MICROSECOND = timedelta(microseconds=1)

Grow = Callable[..., FileManager]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def grow(make_tree: MakeTree, open_manager: OpenManager, clock: Clock) -> Grow:
    """Return what makes a library whose jobs, ``project/job``, are so many days old."""

    def make(ages: Mapping[str, float], **options: Any) -> FileManager:
        names = [name.rpartition("/")[2] for name in ages]
        images = {f"{job}_00001_.png": recording(IMAGES[place]) for place, job in enumerate(names)}
        root = make_tree(images, modified_at=LONG_AGO)
        manager = open_manager(root, **options)
        for name, days in sorted(ages.items(), key=lambda entry: -entry[1]):
            project, _, job = name.rpartition("/")
            clock.now = NOW - timedelta(days=days)
            assert manager.organize_output(job, project or "default").file_count == 1
        clock.now = NOW
        return manager

    return make


def deleted(report: CleanupReport) -> list[str]:
    """Return the jobs that went, after checking that the report reconciles."""
    assert_cleanup_reconciles(report)
    return [job.job_id for job in report.jobs]


def assert_cleanup_reconciles(report: CleanupReport) -> None:
    """Check that everything found was deleted, kept, skipped or failed, in files and in bytes."""
    left = [*report.skipped, *report.failed]
    assert report.found.files == (
        report.deleted_files + sum(kept.files for kept in report.kept) + len(left)
    )
    assert report.found.bytes == (
        sum(job.bytes for job in report.jobs)
        + sum(kept.bytes for kept in report.kept)
        + sum(entry.bytes for entry in left)
    )
    assert report.deleted_files == sum(project.deleted_files for project in report.projects)
    assert sum(kept.jobs for kept in report.kept) == sum(p.kept_jobs for p in report.projects)
    assert sum(kept.files for kept in report.kept) == sum(p.kept_files for p in report.projects)


def why_kept(report: CleanupReport) -> dict[str | None, str]:
    assert_cleanup_reconciles(report)
    return {kept.job_id: kept.reason for kept in report.kept}


def why_deleted(report: CleanupReport) -> dict[str, str]:
    assert_cleanup_reconciles(report)
    return {job.job_id: job.reason for job in report.jobs}


def why_skipped(report: CleanupReport) -> list[str]:
    assert_cleanup_reconciles(report)
    return [str(left.reason) for left in report.skipped]


def without_lock(root: Path) -> Tree:
    """Return the library without the lock of cleanups, which is made when the first one begins."""
    return {path: entry for path, entry in library(root).items() if path != CLEANUP_LOCK}


def path_of(manager: FileManager, job_id: str) -> Path:
    return Path(manager.settings.output_dir, manager.get_job_files(job_id).files[0].path)


@pytest.fixture(params=["UTC", "Asia/Tokyo", "America/St_Johns"])
def _time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_time_zone")
def test_exactly_so_many_days_old_stays_and_a_microsecond_more_goes(
    grow: Grow, clock: Clock, root: Path
) -> None:
    manager = grow({"a": 30, "b": 29})
    assert deleted(manager.cleanup_old_files(30)) == []
    clock.now += MICROSECOND
    assert deleted(manager.cleanup_old_files(30)) == ["a"]
    clock.now = NOW
    assert_sound(root)


def test_zero_days_take_all_but_what_is_organized_this_moment(grow: Grow, clock: Clock) -> None:
    manager = grow({"a": 1, "b": 0})
    assert deleted(manager.cleanup_old_files(0)) == ["a"]
    clock.now += MICROSECOND
    assert deleted(manager.cleanup_old_files(0)) == ["b"]


@pytest.mark.parametrize("days", [True, "30", 1.5, -1, 36501])
def test_days_that_are_none_change_nothing(grow: Grow, root: Path, days: Any) -> None:
    manager = grow({"a": 40})
    before = library(root)
    for ask in (manager.cleanup_old_files, manager.plan_cleanup, manager.save_cleanup_plan):
        with pytest.raises(InvalidInputError):
            ask(days)
    assert library(root) == before


def test_a_batch_is_as_old_as_its_newest_file_and_goes_whole(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root = make_tree({name: recording(name) for name in BATCH[:2]}, modified_at=LONG_AGO)
    manager = open_manager(root)
    manager.organize_output("batch")
    clock.advance(20 * 86400)
    make_tree({BATCH[2]: recording(BATCH[2])}, modified_at=LONG_AGO)
    assert manager.organize_output("batch").moved.files == 1
    clock.advance(20 * 86400)
    assert deleted(manager.cleanup_old_files(30)) == []
    clock.advance(11 * 86400)
    report = manager.cleanup_old_files(30, allow=["clock_jump"])
    assert deleted(report) == ["batch"]
    assert (report.deleted_files, report.removed_directories) == (3, 2)
    assert outputs(root) == EMPTY
    assert_sound(root)


GENEROUS = {"allow": ["empty_project", "large_share"]}


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        ({"keep_last": 2}, {"a": "keep_last", "b": "keep_last"}),
        ({"keep_daily": 2}, {"a": "keep_daily", "c": "keep_daily"}),
        ({"keep_within": 41}, {None: "keep_within"}),
        ({"protect": {"jobs": ["b"]}}, {"b": "protected_job"}),
        ({"protect": {"projects": ["default"]}}, {None: "protected_project"}),
        ({"protect": {"tags": ["master"]}}, {"c": "protected_tag"}),
        ({"projects": {"default": {"keep_last": 1}}}, {"a": "keep_last"}),
    ],
)
def test_each_rule_keeps_what_it_says_and_says_so(
    grow: Grow, policy: dict[str, Any], reasons: dict[str | None, str]
) -> None:
    # NOW is 04:05 in UTC: b is of the same day as a, c of the day before.
    ages = {"a": 40, "b": 40 + 4 / 24, "c": 40 + 5 / 24}
    manager = grow(ages, retention_policy={**policy, **GENEROUS})
    manager.update_job("c", tags=["master"])
    report = manager.cleanup_old_files(30)
    assert why_kept(report) == reasons
    if None not in reasons:
        assert set(deleted(report)) == ages.keys() - reasons.keys()
        assert set(why_deleted(report).values()) == {"expired"}


def test_a_projects_own_days_hold_instead_of_the_setting(grow: Grow) -> None:
    policy = {"projects": {"short": {"days": 5}, "long": {"days": 90}}, **GENEROUS}
    ages = {"short/a": 6, "long/b": 80, "c": 31, "d": 6}
    manager = grow(ages, retention_policy=policy, retention_days=30)
    assert deleted(manager.cleanup_old_files()) == ["c", "a"]


def test_byte_limits_take_the_oldest_that_nothing_keeps_until_it_fits(grow: Grow) -> None:
    sizes = [len(recording(name)) for name in IMAGES]
    policy = {"max_bytes": sizes[0] + sizes[2], **GENEROUS}
    manager = grow({"a": 1, "b": 2, "c": 3}, retention_policy=policy)
    manager.update_job("c", pinned=True)
    report = manager.cleanup_old_files(30)
    assert why_deleted(report) == {"b": "max_bytes"}


def test_a_projects_byte_limit_takes_nothing_of_another(grow: Grow) -> None:
    sizes = [len(recording(name)) for name in IMAGES]
    policy = {"projects": {"full": {"max_bytes": sizes[0]}}, **GENEROUS}
    manager = grow({"full/a": 1, "full/b": 2, "other/c": 3}, retention_policy=policy)
    assert why_deleted(manager.cleanup_old_files(30)) == {"b": "project_max_bytes"}


def test_a_floor_of_free_space_takes_all_that_nothing_keeps_and_empties_the_trash(
    grow: Grow, root: Path
) -> None:
    policy = {"min_free_bytes": ENORMOUS, "keep_last": 1, **GENEROUS}
    manager = grow({"a": 1, "b": 2, "c": 3}, retention_policy=policy)
    report = manager.cleanup_old_files(30)
    assert why_deleted(report) == {"b": "min_free_bytes", "c": "min_free_bytes"}
    assert (report.bytes_trashed, report.purged_files) == (0, 2)
    assert report.bytes_freed > 0
    assert manager.get_trash().jobs == ()
    assert_sound(root)


def test_nothing_takes_a_pinned_job_until_it_is_not_pinned_any_more(grow: Grow) -> None:
    manager = grow({"a": 40}, retention_policy={"min_free_bytes": ENORMOUS, **GENEROUS})
    manager.update_job("a", pinned=True)
    assert why_kept(manager.cleanup_old_files(0)) == {"a": "pinned"}
    manager.update_job("a", pinned=False)
    assert deleted(manager.cleanup_old_files(0)) == ["a"]


def test_a_restored_job_stays_as_long_as_a_new_one(grow: Grow, clock: Clock, root: Path) -> None:
    manager = grow({"a": 40})
    assert deleted(manager.cleanup_old_files(30)) == ["a"]
    manager.restore_job_files("a")
    assert why_kept(manager.cleanup_old_files(30)) == {"a": "recently_restored"}
    clock.now += timedelta(days=30) + MICROSECOND
    assert deleted(manager.cleanup_old_files(30)) == ["a"]
    clock.now = NOW
    assert_sound(root)


def test_a_batch_of_which_one_file_was_changed_is_kept_whole(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root = make_tree({name: recording(name) for name in BATCH}, modified_at=LONG_AGO)
    manager = open_manager(root)
    manager.organize_output("batch")
    path_of(manager, "batch").write_bytes(b"mine now")
    before = outputs(root)
    clock.advance(31 * 86400)
    report = manager.cleanup_old_files(30)
    assert deleted(report) == []
    assert why_kept(report) == {"batch": "changed"}
    assert why_skipped(report) == ["changed"]
    assert report.kept[0].files == 3
    assert outputs(root) == before


def _resize(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _rewrite(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))
    set_modified(path, NOW)


def _link(path: Path) -> None:
    path.rename(path.parents[3] / "elsewhere")
    path.symlink_to("../../../elsewhere")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("spoil", [_resize, _rewrite, _link, _folder, _fifo])
def test_what_is_not_the_recorded_file_stays(
    grow: Grow, root: Path, spoil: Callable[[Path], None]
) -> None:
    manager = grow({"a": 40})
    spoil(path_of(manager, "a"))
    before = outputs(root)
    report = manager.cleanup_old_files(30)
    assert deleted(report) == []
    assert len(why_skipped(report)) == 1
    assert outputs(root) == before


def test_a_file_of_which_only_the_time_was_touched_goes(grow: Grow, root: Path) -> None:
    manager = grow({"a": 40})
    set_modified(path_of(manager, "a"), NOW)
    assert deleted(manager.cleanup_old_files(30)) == ["a"]
    assert outputs(root) == EMPTY


def test_a_file_that_is_gone_already_is_no_error(grow: Grow, root: Path) -> None:
    manager = grow({"a": 40})
    path_of(manager, "a").unlink()
    report = manager.cleanup_old_files(30)
    assert deleted(report) == ["a"]
    assert why_skipped(report) == ["already_gone"]
    assert (report.deleted_files, report.failed) == (0, ())
    assert outputs(root) == EMPTY


def test_a_file_that_nobody_recorded_stays_in_the_jobs_folder(grow: Grow, root: Path) -> None:
    manager = grow({"a": 40})
    (path_of(manager, "a").parent / "notes.txt").write_bytes(b"mine")
    report = manager.cleanup_old_files(30)
    assert deleted(report) == ["a"]
    assert why_skipped(report) == ["untracked"]
    assert report.removed_directories == 0
    assert outputs(root) == {"projects/default/a/notes.txt": b"mine"}


def test_a_job_folder_that_became_a_link_is_not_followed(grow: Grow, root: Path) -> None:
    manager = grow({"a": 40})
    folder = path_of(manager, "a").parent
    folder.rename(root.parent / "elsewhere")
    folder.symlink_to(root.parent / "elsewhere")
    report = manager.cleanup_old_files(30)
    assert deleted(report) == []
    assert why_skipped(report) == ["link"]
    assert why_kept(report) == {"a": "link"}
    assert len(list((root.parent / "elsewhere").iterdir())) == 1
    assert folder.is_symlink()


@pytest.mark.parametrize("path", ["../x", "projects/default/b/stranger.png", "b_loose.png"])
def test_a_record_edited_to_point_elsewhere_is_refused(
    grow: Grow, root: Path, open_manager: OpenManager, path: str
) -> None:
    manager = grow({"a": 40, "b": 20})
    record = manager.get_job_files("a").files[0]
    manager.close()
    for place in (root / "../x", root / "b_loose.png", root / "projects/default/b/stranger.png"):
        place.write_bytes((root / record.path).read_bytes())
        set_modified(place, LONG_AGO)
    document = root / DOCUMENT
    lines = document.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if f'"{record.path}"'.encode() in line:
            change = json.loads(line.rstrip().rstrip(b","))
            del change["check"]
            change["files"][0]["path"] = path
            lines[number] = encode(change).rstrip(b",\n") + line[len(line.rstrip(b",\n")) :]
    document.write_bytes(b"".join(lines))
    for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm"):
        (root / name).unlink(missing_ok=True)
    before = outputs(root)
    report = open_manager(root).cleanup_old_files(30)
    assert "a" not in deleted(report)
    assert why_kept(report)["a"] == "outside_library"
    assert outputs(root) == before
    assert (root / "../x").exists()


def test_purging_comes_exactly_so_many_days_later(grow: Grow, clock: Clock, root: Path) -> None:
    manager = grow({"a": 40, "b": 1}, trash_days=7)
    report = manager.cleanup_old_files(30)
    size = len(recording(IMAGES[0]))
    assert (report.bytes_trashed, report.bytes_freed, report.purged_files) == (size, 0, 0)
    clock.now = NOW + timedelta(days=7) - MICROSECOND
    assert manager.cleanup_old_files(30).purged_files == 0
    clock.now = NOW + timedelta(days=7)
    assert manager.cleanup_old_files(30).purged_files == 1
    assert manager.get_trash().jobs == ()
    clock.now = NOW
    assert_sound(root)


def test_without_days_in_the_trash_a_cleanup_deletes_at_once(grow: Grow, root: Path) -> None:
    manager = grow({"a": 40, "b": 1}, trash_days=0)
    report = manager.cleanup_old_files(30)
    assert deleted(report) == ["a"]
    assert (report.bytes_trashed, report.purged_files) == (0, 1)
    assert report.bytes_freed > 0
    assert manager.get_trash().jobs == ()
    assert_sound(root)


def _standing(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what stands on the disk, with all times, but for the throw-away index and the lock."""
    standing: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        name = str(path.relative_to(root))
        if name in {LOCK, CLEANUP_LOCK, ".comfy_files"} or name.startswith(INDEX):
            continue
        status = path.lstat()
        times = status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns
        standing[name] = (status.st_ino, status.st_size, *times)
    return standing


def test_a_rehearsal_says_what_a_cleanup_does_and_changes_nothing(grow: Grow, root: Path) -> None:
    manager = grow({"a": 40, "b": 39, "p/c": 38, "d": 1})
    set_modified(path_of(manager, "a"), NOW)
    _resize(path_of(manager, "b"))
    (path_of(manager, "c").parent / "notes.txt").write_bytes(b"mine")
    before = _standing(root)
    rehearsal = manager.plan_cleanup(30)
    assert _standing(root) == before
    report = manager.cleanup_old_files(30)
    assert rehearsal.dry_run
    assert deleted(report) == ["a", "c"]
    assert replace(rehearsal, dry_run=False, operation_id=report.operation_id) == report


def test_a_rehearsal_tells_of_what_is_purged_too(grow: Grow, clock: Clock, root: Path) -> None:
    manager = grow({"a": 40, "b": 29, "c": 1}, trash_days=1)
    manager.delete_job_files("a")
    clock.now = NOW + timedelta(days=1) + MICROSECOND
    before = _standing(root)
    rehearsal = manager.plan_cleanup(30)
    assert _standing(root) == before
    assert rehearsal.purged_files == 1
    report = manager.cleanup_old_files(30)
    assert deleted(report) == ["b"]
    assert replace(rehearsal, dry_run=False, operation_id=report.operation_id) == report
    assert_sound(root)


@pytest.mark.parametrize(
    ("policy", "allowance"),
    [
        ({"keep_within": 1}, "empty_project"),
        ({"keep_last": 1, "max_share": 0.1}, "large_share"),
    ],
)
def test_a_policy_that_takes_too_much_is_refused_until_it_is_allowed(
    grow: Grow, root: Path, open_manager: OpenManager, policy: dict[str, Any], allowance: str
) -> None:
    manager = grow({"a": 40, "b": 41}, retention_policy=policy)
    before = outputs(root)
    with pytest.raises(CleanupRefusedError) as refusal:
        manager.cleanup_old_files(30)
    assert allowance in str(refusal.value)
    assert outputs(root) == before
    with pytest.raises(CleanupRefusedError):
        manager.plan_cleanup(30)
    allowing = {**policy, "allow": ["empty_project", "large_share"]}
    expected = manager.plan_cleanup(30, allow=["empty_project", "large_share"])
    report = open_manager(root, retention_policy=allowing).cleanup_old_files(30)
    assert deleted(report) == deleted(expected) != []


def test_days_alone_may_empty_a_project(grow: Grow) -> None:
    assert deleted(grow({"a": 40}).cleanup_old_files(30)) == ["a"]


def test_a_record_of_the_future_stops_a_cleanup(grow: Grow, clock: Clock, root: Path) -> None:
    manager = grow({"a": 40, "b": 1})
    clock.now = NOW - timedelta(days=1, minutes=6)
    before = outputs(root)
    with pytest.raises(CleanupRefusedError, match="jumped"):
        manager.cleanup_old_files(30)
    assert outputs(root) == before
    assert deleted(manager.cleanup_old_files(30, allow=["clock_jump"])) == ["a"]


def test_a_last_cleanup_in_the_future_stops_a_cleanup(grow: Grow, clock: Clock) -> None:
    manager = grow({"a": 40, "b": 35})
    clock.now = NOW + timedelta(days=1)
    manager.cleanup_old_files(60)
    clock.now = NOW
    with pytest.raises(CleanupRefusedError, match="last cleanup"):
        manager.cleanup_old_files(30)


def test_everything_suddenly_expired_stops_a_cleanup(
    grow: Grow, clock: Clock, open_manager: OpenManager, root: Path
) -> None:
    manager = grow({"a": 2, "b": 1})
    assert deleted(manager.cleanup_old_files(30)) == []
    clock.now = NOW + timedelta(days=365)
    with pytest.raises(CleanupRefusedError, match="every job has expired"):
        manager.cleanup_old_files(30)
    allowing = open_manager(root, retention_policy={"keep_last": 1, "allow": ["clock_jump"]})
    assert deleted(allowing.cleanup_old_files(30)) == ["a"]


def test_a_plan_is_carried_out_exactly_and_once(grow: Grow, clock: Clock, root: Path) -> None:
    manager = grow({"a": 40, "b": 29.5})
    plan = manager.save_cleanup_plan(30)
    clock.now = NOW + timedelta(days=1)  # b has expired meanwhile, and is not in the plan
    report = manager.apply_cleanup_plan(plan.plan_id)
    assert deleted(report) == deleted(plan.report) == ["a"]
    assert replace(plan.report, dry_run=False, operation_id=plan.plan_id) == report
    after = without_lock(root)
    assert manager.apply_cleanup_plan(plan.plan_id) == report
    assert without_lock(root) == after


def test_a_plan_is_too_old_after_a_day(grow: Grow, clock: Clock, root: Path) -> None:
    manager = grow({"a": 40})
    plan = manager.save_cleanup_plan(30)
    clock.now = NOW + timedelta(days=1) + MICROSECOND
    before = without_lock(root)
    for plan_id in (plan.plan_id, "0" * 32, "../../x"):
        with pytest.raises(PlanNotFoundError):
            manager.apply_cleanup_plan(plan_id)
    assert without_lock(root) == before


def test_a_plan_of_which_a_job_has_changed_does_nothing(grow: Grow, root: Path) -> None:
    manager = grow({"a": 41, "b": 40})
    plan = manager.save_cleanup_plan(30)
    manager.update_job("b", pinned=True)
    before = without_lock(root)
    with pytest.raises(PlanStaleError):
        manager.apply_cleanup_plan(plan.plan_id)
    assert without_lock(root) == before


def test_a_cleanup_is_due_a_day_after_the_last_one(grow: Grow, clock: Clock) -> None:
    manager = grow({"a": 40, "b": 29.5}, retention_days=30)
    report = manager.cleanup_if_due()
    assert report is not None
    assert deleted(report) == ["a"]
    clock.now = NOW + timedelta(days=1)
    assert manager.cleanup_if_due() is None
    clock.now += MICROSECOND
    report = manager.cleanup_if_due()
    assert report is not None
    assert deleted(report) == ["b"]


def test_only_one_cleanup_runs_at_a_time(grow: Grow, root: Path) -> None:
    manager = grow({"a": 40})
    before = outputs(root)
    with hold(str(root / CLEANUP_LOCK), 0):
        with pytest.raises(CleanupRunningError):
            manager.cleanup_old_files(30)
        assert manager.cleanup_if_due() is None
    assert outputs(root) == before


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_plan_that_was_interrupted_is_finished_with_a_complete_report(
    grow: Grow, root: Path, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    manager = grow({"a": 42, "b": 41, "c": 40, "d": 1})
    plan = manager.save_cleanup_plan(30)
    done: list[tuple[Any, ...]] = []
    move = durable.move

    def stop_after_some(*arguments: Any, **options: Any) -> Any:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(arguments)
        return move(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "move", stop_after_some)
        with pytest.raises(KeyboardInterrupt):
            manager.apply_cleanup_plan(plan.plan_id)
    assert len(done) == moves
    manager.close()
    report = open_manager(root).apply_cleanup_plan(plan.plan_id)
    assert deleted(report) == ["a", "b", "c"]
    assert replace(plan.report, dry_run=False, operation_id=plan.plan_id) == report
    assert_sound(root)
