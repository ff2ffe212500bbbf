"""Matroska and WebM.

Sources: RFC 8794 (EBML: variable-size integers in section 4, element IDs and sizes in 5 and 6) and
RFC 9559 (Matroska).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from flask_comfy_files.core.containers.facts import Completeness, Measure, measured
from flask_comfy_files.core.containers.window import MalformedError, PastEndError

if TYPE_CHECKING:
    from flask_comfy_files.core.containers.facts import ContainerFacts
    from flask_comfy_files.core.containers.window import Window

_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"
_WEBM_DOCTYPE: Final = b"\x42\x82\x84webm"
_DOCTYPE_WITHIN_BYTES: Final = 128
_LONGEST_ID: Final = 4
_LONGEST_SIZE: Final = 8


class _Element(NamedTuple):
    identifier: bytes
    start: int
    size: int | None
    """Bytes of content, or ``None`` for "until something else begins", which live writers use."""


def read_matroska(window: Window, head: bytes) -> ContainerFacts | None:
    """Read Matroska or WebM: complete when the file holds the whole segment.

    ffmpeg writes the segment with an unknown size and fills it in at the very end.
    """
    if not head.startswith(_EBML):
        return None
    is_webm = _WEBM_DOCTYPE in head[:_DOCTYPE_WITHIN_BYTES]
    extensions = {".webm", ".mkv"} if is_webm else {".mkv", ".mka"}
    return measured(frozenset(extensions), _measure_matroska, window)


def _measure_matroska(window: Window) -> Measure:
    header = _element_at(window, 0)
    if header.size is None:
        raise MalformedError
    segment = _element_at(window, header.start + header.size)
    if segment.identifier != _SEGMENT or segment.size is None:
        return Measure(completeness=Completeness.UNKNOWN)
    ends_inside = segment.start + segment.size <= window.size
    return Measure(completeness=Completeness.COMPLETE if ends_inside else Completeness.CUT_SHORT)


def _element_at(window: Window, offset: int) -> _Element:
    available = max(1, min(_LONGEST_ID + _LONGEST_SIZE, window.size - offset))
    raw = window.read(offset, available)
    id_length = _vint_length(raw, _LONGEST_ID)
    size_length = _vint_length(raw[id_length:], _LONGEST_SIZE)
    start = id_length + size_length
    if start > len(raw):
        raise PastEndError
    # The one bit that marks the length is no part of the size; a size of ones only is "unknown".
    value_bits = (1 << 7 * size_length) - 1
    size = int.from_bytes(raw[id_length:start], "big") & value_bits
    return _Element(raw[:id_length], offset + start, None if size == value_bits else size)


def _vint_length(raw: bytes, longest: int) -> int:
    """Return how many bytes a variable-size integer has: one more than its leading zero bits."""
    if not raw:
        raise PastEndError
    length = 9 - raw[0].bit_length()
    if length > longest:
        raise MalformedError
    return length
