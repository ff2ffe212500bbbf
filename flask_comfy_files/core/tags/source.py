"""What reading a file for its embedded texts may cost."""

from __future__ import annotations

import zlib
from typing import Final

from flask_comfy_files.core.containers.window import BudgetSpentError, MalformedError, Window

READ_BUDGET_BYTES: Final = 4 * 1024 * 1024
"""For a comment header with a large workflow in it; other chunks are skipped without reading."""

MOST_READS: Final = 20_000
"""Enough for the chunks of a PNG of 1 GB, which Pillow writes 64 KiB long; some 30 ms of work."""

LONGEST_UNPACKED: Final = 1024 * 1024


class Source:
    """A file of a known size, read piece by piece until one of the limits is reached.

    Attributes:
        size: Bytes in the file.
    """

    __slots__ = ("_reads", "_window", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        """Look at an open regular file, which stays the caller's."""
        self._window = Window(descriptor, size, budget=READ_BUDGET_BYTES)
        self._reads = 0
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes.

        Raises:
            PastEndError: The file ends before.
            BudgetSpentError: Too much, or too often, was read already.
            OSError: The disk failed.
        """
        self._reads += 1
        if self._reads > MOST_READS:
            raise BudgetSpentError
        return self._window.read(offset, length)

    def unpack(self, packed: bytes) -> bytes:
        """Return what a zlib stream holds; its bytes count as read.

        Raises:
            MalformedError: It is no whole zlib stream.
            BudgetSpentError: It holds more than 1 MiB, or more than may still be read.
        """
        room = min(LONGEST_UNPACKED, self._window.remaining)
        stream = zlib.decompressobj()
        try:
            text = stream.decompress(packed, room + 1)
        except zlib.error as error:
            raise MalformedError from error
        if len(text) > room:
            raise BudgetSpentError
        if not stream.eof:
            raise MalformedError
        self._window.remaining -= len(text)
        return text
