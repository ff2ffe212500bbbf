"""Texts in FLAC, Ogg with Opus or Vorbis, and MP3.

Sources: RFC 9639, section 8.6 (FLAC); RFC 3533 (Ogg pages); RFC 7845, section 5.2 (``OpusTags``);
the Vorbis comment specification of Xiph.Org; the ID3v2.3 and ID3v2.4 documents for ``TXXX``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flask_comfy_files.core.containers.window import MalformedError, PastEndError
from flask_comfy_files.core.tags.source import Source

_MOST_COMMENTS: Final = 1000

_FLAC_COMMENT_BLOCK: Final = 4
_FLAC_LAST_BLOCK: Final = 0x80

_OGG_PAGE: Final = b"OggS\0"
_OGG_HEADER_BYTES: Final = 27
_OGG_FULL_SEGMENT: Final = 255
"""A segment of this length says that the packet goes on in the next one."""
_OGG_COMMENT_HEADERS: Final = {b"OpusHead": b"OpusTags", b"\x01vorbis": b"\x03vorbis"}

_ID3_HEADER_BYTES: Final = 10
_ID3_PLAIN_SIZES, _ID3_SEVEN_BIT_SIZES = 3, 4
_ID3_ALTERED: Final = 0xC0
"""Header flags: bytes were inserted against false syncs, or an extended header follows."""
_ID3_CHANGED_FRAME: Final = {_ID3_PLAIN_SIZES: 0xE0, _ID3_SEVEN_BIT_SIZES: 0x4F}
"""Frame flags: compressed, encrypted, grouped, unsynchronised, or with a length before it."""
_ID3_ENCODINGS: Final = {
    b"\x00": "latin-1",
    b"\x01\xff\xfe": "utf-16-le",
    b"\x01\xfe\xff": "utf-16-be",
    b"\x02": "utf-16-be",
    b"\x03": "utf-8",
}


def iter_flac_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the values of the comments of this name, in any case."""
    if source.read(0, 4) != b"fLaC":
        return
    offset, kind = 4, 0
    while not kind & _FLAC_LAST_BLOCK:
        header = source.read(offset, 4)
        kind, length = header[0], int.from_bytes(header[1:], "big")
        if kind & ~_FLAC_LAST_BLOCK == _FLAC_COMMENT_BLOCK:
            yield from _iter_comments(source.read(offset + 4, length), key)
        offset += 4 + length


def iter_ogg_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the values of the comments of this name, in any case, in the stream that comes first."""
    packets = _iter_packets(source)
    first = next(packets)
    for mark, comment_mark in _OGG_COMMENT_HEADERS.items():
        if first.startswith(mark):
            comments = next(packets)
            if comments.startswith(comment_mark):
                yield from _iter_comments(comments[len(comment_mark) :], key)


def _iter_packets(source: Source) -> Iterator[bytes]:
    """Yield the packets of the stream to which the first page belongs, without end."""
    offset, serial, packet = 0, None, []
    while True:
        header = source.read(offset, _OGG_HEADER_BYTES)
        if not header.startswith(_OGG_PAGE):
            raise MalformedError
        lengths = source.read(offset + _OGG_HEADER_BYTES, header[-1])
        offset += _OGG_HEADER_BYTES + len(lengths)
        serial = serial or header[14:18]
        if header[14:18] == serial:
            body, at = source.read(offset, sum(lengths)), 0
            for length in lengths:
                packet.append(body[at : at + length])
                at += length
                if length < _OGG_FULL_SEGMENT:
                    yield b"".join(packet)
                    packet = []
        offset += sum(lengths)


def _iter_comments(block: bytes, key: str) -> Iterator[bytes]:
    wanted = key.lower().encode() + b"="
    at = 4 + _length_at(block, 0)
    count = min(_length_at(block, at), _MOST_COMMENTS)
    at += 4
    for _ in range(count):
        start, at = at + 4, at + 4 + _length_at(block, at)
        if at > len(block):
            raise PastEndError
        if block[start : start + len(wanted)].lower() == wanted:
            yield block[start + len(wanted) : at]


def _length_at(block: bytes, at: int) -> int:
    return int.from_bytes(block[at : at + 4], "little")


def iter_mp3_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the values of the ``TXXX`` frames of this description, of ID3v2.3 or 2.4 tags."""
    header = source.read(0, _ID3_HEADER_BYTES)
    version = header[3]
    if header[:3] != b"ID3" or version not in _ID3_CHANGED_FRAME or header[5] & _ID3_ALTERED:
        return
    wanted = {
        mark + (key + "\0").encode(encoding): encoding for mark, encoding in _ID3_ENCODINGS.items()
    }
    end = _ID3_HEADER_BYTES + _id3_size(header[6:], _ID3_SEVEN_BIT_SIZES)
    for start, length in _iter_user_texts(source, version, end):
        head = source.read(start, min(length, max(map(len, wanted))))
        for prefix, encoding in wanted.items():
            if head.startswith(prefix):
                content = source.read(start + len(prefix), length - len(prefix))
                # UTF-16 has its mark before the description and before the value.
                text = content.decode(encoding, errors="replace").lstrip("\ufeff")
                yield text.rstrip("\0").encode()


def _iter_user_texts(source: Source, version: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where the content of each ``TXXX`` frame starts, and its length."""
    offset = _ID3_HEADER_BYTES
    while offset < end:
        frame = source.read(offset, _ID3_HEADER_BYTES)
        if frame[0] == 0:
            return
        start, length = offset + len(frame), _id3_size(frame[4:8], version)
        offset = start + length
        if offset > end:
            raise MalformedError
        if frame[:4] == b"TXXX" and not frame[9] & _ID3_CHANGED_FRAME[version]:
            yield start, length


def _id3_size(raw: bytes, version: int) -> int:
    bits = 8 if version == _ID3_PLAIN_SIZES else 7
    size = 0
    for byte in raw:
        size = size << bits | byte & (1 << bits) - 1
    return size
