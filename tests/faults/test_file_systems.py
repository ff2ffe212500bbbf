"""Sources and library on different file systems, and on different mounts of one: copied, compared, removed."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from flask_comfy_files.core.layout import COPIES
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    Fuse,
    check_library,
    expect_recovery,
    found,
    in_child,
    make_next_change,
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
