"""Formats whose header declares the whole length: binary glTF and safetensors (``.latent``).

Sources: glTF 2.0, section 4.4 (GLB); the "Format" section of the safetensors README.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.containers.facts import Completeness, Measure, measured
from flask_comfy_files.core.containers.window import MalformedError, PastEndError

if TYPE_CHECKING:
    from flask_comfy_files.core.containers.facts import ContainerFacts
    from flask_comfy_files.core.containers.window import Window

_GLB_STARTS: Final = (b"glTF\x01\x00\x00\x00", b"glTF\x02\x00\x00\x00")
"""With the version, lest a caption that begins with the word be taken for a model."""
_GLB_HEADER_BYTES: Final = 12

_LONGEST_TENSOR_HEADER: Final = 1024 * 1024
"""Bytes of JSON we are ready to parse; with a large workflow in it a header has some 100,000."""


def read_glb(window: Window, head: bytes) -> ContainerFacts | None:
    """Read binary glTF: complete when the file holds all bytes that the header declares."""
    if not head.startswith(_GLB_STARTS):
        return None
    return measured(frozenset({".glb"}), _measure_glb, window)


def read_safetensors(window: Window, head: bytes) -> ContainerFacts | None:
    """Read safetensors: complete when the file holds every tensor of its header.

    There is no signature. A length, a JSON object of that length, and an offset pair in each of its
    tensors are taken for one, so a file cut within the header is not recognized.
    """
    header_bytes = int.from_bytes(head[:8], "little")
    if header_bytes > _LONGEST_TENSOR_HEADER or head[8:9] != b"{":
        return None
    try:
        header = json.loads(window.with_budget(header_bytes).read(8, header_bytes))
        tensor_bytes = max((_tensor_end(entry) for entry in _tensors(header)), default=0)
    # Deeply nested JSON ends in a ``RecursionError``, not in a ``ValueError``.
    except (PastEndError, MalformedError, ValueError, RecursionError):
        return None
    whole = 8 + header_bytes + tensor_bytes <= window.size
    completeness = Completeness.COMPLETE if whole else Completeness.CUT_SHORT
    return measured(
        frozenset({".latent", ".safetensors"}), lambda _: Measure(completeness=completeness), window
    )


def _measure_glb(window: Window) -> Measure:
    length = int.from_bytes(window.read(8, 4), "little")
    if length < _GLB_HEADER_BYTES:
        raise MalformedError
    whole = length <= window.size
    return Measure(completeness=Completeness.COMPLETE if whole else Completeness.CUT_SHORT)


def _tensors(header: object) -> list[object]:
    if not isinstance(header, dict):
        raise MalformedError
    return [entry for name, entry in header.items() if name != "__metadata__"]


def _tensor_end(entry: object) -> int:
    """Return where a tensor ends, counted from the end of the header."""
    match entry:
        case {"data_offsets": [int(start), int(end)]} if 0 <= start <= end:
            return end
        case _:
            raise MalformedError
