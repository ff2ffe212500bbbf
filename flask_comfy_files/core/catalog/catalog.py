"""Document and index as one: questions are answered from the index, changes go to the document first.

Readers take no lock. A change is made by the one holder of the library lock: the line is appended (the intent
and the record in one), the caller moves the files, and then the index is moved past the line. Until then no
reader sees it, and whoever opens the catalog for a change next is told of it as unfinished.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.catalog import document, folding, identity, index, rescue
from flask_comfy_files.core.catalog.document import Header, Line
from flask_comfy_files.core.catalog.index import Mark
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.catalog.session import Session, Writer
from flask_comfy_files.core.catalog.unindexed import Unindexed
from flask_comfy_files.core.errors import (
    ComfyFilesError,
    DocumentDamagedError,
    LibraryUnavailableError,
    LockTimeoutError,
    StorageError,
)
from flask_comfy_files.core.layout import DOCUMENT, INDEX, LOCK, STATE, file_path

_log = logging.getLogger(__name__)
_BUSY_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class Catalog:
    """One library's record of every file, safe for threads, processes and forks."""

    def __init__(
        self,
        root: str,
        *,
        lock_timeout_s: float,
        pinned_library_id: str | None = None,
        on_waited: Callable[[float], None] | None = None,
    ) -> None:
        """Touch nothing yet; the root may be missing. ``on_waited`` hears of each wait for the lock."""
        self._root, self._lock_timeout_s = root, lock_timeout_s
        self._hold = functools.partial(lock.hold, file_path(root, LOCK), on_waited=on_waited)
        self._identity = identity.Identity(root, pinned_library_id)
        self._index = index.Index(file_path(root, INDEX))
        self._unindexed = Unindexed(root)
        self.is_suspect = False
        """Whether the document is to be read as a whole before the index is believed again."""

    def close(self) -> None:
        """Close what is open; the catalog can still be used and opens it again."""
        self._index.close()
        self._unindexed.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reader]:
        """Answer questions as of this moment, without a lock and without changing anything.

        Raises:
            LibraryUnavailableError: The root or the document cannot be read, or it is another
            library's. DocumentDamagedError: The document is none of ours, or damaged.
            StorageError: The index turned out to be damaged, and the next call does without it; or
                the disk refused.
        """
        try:
            with self._answering() as reader:
                yield reader
        except DocumentDamagedError:
            # The index leads past the damage, so that a change may not meet it.
            self.is_suspect = True
            raise
        except ComfyFilesError:
            raise
        except sqlite3.Error as error:
            raise self._index_failed("Reading", error) from error
        except OSError as error:
            durable.refuse("Reading the library in", "", error)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[Reader]:
        with contextlib.ExitStack() as stack:
            descriptor = self._find_document(stack)
            if descriptor is None:
                identity.require_root(self._root)
                memory = stack.enter_context(contextlib.closing(index.MemoryIndex()))
                connection = stack.enter_context(memory.reading())
                index.finish(connection)  # what is asked of it may name the indexes
                yield Reader(self._root, connection, None)
                return
            header = document.read_header(descriptor)
            usable = self._usable_index(stack, descriptor, header)
            if usable is None:
                self._require_all_seen(Session(descriptor, header, 0, 0))
                usable = stack.enter_context(self._unindexed.reading(descriptor, header))
            yield Reader(self._root, usable, descriptor)

    def _find_document(self, stack: contextlib.ExitStack) -> int | None:
        """Open the document; ``None`` where there is none because no library was begun yet.

        Raises:
            LibraryUnavailableError: There should be one.
        """
        descriptor = stack.enter_context(document.open_document(self._root))
        if descriptor is None and self._identity.known_library_id() is not None:
            # Somebody may have begun the library just now; its document came before its name.
            descriptor = stack.enter_context(document.open_document(self._root))
            if descriptor is None:
                self._identity.require_new()
        return descriptor

    def _usable_index(
        self, stack: contextlib.ExitStack, descriptor: int, header: Header
    ) -> sqlite3.Connection | None:
        try:
            with contextlib.ExitStack() as attempt:
                connection = attempt.enter_context(self._index.reading())
                if index.is_usable(index.read_mark(connection), header, descriptor):
                    stack.push(attempt.pop_all())
                    return connection
        except sqlite3.Error as error:
            _log.debug("the index of %s cannot be read: %s", self._root, error)
        return None

    def why_read_only(self) -> str | None:
        """Say why a library that can be read must not be changed: it is not the one that we know.

        Raises:
            LibraryUnavailableError: It cannot be read.
            DocumentDamagedError: Likewise.
        """
        with contextlib.ExitStack() as stack:
            descriptor = self._find_document(stack)
            if descriptor is None:
                return None
            try:
                session = Session(descriptor, document.read_header(descriptor), 0, 0)
                self._identity.require_same(session.header)
                self._require_all_seen(session)
            except (LibraryUnavailableError, DocumentDamagedError) as error:
                return str(error)
        return None

    def is_behind(self) -> bool:
        """Say whether a change would let readers see more: there are lines behind the index, none, or damage."""
        if self.is_suspect:
            return True
        try:
            with document.open_document(self._root) as descriptor:
                if descriptor is None:
                    return self._identity.read_sentinel() is not None
                with self._index.reading() as connection:
                    mark = index.read_mark(connection)
                    size = os.fstat(descriptor).st_size
                    return mark is None or mark.position + len(document.CLOSING) != size
        except (sqlite3.Error, DocumentDamagedError):
            return True
        except OSError as error:
            durable.refuse("Reading the library in", "", error)

    @contextlib.contextmanager
    def changing(self, lock_timeout_s: float | None = None) -> Iterator[Writer]:
        """Hold the library's lock and be the one who may change it.

        The tail of a document that a crash has torn is mended first. A new library gets its
        document.

        Raises:
            LibraryUnavailableError: The root is missing, unwritable, or holds another library.
            LockTimeoutError: Somebody else held the lock for too long.
            DocumentDamagedError: The document is none of ours, or damaged.
            StorageError: The disk refused, here or in what the caller did; the next change finishes
                what was recorded.
        """
        try:
            with self._locked(lock_timeout_s) as writer:
                yield writer
        except ComfyFilesError:
            raise
        except sqlite3.Error as error:
            raise self._index_failed("Updating", error) from error
        except OSError as error:
            durable.refuse("Changing the library in", "", error)

    def distrust_index(self) -> None:
        """Use the index that is there now no more; the next change makes it anew from the document."""
        self._index.distrust()

    def _index_failed(self, action: str, error: sqlite3.Error) -> StorageError:
        if getattr(error, "sqlite_errorcode", None) not in _BUSY_CODES:
            self._index.distrust()
        return StorageError(action, INDEX, str(error), "The next change tries again.")

    @contextlib.contextmanager
    def _locked(self, lock_timeout_s: float | None) -> Iterator[Writer]:
        identity.require_root(self._root)
        with contextlib.ExitStack() as stack, contextlib.suppress(DocumentDamagedError):
            # Before anything is written: an empty folder may be a disk that is not mounted.
            self._find_document(stack)
        with contextlib.ExitStack() as stack:
            identity.make_state_folder(self._root)
            timeout_s = self._lock_timeout_s if lock_timeout_s is None else lock_timeout_s
            try:
                stack.enter_context(self._hold(timeout_s))
            except LockTimeoutError:
                raise
            except OSError as error:
                raise identity.unwritable(LOCK, error) from error
            yield self._open_or_rebuild(stack)

    def _open_or_rebuild(self, stack: contextlib.ExitStack) -> Writer:
        """Open the library; a document that is damaged or gone is made anew from what is left."""
        try:
            with contextlib.ExitStack() as attempt:
                writer = self._open(attempt)
                stack.push(attempt.pop_all())
                return writer
        except DocumentDamagedError as error:
            rescue.rebuild(self._root, self._identity, self._index, error.problem)
        self.is_suspect = False
        return self._open(stack)

    def _open(self, stack: contextlib.ExitStack) -> Writer:
        session = self._open_session(stack)
        if self.is_suspect:
            _require_sound(session.descriptor, session.header)
            self.is_suspect = False
        try:
            connection = self._current_index(stack, session)
        except sqlite3.Error:
            if session.position or os.path.exists(file_path(self._root, INDEX)):
                _log.warning("the index of %s cannot be used and is made anew", self._root)
            connection = self._rebuilt_index(stack, session)
        return Writer(self._root, session, connection)

    def _current_index(self, stack: contextlib.ExitStack, session: Session) -> sqlite3.Connection:
        with contextlib.ExitStack() as attempt:
            connection = attempt.enter_context(self._index.writing())
            mark = index.read_mark(connection)
            if mark is None or not index.is_usable(mark, session.header, session.descriptor):
                self._require_all_changes(session, mark)
                message = "the index reflects another document"
                raise sqlite3.DatabaseError(message)
            session.position, session.seq = mark.position, mark.seq
            session.unfinished = self._take_in(session, connection)
            stack.push(attempt.pop_all())
            return connection

    def _require_all_seen(self, session: Session) -> None:
        """Refuse a document from which changes have vanished, as far as there is an index to tell."""
        with contextlib.suppress(sqlite3.Error), self._index.reading() as connection:
            mark = index.read_mark(connection)
            if not index.is_usable(mark, session.header, session.descriptor):
                self._require_all_changes(session, mark)

    def _require_all_changes(self, session: Session, mark: Mark | None) -> None:
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

    def _rebuilt_index(self, stack: contextlib.ExitStack, session: Session) -> sqlite3.Connection:
        try:
            self._index.create()
            connection = stack.enter_context(self._index.writing())
        except (OSError, sqlite3.Error) as error:
            _log.warning("no index can be kept in %s (%s); it is made in memory", self._root, error)
            memory = index.MemoryIndex()
            stack.callback(memory.close)
            connection = stack.enter_context(memory.reading())
            connection.execute("BEGIN")
        session.position, session.seq = session.header.end, 0
        index.write_mark(connection, session.mark(None))
        session.unfinished = self._take_in(session, connection)
        index.finish(connection)
        if session.was_torn:  # by a crash; or more was cut off, and no index could tell
            library_id = session.header.library_id
            rescue.note(
                self._root, library_id, "its end was torn, and no index told what stood there"
            )
        return connection

    def _take_in(self, session: Session, connection: sqlite3.Connection) -> Sequence[Line]:
        """Index what stands behind the session's position, but for the last append, which is unfinished.

        There may be several: a power cut may take the last changes of the index, and somebody may put an
        old one in its place. The tail is mended if a crash has torn it.
        """
        scan = document.Scan(session.descriptor, session.header, session.position, session.seq)
        last: Line | None = None
        unfinished: list[Line] = []

        def finished() -> Iterator[Line]:
            nonlocal last, unfinished
            for lines in document.by_append(scan):
                yield from unfinished
                last = unfinished[-1] if unfinished else last
                unfinished = lines

        folding.fold(connection, finished())
        self._mend_tail(session, scan)
        if last is not None:
            index.write_mark(connection, session.mark(last))
        session.stand_behind(unfinished)
        return unfinished

    def _mend_tail(self, session: Session, scan: document.Scan) -> None:
        if scan.is_closed:
            return
        document.require_torn_at_most(scan)
        _log.warning("the end of %s was torn at byte %d and is mended", DOCUMENT, scan.position)
        label = f"{session.header.generation}-{scan.position}-{uuid.uuid4().hex[:8]}"
        document.repair_tail(self._root, session.descriptor, scan.position, label)
        session.was_torn = True

    def _open_session(self, stack: contextlib.ExitStack) -> Session:
        descriptor = stack.enter_context(document.open_document(self._root, os.O_RDWR))
        if descriptor is None:
            self._identity.require_new()
            document.create(self._root, uuid.uuid4().hex)
            descriptor = stack.enter_context(document.open_document(self._root, os.O_RDWR))
        if descriptor is None:
            raise LibraryUnavailableError(
                f"{DOCUMENT} vanished", "See who else removes files from the output root."
            )
        header = document.read_header(descriptor)
        self._identity.require_same(header)
        return Session(descriptor, header, 0, 0)

    def examine(self) -> None:
        """Read the whole document, so that the next change mends it also where the index leads past the damage."""
        with document.open_document(self._root) as descriptor:
            if descriptor is None:
                return
            try:
                _require_sound(descriptor, document.read_header(descriptor))
            except DocumentDamagedError as error:
                _log.warning("%s", error)
                self.is_suspect = True
            except OSError as error:
                durable.refuse("Reading", DOCUMENT, error)

    def adopt(self) -> None:
        """Say that what is there is the library that belongs here; where nothing is, begin one.

        Raises:
            LibraryUnavailableError: The root is missing or unwritable, or the setting says otherwise.
            LockTimeoutError: Somebody else held the lock for too long.
            StorageError: The disk refused.
        """
        identity.require_root(self._root)
        identity.make_state_folder(self._root)
        try:
            with self._hold(self._lock_timeout_s):
                self._identity.adopt()
        except LockTimeoutError:
            raise
        except OSError as error:
            raise identity.unwritable(STATE, error) from error

    def mark_disk(self, writer: Writer) -> None:
        """Name the library on its disk; to be done before the first file is moved."""
        self._identity.write_sentinel(writer.library_id)


def _require_sound(descriptor: int, header: Header) -> None:
    """Read a whole document.

    Raises:
        DocumentDamagedError: It is damaged before its end.
    """
    scan = document.Scan(descriptor, header, header.end)
    collections.deque(scan, maxlen=0)
    document.require_torn_at_most(scan)
