"""PNG and APNG, JPEG, GIF, SVG and OpenEXR.

Sources: PNG third edition (W3C); ITU T.81 annex B for JPEG; the GIF89a specification; "OpenEXR File
Layout".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.containers.facts import Completeness, Measure, measured
from flask_comfy_files.core.containers.window import BudgetSpentError, MalformedError, PastEndError

if TYPE_CHECKING:
    from flask_comfy_files.core.containers.facts import ContainerFacts
    from flask_comfy_files.core.containers.window import Window

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"
_PNG_IHDR_LENGTH: Final = 13
_PNG_CHUNK_FRAME: Final = 12  # length, type and checksum around a chunk's content

_JPEG_PREFIX: Final = 0xFF
_JPEG_START_OF_SCAN: Final = 0xDA
_JPEG_END_OF_IMAGE: Final = 0xD9
_JPEG_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

_GIF_BLOCK_END: Final = b"\x00"
_GIF_TRAILER: Final = b";"

_SVG_STARTS: Final = (b"<svg", b"<?xml", b"<!--", b"<!DOCTYPE svg")
_SVG_TAIL_BYTES: Final = 256


def read_png(window: Window, head: bytes) -> ContainerFacts | None:
    """Read PNG or APNG: complete when its chunks lead to a whole IEND, whatever follows that."""
    if not head.startswith(_PNG_SIGNATURE):
        return None
    return measured(frozenset({".png", ".apng"}), _measure_png, window)


def read_jpeg(window: Window, head: bytes) -> ContainerFacts | None:
    """Read JPEG: complete when it has a scan and ends with EOI; with data after EOI, unknown."""
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    return measured(frozenset({".jpg", ".jpeg", ".jfif"}), _measure_jpeg, window)


def read_gif(window: Window, head: bytes) -> ContainerFacts | None:
    """Read GIF: complete when it ends with a closed block and the trailer."""
    if not head.startswith((b"GIF87a", b"GIF89a")):
        return None
    return measured(frozenset({".gif"}), _measure_gif, window)


def read_svg(window: Window, head: bytes) -> ContainerFacts | None:
    """Read SVG: complete when nothing but white space follows the closing tag."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    # A web page may hold a drawing, but it does not end like one.
    if not start.startswith(_SVG_STARTS) or b"<svg" not in start or b"<html" in start:
        return None
    return measured(frozenset({".svg"}), _measure_svg, window)


def read_exr(window: Window, head: bytes) -> ContainerFacts | None:
    """Read OpenEXR by its magic number alone; it has no mark at its end."""
    if not head.startswith(b"\x76\x2f\x31\x01"):
        return None
    return measured(
        frozenset({".exr"}), lambda _: Measure(completeness=Completeness.UNKNOWN), window
    )


def _measure_png(window: Window) -> Measure:
    length, kind, width, height = struct.unpack(">I4sII", window.read(8, 16))
    if length != _PNG_IHDR_LENGTH or kind != b"IHDR":
        raise MalformedError
    # Read before the walk, which may spend the budget.
    ends_with_iend = window.tail(len(_PNG_END)) == _PNG_END
    try:
        completeness = _walk_png_chunks(window)
    except PastEndError:
        completeness = Completeness.CUT_SHORT
    except BudgetSpentError:
        completeness = Completeness.COMPLETE if ends_with_iend else Completeness.CUT_SHORT
    return Measure(completeness=completeness, width=width, height=height)


def _walk_png_chunks(window: Window) -> Completeness:
    """Follow the chunks to IEND; the tail alone could belong to a PNG embedded in this one."""
    offset = len(_PNG_SIGNATURE)
    while True:
        length, kind = struct.unpack(">I4s", window.read(offset, 8))
        offset += _PNG_CHUNK_FRAME + length
        if kind == b"IEND":
            return Completeness.COMPLETE if offset <= window.size else Completeness.CUT_SHORT
        if not any(kind):
            # Some copy tools and file systems give a file its full size in zeros before its bytes.
            return Completeness.CUT_SHORT
        if not kind.isalpha():
            return Completeness.UNKNOWN


def _measure_jpeg(window: Window) -> Measure:
    """Walk the segments to the first scan: an EOI before it belongs to a thumbnail."""
    ends_with_eoi = window.tail(2) == b"\xff\xd9"
    width = height = None
    offset = 2
    while True:
        prefix, marker, length = struct.unpack(">BBH", window.read(offset, 4))
        if prefix != _JPEG_PREFIX or marker in {0x00, _JPEG_END_OF_IMAGE}:
            raise MalformedError
        if marker == _JPEG_START_OF_SCAN:
            break
        if marker in _JPEG_FRAME_HEADERS:
            height, width = struct.unpack(">HH", window.read(offset + 5, 4))
        offset += _jpeg_segment_bytes(marker, length)
    completeness = Completeness.COMPLETE if ends_with_eoi else Completeness.UNKNOWN
    return Measure(completeness=completeness, width=width, height=height)


def _jpeg_segment_bytes(marker: int, length: int) -> int:
    if marker == _JPEG_PREFIX:
        # A fill byte (T.81 B.1.1.2): the marker proper comes next.
        return 1
    return 2 if marker in _JPEG_WITHOUT_LENGTH else 2 + length


def _measure_gif(window: Window) -> Measure:
    width, height = struct.unpack("<HH", window.read(6, 4))
    tail = window.tail(2)
    if not tail.endswith(_GIF_TRAILER):
        completeness = Completeness.CUT_SHORT
    elif tail.startswith(_GIF_BLOCK_END):
        completeness = Completeness.COMPLETE
    else:
        # One byte of pixels in 256 looks like the trailer; no block was closed before this one.
        completeness = Completeness.UNKNOWN
    return Measure(completeness=completeness, width=width, height=height)


def _measure_svg(window: Window) -> Measure:
    closed = window.tail(_SVG_TAIL_BYTES).rstrip().endswith(b"</svg>")
    return Measure(completeness=Completeness.COMPLETE if closed else Completeness.CUT_SHORT)
