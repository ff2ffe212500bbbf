"""Taking over the files that an older installation, or a backup, has records of.

A file that lies in its job's folder stays there and gets a record; one that lies elsewhere goes there, or to
``legacy/``, the way of every migrated file: its bytes synced, a line that names source and target, the move, the
folders, the index. What has a record already is left as it is, so that an import that was interrupted is just
done again.

Where an older installation's list stands in the document's place, it gets another name, and is never changed. A
note names it, and says whether all its records were looked at: without it nobody would know that they were not.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from flask_comfy_files.config import Settings
from flask_comfy_files.core import durable
from flask_comfy_files.core.accession import Entry, parse, require_entries
from flask_comfy_files.core.allotment import Allotment, stored_files
from flask_comfy_files.core.appraisal import Appraisal, without_strangers
from flask_comfy_files.core.carrying import alone, carry_out, keep_unchanged
from flask_comfy_files.core.catalog import takeover
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.catalog.identity import Identity, make_state_folder
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.layout import DOCUMENT, IMPORT, imported_document, is_imported_document
from flask_comfy_files.core.notes import read_note, write_note
from flask_comfy_files.core.records import iso_utc
from flask_comfy_files.core.recovery import changing, reading
from flask_comfy_files.core.request import Clock
from flask_comfy_files.core.room import require_room_for_records
from flask_comfy_files.core.transfer import ImportReport, Transfer

RECORDS_AT_ONCE: Final = 256
"""How many records share one append to the document, and one turn with the library's lock."""


class Importing:
    """Imports into one output root; safe for threads and processes, of which one does it."""

    def __init__(
        self,
        root: str,
        catalog: Catalog,
        clock: Clock,
        *,
        settings: Settings,
    ) -> None:
        """Work on an output root, with the collaborators that the manager made."""
        self._root = root
        self._identity = Identity(root, settings.library_id)
        self._lock_timeout_s = settings.lock_timeout
        self._catalog = catalog
        self._clock = clock
        self._default_project = settings.default_project
        self._min_free_bytes = settings.min_free_bytes

    def rehearse(self, source: Any) -> ImportReport:
        """Return what an import would do now; every file is read, and nothing is changed.

        Raises:
            InvalidInputError: As ``run``.
        """
        entries = self._entries_left() if source is None else _entries(source)
        is_new = takeover.is_unbegun(self._root, self._identity)
        if source is not None and takeover.is_older(self._root):
            is_new = False  # a list in the document's place is in the way of any other, and is told
        now, account = self._clock(), Transfer()
        appraisal = Appraisal(self._root, now, account)
        allotment = Allotment(self._root, self._default_project, now, {})
        with contextlib.ExitStack() as stack:
            opened = takeover.reading_none(self._root) if is_new else self._reading()
            reader = stack.enter_context(opened)
            for batch in _batches(entries):
                found = appraisal.read(appraisal.choose(reader, batch))
                for stored in stored_files(allotment.lines(reader, found)):
                    account.enter(stored)
        account.failed += allotment.failed
        return account.report(None, None)

    def run(self, source: Any) -> ImportReport:
        """Take over the files of a list; without one, of that which stands in the document's place.

        Raises:
            InvalidInputError: There is none, or it is no list of records; nothing was changed.
            MigrationRunningError: Another import, or a migration, is under way.
            OutOfSpaceError: The records would not fit; nothing was changed.
        """
        entries = self._entries_left() if source is None else _entries(source)
        require_room_for_records(self._root, len(entries), self._min_free_bytes)
        if source is not None:
            if not takeover.is_older(self._root):  # else what follows says so
                takeover.begin(self._root, self._identity, self._lock_timeout_s)
            with changing(self._root, self._catalog):
                pass  # whatever keeps the library from being changed is said before anything is done
            with alone(self._root):
                return self._run(entries, uuid.uuid4().hex, None)
        make_state_folder(self._root)
        with alone(self._root):
            note = self._take_over()
            # Read again: whoever wrote the list may have gone on until it was taken over.
            report = self._run(self._entries_below(note["document"]), note["id"], note["document"])
            write_note(self._root, IMPORT, {**note, "is_finished": True})
        return report

    def _take_over(self) -> dict[str, Any]:
        """Rename an older installation's list, or find the one that was renamed; return the note that names it."""
        if not takeover.is_older(self._root):
            note = read_note(self._root, IMPORT)
            return note if note.get("is_finished") is False else self._note(self._document())
        name = str(read_note(self._root, IMPORT).get("document"))
        if not (is_imported_document(name) and takeover.is_kept(self._root, name)):
            name = imported_document(self._clock())
        # Before it: after it nothing else tells that there is something to be gone on with.
        note = self._note(name)
        takeover.set_aside(self._root, self._identity, self._lock_timeout_s, name)
        return note

    def _note(self, name: str) -> dict[str, Any]:
        note = {"id": uuid.uuid4().hex, "kind": "import", "is_finished": False, "document": name}
        write_note(self._root, IMPORT, note)
        return note

    def _document(self) -> str:
        """Return the name under which an older installation's list is kept.

        Raises:
            InvalidInputError: There is none.
        """
        name = read_note(self._root, IMPORT).get("document")
        is_one = isinstance(name, str) and is_imported_document(name)
        if not is_one or durable.find_status(self._root, str(name)) is None:
            raise InvalidInputError(
                "source",
                None,
                "names no list, and none of an older installation is in the output root",
            )
        return str(name)

    def _entries_left(self) -> list[Entry]:
        """Return the records that an older installation has left, before or after they were taken over."""
        is_older = takeover.is_older(self._root)
        return self._entries_below(DOCUMENT if is_older else self._document())

    def _entries_below(self, name: str) -> list[Entry]:
        try:
            with (
                durable.open_folder(self._root, "") as folder,
                durable.open_regular(folder, name) as descriptor,
                open(descriptor, "rb", closefd=False) as source,
            ):
                content = source.read()
        except OSError as error:
            durable.refuse("Reading", name, error)
        return require_entries(parse(content, name))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Reader]:
        with reading(self._root, self._catalog) as reader:
            yield reader

    def _run(
        self, entries: Sequence[Entry], operation_id: str, document: str | None
    ) -> ImportReport:
        now, account = self._clock(), Transfer()
        operation = {"id": operation_id, "kind": "import", "at": iso_utc(now)}
        appraisal = Appraisal(self._root, now, account)
        allotment = Allotment(self._root, self._default_project, now, operation)
        for batch in _batches(entries):
            with self._reading() as reader:
                wanted = appraisal.choose(reader, batch)
            found = appraisal.read(wanted)
            if not found:
                continue
            with changing(self._root, self._catalog) as writer:
                fresh = keep_unchanged(self._root, found, account)
                lines = allotment.lines(writer, without_strangers(writer, fresh))
                carry_out(self._root, self._catalog, writer, lines, account)
        account.failed += allotment.failed
        return account.report(operation_id, document)


def _entries(source: Any) -> list[Entry]:
    if not isinstance(source, str | os.PathLike):
        return require_entries(source)
    name = os.fspath(source)
    try:
        content = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidInputError("source", name, f"cannot be read: {error}") from None
    return require_entries(parse(content, name))


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    for first in range(0, len(entries), RECORDS_AT_ONCE):
        yield entries[first : first + RECORDS_AT_ONCE]
