"""Texts in binary glTF and safetensors (``.latent``), whose header is JSON of a declared length.

Sources: glTF 2.0, sections 4.4 (GLB) and 5.9 (``asset``); the "Format" section of the safetensors
README.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flask_comfy_files.core.tags.json_text import iter_texts_in, parse_object
from flask_comfy_files.core.tags.source import Source

_GLB_START: Final = b"glTF\x02\0\0\0"
_GLB_FIRST_CHUNK: Final = 12


def iter_glb_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the text under a key of the asset's extras."""
    if source.read(0, len(_GLB_START)) != _GLB_START:
        return
    chunk = source.read(_GLB_FIRST_CHUNK, 8)
    if chunk[4:] == b"JSON":
        match _object_at(source, _GLB_FIRST_CHUNK + 8, int.from_bytes(chunk[:4], "little")):
            case {"asset": {"extras": extras}}:
                yield from iter_texts_in(extras, key)


def iter_safetensors_texts(source: Source, key: str) -> Iterator[bytes]:
    """Yield the text under a key of ``__metadata__``."""
    match _object_at(source, 8, int.from_bytes(source.read(0, 8), "little")):
        case {"__metadata__": metadata}:
            yield from iter_texts_in(metadata, key)


def _object_at(source: Source, offset: int, length: int) -> object:
    return parse_object(source.read(offset, length))
