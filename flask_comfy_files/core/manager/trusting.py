"""Whether all is well with the library, and what to do where it is not."""

from __future__ import annotations

from flask_comfy_files.core import adopting, compacting, file_history
from flask_comfy_files.core.manager.base import Base
from flask_comfy_files.core.manager.observing import operation
from flask_comfy_files.core.reports import AdoptionReport, CompactionReport, FileHistory


class Trusting(Base):
    """What keeps a manager's library from being lost."""

    @operation("adopt")
    def adopt_library(self) -> AdoptionReport:
        """Say that what is in the output root is right: this disk, this library, and what is gone from it.

        A library that was refused because another one was expected can be changed again, by all processes.
        Where nothing is, a new one begins. Each record whose file is not there is marked as missing. What
        ``status`` says of a document that was rebuilt is taken for seen.

        Raises:
            LibraryUnavailableError: The root is missing or unwritable, or ``LIBRARY_ID`` names another library.
        """
        return adopting.adopt(self._root, self._catalog, self._clock)

    def get_file_history(self, key: str) -> FileHistory:
        """Return everything that happened to a file, oldest first, by its id or by the path that it has now.

        A file that was deleted for good is still known by its id. The whole document is read for it, and
        those before it.

        Raises:
            RecordNotFoundError: No record ever had that id, or that path.
        """
        with self._reading() as reader:
            return file_history.tell(reader, key)

    @operation("compact")
    def compact_document(self) -> CompactionReport | None:
        """Write the document anew without the lines that hold no more; ``None`` if somebody else is at it.

        Everybody can go on meanwhile. The document before is kept in ``.comfy_files/history/``, and tells
        what happened until then.

        Raises:
            OutOfSpaceError: There is no room for another one.
        """
        minimum = self.settings.min_free_bytes
        return compacting.compact(self._root, self._catalog, self._clock, minimum)

    def compact_if_worthwhile(self) -> CompactionReport | None:
        """Write the document anew if most of it holds no more; ``None`` where that is not so."""
        return self.compact_document() if compacting.is_worthwhile(self._catalog) else None
