"""Which decoder draws a file: by what its bytes say, and by its name only where they say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flask_comfy_files.core.containers import read_facts
from flask_comfy_files.core.errors import MissingExtraError
from flask_comfy_files.core.pictures.posters import draw_poster
from flask_comfy_files.core.pictures.source import (
    NoPicture,
    NoPictureError,
    Source,
    require_decodable,
)
from flask_comfy_files.core.pictures.stills import draw_still

MEDIA_TYPE: Final = "image/webp"
"""Of every picture: with transparency, and half the size of the same in PNG or JPEG."""

_STILLS: Final = frozenset(
    {".apng", ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
_HELD_SEVERAL_TIMES: Final = frozenset({".avif", ".webp"})
"""Their decoders keep about four copies of all pixels in memory, so that they get a fourth of the pixels."""

_DEMUXERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".avi": "avi",
        ".m4v": "mov",
        ".mkv": "matroska",
        ".mov": "mov",
        ".mp4": "mov",
        ".webm": "matroska",
    }
)
"""FFmpeg's names of what reads a kind of video."""


def draw(descriptor: int, file_size: int, extension: str, side: int) -> bytes:
    """Return an open file as a small picture of ``MEDIA_TYPE``, its longer side ``side`` pixels or less.

    Args:
        descriptor: An open regular file; its offset stays.
        file_size: Its bytes.
        extension: That of its name, as ``media.extension_of`` spells it.
        side: Pixels; a picture is never made larger than the file's.

    Raises:
        NoPictureError: There is none.
        MissingExtraError: The package that would draw it is not installed.
    """
    try:
        return _draw(Source(descriptor, file_size), extension, side)
    except (NoPictureError, MissingExtraError):
        raise
    except Exception as error:
        raise NoPictureError(NoPicture.UNREADABLE) from error


def _draw(source: Source, extension: str, side: int) -> bytes:
    facts = read_facts(source.descriptor, source.size)
    kinds = facts.extensions or {extension}
    copies = 4 if kinds & _HELD_SEVERAL_TIMES else 1
    require_decodable((facts.width or 0) * copies, facts.height or 0)
    if kinds & _STILLS:
        return draw_still(source, side)
    demuxers = {_DEMUXERS[kind] for kind in kinds if kind in _DEMUXERS}
    # An ".m4a" and a ".mka" have the bytes of a video without pictures: their name decides.
    if demuxers and extension in _DEMUXERS:
        return draw_poster(source, min(demuxers), side)
    raise NoPictureError(NoPicture.NO_PICTURE)
