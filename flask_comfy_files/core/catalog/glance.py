"""A look at a library that takes no time: what its index says as it stands, and nothing where there is none."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from flask_comfy_files.core.catalog import document, index
from flask_comfy_files.core.catalog.reader import Reader
from flask_comfy_files.core.layout import INDEX, file_path


@contextlib.contextmanager
def glancing(root: str) -> Iterator[Reader | None]:
    """Answer from the index alone: no lock, nothing mended, and no document read to its end.

    ``None`` where there is no document, or no index of it that can be used.

    Raises:
        DocumentDamagedError: The document is none of ours.
        OSError: It cannot be read.
    """
    with contextlib.ExitStack() as stack:
        reader = None
        with contextlib.suppress(sqlite3.Error):
            reader = _find_reader(stack, root)
        yield reader


def _find_reader(stack: contextlib.ExitStack, root: str) -> Reader | None:
    descriptor = stack.enter_context(document.open_document(root))
    if descriptor is None:
        return None
    header = document.read_header(descriptor)
    connection = stack.enter_context(index.opened(file_path(root, INDEX)))
    connection.execute("BEGIN")
    if not index.is_usable(index.read_mark(connection), header, descriptor):
        return None
    return Reader(root, connection, descriptor)
