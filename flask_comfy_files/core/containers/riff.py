"""RIFF: WebP, WAV and AVI.

Sources: "Multimedia Programming Interface and Data Specifications 1.0" (IBM, Microsoft); RFC 9649
for WebP; RFC 6386, section 9.1, for the VP8 frame header; the OpenDML AVI extensions for files of
several RIFF chunks.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.containers.facts import Completeness, Measure, measured, seconds
from flask_comfy_files.core.containers.window import BudgetSpentError, MalformedError, PastEndError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask_comfy_files.core.containers.facts import ContainerFacts
    from flask_comfy_files.core.containers.window import Window

_HEADER_BYTES: Final = 12
_SMALLEST_SIZE: Final = 4
"""The declared size counts the form type; 0 stands there while a writer is not done yet."""
_NEVER_KNOWN: Final = 0xFFFFFFFF
"""The size written where no writer can go back to the start, as in a pipe."""


def read_riff(window: Window, head: bytes) -> ContainerFacts | None:
    """Read WebP, WAV or AVI: complete when the file holds all bytes that the header declares."""
    if not head.startswith(b"RIFF"):
        return None
    match head[8:_HEADER_BYTES]:
        case b"WEBP":
            return measured(frozenset({".webp"}), _measure_webp, window)
        case b"WAVE":
            return measured(frozenset({".wav"}), _measure_wav, window)
        case b"AVI ":
            return measured(frozenset({".avi"}), _measure_avi, window)
        case _:
            return None


def _measure_webp(window: Window) -> Measure:
    completeness = _completeness(window)
    width, height = _webp_extent(window)
    return Measure(completeness=completeness, width=width, height=height)


def _webp_extent(window: Window) -> tuple[int | None, int | None]:
    kind, start = window.read(_HEADER_BYTES, 4), window.read(_HEADER_BYTES + 8, 10)
    match kind:
        case b"VP8X":
            return 1 + int.from_bytes(start[4:7], "little"), 1 + int.from_bytes(start[7:], "little")
        case b"VP8L" if start[0] == 0x2F:  # noqa: PLR2004 - the signature byte of lossless data
            packed = int.from_bytes(start[1:5], "little")
            return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        case b"VP8 " if start[3:6] == b"\x9d\x01\x2a":
            width, height = struct.unpack("<HH", start[6:])
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return None, None


def _measure_wav(window: Window) -> Measure:
    completeness = _completeness(window)
    byte_rate = sound_bytes = 0
    with contextlib.suppress(PastEndError, BudgetSpentError):
        for kind, start, length in _iter_chunks(window):
            if kind == b"fmt ":
                byte_rate = int.from_bytes(window.read(start + 8, 4), "little")
            elif kind == b"data":
                sound_bytes = length
                break
    if completeness is Completeness.COMPLETE and not sound_bytes:
        # Python's ``wave`` and others write a header for no samples, and correct it on closing.
        completeness = Completeness.UNKNOWN
    playable_bytes = 0 if sound_bytes == _NEVER_KNOWN else sound_bytes
    return Measure(completeness=completeness, duration_s=seconds(playable_bytes, byte_rate))


def _iter_chunks(window: Window) -> Iterator[tuple[bytes, int, int]]:
    offset = _HEADER_BYTES
    while offset < window.size:
        kind, length = struct.unpack("<4sI", window.read(offset, 8))
        yield kind, offset + 8, length
        offset += 8 + length + length % 2


def _measure_avi(window: Window) -> Measure:
    return Measure(completeness=_completeness(window))


def _completeness(window: Window) -> Completeness:
    """Compare the end that the last RIFF chunk declares with the end of the file."""
    end = _declared_end(window, 0)
    # An AVI above 1 GiB goes on in further RIFF chunks, which the first one does not count.
    while end + _HEADER_BYTES <= window.size and _continues_avi(window.read(end, _HEADER_BYTES)):
        end = _declared_end(window, end)
    return Completeness.COMPLETE if end <= window.size else Completeness.CUT_SHORT


def _continues_avi(header: bytes) -> bool:
    return header[:4] == b"RIFF" and header[8:] == b"AVIX"


def _declared_end(window: Window, offset: int) -> int:
    size = int.from_bytes(window.read(offset + 4, 4), "little")
    if size < _SMALLEST_SIZE or size == _NEVER_KNOWN:
        raise MalformedError
    return offset + 8 + size
