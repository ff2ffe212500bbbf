"""Beginning our document where none is, or where an older installation's list stands; and reading before that."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.catalog import document, index, older
from flask_comfy_files.core.catalog.identity import Identity, make_state_folder, require_root
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.errors import ComfyFilesError, LibraryUnavailableError
from flask_comfy_files.core.layout import DOCUMENT, LOCK, file_path


def is_older(root: str) -> bool:
    """Say whether an older installation's list stands in the document's place.

    Raises:
        LibraryUnavailableError: The root or what stands there cannot be read.
        DocumentDamagedError: It is a folder.
    """
    require_root(root)
    with document.open_document(root) as descriptor:
        return descriptor is not None and older.is_older(descriptor)


def is_unbegun(root: str, identity: Identity) -> bool:
    """Say whether there is no document of ours, and nobody knows that there should be one.

    Raises:
        LibraryUnavailableError: As ``is_older``.
        DocumentDamagedError: Likewise.
    """
    with document.open_document(root) as descriptor:
        is_there = descriptor is not None
    return is_older(root) if is_there else identity.known_library_id() is None


def begin(root: str, identity: Identity, lock_timeout_s: float) -> None:
    """Begin a library that has no document and is not known: what is imported into it is all that it has.

    Raises:
        LibraryUnavailableError: The root cannot be written.
        LockTimeoutError: Somebody else held the lock for too long.
        StorageError: The disk refused; there is no document.
    """
    with _locked(root, lock_timeout_s), document.open_document(root) as descriptor:
        if descriptor is None and identity.known_library_id() is None:
            document.create(root, uuid.uuid4().hex)


def set_aside(root: str, identity: Identity, lock_timeout_s: float, name: str) -> None:
    """Keep an older installation's list under a name, and begin our document in its place.

    Where links work there is one of the two in that place at any moment.

    Raises:
        LibraryUnavailableError: It is not there any more, or another library is expected here.
        LockTimeoutError: Somebody else held the lock for too long.
        StorageError: The disk refused; the list is there under one name or both.
    """
    with _locked(root, lock_timeout_s):
        if not is_older(root):
            raise LibraryUnavailableError(
                f"{DOCUMENT} has changed meanwhile", "Start the import again."
            )
        known = identity.known_library_id()
        if known is not None:
            raise LibraryUnavailableError(
                f"the library {known} is expected in the output root, and {DOCUMENT} is another's list",
                "Put the library's own document back, or import the list from another place.",
            )
        if not is_kept(root, name):
            _keep(root, name)
        document.create_over(root, uuid.uuid4().hex)


def is_kept(root: str, name: str) -> bool:
    """Say whether what stands in the document's place is kept under a certain other name already."""
    try:
        with (
            durable.open_folder(root, "") as folder,
            durable.open_regular(folder, DOCUMENT) as descriptor,
            durable.open_regular(folder, name) as kept,
        ):
            return durable.checksum(descriptor) == durable.checksum(kept)
    except OSError:
        return False


def _keep(root: str, name: str) -> None:
    with durable.open_folder(root, "") as folder:
        try:
            durable.link(folder, DOCUMENT, folder, name)
        except FileExistsError:
            raise
        except OSError:  # no links here: for an instant nothing stands in its place
            durable.move(folder, DOCUMENT, folder, name)
        durable.sync_folder(folder)


@contextlib.contextmanager
def _locked(root: str, lock_timeout_s: float) -> Iterator[None]:
    make_state_folder(root)
    try:
        with lock.hold(file_path(root, LOCK), lock_timeout_s):
            yield
    except ComfyFilesError:
        raise
    except OSError as error:
        durable.refuse("Beginning a library in", "", error)


@contextlib.contextmanager
def reading_none(root: str) -> Iterator[Reader]:
    """Answer for a library that has no file yet."""
    memory = index.MemoryIndex()
    try:
        with memory.reading() as connection:
            yield Reader(root, connection, None)
    finally:
        memory.close()
