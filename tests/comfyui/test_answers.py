"""What ComfyUI answers, what it does not, and what must never come of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_comfy_files import FileManager
from flask_comfy_files.core import comfyui as comfyui_module
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import (
    ComfyUIAnswerError,
    HistoryUnavailableError,
    RunNotFinishedError,
)
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.core.manager import jobs as manager_module
from flask_comfy_files.core.stamping import stamp_prompt
from tests.comfyui.recordings import later, made_by, pixels, run
from tests.comfyui.replay import (
    Misbehaviour,
    Replay,
    breaks_off,
    drips,
    hangs_up,
    never_begins,
    never_ends,
    redirects_to,
    replaying,
    says,
    speaks_something_else,
)
from tests.comfyui.world import World
from tests.conftest import OpenManager
from tests.crash.library_check import DIED, Fuse, delete_index, in_child, wire
from tests.invariants import assert_sound, changes_of, reasons
from tests.trees import outputs, read_tree, recording
from tests.web.answers import answer_of, assert_problem, organize

NAME = "hazard/ComfyUI_00001_.png"
PROMPT = run("collision_A")[0]


@pytest.fixture
def client(host: Flask) -> FlaskClient:
    return host.test_client()


def complete(client: FlaskClient, prompt_id: str, job_id: str = "ja") -> dict[str, Any]:
    answer = client.post(f"/api/jobs/{job_id}/complete", json={"prompt_id": prompt_id})
    assert answer.status_code == 200
    body: dict[str, Any] = json.loads(answer.data)
    return body


def pending_jobs(client: FlaskClient) -> list[str]:
    manager: FileManager = client.application.extensions["comfy_files"]
    return [job.job_id for job in manager.get_pending_jobs()]


def goes_down(comfyui: Replay) -> None:
    comfyui.stop()


def forgets(comfyui: Replay) -> None:
    comfyui.history.clear()


SILENCES = pytest.mark.parametrize("falls_silent", [goes_down, forgets], ids=["down", "forgotten"])
"""The two ways in which ComfyUI can have nothing to say of a run."""


# It has nothing to say.


@SILENCES
def test_the_other_rules_go_on_and_the_answer_says_that_the_history_is_missing(
    world: World, manager: FileManager, falls_silent: Callable[[Replay], None]
) -> None:
    prompt_id = world.happens("collision_A", {NAME: pixels(1)})
    world.write("ja_00001_.png", pixels(2), 1)
    falls_silent(world.comfyui)
    report = manager.organize_output("ja", prompt_id=prompt_id)
    assert [(r.original_path, r.evidence) for r in report] == [("ja_00001_.png", "prefix")]
    assert report.unavailable == ("history",)
    assert (world.root / NAME).exists()


@SILENCES
def test_the_answer_over_rest_says_that_the_history_is_missing(
    world: World, client: FlaskClient, falls_silent: Callable[[Replay], None]
) -> None:
    world.write("ja_00001_.png", pixels(2), 1)
    falls_silent(world.comfyui)
    answer = answer_of(organize(client, {"job_id": "ja", "prompt_id": PROMPT}))
    assert (answer["file_count"], answer["unavailable"]) == (1, ["history"])


@SILENCES
def test_where_nothing_else_names_a_file_the_call_is_to_be_tried_again(
    world: World, client: FlaskClient, falls_silent: Callable[[Replay], None]
) -> None:
    world.happens("collision_A", {NAME: pixels(1)})
    falls_silent(world.comfyui)
    before = outputs(world.root)
    response = organize(client, {"job_id": "ja", "prompt_id": PROMPT})
    assert_problem(response, HTTPStatus.SERVICE_UNAVAILABLE, "history_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert outputs(world.root) == before


@SILENCES
def test_a_completion_without_history_is_pending_and_is_finished_when_it_is_back(
    world: World, client: FlaskClient, falls_silent: Callable[[Replay], None]
) -> None:
    falls_silent(world.comfyui)
    answer = complete(client, PROMPT)
    assert (answer["organized_files"], answer["file_count"]) == ([], 0)
    assert "history" in answer["organize_error"]
    assert pending_jobs(client) == ["ja"]
    with replaying() as back:
        again = World(world.root, back)
        again.happens("collision_A", {NAME: pixels(1)})
        with FileManager(world.root, comfyui_url=back.url) as manager:
            (report,) = manager.retry_pending_jobs().organized
    assert [record.original_path for record in report] == [NAME]
    assert pending_jobs(client) == []


def test_a_history_that_comes_a_little_late_is_waited_for_by_the_hook(
    world: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "_HISTORY_WAIT_S", 20.0)
    prompt_id = world.happens("collision_A", {NAME: pixels(1)})
    world.comfyui.late = 3
    answer = complete(client, prompt_id)
    assert [record["original_path"] for record in answer["organized_files"]] == [NAME]
    assert pending_jobs(client) == []


def test_a_history_that_comes_too_late_for_the_hook_leaves_the_job_pending(
    world: World, client: FlaskClient
) -> None:
    prompt_id = world.happens("collision_A", {NAME: pixels(1)})
    world.comfyui.late = 10_000
    assert "organize_error" in complete(client, prompt_id)
    assert pending_jobs(client) == ["ja"]
    world.comfyui.late = 0
    assert complete(client, prompt_id)["file_count"] == 1
    assert pending_jobs(client) == []


def test_files_that_the_caller_names_need_no_server(world: World, manager: FileManager) -> None:
    world.happens("collision_A", {NAME: pixels(1)})
    world.comfyui.stop()
    report = manager.organize_output("ja", prompt_id=PROMPT, files=[NAME])
    assert [(r.evidence, r.prompt_id) for r in report] == [("files", PROMPT)]


# It is not done yet.


@pytest.mark.parametrize("queue", ["running", "pending"])
def test_a_run_that_goes_on_is_to_be_asked_for_later(
    world: World, client: FlaskClient, queue: str
) -> None:
    world.write("ja_00001_.png", pixels(1), 1)
    setattr(world.comfyui, queue, [PROMPT])
    before = read_tree(world.root)
    response = organize(client, {"job_id": "ja", "prompt_id": PROMPT})
    assert_problem(response, HTTPStatus.SERVICE_UNAVAILABLE, "run_not_finished")
    assert int(response.headers["Retry-After"]) > 0
    assert outputs(world.root) == before


@pytest.mark.parametrize("queue", ["running", "pending"])
def test_a_run_that_goes_on_is_pending_in_the_hook_and_comes_when_it_has_ended(
    world: World, client: FlaskClient, queue: str
) -> None:
    setattr(world.comfyui, queue, [PROMPT])
    answer = complete(client, PROMPT)
    assert "has not finished" in answer["organize_error"]
    assert pending_jobs(client) == ["ja"]
    setattr(world.comfyui, queue, [])
    world.happens("collision_A", {NAME: pixels(1)})
    complete(client, world.happens("collision_B"), "jb")
    assert pending_jobs(client) == []
    assert list(world.contents("ja")) == [NAME]


def test_a_run_that_goes_on_raises(world: World, manager: FileManager) -> None:
    world.comfyui.running = [PROMPT]
    with pytest.raises(RunNotFinishedError):
        manager.organize_output("ja", prompt_id=PROMPT)


def test_a_server_that_hangs_up_counts_as_one_that_is_down(
    world: World, manager: FileManager
) -> None:
    world.comfyui.misbehaves[""] = hangs_up
    with pytest.raises(HistoryUnavailableError):
        manager.organize_output("ja", prompt_id=PROMPT)
    assert world.comfyui.asked == ["/queue", "/queue"], "one retry"


def test_a_server_that_accepts_and_stays_silent_counts_as_one_that_is_down(
    world: World, manager: FileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfyui_module, "_TIMEOUT_S", 0.05)
    world.comfyui.misbehaves[""] = never_begins
    with pytest.raises(HistoryUnavailableError):
        manager.organize_output("ja", prompt_id=PROMPT)


# What answers is no ComfyUI, or an evil one.

NO_COMFYUI: dict[str, Misbehaviour] = {
    "no-json": says(b"<html>It works!</html>"),
    "nothing": says(b""),
    "half-of-it": says(b'{"queue_running": ['),
    "a-list": says(b"[]"),
    "a-number": says(b"42"),
    "no-utf-8": says(b'{"\xff\xfe": 1}'),
    "a-huge-number": says(b'{"a": ' + b"9" * 10_000 + b"}"),
    "nested-too-deep": says(b'{"a": ' + b"[" * 200_000),
    "broken-off": breaks_off,
    "not-found": says(b"{}", HTTPStatus.NOT_FOUND),
    "forbidden": says(b"{}", HTTPStatus.FORBIDDEN),
    "error-500": says(b"{}", HTTPStatus.INTERNAL_SERVER_ERROR),
    "no-http": speaks_something_else,
    "endless": never_ends,
    "too-large": says(b'{"queue_running": []' + b" " * 1024**2 + b"}"),
    "byte-by-byte": drips,
}


@pytest.mark.parametrize("beginning", ["/queue", "/history/"])
@pytest.mark.parametrize("misbehaviour", NO_COMFYUI.values(), ids=NO_COMFYUI)
def test_an_answer_that_is_none_is_an_error_and_moves_nothing(
    world: World,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    misbehaviour: Misbehaviour,
    beginning: str,
) -> None:
    monkeypatch.setattr(comfyui_module, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(comfyui_module, "_LARGEST_ANSWER_BYTES", 1024**2)
    world.happens("collision_A", {NAME: pixels(1)})
    world.write("ja_00001_.png", pixels(2), 1)
    world.comfyui.misbehaves[beginning] = misbehaviour
    before = outputs(world.root)
    response = organize(client, {"job_id": "ja", "prompt_id": PROMPT})
    assert_problem(response, HTTPStatus.BAD_GATEWAY, "comfyui_answer")
    assert outputs(world.root) == before
    assert not (world.root / DOCUMENT).exists()


def test_a_redirect_is_not_followed(world: World, manager: FileManager) -> None:
    world.happens("collision_A", {NAME: pixels(1)})
    with replaying() as other:
        other.history = world.comfyui.history
        world.comfyui.misbehaves[""] = redirects_to(f"{other.url}/queue")
        with pytest.raises(ComfyUIAnswerError):
            manager.organize_output("ja", prompt_id=PROMPT)
        assert other.asked == []


def test_a_proxy_of_the_environment_is_not_asked(
    world: World, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt_id = world.happens("collision_A", {NAME: pixels(1)})
    with replaying() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        manager = open_manager(world.root, comfyui_url=world.comfyui.url)
        assert len(manager.organize_output("ja", prompt_id=prompt_id)) == 1
        assert proxy.asked == []


def test_a_completion_with_an_answer_that_is_none_is_pending(
    world: World, client: FlaskClient
) -> None:
    world.comfyui.misbehaves["/history"] = says(b"<html>")
    assert "no JSON" in complete(client, PROMPT)["organize_error"]
    assert pending_jobs(client) == ["ja"]


def entry(filename: object, subfolder: object = "", kind: object = "output") -> dict[str, Any]:
    return {"filename": filename, "subfolder": subfolder, "type": kind}


HOSTILE = {
    "folder-above": entry("x.png", "../.."),
    "folder-above-in-the-middle": entry("x.png", "a/../../b"),
    "absolute-folder": entry("x.png", "/etc"),
    "nul-in-the-name": entry("x\0.png"),
    "nul-in-the-folder": entry("x.png", "a\0b"),
    "slash-in-the-name": entry("a/x.png"),
    "absolute-name": entry("/etc/passwd"),
    "name-above": entry(".."),
    "no-name": entry(""),
    "name-is-a-number": entry(7),
    "name-is-null": entry(None),
    "folder-is-a-list": entry("x.png", ["a"]),
    "half-a-surrogate": entry("\ud800.png"),
    "too-long": entry("x" * 300),
}


@pytest.mark.parametrize("listed", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_is_an_error_and_moves_nothing(
    world: World, client: FlaskClient, listed: dict[str, Any]
) -> None:
    item = later("collision_A", PROMPT, 0)
    item["outputs"]["2"]["images"].append(listed)
    world.ran(PROMPT, item, {NAME: pixels(1)})
    world.write("ja_00001_.png", pixels(2), 1)
    before = outputs(world.root)
    response = organize(client, {"job_id": "ja", "prompt_id": PROMPT})
    assert_problem(response, HTTPStatus.BAD_GATEWAY, "comfyui_answer")
    assert outputs(world.root) == before


NO_ITEMS: dict[str, Any] = {
    "null": None,
    "a-list": [],
    "no-outputs": {},
    "outputs-are-a-list": {"outputs": []},
}


@pytest.mark.parametrize("item", NO_ITEMS.values(), ids=NO_ITEMS)
def test_a_history_item_that_is_none_is_an_error(
    world: World, manager: FileManager, item: object
) -> None:
    world.comfyui.history[PROMPT] = item
    with pytest.raises(ComfyUIAnswerError):
        manager.organize_output("ja", prompt_id=PROMPT)


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


ODD: dict[str, dict[str, Any]] = {
    "no-status": {"status": None},
    "messages-are-no-list": {"status": {"messages": 7}},
    "messages-are-odd": {"status": {"messages": [7, [], ["execution_start"], ["x", {}, 1]]}},
    "time-is-text": {"status": {"messages": [["execution_start", {"timestamp": "now"}]]}},
    "time-is-huge": {"status": {"messages": [["execution_start", {"timestamp": 10**300}]]}},
    "no-prompt": {"prompt": None},
    "prompt-is-short": {"prompt": [1]},
    "graph-is-odd": {"prompt": [1, PROMPT, {"2": {"inputs": {"a": ["2", 0]}}}, {}, []]},
    "graph-is-deep": {"prompt": [1, PROMPT, {"2": {"inputs": {"a": nested(900)}}}, {}, []]},
    "graph-has-a-nul-folder": {
        "prompt": [
            *[1, PROMPT],
            {"9": {"class_type": "SaveImageDataSetToFolder", "inputs": {"folder_name": "\0"}}},
        ]
    },
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_is_odd_in_an_answer_but_names_files_is_not_taken_on_trust(
    world: World, manager: FileManager, odd: dict[str, Any]
) -> None:
    item = {**run("collision_A")[1], **odd}
    world.ran(PROMPT, run("collision_A")[1], {NAME: pixels(1)})
    world.comfyui.history[PROMPT] = item
    report = manager.organize_output("ja", prompt_id=PROMPT)
    taken = {record.original_path: record.evidence for record in report}
    assert taken | reasons(report) in [{NAME: "history"}, {NAME: "ambiguous_name"}]
    assert_sound(world.root)


ODD_NAMES = ["a\nb_00001_.png", ".hidden_00001_.png", "-dash_00001_.png", "[x] %s {y}_00001_.png"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=["newline", "dot", "dash", "brackets"])
@pytest.mark.parametrize("subfolder", ["", ".sub\nfolder", "odd/./folder/"])
def test_a_name_that_is_odd_but_comfyui_s_is_taken(
    world: World, manager: FileManager, name: str, subfolder: str
) -> None:
    item = later("collision_A", PROMPT, 0)
    item["outputs"]["2"]["images"] = [entry(name, subfolder)]
    path = str(Path(subfolder, name))
    world.ran(PROMPT, item, {path: pixels(1)})
    report = manager.organize_output("ja", prompt_id=PROMPT)
    assert {record.original_path: (world.root / record.path).read_bytes() for record in report} == {
        path: pixels(1)
    }


@pytest.mark.parametrize("kind", ["temp", "input", "no such type", None, 7])
def test_only_what_is_of_type_output_is_taken(
    world: World, manager: FileManager, kind: object
) -> None:
    item = later("collision_A", PROMPT, 0)
    item["outputs"]["2"]["images"] = [entry("ComfyUI_00001_.png", "hazard", kind)]
    world.ran(PROMPT, item, {NAME: pixels(1)})
    report = manager.organize_output("ja", prompt_id=PROMPT)
    assert reasons(report) == {NAME: "not_an_output"}
    assert (world.root / NAME).exists()


@pytest.mark.parametrize("prompt_id", ["job 42/../x?y#z", "ジョブ", "%2e%2e", "a&b=c"])
def test_any_text_may_be_a_prompt_id_as_with_older_servers(
    world: World, manager: FileManager, prompt_id: str
) -> None:
    world.ran(prompt_id, later("collision_A", prompt_id, 0), {NAME: pixels(1)})
    (record,) = manager.organize_output("ja", prompt_id=prompt_id).organized_files
    assert record.prompt_id == prompt_id


# What is kept of a run.


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("collision_A", "success", None),
        ("exec_error_after_save", "error", "scratch failure: CUDA out of memory (simulated)"),
        ("interrupted", "interrupted", None),
        ("websocket_image_only", "success", None),
    ],
)
def test_a_job_tells_of_its_runs_when_comfyui_has_forgotten_them(
    world: World, manager: FileManager, name: str, status: str, error: str | None
) -> None:
    prompt_id = world.happens(name, {path: pixels(1) for path in made_by(name)})
    manager.organize_output("ja", prompt_id=prompt_id)
    manager.close()
    world.comfyui.stop()
    delete_index(world.root)
    with FileManager(world.root) as again:
        (told,) = again.get_job_files("ja").runs
    assert (told["prompt_id"], told["status"], told["error"]) == (prompt_id, status, error)
    assert told["started_at"] < told["finished_at"]
    assert sorted(told) == ["error", "finished_at", "prompt_id", "started_at", "status"]


def test_a_job_of_several_runs_tells_of_each_in_their_order(
    world: World, client: FlaskClient
) -> None:
    runs = []
    for number, name in enumerate(["collision_A", "collision_B", "interrupted"]):
        (path,) = made_by(name)
        runs.append(world.happens(name, {path: pixels(number)}))
        assert answer_of(organize(client, {"job_id": "ja", "prompt_id": runs[-1]}))
    answer = answer_of(client.get("/api/files/jobs/ja"))
    assert [told["prompt_id"] for told in answer["runs"]] == runs
    assert [told["status"] for told in answer["runs"]] == ["success", "success", "interrupted"]
    assert answer["file_count"] == 3


def test_the_moments_of_a_run_are_those_of_the_server(world: World, manager: FileManager) -> None:
    prompt_id = world.happens("interrupted", {"intr/before_00001_.png": pixels(1)})
    manager.organize_output("ja", prompt_id=prompt_id)
    (told,) = manager.get_job_files("ja").runs
    assert told["started_at"] == "2026-11-23T03:36:17.675000Z"
    assert told["finished_at"] == "2026-11-23T03:36:19.240000Z"


# The inbox of a stamped run.


def stamped_run(world: World, stamp_run: str, by_ms: int = 0) -> tuple[str, str]:
    """Have a stamped run happen; return its prompt id and what it wrote."""
    prompt_id = f"run-{stamp_run}"
    item = later("collision_A", prompt_id, by_ms)
    stamped = stamp_prompt(item["prompt"][2], job_id="ja", project_id=None, run=stamp_run)
    item["prompt"][2], item["prompt"][3] = stamped.prompt, stamped.extra_data
    subfolder = f"inbox/ja/{stamp_run}/hazard"
    item["outputs"]["2"]["images"] = [entry("ComfyUI_00001_.png", subfolder)]
    path = f"{subfolder}/ComfyUI_00001_.png"
    world.ran(prompt_id, item, {path: pixels(by_ms)})
    return prompt_id, path


def test_the_folder_of_a_run_goes_when_the_run_has_ended(
    world: World, manager: FileManager
) -> None:
    prompt_id, path = stamped_run(world, "aaaa")
    (record,) = manager.organize_output("ja", prompt_id=prompt_id).organized_files
    assert (record.original_path, record.evidence) == (path, "history")
    assert list((world.root / "inbox/ja").iterdir()) == []


def test_the_folder_of_a_run_that_may_go_on_stays(world: World, manager: FileManager) -> None:
    (world.root / "inbox/ja/bbbb/hazard").mkdir(parents=True)
    prompt_id, _ = stamped_run(world, "aaaa")
    manager.organize_output("ja", prompt_id=prompt_id)
    assert sorted(path.name for path in (world.root / "inbox/ja").iterdir()) == ["bbbb"]
    assert (world.root / "inbox/ja/bbbb/hazard").is_dir()


def test_without_a_prompt_id_the_whole_inbox_is_taken_and_its_folders_stay(
    world: World, manager: FileManager
) -> None:
    paths = [stamped_run(world, "aaaa")[1], stamped_run(world, "bbbb", 1000)[1]]
    report = manager.organize_output("ja")
    assert {record.original_path: record.evidence for record in report} == dict.fromkeys(
        paths, "inbox"
    )
    assert (world.root / "inbox/ja/aaaa/hazard").is_dir()


def test_the_folder_of_a_run_whose_files_were_taken_before_goes_when_it_is_known_to_have_ended(
    world: World, manager: FileManager
) -> None:
    prompt_id, _ = stamped_run(world, "aaaa")
    manager.organize_output("ja")
    manager.organize_output("ja", prompt_id=prompt_id)
    assert list((world.root / "inbox/ja").iterdir()) == []


# A crash while a file is linked.

CACHED = "cached/c_00001_.png"


@pytest.mark.parametrize("earlier", ["organized", "not-organized"])
@pytest.mark.parametrize("gone", ["target-and-index", "index"])
def test_a_link_that_a_crash_has_lost_is_made_again(
    world: World, manager: FileManager, earlier: str, gone: str
) -> None:
    first = world.happens("cached_first", {CACHED: pixels(1)})
    again = world.happens("cached_rerun_identical")
    if earlier == "organized":
        manager.organize_output("ja", prompt_id=first)
    (record,) = manager.organize_output("jb", prompt_id=again).organized_files
    manager.close()
    delete_index(world.root)
    if gone == "target-and-index":
        (world.root / record.path).unlink()
    manager.organize_output("jc", prompt_id=world.happens("svg"))
    assert world.contents("jb") == {CACHED: pixels(1)}
    assert_sound(world.root)


@pytest.mark.crash
def test_a_link_survives_a_crash_at_every_step(tmp_path: Path, comfyui: Replay) -> None:
    for step in itertools.count(1):
        root = tmp_path / str(step)
        root.mkdir()
        world = World(root, comfyui)
        first = world.happens("cached_first", {CACHED: pixels(1)})
        again = world.happens("cached_rerun_identical")

        def work(root: Path = root, again: str = again, step: int = step) -> None:
            wire(Fuse(step))
            with FileManager(root, comfyui_url=comfyui.url, min_free_bytes=0) as manager:
                manager.organize_output("jb", prompt_id=again)

        end = in_child(work)
        assert end.status in {0, DIED}, end.said
        with FileManager(root, comfyui_url=comfyui.url, min_free_bytes=0) as manager:
            manager.organize_output("jb", prompt_id=again)
            manager.organize_output("ja", prompt_id=first)
        assert world.contents("ja") == world.contents("jb") == {CACHED: pixels(1)}, end.said
        (home,), (guest,) = world.records("ja").values(), world.records("jb").values()
        assert guest["same_file_as"] == home["file_id"], end.said
        assert world.inode(home["path"]) == world.inode(guest["path"])
        assert not (root / CACHED).exists(), end.said
        assert_sound(root)
        if end.status == 0:
            return


def test_a_link_that_the_system_refuses_leaves_the_earlier_file_alone(
    world: World, manager: FileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    world.happens("cached_first", {CACHED: pixels(1)})
    again = world.happens("cached_rerun_identical")
    monkeypatch.setattr(durable, "link", refuse)
    answer = manager.complete_job("jb", prompt_id=again)
    assert answer.organize_error is not None
    assert (world.root / CACHED).read_bytes() == pixels(1)
    monkeypatch.undo()
    (report,) = manager.retry_pending_jobs().organized
    assert [record.evidence for record in report] == ["cached"]
    assert changes_of(world.root)[-1]["job_id"] == "jb"


def test_a_sequence_of_frames_is_taken_whole(world: World, manager: FileManager) -> None:
    files = {path: recording(path) for path in made_by("vhs_png_sequence")}
    report = manager.organize_output("ja", prompt_id=world.happens("vhs_png_sequence", files))
    assert len(report) == 5
    assert reasons(report) == {}
