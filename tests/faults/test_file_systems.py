"""Sources and library on different file systems, and on different mounts of one: copied, compared, removed."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from flask_comfy_files.core.layout import COPIES, TRASH
from tests.crash.deletions import DELETIONS
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    Fuse,
    check_deletions,
    check_library,
    expect_recovery,
    found,
    in_child,
    make_next_change,
    open_library,
    original_paths,
    wire,
)
from tests.faults.ground import Ground, Mount
from tests.faults.tracing import traced

pytestmark = pytest.mark.faults

BORDERS = ["memory below the output root", "memory over projects", "bind mount of a folder"]


@pytest.fixture(params=BORDERS)
def ground(request: pytest.FixtureRequest, tmp_path: Path, mount: Mount) -> Ground:
    """Return an output root on a disk with a border between its sources and its projects."""
    ground = Ground(tmp_path, OTHER_FILE_SYSTEM)
    other, projects = ground.root / OTHER_FOLDER, ground.root / "projects"
    if request.param == BORDERS[0]:
        mount(other, "-t", "tmpfs", "tmpfs")
    elif request.param == BORDERS[1]:
        mount(projects, "-t", "tmpfs", "tmpfs")
    else:
        other.mkdir(parents=True)
        mount(other, "--bind", str(other))
    ground.renew()
    return ground


def test_a_rename_across_the_border_fails(ground: Ground) -> None:
    """The other tests here mean nothing where this one fails."""
    (ground.root / "projects").mkdir(exist_ok=True)
    source = next((ground.root / OTHER_FOLDER).iterdir())
    with pytest.raises(OSError, match="Invalid cross-device link"):
        source.rename(ground.root / "projects" / source.name)


def test_files_cross_with_their_bytes_times_and_permissions(ground: Ground) -> None:
    sources = sorted((ground.root / OTHER_FOLDER).iterdir())
    for number, source in enumerate(sources):
        source.chmod(0o640)
        os.utime(source, ns=(0, 1_700_000_000_123_456_789 + number))
    before = {(source.read_bytes(), source.stat().st_mtime_ns) for source in sources}
    assert ground.scenario.disturbed(ground.root) == []
    organized = [path for path in (ground.root / "projects").rglob("*") if path.is_file()]
    assert {(path.read_bytes(), path.stat().st_mtime_ns) for path in organized} == before
    assert {path.stat().st_mode & 0o777 for path in organized} == {0o640}
    assert list((ground.root / OTHER_FOLDER).iterdir()) == []
    assert list((ground.root / COPIES).iterdir()) == []


def test_a_copy_that_differs_from_its_source_is_not_taken(ground: Ground) -> None:
    """A disk that says it wrote what it did not: the first byte of a copy stays as it was, and nothing tells."""
    act = functools.partial(ground.scenario.disturbed, ground.root)
    writes = [
        call
        for call in ground.undisturbed(act).calls
        if call.name == "pwrite64" and any(path.endswith(".part") for path in call.paths)
    ]
    assert len(writes) == 2
    ground.renew()
    sources = found(ground.root)
    lied = traced(act, ground.log, f"pwrite64:retval=1:when={writes[1].ordinal}")
    assert lied.was_hit
    good, bad = ground.scenario.expected
    assert lied.end.result == [f"{bad}: checksum_mismatch"]
    assert found(ground.root)[bad] == sources[bad]
    assert original_paths(ground.root, "job_1") == [good]
    expect_recovery(ground.scenario, ground.root)


def test_copies_cut_short_by_a_crash_are_swept_by_the_next_change(ground: Ground) -> None:
    """Dies in the middle of each copy: some bytes are there, under a temporary name."""
    half_made = 0
    for point in range(1, 60):
        ground.renew()

        def die_while_copying(point: int = point) -> None:
            wire(Fuse(point, only="write_all"))
            ground.scenario.disturbed(ground.root)

        end = in_child(die_while_copying)
        half_made += sum(path.endswith(".part") for path in found(ground.root))
        make_next_change(ground.root)
        check_library(ground.root, ground.scenario.inputs)
        assert list((ground.root / COPIES).glob("*")) == []
        expect_recovery(ground.scenario, ground.root)
        if end.status == 0:
            break
    assert half_made >= 2 * len(ground.scenario.expected)


# --- the trash, where projects/ is another file system, or another mount of one


@pytest.fixture(params=["memory over projects", "bind mount of a folder"])
def stocked(request: pytest.FixtureRequest, tmp_path: Path, mount: Mount) -> Ground:
    """Return a library on a disk with a border between its projects and its trash."""
    ground = Ground(tmp_path, DELETIONS["delete"])
    projects = ground.root / "projects"
    projects.mkdir(parents=True)
    if request.param == "memory over projects":
        mount(projects, "-t", "tmpfs", "tmpfs")
    else:
        mount(projects, "--bind", str(projects))
    ground.renew()
    return ground


def test_a_job_goes_into_the_trash_and_comes_back_with_bytes_times_and_permissions(
    stocked: Ground,
) -> None:
    """The time of one was touched since it was recorded, by which its copy is not told from a new file."""
    root = stocked.root
    files = sorted((root / "projects/night_watch/job_1").iterdir())
    for number, path in enumerate(files):
        path.chmod(0o640)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + number))
    os.utime(files[0], ns=(0, 1_700_000_000_123_456_789))
    before = [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    with open_library(root) as manager:
        assert manager.delete_job_files("job_1").deleted_files == 2
    assert not any(path.exists() for path in files)
    (folder,) = (root / TRASH).glob("*/job_1")
    resting = sorted(folder.iterdir())
    assert [(path.name, path.read_bytes()) for path in resting] == [
        (path.name, content) for path, content, _ in before
    ]
    with open_library(root) as manager:
        assert manager.restore_job_files("job_1").restored.files == 2
    assert [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
    assert not folder.exists()


def test_a_copy_in_the_trash_that_differs_is_not_taken_and_the_job_stays_whole(
    stocked: Ground,
) -> None:
    """As above, a disk that says it wrote what it did not."""
    act = functools.partial(stocked.scenario.disturbed, stocked.root)
    writes = [
        call
        for call in stocked.undisturbed(act).calls
        if call.name == "pwrite64" and any(path.endswith(".part") for path in call.paths)
    ]
    assert len(writes) == 2
    stocked.renew()
    before = found(stocked.root)
    lied = traced(act, stocked.log, f"pwrite64:retval=1:when={writes[1].ordinal}")
    assert lied.was_hit
    assert lied.end.result == ["checksum_mismatch"]
    assert found(stocked.root) == before
    check_deletions(stocked.root)
    expect_recovery(stocked.scenario, stocked.root)


def test_copies_on_their_way_into_the_trash_are_finished_by_the_next_change(
    stocked: Ground,
) -> None:
    half_made = 0
    for point in range(1, 40):
        stocked.renew()

        def die_while_copying(point: int = point) -> None:
            wire(Fuse(point, only="write_all"))
            stocked.scenario.disturbed(stocked.root)

        end = in_child(die_while_copying)
        half_made += sum(path.endswith(".part") for path in found(stocked.root))
        expect_recovery(stocked.scenario, stocked.root)
        if end.status == 0:
            break
    assert half_made >= 2
