"""Conditional requests (RFC 9110, 13): what the client has is not sent, and what it meant is not mistaken."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from werkzeug.exceptions import PreconditionFailed
from werkzeug.http import is_resource_modified, parse_range_header


def heed_conditions(response: Response, **ranges: Any) -> Response:
    """Return an answer that has an ETag as the request's conditions want it: whole, in part, or as 304.

    Werkzeug looks at ``Range`` before all conditions; here they come in the order of RFC 9110, 13.2.2.

    Raises:
        PreconditionFailed: The request is about another state of it (``If-Match``, ``If-Unmodified-Since``).
        RequestedRangeNotSatisfiable: It asks for a part that is not there.
    """
    if not _is_meant(response):
        raise PreconditionFailed
    environ = {key: value for key, value in request.environ.items() if key != "HTTP_IF_MATCH"}
    if not _is_part_wanted(response, environ):
        environ.pop("HTTP_RANGE", None)
    response.make_conditional(environ, **ranges)
    return response


def _is_meant(response: Response) -> bool:
    """Say whether a request is about this state of what it asks for."""
    if request.if_match:
        etag, is_weak = response.get_etag()
        return request.if_match.star_tag or (
            etag is not None and not is_weak and request.if_match.is_strong(etag)
        )
    since, modified_at = request.if_unmodified_since, response.last_modified
    return since is None or modified_at is None or modified_at <= since


def _is_part_wanted(response: Response, environ: dict[str, Any]) -> bool:
    """Say whether one part is asked for, in a way that we know, by a client that does not have all of it.

    Several parts, and what is no range of bytes, may be answered by the whole (RFC 9110, 14.2). An ``If-Range``
    that is weak meets nothing.
    """
    wanted = parse_range_header(environ.get("HTTP_RANGE"))
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return False
    if environ.get("HTTP_IF_RANGE", "").strip().startswith("W/"):
        return False
    return is_resource_modified(
        environ,
        response.headers.get("ETag"),
        last_modified=response.headers.get("Last-Modified"),
    )
