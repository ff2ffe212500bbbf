"""A small picture of a file: of an image, or of a frame of a video.

Any file may be hostile: the rule of this folder is that nothing is decoded before its header has said how large
it is, that a file is read through a ``Source`` only, which limits bytes and time, and that whatever a decoder
raises ends as a ``NoPictureError``. Pillow and PyAV are imported by the one module that needs each.
"""

from flask_comfy_files.core.pictures.drawing import MEDIA_TYPE, draw
from flask_comfy_files.core.pictures.placeholder import PLACEHOLDER_MEDIA_TYPE, placeholder
from flask_comfy_files.core.pictures.source import NoPicture, NoPictureError

__all__ = [
    "MEDIA_TYPE",
    "PLACEHOLDER_MEDIA_TYPE",
    "NoPicture",
    "NoPictureError",
    "draw",
    "placeholder",
]
