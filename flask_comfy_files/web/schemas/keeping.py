"""What requests say of retention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validates_schema

from flask_comfy_files.web.schemas import forms
from flask_comfy_files.web.schemas.base import Flag, Strict, Whole


class PlanBody(Strict):
    """``POST /cleanup/plan``; what a number of days may be is checked in the core."""

    example: ClassVar[Mapping[str, Any]] = {"days": 30}

    days = Whole(load_default=None, allow_none=True, metadata=forms.DAYS)
    allow = fields.List(fields.String(metadata=forms.ALLOWANCE), load_default=list)


class CleanupBody(PlanBody):
    """``POST /cleanup``."""

    form = forms.PLAN_ALONE
    example: ClassVar[Mapping[str, Any]] = {"days": 30, "dry_run": True}
    dry_run = Flag(load_default=False)
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
