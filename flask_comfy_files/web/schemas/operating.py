"""What requests say of operations, verification and repair."""

from __future__ import annotations

from typing import Any, Final

from marshmallow import ValidationError, fields, validate

from flask_comfy_files.core.operations import MOST_CHANGES, MOST_OPERATIONS
from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import MOST_ENTRIES, Flag, Strict, Whole

MOST_VERIFY_SECONDS: Final = 25
"""Below the 30 s after which gunicorn takes a worker for dead."""


class ChangesQuery(Strict):
    """``GET /operations/{operation_id}``: how much of it, and from where on."""

    limit = fields.Integer(
        load_default=MOST_CHANGES, metadata={"minimum": 1, "maximum": MOST_CHANGES}
    )
    cursor = fields.String(load_default=None, metadata=forms.CURSOR)


class OperationsQuery(ChangesQuery):
    """``GET /operations``."""

    kind = fields.String(
        load_default=None,
        metadata={"pattern": "^[ -~]*$", "description": "Only those of this kind."},
    )
    limit = fields.Integer(load_default=50, metadata={"minimum": 1, "maximum": MOST_OPERATIONS})


class UndoBody(Strict):
    """``POST /operations/{operation_id}/undo``."""

    dry_run = Flag(load_default=False)


class _Seconds(Whole):
    """A whole number of seconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> int:
        number = super()._deserialize(value, attr, data, **options)
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValidationError("Not a valid integer.")
        return number


class VerifyBody(Strict):
    """``POST /verify``; what a cursor may be is checked in the core."""

    read_bytes = Flag(load_default=False)
    max_seconds = _Seconds(
        load_default=None,
        metadata={"type": "integer", "minimum": 1, "maximum": MOST_VERIFY_SECONDS},
        validate=validate.Range(min=1, max=MOST_VERIFY_SECONDS),
    )
    cursor = fields.String(load_default=None, allow_none=True, metadata=forms.VERIFY_CURSOR)


class RepairBody(Strict):
    """``POST /repair``; what a finding may be is checked in the core."""

    findings = fields.List(
        fields.Raw(allow_none=True, metadata=forms.FINDING),
        required=True,
        validate=validate.Length(max=MOST_ENTRIES),
    )
    dry_run = Flag(load_default=False)
