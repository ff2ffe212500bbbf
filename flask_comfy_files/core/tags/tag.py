"""Which job a file says it belongs to, and which graph it says made it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from flask_comfy_files.core.containers.window import BudgetSpentError, MalformedError, PastEndError
from flask_comfy_files.core.errors import InvalidIdentifierError
from flask_comfy_files.core.layout import require_identifier
from flask_comfy_files.core.tags.audio import iter_flac_texts, iter_mp3_texts, iter_ogg_texts
from flask_comfy_files.core.tags.declared import iter_glb_texts, iter_safetensors_texts
from flask_comfy_files.core.tags.images import (
    iter_exr_texts,
    iter_png_texts,
    iter_svg_texts,
    iter_webp_texts,
)
from flask_comfy_files.core.tags.json_text import parse_object
from flask_comfy_files.core.tags.source import Source
from flask_comfy_files.core.tags.video import iter_isobmff_texts, iter_matroska_texts

KEY: Final = "comfy_files"
"""The key of ``extra_pnginfo`` under which stamping puts the tag."""

_GRAPH_KEY: Final = "prompt"

_IterTexts = Callable[[Source, str], Iterator[bytes]]

_READERS: Final[Mapping[str, _IterTexts]] = MappingProxyType(
    {
        **dict.fromkeys((".png", ".apng"), iter_png_texts),
        ".webp": iter_webp_texts,
        ".svg": iter_svg_texts,
        ".exr": iter_exr_texts,
        **dict.fromkeys((".mp4", ".m4v", ".m4a", ".mov"), iter_isobmff_texts),
        **dict.fromkeys((".mkv", ".webm"), iter_matroska_texts),
        ".flac": iter_flac_texts,
        **dict.fromkeys((".opus", ".ogg", ".oga"), iter_ogg_texts),
        ".mp3": iter_mp3_texts,
        ".glb": iter_glb_texts,
        **dict.fromkeys((".latent", ".safetensors"), iter_safetensors_texts),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """What stamping embeds in a file, as the file says it; every id is a valid one.

    Attributes:
        job_id: The job for which the graph was queued.
        project_id: Its project, or ``None`` when none was given.
        run: The run's folder in the job's inbox, or ``None``.
    """

    job_id: str
    project_id: str | None
    run: str | None


def read_tag(descriptor: int, size: int, extension: str, *, key: str = KEY) -> Tag | None:
    """Return the tag in an open file, or ``None`` when it has none that can be relied on.

    No tag is relied on that is no JSON object, holds an invalid id, or stands beside a different
    one. A fault in the file ends the search; what was found before it counts. No content makes it
    raise, and none makes it read more than 4 MiB, in 20,000 reads, or unpack more than 1 MiB at a
    time. Only ``os.pread`` is used: the descriptor's offset stays, so threads may share it. A
    re-run from ComfyUI's cache leaves the tag of the job that made the file.

    Args:
        descriptor: An open regular file.
        size: Its size in bytes, as ``os.fstat`` says.
        extension: As ``media.extension_of`` spells it. GIF, JPEG, AVIF, WAV, text and whatever
            else ComfyUI embeds nothing in have no tag.
        key: The key of ``extra_pnginfo``.

    Raises:
        OSError: The disk failed, or the descriptor cannot be read from.
    """
    tags = {_tag_of(text) for text in _texts(descriptor, size, extension, key)}
    return tags.pop() if len(tags) == 1 else None


def read_graph(descriptor: int, size: int, extension: str) -> dict[str, Any] | None:
    """Return the graph that made an open file, in ComfyUI's API format: nodes by their id.

    ``None`` when there is none, it has more than 1 MiB of JSON, or different ones are there. That
    it is a JSON object is all that is checked. Reads as little, and raises as seldom, as
    ``read_tag`` does, from the same formats.

    Raises:
        OSError: The disk failed, or the descriptor cannot be read from.
    """
    texts = _texts(descriptor, size, extension, _GRAPH_KEY)
    return parse_object(texts.pop()) if len(texts) == 1 else None


def _texts(descriptor: int, size: int, extension: str, key: str) -> set[bytes]:
    found: set[bytes] = set()
    reader = _READERS.get(extension)
    if reader is not None:
        with contextlib.suppress(PastEndError, MalformedError, BudgetSpentError):
            # Not ``update``, which promises nothing about the texts before a fault.
            for text in reader(Source(descriptor, size), key):
                found.add(text)
    return found


def _tag_of(text: bytes) -> Tag | None:
    found = parse_object(text)
    if found is None:
        return None
    try:
        return Tag(
            job_id=require_identifier("job_id", found.get("job_id")),
            project_id=_optional_identifier("project_id", found),
            run=_optional_identifier("run", found),
        )
    except InvalidIdentifierError:
        return None


def _optional_identifier(field: str, found: Mapping[str, object]) -> str | None:
    value = found.get(field)
    return None if value is None else require_identifier(field, value)
