from __future__ import annotations

import hashlib
import json
import os
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
)
from flask_comfy_files.core.lock import hold
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_reconciles, assert_sound, changes_of, reasons
from tests.trees import (
    AN_HOUR_AGO,
    BATCH,
    TIMESTAMP,
    Clock,
    Link,
    library,
    outputs,
    read_tree,
    recording,
    set_modified,
)
from tests.trees import (
    organized_image as image,
)

EMPTY = "hazard/ComfyUI_00007_.keep"
CHECKSUMS = {
    entry["path"]: entry["sha256"]
    for entry in json.loads((Path(__file__).parents[1] / "data/comfyui/files.json").read_text())[
        "output"
    ]
    if "sha256" in entry
}


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


@pytest.mark.parametrize("prompt_id", ["", "x" * 256, "a\nb", "a\ud800", 7], ids=ascii)
def test_what_is_no_prompt_id_is_refused(prompt_id: Any, manager: FileManager) -> None:
    with pytest.raises(InvalidInputError, match="prompt_id"):
        manager.organize_output("job_1", prompt_id=prompt_id)


def test_an_older_server_s_prompt_id_is_taken(manager: FileManager) -> None:
    report = manager.organize_output("batch", prompt_id="job-42")
    assert {record.prompt_id for record in report} == {"job-42"}


def test_a_link_in_the_way_of_the_job_s_folder_is_never_followed(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"../outside/keep": b"", "projects": Link("../outside"), "job_1.txt": b"x"})
    manager = open_manager(root)
    with pytest.raises(StorageError, match="projects/default/job_1' failed: Not a directory"):
        manager.organize_output("job_1")
    assert read_tree(root.parent / "outside") == {"keep": b""}
    assert (root / "job_1.txt").read_bytes() == b"x"


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
    with pytest.raises(IdentifierCaseError, match=r"job_id 'Batch' .* 'batch'"):
        manager.organize_output("Batch", "Tokyo")
    with pytest.raises(IdentifierCaseError, match=r"project_id 'tokyo' .* 'Tokyo'"):
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
    assert list(reasons(report)) == [BATCH[1]]
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
    look_again = during_the_checksum_of(monkeypatch, output_root, (output_root / BATCH[2]).unlink)
    report = manager.organize_output("batch")
    assert look_again
    assert reasons(report) == {BATCH[2]: "not_found"}
    assert report.moved.files == 3
    assert_sound(output_root)


def test_a_job_that_somebody_else_organizes_meanwhile_is_answered_as_it_is_now(
    manager: FileManager,
    output_root: Path,
    open_manager: OpenManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = open_manager(output_root)
    happened = during_the_checksum_of(
        monkeypatch, output_root, lambda: other.organize_output("batch")
    )
    report = manager.organize_output("batch")
    assert happened
    assert reasons(report) == {}
    assert (report.moved.files, report.already_there.files) == (0, 4)
    assert report.organized_files == other.get_job_files("batch").files
    assert_sound(output_root)


def during_the_checksum_of(
    monkeypatch: pytest.MonkeyPatch, root: Path, effect: Callable[[], object]
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
    manager: FileManager, make_tree: MakeTree
) -> None:
    manager.organize_output("batch")
    make_tree({BATCH[0]: b"a new file of 27 bytes here", "batch_9_00001_.png": b"?"})
    report = manager.organize_output("batch")
    assert_reconciles(report)
    assert {left.path: left.bytes for left in report.skipped}[BATCH[0]] == 27
    assert report.found.files == 4 + 2


def test_what_lies_beside_a_named_file_that_is_not_there_stays(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"shot_7/loose.txt": b"text", "AnimateDiff_00009.png": recording(BATCH[0])})
    named = ["shot_7/loose", "AnimateDiff_00009.mp4"]
    report = open_manager(root).organize_output("shot", files=named)
    assert list(report) == []
    assert (root / "shot_7/loose.txt").exists()
    assert (root / "AnimateDiff_00009.png").exists()
