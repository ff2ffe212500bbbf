"""Conditional requests (RFC 9110, 13): what the client has is not sent, and what it meant is not mistaken."""

from __future__ import annotations

from typing import Any

from flask import Response, request
from werkzeug.exceptions import PreconditionFailed


def heed_conditions(response: Response, **ranges: Any) -> Response:
    """Return an answer that has an ETag as the request's conditions want it: whole, in part, or as 304.

    Raises:
        PreconditionFailed: The request is about another state of it (``If-Match``).
        RequestedRangeNotSatisfiable: It asks for a part that is not there.
    """
    response.make_conditional(request.environ, **ranges)
    if response.status_code == PreconditionFailed.code:
        raise PreconditionFailed
    return response
