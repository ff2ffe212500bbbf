"""What requests say of the files from before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import fields, validate

from flask_comfy_files.core.detection import Grouping
from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import MOST_ENTRIES, Flag, Strict


class MigrateBody(Strict):
    """``POST /migrate``; what ``jobs`` and ``group_by`` may be is checked in the core."""

    example: ClassVar[Mapping[str, Any]] = {"dry_run": True}

    dry_run = Flag(load_default=False)
    recursive = Flag(load_default=False)
    leave_unmatched = Flag(load_default=False)
    group_by = fields.String(
        load_default=None, allow_none=True, metadata={"enum": [*map(str, Grouping), None]}
    )
    jobs = fields.Raw(load_default=None, allow_none=True, metadata=forms.HOST_LIST)


class AssignBody(Strict):
    """``POST /legacy/assign``."""

    files = fields.List(
        fields.String(),
        required=True,
        validate=validate.Length(min=1, max=MOST_ENTRIES),
        metadata={"description": "What is given to the job: ids, or paths."},
    )
    job_id = fields.String(required=True, metadata=forms.IDENTIFIER)
    project_id = fields.String(load_default=None, allow_none=True, metadata=forms.IDENTIFIER)
