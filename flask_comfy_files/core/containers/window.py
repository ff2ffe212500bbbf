"""How the readers of this folder see a file: few bytes, at given places, within a budget."""

from __future__ import annotations

import os
from typing import Final

READ_BUDGET_BYTES: Final = 96 * 1024
"""For the head, one Ogg page at its largest (65,307 bytes), or thousands of 8-byte headers."""


class PastEndError(Exception):
    """A structure reaches beyond the end of the file."""


class MalformedError(Exception):
    """A structure cannot be what its format says."""


class BudgetSpentError(Exception):
    """The content asks for more reads than any file is worth."""


class Window:
    """A file of a known size, read piece by piece at given offsets.

    The descriptor stays the caller's: it is not closed, and its offset does not move. ``size`` is
    the size the caller decided about, so bytes that a writer appends meanwhile are not seen.

    Attributes:
        size: Bytes in the file.
        remaining: Bytes that may still be read.
    """

    __slots__ = ("_descriptor", "remaining", "size")

    def __init__(self, descriptor: int, size: int, *, budget: int = READ_BUDGET_BYTES) -> None:
        """Look at an open regular file, with at most ``budget`` bytes to be read."""
        self._descriptor = descriptor
        self.size = size
        self.remaining = budget

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes.

        Raises:
            PastEndError: The file ends before, or has shrunk since its size was taken.
            BudgetSpentError: Too much was read already.
            OSError: The disk failed.
        """
        # Checked first: hostile 64-bit offsets would overflow in ``os.pread``.
        if offset + length > self.size:
            raise PastEndError
        if length > self.remaining:
            raise BudgetSpentError
        self.remaining -= length
        content = os.pread(self._descriptor, length, offset)
        if len(content) < length:
            raise PastEndError
        return content

    def tail(self, length: int) -> bytes:
        """Return the last ``length`` bytes, or the whole file when it is shorter."""
        length = min(length, self.size)
        return self.read(self.size - length, length)

    def with_budget(self, budget: int) -> Window:
        """Return a second view of the same file with a budget of its own."""
        return Window(self._descriptor, self.size, budget=budget)
