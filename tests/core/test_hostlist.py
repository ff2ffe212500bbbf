"""What a host says of its old jobs, and what a migration makes of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files.core.errors import (
    InvalidIdentifierError,
    InvalidInputError,
    UnsafePathError,
)
from flask_comfy_files.core.hostlist import read_host_list
from tests.conftest import MakeTree, OpenManager
from tests.core.test_migration import (
    TIME,
    by_time,
    check_library,
    clip,
    image,
    migrated,
    reasons,
    tagged,
    targets,
)
from tests.trees import AN_HOUR_AGO, RECORDINGS, Clock, outputs, read_tree, set_modified

RESPONSES = RECORDINGS.parents[1] / "responses"
IN_WINTER = datetime(2026, 12, 24, tzinfo=UTC)
"""After the recordings were made."""


def history(name: str) -> dict[str, Any]:
    """Return what a real ComfyUI says of a run."""
    found: dict[str, Any] = json.loads((RESPONSES / f"history.{name}.json").read_bytes())
    return found


# A list of jobs


def test_files_are_listed_as_paths_or_as_comfyui_names_them(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = ["a.png", "sub/b.png", "sub/deep/c.mp4", f"d_{TIME}.png", "e.txt"]
    root = make_tree({name: name.encode() for name in names})
    jobs = [
        {
            "job_id": "job_1",
            "project_id": "anime",
            "files": [
                "./a.png",
                "sub//b.png",
                {"filename": "c.mp4", "subfolder": "sub/deep", "type": "output", "format": "x"},
            ],
        },
        {
            "job_id": "job_2",
            "files": [{"filename": names[3]}, {"filename": "e.txt", "type": "temp"}],
        },
        {"job_id": "job_3", "project_id": None, "files": []},
    ]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert targets(report) == {
        "a.png": migrated("job_1", "image.png", "anime"),
        "sub/b.png": migrated("job_1", "image_2.png", "anime"),
        "sub/deep/c.mp4": migrated("job_1", "video.mp4", "anime"),
        names[3]: migrated("job_2", "image.png", "default"),
        "e.txt": "legacy/e.txt",
    }
    assert [(job.job_id, job.project_id, job.files, job.evidence) for job in report.jobs] == [
        ("job_1", "anime", 3, "list"),
        ("job_2", "default", 1, "list"),
    ]
    check_library(root)


def test_a_listed_file_in_a_sub_folder_brings_what_comfyui_puts_beside_it(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    beside = ["sub/x_00001.mp4", "sub/x_00001.png", "sub/x_00001.txt", "sub/x_00001.json"]
    rest = ["sub/x_00002.png", "sub/y_00001.txt", "x_00001.webm"]
    root = make_tree({name: name.encode() for name in (*beside, *rest)})
    jobs = [{"job_id": "job_1", "files": ["sub/x_00001-audio.mp4", "sub/x_00001.mp4"]}]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    went = targets(report)
    assert went.pop("x_00001.webm") == "legacy/x_00001.webm"
    assert went.keys() == set(beside)
    assert all(target.startswith("projects/default/job_1/") for target in went.values())
    assert reasons(report.skipped) == {"sub/x_00001-audio.mp4": "not_found"}
    assert {path for path in outputs(root) if path.startswith("sub/")} == set(rest[:2])


def test_what_a_host_lists_is_looked_at_once_whatever_it_is(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {
            ".hidden.png": b"hidden",
            "x.part": b"part",
            "kept/a.png": b"excluded",
            "projects/p/j/a.png": b"in the library",
            "inbox/j/r/a.png": b"arriving",
            "legacy/a.png": b"legacy",
            "sub/plain.png": b"plain",
        }
    )
    (root / "link.png").symlink_to("sub/plain.png")
    never = ["projects/p/j/a.png", "inbox/j/r/a.png", "legacy/a.png", "file_metadata.json"]
    taken = [".hidden.png", "x.part", "kept/a.png", "sub/plain.png"]
    jobs = [{"job_id": "job_1", "files": [*never, *taken, "link.png", "sub", "gone.png"]}]
    report = open_manager(root, exclude=["kept"]).migrate_legacy_files(jobs=jobs, recursive=True)
    assert targets(report).keys() == set(taken)
    assert reasons(report.skipped) == {
        **dict.fromkeys(never, "reserved"),
        "link.png": "link",
        "sub": "directory",
        "gone.png": "not_found",
    }
    kept = {path for path in outputs(root) if not path.startswith("projects/default/")}
    assert kept == {*never[:3], "link.png", "kept", "sub"}


def test_a_listed_file_that_is_being_written_waits(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"sub/a.png": image("a"), "sub/b.png": image("b")})
    with (root / "sub/a.png").open("ab"):
        report = open_manager(root).migrate_legacy_files(
            jobs=[{"job_id": "job_1", "files": ["sub/a.png", "sub/b.png"]}]
        )
    assert targets(report) == {"sub/b.png": migrated("job_1", "image.png", "default")}
    assert reasons(report.skipped) == {"sub/a.png": "still_being_written"}


def test_a_job_may_be_listed_in_parts_and_a_file_twice_for_it(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({name: image(name) for name in ("a.png", "b.png")})
    jobs = [
        {"job_id": "job_1", "files": ["a.png", "a.png"]},
        {"job_id": "job_1", "project_id": "anime", "files": ["b.png", "./a.png"]},
    ]
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert targets(report) == {
        "a.png": migrated("job_1", "image.png", "anime"),
        "b.png": migrated("job_1", "image_2.png", "anime"),
    }


def test_a_listed_job_that_is_known_gets_its_files_and_one_of_another_project_fails(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    names = ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"]
    root = make_tree({name: image(name) for name in names})
    manager = open_manager(root)
    manager.organize_output("job_1", "anime", files=["a.png"])
    manager.organize_output("job_2", "anime", files=["b.png"])
    jobs = [
        {"job_id": "job_1", "files": ["c.png"]},
        {"job_id": "job_2", "project_id": "manga", "files": ["d.png"]},
        {"job_id": "Job_1", "files": ["e.png"]},
        {"job_id": "job_3", "project_id": "ANIME", "files": ["f.png"]},
    ]
    plan, report = manager.plan_migration(jobs=jobs), manager.migrate_legacy_files(jobs=jobs)
    assert targets(report) == targets(plan) == {"c.png": migrated("job_1", "image_2.png", "anime")}
    expected = {
        "d.png": "job_in_other_project",
        "e.png": "identifier_case",
        "f.png": "identifier_case",
    }
    assert reasons(report.failed) == reasons(plan.failed) == expected
    assert all((root / name).exists() for name in expected)
    assert manager.get_job_files("job_1").file_count == 2


ENTRY = {"job_id": "job_1", "files": ["a.png"]}
# For each: what is said, and the field that the error names.
UNUSABLE: dict[str, tuple[Any, str]] = {
    "text": ("a.png", "jobs"),
    "bytes": (b"[]", "jobs"),
    "a number": (7, "jobs"),
    "true": (True, "jobs"),
    "a path": (["a.png"], "jobs[0]"),
    "a list of lists": ([[ENTRY]], "jobs[0]"),
    "null in it": ([ENTRY, None], "jobs[1]"),
    "no files": ([{"job_id": "job_1"}], "jobs[0]"),
    "no job": ([{"files": []}], "jobs[0]"),
    "an unknown key": ([{**ENTRY, "prompt_id": "x"}], "jobs[0]"),
    "a misspelled key": ([ENTRY, {**ENTRY, "project": "x"}], "jobs[1]"),
    "a job id that is a path": ([{**ENTRY, "job_id": "../x"}], "jobs[0].job_id"),
    "a job id that is a number": ([{**ENTRY, "job_id": 7}], "jobs[0].job_id"),
    "a job id that is empty": ([{**ENTRY, "job_id": ""}], "jobs[0].job_id"),
    "a job id that is null": ([{**ENTRY, "job_id": None}], "jobs[0].job_id"),
    "a device": ([{**ENTRY, "job_id": "CON"}], "jobs[0].job_id"),
    "a project that is a path": ([{**ENTRY, "project_id": "a/b"}], "jobs[0].project_id"),
    "a project that is a number": ([{**ENTRY, "project_id": 7}], "jobs[0].project_id"),
    "files that are text": ([{**ENTRY, "files": "a.png"}], "jobs[0].files"),
    "files that are an object": ([{**ENTRY, "files": {"a.png": 1}}], "jobs[0].files"),
    "files that are null": ([{**ENTRY, "files": None}], "jobs[0].files"),
    "a file that is a number": ([{**ENTRY, "files": ["a.png", 7]}], "jobs[0].files[1]"),
    "an absolute file": ([{**ENTRY, "files": ["/etc/passwd"]}], "jobs[0].files[0]"),
    "a file outside": ([{**ENTRY, "files": ["sub/../../x"]}], "jobs[0].files[0]"),
    "an empty file": ([{**ENTRY, "files": [""]}], "jobs[0].files[0]"),
    "half a surrogate pair": ([{**ENTRY, "files": ["\ud800.png"]}], "jobs[0].files[0]"),
    "a subfolder outside": (
        [{**ENTRY, "files": [{"filename": "a", "subfolder": ".."}]}],
        "jobs[0].files[0].subfolder",
    ),
    "an unknown type": (
        [{**ENTRY, "files": [{"filename": "a", "type": "trash"}]}],
        "jobs[0].files[0].type",
    ),
    "a file of two jobs": ([ENTRY, {"job_id": "job_2", "files": ["./a.png"]}], "jobs[1]"),
    "a job of two projects": (
        [{**ENTRY, "project_id": "a"}, {**ENTRY, "project_id": "b"}],
        "jobs[1].project_id",
    ),
    "an object that is no history": ({"jobs": [ENTRY]}, "jobs.jobs"),
    "a single job": (ENTRY, "jobs.job_id"),
    "an item without outputs": ({"run-1": {"prompt": []}}, "jobs.run-1"),
    "an item that is a list": ({"run-1": []}, "jobs.run-1"),
    "outputs that are a list": ({"run-1": {"outputs": []}}, "jobs.run-1"),
    "a history with a path outside": (
        {"run-1": {"outputs": {"9": {"images": [{"filename": "..", "subfolder": ""}]}}}},
        "jobs.run-1",
    ),
    "a run that cannot be a job": ({"a run": {"outputs": {}}}, "jobs"),
}


@pytest.mark.parametrize(("jobs", "field"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_list_of_jobs_is_refused_by_its_place_and_nothing_moves(
    make_tree: MakeTree, open_manager: OpenManager, jobs: object, field: str
) -> None:
    root = make_tree({"a.png": image("a"), "b.txt": b"b"})
    before = read_tree(root)
    manager = open_manager(root)
    for act in (manager.plan_migration, manager.migrate_legacy_files):
        with pytest.raises(InvalidInputError) as refused:
            act(jobs=jobs)
        assert refused.value.field == field
    assert read_tree(root) == before


def test_ids_and_paths_that_cannot_be_are_told_apart_from_other_mistakes() -> None:
    with pytest.raises(InvalidIdentifierError):
        read_host_list([{"job_id": "..", "files": []}])
    with pytest.raises(UnsafePathError):
        read_host_list([{"job_id": "job_1", "files": ["/x"]}])


@pytest.mark.parametrize("jobs", [None, [], (), {}])
def test_nothing_said_is_nothing_known(
    make_tree: MakeTree, open_manager: OpenManager, jobs: Any
) -> None:
    root = make_tree({f"x_{TIME}.png": image("x")})
    report = open_manager(root).migrate_legacy_files(jobs=jobs)
    assert targets(report) == {f"x_{TIME}.png": by_time("image.png")}


# A history of ComfyUI's


def at_their_own_times(root: Path) -> Path:
    """Let the recordings have been written when ComfyUI wrote them, as far as that is known: by the second."""
    for entry in json.loads((RECORDINGS.parents[1] / "files.json").read_bytes())["output"]:
        if (root / entry["path"]).exists():
            os.utime(root / entry["path"], (entry["mtime"], entry["mtime"]))
    return root


def makers_of(runs: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return which runs name a file, by its path, for whatever they name in the output folder."""
    found: dict[str, set[str]] = {}
    for prompt_id, item in runs.items():
        for output in item["outputs"].values():
            for entry in (entry for entries in output.values() for entry in entries):
                if isinstance(entry, dict) and entry.get("type") == "output":
                    path = f"{entry['subfolder']}/{entry['filename']}".lstrip("/")
                    found.setdefault(path, set()).add(prompt_id)
    return found


def test_a_whole_history_gives_each_file_to_the_run_that_wrote_it(
    output_root: Path, open_manager: OpenManager
) -> None:
    shutil.rmtree(at_their_own_times(output_root) / "projects")
    runs = history("full")
    assert len(runs) == 73
    manager = open_manager(output_root, clock=Clock(IN_WINTER))
    report = manager.migrate_legacy_files(jobs=runs, recursive=True)
    went = targets(report)
    job_of = {path: target.split("/")[2] for path, target in went.items() if target[0] == "p"}
    makers = makers_of(runs)
    overwritten = {"ow/b_0_00001_.png", "ow/b_1_00002_.png"}  # by two runs of one second
    named = {path for path in went if path in makers} - overwritten
    assert len(named) > 50
    assert {path for path in named if job_of.get(path) not in makers[path]} == set()
    unnamed = {
        "AnimateDiff_00001.png": "AnimateDiff_00001.mp4",
        "AnimateDiff_00002.png": "AnimateDiff_00002-audio.mp4",
        "AnimateDiff_00002.mp4": "AnimateDiff_00002-audio.mp4",
        "vhs/loop_00001.png": "vhs/loop_00001.gif",
    }
    for path, beside in unnamed.items():
        assert {job_of[path]} == makers[beside]
    # The first run of three made it; the two others took it from the cache.
    (maker,) = history("cached_first")
    assert job_of["cached/c_00001_.png"] == maker
    assert not overwritten & job_of.keys()
    assert {job.evidence for job in report.jobs} == {"list"}
    check_library(output_root)


def test_a_run_that_was_stamped_is_the_job_it_was_stamped_for(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    ((prompt_id, item),) = history("vhs_mp4_audio").items()
    names = ["AnimateDiff_00002-audio.mp4", "AnimateDiff_00002.mp4", "AnimateDiff_00002.png"]
    item["prompt"][3]["extra_pnginfo"] = {"comfy_files": {"job_id": "job_1", "project_id": "anime"}}
    root = make_tree({name: clip(name) for name in names})
    manager = open_manager(root, clock=Clock(IN_WINTER))
    ended = datetime.fromtimestamp(item["status"]["messages"][-1][1]["timestamp"] / 1000, UTC)
    for name in names:
        set_modified(root / name, ended)
    assert {job.job_id for job in manager.plan_migration(jobs={prompt_id: item}).jobs} == {"job_1"}
    item["prompt"][3]["extra_pnginfo"]["comfy_files"]["job_id"] = "../../etc"
    report = manager.migrate_legacy_files(jobs={prompt_id: item})
    assert {job.job_id for job in report.jobs} == {prompt_id}
    assert report.migrated.files == 3


@pytest.mark.parametrize("seconds", [-3600, 3600], ids=["before", "after"])
def test_a_file_of_another_time_is_not_the_runs_whatever_the_history_names(
    make_tree: MakeTree, open_manager: OpenManager, seconds: int
) -> None:
    ((prompt_id, item),) = history("image_basic").items()
    (name,) = makers_of({prompt_id: item})
    root = make_tree({name: image("another")})
    ended = datetime.fromtimestamp(item["status"]["messages"][-1][1]["timestamp"] / 1000, UTC)
    set_modified(root / name, ended + timedelta(seconds=seconds))
    report = open_manager(root, clock=Clock(IN_WINTER)).migrate_legacy_files(jobs={prompt_id: item})
    assert targets(report) == {name: f"legacy/{name}"}


def test_a_name_that_two_runs_may_have_written_belongs_to_neither(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    ((prompt_id, item),) = history("image_basic").items()
    (name,) = makers_of({prompt_id: item})
    root = make_tree({name: image("one of them")})
    ended = datetime.fromtimestamp(item["status"]["messages"][-1][1]["timestamp"] / 1000, UTC)
    set_modified(root / name, ended)
    manager = open_manager(root, clock=Clock(IN_WINTER))
    assert manager.plan_migration(jobs={"run-2": item}).migrated.files == 1
    report = manager.migrate_legacy_files(jobs={prompt_id: item, "run-2": item})
    assert targets(report) == {name: f"legacy/{name}"}


def test_what_a_history_names_and_is_not_there_is_no_news(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"a.png": image("a")})
    report = open_manager(root).migrate_legacy_files(jobs=history("full"))
    assert targets(report) == {"a.png": "legacy/a.png"}
    assert report.skipped == ()


def test_a_tag_in_a_file_outweighs_the_history(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    ((prompt_id, item),) = history("image_basic").items()
    (name,) = makers_of({prompt_id: item})
    root = make_tree({name: tagged("job_1")}, AN_HOUR_AGO)
    ended = datetime.fromtimestamp(item["status"]["messages"][-1][1]["timestamp"] / 1000, UTC)
    set_modified(root / name, ended)
    report = open_manager(root, clock=Clock(IN_WINTER)).migrate_legacy_files(jobs={prompt_id: item})
    assert [(job.job_id, job.evidence) for job in report.jobs] == [("job_1", "tag")]
