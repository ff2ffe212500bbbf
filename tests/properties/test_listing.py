"""Whatever is asked, and whatever is added and deleted meanwhile: pages put together are the list."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_comfy_files import FileManager
from flask_comfy_files.core.catalog import listing
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.records import FileRecord, microseconds
from tests.trees import NOW, Clock, write_tree

PROJECTS = ("tokyo", "osaka")
TAGS = ("night", "Zürich", "50%_off")
STEMS = ("Hero", "hero_2", "été", os.fsdecode(b"caf\xe9"), "100%", "a_b", "ß")


@dataclass(frozen=True)
class Made:
    """A job that is made: its files by stem, extension and size; nobody's files where it has no project."""

    project_id: str | None
    files: tuple[tuple[str, str, int], ...]
    tags: tuple[str, ...]
    pinned: bool
    later_s: int


made = st.builds(
    Made,
    project_id=st.sampled_from([*PROJECTS, None]),
    files=st.lists(
        st.tuples(
            st.sampled_from(STEMS), st.sampled_from(["txt", "png", "mp4"]), st.integers(0, 3)
        ),
        max_size=4,
    ).map(tuple),
    tags=st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple),
    pinned=st.booleans(),
    later_s=st.sampled_from([0, 0, 1, 3600]),
)

FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "project": st.sampled_from(PROJECTS),
        "job": st.sampled_from(["job_0", "job_1"]),
        "file_type": st.sampled_from(["text", "image", "video"]),
        "since": st.sampled_from([NOW, datetime(2026, 2, 3, 4, 5, 7, tzinfo=UTC)]),
        "until": st.sampled_from([datetime(2026, 2, 3, 5, tzinfo=UTC)]),
        "tag": st.sampled_from(TAGS),
        "pinned": st.booleans(),
        "min_size": st.integers(0, 3),
        "q": st.sampled_from(["hero", "É", "SS", "%", "_", "job_1", "TOKYO", "zür", "\udce9"]),
    },
)


class Library:
    """A library to which jobs are added, and from which they are deleted."""

    def __init__(self, root: Path, manager: FileManager, clock: Clock) -> None:
        self.root, self.manager, self.clock = root, manager, clock
        self.count = 0

    def add(self, job: Made) -> None:
        """Make a job, or files that belong to none."""
        job_id = f"job_{self.count}"
        self.count += 1
        self.clock.advance(job.later_s)
        tree = {
            f"{job_id}{number}/{stem}.{extension}": b"x" * size
            for number, (stem, extension, size) in enumerate(job.files)
        }
        write_tree(self.root, tree)
        if job.project_id is None:
            self.manager.migrate_legacy_files(recursive=True)
            return
        self.manager.organize_output(job_id, job.project_id, files=list(tree))
        self.manager.update_job(job_id, pinned=job.pinned, tags=job.tags)

    def delete(self, number: int) -> None:
        """Delete a job, if it is there and not pinned."""
        try:
            self.manager.delete_job_files(f"job_{number % max(self.count, 1)}")
        except ComfyFilesError:
            return

    def files(self) -> dict[str, tuple[FileRecord, bool, tuple[str, ...]]]:
        """Return all files by id, with whether their job is pinned, and its tags."""
        found: dict[str, tuple[FileRecord, bool, tuple[str, ...]]] = {
            record.file_id: (record, False, ()) for record in self.manager.get_legacy_files()
        }
        for number in range(self.count):
            try:
                job = self.manager.get_job_files(f"job_{number}")
            except ComfyFilesError:
                continue
            found |= {record.file_id: (record, job.pinned, job.tags) for record in job}
        return found


def passes(record: FileRecord, pinned: bool, tags: tuple[str, ...], asked: dict[str, Any]) -> bool:  # noqa: FBT001
    """Say whether a file is to be listed, as the documentation has it."""
    created = datetime.fromisoformat(record.created_at)
    texts = [Path(record.path).name, Path(record.original_path).name, record.file_id, *tags]
    texts += [known for known in (record.job_id, record.project_id) if known is not None]
    checks: dict[str, Callable[[Any], bool]] = {
        "project": lambda wanted: record.project_id == wanted,
        "job": lambda wanted: record.job_id == wanted,
        "file_type": lambda wanted: record.file_type == wanted,
        "since": lambda wanted: created >= wanted,
        "until": lambda wanted: created < wanted,
        "tag": lambda wanted: wanted in tags,
        "pinned": lambda wanted: pinned == wanted,
        "min_size": lambda wanted: record.file_size >= wanted,
        "q": lambda wanted: any(wanted.casefold() in text.casefold() for text in texts),
    }
    return all(checks[name](wanted) for name, wanted in asked.items())


KEYS: dict[str, Callable[[FileRecord], Any]] = {
    "created_at": lambda record: (microseconds(record.created_at), record.file_id),
    "file_size": lambda record: (record.file_size, record.file_id),
    "path": lambda record: os.fsencode(record.path),
}


@settings(max_examples=120)
@given(
    first=st.lists(made, max_size=6),
    between=st.lists(st.one_of(made, st.integers(0, 9)), max_size=4),
    asked=FILTERS,
    word=st.sampled_from(sorted(KEYS)),
    is_descending=st.booleans(),
    limit=st.sampled_from([1, 2, 3, 200]),
    most_rows=st.sampled_from([1, 3, 20_000]),
)
def test_pages_put_together_are_the_list_and_what_stays_is_shown_once(
    first: list[Made],
    between: list[Made | int],
    asked: dict[str, Any],
    word: str,
    is_descending: bool,  # noqa: FBT001 - hypothesis passes by name
    limit: int,
    most_rows: int,
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        root, clock = Path(folder) / "output", Clock()
        root.mkdir()
        patch.setattr(listing, "MOST_ROWS", most_rows)
        with FileManager(root, clock=clock, min_free_bytes=0) as manager:
            library = Library(root, manager, clock)
            for job in first:
                library.add(job)
            before, acts = library.files(), list(between)
            known = dict(before)
            shown: list[FileRecord] = []
            cursor = None
            while True:
                sort = f"-{word}" if is_descending else word
                page = manager.list_files(**asked, sort=sort, limit=limit, cursor=cursor)
                shown += page
                cursor = page.next_cursor
                if cursor is None:
                    break
                if acts:
                    act = acts.pop()
                    library.delete(act) if isinstance(act, int) else library.add(act)
                    known |= library.files()
            after = library.files()
        keys = [KEYS[word](record) for record in shown]
        assert keys == sorted(keys, reverse=is_descending)
        ids = [record.file_id for record in shown]
        assert len(ids) == len(set(ids))
        for record in shown:
            assert record == known[record.file_id][0]
            assert passes(*known[record.file_id], asked)
        stays = {file_id for file_id in before if file_id in after}
        expected = {file_id for file_id in stays if passes(*before[file_id], asked)}
        assert expected <= set(ids)
        assert expected == set(ids) & stays
