"""Serving the bytes of a file, so that nothing in them is ever run by a browser."""

from __future__ import annotations

from typing import Final

from flask import Response, send_from_directory

from flask_comfy_files.core.layout import split
from flask_comfy_files.core.media import extension_of, media_type_of
from flask_comfy_files.core.names import Content

_SHOWN: Final = ("image/", "video/", "audio/", "text/plain")
_ACTIVE: Final = frozenset({"image/svg+xml"})


def send(root: str, content: Content) -> Response:
    """Answer a file's bytes: whole or in ranges, with its checksum as ETag, or 304 where the client has them.

    Images, videos and sound are shown; whatever could hold a script is offered as a download.
    """
    record = content.record
    name = split(content.path if record is None else record.original_path)[1]
    media_type = media_type_of(extension_of(name)) if record is None else record.media_type
    is_shown = media_type.startswith(_SHOWN) and media_type not in _ACTIVE
    response = send_from_directory(
        root,
        content.path,
        mimetype=media_type,
        as_attachment=not is_shown,
        download_name=name.encode("utf-8", "replace").decode(),
        conditional=True,
        etag=True if record is None else record.checksum,
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response
