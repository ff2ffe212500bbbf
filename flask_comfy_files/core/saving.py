"""Writing to a file that a person has named: whole and on the disk when it has its name, or not there at all."""

from __future__ import annotations

import enum
import os
import uuid
from collections.abc import Iterable

from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import InvalidInputError


class Existing(enum.Enum):
    """What becomes of a file that has the name already."""

    KEEP = enum.auto()
    REPLACE = enum.auto()


def save(content: Iterable[bytes], path: str, existing: Existing) -> None:
    """Write a file piece by piece; what raises while the pieces are made leaves nothing behind.

    Raises:
        InvalidInputError: ``path`` names a file that is there and to be kept, or none that can be.
        StorageError: The disk refused.
    """
    directory, name = os.path.split(os.path.abspath(path))
    write = durable.create if existing is Existing.KEEP else durable.replace
    try:
        with durable.open_folder(directory, "") as folder:
            if existing is Existing.KEEP:
                _require_free(folder, name)
            write(folder, name, content, f".{uuid.uuid4().hex}.part")
    except FileExistsError:
        raise InvalidInputError("output", path, "is there already, and is kept") from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise InvalidInputError("output", path, "is no file in a folder that exists") from None
    except OSError as error:
        durable.refuse("Writing", path, error)


def _require_free(folder: int, name: str) -> None:
    """Refuse a name that is taken before all is written; what takes it meanwhile is kept all the same.

    Raises:
        FileExistsError: It is.
    """
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise FileExistsError(name)
