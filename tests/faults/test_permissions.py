"""What the system forbids is said with path, user and advice; what is allowed still works."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_comfy_files import add_file_manager_routes
from flask_comfy_files.core.errors import ComfyFilesError, LibraryUnavailableError
from flask_comfy_files.core.layout import DOCUMENT, TRASH
from flask_comfy_files.core.records import SkipReason
from tests.crash.library_check import (
    check_deletions,
    in_child,
    open_library,
    organize,
    original_paths,
)
from tests.faults.ground import Mount
from tests.trees import NOW, read_tree, recording, set_modified, write_tree

pytestmark = pytest.mark.faults

NOBODY = 65534
SOMEBODY = 1234
FIRST, SECOND, THIRD = (f"batch_0000{number}_.png" for number in (1, 2, 3))

_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_libc = ctypes.CDLL(None, use_errno=True)


def become_nobody() -> None:
    """Be another user from now on, for good."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def lose_all_powers() -> None:
    """Stay root by name, and obey permissions from now on like everybody else, as in many containers."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    assert _libc.capset(header, bytes(24)) == 0, os.strerror(ctypes.get_errno())


Become = Callable[[], None]

WHO = {"another user": become_nobody, "root without its powers": lose_all_powers}
UIDS = {become_nobody: NOBODY, lose_all_powers: 0}

as_anyone = pytest.mark.parametrize("become", WHO.values(), ids=WHO)


def let_others_in(folder: Path) -> None:
    """Let everybody enter a test's folder; those above it are pytest's, one for each worker."""
    work = Path(tempfile.gettempdir())
    for place in itertools.takewhile(work.__ne__, (folder, *folder.parents)):
        place.chmod(0o755)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an output root with one job in its library and two files of the next; all may read it."""
    let_others_in(tmp_path)
    root = write_tree(
        tmp_path / "output", {path: recording(path) for path in (FIRST, SECOND, THIRD)}
    )
    with open_library(root) as manager:
        organize("job_1", [FIRST])(manager)
    return root


def give(folder: Path, uid: int) -> None:
    """Make a user the owner of a folder and of everything in it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)


def experience(root: Path, become: Become = lambda: None) -> dict[str, Any]:
    """Return what a user finds out about a library: what changing, reading and the status answer."""

    def attempt() -> dict[str, Any]:
        become()
        with open_library(root) as manager:
            found: dict[str, Any] = {"refusal": None, "left": None, "job": None}
            try:
                found["left"] = organize("job_2", [SECOND, THIRD])(manager)
            except LibraryUnavailableError as error:
                found["refusal"] = str(error)
            try:
                found["job"] = [record.original_path for record in manager.get_job_files("job_1")]
            except ComfyFilesError as error:
                found["job"] = str(error)
            health = manager.get_system_stats().health
            return {**found, "state": health.state, "status": " ".join(health.messages)}

    answer: dict[str, Any] = in_child(attempt).result
    return answer


@as_anyone
def test_a_root_that_may_not_be_entered_is_unavailable_and_left_alone(
    root: Path, become: Become
) -> None:
    give(root, SOMEBODY)
    root.chmod(0o700)
    before = read_tree(root)
    found = experience(root, become)
    for said in (found["refusal"], found["job"], found["status"]):
        assert f"output root cannot be opened by uid {UIDS[become]}: Permission denied" in said
        assert "Give the server's user access" in said
    assert found["state"] == "unavailable"
    assert read_tree(root) == before


@as_anyone
def test_a_library_that_may_not_be_written_can_be_read(root: Path, become: Become) -> None:
    give(root, SOMEBODY)
    before = read_tree(root)
    found = experience(root, become)
    assert f".comfy_files/lock cannot be written by uid {UIDS[become]}" in found["refusal"]
    assert "Give the server's user write permission" in found["refusal"]
    assert found["job"] == [FIRST]
    assert found["state"] == "degraded"
    assert f"cannot be written by uid {UIDS[become]}" in found["status"]
    assert "write permission" in found["status"]
    assert read_tree(root) == before


@as_anyone
def test_no_library_is_begun_where_nothing_may_be_written(tmp_path: Path, become: Become) -> None:
    let_others_in(tmp_path)
    root = write_tree(tmp_path / "output", {path: recording(path) for path in (SECOND, THIRD)})
    give(root, SOMEBODY)
    before = read_tree(root)
    found = experience(root, become)
    assert f".comfy_files cannot be written by uid {UIDS[become]}" in found["refusal"]
    assert "job_1" in found["job"]
    assert found["state"] == "degraded"
    assert read_tree(root) == before


def test_a_library_on_a_read_only_mount_can_be_read(root: Path, mount: Mount) -> None:
    before = read_tree(root)
    mount(root, "--bind", str(root))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
    found = experience(root)
    assert "cannot be written by uid 0: Read-only file system" in found["refusal"]
    assert "write permission" in found["refusal"]
    assert found["job"] == [FIRST]
    assert found["state"] == "degraded"
    assert "cannot be written by uid 0" in found["status"]
    assert read_tree(root) == before


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Have a file that not even root can change."""
    subprocess.run(["chattr", "+i", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def test_an_immutable_document_is_refused_and_the_next_call_after_it_succeeds(root: Path) -> None:
    before = (root / DOCUMENT).read_bytes()
    with immutable(root / DOCUMENT):
        found = experience(root)
    assert f"{DOCUMENT} cannot be opened by uid 0: Operation not permitted" in found["refusal"]
    assert "Give the server's user access to the file" in found["refusal"]
    assert found["job"] == [FIRST]
    assert (root / DOCUMENT).read_bytes() == before
    assert (root / SECOND).is_file()
    assert experience(root)["left"] == []


@as_anyone
def test_a_document_that_may_not_be_read_is_refused_and_never_replaced(
    root: Path, become: Become
) -> None:
    give(root, SOMEBODY)
    (root / DOCUMENT).chmod(0o600)
    root.chmod(0o777)
    (root / ".comfy_files").chmod(0o777)
    (root / ".comfy_files/lock").chmod(0o666)
    before = read_tree(root)
    found = experience(root, become)
    for said in (found["refusal"], found["job"], found["status"]):
        assert f"{DOCUMENT} cannot be opened by uid {UIDS[become]}: Permission denied" in said
    assert found["state"] == "unavailable"
    assert read_tree(root) == before


def test_an_immutable_file_is_reported_and_the_others_go_on(root: Path) -> None:
    with immutable(root / SECOND):
        found = experience(root)
    assert found["left"] == [f"{SECOND}: Operation not permitted (uid 0)"]
    assert original_paths(root, "job_2") == [THIRD]
    assert (root / SECOND).is_file()
    assert experience(root)["left"] == []
    assert original_paths(root, "job_2") == [THIRD, SECOND]


def test_a_file_that_may_not_be_read_is_reported_and_the_others_go_on(root: Path) -> None:
    give(root, NOBODY)
    os.chown(root / SECOND, SOMEBODY, SOMEBODY)
    (root / SECOND).chmod(0o600)
    found = experience(root, become_nobody)
    assert found["left"] == [f"{SECOND}: Permission denied (uid {NOBODY})"]
    assert original_paths(root, "job_2") == [THIRD]
    assert (root / SECOND).is_file()


def organized_while_written(
    root: Path, files: Mapping[str, bytes], age_s: float, become: Become = lambda: None
) -> Any:
    """Return what organizing says of files that root, who owns them, has open for writing."""
    write_tree(root, files, NOW - timedelta(seconds=age_s))

    def act() -> object:
        become()
        with open_library(root) as manager:
            return organize("job_3", list(files))(manager)

    with contextlib.ExitStack() as stack:
        for path in files:
            stack.enter_context((root / path).open("r+b"))
            set_modified(root / path, NOW - timedelta(seconds=age_s))
        return in_child(act).result


WHOLE = {"whole.png": recording("batch_00004_.png")}
CUT_SHORT = {"cut_short.png": recording("batch_00004_.png")[:-20]}
UNCLEAR = {"unclear.txt": recording("captions/cap_00001.txt")}


def test_root_sees_every_writer(root: Path) -> None:
    """With a lease the kernel tells, so the content does not matter."""
    files = {**WHOLE, **CUT_SHORT, **UNCLEAR}
    left = organized_while_written(root, files, age_s=3600)
    assert left == [f"{path}: {SkipReason.STILL_BEING_WRITTEN}" for path in files]


@pytest.mark.parametrize(
    ("files", "age_s", "is_taken"),
    [
        pytest.param(WHOLE, 0.5, "taken", id="whole by its content"),
        pytest.param(CUT_SHORT, 3600, "left", id="cut short by its content"),
        pytest.param(UNCLEAR, 1.9, "left", id="unclear and fresh"),
        pytest.param(UNCLEAR, 2.1, "taken", id="unclear and quiet"),
    ],
)
def test_another_user_judges_by_content_and_quiet(
    root: Path, files: Mapping[str, bytes], age_s: float, is_taken: str
) -> None:
    """Nobody gets a lease on a file of root's, as where ComfyUI runs under a user of its own."""
    give(root, NOBODY)
    left = organized_while_written(root, files, age_s, become_nobody)
    (path,) = files
    expected = [] if is_taken == "taken" else [f"{path}: {SkipReason.STILL_BEING_WRITTEN}"]
    assert left == expected
    assert (root / path).exists() is (is_taken == "left")


# --- deleting


def stock(root: Path) -> None:
    """Have three jobs: of one file, of two, and of one."""
    write_tree(root, {"fourth.png": recording("batch_00004_.png")})
    with open_library(root) as manager:
        organize("job_2", [SECOND, THIRD])(manager)
        organize("job_3", ["fourth.png"])(manager)


def said_by_cli(root: Path, *arguments: str, become: Become = lambda: None) -> dict[str, Any]:
    """Return what a command answers, with its exit code."""
    host = Flask("host")
    add_file_manager_routes(host, output_dir=root, min_free_bytes=0)

    def run() -> dict[str, Any]:
        become()
        result = host.test_cli_runner().invoke(args=["files", *arguments, "--yes", "--json"])
        return {**json.loads(result.stdout), "exit_code": result.exit_code}

    answer: dict[str, Any] = in_child(run).result
    return answer


@as_anyone
def test_a_job_in_a_folder_that_may_not_be_changed_stays_whole_and_says_why(
    root: Path, become: Become
) -> None:
    stock(root)
    give(root, UIDS[become])
    folder = root / "projects/night_watch/job_2"
    folder.chmod(0o555)
    before = read_tree(folder)
    answer = said_by_cli(root, "delete", "job_2", become=become)
    assert (answer["exit_code"], answer["deleted_files"]) == (1, 0)
    (failed,) = answer["failed"]
    assert failed["reason"] == f"Permission denied (uid {UIDS[become]})"
    assert failed["path"].startswith("projects/night_watch/job_2/")
    assert read_tree(folder) == before
    check_deletions(root)
    folder.chmod(0o755)
    assert said_by_cli(root, "delete", "job_2", become=become)["deleted_files"] == 2
    check_deletions(root)


def test_an_immutable_file_in_the_middle_of_a_batch_keeps_its_own_job_only(root: Path) -> None:
    stock(root)
    with open_library(root) as manager:
        paths = [Path(record.file_path) for record in manager.get_job_files("job_2")]
    with immutable(paths[1]):
        answer = said_by_cli(root, "cleanup", "--days", "0", "--allow", "clock_jump")
        check_deletions(root)
    assert answer["exit_code"] == 1
    assert [job["job_id"] for job in answer["jobs"]] == ["job_1", "job_3"]
    assert [(left["path"], left["reason"]) for left in answer["failed"]] == [
        (str(paths[1].relative_to(root)), "Operation not permitted (uid 0)")
    ]
    assert original_paths(root, "job_2") == [SECOND, THIRD]
    assert said_by_cli(root, "delete", "job_2")["deleted_files"] == 2
    check_deletions(root)


def test_an_immutable_file_in_the_trash_is_told_and_the_others_go(root: Path) -> None:
    stock(root)
    with open_library(root) as manager:
        paths = [Path(record.file_path) for record in manager.get_job_files("job_2")]
        entry = manager.delete_job_files("job_2").operation_id
    stuck = root / TRASH / entry / "job_2" / paths[0].name
    with immutable(stuck):
        answer = said_by_cli(root, "trash", "--empty")
    assert (answer["exit_code"], answer["purged_files"]) == (1, 1)
    assert [(left["path"], left["reason"]) for left in answer["failed"]] == [
        (str(stuck.relative_to(root)), "Operation not permitted")
    ]
    assert [path for path in (root / TRASH).rglob("*") if path.is_file()] == [stuck]


def test_an_immutable_file_in_the_trash_keeps_its_job_there(root: Path) -> None:
    stock(root)
    with open_library(root) as manager:
        entry = manager.delete_job_files("job_2").operation_id
    stuck = sorted((root / TRASH / entry / "job_2").iterdir())[1]
    with immutable(stuck), open_library(root) as manager:
        report = manager.restore_job_files("job_2")
        assert [left.reason for left in report.failed] == ["Operation not permitted (uid 0)"]
        assert report.restored.files == 0
        check_deletions(root)
    with open_library(root) as manager:
        assert manager.restore_job_files("job_2").restored.files == 2
    check_deletions(root)
