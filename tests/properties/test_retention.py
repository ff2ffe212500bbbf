"""Whatever the rules and the library: what they keep, what is never taken, and that nothing is lost."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files import FileManager
from flask_comfy_files.core.policy import read_policy
from flask_comfy_files.core.records import EPOCH
from flask_comfy_files.core.retention import Days, JobAge, Room, select
from tests.invariants import assert_sound
from tests.trees import NOW, Clock, outputs, recording, write_tree

MICROSECOND = timedelta(microseconds=1)
ALL = ["empty_policy", "empty_project", "large_share", "clock_jump"]
RULES = ("keep_last", "keep_daily", "keep_within")
ENOUGH = Room(free=2**50, in_trash=0)
IMAGES = ["mix_00001_.png", "pv_00001_.png", "batch_00001_.png"]


@st.composite
def libraries(draw: st.DrawFn) -> list[JobAge]:
    """Return jobs, newest first."""
    ages = draw(st.lists(st.integers(0, 60 * 24), max_size=12))
    return [
        JobAge(
            job_id=f"job{number}",
            project_id=draw(st.sampled_from(["tokyo", "osaka"])),
            newest_us=(NOW - timedelta(hours=age) - EPOCH) // MICROSECOND,
            restored_us=0,
            files=1,
            size=100,
            counted_size=100,
            seq=number,
            is_pinned=draw(st.booleans()),
            is_pending=draw(st.booleans()),
            tags=draw(st.sampled_from([(), ("master",)])),
        )
        for number, age in enumerate(sorted(ages))
    ]


def taken(jobs: list[JobAge], policy: dict[str, Any], days: int) -> set[str]:
    selection = select(
        jobs,
        policy=read_policy({**policy, "allow": ALL}),
        days=Days(asked=days, default=30),
        now=NOW,
        room=ENOUGH,
    )
    choices = [choice.job.job_id for choice in selection.taken]
    assert len(choices) == len(set(choices))
    assert len(choices) + sum(kept.jobs for kept in selection.kept) == len(jobs)
    return set(choices)


NUMBERS = st.fixed_dictionaries({rule: st.integers(0, 40) for rule in RULES})


@given(libraries(), NUMBERS, NUMBERS, st.integers(0, 60), st.integers(0, 60))
def test_more_generous_rules_keep_all_that_others_keep(
    jobs: list[JobAge], rules: dict[str, int], more: dict[str, int], days: int, more_days: int
) -> None:
    generous = {rule: rules[rule] + more[rule] for rule in RULES}
    assert taken(jobs, generous, days + more_days) <= taken(jobs, rules, days)


@given(libraries(), st.integers(0, 500), st.sampled_from([0, 2**60]))
def test_nothing_takes_what_is_pinned_protected_or_pending(
    jobs: list[JobAge], max_bytes: int, floor: int
) -> None:
    protect = {"jobs": ["job0"], "projects": ["osaka"], "tags": ["master"]}
    policy = {"protect": protect, "max_bytes": max_bytes, "min_free_bytes": floor}
    untouchable = {
        job.job_id
        for job in jobs
        if job.is_pinned
        or job.is_pending
        or job.tags
        or job.project_id == "osaka"
        or job.job_id == "job0"
    }
    gone = taken(jobs, policy, 0)
    assert gone.isdisjoint(untouchable)
    if floor:
        now_us = (NOW - EPOCH) // MICROSECOND
        assert gone == {job.job_id for job in jobs if job.newest_us <= now_us} - untouchable


@settings(max_examples=12)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
    st.integers(0, 60),
    st.integers(0, 2),
)
def test_a_plan_is_its_effect_and_restoring_brings_everything_back(
    ages: list[int], days: int, keep_last: int
) -> None:
    clock = Clock()
    policy = {"keep_last": keep_last, "allow": ALL}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "output")
        images = {f"job{n}_00001_.png": recording(IMAGES[n]) for n in range(len(ages))}
        write_tree(root, images, NOW - timedelta(days=90))
        with FileManager(root, clock=clock, retention_policy=policy) as manager:
            for number, age in enumerate(ages):
                clock.now = NOW - timedelta(days=age)
                manager.organize_output(f"job{number}")
            clock.now = NOW
            job_ids = [f"job{number}" for number in range(len(ages))]
            before = outputs(root), [manager.get_job_files(job_id).files for job_id in job_ids]
            plan = manager.save_cleanup_plan(days)
            report = manager.apply_cleanup_plan(plan.plan_id)
            assert report == replace(plan.report, dry_run=False, operation_id=plan.plan_id)
            for job in report.jobs:
                manager.restore_job_files(job.job_id)
            after = outputs(root), [manager.get_job_files(job_id).files for job_id in job_ids]
            assert after == before
        assert_sound(root)
