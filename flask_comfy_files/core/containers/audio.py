"""Ogg with Opus or Vorbis, FLAC and MP3.

Sources: RFC 3533 (Ogg pages), RFC 7845 (Opus in Ogg), RFC 9639 (FLAC), the ID3v2.4 structure
document, and ISO/IEC 11172-3 for the MPEG frame header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.containers.facts import Completeness, Measure, measured, seconds
from flask_comfy_files.core.containers.window import MalformedError, PastEndError

if TYPE_CHECKING:
    from flask_comfy_files.core.containers.facts import ContainerFacts
    from flask_comfy_files.core.containers.window import Window

_OGG_PAGE: Final = b"OggS"
_OGG_LARGEST_PAGE: Final = 65_307
_OGG_HEADER_BYTES: Final = 27
_OGG_END_OF_STREAM: Final = 0x04

_FLAC_STREAMINFO_BYTES: Final = 34
_ID3_TAGS: Final = (b"ID3\x02", b"ID3\x03", b"ID3\x04")
_ID3_HEADER_BYTES: Final = 10

_MPEG_HEADER_BYTES: Final = 4
_MPEG_SYNC: Final = 0xFF
_MPEG_LAYER_3: Final = frozenset({0xE2, 0xE3, 0xF2, 0xF3, 0xFA, 0xFB})
"""The second byte: the rest of the sync, version 2.5, 2 or 1, layer III, with a checksum or not."""
_MPEG_NO_BIT_RATE: Final = frozenset({0, 15})
_MPEG_NO_SAMPLE_RATE: Final = 3


def read_ogg(window: Window, head: bytes) -> ContainerFacts | None:
    """Read Ogg: complete when a page with the end-of-stream flag ends the file, else unknown."""
    if not head.startswith(_OGG_PAGE + b"\x00"):
        return None
    is_opus = b"OpusHead" in head[:64]
    extensions = {".opus", ".ogg", ".oga"} if is_opus else {".ogg", ".oga", ".ogv"}
    return measured(frozenset(extensions), _measure_ogg, window)


def read_flac(window: Window, head: bytes) -> ContainerFacts | None:
    """Read FLAC: nothing marks its end, so only a cut within the first header shows."""
    if not head.startswith(b"fLaC"):
        return None
    return measured(frozenset({".flac"}), _measure_flac, window)


def read_mp3(window: Window, head: bytes) -> ContainerFacts | None:
    """Read MP3 by its ID3 tag or its first frame.

    Nothing marks its end, so only a cut within the tag shows.
    """
    if head.startswith(_ID3_TAGS):
        return measured(frozenset({".mp3", ".aac"}), _measure_id3, window)
    if _is_layer_3_frame(head[:_MPEG_HEADER_BYTES]):
        return measured(
            frozenset({".mp3"}), lambda _: Measure(completeness=Completeness.UNKNOWN), window
        )
    return None


def _measure_ogg(window: Window) -> Measure:
    tail = window.tail(_OGG_LARGEST_PAGE)
    at = tail.rfind(_OGG_PAGE)
    # The four letters may also turn up in sound: the last page is the one that ends with the file.
    while at >= 0 and at + _ogg_page_bytes(tail, at) != len(tail):
        at = tail.rfind(_OGG_PAGE, 0, at + len(_OGG_PAGE) - 1)
    ends_stream = at >= 0 and tail[at + 5] & _OGG_END_OF_STREAM
    return Measure(completeness=Completeness.COMPLETE if ends_stream else Completeness.UNKNOWN)


def _ogg_page_bytes(tail: bytes, at: int) -> int:
    """Return the length of a page from its table of segments, or 0 when even its header is cut."""
    table = at + _OGG_HEADER_BYTES
    if table > len(tail):
        return 0
    segments = tail[table - 1]
    return _OGG_HEADER_BYTES + segments + sum(tail[table : table + segments])


def _measure_flac(window: Window) -> Measure:
    if int.from_bytes(window.read(4, 4), "big") & 0x7FFFFFFF != _FLAC_STREAMINFO_BYTES:
        raise MalformedError
    # 20 bits of sample rate, 8 of channels and depth, 36 of sample count (zero while unknown).
    packed = int.from_bytes(window.read(8, _FLAC_STREAMINFO_BYTES)[10:18], "big")
    duration_s = seconds(packed & 0xF_FFFFFFFF, packed >> 44)
    return Measure(completeness=Completeness.UNKNOWN, duration_s=duration_s)


def _measure_id3(window: Window) -> Measure:
    tag_bytes = 0
    for seven_bits in window.read(6, 4):
        tag_bytes = tag_bytes << 7 | seven_bits & 0x7F
    if _ID3_HEADER_BYTES + tag_bytes > window.size:
        raise PastEndError
    return Measure(completeness=Completeness.UNKNOWN)


def _is_layer_3_frame(start: bytes) -> bool:
    """Tell MPEG layer III from other bytes that begin with 0xFF, such as a UTF-16 mark or AAC."""
    if len(start) < _MPEG_HEADER_BYTES or start[0] != _MPEG_SYNC or start[1] not in _MPEG_LAYER_3:
        return False
    bit_rate, sample_rate = start[2] >> 4, start[2] >> 2 & 0x03
    return bit_rate not in _MPEG_NO_BIT_RATE and sample_rate != _MPEG_NO_SAMPLE_RATE
