"""Serving the bytes of a file, so that nothing in them is ever run by a browser."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from http import HTTPStatus
from io import BufferedReader
from typing import Final
from urllib.parse import quote

from flask import Response, request, send_file
from werkzeug.exceptions import PreconditionFailed, RequestedRangeNotSatisfiable

from flask_comfy_files.config import Settings
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.media import extension_of, media_type_of
from flask_comfy_files.core.names import Content
from flask_comfy_files.core.opening import opened
from flask_comfy_files.web.conditional import heed_conditions

_SHOWN: Final = ("image/", "video/", "audio/", "text/plain")
_ACTIVE: Final = frozenset({"image/svg+xml"})


def send(settings: Settings, content: Content, *, as_download: bool = False) -> Response:
    """Answer a file's bytes: whole or in ranges, with a strong ETag, or 304 where the client has them.

    The file is opened once and over no link. Its ETag is its checksum while it has the size that was
    recorded, else what the system says of it. Images, videos and sound are shown; whatever could hold a
    script is offered as a download, as is everything where that is wanted.

    With ``X_ACCEL_PREFIX`` the same is checked, and nginx is told to send the bytes, whole or in ranges.

    Raises:
        NameNotFoundError: It is gone, or no regular file any more.
        StorageError: The server's user may not read it.
    """
    with opened(settings.output_dir, content.path) as descriptor:
        source = os.fdopen(os.dup(descriptor), "rb")
    length = os.fstat(source.fileno()).st_size
    response = _describe(content, source, as_download=as_download)
    # Nginx would compare If-Match with an ETag of its own.
    prefix = None if request.if_match else settings.x_accel_prefix
    try:
        heed_conditions(response, accept_ranges=prefix is None, complete_length=length)
    except (PreconditionFailed, RequestedRangeNotSatisfiable):
        source.close()
        raise
    is_handed_over = prefix is not None and response.status_code == HTTPStatus.OK
    if is_handed_over:
        response.direct_passthrough = False
        response.set_data(b"")
        response.headers["X-Accel-Redirect"] = f"{prefix}{quote(os.fsencode(content.path))}"
    if (
        is_handed_over
        or request.method == "HEAD"
        or response.status_code == HTTPStatus.NOT_MODIFIED
    ):
        source.close()  # nobody reads it, and so nobody would close it
    return response


def forbid_scripts(response: Response) -> None:
    """Keep a browser from running what is answered, and from taking it for something else."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"


def _describe(content: Content, source: BufferedReader, *, as_download: bool) -> Response:
    """Return the answer with its headers, to which no condition was put yet."""
    facts = os.fstat(source.fileno())
    record = content.record
    name = split(content.path if record is None else record.original_path)[1]
    media_type = media_type_of(extension_of(name)) if record is None else record.media_type
    is_recorded = record is not None and record.file_size == facts.st_size
    identity = f"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}"
    response = send_file(
        source,
        mimetype=media_type,
        as_attachment=as_download or not media_type.startswith(_SHOWN) or media_type in _ACTIVE,
        download_name=_printable(name),
        conditional=False,
        etag=record.checksum if record is not None and is_recorded else identity,
        last_modified=datetime.fromtimestamp(facts.st_mtime, UTC),
    )
    response.content_length = facts.st_size
    forbid_scripts(response)
    return response


def _printable(name: str) -> str:
    """Return a name that a header can hold."""
    readable = name.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else "_" for character in readable)
