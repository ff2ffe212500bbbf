"""The throw-away index of the document: an SQLite cache that answers questions without reading the document.

It says for each job and file where its line stands, and keeps totals. Deleting it is always safe.
Only the holder of the library lock writes it; readers of any process or thread see it as of one
moment.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.catalog import listing, operations, trashing
from flask_comfy_files.core.catalog.document import Header
from flask_comfy_files.core.errors import StorageError
from flask_comfy_files.core.layout import INDEX

VERSION: Final = 6
_BUSY_TIMEOUT_S: Final = 5.0

_COLUMNS: Final = """
    file_id TEXT NOT NULL UNIQUE,
    job_id TEXT,
    project_id TEXT,
    path BLOB NOT NULL,
    original_path BLOB NOT NULL,
    prompt_id TEXT,
    file_type TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    file_size INTEGER NOT NULL,
    counted_size INTEGER NOT NULL,
    is_single INTEGER NOT NULL,
    same_file_as TEXT,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    overlay TEXT"""

# The files of a job come in the order of their rowid, which is the order in which the document
# names them. Those in the trash are apart, so that no question about the library meets them.
_SCHEMA: Final = f"""
CREATE TABLE mark (
    version INTEGER, library_id TEXT, generation INTEGER, position INTEGER, tail BLOB, seq INTEGER
);
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    comparable TEXT UNIQUE,
    project_id TEXT,
    created_at TEXT,
    created_us INTEGER,
    operation_id TEXT,
    file_count INTEGER NOT NULL DEFAULT 0,
    total_size INTEGER NOT NULL DEFAULT 0,
    counted_size INTEGER NOT NULL DEFAULT 0,
    newest_us INTEGER,
    seq INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT '{{}}',
    is_pending INTEGER NOT NULL DEFAULT 0,
    is_pinned INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX pending_jobs ON jobs (job_id) WHERE is_pending;
CREATE TABLE job_tags (tag TEXT, job_id TEXT, PRIMARY KEY (tag, job_id)) WITHOUT ROWID;
CREATE TABLE projects (
    project_id TEXT PRIMARY KEY,
    comparable TEXT UNIQUE,
    job_count INTEGER NOT NULL DEFAULT 0,
    file_count INTEGER NOT NULL DEFAULT 0,
    total_size INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE types (
    project_id TEXT,
    file_type TEXT,
    file_count INTEGER NOT NULL DEFAULT 0,
    total_size INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (project_id, file_type)
) WITHOUT ROWID;
CREATE TABLE files ({_COLUMNS}
);
CREATE TABLE trash (
    job_id TEXT NOT NULL,
    entry TEXT NOT NULL,
    project_id TEXT NOT NULL,
    trashed_us INTEGER NOT NULL,
    file_count INTEGER NOT NULL,
    total_size INTEGER NOT NULL,
    counted_size INTEGER NOT NULL,
    facts TEXT NOT NULL,
    job TEXT NOT NULL,
    PRIMARY KEY (job_id, entry)
) WITHOUT ROWID;
CREATE INDEX trash_by_time ON trash (trashed_us, entry, job_id);
CREATE TABLE trashed (
    entry TEXT NOT NULL,{_COLUMNS}
);
CREATE INDEX trashed_of_job ON trashed (job_id, entry);
CREATE INDEX trashed_sharing ON trashed (same_file_as) WHERE same_file_as IS NOT NULL;
{operations.SCHEMA}"""

# Made after the rows of a whole document are in: sorting once is several times faster than keeping order.
_INDEXES: Final = f"""
CREATE UNIQUE INDEX IF NOT EXISTS files_by_path ON files (path);
{trashing.FILES_OF_JOB};
CREATE INDEX IF NOT EXISTS files_by_original_path ON files (original_path);
CREATE INDEX IF NOT EXISTS files_sharing ON files (same_file_as) WHERE same_file_as IS NOT NULL;
CREATE INDEX IF NOT EXISTS single_files ON files (original_path) WHERE is_single;
{listing.INDEXES}{operations.INDEXES}"""


def is_failure_of_index(error: StorageError) -> bool:
    """Say whether an error tells that the index cannot be used, which the next call does without."""
    return type(error) is StorageError and INDEX in error.path


@dataclass(frozen=True, slots=True)
class Mark:
    """How far into which document the index reaches; ``tail`` are the last bytes before ``position``."""

    library_id: str
    generation: int
    position: int
    tail: bytes
    seq: int


class Index:
    """Connections to one index file, kept per process and handed out one at a time.

    Every connection notices when the file it was opened on has been deleted or replaced, and is
    then not used again.
    """

    def __init__(self, path: str) -> None:
        """Open nothing yet."""
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[int, int], sqlite3.Connection]] = []
        self._owner = os.getpid()
        self._inherited: list[Any] = []
        self._distrusted: tuple[int, int] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hand out a connection whose answers are all of one moment.

        Raises:
            sqlite3.Error: There is no index, or it cannot be used; the caller rebuilds it or reads
            without.
        """
        with self._connection() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.rollback()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hand out a connection whose changes become visible together, or not at all."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.commit()

    def create(self) -> None:
        """Make an empty index in the place of whatever is there; for the holder of the library lock."""
        # The database first: without it nobody opens a write-ahead log that belongs to another.
        for leftover in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path + leftover)
        self._distrusted = None
        connection = _connect(self._path, "rwc")
        try:
            connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        finally:
            connection.close()

    def set_aside(self, path: str) -> None:
        """Move the index file aside, for what it remembers; one that cannot be moved is made anew all the same."""
        self.close()
        with contextlib.suppress(sqlite3.Error, OSError):
            with opened(self._path) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            os.replace(self._path, path)

    def distrust(self) -> None:
        """Use the index file that is there now no more: it turned out to be damaged, and is to be made anew."""
        with contextlib.suppress(sqlite3.Error):
            self._distrusted = self._identity()

    def close(self) -> None:
        """Close all connections that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        identity, connection = self._take()
        try:
            yield connection
        except BaseException:
            # After an error a connection may be of no use; closing it undoes what was not
            # committed.
            connection.close()
            raise
        with self._lock:
            self._idle.append((identity, connection))

    def _take(self) -> tuple[tuple[int, int], sqlite3.Connection]:
        identity = self._identity()
        with self._lock:
            if self._owner != os.getpid():
                # Connections do not survive a fork, and closing them here would harm the parent's:
                # keep them unused.
                self._inherited, self._idle, self._owner = (
                    [self._inherited, self._idle],
                    [],
                    os.getpid(),
                )
            usable = [kept for kept in self._idle if kept[0] == identity]
            stale = [kept for kept in self._idle if kept[0] != identity]
            taken = usable.pop() if usable else None
            self._idle = usable
        for _, connection in stale:
            connection.close()
        return taken or (identity, _connect(self._path, "rw"))

    def _identity(self) -> tuple[int, int]:
        """Tell this index file from one that replaced it: the inode of an open file is not given to another."""
        try:
            facts = os.stat(self._path)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        if self._distrusted == (facts.st_dev, facts.st_ino):
            message = "it was found damaged"
            raise sqlite3.DatabaseError(message)
        return facts.st_dev, facts.st_ino


class MemoryIndex:
    """An index of this process alone, for readers who may not write one and for as long as there is none."""

    def __init__(self, place: str = ":memory:") -> None:
        """Make an empty index; in the place ``""`` SQLite puts on a disk what is more than a little."""
        # A thread may ask again while it reads.
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
        self._connection.executescript(_SCHEMA)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hand out the one connection, to one thread at a time."""
        with self._lock:
            yield self._connection

    writing = reading

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()


@contextlib.contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """Open an index file that no ``Index`` has in its hands.

    Raises:
        sqlite3.Error: It is not there, or cannot be used.
    """
    connection = _connect(path, "rw")
    try:
        yield connection
    finally:
        connection.close()


def _connect(path: str, mode: str) -> sqlite3.Connection:
    quoted_path = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(
        f"file:{quoted_path}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-16384")
    except BaseException:
        connection.close()
        raise
    return connection


def finish(connection: sqlite3.Connection) -> None:
    """Make a new index quick to ask, once the lines of its document are in."""
    for statement in filter(str.strip, _INDEXES.split(";")):
        connection.execute(statement)


def read_mark(connection: sqlite3.Connection) -> Mark | None:
    """Return how far the index reaches, or ``None`` when it is empty or of another version."""
    row = connection.execute("SELECT * FROM mark").fetchone()
    return Mark(*row[1:]) if row is not None and row[0] == VERSION else None


def write_mark(connection: sqlite3.Connection, mark: Mark) -> None:
    """Set how far the index reaches."""
    connection.execute("DELETE FROM mark")
    connection.execute(
        "INSERT INTO mark VALUES (?, ?, ?, ?, ?, ?)",
        (VERSION, mark.library_id, mark.generation, mark.position, mark.tail, mark.seq),
    )


def is_usable(mark: Mark | None, header: Header, descriptor: int) -> bool:
    """Say whether an index reflects this document, at least up to where it reaches."""
    if mark is None or (mark.library_id, mark.generation) != (header.library_id, header.generation):
        return False
    return os.pread(descriptor, len(mark.tail), mark.position - len(mark.tail)) == mark.tail
