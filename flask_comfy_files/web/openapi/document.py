"""The whole document: each route with its answers, its errors, an example of each, and the access it needs."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    PreconditionFailed,
    RequestedRangeNotSatisfiable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)

from flask_comfy_files.core import errors
from flask_comfy_files.core.errors import ComfyFilesError
from flask_comfy_files.core.tasks import TaskRecord
from flask_comfy_files.web import problems
from flask_comfy_files.web.access import Action
from flask_comfy_files.web.openapi.examples import ERRORS
from flask_comfy_files.web.openapi.inputs import body_of, in_braces, parameters_of
from flask_comfy_files.web.openapi.records import (
    example_of,
    records_in,
    reference_to,
    schema_of,
)
from flask_comfy_files.web.route import Bytes, Outlasting, Route
from flask_comfy_files.web.schemas.base import Loose

Json = dict[str, Any]
Refusal = ComfyFilesError | HTTPException

_PROBLEM: Final = "application/problem+json"
_INTRODUCTION: Final = """\
Files of ComfyUI jobs: organized by project and job, recorded with checksums, served, and cleaned up safely.

Errors are `application/problem+json` (RFC 9457); `code` says which one it is. Every JSON answer to a `GET` has an
`ETag`. What takes longer than a request may is answered with 202 and a task, which `Location` leads to.
"""
_ACCESS: Final = {
    None: "Open to all.",
    Action.READ: "Access: `read`.",
    Action.WRITE: "Access: `write`.",
    Action.DELETE: "Access: `delete`.",
    Action.DESTROY: "Access: `destroy`, for what nothing can undo.",
}
_ETAG: Final = {"ETag": {"description": "Changes with the answer.", "schema": {"type": "string"}}}
_LINK: Final = {
    "Link": {
        "description": "Where there is a next page, its address (RFC 8288), relative to this one.",
        "schema": {"type": "string"},
    }
}
_LOCATION: Final = {
    "Location": {"description": "The address of the task.", "schema": {"type": "string"}}
}
_PROBLEM_SCHEMA: Final = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "The code as a URN."},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer", "description": "The status."},
        "detail": {"type": "string", "description": "What happened, and what to do."},
        "code": {"type": "string", "description": "Which error it is; stable."},
        "errors": {"type": "object", "description": "By field, what is wrong with it."},
        "candidates": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The ids of the files for which an ambiguous name stands.",
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


@functools.lru_cache(maxsize=8)
def describe(
    routes: tuple[tuple[str, Route], ...], prefix: str, behind_token: frozenset[Action]
) -> Json:
    """Return the document of an app's routes, each behind its rule; it is shared, and not to be changed.

    ``behind_token`` are the actions for which the app wants a token.
    """
    paths: dict[str, Json] = defaultdict(dict)
    records: dict[str, type[Any]] = records_in(TaskRecord)
    for path, route in routes:
        paths[in_braces(path)][route.method.lower()] = _operation(route, behind_token)
        if not isinstance(route.answer, Bytes):
            records |= records_in(route.answer)
    schemas = {name: schema_of(records[name]) for name in sorted(records)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flask-comfy-files",
            "version": version("flask-comfy-files"),
            "description": _INTRODUCTION,
        },
        # Relative to the document, so that it holds below any path that a proxy puts before.
        "servers": [{"url": "/".join([".."] * prefix.count("/"))}],
        "paths": dict(paths),
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM_SCHEMA},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, behind_token: frozenset[Action]) -> Json:
    operation: Json = {
        "operationId": route.name,
        "tags": [route.subject],
        "summary": route.summary,
        "description": _ACCESS[route.action],
        "x-access": None if route.action is None else str(route.action),
        "parameters": parameters_of(route),
        "responses": {**_successes(route), **_refusals(route)},
        "security": [{"token": []}] if route.action in behind_token else [],
    }
    body = body_of(route)
    return operation if body is None else {**operation, "requestBody": body}


def _successes(route: Route) -> Json:
    if isinstance(route.answer, Bytes):
        return _answers_of_bytes(route.answer)
    is_asked = route.method == "GET"
    headers = {**_ETAG, **_link_of(route.answer)} if is_asked else {}
    answers = {"200": _answer(route.answer, route.summary, headers)}
    if is_asked:
        answers["304"] = {"description": "The client has this answer already.", "headers": _ETAG}
    if isinstance(route.view, Outlasting) or (route.answer is TaskRecord and not is_asked):
        kind = {"kind": route.view.kind} if isinstance(route.view, Outlasting) else {}
        answers["202"] = _answer(TaskRecord, "It takes longer, and is a task now.", _LOCATION, kind)
    return answers


def _link_of(record: type[Any]) -> Json:
    """Return the header of an answer that may be one of several pages."""
    return _LINK if "next_cursor" in {entry.name for entry in fields(record)} else {}


def _answer(record: type[Any], text: str, headers: Json, besides: Json | None = None) -> Json:
    content = {"schema": reference_to(record), "example": example_of(record, besides)}
    answer: Json = {"description": text, "content": {"application/json": content}}
    return {**answer, "headers": headers} if headers else answer


def _answers_of_bytes(answer: Bytes) -> Json:
    content: Json = {media_type: {"schema": {}} for media_type in answer.media_types}
    described = {"description": answer.description, "content": content}
    if not answer.has_etag:
        return {"200": described}
    described |= {"headers": _ETAG}
    part = {"206": {**described, "description": "The part that was asked for."}}
    return {
        "200": described,
        **(part if answer.has_ranges else {}),
        "304": {"description": "The client has these bytes already.", "headers": _ETAG},
    }


def _refusals(route: Route) -> Json:
    by_status: dict[int, dict[str, Json]] = defaultdict(dict)
    for refusal in _refusals_of(route):
        if isinstance(refusal, ComfyFilesError):
            problem = problems.answer_error(refusal)
        else:
            problem = problems.answer_http_error(refusal)
        body = json.loads(problem.get_data())
        by_status[problem.status_code][body["code"]] = body
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}: "
            + ", ".join(f"`{code}`" for code in sorted(found)),
            "content": {
                _PROBLEM: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"value": found[code]} for code in sorted(found)},
                }
            },
        }
        for status, found in sorted(by_status.items())
    }


def _refusals_of(route: Route) -> Iterator[Refusal]:
    for kind in dict.fromkeys([*route.errors, *_errors_of_any(route)]):
        yield ERRORS[kind] if issubclass(kind, ComfyFilesError) else kind()
    yield InternalServerError()
    if route.method != "GET":
        yield from (RequestEntityTooLarge(), UnsupportedMediaType())
    if isinstance(route.answer, Bytes) and route.answer.has_ranges:
        yield RequestedRangeNotSatisfiable()
    if route.has_etag:
        yield PreconditionFailed()


def _errors_of_any(route: Route) -> Iterator[type[ComfyFilesError]]:
    """Yield what input, access and the disk can make of any route of this form."""
    takes_body = route.method != "GET"
    if route.action is not None:
        yield from (errors.TokenRequiredError, errors.AccessDeniedError)
    if takes_body:
        yield from (problems.MalformedJsonError, errors.LockTimeoutError)
    if takes_body or not issubclass(route.query, Loose):
        yield problems.MalformedBodyError
    if {"job_id", "project_id"} & _names_of(route):
        yield errors.InvalidIdentifierError
    yield from (errors.LibraryUnavailableError, errors.StorageError)


def _names_of(route: Route) -> set[str]:
    body = route.body or route.optional_body
    in_body = set() if body is None else set(body().fields)
    return in_body | {parameter["name"] for parameter in parameters_of(route)}
