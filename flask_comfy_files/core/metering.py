"""Counts what a library's processes do, in a small SQLite file that they share.

Every process adds its own numbers, so any of them can tell the sum. Nothing depends on the file: it may be
deleted at any time, and what cannot be written is no error of the operation that was counted.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from flask_comfy_files.core.layout import METRICS, file_path

_log = logging.getLogger(__name__)

_BUSY_TIMEOUT_S: Final = 0.25
"""What is not written now is written with the next operation."""

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS totals (
    metric TEXT NOT NULL, labels TEXT NOT NULL, amount REAL NOT NULL, PRIMARY KEY (metric, labels)
) WITHOUT ROWID"""

_ADD: Final = (
    "INSERT INTO totals VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
)
_MOVE_ON: Final = (
    "INSERT INTO totals VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET amount = max(amount, excluded.amount)"
)

Labels = tuple[str, ...]
Totals = Mapping[str, Mapping[Labels, float]]
"""By metric and labels: how much there was in all."""

BUCKETS: Final[Mapping[str, tuple[float, ...]]] = {
    "operation_duration_seconds": (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0),
    "lock_wait_seconds": (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0),
}
"""The upper bounds of the classes into which seconds are sorted; what is above has a class of its own."""

ABOVE: Final = "+Inf"
"""How the class above all bounds is called."""


class Meter:
    """Adds to the totals of one library; safe for threads, processes and forks.

    What is counted is kept in memory, in as many numbers as there are labels, until ``write``.
    """

    def __init__(self, root: str) -> None:
        """Open nothing yet."""
        self._root = root
        self._path = file_path(root, METRICS)
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._counted: dict[tuple[str, Labels], float] = {}
        self._moments: dict[tuple[str, Labels], float] = {}
        self._opened: tuple[tuple[int, int], sqlite3.Connection] | None = None
        self._inherited: list[object] = []
        self._has_complained = False

    def count(self, metric: str, *labels: str, amount: float = 1) -> None:
        """Add to one number."""
        with self._owned():
            self._counted[metric, labels] = self._counted.get((metric, labels), 0.0) + amount

    def measure(self, metric: str, *labels: str, seconds: float) -> None:
        """Enter some seconds into their class, and add them to the sum."""
        bounds = BUCKETS[metric]
        number = bisect.bisect_left(bounds, seconds)
        bound = str(bounds[number]) if number < len(bounds) else ABOVE
        self.count(f"{metric}_bucket", *labels, bound)
        self.count(f"{metric}_sum", *labels, amount=seconds)

    def note(self, metric: str, *labels: str, at: datetime) -> None:
        """Note when something happened; of several processes, that of the last one counts."""
        with self._owned():
            self._moments[metric, labels] = at.timestamp()

    def waited(self, seconds: float) -> None:
        """Enter how long somebody waited for the library's lock."""
        self.measure("lock_wait_seconds", seconds=seconds)

    def write(self) -> None:
        """Add what was counted to the shared file; where that cannot be, the next call tries again."""
        with self._owned():
            if (self._counted or self._moments) and self._add():
                self._forget()

    def read(self) -> Totals:
        """Return the totals of all processes; nothing where they cannot be read."""
        self.write()
        with self._owned():
            try:
                rows = self._connection().execute("SELECT metric, labels, amount FROM totals")
                totals: dict[str, dict[Labels, float]] = {}
                for metric, labels, amount in rows:
                    totals.setdefault(metric, {})[tuple(json.loads(labels))] = amount
            except (sqlite3.Error, ValueError) as error:
                self._failed("read", error)
                return {}
            return totals

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        with self._owned():
            self._close()

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        """Be the only thread that uses this; what came over a fork is the parent's."""
        if self._owner != os.getpid():
            # A connection does not survive a fork, and closing it here would harm the parent's; and a thread
            # that held the lock is not here to free it.
            self._inherited.append(self._opened)
            self._owner, self._opened, self._lock = os.getpid(), None, threading.Lock()
            self._forget()
        with self._lock:
            yield

    def _forget(self) -> None:
        self._counted.clear()
        self._moments.clear()

    def _add(self) -> bool:
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_ADD, _rows(self._counted))
            connection.executemany(_MOVE_ON, _rows(self._moments))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed("written", error)
            return False
        return True

    def _connection(self) -> sqlite3.Connection:
        """Return a connection to the file that is there now, which may be another one than before."""
        identity = _identity(self._path)
        if self._opened is not None and self._opened[0] == identity:
            return self._opened[1]
        self._close()
        connection = _connect(self._path)
        found = _identity(self._path)
        if found is None:
            connection.close()
            raise sqlite3.OperationalError("it was deleted at this moment")
        self._opened = found, connection
        return connection

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()

    def _failed(self, action: str, error: Exception) -> None:
        """Say once that nothing is counted, and put a damaged file out of the way."""
        with contextlib.suppress(sqlite3.Error):
            self._close()
        if getattr(error, "sqlite_errorcode", None) in _DAMAGED:
            for ending in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    os.unlink(self._path + ending)
        if not self._has_complained and os.path.isdir(os.path.dirname(self._path)):
            self._has_complained = True
            _log.warning("%s cannot be %s, so metrics are missing: %s", METRICS, action, error)


def _rows(amounts: Mapping[tuple[str, Labels], float]) -> list[tuple[str, str, float]]:
    return [(metric, json.dumps(labels), amount) for (metric, labels), amount in amounts.items()]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _connect(path: str) -> sqlite3.Connection:
    """Open the file, or make it; its folder, which a library begins with, must be there."""
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")  # numbers that a power cut may take
        connection.execute(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
