from __future__ import annotations

import os
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound, reasons
from tests.trees import BATCH, TIMESTAMP, Link, outputs, recording
from tests.trees import organized_image as image


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


def test_a_foreign_file_under_the_target_name_is_never_overwritten(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {
            "job_1_00001_.png": recording(BATCH[0]),
            "job_1_00002_.png": recording(BATCH[1]),
        }
    )
    manager = open_manager(root)
    manager.organize_output("other", files=["none.txt"])  # or they were taken for a lost library's
    make_tree({image("job_1"): b"somebody put this here", image("job_1", 3): Link("nowhere")})
    report = manager.organize_output("job_1")
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
