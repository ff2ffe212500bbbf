"""How a request is read: JSON strictly, and what its schema refuses as our error."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from flask import Request
from marshmallow import RAISE, Schema, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from flask_comfy_files.web.problems import MalformedBodyError, MalformedJsonError

LARGEST_BODY_BYTES: Final = 4 * 1024**2
"""Room for tens of thousands of file names; a larger body is refused before it is parsed."""


class BodyParser(FlaskParser):
    """Reads JSON strictly, by itself: the host's JSON provider may be more forgiving."""

    # None leaves it to each schema.
    DEFAULT_UNKNOWN_BY_LOCATION: dict[str, str | None] = {"json": None, "query": None}  # noqa: RUF012 - as webargs has it

    def load_json(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 - webargs' signature
        """Return the body of a request that must be JSON.

        Raises:
            MalformedJsonError: It is none.
            UnsupportedMediaType: It is not called ``application/json``.
            RequestEntityTooLarge: It is larger than the limit.
        """
        if req.mimetype != "application/json":
            raise UnsupportedMediaType("Send the body as application/json.")
        return read_json(read_body(req))

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """Return the words of an address; where each counts, none may be said twice.

        Raises:
            MalformedBodyError: One is, and only one of its values could be meant.
        """
        if schema.unknown == RAISE:
            twice = {word: ["It stands twice."] for word, said in req.args.lists() if len(said) > 1}
            if twice:
                raise MalformedBodyError(
                    f"The request is not valid: see {', '.join(sorted(twice))}.", twice
                )
        return super().load_querystring(req, schema)

    def handle_error(
        self,
        error: ValidationError,
        req: Request,  # noqa: ARG002 - webargs' signature
        schema: Schema,  # noqa: ARG002
        *,
        error_status_code: int | None,  # noqa: ARG002
        error_headers: Mapping[str, str] | None,  # noqa: ARG002
    ) -> NoReturn:
        """Turn what a schema refuses into our error."""
        located = error.messages_dict
        messages = located.get("json", located.get("query", located))
        if not isinstance(messages, dict):
            messages = {"body": messages}
        if "_schema" in messages:  # it is no object at all
            messages = {"body": messages["_schema"]}
        fields_ = ", ".join(sorted(map(str, messages)))
        raise MalformedBodyError(f"The request is not valid: see {fields_}.", messages)


def read_body(request: Request) -> bytes:
    """Return a request's body, as far as it is within the limit; the host may have read it already.

    Raises:
        RequestEntityTooLarge: It is larger, or larger than the host's own ``MAX_CONTENT_LENGTH``.
    """
    host_limit = request.max_content_length
    limit = LARGEST_BODY_BYTES if host_limit is None else min(host_limit, LARGEST_BODY_BYTES)
    # One more: Werkzeug ends a chunked body at its limit, and does not say that there was more.
    request.max_content_length = limit + 1
    try:
        body = request.get_data(cache=True)
    finally:
        request.max_content_length = host_limit
    if len(body) > limit:
        raise RequestEntityTooLarge
    return body


def read_json(body: bytes) -> Any:
    """Parse JSON as RFC 8259 has it, and refuse what is ambiguous.

    Raises:
        MalformedJsonError: It is not UTF-8, not JSON, nested too deeply, has a key twice, a number that
            is none, or half a surrogate pair.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique_keys,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        _refuse("it holds half a surrogate pair, which is no character")
    except UnicodeDecodeError:
        _refuse("it is not UTF-8")
    except RecursionError:
        _refuse("it is nested too deeply")
    except ValueError as error:
        _refuse(str(error))
    return value


def _refuse(problem: str) -> NoReturn:
    raise MalformedJsonError(f"The request body is not valid JSON: {problem}.", {"body": [problem]})


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no number in JSON"
    raise ValueError(message)


def _finite(literal: str) -> float:
    number = float(literal)
    if number in {float("inf"), float("-inf")}:
        message = f"{literal[:40]} is too large a number"
        raise ValueError(message)
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        twice = next(
            name for name, number in Counter(key for key, _ in pairs).items() if number > 1
        )
        message = f"the key {twice[:100]!a} stands twice in one object"
        raise ValueError(message)
    return unique


body_parser: Final = BodyParser()
