"""Power cuts while the document grows: no change is lost that was recorded before.

An append is one write over the closing of the document. What of it is on the disk after a power cut
is any prefix, or any of the sectors it touches; the others hold what was there before, or NULs where
the file was longer already than its bytes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.layout import DOCUMENT
from tests.invariants import assert_sound, changes_of
from tests.trees import Clock, copy_recordings, outputs, recording, write_tree

SECTOR = 512
CLOSING = b"\n]}\n"
EVERY_POINT = os.environ.get("EVERY_POINT") == "1"
IMAGES_WITH_INDEX = 1200 if EVERY_POINT else 300
IMAGES_WITHOUT = 345 if EVERY_POINT else 100
WHOLE_IMAGES = 40
"""Images that go the whole way of a job, files and all."""

Change = dict[str, Any]


@pytest.fixture(scope="module")
def recorded_changes(tmp_path_factory: pytest.TempPathFactory) -> list[Change]:
    """Return the changes that real jobs make: of one file, of several, and one without bytes."""
    root = copy_recordings(tmp_path_factory.mktemp("recorded") / "output")
    with FileManager(root, clock=Clock()) as manager:
        manager.organize_output("job_7")
        manager.organize_output("batch", "tokyo")
        manager.organize_output(
            "アニメ".encode().hex(), files=["アニメ/キャラ 01 – été_00001_.png"]
        )
        manager.organize_output("loop")
        manager.organize_output("AnimateDiff")
        manager.organize_output("nothing")
    return [without_number(change) for change in changes_of(root)]


def without_number(change: Mapping[str, Any]) -> Change:
    return {key: value for key, value in change.items() if key not in {"seq", "check", "batch"}}


@dataclass(frozen=True)
class Append:
    """A document before and after an append, and the position at which the append began."""

    before: bytes
    after: bytes
    position: int


def images(append: Append, count: int, chance: random.Random) -> Iterator[bytes]:
    """Yield what a disk may hold when the power fails while the append is under way."""
    kinds = ["prefix", "prefix and NULs", "sectors", "sectors cut short"]
    padded = append.before + bytes(len(append.after) - len(append.before))
    first = append.position // SECTOR
    last = (len(append.after) - 1) // SECTOR
    whole = range(append.position, len(append.after) + 1)
    edges = [(end, base) for end in (*whole[:8], *whole[-8:]) for base in (append.before, padded)]
    for end, base in edges:
        yield append.after[:end] + base[end:]
    for _ in range(count - len(edges)):
        kind = chance.choice(kinds)
        if kind.startswith("prefix"):
            end = chance.randint(append.position, len(append.after))
            base = append.before if kind == "prefix" else padded
            yield append.after[:end] + base[end:]
            continue
        image = bytearray(padded)
        for sector in range(first, last + 1):
            if chance.random() < 0.5:
                part = slice(sector * SECTOR, (sector + 1) * SECTOR)
                image[part] = append.after[part]
        if kind == "sectors cut short":
            del image[chance.randint(len(append.before), len(image)) :]
        yield bytes(image)


def prepare(root: Path, acknowledged: list[Change], remainder: int) -> None:
    """Make a library whose document ends, but for its closing, at a given place in a sector."""
    catalog = Catalog(str(root), lock_timeout_s=1)
    with catalog.changing() as writer:
        for change in acknowledged:
            writer.advance(writer.append([change]))
        if acknowledged:
            tag = {**acknowledged[0], "kind": "state", "files": {}, "state": {"tags": [""]}}
            end = (root / DOCUMENT).stat().st_size - len(CLOSING)
            line = b",\n" + document.encode({"seq": len(acknowledged) + 1, **tag})
            tag["state"] = {"tags": ["x" * ((remainder - end - len(line)) % SECTOR)]}
            writer.advance(writer.append([tag]))
    catalog.close()


def append_to(root: Path, changes: list[Change], work: Path) -> Append:
    """Return what an append would make of the document, without making it."""
    before = (root / DOCUMENT).read_bytes()
    work.mkdir()
    (work / DOCUMENT).write_bytes(before)
    position = len(before) - len(CLOSING)
    number = len(changes_of(root))
    numbered = [{"seq": number + place, **change} for place, change in enumerate(changes, 1)]
    with document.open_document(str(work), os.O_RDWR) as descriptor:
        assert descriptor is not None
        document.append(descriptor, document.read_header(descriptor), position, numbered)
    return Append(before, (work / DOCUMENT).read_bytes(), position)


IN_FLIGHT = {
    "a job of one file": [2],
    "a job of several files": [4],
    "a job without files": [5],
    "several changes": [2, 5, 3],
}


@pytest.mark.parametrize("with_index", [True, False], ids=["with index", "without index"])
@pytest.mark.parametrize("remainder", [0, 200, SECTOR - 1])
@pytest.mark.parametrize("in_flight", IN_FLIGHT)
def test_no_acknowledged_change_is_lost_in_a_torn_append(
    in_flight: str,
    remainder: int,
    with_index: bool,  # noqa: FBT001
    recorded_changes: list[Change],
    tmp_path: Path,
) -> None:
    root = tmp_path / "output"
    root.mkdir()
    prepare(root, recorded_changes[:2], remainder)
    check_images(
        root,
        append_to(root, [recorded_changes[n] for n in IN_FLIGHT[in_flight]], tmp_path / "work"),
        {**recorded_changes[2], "job_id": "the next one"},
        is_index_kept=with_index,
    )


@pytest.mark.parametrize("with_index", [True, False], ids=["with index", "without index"])
def test_the_first_append_of_a_library_may_be_torn(
    with_index: bool,  # noqa: FBT001
    recorded_changes: list[Change],
    tmp_path: Path,
) -> None:
    root = tmp_path / "output"
    root.mkdir()
    prepare(root, [], 0)
    append = append_to(root, recorded_changes[1:2], tmp_path / "work")
    check_images(
        root,
        append,
        {**recorded_changes[2], "job_id": "the next one"},
        is_index_kept=with_index,
    )


def check_images(root: Path, append: Append, next_change: Change, *, is_index_kept: bool) -> None:
    acknowledged = json.loads(append.before)["changes"]
    in_flight = json.loads(append.after)["changes"][len(acknowledged) :]
    chance = random.Random(f"{append.position}{len(append.after)}")  # noqa: S311
    catalog = Catalog(str(root), lock_timeout_s=1)
    ours = root / ".comfy_files"
    outcomes = set()
    for image in images(append, IMAGES_WITH_INDEX if is_index_kept else IMAGES_WITHOUT, chance):
        (root / DOCUMENT).write_bytes(image)
        if not is_index_kept:
            for path in ours.glob("index.sqlite3*"):
                path.unlink()
        with catalog.changing() as writer:
            unfinished = [line.change for line in writer.unfinished]
            writer.append([next_change])  # not advanced, so that the index stays where it is
        after = (root / DOCUMENT).read_bytes()
        found = json.loads(after)["changes"]
        survived = len(found) - len(acknowledged) - 1
        assert after[: append.position] == append.before[: append.position]
        assert found[: len(acknowledged)] == acknowledged
        assert found[len(acknowledged) : -1] == in_flight[:survived]
        assert without_number(found[-1]) == next_change
        assert found[-1]["seq"] == len(found)
        expected = in_flight[:survived]
        if expected or is_index_kept:
            assert list(map(without_number, unfinished)) == list(map(without_number, expected))
        outcomes.add(survived)
        for path in ours.glob("torn-tail-*"):
            path.unlink()
    catalog.close()
    assert outcomes >= {0, len(in_flight)}, "the images are all alike"


@pytest.mark.parametrize("with_index", [True, False], ids=["with index", "without index"])
def test_after_a_torn_append_every_job_is_whole_and_the_next_is_organized(
    with_index: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    root = tmp_path / "output"
    png = recording("batch_00001_.png")
    write_tree(root, {f"job_{job}_0000{n}_.png": png for job in (1, 2, 3) for n in (1, 2)})
    clock = Clock()
    with FileManager(root, clock=clock) as manager:
        first = manager.organize_output("job_1").organized_files
    shutil.copytree(root, tmp_path / "kept")
    with FileManager(root, clock=clock) as manager:
        manager.organize_output("job_2")
    after = (root / DOCUMENT).read_bytes()
    before = (tmp_path / "kept" / DOCUMENT).read_bytes()
    append = Append(before, after, len(before) - len(CLOSING))
    chance = random.Random(7)  # noqa: S311
    for image in images(append, WHOLE_IMAGES, chance):
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "kept", root)
        (root / DOCUMENT).write_bytes(image)
        if not with_index:
            (root / ".comfy_files/index.sqlite3").unlink()
        with FileManager(root, clock=clock) as manager:
            assert manager.get_job_files("job_1").files == first
            assert manager.organize_output("job_3").moved.files == 2
            assert manager.get_job_files("job_1").files == first
            assert_sound(root)
            assert manager.organize_output("job_2").file_count == 2
        assert_sound(root)
        assert sorted(outputs(root).values(), key=str) == [png] * 6
