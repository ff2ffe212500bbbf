"""Small pictures on the disk: made once, found by the checksum of what they show, and never too many.

They can be made again at any time, so that nothing here needs the library's lock or fails a caller: each is
written whole under a name that says all about it, and whoever comes second writes the same once more.

The pictures lie in 256 folders by the first digits of their checksum, which spreads them evenly. A folder has its
share of the room. Whoever adds to it looks at that folder alone, so that adding costs the same in a full cache as
in an empty one, and no process needs to know of another.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import uuid
from typing import Final

from flask_comfy_files.core import durable, looking
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.layout import split, thumbnail_path
from flask_comfy_files.core.room import require_room

SIZES: Final = (64, 128, 256, 512, 1024)
"""Pixels of the longer side; a few, so that a caller cannot fill the cache with every size there is."""

EXTENSION: Final = ".webp"

FOLDERS: Final = 256
"""Those that two hexadecimal digits name."""

MOST_IN_FOLDER: Final = 1024
"""So that a folder is read in about a millisecond; 262,144 pictures in all."""

_LARGEST_BYTES: Final = 16 * 1024**2
"""No picture comes near it: what is larger is none of ours."""

_CHECKSUM: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ThumbnailCache:
    """The pictures of one library."""

    def __init__(self, root: str, most_bytes: int, min_free_bytes: int) -> None:
        """Take ``most_bytes`` of the volume at most, and nothing where less than the reserve is free."""
        self._root = root
        self._most_bytes = most_bytes // FOLDERS
        self._min_free_bytes = min_free_bytes

    def find(self, path: str) -> bytes | None:
        """Return a picture by its path, or ``None`` where it is not there, or cannot be read."""
        folder, name = split(path)
        try:
            with (
                durable.open_folder(self._root, folder) as parent,
                durable.open_regular(parent, name) as descriptor,
            ):
                size = os.fstat(descriptor).st_size
                return os.pread(descriptor, size, 0) if 0 < size <= _LARGEST_BYTES else None
        except OSError:
            return None

    def keep(self, path: str, picture: bytes) -> bool:
        """Write a picture, and remove the oldest beside it where there are too many; say whether it is kept.

        It is not where it would take more than its folder's share, or the disk refuses.
        """
        if len(picture) > self._most_bytes:
            return False
        folder, name = split(path)
        try:
            require_room(self._root, len(picture), self._min_free_bytes)
            durable.make_folders(self._root, folder)
            with durable.open_folder(self._root, folder) as parent:
                durable.replace(parent, name, picture, f".{uuid.uuid4().hex}.part")
            self._trim(folder, name)
        except (OSError, ComfyFilesError):
            return False
        return True

    def _trim(self, folder: str, newest: str) -> None:
        """Remove the oldest of a folder; what a crash has left half written is old as well some day."""
        entries = [
            (name, status)
            for name, status in looking.list_folder(self._root, folder)
            if stat.S_ISREG(status.st_mode) and name != newest
        ]
        entries.sort(key=lambda entry: entry[1].st_mtime_ns)
        with durable.open_folder(self._root, folder) as parent:
            size = os.stat(newest, dir_fd=parent, follow_symlinks=False).st_size
            size += sum(status.st_size for _, status in entries)
            for number, (name, status) in enumerate(entries):
                if size <= self._most_bytes and len(entries) - number < MOST_IN_FOLDER:
                    break
                durable.remove(parent, name)
                size -= status.st_size


def place_of(checksum: str, side: int) -> str | None:
    """Return where a picture lies; ``None`` for what is no checksum, as in a record that was edited by hand."""
    if _CHECKSUM.fullmatch(checksum) is None:
        return None
    return thumbnail_path(checksum, side, EXTENSION)


def forget(root: str, checksum: str) -> None:
    """Remove the pictures of what is deleted for good; another file of the same bytes gets them anew."""
    paths = [place_of(checksum, side) for side in SIZES]
    with contextlib.suppress(OSError):
        for folder, name in (split(path) for path in paths if path is not None):
            with durable.open_folder(root, folder) as parent:
                durable.remove(parent, name)
