"""Images by Pillow: of an animation the first frame."""

from __future__ import annotations

import io
from types import ModuleType
from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.errors import MissingExtraError
from flask_comfy_files.core.pictures.source import (
    NoPicture,
    NoPictureError,
    Source,
    require_decodable,
)

if TYPE_CHECKING:
    from PIL.Image import Image

# Named, because Pillow would try all it knows: some of those run other programs (EPS) or are old
# and little read.
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")

_QUALITY: Final = 80
_EFFORT: Final = 2
"""Of 6: at 4, Pillow's own choice, the same picture takes twice as long and is hardly smaller."""

_GREY_16: Final = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
_UNBOUNDED: Final = frozenset({"I", "F"})
"""32 bits a pixel: nothing says which value is white."""


def require_pillow() -> ModuleType:
    """Return Pillow's module of images.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from PIL import Image  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingExtraError("A thumbnail", "media") from error
    return Image


def draw_still(source: Source, side: int) -> bytes:
    """Return an image as a small WebP whose longer side has at most so many pixels.

    Raises:
        NoPictureError: It is too large, or too slow to read.
        MissingExtraError: Pillow is not installed.
        Exception: Pillow cannot read it.
    """
    image = _open(source)
    require_decodable(*image.size)
    # Read at half, a quarter or an eighth of its size, where JPEG allows that.
    image.draft(None, (2 * side, 2 * side))
    image.load()
    from PIL import ImageOps  # noqa: PLC0415 - optional, and there since the image was opened

    ImageOps.exif_transpose(image, in_place=True)
    return encode(image, side)


def encode(image: Image, side: int) -> bytes:
    """Return a picture as a small WebP; one that is smaller keeps its size.

    Nothing but pixels is kept: the workflow that is embedded in an image is not everybody's.
    """
    span = _span(image)
    small = _resamplable(image)
    small.thumbnail((side, side), require_pillow().Resampling.LANCZOS, reducing_gap=2.0)
    if span is not None:
        small = _scaled(small, *span)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=_QUALITY, method=_EFFORT)
    return content.getvalue()


def _open(source: Source) -> Image:
    """Read an image's header.

    Raises:
        NoPictureError: By what it says, decoding it would fill the memory.
    """
    pillow = require_pillow()
    try:
        image: Image = pillow.open(source, formats=_FORMATS)
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise NoPictureError(NoPicture.TOO_LARGE) from error
    return image


def _span(image: Image) -> tuple[float, float] | None:
    """Return which values are black and white, where a channel has more than 8 bits."""
    if image.mode in _GREY_16:
        return 0.0, 65535.0
    if image.mode not in _UNBOUNDED:
        return None
    lowest, highest = (float(str(value)) for value in image.getextrema())
    return lowest, highest


def _resamplable(image: Image) -> Image:
    """Return an image in a form that can be made smaller; a large one is not copied without need."""
    if image.mode in _GREY_16:
        return image.convert("I")
    if image.mode in _UNBOUNDED | {"RGBA"}:
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(image: Image, black: float, white: float) -> Image:
    """Return an image of 32 bits in 8; Pillow's own conversion cuts off at 255, and nearly all would be white."""
    factor = 255 / (white - black) if white > black else 0.0
    scaled = image.convert("F").point(lambda value: value * factor - black * factor)
    return scaled.convert("L").convert("RGB")
