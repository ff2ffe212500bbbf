from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import InvalidInputError, UnsafePathError
from flask_comfy_files.core.layout import DOCUMENT
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound, reasons
from tests.trees import BATCH, library, organized_image, outputs, recording

PNG = "batch_00001_.png"


@pytest.mark.parametrize(
    ("job_id", "taken"),
    [
        ("batch", [f"batch_0000{n}_.png" for n in (1, 2, 3, 4)]),
        (
            "AnimateDiff",
            [
                "AnimateDiff_00001.mp4",
                "AnimateDiff_00001.png",
                "AnimateDiff_00002-audio.mp4",
                "AnimateDiff_00002.mp4",
                "AnimateDiff_00002.png",
            ],
        ),
        ("frames", [f"seq/frames_00001.00{n}.png" for n in (1, 2, 3, 4)] + ["seq/frames_00001.png"]),
        ("ep01", [f"ep01/{name}" for name in ("clip_00001_.mp4", "voice_00001.flac")]
         + [f"ep01/key_0000{n}_.png" for n in range(1, 7)]),
        ("job_7", ["project_a/job_7_00001_.png"]),
        ("adv", ["adv_00001.png", "adv_00002.exr",
                 *(f"tagged/adv_0000{n}.exr" for n in (1, 2, 3))]),
        ("33333333-3333-4333-8333-333333333333",
         ["inbox/33333333-3333-4333-8333-333333333333/c_00001_.png"]),
        ("Adv", ["3d/Adv_00001.glb"]),
        ("image", []),
        ("dataset_x", ["dataset_x/image_00001_00000.png"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_job_takes_what_comfyui_wrote_under_its_name(
    job_id: str, taken: list[str], manager: FileManager, output_root: Path
) -> None:
    before = outputs(output_root)
    report = manager.organize_output(job_id)
    assert sorted(record.original_path for record in report) == sorted(taken)
    assert (
        outputs(output_root).items()
        >= {path: entry for path, entry in before.items() if path not in taken}.items()
    )


def test_names_that_could_be_another_job_s_are_left_and_reported(manager: FileManager) -> None:
    report = manager.organize_output("shot")
    assert [record.original_path for record in report] == ["cousin/shot_00011_.png"]
    assert reasons(report) == dict.fromkeys(
        [
            "2026-11-23/shot_96x64_033436_00001_.png",
            "cousin/shot_00010_00001_.png",
            "shot_00010__00001_.png",
        ],
        "ambiguous_prefix",
    )


def test_what_was_left_as_ambiguous_goes_to_the_job_whose_name_it_is(manager: FileManager) -> None:
    manager.organize_output("shot")
    report = manager.organize_output("shot_00010")
    assert {record.original_path for record in report} == {
        "cousin/shot_00010_00001_.png",
        "shot_00010__00001_.png",
    }
    assert reasons(manager.organize_output("shot")).keys() == {
        "2026-11-23/shot_96x64_033436_00001_.png"
    }


OWN, AMBIGUOUS, FOREIGN = "own", "ambiguous", "foreign"


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("job_1.png", OWN),
        ("job_1_00001_.png", OWN),
        ("job_1_00001.mp4", OWN),
        ("job_1-0001.webp", OWN),
        ("job_1_00002-audio.mp4", OWN),
        ("job_1_00001.001.png", OWN),
        ("job_1_123456_.png", OWN),
        ("job_1_upscaled_00001_.png", OWN),
        ("job_1.final.png", OWN),
        ("job_1 final cut.mp4", OWN),
        ("job_1__00001_.png", OWN),
        ("job_1_été.png", OWN),
        ("job_1_キャラ.png", OWN),
        ("deep/er/job_1_00001_.png", OWN),
        ("job_1/anything.png", OWN),
        ("deep/job_1/er/anything.png", OWN),
        ("job_1/other_00001_.png", OWN),
        ("job_1_2_00001_.png", AMBIGUOUS),
        ("job_1_00001_00002_.png", AMBIGUOUS),
        ("job_1_001_.png", AMBIGUOUS),
        ("job_1_1234567_.png", AMBIGUOUS),
        ("job_1_1.png", AMBIGUOUS),
        ("job_1_00001_x.png", AMBIGUOUS),
        ("job_1_(2).png", AMBIGUOUS),
        ("job_1_٠٠٠٠١_.png", AMBIGUOUS),
        ("job_1-.png", AMBIGUOUS),
        ("job_10_00001_.png", FOREIGN),
        ("job_1a_00001_.png", FOREIGN),
        ("job_1é_00001_.png", FOREIGN),
        ("JOB_1_00001_.png", FOREIGN),
        ("my_job_1_00001_.png", FOREIGN),
        ("job_1+1.png", FOREIGN),
        ("my_job_1/x.png", FOREIGN),
        ("job_1_00001_/x.png", FOREIGN),
        ("ob_1_00001_.png", FOREIGN),
        ("legacy/job_1_00001_.png", FOREIGN),
        ("projects/p/j/job_1_00001_.png", FOREIGN),
        ("inbox/job_2/job_1_00001_.png", FOREIGN),
        (".hidden/job_1_00001_.png", FOREIGN),
        (".comfy_files/job_1_00001_.png", FOREIGN),
    ],
)
def test_the_name_of_a_file_says_whether_it_is_the_job_s(
    name: str, verdict: str, make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({name: recording(PNG)})
    report = open_manager(root).organize_output("job_1")
    assert ([record.original_path for record in report], reasons(report)) == {
        OWN: ([name], {}),
        AMBIGUOUS: ([], {name: "ambiguous_prefix"}),
        FOREIGN: ([], {}),
    }[verdict]


@pytest.mark.parametrize("longer", ["job_1_upscaled", "job_1_upscaled_4x", "job_1.v2-final"])
def test_a_longer_id_that_is_known_wins(
    longer: str, make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({f"{longer}_00001_.png": recording(PNG), "job_1_00001_.png": recording(PNG)})
    manager = open_manager(root)
    manager.organize_output(longer, files=[])
    shorter = manager.organize_output("job_1")
    assert [record.original_path for record in shorter] == ["job_1_00001_.png"]
    assert reasons(shorter) == {}
    assert [record.original_path for record in manager.organize_output(longer)] == [
        f"{longer}_00001_.png"
    ]
    assert_sound(root)


def test_a_longer_id_wins_in_the_folder_of_the_shorter_one_as_well(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1/job_1_b_00001_.png": recording(PNG), "job_1/x.png": recording(PNG)})
    manager = open_manager(root)
    manager.organize_output("job_1_b", files=[])
    assert [record.original_path for record in manager.organize_output("job_1")] == ["job_1/x.png"]


def test_a_known_id_that_only_looks_longer_takes_nothing_away(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1_upscaled_00001_.png": recording(PNG)})
    manager = open_manager(root)
    for known in ("job_1_up", "job_10", "job", "job_1_upscaled_00001_x"):
        manager.organize_output(known, files=[])
    assert manager.organize_output("job_1").moved.files == 1


def test_everything_in_the_inbox_of_a_job_is_its_own_and_comes_first(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    mine = [f"inbox/job_1/{name}" for name in ("run_1/ComfyUI_00001_.png", "run_2/a/b_00001.mp4")]
    theirs = ["inbox/job_10/run/x_00001_.png", "inbox/stray.png"]
    root = make_tree(dict.fromkeys([*mine, *theirs, "job_1_00001_.txt"], b"content"))
    report = open_manager(root).organize_output("job_1")
    assert [(record.original_path, record.evidence) for record in report] == [
        (mine[0], "inbox"),
        (mine[1], "inbox"),
        ("job_1_00001_.txt", "prefix"),
    ]
    assert all((root / name).exists() for name in theirs)


def test_a_named_file_in_the_job_s_own_inbox_is_taken(manager: FileManager) -> None:
    job_id = "33333333-3333-4333-8333-333333333333"
    report = manager.organize_output(job_id, files=[f"inbox/{job_id}/c_00001_.png"])
    assert [record.evidence for record in report] == ["files"]


def test_comfyui_s_placeholder_stays_where_comfyui_put_it(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"_output_images_will_be_put_here": b"", "job_1.txt": b"x"})
    manager = open_manager(root)
    assert manager.organize_output("job_1").moved.files == 1
    report = manager.organize_output("job_2", files=["_output_images_will_be_put_here"])
    assert reasons(report) == {"_output_images_will_be_put_here": "placeholder"}


def test_an_empty_list_of_files_means_none_and_not_whatever_is_found(manager: FileManager) -> None:
    report = manager.organize_output("batch", files=[])
    assert report.found.files == 0
    assert manager.get_job_files("batch").reason == "no file of this job was found"


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
    assert [record.path for record in report] == [organized_image("j1", project_id="p1")]
