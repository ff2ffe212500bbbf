"""The picture that stands for one that cannot be made: a grey sheet with a frame, as a PNG."""

from __future__ import annotations

import functools
import struct
import zlib
from typing import Final

PLACEHOLDER_MEDIA_TYPE: Final = "image/png"

_SIDE: Final = 64
_FRAME: Final = (10, 12)
"""Pixels from the edge between which the frame lies."""
_SHEET: Final = 0xE4
_INK: Final = 0xA8


@functools.cache
def placeholder() -> bytes:
    """Return the picture: PNG, 64 x 64 pixels, 8 bits of grey each (W3C, PNG third edition)."""
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    rows = b"".join(
        b"\0" + bytes(_shade(x, y) for x in range(_SIDE))  # each row is filtered by nothing
        for y in range(_SIDE)
    )
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _shade(x: int, y: int) -> int:
    edge = min(x, y, _SIDE - 1 - x, _SIDE - 1 - y)
    is_frame = _FRAME[0] <= edge < _FRAME[1]
    is_stroke = edge >= _FRAME[1] and abs(x + y - (_SIDE - 1)) <= 1
    return _INK if is_frame or is_stroke else _SHEET


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
