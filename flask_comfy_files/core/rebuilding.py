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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from flask_comfy_files.core import durable, lock, looking
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.remembering import remember
from flask_comfy_files.core.errors import InvalidIdentifierError, LockTimeoutError
from flask_comfy_files.core.layout import (
    INDEX_BEFORE,
    LEGACY,
    PROJECTS,
    REBUILD,
    REBUILD_LOCK,
    TRASH,
    file_path,
    job_folder,
    read_target_name,
    require_identifier,
    split,
    trash_folder,
)
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.rerecording import Found, Rerecording

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
        for number in itertools.chain(
            # First what was deleted: its id may by now be that of a job in other case.
            map(work.record_trashed, _trashed(root, catalog)),
            map(work.record, _batches(root, catalog)),
        ):
            note["adopted"] += number
            write_note(root, REBUILD, note)
            if time.monotonic() > deadline:
                return
        write_note(root, REBUILD, {**note, "is_finished": True})
    folder, name = split(INDEX_BEFORE)
    with durable.open_folder(root, folder) as parent:
        for ending in ("", "-wal", "-shm"):
            durable.remove(parent, name + ending)
    _log.warning("%d files without a record were adopted below %s", note["adopted"], root)


def _batches(root: str, catalog: Catalog) -> Iterator[list[Found]]:
    found = _unrecorded(root, catalog)
    while batch := list(itertools.islice(found, _FILES_AT_ONCE)):
        yield batch


def _trashed(root: str, catalog: Catalog) -> Iterator[list[Found]]:
    """Yield the files of each deleted job of which no record speaks."""
    for entry in sorted(looking.names_in(root, TRASH)):
        for job_id in sorted(looking.names_in(root, f"{TRASH}/{entry}")):
            with catalog.reading() as reader:
                is_known = any(row.entry == entry for row in reader.trash(job_id))
            folder = trash_folder(entry, job_id)
            files = [
                replace(found, entry=entry)
                for found in ([] if is_known else _organized(root, folder, None, job_id))
            ]
            if files:
                yield files


def _unrecorded(root: str, catalog: Catalog) -> Iterator[Found]:
    """Yield the files in the library that have no record, folder by folder."""
    for project_id in sorted(looking.names_in(root, PROJECTS)):
        for job_id in sorted(looking.names_in(root, f"{PROJECTS}/{project_id}")):
            folder = job_folder(project_id, job_id)
            yield from _without_record(catalog, _organized(root, folder, project_id, job_id))
    folders = [LEGACY]
    while folders:
        folder = folders.pop()
        files, inside = [], []
        for name, status in _listed(root, folder):
            if stat.S_ISDIR(status.st_mode):
                inside.append(f"{folder}/{name}")
            elif stat.S_ISREG(status.st_mode):
                files.append(Found(f"{folder}/{name}", status.st_size))
        yield from _without_record(catalog, files)
        folders += sorted(inside, reverse=True)


def _organized(root: str, folder: str, project_id: str | None, job_id: str) -> list[Found]:
    """Return the files of a job's folder that have a name which we have given."""
    try:
        require_identifier("project_id", project_id or "rebuilt")
        require_identifier("job_id", job_id)
    except InvalidIdentifierError:
        return []
    found = []
    for name, status in _listed(root, folder):
        facts = read_target_name(job_id, name)
        if facts is not None and stat.S_ISREG(status.st_mode):
            at = datetime.fromtimestamp(int(facts.timestamp), UTC)
            found.append(Found(f"{folder}/{name}", status.st_size, project_id, job_id, at))
    return found


def _listed(root: str, folder: str) -> list[tuple[str, os.stat_result]]:
    try:
        return sorted(looking.list_folder(root, folder), key=lambda entry: entry[0])
    except OSError:
        return []


def _without_record(catalog: Catalog, files: Sequence[Found]) -> list[Found]:
    if not files:
        return []
    with catalog.reading() as reader:
        return [found for found in files if reader.owner_of(found.path) is None]


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
