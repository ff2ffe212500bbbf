"""The throw-away index of the document: an SQLite cache that answers questions without reading the document.

It says for each job and file where its line stands, and keeps totals. Deleting it is always safe.
Only the holder of the library lock writes it; readers of any process or thread see it as of one
moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.catalog.document import Line
from flask_comfy_files.core.layout import comparable

VERSION: Final = 1
_BUSY_TIMEOUT_S: Final = 5.0

# The files of a job come in the order of their rowid, which is the order in which the document
# names them.
_SCHEMA: Final = """
CREATE TABLE mark (
    version INTEGER, library_id TEXT, generation INTEGER, position INTEGER, tail BLOB, seq INTEGER
);
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, comparable TEXT UNIQUE, project_id TEXT, created_at TEXT, operation_id
    TEXT, file_count INTEGER NOT NULL DEFAULT 0, total_size INTEGER NOT NULL DEFAULT 0, state TEXT
    NOT NULL DEFAULT '{}', is_pending INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX jobs_of_project ON jobs (project_id, created_at, job_id);
CREATE INDEX pending_jobs ON jobs (job_id) WHERE is_pending;
CREATE TABLE projects (
    project_id TEXT PRIMARY KEY, comparable TEXT UNIQUE, job_count INTEGER NOT NULL DEFAULT 0,
    file_count INTEGER NOT NULL DEFAULT 0, total_size INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE types (
    project_id TEXT, file_type TEXT, file_count INTEGER NOT NULL DEFAULT 0, total_size INTEGER NOT
    NULL DEFAULT 0, PRIMARY KEY (project_id, file_type)
) WITHOUT ROWID;
CREATE TABLE files (
    file_id TEXT NOT NULL UNIQUE, job_id TEXT, path TEXT NOT NULL UNIQUE, original_path BLOB NOT
    NULL, prompt_id TEXT, file_type TEXT NOT NULL, file_size INTEGER NOT NULL, offset INTEGER NOT
    NULL, length INTEGER NOT NULL, ordinal INTEGER NOT NULL, overlay TEXT
);
CREATE INDEX files_of_job ON files (job_id);
CREATE INDEX files_by_original_path ON files (original_path);
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """How far into which document the index reaches; ``tail`` are the last bytes before ``position``."""

    library_id: str
    generation: int
    position: int
    tail: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class JobRow:
    """What the index knows of a job."""

    job_id: str
    project_id: str
    created_at: str
    operation_id: str | None
    file_count: int
    total_size: int
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FileRow:
    """Where a file's record stands in the document, and what changed since; ``ordinal`` counts within the line."""

    offset: int
    length: int
    ordinal: int
    overlay: Mapping[str, Any]


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
        connection = _connect(self._path, "rwc")
        try:
            connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        finally:
            connection.close()

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
        return facts.st_dev, facts.st_ino


class MemoryIndex:
    """An index of this process alone, for readers who may not write one and for as long as there is none."""

    def __init__(self) -> None:
        """Make an empty index."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False
        )
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
    except BaseException:
        connection.close()
        raise
    return connection


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


def fold(connection: sqlite3.Connection, lines: Iterable[Line]) -> None:
    """Take lines into the index, in their order."""
    for line in lines:
        if line.change["kind"] == "state":
            _fold_state(connection, line)
        else:
            _fold_files(connection, line)


def _fold_files(connection: sqlite3.Connection, line: Line) -> None:
    change = line.change
    job_id, files = change["job_id"], change["files"]
    if change["kind"] == "job":
        _begin_job(connection, change)
    connection.execute(
        "UPDATE jobs SET operation_id = ? WHERE job_id = ?", (change["operation"]["id"], job_id)
    )
    _set_state(connection, job_id, change.get("state", {}))
    connection.executemany(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        [
            (
                stored["file_id"],
                job_id,
                stored["path"],
                os.fsencode(stored["original_path"]),
                stored["prompt_id"],
                stored["file_type"],
                stored["file_size"],
                line.offset,
                line.length,
                ordinal,
            )
            for ordinal, stored in enumerate(files)
        ],
    )
    counted: dict[str, tuple[int, int]] = {}
    for stored in files:
        number, size = counted.get(stored["file_type"], (0, 0))
        counted[stored["file_type"]] = (number + 1, size + stored["file_size"])
    _count(connection, job_id, counted)


def _begin_job(connection: sqlite3.Connection, change: Mapping[str, Any]) -> None:
    """Take in a job; its line names its files whole, so those of an earlier line give way."""
    job_id, project_id = change["job_id"], change["project_id"]
    before = connection.execute(
        "SELECT file_type, -count(*), -sum(file_size) FROM files WHERE job_id = ? GROUP BY file_type",
        (job_id,),
    )
    _count(connection, job_id, {file_type: (number, size) for file_type, number, size in before})
    connection.execute("DELETE FROM files WHERE job_id = ?", (job_id,))
    added = connection.execute(
        "INSERT INTO jobs (job_id, comparable, project_id, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (job_id, comparable(job_id), project_id, change["operation"]["at"]),
    )
    connection.execute(
        "INSERT INTO projects (project_id, comparable, job_count) VALUES (?1, ?2, ?3)"
        " ON CONFLICT (project_id) DO UPDATE SET job_count = job_count + ?3",
        (project_id, comparable(project_id), added.rowcount),
    )


def _count(
    connection: sqlite3.Connection, job_id: str, counted: Mapping[str, tuple[int, int]]
) -> None:
    """Add numbers and bytes, or take them away, by file type, in every kept total."""
    number, size = (sum(pair[n] for pair in counted.values()) for n in (0, 1))
    (project_id,) = connection.execute(
        "SELECT project_id FROM jobs WHERE job_id = ?", (job_id,)
    ).fetchone() or (None,)
    for table, column, identifier in (
        ("jobs", "job_id", job_id),
        ("projects", "project_id", project_id),
    ):
        connection.execute(
            f"UPDATE {table} SET file_count = file_count + ?, total_size = total_size + ? WHERE {column} = ?",
            (number, size, identifier),
        )
    connection.executemany(
        "INSERT INTO types VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET file_count = file_count + excluded.file_count, total_size = total_size + excluded.total_size",
        [(project_id, file_type, *pair) for file_type, pair in counted.items()],
    )


def _fold_state(connection: sqlite3.Connection, line: Line) -> None:
    job_id = line.change["job_id"]
    _set_state(connection, job_id, line.change.get("state", {}))
    for file_id, overlay in line.change.get("files", {}).items():
        if overlay.get("withdrawn"):
            withdrawn = connection.execute(
                "DELETE FROM files WHERE file_id = ? RETURNING file_type, file_size", (file_id,)
            )
            _count(
                connection,
                job_id,
                {file_type: (-1, -size) for file_type, size in withdrawn.fetchall()},
            )
        else:
            connection.execute(
                "UPDATE files SET overlay = json_patch(coalesce(overlay, '{}'), ?1), path = coalesce(?2, path)"
                " WHERE file_id = ?3",
                (json.dumps(overlay), overlay.get("path"), file_id),
            )


def _set_state(connection: sqlite3.Connection, job_id: str, state: Mapping[str, Any]) -> None:
    if not state:
        return
    (before,) = connection.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    # A key set to null is gone (RFC 7396).
    after = {
        key: value for key, value in {**json.loads(before), **state}.items() if value is not None
    }
    connection.execute(
        "UPDATE jobs SET state = ?, is_pending = ? WHERE job_id = ?",
        (json.dumps(after), "pending" in after, job_id),
    )


_JOB_COLUMNS: Final = "job_id, project_id, created_at, operation_id, file_count, total_size, state"


def _job_row(row: tuple[Any, ...]) -> JobRow:
    job_id, project_id, created_at, operation_id, file_count, total_size, state = row
    return JobRow(
        job_id, project_id, created_at, operation_id, file_count, total_size, json.loads(state)
    )


def find_job(connection: sqlite3.Connection, job_id: str) -> JobRow | None:
    """Return a job by its exact id."""
    row = connection.execute(
        f"SELECT {_JOB_COLUMNS} FROM jobs WHERE job_id = ?", (job_id,)
    ).fetchone()
    return None if row is None else _job_row(row)


def jobs_of_project(connection: sqlite3.Connection, project_id: str) -> list[JobRow]:
    """Return a project's jobs, oldest first."""
    query = f"SELECT {_JOB_COLUMNS} FROM jobs WHERE project_id = ? ORDER BY created_at, job_id"
    return [_job_row(row) for row in connection.execute(query, (project_id,))]


def pending_jobs(connection: sqlite3.Connection) -> list[JobRow]:
    """Return the jobs that wait to be organized."""
    query = f"SELECT {_JOB_COLUMNS} FROM jobs WHERE is_pending ORDER BY job_id"
    return [_job_row(row) for row in connection.execute(query)]


def known_spelling(connection: sqlite3.Connection, table: str, identifier: str) -> str | None:
    """Return the id that is known in ``jobs`` or ``projects`` and equals this one but for case."""
    column = {"jobs": "job_id", "projects": "project_id"}[table]
    query = f"SELECT {column} FROM {table} WHERE comparable = ?"
    row = connection.execute(query, (comparable(identifier),)).fetchone()
    return None if row is None else str(row[0])


def known_among(connection: sqlite3.Connection, job_ids: Iterable[str]) -> set[str]:
    """Return those of some ids that are known jobs."""
    query = "SELECT job_id FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))"
    return {row[0] for row in connection.execute(query, (json.dumps(list(job_ids)),))}


_FILE_COLUMNS: Final = "offset, length, ordinal, overlay"


def _file_row(row: tuple[Any, ...]) -> FileRow:
    return FileRow(row[0], row[1], row[2], json.loads(row[3]) if row[3] else {})


def files_of_job(connection: sqlite3.Connection, job_id: str) -> list[FileRow]:
    """Return a job's files in the order in which they were organized."""
    query = f"SELECT {_FILE_COLUMNS} FROM files WHERE job_id = ? ORDER BY rowid"
    return [_file_row(row) for row in connection.execute(query, (job_id,))]


def find_file(connection: sqlite3.Connection, key: str) -> FileRow | None:
    """Return a file by its id or its path."""
    query = f"SELECT {_FILE_COLUMNS} FROM files WHERE file_id = ?1 OR path = ?1"
    try:
        row = connection.execute(query, (key,)).fetchone()
    except UnicodeEncodeError:  # half a surrogate pair: our own ids and paths are plain
        return None
    return None if row is None else _file_row(row)


def owner_of(connection: sqlite3.Connection, path: str) -> tuple[str | None] | None:
    """Return the owner of the file recorded at a path in a tuple (a legacy file has none), or ``None``."""
    row: tuple[str | None] | None = connection.execute(
        "SELECT job_id FROM files WHERE path = ?", (path,)
    ).fetchone()
    return row


def paths_of_job(
    connection: sqlite3.Connection, job_id: str
) -> list[tuple[str, bytes, str | None]]:
    """Return path, original path (as the file system has it) and ComfyUI run of each file of a job."""
    return connection.execute(
        "SELECT path, original_path, prompt_id FROM files WHERE job_id = ?", (job_id,)
    ).fetchall()


@dataclass(frozen=True, slots=True)
class Totals:
    """The library in numbers."""

    jobs: int
    projects: int
    files: int
    size: int
    types: Mapping[str, int]


def totals(connection: sqlite3.Connection, project_id: str | None = None) -> Totals:
    """Return the kept totals of the library, or of one project."""
    chosen = ("", ()) if project_id is None else (" WHERE project_id = ?", (project_id,))
    projects, jobs, files, size = connection.execute(
        "SELECT count(*), coalesce(sum(job_count), 0), coalesce(sum(file_count), 0), coalesce(sum(total_size), 0)"
        f" FROM projects{chosen[0]}",
        chosen[1],
    ).fetchone()
    types = connection.execute(
        f"SELECT file_type, sum(file_count) FROM types{chosen[0]} GROUP BY file_type"
        " HAVING sum(file_count) ORDER BY file_type",
        chosen[1],
    )
    return Totals(jobs, projects, files, size, dict(types))
