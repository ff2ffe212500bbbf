"""Whether the output root is there, and whether it is the library that we know.

A disk that was not mounted looks like an empty library, and another one like a library without our
files. So a process remembers which library it has seen, a setting may name it, and a sentinel in our
own folder names it on the disk; where they disagree with the document, nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.catalog.document import Header
from flask_comfy_files.core.errors import DocumentDamagedError, LibraryUnavailableError
from flask_comfy_files.core.layout import (
    DOCUMENT,
    PROJECTS,
    SENTINEL,
    STATE,
    read_target_name,
    split,
)
from flask_comfy_files.core.records import iso_utc

_LONGEST_SENTINEL: Final = 1024  # bytes
_MOST_FOLDERS: Final = 1000
"""How many folders are looked into for a file that we have organized."""

IF_RIGHT: Final = "If this is right, say so: flask files adopt."


class Identity:
    """Which library an output root should hold."""

    def __init__(self, root: str, pinned_library_id: str | None) -> None:
        """Know nothing yet but what the settings say."""
        self._root = root
        self._pinned = pinned_library_id
        self._remembered: str | None = None
        self._remembered_at = datetime.max.replace(tzinfo=UTC)

    def require_same(self, header: Header) -> None:
        """Refuse a document of another library; remember the first one.

        Raises:
            LibraryUnavailableError: It is another library's.
        """
        self._require_expected(header.library_id)
        self._remember(header.library_id)

    def _remember(self, library_id: str) -> None:
        if self._remembered != library_id:
            self._remembered, self._remembered_at = library_id, datetime.now(UTC)

    def _require_expected(self, library_id: str) -> None:
        sentinel = self._read_sentinel()
        remembered = None if self._has_been_adopted(sentinel) else self._remembered
        for known in (self._pinned, remembered, sentinel.get("library_id")):
            if known is not None and known != library_id:
                raise LibraryUnavailableError(
                    f"the output root holds the library {library_id}, and {known} is expected",
                    f"See whether the right disk is mounted. {IF_RIGHT}",
                )

    def require_new(self) -> None:
        """Refuse to take a root without a document for a new library where we know of an old one.

        Raises:
            LibraryUnavailableError: It was elsewhere, or the root is not there.
            DocumentDamagedError: It was here: our own folder names it, or there are files that it organized.
        """
        require_root(self._root)
        known, named = self._pinned or self._remembered, self.read_sentinel()
        if named is not None:
            self._require_expected(named)
            raise DocumentDamagedError(DOCUMENT, "it is gone")
        if holds_organized_files(self._root):
            raise DocumentDamagedError(DOCUMENT, f"it is gone, and {PROJECTS}/ is there")
        if known is not None:
            raise LibraryUnavailableError(
                f"the library {known} is expected in the output root, and nothing of it is there",
                f"See whether the right disk is mounted. {IF_RIGHT}",
            )

    def known_library_id(self) -> str | None:
        """Return which library should be there, as far as anything says so."""
        return self._pinned or self._remembered or self.read_sentinel()

    def read_sentinel(self) -> str | None:
        """Return the library id that our own folder names, or ``None``."""
        return self._read_sentinel().get("library_id")

    def _read_sentinel(self) -> dict[str, str]:
        folder, name = split(SENTINEL)
        try:
            with (
                durable.open_folder(self._root, folder) as parent,
                durable.open_regular(parent, name) as descriptor,
            ):
                facts = document.decode(os.pread(descriptor, _LONGEST_SENTINEL, 0).strip())
        except OSError:
            return {}
        return {} if facts is None else {key: str(value) for key, value in facts.items()}

    def _has_been_adopted(self, sentinel: Mapping[str, str]) -> bool:
        """Say whether somebody has said, after we have seen another library here, that this one is right."""
        adopted_at = sentinel.get("adopted_at")
        return adopted_at is not None and datetime.fromisoformat(adopted_at) > self._remembered_at

    def adopt(self) -> None:
        """Take what is there for the library that belongs here; where nothing is, begin one.

        Only the holder of the lock may.

        Raises:
            LibraryUnavailableError: The setting says that it is another one, or it cannot be read.
            OSError: The disk refused.
        """
        library_id = self._find_named() or self.read_sentinel()
        if library_id is not None and self._pinned not in {None, library_id}:
            raise LibraryUnavailableError(
                f"the output root holds the library {library_id}, and the setting says {self._pinned}",
                "Correct the setting COMFY_FILES_LIBRARY_ID.",
            )
        if library_id is None:
            library_id = self._pinned or uuid.uuid4().hex
            if not holds_organized_files(self._root):
                document.create(self._root, library_id)
        self._write_adopted(library_id)
        self._remember(library_id)

    def _find_named(self) -> str | None:
        """Return the library id that the document names; ``None`` where there is none, or it is damaged."""
        with (
            contextlib.suppress(DocumentDamagedError),
            document.open_document(self._root) as descriptor,
        ):
            return None if descriptor is None else document.read_header(descriptor).library_id
        return None

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

    def _write_adopted(self, library_id: str) -> None:
        """Name the library in our own folder, and when it was said to be the right one.

        Raises:
            OSError: The disk refused.
        """
        facts = {"library_id": library_id, "adopted_at": iso_utc(datetime.now(UTC))}
        content = document.encode(facts) + b"\n"
        with durable.open_folder(self._root, STATE) as folder:
            durable.replace(folder, split(SENTINEL)[1], content, "library.new")


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


def holds_organized_files(root: str) -> bool:
    """Say whether there are files below ``projects/`` that a library has organized, by their names."""
    folders = (
        (job_id, f"{PROJECTS}/{project_id}/{job_id}")
        for project_id in _names_in(root, PROJECTS)
        for job_id in _names_in(root, f"{PROJECTS}/{project_id}")
    )
    return any(
        read_target_name(job_id, name) is not None
        for job_id, folder in islice(folders, _MOST_FOLDERS)
        for name in _names_in(root, folder)
    )


def _names_in(root: str, folder: str) -> list[str]:
    try:
        with durable.open_folder(root, folder) as descriptor:
            return os.listdir(descriptor)
    except OSError:
        return []


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
