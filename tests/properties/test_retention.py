"""A library of any ages: what more generous rules keep, what nothing takes, and what a cleanup takes back."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import JobNotFoundError
from flask_comfy_files.core.policy import Protected, RetentionPolicy, Rules, read_policy
from flask_comfy_files.core.records import EPOCH
from flask_comfy_files.core.retention import Days, JobAge, Reason, Room, Selection, select
from tests.invariants import assert_cleanup_reconciles, assert_sound
from tests.trees import NOW, Clock, outputs, read_tree, write_tree

DAY_US = 24 * 60 * 60 * 1_000_000
NOW_US = (NOW - EPOCH) // timedelta(microseconds=1)
PROJECTS = ("kyoto", "osaka", "tokyo")
TAGS = ("final", "hero")

# So few days, and so many moments on their borders, that rules meet.
AGES_US = st.builds(
    lambda days, more: max(0, days * DAY_US + more),
    st.integers(0, 12),
    st.sampled_from([-1, 0, 0, 1]) | st.integers(0, DAY_US),
)
NUMBERS = st.integers(0, 6)
DAYS = st.integers(0, 12)
LIMITS = st.none() | st.integers(0, 3000)


@st.composite
def libraries(draw: st.DrawFn) -> list[JobAge]:
    """Return jobs as the index tells of them, newest first."""
    ages = draw(st.lists(AGES_US, max_size=12))
    jobs = [
        JobAge(
            job_id=f"job_{number}",
            project_id=draw(st.sampled_from(PROJECTS)),
            newest_us=NOW_US - age,
            restored_us=draw(st.just(0) | AGES_US.map(lambda ago: NOW_US - ago)),
            files=(files := draw(st.integers(1, 3))),
            size=100 * files,
            counted_size=draw(st.sampled_from([0, 100 * files])),
            seq=number,
            is_pinned=draw(st.integers(0, 4)) == 0,
            is_pending=draw(st.integers(0, 4)) == 0,
            tags=draw(st.lists(st.sampled_from(TAGS), unique=True)),
        )
        for number, age in enumerate(ages)
    ]
    return sorted(jobs, key=lambda job: (job.newest_us, job.job_id), reverse=True)


RULES = st.builds(
    Rules,
    days=st.none() | DAYS,
    keep_last=st.none() | NUMBERS,
    keep_daily=st.none() | NUMBERS,
    keep_within=st.none() | DAYS,
)
PROTECTED = st.builds(
    Protected,
    jobs=st.frozensets(st.sampled_from([f"job_{number}" for number in range(12)]), max_size=3),
    projects=st.frozensets(st.sampled_from(PROJECTS), max_size=1),
    tags=st.frozensets(st.sampled_from(TAGS), max_size=1),
)
POLICIES = st.builds(
    RetentionPolicy,
    rules=RULES.map(lambda rules: replace(rules, days=None)),
    projects=st.dictionaries(st.sampled_from(PROJECTS), RULES),
    protect=PROTECTED,
)


@st.composite
def limited_policies(draw: st.DrawFn) -> RetentionPolicy:
    """Return a policy with limits in bytes."""
    policy = draw(POLICIES)
    projects = {
        project_id: replace(rules, max_bytes=draw(LIMITS))
        for project_id, rules in policy.projects.items()
    }
    return replace(policy, projects=projects, max_bytes=draw(LIMITS), min_free_bytes=draw(LIMITS))


@st.composite
def more_generous(draw: st.DrawFn, rules: Rules) -> Rules:
    """Return rules of which none keeps less; one that is not set stays so, since it means another's."""
    return Rules(
        **{
            entry.name: None if before is None else before + draw(NUMBERS)
            for entry in dataclasses.fields(Rules)
            for before in [getattr(rules, entry.name)]
        }
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[RetentionPolicy, RetentionPolicy]:
    """Return a policy and a more generous one."""
    policy, more = draw(POLICIES), draw(PROTECTED)
    generous = RetentionPolicy(
        rules=draw(more_generous(policy.rules)),
        projects={
            project_id: draw(more_generous(rules)) for project_id, rules in policy.projects.items()
        },
        protect=Protected(
            jobs=policy.protect.jobs | more.jobs,
            projects=policy.protect.projects | more.projects,
            tags=policy.protect.tags | more.tags,
        ),
    )
    return policy, generous


def chosen(
    jobs: list[JobAge], policy: RetentionPolicy | None, days: Days, free: int = 1000
) -> Selection:
    return select(jobs, policy=policy, days=days, now=NOW, room=Room(free=free, in_trash=0))


def taken(selection: Selection) -> set[str]:
    return {choice.job.job_id for choice in selection.taken}


# --- the choice


@given(jobs=libraries(), policies=pairs(), days=DAYS, more=NUMBERS, is_asked=st.booleans())
def test_a_more_generous_policy_takes_no_job_that_a_stricter_one_keeps(
    jobs: list[JobAge],
    policies: tuple[RetentionPolicy, RetentionPolicy],
    days: int,
    more: int,
    *,
    is_asked: bool,
) -> None:
    strict, generous = policies
    before, after = (
        Days(asked=number if is_asked else None, default=99 if is_asked else number)
        for number in (days, days + more)
    )
    assert taken(chosen(jobs, generous, after)) <= taken(chosen(jobs, strict, before))


@settings(max_examples=50)
@given(libraries(), POLICIES, DAYS)
def test_rules_that_keep_never_take_what_the_days_alone_would_not(
    jobs: list[JobAge], policy: RetentionPolicy, days: int
) -> None:
    how_old = Days(asked=days, default=0)
    assert taken(chosen(jobs, policy, how_old)) <= taken(chosen(jobs, None, how_old))


@settings(max_examples=50)
@given(libraries(), DAYS)
def test_days_alone_take_each_job_that_is_older_and_that_nobody_wants_to_keep(
    jobs: list[JobAge], days: int
) -> None:
    assert taken(chosen(jobs, None, Days(asked=days, default=0))) == {
        job.job_id
        for job in jobs
        if max(job.newest_us, job.restored_us) < NOW_US - days * DAY_US
        and not (job.is_pinned or job.is_pending)
    }


@given(libraries(), limited_policies(), DAYS)
def test_nothing_that_is_pinned_protected_or_pending_is_ever_taken(
    jobs: list[JobAge], policy: RetentionPolicy, days: int
) -> None:
    protect = policy.protect
    for job, _ in chosen(jobs, policy, Days(asked=None, default=days)).taken:
        assert not job.is_pinned
        assert not job.is_pending
        assert job.job_id not in protect.jobs
        assert job.project_id not in protect.projects
        assert not protect.tags & set(job.tags)


@settings(max_examples=50)
@given(libraries(), limited_policies(), DAYS)
def test_every_job_is_taken_or_kept_once_and_nothing_is_counted_twice(
    jobs: list[JobAge], policy: RetentionPolicy, days: int
) -> None:
    selection = chosen(jobs, policy, Days(asked=days, default=0))
    going = [job for job, _ in selection.taken]
    assert len({job.job_id for job in going}) == len(going)
    assert len(going) + sum(kept.jobs for kept in selection.kept) == len(jobs)
    for measure, total in (("files", selection.found.files), ("bytes", selection.found.bytes)):
        size = "size" if measure == "bytes" else measure
        assert sum(getattr(job, size) for job in jobs) == total
        assert total == sum(getattr(job, size) for job in going) + sum(
            getattr(kept, measure) for kept in selection.kept
        )
    assert going == sorted(going, key=lambda job: (job.newest_us, job.job_id))


@settings(max_examples=50)
@given(libraries(), limited_policies(), DAYS)
def test_a_limit_takes_the_oldest_that_it_may_and_none_too_many(
    jobs: list[JobAge], policy: RetentionPolicy, days: int
) -> None:
    free = 500
    how_old = Days(asked=None, default=days)
    selection = chosen(jobs, policy, how_old, free)
    by_age = chosen(
        jobs,
        replace(
            policy,
            max_bytes=None,
            min_free_bytes=None,
            projects={
                key: replace(rules, max_bytes=None) for key, rules in policy.projects.items()
            },
        ),
        how_old,
    )
    assert taken(by_age) <= taken(selection)
    extra = [choice for choice in selection.taken if choice.job.job_id not in taken(by_age)]
    assert Reason.EXPIRED not in {reason for _, reason in extra}
    gone = taken(selection)
    for last, reason in extra[-1:]:  # without the last of them a limit would be exceeded
        left = [job for job in jobs if job.job_id not in gone or job is last]
        own = policy.rules_of(last.project_id).max_bytes
        size = sum(job.counted_size for job in left)
        exceeded = {
            Reason.MAX_BYTES: size > (policy.max_bytes or 0),
            Reason.MIN_FREE_BYTES: free + sum(job.counted_size for job in jobs) - size
            < (policy.min_free_bytes or 0),
            Reason.PROJECT_MAX_BYTES: sum(
                job.counted_size for job in left if job.project_id == last.project_id
            )
            > (own or 0),
        }
        assert exceeded[reason]


@settings(max_examples=50)
@given(libraries(), PROTECTED)
def test_a_limit_out_of_reach_takes_everything_but_what_nobody_may_take(
    jobs: list[JobAge], protect: Protected
) -> None:
    policy = RetentionPolicy(protect=protect, min_free_bytes=2**62)
    kept = {
        job.job_id
        for job in jobs
        if (job.is_pinned or job.is_pending or job.job_id in protect.jobs)
        or (job.project_id in protect.projects or protect.tags & set(job.tags))
        or job.restored_us
    }
    selection = chosen(jobs, policy, Days(asked=99, default=0))
    assert taken(selection) == {job.job_id for job in jobs} - kept


# --- real files


@dataclass(frozen=True)
class Plot:
    """A job of a small library: its age in days and what it has."""

    age: float
    project_id: str
    pictures: int
    is_pinned: bool
    tags: tuple[str, ...]


PLOTS = st.lists(
    st.builds(
        Plot,
        age=st.sampled_from([0.5, 3, 3.5, 6, 20, 40]),
        project_id=st.sampled_from(PROJECTS[:2]),
        pictures=st.integers(1, 3),
        is_pinned=st.booleans(),
        tags=st.lists(st.sampled_from(TAGS), unique=True, max_size=1).map(tuple),
    ),
    max_size=5,
)
SETTINGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "retention_days": st.sampled_from([0, 3, 5, 30]),
        "trash_days": st.sampled_from([0, 7]),
        "retention_policy": st.sampled_from(
            [
                {"keep_last": 1},
                {"keep_daily": 2, "keep_within": 4},
                {"max_bytes": 50},
                {"min_free_bytes": 2**62, "protect": {"tags": ["hero"]}},
                {"projects": {"osaka": {"days": 2, "max_bytes": 20}}},
            ]
        ).map(read_policy),
    },
)
ALLOWED = ("empty_project", "large_share", "clock_jump")


@contextmanager
def library_of(plots: list[Plot]) -> Iterator[tuple[Path, Clock]]:
    """Make a library for a while; the bytes of all its files differ."""
    with tempfile.TemporaryDirectory() as folder:
        root, clock = Path(folder, "output"), Clock()
        root.mkdir()
        with FileManager(root, clock=clock, min_free_bytes=0) as manager:
            for number, plot in enumerate(plots):
                clock.now = NOW - timedelta(days=plot.age)
                names = [f"{number}_{part}.txt" for part in range(plot.pictures)]
                written = {name: f"what {name} says".encode() for name in names}
                write_tree(root, written, clock.now - timedelta(hours=1))
                manager.organize_output(f"job_{number}", plot.project_id, files=names)
                manager.update_job(f"job_{number}", pinned=plot.is_pinned, tags=plot.tags)
        clock.now = NOW
        yield root, clock


@settings(max_examples=20)
@given(PLOTS, SETTINGS)
def test_a_rehearsal_a_plan_and_the_cleanup_say_the_same_and_do_it(
    plots: list[Plot], given_settings: dict[str, Any]
) -> None:
    with library_of(plots) as (root, clock):
        with FileManager(root, clock=clock, **{"min_free_bytes": 0, **given_settings}) as manager:
            before = outputs(root)
            rehearsal = manager.plan_cleanup(allow=ALLOWED)
            plan = manager.save_cleanup_plan(allow=ALLOWED)
            assert plan.report == rehearsal
            assert outputs(root) == before
            records = {
                job.job_id: manager.get_job_files(job.job_id).files for job in rehearsal.jobs
            }
            report = manager.apply_cleanup_plan(plan.plan_id)
            assert replace(rehearsal, dry_run=False, operation_id=plan.plan_id) == report
            assert_cleanup_reconciles(report)
            after = {path for path, entry in outputs(root).items() if entry is not None}
            going = {record.path for files in records.values() for record in files}
            assert after == {path for path in before if before[path] is not None} - going
            for job in report.jobs:
                with pytest.raises(JobNotFoundError):
                    manager.get_job_files(job.job_id)
        if plots:
            assert_sound(root)


def everything(manager: FileManager, root: Path) -> dict[str, object]:
    """Return all that a library answers and holds, but for the document, and when its files were written."""
    jobs = {
        f"job_{number}": manager.get_job_files(f"job_{number}")
        for number in range(len(list(root.glob("projects/*/*"))))
    }
    records = [record for job in jobs.values() for record in job]
    return {
        "tree": outputs(root),
        "times": {path: path.stat().st_mtime_ns for path in root.glob("projects/*/*/*")},
        "inodes": {path: path.stat().st_ino for path in root.glob("projects/*/*/*")},
        "jobs": jobs,
        "projects": [
            (manager.get_project_files(project_id), manager.get_project_summary(project_id))
            for project_id in {job.project_id for job in jobs.values()}
        ],
        "files": [manager.get_file_metadata(record.file_id) for record in records],
        "names": [manager.resolve_name(record.original_path) for record in records],
        "stats": replace(manager.get_system_stats(), disk=None),
    }


@settings(max_examples=20)
@given(PLOTS.filter(bool), st.data())
def test_to_delete_and_to_restore_leaves_everything_as_it_was(
    plots: list[Plot], data: st.DataObject
) -> None:
    with library_of(plots) as (root, clock):
        with FileManager(root, clock=clock, min_free_bytes=0) as manager:
            before = everything(manager, root)
            if data.draw(st.booleans(), "by a cleanup"):
                gone = [
                    job.job_id for job in manager.cleanup_old_files(data.draw(DAYS, "days")).jobs
                ]
            else:
                free = [f"job_{number}" for number, plot in enumerate(plots) if not plot.is_pinned]
                gone = data.draw(st.permutations(free), "deleted")
                for job_id in gone:
                    manager.delete_job_files(job_id)
            assert {job.job_id for job in manager.get_trash()} == set(gone)
            for job_id in data.draw(st.permutations(gone), "restored"):
                clock.advance(60)
                manager.restore_job_files(job_id)
            assert everything(manager, root) == before
        assert_sound(root)
        assert not [path for path in read_tree(root) if "/trash/" in path]
