"""ISO base media files: MP4, M4V, M4A, QuickTime, and the still images AVIF and HEIC.

Sources: ISO/IEC 14496-12 (boxes: 4.2; ``mvhd``: 8.2.2; ``tkhd``: 8.3.2; ``hdlr``: 8.4.3), ISO/IEC
23008-12 for images.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from flask_comfy_files.core.containers.facts import Completeness, Measure, measured, seconds
from flask_comfy_files.core.containers.window import BudgetSpentError, MalformedError, PastEndError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flask_comfy_files.core.containers.facts import ContainerFacts
    from flask_comfy_files.core.containers.window import Window

_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
)
_HEADER_BYTES: Final = 8
_LONG_HEADER_BYTES: Final = 16


class _Box(NamedTuple):
    kind: bytes
    start: int
    end: int
    open_ended: bool


def read_isobmff(window: Window, head: bytes) -> ContainerFacts | None:
    """Read MP4 and its relatives: complete when whole boxes fill the file, header and media too.

    A file whose last box runs "to the end of the file", or that is made of fragments without their
    closing index, could stop anywhere: it is never called complete.
    """
    if head[4:8] != b"ftyp":
        return None
    brands = _brands(head)
    if brands & _AVIF_BRANDS:
        return measured(frozenset({".avif"}), _measure_image, window)
    if brands & _HEIF_BRANDS:
        return measured(frozenset({".heic", ".heif"}), _measure_image, window)
    # The brand does not settle the extension: phones write QuickTime, encoders sound, into .mp4.
    return measured(frozenset({".mp4", ".m4v", ".m4a", ".mov"}), _measure_movie, window)


def _brands(head: bytes) -> frozenset[bytes]:
    listed = head[16 : min(int.from_bytes(head[:4], "big"), len(head))]
    return frozenset({head[8:12], *(listed[at : at + 4] for at in range(0, len(listed), 4))})


def _measure_image(window: Window) -> Measure:
    boxes = list(_iter_boxes(window, 0, window.size))
    kinds = {box.kind for box in boxes}
    if b"meta" not in kinds:
        completeness = Completeness.CUT_SHORT
    elif b"mdat" in kinds and not boxes[-1].open_ended:
        completeness = Completeness.COMPLETE
    else:
        # A small image may lie within ``meta`` itself.
        completeness = Completeness.UNKNOWN
    return Measure(completeness=completeness)


def _measure_movie(window: Window) -> Measure:
    boxes = list(_iter_boxes(window, 0, window.size))
    kinds = {box.kind for box in boxes}
    header = next((box for box in boxes if box.kind == b"moov"), None)
    # The header may come first: a cut right behind it leaves whole boxes, but no pictures.
    if header is None or b"mdat" not in kinds:
        return Measure(completeness=Completeness.CUT_SHORT)
    parts = list(_iter_boxes(window, header.start, header.end))
    fragmented = b"moof" in kinds or any(part.kind == b"mvex" for part in parts)
    if boxes[-1].open_ended or (fragmented and boxes[-1].kind != b"mfra"):
        completeness = Completeness.UNKNOWN
    else:
        completeness = Completeness.COMPLETE
    width, height = _movie_extent(window, parts)
    return Measure(
        completeness=completeness,
        width=width,
        height=height,
        duration_s=_movie_duration(window, parts),
    )


def _movie_duration(window: Window, parts: Sequence[_Box]) -> float | None:
    with contextlib.suppress(PastEndError, BudgetSpentError):
        for part in parts:
            if part.kind == b"mvhd":
                return _duration_in(window, part)
    return None


def _duration_in(window: Window, header: _Box) -> float | None:
    if window.read(header.start, 1) == b"\x01":
        rate, count = struct.unpack(">IQ", window.read(header.start + 20, 12))
        unset = 0xFFFFFFFF_FFFFFFFF
    else:
        rate, count = struct.unpack(">II", window.read(header.start + 12, 8))
        unset = 0xFFFFFFFF
    return None if count == unset else seconds(count, rate)


def _movie_extent(window: Window, parts: Sequence[_Box]) -> tuple[int | None, int | None]:
    with contextlib.suppress(PastEndError, BudgetSpentError, MalformedError):
        for part in parts:
            if part.kind == b"trak" and _is_video(window, part):
                return _track_extent(window, part)
    return None, None


def _is_video(window: Window, track: _Box) -> bool:
    handler = _find_box(window, track, b"mdia", b"hdlr")
    return handler is not None and window.read(handler.start + 8, 4) == b"vide"


def _track_extent(window: Window, track: _Box) -> tuple[int | None, int | None]:
    header = _find_box(window, track, b"tkhd")
    if header is None:
        return None, None
    at = 88 if window.read(header.start, 1) == b"\x01" else 76
    width, height = struct.unpack(">II", window.read(header.start + at, 8))
    # Both are 16.16 fixed point.
    return width >> 16, height >> 16


def _find_box(window: Window, parent: _Box, *path: bytes) -> _Box | None:
    found: _Box | None = parent
    for kind in path:
        if found is None:
            return None
        inside = _iter_boxes(window, found.start, found.end)
        found = next((box for box in inside if box.kind == kind), None)
    return found


def _iter_boxes(window: Window, start: int, end: int) -> Iterator[_Box]:
    """Yield the boxes that fill a range; each has some length, so every walk comes to its end.

    Raises:
        PastEndError: A box reaches beyond the end of the range.
        MalformedError: A box is shorter than its own header.
    """
    while start < end:
        box = _box_at(window, start, end)
        yield box
        start = box.end


def _box_at(window: Window, offset: int, end: int) -> _Box:
    size, kind = struct.unpack(">I4s", window.read(offset, _HEADER_BYTES))
    header_bytes = _HEADER_BYTES
    if size == 0:
        return _Box(kind, offset + header_bytes, end, open_ended=True)
    if size == 1:
        size = int.from_bytes(window.read(offset + _HEADER_BYTES, 8), "big")
        header_bytes = _LONG_HEADER_BYTES
    if size < header_bytes:
        raise MalformedError
    if offset + size > end:
        raise PastEndError
    return _Box(kind, offset + header_bytes, offset + size, open_ended=False)
