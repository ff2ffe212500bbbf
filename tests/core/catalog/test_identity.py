from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import (
    ComfyFilesError,
    LibraryUnavailableError,
)
from tests.conftest import MakeTree, OpenManager
from tests.invariants import assert_sound, changes_of
from tests.trees import Clock, Link, copy_recordings, library, read_tree

NOBODY = 65534


def as_ordinary_user(action: Callable[[], None]) -> None:
    """Do something in a child process for which permissions mean something, also when run as root."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
            status = 0
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def public_root() -> Iterator[Path]:
    """Return a copy of the recordings that every user can reach and read, and nobody but us can write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield copy_recordings(Path(folder, "output"))


def changing_calls(manager: FileManager) -> list[Callable[[], object]]:
    return [
        lambda: manager.organize_output("batch"),
        lambda: manager.organize_output("batch", files=["batch_00001_.png"]),
    ]


def test_a_missing_root_refuses_changes_says_why_and_works_once_it_is_there(
    tmp_path: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(tmp_path / "unplugged")
    for change in changing_calls(manager):
        with pytest.raises(LibraryUnavailableError, match=r"does not exist.*Mount"):
            change()
    with pytest.raises(LibraryUnavailableError):
        manager.get_job_files("batch")
    stats = manager.get_system_stats()
    assert (stats.health.state, stats.disk) == ("unavailable", None)
    assert "does not exist" in stats.health.messages[0]
    assert not (tmp_path / "unplugged").exists()
    copy_recordings(tmp_path / "unplugged")
    assert manager.organize_output("batch").moved.files == 4


def test_a_root_that_is_a_file_refuses_changes_and_says_why(
    tmp_path: Path, open_manager: OpenManager
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    manager = open_manager(tmp_path / "file")
    for change in changing_calls(manager):
        with pytest.raises(LibraryUnavailableError, match="Not a directory"):
            change()
    assert manager.get_system_stats().health.state == "unavailable"


def test_a_root_that_vanishes_while_a_process_knows_its_library_is_not_begun_anew(
    manager: FileManager, output_root: Path
) -> None:
    manager.organize_output("batch")
    output_root.rename(output_root.with_name("elsewhere"))
    output_root.mkdir()
    with pytest.raises(LibraryUnavailableError, match="is expected"):
        manager.organize_output("loop")
    assert manager.get_system_stats().health.state == "unavailable"
    assert read_tree(output_root) == {}
    output_root.rmdir()
    output_root.with_name("elsewhere").rename(output_root)
    assert manager.get_job_files("batch").file_count == 4
    assert manager.organize_output("loop").moved.files == 2


def test_another_library_in_the_place_of_the_known_one_is_left_alone(
    manager: FileManager, output_root: Path, tmp_path: Path, open_manager: OpenManager
) -> None:
    manager.organize_output("batch")
    open_manager(copy_recordings(tmp_path / "other")).organize_output("adv")
    output_root.rename(tmp_path / "first")
    (tmp_path / "other").rename(output_root)
    before = library(output_root)
    with pytest.raises(LibraryUnavailableError, match="right disk"):
        manager.organize_output("loop")
    assert library(output_root) == before


def test_a_pinned_library_is_the_only_one_that_is_changed(
    output_root: Path, open_manager: OpenManager
) -> None:
    with pytest.raises(LibraryUnavailableError, match="abc is expected"):
        open_manager(output_root, library_id="abc").organize_output("batch")
    open_manager(output_root).organize_output("batch")
    with pytest.raises(LibraryUnavailableError, match="abc is expected"):
        open_manager(output_root, library_id="abc").organize_output("loop")
    assert [change["job_id"] for change in changes_of(output_root)] == ["batch"]


def test_an_empty_root_is_taken_for_the_library_once_somebody_has_said_so(
    manager: FileManager, output_root: Path, open_manager: OpenManager
) -> None:
    manager.organize_output("batch")
    output_root.rename(output_root.with_name("elsewhere"))
    copy_recordings(output_root)
    with pytest.raises(LibraryUnavailableError, match="flask files adopt"):
        manager.organize_output("loop")
    report = open_manager(output_root).adopt_library()  # by another process, as it were
    assert (report.checked_files, report.missing_files) == (0, 0)
    assert manager.organize_output("loop").moved.files == 2
    assert_sound(output_root)


def test_another_library_is_taken_for_the_right_one_once_somebody_has_said_so(
    manager: FileManager, output_root: Path, tmp_path: Path, open_manager: OpenManager
) -> None:
    manager.organize_output("batch")
    with open_manager(copy_recordings(tmp_path / "other")) as other:
        other.organize_output("adv")
    output_root.rename(tmp_path / "first")
    (tmp_path / "other").rename(output_root)
    with pytest.raises(LibraryUnavailableError, match="flask files adopt"):
        manager.organize_output("loop")
    for _ in range(2):
        assert open_manager(output_root).adopt_library().missing_files == 0
        assert manager.organize_output("loop").file_count == 2
    assert manager.get_job_files("adv").file_count == 5
    with pytest.raises(LibraryUnavailableError, match="COMFY_FILES_LIBRARY_ID"):
        open_manager(output_root, library_id="abc").adopt_library()
    assert_sound(output_root)


def test_a_pinned_library_is_begun_by_saying_so(
    output_root: Path, open_manager: OpenManager
) -> None:
    manager = open_manager(output_root, library_id="abc")
    with pytest.raises(LibraryUnavailableError, match="abc is expected"):
        manager.organize_output("batch")
    assert manager.adopt_library().library_id == "abc"
    assert manager.organize_output("batch").moved.files == 4
    assert_sound(output_root)


def test_a_library_whose_files_are_on_a_disk_that_is_not_there_forgets_nothing(
    manager: FileManager, output_root: Path, clock: Clock
) -> None:
    for job_id in ("batch", "loop", "adv"):
        manager.organize_output(job_id)
    clock.advance(90 * 86_400)
    (output_root / "projects").rename(output_root.with_name("unmounted"))
    (output_root / "projects").mkdir()
    before = library(output_root)
    for change in (
        lambda: manager.cleanup_old_files(allow=["empty_project", "large_share"]),
        manager.plan_cleanup,
        manager.save_cleanup_plan,
        manager.migrate_legacy_files,
        manager.plan_migration,
    ):
        with pytest.raises(LibraryUnavailableError, match=r"are not there.*flask files adopt"):
            change()
    health = manager.get_system_stats().health
    assert (health.state, "not there" in health.messages[0]) == ("unavailable", True)
    assert manager.get_job_files("batch").file_count == 4
    notes = {".comfy_files/cleanup.json", ".comfy_files/cleanup.lock"}
    after = library(output_root)
    assert {path: after[path] for path in after if path not in notes} == before
    (output_root / "projects").rmdir()
    output_root.with_name("unmounted").rename(output_root / "projects")
    assert manager.get_system_stats().health.state == "ok"
    assert manager.cleanup_old_files(allow=["empty_project", "large_share"]).deleted_files == 11


def test_files_that_are_gone_for_good_are_marked_once_somebody_has_said_so(
    manager: FileManager, output_root: Path
) -> None:
    for job_id in ("batch", "loop"):
        manager.organize_output(job_id)
    for record in manager.get_job_files("batch"):
        Path(record.file_path).unlink()
    with pytest.raises(LibraryUnavailableError):
        manager.plan_cleanup()
    report = manager.adopt_library()
    assert (report.checked_files, report.missing_files) == (6, 4)
    assert all(record.missing for record in manager.get_job_files("batch"))
    assert not any(record.missing for record in manager.get_job_files("loop"))
    assert manager.plan_cleanup().deleted_files == 0
    assert manager.get_system_stats().health.state == "ok"
    again = manager.adopt_library()
    assert (again.checked_files, again.missing_files) == (2, 0)
    assert_sound(output_root)


def test_a_sentinel_of_another_library_refuses_changes(
    manager: FileManager, output_root: Path, tmp_path: Path, open_manager: OpenManager
) -> None:
    manager.organize_output("batch")
    other = copy_recordings(tmp_path / "other")
    open_manager(other).organize_output("adv")
    sentinel = ".comfy_files/library.json"
    (output_root / sentinel).write_bytes((other / sentinel).read_bytes())
    with pytest.raises(LibraryUnavailableError, match="right disk"):
        open_manager(output_root).organize_output("loop")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_a_document_that_is_no_file_is_refused_and_left_as_it_is(
    kind: str, make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree({"job_1.txt": b"x", "elsewhere.json": b'{"changes": [\n]}\n'})
    document = root / "file_metadata.json"
    if "link" in kind:
        document.symlink_to("elsewhere.json" if kind == "link" else "nowhere")
    else:
        os.mkfifo(document)
    before = library(root)
    manager = open_manager(root)
    for ask in (
        lambda: manager.organize_output("job_1"),
        lambda: manager.get_job_files("job_1"),
    ):
        with pytest.raises(ComfyFilesError, match=r"file_metadata\.json"):
            ask()
    assert manager.get_system_stats().health.state == "unavailable"
    assert library(root) == before


def set_permissions(root: Path, *, folders: int, files: int) -> None:
    for path in (root, *root.rglob("*")):
        path.chmod(folders if path.is_dir() else files)


@pytest.mark.parametrize("is_index_there", [True, False], ids=["with index", "without index"])
def test_an_unwritable_root_can_be_read_and_says_who_may_not_write_it(
    is_index_there: bool,  # noqa: FBT001
    public_root: Path,
    clock: Clock,
) -> None:
    with FileManager(public_root, clock=clock) as manager:
        expected = manager.organize_output("batch").organized_files
    if not is_index_there:
        (public_root / ".comfy_files/index.sqlite3").unlink()
    before = library(public_root)

    def read() -> None:
        with FileManager(public_root, clock=clock) as reader:
            assert reader.get_job_files("batch").files == expected
            assert reader.get_project_files("default").files == expected
            assert reader.get_file_metadata(expected[0].path) == expected[0]
            stats = reader.get_system_stats()
            assert stats.total_files == 4
            assert stats.health.state == "degraded"
            assert f"uid {os.geteuid()}" in stats.health.messages[0]
            with pytest.raises(LibraryUnavailableError, match=rf"uid {os.geteuid()}.*permission"):
                reader.organize_output("loop")

    set_permissions(public_root, folders=0o555, files=0o444)
    as_ordinary_user(read)
    set_permissions(public_root, folders=0o755, files=0o644)
    assert library(public_root) == before


def test_a_document_that_may_not_be_read_is_refused_and_not_taken_for_damaged(
    public_root: Path,
) -> None:
    with FileManager(public_root) as manager:
        manager.organize_output("batch")
    (public_root / "file_metadata.json").chmod(0o000)

    def read() -> None:
        with (
            FileManager(public_root) as reader,
            pytest.raises(LibraryUnavailableError, match=rf"uid {os.geteuid()}: Permission denied"),
        ):
            reader.get_job_files("batch")

    as_ordinary_user(read)
    (public_root / "file_metadata.json").chmod(0o644)
    assert_sound(public_root)


def test_a_file_in_a_folder_that_may_not_be_changed_stays_and_the_others_go_on(
    public_root: Path, clock: Clock
) -> None:
    for folder in (public_root, *public_root.rglob("*")):
        folder.chmod(0o777 if folder.is_dir() else 0o666)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
    (public_root / "ep01").chmod(0o555)

    def organize() -> None:
        named = ["batch_00001_.png", "ep01/key_00001_.png", "batch_00002_.png"]
        with FileManager(public_root, clock=clock) as manager:
            report = manager.organize_output("job_1", files=named)
            assert [record.original_path for record in report] == [named[0], named[2]]
            assert [left.path for left in report.failed] == [named[1]]
            assert f"Permission denied (uid {os.geteuid()})" in report.failed[0].reason
            assert report.found.files == 3
            again = manager.organize_output("job_1", files=named)
            assert (again.already_there.files, len(again.failed)) == (2, 1)
            (public_root / "ep01").chmod(0o755)
            assert manager.organize_output("job_1", files=named).file_count == 3

    as_ordinary_user(organize)
    assert_sound(public_root)


def test_a_library_folder_that_is_a_link_is_refused(
    make_tree: MakeTree, open_manager: OpenManager
) -> None:
    root = make_tree(
        {"../elsewhere/x": b"", ".comfy_files": Link("../elsewhere"), "job_1.txt": b"x"}
    )
    with pytest.raises(ComfyFilesError):
        open_manager(root).organize_output("job_1")
    assert (root / "job_1.txt").exists()
    assert read_tree(root.parent / "elsewhere") == {"x": b""}
