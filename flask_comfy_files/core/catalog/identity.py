"""Whether the output root is there, and whether it is the library that we know.

A disk that was not mounted looks like an empty library, and another one like a library without our
files. So a process remembers which library it has seen, a setting may name it, and a sentinel in our
own folder names it on the disk; where they disagree with the document, nothing is changed.
"""

from __future__ import annotations

import contextlib
import os

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.catalog.document import Header
from flask_comfy_files.core.errors import LibraryUnavailableError
from flask_comfy_files.core.layout import DOCUMENT, SENTINEL, STATE, file_path, split

_LONGEST_SENTINEL = 1024  # bytes


class Identity:
    """Which library an output root should hold."""

    def __init__(self, root: str, pinned_library_id: str | None) -> None:
        """Know nothing yet but what the settings say."""
        self._root = root
        self._pinned = pinned_library_id
        self._remembered: str | None = None

    def require_same(self, header: Header) -> None:
        """Refuse a document of another library; remember the first one.

        Raises:
            LibraryUnavailableError: It is another library's.
        """
        for known in (self._pinned, self._remembered, self.read_sentinel()):
            if known is not None and known != header.library_id:
                raise LibraryUnavailableError(
                    f"the output root holds the library {header.library_id}, and {known} is expected",
                    "See whether the right disk is mounted.",
                )
        self._remembered = header.library_id

    def require_new(self) -> None:
        """Refuse to take a root without a document for a new library where we know of an old one.

        Raises:
            LibraryUnavailableError: We do, or the root is not there.
        """
        require_root(self._root)
        known = self.known_library_id()
        if known is not None:
            raise LibraryUnavailableError(
                f"the library {known} is expected in the output root, and its {DOCUMENT} is not there",
                "See whether the right disk is mounted, or put the document back from a backup.",
            )

    def known_library_id(self) -> str | None:
        """Return which library should be there, as far as anything says so."""
        return self._pinned or self._remembered or self.read_sentinel()

    def read_sentinel(self) -> str | None:
        """Return the library id that our own folder names, or ``None``."""
        try:
            with open(file_path(self._root, SENTINEL), "rb") as sentinel:
                facts = document.decode(sentinel.read(_LONGEST_SENTINEL).strip())
        except OSError:
            return None
        return None if facts is None else str(facts.get("library_id"))

    def write_sentinel(self, library_id: str) -> None:
        """Name the library in our own folder, unless that is done.

        Raises:
            OSError: The disk refused.
        """
        if self.read_sentinel() is not None:
            return
        content = document.encode({"library_id": library_id}) + b"\n"
        with contextlib.suppress(FileExistsError), durable.open_folder(self._root, STATE) as folder:
            durable.create(folder, split(SENTINEL)[1], content, "library.new")


def require_root(root: str) -> None:
    """Refuse an output root that is not there or cannot be entered.

    Raises:
        LibraryUnavailableError: It is so.
    """
    try:
        with durable.open_folder(root, ""):
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


def make_state_folder(root: str) -> None:
    """Make our own folder below the root.

    Raises:
        LibraryUnavailableError: The root cannot be written.
    """
    try:
        with durable.open_folder(root, "") as folder:
            if durable.make_folder(folder, STATE):
                durable.sync_folder(folder)
        with durable.open_folder(root, STATE):  # a link in its place would lead us elsewhere
            pass
    except OSError as error:
        raise unwritable(STATE, error) from error


def unwritable(path: str, error: OSError) -> LibraryUnavailableError:
    """Return the error that says what cannot be written, by whom, and what to do."""
    return LibraryUnavailableError(
        f"{path} cannot be written by uid {os.geteuid()}: {os.strerror(error.errno or 0)}",
        "Give the server's user write permission on the output root, or run the server as its owner.",
    )
