"""Finding the files of which a rebuilt document does not speak, and giving them records again.

A file that we have organized tells its project, job, time and type by its path, and its checksum is taken anew.
What the index of the damaged document still knew of it comes back with it: its id, its origin, and of its job the
pins and tags.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from flask_comfy_files.core import durable, lock, looking
from flask_comfy_files.core.adoption import owner_by_path
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.remembering import remember
from flask_comfy_files.core.errors import LockTimeoutError
from flask_comfy_files.core.layout import (
    INDEX_BEFORE,
    LEGACY,
    PROJECTS,
    REBUILD,
    REBUILD_LOCK,
    TRASH,
    file_path,
    is_identifier,
    is_in,
    read_target_name,
    split,
    trash_folder,
)
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.records import LeftFile
from flask_comfy_files.core.rerecording import Found, Rerecording
from flask_comfy_files.core.walking import walk

_log = logging.getLogger(__name__)

PATIENCE_S: Final = 5.0
"""How long one change may look for files without a record before it goes on with its own work."""

_FILES_AT_ONCE: Final = 256


def is_unfinished(root: str) -> bool:
    """Say whether a document was rebuilt and its files were not all looked for yet."""
    return not read_note(root, REBUILD).get("is_finished", True)


def adopt_lost(root: str, catalog: Catalog, max_seconds: float) -> None:
    """Give records to the files that a rebuilt document says nothing of, as far as the time goes.

    The next call goes on, as it does after a crash. Another process that is at it is left to it.
    """
    deadline = time.monotonic() + max_seconds
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.hold(file_path(root, REBUILD_LOCK), 0))
        except LockTimeoutError:
            return
        note = read_note(root, REBUILD)
        if note.get("is_finished", True):
            return
        memory = stack.enter_context(remember(file_path(root, INDEX_BEFORE), note["library_id"]))
        work = Rerecording(root, catalog, note["operation"], memory)
        # First what was deleted: its id may by now be that of a job in other case.
        deleted = ((None, work.record_trashed(batch)) for batch in _trashed(root, catalog, note))
        lying = ((last, work.record(batch)) for last, batch in _batches(root, catalog, note))
        for last, number in itertools.chain(deleted, lying):
            note |= {"adopted": note["adopted"] + number, "after": last}
            write_note(root, REBUILD, note)
            if time.monotonic() > deadline:
                return
        write_note(root, REBUILD, {**note, "is_finished": True})
    # Where nothing was lost, nobody needs to hear of it: a crash came, and the index was gone.
    is_telling = note["kept_as"] or note["lost"] or note["adopted"]
    folder, name = split(INDEX_BEFORE)
    with durable.open_folder(root, folder) as parent:
        for ending in ("", "-wal", "-shm"):
            durable.remove(parent, name + ending)
        if not is_telling:
            durable.remove(parent, split(REBUILD)[1])
    _log.warning("%d files without a record were adopted below %s", note["adopted"], root)


def _batches(
    root: str, catalog: Catalog, note: Mapping[str, Any]
) -> Iterator[tuple[str, list[Found]]]:
    """Yield the files in the library that have no record, many at a time, with how far they reach."""
    after = note.get("after") or ""
    lying = itertools.chain.from_iterable(walk(root, top, after) for top in (LEGACY, PROJECTS))
    found = filter(None, map(_found, lying))
    while batch := list(itertools.islice(found, _FILES_AT_ONCE)):
        with catalog.reading() as reader:
            unknown = [file for file in batch if reader.owner_of(file.path) is None]
        yield batch[-1].path, unknown


def _found(entry: tuple[str, os.stat_result] | LeftFile) -> Found | None:
    """Return what lies in the library, if it is a file and can be ours."""
    if isinstance(entry, LeftFile) or not stat.S_ISREG(entry[1].st_mode):
        return None
    path = entry[0]
    owner = owner_by_path(path)
    if owner is None:
        return Found(path) if is_in(path, LEGACY) else None
    at = _organized_at(owner[1], path)
    return None if at is None else Found(path, *owner, at)


def _organized_at(job_id: str, path: str) -> datetime | None:
    """Return when a file was organized, by its name; ``None`` for a name that we have not given."""
    facts = read_target_name(job_id, split(path)[1])
    return None if facts is None else datetime.fromtimestamp(int(facts.timestamp), UTC)


def _trashed(root: str, catalog: Catalog, note: Mapping[str, Any]) -> Iterator[list[Found]]:
    """Yield the files of each deleted job of which no record speaks."""
    if note.get("after"):
        return  # that was done before
    for entry in sorted(looking.names_in(root, TRASH)):
        for job_id in sorted(looking.names_in(root, f"{TRASH}/{entry}")):
            with catalog.reading() as reader:
                is_known = any(row.entry == entry for row in reader.trash(job_id))
            if is_known or not is_identifier(job_id):
                continue
            folder = trash_folder(entry, job_id)
            paths = [f"{folder}/{name}" for name in sorted(looking.names_in(root, folder))]
            moments = {path: _organized_at(job_id, path) for path in paths}
            yield [Found(path, None, job_id, at, entry) for path, at in moments.items() if at]


def what_happened(root: str) -> str | None:
    """Say in words what became of a document that was damaged or lost; ``None`` where none was."""
    note = read_note(root, REBUILD)
    if not note:
        return None
    kept = f"; it is kept as {note['kept_as']}" if note["kept_as"] else ""
    adopted = f"{note['adopted']} files without a record were given one (evidence rebuilt)"
    if not note["is_finished"]:
        adopted += ", and the next change looks for more"
    return (
        f"the document was rebuilt at {note['operation']['at']}: {note['problem']}{kept}."
        f" {note['lost']} changes were lost with their pins, tags and evidence, and {adopted}."
        " Once you have seen this, say so: flask files adopt"
    )
