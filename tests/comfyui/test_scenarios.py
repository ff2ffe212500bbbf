"""Every recorded run gets its own files: each scenario of ``index.json`` is a case."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.comfyui import read_run
from flask_comfy_files.core.errors import HistoryUnavailableError
from flask_comfy_files.core.history import Verdict, judge
from flask_comfy_files.core.records import OrganizeReport
from tests.comfyui.recordings import (
    INDEX,
    LEFT_BY_HAND,
    NOT_STORED,
    NOT_THERE_ANY_MORE,
    REJECTED,
    SCENARIOS,
    UNNAMED,
    belongs_to,
    cached_by,
    copy_with_times,
    history,
    made_by,
    named_by,
    run,
    set_time,
    window_of,
    within,
)
from tests.comfyui.replay import Replay
from tests.conftest import OpenManager
from tests.invariants import assert_sound, reasons
from tests.trees import NOW, RECORDINGS, Tree, outputs, recording, write_tree

OLDER = "v0.3.64."
OLDER_RUNS = {
    "animated_webp": {"anim/w_00001_.webp": "anim/webp_00001_.webp"},
    "audio_flac": {"audio/ComfyUI_00001_.flac": "audio/ComfyUI_00001.flac"},
    "client_cached": {"wc/n_00001_.png": "noclient/n_00001_.png"},
    "client_first": {"wc/n_00001_.png": "noclient/n_00001_.png"},
    "custom_prompt_id_not_uuid": {"ComfyUI_00002_.png": "ComfyUI_00002_.png"},
    "exec_error_after_save": {"partial/ok_00001_.png": "partial/ok_00001_.png"},
    "image_basic": {"ComfyUI_00001_.png": "ComfyUI_00001_.png"},
    "noclient_cached": {"nc/n_00001_.png": "noclient/n_00001_.png"},
    "noclient_first": {"nc/n_00001_.png": "noclient/n_00001_.png"},
    "preview_audio": {},
    "vhs_mp4": {
        "AnimateDiff_00001.mp4": "AnimateDiff_00001.mp4",
        "AnimateDiff_00001.png": "AnimateDiff_00001.png",
    },
    "video_mp4": {"video/ComfyUI_00001_.mp4": "video/ComfyUI_00001_.mp4"},
}
"""The runs of 0.3.64: the files that each names or has written, with a recording that stands in for them."""

TIES = {
    "overwrite_batch_num_1": ["ow/b_0_00001_.png", "ow/b_1_00002_.png"],
    "overwrite_batch_num_2": ["ow/b_0_00001_.png", "ow/b_1_00002_.png"],
}
"""What two runs of the same second name, so that a time in whole seconds cannot tell whose it is."""


STAMPED = "unique_prefix_busts_cache"
"""Writes into the inbox of a job, so that no other job may have its file."""


def job_of(name: str) -> str:
    return "33333333-3333-4333-8333-333333333333" if name == STAMPED else f"j-{name}"


def files_in(root: Path) -> Tree:
    """Return the outputs below a folder, without the folders that are empty."""
    return {path: entry for path, entry in outputs(root).items() if entry is not None}


def originals(report: OrganizeReport) -> list[str]:
    return sorted(record.original_path for record in report)


def evidence_of(report: OrganizeReport) -> dict[str, str]:
    return {record.original_path: record.evidence for record in report}


def expected_evidence(name: str) -> dict[str, str]:
    shared = cached_by(name)
    return {path: "cached" if path in shared else "history" for path in belongs_to(name)}


def expected_reasons(name: str) -> dict[str, str]:
    """Return why a run's files stay, apart from those that are the run's."""
    item = run(name)[1]
    gone = [path for path in made_by(name) if path in NOT_STORED and "%03d" not in path]
    return {
        **dict.fromkeys(named_by(item, "temp"), "not_an_output"),
        **dict.fromkeys(gone, "not_found"),
        **dict.fromkeys((path for path in cached_by(name) if path in NOT_STORED), "not_found"),
        **dict.fromkeys(NOT_THERE_ANY_MORE.get(name, []), "not_from_this_run"),
    }


def remember(comfyui: Replay, *names: str) -> None:
    """Let ComfyUI remember all recorded runs, these rather than those of the same id."""
    comfyui.history = {**history(), **history(names)}


def test_the_scenarios_account_for_every_file_in_the_recorded_tree() -> None:
    stored = {str(path.relative_to(RECORDINGS)) for path in RECORDINGS.rglob("*") if path.is_file()}
    unnamed = {path for paths in UNNAMED.values() for path in paths}
    assert {path for name in SCENARIOS for path in made_by(name)} - set(NOT_STORED) >= stored - {
        *LEFT_BY_HAND
    }
    assert unnamed | {*LEFT_BY_HAND} == {*INDEX["files_in_output_that_no_history_item_names"]}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_gets_the_files_that_it_made_and_no_others(
    name: str, recorded_root: Path, comfyui: Replay, open_manager: OpenManager
) -> None:
    remember(comfyui, name)
    manager = open_manager(recorded_root, comfyui_url=comfyui.url)
    before = files_in(recorded_root)

    report = manager.organize_output(job_of(name), "p1", prompt_id=run(name)[0])

    assert evidence_of(report) == expected_evidence(name)
    assert reasons(report) == expected_reasons(name)
    assert report.unavailable == ()
    stays = {path: before[path] for path in before if path not in {*belongs_to(name)}}
    stays |= {path: before[path] for path in cached_by(name) if path in before}
    got = {record.path: before[record.original_path] for record in report}
    assert files_in(recorded_root) == {**stays, **got}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_time_in_whole_seconds_gives_a_run_its_files_or_none_but_never_anothers(
    name: str, tmp_path: Path, comfyui: Replay, open_manager: OpenManager
) -> None:
    remember(comfyui, name)
    root = copy_with_times(tmp_path / "output", whole_seconds=True)
    manager = open_manager(root, comfyui_url=comfyui.url)

    report = manager.organize_output(job_of(name), "p1", prompt_id=run(name)[0])

    ties = dict.fromkeys(TIES.get(name, []), "ambiguous_name")
    assert evidence_of(report) == {
        path: kind for path, kind in expected_evidence(name).items() if path not in ties
    }
    assert reasons(report) == {**expected_reasons(name), **ties}


@pytest.mark.parametrize("order", ["in-time", "reversed", "shuffled"])
def test_all_runs_together_leave_nobody_s_file_behind_and_share_only_what_was_cached(
    order: str, recorded_root: Path, comfyui: Replay, open_manager: OpenManager
) -> None:
    comfyui.history = history()
    names = sorted((n for n in SCENARIOS if n != "same_prompt_id_a"), key=started)
    if order == "reversed":
        names.reverse()
    elif order == "shuffled":
        random.Random(7).shuffle(names)  # noqa: S311 - an order, no secret
    manager = open_manager(recorded_root, comfyui_url=comfyui.url)
    before = files_in(recorded_root)

    got = {name: manager.organize_output(job_of(name), prompt_id=run(name)[0]) for name in names}

    assert {name: originals(report) for name, report in got.items()} == {
        name: sorted(belongs_to(name)) for name in names
    }
    assert_sound(recorded_root)
    after = files_in(recorded_root)
    left = {path for path in after if not path.startswith("projects/default/")}
    assert left == {*LEFT_BY_HAND, "dup/x_00001_.png"}
    made = [path for name in names for path in belongs_to(name) if path not in cached_by(name)]
    assert len(made) == len(set(made))
    sizes = {path: len(entry) for path, entry in before.items() if isinstance(entry, bytes)}
    assert manager.get_system_stats().total_size == sum(sizes[path] for path in made)


def started(name: str) -> int:
    return window_of(run(name)[1])[0]


@pytest.mark.parametrize("name", REJECTED)
def test_a_prompt_that_was_rejected_has_no_run_and_no_files(
    name: str, recorded_root: Path, comfyui: Replay, open_manager: OpenManager
) -> None:
    comfyui.history = history()
    before = files_in(recorded_root)
    manager = open_manager(recorded_root, comfyui_url=comfyui.url)
    prompt_id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))

    with pytest.raises(HistoryUnavailableError):
        manager.organize_output("j1", prompt_id=prompt_id)

    assert files_in(recorded_root) == before


# The window of a run.


@pytest.mark.parametrize(
    ("offset_us", "verdict"),
    [
        pytest.param(-50_001, Verdict.EARLIER, id="before-the-tolerance"),
        pytest.param(-50_000, Verdict.MADE, id="at-its-beginning"),
        pytest.param(-4_000, Verdict.MADE, id="the-clock-of-the-kernel-lags"),
    ],
)
def test_the_tolerance_before_a_run_is_50_ms(offset_us: int, verdict: Verdict) -> None:
    prompt_id, item = run("image_batch4")
    begins, _ = window_of(item)
    assert judge(read_run(prompt_id, item), (begins * 1000 + offset_us) * 1000) is verdict


@pytest.mark.parametrize(
    ("offset_us", "verdict"),
    [
        pytest.param(50_000, Verdict.MADE, id="at-its-end"),
        pytest.param(50_001, Verdict.LATER, id="behind-the-tolerance"),
    ],
)
def test_the_tolerance_after_a_run_is_50_ms(offset_us: int, verdict: Verdict) -> None:
    prompt_id, item = run("image_batch4")
    _, ends = window_of(item)
    assert judge(read_run(prompt_id, item), (ends * 1000 + offset_us) * 1000) is verdict


def test_no_moment_fits_two_of_the_recorded_runs() -> None:
    runs = [(name, read_run(*run(name))) for name in SCENARIOS]
    for (name, _), (_, other) in itertools.permutations(runs, 2):
        assert judge(other, within(run(name)[1])) in {Verdict.EARLIER, Verdict.LATER}, name


# An older server.


def older_tree(root: Path, names: Mapping[str, Mapping[str, str]] = OLDER_RUNS) -> Path:
    """Write what the runs of 0.3.64 made, each file as old as its run."""
    for name in sorted(names, key=lambda name: window_of(run(name, OLDER)[1])):
        _, item = run(name, OLDER)
        for path, stand_in in names[name].items():
            if not name.endswith("_cached"):
                write_tree(root, {path: recording(stand_in)}, NOW)
                set_time(root / path, within(item))
    return root


@pytest.mark.parametrize("name", OLDER_RUNS)
def test_a_run_of_an_older_server_gets_its_files(
    name: str, tmp_path: Path, comfyui: Replay, open_manager: OpenManager
) -> None:
    comfyui.history = history(OLDER_RUNS, OLDER)
    root = older_tree(tmp_path / "output")
    manager = open_manager(root, comfyui_url=comfyui.url)
    prompt_id, item = run(name, OLDER)

    report = manager.organize_output("j1", prompt_id=prompt_id)

    kind = "cached" if name.endswith("_cached") else "history"
    assert evidence_of(report) == dict.fromkeys(OLDER_RUNS[name], kind)
    assert reasons(report) == dict.fromkeys(named_by(item, "temp"), "not_an_output")
    assert [record.prompt_id for record in report] == [prompt_id] * len(report)
    assert not [address for address in comfyui.asked if address.startswith("/api/")]


def test_the_server_is_asked_for_the_run_and_for_the_queue_and_nothing_else(
    recorded_root: Path, comfyui: Replay, open_manager: OpenManager
) -> None:
    remember(comfyui)
    manager: FileManager = open_manager(recorded_root, comfyui_url=comfyui.url)
    prompt_id = run("image_batch4")[0]
    manager.organize_output("j1", prompt_id=prompt_id)
    assert comfyui.asked == ["/queue", f"/history/{prompt_id}"]


def test_without_a_prompt_id_the_server_is_not_asked(
    recorded_root: Path, comfyui: Replay, open_manager: OpenManager
) -> None:
    open_manager(recorded_root, comfyui_url=comfyui.url).organize_output("batch")
    assert comfyui.asked == []
