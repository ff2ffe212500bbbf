"""Whose a file of old is: by its tag, by what its host lists, by a time in its name, by graph or day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files.core import detection
from flask_comfy_files.core.provenance import (
    owner_by_time,
    owners_by_workflow,
    seeds_of,
)
from flask_comfy_files.core.records import Tally
from tests.conftest import MakeTree, OpenManager
from tests.core.tags.samples import FORMATS
from tests.core.test_migration import (
    TIME,
    by_time,
    check_library,
    clip,
    image,
    migrated,
    reasons,
    seeded,
    stop_when_moved,
    tagged,
    targets,
)
from tests.trees import AN_HOUR_AGO, NOW, outputs, set_modified

# Whose a file is: the tag, the host's list, the time


def test_the_tag_is_believed_before_the_list_and_the_list_before_the_time(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = [f"{name}_{TIME}_00001_.png" for name in ("tagged", "listed", "timed")]
    root = make_tree({names[0]: tagged("job_t", "p_t"), names[1]: image("l"), names[2]: image("t")})
    jobs = [{"job_id": "job_l", "project_id": "p_l", "files": names[:2]}]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert targets(report) == {
        names[0]: migrated("job_t", "image.png", "p_t"),
        names[1]: migrated("job_l", "image.png", "p_l"),
        names[2]: by_time("image.png"),
    }
    assert [(job.job_id, job.evidence) for job in report.jobs] == [
        ("job_l", "list"),
        ("job_t", "tag"),
        (f"legacy_{TIME}", "time"),
    ]
    assert {record["evidence"] for record in check_library(root).values()} == {
        *("tag", "list", "time")
    }


def test_the_tag_is_read_from_every_format_that_can_carry_one(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = {
        f"{place}{extension}": build for place, (extension, build) in enumerate(FORMATS.values())
    }
    tree = {
        name: build([("comfy_files", json.dumps({"job_id": f"job_{place}"}))])
        for place, (name, build) in enumerate(names.items())
    }
    root = make_tree(tree, NOW - timedelta(days=2))
    report = open_manager(root).migrate_legacy_files()
    assert targets(report).keys() == tree.keys()
    assert {job.job_id for job in report.jobs} == {f"job_{place}" for place in range(len(tree))}
    assert {job.evidence for job in report.jobs} == {"tag"}


def test_a_tag_without_a_project_takes_the_one_that_the_host_names_or_the_default(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": tagged("job_1"), "b.png": image("b"), "c.png": tagged("job_2")})
    jobs = [{"job_id": "job_1", "project_id": "anime", "files": ["b.png"]}]
    report = open_manager(root, default_project="rest").migrate_legacy_files(jobs=jobs)
    assert targets(report) == {
        "a.png": migrated("job_1", "image.png", "anime"),
        "b.png": migrated("job_1", "image_2.png", "anime"),
        "c.png": migrated("job_2", "image.png", "rest"),
    }


def test_a_tag_takes_the_project_of_the_list_whichever_is_moved_first(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 1)
    root = make_tree({"a.png": tagged("job_1"), "b.png": image("b")})
    jobs = [{"job_id": "job_1", "project_id": "anime", "files": ["b.png"]}]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert set(targets(report).values()) == {
        migrated("job_1", "image.png", "anime"),
        migrated("job_1", "image_2.png", "anime"),
    }


def test_a_listed_file_whose_job_a_tag_puts_into_another_project_fails_alone(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they are moved together, or one after the other, or only rehearsed."""
    jobs = [{"job_id": "job_1", "project_id": "late", "files": ["b.png"]}]
    for number, at_once in enumerate((256, 1)):
        monkeypatch.setattr(detection, "FILES_AT_ONCE", at_once)
        tree = {"a.png": tagged("job_1", "early"), "b.png": image("b")}
        root = make_tree({}).rename(make_tree({}).with_name(f"output_{number}"))
        for name, content in tree.items():
            (root / name).write_bytes(content)
            set_modified(root / name, AN_HOUR_AGO)
        manager = open_manager(root)
        for report in (manager.plan_migration(jobs=jobs), manager.migrate_legacy_files(jobs=jobs)):
            assert targets(report) == {"a.png": migrated("job_1", "image.png", "early")}
            assert reasons(report.failed) == {"b.png": "job_in_other_project"}
        assert (root / "b.png").read_bytes() == tree["b.png"]
        check_library(root)


def test_a_known_job_keeps_its_project_whatever_a_tag_or_a_time_would_say(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    time_job = f"legacy_{TIME}"
    root = make_tree(
        {
            "first.png": image("first"),
            "second.png": image("second"),
            "tagged.png": tagged("job_1", "other"),
            f"x_{TIME}_00001_.png": image("third"),
        }
    )
    manager = open_manager(root)
    manager.organize_output("job_1", "mine", files=["first.png"])
    manager.organize_output(time_job, "mine", files=["second.png"])
    report = manager.migrate_legacy_files()
    assert targets(report) == {
        "tagged.png": migrated("job_1", "image_2.png", "mine"),
        f"x_{TIME}_00001_.png": migrated(time_job, "image_2.png", "mine"),
    }
    assert [record.evidence for record in manager.get_job_files("job_1")] == ["files", "tag"]
    assert manager.get_job_files(time_job).file_count == 2
    check_library(root)


def test_an_id_in_another_case_fails_and_the_file_stays(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    tree = {
        "known.png": image("known"),
        "of_known_job.png": tagged("JOB_1"),
        "of_known_project.png": tagged("job_2", "Anime"),
        "one.png": tagged("new_job"),
        "two.png": tagged("New_Job"),
        "free.png": tagged("job_4"),
    }
    root = make_tree(tree)
    manager = open_manager(root)
    manager.organize_output("job_1", "anime", files=["known.png"])
    plan, report = manager.plan_migration(), manager.migrate_legacy_files()
    assert set(targets(report)) == {"free.png", "two.png"}
    failed = dict.fromkeys(
        ["of_known_job.png", "of_known_project.png", "one.png"], "identifier_case"
    )
    assert reasons(report.failed) == reasons(plan.failed) == failed
    assert all((root / name).read_bytes() == tree[name] for name in failed)
    check_library(root)


def test_a_job_that_had_no_files_does_not_say_so_any_more_when_it_gets_some(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"late.png": image("late")})
    manager = open_manager(root)
    manager.organize_output("job_1", files=["gone.png"])
    assert manager.get_job_files("job_1").reason == "no file could be taken: 1 not_found"
    manager.migrate_legacy_files(jobs=[{"job_id": "job_1", "files": ["late.png"]}])
    job = manager.get_job_files("job_1")
    assert (job.file_count, job.reason) == (1, None)


def test_what_a_completed_job_still_waits_for_is_left_to_it_with_all_that_belongs_to_it(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = [f"a_{TIME}_00001.mp4", f"a_{TIME}_00001.png"]
    root = make_tree({names[0]: clip("a"), names[1]: image("a"), "b.png": image("b")})
    manager = open_manager(root, request_budget_bytes=1)
    manager.complete_job("job_1", files=names[:1])
    report = manager.migrate_legacy_files()
    assert targets(report) == {"b.png": "legacy/b.png"}
    assert reasons(report.skipped) == dict.fromkeys(names, "belongs_to_another_job")
    assert manager.retry_pending_jobs().still_pending == ()
    assert manager.get_job_files("job_1").file_count == 2


# What was written together stays together


def test_previews_sidecars_and_silent_twins_stay_with_the_file_that_is_known(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    listed = ["clip_00007-audio.mp4", "clip_00007.mp4", "clip_00007.png", "clip_00007.json"]
    signed = ["pic_00001_.png", "pic_00001_.txt", "pic_00001_.caption", "pic_00001_.json"]
    alone = ["pic_00002_.txt", "clip_0000.png", "PIC_00001_.png"]
    tree = {name: name.encode() for name in (*listed, *signed, *alone)}
    root = make_tree({**tree, "pic_00001_.png": tagged("job_1", "anime")})
    jobs = [{"job_id": "job_2", "files": [listed[1]]}]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    went = targets(report)
    assert {name for name in went if "/job_2/" in went[name]} == set(listed)
    assert {name for name in went if "/job_1/" in went[name]} == set(signed)
    assert {name for name in went if went[name] == f"legacy/{name}"} == set(alone)


def test_a_family_that_two_jobs_claim_is_told_apart_as_far_as_each_file_tells(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    stem = f"x_{TIME}_00001"
    root = make_tree(
        {f"{stem}.png": tagged("job_1"), f"{stem}.mp4": clip("x"), f"{stem}.txt": b"x"}
    )
    jobs = [{"job_id": "job_2", "files": [f"{stem}.mp4"]}]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert targets(report) == {
        f"{stem}.mp4": migrated("job_2", "video.mp4", "default"),
        f"{stem}.png": migrated("job_1", "image.png", "default"),
        f"{stem}.txt": f"legacy/{stem}.txt",
    }


def test_a_family_that_tag_and_list_give_to_one_job_is_wholly_its_own(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"x.png": tagged("job_1"), "x.mp4": clip("x"), "x.txt": b"x"})
    jobs = [{"job_id": "job_1", "files": ["x.mp4"]}]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert set(targets(report).values()) == {
        migrated("job_1", ending, "default") for ending in ("image.png", "video.mp4", "text.txt")
    }


def test_the_same_stem_in_another_folder_or_case_is_no_family(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"x.png": tagged("job_1"), "sub/x.txt": b"1", "X.txt": b"2", "x.y.txt": b"3"})
    report = open_manager(root).migrate_legacy_files(recursive=True)
    assert set(targets(report).values()) == {
        migrated("job_1", "image.png", "default"),
        *("legacy/sub/x.txt", "legacy/X.txt", "legacy/x.y.txt"),
    }


# Grouping


def at_seconds(root: Path, seconds: Mapping[str, int]) -> None:
    """Say when files were written, counted from an hour ago."""
    for name, number in seconds.items():
        set_modified(root / name, AN_HOUR_AGO + timedelta(seconds=number))


def test_what_one_workflow_wrote_in_one_go_is_grouped_only_when_asked(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    first, second = seeded(1), seeded(2)
    seconds = {"a.png": 0, "b.png": 5, "c.png": 9, "d.png": 12, "d.txt": 60, "e.txt": 6}
    root = make_tree(
        {
            **{name: image(name, first) for name in ("a.png", "b.png", "d.png")},
            "c.png": image("c", second),
            **{name: name.encode() for name in ("d.txt", "e.txt")},
        }
    )
    at_seconds(root, seconds)
    manager = open_manager(root)
    ungrouped = manager.plan_migration()
    assert ungrouped.moved_to_legacy.files == 6
    report = manager.migrate_legacy_files(group_by="workflow")
    went = targets(report)
    jobs: dict[str, set[str]] = {}
    for name, target in went.items():
        jobs.setdefault(target.split("/")[-2], set()).add(name)
    assert jobs.pop("legacy") == {"e.txt"}
    assert sorted(map(sorted, jobs.values())) == [["a.png", "b.png"], ["c.png"], ["d.png", "d.txt"]]
    started = int(AN_HOUR_AGO.timestamp())
    assert sorted(job_id.rpartition("_")[0] for job_id in jobs) == [
        f"legacy_workflow_{started + number}" for number in (0, 9, 12)
    ]
    assert {(job.project_id, job.evidence) for job in report.jobs} == {
        ("legacy_migration", "workflow")
    }
    check_library(root)


def test_grouping_by_day_keeps_families_together_across_midnight(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = ["a_00001.mp4", "a_00001.png", "b.png", "c_00001.mp4", "c_00001.png"]
    root = make_tree({name: image(name) for name in names})
    midnight = NOW.replace(hour=0, minute=0, second=0)
    for name, seconds in zip(names, (1, -1, 0, -1, 1), strict=True):
        set_modified(root / name, midnight + timedelta(seconds=seconds))
    report = open_manager(root).migrate_legacy_files(group_by="day")
    assert targets(report) == {
        "a_00001.mp4": migrated("legacy_day_20260202", "video.mp4"),
        "a_00001.png": migrated("legacy_day_20260202", "image.png"),
        "c_00001.mp4": migrated("legacy_day_20260202", "video_2.mp4"),
        "c_00001.png": migrated("legacy_day_20260202", "image_2.png"),
        "b.png": migrated("legacy_day_20260203", "image.png"),
    }
    assert {job.evidence for job in report.jobs} == {"day"}


def test_grouping_takes_only_what_nothing_else_attributes(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    graph = seeded(5)
    root = make_tree(
        {
            "t.png": tagged("job_t", "p"),
            f"x_{TIME}_.png": image("x", graph),
            "l.png": image("l", graph),
            "g.png": image("g", graph),
        }
    )
    jobs = [{"job_id": "job_l", "project_id": "p", "files": ["l.png"]}]
    report = open_manager(root).plan_migration(jobs=jobs, group_by="workflow")
    assert [(job.evidence, job.files) for job in report.jobs] == [
        *(("list", 1), ("tag", 1), ("time", 1), ("workflow", 1))
    ]
    by_day = open_manager(root).plan_migration(jobs=jobs, group_by="day", leave_unmatched=True)
    assert {job.evidence for job in by_day.jobs} == {"list", "tag", "time", "day"}
    assert by_day.left == Tally()


def test_an_interrupted_migration_groups_the_rest_as_it_would_have_been(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "FILES_AT_ONCE", 2)
    # Their names sort otherwise than their times.
    order = ["z1", "m1", "a1", "z2", "m2", "a2", "k1", "b1", "y1", "c1"]
    graphs = [1, 1, 1, 2, 2, 1, 1, 3, 3, 3]
    tree = {
        f"{name}.png": image(name, seeded(seed)) for name, seed in zip(order, graphs, strict=True)
    }
    root = make_tree(tree)
    at_seconds(root, {f"{name}.png": number for number, name in enumerate(order)})
    manager = open_manager(root)
    expected = targets(manager.plan_migration(group_by="workflow"))
    assert len({Path(target).parent for target in expected.values()}) == 4
    went: dict[str, str] = {}
    while rest := set(outputs(root)) & set(tree):
        with pytest.raises(KeyboardInterrupt):
            manager.migrate_legacy_files(group_by="workflow", on_progress=stop_when_moved(root))
        assert rest > set(outputs(root)) & set(tree)
    went = {record["original_path"]: path for path, record in check_library(root).items()}
    assert went == expected


# A time in a name


TOMORROW = int((NOW + timedelta(days=1)).timestamp())


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("animatediff_context_120frames_1762406010_00001.mp4", "1762406010"),
        ("1762406010.png", "1762406010"),
        ("x1762406010y.png", "1762406010"),
        ("x_1762406010", "1762406010"),
        ("1762406010_1762406010_00001_.png", "1762406010"),
        ("ep01/x_1762406010_.png", "1762406010"),
        ("x_1000000000_.png", "1000000000"),
        (f"x_{TOMORROW}_.png", str(TOMORROW)),
        ("x_9999999999_1762406010_.png", "1762406010"),
        ("x_0000000000_1762406010_.png", "1762406010"),
        ("x_1762406010123_1762406010_.png", "1762406010"),
        (f"x_{TOMORROW + 1}_.png", None),
        (f"x_{TOMORROW + 86_400}_.png", None),
        ("x_0999999999_.png", None),
        ("x_9999999999_.png", None),
        ("x_1762406010123_00001_.png", None),
        ("x_17624060100_.png", None),
        ("x_176240601_.png", None),
        ("x_11762406010_.png", None),
        ("x_176240601000001.png", None),
        ("x_20251105_00001_.png", None),
        ("x_2025110512_00001_.png", None),
        ("x_1762406010_1762406011_.png", None),
        ("x_\u0661\u0667\u0666\u0662\u0664\u0660\u0666\u0660\u0661\u0660_.png", None),
        ("1762406010/x_00001_.png", None),
        ("x_00001_.png", None),
    ],
)
def test_a_time_is_the_one_number_of_ten_digits_from_2001_to_tomorrow(
    name: str, time: str | None
) -> None:
    owner = owner_by_time(name, frozenset(), NOW)
    assert (owner and owner.job_id) == (time and f"legacy_{time}")
    assert owner is None or (owner.project_id, owner.evidence) == ("legacy_migration", "time")


@pytest.mark.parametrize(
    "graph",
    [
        {"3": {"inputs": {"seed": TIME}}},
        {"3": {"inputs": {"noise_seed": TIME}}},
        {"3": {"inputs": {"seed": str(TIME)}}},
        {"3": {"inputs": {"Seed (rgthree)": TIME}}},
        {"3": {"inputs": {"seed": ["7", 0]}}, "7": {"inputs": {"value": TIME}}},
        {"3": {"inputs": {"options": {"variation": [{"subseed": TIME}]}}}},
    ],
)
def test_a_seed_of_the_graph_is_no_time(
    make_tree: MakeTree, open_manager: OpenManager, graph: dict[str, Any]
) -> None:
    assert str(TIME) in seeds_of(graph)
    names = [f"x_{TIME}_00001_.png", f"x_{TIME}_00001_.txt"]
    root = make_tree({names[0]: image("x", graph), names[1]: b"the caption has no graph"})
    went = targets(open_manager(root).migrate_legacy_files())
    assert went == {name: f"legacy/{name}" for name in names}


@pytest.mark.parametrize(
    "graph",
    [
        {"3": {"inputs": {"steps": TIME}}},
        {"3": {"inputs": {"seed": TIME + 1}}},
        {"3": {"inputs": {"seed": ["8", 0]}}, "7": {"inputs": {"value": TIME}}},
        {"3": {"inputs": {"filename_prefix": f"x_{TIME}"}}},
        {"3": {"inputs": {"seed": None}}},
        {"3": {"inputs": {"seed": ["3", 0]}}},
        {"3": "no node"},
        {},
    ],
)
def test_any_other_number_of_the_graph_does_not_hide_a_time(
    make_tree: MakeTree, open_manager: OpenManager, graph: dict[str, Any]
) -> None:
    name = f"x_{TIME}_00001_.png"
    root = make_tree({name: image("x", graph)})
    assert targets(open_manager(root).migrate_legacy_files()) == {name: by_time("image.png")}


def test_of_a_seed_and_a_time_the_time_is_left(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    name = f"x_{TIME - 5}_{TIME}_00001_.png"
    root = make_tree({name: image("x", seeded(TIME - 5))})
    assert targets(open_manager(root).migrate_legacy_files()) == {name: by_time("image.png")}


def test_a_graph_that_is_deep_or_broken_neither_fails_nor_hides_a_time(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    deep: Any = TIME
    for _ in range(400):
        deep = {"seed_of": deep}
    names = [f"x_{TIME}_00001_.png", f"y_{TIME}_00001_.png"]
    broken = image("y", {"a": 1}).replace(b'{"a": 1}', b'{"a": 1!')
    root = make_tree({names[0]: image("x", {"1": deep}), names[1]: broken})
    went = targets(open_manager(root).migrate_legacy_files(group_by="workflow"))
    assert set(went.values()) == {by_time("image.png"), by_time("image_2.png")}


def test_a_workflow_is_cut_where_another_ones_files_lie_in_between() -> None:
    def at(second: int) -> datetime:
        return datetime(2025, 11, 6, 5, 13, second, tzinfo=UTC)

    digests = {"a.png": "a" * 64, "b.png": "b" * 64}
    made = [
        ("4.png", digests["a.png"], at(9)),
        ("1.png", digests["a.png"], at(1)),
        ("3.png", digests["b.png"], at(5)),
        ("2.png", digests["a.png"], at(2)),
    ]
    owners = {path: owner.job_id for path, owner in owners_by_workflow(made).items()}
    start = int(at(0).timestamp())
    assert owners == {
        "1.png": f"legacy_workflow_{start + 1}_aaaaaaaa",
        "2.png": f"legacy_workflow_{start + 1}_aaaaaaaa",
        "3.png": f"legacy_workflow_{start + 5}_bbbbbbbb",
        "4.png": f"legacy_workflow_{start + 9}_aaaaaaaa",
    }
