"""What was seen to go wrong with names, in every order in which the ends of runs may be heard of."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import RunNotFinishedError
from tests.comfyui.recordings import (
    cached_by,
    later,
    made_by,
    pixels,
    run,
    tagged,
    window_of,
    with_text,
    within,
)
from tests.comfyui.replay import Replay
from tests.comfyui.world import Deliver, World
from tests.invariants import assert_sound, reasons
from tests.trees import outputs, recording

HAZARD = ["hazard/ComfyUI_00001_.png", "hazard/ComfyUI_00002_.png"]
CACHED = "cached/c_00001_.png"
PARTLY = "cached/d_00001_.png"
SECOND_MS = 1000


def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the file system refuse a second name for a file."""

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(durable, "link", refuse)


# A counter starts again when its files are moved away.


def test_a_reused_name_is_each_time_the_file_of_the_run_that_wrote_it(
    world: World, deliver: Deliver
) -> None:
    first = world.happens("collision_A", {HAZARD[0]: pixels(1)})
    deliver("ja", first)
    second = world.happens("collision_B", {HAZARD[0]: pixels(2)})
    deliver("jb", second)
    for job_id, prompt_id in [("ja", first), ("jb", second)] * 2:
        deliver(job_id, prompt_id)
    assert world.contents("ja") == {HAZARD[0]: pixels(1)}
    assert world.contents("jb") == {HAZARD[0]: pixels(2)}
    assert_sound(world.root)


def test_a_job_that_is_delivered_again_never_takes_what_another_run_wrote_under_its_name(
    world: World, deliver: Deliver
) -> None:
    first = world.happens("collision_A", {HAZARD[0]: pixels(1)})
    deliver("ja", first)
    second = world.happens("collision_B", {HAZARD[0]: pixels(2)})
    deliver("ja", first)
    assert world.contents("ja") == {HAZARD[0]: pixels(1)}
    assert (world.root / HAZARD[0]).read_bytes() == pixels(2)
    deliver("jb", second)
    assert world.contents("jb") == {HAZARD[0]: pixels(2)}


def counter_runs(world: World) -> dict[str, str]:
    """Have all runs of the experiment happen; somebody moved the first one's file away."""
    runs = {"ja": world.happens("collision_A", {HAZARD[0]: pixels(1)})}
    world.move(HAZARD[0], "elsewhere/A.png")
    runs["jb"] = world.happens("collision_B", {HAZARD[0]: pixels(2)})
    runs["jc"] = world.happens("collision_A_rerun_after_B", {HAZARD[1]: pixels(1)})
    runs["jd"] = world.happens("collision_A_rerun_moved")
    return runs


@pytest.mark.parametrize("order", [*itertools.permutations(["ja", "jb", "jc", "jd"])], ids="-".join)
def test_runs_that_are_heard_of_late_get_their_own_files_in_any_order(
    world: World, deliver: Deliver, order: tuple[str, ...]
) -> None:
    runs = counter_runs(world)
    for job_id in [job_id for job_id in order for _ in range(2)] + [*order]:
        deliver(job_id, runs[job_id])
    assert world.contents("ja") == {}
    assert world.contents("jb") == {HAZARD[0]: pixels(2)}
    assert world.contents("jc") == world.contents("jd") == {HAZARD[1]: pixels(1)}
    assert (world.root / "elsewhere/A.png").read_bytes() == pixels(1)
    (home,), (guest,) = world.records("jc").values(), world.records("jd").values()
    assert (home["same_file_as"], guest["same_file_as"]) == (None, home["file_id"])
    assert (home["evidence"], guest["evidence"]) == ("history", "cached")
    assert world.inode(home["path"]) == world.inode(guest["path"])
    assert world.total_size() == len(pixels(1)) + len(pixels(2))
    assert_sound(world.root)


@pytest.mark.parametrize(
    "in_time",
    [set(some) for size in range(5) for some in itertools.combinations("abcd", size)],
    ids=lambda some: "in-time-" + "".join(sorted(some)),
)
def test_runs_that_are_heard_of_in_time_or_late_get_their_own_files(
    world: World, deliver: Deliver, in_time: set[str]
) -> None:
    late: list[tuple[str, str]] = []

    def heard(letter: str, prompt_id: str) -> None:
        if letter in in_time:
            deliver(f"j{letter}", prompt_id)
        late.append((f"j{letter}", prompt_id))

    heard("a", world.happens("collision_A", {HAZARD[0]: pixels(1)}))
    if "a" not in in_time:
        world.move(HAZARD[0], "elsewhere/A.png")
    heard("b", world.happens("collision_B", {HAZARD[0]: pixels(2)}))
    heard("c", world.happens("collision_A_rerun_after_B", {HAZARD[1]: pixels(1)}))
    heard("d", world.happens("collision_A_rerun_moved"))
    for job_id, prompt_id in reversed(late):
        deliver(job_id, prompt_id)

    assert world.contents("ja") == ({HAZARD[0]: pixels(1)} if "a" in in_time else {})
    assert world.contents("jb") == {HAZARD[0]: pixels(2)}
    assert world.contents("jc") == world.contents("jd") == {HAZARD[1]: pixels(1)}
    (home,), (guest,) = world.records("jc").values(), world.records("jd").values()
    assert (home["same_file_as"], guest["same_file_as"]) == (None, home["file_id"])
    assert_sound(world.root)


def test_a_cached_run_whose_file_was_moved_away_by_hand_gets_nothing(
    world: World, manager: FileManager
) -> None:
    world.happens("collision_A_rerun_after_B", {HAZARD[1]: pixels(1)})
    world.move(HAZARD[1], "elsewhere/A.png")
    report = manager.organize_output("jd", prompt_id=world.happens("collision_A_rerun_moved"))
    assert reasons(report) == {HAZARD[1]: "not_found"}
    assert not report.organized_files


def test_a_placeholder_in_the_folder_stays_where_it_is(world: World, deliver: Deliver) -> None:
    world.write("hazard/ComfyUI_00007_.keep", b"", 1)
    name = "hazard/ComfyUI_00008_.png"
    prompt_id = world.happens("collision_placeholder", {name: pixels(1)})
    assert list(deliver("ja", prompt_id)) == [name]
    assert (world.root / "hazard/ComfyUI_00007_.keep").exists()


@pytest.mark.parametrize("order", ["in-time", "reversed"])
def test_a_run_of_which_files_were_moved_keeps_the_rest(
    world: World, deliver: Deliver, order: str
) -> None:
    names = [f"gap/g_0000{number}_.png" for number in range(1, 5)]
    first = world.happens("collision_gap_1", {name: pixels(n) for n, name in enumerate(names[:3])})
    for name in names[:2]:
        world.move(name, f"elsewhere/{name}")
    second = world.happens("collision_gap_2", {names[3]: pixels(3)})
    runs = [("ja", first), ("jb", second)]
    for job_id, prompt_id in runs if order == "in-time" else reversed(runs):
        deliver(job_id, prompt_id)
    assert world.contents("ja") == {names[2]: pixels(2)}
    assert world.contents("jb") == {names[3]: pixels(3)}


OVERWRITTEN = ["ow/b_0_00001_.png", "ow/b_1_00002_.png"]


def overwriting(number: int) -> dict[str, bytes]:
    return {name: pixels(10 * number + place) for place, name in enumerate(OVERWRITTEN)}


def test_a_run_that_was_heard_of_in_time_keeps_what_the_next_would_have_overwritten(
    world: World, deliver: Deliver
) -> None:
    for number, job_id in [(1, "ja"), (2, "jb")]:
        name = f"overwrite_batch_num_{number}"
        deliver(job_id, world.happens(name, overwriting(number)))
    assert world.contents("ja") == overwriting(1)
    assert world.contents("jb") == overwriting(2)


@pytest.mark.parametrize("order", [*itertools.permutations([1, 2])], ids=str)
def test_what_was_overwritten_is_nobody_s_but_the_last_run_s(
    world: World, deliver: Deliver, order: tuple[int, ...]
) -> None:
    runs = {n: world.happens(f"overwrite_batch_num_{n}", overwriting(n)) for n in (1, 2)}
    for number in [*order, *order]:
        deliver(f"j{number}", runs[number])
    assert world.contents("j1") == {}
    assert world.contents("j2") == overwriting(2)


@pytest.mark.parametrize("order", [*itertools.permutations([1, 2])], ids=str)
def test_a_coarse_time_that_fits_two_runs_of_a_name_gives_the_file_to_neither(
    world: World, deliver: Deliver, order: tuple[int, ...]
) -> None:
    runs = {n: world.happens(f"overwrite_batch_num_{n}", overwriting(n)) for n in (1, 2)}
    moment = within(run("overwrite_batch_num_2")[1]) // 10**9 * 10**9
    for name in OVERWRITTEN:
        world.write(name, overwriting(2)[name], moment)
    for number in order:
        assert deliver(f"j{number}", runs[number]) == {}
    assert {name: (world.root / name).read_bytes() for name in OVERWRITTEN} == overwriting(2)


def test_a_coarse_time_decides_nothing_when_the_neighbours_cannot_be_asked_for(
    world: World, manager: FileManager
) -> None:
    prompt_id = world.happens("image_basic", {"ComfyUI_00001_.png": pixels(1)})
    moment = within(run("image_basic")[1]) // 10**9 * 10**9
    world.write("ComfyUI_00001_.png", pixels(1), moment)
    world.comfyui.misbehaves["/history?"] = lambda handler: handler.connection.close()
    report = manager.organize_output("ja", prompt_id=prompt_id)
    assert reasons(report) == {"ComfyUI_00001_.png": "ambiguous_name"}


@pytest.mark.parametrize("order", [*itertools.permutations(["shot", "shot_00010"])], ids="-".join)
def test_prefixes_that_look_like_each_other_s_counter_keep_apart(
    world: World, deliver: Deliver, order: tuple[str, ...]
) -> None:
    names = {"shot_00010": "cousin/shot_00010_00001_.png", "shot": "cousin/shot_00011_.png"}
    runs = {
        "shot_00010": world.happens("cousin_1", {names["shot_00010"]: pixels(1)}),
        "shot": world.happens("cousin_2", {names["shot"]: pixels(2)}),
    }
    for job_id in [*order, *order]:
        deliver(job_id, runs[job_id])
    assert world.contents("shot_00010") == {names["shot_00010"]: pixels(1)}
    assert world.contents("shot") == {names["shot"]: pixels(2)}


@pytest.mark.parametrize("order", [*itertools.permutations([1, 2])], ids=str)
def test_a_file_that_was_moved_within_the_tree_by_hand_is_not_confused_with_its_successor(
    world: World, deliver: Deliver, order: tuple[int, ...]
) -> None:
    name = "within_00001_.png"
    runs = {1: world.happens("move_within_1", {name: pixels(1)})}
    world.move(name, f"projects/p1/j1/{name}")
    runs[2] = world.happens("move_within_2", {name: pixels(2)})
    for number in order:
        deliver(f"jm{number}", runs[number])
    assert world.contents("jm1") == {}
    assert world.contents("jm2") == {name: pixels(2)}
    assert (world.root / f"projects/p1/j1/{name}").read_bytes() == pixels(1)


def test_what_comfyui_wrote_into_our_own_tree_is_moved_like_any_other_file(
    world: World, deliver: Deliver
) -> None:
    name = "projects/anime/s01/e02/frame_00001_.png"
    prompt_id = world.happens("image_subfolder_deep", {name: pixels(1)})
    (record,) = deliver("ja", prompt_id).values()
    assert record["path"].startswith("projects/default/ja/")
    assert not (world.root / name).exists()


def test_a_run_that_writes_over_an_organized_file_s_path_does_not_get_it(
    world: World, manager: FileManager
) -> None:
    first = world.happens("collision_A", {HAZARD[0]: pixels(1)})
    (record,) = manager.organize_output("ja", prompt_id=first).organized_files
    folder, _, filename = record.path.rpartition("/")
    item = later("collision_B", "other", 0)
    item["outputs"]["2"]["images"][0] |= {"subfolder": folder, "filename": filename}
    os.utime(world.root / record.path, ns=(within(item), within(item)))
    report = manager.organize_output("jb", prompt_id=world.ran("other", item))
    assert reasons(report) == {record.path: "belongs_to_another_job"}


# A cached run names a file that an earlier run made.

CACHED_RUNS = {"ja": "cached_first", "jb": "cached_rerun_identical", "jc": "cached_partially"}


def cached_runs(world: World) -> dict[str, str]:
    files = {"ja": {CACHED: pixels(1)}, "jc": {PARTLY: pixels(2)}}
    return {job: world.happens(name, files.get(job)) for job, name in CACHED_RUNS.items()}


@pytest.mark.parametrize("links", ["links", "copies"])
@pytest.mark.parametrize("order", [*itertools.permutations(CACHED_RUNS)], ids="-".join)
def test_all_runs_that_name_a_file_have_it_and_it_counts_once(
    world: World,
    deliver: Deliver,
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[str, ...],
    links: str,
) -> None:
    if links == "copies":
        no_links(monkeypatch)
    runs = cached_runs(world)
    for job_id in [*order, *order]:
        deliver(job_id, runs[job_id])

    assert world.contents("ja") == world.contents("jb") == {CACHED: pixels(1)}
    assert world.contents("jc") == {CACHED: pixels(1), PARTLY: pixels(2)}
    records = [world.records(job_id)[CACHED] for job_id in CACHED_RUNS]
    home, *guests = records
    assert [record["evidence"] for record in records] == ["history", "cached", "cached"]
    assert home["same_file_as"] is None
    ids = {record["file_id"] for record in records}
    assert {guest["same_file_as"] for guest in guests} <= ids
    assert None not in {guest["same_file_as"] for guest in guests}
    inodes = {world.inode(record["path"]) for record in records}
    assert len(inodes) == (1 if links == "links" else 3)
    assert (world.root / home["path"]).stat().st_nlink == (3 if links == "links" else 1)
    assert world.total_size() == len(pixels(1)) + len(pixels(2))
    assert not (world.root / CACHED).exists()
    assert_sound(world.root)


@pytest.mark.parametrize("links", ["links", "copies"])
def test_the_file_stays_for_an_earlier_job_that_was_not_organized(
    world: World, deliver: Deliver, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    if links == "copies":
        no_links(monkeypatch)
    runs = cached_runs(world)
    (record,) = deliver("jb", runs["jb"]).values()
    assert (record["evidence"], record["same_file_as"]) == ("cached", None)
    assert (world.root / CACHED).read_bytes() == pixels(1)
    assert (world.root / CACHED).stat().st_nlink == (2 if links == "links" else 1)
    assert world.total_size() == len(pixels(1))
    assert_sound(world.root)


def test_a_cached_run_gets_the_earlier_file_though_its_name_was_given_anew(
    world: World, deliver: Deliver
) -> None:
    first = world.happens("cached_first", {CACHED: pixels(1)})
    home = deliver("ja", first)[CACHED]
    cached = world.happens("cached_rerun_identical")
    world.ran("newer", later("cached_first", "newer", 60 * SECOND_MS), {CACHED: pixels(9)})
    (record,) = deliver("jb", cached).values()
    assert world.content(record) == pixels(1)
    assert record["same_file_as"] == home["file_id"]
    assert (world.root / CACHED).read_bytes() == pixels(9)
    deliver("jn", "newer")
    assert world.contents("jn") == {CACHED: pixels(9)}


def test_a_cached_run_never_gets_newer_bytes_under_the_name(
    world: World, manager: FileManager
) -> None:
    world.happens("cached_first")
    cached = world.happens("cached_rerun_identical")
    world.ran("newer", later("cached_first", "newer", 60 * SECOND_MS), {CACHED: pixels(9)})
    report = manager.organize_output("jb", prompt_id=cached)
    assert reasons(report) == {CACHED: "ambiguous_name"}
    assert (world.root / CACHED).read_bytes() == pixels(9)


def test_a_cached_run_gets_nothing_of_another_graph_that_used_the_name_before(
    world: World, manager: FileManager
) -> None:
    other = later("cached_first", "other", -60 * SECOND_MS)
    other["prompt"][2]["1"]["inputs"]["seed"] = 4711
    world.ran("other", other, {CACHED: pixels(9)})
    cached = world.happens("cached_rerun_identical")
    manager.organize_output("jo", prompt_id="other")
    report = manager.organize_output("jb", prompt_id=cached)
    assert reasons(report) == {CACHED: "ambiguous_name"}


def test_of_two_files_of_one_name_a_cached_run_gets_that_of_its_own_graph(
    world: World, deliver: Deliver
) -> None:
    other = later("cached_first", "other", -60 * SECOND_MS)
    other["prompt"][2]["1"]["inputs"]["seed"] = 4711
    deliver("jo", world.ran("other", other, {CACHED: pixels(9)}))
    home = deliver("ja", world.happens("cached_first", {CACHED: pixels(1)}))[CACHED]
    (record,) = deliver("jb", world.happens("cached_rerun_identical")).values()
    assert (world.content(record), record["same_file_as"]) == (pixels(1), home["file_id"])


def test_of_two_files_of_one_name_and_graph_a_cached_run_gets_the_newer(
    world: World, deliver: Deliver
) -> None:
    older = later("cached_first", "older", -60 * SECOND_MS)
    deliver("jo", world.ran("older", older, {CACHED: pixels(9)}))
    home = deliver("ja", world.happens("cached_first", {CACHED: pixels(1)}))[CACHED]
    (record,) = deliver("jb", world.happens("cached_rerun_identical")).values()
    assert (world.content(record), record["same_file_as"]) == (pixels(1), home["file_id"])


def test_a_coarse_time_that_fits_another_graph_as_well_gives_a_cached_run_nothing(
    world: World, manager: FileManager
) -> None:
    moment = within(run("cached_first")[1]) // 10**9 * 10**9
    world.happens("cached_first", {CACHED: pixels(1)})
    other = later("cached_first", "other", 110)
    other["prompt"][2]["1"]["inputs"]["seed"] = 4711
    world.ran("other", other)
    world.write(CACHED, pixels(9), moment)
    report = manager.organize_output("jb", prompt_id=world.happens("cached_rerun_identical"))
    assert reasons(report) == {CACHED: "ambiguous_name"}


def test_the_graph_in_the_file_tells_when_comfyui_has_forgotten_the_earlier_run(
    world: World, deliver: Deliver
) -> None:
    prompt_id, item = run("cached_first")
    content = with_text(pixels(1), "prompt", item["prompt"][2])
    world.ran(prompt_id, item, {CACHED: content})
    cached = world.happens("cached_rerun_identical")
    del world.comfyui.history[prompt_id]
    (record,) = deliver("jb", cached).values()
    assert (record["evidence"], world.content(record)) == ("cached", content)


def test_the_inputs_of_a_node_may_hold_a_list_that_is_no_link(
    world: World, deliver: Deliver
) -> None:
    runs = {}
    for name in ("cached_first", "cached_rerun_identical"):
        prompt_id, item = run(name)
        item["prompt"][2]["1"]["inputs"]["styles"] = ["ink", "wash"]
        files = {CACHED: pixels(1)} if name == "cached_first" else {}
        runs[name] = world.ran(prompt_id, item, files)
    (record,) = deliver("jb", runs["cached_rerun_identical"]).values()
    assert (record["evidence"], world.content(record)) == ("cached", pixels(1))


def cached_rerun(world: World, name: str) -> str:
    """Have a recorded run happen once more, a second later and wholly from the cache."""
    item = later(name, "again", SECOND_MS, cached=run(name)[1]["prompt"][2])
    return world.ran("again", item)


@pytest.mark.parametrize("order", ["earlier-first", "cached-first"])
@pytest.mark.parametrize(
    "name", ["vhs_mp4", "vhs_mp4_audio", "vhs_gif", "vhs_png_sequence", "dataset_unlisted"]
)
def test_a_cached_run_shares_what_the_history_does_not_name_as_well(
    world: World, deliver: Deliver, name: str, order: str
) -> None:
    files = {path: recording(path) for path in made_by(name)}
    first = world.happens(name, files)
    again = cached_rerun(world, name)
    runs = [("ja", first), ("jb", again)]
    for job_id, prompt_id in runs if order == "earlier-first" else reversed(runs):
        deliver(job_id, prompt_id)
    assert world.contents("ja") == files
    assert world.contents("jb") == files
    assert {record["evidence"] for record in world.records("jb").values()} == {"cached"}
    home = {record["file_id"] for record in world.records("ja").values()}
    assert {record["same_file_as"] for record in world.records("jb").values()} == home
    assert world.total_size() == sum(map(len, files.values()))


# What the files say themselves.


TAGC = "tagc/c_00001_.png"


@pytest.mark.parametrize("order", [*itertools.permutations(["job-A", "job-B"])], ids="-".join)
def test_a_cached_run_shares_a_file_that_carries_the_earlier_job_s_tag(
    world: World, deliver: Deliver, order: tuple[str, ...]
) -> None:
    content = tagged(recording(TAGC), job_id="job-A")
    runs = {
        "job-A": world.happens("extra_cache_a", {TAGC: content}),
        "job-B": world.happens("extra_cache_b"),
    }
    for job_id in order:
        deliver(job_id, runs[job_id])
    assert world.contents("job-A") == world.contents("job-B") == {TAGC: content}
    assert world.records("job-B")[TAGC]["same_file_as"] == world.records("job-A")[TAGC]["file_id"]


@pytest.mark.parametrize("job_id", ["job-A", "job-B"])
def test_a_prefix_of_its_own_makes_the_save_node_run_again(
    world: World, deliver: Deliver, job_id: str
) -> None:
    owner = "33333333-3333-4333-8333-333333333333"
    (name,) = made_by("unique_prefix_busts_cache")
    prompt_id = world.happens("unique_prefix_busts_cache", {name: recording(name)})
    assert deliver(job_id, prompt_id) == {}
    (record,) = deliver(owner, prompt_id).values()
    assert (record["original_path"], record["same_file_as"]) == (name, None)


def test_the_tag_of_another_job_is_a_veto_though_the_history_names_the_file(
    world: World, manager: FileManager
) -> None:
    content = tagged(pixels(1), job_id="jx")
    prompt_id = world.happens("collision_A", {HAZARD[0]: content})
    report = manager.organize_output("ja", prompt_id=prompt_id)
    assert reasons(report) == {HAZARD[0]: "tagged_for_another_job"}
    assert (world.root / HAZARD[0]).read_bytes() == content


def test_a_job_s_own_tag_is_stronger_evidence_than_the_name(
    world: World, manager: FileManager
) -> None:
    world.write("ja_00001_.png", tagged(pixels(1), job_id="ja"), 1)
    world.write("ja_00002_.png", pixels(2), 1)
    world.write("ja_00003_.png", tagged(pixels(3), job_id="jx"), 1)
    report = manager.organize_output("ja")
    assert [(r.original_path, r.evidence) for r in report] == [
        ("ja_00001_.png", "tag"),
        ("ja_00002_.png", "prefix"),
    ]
    assert reasons(report) == {"ja_00003_.png": "tagged_for_another_job"}


# One prompt id, sent twice.


def test_the_first_result_is_not_taken_for_that_of_a_second_run_of_the_same_id(
    world: World, manager: FileManager
) -> None:
    prompt_id = world.happens("same_prompt_id_a", {"dup/x_00001_.png": pixels(1)})
    world.comfyui.running = [prompt_id]
    with pytest.raises(RunNotFinishedError):
        manager.organize_output("jb", prompt_id=prompt_id)
    assert list(outputs(world.root)) == ["dup/x_00001_.png"]


def test_each_of_two_runs_of_one_id_brings_its_own_file(world: World, deliver: Deliver) -> None:
    prompt_id = world.happens("same_prompt_id_a", {"dup/x_00001_.png": pixels(1)})
    deliver("ja", prompt_id)
    world.happens("same_prompt_id_b", {"dup/y_00001_.png": pixels(2)})
    deliver("jb", prompt_id)
    assert world.contents("ja") == {"dup/x_00001_.png": pixels(1)}
    assert world.contents("jb") == {"dup/y_00001_.png": pixels(2)}


# Files that are not whole yet.


@pytest.mark.parametrize(
    "name", ["video_mp4", "webm_vp9", "vhs_mp4_audio", "image_batch4"], ids=str
)
def test_a_file_that_is_not_whole_yet_waits_and_comes_whole(
    world: World, manager: FileManager, name: str
) -> None:
    files = {path: recording(path) for path in made_by(name)}
    partial = {path: content[: len(content) // 2] for path, content in files.items()}
    prompt_id = world.happens(name, partial)
    answer = manager.complete_job("ja", prompt_id=prompt_id)
    assert (answer.organize_error, answer.organized_files) == ("still_being_written", ())
    assert {path: (world.root / path).read_bytes() for path in files} == partial
    world.happens(name, files)
    (report,) = manager.retry_pending_jobs().organized
    assert len(report) == len(files)
    assert world.contents("ja") == files


def test_an_empty_file_of_a_run_under_way_is_not_touched(
    world: World, manager: FileManager
) -> None:
    world.write("video/webm_00001_.webm", b"", within(run("webm_vp9")[1]))
    world.comfyui.running = [run("webm_vp9")[0]]
    answer = manager.complete_job("ja", prompt_id=run("webm_vp9")[0])
    assert answer.organize_error is not None
    assert outputs(world.root)["video/webm_00001_.webm"] == b""


# What the history does not name.


@pytest.mark.parametrize("order", [*itertools.permutations(["ja", "jb"])], ids="-".join)
@pytest.mark.parametrize(
    "name",
    ["vhs_mp4", "vhs_mp4_audio", "vhs_gif", "vhs_png_sequence", "dataset_unlisted"],
)
def test_what_stands_beside_a_reused_name_is_the_run_s_that_wrote_it(
    world: World, deliver: Deliver, name: str, order: tuple[str, ...]
) -> None:
    files = {path: recording(path) for path in made_by(name)}
    item = later(name, "other", 10 * SECOND_MS)
    runs = {"ja": world.happens(name, files), "jb": world.ran("other", item, files)}
    for job_id in order:
        deliver(job_id, runs[job_id])
    assert world.contents("ja") == {}
    assert world.contents("jb") == files


@pytest.mark.parametrize("order", [*itertools.permutations(["ja", "jb"])], ids="-".join)
@pytest.mark.parametrize(
    "name",
    ["vhs_mp4", "vhs_mp4_audio", "vhs_gif", "vhs_png_sequence", "dataset_unlisted"],
)
def test_a_coarse_time_that_fits_two_runs_gives_neither_what_stands_beside_the_name(
    world: World, deliver: Deliver, name: str, order: tuple[str, ...]
) -> None:
    files = {path: recording(path) for path in made_by(name)}
    begins, ends = window_of(run(name)[1])
    by_ms = ends - begins + 110
    item = later(name, "other", by_ms if begins % 1000 + by_ms < 1000 else -by_ms)
    runs = {"ja": world.happens(name, files), "jb": world.ran("other", item, files)}
    for path, content in files.items():
        world.write(path, content, begins // 1000 * 10**9)
    for job_id in order:
        assert deliver(job_id, runs[job_id]) == {}
    assert {path: (world.root / path).read_bytes() for path in files} == files


def test_a_file_in_a_dataset_s_folder_that_another_run_wrote_stays(
    world: World, deliver: Deliver
) -> None:
    (name,) = made_by("dataset_unlisted")
    prompt_id, item = run("dataset_unlisted")
    world.write("dataset_x/image_00000_00000.png", pixels(1), within(item) - 10**9)
    world.ran(prompt_id, item, {name: pixels(2)})
    world.write("dataset_x/image_00002_00000.png", pixels(3), within(item) + 10**9)
    assert list(deliver("ja", prompt_id)) == [name]


def test_a_sidecar_that_the_jobs_of_a_folder_share_stays(world: World, deliver: Deliver) -> None:
    prompt_id, item = run("image_subfolder")
    (name,) = made_by("image_subfolder")
    beside = name.removesuffix(".png") + ".txt"
    files = {name: pixels(1), beside: b"a caption", "project_a/jobs.json": b"[]"}
    world.ran(prompt_id, item, files)
    assert sorted(deliver("ja", prompt_id)) == [name, beside]
    assert (world.root / "project_a/jobs.json").exists()


@pytest.mark.parametrize("name", ["preview3d", "save3d_advanced"])
def test_a_model_that_is_named_as_plain_text_is_the_run_s(
    world: World, deliver: Deliver, name: str
) -> None:
    (path,) = made_by(name)
    prompt_id = world.happens(name, {path: recording(path)})
    (record,) = deliver("ja", prompt_id).values()
    assert (record["original_path"], record["evidence"]) == (path, "history")


def test_text_that_names_no_file_is_passed_over(world: World, manager: FileManager) -> None:
    item = later("preview3d", "other", 0)
    item["outputs"]["4"]["result"] = ["A girl. Cherry blossoms.", "../no/path.", "/nor.this"]
    report = manager.organize_output("ja", prompt_id=world.ran("other", item))
    assert (reasons(report), len(report)) == ({}, 0)


@pytest.mark.parametrize("name", ["exec_error_after_save", "interrupted"])
def test_a_run_that_failed_keeps_the_outputs_that_it_had_finished(
    world: World, deliver: Deliver, name: str
) -> None:
    files: Mapping[str, Any] = {path: recording(path) for path in made_by(name)}
    deliver("ja", world.happens(name, files))
    assert world.contents("ja") == files
    assert cached_by(name) == []


def test_the_queue_of_others_is_no_reason_to_wait(
    world: World, manager: FileManager, comfyui: Replay
) -> None:
    comfyui.running, comfyui.pending = ["one"], ["two", "three"]
    prompt_id = world.happens("collision_A", {HAZARD[0]: pixels(1)})
    assert len(manager.organize_output("ja", prompt_id=prompt_id)) == 1
