"""Whatever was done in whatever order: undone in reverse order, every byte is where it was, step by step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.records import FileRecord
from tests.crash.library_check import delete_index
from tests.invariants import assert_sound
from tests.trees import Clock, Tree, outputs, write_tree

JOBS = ("shot", "shot_7")
FILES = {
    "shot_00001_.txt": b"one",
    "shot_00002_.txt": b"two",
    "shot_7_00001_.txt": b"seven",
    "sub/shot_7_00002_.txt": b"seven and two",
    "inbox/shot/run/x.txt": b"inbox",
    "loose.png": b"loose",
    "sub/loose.png": b"loose below",
}

Act = Callable[[FileManager, Clock], object]


def organize(job_id: str) -> Act:
    return lambda manager, _clock: manager.organize_output(job_id)


def migrate(manager: FileManager, _clock: Clock) -> object:
    return manager.migrate_legacy_files(recursive=True)


def assign(job_id: str, number: int) -> Act:
    def act(manager: FileManager, _clock: Clock) -> None:
        legacy = manager.get_legacy_files().files
        if legacy:
            path = legacy[number % len(legacy)].path
            manager.assign_legacy_files([path], job_id)

    return act


def delete(job_id: str) -> Act:
    return lambda manager, _clock: manager.delete_job_files(job_id)


def restore(job_id: str) -> Act:
    return lambda manager, _clock: manager.restore_job_files(job_id)


def clean_up(manager: FileManager, clock: Clock) -> object:
    clock.advance(40 * 24 * 3600)
    return manager.cleanup_old_files(30, allow=["clock_jump", "large_share", "empty_project"])


def tag(job_id: str) -> Act:
    return lambda manager, clock: manager.update_job(job_id, tags=[str(clock.now.timestamp())])


def undo_newest(manager: FileManager, _clock: Clock) -> object:
    return manager.undo_operation(manager.get_operations().operations[0].operation_id)


ACTS = st.one_of(
    st.builds(organize, st.sampled_from(JOBS)),
    st.just(migrate),
    st.builds(assign, st.sampled_from(JOBS), st.integers(0, 9)),
    st.builds(delete, st.sampled_from(JOBS)),
    st.builds(restore, st.sampled_from(JOBS)),
    st.just(clean_up),
    st.builds(tag, st.sampled_from(JOBS)),
    st.just(undo_newest),
)


def files_in(root: Path) -> Tree:
    """Return all files but our own; an empty folder tells nothing."""
    return {path: content for path, content in outputs(root).items() if content is not None}


def operations(manager: FileManager) -> list[tuple[str, str]]:
    """Return id and kind of all operations, newest first."""
    return [(entry.operation_id, entry.kind) for entry in manager.get_operations(limit=200)]


def records(manager: FileManager) -> dict[str, FileRecord]:
    """Return every record of the library, by its id."""
    found = list(manager.get_legacy_files())
    for job_id in JOBS:
        try:
            found += manager.get_job_files(job_id).files
        except ComfyFilesError:
            continue
    return {record.file_id: record for record in found}


@settings(max_examples=40)
@given(acts=st.lists(ACTS, min_size=1, max_size=8))
def test_what_is_undone_in_reverse_order_leaves_everything_as_it_was(acts: list[Act]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, clock = write_tree(Path(folder) / "output", FILES), Clock()
        with FileManager(root, clock=clock, min_free_bytes=0, trash_days=30_000) as manager:
            before: dict[str, tuple[Tree, dict[str, FileRecord]]] = {}
            for act in acts:
                clock.advance(10)
                was = files_in(root), records(manager)
                try:
                    act(manager, clock)
                except (ComfyFilesError, IndexError):
                    continue
                newest = operations(manager)[:1]
                if newest and newest[0][0] not in before:
                    before[newest[0][0]] = was
            done = [entry for entry in operations(manager) if entry[1] != "mark"]
            in_the_end = files_in(root), records(manager)
            undos = []
            for operation_id, _ in done:
                clock.advance(10)
                report = manager.undo_operation(operation_id)
                assert report.failed == ()
                assert (files_in(root), records(manager)) == before[operation_id]
                if report.operation_id is not None and not report.already_undone.files:
                    undos.append(report.operation_id)
                assert_sound(root)
            assert files_in(root) == FILES
            for operation_id in reversed(undos):
                clock.advance(10)
                manager.undo_operation(operation_id)
            assert (files_in(root), records(manager)) == in_the_end
            if not done:
                return
            manager.close()
            delete_index(root)
            assert_sound(root)
