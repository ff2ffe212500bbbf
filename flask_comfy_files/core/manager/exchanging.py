"""Every record out of a library, and records of an older installation, or of a backup, into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask_comfy_files.core import exporting
from flask_comfy_files.core.manager.base import Base


class Exchanging(Base):
    """What a manager gives to other programs, and takes from them."""

    def export_records(self) -> Iterator[dict[str, Any]]:
        """Yield every file of the library, as it stands when the first is asked for.

        Each is a dict that ``json.dumps`` takes: the record, and ``pinned`` and ``tags`` of its job. They come
        in the order in which they were recorded, one line of the document at a time. What rests in the
        trash is left out. Take all of them, or close the iterator.

        Raises:
            LibraryUnavailableError: The library cannot be read.
            DocumentDamagedError: A line does not match its check.
        """
        with self._reading() as reader:
            yield from exporting.records_of(reader)
