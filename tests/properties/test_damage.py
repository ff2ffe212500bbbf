"""A bit flips, or the end is cut off, anywhere in the document: nobody is told an untruth, and no file is lost.

What the document does not say any more is found out from the index and the files, and said to be so.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.core.records import FileRecord
from tests.crash.library_check import checksums_of, delete_index, found
from tests.invariants import assert_sound
from tests.trees import Clock, recording, write_tree

FILES = {
    "a_00001_.png": "batch_00001_.png",
    "b_00001_.png": "batch_00002_.png",
    "next_00001_.png": "batch_00003_.png",
}
JOBS = ("a", "b")

open_library = functools.partial(FileManager, clock=Clock(), min_free_bytes=0)

Damage = Callable[[bytes, int], bytes]

EVERY_POINT = os.environ.get("EVERY_POINT") == "1"
STEP = 1 if EVERY_POINT else 41
"""From one byte to the next that is tried, where trying one takes long."""
SHORT_STEP = 1 if EVERY_POINT else 7
"""The same, where it does not."""


def flip(document: bytes, offset: int) -> bytes:
    """Flip a bit of the byte at an offset, another one at each."""
    byte = document[offset] ^ 1 << offset * 5 % 8
    return document[:offset] + bytes([byte]) + document[offset + 1 :]


def cut(document: bytes, offset: int) -> bytes:
    """Cut a document off at an offset."""
    return document[:offset]


@dataclass(frozen=True)
class Kept:
    """A sound library that is only copied from; the copies take turns in one place."""

    root: Path
    copy: Path
    document: bytes
    truth: frozenset[FileRecord]
    """Its records, as a copy answers them."""

    def offsets(self, step: int) -> list[int]:
        """Return every n-th offset, and those around the ends of lines."""
        ends = accumulate(len(line) for line in self.document.splitlines(keepends=True))
        around = {end + near for end in ends for near in range(-4, 3)}
        return sorted({*range(0, len(self.document), step), *around} & {*range(len(self.document))})

    @contextlib.contextmanager
    def damaged(self, damage: Damage, offset: int) -> Iterator[Path]:
        """Have a copy whose document is damaged at an offset, which is told if anything goes wrong."""
        shutil.rmtree(self.copy)
        shutil.copytree(self.root, self.copy)
        (self.copy / DOCUMENT).write_bytes(damage(self.document, offset))
        try:
            yield self.copy
        except BaseException as error:
            error.add_note(f"The document was damaged at byte {offset}.")
            raise


@pytest.fixture(params=["index", "no index"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """Return a library of two jobs, with its index or without; another job waits."""
    root = write_tree(tmp_path / "kept", {path: recording(of) for path, of in FILES.items()})
    with open_library(root) as manager:
        for job_id in JOBS:
            assert manager.organize_output(job_id).moved.files == 1
    copy = shutil.copytree(root, tmp_path / "output")
    with open_library(copy) as manager:
        truth = frozenset(record for job_id in JOBS for record in manager.get_job_files(job_id))
    if request.param == "no index":
        delete_index(root)
    return Kept(root, copy, (root / DOCUMENT).read_bytes(), truth)


Fact = tuple[str | None, str, str, int]
"""What no damage may change of a record: whose it is, where its file lies, its checksum and its size."""


def facts(records: Iterable[FileRecord]) -> set[Fact]:
    return {(record.job_id, record.path, record.checksum, record.file_size) for record in records}


def told(manager: FileManager) -> set[FileRecord]:
    """Return every record that a manager tells of; whatever else it says must be an error of ours."""
    records: set[FileRecord] = set()
    for job_id in JOBS:
        with contextlib.suppress(ComfyFilesError):
            records |= {*manager.get_job_files(job_id)}
    return records


def told_otherwise(manager: FileManager, truth: Iterable[FileRecord]) -> set[FileRecord]:
    """Return every record that a manager tells of when it is asked in other ways."""
    records: set[FileRecord] = set()
    with contextlib.suppress(ComfyFilesError):
        records |= {*manager.get_project_files("default").files}
    for record in truth:
        for key in (record.file_id, record.path):
            with contextlib.suppress(ComfyFilesError):
                records.add(manager.get_file_metadata(key))
    with contextlib.suppress(ComfyFilesError):
        manager.get_system_stats()
    with contextlib.suppress(ComfyFilesError):
        manager.plan_cleanup(0)
    return records


def test_a_flipped_bit_anywhere_makes_nobody_tell_an_untruth(kept: Kept) -> None:
    changed = 0
    offsets = kept.offsets(SHORT_STEP)
    for offset in offsets:
        with kept.damaged(flip, offset) as root, open_library(root) as manager:
            records = told(manager)
            assert facts(records) <= facts(kept.truth)
            changed += records != kept.truth
    assert changed > len(offsets) / 2, "the damage makes no difference"


@pytest.mark.parametrize("damage", [flip, cut])
def test_nobody_is_told_an_untruth_however_a_damaged_library_is_asked(
    damage: Damage, kept: Kept
) -> None:
    for offset in kept.offsets(STEP):
        with kept.damaged(damage, offset) as root, open_library(root) as manager:
            records = told_otherwise(manager, kept.truth) | told(manager)
            assert facts(records) <= facts(kept.truth)


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_change_to_a_damaged_library_succeeds_and_nothing_is_lost(
    damage: Damage, kept: Kept
) -> None:
    inputs = checksums_of(FILES.values())
    for offset in kept.offsets(STEP):
        with kept.damaged(damage, offset) as root, open_library(root) as manager:
            new = {*manager.organize_output("next")}
            assert len(new) == 1
            # Where the index leads past the damage, who reads the line notices it, or the daily cleanup.
            manager.cleanup_if_due()
            assert facts(told(manager)) == facts(kept.truth)
            assert facts(manager.get_job_files("next")) == facts(new)
            json.loads((root / DOCUMENT).read_bytes())
            assert_sound(root)
            lost = inputs - Counter(found(root).values())
            assert not lost, lost
