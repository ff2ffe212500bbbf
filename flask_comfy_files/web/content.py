"""Serving the bytes of a file, so that nothing in them is ever run by a browser."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from flask import Response, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from flask_comfy_files.core import durable
from flask_comfy_files.core.errors import NameNotFoundError
from flask_comfy_files.core.layout import split
from flask_comfy_files.core.media import extension_of, media_type_of
from flask_comfy_files.core.names import Content

_SHOWN: Final = ("image/", "video/", "audio/", "text/plain")
_ACTIVE: Final = frozenset({"image/svg+xml"})


def send(root: str, content: Content, *, as_download: bool = False) -> Response:
    """Answer a file's bytes: whole or in ranges, with a strong ETag, or 304 where the client has them.

    The file is opened once and over no link. Its ETag is its checksum while it has the size that was
    recorded, else what the system says of it. Images, videos and sound are shown; whatever could hold a
    script is offered as a download, as is everything where that is wanted.

    Raises:
        NameNotFoundError: It is gone, or no regular file any more.
        StorageError: The server's user may not read it.
    """
    folder, name = split(content.path)
    with ExitStack() as stack:
        try:
            parent = stack.enter_context(durable.open_folder(root, folder))
            descriptor = os.dup(stack.enter_context(durable.open_regular(parent, name)))
        except PermissionError as error:
            durable.refuse("Reading", content.path, error)
        except OSError as error:
            raise NameNotFoundError(content.path) from error
    return _answer(content, descriptor, as_download=as_download)


def _answer(content: Content, descriptor: int, *, as_download: bool) -> Response:
    facts = os.fstat(descriptor)
    record = content.record
    name = split(content.path if record is None else record.original_path)[1]
    media_type = media_type_of(extension_of(name)) if record is None else record.media_type
    is_recorded = record is not None and record.file_size == facts.st_size
    identity = f"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}"
    source = os.fdopen(descriptor, "rb")
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
    try:
        response.make_conditional(
            request.environ, accept_ranges=True, complete_length=facts.st_size
        )
    except RequestedRangeNotSatisfiable:
        source.close()
        raise
    if request.method == "HEAD" or response.status_code == HTTPStatus.NOT_MODIFIED:
        source.close()  # nobody reads it, and so nobody would close it
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _printable(name: str) -> str:
    """Return a name that a header can hold."""
    readable = name.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else "_" for character in readable)
