"""Disks that are really full: a call answers honestly, loses nothing, and completes when there is room again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_comfy_files.core.errors import OutOfSpaceError
from flask_comfy_files.core.layout import DOCUMENT
from tests.crash.deletions import DELETIONS
from tests.crash.library_check import (
    OTHER_FILE_SYSTEM,
    OTHER_FOLDER,
    SCENARIOS,
    expect_recovery,
    found,
    in_child,
    open_library,
)
from tests.faults.ground import Ground, Mount, expect_an_honest_answer, outcome
from tests.trees import outputs

pytestmark = pytest.mark.faults

PAGE = 4096
CHUNK = 64 * 1024


@contextlib.contextmanager
def filled(disk: Path, left_bytes: int) -> Iterator[None]:
    """Fill a disk to the last byte but some."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as rest:
        size = 0
        for chunk in (CHUNK, 1024):
            with contextlib.suppress(OSError):
                while written := rest.write(bytes(chunk)):
                    size += written
        rest.truncate(max(0, size - left_bytes))
    yield
    filler.unlink()


@contextlib.contextmanager
def without_inodes(disk: Path, left: int) -> Iterator[None]:
    """Use all inodes of a disk but some."""
    fillers: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            fillers.append(disk / f"filler_{len(fillers)}")
            fillers[-1].touch()
    for filler in fillers[len(fillers) - 1 - left :]:
        filler.unlink(missing_ok=True)
    yield
    for filler in fillers:
        filler.unlink(missing_ok=True)


def work_on_a_full_disk(ground: Ground, full: contextlib.AbstractContextManager[None]) -> bool:
    """Do the work of a scenario while the disk is full; return whether there was room enough for all of it."""
    ground.renew()
    with full:
        end = in_child(lambda: outcome(ground.scenario, ground.root))
        expect_an_honest_answer(ground, end.result)
    expect_recovery(ground.scenario, ground.root)
    return bool(end.result == {"left": []})


def tiny_memory(place: Path, mount: Mount) -> Path:
    return mount(place, "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "tmpfs")


def tiny_disk(place: Path, mount: Mount) -> Path:
    """Make an ext4 of 4 MiB without reserved blocks, in which names find room when bytes do not."""
    image = place.with_suffix(".image")
    with image.open("wb") as raw:
        raw.truncate(4 * 1024**2)
    # Blocks of a page: with smaller ones SQLite's shared memory gets SIGBUS where the disk is full.
    options = ["-q", "-F", "-m", "0", "-b", str(PAGE)]
    subprocess.run(["mkfs.ext4", *options, str(image)], check=True)
    return mount(place, "-o", "loop", str(image))


@pytest.mark.parametrize("name", ["first job", "added files"])
@pytest.mark.parametrize("make", [tiny_memory, tiny_disk])
def test_a_full_disk_loses_nothing_however_little_room_is_left(
    make: Callable[[Path, Mount], Path], name: str, tmp_path: Path, mount: Mount
) -> None:
    disk = make(tmp_path / "disk", mount)
    ground = Ground(disk, SCENARIOS[name])
    results = []
    # Room for 0 to 24 pages, then much: it is the first few that end in the middle of the work.
    for pages in (*range(0, 24, 1 if make is tiny_memory else 4), 100):
        with ground.hearing(f"{pages} pages left"):
            results.append(work_on_a_full_disk(ground, filled(disk, pages * PAGE)))
    ground.conclude()
    assert results[0] is False
    assert results[-1] is True


def test_a_disk_that_fills_while_copying_loses_nothing(tmp_path: Path, mount: Mount) -> None:
    disk = tiny_memory(tmp_path / "disk", mount)
    ground = Ground(disk, OTHER_FILE_SYSTEM)
    mount(ground.root / OTHER_FOLDER, "-t", "tmpfs", "tmpfs")
    results = []
    for pages in (*range(32), 100):
        with ground.hearing(f"{pages} pages left"):
            results.append(work_on_a_full_disk(ground, filled(disk, pages * PAGE)))
    ground.conclude()
    assert results[0] is False
    assert results[-1] is True


def test_a_disk_without_inodes_loses_nothing(tmp_path: Path, mount: Mount) -> None:
    disk = tiny_memory(tmp_path / "disk", mount)
    ground = Ground(disk, SCENARIOS["first job"])
    results = []
    for left in range(16):
        with ground.hearing(f"{left} inodes left"):
            results.append(work_on_a_full_disk(ground, without_inodes(disk, left)))
    ground.conclude()
    assert results[0] is False
    assert results[-1] is True


def test_a_disk_too_full_for_the_reserve_is_refused_before_work_starts(
    tmp_path: Path, mount: Mount
) -> None:
    disk = tiny_memory(tmp_path / "disk", mount)
    ground = Ground(disk, SCENARIOS["first job"])
    ground.renew()
    before = outputs(ground.root)
    with (
        open_library(ground.root, min_free_bytes=2 * 1024**2) as manager,
        pytest.raises(OutOfSpaceError, match="volume") as refusal,
    ):
        ground.scenario.act(manager)
    assert refusal.value.needed_bytes > 0
    assert outputs(ground.root) == before
    assert not (ground.root / "projects").exists()
    with open_library(ground.root, min_free_bytes=2 * 1024**2) as manager:
        health = manager.get_system_stats().health
    assert health.state == "degraded"
    assert "MIN_FREE_BYTES" in " ".join(health.messages)


@pytest.mark.parametrize("name", ["delete", "restore", "empty trash"])
def test_a_job_is_whole_on_a_full_disk_however_little_room_is_left(
    name: str, tmp_path: Path, mount: Mount
) -> None:
    """A line may fit into what is left of a page, and moving takes no room: then the work is done."""
    disk = tiny_memory(tmp_path / "disk", mount)
    ground = Ground(disk, DELETIONS[name])
    fillings = [filled(disk, pages * PAGE) for pages in (0, 1, 2, 4, 8, 100)]
    fillings += [without_inodes(disk, left) for left in range(8)]
    for number, full in enumerate(fillings):
        with ground.hearing(number):
            work_on_a_full_disk(ground, full)
    ground.conclude()


@pytest.mark.parametrize("name", ["delete", "restore"])
def test_where_no_folder_can_be_made_nothing_is_recorded(
    name: str, tmp_path: Path, mount: Mount
) -> None:
    disk = tiny_memory(tmp_path / "disk", mount)
    ground = Ground(disk, DELETIONS[name])
    ground.renew()
    before = (ground.root / DOCUMENT).read_bytes(), found(ground.root)
    with without_inodes(disk, 2):  # for the index
        end = in_child(lambda: outcome(ground.scenario, ground.root))
    assert end.result["refused"].endswith("Free some space on the volume.")
    assert ((ground.root / DOCUMENT).read_bytes(), found(ground.root)) == before
    expect_recovery(ground.scenario, ground.root)


def test_a_trash_without_room_for_the_copies_leaves_the_job_where_it_is(
    tmp_path: Path, mount: Mount
) -> None:
    disk = tiny_memory(tmp_path / "disk", mount)
    ground = Ground(disk, DELETIONS["delete"])
    mount(ground.root / "projects", "-t", "tmpfs", "tmpfs")
    results = []
    for pages in (*range(2, 24, 2), 100):
        with ground.hearing(f"{pages} pages left"):
            results.append(work_on_a_full_disk(ground, filled(disk, pages * PAGE)))
    ground.conclude()
    assert results[0] is False
    assert results[-1] is True
