"""Document and index as one: questions are answered from the index, changes go to the document first.

Readers take no lock. A change is made by the one holder of the library lock, in the order of
``design``: the line is appended (it is the intent and the record in one), the caller moves the
files, and then the index is moved past the line. Until then no reader sees it, and whoever opens
the catalog for a change next is told of it as unfinished.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.catalog import document, index
from flask_comfy_files.core.catalog.document import Change, Header, Line
from flask_comfy_files.core.catalog.index import FileRow, JobRow, Mark
from flask_comfy_files.core.errors import (
    DocumentDamagedError,
    LibraryUnavailableError,
    LockTimeoutError,
)
from flask_comfy_files.core.layout import DOCUMENT, INDEX, LOCK, SENTINEL, STATE, file_path
from flask_comfy_files.core.records import FileRecord, file_from_stored

_log = logging.getLogger(__name__)
_TAIL_BYTES: Final = 32


class Reader:
    """The library as it stood at one moment."""

    def __init__(self, root: str, connection: sqlite3.Connection, descriptor: int | None) -> None:
        """Answer from an index and the document it reflects; ``None`` for a library without one."""
        self._root = root
        self._connection = connection
        self._descriptor = descriptor

    def find_job(self, job_id: str) -> JobRow | None:
        """Return a job by its exact id."""
        return index.find_job(self._connection, job_id)

    def jobs_of_project(self, project_id: str) -> list[JobRow]:
        """Return a project's jobs, oldest first; none when it is not known."""
        return index.jobs_of_project(self._connection, project_id)

    def pending_jobs(self) -> list[JobRow]:
        """Return the jobs that wait to be organized."""
        return index.pending_jobs(self._connection)

    def known_job(self, job_id: str) -> str | None:
        """Return the known job id that equals this one, but for case."""
        return index.known_spelling(self._connection, "jobs", job_id)

    def known_project(self, project_id: str) -> str | None:
        """Return the known project id that equals this one, but for case."""
        return index.known_spelling(self._connection, "projects", project_id)

    def known_among(self, job_ids: Iterable[str]) -> set[str]:
        """Return those of some ids that are known jobs."""
        return index.known_among(self._connection, job_ids)

    def files_of_job(self, job_id: str) -> tuple[FileRecord, ...]:
        """Return a job's files in the order in which they were organized."""
        return self._records(index.files_of_job(self._connection, job_id))

    def find_file(self, key: str) -> FileRecord | None:
        """Return a file by its id or its path."""
        row = index.find_file(self._connection, key)
        return None if row is None else self._records([row])[0]

    def owner_of(self, path: str) -> tuple[str | None] | None:
        """Return the owner of the file recorded at a path in a tuple (a legacy file has none), or ``None``."""
        return index.owner_of(self._connection, path) if path.isascii() else None

    def paths_of_job(self, job_id: str) -> list[tuple[str, str, str | None]]:
        """Return for each file of a job where it lies, where ComfyUI wrote it, and in which run."""
        found = index.paths_of_job(self._connection, job_id)
        return [
            (path, os.fsdecode(original_path), prompt_id)
            for path, original_path, prompt_id in found
        ]

    def totals(self, project_id: str | None = None) -> index.Totals:
        """Return the numbers of the library, or of one project."""
        return index.totals(self._connection, project_id)

    def _records(self, rows: Iterable[FileRow]) -> tuple[FileRecord, ...]:
        """Read the records; a line that holds many of them is read once."""
        records: list[FileRecord] = []
        for (offset, length), group in groupby(rows, key=lambda row: (row.offset, row.length)):
            if self._descriptor is None:  # pragma: no cover - an index without document has no rows
                break
            stored = document.read_line(self._descriptor, offset, length)["files"]
            records += [self._record({**stored[row.ordinal], **row.overlay}) for row in group]
        return tuple(records)

    def _record(self, stored: Mapping[str, Any]) -> FileRecord:
        return file_from_stored(stored, file_path(self._root, stored["path"]))


class Writer(Reader):
    """The library in the hands of the one who may change it."""

    unfinished: Sequence[Line]
    """Lines whose files may not be in place yet; to be settled and passed to ``advance`` first."""

    def __init__(self, root: str, session: _Session, connection: sqlite3.Connection) -> None:
        """Start from where the index stands."""
        super().__init__(root, connection, session.descriptor)
        self._session = session
        self.unfinished = session.unfinished

    @property
    def library_id(self) -> str:
        """The id of the library, as its document says."""
        return self._session.header.library_id

    def append(self, changes: Sequence[Mapping[str, Any]]) -> list[Line]:
        """Write changes to the document, all or none; readers do not see them before ``advance``.

        Raises:
            OSError: The disk refused; nothing was changed.
        """
        session = self._session
        numbered = [{"seq": session.seq + n, **change} for n, change in enumerate(changes, 1)]
        lines = document.append(session.descriptor, session.header, session.position, numbered)
        session.position, session.seq = lines[-1].end, session.seq + len(lines)
        return lines

    def advance(self, lines: Sequence[Line]) -> None:
        """Let readers see lines, whose files are now in place."""
        session = self._session
        index.fold(self._connection, lines)
        index.write_mark(self._connection, session.mark(lines[-1]))
        self._connection.commit()
        self._connection.execute("BEGIN IMMEDIATE")


@dataclass(slots=True)
class _Session:
    """The document while the lock is held: what is appended where."""

    descriptor: int
    header: Header
    position: int
    seq: int
    unfinished: Sequence[Line] = ()

    def mark(self, last: Line | None) -> Mark:
        position = self.header.end if last is None else last.end
        start = max(0, position - _TAIL_BYTES)
        return Mark(
            library_id=self.header.library_id,
            generation=self.header.generation,
            position=position,
            tail=os.pread(self.descriptor, position - start, start),
            seq=0 if last is None else last.change["seq"],
        )


class Catalog:
    """One library's record of every file, safe for threads, processes and forks."""

    def __init__(
        self, root: str, *, lock_timeout_s: float, pinned_library_id: str | None = None
    ) -> None:
        """Touch nothing yet; the root may be missing."""
        self._root = root
        self._lock_timeout_s = lock_timeout_s
        self._pinned_library_id = pinned_library_id
        self._remembered_library_id: str | None = None
        self._index = index.Index(file_path(root, INDEX))
        self._memory: tuple[tuple[int, ...], index.MemoryIndex] | None = None
        self._memory_lock = threading.Lock()

    def close(self) -> None:
        """Close what is open; the catalog can still be used and opens it again."""
        self._index.close()
        with self._memory_lock:
            memory, self._memory = self._memory, None
        if memory is not None:
            memory[1].close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Answer questions as of this moment, without a lock and without changing anything.

        Raises:
            LibraryUnavailableError: The root or the document cannot be read, or it is another
            library's. DocumentDamagedError: The document is none of ours, or damaged.
        """
        with document.open_document(self._root) as descriptor, contextlib.ExitStack() as stack:
            if descriptor is None:
                self._require_new_library()
                memory = index.MemoryIndex()
                stack.callback(memory.close)
                yield Reader(self._root, stack.enter_context(memory.reading()), None)
                return
            header = document.read_header(descriptor)
            connection = self._usable_index(stack, descriptor, header)
            if connection is None:
                connection = stack.enter_context(self._memory_index(descriptor, header).reading())
            yield Reader(self._root, connection, descriptor)

    def _usable_index(
        self, stack: contextlib.ExitStack, descriptor: int, header: Header
    ) -> sqlite3.Connection | None:
        try:
            with contextlib.ExitStack() as attempt:
                connection = attempt.enter_context(self._index.reading())
                if _is_usable(index.read_mark(connection), header, descriptor):
                    stack.push(attempt.pop_all())
                    return connection
        except sqlite3.Error as error:
            _log.debug("the index of %s cannot be read: %s", self._root, error)
        return None

    def is_behind(self) -> bool:
        """Say whether the document has lines that readers do not see, or there is no index to see them with."""
        try:
            with document.open_document(self._root) as descriptor:
                if descriptor is None:
                    return False
                with self._index.reading() as connection:
                    mark = index.read_mark(connection)
                    size = os.fstat(descriptor).st_size
                    return mark is None or mark.position + len(document.CLOSING) != size
        except sqlite3.Error:
            return True

    @contextlib.contextmanager
    def changing(self, lock_timeout_s: float | None = None) -> Iterator[Writer]:
        """Hold the library's lock and be the one who may change it.

        The tail of a document that a crash has torn is mended first. A new library gets its
        document.

        Raises:
            LibraryUnavailableError: The root is missing, unwritable, or holds another library.
            LockTimeoutError: Somebody else held the lock for too long.
            DocumentDamagedError: The document is none of ours, or damaged.
        """
        self._require_root()
        with contextlib.ExitStack() as stack:
            self._make_state_folder()
            timeout_s = self._lock_timeout_s if lock_timeout_s is None else lock_timeout_s
            try:
                stack.enter_context(lock.hold(file_path(self._root, LOCK), timeout_s))
            except LockTimeoutError:
                raise
            except OSError as error:
                raise self._unwritable(LOCK, error) from error
            session = self._open_session(stack)
            try:
                connection = self._current_index(stack, session)
            except sqlite3.Error:
                if session.position or os.path.exists(file_path(self._root, INDEX)):
                    _log.warning("the index of %s cannot be used and is made anew", self._root)
                connection = self._rebuilt_index(stack, session)
            yield Writer(self._root, session, connection)

    def _current_index(self, stack: contextlib.ExitStack, session: _Session) -> sqlite3.Connection:
        with contextlib.ExitStack() as attempt:
            connection = attempt.enter_context(self._index.writing())
            mark = index.read_mark(connection)
            if mark is None or not _is_usable(mark, session.header, session.descriptor):
                self._require_all_changes(session, mark)
                message = "the index reflects another document"
                raise sqlite3.DatabaseError(message)
            session.position, session.seq = mark.position, mark.seq
            session.unfinished = self._lines_from(session, mark.position)
            stack.push(attempt.pop_all())
            return connection

    def _require_all_changes(self, session: _Session, mark: Mark | None) -> None:
        """Refuse a document from which changes have vanished that the index has seen."""
        header = session.header
        if mark is None or (mark.library_id, mark.generation) != (
            header.library_id,
            header.generation,
        ):
            return
        last_seq = max(
            (line.change["seq"] for line in document.Scan(session.descriptor, header, header.end)),
            default=0,
        )
        if last_seq < mark.seq:
            raise DocumentDamagedError(
                DOCUMENT, f"the changes from number {last_seq + 1} to {mark.seq} are gone"
            )

    def _rebuilt_index(self, stack: contextlib.ExitStack, session: _Session) -> sqlite3.Connection:
        with contextlib.suppress(OSError, sqlite3.Error):
            self._index.create()
        try:
            connection = stack.enter_context(self._index.writing())
        except sqlite3.Error as error:
            _log.warning("no index can be kept in %s (%s); it is made in memory", self._root, error)
            memory = index.MemoryIndex()
            stack.callback(memory.close)
            connection = stack.enter_context(memory.reading())
            connection.execute("BEGIN")
        session.position, session.seq = session.header.end, 0
        session.unfinished = self._index_all(session, connection)
        return connection

    def _index_all(self, session: _Session, connection: sqlite3.Connection) -> Sequence[Line]:
        """Index the document from its beginning, but for the last operation, which is returned as unfinished."""
        last: Line | None = None
        unfinished: list[Line] = []
        for operation_lines in _by_operation(self._lines_from(session, session.header.end)):
            if unfinished:
                index.fold(connection, unfinished)
                last = unfinished[-1]
            unfinished = operation_lines
        index.write_mark(connection, session.mark(last))
        return unfinished

    def _lines_from(self, session: _Session, position: int) -> list[Line]:
        """Read the lines from a position on, and mend the tail if a crash has torn it."""
        scan = document.Scan(session.descriptor, session.header, position)
        lines = list(scan)
        if not scan.is_closed:
            if scan.has_lines_behind():
                raise DocumentDamagedError(
                    DOCUMENT, f"the line behind byte {scan.position} was changed"
                )
            _log.warning("the end of %s was torn at byte %d and is mended", DOCUMENT, scan.position)
            label = f"{session.header.generation}-{scan.position}-{uuid.uuid4().hex[:8]}"
            document.repair_tail(self._root, session.descriptor, scan.position, label)
        if lines:
            session.position, session.seq = lines[-1].end, lines[-1].change["seq"]
        return lines

    def _open_session(self, stack: contextlib.ExitStack) -> _Session:
        descriptor = stack.enter_context(document.open_document(self._root, os.O_RDWR))
        if descriptor is None:
            self._require_new_library()
            document.create(self._root, uuid.uuid4().hex)
            descriptor = stack.enter_context(document.open_document(self._root, os.O_RDWR))
        if descriptor is None:
            raise LibraryUnavailableError(
                f"{DOCUMENT} vanished", "See who else removes files from the output root."
            )
        return _Session(descriptor, self._checked_header(descriptor), 0, 0)

    def _checked_header(self, descriptor: int) -> Header:
        """Read the header and make sure that it is the library we know."""
        header = document.read_header(descriptor)
        for known in (self._pinned_library_id, self._remembered_library_id, self.read_sentinel()):
            if known is not None and known != header.library_id:
                raise LibraryUnavailableError(
                    f"the output root holds the library {header.library_id}, and {known} is expected",
                    "See whether the right disk is mounted.",
                )
        self._remembered_library_id = header.library_id
        return header

    def _require_new_library(self) -> None:
        """Refuse to begin a new library in the place of one that we know of."""
        self._require_root()
        known = self._pinned_library_id or self._remembered_library_id or self.read_sentinel()
        if known is not None:
            raise LibraryUnavailableError(
                f"the library {known} is expected in the output root, and its {DOCUMENT} is not there",
                "See whether the right disk is mounted, or put the document back from a backup.",
            )

    def read_sentinel(self) -> str | None:
        """Return the library id that our own folder names, or ``None``."""
        try:
            with open(file_path(self._root, SENTINEL), "rb") as sentinel:
                return str(document.decode(sentinel.read(1024).strip() or b"{}")["library_id"])  # type: ignore[index]
        except (OSError, TypeError, KeyError):
            return None

    def write_sentinel(self, library_id: str) -> None:
        """Say in our own folder which library this disk holds."""
        content = document.encode({"library_id": library_id}) + b"\n"
        with contextlib.suppress(FileExistsError), durable.open_folder(self._root, STATE) as folder:
            durable.create(folder, SENTINEL.rpartition("/")[2], content, "library.new")

    def _require_root(self) -> None:
        try:
            with durable.open_root(self._root):
                pass
        except FileNotFoundError:
            raise LibraryUnavailableError(
                "the output root does not exist",
                "Mount its disk, create the folder, or correct the setting COMFY_FILES_OUTPUT_DIR.",
            ) from None
        except OSError as error:
            raise LibraryUnavailableError(
                f"the output root cannot be opened by uid {os.geteuid()}: {os.strerror(error.errno or 0)}",
                "Give the server's user access to it, or correct the setting COMFY_FILES_OUTPUT_DIR.",
            ) from error

    def _make_state_folder(self) -> None:
        try:
            with durable.open_root(self._root) as root:
                if durable.make_folder(root, STATE):
                    durable.sync_folder(root)
        except OSError as error:
            raise self._unwritable(STATE, error) from error

    def _unwritable(self, path: str, error: OSError) -> LibraryUnavailableError:
        return LibraryUnavailableError(
            f"{path} cannot be written by uid {os.geteuid()}: {os.strerror(error.errno or 0)}",
            "Give the server's user write permission on the output root, or run the server as its owner.",
        )

    def _memory_index(self, descriptor: int, header: Header) -> index.MemoryIndex:
        """Return an index of this process, made anew when the document has changed."""
        facts = os.fstat(descriptor)
        identity = (os.getpid(), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        with self._memory_lock:
            if self._memory is None or self._memory[0] != identity:
                memory = index.MemoryIndex()
                with memory.writing() as connection:
                    last: list[Line] = []
                    for lines in _by_operation(document.Scan(descriptor, header, header.end)):
                        index.fold(connection, last)
                        last = lines
                    # The last operation may be unfinished, and readers do not see half a job.
                    if all(self._is_in_place(line.change) for line in last):
                        index.fold(connection, last)
                self._memory = (identity, memory)
            return self._memory[1]

    def _is_in_place(self, change: Change) -> bool:
        return change["kind"] == "state" or all(
            durable.find_status(self._root, stored["path"]) is not None
            for stored in change["files"]
        )


def _is_usable(mark: Mark | None, header: Header, descriptor: int) -> bool:
    """Say whether an index reflects this document, at least up to where it reaches."""
    if mark is None or (mark.library_id, mark.generation) != (header.library_id, header.generation):
        return False
    return os.pread(descriptor, len(mark.tail), mark.position - len(mark.tail)) == mark.tail


def _by_operation(lines: Iterable[Line]) -> Iterator[list[Line]]:
    for _, group in groupby(lines, key=lambda line: line.change["operation"]["id"]):
        yield list(group)
