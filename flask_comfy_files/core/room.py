"""Whether the volume has room for what is about to be done."""

from __future__ import annotations

import os
from typing import Final

from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import OutOfSpaceError

_RECORD_BYTES: Final = 2048
"""What one file's part of a line takes at most."""


def free_bytes(root: str) -> int:
    """Return how many bytes of the volume our user may still fill.

    Raises:
        StorageError: The volume cannot be asked.
    """
    try:
        volume = os.statvfs(root)
    except OSError as error:
        durable.refuse("Measuring the free space of", "", error)
    return volume.f_bavail * volume.f_frsize


def require_room(root: str, needed_bytes: int, min_free_bytes: int) -> None:
    """Refuse work that would leave less free than is to be kept.

    Raises:
        OutOfSpaceError: It would.
    """
    left = free_bytes(root) - min_free_bytes
    if left < needed_bytes:
        raise OutOfSpaceError(needed_bytes, max(0, left))


def require_room_for_records(root: str, files: int, min_free_bytes: int) -> None:
    """Refuse to record files where their lines would not fit.

    Raises:
        OutOfSpaceError: They would not.
    """
    require_room(root, files * _RECORD_BYTES, min_free_bytes)
