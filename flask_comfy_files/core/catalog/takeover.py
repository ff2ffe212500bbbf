"""Making room for our document where an older installation's stands, and reading a library that is none yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flask_comfy_files.core import durable, lock
from flask_comfy_files.core.catalog import document, index, older
from flask_comfy_files.core.catalog.identity import Identity, make_state_folder, require_root
from flask_comfy_files.core.catalog.session import Reader
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


def set_aside(root: str, identity: Identity, lock_timeout_s: float, name: str) -> None:
    """Rename an older installation's list, so that our document can be begun; under the library's lock.

    Raises:
        LibraryUnavailableError: It is not there any more, or another library is expected here.
        LockTimeoutError: Somebody else held the lock for too long.
        StorageError: The disk refused; the list is where it was.
    """
    make_state_folder(root)
    try:
        with lock.hold(file_path(root, LOCK), lock_timeout_s):
            if not is_older(root):
                raise LibraryUnavailableError(
                    f"{DOCUMENT} has changed meanwhile", "Start the import again."
                )
            identity.require_new()
            with durable.open_folder(root, "") as folder:
                durable.move(folder, DOCUMENT, folder, name)
                durable.sync_folder(folder)
    except ComfyFilesError:
        raise
    except OSError as error:
        durable.refuse("Renaming", DOCUMENT, error)


@contextlib.contextmanager
def reading_none(root: str) -> Iterator[Reader]:
    """Answer for a library that has no file yet."""
    memory = index.MemoryIndex()
    try:
        with memory.reading() as connection:
            yield Reader(root, connection, None)
    finally:
        memory.close()
