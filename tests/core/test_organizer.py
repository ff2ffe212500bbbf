from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import (
    IdentifierCaseError,
    InvalidInputError,
    JobInOtherProjectError,
    LockTimeoutError,
    OutOfSpaceError,
    StorageError,
    UnsafePathError,
)
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.core.lock import hold
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_reconciles, assert_sound, changes_of, reasons
from tests.trees import (
    AN_HOUR_AGO,
    TIMESTAMP,
    Clock,
    Fifo,
    Link,
    library,
    outputs,
    read_tree,
    recording,
    set_modified,
)

BATCH = [f"batch_{number:05}_.png" for number in (1, 2, 3, 4)]
EMPTY = "hazard/ComfyUI_00007_.keep"
CHECKSUMS = {
    entry["path"]: entry["sha256"]
    for entry in json.loads((Path(__file__).parents[1] / "data/comfyui/files.json").read_text())[
        "output"
    ]
    if "sha256" in entry
}


def image(job_id: str, number: int = 1, project_id: str = "default", extension: str = "png") -> str:
    counter = "" if number == 1 else f"_{number}"
    return f"projects/{project_id}/{job_id}/{job_id}_{TIMESTAMP}_image{counter}.{extension}"


# --- the ordinary way


def test_organize_moves_the_files_of_a_job_and_nothing_else(
    manager: FileManager, output_root: Path
) -> None:
    expected = outputs(output_root)
    for number, name in enumerate(BATCH, 1):
        expected[image("batch", number, "tokyo_debt_series")] = expected.pop(name)
    report = manager.organize_output("batch", "tokyo_debt_series")
    assert outputs(output_root) == expected
    assert (report.job_id, report.project_id, report.file_count) == (
        "batch",
        "tokyo_debt_series",
        4,
    )
    assert report.moved.files == 4
    assert reasons(report) == {}
    assert_sound(output_root)


def test_every_recording_can_be_organized_as_it_is(manager: FileManager, output_root: Path) -> None:
    before = outputs(output_root)
    for not_taken in (EMPTY, *(path for path in before if path.startswith("inbox/"))):
        del before[not_taken]
    report = manager.organize_output("everything", files=list(before))
    assert reasons(report) == {}
    assert {record.original_path for record in report} == set(before)
    after = outputs(output_root)
    assert {path: after[path] for path in after if path.startswith("projects/default/")} == {
        record.path: before[record.original_path] for record in report
    }
    recorded = {record.original_path: record.checksum for record in report}
    assert {path: CHECKSUMS[path] for path in recorded if path in CHECKSUMS}.items() <= (
        recorded.items()
    )
    assert len(CHECKSUMS.keys() & recorded.keys()) > 90
    assert_sound(output_root)


def test_the_record_of_a_video_says_all_that_is_known(
    manager: FileManager, output_root: Path
) -> None:
    report = manager.organize_output(
        "AnimateDiff", "tokyo", prompt_id="d6cf22c3-3832", files=["AnimateDiff_00001.mp4"]
    )
    record, preview = report
    assert (preview.original_path, preview.generation_type) == ("AnimateDiff_00001.png", "video")
    path = f"projects/tokyo/AnimateDiff/AnimateDiff_{TIMESTAMP}_video.mp4"
    assert len(record.file_id) == 32
    assert int(record.file_id, 16)
    assert {key: getattr(record, key) for key in record.__slots__ if key != "file_id"} == {
        "file_path": str(output_root / path),
        "path": path,
        "job_id": "AnimateDiff",
        "project_id": "tokyo",
        "timestamp": TIMESTAMP,
        "created_at": "2026-02-03T04:05:06Z",
        "file_type": "video",
        "file_extension": ".mp4",
        "media_type": "video/mp4",
        "generation_type": "video",
        "file_size": 5236,
        "modified_at": "2026-02-03T03:05:06Z",
        "checksum": hashlib.sha256(recording("AnimateDiff_00001.mp4")).hexdigest(),
        "original_path": "AnimateDiff_00001.mp4",
        "evidence": "files",
        "same_file_as": None,
        "prompt_id": "d6cf22c3-3832",
        "node_id": None,
        "width": 64,
        "height": 64,
        "duration_s": 1.0,
        "missing": False,
    }


def test_a_move_keeps_the_modification_time_and_the_inode(
    manager: FileManager, output_root: Path
) -> None:
    before = (output_root / BATCH[0]).stat()
    (record, *_) = manager.organize_output("batch")
    after = Path(record.file_path).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_four_images_of_one_second_keep_the_order_that_the_caller_gives(
    manager: FileManager,
) -> None:
    named = [BATCH[2], BATCH[0], BATCH[3], BATCH[1]]
    report = manager.organize_output("job_1", files=named)
    assert [(record.original_path, record.path) for record in report] == [
        (name, image("job_1", number)) for number, name in enumerate(named, 1)
    ]
    assert [record.path for record in manager.get_job_files("job_1")] == [
        record.path for record in report
    ]


def test_images_of_one_second_come_in_the_order_of_their_counters(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    numbers = (10, 9, 2, 100, 1)
    root = make_tree({f"job_1_{number:04}.png": recording(BATCH[0]) for number in numbers})
    report = open_manager(root).organize_output("job_1")
    assert [int(record.original_path[6:10]) for record in report] == [1, 2, 9, 10, 100]
    assert [record.path for record in report] == [image("job_1", n) for n in (1, 2, 3, 4, 5)]


def test_files_are_numbered_by_type_whatever_their_extension(manager: FileManager) -> None:
    named = ["batch_00001_.png", "anim/webp_00001_.webp", "video/clip_00001_.webm", "adv_00002.exr"]
    report = manager.organize_output("job_1", files=[*named, "vhs/loop_00001.gif", *BATCH[1:2]])
    assert [record.path.rpartition(f"_{TIMESTAMP}_")[2] for record in report] == [
        "image.png",
        "image_2.webp",
        "video.webm",
        "image_3.exr",
        "gif.gif",
        "image_4.png",
        "image_5.png",
    ]
    assert list(report)[-1].original_path == "vhs/loop_00001.png", "written beside the GIF"


def test_a_preview_beside_a_clip_says_what_was_generated(manager: FileManager) -> None:
    clips = manager.organize_output("AnimateDiff")
    loops = manager.organize_output("loop")
    assert {
        record.original_path: (record.file_type, record.generation_type)
        for record in [*clips, *loops, *manager.organize_output("batch")]
        if record.original_path != "batch_00001_.png"
    } == {
        "AnimateDiff_00001.mp4": ("video", "video"),
        "AnimateDiff_00001.png": ("image", "video"),
        "AnimateDiff_00002-audio.mp4": ("video", "video"),
        "AnimateDiff_00002.mp4": ("video", "video"),
        "AnimateDiff_00002.png": ("image", "video"),
        "vhs/loop_00001.gif": ("gif", "gif"),
        "vhs/loop_00001.png": ("image", "gif"),
        **dict.fromkeys(BATCH[1:], ("image", "image")),
    }


def test_a_preview_that_comes_in_a_later_call_says_it_as_well(manager: FileManager) -> None:
    manager.organize_output("job_1", files=["AnimateDiff_00001.mp4"])
    report = manager.organize_output("job_1", files=["AnimateDiff_00001.png"])
    assert [record.generation_type for record in report] == ["video", "video"]


def test_an_extension_that_lies_is_noted_and_the_file_is_taken(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {
            "job_1_a.jpg": recording("batch_00001_.png"),
            "job_1_b.png": recording("video/ComfyUI_00001_.mp4"),
            "job_1_c.html": b"<script>alert(1)</script>",
            "job_1_d": recording("batch_00002_.png"),
            "job_1_e.bin": recording("video/clip_00001_.webm"),
            "job_1_f.bin": recording("video/clip_00002_.mkv"),
            "job_1_g.wav": recording("audio/ComfyUI_00002.mp3"),
        }
    )
    report = open_manager(root).organize_output("job_1")
    assert [(record.file_extension, record.file_type, record.media_type) for record in report] == [
        (".jpg", "image", "image/png"),
        (".png", "image", "video/mp4"),
        (".html", "other", "application/octet-stream"),
        ("", "other", "image/png"),
        (".bin", "other", "video/webm"),
        (".bin", "other", "video/x-matroska"),
        (".wav", "audio", "audio/mpeg"),
    ]
    assert_sound(root)


# --- organizing again


def test_organizing_again_answers_the_same_and_changes_nothing(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    first = manager.organize_output("batch", "tokyo")
    before = library(output_root)
    clock.advance(60)
    again = manager.organize_output("batch", "tokyo")
    assert again.organized_files == first.organized_files
    assert (again.moved.files, again.already_there) == (0, first.moved)
    assert reasons(again) == {}
    assert again.operation_id == first.operation_id
    assert manager.organize_output("batch").organized_files == first.organized_files
    assert manager.organize_output("batch", files=BATCH).organized_files == first.organized_files
    assert library(output_root) == before


def test_new_files_of_a_job_are_added_behind_those_it_has(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    manager.organize_output("job_1", files=BATCH[:2])
    same_second = manager.organize_output("job_1", files=BATCH[2:3])
    clock.advance(1)
    later = manager.organize_output("job_1", files=BATCH)
    assert [record.original_path for record in later] == BATCH
    assert [record.path for record in same_second] == [image("job_1", n) for n in (1, 2, 3)]
    assert later.organized_files[3].path == image("job_1").replace(TIMESTAMP, "1770091507")
    assert (later.moved.files, later.already_there.files) == (1, 3)
    assert reasons(later) == {}
    assert [change["kind"] for change in changes_of(output_root)] == ["job", "add", "add"]
    assert_sound(output_root)


NONE, FIRST, SECOND, THIRD = None, "run-1", "run-2", "run-3"


@pytest.mark.parametrize(
    ("runs", "taken"),
    [
        ([NONE, NONE], [True, False]),
        ([FIRST, FIRST], [True, False]),
        ([FIRST, NONE], [True, False]),
        ([NONE, FIRST], [True, True]),
        ([FIRST, SECOND], [True, True]),
        ([FIRST, SECOND, FIRST], [True, True, False]),
        ([FIRST, SECOND, SECOND, NONE], [True, True, False, False]),
        ([NONE, FIRST, NONE, SECOND, THIRD], [True, True, False, True, True]),
    ],
    ids=lambda value: "-".join(str(entry) for entry in value),
)
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "by prefix"])
def test_a_name_the_job_has_is_settled_unless_a_new_run_brings_it(
    runs: list[str | None],
    taken: list[bool],
    is_named: bool,  # noqa: FBT001
    make_tree: MakeTree,
    open_manager: OpenManager,
) -> None:
    name = "job_1_00001_.txt"
    root = make_tree({})
    manager = open_manager(root)
    seen = []
    for place, run in enumerate(runs):
        content = b"written for call %d" % place
        make_tree({name: content})
        files = [name] if is_named else None
        report = manager.organize_output("job_1", prompt_id=run, files=files)
        left = outputs(root).get(name)
        if left is None:
            assert reasons(report) == {}
            assert Path(report.organized_files[-1].file_path).read_bytes() == content
            assert report.organized_files[-1].prompt_id == run
        else:
            assert left == content
            assert reasons(report) == {name: "name_reused"}
        seen.append(left is None)
        assert report.file_count == sum(seen)
    assert seen == taken
    assert_sound(root)


def test_a_reused_name_is_skipped_by_another_process_as_well(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    name = "nicht-utf-8-\udcff\udcfe.txt"
    root = make_tree({name: b"first"})
    open_manager(root).organize_output("job_1", files=[name])
    make_tree({name: b"second"})
    report = open_manager(root).organize_output("job_1", files=[name])
    assert reasons(report) == {name: "name_reused"}


def test_files_of_which_none_is_there_make_the_job_known_and_say_why(
    manager: FileManager, output_root: Path
) -> None:
    before = outputs(output_root)
    report = manager.organize_output("job_9", files=["gone_1.png", "sub/gone_2.png"])
    assert reasons(report) == {"gone_1.png": "not_found", "sub/gone_2.png": "not_found"}
    assert (report.file_count, report.project_id, report.found.bytes) == (0, "default", 0)
    job = manager.get_job_files("job_9")
    assert job.files == ()
    assert job.reason is not None
    assert "not_found" in job.reason
    assert outputs(output_root) == before
    assert_sound(output_root)


def test_a_job_of_which_nothing_is_found_is_known_and_says_so(manager: FileManager) -> None:
    report = manager.organize_output("nobody_made_this")
    assert report.found.files == 0
    reason = manager.get_job_files("nobody_made_this").reason
    assert reason is not None
    assert "no file" in reason


def test_the_reason_goes_when_the_files_come(manager: FileManager, make_tree: MakeTree) -> None:
    manager.organize_output("job_9", files=["late.txt"])
    make_tree({"late.txt": b"here I am"})
    report = manager.organize_output("job_9", files=["late.txt"])
    assert report.moved.files == 1
    assert manager.get_job_files("job_9").reason is None


# --- what is left where it is


def test_named_files_exclude_every_other_rule(manager: FileManager, output_root: Path) -> None:
    report = manager.organize_output("batch", files=["adv_00001.png"])
    assert [record.original_path for record in report] == ["adv_00001.png"]
    assert [name for name in BATCH if not (output_root / name).exists()] == []


def test_files_are_named_as_comfyui_names_them(manager: FileManager) -> None:
    named: list[Any] = [
        {"filename": "key_00001_.png", "subfolder": "ep01", "type": "output"},
        {"filename": "clip_00001_.mp4", "subfolder": "ep01", "type": "output", "format": "h264"},
        {"filename": "adv_00001.png", "subfolder": ""},
        {"filename": "batch_00001_.png", "subfolder": None, "type": "output"},
    ]
    report = manager.organize_output("job_1", files=named)
    assert [record.original_path for record in report] == [
        "ep01/key_00001_.png",
        "ep01/clip_00001_.mp4",
        "adv_00001.png",
        "batch_00001_.png",
    ]


def test_entries_of_temp_and_input_are_no_results_even_where_a_file_has_their_name(
    manager: FileManager, output_root: Path
) -> None:
    report = manager.organize_output(
        "job_1",
        files=[
            {"filename": "batch_00001_.png", "subfolder": "", "type": "temp"},
            {"filename": "batch_00002_.png", "subfolder": "", "type": "input"},
            {"filename": "batch_00003_.png", "subfolder": "", "type": "output"},
        ],
    )
    assert reasons(report) == dict.fromkeys(BATCH[:2], "not_an_output")
    assert [record.original_path for record in report] == [BATCH[2]]
    assert (output_root / BATCH[0]).exists()


def test_a_file_that_is_named_twice_is_taken_once(manager: FileManager) -> None:
    report = manager.organize_output("job_1", files=[BATCH[0], f"./{BATCH[0]}", BATCH[0]])
    assert report.file_count == report.found.files == 1


def test_an_unsafe_path_refuses_the_whole_call(manager: FileManager, output_root: Path) -> None:
    before = library(output_root)
    for unsafe in ("../x.png", "/etc/passwd", "a\0b", {"filename": "x.png", "subfolder": "../.."}):
        with pytest.raises(UnsafePathError, match=r"files\[1\]"):
            manager.organize_output("job_1", files=[BATCH[0], unsafe])
    assert library(output_root) == before


@pytest.mark.parametrize(
    "files", ["batch_00001_.png", b"x", 7, [7], [None], [["x"]], [{}], [{"type": "else"}]], ids=repr
)
def test_what_names_no_files_is_refused(files: Any, manager: FileManager) -> None:
    with pytest.raises(InvalidInputError, match="files"):
        manager.organize_output("job_1", files=files)


@pytest.mark.parametrize("prompt_id", ["", "x" * 256, "a\nb", "a\ud800", 7], ids=ascii)
def test_what_is_no_prompt_id_is_refused(prompt_id: Any, manager: FileManager) -> None:
    with pytest.raises(InvalidInputError, match="prompt_id"):
        manager.organize_output("job_1", prompt_id=prompt_id)


def test_an_older_server_s_prompt_id_is_taken(manager: FileManager) -> None:
    report = manager.organize_output("batch", prompt_id="job-42")
    assert {record.prompt_id for record in report} == {"job-42"}


@pytest.mark.usefixtures("no_waiting")
def test_links_pipes_sockets_and_folders_are_left_and_never_opened(
    make_tree: MakeTree, open_manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(
        {
            "../outside/secret.png": recording(BATCH[0]),
            "inside.png": recording(BATCH[0]),
            "job_1_in.png": Link("inside.png"),
            "job_1_out.png": Link("../outside/secret.png"),
            "job_1_nowhere.png": Link("nothing"),
            "job_1_loop.png": Link("job_1_loop.png"),
            "job_1_folder_link": Link("../outside"),
            "job_1_pipe.png": Fifo(),
            "job_1_folder.png/within.png": recording(BATCH[0]),
            "job_1_real.png": recording(BATCH[0]),
        }
    )
    monkeypatch.chdir(root)  # the path of a socket may have 108 bytes only
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("job_1_socket.png")
    before = read_tree(root.parent / "outside")
    expected = {
        "job_1_in.png": "link",
        "job_1_out.png": "link",
        "job_1_nowhere.png": "link",
        "job_1_loop.png": "link",
        "job_1_folder_link": "link",
        "job_1_pipe.png": "not_a_regular_file",
        "job_1_socket.png": "not_a_regular_file",
    }
    manager = open_manager(root)
    found = manager.organize_output("job_1")
    assert reasons(found) == expected
    assert [record.original_path for record in found] == ["job_1_real.png"]
    named = manager.organize_output("job_2", files=[*expected, "job_1_folder.png"])
    assert reasons(named) == {**expected, "job_1_folder.png": "directory"}
    assert read_tree(root.parent / "outside") == before
    assert (root / "job_1_in.png").is_symlink()
    assert (root / "job_1_pipe.png").is_fifo()
    assert_sound(root)


@pytest.mark.parametrize("folder", ["ep01", "inbox", "inbox/job_1", "inbox/job_1/run"])
def test_a_folder_that_is_a_link_is_never_followed(
    folder: str, make_tree: MakeTree, open_manager: OpenManager
) -> None:
    elsewhere = {
        f"../outside/{name}": recording(BATCH[0])
        for name in ("job_1_00001_.png", "job_1/x.png", "run/x.png", "job_1/run/x.png")
    }
    depth = "../" * (folder.count("/") + 1)
    root = make_tree({**elsewhere, folder: Link(f"{depth}outside")})
    before = read_tree(root.parent)
    manager = open_manager(root)
    assert manager.organize_output("job_1").moved.files == 0
    named = [f"{folder}/{name.removeprefix('../outside/')}" for name in elsewhere]
    report = manager.organize_output("job_1", files=named)
    assert reasons(report).keys() == set(named)
    assert report.moved.files == 0
    assert {
        path: entry for path, entry in read_tree(root.parent).items() if path in before
    } == before


def test_a_link_in_the_way_of_the_job_s_folder_is_never_followed(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"../outside/keep": b"", "projects": Link("../outside"), "job_1.txt": b"x"})
    manager = open_manager(root)
    with pytest.raises(StorageError, match="projects/default/job_1' failed: Not a directory"):
        manager.organize_output("job_1")
    assert read_tree(root.parent / "outside") == {"keep": b""}
    assert (root / "job_1.txt").read_bytes() == b"x"


def test_placeholder_hidden_and_unfinished_names_are_left_unless_they_are_named(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    left = {
        "inbox/job_1/_output_images_will_be_put_here": "placeholder",
        "inbox/job_1/run/.hidden.png": "hidden",
        "inbox/job_1/run/x.png.part": "unfinished_name",
        "job_1/.hidden.png": "hidden",
        "job_1/y.mp4.part": "unfinished_name",
    }
    root = make_tree({**dict.fromkeys(left, b"content"), "inbox/job_1/run/taken.png": b"content"})
    manager = open_manager(root)
    found = manager.organize_output("job_1")
    assert reasons(found) == left
    assert [record.original_path for record in found] == ["inbox/job_1/run/taken.png"]
    named = manager.organize_output("job_1", files=list(left))
    assert reasons(named) == {"inbox/job_1/_output_images_will_be_put_here": "placeholder"}
    assert named.moved.files == 4


def test_our_own_files_are_nobody_s_output(manager: FileManager, output_root: Path) -> None:
    manager.organize_output("batch")
    ours = [DOCUMENT, ".comfy_files/index.sqlite3", ".comfy_files/library.json"]
    report = manager.organize_output("job_1", files=ours)
    assert reasons(report) == dict.fromkeys(ours, "reserved")
    assert_sound(output_root)


@pytest.mark.parametrize("job_id", ["file_metadata", "file_metadata.json"])
def test_a_job_that_is_called_like_the_document_does_not_take_it(
    job_id: str, manager: FileManager, output_root: Path
) -> None:
    manager.organize_output("batch")
    report = manager.organize_output(job_id)
    assert report.file_count == 0
    assert_sound(output_root)


def test_a_file_of_another_job_is_refused_wherever_it_lies(
    manager: FileManager, output_root: Path
) -> None:
    (first, *_) = manager.organize_output("batch")
    theirs = "inbox/33333333-3333-4333-8333-333333333333/c_00001_.png"
    before = outputs(output_root)
    report = manager.organize_output("job_1", files=[first.path, theirs])
    assert reasons(report) == dict.fromkeys([first.path, theirs], "belongs_to_another_job")
    assert outputs(output_root) == before
    assert manager.get_job_files("batch").files[0] == first


def test_a_job_that_is_given_its_own_recorded_files_keeps_them(
    manager: FileManager, output_root: Path
) -> None:
    first = manager.organize_output("batch")
    before = outputs(output_root)
    again = manager.organize_output("batch", files=[record.path for record in first])
    assert again.organized_files == first.organized_files
    assert reasons(again) == {}
    assert outputs(output_root) == before


def test_files_below_projects_that_nobody_recorded_may_be_named(manager: FileManager) -> None:
    report = manager.organize_output("j1", "p1", files=["projects/p1/j1/within_00001_.png"])
    assert [record.path for record in report] == [image("j1", project_id="p1")]


# --- names


STRANGE_NAMES = {
    "255 bytes": "job_1_" + "L" * 245 + ".png",
    "255 bytes of accents": "é" * 125 + "x.png",
    "spaces and quotes": 'job_1_it\'s "quoted" `so`.png',
    "newline": "job_1_two\nlines.png",
    "control characters": "job_1_\x01\x1b[31m.png",
    "unicode": "job_1_キャラ 01 – été 🎬.png",
    "not UTF-8": "job_1_\udcff\udcfe.png",
    "right-to-left override": "job_1_\u202egnp.exe",
    "leading dash": "-rf job_1.png",
    "shell": "job_1_$(rm -rf ~);&|#%.png",
    "extension in another script": "job_1_x.ｐｎｇ",
    "long extension": "job_1_x." + "e" * 40,
    "spaces around": " job_1 .png ",
}


@pytest.mark.parametrize("name", STRANGE_NAMES.values(), ids=STRANGE_NAMES.keys())
def test_any_name_is_organized_under_a_plain_one(
    name: str, make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({name: b"content", f"sub {name[:90]}/{name}": b"other content"})
    manager = open_manager(root)
    named = manager.organize_output("job_1", files=[name, f"sub {name[:90]}/{name}"])
    assert reasons(named) == {}
    assert [Path(record.file_path).read_bytes() for record in named] == [
        b"content",
        b"other content",
    ]
    for record in named:
        assert record.path.isascii()
        assert record.path.replace("/", "").replace("_", "").replace(".", "").isalnum()
    assert [record.original_path for record in named] == [name, f"sub {name[:90]}/{name}"]
    assert manager.organize_output("job_1").organized_files == named.organized_files
    assert_sound(root)


@pytest.mark.parametrize(
    "name", [name for name in STRANGE_NAMES.values() if name.startswith("job_1")], ids=ascii
)
def test_strange_names_are_found_by_their_beginning(
    name: str, make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({name: b"content"})
    report = open_manager(root).organize_output("job_1")
    taken = {record.original_path for record in report} | reasons(report).keys()
    assert taken == {name}


def test_a_job_and_a_project_with_the_longest_ids_are_organized(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    job_id, project_id = "j" * 100, "p" * 100
    root = make_tree({f"{job_id}_00001_.png": recording(BATCH[0])})
    (record,) = open_manager(root).organize_output(job_id, project_id)
    assert record.path == image(job_id, project_id=project_id)


# --- ids that contradict what is known


def test_a_job_belongs_to_one_project_and_the_refusal_names_it(
    manager: FileManager, output_root: Path
) -> None:
    manager.organize_output("batch", "tokyo")
    before = library(output_root)
    with pytest.raises(JobInOtherProjectError, match="belongs to 'tokyo', not to 'osaka'"):
        manager.organize_output("batch", "osaka", files=["adv_00001.png"])
    assert library(output_root) == before
    assert manager.organize_output("batch").project_id == "tokyo"


def test_ids_that_differ_only_in_case_from_known_ones_are_refused(
    manager: FileManager, output_root: Path
) -> None:
    manager.organize_output("batch", "Tokyo")
    before = library(output_root)
    with pytest.raises(IdentifierCaseError, match="job_id 'Batch' .* 'batch'"):
        manager.organize_output("Batch", "Tokyo")
    with pytest.raises(IdentifierCaseError, match="project_id 'tokyo' .* 'Tokyo'"):
        manager.organize_output("adv", "tokyo")
    assert library(output_root) == before


def test_a_default_project_that_differs_only_in_case_is_refused(
    output_root: Path, open_manager: OpenManager
) -> None:
    open_manager(output_root).organize_output("batch", "Default")
    with pytest.raises(IdentifierCaseError, match="project_id"):
        open_manager(output_root).organize_output("adv")


# --- when it cannot be done


def test_organize_leaves_everything_when_the_volume_is_too_full(
    output_root: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(output_root, min_free_bytes=1 << 62)
    before = library(output_root)
    with pytest.raises(OutOfSpaceError):
        manager.organize_output("batch")
    assert library(output_root) == before


def test_organize_gives_up_when_somebody_else_keeps_the_library(
    output_root: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(output_root, lock_timeout=0.02)
    manager.organize_output("adv")
    before = library(output_root)
    with (
        hold(str(output_root / ".comfy_files/lock"), 1),
        pytest.raises(LockTimeoutError, match=r"0\.02 seconds"),
    ):
        manager.organize_output("batch")
    assert library(output_root) == before
    assert manager.organize_output("batch").moved.files == 4


def test_a_foreign_file_under_the_target_name_is_never_overwritten(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {
            "job_1_00001_.png": recording(BATCH[0]),
            "job_1_00002_.png": recording(BATCH[1]),
            image("job_1"): b"somebody put this here",
            image("job_1", 3): Link("nowhere"),
        }
    )
    report = open_manager(root).organize_output("job_1")
    assert [record.path for record in report] == [image("job_1", 2), image("job_1", 4)]
    assert (root / image("job_1")).read_bytes() == b"somebody put this here"
    assert (root / image("job_1", 3)).is_symlink()
    assert_sound(root)


def test_two_names_of_one_file_become_two_files(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1_00001_.png": recording(BATCH[0])})
    os.link(root / "job_1_00001_.png", root / "job_1_00002_.png")
    report = open_manager(root).organize_output("job_1")
    assert [record.path for record in report] == [image("job_1"), image("job_1", 2)]
    assert outputs(root) == {record.path: recording(BATCH[0]) for record in report}


def test_one_file_that_cannot_be_moved_stays_and_the_others_go_on(
    manager: FileManager, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = durable.move

    def refuse_one(source_folder: int, source: str, target_folder: int, target: str) -> None:
        if source == BATCH[1]:
            raise PermissionError(13, "Permission denied")
        move(source_folder, source, target_folder, target)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "move", refuse_one)
        report = manager.organize_output("batch")
    assert [path for path in reasons(report)] == [BATCH[1]]
    assert "Permission denied" in reasons(report)[BATCH[1]]
    assert [record.original_path for record in report] == [BATCH[0], *BATCH[2:]]
    assert (output_root / BATCH[1]).exists()
    assert_sound(output_root)
    retried = manager.organize_output("batch")
    assert (retried.moved.files, retried.already_there.files) == (1, 3)
    assert_sound(output_root)


def test_a_file_that_is_taken_away_meanwhile_is_not_found_and_the_others_go_on(
    manager: FileManager, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_again = during_the_checksum_of(
        monkeypatch, output_root, lambda: (output_root / BATCH[2]).unlink()
    )
    report = manager.organize_output("batch")
    assert look_again
    assert reasons(report) == {BATCH[2]: "not_found"}
    assert report.moved.files == 3
    assert_sound(output_root)


def during_the_checksum_of(
    monkeypatch: pytest.MonkeyPatch, root: Path, effect: Callable[[], None]
) -> list[bool]:
    """Have something happen once while the first file is being read; the answer fills when it did."""
    checksum, happened = durable.checksum, list[bool]()

    def disturbed(descriptor: int) -> str:
        found = checksum(descriptor)
        if not happened:
            happened.append(True)
            effect()
        return found

    monkeypatch.setattr(durable, "checksum", disturbed)
    assert root.is_dir()
    return happened


def test_a_file_that_another_takes_the_place_of_while_it_is_read_waits_for_a_later_call(
    manager: FileManager, output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = output_root / "other.tmp"
    other.write_bytes(recording(BATCH[3]))
    set_modified(other, AN_HOUR_AGO)
    happened = during_the_checksum_of(
        monkeypatch,
        output_root,
        lambda: os.replace(other, output_root / BATCH[0]),  # noqa: PTH105
    )
    report = manager.organize_output("batch")
    assert happened
    assert reasons(report) == {BATCH[0]: "still_being_written"}
    assert manager.organize_output("batch").organized_files[-1].checksum == CHECKSUMS[BATCH[3]]


def test_the_report_counts_bytes_of_what_it_leaves(
    manager: FileManager, output_root: Path, make_tree: MakeTree
) -> None:
    manager.organize_output("batch")
    make_tree({BATCH[0]: b"a new file of 27 bytes here", "batch_9_00001_.png": b"?"})
    report = manager.organize_output("batch")
    assert_reconciles(report)
    assert {left.path: left.bytes for left in report.skipped}[BATCH[0]] == 27
    assert report.found.files == 4 + 2
