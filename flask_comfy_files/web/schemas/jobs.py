"""What requests say of jobs."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import FilesOfJob, Flag, Loose, Strict


class OrganizeBody(FilesOfJob, Strict):
    """``POST /organize``."""

    job_id = fields.String(required=True, metadata=forms.IDENTIFIER)


class _LooseId(fields.String):
    """An id that a host may keep as a number."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return super()._deserialize(str(value) if is_number else value, attr, data, **options)


class CompletionBody(FilesOfJob, Loose):
    """What we look at in the body of a completion; the rest is the host's own."""

    project_id = _LooseId(load_default=None, allow_none=True, metadata=forms.IDENTIFIER)
    prompt_id = _LooseId(load_default=None, allow_none=True, metadata=forms.PROMPT_ID)


class UpdateBody(Strict):
    """``PATCH /jobs/{job_id}``."""

    pinned = Flag(load_default=None)
    tags = fields.List(fields.String(metadata=forms.TAG), load_default=None, metadata=forms.TAGS)


class DeleteQuery(Strict):
    """``DELETE /jobs/{job_id}``."""

    permanent = fields.String(load_default="false", validate=validate.OneOf(["true", "false"]))
