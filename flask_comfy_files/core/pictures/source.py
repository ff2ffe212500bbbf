"""A file as decoders may read it: so many bytes of it, for so long."""

from __future__ import annotations

import enum
import os
import time
from typing import Final

MOST_PIXELS: Final = 64 * 1024**2
"""Of an image, or of one frame: 8192 x 8192, the most that upscaling commonly gives. Decoded it takes 256 MiB."""

_LONGEST_S: Final = 10.0
"""For one picture. Decoders ask for their bytes piece by piece, and get no more when the time is over."""

_LARGEST_READ: Final = 64 * 1024**2
"""Bytes at once: what decoders ask for that hold a whole file in memory (WebP, AVIF, TIFF)."""

_READ_BUDGET_BYTES: Final = 512 * 1024**2
"""In all; an image of 16 bits a channel takes 384 MiB at most."""


class NoPicture(enum.StrEnum):
    """Why there is no picture of a file."""

    NO_PICTURE = "no_picture"
    """It is of a kind that shows none: sound, text, a model, a vector image, a format that is not read."""

    TOO_LARGE = "too_large"
    """It has more pixels, or more bytes, than are decoded."""

    UNREADABLE = "unreadable"
    """It is damaged, cut short, or not what it seems."""

    TOO_SLOW = "too_slow"
    """It was not decoded in time."""

    BUSY = "busy"
    """Too many pictures are being made just now."""


class NoPictureError(Exception):
    """There is no picture, and why; never an answer."""

    def __init__(self, reason: NoPicture) -> None:
        super().__init__(reason)
        self.reason = reason


def require_decodable(width: int, height: int) -> None:
    """Refuse what has more pixels than are decoded.

    Raises:
        NoPictureError: It has.
    """
    if width * height > MOST_PIXELS:
        raise NoPictureError(NoPicture.TOO_LARGE)


class Source:
    """An open file, for a decoder that takes Python's file objects; the descriptor stays the caller's.

    It has no ``fileno`` on purpose: so no decoder reads past it.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """Start at the file's beginning, and let the time run."""
        self.descriptor = descriptor
        self.size = size
        self._offset = 0
        self._budget = _READ_BUDGET_BYTES
        self._ends_at = time.monotonic() + _LONGEST_S

    def read(self, length: int | None = -1, /) -> bytes:
        """Return the next bytes; fewer at the end.

        Raises:
            NoPictureError: It is too much, or takes too long.
        """
        self.require_time()
        left = max(0, self.size - self._offset)
        length = left if length is None or length < 0 else min(length, left)
        self._budget -= length
        if length > _LARGEST_READ or self._budget < 0:
            raise NoPictureError(NoPicture.TOO_LARGE)
        content = os.pread(self.descriptor, length, self._offset)
        self._offset += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go elsewhere, as ``io`` has it."""
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self.size}
        target = origins[whence] + offset
        if target < 0:
            raise ValueError(offset)
        self._offset = target
        return target

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._offset

    def require_time(self) -> None:
        """Stop where the time is over.

        Raises:
            NoPictureError: It is.
        """
        if time.monotonic() > self._ends_at:
            raise NoPictureError(NoPicture.TOO_SLOW)
