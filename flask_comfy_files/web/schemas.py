"""What requests may say: the only place where the field names of bodies are spelled.

A schema checks names and types; what an id or a path may look like is checked where it is used, in the
core, so that the Python API and the command line have the same rules.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from flask import Request
from marshmallow import (
    EXCLUDE,
    RAISE,
    Schema,
    ValidationError,
    fields,
    validate,
    validates_schema,
)
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from flask_comfy_files.web.problems import MalformedBodyError, MalformedJsonError

LARGEST_BODY_BYTES: Final = 4 * 1024**2
"""Room for tens of thousands of file names; a larger body is refused before it is parsed."""

MOST_FILES: Final = 20_000

MOST_VERIFY_SECONDS: Final = 25
"""Below the 30 s after which gunicorn takes a worker for dead."""


class _Job(Schema):
    """What a completion and an organize call have in common."""

    project_id = fields.String(load_default=None, allow_none=True)
    prompt_id = fields.String(load_default=None, allow_none=True)
    files = fields.List(
        fields.Raw(allow_none=True),  # what an entry may be is checked in the core, by its place
        load_default=None,
        allow_none=True,
        validate=validate.Length(max=MOST_FILES),
    )


class OrganizeBody(_Job):
    """``POST /organize``."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    job_id = fields.String(required=True)


class _LooseId(fields.String):
    """An id that a host may keep as a number."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return super()._deserialize(str(value) if is_number else value, attr, data, **options)


class CompletionBody(_Job):
    """What we look at in the body of a completion; the rest is the host's own."""

    project_id = _LooseId(load_default=None, allow_none=True)
    prompt_id = _LooseId(load_default=None, allow_none=True)

    class Meta:
        """A completion may say anything else."""

        unknown = EXCLUDE


class StampBody(Schema):
    """``POST /stamp``."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    prompt = fields.Dict(required=True)
    job_id = fields.String(required=True)
    project_id = fields.String(load_default=None, allow_none=True)
    extra_data = fields.Dict(load_default=None, allow_none=True)


class _Flag(fields.Field[bool]):
    """JSON's own true and false: a word or a number that might mean one of them is a mistake."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> bool:  # noqa: ARG002
        if not isinstance(value, bool):
            raise ValidationError("Not true or false.")
        return value


class UpdateBody(Schema):
    """``PATCH /jobs/{job_id}``."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    pinned = _Flag(load_default=None)
    tags = fields.List(fields.String(), load_default=None)


class PlanBody(Schema):
    """``POST /cleanup/plan``; what a number of days may be is checked in the core."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    days = fields.Raw(load_default=None, allow_none=True)
    allow = fields.List(fields.String(), load_default=list)


class CleanupBody(PlanBody):
    """``POST /cleanup``."""

    dry_run = _Flag(load_default=False)
    plan_id = fields.String(load_default=None, allow_none=True)

    @validates_schema
    def _require_plan_alone(self, data: Mapping[str, Any], **_options: Any) -> None:
        # What is given as 0 is given: `0 in (None, False)` is true.
        is_given = {
            "days": data["days"] is not None,
            "allow": bool(data["allow"]),
            "dry_run": data["dry_run"],
        }
        others = [key for key, given in is_given.items() if given]
        if data["plan_id"] is not None and others:
            raise ValidationError({key: ["A plan says itself what it deletes."] for key in others})


class MigrateBody(Schema):
    """``POST /migrate``; what ``jobs`` and ``group_by`` may be is checked in the core."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    dry_run = _Flag(load_default=False)
    recursive = _Flag(load_default=False)
    leave_unmatched = _Flag(load_default=False)
    group_by = fields.String(load_default=None, allow_none=True)
    jobs = fields.Raw(load_default=None, allow_none=True)


class AssignBody(Schema):
    """``POST /legacy/assign``."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    files = fields.List(
        fields.String(), required=True, validate=validate.Length(min=1, max=MOST_FILES)
    )
    job_id = fields.String(required=True)
    project_id = fields.String(load_default=None, allow_none=True)


class VerifyBody(Schema):
    """``POST /verify``; what a cursor may be is checked in the core."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    read_bytes = _Flag(load_default=False)
    max_seconds = fields.Integer(
        strict=True,
        load_default=None,
        validate=validate.Range(min=1, max=MOST_VERIFY_SECONDS),
    )
    cursor = fields.String(load_default=None, allow_none=True)


class RepairBody(Schema):
    """``POST /repair``; what a finding may be is checked in the core."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    findings = fields.List(
        fields.Raw(allow_none=True), required=True, validate=validate.Length(max=MOST_FILES)
    )
    dry_run = _Flag(load_default=False)


class DeleteQuery(Schema):
    """``DELETE /jobs/{job_id}``."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    permanent = fields.String(load_default="false", validate=validate.OneOf(["true", "false"]))


class ContentQuery(Schema):
    """``GET /{file_id}/content``."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    download = fields.String(load_default="0", validate=validate.OneOf(["0", "1"]))


class ChangesQuery(Schema):
    """``GET /operations/{operation_id}``: how much of it, and from where on."""

    class Meta:
        """A misspelled word must not pass for one that was left out."""

        unknown = RAISE

    limit = fields.Integer(load_default=1000)
    cursor = fields.String(load_default=None)


class OperationsQuery(ChangesQuery):
    """``GET /operations``."""

    kind = fields.String(load_default=None)
    limit = fields.Integer(load_default=50)


class UndoBody(Schema):
    """``POST /operations/{operation_id}/undo``."""

    class Meta:
        """A misspelled key must not pass for one that was left out."""

        unknown = RAISE

    dry_run = _Flag(load_default=False)


class NothingSaid(Schema):
    """An address or a body in which nothing may stand."""

    class Meta:
        """What is said would be passed over, and ``?dry_run=true`` must not delete anything."""

        unknown = RAISE


class NameQuery(Schema):
    """``GET /resolve`` and ``GET /view``: the words by which ComfyUI's ``/view`` names a file, and a run."""

    class Meta:
        """ComfyUI's clients add words of their own, such as ``preview`` and ``rand``."""

        unknown = EXCLUDE

    filename = fields.String(required=True)
    subfolder = fields.String(load_default="")
    comfyui_type = fields.String(data_key="type", load_default="output")
    prompt_id = fields.String(load_default=None)


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
