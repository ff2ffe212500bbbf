"""Reading a document without an index file: one is made in memory, as far as readers may see.

For who may not write in the library, and for as long as nobody has made the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog import document, folding, index
from flask_comfy_files.core.catalog.document import Change, Header, Line
from flask_comfy_files.core.catalog.reader import Reader


class Unindexed:
    """Reads the document of one root; safe for threads and forks."""

    def __init__(self, root: str) -> None:
        """Read nothing yet."""
        self._root = root
        self._memory: tuple[tuple[int, ...], index.MemoryIndex] | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget the index."""
        with self._lock:
            memory, self._memory = self._memory, None
        if memory is not None:
            memory[1].close()

    def reading(
        self, descriptor: int, header: Header
    ) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Hand out an index of this process, made anew when the document has changed.

        Raises:
            DocumentDamagedError: The document is damaged before its end.
        """
        facts = os.fstat(descriptor)
        identity = (os.getpid(), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        with self._lock:
            if self._memory is None or self._memory[0] != identity:
                memory = index.MemoryIndex()
                with memory.writing() as connection:
                    reader = Reader(self._root, connection, descriptor)
                    scan = document.Scan(descriptor, header, header.end)
                    self._index_in_memory(connection, reader, scan)
                self._memory = (identity, memory)
            return self._memory[1].reading()

    def _index_in_memory(
        self, connection: sqlite3.Connection, reader: Reader, scan: document.Scan
    ) -> None:
        last: list[Line] = []
        for lines in document.by_append(scan):
            folding.fold(connection, last)
            last = lines
        document.require_torn_at_most(scan)
        # The last append may be unfinished, and readers do not see half a job.
        if all(self._is_in_place(reader, line.change) for line in last):
            folding.fold(connection, last)
        index.finish(connection)

    def _is_in_place(self, reader: Reader, change: Change) -> bool:
        """Say whether the files that a change brings are there; of one that takes files away none is awaited."""
        return all(
            durable.find_status(self._root, path) is not None for path in _arriving(reader, change)
        )


def _arriving(reader: Reader, change: Change) -> list[str]:
    """Return where the files lie that a change brings, for a reader who does not know it yet."""
    if change["kind"] != "state":
        return [stored["path"] for stored in change["files"]]
    overlays = change.get("files", {})
    if "restore" not in change:
        return [overlay["moved_to"] for overlay in overlays.values() if overlay.get("moved_to")]
    return [
        overlays.get(record.file_id, {}).get("path", record.path)
        for record in reader.trashed_files(change["job_id"], change["restore"]["entry"])
        if not (record.missing or overlays.get(record.file_id, {}).get("missing"))
    ]
