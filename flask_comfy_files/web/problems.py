"""Errors as ``application/problem+json`` (RFC 9457): the one table, the one handler, the one body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from flask import Response
from werkzeug.exceptions import HTTPException

from flask_comfy_files.core import errors

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class MalformedBodyError(errors.InvalidInputError):
    """A request body is not what the endpoint takes; ``messages`` are by field."""

    code = "invalid_body"
    template = "{summary}"

    def __init__(self, summary: str, messages: Mapping[str, Any]) -> None:
        """Take the sentence that says what is wrong, and the same by field."""
        errors.ComfyFilesError.__init__(self, summary, messages)
        self.summary, self.messages = summary, messages


class MalformedJsonError(MalformedBodyError):
    """A request body is no JSON at all."""

    code = "invalid_json"


STATUS: Final[Mapping[type[errors.ComfyFilesError], HTTPStatus]] = {
    errors.ComfyFilesError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    MalformedJsonError: HTTPStatus.BAD_REQUEST,
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    errors.ConflictError: HTTPStatus.CONFLICT,
    errors.BusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.IntegrityError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.OutOfSpaceError: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.AccessError: HTTPStatus.FORBIDDEN,
    errors.TokenRequiredError: HTTPStatus.UNAUTHORIZED,
    errors.MissingExtraError: HTTPStatus.NOT_IMPLEMENTED,
    errors.UpstreamError: HTTPStatus.BAD_GATEWAY,
}
"""Which family of errors answers with which status; the nearest base class decides."""

_HEADERS: Final[Mapping[type[errors.ComfyFilesError], Mapping[str, str]]] = {
    errors.BusyError: {"Retry-After": "1"},
    errors.StorageError: {"Retry-After": "30"},
    errors.TokenRequiredError: {"WWW-Authenticate": 'Bearer realm="comfy_files"'},
}


def status_of(error: errors.ComfyFilesError) -> HTTPStatus:
    """Return the status with which an error is answered."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def as_json(answer: Mapping[str, Any]) -> bytes:
    """Return an answer as JSON; bytes of a name that are not UTF-8 are escaped as lone surrogates."""
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def answer_error(error: errors.ComfyFilesError) -> Response:
    """Answer an error of the library."""
    status = status_of(error)
    extra: dict[str, Any] = {}
    if isinstance(error, MalformedBodyError):
        extra["errors"] = error.messages
    elif isinstance(error, errors.InvalidInputError):
        extra["errors"] = {error.field: [f"{error.value} {error.problem}."]}
    elif isinstance(error, errors.AmbiguousNameError):
        extra["candidates"] = list(error.candidates)
    headers = next((_HEADERS[kind] for kind in type(error).__mro__ if kind in _HEADERS), {})
    return _problem(status, error.code, str(error), headers=headers, extra=extra)


def answer_http_error(error: HTTPException) -> Response:
    """Answer what Flask itself refuses, with its headers (``Allow``, ``Retry-After``) as they are."""
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    # Werkzeug's name of it: that of http.HTTPStatus is not the same in all versions of Python.
    code = error.name.lower().replace(" ", "_")
    response = _problem(status, code, error.description or status.description)
    kept = [(key, value) for key, value in error.get_headers() if key.lower() != "content-type"]
    response.headers.extend(kept)
    return response


def _problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] = _NOTHING,
    extra: Mapping[str, Any] = _NOTHING,
) -> Response:
    body: dict[str, Any] = {
        "type": f"urn:comfy-files:error:{code}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        **extra,
    }
    response = Response(as_json(body), status, mimetype="application/problem+json")
    response.headers.extend(headers)
    return response
