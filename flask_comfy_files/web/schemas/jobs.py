"""What requests say of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import fields, validate

from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import FilesOfJob, Flag, Loose, Strict


class OrganizeBody(FilesOfJob, Strict):
    """``POST /organize``."""

    example: ClassVar[Mapping[str, Any]] = {
        "job_id": "clip_8",
        "project_id": "tokyo_debt_series",
        "files": [{"filename": "AnimateDiff_00001.mp4", "subfolder": "", "type": "output"}],
    }

    job_id = fields.String(required=True, metadata=forms.IDENTIFIER)


class _LooseId(fields.String):
    """An id that a host may keep as a number."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return super()._deserialize(str(value) if is_number else value, attr, data, **options)


class CompletionBody(FilesOfJob, Loose):
    """What we look at in the body of a completion; the rest is the host's own."""

    project_id = _LooseId(load_default=None, allow_none=True, metadata=forms.LOOSE_ID)
    prompt_id = _LooseId(load_default=None, allow_none=True, metadata=forms.LOOSE_PROMPT_ID)


class UpdateBody(Strict):
    """``PATCH /jobs/{job_id}``."""

    example: ClassVar[Mapping[str, Any]] = {"pinned": True, "tags": ["hero"]}

    pinned = Flag(load_default=None)
    tags = fields.List(fields.String(metadata=forms.TAG), load_default=None, metadata=forms.TAGS)


class DeleteQuery(Strict):
    """``DELETE /jobs/{job_id}``."""

    permanent = fields.String(load_default="false", validate=validate.OneOf(["true", "false"]))
