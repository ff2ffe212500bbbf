"""A bit flips, or the end is cut off, anywhere in the document: nobody is told an untruth, and no file is lost.

Every byte of a small document is hit. What is done about the damage is not asked here: a change may be refused,
or may mend the document first.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import ComfyFilesError, DocumentDamagedError
from flask_comfy_files.core.layout import DOCUMENT
from flask_comfy_files.core.records import FileRecord
from tests.crash.library_check import checksums_of, delete_index, found
from tests.invariants import assert_sound
from tests.trees import Clock, library, recording, write_tree

FILES = {
    "a_00001_.png": "batch_00001_.png",
    "b_00001_.png": "batch_00002_.png",
    "later_00001_.png": "batch_00003_.png",
    "next_00001_.png": "batch_00004_.png",
}

Damage = Callable[[bytes, int], bytes]


def flip(document: bytes, offset: int) -> bytes:
    """Flip one bit of the byte at an offset, another one at each."""
    byte = document[offset] ^ 1 << offset * 5 % 8
    return document[:offset] + bytes([byte]) + document[offset + 1 :]


def cut(document: bytes, offset: int) -> bytes:
    """Cut a document off at an offset."""
    return document[:offset]


@dataclass(frozen=True)
class Kept:
    """A sound library that is only copied from, and what it answers."""

    root: Path
    truth: frozenset[FileRecord]

    @property
    def document(self) -> bytes:
        return (self.root / DOCUMENT).read_bytes()


open_library = functools.partial(FileManager, clock=Clock(), min_free_bytes=0)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a library of two jobs, to one of which a file was added later; another file waits."""
    root = write_tree(tmp_path / "kept", {path: recording(of) for path, of in FILES.items()})
    with open_library(root) as manager:
        for job_id, path in [("a", "a_00001_.png"), ("b", "b_00001_.png"), ("a", "later_00001_.png")]:
            manager.organize_output(job_id, files=[path])
        truth = [record for job_id in "ab" for record in manager.get_job_files(job_id)]
    assert len(truth) == 3
    # Where it lies is part of a record, and so the copies take turns in one place.
    shutil.copytree(root, tmp_path / "output")
    with open_library(tmp_path / "output") as manager:
        here = [record for job_id in "ab" for record in manager.get_job_files(job_id)]
    return Kept(root, frozenset(here))


@contextlib.contextmanager
def damaged(kept: Kept, damage: Damage, offset: int) -> Iterator[Path]:
    """Have a copy of a library, with its document damaged at an offset, which is told if anything goes wrong."""
    root = kept.root.parent / "output"
    shutil.rmtree(root)
    shutil.copytree(kept.root, root)
    (root / DOCUMENT).write_bytes(damage(kept.document, offset))
    try:
        yield root
    except BaseException as error:
        error.add_note(f"The document was damaged at byte {offset}.")
        raise


def told(root: Path, truth: frozenset[FileRecord]) -> set[FileRecord]:
    """Return every record that a library answers in any way; what it does not, it must refuse as an error of ours."""
    records: set[FileRecord] = set()
    with open_library(root) as manager:
        questions: list[Callable[[], object]] = [
            lambda: records.update(manager.get_job_files("a")),
            lambda: records.update(manager.get_job_files("b")),
            lambda: records.update(manager.get_project_files("default")),
            *(
                functools.partial(lambda key: records.add(manager.get_file_metadata(key)), key)
                for record in truth
                for key in (record.file_id, record.path)
            ),
            manager.get_system_stats,
            manager.get_trash,
            lambda: manager.plan_cleanup(0),
        ]
        for question in questions:
            with contextlib.suppress(ComfyFilesError):
                question()
    return records


each_damage = pytest.mark.parametrize("damage", [flip, cut])
each_state = pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])


@each_damage
@each_state
def test_whoever_reads_a_damaged_document_is_told_the_truth_or_nothing(
    has_index: bool,  # noqa: FBT001
    damage: Damage,
    kept: Kept,
) -> None:
    if not has_index:
        delete_index(kept.root)
    numbers = Counter[int]()
    for offset in range(len(kept.document)):
        with damaged(kept, damage, offset) as root:
            records = told(root, kept.truth)
            assert records <= kept.truth
            numbers[len(records)] += 1
    assert numbers.keys() >= {0, 3}, "the damage makes no difference"


@each_damage
@each_state
def test_a_change_to_a_damaged_library_is_refused_or_leaves_it_sound_and_loses_no_file(
    has_index: bool,  # noqa: FBT001
    damage: Damage,
    kept: Kept,
) -> None:
    if not has_index:
        delete_index(kept.root)
    inputs = checksums_of(FILES.values())
    for offset in range(len(kept.document)):
        with damaged(kept, damage, offset) as root, open_library(root) as manager:
            before = library(root)
            try:
                report = manager.organize_output("next", files=["next_00001_.png"])
            except DocumentDamagedError:
                assert library(root) == before
            else:
                assert report.moved.files == 1
                assert_sound(root)
            assert inputs - Counter(found(root).values()) == Counter()
