"""Opening a recorded file for who serves its bytes: once, over no link, and with an error that may be answered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import NameNotFoundError
from flask_comfy_files.core.layout import split


@contextlib.contextmanager
def opened(root: str, path: str) -> Iterator[int]:
    """Open a file below the root for reading.

    Raises:
        NameNotFoundError: It is gone, or no regular file any more.
        StorageError: The server's user may not read it.
    """
    folder, name = split(path)
    with contextlib.ExitStack() as stack:
        try:
            parent = stack.enter_context(durable.open_folder(root, folder))
            descriptor = stack.enter_context(durable.open_regular(parent, name))
        except PermissionError as error:
            durable.refuse("Reading", path, error)
        except OSError as error:
            raise NameNotFoundError(path) from error
        yield descriptor
