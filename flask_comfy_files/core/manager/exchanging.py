"""Every record out of a library, and records of an older installation, or of a backup, into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask_comfy_files.core import exporting
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.manager.observing import operation
from flask_comfy_files.core.transfer import ImportReport


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

    @operation("import")
    def import_records(self, source: Any = None, *, dry_run: bool = False) -> ImportReport:
        """Take over the files that an older installation, or an export, has records of.

        ``source`` is a parsed JSON value or the path of a JSON file: an array of records, or an object of them
        by path or id. Without it, it is the list that an older installation has left as
        ``file_metadata.json``, which is kept under another name. A file in its job's folder stays there;
        others are moved there, or to ``legacy/`` where no job is named. Called again, it goes on where it was
        interrupted. With ``dry_run`` nothing is changed; files are read all the same.

        Raises:
            InvalidInputError: There is no list of records; nothing was changed.
            MigrationRunningError: Another import, or a migration, is under way.
            OutOfSpaceError: The records would not fit; nothing was moved.
        """
        if not isinstance(dry_run, bool):
            raise InvalidInputError("dry_run", dry_run, "is neither true nor false")
        if dry_run:
            return self._importing.rehearse(source)
        return self._kept(self._importing.run(source))
