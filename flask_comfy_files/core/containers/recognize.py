"""Recognizing content: the first family whose signature fits reads the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.containers.audio import read_flac, read_mp3, read_ogg
from flask_comfy_files.core.containers.declared import read_glb, read_safetensors
from flask_comfy_files.core.containers.facts import Completeness, unrecognized
from flask_comfy_files.core.containers.images import (
    read_exr,
    read_gif,
    read_jpeg,
    read_png,
    read_svg,
)
from flask_comfy_files.core.containers.isobmff import read_isobmff
from flask_comfy_files.core.containers.matroska import read_matroska
from flask_comfy_files.core.containers.riff import read_riff
from flask_comfy_files.core.containers.window import PastEndError, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask_comfy_files.core.containers.facts import ContainerFacts

_HEAD_BYTES: Final = 4096
"""Every signature lies in the first few bytes; only SVG may open with comments and declarations."""

# Firm signatures first; safetensors and MP3 frames, which are guesses from few bits, last.
_READERS: Final[tuple[Callable[[Window, bytes], ContainerFacts | None], ...]] = (
    read_png,
    read_isobmff,
    read_riff,
    read_matroska,
    read_jpeg,
    read_gif,
    read_ogg,
    read_flac,
    read_glb,
    read_exr,
    read_svg,
    read_safetensors,
    read_mp3,
)


def read_facts(descriptor: int, size: int) -> ContainerFacts:
    """Return what the bytes of an open file say, whatever they are.

    No content makes it raise, and none makes it read more than 96 KiB (safetensors 1 MiB more).
    Only ``os.pread`` is used: the descriptor's offset stays, so threads may share it. The end is
    looked at, never the middle, so ``COMPLETE`` does not mean undamaged; and about a file that is
    still being written it says nothing, so check afterwards that size and times are the same.

    An empty file is cut short: ComfyUI leaves files at size 0 under their final name while it
    works.

    Args:
        descriptor: An open regular file.
        size: Its size in bytes, as ``os.fstat`` says.

    Raises:
        OSError: The disk failed, or the descriptor cannot be read from.
    """
    if size == 0:
        return unrecognized(Completeness.CUT_SHORT)
    window = Window(descriptor, size)
    try:
        head = window.read(0, min(size, _HEAD_BYTES))
    except PastEndError:
        # It has shrunk since its size was taken: somebody is at work on it.
        return unrecognized(Completeness.CUT_SHORT)
    answers = (read(window, head) for read in _READERS)
    found = next((answer for answer in answers if answer is not None), None)
    return found or unrecognized(Completeness.UNKNOWN)
