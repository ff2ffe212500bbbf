"""Answering thumbnails and archives, which we make ourselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

from flask import Response

from flask_comfy_files.core.archiving import MEDIA_TYPE, Archive
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.pictures import NoPicture
from flask_comfy_files.core.thumbnails import Thumbnail
from flask_comfy_files.web.conditional import heed_conditions
from flask_comfy_files.web.content import forbid_scripts

_log = logging.getLogger(__name__)

PLACEHOLDER_HEADER: Final = "X-Comfy-Files-Placeholder"
"""Says of a thumbnail that it is none, and why."""

_KEPT: Final = "private, max-age=3600"
"""What a file shows never changes; but who may see it may, so that no shared cache keeps it, and none for long."""

_PLACEHOLDER_KEPT: Final = "private, max-age=60"


def send_thumbnail(thumbnail: Thumbnail) -> Response:
    """Answer a thumbnail with its ETag, or 304 where the client has it."""
    response = Response(thumbnail.content, mimetype=thumbnail.media_type)
    forbid_scripts(response)
    response.headers["Cache-Control"] = _KEPT
    if thumbnail.placeholder is not None:
        response.headers[PLACEHOLDER_HEADER] = thumbnail.placeholder
        is_passing = thumbnail.placeholder in {NoPicture.BUSY, NoPicture.TOO_SLOW}
        response.headers["Cache-Control"] = "no-store" if is_passing else _PLACEHOLDER_KEPT
    response.set_etag(thumbnail.etag)
    return heed_conditions(response)


def send_archive(archive: Archive) -> Response:
    """Answer an archive piece by piece, with its size where that is known."""
    response = Response(_told(archive), mimetype=MEDIA_TYPE)
    if archive.size is not None:
        response.content_length = archive.size
    response.headers["Content-Disposition"] = f'attachment; filename="{archive.name}"'
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _told(archive: Archive) -> Iterator[bytes]:
    """Yield the pieces of an archive, and say in the log why it is broken off.

    Raising is what makes a server close the connection without the end, by which the client knows.
    """
    try:
        yield from archive
    except ComfyFilesError as error:
        _log.error("%s", error)
        raise
