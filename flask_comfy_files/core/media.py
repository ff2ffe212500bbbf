"""What a file's name says about it: type, media type, and an extension that is safe to reuse.

Nothing here opens a file; what the bytes say is the subject of ``containers``. The table covers
every extension that ComfyUI's own save nodes and the common custom ones write. ``mimetypes`` is no
substitute: it reads tables of the operating system, so its answer differs between machines, and for
half of these extensions it has none.
"""

from __future__ import annotations

import os.path
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from flask_comfy_files.core.records import FileType

if TYPE_CHECKING:
    from collections.abc import Mapping

_OCTET_STREAM: Final = "application/octet-stream"
_UNKNOWN: Final = (FileType.OTHER, _OCTET_STREAM)

MEDIA: Final[Mapping[str, tuple[FileType, str]]] = MappingProxyType(
    {
        ".apng": (FileType.IMAGE, "image/apng"),
        ".avif": (FileType.IMAGE, "image/avif"),
        ".bmp": (FileType.IMAGE, "image/bmp"),
        ".exr": (FileType.IMAGE, "image/x-exr"),
        ".hdr": (FileType.IMAGE, "image/vnd.radiance"),
        ".heic": (FileType.IMAGE, "image/heic"),
        ".heif": (FileType.IMAGE, "image/heif"),
        ".j2k": (FileType.IMAGE, "image/j2k"),
        ".jfif": (FileType.IMAGE, "image/jpeg"),
        ".jp2": (FileType.IMAGE, "image/jp2"),
        ".jpeg": (FileType.IMAGE, "image/jpeg"),
        ".jpg": (FileType.IMAGE, "image/jpeg"),
        ".jxl": (FileType.IMAGE, "image/jxl"),
        ".png": (FileType.IMAGE, "image/png"),
        ".svg": (FileType.IMAGE, "image/svg+xml"),
        ".tif": (FileType.IMAGE, "image/tiff"),
        ".tiff": (FileType.IMAGE, "image/tiff"),
        ".webp": (FileType.IMAGE, "image/webp"),
        ".gif": (FileType.GIF, "image/gif"),
        ".avi": (FileType.VIDEO, "video/x-msvideo"),
        ".m4v": (FileType.VIDEO, "video/x-m4v"),
        ".mkv": (FileType.VIDEO, "video/x-matroska"),
        ".mov": (FileType.VIDEO, "video/quicktime"),
        ".mp4": (FileType.VIDEO, "video/mp4"),
        ".webm": (FileType.VIDEO, "video/webm"),
        ".aac": (FileType.AUDIO, "audio/aac"),
        ".flac": (FileType.AUDIO, "audio/flac"),
        ".m4a": (FileType.AUDIO, "audio/mp4"),
        ".mp3": (FileType.AUDIO, "audio/mpeg"),
        ".oga": (FileType.AUDIO, "audio/ogg"),
        ".ogg": (FileType.AUDIO, "audio/ogg"),
        ".opus": (FileType.AUDIO, "audio/ogg"),
        ".wav": (FileType.AUDIO, "audio/wav"),
        ".fbx": (FileType.MODEL_3D, _OCTET_STREAM),
        ".glb": (FileType.MODEL_3D, "model/gltf-binary"),
        ".gltf": (FileType.MODEL_3D, "model/gltf+json"),
        ".ksplat": (FileType.MODEL_3D, _OCTET_STREAM),
        ".obj": (FileType.MODEL_3D, "model/obj"),
        ".ply": (FileType.MODEL_3D, _OCTET_STREAM),
        ".splat": (FileType.MODEL_3D, _OCTET_STREAM),
        ".spz": (FileType.MODEL_3D, _OCTET_STREAM),
        ".stl": (FileType.MODEL_3D, "model/stl"),
        ".usdz": (FileType.MODEL_3D, "model/vnd.usdz+zip"),
        ".caption": (FileType.TEXT, "text/plain"),
        ".csv": (FileType.TEXT, "text/csv"),
        ".json": (FileType.TEXT, "application/json"),
        ".md": (FileType.TEXT, "text/markdown"),
        ".txt": (FileType.TEXT, "text/plain"),
        ".yaml": (FileType.TEXT, "application/yaml"),
        ".yml": (FileType.TEXT, "application/yaml"),
        ".latent": (FileType.LATENT, _OCTET_STREAM),
        ".npz": (FileType.LATENT, _OCTET_STREAM),
        ".pkl": (FileType.LATENT, _OCTET_STREAM),
        ".safetensors": (FileType.LATENT, _OCTET_STREAM),
    }
)
"""File type and media type by extension (lower case, with its dot).

HTML is left out on purpose: as ``application/octet-stream`` no browser runs it.
"""

# Case is spelled out instead of ``re.IGNORECASE``, which takes the Kelvin sign for a "k".
_PLAIN_EXTENSION: Final = re.compile(r"\.[A-Za-z0-9]{1,16}")


def extension_of(name: str) -> str:
    """Return the extension of a file name, in lower case and with its dot, or an empty string.

    Only plain extensions count: 1 to 16 ASCII letters and digits. Anything else (spaces, quotes,
    other scripts, control characters) gives an empty string, so the result may become part of a new
    file name as it is.

    Args:
        name: A file name or a path; only the last component counts, and its leading dots begin no
            extension.
    """
    # ``PurePath.suffix`` answers otherwise for "..png", and for "a." from Python 3.14 on.
    extension = os.path.splitext(name)[1]  # noqa: PTH122
    return extension.lower() if _PLAIN_EXTENSION.fullmatch(extension) else ""


def file_type_of(extension: str) -> FileType:
    """Return the type for this extension, as ``extension_of`` spells it; ``OTHER`` when unknown."""
    return MEDIA.get(extension, _UNKNOWN)[0]


def media_type_of(extension: str) -> str:
    """Return the MIME type for this extension, as ``extension_of`` spells it.

    An unknown or empty extension is ``application/octet-stream``, which a browser offers for
    download and never runs. ``.svg`` is active content all the same (``image/svg+xml``): serve it
    as an attachment.
    """
    return MEDIA.get(extension, _UNKNOWN)[1]
