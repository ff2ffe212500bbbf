"""The library as the holder of the lock sees it, and changes it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask_comfy_files.core.catalog import (
    compaction,
    document,
    folding,
    index,
)
from flask_comfy_files.core.catalog.compaction import Compacted
from flask_comfy_files.core.catalog.document import Header, Line
from flask_comfy_files.core.catalog.index import Mark
from flask_comfy_files.core.catalog.reader import Reader

_TAIL_BYTES: Final = 32


class Writer(Reader):
    """The library in the hands of the one who may change it."""

    unfinished: Sequence[Line]
    """Lines whose files may not be in place yet; to be settled and passed to ``advance`` first."""

    def __init__(self, root: str, session: Session, connection: sqlite3.Connection) -> None:
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
        if not changes:
            return []
        session = self._session
        numbered = [{"seq": session.seq + n, **change} for n, change in enumerate(changes, 1)]
        lines = document.append(session.descriptor, session.header, session.position, numbered)
        session.position, session.seq = lines[-1].end, session.seq + len(lines)
        return lines

    def exchange(self, copy: Compacted) -> bool:
        """Put a compacted copy in the document's place, with what was appended since; then nothing else is done.

        Raises:
            OSError: The disk refused; the document is as it was.
        """
        session = self._session
        return compaction.exchange(self._root, session.header, session.descriptor, copy)

    def advance(self, lines: Sequence[Line]) -> None:
        """Let readers see lines, whose files are now in place."""
        session = self._session
        folding.fold(self._connection, lines)
        index.write_mark(self._connection, session.mark(lines[-1]))
        self._connection.commit()
        self._connection.execute("BEGIN IMMEDIATE")


@dataclass(slots=True)
class Session:
    """The document while the lock is held: what is appended where."""

    descriptor: int
    header: Header
    position: int
    seq: int
    unfinished: Sequence[Line] = ()
    was_torn: bool = False
    """Whether its end had to be mended."""

    def stand_behind(self, lines: Sequence[Line]) -> None:
        """Go on behind some lines."""
        if lines:
            self.position, self.seq = lines[-1].end, lines[-1].change["seq"]

    def mark(self, last: Line | None) -> Mark:
        """Return the mark of an index that reaches to a line, or to none."""
        position = self.header.end if last is None else last.end
        start = max(0, position - _TAIL_BYTES)
        return Mark(
            library_id=self.header.library_id,
            generation=self.header.generation,
            position=position,
            tail=os.pread(self.descriptor, position - start, start),
            seq=0 if last is None else last.change["seq"],
        )
