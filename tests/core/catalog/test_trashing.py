"""What deletions do to the index: followed change by change, or taken from the whole document, it is the same."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from flask_comfy_files import FileManager
from flask_comfy_files.core.errors import ConflictError, NotFoundError
from flask_comfy_files.core.layout import INDEX
from tests.conftest import MakeTree, OpenManager
from tests.crash.library_check import check_deletions, delete_index
from tests.trees import Clock

PLACES: Final = {"a": "Tokyo", "b": "tokyo", "c": "osaka", "A": "osaka"}
"""Jobs and their projects; some differ only in case, so that at most one of them is there at a time."""

TABLES: Final = {
    "jobs": "*",
    "projects": "*",
    "types": "*",
    "trash": "*",
    "files": "file_id, job_id, path, counted_size, same_file_as, offset, ordinal, overlay",
    "trashed": "entry, file_id, job_id, path, counted_size, same_file_as, offset, ordinal, overlay",
}


def rows(root: Path) -> dict[str, list[str]]:
    """Return what the index holds, whatever the order."""
    with contextlib.closing(sqlite3.connect(root / INDEX)) as connection:
        return {
            table: sorted(map(repr, connection.execute(f"SELECT {columns} FROM {table}")))  # noqa: S608
            for table, columns in TABLES.items()
        }


def live(manager: FileManager, make_tree: MakeTree, clock: Clock, chance: random.Random) -> None:
    """Do something with some job, as far as it can be done."""
    job_id = chance.choice(list(PLACES))

    def organize() -> object:
        name = f"{chance.getrandbits(64)}.txt"
        make_tree({name: f"{job_id} {name}".encode()})
        return manager.organize_output(job_id, PLACES[job_id], files=[name])

    deeds: list[Callable[[], object]] = [
        organize,
        organize,
        lambda: manager.delete_job_files(job_id),
        lambda: manager.restore_job_files(job_id),
        lambda: manager.restore_job_files(job_id),
        lambda: manager.destroy_job_files(job_id),
        lambda: manager.update_job(job_id, tags=[str(chance.random())]),
        manager.empty_trash,
    ]
    weights = (4, 4, 8, 4, 4, 1, 2, 0.5)
    clock.advance(chance.choice((0, 1)))
    with contextlib.suppress(NotFoundError, ConflictError):
        chance.choices(deeds, weights)[0]()


@pytest.mark.parametrize("seed", range(4))
def test_an_index_made_anew_is_the_one_that_followed_every_change(
    seed: int, make_tree: MakeTree, open_manager: OpenManager, clock: Clock
) -> None:
    root = make_tree({})
    chance = random.Random(seed)  # noqa: S311 - to be found again
    manager = open_manager(root, min_free_bytes=0)
    for _ in range(60):
        live(manager, make_tree, clock, chance)
    manager.organize_output("last", files=["none.txt"])
    manager.delete_job_files("last")
    manager.close()
    assert check_deletions(root).trashed
    followed = rows(root)
    delete_index(root)
    check_deletions(root)
    assert rows(root) == followed
