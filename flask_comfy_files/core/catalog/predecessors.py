"""The documents that were replaced when the document was written anew, and are kept by their generation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from flask_comfy_files.core import durable
from flask_comfy_files.core.layout import OLDER_DOCUMENTS, older_document, split


def generations(root: str) -> list[int]:
    """Return the generations that are kept, oldest first.

    Raises:
        OSError: They are there, and cannot be listed.
    """
    try:
        with durable.open_folder(root, OLDER_DOCUMENTS) as folder:
            names = os.listdir(folder)
    except FileNotFoundError:
        return []
    stems = (name.removesuffix(".json") for name in names)
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


@contextlib.contextmanager
def open_document(root: str, generation: int) -> Iterator[int | None]:
    """Open the document of a generation; ``None`` when it is there no more.

    Raises:
        OSError: It cannot be opened.
    """
    folder, name = split(older_document(generation))
    with contextlib.ExitStack() as stack:
        try:
            parent = stack.enter_context(durable.open_folder(root, folder))
            descriptor = stack.enter_context(durable.open_regular(parent, name))
        except FileNotFoundError:
            yield None
            return
        yield descriptor
