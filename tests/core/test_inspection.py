from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from flask_comfy_files.core import durable, looking
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound, reasons
from tests.trees import (
    AN_HOUR_AGO,
    BATCH,
    NOW,
    Clock,
    Fifo,
    Link,
    read_tree,
    recording,
    set_modified,
)

WRITER = """
import sys
with open(sys.argv[1], sys.argv[2]) as file:
    print("open", flush=True)
    sys.stdin.read()
"""

CUT_SHORT = [
    "batch_00001_.png",
    "anim/apng_00001_.png",
    "anim/webp_00001_.webp",
    "video/ComfyUI_00001_.mp4",
    "AnimateDiff_00001.mp4",
    "vhs/loop_00001.gif",
    "3d/ComfyUI_00001_.glb",
    "svg/ComfyUI_00001_.svg",
]
"""Recordings of formats whose end can be told."""

LARGE = 8 * 1024**2
END_NOT_KNOWN = ["captions/cap_00001.txt", "adv_00002.exr", "audio/ComfyUI_00002.mp3"]


@contextmanager
def another_process_has_it_open(path: Path, mode: str = "ab") -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield
        process.communicate(timeout=30)


@pytest.fixture(params=[True, False], ids=["kernel tells of writers", "kernel does not tell"])
def kernel_tells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Be once a process that may ask for leases, and once one whose ComfyUI is another user's."""
    if not request.param:
        monkeypatch.setattr(looking, "has_writer", lambda _: None)
    return bool(request.param)


def test_a_file_that_another_process_is_writing_is_left_until_it_is_done(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {name: recording("batch_00001_.png") for name in ("job_1_00001_.png", "job_1_00002_.png")}
    )
    manager = open_manager(root)
    with another_process_has_it_open(root / "job_1_00001_.png"):
        report = manager.organize_output("job_1")
        assert reasons(report) == {"job_1_00001_.png": "still_being_written"}
        assert [record.original_path for record in report] == ["job_1_00002_.png"]
        assert manager.organize_output("job_1").moved.files == 0
    assert manager.organize_output("job_1").moved.files == 1
    assert_sound(root)


def test_a_file_that_is_only_being_read_is_taken(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1.png": recording("batch_00001_.png")})
    with another_process_has_it_open(root / "job_1.png", "rb"):
        assert open_manager(root).organize_output("job_1").moved.files == 1


@pytest.mark.parametrize("path", CUT_SHORT)
@pytest.mark.parametrize("kept", [0.3, 0.9, -1], ids=["a third", "most of it", "all but a byte"])
def test_a_file_whose_end_is_missing_is_left_until_it_has_one(
    path: str,
    kept: float,
    kernel_tells: bool,  # noqa: FBT001
    make_tree: MakeTree,
    open_manager: OpenManager,
) -> None:
    del kernel_tells
    whole = recording(path)
    name = f"job_1{Path(path).suffix}"
    part = whole.rstrip()[: int(kept if kept < 0 else len(whole) * kept)]
    root = make_tree({name: part})
    manager = open_manager(root)
    assert reasons(manager.organize_output("job_1")) == {name: "still_being_written"}
    make_tree({name: whole})
    (record,) = manager.organize_output("job_1")
    assert record.file_size == len(whole)


def test_an_empty_file_is_left_until_something_is_in_it(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1.txt": b""})
    manager = open_manager(root)
    assert reasons(manager.organize_output("job_1")) == {"job_1.txt": "still_being_written"}
    make_tree({"job_1.txt": b"a caption"})
    assert manager.organize_output("job_1").moved.files == 1


def test_a_file_cut_short_that_nobody_has_touched_for_a_day_is_kept_as_it_is(
    make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    cut = recording("batch_00001_.png")[:-1]
    root = make_tree({"job_1.png": cut})
    manager = open_manager(root)
    clock.advance(22 * 3600)
    assert manager.organize_output("job_1").moved.files == 0
    clock.advance(3600)
    (record,) = manager.organize_output("job_1")
    assert Path(record.file_path).read_bytes() == cut


@pytest.mark.parametrize("path", END_NOT_KNOWN)
@pytest.mark.parametrize("ahead", [1, -1], ids=["past", "future"])
def test_where_the_end_cannot_be_known_a_file_must_be_quiet_for_two_seconds(
    path: str,
    ahead: int,
    kernel_tells: bool,  # noqa: FBT001
    make_tree: MakeTree,
    open_manager: OpenManager,
    clock: Clock,
) -> None:
    del kernel_tells
    name = f"job_1{Path(path).suffix}"
    root = make_tree({name: recording(path)}, NOW)
    manager = open_manager(root)
    clock.now = NOW + ahead * timedelta(seconds=1.9)
    assert reasons(manager.organize_output("job_1")) == {name: "still_being_written"}
    clock.now = NOW + ahead * timedelta(seconds=2)
    assert manager.organize_output("job_1").moved.files == 1


def test_where_the_end_is_there_a_file_need_not_be_quiet(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1.png": recording("batch_00001_.png")}, NOW)
    assert open_manager(root).organize_output("job_1").moved.files == 1


@pytest.mark.parametrize("is_touched", [True, False], ids=["new time", "same time"])
def test_a_file_that_grows_while_it_is_read_is_left(
    is_touched: bool,  # noqa: FBT001
    kernel_tells: bool,  # noqa: FBT001
    make_tree: MakeTree,
    open_manager: OpenManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del kernel_tells
    root = make_tree({"job_1.mp3": recording("audio/ComfyUI_00002.mp3")})
    path = root / "job_1.mp3"
    before = path.stat()
    checksum = durable.checksum

    def grow_and_read(descriptor: int) -> str:
        found = checksum(descriptor)
        with path.open("ab") as file:
            file.write(b"more")
        if not is_touched:
            set_modified(path, NOW - timedelta(hours=1))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(durable, "checksum", grow_and_read)
        report = open_manager(root).organize_output("job_1")
    assert reasons(report) == {"job_1.mp3": "still_being_written"}
    assert report.skipped[0].bytes == before.st_size + 4
    assert path.stat().st_ino == before.st_ino


def test_many_large_files_come_in_their_order(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    small = recording("batch_00001_.png")
    names = [f"job_1_{n:05}_.png" for n in range(1, 6)]
    root = make_tree(dict.fromkeys(names, small[:33]))
    for name in names:
        with (root / name).open("ab") as file:
            file.write(struct.pack(">I", LARGE) + b"IDAT")
            file.truncate(33 + 8 + LARGE + 4)  # a hole, which takes no room on the disk
            file.seek(0, os.SEEK_END)
            file.write(small[-12:])
        set_modified(root / name, AN_HOUR_AGO)
    report = open_manager(root).organize_output("job_1")
    assert reasons(report) == {}
    assert [record.original_path for record in report] == names
    assert_sound(root)


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
