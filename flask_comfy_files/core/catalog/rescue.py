"""A document that is damaged or gone, made anew from what is left of it; for the holder of the library lock.

What can be read of it is kept, after what the document before it said. The files of which no line speaks any more
are found in the tree by whoever changes the library next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog import document, index, predecessors
from flask_comfy_files.core.catalog.document import Change, Header
from flask_comfy_files.core.catalog.identity import Identity
from flask_comfy_files.core.catalog.remembering import Remembered, remember
from flask_comfy_files.core.catalog.salvage import Salvage, readable_changes
from flask_comfy_files.core.errors import DocumentDamagedError
from flask_comfy_files.core.layout import (
    DOCUMENT,
    INDEX,
    INDEX_BEFORE,
    NEW_DOCUMENT,
    PROJECTS,
    REBUILD,
    file_path,
)
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.records import iso_utc

_log = logging.getLogger(__name__)
_STAMP: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class _Remains:
    """What is left: of the document, of the one before it, and what the index knows of them."""

    damaged: BinaryIO | None
    header: Header | None
    older: BinaryIO | None
    older_generation: int
    mark: index.Mark | None

    def last_seq(self) -> int:
        """Return the highest number that a change has had."""
        seqs = [0 if self.mark is None else self.mark.seq]
        for source in (self.older, self.damaged):
            if source is not None:
                seqs += [max(_seqs(source), default=0)]
        return max(seqs)

    def generation(self) -> int:
        """Return the highest generation that is known; what is damaged was one at least."""
        return max(
            1,
            0 if self.header is None else self.header.generation,
            0 if self.mark is None else self.mark.generation,
            self.older_generation,
        )

    def library_id(self) -> str | None:
        """Return what names the library, as far as anything that is left does."""
        found = self.header or self.mark
        return None if found is None else found.library_id

    def changes(self, salvage: Salvage) -> Iterator[Change]:
        """Yield what can be read, in order."""
        for source in (self.older, self.damaged):
            if source is not None:
                source.seek(0)
                yield from salvage.mend(readable_changes(source), is_older=source is self.older)


def _seqs(source: BinaryIO) -> Iterator[int]:
    source.seek(0)
    return (change["seq"] for change in readable_changes(source) if change is not None)


def rebuild(root: str, identity: Identity, cache: index.Index, problem: str) -> None:
    """Put a document in the place of one that is damaged or gone, and keep that one aside.

    Raises:
        OSError: The disk refused; the damaged document is where it was.
    """
    now = datetime.now(UTC)
    with contextlib.ExitStack() as stack:
        remains = _find_remains(stack, root)
        library_id = identity.known_library_id() or remains.library_id() or uuid.uuid4().hex
        memory = stack.enter_context(remember(file_path(root, INDEX), library_id))
        salvage = Salvage(remains.last_seq() + 1, lambda job_id: _project_of(root, memory, job_id))
        generation = remains.generation() + 1
        header = Header(library_id, generation, end=0)
        document.write_new(root, NEW_DOCUMENT, header, remains.changes(salvage))
    kept_as = f"{DOCUMENT}.damaged-{now.strftime(_STAMP)}-{uuid.uuid4().hex[:8]}"
    is_there = os.path.lexists(file_path(root, DOCUMENT))
    is_going_on = not read_note(root, REBUILD).get("is_finished", True)
    note(root, library_id, problem, kept_as=kept_as if is_there else None, lost=salvage.lost)
    if not is_going_on:
        cache.set_aside(file_path(root, INDEX_BEFORE))
    document.put_in_place(root, NEW_DOCUMENT, kept_as)
    _log.error("%s was rebuilt: %s; %d changes are lost", DOCUMENT, problem, salvage.lost)


def note(
    root: str, library_id: str, problem: str, *, kept_as: str | None = None, lost: int = 0
) -> None:
    """Note what became of the document, so that files without a record are looked for, and it can be told.

    Raises:
        StorageError: The disk refused.
    """
    operation = {"id": uuid.uuid4().hex, "kind": "rebuild", "at": iso_utc(datetime.now(UTC))}
    facts = {"library_id": library_id, "problem": problem, "kept_as": kept_as, "lost": lost}
    write_note(root, REBUILD, {**facts, "operation": operation, "adopted": 0, "is_finished": False})


def _find_remains(stack: contextlib.ExitStack, root: str) -> _Remains:
    descriptor = None
    with contextlib.suppress(DocumentDamagedError):
        descriptor = stack.enter_context(document.open_document(root))
    if descriptor is not None and stat.S_ISDIR(os.fstat(descriptor).st_mode):
        descriptor = None
    header = None
    if descriptor is not None:
        with contextlib.suppress(DocumentDamagedError):
            header = document.read_header(descriptor)
    mark = None
    with contextlib.suppress(Exception), index.opened(file_path(root, INDEX)) as connection:
        mark = index.read_mark(connection)
    generation = _newest_generation(root, header)
    older_descriptor = stack.enter_context(predecessors.open_document(root, generation))
    older = None
    if older_descriptor is not None:
        older = stack.enter_context(os.fdopen(older_descriptor, "rb", closefd=False))
    damaged = None
    if descriptor is not None:
        damaged = stack.enter_context(os.fdopen(descriptor, "rb", closefd=False))
    return _Remains(damaged, header, older, generation, mark)


def _newest_generation(root: str, header: Header | None) -> int:
    """Return the generation of the newest older document; 0 without one."""
    kept: list[int] = []
    with contextlib.suppress(OSError):
        kept = predecessors.generations(root)
    return max((n for n in kept if header is None or n < header.generation), default=0)


def _project_of(root: str, memory: Remembered, job_id: str) -> str | None:
    """Return the project of a job whose line was lost: as the index knew it, or where its folder stands."""
    remembered = memory.job(job_id)
    if remembered is not None:
        return remembered.project_id
    try:
        with durable.open_folder(root, PROJECTS) as folder:
            projects = os.listdir(folder)
    except OSError:
        return None
    found = [
        project_id
        for project_id in projects
        if durable.find_status(root, f"{PROJECTS}/{project_id}/{job_id}") is not None
    ]
    return found[0] if len(found) == 1 else None
