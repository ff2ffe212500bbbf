"""Texts in MP4 and QuickTime, and in Matroska and WebM.

Sources: ISO/IEC 14496-12, sections 4.2 (boxes) and 8.11 (``meta``), and the chapter "Metadata" of
Apple's "QuickTime File Format" for ``keys`` and ``ilst``; RFC 8794 (EBML), sections 4 to 6, and RFC
9559 (Matroska), section 5.1.8, for ``SimpleTag``, whose names ffmpeg writes in capitals.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from flask_comfy_files.core.containers.window import MalformedError, PastEndError
from flask_comfy_files.core.tags.source import Source

_BOX_HEADER_BYTES: Final = 8
_LONG_BOX_HEADER_BYTES: Final = 16
_KEYS_HEADER_BYTES: Final = 8
_MOST_KEYS: Final = 1000
_UTF_8: Final = 1

_EBML: Final = b"\x1a\x45\xdf\xa3"
_SIMPLE_TAG_PATH: Final = (b"\x18\x53\x80\x67", b"\x12\x54\xc3\x67", b"\x73\x73", b"\x67\xc8")
_TAG_NAME: Final = b"\x45\xa3"
_TAG_STRING: Final = b"\x44\x87"
_LONGEST_ELEMENT_ID: Final = 4
_LONGEST_ELEMENT_SIZE: Final = 8


class _Part(NamedTuple):
    kind: bytes
    start: int
    end: int


def iter_isobmff_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the texts of the metadata items of this name, as ``use_metadata_tags`` writes them."""
    if source.read(4, 4) != b"ftyp":
        return
    for metadata in _iter_metadata(source):
        # QuickTime's ``meta`` has no version, that of ISO has.
        bare = source.read(metadata.start + 4, 4) == b"hdlr"
        start = metadata.start + (0 if bare else 4)
        yield from _iter_item_texts(source, start, metadata.end, key.encode())


def _iter_metadata(source: Source) -> Iterator[_Part]:
    """Yield the ``meta`` boxes of the movie header, and of the user data in it."""
    for header in _iter_boxes(source, 0, source.size):
        if header.kind == b"moov":
            for part in _iter_boxes(source, header.start, header.end):
                if part.kind == b"meta":
                    yield part
                elif part.kind == b"udta":
                    inside = _iter_boxes(source, part.start, part.end)
                    yield from (box for box in inside if box.kind == b"meta")


def _iter_item_texts(source: Source, start: int, end: int, key: bytes) -> Iterator[bytes]:
    wanted: set[bytes] = set()
    for part in _iter_boxes(source, start, end):
        if part.kind == b"keys":
            wanted.update(_iter_item_kinds(source, part, key))
        elif part.kind == b"ilst":
            for item in _iter_boxes(source, part.start, part.end):
                if item.kind in wanted:
                    yield from _iter_utf_8(source, item)


def _iter_item_kinds(source: Source, keys: _Part, key: bytes) -> Iterator[bytes]:
    """Yield the kinds of the items of this name: a key's number, counted from 1, is their kind."""
    entries = _iter_boxes(source, keys.start + _KEYS_HEADER_BYTES, keys.end)
    for number, entry in zip(range(1, _MOST_KEYS + 1), entries, strict=False):
        is_as_long = entry.end - entry.start == len(key)
        if entry.kind == b"mdta" and is_as_long and source.read(entry.start, len(key)) == key:
            yield struct.pack(">I", number)


def _iter_utf_8(source: Source, item: _Part) -> Iterator[bytes]:
    for part in _iter_boxes(source, item.start, item.end):
        if part.kind == b"data" and source.read(part.start, 4) == struct.pack(">I", _UTF_8):
            yield source.read(part.start + 8, max(0, part.end - part.start - 8))


def _iter_boxes(source: Source, start: int, end: int) -> Iterator[_Part]:
    while start < end:
        size, kind = struct.unpack(">I4s", source.read(start, _BOX_HEADER_BYTES))
        header_bytes = _BOX_HEADER_BYTES
        if size == 0:
            size = end - start
        elif size == 1:
            size = int.from_bytes(source.read(start + _BOX_HEADER_BYTES, 8), "big")
            header_bytes = _LONG_BOX_HEADER_BYTES
        if size < header_bytes:
            raise MalformedError
        if start + size > end:
            raise PastEndError
        yield _Part(kind, start + header_bytes, start + size)
        start += size


def iter_matroska_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the texts of the simple tags of this name, in any case, whatever they are about."""
    if source.read(0, len(_EBML)) != _EBML:
        return
    wanted = key.lower().encode()
    for tag in _iter_simple_tags(source, 0, source.size, _SIMPLE_TAG_PATH):
        parts = list(_iter_elements(source, tag.start, tag.end))
        names = [part for part in parts if part.kind == _TAG_NAME]
        if any(_content(source, name, len(wanted)).lower() == wanted for name in names):
            for part in parts:
                if part.kind == _TAG_STRING:
                    yield _content(source, part, part.end - part.start).rstrip(b"\0")


def _iter_simple_tags(
    source: Source, start: int, end: int, path: tuple[bytes, ...]
) -> Iterator[_Part]:
    """Yield every element that lies in elements of these kinds, one within the other."""
    for element in _iter_elements(source, start, end):
        if element.kind == path[0]:
            inside = path[1:]
            if inside:
                yield from _iter_simple_tags(source, element.start, element.end, inside)
            else:
                yield element


def _content(source: Source, part: _Part, longest: int) -> bytes:
    """Return the bytes of an element, or none when there are more than were asked for."""
    length = part.end - part.start
    return source.read(part.start, length) if length <= longest else b""


def _iter_elements(source: Source, start: int, end: int) -> Iterator[_Part]:
    while start < end:
        element = _element_at(source, start, end)
        yield element
        start = element.end


def _element_at(source: Source, offset: int, end: int) -> _Part:
    longest = _LONGEST_ELEMENT_ID + _LONGEST_ELEMENT_SIZE
    raw = source.read(offset, min(longest, end - offset))
    id_length = _vint_length(raw, _LONGEST_ELEMENT_ID)
    size_length = _vint_length(raw[id_length:], _LONGEST_ELEMENT_SIZE)
    header_bytes = id_length + size_length
    if header_bytes > len(raw):
        raise PastEndError
    # The one bit that marks the length is no part of the size; a size of ones only is "unknown".
    value_bits = (1 << 7 * size_length) - 1
    size = int.from_bytes(raw[id_length:header_bytes], "big") & value_bits
    start = offset + header_bytes
    # A writer cut short leaves a segment longer than the file: what is there can be read.
    return _Part(raw[:id_length], start, end if size == value_bits else min(start + size, end))


def _vint_length(raw: bytes, longest: int) -> int:
    """Return how many bytes a variable-size integer has: one more than its leading zero bits."""
    if not raw:
        raise PastEndError
    length = 9 - raw[0].bit_length()
    if length > longest:
        raise MalformedError
    return length
