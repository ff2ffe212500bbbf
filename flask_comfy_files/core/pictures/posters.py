"""A frame of a video by PyAV, a little way in, and none that is black where another is near."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from flask_comfy_files.core.errors import MissingExtraError
from flask_comfy_files.core.pictures.source import (
    MOST_PIXELS,
    NoPicture,
    NoPictureError,
    Source,
)
from flask_comfy_files.core.pictures.stills import encode

if TYPE_CHECKING:
    from PIL.Image import Image

_PART: Final = 0.1
_LATEST_S: Final = 1.0
"""How far in: a tenth of the video, and never more than a second."""

_MOST_DECODED: Final = 120
"""Frames: a second at the highest rate that ComfyUI's savers offer, and a long wait for a key frame."""

_MOST_LOOKED_AT: Final = 24
_BLACK: Final = 16
"""Of 255 on average; it is black in video's own range."""

_MICROSECONDS: Final = 1_000_000  # in a second, the unit of a container's times (AV_TIME_BASE)


def draw_poster(source: Source, demuxer: str, side: int) -> bytes:
    """Return a frame of a video as a small WebP whose longer side has at most so many pixels.

    The demuxer is named, and never guessed from the content: some of those that FFmpeg would guess open other
    files, or addresses, that a file names (playlists).

    Raises:
        NoPictureError: It has too many pixels, no frames, or takes too long to read.
        MissingExtraError: PyAV or Pillow is not installed.
        Exception: PyAV cannot read it.
    """
    av = _require_av()
    # Given to the decoders too: the header of the container may say less than the bytes of a frame.
    limits = {"max_pixels": str(MOST_PIXELS)}
    with av.open(source, "r", format=demuxer, options=limits, metadata_errors="ignore") as film:
        return encode(_choose(_frames(film, source, limits), side), side)


def _require_av() -> ModuleType:
    try:
        import av  # noqa: PLC0415 - optional
        import PIL.Image  # noqa: F401, PLC0415 - likewise
    except ImportError as error:
        raise MissingExtraError("A thumbnail of a video", "video") from error
    return av


def _frames(film: Any, source: Source, limits: dict[str, str]) -> Iterator[Any]:
    """Yield the frames from a little way in; one that is too late ends them."""
    if not film.streams.video:
        raise NoPictureError(NoPicture.NO_PICTURE)
    stream = film.streams.video[0]
    decoder = stream.codec_context
    decoder.options = limits
    decoder.thread_count = 1  # as many pictures as may be made at the same time take as many cores
    begins_at = min(_LATEST_S, (film.duration or 0) / _MICROSECONDS * _PART)
    with contextlib.suppress(OSError, ValueError):  # without an index it is read from its beginning
        film.seek(int(begins_at * _MICROSECONDS))
    kept = None
    for number, frame in enumerate(film.decode(stream)):
        source.require_time()
        kept = frame
        if number >= _MOST_DECODED:
            break
        if frame.time is None or frame.time >= begins_at:
            yield frame
            kept = None
    if kept is not None:  # what there is of it ends before
        yield kept


def _choose(frames: Iterator[Any], side: int) -> Image:
    """Return the first frame that is not black, or the brightest of some.

    Raises:
        NoPictureError: There is none.
    """
    from PIL import ImageStat  # noqa: PLC0415 - optional

    best: tuple[float, Image] | None = None
    try:
        for number, frame in enumerate(frames):
            image = _as_image(frame, side)
            brightness = ImageStat.Stat(image.convert("L")).mean[0]
            if best is None or brightness > best[0]:
                best = brightness, image
            if brightness > _BLACK or number + 1 >= _MOST_LOOKED_AT:
                break
    except Exception:
        # What follows is damaged, or too much; the frames before it are frames all the same.
        if best is None:
            raise
    if best is None:
        raise NoPictureError(NoPicture.UNREADABLE)
    return best[1]


def _as_image(frame: Any, side: int) -> Image:
    """Return a frame at about the size that is wanted, and upright."""
    factor = min(1.0, 2 * side / max(frame.width, frame.height))
    width, height = (max(1, round(length * factor)) for length in (frame.width, frame.height))
    image: Image = frame.to_image(width=width, height=height)
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
