from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import CleanupRefusedError, InvalidInputError
from flask_comfy_files.core.reports import CleanupReport
from tests.conftest import OpenManager
from tests.invariants import assert_cleanup_reconciles, assert_sound
from tests.trees import BATCH, Clock, library, recording, write_tree

A_MICROSECOND = timedelta(microseconds=1)
A_DAY = timedelta(days=1)
PICTURE_BYTES = len(recording(BATCH[0]))

Decisions = tuple[dict[str, str], dict[str, str | int]]


class Shelf:
    """A library in which jobs of any age are put, each picture of them with the same bytes."""

    def __init__(self, root: Path, clock: Clock, open_manager: OpenManager) -> None:
        self.root = root
        self.clock = clock
        self._open = open_manager
        self._keeper = open_manager(root)
        self._written = 0

    def put(
        self,
        job_id: str,
        age: timedelta | float,
        project_id: str = "tokyo",
        *,
        pictures: int = 1,
        tags: list[str] | None = None,
        pinned: bool | None = None,
    ) -> None:
        """Organize new files of a job as of some days ago."""
        now = self.clock.now
        self.clock.now -= age if isinstance(age, timedelta) else timedelta(days=age)
        names = []
        for _ in range(pictures):
            self._written += 1
            names.append(f"ComfyUI_{self._written:05}_.png")
        written = dict.fromkeys(names, recording(BATCH[0]))
        write_tree(self.root, written, self.clock.now - timedelta(hours=1))
        self._keeper.organize_output(job_id, project_id, files=names)
        if tags is not None or pinned is not None:
            self._keeper.update_job(job_id, pinned=pinned, tags=tags)
        self.clock.now = now

    def manager(self, **policy: Any) -> FileManager:
        """Return a manager with a policy, and without a floor for the free space."""
        return self._open(self.root, min_free_bytes=0, retention_policy=policy or None)

    def clean(
        self, days: int | None = None, *, allow: tuple[str, ...] = (), **policy: Any
    ) -> Decisions:
        """Clean up by a policy, after a rehearsal of the same; return what ``decisions`` does."""
        manager = self.manager(**policy)
        before = library(self.root)
        rehearsal = manager.plan_cleanup(days, allow=allow)
        assert library(self.root) == before
        report = manager.cleanup_old_files(days, allow=allow)
        assert replace(rehearsal, dry_run=False, operation_id=report.operation_id) == report
        assert_cleanup_reconciles(report)
        assert_sound(self.root)
        return decisions(report)


def decisions(report: CleanupReport) -> Decisions:
    """Return why which jobs went, and why which stayed, or for what reason how many of a project."""
    kept = {
        (entry.job_id or f"{entry.project_id}: {entry.reason}"): (
            entry.reason if entry.job_id else entry.jobs
        )
        for entry in report.kept
    }
    assert len(kept) == len(report.kept)
    return {job.job_id: job.reason for job in report.jobs}, kept


@pytest.fixture
def shelf(tmp_path: Path, clock: Clock, open_manager: OpenManager) -> Shelf:
    root = tmp_path / "output"
    root.mkdir()
    return Shelf(root, clock, open_manager)


# --- days


@pytest.fixture(params=["UTC0", "Kiribati-14", "NewfoundlandS3:30NewfoundlandD,M3.2.0,M11.1.0"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have the machine in a time zone; the clock of the test stands in it, too."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("time_zone")
@pytest.mark.parametrize("days", [0, 1, 30, 36500])
def test_exactly_so_many_days_old_stays_and_a_microsecond_more_goes(
    days: int, shelf: Shelf
) -> None:
    shelf.clock.now = shelf.clock.now.astimezone()
    if days == 36500:
        shelf.clock.now += 50 * 365 * A_DAY  # so that there are files that old since 1970
    shelf.put("younger", days * A_DAY - (A_MICROSECOND if days else A_DAY * 0))
    shelf.put("exactly", days * A_DAY)
    shelf.put("older", days * A_DAY + A_MICROSECOND)
    assert shelf.clean(days) == ({"older": "expired"}, {"tokyo: not_expired": 2})
    shelf.clock.now += A_MICROSECOND
    assert shelf.clean(days, allow=("clock_jump",))[0].keys() >= {"exactly"}


def test_the_days_are_the_setting_where_nobody_says_any(
    shelf: Shelf, open_manager: OpenManager
) -> None:
    shelf.put("month", 30)
    shelf.put("older", 30.001)
    assert shelf.clean()[0].keys() == {"older"}
    shelf.put("week", 7.001)
    report = open_manager(shelf.root, retention_days=7).plan_cleanup()
    assert report.days == 7
    assert decisions(report)[0].keys() == {"month", "week"}


@pytest.mark.parametrize("days", [True, False, "30", 1.5, 30.0, -1, 36501, [30], b"30"], ids=repr)
def test_what_is_no_number_of_days_is_refused_and_changes_nothing(days: Any, shelf: Shelf) -> None:
    shelf.put("ancient", 99_999 / 10)
    before = library(shelf.root)
    manager = shelf.manager()
    for act in (manager.cleanup_old_files, manager.plan_cleanup, manager.save_cleanup_plan):
        with pytest.raises(
            InvalidInputError, match=r"days: .* is not a whole number from 0 to 365"
        ):
            act(days)
    assert library(shelf.root) == before


def test_a_job_is_as_old_as_its_newest_file_and_goes_with_all_of_them(shelf: Shelf) -> None:
    shelf.put("grown", 90, pictures=2)
    shelf.put("grown", 10)
    assert shelf.clean(10) == ({}, {"tokyo: not_expired": 1})
    report = shelf.manager().cleanup_old_files(9)
    assert [(job.job_id, job.files, job.bytes) for job in report.jobs] == [
        ("grown", 3, 3 * PICTURE_BYTES)
    ]
    assert report.jobs[0].created_at == "2026-01-24T04:05:06Z"


def test_a_clock_that_went_back_makes_no_job_older(shelf: Shelf) -> None:
    shelf.put("job", 10)
    shelf.put("job", 90)
    assert shelf.clean(10) == ({}, {"tokyo: not_expired": 1})


def test_jobs_without_files_are_no_matter_of_a_cleanup(shelf: Shelf) -> None:
    shelf.put("empty", 90, pictures=0)
    assert shelf.clean(0) == ({}, {})
    assert shelf.manager().get_job_files("empty").files == ()


def test_what_goes_is_told_oldest_first(shelf: Shelf) -> None:
    for age in (50, 70, 60):
        shelf.put(f"job_{age}", age)
    assert list(shelf.clean()[0]) == ["job_70", "job_60", "job_50"]


# --- rules


def test_the_newest_jobs_of_each_project_are_kept(shelf: Shelf) -> None:
    for age in (40, 50, 60):
        shelf.put(f"tokyo_{age}", age)
        shelf.put(f"osaka_{age}", age + 1, "osaka")
    assert shelf.clean(keep_last=2) == (
        {"tokyo_60": "expired", "osaka_60": "expired"},
        dict.fromkeys(["tokyo_40", "tokyo_50", "osaka_40", "osaka_50"], "keep_last"),
    )


def test_young_jobs_count_among_the_newest(shelf: Shelf) -> None:
    for age in (1, 2, 40, 50):
        shelf.put(f"job_{age}", age)
    gone, kept = shelf.clean(keep_last=3)
    assert gone == {"job_50": "expired"}
    assert kept == {"tokyo: not_expired": 2, "job_40": "keep_last"}


@pytest.mark.usefixtures("time_zone")
def test_of_each_of_the_last_days_in_utc_the_newest_job_is_kept(shelf: Shelf) -> None:
    days_before = {
        "a day's last": datetime(2025, 12, 24, 23, 59, 59, 999_999, UTC),
        "a day's second to last": datetime(2025, 12, 24, 23, 59, 59, 999_998, UTC),
        "a day's first": datetime(2025, 12, 24, tzinfo=UTC),
        "the day before": datetime(2025, 12, 23, 12, tzinfo=UTC),
        "long before": datetime(2025, 11, 1, 8, tzinfo=UTC),
        "too long before": datetime(2025, 10, 1, 8, tzinfo=UTC),
    }
    ids = {name: name.translate(str.maketrans(" ", "-", "'")) for name in days_before}
    for name, at in days_before.items():
        shelf.put(ids[name], shelf.clock.now - at)
    gone, kept = shelf.clean(keep_daily=3, max_share=1)
    assert gone == dict.fromkeys(
        [ids["too long before"], ids["a day's first"], ids["a day's second to last"]], "expired"
    )
    assert set(kept.values()) == {"keep_daily"}


def test_every_job_of_the_last_days_is_kept(shelf: Shelf) -> None:
    shelf.put("exactly", 14)
    shelf.put("older", 14 * A_DAY + A_MICROSECOND)
    assert shelf.clean(7, keep_within=14) == (
        {"older": "expired"},
        {"tokyo: keep_within": 1},
    )


@pytest.mark.parametrize(
    ("protect", "reason"),
    [
        ({"jobs": ["hero"]}, "protected_job"),
        ({"projects": ["osaka"]}, "protected_project"),
        ({"tags": ["keep", "other"]}, "protected_tag"),
    ],
    ids=["job", "project", "tag"],
)
def test_what_is_protected_is_kept_at_any_age_and_any_size(
    protect: dict[str, list[str]], reason: str, shelf: Shelf
) -> None:
    shelf.put("hero", 90, "osaka", tags=["keep", "x"])
    shelf.put("old", 90, tags=["keeper", "y"])
    shelf.put("young", 1, tags=["KEEP"])
    shelf.put("young_hero", 1, "osaka", tags=["keep"])
    protect = {**protect, **({"jobs": ["hero", "young_hero"]} if "jobs" in protect else {})}
    gone, kept = shelf.clean(
        protect=protect, max_bytes=0, max_share=1, allow=("empty_project", "large_share")
    )
    assert gone == {"old": "expired", "young": "max_bytes"}
    assert kept == (
        {"osaka: not_expired": 1, "osaka: protected_project": 1}
        if reason == "protected_project"
        else {"osaka: not_expired": 1, "hero": reason}
    )


LIMITS = {"max_bytes": 0, "min_free_bytes": 2**62, "projects": {"tokyo": {"max_bytes": 0}}}
"""They take everything that they may take."""

EVERYTHING = ("large_share", "empty_project")


def test_a_pinned_job_is_never_selected_by_anything(shelf: Shelf) -> None:
    for age in (90, 1):
        shelf.put(f"hero_{age}", age, pinned=True)
        shelf.put(f"other_{age}", age)
    gone, kept = shelf.clean(30, allow=EVERYTHING, **LIMITS)
    assert gone == {"other_90": "expired", "other_1": "project_max_bytes"}
    assert kept["hero_90"] == "pinned"
    assert shelf.clean(0)[0] == {}
    shelf.manager().update_job("hero_90", pinned=False)
    assert shelf.clean()[0] == {"hero_90": "expired"}


def test_a_pending_job_is_never_selected_by_anything(
    shelf: Shelf, open_manager: OpenManager
) -> None:
    busy = open_manager(shelf.root, request_budget_bytes=1)
    for age in (90, 1):
        shelf.put(f"job_{age}", age)
        write_tree(shelf.root, {f"late_{age}.png": recording(BATCH[1])})
        busy.complete_job(f"job_{age}", "tokyo", files=[f"late_{age}.png"])
    assert len(busy.get_pending_jobs()) == 2
    gone, kept = shelf.clean(30, allow=EVERYTHING, **LIMITS)
    assert gone == {}
    assert kept["job_90"] == "pending"
    assert shelf.clean(0) == ({}, {"job_90": "pending", "job_1": "pending"})
    shelf.manager().retry_pending_jobs()
    shelf.clock.advance(1)
    assert shelf.clean(0)[0].keys() == {"job_90", "job_1"}


@pytest.mark.usefixtures("time_zone")
def test_a_restored_job_is_kept_as_if_it_were_organized_anew(shelf: Shelf) -> None:
    shelf.put("back", 90)
    shelf.put("young", 0)
    manager = shelf.manager()
    manager.delete_job_files("back")
    manager.restore_job_files("back")
    shelf.clock.now += 5 * A_DAY
    assert shelf.clean(5) == ({}, {"back": "recently_restored", "tokyo: not_expired": 1})
    shelf.clock.now += A_MICROSECOND
    assert shelf.clean(5)[0].keys() == {"back", "young"}


def test_where_several_rules_keep_a_job_the_strongest_is_told(shelf: Shelf) -> None:
    shelf.put("hero", 90, tags=["x"], pinned=True)
    policy: dict[str, Any] = {"keep_last": 1, "keep_daily": 1, "keep_within": 99}
    protect = {"jobs": ["hero"], "projects": ["tokyo"], "tags": ["x"]}
    reasons = [shelf.clean(30, protect=protect, **policy)[1]]
    shelf.manager().update_job("hero", pinned=False)
    for key in (None, "jobs", "projects", "tags"):
        protect.pop(key or "", None)
        reasons.append(shelf.clean(30, protect=protect, **policy)[1])
    for key in ("keep_last", "keep_daily"):
        del policy[key]
        reasons.append(shelf.clean(30, **policy)[1])
    assert reasons == [
        {"hero": "pinned"},
        {"hero": "protected_job"},
        {"tokyo: protected_project": 1},
        {"hero": "protected_tag"},
        {"hero": "keep_last"},
        {"hero": "keep_daily"},
        {"tokyo: keep_within": 1},
    ]


# --- bytes


def test_the_oldest_go_until_the_library_is_small_enough(shelf: Shelf) -> None:
    for age in (1, 2, 3, 4):
        shelf.put(f"job_{age}", age, project_id=f"project_{age % 2}")
    room = 2 * PICTURE_BYTES
    assert shelf.clean(max_bytes=room) == (
        {"job_4": "max_bytes", "job_3": "max_bytes"},
        {"project_0: not_expired": 1, "project_1: not_expired": 1},
    )
    assert shelf.clean(max_bytes=room)[0] == {}
    assert shelf.clean(max_bytes=room - 1, allow=EVERYTHING)[0] == {"job_2": "max_bytes"}


def test_what_has_expired_counts_before_younger_jobs_go(shelf: Shelf) -> None:
    for age in (1, 2, 90):
        shelf.put(f"job_{age}", age)
    assert shelf.clean(max_bytes=2 * PICTURE_BYTES)[0] == {"job_90": "expired"}


def test_what_a_rule_keeps_counts_and_stays(shelf: Shelf) -> None:
    shelf.put("large", 3, pictures=3, pinned=True)
    shelf.put("medium", 2)
    shelf.put("small", 1)
    assert shelf.clean(max_bytes=4 * PICTURE_BYTES)[0] == {"medium": "max_bytes"}
    assert shelf.clean(max_bytes=1, allow=EVERYTHING)[0] == {"small": "max_bytes"}


def test_the_oldest_of_a_project_go_until_it_is_small_enough(shelf: Shelf) -> None:
    for age in (1, 2, 3):
        shelf.put(f"tokyo_{age}", age)
        shelf.put(f"osaka_{age}", age, "osaka")
    projects = {"tokyo": {"max_bytes": PICTURE_BYTES}, "kyoto": {"max_bytes": 0}}
    assert shelf.clean(projects=projects) == (
        {"tokyo_3": "project_max_bytes", "tokyo_2": "project_max_bytes"},
        {"tokyo: not_expired": 1, "osaka: not_expired": 3},
    )


def free_bytes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have so many bytes free on every volume, whatever is on it."""
    real = os.statvfs(".")
    facts = [*real]
    facts[0:5] = [1, 1, 2**62, number, number]
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(facts))


def test_the_oldest_go_until_enough_is_free(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in (1, 2, 3, 4):
        shelf.put(f"job_{age}", age)
    free_bytes(monkeypatch, 1000)
    floor = 1000 + 2 * PICTURE_BYTES
    assert shelf.clean(min_free_bytes=1000)[0] == {}
    assert shelf.clean(min_free_bytes=floor)[0] == dict.fromkeys(
        ["job_4", "job_3"], "min_free_bytes"
    )


def test_what_has_expired_counts_as_free_before_younger_jobs_go(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in (1, 2, 3, 90):
        shelf.put(f"job_{age}", age)
    free_bytes(monkeypatch, 1000)
    gone, _ = shelf.clean(min_free_bytes=1000 + 2 * PICTURE_BYTES)
    assert gone == {"job_90": "expired", "job_3": "min_free_bytes"}


def test_what_rests_in_the_trash_counts_as_free(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age in (1, 2, 3, 4):
        shelf.put(f"job_{age}", age)
    shelf.manager().delete_job_files("job_1")
    free_bytes(monkeypatch, 1000)
    assert shelf.clean(min_free_bytes=1000 + 2 * PICTURE_BYTES)[0] == {"job_4": "min_free_bytes"}


def test_a_floor_that_nothing_reaches_takes_all_that_it_may(shelf: Shelf) -> None:
    shelf.put("job", 1)
    shelf.put("kept", 2, pinned=True)
    gone, _ = shelf.clean(min_free_bytes=2**62, allow=EVERYTHING)
    assert gone == {"job": "min_free_bytes"}


# --- projects


def test_a_project_may_have_rules_of_its_own(shelf: Shelf) -> None:
    for age in (5, 40, 50):
        for project_id in ("tokyo", "osaka", "kyoto"):
            shelf.put(f"{project_id}_{age}", age, project_id)
    gone, kept = shelf.clean(
        keep_last=2,
        max_share=1,
        projects={"osaka": {"keep_last": 1, "days": 4}, "kyoto": {"keep_last": 0, "days": 45}},
    )
    assert gone == dict.fromkeys(["tokyo_50", "osaka_40", "osaka_50", "kyoto_50"], "expired")
    assert kept == {
        "tokyo: not_expired": 1,
        "tokyo_40": "keep_last",
        "osaka_5": "keep_last",
        "kyoto: not_expired": 2,
    }


def test_days_that_are_asked_for_shorten_no_projects_own(shelf: Shelf) -> None:
    for project_id in ("tokyo", "osaka", "kyoto"):
        shelf.put(project_id, 20, project_id)
    policy = {"projects": {"osaka": {"days": 25}, "kyoto": {"days": 5}}, "max_share": 1}
    assert shelf.clean(10, allow=EVERYTHING, **policy) == (
        {"tokyo": "expired", "kyoto": "expired"},
        {"osaka: not_expired": 1},
    )


# --- what is refused unless somebody says it


def expect_refusal(shelf: Shelf, allowance: str, days: int | None = None, **policy: Any) -> str:
    """Expect that a cleanup is refused unless something is allowed, in a call or in the policy; return why."""
    manager = shelf.manager(**policy)
    before = library(shelf.root)
    reasons = set()
    for act in (manager.plan_cleanup, manager.save_cleanup_plan, manager.cleanup_old_files):
        for others in (set(), {"empty_project", "large_share", "clock_jump"} - {allowance}):
            with pytest.raises(CleanupRefusedError) as caught:
                act(days, allow=others)
            assert caught.value.allowance == allowance
            assert f"allow {allowance}" in str(caught.value)
            reasons.add(caught.value.reason)
    # That somebody has tried is noted.
    noted = {".comfy_files/cleanup.json": None, ".comfy_files/cleanup.lock": None}
    assert {**library(shelf.root), **noted} == {**before, **noted}
    allowed = manager.plan_cleanup(days, allow=[allowance])
    assert allowed.deleted_files > 0
    if policy:
        policy["allow"] = [allowance]
        assert shelf.manager(**policy).plan_cleanup(days) == allowed
    (reason,) = reasons
    return reason


def test_a_policy_that_leaves_a_project_empty_is_refused(shelf: Shelf) -> None:
    for number in range(4):
        shelf.put(f"tokyo_{number}", 1)
    shelf.put("osaka", 90, "osaka")
    assert expect_refusal(shelf, "empty_project", keep_within=1) == (
        "the policy would leave project 'osaka' empty"
    )
    shelf.put("kyoto", 90, "kyoto")
    assert expect_refusal(shelf, "empty_project", keep_within=1) == (
        "the policy would leave project 'kyoto' and 1 more empty"
    )


def test_a_policy_that_takes_a_large_share_of_the_files_is_refused(shelf: Shelf) -> None:
    shelf.put("old", 90, pictures=3)
    shelf.put("new", 1, pictures=2)
    size = PICTURE_BYTES
    assert expect_refusal(shelf, "large_share", keep_last=1) == (
        f"the policy would take 3 of 5 files, {3 * size} of {5 * size} bytes,"
        " more than the share of 0.5 that max_share allows"
    )
    assert shelf.clean(keep_last=1, max_share=0.6)[0] == {"old": "expired"}


def test_a_policy_that_takes_a_large_share_of_the_bytes_is_refused(shelf: Shelf) -> None:
    shelf.put("old", 90)
    shelf.clock.now -= 90 * A_DAY
    big = recording("adv_00001.png") + recording("adv_00001.png")
    write_tree(shelf.root, {"big.png": big}, shelf.clock.now - A_DAY)
    shelf.manager().organize_output("old", "tokyo", files=["big.png"])
    shelf.clock.now += 90 * A_DAY
    shelf.put("new", 1, pictures=3)
    assert "2 of 5 files" in expect_refusal(shelf, "large_share", keep_last=1)


def test_half_of_the_library_is_no_large_share(shelf: Shelf) -> None:
    shelf.put("old", 90)
    shelf.put("new", 1)
    assert shelf.clean(keep_last=1)[0] == {"old": "expired"}


def test_days_without_a_policy_do_what_they_say(shelf: Shelf) -> None:
    shelf.put("tokyo", 90)
    shelf.put("osaka", 40, "osaka")
    assert shelf.clean(30) == ({"tokyo": "expired", "osaka": "expired"}, {})
    assert sorted(path.name for path in shelf.root.iterdir()) == [
        ".comfy_files",
        "file_metadata.json",
        "projects",
    ]


# --- clocks


def test_a_record_from_the_future_stops_a_cleanup(shelf: Shelf) -> None:
    shelf.put("old", 90)
    shelf.put("new", -timedelta(minutes=5) - A_MICROSECOND)
    assert expect_refusal(shelf, "clock_jump") == (
        "the clock says 2026-02-03T04:05:06Z, and a job was organized at"
        " 2026-02-03T04:10:06.000001Z; it may have jumped"
    )


def test_a_record_from_the_next_five_minutes_is_no_sign_of_a_wrong_clock(shelf: Shelf) -> None:
    shelf.put("old", 90)
    shelf.put("new", -timedelta(minutes=5))
    assert shelf.clean()[0] == {"old": "expired"}


def test_a_last_cleanup_in_the_future_stops_a_cleanup(shelf: Shelf) -> None:
    shelf.put("old", 90)
    shelf.put("older", 100)
    shelf.clean(95)
    shelf.clock.now -= timedelta(minutes=5)
    assert shelf.manager().plan_cleanup().deleted_files == 1
    shelf.clock.now -= A_MICROSECOND
    assert expect_refusal(shelf, "clock_jump") == (
        "the clock says 2026-02-03T04:00:05.999999Z, and the last cleanup was at"
        " 2026-02-03T04:05:06Z; it may have jumped"
    )


def test_that_everything_has_expired_suddenly_stops_a_cleanup(shelf: Shelf) -> None:
    shelf.put("young", 1)
    shelf.put("old", 90)
    shelf.clean(95)
    shelf.clock.now += 3650 * A_DAY
    assert expect_refusal(shelf, "clock_jump") == (
        "every job has expired since the last cleanup at 2026-02-03T04:05:06Z, and the clock says"
        " 2036-02-01T04:05:06Z; it may have jumped"
    )


def test_who_says_0_days_means_everything_whatever_the_clock_says(shelf: Shelf) -> None:
    shelf.put("young", 1)
    shelf.clean(95)
    shelf.clock.now += 3650 * A_DAY
    assert shelf.clean(0)[0] == {"young": "expired"}


@pytest.mark.parametrize(
    "note",
    [
        b"no JSON",
        b"[" * 100_000,
        b'{"ended_at": "2026", "begun_at": 7}',
        b'{"ended_at": "2026-02-03T04:05:06"}',
        b'{"ended_at": null, "left_unexpired": "x"}',
    ],
    ids=["no JSON", "deep", "no time", "no zone", "null"],
)
def test_a_damaged_note_of_the_last_cleanup_says_nothing(shelf: Shelf, note: bytes) -> None:
    shelf.put("old", 90)
    shelf.put("young", 1)
    (shelf.root / ".comfy_files/cleanup.json").write_bytes(note)
    assert shelf.manager().is_cleanup_due()
    assert shelf.clean()[0] == {"old": "expired"}
    assert not shelf.manager().is_cleanup_due()


def test_that_everything_expires_is_nothing_sudden_while_cleanups_are_frequent(
    shelf: Shelf,
) -> None:
    shelf.put("job", 29)
    shelf.clean()
    shelf.clock.now += 2 * A_DAY
    assert shelf.clean()[0] == {"job": "expired"}


def test_a_job_that_has_not_expired_shows_that_the_clock_goes_on(shelf: Shelf) -> None:
    shelf.put("job", 1)
    shelf.clean()
    shelf.clock.now += 365 * A_DAY
    shelf.put("new", 1)
    assert shelf.clean()[0] == {"job": "expired"}


def test_that_all_was_expired_before_is_nothing_sudden(shelf: Shelf) -> None:
    shelf.put("job", 90, pinned=True)
    shelf.clean()
    shelf.clock.now += 365 * A_DAY
    shelf.manager().update_job("job", pinned=False)
    assert shelf.clean()[0] == {"job": "expired"}


def test_a_cleanup_that_found_nothing_says_nothing_of_the_clock(shelf: Shelf) -> None:
    shelf.put("empty", 1, pictures=0)
    shelf.clean()
    shelf.clock.now -= 365 * A_DAY
    assert shelf.clean() == ({}, {})


# --- allowances


@pytest.mark.parametrize(
    "allow", ["clock_jump", 7, None, ["everything"], [[]], ["empty"]], ids=repr
)
def test_what_is_no_list_of_allowances_is_refused(allow: Any, shelf: Shelf) -> None:
    shelf.put("job", 90)
    with pytest.raises(
        InvalidInputError, match="known are empty_policy, empty_project, large_share, clock_jump"
    ):
        shelf.manager().cleanup_old_files(0, allow=allow)
    assert shelf.manager().get_job_files("job").file_count == 1
