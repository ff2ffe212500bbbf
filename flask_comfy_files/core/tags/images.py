"""Texts in PNG and APNG, WebP, SVG and OpenEXR.

Sources: PNG third edition (W3C), section 11.3.3, and ComfyUI's ``comf`` chunk, which is a ``tEXt``
behind the pixels (``SaveAnimatedPNG``); RFC 9649 for WebP and TIFF 6.0 for its EXIF, where ComfyUI
writes ``key:json`` into whatever ASCII fields come next (``SaveAnimatedWEBP``); the ``metadata``
element of ``SaveSVGNode``; "OpenEXR File Layout".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from flask_comfy_files.core.containers.window import MalformedError
from flask_comfy_files.core.tags.json_text import LONGEST_JSON, iter_texts_in, parse_object
from flask_comfy_files.core.tags.source import Source

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"comf"})

_RIFF_HEADER_BYTES: Final = 12
_EXIF_PREFIX: Final = b"Exif\0\0"
_TIFF_BYTE_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_ASCII: Final = 2
_TIFF_ENTRY_BYTES: Final = 12
_TIFF_MOST_ENTRIES: Final = 1000

_SVG_CDATA: Final = b"<![CDATA["
_SVG_CDATA_END: Final = b"]]>"
_SVG_METADATA: Final = b"<metadata>"
_SVG_INDENT_BYTES: Final = 64

_EXR_SIGNATURE: Final = b"\x76\x2f\x31\x01"
_EXR_HEADER_BYTES: Final = 8
_EXR_ATTRIBUTE_HEAD_BYTES: Final = 2 * 256 + 4
"""A name and a type of up to 255 characters, each with its NUL, and the size of the value."""


def iter_png_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the texts under a keyword; one whose checksum is wrong ends the search."""
    if source.read(0, 8) != _PNG_SIGNATURE:
        return
    wanted = key.encode() + b"\0"
    offset, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", source.read(offset, 8))
        if kind in _PNG_TEXTS and source.read(offset + 8, len(wanted)) == wanted:
            content = source.read(offset + 8, length)
            if source.read(offset + 8 + length, 4) != struct.pack(">I", zlib.crc32(kind + content)):
                raise MalformedError
            yield _png_text(source, kind, content[len(wanted) :])
        offset += 12 + length


def _png_text(source: Source, kind: bytes, content: bytes) -> bytes:
    if kind == b"iTXt":
        # Two bytes about compression, then the language, the translated keyword and the text.
        if content.count(b"\0", 2) < 2:  # noqa: PLR2004 - one behind each of the first two
            raise MalformedError
        text = content[2:].split(b"\0", 2)[2]
        return source.unpack(text) if content[:1] == b"\1" else text
    text = source.unpack(content[1:]) if kind == b"zTXt" else content
    return text.decode("latin-1").encode()


def iter_webp_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the texts of the ASCII fields of the EXIF chunk that begin with ``key:``."""
    form = source.read(0, _RIFF_HEADER_BYTES)
    if form[:4] != b"RIFF" or form[8:] != b"WEBP":
        return
    offset = _RIFF_HEADER_BYTES
    while offset < source.size:
        kind, length = struct.unpack("<4sI", source.read(offset, 8))
        if kind == b"EXIF":
            yield from _iter_exif_texts(source, offset + 8, offset + 8 + length, key)
        offset += 8 + length + length % 2


def _iter_exif_texts(source: Source, start: int, end: int, key: str) -> Iterator[bytes]:
    if source.read(start, len(_EXIF_PREFIX)) == _EXIF_PREFIX:
        start += len(_EXIF_PREFIX)
    order = _TIFF_BYTE_ORDERS.get(source.read(start, 4))
    if order is None:
        raise MalformedError
    directory = start + struct.unpack(order + "I", source.read(start + 4, 4))[0]
    entries = min(struct.unpack(order + "H", source.read(directory, 2))[0], _TIFF_MOST_ENTRIES)
    table = source.read(directory + 2, entries * _TIFF_ENTRY_BYTES)
    wanted = key.encode() + b":"
    for _, kind, length, at in struct.iter_unpack(order + "HHII", table):
        if kind != _TIFF_ASCII or length < len(wanted):
            # Up to four bytes stand in the entry itself, where others have their offset.
            continue
        if start + at + length > end:
            raise MalformedError
        if source.read(start + at, len(wanted)) == wanted:
            yield source.read(start + at, length)[len(wanted) :].rstrip(b"\0")


def iter_svg_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the texts of the JSON objects that open a ``metadata`` element, in the first 1 MiB."""
    drawing = source.read(0, min(source.size, LONGEST_JSON))
    at = drawing.find(_SVG_CDATA)
    while at >= 0 and (end := drawing.find(_SVG_CDATA_END, at)) >= 0:
        if drawing[max(0, at - _SVG_INDENT_BYTES) : at].rstrip().endswith(_SVG_METADATA):
            yield from iter_texts_in(parse_object(drawing[at + len(_SVG_CDATA) : end]), key)
        at = drawing.find(_SVG_CDATA, end)


def iter_exr_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the string attribute of the (first) header that has this name."""
    if source.read(0, len(_EXR_SIGNATURE)) != _EXR_SIGNATURE:
        return
    offset = _EXR_HEADER_BYTES
    while True:
        head = source.read(offset, min(_EXR_ATTRIBUTE_HEAD_BYTES, max(1, source.size - offset)))
        if head[0] == 0:
            return
        name, kind = _split_exr_head(head)
        value = offset + len(name) + len(kind) + 6
        length = int.from_bytes(source.read(value - 4, 4), "little")
        if name == key.encode() and kind == b"string":
            yield source.read(value, length)
        offset = value + length


def _split_exr_head(head: bytes) -> tuple[bytes, bytes]:
    if head.count(b"\0") < 2:  # noqa: PLR2004 - one behind the name, one behind the type
        raise MalformedError
    name, kind, _ = head.split(b"\0", 2)
    return name, kind
